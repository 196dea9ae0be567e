//! Sessions over HTTP as their operator sees them.

use std::time::Instant;

use bennu::mcp::auth::Development;
use bennu::mcp::{SessionCarrier, SessionHealth, SessionInfo, SessionState};
use serde_json::json;

use super::lab::{DEADLINE, Lab, request};

impl Lab {
    /// The only session.
    #[track_caller]
    fn seen(&self) -> SessionInfo {
        let mut all = self.mcp.list_sessions(None, 10);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    #[track_caller]
    fn until_seen(&self, what: &str, holds: impl Fn(&SessionInfo) -> bool) -> SessionInfo {
        let end = Instant::now() + DEADLINE;
        loop {
            let seen = self.seen();
            if holds(&seen) {
                return seen;
            }
            assert!(Instant::now() < end, "{what}: {seen:?}");
            std::thread::yield_now();
        }
    }
}

fn is_detached(seen: &SessionInfo) -> bool {
    matches!(seen.state, SessionState::Detached { .. })
}

#[test]
fn a_session_is_seen_and_its_client_is_there_while_a_stream_is_open() {
    let lab = Lab::new();
    let client = lab.open("2025-11-25");
    let seen = lab.until_seen("nothing is open", is_detached);
    assert_eq!((&*seen.user, &*seen.server, seen.carrier), ("dev", "hub", SessionCarrier::Http));
    assert_eq!((seen.recoverable, seen.calls, seen.waiting, seen.resumed), (true, 0, 0, 0));
    assert_eq!(seen.health, SessionHealth::Active, "it was heard just now");
    let SessionState::Detached { left_ms } = seen.state else { panic!("looked at above") };
    assert!((1_790_000..=1_800_000).contains(&left_ms), "{left_ms}");
    assert_ne!(seen.id, client.session, "the id that is shown is no credential");

    let mut stream = client.get("");
    assert!(stream.next().is_some());
    assert_eq!(lab.seen().state, SessionState::Connected);
    let stats = lab.mcp.session_stats();
    assert_eq!((stats.connected, stats.detached, stats.opened), (1, 0, 1));
    stream.vanish();
    lab.until_seen("the stream broke off", is_detached);
    lab.server.tools_changed();
    assert_eq!(lab.seen().waiting, 1);
    assert_eq!(serde_json::to_value(lab.seen()).expect("JSON")["carrier"], "http");
}

#[test]
fn hooks_hear_of_streams_that_break_off_and_of_clients_that_come_back() {
    let lab = Lab::new();
    let client = lab.open("2025-11-25");
    let mut answer = client.call(1, "quick");
    while answer.next().is_some() {}
    assert_eq!(lab.events(), ["Opened"], "its client has all its answers");

    let mut stream = client.get("");
    assert!(stream.next().is_some());
    stream.vanish();
    assert_eq!(lab.wait_for_events(1), ["Detached"]);
    assert_eq!(client.post(&request(2, "ping", json!({}))).status, 200);
    assert_eq!(lab.wait_for_events(1), ["Resumed"]);
    assert_eq!(lab.seen().resumed, 1);

    assert_eq!(client.delete().status, 204);
    assert_eq!(lab.wait_for_events(1), ["Ended(Left)"]);
    let stats = lab.mcp.session_stats();
    assert_eq!((stats.connected, stats.detached, stats.resumed, stats.detachments), (0, 0, 1, 1));
}

#[test]
fn a_session_that_is_ended_has_no_streams_and_is_not_found() {
    let lab = Lab::new();
    let client = lab.open("2025-11-25");
    let (mut standing, mut answer) = (client.get(""), client.call(1, "wait"));
    assert!(standing.next().is_some());
    assert_eq!((lab.told(), lab.seen().calls), ("began", 1));
    let id = lab.seen().id;

    assert!(lab.mcp.end_session(&id) && !lab.mcp.end_session(&id));

    assert_eq!((lab.told(), standing.next()), ("dropped", None));
    assert_eq!(answer.message().json()["result"]["isError"], true);
    assert_eq!(answer.next(), None);
    assert_eq!(client.post(&request(2, "ping", json!({}))).status, 404);
    assert_eq!((lab.events(), lab.mcp.session(&id)), (vec!["Opened".to_owned(), "Ended(Kicked)".to_owned()], None));
    let stats = lab.mcp.session_stats();
    assert_eq!((stats.kicked, stats.connected, stats.detached), (1, 0, 0));
    assert_eq!((lab.core_sessions(), lab.held().mcp_http_sessions), (0, 0));
}

#[test]
fn hooks_hear_why_sessions_end_by_themselves() {
    let lab = Lab::with(Development, |options| {
        options.session_idle_ms = 1_000;
        options.sessions_per_user_max = 1;
    });
    let _given_up = lab.open("2025-11-25");
    lab.until_seen("nothing is open", is_detached);
    while lab.mcp.session_stats().opened < 2 {
        // In the millisecond of its last request nobody's session is idle.
        lab.post(&[], &super::lab::initialize("2025-11-25"));
    }
    assert_eq!(lab.wait_for_events(3), ["Opened", "Opened", "Ended(GaveWay)"]);
    assert_eq!(lab.wait_for_events(1), ["Expired"]);
    let stats = lab.mcp.session_stats();
    assert_eq!((stats.expired, stats.connected, stats.detached), (1, 0, 0));

    lab.open("2025-11-25");
    lab.shut_down();
    assert_eq!(lab.wait_for_events(2), ["Opened", "Ended(Shutdown)"]);
}
