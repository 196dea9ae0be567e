//! What one node may believe about presences, as explicit sets: every dot seen, every dot with a value.
//!
//! Nothing is compacted, nothing is shared, and messages are read for what they mean, not for how they came about.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::presence::{
    Clouds, Context, Delta, Diff, FullState, Owner, Replica, ReplicaRef, Transfer, Values,
};

/// One presence: its topic, key and owner, and the reference of its meta.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Present {
    pub(super) topic: &'static str,
    pub(super) key: &'static str,
    pub(super) owner: Owner,
    pub(super) phx_ref: String,
}

/// What is known of one replica.
#[derive(Clone, Debug)]
struct Known {
    shown: bool,
    seen: BTreeSet<u64>,
    alive: BTreeMap<u64, Present>,
}

/// One node's belief.
#[derive(Clone, Debug)]
pub(super) struct Belief {
    me: ReplicaRef,
    known: BTreeMap<ReplicaRef, Known>,
    /// The clocks since the last delta: of changes, and of what they removed.
    named: BTreeSet<u64>,
    /// The clock at the last delta.
    told: u64,
}

/// A change of what is visible: for each topic the keys and references that joined and that left.
type Change = BTreeMap<String, [BTreeMap<String, Vec<String>>; 2]>;

/// Dots that became visible or hidden.
#[derive(Default)]
pub(super) struct Dots {
    joined: Vec<(u64, ReplicaRef, Present)>,
    left: Vec<(u64, ReplicaRef, Present)>,
}

impl Belief {
    pub(super) fn new(me: ReplicaRef) -> Self {
        let own = Known { shown: true, seen: BTreeSet::new(), alive: BTreeMap::new() };
        Belief { known: BTreeMap::from([(me.clone(), own)]), me, named: BTreeSet::new(), told: 0 }
    }

    fn own(&mut self) -> &mut Known {
        self.known.get_mut(&self.me).expect("a node knows itself")
    }

    fn tick(&mut self) -> u64 {
        let seen = &mut self.own().seen;
        let clock = seen.len() as u64 + 1;
        seen.insert(clock);
        self.named.insert(clock);
        clock
    }

    fn find(&self, owner: Owner, topic: &str, key: &str) -> Option<u64> {
        let alive = self.known[&self.me].alive.iter();
        let mut found = alive.filter(|(_, it)| (it.owner, it.topic, it.key) == (owner, topic, key));
        found.next().map(|(clock, _)| *clock)
    }

    /// Tracks, unless it is tracked.
    pub(super) fn join(&mut self, present: Present) -> Option<Dots> {
        if self.find(present.owner, present.topic, present.key).is_some() {
            return None;
        }
        let mut dots = Dots::default();
        self.add(present, &mut dots);
        Some(dots)
    }

    fn add(&mut self, present: Present, dots: &mut Dots) {
        let clock = self.tick();
        self.own().alive.insert(clock, present.clone());
        dots.joined.push((clock, self.me.clone(), present));
    }

    fn remove(&mut self, clock: u64, dots: &mut Dots) {
        self.tick();
        self.named.insert(clock);
        let present = self.own().alive.remove(&clock).expect("what is removed was there");
        dots.left.push((clock, self.me.clone(), present));
    }

    pub(super) fn leave(&mut self, owner: Owner, topic: &str, key: &str) -> Dots {
        let mut dots = Dots::default();
        if let Some(clock) = self.find(owner, topic, key) {
            self.remove(clock, &mut dots);
        }
        dots
    }

    pub(super) fn leave_owner(&mut self, owner: Owner) -> Dots {
        let mut dots = Dots::default();
        let alive = self.own().alive.iter();
        let mut places: Vec<_> =
            alive.filter(|(_, it)| it.owner == owner).map(|(clock, it)| (it.topic, it.key, *clock)).collect();
        places.sort_unstable();
        for (_, _, clock) in places {
            self.remove(clock, &mut dots);
        }
        dots
    }

    /// Gives an entry another meta. None if there is no such entry.
    pub(super) fn update(&mut self, present: Present) -> Option<Dots> {
        let clock = self.find(present.owner, present.topic, present.key)?;
        let mut dots = Dots::default();
        self.remove(clock, &mut dots);
        self.add(present, &mut dots);
        Some(dots)
    }

    pub(super) fn up(&mut self, replica: &ReplicaRef) -> Dots {
        let fresh = || Known { shown: true, seen: BTreeSet::new(), alive: BTreeMap::new() };
        let known = self.known.entry(replica.clone()).or_insert_with(fresh);
        let mut dots = Dots::default();
        if !std::mem::replace(&mut known.shown, true) {
            dots.joined.extend(known.alive.iter().map(|(clock, it)| (*clock, replica.clone(), it.clone())));
        }
        dots
    }

