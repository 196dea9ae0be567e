//! One client that is given a topic's broadcasts by offset: live, or behind and catching up.

/// Where a reader stands. Broadcasts are offered to it in the order of their offsets.
///
/// ```text
///          no room for a broadcast
/// live ──────────────────────────────► behind: what is offered is left to the history
///      ◄──────────────────────────────
///        it has caught up with the head
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    after: u64,
    is_behind: bool,
}

/// What becomes of a broadcast that is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// The reader gets it.
    Give,
    /// It has it, or gets it from the history.
    Skip,
    /// There is no room: from here on it is behind the offset it stands at, and gets what follows from the history.
    FallBehind,
}

impl Reader {
    /// One that has everything up to an offset and gets what is offered next.
    pub fn live(after: u64) -> Self {
        Reader { after, is_behind: false }
    }

    /// One that gets from the history what lies behind an offset.
    pub fn behind(after: u64) -> Self {
        Reader { after, is_behind: true }
    }

    /// The last offset that it was given, as far as is known here: of one that is behind, where it fell behind.
    pub fn after(&self) -> u64 {
        self.after
    }

    /// Offers the broadcast of an offset.
    pub fn offer(&mut self, offset: u64, has_room: bool) -> Offer {
        if self.is_behind || offset <= self.after {
            return Offer::Skip;
        }
        if !has_room {
            self.is_behind = true;
            return Offer::FallBehind;
        }
        self.after = offset;
        Offer::Give
    }

    /// The reader has caught up: it was given everything up to an offset, and what is offered next comes right behind.
    pub fn caught_up(&mut self, after: u64) {
        *self = Reader::live(after);
    }
}
