//! All that was published, and what of it is kept by the plainest reckoning.

use std::collections::BTreeMap;

use super::server::Message;
use crate::protocol::Time;
use crate::protocol::history::*;

#[derive(Debug)]
struct Published {
    message: Message,
    bytes: usize,
    at: Time,
}

/// The list of each epoch; the broadcast of an offset is the one at that place, counted from 1.
#[derive(Debug)]
pub(super) struct Ledger {
    bounds: Bounds,
    epochs: BTreeMap<u64, Vec<Published>>,
    epoch: Epoch,
    /// When it was last published on, or begun.
    touched: Time,
    /// As many of this epoch are gone whatever the bounds say.
    squeezed: u64,
}

impl Ledger {
    pub(super) fn new(bounds: Bounds) -> Self {
        Ledger { bounds, epochs: BTreeMap::new(), epoch: Epoch(0), touched: Time(0), squeezed: 0 }
    }

    pub(super) fn begin(&mut self, epoch: Epoch, now: Time) {
        assert!(self.epochs.insert(epoch.0, Vec::new()).is_none(), "the epochs differ");
        (self.epoch, self.touched, self.squeezed) = (epoch, now, 0);
    }

    /// The epoch goes on after a restart. Gives the bytes of what is kept, oldest first.
    pub(super) fn go_on(&mut self, now: Time) -> Vec<usize> {
        self.touched = now;
        let (gone, _) = self.gone(now);
        self.epochs[&self.epoch.0][gone as usize..].iter().map(|published| published.bytes).collect()
    }

    pub(super) fn publish(&mut self, message: Message, bytes: usize, now: Time) -> u64 {
        let list = self.epochs.get_mut(&self.epoch.0).expect("it has begun");
        list.push(Published { message, bytes, at: now });
        self.touched = now;
        list.len() as u64
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) fn touched(&self) -> Time {
        self.touched
    }

    pub(super) fn head(&self) -> u64 {
        self.epochs[&self.epoch.0].len() as u64
    }

    /// The oldest goes. False if there is none.
    pub(super) fn squeeze(&mut self, now: Time) -> bool {
        let (gone, _) = self.gone(now);
        self.squeezed = self.head().min(gone + 1);
        gone < self.head()
    }

    /// How many of this epoch are gone, and the bytes of the others.
    pub(super) fn gone(&self, now: Time) -> (u64, usize) {
        let list = &self.epochs[&self.epoch.0];
        let (mut kept, mut bytes) = (0, 0);
        for published in list.iter().rev().take(list.len() - self.squeezed as usize) {
            let more = bytes + published.bytes + ENTRY_BYTES;
            let fits = kept < self.bounds.messages_max && more <= self.bounds.bytes_max;
            if !fits || now.0 - published.at.0 >= self.bounds.age_ms {
                break;
            }
            (kept, bytes) = (kept + 1, more);
        }
        ((list.len() - kept) as u64, bytes)
    }

    pub(super) fn message(&self, epoch: Epoch, offset: u64) -> Message {
        let list = self.epochs.get(&epoch.0).expect("a broadcast is of an epoch that there was");
        assert!((1..=list.len() as u64).contains(&offset), "offset {offset} of {}", list.len());
        list[offset as usize - 1].message
    }

    /// What the contract promises a client that joins: the position in its reply, and the gap of which it hears first.
    pub(super) fn promised(&self, resume: &Resume, now: Time) -> (Position, Option<Gap>) {
        let (epoch, offset) = (self.epoch, self.head());
        let Resume::After(position) = *resume else { return (Position { epoch, offset }, None) };
        let from = (position.epoch == epoch).then_some(position.offset);
        let reason = if from.is_none() {
            GapReason::Epoch
        } else if position.offset > offset {
            GapReason::Future
        } else if position.offset < self.gone(now).0 {
            GapReason::Expired
        } else {
            return (position, None);
        };
        (position, Some(Gap { epoch, offset, from, reason }))
    }
}
