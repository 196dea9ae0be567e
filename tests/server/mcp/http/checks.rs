//! What a request is refused for before its message is served.

use bennu::mcp::auth::{AuthRefused, Credential, Identity, McpAuth, Presented};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::json;

use super::lab::{Answer, Lab, MODERN, initialize, modern, request};

/// A refusal: its status, and its body's code.
#[track_caller]
fn refused(answer: Answer) -> (u16, i64) {
    let status = answer.status;
    let body = answer.json();
    assert_eq!((&body["jsonrpc"], body.get("result")), (&json!("2.0"), None), "{body}");
    (status, body["error"]["code"].as_i64().unwrap_or_else(|| panic!("expected a code, came {body}")))
}

#[test]
fn foreign_hosts_and_pages_are_refused() {
    let lab = Lab::new();
    let send = |host: &str, origin: &str| lab.post(&[("Host", host), ("Origin", origin)], &initialize("2025-11-25"));

    assert_eq!(refused(send("evil.example.com", "http://evil.example.com")), (403, -32600));
    assert_eq!(refused(send("localhost", "http://evil.example.com")), (403, -32600));
    assert_eq!(refused(send("evil.example.com", "")), (403, -32600));
    assert_eq!(refused(send("localhost", "null")), (403, -32600));
    let answer = send("localhost:1", "http://localhost:1");
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("http://localhost:1")));
    assert_eq!(answer.header("access-control-expose-headers"), Some("Mcp-Session-Id, WWW-Authenticate"));
}

#[test]
fn pages_may_ask_first() {
    let lab = Lab::new();
    let ask = |origin: &str| {
        let headers = [
            ("Origin", origin),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "content-type,mcp-param-x"),
        ];
        lab.send("OPTIONS", "/mcp", &headers, None)
    };

    let answer = ask("http://localhost:5173");
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("http://localhost:5173"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("content-type,mcp-param-x"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET, POST, DELETE, OPTIONS"));
    let answer = ask("http://evil.example");
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (403, None));
}

#[test]
fn only_the_methods_of_the_era_are_allowed() {
    let lab = Lab::new();
    let send = |method: &str, version: &str| lab.send(method, "/mcp", &[("MCP-Protocol-Version", version)], Some(b""));

    for (method, version, allowed) in [
        ("PUT", "", "GET, POST, DELETE, OPTIONS"),
        ("PATCH", "2025-11-25", "GET, POST, DELETE, OPTIONS"),
        ("GET", MODERN, "POST, OPTIONS"),
        ("DELETE", MODERN, "POST, OPTIONS"),
    ] {
        let answer = send(method, version);
        assert_eq!(answer.header("allow"), Some(allowed), "{method} {version}");
        assert_eq!(refused(answer), (405, -32600), "{method} {version}");
    }
}

#[test]
fn types_are_those_of_json_and_events() {
    let lab = Lab::new();
    let with = |name: &str, value: &str| lab.post(&[(name, value)], &initialize("2025-11-25"));

    assert_eq!(refused(with("Content-Type", "text/plain")), (415, -32600));
    assert_eq!(refused(with("Content-Type", "")), (415, -32600));
    assert_eq!(refused(with("Accept", "application/json")), (406, -32600));
    assert_eq!(refused(with("Accept", "text/event-stream")), (406, -32600));
    assert_eq!(with("Accept", "*/*").status, 200);
    assert_eq!(with("Accept", "").status, 200);
    assert_eq!(refused(lab.send("GET", "/mcp", &[("Accept", "application/json")], None)), (406, -32600));
}

#[test]
fn a_body_is_bounded_in_bytes_and_in_time() {
    let lab = Lab::with(bennu::mcp::auth::Development, |options| {
        options.body_bytes_max = 1_000;
        options.body_timeout_ms = 50;
    });

    assert_eq!(refused(lab.post_to("/mcp", &[], &[b' '; 1_001])), (413, -32600));
    let chunked = [("Transfer-Encoding", "chunked"), ("Content-Type", "application/json")];
    let chunk = format!("{:x}\r\n{}\r\n", 1_001, "x".repeat(1_001));
    assert_eq!(refused(lab.send_raw("POST", "/mcp", &chunked, chunk.as_bytes())), (413, -32600));
    let late = [("Content-Length", "10"), ("Content-Type", "application/json")];
    assert_eq!(refused(lab.send_raw("POST", "/mcp", &late, b"{")), (408, -32600));
}

