//! The WebSocket decoder against a slow one, however the stream is split; what is framed comes back.

mod inflate;
mod model;

use std::ops::Range;

use flate2::{Compress, Compression, FlushCompress};

use self::model::Verdict;
use super::input::Input;
use crate::protocol::websocket::deflate::{Compressor, Negotiated, negotiate};
use crate::protocol::websocket::{
    Decoder, Event, Limits, Opcode, ProtocolError, ServerFrame, ServerFrameKind, ServerFrames, Step, begin_frame,
    end_frame, write_close, write_frame, write_ping, write_pong,
};

/// Offers of compression, and the bytes that a message then may refer back to: none without compression.
const OFFERS: [(&str, Option<usize>); 8] = [
    ("", None),
    ("permessage-deflate", Some(32_768)),
    ("permessage-deflate; client_no_context_takeover", Some(0)),
    ("permessage-deflate; client_max_window_bits=9", Some(512)),
    ("permessage-deflate; client_max_window_bits=8; server_max_window_bits=9", Some(512)),
    ("permessage-deflate; client_max_window_bits=12; server_no_context_takeover", Some(4_096)),
    ("permessage-deflate; client_max_window_bits; server_max_window_bits=8", Some(32_768)),
    ("x-other, permessage-deflate; client_max_window_bits=10; client_no_context_takeover", Some(0)),
];

/// Limits in bytes, at the steps of a length's encoding and beside them.
const LIMITS: [usize; 8] = [1 << 17, 0, 6, 131, 133, 300, 4_000, 65_549];

/// Limits that no conversation of the second form comes near.
const AMPLE: Limits = Limits { frame_bytes_max: 1 << 20, message_bytes_max: 1 << 20 };

/// Bytes of a message that is compressed: zlib is slow where every branch is traced.
const COMPRESSED_BYTES_MAX: usize = 4_096;

/// The decoder of client frames, with and without permessage-deflate, and the writer of server frames.
///
/// Input: a byte for form and offer, one for the limits, one for the splits; then either a client's stream as it is, or
/// what a client is to say, which is framed here and has to come out as it was said.
///
/// # Panics
/// If the decoder does not see what the model sees, if a split into reads changes anything, if it holds more than its
/// limits allow, or if what was framed is not read back.
pub fn websocket_frames(data: &[u8]) {
    let mut input = Input::new(data);
    let (form, limits, splits) = (input.byte(), input.byte(), input.byte());
    let agreed = Agreed::of(form);
    let chosen = |bits: u8| LIMITS[usize::from(bits & 7)];
    let limits = Limits { frame_bytes_max: chosen(limits), message_bytes_max: chosen(limits >> 3) };

    if form & 0x80 == 0 {
        check_stream(input.remaining(), &agreed, &limits, splits);
    } else {
        let (stream, expected) = conversation(&mut input, &agreed);
        for sizes in [Sizes::AtOnce, Sizes::random(splits)] {
            let seen = read(&stream, sizes, &agreed, &AMPLE);
            assert_eq!(seen, (expected.clone(), Ending::Open), "what a client says is what is seen");
        }
        check_stream(&stream, &agreed, &limits, splits);
        check_server_frames(&expected, &agreed, form);
    }
}

/// What was agreed on about compression.
struct Agreed {
    negotiated: Option<Negotiated>,
    /// None without compression.
    window_bytes: Option<usize>,
}

impl Agreed {
    fn of(form: u8) -> Self {
        let (offer, window_bytes) = OFFERS[usize::from(form & 7)];
        Agreed { negotiated: negotiate(offer).map(|(negotiated, _)| negotiated), window_bytes }
    }
}

/// An event that owns its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Seen {
    Message(Opcode, Vec<u8>),
    Fragment,
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Message(opcode, payload) => Seen::Message(opcode, payload.to_vec()),
            Event::Fragment => Seen::Fragment,
            Event::Ping(payload) => Seen::Ping(payload.to_vec()),
            Event::Pong => Seen::Pong,
            Event::Close(code) => Seen::Close(code),
        }
    }
}

