//! What passes unchanged, over stdio and over HTTP.

use bennu::mcp::McpServer;
use bennu::protocol::jsonrpc::splice;
use serde_json::{Value, json};

use super::super::peer::{Peer, TestServer, stateless};
use super::super::watching::watched;
use super::odd::{
    Listening, Log, ODD, ODDEST, answer_text, call, client, client_that, noting, odd, payload, unchecked,
};

/// The odd server, by either way.
fn both(log: &Log, check: impl Fn(McpServer)) {
    check(noting(log, &[], |_| {}));
    let listening = Listening::start(&[], Some(log));
    check(listening.server(|_| {}));
}

#[test]
fn a_call_reaches_the_upstream_as_it_was_written_and_so_does_its_answer() {
    let log = Log::new();
    let listening = Listening::start(&[ODDEST], Some(&log));
    for server in [noting(&log, &[ODDEST], |_| {}), listening.server(|_| {})] {
        let server = TestServer::serving([server]);
        let mut peer = server.connect_unchecked();
        peer.initialized(ODD, "2025-11-25", &json!({}));
        let params = r#"{ "zeta":1.0,"name":"echo_raw","arguments":{"big":12345678901234567890123,"e":1e2,"\u00e9":"a\/b"}, "_meta":{"v":[ ]} }"#;
        let message =
            format!(r#"{{"x-top":-0.0,"id":"\u00e9 1","params":{params},"method":"tools\/call","jsonrpc":"2.0"}}"#);

        peer.message_text(ODD, &message);

        let answer = answer_text(&mut peer, &json!("é 1"));
        assert!(answer.contains(r#""id":"\u00e9 1""#), "{answer}");
        let echoed = splice::get(&answer, &["result", "structuredContent", "params"]).expect("echoed");
        let added = splice::remove(echoed, &["_meta", "progressToken"]).expect("an object");
        assert_eq!(added, params, "but for the token with which those who watch see progress");
        assert!(answer.contains("12345678901234567890123") && answer.contains("\"x-odd-envelope\""), "{answer}");
    }
}

#[test]
fn progress_passes_in_order_with_the_callers_token_before_the_answer() {
    let log = Log::new();
    both(&log, |server| {
        let server = TestServer::serving([server]);
        let mut peer = client(&server);
        let mut params = call("progress", json!({"count": 50}));
        params["_meta"] = json!({"progressToken": "t"});

        let answer = peer.ask(ODD, 0, "tools/call", params);

        assert!(answer.get("result").is_some(), "{answer}");
        let told: Vec<_> = peer.of(ODD, "mcp_message").into_iter().cloned().collect();
        let told: Vec<_> = told.iter().filter(|frame| frame.payload["method"] == "notifications/progress").collect();
        let numbers: Vec<_> = told.iter().map(|frame| frame.payload["params"]["progress"].as_f64()).collect();
        assert_eq!(numbers.len(), 50);
        assert!(numbers.is_sorted() && told.iter().all(|frame| frame.payload["params"]["progressToken"] == "t"));
        assert!(payload(&told[0].text).contains("x-odd"), "{}", told[0].text);
    });
}

#[test]
fn those_who_watch_see_a_call_that_wants_no_progress_itself() {
    let server = TestServer::serving([odd(&[], |_| {})]);
    let mut peer = server.connect();
    peer.joined(ODD, &json!({"streaming": true}));
    let client = json!({"name": "test", "version": "1"});
    peer.ask(
        ODD,
        "i",
        "initialize",
        json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}),
    );

    let run = peer.call(ODD, &json!(7), &call("progress", json!({"count": 3})));

    let mut watcher = server.connect();
    let topic = format!("mcp:run:{run}");
    let reply = watcher.joined(&topic, &json!({}));
    let seen = watched(&mut watcher, &topic, &reply);
    let kinds: Vec<_> = seen.iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(kinds, ["tool_started", "tool_progress", "tool_progress", "tool_progress", "tool_completed"]);
    let told = peer.of(ODD, "mcp_message").iter().any(|frame| frame.payload["method"] == "notifications/progress");
    assert!(!told, "the caller gave no token");
}

#[test]
fn lists_pages_errors_and_methods_that_nobody_knows_pass() {
    let log = Log::new();
    both(&log, |server| {
        let server = TestServer::serving([server]);
        let mut peer = client(&server);

        let first = peer.ask(ODD, 1, "tools/list", json!({}))["result"].clone();
        let cursor = first["nextCursor"].clone();
        let second = peer.ask(ODD, 2, "tools/list", json!({"cursor": cursor}))["result"].clone();
        assert!(first["tools"][0].get("x-odd-tool").is_some() && second.get("nextCursor").is_none());
        let bad = peer.ask(ODD, 3, "tools/call", call("fail_rpc", json!({"code": 77})));
        assert_eq!(bad["error"]["code"], 77);
        assert!(bad["error"].as_object().is_some_and(|error| error.len() > 3), "vendor fields: {bad}");
        let failed = peer.ask(ODD, 4, "tools/call", call("fail_tool", json!({})));
        assert_eq!(failed["result"]["isError"], true);
        peer.message_text(ODD, r#"{"jsonrpc":"2.0","id":5,"method":"vendor/anything","params":[1.0, {"b":1e2}]}"#);
        let vendor = answer_text(&mut peer, &json!(5));
        assert!(vendor.contains(r#"[1.0, {"b":1e2}]"#), "{vendor}");
        for (method, params) in [
            ("resources/list", json!({})),
            ("resources/templates/list", json!({})),
            ("prompts/list", json!({})),
            (
                "completion/complete",
                json!({"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "a", "value": ""}}),
            ),
        ] {
            let answer = peer.ask(ODD, format!("{method}!"), method, params);
            assert!(answer.get("result").is_some(), "{method}: {answer}");
        }
        assert_eq!(peer.ask(ODD, 9, "ping", json!({}))["result"], json!({}));
    });
}

#[test]
fn questions_reach_the_client_and_its_answers_the_upstream() {
    let log = Log::new();
    both(&log, |server| {
        let server = TestServer::serving([server]);
        let capabilities = json!({"sampling": {}, "elicitation": {"form": {}}, "roots": {"listChanged": true}});
        let mut peer = client_that(&server, &capabilities);
        for (id, tool, method) in
            [(1, "sample", "sampling/createMessage"), (2, "elicit", "elicitation/create"), (3, "roots", "roots/list")]
        {
            peer.message(
                ODD,
                &json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": call(tool, json!({}))}),
            );
            let asked = peer.told(ODD, method);
            let answer =
                format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{"b":1.0,"a":12345678901234567890123}}}}"#, asked["id"]);
            peer.message_text(ODD, &answer);

            let text = answer_text(&mut peer, &json!(id));
            assert!(text.contains(r#"{"b":1.0,"a":12345678901234567890123}"#), "{tool}: {text}");
        }
        peer.message(ODD, &json!({"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": call("big_id", json!({"anyway": true}))}));
        let asked =
            peer.wait(|frame| frame.payload["method"] == "sampling/createMessage" && frame.payload["id"] != 1).payload;
        peer.message(ODD, &json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"role": "assistant", "model": "m", "content": {"type": "text", "text": "x"}}}));
        assert!(peer.wait(|frame| frame.is_response(&json!(4))).payload.get("result").is_some());
    });
}

#[test]
fn a_cancelled_call_ends_at_the_upstream_with_the_clients_reason() {
    let log = Log::new();
    both(&log, |server| {
        let before = log.lines().len();
        let server = TestServer::serving([server]);
        let mut peer = client(&server);
        peer.message(
            ODD,
            &json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call("wait", json!({}))}),
        );
        // Of this server: the log is that of both.
        let is_call = |line: &Value| line["message"]["params"]["name"] == "wait";
        super::odd::until("the call", || log.lines()[before..].iter().any(is_call));

        let reason = json!({"requestId": 1, "reason": "had enough"});
        peer.message(ODD, &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": reason}));

        let is_it = |line: &Value| line["message"]["method"] == "notifications/cancelled";
        super::odd::until("the cancellation", || log.lines()[before..].iter().any(is_it));
        let told = log.lines()[before..].iter().find(|line| is_it(line)).cloned().expect("found above");
        assert_eq!(told["message"]["params"]["reason"], "had enough");
        assert_eq!(peer.ask(ODD, 2, "ping", json!({}))["result"], json!({}));
        assert!(!peer.frames.iter().any(|frame| frame.is_response(&json!(1))));
    });
}

#[test]
fn a_client_that_leaves_takes_its_call_back() {
    let log = Log::new();
    let server = TestServer::serving([noting(&log, &[], |_| {})]);
    let mut peer = client(&server);
    peer.message(ODD, &json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call("wait", json!({}))}));
    log.wait("the call", |line| line["message"]["params"]["name"] == "wait");

    peer.push(ODD, "phx_leave", &json!({}));

    log.wait("its end", |line| line["message"]["method"] == "notifications/cancelled");
}

