//! RFC 6455 for the server's side of a connection, as pure functions over byte buffers.
//!
//! Reading: [`Decoder`] takes client frames from the front of a caller's buffer, in place. Writing: [`write_frame`] and its
//! siblings append server frames to a caller's `Vec`; server frames are not masked, so a broadcast is framed once and every
//! subscriber gets the same bytes. [`deflate`] is permessage-deflate (RFC 7692), [`handshake`] the checks of the upgrade.
//!
//! What is not here: sockets, timers, the idle timeout, the answer to a close frame (the transport writes 1000 for
//! [`Event::Close`] and [`ProtocolError::close_code`] for an error), and the client's side of the protocol.
//!
//! Where RFC 6455 leaves room, the behaviour is that of Bandit 1.12, which serves Phoenix.

pub mod close;
mod decoder;
pub mod deflate;
mod frame;
pub mod handshake;

#[cfg(test)]
mod tests;

pub use close::ProtocolError;
pub use decoder::{Decoder, Event, Limits, Step};
pub use frame::{
    ServerFrame, ServerFrameKind, ServerFrames, begin_frame, end_frame, write_close, write_frame, write_ping,
    write_pong,
};

/// What a message holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opcode {
    /// UTF-8 text.
    Text,
    /// Any bytes.
    Binary,
}
