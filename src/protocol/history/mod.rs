//! What a topic keeps so that a client which was away gets what it missed: each broadcast with its place in the topic's one
//! order.
//!
//! ```text
//! offsets   1 2 3 │ 4 5 6 7 │
//!           gone  │  kept   │ head = 7
//! a reader at 3 gets 4 to 7; one at 2 is told of a gap up to 7; one at 7 has everything
//! ```
//!
//! A [`History`] holds no lock and knows no connection. Whoever numbers a broadcast hands it on under the same lock, so that
//! every reader sees the order of the offsets; [`Reader`] is what is remembered of one that does so.

mod gap;
mod latest;
mod position;
mod reader;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

pub use gap::{Gap, GapReason};
pub use latest::thin;
pub use position::{BadResume, Epoch, OFFSET_MAX, Position, Resume};
pub use reader::{Offer, Reader};

use super::Time;
use super::message::PRESENCE_DIFF;

/// What is added to the bytes of a kept broadcast for the places that hold it.
pub const ENTRY_BYTES: usize = 128;

/// Whether broadcasts of an event have a position. Who is present a client learns anew with each join.
pub fn is_kept(event: &str) -> bool {
    event != PRESENCE_DIFF
}

/// How much a topic keeps; what is beyond any of them goes, the oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Broadcasts.
    pub messages_max: usize,
    /// Bytes of all of them, [`ENTRY_BYTES`] for each included.
    pub bytes_max: usize,
    /// Milliseconds that a broadcast is kept.
    pub age_ms: u64,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    item: T,
    bytes: usize,
    at: Time,
}

/// A topic's broadcasts in their order, the newest of them kept.
#[derive(Clone, Debug)]
pub struct History<T> {
    epoch: Epoch,
    /// The offset of the newest broadcast ever; 0 before the first.
    head: u64,
    /// The newest broadcasts; the last has the offset `head`.
    #[expect(clippy::box_collection, reason = "8 bytes of each idle topic, not 32")]
    entries: Option<Box<VecDeque<Entry<T>>>>,
    bytes: usize,
}

/// What there is behind a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind<T> {
    /// The broadcasts, oldest first, with their offsets.
    pub items: Vec<(u64, T)>,
    /// Whether they are all.
    pub is_all: bool,
}

impl<T> History<T> {
    /// A history that begins now. No two histories of a topic may have the same epoch.
    pub fn new(epoch: Epoch) -> Self {
        History { epoch, head: 0, entries: None, bytes: 0 }
    }

    /// One that goes on where another stopped: at the same head, with the broadcasts that it kept, oldest first, their bytes
    /// and times. The newest has the offset `head`; of more than there were offsets the oldest are not taken.
    pub fn resumed(epoch: Epoch, head: u64, kept: Vec<(T, usize, Time)>) -> Self {
        let beyond = kept.len().saturating_sub(usize::try_from(head).unwrap_or(usize::MAX));
        let entries: VecDeque<_> = kept
            .into_iter()
            .skip(beyond)
            .map(|(item, bytes, at)| Entry { item, bytes: bytes.saturating_add(ENTRY_BYTES), at })
            .collect();
        let bytes = entries.iter().fold(0, |bytes, entry| entry.bytes.saturating_add(bytes));
        let entries = (!entries.is_empty()).then(|| Box::new(entries));
        History { epoch, head, entries, bytes }
    }

    /// What is kept, oldest first, and since when.
    pub fn kept(&self) -> impl Iterator<Item = (&T, Time)> {
        self.from(0).map(|entry| (&entry.item, entry.at))
    }

