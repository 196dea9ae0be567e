//! What a session has said and what waits to be said, each with its position.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::Serialize;

use super::{Position, RECOVERY_BYTES_MAX, RECOVERY_EVENTS_MAX};

/// What sort of message is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The answer to a request.
    Response,
    /// A request of the server, or what takes one back.
    Request,
    /// A notification, which may be dropped.
    Notification,
    /// A `streaming_event`, which may be dropped.
    Event,
}

impl Class {
    fn may_be_dropped(self) -> bool {
        matches!(self, Class::Notification | Class::Event)
    }
}

/// Messages that are missing: some or all of those from one position to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The first that is missing.
    pub from: u64,
    /// The last that is missing.
    pub to: u64,
    /// How many are missing from the one to the other.
    pub dropped: u64,
}

/// A message to push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sending {
    /// Its place.
    pub position: Position,
    /// What sort it is.
    pub class: Class,
    /// Its payload.
    pub text: Bytes,
}

/// What is to be pushed next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// What is missing among them and before them: to be told first.
    pub gap: Option<Gap>,
    /// The messages, oldest first.
    pub messages: Vec<Sending>,
    /// Whether more waits.
    pub has_more: bool,
}

/// A session's messages.
///
/// Above the bounds the oldest notifications go, whether they were sent or not. Where there are none, the oldest goes of what was
/// sent and not acknowledged: a client that never acknowledges has no more than the bound kept for it. Answers and requests that
/// have not been sent stay; they are bounded by the calls under way.
///
/// One that is stored hands out what is to be stored, and to attachments only what is: a position that a client knows means the
/// same after a crash.
#[derive(Clone, Debug, Default)]
pub struct EventLog {
    kept: VecDeque<Sending>,
    bytes: usize,
    /// Bytes of those not sent.
    waiting_bytes: usize,
    /// The last position given.
    last: u64,
    acknowledged: u64,
    /// The last one handed to the present attachment.
    sent: u64,
    /// The last one handed to any.
    ever_sent: u64,
    dropped: u64,
    storing: Option<Storing>,
}

/// How far a log that is stored has been.
#[derive(Clone, Debug, Default)]
struct Storing {
    /// The last one handed out to be stored.
    handed: u64,
    /// The last one known to be stored: later ones are handed to no attachment.
    stored: u64,
    /// Those handed out to be stored that are no longer kept.
    gone: Vec<Position>,
}

/// What of a log is to be stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnsavedMessages {
    /// Those to add, oldest first.
    pub messages: Vec<Sending>,
    /// Those to take away.
    pub gone: Vec<Position>,
    /// How far the log is stored with that.
    pub upto: Position,
}

impl EventLog {
    /// A log that is stored: nothing is handed out before it was.
    pub fn stored() -> Self {
        EventLog { storing: Some(Storing::default()), ..EventLog::default() }
    }

    /// A log as it was stored: its messages, oldest first, its last position and the last one acknowledged. All of it may have been
    /// handed out.
    pub fn restored(mut messages: Vec<Sending>, last: Position, acknowledged: Position) -> Self {
        // A snapshot that had no room for messages says what was acknowledged, and leaves it.
        let left = messages.partition_point(|message| message.position <= acknowledged);
        let gone = messages.drain(..left).map(|message| message.position).collect();
        let bytes = messages.iter().map(|message| message.text.len()).sum();
        EventLog {
            kept: messages.into(),
            bytes,
            waiting_bytes: bytes,
            last: last.0,
            acknowledged: acknowledged.0,
            sent: acknowledged.0,
            ever_sent: last.0,
            dropped: 0,
            storing: Some(Storing { handed: last.0, stored: last.0, gone }),
        }
    }

    /// Hands out what is to be stored, about so many bytes. Until that is [`EventLog::saved`] nothing else is handed out so.
    pub fn unsaved(&mut self, bytes_max: usize) -> UnsavedMessages {
        let Some(storing) = &mut self.storing else { return UnsavedMessages::default() };
        let start = self.kept.partition_point(|message| message.position.0 <= storing.handed);
        let (mut messages, mut bytes, mut upto) = (Vec::new(), 0, self.last);
        for message in self.kept.range(start..) {
            if !messages.is_empty() && bytes + message.text.len() > bytes_max {
                upto = message.position.0 - 1;
                break;
            }
            bytes += message.text.len();
            messages.push(message.clone());
        }
        storing.handed = upto;
        UnsavedMessages { messages, gone: std::mem::take(&mut storing.gone), upto: Position(upto) }
    }

    /// What is to be stored, if nothing is.
    pub(super) fn nothing_unsaved(&self) -> UnsavedMessages {
        let upto = Position(self.storing.as_ref().map_or(0, |storing| storing.handed));
        UnsavedMessages { upto, ..UnsavedMessages::default() }
    }

    /// Whether there is something to store.
    pub fn has_unsaved(&self) -> bool {
        self.storing.as_ref().is_some_and(|storing| storing.handed < self.last || !storing.gone.is_empty())
    }

    /// Notes that it is stored up to a position; whether there is more to hand out with that.
    pub fn saved(&mut self, upto: Position) -> bool {
        let Some(storing) = &mut self.storing else { return false };
        let is_more = upto.0 > storing.stored;
        storing.stored = storing.stored.max(upto.0);
        is_more
    }

