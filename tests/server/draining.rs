//! Health, and how a server stops.

use std::time::{Duration, Instant};

use bennu::channel::{LongPollOptions, Reason};
use bennu::server::DrainOptions;
use serde_json::json;

use crate::lab::{Lab, Peer, Poll, Tell, until};

fn status(lab: &Lab, target: &str) -> u16 {
    lab.http("GET", target, &[], None).0
}

/// The clients of `peers` that were told to go, taken out.
fn take_told(peers: &mut Vec<Peer>) -> Vec<Peer> {
    let told = peers.extract_if(.., |peer| {
        peer.next_within(Duration::from_millis(1)).is_some_and(|event| {
            assert_eq!((event.kind.as_str(), event.code), ("close", Some(1012)), "{event:?}");
            true
        })
    });
    told.collect()
}

#[test]
fn a_server_that_runs_is_live_and_ready() {
    let lab = Lab::new();

    assert_eq!(lab.http("GET", "/livez", &[], None), (200, "200\n".to_owned()));
    assert_eq!(lab.http("GET", "/readyz", &[], None), (200, "200\n".to_owned()));
    assert_eq!(status(&lab, "/nowhere"), 404);
    assert_eq!(lab.http("POST", "/livez", &[], None).0, 404);
}

#[test]
fn a_drain_tells_a_batch_at_a_time_and_takes_nobody_in() {
    let mut lab = Lab::with(
        |options| {
            options.drain.batch_connections = 2;
            options.drain.batch_interval_ms = 3_600_000;
        },
        |options| options.longpoll = Some(LongPollOptions::default()),
    );
    let mut peers: Vec<Peer> = (0..6).map(|_| lab.joined("probe:a")).collect();

    let _draining = lab.shut_down();

    let mut told = Vec::new();
    until("two clients are told", || {
        told.append(&mut take_told(&mut peers));
        told.len() == 2
    });
    assert_eq!(status(&lab, "/readyz"), 503);
    assert_eq!(status(&lab, "/livez"), 200);
    assert_eq!(status(&lab, "/socket/websocket?vsn=2.0.0"), 503);
    assert_eq!(status(&lab, "/socket/longpoll?vsn=2.0.0"), 503);
    for ended in lab.world.wait_ended("probe:a", 2) {
        assert_eq!(ended.reason, Reason::SocketClosed);
    }
    assert_eq!(peers.len(), 4);
    for peer in &mut peers {
        peer.exchange("probe:a", "echo", json!({"n": 1}));
    }
    assert_eq!(lab.world.ended("probe:a").len(), 2);
}

#[test]
fn a_drain_ends_when_everyone_is_gone() {
    let mut lab = Lab::with(
        |options| {
            options.drain.batch_connections = 2;
            options.drain.batch_interval_ms = 50;
            options.drain.linger_ms = 0;
        },
        |_| {},
    );
    let mut peers: Vec<Peer> = (0..6).map(|_| lab.joined("probe:a")).collect();
    peers.push(lab.open());

    let draining = lab.shut_down();
    for peer in &mut peers {
        peer.expect_close(1012);
    }
    // Each lets go once it has read the close.
    drop(peers);

    lab.wait_for(draining);
    assert_eq!(lab.world.ended("probe:a").len(), 6);
    assert!(std::net::TcpStream::connect(lab.address()).is_err(), "nobody listens any more");
}

#[test]
fn a_server_that_is_about_to_stop_says_so_before_it_touches_its_sockets() {
    let mut lab = Lab::with(
        |options| options.drain.delay_ms = 3_600_000,
        |options| options.longpoll = Some(LongPollOptions::default()),
    );
    let mut before = lab.joined("probe:a");

    let _draining = lab.shut_down();

    until("it is not ready", || status(&lab, "/readyz") == 503);
    assert_eq!(status(&lab, "/livez"), 200);
    before.exchange("probe:a", "echo", json!({"n": 1}));
    let mut after = lab.joined("probe:a");
    after.exchange("probe:a", "echo", json!({"n": 2}));
    assert_eq!(status(&lab, "/socket/longpoll?vsn=2.0.0"), 200);
    assert_eq!(lab.world.ended("probe:a").len(), 0);
}

#[test]
fn a_delayed_drain_begins_when_the_delay_is_over() {
    let mut lab = Lab::with(|options| options.drain.delay_ms = 300, |_| {});
    let mut peer = lab.joined("probe:a");

    let begun = Instant::now();
    let draining = lab.shut_down();
    peer.expect_close(1012);

    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    drop(peer);
    lab.wait_for(draining);
}