#[test]
fn garbage_is_no_message() {
    let lab = Lab::new();
    let post = |body: &[u8], version: &str| lab.post_to("/mcp", &[("MCP-Protocol-Version", version)], body);

    for body in
        [&b""[..], b"{", b"nonsense", b"{}{}", b"\xff\xfe", b"{\"a\":\"\xc3\"}", b"[1,", "[".repeat(5_000).as_bytes()]
    {
        for version in ["", MODERN] {
            let answer = post(body, version).json();
            assert_eq!((&answer["error"]["code"], answer.get("id")), (&json!(-32700), None), "{answer}");
        }
    }
    for body in
        ["1", "null", "\"x\"", "{}", r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, r#"{"jsonrpc":"2.0","id":1}"#]
    {
        for version in ["", MODERN] {
            assert_eq!(refused(post(body.as_bytes(), version)), (400, -32600), "{body} {version}");
        }
    }
    let wrong = json!({"jsonrpc": "2.0", "id": {"a": 1}, "method": 7});
    assert_eq!(lab.post(&[], &wrong).json()["id"], json!({"a": 1}));
    let answer = lab.post(&[("MCP-Protocol-Version", MODERN)], &wrong).json();
    assert_eq!(answer.get("id"), None, "an id that no answer may have is left out");
}

#[test]
fn unknown_servers_are_not_found_and_known_ones_are_apart() {
    let lab = Lab::new();
    let body = initialize("2025-11-25").to_string();
    let name = |path: &str| lab.post_to(path, &[], body.as_bytes()).json()["result"]["serverInfo"]["name"].clone();

    assert_eq!(
        (name("/mcp"), name("/mcp/"), name("/mcp/lab"), name("/mcp/other")),
        ("hub".into(), "hub".into(), "lab".into(), "other".into())
    );
    assert_eq!(refused(lab.post_to("/mcp/none", &[], body.as_bytes())), (404, -32600));
    assert_eq!(lab.post_to("/mcp/lab/x", &[], body.as_bytes()).status, 404);
    assert_eq!(lab.post_to("/mcpx", &[], body.as_bytes()).status, 404);
    let session = lab.open("2025-11-25").session;
    let ping = request(1, "ping", json!({})).to_string();
    let at = |path: &str| lab.post_to(path, &[("Mcp-Session-Id", &session)], ping.as_bytes()).status;
    assert_eq!((at("/mcp"), at("/mcp/hub"), at("/mcp/lab"), at("/mcp/other")), (200, 200, 404, 404));
}

/// Takes `Bearer <user>` for the user, and nothing else.
struct Named;

impl McpAuth for Named {
    fn authenticate(&self, presented: Presented) -> BoxFuture<'_, Result<Identity, AuthRefused>> {
        async move {
            match presented.credential {
                Some(Credential::Token(user)) if user != "bad" => Ok(Identity::member(user)),
                Some(_) => Err(AuthRefused("Invalid token".to_owned())),
                None => Err(AuthRefused::no_credentials()),
            }
        }
        .boxed()
    }
}

#[test]
fn every_request_is_authenticated_and_a_session_is_its_users() {
    let lab = Lab::with(Named, |_| {});
    let open = |token: &str| lab.post(&[("Authorization", token)], &initialize("2025-11-25"));

    for (token, challenge) in
        [("", "Bearer"), ("Basic ann", "Bearer"), ("Bearer bad", "Bearer error=\"invalid_token\"")]
    {
        let answer = open(token);
        assert_eq!(answer.header("www-authenticate"), Some(challenge));
        assert_eq!(refused(answer), (401, -32600), "{token}");
    }
    let answer = open("Bearer ann");
    let session = answer.header("mcp-session-id").expect("a session").to_owned();
    let ping = |token: &str| {
        lab.post(&[("Authorization", token), ("Mcp-Session-Id", &session)], &request(1, "ping", json!({}))).status
    };
    assert_eq!((ping("Bearer ann"), ping("Bearer bob"), ping("")), (200, 404, 401));
    let answer = lab.post(&[("MCP-Protocol-Version", MODERN)], &modern(1, "server/discover", json!({})));
    assert_eq!((answer.status, answer.json().get("id")), (401, None));
}
