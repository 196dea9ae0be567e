//! Client frames to messages, in place.
//!
//! The usual frame, one small whole text message, costs a handful of branches and no allocation. Only fragments and
//! compressed messages are copied.
//!
//! Source: RFC 6455 sections 5.2 to 5.5.

use super::Opcode;
use super::close::{self, ProtocolError};
use super::deflate::{Inflater, Negotiated};
use super::frame::{
    BINARY, CLOSE, CONTINUATION, FIN, LENGTH_16, LENGTH_64, MASKED, PING, PONG, RSV1, SHORT_BYTES_MAX, TEXT,
};

/// What one connection may send at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of one frame including its header of 6, 8 or 14 bytes, which Bandit counts too.
    pub frame_bytes_max: usize,
    /// Payload bytes of one message: of all its fragments, and of what they inflate to.
    pub message_bytes_max: usize,
}

/// What [`Decoder::next`] found at the front of the buffer.
#[derive(PartialEq, Eq, Debug)]
pub enum Step<'a> {
    /// Not a whole frame yet.
    Incomplete {
        /// Bytes the buffer must hold in all before another call can find more out.
        need: usize,
    },
    /// A frame.
    Frame {
        /// Bytes of the frame, to be dropped from the front of the buffer.
        consumed: usize,
        /// What it means.
        event: Event<'a>,
    },
}

