//! What of a session is stored, so that it outlives its server.

use bytes::Bytes;
use compact_str::CompactString;
use serde_json::value::RawValue;

use super::{Position, Sending};
use crate::protocol::Time;

/// What is to be stored of a session: all of it at once, or nothing.
#[derive(Clone, Debug)]
pub struct Unsaved {
    /// What is in the place of what was there before.
    pub head: KeptHead,
    /// Whether what is beside the session's own state has changed: [`Recovery::touch`](super::Recovery::touch).
    pub is_touched: bool,
    /// Messages to add, oldest first.
    pub messages: Vec<Sending>,
    /// Messages to take away.
    pub gone: Vec<Position>,
    /// How far the log is stored with that.
    pub upto: Position,
    /// Calls by their order; none for one to take away.
    pub calls: Vec<(u64, Option<KeptCall>)>,
}

/// The part of a session that is always stored anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptHead {
    /// The serial of the token that was used last.
    pub used: u64,
    /// The serial of a token that was given since, or of that.
    pub given: u64,
    /// The last position of the log that is stored.
    pub last: Position,
    /// The last position that was acknowledged.
    pub acknowledged: Position,
    /// How many calls have begun.
    pub begun: u64,
    /// Until when its client may come back, if it is away.
    pub until: Option<Time>,
}

/// A session as it was stored.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Its head.
    pub head: KeptHead,
    /// Its messages, oldest first.
    pub messages: Vec<Sending>,
    /// Its calls by their order.
    pub calls: Vec<(u64, KeptCall)>,
}

/// A call as it is stored.
#[derive(Clone, Debug)]
pub struct KeptCall {
    /// [`AskedCall::digest`](super::AskedCall::digest).
    pub digest: [u8; 32],
    /// The name that its client gave it.
    pub key: Option<Box<str>>,
    /// The ids under which it was asked, in the form in which they are compared; the first one first.
    pub ids: Vec<CompactString>,
    /// The id asked last, where it is another than the first.
    pub asked_as: Option<Box<RawValue>>,
    /// How far it has got.
    pub state: KeptState,
}

/// How far a call has got that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeptState {
    /// It has begun, and whether it took effect is not known.
    Running {
        /// Its request.
        request: Bytes,
    },
    /// It has been answered.
    Answered {
        /// Under the id asked last.
        text: Bytes,
        /// Where in the log.
        position: Position,
    },
    /// It was answered, and nobody knows how.
    Forgotten,
    /// Its client took it back.
    TakenBack,
}

impl KeptCall {
    /// Bytes of what it has that may be long.
    pub fn bytes(&self) -> usize {
        let text = match &self.state {
            KeptState::Running { request: text } | KeptState::Answered { text, .. } => text.len(),
            KeptState::Forgotten | KeptState::TakenBack => 0,
        };
        text + self.ids.iter().map(CompactString::len).sum::<usize>() + self.key.as_ref().map_or(0, |key| key.len())
    }
}
