//! Attacks, as a reader can run them: `cargo nextest run --test server security::attack --no-capture`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Value, json};

use super::credentials::{
    JWT_SECRET, SECRET, claims, jwt, map, mcp_token, operator_token, query, signed, socket_token,
};
use super::house::{House, Program, join};
use super::http::{Answer, ask};
use crate::mcp::peer::Peer;
use crate::transcripts::client::{Client, Handshake};

const SESSION: &str = "mcp:session";

/// Guesses that lock an address out. Source: `access.failures_max` in production.
const FAILURES_MAX: usize = 20;

/// A program that believes what its proxy says of a client's address, with the limits of production.
fn behind_a_proxy() -> Program {
    Program::start(
        "access.failures_max = 20\naccess.attempts_per_minute = 600\naccess.trusted_proxies = [\"127.0.0.1\"]",
    )
}

/// Asks for a long-poll session; whether it is given.
fn connects(program: &Program, ip: &str, credential: &str) -> bool {
    let target = format!("/socket/longpoll?vsn=2.0.0&{credential}");
    let answer = ask(program.address, "GET", &target, &[("X-Forwarded-For", ip)], None);
    assert_eq!(answer.status, 200, "{answer:?}");
    match answer.json()["status"].as_u64() {
        Some(410) => true,
        Some(403) => false,
        _ => panic!("expected 410 or 403, came {answer:?}"),
    }
}

#[test]
fn brute_force_is_locked_out() {
    let program = behind_a_proxy();
    let (_, good) = program.key("ann", "user");
    let good = format!("api_key={good}");
    let guess = |n: usize| format!("api_key=bennu_{n:043}");

    for n in 0..FAILURES_MAX - 1 {
        assert!(!connects(&program, "203.0.113.1", &guess(n)));
    }
    assert!(connects(&program, "203.0.113.1", &good), "one less than it takes");
    assert!(!connects(&program, "203.0.113.1", &guess(FAILURES_MAX)));
    assert!(!connects(&program, "203.0.113.1", &good), "the key that is right comes too late");
    assert!(connects(&program, "203.0.113.2", &good), "a neighbour is none of it");

    // A house has a /64 of IPv6 to guess from.
    for n in 0..FAILURES_MAX {
        assert!(!connects(&program, &format!("2001:db8:0:1::{n:x}"), &guess(100 + n)));
    }
    assert!(!connects(&program, "2001:db8:0:1:ffff::1", &good));
    assert!(connects(&program, "2001:db8:0:2::1", &good));

    let log = program.ask_as(&operator_token(), "GET", "audit?operation=brute_force_attempt", None);
    let mut told: Vec<_> = log.body.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")).collect();
    let ips: Vec<_> = told.drain(..).map(|entry| entry["metadata"]["ip_address"].clone()).collect();
    assert_eq!(ips.len(), 2, "{log:?}");
    assert_eq!(ips[1], "203.0.113.1");
}

