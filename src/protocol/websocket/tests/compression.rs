//! permessage-deflate through the decoder, and back from the compressor.

use flate2::{Compress, Compression, FlushCompress};

use super::super::deflate::Compressor;
use super::*;

/// A client's deflater.
pub(super) struct Client {
    zlib: Compress,
    takeover: bool,
}

impl Client {
    pub(super) fn new(takeover: bool, window_bits: u8) -> Self {
        Self { zlib: Compress::new_with_window_bits(Compression::new(6), false, window_bits), takeover }
    }

    pub(super) fn compress(&mut self, message: &[u8]) -> Vec<u8> {
        if message.is_empty() {
            // zlib writes nothing for a second flush in a row. RFC 7692 section 7.2.3.6.
            return vec![0];
        }
        if !self.takeover {
            self.zlib.reset();
        }
        let mut out = Vec::with_capacity(message.len() * 2 + 64);
        self.zlib.compress_vec(message, &mut out, FlushCompress::Sync).expect("deflates");
        assert!(out.ends_with(&[0, 0, 0xff, 0xff]));
        out.truncate(out.len() - 4);
        out
    }
}

fn decode_compressed(offer: &str, frames: &[ClientFrame]) -> (Vec<Seen>, Option<ProtocolError>) {
    decode_with(agreed(offer), LIMITS, &stream(frames))
}

fn base64(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).expect("base64")
}

const PLAIN_OFFER: &str = "permessage-deflate";
const NO_TAKEOVER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

