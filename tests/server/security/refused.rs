//! What is refused, in which words and in which order: connects with 403 and nothing else, joins with a reason.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bennu::protocol::etf::Term;
use serde_json::{Value, json};

use super::credentials::{
    Bad, MCP_SALT, SOCKET_SALT, bad_jwts, bad_keys, bad_tokens, claims, jwt, map, mcp_token, query, signed,
    socket_token, texts,
};
use super::house::{House, join, pem};
use super::http::ask;
use crate::transcripts::client::{Client, Handshake};

const SESSION: &str = "mcp:session";
const INVALID: &str = "Token verification failed: invalid";
const EXPIRED: &str = "Token verification failed: expired";

fn user() -> Term {
    Term::binary("ann")
}

fn member() -> Term {
    map(vec![("user_id", Term::binary("ann")), ("role", Term::binary("user"))])
}

/// How a credential comes to a socket.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// A connect param of that name.
    Param(&'static str),
    /// phoenix.js' `authToken`: a subprotocol, or the header of long poll.
    AuthToken,
}

/// The status of a WebSocket handshake, and the body where it is refused.
fn by_websocket(house: &House, way: Way, text: &str) -> (u16, String) {
    let mut qs = "vsn=2.0.0".to_owned();
    let mut subprotocols = None;
    match way {
        Way::Param(name) => qs += &format!("&{name}={}", query(text)),
        Way::AuthToken => {
            let encoded = STANDARD_NO_PAD.encode(text);
            subprotocols = Some(vec!["phoenix".to_owned(), format!("base64url.bearer.phx.{encoded}")]);
        }
    }
    let handshake =
        Handshake { path: "/socket/websocket", qs: &qs, subprotocols: subprotocols.as_deref(), ..Handshake::default() };
    let mut client = Client::connect(house.address(), &handshake, &[], true);
    assert!(client.await_answer(Duration::from_secs(10)), "{way:?} {text:?} is answered");
    let answer = client.answer();
    (answer.status.unwrap_or(0), answer.body.unwrap_or_default())
}

/// The HTTP status of the first poll, and its body.
fn by_longpoll(house: &House, way: Way, text: &str) -> (u16, String) {
    let (target, header) = match way {
        Way::Param(name) => (format!("/socket/longpoll?vsn=2.0.0&{name}={}", query(text)), None),
        Way::AuthToken => ("/socket/longpoll?vsn=2.0.0".to_owned(), Some(("X-Phoenix-AuthToken", text))),
    };
    let headers: Vec<_> = header.into_iter().collect();
    let answer = ask(house.address(), "GET", &target, &headers, None);
    (answer.status, answer.body)
}

/// Whether a text can stand in a header as it is.
fn fits_header(text: &str) -> bool {
    text.bytes().all(|byte| (0x21..0x7f).contains(&byte) || byte == b' ') && text.trim() == text
}

/// What a connect gets whose head is larger than the server reads.
const TOO_LARGE: u16 = 431;
/// Bytes of a head that are read. Source: `server.header_bytes_max`.
const HEAD_BYTES_MAX: usize = 16_384;

