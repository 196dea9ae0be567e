//! The limits of a socket and of the server's door, each at its edge.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::lab::{Counted, DEADLINE, Lab, Peer, connect, handshake, trickle, until};
use crate::transcripts::frames::{FrameBits, encode_frame, text_frame};

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const PING: u8 = 9;

/// A fragment of a message: the first has the message's opcode, the last has `fin`.
fn fragment(opcode: u8, payload: &[u8], fin: bool) -> Vec<u8> {
    encode_frame(opcode, payload, FrameBits { fin, ..FrameBits::default() })
}

/// A heartbeat of exactly this many bytes.
fn heartbeat_of(bytes: usize) -> String {
    let rest = r#"[null,"h","phoenix","heartbeat",{"fill":""}]"#.len();
    format!(r#"[null,"h","phoenix","heartbeat",{{"fill":"{}"}}]"#, "x".repeat(bytes - rest))
}

#[test]
fn a_socket_joins_as_many_topics_as_it_may_and_one_again_after_a_leave() {
    let lab = Lab::with_socket(|options| options.channels_max = 2);
    let mut peer = lab.joined("probe:a");
    peer.join("probe:b");

    peer.send("probe:c", "phx_join", json!({}));
    peer.expect(&[r#"probe:c #3 error {"reason":"too many channels joined"}"#]);
    peer.send("probe:b", "phx_join", json!({}));
    peer.expect(&["probe:b #4 ok {}", "probe:b phx_close of 2"]);
    peer.send("probe:a", "phx_leave", json!({}));
    peer.expect(&["probe:a #5 ok {}", "probe:a phx_close of 1"]);
    peer.join("probe:c");

    lab.joined("probe:c").join("probe:a");
}

#[test]
fn joins_that_wait_count_as_joined() {
    let lab = Lab::with_socket(|options| options.channels_max = 1);
    let mut peer = lab.open();

    peer.send("probe:a", "phx_join", json!({"gate": "g"}));
    peer.send("probe:b", "phx_join", json!({}));

    peer.expect(&[r#"probe:b #2 error {"reason":"too many channels joined"}"#]);
    lab.world.gate("g").open();
    peer.expect(&["probe:a #1 ok {}"]);
}

#[test]
fn a_frame_may_have_as_many_bytes_as_the_limit_and_not_one_more() {
    let lab = Lab::with_socket(|options| options.frame_bytes_max = 1_024);
    let mut peer = lab.joined("probe:a");
    let mut neighbour = lab.joined("probe:b");
    // Eight bytes of a frame this long are its header.
    let fits = heartbeat_of(1_024 - 8);

    peer.send_text(&fits);
    assert_eq!(peer.message().event, "phx_reply");
    peer.send_text(&heartbeat_of(1_024 - 7));

    peer.expect_close(1009);
    lab.world.wait_ended("probe:a", 1);
    neighbour.heartbeat();
}

#[test]
fn a_long_frame_is_refused_by_its_header_alone() {
    let lab = Lab::new();
    let mut peer = lab.open();
    let limit = bennu::protocol::limits::FRAME_BYTES_MAX as u64;

    let mut header = vec![0x80 | TEXT, 0x80 | 127];
    header.extend((limit + 1).to_be_bytes());
    peer.write(&header);

    peer.expect_close(1009);
}

#[test]
fn a_message_in_fragments_may_have_as_many_bytes_as_the_limit_and_not_one_more() {
    let lab = Lab::with_socket(|options| options.message_bytes_max = 1_024);
    let mut peer = lab.joined("probe:a");
    let fits = heartbeat_of(1_024);
    let (begin, rest) = fits.as_bytes().split_at(500);
    let (middle, end) = rest.split_at(500);

    peer.write(&[fragment(TEXT, begin, false), fragment(PING, b"", true)].concat());
    peer.write(&[fragment(CONTINUATION, middle, false), fragment(CONTINUATION, end, true)].concat());
    assert_eq!(peer.next().kind, "pong");
    assert_eq!(peer.message().event, "phx_reply");
    peer.write(&[fragment(TEXT, begin, false), fragment(CONTINUATION, middle, false)].concat());
    peer.write(&fragment(CONTINUATION, &[end, b" "].concat(), true));

    peer.expect_close(1009);
    lab.world.wait_ended("probe:a", 1);
}

#[test]
fn fragments_without_an_end_are_refused_at_the_limit() {
    let lab = Lab::with_socket(|options| options.message_bytes_max = 10_000);
    let mut peer = lab.open();

    peer.write(&fragment(TEXT, &[b' '; 1_000], false));
    for _ in 0..9 {
        peer.write(&fragment(CONTINUATION, &[b' '; 1_000], false));
    }
    peer.write(&fragment(PING, b"all of it", true));
    assert_eq!(peer.next().kind, "pong", "10 000 bytes are held");
    peer.write(&fragment(CONTINUATION, b" ", false));

    peer.expect_close(1009);
}

#[test]
fn connections_beyond_the_limit_are_refused_until_one_ends() {
    let counted = Counted::refused_connections();
    let lab = Lab::with(|options| options.admission.connections_max = 2, |_| {});
    let mut first = lab.joined("probe:a");
    let second = lab.open();

    assert!(is_refused(TcpStream::connect(lab.address()).expect("the kernel accepts")));
    assert_eq!(counted.growth(), 1);
    first.heartbeat();
    drop(second);

    until("a place is free again", || !is_refused(TcpStream::connect(lab.address()).expect("the kernel accepts")));
    first.heartbeat();
}

#[test]
fn an_address_has_its_own_limit_on_connections() {
    let counted = Counted::refused_connections();
    let lab = Lab::with(|options| options.admission.connections_per_ip_max = 2, |_| {});
    let (here, there) = (Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2));
    let _first = lab.joined("probe:a");
    let _second = lab.joined("probe:a");

    assert!(is_refused(connect(lab.address(), here, None)));
    assert_eq!(counted.growth(), 1);
    let mut other = Peer::over(connect(lab.address(), there, None), "vsn=2.0.0");
    other.join("probe:a");
    assert!(!is_refused(connect(lab.address(), there, None)));
}

/// Whether the server closes a connection without a word. Otherwise a request on it is answered.
fn is_refused(stream: TcpStream) -> bool {
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout above zero is allowed");
    let _ = (&stream).write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    let _ = (&stream).read_to_end(&mut answer);
    !answer.starts_with(b"HTTP/1.1 200 ")
}

#[test]
fn a_request_whose_head_does_not_come_is_cut() {
    const TIMEOUT: Duration = Duration::from_millis(200);
    let lab = Lab::with(|options| options.http.handshake_timeout_ms = 200, |_| {});
    let mut peer = lab.joined("probe:a");
    let endless = [b'x'; 2_000];

    let cases: [(&str, &[u8], &[u8]); 3] = [
        ("silence", b"", b""),
        ("half a head", b"GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nHost: local", b""),
        ("a byte at a time", b"GET / HTTP/1.1\r\nX: ", &endless),
    ];
    for (what, first, rest) in cases {
        let stream = TcpStream::connect(lab.address()).expect("the kernel accepts");
        let took = trickle(&stream, first, rest).took;
        assert!(took >= TIMEOUT - Duration::from_millis(20), "{what}: cut after {took:?}");
        assert!(took < TIMEOUT * 10, "{what}: borne for {took:?}");
    }

    // The timeout is the head's alone: an open socket may be silent for longer.
    peer.heartbeat();
}

#[test]
fn a_client_that_never_reads_its_answers_is_cut() {
    let lab = Lab::with(|options| options.http.write_timeout_ms = 300, |_| {});
    let mut stream = TcpStream::connect(lab.address()).expect("the kernel accepts");
    stream.set_write_timeout(Some(Duration::from_millis(50))).expect("a timeout above zero is allowed");
    let requests = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1_000);
    let end = Instant::now() + DEADLINE;

    let cut = loop {
        assert!(Instant::now() < end, "it is borne although nothing of it is read");
        match stream.write(&requests) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                // Of the kernel, a full buffer is neither; the error of a reset comes with the next call.
                if let Some(error) = stream.take_error().expect("a socket tells its error") {
                    break error.kind();
                }
            }
            Err(error) => break error.kind(),
        }
    };

    assert!(matches!(cut, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{cut}");
    lab.joined("probe:a").heartbeat();
}

#[test]
fn an_upgrade_with_a_body_is_refused() {
    let lab = Lab::new();
    let answer = |header: &str| {
        let mut peer = Peer::raw(TcpStream::connect(lab.address()).expect("the kernel accepts"));
        peer.write(handshake("vsn=2.0.0").replace("\r\n\r\n", &format!("\r\n{header}\r\n\r\n")).as_bytes());
        peer.next().status
    };

    assert_eq!(answer("Content-Length: 5"), Some(400));
    assert_eq!(answer("Transfer-Encoding: chunked"), Some(400));
    assert_eq!(answer("Content-Length: 0"), Some(101));
}

#[test]
fn a_head_beyond_the_limit_is_refused() {
    let lab = Lab::with(|options| options.http.header_bytes_max = 8_192, |_| {});
    let head = |bytes: usize| {
        let plain = handshake("vsn=2.0.0");
        let fill = "x".repeat(bytes - plain.len() - "X-Fill: \r\n".len());
        plain.replace("\r\n\r\n", &format!("\r\nX-Fill: {fill}\r\n\r\n"))
    };
    let answer = |bytes: usize| {
        let mut peer = Peer::raw(TcpStream::connect(lab.address()).expect("the kernel accepts"));
        peer.write(head(bytes).as_bytes());
        peer.next().status
    };

    assert_eq!(answer(8_000), Some(101));
    assert_eq!(answer(9_000), Some(431));
    lab.joined("probe:a").heartbeat();
}

#[test]
fn many_messages_in_one_write_are_all_answered() {
    let lab = Lab::new();
    let mut peer = lab.joined("probe:a");
    let mut burst = Vec::new();
    for n in 0..5_000 {
        let text = peer.text("probe:a", "echo", json!({"n": n}));
        burst.extend(text_frame(&text));
    }

    peer.write(&burst);

    for n in 0..5_000 {
        assert_eq!(peer.message().n_replied(), n);
    }
}