#[test]
fn the_recorded_compressed_heartbeat_is_read_between_plain_ones() {
    let payload = base64("is4rzcnRUTJS0lEqyMhPzcusUNJRykhNLCpJSk0sUdKpro0FAA==");
    let frames = [frame(TEXT, "plain"), frame(TEXT, payload).rsv(RSV1), frame(TEXT, "plain")];

    assert_eq!(
        decode_compressed(NO_TAKEOVER, &frames),
        (vec![text("plain"), text(r#"[null,"2","phoenix","heartbeat",{}]"#), text("plain")], None)
    );
}

#[test]
fn the_recorded_bad_data_inflates_to_a_malformed_message() {
    // It closes with 1011 in Phoenix because the text isn't JSON; that is the serializer's to find.
    let payload = base64("ilbKK83J0VEyVNJRKsjIr8pMLs5MzUtOVdJRykhNLCpJSk0sUdKpro0FAA==");

    assert_eq!(
        decode_compressed(NO_TAKEOVER, &[frame(TEXT, payload).rsv(RSV1)]),
        (vec![text(r#"["null,"1","phozicsience","heartbeat",{}]"#)], None)
    );
}

#[test]
fn the_examples_of_rfc_7692_are_read() {
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    for payload in [
        &hello[..],
        // Without compression.
        &[0x00, 0x05, 0x00, 0xfa, 0xff, b'H', b'e', b'l', b'l', b'o', 0x00],
        // A final block.
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        // Two blocks.
        &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
    ] {
        assert_eq!(
            decode_compressed(PLAIN_OFFER, &[frame(TEXT, payload).rsv(RSV1)]),
            (vec![text("Hello")], None),
            "{payload:02x?}"
        );
    }

    // The second message refers to the first.
    let again = [0xf2, 0x00, 0x11, 0x00, 0x00];
    let frames = [frame(TEXT, hello).rsv(RSV1), frame(TEXT, again).rsv(RSV1)];
    assert_eq!(decode_compressed(PLAIN_OFFER, &frames), (vec![text("Hello"), text("Hello")], None));
    let (seen, error) = decode_compressed(NO_TAKEOVER, &frames);
    assert_eq!((seen, error), (vec![text("Hello")], Some(ProtocolError::InvalidDeflate)));
}

#[test]
fn a_final_block_keeps_the_context() {
    let final_block = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
    let again = [0xf2, 0x00, 0x11, 0x00, 0x00];
    let frames = [frame(TEXT, final_block).rsv(RSV1), frame(TEXT, again).rsv(RSV1)];

    assert_eq!(decode_compressed(PLAIN_OFFER, &frames), (vec![text("Hello"), text("Hello")], None));
}

#[test]
fn a_compressed_message_may_come_in_fragments() {
    let mut client = Client::new(true, 15);
    let first = client.compress(b"one and one and one");
    let second = client.compress("and one \u{e9}".as_bytes());
    let frames = [
        frame(TEXT, &first[..3]).more().rsv(RSV1),
        frame(PING, "x"),
        frame(0, &first[3..5]).more(),
        frame(0, &first[5..]),
        frame(TEXT, &second).rsv(RSV1),
    ];

    let (seen, error) = decode_compressed(PLAIN_OFFER, &frames);

    assert_eq!(error, None);
    assert_eq!(
        seen,
        [
            Seen::Fragment,
            Seen::Ping(b"x".to_vec()),
            Seen::Fragment,
            text("one and one and one"),
            text("and one \u{e9}")
        ]
    );
}

#[test]
fn rsv1_belongs_on_the_first_frame_of_a_message_alone() {
    for frames in [
        vec![frame(TEXT, "x").more(), frame(0, "y").rsv(RSV1)],
        vec![frame(TEXT, "x").more().rsv(RSV1), frame(0, "y").rsv(RSV1)],
        vec![frame(PING, "").rsv(RSV1)],
        vec![frame(CLOSE, "").rsv(RSV1)],
        vec![frame(TEXT, "x").rsv(RSV1 | 1)],
        vec![frame(TEXT, "x").rsv(2)],
    ] {
        let (_, error) = decode_compressed(PLAIN_OFFER, &frames);
        assert_eq!(error.map(|error| error.close_code()), Some(1002), "{frames:?}");
    }
}

#[test]
fn data_that_is_not_deflate_closes_with_1007() {
    // A reserved block type; a reference to before the first byte; bytes after a final block.
    for payload in [&[0xff, 0xff, 0xff][..], &[0xf2, 0x00, 0x11, 0x00, 0x00], &[0x03, 0x00, 0x01, 0x02]] {
        let (_, error) = decode_compressed(PLAIN_OFFER, &[frame(BINARY, payload).rsv(RSV1)]);
        assert_eq!(error, Some(ProtocolError::InvalidDeflate), "{payload:02x?}");
    }
    assert_eq!(ProtocolError::InvalidDeflate.close_code(), 1007);
}

#[test]
fn inflated_text_must_be_utf8() {
    let payload = Client::new(false, 15).compress(&[b'a', 0xff]);

    let (_, error) = decode_compressed(PLAIN_OFFER, &[frame(TEXT, payload).rsv(RSV1)]);

    assert_eq!(error, Some(ProtocolError::InvalidUtf8));
}

#[test]
fn an_inflated_message_may_have_the_limit_and_not_more() {
    let limits = Limits { frame_bytes_max: 1 << 20, message_bytes_max: 1_000 };
    let decode = |bytes: usize| {
        let payload = Client::new(false, 15).compress(&vec![b'x'; bytes]);
        decode_with(agreed(PLAIN_OFFER), limits, &frame(TEXT, payload).rsv(RSV1).bytes())
    };

    assert_eq!(decode(1_000), (vec![text(&"x".repeat(1_000))], None));
    assert_eq!(decode(1_001), (vec![], Some(ProtocolError::MessageTooBig { limit: 1_000 })));
}

#[test]
fn a_decompression_bomb_stops_at_the_limit() {
    let limits = Limits { frame_bytes_max: 1 << 20, message_bytes_max: 1 << 20 };
    let bomb = Client::new(false, 15).compress(&vec![0; 50 << 20]);
    assert!(bomb.len() < 1 << 20);

    let (_, error) = decode_with(agreed(PLAIN_OFFER), limits, &frame(BINARY, bomb).rsv(RSV1).bytes());

    assert_eq!(error, Some(ProtocolError::MessageTooBig { limit: 1 << 20 }));
}

#[test]
fn an_inflated_message_is_freed_by_the_next_call() {
    let payload = Client::new(false, 15).compress(b"hello");
    let mut reader = Reader::new(agreed(PLAIN_OFFER), LIMITS);
    reader.read(&frame(TEXT, payload).rsv(RSV1).bytes()).expect("acceptable");

    assert_eq!(reader.seen, [text("hello")]);
    assert!(reader.decoder.is_idle());
}

/// Sends a compressed server frame through a decoder, as a client's frame with the mask 0.
pub(super) fn read_back(compressed: &[u8]) -> Vec<Seen> {
    let mut bytes = compressed.to_vec();
    assert_eq!(bytes[0] & 0x70, 0x40, "a server frame with RSV1");
    let header = match bytes[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    bytes[1] |= 0x80;
    bytes.splice(header..header, [0; 4]);
    let (seen, error) =
        decode_with(agreed(NO_TAKEOVER), Limits { frame_bytes_max: 1 << 30, message_bytes_max: 1 << 30 }, &bytes);
    assert_eq!(error, None);
    seen
}

#[test]
fn compressed_server_frames_are_read_back_whatever_the_level_and_size() {
    let noise = noise(300_000);
    for level in [0, 1, 6, 9] {
        let mut compressor = Compressor::new(15, level);
        for bytes in [0, 1, 125, 126, 65_535, 65_536, 300_000] {
            for payload in [&noise[..bytes], &vec![b'x'; bytes]] {
                let mut out = b"before".to_vec();
                compressor.compress_frame(&mut out, Opcode::Binary, payload);

                assert_eq!(&out[..6], b"before");
                assert_eq!(
                    read_back(&out[6..]),
                    [Seen::Message(Opcode::Binary, payload.to_vec())],
                    "level {level}, {bytes} bytes"
                );
            }
        }
    }
}
