//! Bytes that come one at a time, or cut at every place there is: what they say is the same.
//!
//! Each part is sent when the server has read the one before, so that no two of them meet in a buffer. The server has one
//! thread, and a neighbour that has been answered a few times shows that it has looked at every connection meanwhile.

use bennu::channel::{Compression as Deflate, LongPollOptions, SocketOptions};
use flate2::{Compress, Compression, FlushCompress};
use serde_json::json;

use super::{post_head, raw};
use crate::lab::{Lab, Peer, Poll, handshake};
use crate::transcripts::case::Event;
use crate::transcripts::frames::{FrameBits, encode_frame};

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;

/// Characters of two, three and four bytes.
const WIDE: &str = "é€😀";

/// A handshake and a message of each kind: whole, with characters of several bytes, in fragments with a ping between
/// them, binary, one that is broadcast; then a close.
fn conversation(compressed: bool) -> Vec<u8> {
    let text = |payload: &[u8], fin: bool| {
        let rsv = if compressed { 4 } else { 0 };
        encode_frame(TEXT, payload, FrameBits { fin, rsv, ..FrameBits::default() })
    };
    let packed = |message: &str| if compressed { deflated(message.as_bytes()) } else { message.as_bytes().to_vec() };
    let echo = |n: u64| format!(r#"["1","{n}","probe:a","echo",{{"wide":"{WIDE}"}}]"#);

    let mut bytes = handshake("vsn=2.0.0").into_bytes();
    if compressed {
        bytes.truncate(bytes.len() - 2);
        bytes.extend(b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n");
    }
    bytes.extend(text(&packed(r#"["1","1","probe:a","phx_join",{}]"#), true));
    bytes.extend(text(&packed(&echo(2)), true));
    let third = packed(&echo(3));
    // In plain text the second cut falls inside of a character.
    let (begin, rest) = third.split_at(9);
    let (middle, end) = rest.split_at(rest.len() - 6);
    bytes.extend(text(begin, false));
    bytes.extend(encode_frame(PING, b"between", FrameBits::default()));
    bytes.extend(encode_frame(CONTINUATION, middle, FrameBits { fin: false, ..FrameBits::default() }));
    bytes.extend(encode_frame(CONTINUATION, end, FrameBits::default()));
    bytes.extend(encode_frame(BINARY, b"\x00\x01\x01\x07\x0414probe:aecho\x00\xff", FrameBits::default()));
    bytes.extend(text(&packed(r#"["1","5","probe:a","shout",{"n":5}]"#), true));
    bytes.extend(encode_frame(CLOSE, &1000_u16.to_be_bytes(), FrameBits::default()));
    bytes
}

/// One message, compressed as RFC 7692 has it: without the empty block at its end.
fn deflated(message: &[u8]) -> Vec<u8> {
    let mut compressor = Compress::new(Compression::default(), false);
    let mut packed = Vec::with_capacity(message.len() + 64);
    compressor.compress_vec(message, &mut packed, FlushCompress::Sync).expect("the buffer has room");
    packed.truncate(packed.len() - 4);
    packed
}

fn lab(change: impl FnOnce(&mut SocketOptions)) -> Lab {
    Lab::with_workers(1, |_| {}, change)
}

/// Sends the parts, each when the one before has been read.
#[track_caller]
fn dribble<'a>(peer: &Peer, neighbour: &mut Peer, parts: impl IntoIterator<Item = &'a [u8]>) {
    for part in parts {
        peer.write(part);
        // The connection is accepted, is given its task, which runs: three turns at most.
        for _ in 0..3 {
            neighbour.heartbeat();
        }
    }
}

/// Gives everything that the server says to a client that dribbles.
#[track_caller]
fn said<'a>(lab: &Lab, neighbour: &mut Peer, parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let mut peer = raw(lab);
    dribble(&peer, neighbour, parts);
    peer.until_gone().iter().map(in_short).collect()
}

fn in_short(event: &Event) -> String {
    let Event { kind, status, raw, base64, code, .. } = event;
    format!("{kind} {status:?} {raw:?} {base64:?} {code:?}")
}

#[track_caller]
fn check_cuts(lab: &Lab, compressed: bool) {
    let bytes = conversation(compressed);
    let mut neighbour = lab.open();
    let whole = said(lab, &mut neighbour, [bytes.as_slice()]);
    assert_eq!(whole.len(), 9, "101, five replies, a pong, a broadcast, a close: {whole:#?}");
    assert!(whole[8].starts_with("close") && whole[8].ends_with("Some(1000)"), "{whole:#?}");

    for cut in 1..bytes.len() {
        let (begin, end) = bytes.split_at(cut);
        assert_eq!(said(lab, &mut neighbour, [begin, end]), whole, "cut at {cut}");
    }
    assert_eq!(said(lab, &mut neighbour, bytes.chunks(1)), whole, "a byte at a time");
}

#[test]
fn a_conversation_reads_the_same_wherever_its_bytes_are_cut() {
    check_cuts(&lab(|_| {}), false);
}

#[test]
fn a_compressed_conversation_reads_the_same_wherever_its_bytes_are_cut() {
    check_cuts(&lab(|options| options.compression = Deflate::On), true);
}

/// The answer to a request whose parts are sent one after another.
#[track_caller]
fn answered<'a>(peer: &mut Peer, neighbour: &mut Peer, parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    dribble(peer, neighbour, parts);
    let answer = peer.next();
    assert_eq!(answer.status, Some(200), "{answer:?}");
    answer.body.expect("an answer has a body")
}

#[track_caller]
fn check_posts(request: impl Fn(&str, &str) -> Vec<u8>) {
    let lab = lab(|options| options.longpoll = Some(LongPollOptions::default()));
    let poll = Poll::joined(&lab, "probe:a");
    let message = |n: usize| json!(["1", n, "probe:a", "echo", {"n": n, "wide": WIDE}]).to_string();
    let (mut peer, mut neighbour) = (raw(&lab), lab.open());
    let bytes = request(&poll.target, &message(100)).len();

    for cut in 1..bytes {
        let request = request(&poll.target, &message(100 + cut));
        let (begin, end) = request.split_at(cut);
        assert_eq!(answered(&mut peer, &mut neighbour, [begin, end]), r#"{"status":200}"#, "cut at {cut}");
    }
    let last = request(&poll.target, &message(100 + bytes));
    assert_eq!(answered(&mut peer, &mut neighbour, last.chunks(1)), r#"{"status":200}"#, "a byte at a time");

    let echoed = poll.take(bytes);
    for (n, echo) in (101..).zip(echoed) {
        assert_eq!((&echo[1], &echo[4]["response"]), (&json!(n), &json!({"n": n, "wide": WIDE})));
    }
}

#[test]
fn a_post_reads_the_same_wherever_its_bytes_are_cut() {
    check_posts(|target, message| {
        format!("{}Content-Length: {}\r\n\r\n{message}", post_head(target), message.len()).into_bytes()
    });
}

#[test]
fn a_chunked_post_reads_the_same_wherever_its_bytes_are_cut() {
    check_posts(|target, message| {
        let (begin, end) = message.as_bytes().split_at(message.len() - 13);
        let chunk = |data: &[u8]| [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat();
        let head = format!("{}Transfer-Encoding: chunked\r\n\r\n", post_head(target));
        [head.into_bytes(), chunk(begin), chunk(end), b"0\r\n\r\n".to_vec()].concat()
    });
}

#[test]
fn a_poll_a_byte_at_a_time_begins_a_session_and_gets_its_messages() {
    let lab = lab(|options| options.longpoll = Some(LongPollOptions::default()));
    let (mut peer, mut neighbour) = (raw(&lab), lab.open());
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();

    let begun = answered(&mut peer, &mut neighbour, get("/socket/longpoll?vsn=2.0.0").chunks(1));
    let begun: serde_json::Value = serde_json::from_str(&begun).expect("JSON");
    let target = format!("/socket/longpoll?vsn=2.0.0&token={}", begun["token"].as_str().expect("a token"));
    let join = r#"["1","1","probe:a","phx_join",{}]"#;
    let post = format!("{}Content-Length: {}\r\n\r\n{join}", post_head(&target), join.len());
    answered(&mut peer, &mut neighbour, post.as_bytes().chunks(1));

    assert!(answered(&mut peer, &mut neighbour, get(&target).chunks(1)).contains("phx_reply"));
}
