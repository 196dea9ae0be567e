//! How upstreams start and end.

use std::time::Duration;

use bennu::mcp::upstream::{Sharing, UpstreamOptions};
use serde_json::json;

use super::super::peer::TestServer;
use super::odd::{Listening, Log, ODD, call, client, is_running, noting, unchecked, until};

#[test]
fn a_server_that_stops_leaves_no_process_behind() {
    let log = Log::new();
    let server = TestServer::serving([noting(&log, &[], |_| {})]);
    let mut peer = client(&server);
    let answer = peer.ask(ODD, 1, "tools/call", call("sleep_child", json!({"inherit": true})));
    let text = answer.to_string();
    let child = text
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|word| word.parse::<u64>().ok())
        .find(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep"));
    let child = child.unwrap_or_else(|| panic!("a pid of sleep: {text}"));
    let pid = log.pids()[0];
    assert!(is_running(pid) && is_running(child));

    drop(peer);
    drop(server);

    until("both to be gone", || !is_running(pid) && !is_running(child));
}

#[test]
fn nothing_is_started_before_it_is_needed_unless_at_boot() {
    let log = Log::new();
    let server = TestServer::serving([noting(&log, &[], |_| {})]);
    server.connect().joined(ODD, &json!({}));
    assert_eq!(log.pids(), [] as [u64; 0]);
    drop(server);

    let server = TestServer::serving([noting(&log, &[], |options| options.starts_at_boot = true)]);
    server.boot();
    log.wait("its start", |line| line["event"] == "start");
}

#[test]
fn what_nobody_uses_ends_and_is_started_again() {
    let log = Log::new();
    let server =
        TestServer::serving([noting(&log, &[], |options| options.idle_timeout = Some(Duration::from_millis(50)))]);
    let peer = client(&server);
    peer.vanish();
    let pid = log.pids()[0];

    until("its end", || !is_running(pid));

    let mut peer = client(&server);
    assert!(peer.ask(ODD, 1, "tools/call", call("echo_raw", json!({}))).get("result").is_some());
    assert_eq!(log.pids().len(), 2);
}

#[test]
fn a_session_of_its_own_ends_with_its_client() {
    let log = Log::new();
    let server = TestServer::serving([noting(&log, &[], |options| options.sharing = Sharing::Session)]);
    let (one, mut other) = (client(&server), client(&server));
    let pids = log.pids();
    assert_eq!(pids.len(), 2);

    one.vanish();

    until("one to be gone", || pids.iter().filter(|pid| is_running(**pid)).count() == 1);
    assert!(other.ask(ODD, 1, "tools/call", call("echo_raw", json!({}))).get("result").is_some());
}

#[test]
fn no_more_processes_run_than_may() {
    let server = TestServer::serving([noting(&Log::new(), &[], |options| {
        options.sharing = Sharing::Session;
        options.instances_max = 1;
    })]);
    let first = client(&server);
    let mut second = server.connect();
    second.joined(ODD, &json!({}));
    let hello =
        json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});

    let refused = second.ask(ODD, 1, "initialize", hello.clone());
    assert!(
        refused["error"]["message"].as_str().is_some_and(|text| text.contains("as many connections as it may: 1")),
        "{refused}"
    );

    first.vanish();
    let mut id = 1;
    until("room for the second", || {
        id += 1;
        second.ask(ODD, id, "initialize", hello.clone()).get("result").is_some()
    });
}

#[test]
fn subscriptions_and_levels_outlive_the_process_that_they_were_told() {
    for sharing in [Sharing::Shared, Sharing::Session] {
        let log = Log::new();
        let server = TestServer::serving([noting(&log, &[], |options| options.sharing = sharing)]);
        let mut peer = unchecked(&server, &json!({}));
        let uri = json!({"uri": "odd://one"});
        peer.ask(ODD, 1, "resources/subscribe", uri.clone());
        peer.ask(ODD, 2, "logging/setLevel", json!({"level": "debug"}));

        peer.ask(ODD, 3, "tools/call", call("crash", json!({})));

        until("both told again", || {
            log.messages("resources/subscribe").len() == 2 && log.messages("logging/setLevel").len() == 2
        });
        peer.ask(ODD, 4, "tools/call", call("touch", uri));
        peer.told(ODD, "notifications/resources/updated");
    }
}

#[test]
fn an_endpoint_that_was_started_anew_is_spoken_with_anew() {
    let mut listening = Listening::start(&[], None);
    let server = TestServer::serving([listening.server(|_| {})]);
    let mut peer = client(&server);
    assert!(peer.ask(ODD, 1, "tools/call", call("echo_raw", json!({}))).get("result").is_some());

    let port = listening.port();
    drop(std::mem::replace(&mut listening, Listening::start(&[], None)));
    let again = Listening::at(port, &[], None);

    // It does not know the session: nothing was done, so the call is made again.
    let answer = peer.ask(ODD, 2, "tools/call", call("echo_raw", json!({})));
    assert!(answer.get("result").is_some(), "{answer}");
    drop(again);
}

#[test]
fn a_session_over_http_is_ended_there_too() {
    let log = Log::new();
    let listening = Listening::start(&[], Some(&log));
    let own = |options: &mut UpstreamOptions| options.sharing = Sharing::Session;
    let server = TestServer::serving([listening.server(own)]);

    client(&server).vanish();

    log.wait("the end of the session", |line| line["event"] == "session_ended");
}
