//! How clients go whose credential ends: sockets with 1001, channels with `phx_error`; and what becomes free with them.

use std::time::{Duration, Instant};

use bennu::protocol::etf::Term;
use serde_json::{Value, json};

use super::credentials::{MCP_SALT, claims, jwt, map, mcp_token, now_ms, now_s, operator_token, query, signed, texts};
use super::house::{House, Program, join};
use super::http::{Answer, ask};
use crate::mcp::peer::Peer;

const SESSION: &str = "mcp:session";
const INVALID: &str = "Token verification failed: invalid";
const PATIENCE: Duration = Duration::from_secs(10);

fn by_key(program: &Program, key: &str) -> Peer {
    Peer::open(program.address, &format!("vsn=2.0.0&api_key={key}"))
}

/// Asks until it holds: places come free a moment after their clients have gone.
#[track_caller]
fn until(holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn ping(program: &Program, bearer: &str) -> u16 {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}});
    post(program, bearer, "", &body).status
}

fn post(program: &Program, bearer: &str, session: &str, message: &Value) -> Answer {
    let bearer = format!("Bearer {bearer}");
    let mut headers = vec![
        ("Authorization", &*bearer),
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
    ];
    if !session.is_empty() {
        headers.push(("Mcp-Session-Id", session));
    }
    ask(program.address, "POST", "/mcp", &headers, Some(message.to_string().as_bytes()))
}

