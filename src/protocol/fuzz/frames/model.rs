//! Reads a client's whole stream at once, frame by frame as RFC 6455 section 5.2 draws them.
//!
//! It knows Bandit's choices where the RFC leaves one: which close codes may be sent, that a close frame is the last one
//! read, that lengths need not be the shortest.

use super::inflate::{End, inflate};
use super::{Agreed, Seen};
use crate::protocol::websocket::{Limits, Opcode};

/// How reading ended.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// More may come.
    Open,
    /// By a close frame.
    Closed,
    /// By a fault; any of these codes answers it.
    Faulty(Vec<u16>),
}

/// What a stream means, and how it ends.
pub(super) fn read(mut stream: &[u8], agreed: &Agreed, limits: &Limits) -> (Vec<Seen>, Verdict) {
    let mut model = Model { agreed, limits, message: None, history: Vec::new(), seen: Vec::new() };
    loop {
        match Frame::read(stream) {
            Read::Incomplete => return (model.seen, Verdict::Open),
            Read::Unmasked => return (model.seen, Verdict::Faulty(vec![1002])),
            Read::Head(head) => {
                let codes = model.faults(&head);
                if !codes.is_empty() {
                    return (model.seen, Verdict::Faulty(codes));
                }
                let Some((payload, rest)) = head.payload(stream) else {
                    return (model.seen, Verdict::Open);
                };
                stream = rest;
                if let Err(codes) = model.take(&head, payload) {
                    return (model.seen, Verdict::Faulty(codes));
                }
                if head.opcode == 8 {
                    return (model.seen, Verdict::Closed);
                }
            }
        }
    }
}

enum Read {
    Incomplete,
    Unmasked,
    Head(Frame),
}

struct Frame {
    last: bool,
    reserved: u8,
    opcode: u8,
    length: u64,
    /// Bytes up to the mask.
    head_bytes: usize,
}

impl Frame {
    fn read(stream: &[u8]) -> Read {
        let [first, second, rest @ ..] = stream else { return Read::Incomplete };
        if *second < 128 {
            return Read::Unmasked;
        }
        let length_bytes = match second - 128 {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(length) = rest.get(..length_bytes) else { return Read::Incomplete };
        let long = length.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        Read::Head(Frame {
            last: *first >= 128,
            reserved: first / 16 % 8,
            opcode: first % 16,
            length: if length_bytes == 0 { u64::from(second - 128) } else { long },
            head_bytes: 2 + length_bytes,
        })
    }

    /// The payload without its mask, and what follows.
    fn payload<'a>(&self, stream: &'a [u8]) -> Option<(Vec<u8>, &'a [u8])> {
        let (mask, rest) = stream[self.head_bytes..].split_first_chunk::<4>()?;
        let (masked, rest) = rest.split_at_checked(usize::try_from(self.length).ok()?)?;
        Some((masked.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]).collect(), rest))
    }

    fn is_control(&self) -> bool {
        self.opcode >= 8
    }
}

struct Message {
    opcode: Opcode,
    compressed: bool,
    bytes: Vec<u8>,
}

struct Model<'a> {
    agreed: &'a Agreed,
    limits: &'a Limits,
    message: Option<Message>,
    history: Vec<u8>,
    seen: Vec<Seen>,
}

impl Model<'_> {
    /// All that is wrong with a frame before its payload is there.
    fn faults(&self, frame: &Frame) -> Vec<u16> {
        let mut codes = Vec::new();
        let starts = matches!(frame.opcode, 1 | 2);
        let compressible = starts && self.agreed.window_bytes.is_some();
        let protocol_errors = [
            frame.length > i64::MAX as u64,
            !matches!(frame.opcode, 0 | 1 | 2 | 8 | 9 | 10),
            frame.reserved != 0 && !(frame.reserved == 4 && compressible),
            frame.is_control() && (!frame.last || frame.length > 125),
            starts && self.message.is_some(),
            frame.opcode == 0 && self.message.is_none(),
        ];
        if protocol_errors.contains(&true) {
            codes.push(1002);
        }
        let held = self.message.as_ref().map_or(0, |message| message.bytes.len()) as u64;
        let frame_bytes = frame.length.saturating_add(frame.head_bytes as u64 + 4);
        let message_bytes = if frame.is_control() { 0 } else { frame.length.saturating_add(held) };
        if frame_bytes > self.limits.frame_bytes_max as u64 || message_bytes > self.limits.message_bytes_max as u64 {
            codes.push(1009);
        }
        codes
    }

    fn take(&mut self, frame: &Frame, payload: Vec<u8>) -> Result<(), Vec<u16>> {
        let opcode = match frame.opcode {
            8 => {
                self.seen.push(Seen::Close(close_code(&payload)?));
                return Ok(());
            }
            9 => {
                self.seen.push(Seen::Ping(payload));
                return Ok(());
            }
            10 => {
                self.seen.push(Seen::Pong);
                return Ok(());
            }
            1 => Opcode::Text,
            _ => Opcode::Binary,
        };
        let message =
            self.message.get_or_insert(Message { opcode, compressed: frame.reserved == 4, bytes: Vec::new() });
        message.bytes.extend(payload);
        if !frame.last {
            self.seen.push(Seen::Fragment);
            return Ok(());
        }
        let Message { opcode, compressed, mut bytes } = self.message.take().expect("it was put there above");
        if compressed {
            bytes = self.inflate(&bytes)?;
        }
        if opcode == Opcode::Text && String::from_utf8(bytes.clone()).is_err() {
            return Err(vec![1007]);
        }
        self.seen.push(Seen::Message(opcode, bytes));
        Ok(())
    }

    /// RFC 7692 section 7.2.2.
    fn inflate(&mut self, payload: &[u8]) -> Result<Vec<u8>, Vec<u16>> {
        let window_bytes = self.agreed.window_bytes.unwrap_or(0);
        let input = [payload, &[0, 0, 0xff, 0xff]].concat();
        let (message, end) = inflate(&self.history, &input, self.limits.message_bytes_max);
        match end {
            End::RanOut => {}
            // What follows a final block is at most the byte that the tail goes on with.
            End::Final(bit) if payload.get(bit.div_ceil(8)..).is_none_or(|rest| matches!(rest, [] | [0])) => {}
            End::Final(_) | End::Invalid => return Err(vec![1007]),
            // zlib may look at the symbol behind the last byte that has room.
            End::TooBig => return Err(vec![1009, 1007]),
        }
        self.history.extend_from_slice(&message);
        self.history.drain(..self.history.len().saturating_sub(window_bytes));
        Ok(message)
    }
}

fn close_code(body: &[u8]) -> Result<Option<u16>, Vec<u16>> {
    if body.is_empty() {
        return Ok(None);
    }
    let code = body.iter().take(2).fold(0, |code, byte| code << 8 | u16::from(*byte));
    let known = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011].contains(&code) || code >= 3000;
    let reason = body.get(2..).map(|reason| String::from_utf8(reason.to_vec()));
    match reason {
        Some(Ok(_)) if known => Ok(Some(code)),
        _ => Err(vec![1002]),
    }
}