    pub(super) fn down(&mut self, replica: &ReplicaRef) -> Dots {
        let mut dots = Dots::default();
        if *replica != self.me
            && let Some(known) = self.known.get_mut(replica)
            && std::mem::replace(&mut known.shown, false)
        {
            dots.left.extend(known.alive.iter().map(|(clock, it)| (*clock, replica.clone(), it.clone())));
        }
        dots
    }

    pub(super) fn forget(&mut self, replica: &ReplicaRef) -> Dots {
        let dots = self.down(replica);
        if *replica != self.me {
            self.known.remove(replica);
        }
        dots
    }

    pub(super) fn merge_delta(&mut self, delta: &Delta) -> Dots {
        self.merge_parts(&Context::default(), &delta.clouds, &delta.values)
    }

    pub(super) fn merge_state(&mut self, state: &FullState) -> Dots {
        self.merge_parts(&state.context, &state.clouds, &state.values)
    }

    pub(super) fn merge(&mut self, transfer: &Transfer) -> Dots {
        match transfer {
            Transfer::Delta(delta) => self.merge_delta(delta),
            Transfer::State(state) => self.merge_state(state),
        }
    }

    /// A value that both have stays; one that only one has stays where the other has not seen its dot.
    fn merge_parts(&mut self, context: &Context, clouds: &Clouds, values: &Values) -> Dots {
        let mut dots = Dots::default();
        for (replica, known) in &mut self.known {
            if *replica == self.me {
                continue;
            }
            let theirs: BTreeMap<u64, Present> =
                values.get(replica).into_iter().flatten().map(|(clock, entry)| (*clock, Present::of(entry))).collect();
            let mut their_seen: BTreeSet<u64> = (1..=context.clock(replica)).collect();
            their_seen.extend(clouds.get(replica).into_iter().flatten());
            their_seen.extend(theirs.keys());

            let gone = |clock: &u64| their_seen.contains(clock) && !theirs.contains_key(clock);
            let left: Vec<u64> = known.alive.keys().copied().filter(gone).collect();
            for clock in left {
                let present = known.alive.remove(&clock).expect("it was listed above");
                if known.shown {
                    dots.left.push((clock, replica.clone(), present));
                }
            }
            for (clock, present) in theirs {
                if !known.seen.contains(&clock) {
                    known.alive.insert(clock, present.clone());
                    if known.shown {
                        dots.joined.push((clock, replica.clone(), present));
                    }
                }
            }
            known.seen.extend(their_seen);
        }
        dots
    }

    /// Holds a delta against the changes since the last one.
    pub(super) fn check_delta(&mut self, delta: Option<&Delta>) {
        let now = self.own().seen.len() as u64;
        let named = std::mem::take(&mut self.named);
        let told = std::mem::replace(&mut self.told, now);
        let Some(delta) = delta else {
            assert!(named.is_empty(), "changes {named:?} are in no delta");
            return;
        };
        let alive = &self.known[&self.me].alive;
        let values: BTreeMap<u64, Present> =
            delta.values.values().flatten().map(|(clock, entry)| (*clock, Present::of(entry))).collect();
        let expected = alive.iter().filter(|(clock, _)| named.contains(clock));
        assert_eq!(values, expected.map(|(clock, present)| (*clock, present.clone())).collect());
        assert_eq!(delta.clouds.values().flatten().copied().collect::<BTreeSet<_>>(), named);
        assert_eq!((delta.start.clock(&self.me), delta.end.clock(&self.me)), (told, now));
    }

    /// Holds what a replica lists, and its clocks, against the belief.
    pub(super) fn check(&self, replica: &Replica) {
        let seen = self.known.iter().map(|(name, known)| (name, known.gapless()));
        assert!(replica.clocks().iter().eq(seen), "clocks of {:?}", self.me);
        for topic in super::TOPICS {
            let found = replica.get_by_topic(topic).map(|it| (it.key, it.owner, it.meta.phx_ref()));
            assert_eq!(found.collect::<Vec<_>>(), self.listed(topic), "{:?} on {topic}", self.me);
        }
    }

