//! Upstreams that say what they must not, or nothing.

use std::time::Duration;

use bennu::mcp::McpServer;
use bennu::mcp::upstream::{Command, Endpoint, Reach, UpstreamOptions};
use serde_json::{Value, json};

use super::super::peer::{Peer, TestServer};
use super::odd::{Listening, Log, ODD, call, client, noting, odd};

fn ask(peer: &mut Peer, id: u64, tool: &str, arguments: Value) -> Value {
    peer.ask(ODD, id, "tools/call", call(tool, arguments))
}

#[track_caller]
fn failed(answer: &Value) -> String {
    assert_eq!(answer["error"]["code"], -32603, "{answer}");
    answer["error"]["message"].as_str().expect("a text").to_owned()
}

#[test]
fn garbage_is_skipped_and_the_answer_behind_it_arrives() {
    let server = TestServer::serving([odd(&["--banner", "--stderr"], |_| {})]);
    let mut peer = client(&server);

    for (id, tool) in (1..).zip(["garbage", "duplicate", "interleave", "echo_raw"]) {
        assert!(ask(&mut peer, id, tool, json!({})).get("result").is_some(), "{tool}");
    }
    let answers = |id: u64| peer.frames.iter().filter(|frame| frame.is_response(&json!(id))).count();
    assert_eq!((1..=4).map(answers).collect::<Vec<_>>(), [1, 1, 1, 1]);
}

#[test]
fn what_comes_after_the_answer_reaches_nobody() {
    let server = TestServer::serving([odd(&[], |_| {})]);
    let mut peer = client(&server);
    let mut params = call("late", json!({"ms": 1}));
    params["_meta"] = json!({"progressToken": 1});

    assert!(peer.ask(ODD, 1, "tools/call", params).get("result").is_some());
    // It has spoken after its answer by the time that it answers the next one.
    ask(&mut peer, 2, "slow", json!({"ms": 50}));

    let late = peer.frames.iter().skip_while(|frame| !frame.is_response(&json!(1))).skip(1);
    assert!(
        late.clone().all(|frame| frame.payload["method"] != "notifications/progress" && !frame.is_response(&json!(1)))
    );
}

#[test]
fn an_answer_too_long_fails_its_call_alone() {
    let log = Log::new();
    let listening = Listening::start(&[], None);
    let bounded = |options: &mut UpstreamOptions| options.message_bytes_max = 10_000;
    for server in [noting(&log, &[], bounded), listening.server(bounded)] {
        let server = TestServer::serving([server]);
        let mut peer = client(&server);

        let text = failed(&ask(&mut peer, 1, "oversize", json!({"bytes": 200_000})));
        assert!(text.contains("at most 10000 bytes"), "{text}");
        assert!(ask(&mut peer, 2, "oversize", json!({"bytes": 9_000})).get("result").is_some());
    }
}

#[test]
fn an_upstream_that_dies_fails_its_calls_and_comes_back() {
    let log = Log::new();
    let server = TestServer::serving([noting(&log, &[], |_| {})]);
    let mut peer = client(&server);

    for (id, tool) in [(1, "crash"), (3, "half_line_exit")] {
        peer.message(
            ODD,
            &json!({"jsonrpc": "2.0", "id": id + 100, "method": "tools/call", "params": call("wait", json!({}))}),
        );
        let text = failed(&ask(&mut peer, id, tool, json!({})));
        assert!(text.contains("has ended: its process ended with exit status"), "{text}");
        let other = peer.wait(|frame| frame.is_response(&json!(id + 100))).payload;
        assert!(failed(&other).contains("has ended"), "all that were under way");
        assert!(ask(&mut peer, id + 1, "echo_raw", json!({})).get("result").is_some(), "after {tool}");
    }
    assert!(log.pids().len() >= 3, "{:?}", log.pids());
    peer.told(ODD, "notifications/tools/list_changed");
}

#[test]
fn an_upstream_that_hangs_is_cut_and_comes_back() {
    let log = Log::new();
    let server =
        TestServer::serving([noting(&log, &[], |options| options.hang_timeout = Some(Duration::from_millis(400)))]);
    let mut peer = client(&server);

    let text = failed(&ask(&mut peer, 1, "hang", json!({})));

    assert!(text.contains("said nothing"), "{text}");
    assert!(ask(&mut peer, 2, "echo_raw", json!({})).get("result").is_some());
    let pids = log.pids();
    super::odd::until("the first process to be gone", || !super::odd::is_running(pids[0]));
}

#[test]
fn a_call_that_is_never_answered_ends_in_time() {
    let log = Log::new();
    let server = TestServer::serving([noting(&log, &[], |options| options.call_timeout = Duration::from_millis(200))]);
    let mut peer = client(&server);

    let text = failed(&ask(&mut peer, 1, "wait", json!({})));

    assert_eq!(text, "timed out after 200 ms");
    let told = log.wait("the cancellation", |line| line["message"]["method"] == "notifications/cancelled");
    assert_eq!(told["message"]["params"]["reason"], "timed out after 200 ms");
}

#[test]
fn a_flood_is_bounded_and_its_answer_arrives() {
    let server = TestServer::serving([odd(&[], |_| {})]);
    let mut peer = client(&server);

    assert!(ask(&mut peer, 1, "flood", json!({"count": 20_000})).get("result").is_some());
    assert!(ask(&mut peer, 2, "echo_raw", json!({})).get("result").is_some());
}

fn unreachable(reach: Reach) -> McpServer {
    let mut options = UpstreamOptions::new(reach);
    options.start_timeout = Duration::from_secs(5);
    McpServer::upstream("odd", options).expect("a name")
}

#[test]
fn what_can_not_be_started_says_so() {
    let refused =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let stdio = |program: &str, args: &[&str]| Reach::Stdio(Command::new(program, args.iter().copied()));
    for (reach, expected) in [
        (stdio("/does/not/exist", &[]), "starting \"/does/not/exist\": No such file or directory"),
        (stdio("false", &[]), "its process ended with exit status: 1"),
        (stdio("cat", &[]), "initialize: "),
        (Reach::Http(Endpoint::new(format!("http://{refused}/mcp"))), "no connection"),
    ] {
        let server = TestServer::serving([unreachable(reach)]);
        let mut peer = server.connect();
        peer.joined(ODD, &json!({}));
        let client = json!({"name": "t", "version": "1"});
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});

        let text = failed(&peer.ask(ODD, 1, "initialize", params.clone()));
        assert!(text.contains("can't be reached") && text.contains(expected), "{expected}: {text}");
        // Tried again, for a client that asks again.
        let text = failed(&peer.ask(ODD, 2, "initialize", params));
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn redirects_are_not_followed() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/mcp", listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(
                b"HTTP/1.1 307 x\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            );
        }
    });
    let server = TestServer::serving([unreachable(Reach::Http(Endpoint::new(url)))]);
    let mut peer = server.connect();
    peer.joined(ODD, &json!({}));
    let client = json!({"name": "t", "version": "1"});

    let text = failed(&peer.ask(
        ODD,
        1,
        "initialize",
        json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}),
    ));
    assert!(text.contains("307: redirects are not followed"), "{text}");
}
