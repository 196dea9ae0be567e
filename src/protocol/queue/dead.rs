//! The messages that were given up.

use std::collections::{BTreeMap, BTreeSet};

use super::{DeadLetter, Seq};
use crate::protocol::Time;

/// Dead letters by number and by age.
#[derive(Debug)]
pub(super) struct DeadLetters<B> {
    by_seq: BTreeMap<Seq, DeadLetter<B>>,
    by_age: BTreeSet<(Time, Seq)>,
    bytes: usize,
}

impl<B> DeadLetters<B> {
    pub(super) fn new() -> Self {
        DeadLetters { by_seq: BTreeMap::new(), by_age: BTreeSet::new(), bytes: 0 }
    }

    pub(super) fn insert(&mut self, letter: DeadLetter<B>) {
        self.remove(letter.seq);
        self.bytes = self.bytes.saturating_add(letter.bytes);
        self.by_age.insert((letter.died, letter.seq));
        self.by_seq.insert(letter.seq, letter);
    }

    pub(super) fn remove(&mut self, seq: Seq) -> Option<DeadLetter<B>> {
        let letter = self.by_seq.remove(&seq)?;
        self.by_age.remove(&(letter.died, seq));
        self.bytes = self.bytes.saturating_sub(letter.bytes);
        Some(letter)
    }

    pub(super) fn get(&self, seq: Seq) -> Option<&DeadLetter<B>> {
        self.by_seq.get(&seq)
    }

    /// When the oldest died, and its number.
    pub(super) fn oldest(&self) -> Option<(Time, Seq)> {
        self.by_age.first().copied()
    }

    /// The oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &DeadLetter<B>> {
        self.by_age.iter().filter_map(|(_, seq)| self.by_seq.get(seq))
    }

    pub(super) fn len(&self) -> usize {
        self.by_seq.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
