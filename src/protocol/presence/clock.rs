//! Which changes have been seen: of one replica, and of all of them.
//!
//! Source: `Phoenix.Tracker.Clock`; `compact` and `in?` of `Phoenix.Tracker.State`.

use std::collections::{BTreeMap, BTreeSet};

use super::ReplicaRef;

/// The clocks of one replica that have been seen: all up to `clock`, and those in `cloud`.
///
/// Always compact: the cloud holds only clocks with a gap before them, so `clock + 1` is never in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    clock: u64,
    cloud: BTreeSet<u64>,
}

impl Seen {
    /// The clock up to which there is no gap; 0 when nothing was seen.
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// The clocks beyond the first gap.
    pub fn cloud(&self) -> &BTreeSet<u64> {
        &self.cloud
    }

    /// Whether `clock` was seen. 0 names no change and counts as seen.
    pub fn contains(&self, clock: u64) -> bool {
        clock <= self.clock || self.cloud.contains(&clock)
    }

    /// Adds one clock.
    pub fn insert(&mut self, clock: u64) {
        if clock > self.clock {
            self.cloud.insert(clock);
            self.compact();
        }
    }

    /// Adds every clock up to `clock`, and those in `cloud`.
    pub fn union(&mut self, clock: u64, cloud: &BTreeSet<u64>) {
        if clock > self.clock {
            self.clock = clock;
            self.cloud = self.cloud.split_off(&clock);
            self.cloud.remove(&clock);
        }
        self.cloud.extend(cloud.iter().filter(|&&beyond| beyond > self.clock));
        self.compact();
    }

    fn compact(&mut self) {
        while self.cloud.first() == Some(&(self.clock + 1)) {
            self.cloud.pop_first();
            self.clock += 1;
        }
    }
}

/// A causal context: each replica's clock. A replica with clock 0 is known, one that is absent is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context(BTreeMap<ReplicaRef, u64>);

impl Context {
    /// The clock of a replica, 0 when it is not known.
    pub fn clock(&self, replica: &ReplicaRef) -> u64 {
        self.0.get(replica).copied().unwrap_or(0)
    }

    /// Whether the replica is known.
    pub fn knows(&self, replica: &ReplicaRef) -> bool {
        self.0.contains_key(replica)
    }

    /// Sets a replica's clock.
    pub fn set(&mut self, replica: ReplicaRef, clock: u64) {
        self.0.insert(replica, clock);
    }

    /// Drops a replica.
    pub fn forget(&mut self, replica: &ReplicaRef) {
        self.0.remove(replica);
    }

    /// The replicas and their clocks, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&ReplicaRef, u64)> {
        self.0.iter().map(|(replica, clock)| (replica, *clock))
    }

    /// Whether no replica is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether everything `other` has seen has been seen here too.
    pub fn dominates(&self, other: &Context) -> bool {
        other.iter().all(|(replica, clock)| self.clock(replica) >= clock)
    }

    /// Takes each replica's later clock, and the replicas only `other` knows.
    pub fn raise_to(&mut self, other: &Context) {
        self.combine(other, u64::max);
    }

    /// Takes each replica's earlier clock where both know it, and the replicas only `other` knows.
    pub fn lower_to(&mut self, other: &Context) {
        self.combine(other, u64::min);
    }

    fn combine(&mut self, other: &Context, choose: impl Fn(u64, u64) -> u64) {
        for (replica, clock) in other.iter() {
            self.0.entry(replica.clone()).and_modify(|own| *own = choose(*own, clock)).or_insert(clock);
        }
    }

    /// Keeps the replicas of which `keep` holds.
    pub fn retain(&mut self, keep: impl Fn(&ReplicaRef) -> bool) {
        self.0.retain(|replica, _| keep(replica));
    }
}

impl FromIterator<(ReplicaRef, u64)> for Context {
    fn from_iter<I: IntoIterator<Item = (ReplicaRef, u64)>>(clocks: I) -> Self {
        Context(clocks.into_iter().collect())
    }
}

/// The contexts heard in heartbeats: the fewest peers that together have seen everything heard of.
///
/// A driver adds each heartbeat's clocks, and now and then asks those who are ahead for a transfer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PendingClocks(Vec<(ReplicaRef, Context)>);