/// How the decoder came to the end of a stream.
#[derive(PartialEq, Eq, Debug)]
enum Ending {
    Open,
    Closed,
    Faulty(ProtocolError),
}

/// How many bytes each read brings.
#[derive(Clone, Copy)]
enum Sizes {
    AtOnce,
    OneByOne,
    /// The state of a generator.
    Random(u32),
}

impl Sizes {
    fn random(seed: u8) -> Self {
        Sizes::Random(u32::from(seed))
    }

    fn next(&mut self) -> usize {
        match self {
            Sizes::AtOnce => usize::MAX,
            Sizes::OneByOne => 1,
            Sizes::Random(state) => {
                *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // Mostly a few bytes, now and then many.
                1 + (*state >> 16) as usize % if *state >> 31 == 0 { 7 } else { 200 }
            }
        }
    }
}

/// Reads a stream as a transport does: what has arrived and was not consumed waits in a buffer.
fn read(stream: &[u8], mut sizes: Sizes, agreed: &Agreed, limits: &Limits) -> (Vec<Seen>, Ending) {
    let mut decoder = Decoder::new(agreed.negotiated);
    let (mut seen, mut buffer, mut rest) = (Vec::new(), Vec::new(), stream);
    // Bytes that the frame at the front needs, as far as the decoder has said.
    let mut needed = 0;
    loop {
        match decoder.next(&mut buffer, limits) {
            Err(fault) => return (seen, Ending::Faulty(fault)),
            Ok(Step::Frame { consumed, event }) => {
                assert!(needed <= consumed, "the decoder asked for {needed} bytes for a frame of {consumed}");
                let closed = matches!(event, Event::Close(_));
                seen.push(event.into());
                drop(buffer.drain(..consumed));
                needed = 0;
                if closed {
                    return (seen, Ending::Closed);
                }
            }
            Ok(Step::Incomplete { need }) => {
                assert!(need > buffer.len(), "the decoder waits for {need} bytes and has {}", buffer.len());
                needed = need;
                if rest.is_empty() {
                    return (seen, Ending::Open);
                }
                let (now, later) = rest.split_at(sizes.next().min(rest.len()));
                buffer.extend_from_slice(now);
                rest = later;
            }
        }
        let held_bytes_max = 2 * limits.message_bytes_max + SLACK_BYTES + agreed.window_bytes.unwrap_or(0);
        let held_bytes = decoder.held_bytes();
        assert!(held_bytes <= held_bytes_max, "the decoder holds {held_bytes} bytes, at most {held_bytes_max} may be");
    }
}

/// What a buffer may have beyond twice its contents: the least that a growing one is made with.
const SLACK_BYTES: usize = 8;

/// Bytes of a stream that is also read byte by byte.
const ONE_BY_ONE_BYTES_MAX: usize = 2_000;

fn check_stream(stream: &[u8], agreed: &Agreed, limits: &Limits, splits: u8) {
    let (seen, ending) = read(stream, Sizes::AtOnce, agreed, limits);

    let (expected, verdict) = model::read(stream, agreed, limits);
    assert_eq!(seen, expected, "decoder and model");
    let agree = match (&ending, &verdict) {
        (Ending::Open, Verdict::Open) | (Ending::Closed, Verdict::Closed) => true,
        (Ending::Faulty(fault), Verdict::Faulty(codes)) => codes.contains(&fault.close_code()),
        _ => false,
    };
    assert!(agree, "decoder: {ending:?}, model: {verdict:?}");
    for event in &seen {
        if let Seen::Message(_, message) = event {
            assert!(message.len() <= limits.message_bytes_max);
        }
    }

    let whole = (seen, ending);
    assert_eq!(read(stream, Sizes::random(splits), agreed, limits), whole, "split at random from {splits}");
    if stream.len() <= ONE_BY_ONE_BYTES_MAX {
        assert_eq!(read(stream, Sizes::OneByOne, agreed, limits), whole, "split into bytes");
    }
}

