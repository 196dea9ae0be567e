//! Why a connection ends: the close codes, the body of a client's close frame, and the client's faults with their codes.
//!
//! Source: RFC 6455 section 7.4.

/// The connection has done its work; also the answer to every acceptable close frame.
pub const NORMAL: u16 = 1000;
/// The server goes away, or the socket was asked to.
pub const GOING_AWAY: u16 = 1001;
/// The peer broke the protocol.
pub const PROTOCOL_ERROR: u16 = 1002;
/// The bytes of a message contradict its type.
pub const INVALID_DATA: u16 = 1007;
/// The peer broke a rule of the server.
pub const POLICY_VIOLATION: u16 = 1008;
/// A frame or a message is larger than the server takes.
pub const TOO_BIG: u16 = 1009;
/// The server failed, which in Phoenix includes messages it can't decode.
pub const INTERNAL_ERROR: u16 = 1011;
/// The server restarts; clients should come back.
pub const SERVICE_RESTART: u16 = 1012;
/// The server is overloaded; clients should come back later.
pub const TRY_AGAIN_LATER: u16 = 1013;

/// Most bytes a close frame has for its reason: a control frame's 125 less the code.
pub(super) const REASON_BYTES_MAX: usize = 123;

/// How a client broke the protocol. The connection can't be read any further after one of these.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtocolError {
    /// A client frame without a mask.
    #[error("expected a masked frame, got an unmasked one")]
    Unmasked,
    /// A reserved bit which no extension gave a meaning on this frame.
    #[error("expected the reserved bits to be 0, got {bits:03b} with opcode {opcode}")]
    ReservedBits {
        /// RSV1 to RSV3, RSV1 being the highest of three bits.
        bits: u8,
        /// The frame's opcode.
        opcode: u8,
    },
    /// An opcode RFC 6455 doesn't define.
    #[error("expected an opcode of RFC 6455, got {0}")]
    UnknownOpcode(u8),
    /// A 64-bit length with its highest bit set.
    #[error("expected a payload length below 2^63, got {0}")]
    LengthOverflow(u64),
    /// A control frame in fragments.
    #[error("expected a whole control frame, got a fragment with opcode {0}")]
    FragmentedControl(u8),
    /// A control frame with more than 125 bytes.
    #[error("control frame is {bytes} bytes, the limit is 125")]
    LongControl {
        /// Bytes of its payload.
        bytes: usize,
    },
    /// A continuation frame where no message was begun.
    #[error("expected the first frame of a message, got a continuation")]
    UnexpectedContinuation,
    /// A new text or binary frame before the message in fragments had ended.
    #[error("expected a continuation frame, got the start of another message")]
    ExpectedContinuation,
    /// A close frame whose body is one byte.
    #[error("expected a close code of two bytes, got one byte")]
    ShortCloseCode,
    /// A close code that must not be sent.
    #[error("expected a close code that may be sent, got {0}")]
    InvalidCloseCode(u16),
    /// A close reason that isn't UTF-8.
    #[error("expected a close reason in UTF-8, got other bytes")]
    InvalidCloseReason,
    /// A frame over the limit, header included.
    #[error("frame is {bytes} bytes, the limit is {limit}")]
    FrameTooBig {
        /// Bytes of the frame, header included.
        bytes: usize,
        /// The limit it is over.
        limit: usize,
    },
    /// A message over the limit, whether by one frame, by its fragments together or once inflated.
    #[error("message is over the limit of {limit} bytes")]
    MessageTooBig {
        /// The limit it is over.
        limit: usize,
    },
    /// A text message that isn't UTF-8.
    #[error("expected a text message in UTF-8, got other bytes")]
    InvalidUtf8,
    /// A compressed message that can't be inflated.
    #[error("expected deflate data, got other bytes")]
    InvalidDeflate,
}

impl ProtocolError {
    /// The code of the close frame that answers this fault.
    ///
    /// Source: the recorded cases of group `rfc6455`; Bandit's `Connection` for 1009 and for data that can't be inflated.
    pub fn close_code(&self) -> u16 {
        match self {
            Self::FrameTooBig { .. } | Self::MessageTooBig { .. } => TOO_BIG,
            Self::InvalidUtf8 | Self::InvalidDeflate => INVALID_DATA,
            Self::Unmasked
            | Self::ReservedBits { .. }
            | Self::UnknownOpcode(_)
            | Self::LengthOverflow(_)
            | Self::FragmentedControl(_)
            | Self::LongControl { .. }
            | Self::UnexpectedContinuation
            | Self::ExpectedContinuation
            | Self::ShortCloseCode
            | Self::InvalidCloseCode(_)
            | Self::InvalidCloseReason => PROTOCOL_ERROR,
        }
    }
}

/// Reads the unmasked body of a client's close frame and returns its code, if it has one.
///
/// # Errors
/// One byte, a code that may not be sent, or a reason that isn't UTF-8.
pub(super) fn parse_body(body: &[u8]) -> Result<Option<u16>, ProtocolError> {
    match *body {
        [] => Ok(None),
        [_] => Err(ProtocolError::ShortCloseCode),
        [high, low, ref reason @ ..] => {
            let code = u16::from_be_bytes([high, low]);
            if !may_be_sent(code) {
                return Err(ProtocolError::InvalidCloseCode(code));
            }
            std::str::from_utf8(reason).map_err(|_| ProtocolError::InvalidCloseReason)?;
            Ok(Some(code))
        }
    }
}

/// Whether a client may send `code`.
///
/// Bandit takes every code from 3000 up, also those over 4999, and none of 1012 to 1014.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1011 | 3000..)
}