    /// Takes a message up and gives it its position.
    pub fn append(&mut self, class: Class, text: Bytes) -> Position {
        self.last += 1;
        let position = Position(self.last);
        self.bytes += text.len();
        self.waiting_bytes += text.len();
        self.kept.push_back(Sending { position, class, text });
        while self.kept.len() > RECOVERY_EVENTS_MAX || self.bytes > RECOVERY_BYTES_MAX {
            let droppable = self.kept.iter().position(|message| message.class.may_be_dropped());
            let was_sent = || self.kept.front().filter(|first| first.position.0 <= self.sent).map(|_| 0);
            let Some(index) = droppable.or_else(was_sent) else { break };
            self.remove(index);
            self.dropped += 1;
        }
        position
    }

    fn remove(&mut self, index: usize) {
        if let Some(gone) = self.kept.remove(index) {
            self.bytes -= gone.text.len();
            if gone.position.0 > self.sent {
                self.waiting_bytes -= gone.text.len();
            }
            if let Some(storing) = self.storing.as_mut().filter(|storing| gone.position.0 <= storing.handed) {
                storing.gone.push(gone.position);
            }
        }
    }

    /// Lets go what the client has up to a position. One that it can't have is passed over.
    pub fn acknowledge(&mut self, position: Position) {
        if position.0 > self.ever_sent || position.0 <= self.acknowledged {
            return;
        }
        self.acknowledged = position.0;
        while self.kept.front().is_some_and(|first| first.position <= position) {
            self.remove(0);
        }
    }

    /// Begins again behind what the client has: the position that it says, or the last one acknowledged where it says none or
    /// one that it can't have. Gives the position.
    pub fn rewind(&mut self, position: Option<Position>) -> Position {
        let position = position.filter(|position| position.0 <= self.ever_sent);
        if let Some(position) = position {
            self.acknowledge(position);
        }
        self.sent = position.map_or(self.acknowledged, |position| position.0);
        self.waiting_bytes = self.waiting().map(|message| message.text.len()).sum();
        Position(self.sent)
    }

    fn waiting(&self) -> impl Iterator<Item = &Sending> {
        let start = self.kept.partition_point(|message| message.position.0 <= self.sent);
        self.kept.range(start..)
    }

    /// Hands out what waits, oldest first: about so many bytes, and one message at least.
    pub fn take(&mut self, bytes_max: usize) -> Taken {
        let mut messages = Vec::new();
        let (mut bytes, mut has_more) = (0, false);
        let last = self.storing.as_ref().map_or(self.last, |storing| storing.stored);
        for message in self.waiting().take_while(|message| message.position.0 <= last) {
            if !messages.is_empty() && bytes + message.text.len() > bytes_max {
                has_more = true;
                break;
            }
            bytes += message.text.len();
            messages.push(message.clone());
        }
        let upto = match messages.last() {
            Some(last) if has_more => last.position.0,
            _ => last,
        };
        let gap = gap(self.sent, messages.iter().map(|message| message.position.0), upto);
        self.waiting_bytes -= bytes;
        self.sent = upto;
        self.ever_sent = self.ever_sent.max(upto);
        Taken { gap, messages, has_more }
    }

    /// The messages later than a position, oldest first, whether they were handed out or not. Nothing is handed out by that.
    ///
    /// # Errors
    /// What is missing among them.
    pub fn after(&self, position: Position) -> Result<impl Iterator<Item = &Sending>, Gap> {
        let start = self.kept.partition_point(|message| message.position <= position);
        let later = self.kept.range(start..);
        match gap(position.0, later.clone().map(|message| message.position.0), self.last.max(position.0)) {
            Some(gap) => Err(gap),
            None => Ok(later),
        }
    }

    /// Lets go all that was handed out.
    pub fn forget_sent(&mut self) {
        while self.kept.front().is_some_and(|first| first.position.0 <= self.sent) {
            self.remove(0);
        }
        self.kept.shrink_to_fit();
    }

    /// The last message, if it is kept.
    pub fn newest(&self) -> Option<&Sending> {
        self.kept.back().filter(|newest| newest.position.0 == self.last)
    }

    /// Whether a message is kept.
    pub fn has(&self, position: Position) -> bool {
        self.kept.binary_search_by_key(&position, |message| message.position).is_ok()
    }

    /// Messages that wait to be handed out.
    pub fn waiting_len(&self) -> usize {
        self.waiting().count()
    }

    /// Bytes of these.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Bytes that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Messages that are kept.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Messages that were dropped, of all.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The last position that was acknowledged.
    pub fn acknowledged(&self) -> Position {
        Position(self.acknowledged)
    }

    /// The position of the last message.
    pub fn last(&self) -> Position {
        Position(self.last)
    }
}

/// What is missing of the positions above `after` and up to `upto`, where these are there.
fn gap(after: u64, there: impl Iterator<Item = u64>, upto: u64) -> Option<Gap> {
    let mut gap: Option<Gap> = None;
    let mut expected = after + 1;
    for position in there.chain([upto + 1]) {
        if position > expected {
            let (from, to) = (expected, position - 1);
            let dropped = to - from + 1;
            gap = Some(match gap {
                None => Gap { from, to, dropped },
                Some(gap) => Gap { from: gap.from, to, dropped: gap.dropped + dropped },
            });
        }
        expected = position + 1;
    }
    gap
}