impl PendingClocks {
    /// Notes the context that `from` told. Contexts that another one dominates are dropped.
    pub fn hear(&mut self, from: ReplicaRef, context: Context) {
        let mut heard = Context::default();
        for (_, other) in &self.0 {
            heard.raise_to(other);
        }
        if !heard.dominates(&context) {
            self.0.retain(|(_, other)| !context.dominates(other));
            self.0.push((from, context));
        }
    }

    /// Returns the peers to ask: those that have seen something `own` has not, among the replicas `own` knows.
    pub fn ahead_of<'a>(&'a self, own: &'a Context) -> impl Iterator<Item = &'a ReplicaRef> {
        self.0
            .iter()
            .filter(|(_, context)| {
                context.iter().any(|(replica, clock)| own.knows(replica) && clock > own.clock(replica))
            })
            .map(|(from, _)| from)
    }

    /// Forgets what was heard, after the peers were asked.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn context(clocks: &[(&str, u64)]) -> Context {
        clocks.iter().map(|&(name, clock)| (ReplicaRef::new(name, 1), clock)).collect()
    }

    fn members(seen: &Seen) -> BTreeSet<u64> {
        (1..=40).filter(|clock| seen.contains(*clock)).collect()
    }

    proptest! {
        #[test]
        fn seen_is_a_set_of_clocks(inserts in prop::collection::vec(1u64..30, 0..40), clock in 0u64..30, cloud in prop::collection::btree_set(1u64..30, 0..20)) {
            let mut seen = Seen::default();
            let mut model = BTreeSet::new();
            for insert in inserts {
                seen.insert(insert);
                model.insert(insert);
                prop_assert_eq!(members(&seen), model.clone());
            }

            seen.union(clock, &cloud);
            model.extend(1..=clock);
            model.extend(&cloud);

            prop_assert_eq!(members(&seen), model);
            prop_assert!(seen.cloud().iter().all(|beyond| *beyond > seen.clock() + 1));
        }
    }

    #[test]
    fn a_context_dominates_what_it_contains() {
        let both = context(&[("a", 2), ("b", 1)]);

        assert!(both.dominates(&both));
        assert!(both.dominates(&context(&[("a", 1)])));
        assert!(!both.dominates(&context(&[("a", 3)])));
        assert!(!both.dominates(&context(&[("c", 1)])));
        assert!(both.dominates(&context(&[("c", 0)])));
    }

    #[test]
    fn bounds_take_the_replicas_of_both() {
        let (left, right) = (context(&[("a", 2), ("b", 1)]), context(&[("b", 5), ("c", 3)]));

        let (mut upper, mut lower) = (left.clone(), left);
        upper.raise_to(&right);
        lower.lower_to(&right);

        assert_eq!(upper, context(&[("a", 2), ("b", 5), ("c", 3)]));
        assert_eq!(lower, context(&[("a", 2), ("b", 1), ("c", 3)]));
    }

    #[test]
    fn the_fewest_peers_that_know_everything_are_asked() {
        let peer = |name| ReplicaRef::new(name, 1);
        let mut pending = PendingClocks::default();
        pending.hear(peer("b"), context(&[("a", 1), ("b", 2)]));
        pending.hear(peer("c"), context(&[("a", 1), ("c", 4)]));
        pending.hear(peer("d"), context(&[("a", 1), ("b", 2), ("d", 0)]));
        let asked = |pending: &PendingClocks, own: &[(&str, u64)]| {
            let own = context(own);
            pending.ahead_of(&own).cloned().collect::<Vec<_>>()
        };

        assert_eq!(asked(&pending, &[("a", 1), ("b", 0), ("c", 0)]), [peer("b"), peer("c")]);
        assert_eq!(asked(&pending, &[("a", 1), ("b", 2), ("c", 3)]), [peer("c")]);
        assert_eq!(asked(&pending, &[("a", 1), ("b", 2)]), []);

        pending.hear(peer("e"), context(&[("a", 1), ("b", 3), ("c", 4)]));
        assert_eq!(asked(&pending, &[("a", 1), ("b", 0), ("c", 0)]), [peer("e")]);
    }
}
