//! Server frames: appended to a buffer, and read back from one.
//!
//! Server frames are final and unmasked. Source: RFC 6455 section 5.2.

use super::Opcode;
use super::close::REASON_BYTES_MAX;

/// First header byte: this is the last frame of its message.
pub(super) const FIN: u8 = 0x80;
/// First header byte: the message is compressed (RFC 7692).
pub(super) const RSV1: u8 = 0x40;
/// Second header byte: a mask follows the length.
pub(super) const MASKED: u8 = 0x80;

/// Opcode of the frames after the first of a message.
pub(super) const CONTINUATION: u8 = 0x0;
/// Opcode of a text message.
pub(super) const TEXT: u8 = 0x1;
/// Opcode of a binary message.
pub(super) const BINARY: u8 = 0x2;
/// Opcode of a close frame.
pub(super) const CLOSE: u8 = 0x8;
/// Opcode of a ping.
pub(super) const PING: u8 = 0x9;
/// Opcode of a pong.
pub(super) const PONG: u8 = 0xa;

/// Most payload bytes of a control frame, and of any frame whose length fits the second header byte.
pub(super) const SHORT_BYTES_MAX: usize = 125;

/// Length in the second header byte that says: 16 bits of length follow.
pub(super) const LENGTH_16: u8 = 126;
/// Length in the second header byte that says: 64 bits of length follow.
pub(super) const LENGTH_64: u8 = 127;

impl Opcode {
    pub(super) fn byte(self) -> u8 {
        match self {
            Opcode::Text => TEXT,
            Opcode::Binary => BINARY,
        }
    }
}

/// Appends one whole message as one frame.
pub fn write_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    write(out, FIN | opcode.byte(), payload);
}

/// Begins a frame whose payload the caller appends next. Returns what [`end_frame`] needs to know.
///
/// Reserves the two bytes of a short header.
pub fn begin_frame(buf: &mut Vec<u8>) -> usize {
    let start = buf.len();
    buf.extend_from_slice(&[0, 0]);
    start
}

/// Ends the frame that [`begin_frame`] began at `start`: everything after its two bytes is the payload.
///
/// A payload of more than 125 bytes moves up by 2 or 8 bytes to make room for its length.
pub fn end_frame(buf: &mut Vec<u8>, start: usize, opcode: Opcode) {
    end_frame_as(buf, start, FIN | opcode.byte());
}

/// [`end_frame`] with the whole first header byte.
pub(super) fn end_frame_as(buf: &mut Vec<u8>, start: usize, first: u8) {
    let payload = start + 2;
    let end = buf.len();
    let bytes = end - payload;
    let short = match bytes {
        0..=SHORT_BYTES_MAX => bytes as u8,
        126..=0xffff => {
            buf.extend_from_slice(&[0; 2]);
            buf.copy_within(payload..end, payload + 2);
            buf[payload..payload + 2].copy_from_slice(&(bytes as u16).to_be_bytes());
            LENGTH_16
        }
        _ => {
            buf.extend_from_slice(&[0; 8]);
            buf.copy_within(payload..end, payload + 8);
            buf[payload..payload + 8].copy_from_slice(&(bytes as u64).to_be_bytes());
            LENGTH_64
        }
    };
    buf[start] = first;
    buf[start + 1] = short;
}

/// Appends a ping. `payload` is cut to 125 bytes.
pub fn write_ping(out: &mut Vec<u8>, payload: &[u8]) {
    write(out, FIN | PING, &payload[..payload.len().min(SHORT_BYTES_MAX)]);
}

/// Appends a pong. `payload` is that of the ping; it is cut to 125 bytes.
pub fn write_pong(out: &mut Vec<u8>, payload: &[u8]) {
    write(out, FIN | PONG, &payload[..payload.len().min(SHORT_BYTES_MAX)]);
}

/// Appends a close frame. `reason` is cut to 123 bytes, at the end of a character.
pub fn write_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
    let start = begin_frame(out);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
    end_frame_as(out, start, FIN | CLOSE);
}