/// What a frame means.
#[derive(PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// A whole message, put together and inflated; text is valid UTF-8.
    Message(Opcode, &'a [u8]),
    /// A fragment of a message that isn't whole yet.
    Fragment,
    /// A ping, to be answered by a pong with the same payload, at most 125 bytes.
    Ping(&'a [u8]),
    /// A pong, which only shows that the client is there.
    Pong,
    /// An acceptable close frame with its code, if it has one. It is the client's last frame: answer it with 1000, as Bandit
    /// does whatever the code, and read no further.
    Close(Option<u16>),
}

/// Reads the frames of one client.
///
/// ```text
///             first fragment              last fragment
///   between ──────────────────► within ──────────────────► between
///      │ whole message, control    │ continuation, control
///      └──► between                └──► within              anything else: ProtocolError, for good
/// ```
///
/// Two words while idle, and an allocation more if compression was negotiated.
pub struct Decoder {
    assembly: Option<Box<Assembly>>,
    inflater: Option<Box<Inflater>>,
}

/// A message that isn't delivered straight from the caller's buffer.
struct Assembly {
    opcode: Opcode,
    compressed: bool,
    /// Handed out whole by the last call, to be freed by the next.
    delivered: bool,
    bytes: Vec<u8>,
}

impl Decoder {
    /// For a fresh connection with what was agreed on about compression.
    pub fn new(deflate: Option<Negotiated>) -> Self {
        Self { assembly: None, inflater: deflate.map(|agreed| Box::new(Inflater::new(&agreed))) }
    }

    /// Reads one frame at the front of `buf`, unmasking it in place once it is there as a whole.
    ///
    /// Call it until it returns [`Step::Incomplete`], with what is left of the buffer even if that is nothing: that call
    /// frees what a message put together from fragments, or inflated, was held in.
    ///
    /// # Errors
    /// The client's fault. A limit is checked as soon as the header is there. Nothing may be read after an error.
    pub fn next<'a>(&'a mut self, buf: &'a mut [u8], limits: &Limits) -> Result<Step<'a>, ProtocolError> {
        if self.assembly.as_ref().is_some_and(|assembly| assembly.delivered) {
            self.assembly = None;
        }

        let &mut [first, second, ..] = buf else {
            return Ok(Step::Incomplete { need: 2 });
        };
        if second & MASKED == 0 {
            return Err(ProtocolError::Unmasked);
        }
        let (header_bytes, payload_bytes) = match second ^ MASKED {
            LENGTH_16 => match buf.first_chunk() {
                Some(&[_, _, high, low]) => (8, usize::from(u16::from_be_bytes([high, low]))),
                None => return Ok(Step::Incomplete { need: 4 }),
            },
            LENGTH_64 => match buf.first_chunk::<10>() {
                Some(&[_, _, ref length @ ..]) => (14, long_length(u64::from_be_bytes(*length))?),
                None => return Ok(Step::Incomplete { need: 10 }),
            },
            short => (6, usize::from(short)),
        };
        let frame_bytes = payload_bytes.saturating_add(header_bytes);
        if frame_bytes > limits.frame_bytes_max {
            return Err(ProtocolError::FrameTooBig { bytes: frame_bytes, limit: limits.frame_bytes_max });
        }
        self.check_header(first, payload_bytes, limits)?;
        if buf.len() < frame_bytes {
            return Ok(Step::Incomplete { need: frame_bytes });
        }

        let (header, rest) = buf.split_at_mut(header_bytes);
        let payload = &mut rest[..payload_bytes];
        let mask = *header.last_chunk().expect("the shortest header is 6 bytes");
        unmask(payload, mask);
        let event = self.event(first, payload, limits)?;
        Ok(Step::Frame { consumed: frame_bytes, event })
    }

    /// Whether no message is held: neither one in fragments nor one put together by the last call.
    pub fn is_idle(&self) -> bool {
        self.assembly.is_none()
    }

    /// Bytes set aside for messages: for one in fragments or put together by the last call, at most twice
    /// `message_bytes_max`; and with compression for what the client may refer back to, at most 32 KiB.
    pub fn held_bytes(&self) -> usize {
        self.assembly.as_ref().map_or(0, |assembly| assembly.bytes.capacity())
            + self.inflater.as_ref().map_or(0, |inflater| inflater.held_bytes())
    }

    /// Checks everything that can be told from the header but the frame's length.
    fn check_header(&self, first: u8, payload_bytes: usize, limits: &Limits) -> Result<(), ProtocolError> {
        let opcode = first & 0x0f;
        let reserved = first & 0x70;
        let compressible = self.inflater.is_some() && matches!(opcode, TEXT | BINARY);
        if reserved != 0 && !(reserved == RSV1 && compressible) {
            return Err(ProtocolError::ReservedBits { bits: reserved >> 4, opcode });
        }
        let held_bytes = match (opcode, &self.assembly) {
            (TEXT | BINARY, None) => 0,
            (CONTINUATION, Some(assembly)) => assembly.bytes.len(),
            (CLOSE | PING | PONG, _) => return check_control(first, payload_bytes),
            (CONTINUATION, None) => return Err(ProtocolError::UnexpectedContinuation),
            (TEXT | BINARY, Some(_)) => return Err(ProtocolError::ExpectedContinuation),
            (unknown, _) => return Err(ProtocolError::UnknownOpcode(unknown)),
        };
        if payload_bytes.saturating_add(held_bytes) > limits.message_bytes_max {
            return Err(ProtocolError::MessageTooBig { limit: limits.message_bytes_max });
        }
        Ok(())
    }

    /// What the frame with a checked header and this payload, unmasked, means.
    fn event<'a>(&'a mut self, first: u8, payload: &'a [u8], limits: &Limits) -> Result<Event<'a>, ProtocolError> {
        let opcode = match first & 0x0f {
            TEXT => Opcode::Text,
            BINARY => Opcode::Binary,
            CONTINUATION => return self.continuation(first & FIN != 0, payload, limits),
            PING => return Ok(Event::Ping(payload)),
            PONG => return Ok(Event::Pong),
            _ => return Ok(Event::Close(close::parse_body(payload)?)),
        };
        if first & (FIN | RSV1) == FIN {
            check_text(opcode, payload)?;
            return Ok(Event::Message(opcode, payload));
        }
        let assembly = Assembly { opcode, compressed: first & RSV1 != 0, delivered: false, bytes: payload.to_vec() };
        if first & FIN == 0 {
            self.assembly = Some(Box::new(assembly));
            return Ok(Event::Fragment);
        }
        self.deliver(Box::new(assembly), limits)
    }

    fn continuation(&mut self, last: bool, payload: &[u8], limits: &Limits) -> Result<Event<'_>, ProtocolError> {
        let mut assembly = self.assembly.take().ok_or(ProtocolError::UnexpectedContinuation)?;
        assembly.bytes.extend_from_slice(payload);
        if last {
            return self.deliver(assembly, limits);
        }
        self.assembly = Some(assembly);
        Ok(Event::Fragment)
    }

    fn deliver(&mut self, mut assembly: Box<Assembly>, limits: &Limits) -> Result<Event<'_>, ProtocolError> {
        if assembly.compressed
            && let Some(inflater) = &mut self.inflater
        {
            assembly.bytes = inflater.inflate(&assembly.bytes, limits)?;
        }
        check_text(assembly.opcode, &assembly.bytes)?;
        assembly.delivered = true;
        let assembly = self.assembly.insert(assembly);
        Ok(Event::Message(assembly.opcode, &assembly.bytes))
    }
}

/// The highest bit of a 64-bit length must be 0. Lengths that would fit a shorter form are taken, as Bandit takes them.
fn long_length(length: u64) -> Result<usize, ProtocolError> {
    if length >> 63 != 0 {
        return Err(ProtocolError::LengthOverflow(length));
    }
    Ok(usize::try_from(length).unwrap_or(usize::MAX))
}

#[cold]
fn check_control(first: u8, payload_bytes: usize) -> Result<(), ProtocolError> {
    if first & FIN == 0 {
        return Err(ProtocolError::FragmentedControl(first & 0x0f));
    }
    if payload_bytes > SHORT_BYTES_MAX {
        return Err(ProtocolError::LongControl { bytes: payload_bytes });
    }
    Ok(())
}

fn check_text(opcode: Opcode, message: &[u8]) -> Result<(), ProtocolError> {
    if opcode == Opcode::Text && std::str::from_utf8(message).is_err() {
        return Err(ProtocolError::InvalidUtf8);
    }
    Ok(())
}

/// Takes the mask off `payload`, eight bytes at a time.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let word = u32::from_ne_bytes(mask);
    let wide = u64::from(word) << 32 | u64::from(word);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}