#[test]
fn a_revoked_key_closes_all_that_came_by_it_and_nothing_else() {
    let program = Program::start("");
    let (id, key) = program.key("ann", "admin");
    let (_, other_key) = program.key("ann", "admin");
    let socket = by_key(&program, &key);
    let mut by_channel = program.socket("ann");
    by_channel.joined(SESSION, &join("apiKey", &key));
    let mut by_topic = program.socket("ann");
    by_topic.joined("mcp:runs", &json!({"apiKey": key}));
    let mut inherits = by_key(&program, &key);
    inherits.joined("mcp:server:bennu", &json!({}));
    let mut other = by_key(&program, &other_key);
    other.joined(SESSION, &join("apiKey", &other_key));
    assert_eq!(ping(&program, &key), 200);

    let revoked = program.operate("DELETE", &format!("keys/{id}"), None);

    // Two sockets, a channel on one of them, two on sockets that came by a token, and a session over HTTP.
    assert_eq!(revoked["closed"], 6, "{revoked}");
    for (name, peer) in [("socket", &socket), ("channel", &by_channel), ("topic", &by_topic), ("inherits", &inherits)] {
        assert_eq!(peer.closed(), 1001, "{name}");
    }
    assert!(other.is_open());
    other.push(SESSION, "heartbeat", &json!({}));
    let refused = ask(program.address, "GET", &format!("/socket/longpoll?vsn=2.0.0&api_key={key}"), &[], None);
    assert_eq!(refused.body, r#"{"status":403}"#);
    assert_eq!(program.socket("ann").refused(SESSION, &join("apiKey", &key)), "Invalid API key");
    assert_eq!((ping(&program, &key), ping(&program, &other_key)), (401, 200));
    assert_eq!(program.operate("GET", "security", None)["sessions"]["active_sessions"], 1, "the other's");
}

#[test]
fn a_revoked_key_ends_long_polls() {
    let program = Program::start("");
    let (id, key) = program.key("ann", "admin");
    let opened = ask(program.address, "GET", &format!("/socket/longpoll?vsn=2.0.0&api_key={key}"), &[], None).json();
    let token = opened["token"].as_str().unwrap_or_else(|| panic!("a token: {opened}")).to_owned();

    program.operate("DELETE", &format!("keys/{id}"), None);

    let poll = || ask(program.address, "GET", &format!("/socket/longpoll?vsn=2.0.0&token={token}"), &[], None).json();
    // The poll that finds it gone says 204 as Phoenix does, or it is gone already; then the token opens nothing.
    until(|| poll()["status"] == 403);
}

#[test]
fn a_revoked_user_is_cut_off_however_they_came() {
    let program = Program::start("");
    let (_, key) = program.key("ann", "user");
    let web = jwt(&claims("ann", "user", 600));
    let sockets = [
        program.socket("ann"),
        by_key(&program, &key),
        Peer::open(program.address, &format!("vsn=2.0.0&token={}", query(&web))),
    ];
    let mut guest = program.socket("bob");
    guest.joined(SESSION, &join("token", &mcp_token("ann", "user")));
    let mut bob = program.socket("bob");
    bob.joined(SESSION, &join("token", &mcp_token("bob", "user")));

    program.operate("POST", "revoke", Some(&json!({"user": "ann"})));

    for socket in &sockets {
        assert_eq!(socket.closed(), 1001);
    }
    assert_eq!(guest.closed(), 1001, "ann's session on it was all that there was to cut off");
    bob.push(SESSION, "heartbeat", &json!({}));
}

#[test]
fn a_revoked_jwt_is_known_by_its_id_even_after_a_restart() {
    let program = Program::start("");
    let token = |id: &str| {
        let mut claims = claims("ann", "user", 600);
        claims["jti"] = json!(id);
        jwt(&claims)
    };
    let open = |id: &str| Peer::open(program.address, &format!("vsn=2.0.0&token={}", query(&token(id))));
    let (one, mut two) = (open("one"), open("two"));
    two.joined(SESSION, &join("token", &token("two")));

    let revoked = program.operate("POST", "revoke", Some(&json!({"credential": "jwt:one"})));

    assert_eq!((revoked, one.closed()), (json!({"closed": 1}), 1001));
    assert_eq!(two.refused("mcp:session:2", &join("token", &token("one"))), INVALID);
    drop(two);
    let program = Program::start_in(program.kill(), "");
    let mut peer = program.socket("ann");
    assert_eq!(peer.refused(SESSION, &join("token", &token("one"))), INVALID);
    peer.joined(SESSION, &join("token", &token("two")));
}

#[test]
fn a_socket_closes_when_its_token_ends_and_not_before() {
    let program = Program::start("");
    let end_s = now_s() + 2;
    let claims = json!({"sub": "ann", "roles": ["admin"], "exp": end_s});
    let mut peer = Peer::open(program.address, &format!("vsn=2.0.0&token={}", query(&jwt(&claims))));
    peer.joined("mcp:server:bennu", &json!({}));

    assert_eq!(peer.closed(), 1001);

    assert!(now_ms() >= end_s * 1_000, "{} ms too soon", end_s * 1_000 - now_ms());
    assert!(now_ms() < end_s * 1_000 + 5_000);
}

#[test]
fn a_channel_whose_token_ends_fails_and_the_others_of_its_socket_do_not() {
    let program = Program::start("topics.patterns = [\"room:*\"]");
    let mut peer = program.socket("ann");
    let end_s = now_s() + 2;
    let short = jwt(&json!({"sub": "ann", "roles": ["admin"], "exp": end_s}));
    peer.joined(SESSION, &join("token", &short));
    peer.joined("mcp:runs", &json!({"token": short}));
    peer.joined("room:1", &json!({"access_token": short}));
    peer.joined("mcp:server:bennu", &join("token", &mcp_token("ann", "admin")));

    for topic in [SESSION, "mcp:runs", "room:1"] {
        let failed =
            peer.wait(|frame| frame.topic == topic && frame.event.starts_with("phx_") && frame.event != "phx_reply");
        assert_eq!((&*failed.event, failed.payload), ("phx_error", json!({"reason": "channel_crash"})), "{topic}");
        assert!(now_ms() >= end_s * 1_000);
    }
    assert!(peer.is_open());
    peer.push("mcp:server:bennu", "heartbeat", &json!({}));
    assert_eq!(peer.refused(SESSION, &join("token", &short)), "Token verification failed: expired");
    peer.joined(SESSION, &join("token", &jwt(&claims("ann", "admin", 60))));
}

#[test]
fn a_later_token_keeps_a_channel_and_its_socket() {
    let program = Program::start("topics.patterns = [\"room:*\"]");
    let short = jwt(&claims("ann", "admin", 2));
    let mut peer = Peer::open(program.address, &format!("vsn=2.0.0&token={}", query(&short)));
    peer.joined("mcp:server:bennu", &json!({}));
    peer.joined("room:1", &json!({}));
    let later = jwt(&claims("ann", "admin", 600));
    let renew =
        |peer: &mut Peer, topic: &str, token: Value| peer.push(topic, "access_token", &json!({"access_token": token}));

    for topic in ["mcp:server:bennu", "room:1"] {
        for (token, why) in [
            (json!(1), "access_token must be a string"),
            (json!("x"), INVALID),
            (json!(jwt(&claims("bob", "admin", 600))), "access_token is another user's"),
            (json!(jwt(&json!({"sub": "ann", "exp": now_s() - 60}))), "Token verification failed: expired"),
        ] {
            let reply = renew(&mut peer, topic, token);
            assert_eq!(reply, json!({"status": "error", "response": {"reason": why}}), "{topic}");
        }
    }
    let ok = json!({"status": "ok", "response": {}});
    assert_eq!(renew(&mut peer, "mcp:server:bennu", json!(later)), ok);
    // The second shares its socket's user, and so its rights.
    std::thread::sleep(Duration::from_millis(3_000));

    assert!(peer.is_open());
    assert_eq!(peer.push("room:1", "said", &json!({})), ok);
    assert_eq!(renew(&mut peer, "room:1", json!(jwt(&claims("ann", "admin", 1)))), ok);
    assert_eq!(peer.closed(), 1001, "a later token may end sooner");
}

#[test]
fn a_later_token_brings_its_own_rights() {
    let house = House::new(|_| {});
    let mut peer = house.socket("ann");
    peer.joined(SESSION, &join("token", &mcp_token("ann", "readonly")));
    let mut denied = |token: &str| {
        let renewed = peer.push(SESSION, "access_token", &json!({"access_token": token}));
        assert_eq!(renewed["status"], "ok", "{renewed}");
        let id = format!("{}", peer.frames.len());
        let response = peer.ask(SESSION, id.as_str(), "tools/call", json!({"name": "echo", "arguments": {}}));
        response["error"]["message"] == "Unauthorized: Missing capability: tools:call"
    };

    assert!(denied(&mcp_token("ann", "readonly")));
    assert!(!denied(&mcp_token("ann", "user")));
    assert!(denied(&mcp_token("ann", "dashboard")));
}

#[test]
fn a_users_sessions_are_counted_and_their_places_come_free_however_they_end() {
    let program = Program::start("");
    let token = mcp_token("ann", "user");
    let (key_id, key) = program.key("ann", "user");
    let full = "Maximum sessions (5) reached for user";
    let count = || program.operate("GET", "sessions?user=ann", None)["sessions"].as_array().expect("a list").len();
    let mut one = program.socket("ann");
    for n in 1..=3 {
        one.joined(&format!("mcp:session:{n}"), &join("token", &token));
    }
    let mut two = program.socket("ann");
    two.joined("mcp:server:bennu", &json!({"token": token}));
    two.joined("mcp:hub", &json!({"token": token}));
    let (mut three, mut four) = (program.socket("ann"), by_key(&program, &key));
    assert_eq!((three.refused(SESSION, &join("token", &token)), count()), (full.to_owned(), 5));
    assert_eq!(four.refused(SESSION, &join("apiKey", &key)), full, "by whatever credential");

    // It is left.
    one.push("mcp:session:1", "phx_leave", &json!({}));
    until(|| count() == 4);
    four.joined(SESSION, &join("apiKey", &key));
    assert_eq!(three.refused(SESSION, &join("token", &token)), full);
    // Its client joins the same topic again.
    one.joined("mcp:session:2", &join("token", &token));
    assert_eq!(count(), 5);
    // Its socket is gone without a word, with two of them.
    two.vanish();
    until(|| count() == 3);
    three.joined(SESSION, &join("token", &token));
    // It is cut off.
    program.operate("DELETE", &format!("keys/{key_id}"), None);
    until(|| count() == 3);
    // Its user is.
    program.operate("POST", "revoke", Some(&json!({"user": "ann"})));
    assert_eq!((one.closed(), three.closed()), (1001, 1001));
    // Their places come free as their channels end, which may be a moment after their sockets.
    until(|| program.socket("ann").join(SESSION, &join("token", &token)).0 == "ok");
}

#[test]
fn a_client_comes_back_with_the_rights_of_its_next_credential() {
    let program = Program::start("");
    let call = json!({"name": "stream_hash", "arguments": {"text": "x"}});
    let mut wish = join("token", &mcp_token("ann", "user"));
    wish["recoveryToken"] = json!(true);
    let mut peer = program.socket("ann");
    let joined = peer.joined(SESSION, &wish);
    let answer = peer.ask(SESSION, 1, "tools/call", call.clone());
    assert!(answer.get("result").is_some(), "{answer}");
    peer.vanish();

    wish["recoveryToken"] = joined["recoveryToken"].clone();
    wish["token"] = json!(mcp_token("ann", "readonly"));
    let mut peer = program.socket("ann");
    let again = peer.joined(SESSION, &wish);

    assert_eq!((&again["sessionId"], &again["resumed"]), (&joined["sessionId"], &json!(true)));
    assert_eq!(again["sessionToken"], joined["sessionToken"]);
    let refused = peer.ask(SESSION, 2, "tools/call", call);
    let text = refused["error"]["message"].as_str().unwrap_or_default();
    assert!(text.starts_with("Unauthorized"), "{refused}");
    // It was not run, so that it can be asked again by one who may.
    peer.vanish();
    wish["recoveryToken"] = again["recoveryToken"].clone();
    wish["token"] = json!(mcp_token("ann", "user"));
    let mut peer = program.socket("ann");
    peer.joined(SESSION, &wish);
    let call = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "stream_hash", "arguments": {"text": "x"}}});
    peer.message(SESSION, &call);
    peer.wait(|frame| frame.is_response(&json!(2)) && frame.payload.get("result").is_some());
}

