//! How urgent a message is, and which class goes next.

use std::collections::BTreeSet;

use super::Seq;

/// How urgent a message is. `Urgent` is the least value, so that a sorted list begins with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Before all others.
    Urgent,
    /// Before what is ordinary.
    High,
    /// What a message has that says nothing.
    #[default]
    Normal,
    /// When there is nothing else; but see [`Limits::passed_over_max`](super::Limits::passed_over_max).
    Low,
}

impl Priority {
    /// Every priority, the most urgent first.
    pub const ALL: [Priority; 4] = [Priority::Urgent, Priority::High, Priority::Normal, Priority::Low];

    /// The name on the wire: `urgent`, `high`, `normal` or `low`.
    pub fn name(self) -> &'static str {
        match self {
            Priority::Urgent => "urgent",
            Priority::High => "high",
            Priority::Normal => "normal",
            Priority::Low => "low",
        }
    }

    /// The priority of that name, as [`Priority::name`] writes it.
    pub fn parse(name: &str) -> Option<Priority> {
        Priority::ALL.into_iter().find(|priority| priority.name() == name)
    }

    /// Its place in [`Priority::ALL`].
    pub(super) fn index(self) -> usize {
        self as usize
    }
}

/// The messages that may be delivered at once, and whose turn it is.
///
/// The most urgent class goes first, and within it the least number. A class that has a message, and that deliveries of
/// more urgent ones have passed over `max` times in a row, is *owed* the next delivery. Of several that are owed the most
/// urgent goes first: serving it raises only the counts of those below it, so every class is served after it was passed
/// over `max + 2` times at most. (With the least urgent first, two low classes could keep a higher one out for good.)
#[derive(Debug, Default)]
pub(super) struct Ready {
    classes: [BTreeSet<Seq>; 4],
    passed_over: [u32; 4],
}

impl Ready {
    pub(super) fn insert(&mut self, priority: Priority, seq: Seq) {
        self.classes[priority.index()].insert(seq);
    }

    pub(super) fn remove(&mut self, priority: Priority, seq: Seq) {
        self.classes[priority.index()].remove(&seq);
    }

    /// Takes the message whose turn it is. A `max` of 0 counts as 1.
    pub(super) fn pop(&mut self, max: u32) -> Option<Seq> {
        let waits = |class: &usize| !self.classes[*class].is_empty();
        let owed = |class: &usize| waits(class) && self.passed_over[*class] >= max.max(1);
        let class = (0..4).find(owed).or_else(|| (0..4).find(waits))?;
        for other in 0..4 {
            if other == class || self.classes[other].is_empty() {
                self.passed_over[other] = 0;
            } else if other > class {
                self.passed_over[other] = self.passed_over[other].saturating_add(1);
            }
        }
        self.classes[class].pop_first()
    }

    /// Most urgent first, and within a class by number; regardless of who is owed.
    pub(super) fn iter(&self) -> impl Iterator<Item = Seq> {
        self.classes.iter().flatten().copied()
    }

    /// How many of each, in the order of [`Priority::ALL`].
    pub(super) fn counts(&self) -> [usize; 4] {
        std::array::from_fn(|class| self.classes[class].len())
    }
}