/// Frames what a client is to say. Gives the stream and what has to be seen of it.
fn conversation(input: &mut Input<'_>, agreed: &Agreed) -> (Vec<u8>, Vec<Seen>) {
    let (mut stream, mut expected) = (Vec::new(), Vec::new());
    let level = input.below(10);
    let mut deflater = None;
    while !input.is_empty() && stream.len() < 1 << 18 {
        let how = input.byte();
        let mask = [input.byte(), how, 0x5a, 0xff];
        match how & 3 {
            0 => {
                let payload = input.chunk();
                let payload = &payload[..payload.len().min(125)];
                let opcode = if how & 4 == 0 { 9 } else { 10 };
                client_frame(&mut stream, opcode, true, mask, how & 8 != 0, payload);
                expected.push(if how & 4 == 0 { Seen::Ping(payload.to_vec()) } else { Seen::Pong });
            }
            kind => {
                let opcode = if kind == 1 { Opcode::Text } else { Opcode::Binary };
                // Now and then up to some 65 000 bytes, for the lengths of 16 and of 64 bits.
                let times = if how < 0xf0 { 1 } else { 1 + input.below(256) };
                let message = input.chunk().repeat(times);
                let message = if kind == 1 { String::from_utf8_lossy(&message).into_owned().into() } else { message };
                let (reserved, sent) = match agreed.window_bytes {
                    Some(window_bytes) if how & 4 != 0 && message.len() <= COMPRESSED_BYTES_MAX => {
                        (0x40, deflater.get_or_insert_with(|| Deflater::new(level, window_bytes)).compress(&message))
                    }
                    _ => (0, message.clone()),
                };
                let pieces = cut(sent.len(), how >> 4 & 3, input);
                let last = pieces.len() - 1;
                for (i, piece) in pieces.into_iter().enumerate() {
                    let first = if i > 0 { 0 } else { reserved | if kind == 1 { 1 } else { 2 } };
                    client_frame(&mut stream, first, i == last, mask, how & 8 != 0, &sent[piece]);
                    expected.push(if i == last { Seen::Message(opcode, message.clone()) } else { Seen::Fragment });
                    if i < last && how & 0x40 != 0 {
                        client_frame(&mut stream, 9, true, mask, false, b"between");
                        expected.push(Seen::Ping(b"between".to_vec()));
                    }
                }
            }
        }
    }
    (stream, expected)
}

/// Cuts a message into up to four pieces, of which some may be empty.
fn cut(bytes: usize, cuts: u8, input: &mut Input<'_>) -> Vec<Range<usize>> {
    let mut ends: Vec<usize> = (0..cuts).map(|_| bytes * input.below(256) / 255).collect();
    ends.push(bytes);
    ends.sort_unstable();
    let mut start = 0;
    ends.into_iter().map(|end| std::mem::replace(&mut start, end)..end).collect()
}

/// A client's frame; `long` spends 64 bits on any length.
fn client_frame(stream: &mut Vec<u8>, first: u8, last: bool, mask: [u8; 4], long: bool, payload: &[u8]) {
    stream.push(first | if last { 0x80 } else { 0 });
    match payload.len() {
        short @ 0..126 if !long || first & 8 != 0 => stream.push(0x80 | short as u8),
        medium @ 0..65_536 if !long => {
            stream.push(0x80 | 126);
            stream.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        any => {
            stream.push(0x80 | 127);
            stream.extend_from_slice(&(any as u64).to_be_bytes());
        }
    }
    stream.extend_from_slice(&mask);
    stream.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]));
}

/// A client's deflater, which lives as long as its connection.
struct Deflater {
    zlib: Compress,
    takeover: bool,
}