#[test]
fn a_session_that_was_revoked_while_its_client_was_away_is_not_come_back_to() {
    let program = Program::start("");
    let mut wish = join("token", &mcp_token("ann", "user"));
    wish["recoveryToken"] = json!(true);
    let mut peer = program.socket("ann");
    let joined = peer.joined(SESSION, &wish);
    peer.vanish();
    let sessions = || program.operate("GET", "sessions?user=ann", None)["sessions"].clone();
    let id = sessions()[0]["id"].clone();

    program.operate("POST", "revoke", Some(&json!({"session": id})));

    until(|| sessions().as_array().is_some_and(Vec::is_empty));
    wish["recoveryToken"] = joined["recoveryToken"].clone();
    assert_eq!(program.socket("ann").joined(SESSION, &wish)["resumed"], false);
}

#[test]
fn a_revoked_session_takes_with_it_what_came_by_its_token() {
    let program = Program::start("");
    for opener in ["token", "apiKey"] {
        let user = format!("ann-{opener}");
        let credential = if opener == "token" { mcp_token(&user, "user") } else { program.key(&user, "user").1 };
        let mut peer = program.socket(&user);
        let joined = peer.joined(SESSION, &join(opener, &credential));
        let token = joined["sessionToken"].as_str().expect("a token").to_owned();
        let mut other = program.socket("bob");
        other.joined("mcp:runs", &json!({"token": token}));
        let sessions = program.operate("GET", &format!("sessions?user={user}"), None);
        let id = sessions["sessions"][0]["id"].as_str().unwrap_or_else(|| panic!("an id: {sessions}")).to_owned();

        let revoked = program.operate("POST", "revoke", Some(&json!({"session": id})));

        // The channel that is the session, and the one that came by its token.
        assert_eq!((revoked, other.closed(), peer.closed()), (json!({"closed": 2}), 1001, 1001), "{opener}");
        let refused = program.socket("bob").refused("mcp:runs", &json!({"token": token}));
        assert_eq!(refused, "Token revoked");
        let again = program.ask_as(&operator_token(), "POST", "revoke", Some(&json!({"session": id})));
        assert_eq!(again.status, 404, "{again:?}");
    }
}

