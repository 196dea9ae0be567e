//! Clients that do not read what they asked for, beyond `slow.rs`: compressing, over long poll, and with their window shut.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use bennu::channel::{Compression, Reason};
use serde_json::{Value, json};

use super::{noise, post_head, raw};
use crate::lab::{Counted, Lab, Peer, Poll, connect, until, until_read, write_all};
use crate::transcripts::frames::{FrameBits, encode_frame, text_frame};

const PING: u8 = 9;

/// A connection that leaves little room for what it does not read.
fn narrow(lab: &Lab) -> TcpStream {
    connect(lab.address(), Ipv4Addr::LOCALHOST, Some(8 * 1024))
}

fn compressing_lab(outbox_bytes_max: usize) -> Lab {
    Lab::with_socket(|options| {
        options.compression = Compression::On;
        options.outbox_bytes_max = outbox_bytes_max;
    })
}

#[test]
fn a_client_that_leaves_its_window_shut_is_cut_although_its_outbox_has_room() {
    let counted = Counted::slow_consumers();
    let lab = Lab::with(|options| options.http.write_timeout_ms = 300, |options| options.outbox_bytes_max = 64 << 20);
    let mut peer = Peer::over(narrow(&lab), "vsn=2.0.0");
    peer.join("probe:a");
    let mut other = lab.joined("probe:b");

    lab.broadcast("probe:a", "shout", json!({"fill": "x".repeat(1 << 20)}));

    until("it is cut", || {
        other.heartbeat();
        !lab.world.ended("probe:a").is_empty()
    });
    assert_eq!(lab.world.ended("probe:a")[0].reason, Reason::SocketClosed);
    until("nothing is held for it", || lab.held().connections == 1);
    assert_eq!(counted.growth(), 0, "the kernel cut it, not its outbox");
    assert!(peer.until_gone().is_empty(), "a part of a frame came");
}

#[test]
fn a_compressing_client_that_does_not_read_is_cut_and_counted_and_the_others_get_everything() {
    const ROUNDS_MAX: u64 = 10_000;
    let counted = Counted::slow_consumers();
    let lab = compressing_lab(64 * 1024);
    let compressed = || TcpStream::connect(lab.address()).expect("the kernel accepts");
    let mut others = [lab.joined("probe:a"), Peer::over_compressed(compressed(), "vsn=2.0.0")];
    others[1].join("probe:a");
    let mut slow = Peer::over_compressed(narrow(&lab), "vsn=2.0.0");
    slow.join("probe:a");
    let fill = noise(16 * 1024);

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
    assert!(before.iter().all(|event| event.kind == "text" && event.what.is_none()), "and was cut without a close");
    for n in n..n + 20 {
        lab.broadcast("probe:a", "shout", json!({"n": n, "fill": fill}));
        for other in &mut others {
            assert_eq!(other.message().n(), n);
        }
    }
    assert_eq!(counted.growth(), 1, "nobody else is cut");
}

/// Checks that a client that sends `frames` and does not read is not read either, and gets everything once it reads.
fn check_pushback(lab: &Lab, mut peer: Peer, frames: &[Vec<u8>], mut take: impl FnMut(&mut Peer, u64)) {
    let counted = Counted::slow_consumers();
    let mut neighbour = lab.joined("probe:b");
    let bytes = frames.concat();

    let stream = peer.stream().try_clone().expect("a second handle to the stream");
    let stuck = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_all(&stream, &bytes, &stuck));
        while !stuck.load(Ordering::Acquire) && !writer.is_finished() {
            neighbour.heartbeat();
        }
        assert!(stuck.load(Ordering::Acquire), "the server took all {} bytes", bytes.len());

        for n in 0..frames.len() as u64 {
            take(&mut peer, n);
        }
        writer.join().expect("the writer does not panic").expect("the server reads on");
    });
    assert_eq!(counted.growth(), 0);
    peer.heartbeat();
    neighbour.heartbeat();
}