#[track_caller]
fn check_refused(house: &House, way: Way, bad: &Bad, wrong: &mut Vec<String>) {
    let mut expect = |by: &str, came: (u16, String), expected: (u16, &str), length: usize| {
        let is_expected = match length {
            // What the query or the header adds is less than this.
            0..15_000 => came.0 == expected.0 && came.1 == expected.1,
            15_000..HEAD_BYTES_MAX => came.0 == TOO_LARGE || came.0 == expected.0 && came.1 == expected.1,
            _ => came.0 == TOO_LARGE,
        };
        if !is_expected {
            wrong.push(format!("{by} {way:?}, {}: came {} {:?}", bad.what, came.0, came.1));
        }
    };
    let in_query = query(&bad.text).len();
    let encoded = STANDARD_NO_PAD.encode(&bad.text).len();
    let (length, header) = match way {
        Way::Param(_) => (in_query, in_query),
        Way::AuthToken => (encoded, bad.text.len()),
    };
    expect("WebSocket", by_websocket(house, way, &bad.text), (403, ""), length);
    if matches!(way, Way::Param(_)) || fits_header(&bad.text) {
        expect("long poll", by_longpoll(house, way, &bad.text), (200, r#"{"status":403}"#), header);
    }
}

#[test]
fn a_good_credential_opens_a_socket_in_each_way_that_a_bad_one_does_not() {
    let house = House::new(|_| {});
    let web = jwt(&claims("ann", "user", 600));
    for good in [socket_token("ann"), web, signed(SOCKET_SALT, &Term::int(7)), signed(SOCKET_SALT, &member())] {
        for way in [Way::Param("token"), Way::AuthToken] {
            assert_eq!(by_websocket(&house, way, &good).0, 101, "{way:?} {good}");
            let (status, body) = by_longpoll(&house, way, &good);
            assert!(status == 200 && body.contains(r#""status":410"#), "{way:?} {good}: {body}");
        }
    }
}

#[test]
fn a_bad_token_is_refused_with_403_and_not_a_word_more() {
    let house = House::new(|_| {});
    let mut wrong = Vec::new();
    for bad in bad_tokens(SOCKET_SALT, user) {
        check_refused(&house, Way::Param("token"), &bad, &mut wrong);
        check_refused(&house, Way::AuthToken, &bad, &mut wrong);
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_bad_jwt_is_refused_with_403_and_not_a_word_more() {
    let house = House::new(|_| {});
    let mut wrong = Vec::new();
    for bad in bad_jwts(&pem()) {
        check_refused(&house, Way::Param("token"), &bad, &mut wrong);
        check_refused(&house, Way::AuthToken, &bad, &mut wrong);
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_bad_api_key_is_refused_with_403_and_not_a_word_more() {
    let house = House::new(|_| {});
    let mut wrong = Vec::new();
    for bad in bad_keys() {
        for name in ["api_key", "apiKey", "token"] {
            check_refused(&house, Way::Param(name), &bad, &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn params_that_are_no_text_bring_no_credential() {
    let house = House::new(|_| {});
    let token = query(&socket_token("ann"));
    for qs in [
        String::new(),
        format!("token[]={token}"),
        format!("token[a]={token}"),
        format!("Token={token}"),
        format!("params[token]={token}"),
        format!("api_key[]=x&token[x]={token}"),
        // A token wins over a key, whatever it is worth.
        "token=&api_key=x".to_owned(),
    ] {
        let target = format!("/socket/longpoll?vsn=2.0.0&{qs}");
        assert_eq!(ask(house.address(), "GET", &target, &[], None).body, r#"{"status":403}"#, "{qs}");
        let qs = format!("vsn=2.0.0&{qs}");
        let handshake = Handshake { path: "/socket/websocket", qs: &qs, ..Handshake::default() };
        let mut client = Client::connect(house.address(), &handshake, &[], true);
        client.await_answer(Duration::from_secs(10));
        assert_eq!((client.answer().status, client.answer().body.as_deref()), (Some(403), Some("")), "{qs}");
    }
}

#[test]
fn a_megabyte_in_a_param_is_refused_by_the_size_of_the_head() {
    let house = House::new(|_| {});
    let huge = "A".repeat(1 << 20);
    for target in ["/socket/websocket", "/socket/longpoll"] {
        let answer = ask(house.address(), "GET", &format!("{target}?vsn=2.0.0&token={huge}"), &[], None);
        // The server may hang up before all of it was sent, and the answer be lost on the way.
        assert!([0, 431, 414].contains(&answer.status), "{answer:?}");
    }
    let answer = ask(house.address(), "GET", "/socket/longpoll?vsn=2.0.0", &[("X-Phoenix-AuthToken", &huge)], None);
    assert!([0, 431].contains(&answer.status), "{answer:?}");
    assert_eq!(by_websocket(&house, Way::Param("token"), &socket_token("ann")).0, 101, "others come in");
}

#[test]
fn joins_are_refused_in_the_order_of_the_deployment() {
    let house = House::new(|_| {});
    let mut peer = house.socket("ann");
    let good = mcp_token("ann", "user");
    let info = |name: Value, version: Value| json!({"name": name, "version": version});
    let no_client = "Missing required clientInfo parameter";
    let nothing = "No authentication credentials provided";
    let cases = [
        (json!({}), no_client),
        (json!({"token": good}), no_client),
        (json!({"token": "bad", "clientInfo": null}), no_client),
        (json!({"token": "bad", "clientInfo": "x"}), no_client),
        (json!({"token": "bad", "clientInfo": []}), no_client),
        (json!({"token": "bad", "clientInfo": {}}), "Missing or invalid client name"),
        (json!({"clientInfo": info(json!(""), json!(""))}), "Missing or invalid client name"),
        (json!({"clientInfo": info(json!(1), json!("1"))}), "Missing or invalid client name"),
        (json!({"token": "bad", "clientInfo": info(json!("a"), json!(null))}), "Missing or invalid client version"),
        (
            json!({"clientInfo": {"name": "a", "version": "1", "capabilities": []}, "token": "bad"}),
            "Invalid client capabilities format",
        ),
        (json!({"clientInfo": info(json!("a"), json!("1"))}), nothing),
        (json!({"clientInfo": info(json!("a"), json!("1")), "token": 1, "apiKey": null}), nothing),
        (json!({"clientInfo": info(json!("a"), json!("1")), "token": ["x"], "apiKey": {"a": 1}}), nothing),
        (json!({"clientInfo": info(json!("a"), json!("1")), "api_key": "x", "access_token": good}), nothing),
        (json!({"clientInfo": info(json!("a"), json!("1")), "token": ""}), INVALID),
        (json!({"clientInfo": info(json!("a"), json!("1")), "token": "", "apiKey": "x"}), INVALID),
        (json!({"clientInfo": info(json!("a"), json!("1")), "token": 1, "apiKey": "x"}), "Invalid API key"),
        (json!({"clientInfo": info(json!("a"), json!("1")), "apiKey": ""}), "Invalid API key"),
        (json!({"clientInfo": info(json!("a"), json!("1")), "apiKey": good}), "Invalid API key"),
        (json!({"clientInfo": info(json!("a"), json!("1")), "token": socket_token("ann")}), INVALID),
    ];
    for (params, expected) in cases {
        assert_eq!(peer.refused(SESSION, &params), expected, "{params}");
    }
    assert_eq!(peer.refused("mcp:session:", &join("token", "bad")), "Unknown channel topic");
    assert_eq!(peer.refused("mcp:server:nobody", &join("token", "bad")), "unknown MCP server");
    assert_eq!(peer.refused("mcp:else", &join("token", &good)), "Unknown channel topic");
    peer.joined(SESSION, &join("token", &good));
}

#[test]
fn a_user_has_so_many_sessions_and_is_told_so_last() {
    let house = House::new(|options| options.sessions.per_user_max = 2);
    let mut peer = house.socket("ann");
    let ann = mcp_token("ann", "user");
    peer.joined("mcp:session:1", &join("token", &ann));
    peer.joined("mcp:session:2", &join("token", &ann));

    assert_eq!(peer.refused("mcp:session:3", &join("token", &ann)), "Maximum sessions (2) reached for user");
    assert_eq!(peer.refused("mcp:session:3", &join("token", "bad")), INVALID);
    let dashboard = mcp_token("ann", "dashboard");
    assert_eq!(peer.refused("mcp:server:other", &json!({"token": dashboard})), "unknown MCP server");
    peer.joined("mcp:session:3", &join("token", &mcp_token("bob", "user")));
}

#[test]
fn an_address_that_may_not_come_is_told_so_on_a_join_and_nothing_on_a_connect() {
    let house = House::new(|options| {
        options.trusted_proxies = vec!["127.0.0.1".to_owned()];
        options.deny = vec!["203.0.113.0/24".to_owned()];
        options.locking.failures_max = 2;
    });
    let from = |ip: &str| {
        let headers = [("X-Forwarded-For".to_owned(), ip.to_owned())];
        let qs = format!("vsn=2.0.0&token={}", query(&socket_token("ann")));
        let handshake = Handshake { path: "/socket/websocket", qs: &qs, headers: &headers, ..Handshake::default() };
        let mut client = Client::connect(house.address(), &handshake, &[], true);
        client.await_answer(Duration::from_secs(10));
        client
    };
    let refused = from("203.0.113.7").answer();
    assert_eq!((refused.status, refused.body.as_deref()), (Some(403), Some("")));

    let mut client = from("198.51.100.7");
    assert_eq!(client.answer().status, Some(101));
    let reply = |client: &mut Client, token: &str| {
        client.send_text(&json!(["1", "1", SESSION, "phx_join", join("token", token)]).to_string());
        let (_, _, _, _, reply): (Value, Value, Value, Value, Value) =
            serde_json::from_str(&client.next_text()).expect("a frame");
        reply["response"]["reason"].as_str().map(str::to_owned)
    };
    assert_eq!(reply(&mut client, "one guess").as_deref(), Some(INVALID));
    assert_eq!(reply(&mut client, "another").as_deref(), Some(INVALID));
    let locked = reply(&mut client, &mcp_token("ann", "user"));
    assert_eq!(locked.as_deref(), Some("IP access denied: IP temporarily blocked"));
    assert_eq!(from("198.51.100.7").answer().status, Some(403));
    assert_eq!(from("198.51.100.8").answer().status, Some(101));
}

#[test]
fn a_bad_credential_is_refused_on_a_join_with_one_of_two_words() {
    let house = House::new(|_| {});
    let mut peer = house.socket("ann");
    let mut wrong = Vec::new();
    for bad in bad_tokens(MCP_SALT, member).into_iter().chain(bad_jwts(&pem())) {
        let expected = if bad.is_expired { EXPIRED } else { INVALID };
        let (status, response) = peer.join(SESSION, &join("token", &bad.text));
        if status != "error" || response != json!({"reason": expected}) {
            wrong.push(format!("{}: expected {expected}, came {status} {response}", bad.what));
        }
        // The frames are not looked at again.
        peer.frames.clear();
    }
    for bad in bad_keys() {
        let (status, response) = peer.join(SESSION, &join("apiKey", &bad.text));
        if status != "error" || response != json!({"reason": "Invalid API key"}) {
            wrong.push(format!("{}: came {status} {response}", bad.what));
        }
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
    assert!(peer.is_open());
    peer.joined(SESSION, &join("token", &mcp_token("ann", "user")));
}

#[test]
fn a_bad_credential_is_refused_over_http_with_401_and_a_challenge() {
    let house = House::new(|_| {});
    let post = |authorization: Option<&str>| {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(authorization.map(|value| ("Authorization", value)));
        ask(house.address(), "POST", "/mcp", &headers, Some(body.as_bytes()))
    };
    let said = |answer: &super::http::Answer| {
        let answer = answer.json();
        let text = answer["error"]["message"].as_str();
        text.and_then(|text| text.strip_prefix("Invalid request: ")).map(str::to_owned)
    };

    let nothing = post(None);
    assert_eq!((nothing.status, nothing.header("www-authenticate")), (401, Some("Bearer")));
    assert_eq!(said(&nothing).as_deref(), Some("No authentication credentials provided"));
    for other in ["Basic YW5uOmFubg==", "Bearer", "bearer"] {
        assert_eq!(said(&post(Some(other))).as_deref(), Some("No authentication credentials provided"), "{other}");
    }
    let mut wrong = Vec::new();
    for bad in bad_tokens(MCP_SALT, member).into_iter().chain(bad_jwts(&pem())).chain(bad_keys()) {
        if !fits_header(&bad.text) || bad.text.is_empty() || bad.text.len() > 15_000 {
            continue;
        }
        // What has no dot is an API key.
        let expected = match (bad.is_expired, bad.text.contains('.')) {
            (true, _) => EXPIRED,
            (false, true) => INVALID,
            (false, false) => "Invalid API key",
        };
        let answer = post(Some(&format!("Bearer {}", bad.text)));
        let is_expected = answer.status == 401
            && answer.header("www-authenticate") == Some("Bearer error=\"invalid_token\"")
            && said(&answer).as_deref() == Some(expected);
        if !is_expected {
            wrong.push(format!("{}: expected {expected}, came {answer:?}", bad.what));
        }
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_token_whose_permissions_are_none_is_refused_and_not_let_in_with_less() {
    let house = House::new(|_| {});
    let mut peer = house.socket("ann");
    let with = |permissions: Term| {
        signed(MCP_SALT, &map(vec![("user_id", Term::binary("ann")), ("permissions", permissions)]))
    };
    for permissions in [texts(&["!tools"]), texts(&["tools:*", ""]), Term::binary("tools:*"), Term::int(1)] {
        assert_eq!(peer.refused(SESSION, &join("token", &with(permissions))), INVALID);
    }
    let many: Vec<_> = (0..300).map(|n| format!("a:{n}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert_eq!(peer.refused(SESSION, &join("token", &with(texts(&many)))), INVALID);
    peer.joined(SESSION, &join("token", &with(texts(&["tools:call", "servers:use:bennu"]))));
}