    /// The epoch of all its positions.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The offset of the newest broadcast, 0 before the first.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Broadcasts that are kept.
    pub fn len(&self) -> usize {
        self.entries.as_ref().map_or(0, |entries| entries.len())
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that count towards [`Bounds::bytes_max`].
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Numbers a broadcast of so many bytes and keeps it within the bounds. Gives its offset.
    pub fn append(&mut self, item: T, bytes: usize, bounds: &Bounds, now: Time) -> u64 {
        self.head += 1;
        let bytes = bytes.saturating_add(ENTRY_BYTES);
        self.bytes = self.bytes.saturating_add(bytes);
        self.entries.get_or_insert_default().push_back(Entry { item, bytes, at: now });
        self.trim(bounds, now);
        self.head
    }

    /// Lets go of what is beyond the bounds.
    pub fn trim(&mut self, bounds: &Bounds, now: Time) {
        while let Some(oldest) = self.oldest() {
            let is_old = now.since(oldest) >= bounds.age_ms;
            if !is_old && self.len() <= bounds.messages_max && self.bytes <= bounds.bytes_max {
                break;
            }
            self.let_go();
        }
        if self.is_empty() {
            self.entries = None;
        }
    }

    /// Lets go of the oldest broadcast. False if there is none.
    pub fn let_go(&mut self) -> bool {
        let Some(oldest) = self.entries.as_mut().and_then(|entries| entries.pop_front()) else { return false };
        self.bytes = self.bytes.saturating_sub(oldest.bytes);
        true
    }

    /// When the oldest that is kept came.
    fn oldest(&self) -> Option<Time> {
        self.from(0).next().map(|entry| entry.at)
    }

    /// What is kept from the n-th on.
    fn from(&self, first: usize) -> impl Iterator<Item = &Entry<T>> {
        self.entries.iter().flat_map(move |entries| entries.range(first..))
    }

    /// The offset before the oldest that is kept: who has this one can have the rest.
    fn tail(&self) -> u64 {
        self.head - self.len() as u64
    }

    /// Where a client stands that asks to resume: behind which offset it goes on, and the gap it is told of first.
    pub fn start(&self, resume: &Resume) -> (u64, Option<Gap>) {
        let Resume::After(position) = resume else { return (self.head, None) };
        let missed = |from, reason| (self.head, Some(Gap { epoch: self.epoch, offset: self.head, from, reason }));
        if position.epoch != self.epoch {
            return missed(None, GapReason::Epoch);
        }
        if position.offset > self.head {
            return missed(Some(position.offset), GapReason::Future);
        }
        if position.offset < self.tail() {
            return missed(Some(position.offset), GapReason::Expired);
        }
        (position.offset, None)
    }

    /// What is kept behind an offset, oldest first: as many whole broadcasts as fit into `bytes_max`, and at least one.
    ///
    /// # Errors
    /// [`Gap`] if something behind it is gone: then nothing is given, and its reader goes on behind the gap.
    pub fn behind(&self, after: u64, bytes_max: usize) -> Result<Behind<T>, Gap>
    where
        T: Clone,
    {
        let first = self.first_behind(after)?;
        let (mut items, mut bytes) = (Vec::new(), 0);
        for (offset, entry) in (after + 1..).zip(self.from(first)) {
            bytes = entry.bytes.saturating_add(bytes);
            if bytes > bytes_max && !items.is_empty() {
                return Ok(Behind { items, is_all: false });
            }
            items.push((offset, entry.item.clone()));
        }
        Ok(Behind { items, is_all: true })
    }

    /// Whether nothing behind an offset is gone, and what is kept there has at most so many bytes.
    pub fn has_at_most(&self, after: u64, bytes_max: usize) -> bool {
        let Ok(first) = self.first_behind(after) else { return false };
        let mut left = bytes_max;
        self.from(first).all(|entry| {
            let fits = entry.bytes <= left;
            left = left.saturating_sub(entry.bytes);
            fits
        })
    }

    fn first_behind(&self, after: u64) -> Result<usize, Gap> {
        let tail = self.tail();
        if after < tail || after > self.head {
            let gap = Gap { epoch: self.epoch, offset: self.head, from: Some(after), reason: GapReason::Slow };
            return Err(gap);
        }
        Ok(usize::try_from(after - tail).expect("it is at most the number of entries"))
    }
}