fn write(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    let bytes = payload.len();
    match bytes {
        0..=SHORT_BYTES_MAX => {
            out.reserve(2 + bytes);
            out.extend_from_slice(&[first, bytes as u8]);
        }
        126..=0xffff => {
            out.reserve(4 + bytes);
            let [high, low] = (bytes as u16).to_be_bytes();
            out.extend_from_slice(&[first, LENGTH_16, high, low]);
        }
        _ => {
            out.reserve(10 + bytes);
            out.extend_from_slice(&[first, LENGTH_64]);
            out.extend_from_slice(&(bytes as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// What a server frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerFrameKind {
    /// A text message.
    Text,
    /// A binary message.
    Binary,
    /// A ping.
    Ping,
    /// A pong.
    Pong,
    /// A close frame.
    Close,
}

/// One frame read back by [`ServerFrames`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServerFrame<'a> {
    /// What it is.
    pub kind: ServerFrameKind,
    /// Its payload.
    pub payload: &'a [u8],
}

/// Reads back the frames that this module's functions appended to one buffer.
///
/// For transports that get the same bytes as plain sockets but send something else: long poll and compressed sockets.
/// Ends at the first byte that doesn't begin a whole frame of ours; [`ServerFrames::rest`] is empty if there is none.
#[derive(Clone, Debug)]
pub struct ServerFrames<'a> {
    rest: &'a [u8],
}

impl<'a> ServerFrames<'a> {
    /// Reads the frames in `bytes`, which should hold whole frames only.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The bytes not read so far.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for ServerFrames<'a> {
    type Item = ServerFrame<'a>;

    fn next(&mut self) -> Option<ServerFrame<'a>> {
        let (&[first, short], rest) = self.rest.split_first_chunk()?;
        let kind = match first ^ FIN {
            TEXT => ServerFrameKind::Text,
            BINARY => ServerFrameKind::Binary,
            PING => ServerFrameKind::Ping,
            PONG => ServerFrameKind::Pong,
            CLOSE => ServerFrameKind::Close,
            _ => return None,
        };
        let (bytes, rest) = match short {
            LENGTH_16 => {
                let (length, rest) = rest.split_first_chunk()?;
                (usize::from(u16::from_be_bytes(*length)), rest)
            }
            LENGTH_64 => {
                let (length, rest) = rest.split_first_chunk()?;
                (usize::try_from(u64::from_be_bytes(*length)).ok()?, rest)
            }
            short => (usize::from(short), rest),
        };
        let (payload, rest) = rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(ServerFrame { kind, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_takes_7_16_or_64_bits() {
        let header = |bytes: usize| {
            let mut out = Vec::new();
            write_frame(&mut out, Opcode::Text, &vec![b'x'; bytes]);
            out.truncate(out.len() - bytes);
            out
        };

        assert_eq!(header(0), [0x81, 0]);
        assert_eq!(header(125), [0x81, 125]);
        assert_eq!(header(126), [0x81, 126, 0, 126]);
        assert_eq!(header(65_535), [0x81, 126, 0xff, 0xff]);
        assert_eq!(header(65_536), [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_frame_filled_in_place_equals_a_written_one() {
        for bytes in [0, 1, 125, 126, 127, 65_535, 65_536, 65_537] {
            let payload: Vec<u8> = (0..bytes).map(|i| i as u8).collect();
            let mut written = b"before".to_vec();
            write_frame(&mut written, Opcode::Binary, &payload);

            let mut filled = b"before".to_vec();
            let start = begin_frame(&mut filled);
            filled.extend_from_slice(&payload);
            end_frame(&mut filled, start, Opcode::Binary);

            assert_eq!(filled, written, "{bytes} bytes");
        }
    }

    #[test]
    fn a_close_reason_is_cut_to_123_bytes_at_the_end_of_a_character() {
        let mut out = Vec::new();
        write_close(&mut out, 1012, &"é".repeat(100));

        assert_eq!(out[..4], [0x88, 124, 0x03, 0xf4]);
        assert_eq!(std::str::from_utf8(&out[4..]), Ok("é".repeat(61).as_str()));
    }

    #[test]
    fn long_pings_and_pongs_are_cut_to_what_a_control_frame_takes() {
        let mut out = Vec::new();
        write_ping(&mut out, &[1; 300]);
        write_pong(&mut out, &[2; 126]);

        let frames: Vec<_> = ServerFrames::new(&out).map(|frame| (frame.kind, frame.payload.len())).collect();
        assert_eq!(frames, [(ServerFrameKind::Ping, 125), (ServerFrameKind::Pong, 125)]);
    }

    #[test]
    fn reading_back_ends_at_an_incomplete_frame() {
        let mut out = Vec::new();
        write_frame(&mut out, Opcode::Text, b"whole");
        let whole = out.len();
        write_frame(&mut out, Opcode::Text, &[b'x'; 200]);

        for end in whole..out.len() {
            let mut frames = ServerFrames::new(&out[..end]);
            assert_eq!(frames.by_ref().count(), 1);
            assert_eq!(frames.rest(), &out[whole..end]);
        }
    }
}