impl Deflater {
    fn new(level: usize, window_bytes: usize) -> Self {
        let window_bits = if window_bytes == 0 { 10 } else { window_bytes.ilog2() as u8 };
        let zlib = Compress::new_with_window_bits(Compression::new(level as u32), false, window_bits);
        Deflater { zlib, takeover: window_bytes > 0 }
    }

    fn compress(&mut self, message: &[u8]) -> Vec<u8> {
        if message.is_empty() {
            // zlib writes nothing for a second flush in a row: RFC 7692 section 7.2.3.6.
            return vec![0];
        }
        if !self.takeover {
            self.zlib.reset();
        }
        let mut out = Vec::with_capacity(message.len() * 2 + 128);
        self.zlib.compress_vec(message, &mut out, FlushCompress::Sync).expect("deflating into memory can't fail");
        out.truncate(out.len() - 4);
        out
    }
}

/// Writes messages as a server does, each way there is, and reads them back. Compresses where the form says so.
fn check_server_frames(messages: &[Seen], agreed: &Agreed, form: u8) {
    let (mut written, mut filled, mut sent) = (Vec::new(), Vec::new(), Vec::new());
    let negotiated = agreed.negotiated.filter(|_| form & 0x40 != 0);
    let level = u32::from(form >> 3 & 7) + 2;
    let mut compressor = negotiated.map(|negotiated| Compressor::new(negotiated.server_window_bits(), level));
    for event in messages {
        match event {
            Seen::Message(opcode, payload) => {
                let kind = if *opcode == Opcode::Text { ServerFrameKind::Text } else { ServerFrameKind::Binary };
                sent.push((kind, payload.as_slice()));
                write_frame(&mut written, *opcode, payload);
                let start = begin_frame(&mut filled);
                filled.extend_from_slice(payload);
                end_frame(&mut filled, start, *opcode);
                if let Some(compressor) = &mut compressor
                    && payload.len() <= COMPRESSED_BYTES_MAX
                {
                    check_compressed(compressor, *opcode, payload);
                }
            }
            Seen::Ping(payload) => {
                sent.push((ServerFrameKind::Pong, payload));
                write_pong(&mut written, payload);
                write_pong(&mut filled, payload);
            }
            Seen::Pong => {
                sent.push((ServerFrameKind::Ping, b"?"));
                write_ping(&mut written, b"?");
                write_ping(&mut filled, b"?");
            }
            Seen::Fragment | Seen::Close(_) => {}
        }
    }
    write_close(&mut written, 1000, "");
    write_close(&mut filled, 1000, "");
    sent.push((ServerFrameKind::Close, &[3, 232]));

    assert_eq!(written, filled, "frames filled in place and frames written");
    let mut frames = ServerFrames::new(&written);
    for (kind, payload) in sent {
        assert_eq!(frames.next(), Some(ServerFrame { kind, payload }));
    }
    assert_eq!((frames.next(), frames.rest()), (None, &[][..]));
}

/// A compressed message stands alone: it inflates to itself without what came before it.
fn check_compressed(compressor: &mut Compressor, opcode: Opcode, payload: &[u8]) {
    let mut frame = Vec::new();
    compressor.compress_frame(&mut frame, opcode, payload);
    let compressed = frame[0] & 0x40 != 0;
    // The reader of plain frames takes it without the bit that says it is compressed.
    frame[0] &= !0x40;
    let mut frames = ServerFrames::new(&frame);
    let body = frames.next().expect("a frame was written").payload;
    assert!(frames.rest().is_empty(), "one message is one frame");
    if compressed {
        let whole = [body, &[0, 0, 0xff, 0xff]].concat();
        let (inflated, _) = inflate::inflate(&[], &whole, payload.len());
        assert_eq!(inflated, payload, "a compressed message");
    } else {
        assert_eq!(body, payload, "a message that is not compressed");
    }
}