#[test]
fn changes_and_updates_reach_those_who_asked() {
    let log = Log::new();
    both(&log, |server| {
        let server = TestServer::serving([server]);
        let (mut one, mut other) = (unchecked(&server, &json!({})), client(&server));
        let uri = json!({"uri": "odd://one"});
        assert!(one.ask(ODD, 1, "resources/subscribe", uri.clone()).get("result").is_some());

        assert!(other.ask(ODD, 1, "tools/call", call("touch", uri.clone())).get("result").is_some());
        let told = one.told(ODD, "notifications/resources/updated");
        assert_eq!(told["params"]["uri"], "odd://one");
        other.ask(ODD, 2, "tools/call", call("notify_changed", json!({})));
        one.told(ODD, "notifications/tools/list_changed");
        other.told(ODD, "notifications/tools/list_changed");
        assert!(!other.frames.iter().any(|frame| frame.payload["method"] == "notifications/resources/updated"));
        assert!(one.ask(ODD, 2, "resources/unsubscribe", uri).get("result").is_some());
    });
}

#[test]
fn a_stateless_client_hears_of_changes_on_its_own_stream() {
    let log = Log::new();
    both(&log, |server| {
        let server = TestServer::serving([server]);
        let mut peer = server.connect();
        peer.joined(ODD, &json!({}));
        let wanted = json!({"notifications": {"toolsListChanged": true, "resourceSubscriptions": ["odd://one"]}});
        peer.message(ODD, &json!({"jsonrpc": "2.0", "id": "l", "method": "subscriptions/listen", "params": stateless(wanted, &json!({}))}));
        peer.told(ODD, "notifications/subscriptions/acknowledged");
        // The upstream is asked for what its clients want to hear.
        log.wait("the stream", |line| {
            line["event"] == "listening" && line["notifications"]["resourceSubscriptions"][0] == "odd://one"
        });

        peer.stateless(ODD, 1, "tools/call", call("notify_changed", json!({})));
        let told = peer.told(ODD, "notifications/tools/list_changed");
        assert_eq!(told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "l");
        peer.stateless(ODD, 2, "tools/call", call("touch", json!({"uri": "odd://one"})));
        let told = peer.told(ODD, "notifications/resources/updated");
        assert_eq!(told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "l");
    });
}

/// What a client that was not asked hears of logs.
fn logs(peer: &Peer) -> usize {
    peer.frames.iter().filter(|frame| frame.payload["method"] == "notifications/message").count()
}

#[test]
fn logs_reach_the_caller_at_the_level_that_it_wants() {
    let log = Log::new();
    both(&log, |server| {
        let server = TestServer::serving([server]);
        let (mut one, mut other) = (client(&server), client(&server));
        assert_eq!(one.ask(ODD, 1, "logging/setLevel", json!({"level": "debug"}))["result"], json!({}));

        one.ask(ODD, 2, "tools/call", call("log", json!({"level": "debug", "count": 2})));
        assert_eq!((logs(&one), logs(&other)), (2, 0));
        other.ask(ODD, 2, "tools/call", call("log", json!({"level": "debug", "count": 2})));
        other.ask(ODD, 3, "tools/call", call("log", json!({"level": "error", "count": 1})));
        assert_eq!((logs(&one), logs(&other)), (2, 1), "info where a client does not say");
    });
}