#[test]
fn a_session_token_is_made_anew_in_its_last_minutes_and_ends_otherwise() {
    let program = Program::start("auth.session_timeout_ms = 4_000\nauth.session_refresh_window_ms = 2_500");
    let mut peer = program.socket("ann");
    let joined = peer.joined(SESSION, &join("token", &mcp_token("ann", "user")));
    let first = joined["sessionToken"].as_str().expect("a token").to_owned();
    assert!(joined["sessionExpiresAt"].as_str().is_some_and(|end| end.ends_with('Z')), "{joined}");
    let refresh =
        |peer: &mut Peer, token: Value| peer.push(SESSION, "refresh_session", &json!({"sessionToken": token}));
    let error = |why: &str| json!({"status": "error", "response": {"reason": why}});
    let mut guest = program.socket("ann");
    guest.joined("mcp:runs", &json!({"token": first}));

    assert_eq!(refresh(&mut peer, json!(first)), error("Token not eligible for refresh"));
    assert_eq!(refresh(&mut peer, json!(1)), error("sessionToken must be a string"));
    assert_eq!(refresh(&mut peer, json!(mcp_token("ann", "user"))), error("Invalid token: invalid"));
    std::thread::sleep(Duration::from_millis(2_000));
    let reply = refresh(&mut peer, json!(first));
    assert_eq!(reply["status"], "ok", "{reply}");
    let second = reply["response"]["sessionToken"].as_str().expect("a token").to_owned();
    assert_eq!(refresh(&mut peer, json!(first)), error("Token revoked"));
    let mut third = program.socket("ann");
    assert_eq!(third.refused("mcp:runs", &json!({"token": first})), "Token revoked");
    third.joined("mcp:runs", &json!({"token": second}));

    // The guest came by the first token, and has not brought the second.
    guest.wait(|frame| frame.topic == "mcp:runs" && frame.event == "phx_error");
    third.wait(|frame| frame.topic == "mcp:runs" && frame.event == "phx_error");
    let reason = third.refused("mcp:runs", &json!({"token": second}));
    assert!(["Session expired", "Session not found"].contains(&&*reason), "{reason}");
}