    /// Holds the other ways to list against the belief.
    pub(super) fn check_lookups(&self, replica: &Replica) {
        for topic in super::TOPICS {
            let listed = self.listed(topic);
            for key in super::KEYS {
                let found = replica.get_by_key(topic, key).map(|it| (it.key, it.owner, it.meta.phx_ref()));
                assert!(found.eq(listed.iter().filter(|it| it.0 == key).copied()), "{key} on {topic}: {listed:?}");
            }
        }
        for owner in super::OWNERS {
            let found = replica.get_by_owner(owner).map(|it| (it.topic, it.key, it.meta.phx_ref()));
            let own = self.known[&self.me].alive.values().filter(|it| it.owner == owner);
            let mut expected: Vec<_> = own.map(|it| (it.topic, it.key, it.phx_ref.as_str())).collect();
            expected.sort_unstable();
            assert_eq!(found.collect::<Vec<_>>(), expected, "{owner:?} at {:?}", self.me);
        }
    }

    /// A topic as it is listed: by key, then owner, then dot.
    pub(super) fn listed(&self, topic: &str) -> Vec<(&str, Owner, &str)> {
        let shown = self.known.iter().filter(|(_, known)| known.shown);
        let mut places: Vec<_> = shown
            .flat_map(|(replica, known)| known.alive.iter().map(move |(clock, it)| (it, replica, *clock)))
            .filter(|(it, ..)| it.topic == topic)
            .map(|(it, replica, clock)| (it.key, it.owner, replica, clock, it.phx_ref.as_str()))
            .collect();
        places.sort_unstable();
        places.into_iter().map(|(key, owner, _, _, phx_ref)| (key, owner, phx_ref)).collect()
    }

    /// Asserts that this node, which has just got from `giver` what it lacked, lacks nothing: of the replicas that both
    /// know it has seen as far as the giver has, and where both have seen the same they hold the same.
    pub(super) fn lacks_nothing_of(&self, giver: &Belief) {
        for (replica, known) in self.known.iter().filter(|(replica, _)| **replica != self.me) {
            let Some(given) = giver.known.get(replica) else { continue };
            assert!(known.gapless() >= given.gapless(), "{:?} still lacks changes of {replica:?}", self.me);
            if known.seen == given.seen {
                assert_eq!(known.alive, given.alive, "{:?} and {:?} of {replica:?}", self.me, giver.me);
            }
        }
    }

    /// The entries of the node itself, which nobody else decides on.
    pub(super) fn own_entries(&self) -> BTreeMap<u64, Present> {
        self.known[&self.me].alive.clone()
    }
}

impl Known {
    /// The clock up to which all are seen.
    fn gapless(&self) -> u64 {
        (1..).zip(&self.seen).take_while(|(clock, seen)| clock == *seen).count() as u64
    }
}

impl Present {
    pub(super) fn of(entry: &crate::protocol::presence::Entry) -> Self {
        let name = |text: &str| {
            let names = super::TOPICS.iter().chain(&super::KEYS);
            *names.into_iter().find(|name| **name == text).expect("topics and keys are those of the operations")
        };
        Present {
            topic: name(&entry.topic),
            key: name(&entry.key),
            owner: entry.owner,
            phx_ref: entry.meta.phx_ref().to_owned(),
        }
    }
}

impl Dots {
    /// Asserts that nothing joined of which whoever brought it has seen that it is gone.
    ///
    /// It may bring what it has not seen: a delta of a replica that it does not know is dropped by its merge, but kept
    /// for others.
    pub(super) fn are_not_gone_for(&self, giver: &Belief) {
        for (clock, replica, present) in &self.joined {
            let known = giver.known.get(replica);
            let gone = known.is_some_and(|known| known.seen.contains(clock) && !known.alive.contains_key(clock));
            assert!(!gone, "{:?} brings {present:?}, which it knows to be gone", giver.me);
        }
    }

    /// Holds a diff against the dots: the same changes, each once, in the order of listing.
    pub(super) fn check(self, diff: &Diff) {
        let mut expected = Change::new();
        for (side, dots) in [self.joined, self.left].into_iter().enumerate() {
            let mut places: Vec<_> =
                dots.into_iter().map(|(clock, replica, it)| (it.owner, replica, clock, it)).collect();
            places.sort_by(|left, right| (left.0, &left.1, left.2).cmp(&(right.0, &right.1, right.2)));
            for (.., it) in places {
                let sides = expected.entry(it.topic.to_owned()).or_default();
                sides[side].entry(it.key.to_owned()).or_default().push(it.phx_ref);
            }
        }
        let mut found = Change::new();
        for (topic, changes) in &diff.topics {
            let sides = [&changes.joins, &changes.leaves].map(|side| {
                let refs = |metas: &Vec<crate::protocol::presence::Meta>| {
                    metas.iter().map(|meta| meta.phx_ref().to_owned()).collect()
                };
                side.iter().map(|(key, metas)| (key.to_string(), refs(metas))).collect()
            });
            found.insert(topic.to_string(), sides);
        }
        assert_eq!(found, expected, "what is told of a change");
    }
}
