//! What travels between replicas: a delta, the full state, and the merged deltas kept for those who missed some.
//!
//! Source: `Phoenix.Tracker.DeltaGeneration`; `merge_deltas` and `extract` of `Phoenix.Tracker.State`.

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;

use super::{Clouds, Context, Dot, Entry, ReplicaRef, Status, Values};

/// The most values and cloud clocks of each generation, as in Phoenix (`max_delta_sizes`).
pub const GENERATION_SIZES_MAX: [usize; 3] = [100, 1_000, 10_000];

/// The most values and cloud clocks a replica records for its next delta: those of the largest generation.
///
/// Beyond it the record starts anew. Peers find a gap in the clocks and ask for a transfer; a node without peers, which
/// never takes its delta, does not grow.
pub const DELTA_SIZE_MAX: usize = 10_000;

/// Everything one replica holds, as sent to a peer that no delta can help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullState {
    /// Who sends it.
    pub replica: ReplicaRef,
    /// The clocks seen without a gap.
    pub context: Context,
    /// The clocks seen beyond.
    pub clouds: Clouds,
    /// The entries. A clock that was seen and is not here is a leave, or a join that has left.
    pub values: Values,
    /// Which replicas the sender holds for up or down. A merge does not read it.
    pub statuses: BTreeMap<ReplicaRef, Status>,
}

/// A part of a state: the changes of a range of clocks.
///
/// Its clouds name every clock of the range, and earlier ones that were removed within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Whose changes these are; of a merged delta, the first one's.
    pub replica: ReplicaRef,
    /// The clocks it speaks of.
    pub clouds: Clouds,
    /// The entries among them that have not left.
    pub values: Values,
    /// For each replica the clock before the first one.
    pub start: Context,
    /// For each replica the last clock.
    pub end: Context,
}

/// Two deltas leave a gap in some replica's clocks between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("deltas are not contiguous: neither begins within or right after the other")]
pub struct NotContiguous;

impl Delta {
    /// The delta of a replica at `clock` that has changed nothing since.
    pub fn new(replica: ReplicaRef, clock: u64) -> Self {
        let at = Context::from_iter([(replica.clone(), clock)]);
        Delta { replica, clouds: Clouds::new(), values: Values::new(), start: at.clone(), end: at }
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.clouds.values().all(|cloud| cloud.is_empty()) && self.values.values().all(|values| values.is_empty())
    }

    /// The number of values and of cloud clocks.
    pub fn size(&self) -> usize {
        let values: usize = self.values.values().map(|values| values.len()).sum();
        let clocks: usize = self.clouds.values().map(|cloud| cloud.len()).sum();
        values + clocks
    }

    /// Adds a join of the own replica.
    pub(super) fn record_join(&mut self, dot: &Dot, entry: Arc<Entry>) {
        self.record_clock(dot);
        self.values.entry(dot.replica.clone()).or_default().insert(dot.clock, entry);
    }

    /// Adds a leave of the own replica: at `dot`, of the entry that joined at clock `removed`.
    pub(super) fn record_leave(&mut self, removed: u64, dot: &Dot) {
        self.record_clock(dot);
        self.clouds.entry(dot.replica.clone()).or_default().insert(removed);
        if let Some(values) = self.values.get_mut(&dot.replica) {
            values.remove(&removed);
        }
    }

    fn record_clock(&mut self, dot: &Dot) {
        self.clouds.entry(dot.replica.clone()).or_default().insert(dot.clock);
        self.end.set(dot.replica.clone(), dot.clock);
    }

    /// Takes the changes of another delta in. The order of the two does not matter.
    ///
    /// # Errors
    /// [`NotContiguous`] if clocks between the two are in neither; nothing is changed then.
    pub fn merge(&mut self, other: &Delta) -> Result<(), NotContiguous> {
        let touches = |replica: &ReplicaRef| {
            self.end.clock(replica) >= other.start.clock(replica)
                && other.end.clock(replica) >= self.start.clock(replica)
        };
        if !other.start.iter().all(|(replica, _)| !self.start.knows(replica) || touches(replica)) {
            return Err(NotContiguous);
        }
        for (replica, values) in &mut self.values {
            let theirs = other.values.get(replica);
            values.retain(|clock, _| {
                theirs.is_some_and(|theirs| theirs.contains_key(clock)) || !names(&other.clouds, replica, *clock)
            });
        }
        for (replica, theirs) in &other.values {
            let values = self.values.entry(replica.clone()).or_default();
            for (clock, entry) in theirs {
                if !names(&self.clouds, replica, *clock) {
                    values.insert(*clock, entry.clone());
                }
            }
        }
        for (replica, cloud) in &other.clouds {
            self.clouds.entry(replica.clone()).or_default().extend(cloud);
        }
        self.start.lower_to(&other.start);
        self.end.raise_to(&other.end);
        Ok(())
    }

    /// Drops everything about a replica.
    pub fn forget(&mut self, replica: &ReplicaRef) {
        self.clouds.remove(replica);
        self.values.remove(replica);
        self.start.forget(replica);
        self.end.forget(replica);
    }

    /// Keeps the replicas of which `keep` holds.
    pub(super) fn retain(&mut self, keep: impl Fn(&ReplicaRef) -> bool) {
        self.clouds.retain(|replica, _| keep(replica));
        self.values.retain(|replica, _| keep(replica));
        self.start.retain(&keep);
        self.end.retain(&keep);
    }
}

fn names(clouds: &Clouds, replica: &ReplicaRef, clock: u64) -> bool {
    clouds.get(replica).is_some_and(|cloud| cloud.contains(&clock))
}

/// The answer to a peer that asked for what it lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// The changes since the peer's clocks.
    Delta(Delta),
    /// Everything, because no kept delta reaches back to the peer's clocks.
    State(FullState),
}

/// Sent and received deltas, merged at several sizes: the first reaches back least and is smallest.
#[derive(Clone, Debug, Default)]
pub struct Generations {
    levels: Vec<Delta>,
}

impl Generations {
    /// No delta yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a delta that was sent or received.
    ///
    /// A level that would grow beyond its size, or that the delta does not continue, begins anew with what the level
    /// before it holds.
    pub fn push(&mut self, delta: &Delta) {
        let mut smaller = delta.clone();
        for (index, size_max) in GENERATION_SIZES_MAX.into_iter().enumerate() {
            let grown = self.levels.get(index).and_then(|level| {
                let mut grown = level.clone();
                grown.merge(delta).ok()?;
                (grown.size() <= size_max).then_some(grown)
            });
            let level = grown.unwrap_or(smaller);
            smaller = level.clone();
            match self.levels.get_mut(index) {
                Some(kept) => *kept = level,
                None => self.levels.push(level),
            }
        }
    }

    /// Returns the smallest delta that brings a peer from `theirs` to `ours`.
    ///
    /// Only replicas that `theirs` knows count.
    pub fn covering(&self, ours: &Context, theirs: &Context) -> Option<&Delta> {
        self.levels.iter().find(|level| {
            ours.iter().filter(|(replica, clock)| theirs.knows(replica) && *clock > theirs.clock(replica)).all(
                |(replica, clock)| {
                    level.start.knows(replica)
                        && level.start.clock(replica) <= theirs.clock(replica)
                        && level.end.clock(replica) >= clock
                },
            )
        })
    }

    /// Drops everything about a replica that is gone for good.
    pub fn forget(&mut self, replica: &ReplicaRef) {
        for level in &mut self.levels {
            level.forget(replica);
        }
    }
}
