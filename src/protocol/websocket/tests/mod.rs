//! Tests of the decoder over whole byte streams: [`cases`] holds the edges of RFC 6455 and of the recorded transcripts,
//! [`compression`] those of RFC 7692, [`properties`] what holds for any stream.

mod cases;
mod compression;
mod properties;

use super::deflate::{Negotiated, negotiate};
use super::{Decoder, Limits, Opcode, ProtocolError, Step};
use crate::protocol::fuzz::Seen;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

const RSV1: u8 = 4;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Large enough for every test that isn't about limits.
const LIMITS: Limits = Limits { frame_bytes_max: 1 << 20, message_bytes_max: 1 << 20 };

fn text(message: &str) -> Seen {
    Seen::Message(Opcode::Text, message.as_bytes().to_vec())
}

/// A client frame. `rsv` has RSV1 as its highest of three bits.
#[derive(Clone, Debug)]
struct ClientFrame {
    fin: bool,
    rsv: u8,
    opcode: u8,
    mask: [u8; 4],
    payload: Vec<u8>,
}

fn frame(opcode: u8, payload: impl AsRef<[u8]>) -> ClientFrame {
    ClientFrame { fin: true, rsv: 0, opcode, mask: MASK, payload: payload.as_ref().to_vec() }
}

impl ClientFrame {
    fn more(self) -> Self {
        Self { fin: false, ..self }
    }

    fn rsv(self, rsv: u8) -> Self {
        Self { rsv, ..self }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = vec![u8::from(self.fin) << 7 | self.rsv << 4 | self.opcode];
        match self.payload.len() {
            bytes @ 0..=125 => out.push(0x80 | bytes as u8),
            bytes @ 126..=65_535 => {
                out.push(0x80 | 126);
                out.extend_from_slice(&(bytes as u16).to_be_bytes());
            }
            bytes => {
                out.push(0x80 | 127);
                out.extend_from_slice(&(bytes as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(&self.mask);
        out.extend(self.payload.iter().enumerate().map(|(i, byte)| byte ^ self.mask[i % 4]));
        out
    }
}

fn stream(frames: &[ClientFrame]) -> Vec<u8> {
    frames.iter().flat_map(ClientFrame::bytes).collect()
}

/// A transport's read loop: the bytes that arrived and weren't consumed.
struct Reader {
    decoder: Decoder,
    limits: Limits,
    buffer: Vec<u8>,
    seen: Vec<Seen>,
}

impl Reader {
    fn new(deflate: Option<Negotiated>, limits: Limits) -> Self {
        Self { decoder: Decoder::new(deflate), limits, buffer: Vec::new(), seen: Vec::new() }
    }

    /// Takes one read's bytes, as far as frames are whole. Returns how many bytes the next frame needs.
    fn read(&mut self, bytes: &[u8]) -> Result<usize, ProtocolError> {
        self.buffer.extend_from_slice(bytes);
        loop {
            match self.decoder.next(&mut self.buffer, &self.limits)? {
                Step::Incomplete { need } => {
                    assert!(need > self.buffer.len(), "waits for {need} of {} bytes", self.buffer.len());
                    return Ok(need);
                }
                Step::Frame { consumed, event } => {
                    self.seen.push(event.into());
                    self.buffer.drain(..consumed);
                }
            }
        }
    }
}

/// What a plain connection sees of a stream that arrives at once: its events, then the fault that ended it, if one did.
fn decode(bytes: &[u8]) -> (Vec<Seen>, Option<ProtocolError>) {
    decode_with(None, LIMITS, bytes)
}

fn decode_with(deflate: Option<Negotiated>, limits: Limits, bytes: &[u8]) -> (Vec<Seen>, Option<ProtocolError>) {
    let mut reader = Reader::new(deflate, limits);
    let error = reader.read(bytes).err();
    (reader.seen, error)
}

fn agreed(offer: &str) -> Option<Negotiated> {
    Some(negotiate(offer).expect("the offer is acceptable").0)
}

/// Bytes without repetitions that deflate could use, the same each time.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(bytes)
    .collect()
}
