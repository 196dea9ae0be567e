//! The event that says what a client missed and can no longer have.

use serde::Serialize;

use super::{Epoch, Position};
use crate::protocol::message::Payload;

/// Why a client can't have what it missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GapReason {
    /// It is no longer kept.
    Expired,
    /// The position is of another history: the server was started anew, or has forgotten the topic meanwhile.
    Epoch,
    /// The position is one that the topic has not reached.
    Future,
    /// The client read too slowly, and what it missed is no longer kept.
    Slow,
}

/// What lies between what a client has and where it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The epoch in which it goes on.
    pub epoch: Epoch,
    /// It goes on behind this offset.
    pub offset: u64,
    /// The last offset that it had; none if that was of another epoch.
    pub from: Option<u64>,
    /// Why.
    pub reason: GapReason,
}

impl Gap {
    /// Where the client stands once it has heard of the gap.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, offset: self.offset }
    }

    /// `{"epoch", "offset", "from", "reason"}`.
    pub fn payload(&self) -> Payload {
        Payload::json(self).expect("a gap is JSON")
    }
}