#[test]
fn guesses_are_counted_at_every_door() {
    let program = behind_a_proxy();
    let ip = [("X-Forwarded-For".to_owned(), "203.0.113.1".to_owned())];
    let qs = format!("vsn=2.0.0&token={}", query(&socket_token("ann")));
    let handshake = Handshake { path: "/socket/websocket", qs: &qs, headers: &ip, ..Handshake::default() };
    let mut client = Client::connect(program.address, &handshake, &[], true);
    client.await_answer(Duration::from_secs(10));
    let mut number = 0;
    let mut guess = || {
        number += 1;
        format!("{number:043}")
    };
    for _ in 0..FAILURES_MAX / 4 {
        assert!(!connects(&program, "203.0.113.1", &format!("api_key={}", guess())));
        client.send_text(&json!(["1", "1", SESSION, "phx_join", join("token", &guess())]).to_string());
        client.send_text(&json!(["2", "2", SESSION, "phx_join", join("apiKey", &guess())]).to_string());
        for _ in 0..2 {
            assert!(client.next_text().contains(r#""status":"error""#));
        }
        let bearer = format!("Bearer {}", guess());
        let headers =
            [("Authorization", &*bearer), ("Content-Type", "application/json"), ("X-Forwarded-For", "203.0.113.1")];
        assert_eq!(ask(program.address, "POST", "/mcp", &headers, Some(b"{}")).status, 401);
    }

    assert!(!connects(&program, "203.0.113.1", &qs));
    let good = mcp_token("ann", "user");
    client.send_text(&json!(["1", "1", SESSION, "phx_join", join("token", &good)]).to_string());
    let refused = client.next_text();
    assert!(refused.contains("IP access denied: IP temporarily blocked"), "{refused}");
}

#[test]
fn a_client_that_repeats_one_wrong_credential_locks_nobody_out() {
    let program = behind_a_proxy();
    let good = format!("token={}", query(&socket_token("ann")));

    // As phoenix.js does with what it was given.
    for _ in 0..10 * FAILURES_MAX {
        assert!(!connects(&program, "203.0.113.1", "token=an+old+one"));
    }

    assert!(connects(&program, "203.0.113.1", &good), "its neighbour behind the same address");
}

#[test]
fn an_address_has_so_many_attempts_a_minute() {
    let program = Program::start("access.attempts_per_minute = 50\naccess.trusted_proxies = [\"127.0.0.1\"]");
    let good = format!("token={}", query(&socket_token("ann")));

    let let_in = (0..100).filter(|_| connects(&program, "203.0.113.1", &good)).count();

    assert_eq!(let_in, 50);
    assert!(connects(&program, "203.0.113.2", &good));
}

/// The median of the times that calls of a user take.
fn median_call(peer: &mut Peer, calls: usize) -> Duration {
    let mut times: Vec<_> = (0..calls)
        .map(|n| {
            let begun = Instant::now();
            let response = peer.ask(SESSION, n, "tools/call", json!({"name": "echo", "arguments": {"n": n}}));
            let took = begun.elapsed();
            assert!(response["result"]["content"].is_array(), "{response}");
            peer.frames.clear();
            took
        })
        .collect();
    times.sort_unstable();
    times[calls / 2]
}

/// Joins again and again, on a socket at a time, by tokens that are bad and such that are good; counts what is answered.
/// Between four joins and the next four it pauses.
fn flood(server: SocketAddr, pause: Duration, stop: &AtomicBool, answers: &AtomicUsize) {
    let token = socket_token("mallory");
    let good = [mcp_token("mallory", "user"), jwt(&claims("mallory", "user", 3_600))];
    let headers = [("X-Forwarded-For".to_owned(), "203.0.113.66".to_owned())];
    let qs = format!("vsn=2.0.0&token={}", query(&token));
    let mut guess = 0;
    while !stop.load(Ordering::Relaxed) {
        let handshake = Handshake { path: "/socket/websocket", qs: &qs, headers: &headers, ..Handshake::default() };
        let mut client = Client::connect(server, &handshake, &[], true);
        client.await_answer(Duration::from_secs(10));
        answers.fetch_add(1, Ordering::Relaxed);
        for n in 0..20 {
            std::thread::sleep(pause);
            if client.answer().status != Some(101) {
                break;
            }
            guess += 1;
            let bad = [format!("{}.{guess}", good[0]), good[1].replace('.', &format!(".A{guess}"))];
            for (at, token) in bad.iter().chain(&good).enumerate() {
                let topic = format!("{SESSION}:{n}.{at}");
                client.send_text(&json!([topic, topic, topic, "phx_join", join("token", token)]).to_string());
            }
            let received = client.recv(4, Duration::from_secs(10), usize::MAX);
            answers.fetch_add(received.got.len(), Ordering::Relaxed);
            if !received.complete {
                break;
            }
        }
    }
}

/// Measures a user's calls alone and beside a flood of a server, this one or another on the same machine; prints both,
/// and how they compare.
fn measure(what: &str, house: &House, flooded: &House, pause: Duration) {
    const CALLS: usize = 400;
    let mut ann = house.socket("ann");
    ann.joined(SESSION, &join("token", &mcp_token("ann", "user")));
    median_call(&mut ann, CALLS);
    let quiet = median_call(&mut ann, CALLS);

    let (stop, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (beside, took) = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| flood(flooded.address(), pause, &stop, &answers));
        }
        while answers.load(Ordering::Relaxed) < 100 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let begun = Instant::now();
        let mut beside = median_call(&mut ann, CALLS);
        while answers.load(Ordering::Relaxed) < 2_000 {
            beside = median_call(&mut ann, CALLS);
        }
        stop.store(true, Ordering::Relaxed);
        (beside, begun.elapsed())
    });

    let answers = answers.load(Ordering::Relaxed);
    let (per_s, ratio) = (answers as f64 / took.as_secs_f64(), beside.as_secs_f64() / quiet.as_secs_f64());
    println!(
        "{what}: ratio {ratio:.2} ({quiet:?} alone, {beside:?} beside {answers} connects and joins, {per_s:.0}/s)"
    );
}

