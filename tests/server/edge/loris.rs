//! Clients that take their time, to hold what is held for them: heads, bodies and frames a byte at a time.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use bennu::channel::{LongPollOptions, Reason};
use serde_json::json;

use super::{post_head, raw};
use crate::lab::{DEADLINE, Lab, Poll, trickle, until};
use crate::transcripts::frames::{FrameBits, encode_frame, text_frame};

/// What the tests set their timeouts to.
const TIMEOUT: Duration = Duration::from_millis(300);
const TIMEOUT_MS: u64 = 300;

/// Longer than anything takes here that ends by a timeout.
const LATE: Duration = Duration::from_secs(3);

fn stream(lab: &Lab) -> TcpStream {
    TcpStream::connect(lab.address()).expect("the kernel accepts")
}

#[test]
fn many_slow_heads_hold_nobody_up_and_are_all_cut() {
    const SLOW: usize = 300;
    let lab = Lab::with(|options| options.http.handshake_timeout_ms = 5_000, |_| {});
    let mut neighbour = lab.joined("probe:a");
    let begun = Instant::now();

    let mut slow: Vec<_> = (0..SLOW).map(|_| raw(&lab)).collect();
    for (n, peer) in slow.iter().enumerate() {
        peer.write(&b"GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nHost: localhost\r\nX: "[..n % 60]);
    }
    until("all are accepted", || lab.held().connections == SLOW + 1);
    assert!(begun.elapsed() < Duration::from_secs(5), "none is cut yet");

    let mut late = lab.joined("probe:a");
    lab.broadcast("probe:a", "shout", json!({"n": 1}));
    neighbour.expect(&[r#"probe:a shout {"n":1}"#]);
    late.expect(&[r#"probe:a shout {"n":1}"#]);
    assert_eq!(lab.held().connections, SLOW + 2, "they were served beside the slow ones");

    until("the slow ones are cut", || lab.held().connections == 2);
    for peer in &mut slow {
        peer.until_gone();
    }
    neighbour.heartbeat();
    late.heartbeat();
}

#[test]
fn an_http_connection_that_is_kept_alive_has_the_same_time_for_its_next_head() {
    let lab = Lab::with(|options| options.http.handshake_timeout_ms = TIMEOUT_MS, |_| {});
    let request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";

    for (what, next) in [("silence", &b""[..]), ("half a head", b"GET /livez HTT"), ("a trickle", &[b'G'; 500])] {
        let borne = trickle(&stream(&lab), request, next);

        assert!(borne.heard.starts_with(b"HTTP/1.1 200 "), "{what}: the first is answered");
        assert!(borne.took >= TIMEOUT - Duration::from_millis(50), "{what}: cut after {:?}", borne.took);
        assert!(borne.took < LATE, "{what}: borne for {:?}", borne.took);
    }
    until("nothing is held for them", || lab.held().connections == 0);
}

#[test]
fn a_body_that_trickles_is_refused_when_its_time_is_up() {
    let lab = Lab::with(
        |options| options.longpoll_body_timeout_ms = TIMEOUT_MS,
        |options| options.longpoll = Some(LongPollOptions::default()),
    );
    let poll = Poll::joined(&lab, "probe:a");
    let head = post_head(&poll.target);

    let counted = format!("{head}Content-Length: 5000\r\n\r\n[");
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
    let endless_chunks: Vec<u8> = b"1\r\n[\r\n".repeat(500);
    for (first, rest) in [(counted, &[b' '; 5_000][..]), (chunked, &endless_chunks)] {
        let borne = trickle(&stream(&lab), first.as_bytes(), rest);

        let heard = String::from_utf8_lossy(&borne.heard);
        assert!(heard.starts_with("HTTP/1.1 400 ") && heard.contains("late"), "{heard}");
        assert!(borne.took >= TIMEOUT && borne.took < LATE, "borne for {:?}", borne.took);
    }
    until("nothing is held for them", || lab.held().connections == 0);
    assert_eq!(poll.post(r#"["1","2","probe:a","echo",{}]"#), json!({"status": 200}));
    assert_eq!(poll.messages().len(), 1, "of what trickled nothing was handled");
}

#[test]
fn a_body_that_nobody_wants_is_not_waited_for() {
    let lab = Lab::with_longpoll(|_| {});
    let cases = [
        ("POST", "/socket/longpoll?vsn=2.0.0&token=unknown", "{\"status\":410}"),
        ("GET", "/socket/longpoll?vsn=2.0.0", "\"status\":410,\"token\""),
        ("DELETE", "/socket/longpoll?vsn=2.0.0", "HTTP/1.1 400"),
        ("POST", "/socket/websocket?vsn=2.0.0", "HTTP/1.1 400"),
        ("GET", "/socket/websocket?vsn=2.0.0", "HTTP/1.1 400"),
        ("POST", "/livez", "HTTP/1.1 404"),
        ("POST", "/nowhere", "HTTP/1.1 404"),
    ];
    for (method, target, expected) in cases {
        for body in ["Content-Length: 1000000000", "Transfer-Encoding: chunked"] {
            let first = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{body}\r\n\r\n");

            let borne = trickle(&stream(&lab), first.as_bytes(), &[b'1'; 2_000]);

            let heard = String::from_utf8_lossy(&borne.heard);
            assert!(heard.contains(expected), "{method} {target} {body}: {heard}");
            assert!(borne.took < LATE, "{method} {target} {body}: borne for {:?}", borne.took);
        }
    }
    until("nothing is held for them", || lab.held().connections == 0);
}

#[test]
fn a_frame_that_trickles_does_not_keep_its_socket_open() {
    let lab = Lab::with_socket(|options| options.idle_timeout_ms = TIMEOUT_MS);
    let frame = text_frame(&json!(["1", "2", "probe:a", "echo", {"fill": "x".repeat(5_000)}]).to_string());

    let mut peer = lab.joined("probe:a");
    let begun = Instant::now();
    let borne = trickle(peer.stream(), &frame[..100], &frame[100..]);

    assert_eq!(borne.heard[..4], [0x88, 2, 3, 0xea], "close 1002");
    assert_eq!(lab.world.wait_ended("probe:a", 1)[0].reason, Reason::SocketClosed);
    let ended = begun.elapsed();
    assert!(ended >= TIMEOUT && ended < DEADLINE, "ended after {ended:?}");
    peer.until_gone();
}

#[test]
fn fragments_that_trickle_are_frames_and_hold_no_more_than_a_message_may() {
    let lab = Lab::with_socket(|options| {
        options.idle_timeout_ms = 1_500;
        options.message_bytes_max = 100;
    });
    let mut peer = lab.joined("probe:a");
    let fragment = |opcode| encode_frame(opcode, b" ", FrameBits { fin: false, ..FrameBits::default() });
    let begun = Instant::now();

    peer.write(&fragment(1));
    // One each 20 ms: longer than the idle timeout in all, and one more than the message may have.
    for _ in 1..=100 {
        assert!(peer.next_within(Duration::from_millis(20)).is_none(), "each frame is a sign of life");
        peer.write(&fragment(0));
    }

    peer.expect_close(1009);
    assert!(begun.elapsed() > Duration::from_millis(1_500));
}