#[test]
fn whoever_is_left_when_the_time_is_up_is_told_as_well() {
    let mut lab = Lab::with(
        |options| {
            options.drain.batch_connections = 2;
            options.drain.batch_interval_ms = 3_600_000;
            options.drain.total_ms = 300;
            options.drain.linger_ms = 0;
        },
        |_| {},
    );
    let mut peers: Vec<Peer> = (0..8).map(|_| lab.joined("probe:a")).collect();

    let draining = lab.shut_down();

    for peer in &mut peers {
        peer.expect_close(1012);
    }
    drop(peers);
    lab.wait_for(draining);
    assert_eq!(lab.world.ended("probe:a").len(), 8);
}

const FREEZE: &str = r#"["1","2","probe:a","freeze",{"gate":"g"}]"#;

/// Drains while a connection stands still, so that it finds both when it goes on: mail, and behind that the order to close.
fn drain_behind_mail(lab: &Lab) {
    lab.world.wait_reached("g");
    lab.world.handle("probe:a").send(Tell::Push(1)).expect("the connection lives");
    // The one shard gives its orders to older connections first.
    let mut last = lab.joined("probe:b");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime starts");
            runtime.block_on(bennu::server::drain(&lab.endpoint, &DrainOptions::default()));
        });
        last.expect_close(1012);
        drop(last);
        lab.world.gate("g").open();
    });
}

#[test]
fn what_was_said_before_a_drain_reaches_a_web_socket() {
    let lab = Lab::with_workers(1, |_| {}, |_| {});
    let mut peer = lab.joined("probe:a");
    peer.send("probe:a", "freeze", json!({"gate": "g"}));

    drain_behind_mail(&lab);

    let told = peer.message();
    assert_eq!((told.topic.as_str(), told.event.as_str()), ("probe:a", "told"));
    peer.expect_close(1012);
}

#[test]
fn what_was_said_before_a_drain_reaches_a_poll_that_waits() {
    let lab = Lab::with_workers(1, |_| {}, |options| options.longpoll = Some(LongPollOptions::default()));
    let poll = Poll::joined(&lab, "probe:a");
    until("no request is under way", || lab.held().connections == 0);

    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| poll.messages());
        until("the poll has come", || lab.held().connections == 1);
        scope.spawn(|| poll.post(FREEZE));
        drain_behind_mail(&lab);

        assert_eq!(waiting.join().expect("no panic"), [json!(["1", null, "probe:a", "told", {"n": 1}])]);
    });
}

#[test]
fn a_drain_waits_for_a_handler_that_ends_in_its_time() {
    let mut lab = Lab::with(|options| options.drain.linger_ms = 0, |_| {});
    let mut peer = lab.joined("probe:a");
    peer.send("probe:a", "hold", json!({"gate": "g"}));
    peer.heartbeat();

    let draining = lab.shut_down();
    peer.expect_close(1012);
    drop(peer);
    std::thread::sleep(Duration::from_millis(200));
    assert!(!draining.is_finished(), "a handler runs on");
    lab.world.gate("g").open();

    lab.wait_for(draining);
    assert_eq!(lab.world.ended("probe:a").len(), 1);
}

#[test]
fn a_drain_does_not_wait_for_a_handler_longer_than_its_time() {
    let mut lab = Lab::with(
        |options| {
            options.drain.total_ms = 200;
            options.drain.linger_ms = 0;
        },
        |_| {},
    );
    let mut peer = lab.joined("probe:a");
    peer.send("probe:a", "hold", json!({"gate": "never"}));
    peer.heartbeat();

    let draining = lab.shut_down();
    peer.expect_close(1012);

    lab.wait_for(draining);
}

#[test]
fn an_idle_socket_is_closed_and_pings_keep_it() {
    let lab = Lab::with_socket(|options| options.idle_timeout_ms = 400);
    let mut idle = lab.joined("probe:a");
    let mut alive = lab.joined("probe:a");

    until("the idle socket is closed", || {
        alive.heartbeat();
        idle.next_within(Duration::from_millis(20)).is_some_and(|event| {
            assert_eq!(event.code, Some(1002), "{event:?}");
            true
        })
    });

    alive.heartbeat();
    assert_eq!(lab.world.wait_ended("probe:a", 1)[0].reason, Reason::SocketClosed);
}