#[test]
fn a_client_that_only_pings_is_not_read_until_it_reads() {
    let lab = Lab::new();
    let peer = Peer::over(narrow(&lab), "vsn=2.0.0");
    let data = |n: u64| format!("{n:0>125}");
    let pings: Vec<_> = (0..120_000).map(|n| encode_frame(PING, data(n).as_bytes(), FrameBits::default())).collect();

    check_pushback(&lab, peer, &pings, |peer, n| {
        let pong = peer.next();
        assert_eq!(pong.kind, "pong");
        assert_eq!(pong.base64, Some(base64::Engine::encode(&base64::prelude::BASE64_STANDARD, data(n))));
    });
}

#[test]
fn a_compressing_client_that_only_asks_is_not_read_until_it_reads() {
    let lab = compressing_lab(2 << 20);
    let mut peer = Peer::over_compressed(narrow(&lab), "vsn=2.0.0");
    peer.join("probe:a");
    let fill = noise(1_000);
    let messages: Vec<_> =
        (0..20_000).map(|n| text_frame(&peer.text("probe:a", "echo", json!({"n": n, "fill": fill})))).collect();

    check_pushback(&lab, peer, &messages, |peer, n| assert_eq!(peer.message().n_replied(), n));
}

#[test]
fn a_poll_whose_answer_is_not_read_is_cut_and_its_session_goes_on() {
    let lab = Lab::with(
        |options| options.http.write_timeout_ms = 300,
        |options| {
            options.longpoll.get_or_insert_default().buffer_bytes_max = 64 << 20;
        },
    );
    let poll = Poll::joined(&lab, "probe:a");
    until("the requests' connections have ended", || lab.held().connections == 0);
    let reader = narrow(&lab);

    (&reader)
        .write_all(format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", poll.target).as_bytes())
        .expect("it is read");
    until_read(&reader);
    lab.broadcast("probe:a", "shout", json!({"fill": "x".repeat(8 << 20)}));

    until("it is cut", || lab.held().connections == 0);
    lab.broadcast("probe:a", "shout", json!({"n": 1}));
    let message = poll.messages().pop().expect("a poll has messages");
    assert_eq!(message[4]["n"], 1);
}

#[test]
fn posts_behind_a_session_that_is_not_polled_wait_for_a_window_in_bounded_number() {
    const POSTS: usize = 24;
    // One that is handled and POSTS_MAX behind it (`src/transport/longpoll/session.rs`).
    const TAKEN_MAX: usize = 17;
    let lab = Lab::with_longpoll(|longpoll| longpoll.window_ms = 1_000);
    let poll = Poll::joined(&lab, "probe:a");
    // More than OUTBOX_BYTES_READ_PAUSE waits for the next poll, so nothing further is handled until it comes.
    let held_back = json!(["1", "2", "probe:a", "big", {"n": 0, "bytes": 100_000}]).to_string();
    assert_eq!(poll.post(&held_back), json!({"status": 200}));

    let echo = |n: usize| json!(["1", n, "probe:a", "echo", {"n": n}]).to_string();
    let mut posting: Vec<Peer> = (0..POSTS).map(|_| raw(&lab)).collect();
    for (n, peer) in posting.iter().enumerate() {
        let body = echo(n);
        peer.write(format!("{}Content-Length: {}\r\n\r\n{body}", post_head(&poll.target), body.len()).as_bytes());
    }
    for peer in &mut posting {
        let answer = peer.next();
        assert_eq!((answer.status, answer.body.as_deref()), (Some(200), Some(r#"{"status":408}"#)));
    }

    // A heartbeat behind them is answered last.
    let mut answered: Vec<Value> = poll.messages().iter().map(|message| message[1].clone()).collect();
    assert_eq!(answered, ["2"], "the poll makes room");
    assert_eq!(poll.post(r#"[null,"last","phoenix","heartbeat",{}]"#), json!({"status": 200}));
    while answered.last() != Some(&json!("last")) {
        answered.extend(poll.messages().iter().map(|message| message[1].clone()));
    }
    let mut echoed: Vec<u64> = answered[1..answered.len() - 1].iter().filter_map(Value::as_u64).collect();
    assert_eq!(echoed.len(), TAKEN_MAX, "the others were given up with their 408");
    echoed.sort_unstable();
    echoed.dedup();
    assert_eq!(echoed.len(), TAKEN_MAX, "those taken are handled once");
}