#[test]
fn a_session_over_http_has_the_rights_of_each_requests_credential() {
    let program = Program::start("");
    let (id, key) = program.key("ann", "admin");
    let opened = post(
        &program,
        &key,
        "",
        &json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}}),
    );
    let session = opened.header("mcp-session-id").unwrap_or_else(|| panic!("a session: {opened:?}")).to_owned();
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "workflows/list", "params": {}});
    let call = |bearer: &str| post(&program, bearer, &session, &list);
    let denied = "Unauthorized: Missing capability: workflows:list";

    assert!(call(&key).response()["result"].is_object());
    let weaker = call(&mcp_token("ann", "readonly")).response();
    assert_eq!(weaker["error"]["message"], denied, "{weaker}");
    program.operate("DELETE", &format!("keys/{id}"), None);
    assert_eq!(call(&key).status, 401);
    assert_eq!(call(&mcp_token("ann", "readonly")).response()["error"]["message"], denied);
    assert_eq!(call(&mcp_token("bob", "admin")).status, 404, "it is ann's");
}

#[test]
fn topics_of_the_servers_own_are_nobodys_whatever_the_patterns_are() {
    let house = House::new(|_| {});
    let fields = vec![
        ("user_id", Term::binary("mallory")),
        ("role", Term::binary("dashboard")),
        ("permissions", texts(&["topics:*"])),
    ];
    let token = signed(MCP_SALT, &map(fields));
    let mut ann = house.socket("ann");
    ann.joined(SESSION, &join("token", &mcp_token("ann", "user")));
    let mut mallory = house.socket("mallory");

    mallory.joined("room:1", &json!({"token": token}));
    for topic in ["bennu:revocations", "user_socket:ann"] {
        let (status, response) = mallory.join(topic, &json!({"token": token}));
        assert_eq!(status, "error", "{topic}: {response}");
    }
    for (topic, event, payload) in [
        ("bennu:revocations", "revoked", json!({"user": "ann"})),
        ("bennu:revocations", "revoked", json!({"node": 1, "revoked": {"user": "ann"}})),
        ("user_socket:ann", "disconnect", json!({})),
    ] {
        mallory.send(topic, event, &payload);
    }
    mallory.push("room:1", "said", &json!({}));
    ann.push(SESSION, "heartbeat", &json!({}));
    assert!(ann.is_open());
}