/// The clients of the flood are on the machine of the servers, and where they don't pause they take as much of it as they
/// get: what a flood of another server costs is the machine's doing.
#[test]
fn a_flood_of_joins_by_one_leaves_anothers_calls_alone() {
    let (house, other) = (House::new(|_| {}), House::new(|_| {}));
    let limited = House::new(|options| {
        options.trusted_proxies = vec!["127.0.0.1".to_owned()];
        options.locking.failures_max = 20;
        options.attempts.attempts_max = 600;
    });
    let paced = Duration::from_millis(10);

    measure("another server, paced", &house, &other, paced);
    measure("this server, paced, no limits", &house, &house, paced);
    measure("another server, unpaced", &house, &other, Duration::ZERO);
    measure("this server, unpaced, no limits", &house, &house, Duration::ZERO);
    measure("this server, unpaced, limits of production", &limited, &limited, Duration::ZERO);
}

#[test]
fn ten_megabytes_of_junk_are_refused_everywhere_and_others_are_served() {
    let house = House::new(|_| {});
    let mut ann = house.socket("ann");
    ann.joined(SESSION, &join("token", &mcp_token("ann", "user")));
    let junk: Vec<u8> = (0..10 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let text = "A".repeat(10 << 20);
    let address = house.address();

    let bearer = format!("Bearer {}", mcp_token("ann", "user"));
    let headers = [("Authorization", &*bearer), ("Content-Type", "application/json")];
    let refused = |answer: Answer, expected: &[u16]| assert!(expected.contains(&answer.status), "{answer:?}");
    // Where the server hangs up before all of it was sent, its answer may be lost on the way: 0.
    refused(ask(address, "POST", "/mcp", &headers, Some(&junk)), &[0, 413]);
    refused(ask(address, "POST", "/mcp", &headers[1..], Some(&junk)), &[0, 401]);
    refused(ask(address, "POST", "/socket/longpoll?vsn=2.0.0&token=x", &[], Some(&junk)), &[0, 200]);
    refused(ask(address, "GET", "/socket/longpoll?vsn=2.0.0", &[("X-Phoenix-AuthToken", &text)], None), &[0, 431]);
    let raw = Client::request(address, &text, &junk, true);
    assert!(raw.await_closed(Duration::from_secs(20)), "junk is no request");

    let mut large = house.socket("mallory");
    let (_, response) = large.join(SESSION, &join("token", &text[..7 << 20]));
    assert_eq!(response, json!({"reason": "Token verification failed: invalid"}));
    let (_, response) = large.join(SESSION, &join("apiKey", &text[..7 << 20]));
    assert_eq!(response, json!({"reason": "Invalid API key"}));
    large.send(SESSION, "phx_join", &join("token", &text));
    assert_eq!(large.closed(), 1009);
    for topic in ["x".repeat(1 << 20), "mcp:session:".to_owned() + &"x".repeat(1 << 20)] {
        let mut large = house.socket("mallory");
        large.send(&topic, "phx_join", &join("token", "x"));
        // Refused, or cut off: it is the topic's length that is judged, not the credential.
        large.listen(Duration::from_millis(200));
        assert!(!large.frames.iter().any(|frame| frame.payload["status"] == "ok"), "{} frames", large.frames.len());
    }

    let response = ann.ask(SESSION, 1, "tools/call", json!({"name": "echo", "arguments": {}}));
    assert!(response["result"].is_object(), "{response}");
}

/// Goes through every way in with secrets that are known; then no log has one.
#[test]
fn no_secret_is_in_any_log_at_trace_level_nor_in_the_audit_log() {
    let program = Program::start("server.log = \"trace\"\ntopics.patterns = [\"room:*\"]");
    let mut secrets: Vec<(&str, String)> = vec![("secret_key_base", SECRET.into()), ("jwt.secret", JWT_SECRET.into())];
    let mut secret = |what: &'static str, text: String| {
        secrets.push((what, text.clone()));
        text
    };
    let (_, key) = program.key("ann", "admin");
    let key = secret("API key", key);
    let operator = secret("operator token", operator_token());
    program.ask_as(&operator, "GET", "keys", None);
    let bad_operator = secret("wrong operator token", format!("{}x", signed("another salt", &map(vec![]))));
    program.ask_as(&bad_operator, "GET", "keys", None);

    // Sockets, by each way, good and bad.
    for (what, good) in [("socket token", socket_token("ann")), ("JWT of a socket", jwt(&claims("ann", "admin", 601)))]
    {
        let bad = secret("wrong one", good.replace('.', ".QUJD"));
        let good = secret(what, good);
        for text in [&good, &bad] {
            for target in ["/socket/websocket", "/socket/longpoll"] {
                ask(program.address, "GET", &format!("{target}?vsn=2.0.0&token={text}"), &[], None);
            }
            let encoded = secret("authToken as it is sent", STANDARD_NO_PAD.encode(text));
            let subprotocols = ["phoenix".to_owned(), format!("base64url.bearer.phx.{encoded}")];
            let handshake = Handshake {
                path: "/socket/websocket",
                qs: "vsn=2.0.0",
                subprotocols: Some(&subprotocols),
                ..Handshake::default()
            };
            let mut client = Client::connect(program.address, &handshake, &[], true);
            client.await_answer(Duration::from_secs(10));
            let header = [("X-Phoenix-AuthToken", text.as_str())];
            let opened = ask(program.address, "GET", "/socket/longpoll?vsn=2.0.0", &header, None).json();
            if let Some(token) = opened["token"].as_str() {
                let token = secret("long-poll token", token.to_owned());
                let body = json!(["1", "1", SESSION, "phx_join", join("token", &bad)]).to_string();
                ask(
                    program.address,
                    "POST",
                    &format!("/socket/longpoll?vsn=2.0.0&token={token}"),
                    &[],
                    Some(body.as_bytes()),
                );
                ask(program.address, "GET", &format!("/socket/longpoll?vsn=2.0.0&token={token}"), &[], None);
            }
        }
    }
    for (what, text) in
        [("API key", key.clone()), ("wrong API key", "bennu_wrongwrongwrongwrongwrongwrongwrong".into())]
    {
        let text = secret(what, text);
        for target in ["/socket/websocket", "/socket/longpoll"] {
            ask(program.address, "GET", &format!("{target}?vsn=2.0.0&api_key={text}"), &[], None);
        }
    }

    // Topics.
    let mut peer = program.socket("ann");
    let token = secret("token of a join", mcp_token("ann", "admin"));
    let joined = peer.joined(SESSION, &join("token", &token));
    let session = secret("session token", joined["sessionToken"].as_str().expect("a token").to_owned());
    peer.joined("mcp:session:key", &join("apiKey", &key));
    peer.joined("mcp:runs", &json!({"token": session}));
    let web = secret("JWT of a join", jwt(&claims("ann", "admin", 602)));
    peer.joined("room:1", &json!({"access_token": web}));
    for (name, what) in
        [("token", "wrong token"), ("apiKey", "wrong key"), ("password", "password"), ("secret", "secret")]
    {
        let text = secret(what, format!("hush-{name}-0123456789abcdefghijklmnop"));
        peer.join("mcp:session:wrong", &json!({"clientInfo": {"name": "a", "version": "1"}, name: text}));
    }
    for topic in [SESSION, "room:1"] {
        let later = secret("access token", jwt(&claims("ann", "admin", 603)));
        peer.push(topic, "access_token", &json!({"access_token": later}));
        let wrong = secret("wrong access token", format!("hush-access-{topic}-0123456789abcdefghijklmnop"));
        peer.push(topic, "access_token", &json!({"access_token": wrong}));
    }
    peer.push(SESSION, "refresh_session", &json!({"sessionToken": session}));
    let wrong = secret("wrong session token", "hush-session-0123456789abcdefghijklmnop".into());
    peer.push(SESSION, "refresh_session", &json!({"sessionToken": wrong}));
    let (password, api_key) =
        (secret("password", "hush-pass-0123456789".into()), secret("key", "hush-key-0123456789".into()));
    let arguments = json!({"password": password, "deep": [{"apiKey": api_key, "content": "x"}], "content": "x"});
    peer.ask(SESSION, 1, "tools/call", json!({"name": "memory_remember", "arguments": arguments}));
    peer.ask(SESSION, 2, "nobody/serves_this", json!({"token": api_key}));

    // HTTP.
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25",
        "capabilities": {}, "clientInfo": {"name": "a", "version": "1", "password": password}}});
    let wrong = secret("wrong bearer token", "hush-bearer-0123456789abcdefghijklmnop".into());
    for text in [&key, &token, &web, &session, &wrong] {
        let bearer = format!("Bearer {text}");
        let headers = [("Authorization", &*bearer), ("Content-Type", "application/json")];
        ask(program.address, "POST", "/mcp", &headers, Some(body.to_string().as_bytes()));
    }
    // In a URL of another place, and in a request that can't be read.
    ask(program.address, "GET", &format!("/nowhere?token={token}&api_key={key}"), &[], None);
    ask(program.address, "POST", &format!("/admin/api/keys?token={token}"), &[], Some(b"{"));
    program.ask_as(&operator, "POST", "revoke", Some(&json!({"user": "ann"})));
    peer.closed();

    let entries = program.ask_as(&operator, "GET", "audit?limit=1000", None);
    assert!(entries.body.lines().count() > 30, "{entries:?}");
    let log = program.log();
    assert!(log.contains("TRACE") && log.contains("an MCP session begins"), "{log}");
    let mut audit = entries.body;
    for file in std::fs::read_dir(program.folder.0.join("audit")).expect("the folder of the audit log") {
        audit += &std::fs::read_to_string(file.expect("an entry").path()).expect("text");
    }
    let mut found = Vec::new();
    for (name, text) in [("log", &log), ("audit log", &audit)] {
        for (what, secret) in &secrets {
            // A signature alone is enough to be worth hiding.
            let signature = secret.rsplit('.').next().filter(|signature| signature.len() > 20).unwrap_or(secret);
            if let Some(line) = text.lines().find(|line| line.contains(&**secret) || line.contains(signature)) {
                found.push(format!("{what} in the {name}: {}", line.chars().take(400).collect::<String>()));
            }
        }
    }
    assert!(found.is_empty(), "{} of them:\n{}", found.len(), found.join("\n"));
}
