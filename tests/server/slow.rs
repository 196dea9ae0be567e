//! Clients that read slowly or not at all: they lose what is theirs, and nobody waits for them.

use std::sync::atomic::{AtomicBool, Ordering};

use bennu::channel::Reason;
use serde_json::json;

use crate::lab::{Counted, DEADLINE, Lab, Peer, write_all};
use crate::reference::Server;
use crate::transcripts::client::Client;
use crate::transcripts::frames::text_frame;
use crate::transcripts::http;

#[test]
fn a_client_that_does_not_read_is_cut_and_counted_and_the_others_get_everything() {
    const ROUNDS_MAX: u64 = 10_000;
    let counted = Counted::slow_consumers();
    let lab = Lab::with_socket(|options| options.outbox_bytes_max = 64 * 1024);
    let mut others = [lab.joined("probe:a"), lab.joined("probe:a"), lab.joined("probe:a")];
    let mut slow = Peer::open_narrow(lab.address(), "vsn=2.0.0");
    slow.join("probe:a");
    let fill = "x".repeat(16 * 1024);

    let mut n = 0;
    while counted.growth() == 0 && n < ROUNDS_MAX {
        lab.broadcast("probe:a", "shout", json!({"n": n, "fill": fill}));
        for other in &mut others {
            assert_eq!(other.message().n(), n);
        }
        n += 1;
    }

    assert_eq!(counted.growth(), 1, "after {n} broadcasts");
    assert_eq!(lab.world.wait_ended("probe:a", 1)[0].reason, Reason::SocketClosed);
    let before = slow.until_gone();
    assert!((before.len() as u64) < n, "it missed what came last");
    assert!(before.iter().all(|event| event.kind == "text"), "and was cut without a close");
    for n in n..n + 100 {
        lab.broadcast("probe:a", "shout", json!({"n": n}));
        for other in &mut others {
            assert_eq!(other.message().n(), n);
        }
    }
    assert_eq!(counted.growth(), 1, "nobody else is cut");
}

#[test]
fn a_client_that_only_asks_is_not_read_until_it_reads() {
    const ASKED: u64 = 60_000;
    let counted = Counted::slow_consumers();
    let lab = Lab::new();
    let mut neighbour = lab.joined("probe:b");
    let mut peer = Peer::open_narrow(lab.address(), "vsn=2.0.0");
    peer.join("probe:a");
    let fill = "x".repeat(1_000);
    let messages: Vec<Vec<u8>> =
        (0..ASKED).map(|n| text_frame(&peer.text("probe:a", "echo", json!({"n": n, "fill": fill})))).collect();

    let stream = peer.stream().try_clone().expect("a second handle to the stream");
    let stuck = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_all(&stream, &messages.concat(), &stuck));
        while !stuck.load(Ordering::Acquire) && !writer.is_finished() {
            neighbour.heartbeat();
        }
        assert!(stuck.load(Ordering::Acquire), "the server took all {ASKED} messages of a client that does not read");

        for n in 0..ASKED {
            assert_eq!(peer.message().n_replied(), n);
        }
        writer.join().expect("the writer does not panic").expect("the server reads on");
    });
    assert_eq!(counted.growth(), 0);
    peer.heartbeat();
}

/// Checks that a client that reads gets the answers to many small requests in one write, however large they are.
fn check_large_answers(event: &str, answers_each: usize) {
    const ASKED: u64 = 300;
    let counted = Counted::slow_consumers();
    let lab = Lab::new();
    let mut peer = Peer::open_narrow(lab.address(), "vsn=2.0.0");
    peer.join("probe:a");
    let burst: Vec<u8> =
        (0..ASKED).flat_map(|n| text_frame(&peer.text("probe:a", event, json!({"n": n, "bytes": 40_000})))).collect();

    peer.write(&burst);

    for n in 0..ASKED {
        for _ in 0..answers_each {
            let answer = peer.message();
            if answer.event == "phx_reply" && event != "big_shout" {
                assert_eq!(answer.n_replied(), n);
            } else if answer.event == "shout" {
                assert_eq!(answer.n(), n);
            }
        }
    }
    assert_eq!(counted.growth(), 0);
    peer.heartbeat();
}

#[test]
fn small_requests_with_large_answers_do_not_cut_a_client_that_reads() {
    check_large_answers("big", 1);
}

#[test]
fn small_requests_with_large_broadcasts_do_not_cut_a_client_that_reads() {
    check_large_answers("big_shout", 2);
}

#[test]
fn small_requests_with_large_answers_beside_small_broadcasts_do_not_cut_a_client_that_reads() {
    check_large_answers("big_beside_shout", 2);
}

#[test]
fn an_answer_larger_than_the_outbox_reaches_a_client_that_reads() {
    let counted = Counted::slow_consumers();
    let lab = Lab::with_socket(|options| options.outbox_bytes_max = 64 * 1024);
    let mut peer = Peer::open_narrow(lab.address(), "vsn=2.0.0");
    peer.join("probe:a");

    let reply = peer.exchange("probe:a", "big", json!({"n": 1, "bytes": 7_000_000}));
    assert_eq!(reply["fill"].as_str().map(str::len), Some(7_000_000));
    let shouted = peer.send("probe:a", "big_shout", json!({"n": 2, "bytes": 7_000_000}));

    assert_eq!(peer.message().payload["fill"].as_str().map(str::len), Some(7_000_000));
    peer.expect(&[&format!("probe:a #{shouted} ok {{}}")]);
    assert_eq!(counted.growth(), 0);
}

#[test]
fn clients_that_do_not_read_hold_no_more_memory_than_their_outboxes() {
    const SLOW: usize = 20;
    const MB: usize = 1 << 20;
    let server = Server::own();
    let slow: Vec<Peer> = (0..SLOW)
        .map(|_| {
            let mut peer = Peer::open_narrow(server.address(), "vsn=2.0.0");
            peer.send("bench:flood", "phx_join", json!({}));
            peer.message();
            peer
        })
        .collect();
    let mut reader = Client::open(server.address(), "/socket/websocket", "vsn=2.0.0");
    reader.send_text(r#"["1","1","bench:flood","phx_join",{}]"#);
    reader.next();
    let before = server.memory_peak_bytes();
    let body = json!({"fill": "x".repeat(256 * 1024)}).to_string();

    // 20 MB for each of the twenty.
    for _ in 0..80 {
        let request = http::Request {
            method: "POST",
            path: "/broadcast",
            qs: Some("topic=bench:flood&event=shout"),
            headers: &[("Content-Type".to_owned(), "application/json".to_owned())],
            body: Some(body.as_bytes()),
            timeout: DEADLINE,
        };
        assert_eq!(http::send(server.address(), &request).expect("an answer").status, 200);
        assert!(reader.next_text().contains("shout"));
    }

    let grown = server.memory_peak_bytes() - before;
    // A buffer that grows has up to twice its contents.
    assert!(grown < (3 * SLOW + 20) * MB, "{} MB for {SLOW} clients with outboxes of 1 MB", grown / MB);
    for mut peer in slow {
        peer.until_gone();
    }
}
