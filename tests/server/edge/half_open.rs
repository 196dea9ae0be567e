//! Clients that vanish: no FIN, no reset, only silence; or half a goodbye.

use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use bennu::channel::Reason;
use serde_json::json;

use super::{post_head, raw};
use crate::lab::{DEADLINE, Lab, Peer, Poll, handshake, reset_at_end, until, until_read};
use crate::transcripts::frames::{FrameBits, encode_frame, text_frame};

/// A client with an entry in presence, and the bytes after which it says nothing more.
fn silent_after(lab: &Lab, topic: &str, last: &[u8]) -> Peer {
    let mut peer = lab.joined(topic);
    peer.send(topic, "track", json!({"key": "gone", "meta": {}}));
    assert_eq!((peer.message().event, peer.message().event), ("presence_diff".to_owned(), "phx_reply".to_owned()));
    peer.write(last);
    until_read(peer.stream());
    peer
}

#[test]
fn a_client_that_vanishes_is_closed_as_idle_and_let_go_of_although_it_never_answers() {
    let lab = Lab::with_socket(|options| {
        options.idle_timeout_ms = 3_000;
        options.compression = bennu::channel::Compression::On;
    });
    let mut watcher = lab.joined("probe:w");
    until("the watcher's topic is held", || lab.held().topics == 1);
    let before = (lab.held(), lab.tasks());
    let half_a_frame = &text_frame(r#"["1","9","probe:x","echo",{}]"#)[..12];
    let half_a_message = encode_frame(1, br#"["1","9""#, FrameBits { fin: false, ..FrameBits::default() });

    let compressing = TcpStream::connect(lab.address()).expect("the kernel accepts");
    let mut vanished = vec![lab.open(), Peer::over_compressed(compressing, "vsn=2.0.0")];
    for (topic, last) in [("probe:joined", &b""[..]), ("probe:frame", half_a_frame), ("probe:message", &half_a_message)]
    {
        vanished.push(silent_after(&lab, topic, last));
        watcher.heartbeat();
    }

    for topic in ["probe:joined", "probe:frame", "probe:message"] {
        until("the channel ends", || {
            watcher.heartbeat();
            !lab.world.ended(topic).is_empty()
        });
        assert_eq!(lab.world.ended(topic)[0].reason, Reason::SocketClosed);
        until("its presence leaves", || {
            watcher.heartbeat();
            lab.endpoint.presences(topic).as_bytes() == b"{}"
        });
    }
    // The close is not answered; what is held for it goes once CLOSE_LINGER_MS have passed.
    until("tasks, descriptors and rows of the tables are as before", || {
        watcher.heartbeat();
        (lab.held(), lab.tasks()) == before
    });
    for peer in &mut vanished {
        peer.expect_close(1002);
    }
    watcher.exchange("probe:w", "echo", json!({}));
}

#[test]
fn a_client_that_only_closes_its_half_still_gets_its_answers() {
    let lab = Lab::new();
    let mut peer = lab.joined("probe:a");
    peer.send("probe:a", "echo", json!({"n": 1}));
    peer.send("probe:a", "shout", json!({"n": 2}));

    peer.stream().shutdown(Shutdown::Write).expect("it is connected");

    peer.expect(&[r#"probe:a #2 ok {"n":1}"#, r#"probe:a shout {"n":2}"#, "probe:a #3 ok {}", "tcp_closed"]);
    assert_eq!(lab.world.wait_ended("probe:a", 1)[0].reason, Reason::SocketClosed);
}

#[test]
fn half_a_request_and_half_a_goodbye_end_the_connection_at_once() {
    let lab = Lab::with_longpoll(|_| {});
    let poll = Poll::start(&lab);
    until("the request's connection has ended", || lab.held().connections == 0);
    let begun = Instant::now();

    let head = handshake("vsn=2.0.0").into_bytes();
    let post = format!("{}Content-Length: 100\r\n\r\n[", post_head(&poll.target)).into_bytes();
    for half in [&[][..], &head[..40], &post[..40], &post] {
        let mut peer = raw(&lab);
        peer.write(half);
        peer.stream().shutdown(Shutdown::Write).expect("it is connected");
        peer.until_gone();
        until("nothing is held for it", || lab.held().connections == 0);
    }

    assert!(begun.elapsed() < DEADLINE / 2, "no timeout of ten seconds and more was waited for");
    assert_eq!(poll.post(r#"[null,"1","phoenix","heartbeat",{}]"#), json!({"status": 200}), "the session goes on");
}

#[test]
fn what_comes_after_a_poll_has_broken_off_waits_for_the_next_one() {
    let lab = Lab::with_longpoll(|_| {});
    let poll = Poll::joined(&lab, "probe:a");
    until("the requests' connections have ended", || lab.held().connections == 0);

    for n in 0..20 {
        let peer = raw(&lab);
        peer.write(format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", poll.target).as_bytes());
        until_read(peer.stream());
        reset_at_end(peer.stream());
        drop(peer);
        until("the poll is given up", || lab.held().connections == 0);
        lab.broadcast("probe:a", "shout", json!({"n": n}));

        assert_eq!(poll.messages(), [json!([null, null, "probe:a", "shout", {"n": n}])]);
    }
}

#[test]
fn the_messages_of_a_post_that_breaks_off_before_its_answer_are_handled_once() {
    let lab = Lab::with_longpoll(|_| {});
    let poll = Poll::joined(&lab, "probe:a");
    assert_eq!(poll.post(r#"["1","2","probe:a","hold",{"gate":"g"}]"#), json!({"status": 200}));
    // More than may wait for a busy channel, so that the POST is not answered.
    let batch: Vec<String> = (3..103).map(|n| json!(["1", n, "probe:a", "echo", {"n": n}]).to_string()).collect();
    let body = batch.join("\n");

    let peer = raw(&lab);
    peer.write(format!("{}Content-Length: {}\r\n\r\n{body}", post_head(&poll.target), body.len()).as_bytes());
    until_read(peer.stream());
    lab.world.wait_reached("g");
    reset_at_end(peer.stream());
    drop(peer);
    until("the POST is given up", || lab.held().connections == 0);
    lab.world.gate("g").open();

    let answered = poll.take(101);
    let refs: Vec<_> = answered.iter().map(|message| message[1].clone()).collect();
    assert_eq!(refs[0], "2");
    assert_eq!(refs[1..], (3..103).map(serde_json::Value::from).collect::<Vec<_>>());
}
