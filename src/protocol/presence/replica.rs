//! The set itself: local changes, merging, and replicas that come and go.
//!
//! Source: `Phoenix.Tracker.State`. Differences, each to the safe side:
//! - What a peer says about this replica's own entries is ignored: nobody else can add or remove them.
//! - A removed foreign dot stays seen, so that a late message cannot bring its entry back for a moment.
//! - Entries of a replica that is down are merged without a diff, since nobody sees them.
//! - A transfer leaves out the context of replicas whose values it leaves out.
//! - Two nodes may use equal owners: entries are told apart by dot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::clock::Seen;
use super::delta::DELTA_SIZE_MAX;
use super::{
    Clouds, Context, Delta, Diff, Dot, Entry, FullState, Generations, Meta, NotPresent, Owner, ReplicaRef, TrackError,
    Transfer, Values, check_key,
};

/// Whether a replica's entries are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Heard of lately.
    Up,
    /// Silent for some time: hidden, but kept.
    Down,
}

/// One node's view of who is present.
///
/// A known replica goes `(unknown) → up ⇄ down → (unknown)`: [`replica_up`](Self::replica_up),
/// [`replica_down`](Self::replica_down), [`remove_down_replica`](Self::remove_down_replica). Merges drop what concerns
/// unknown ones. A local change costs O(log n) in the entries.
#[derive(Clone, Debug)]
pub struct Replica {
    me: ReplicaRef,
    known: BTreeMap<ReplicaRef, Known>,
    /// Every entry by topic, in the order of listing.
    topics: BTreeMap<Arc<str>, BTreeMap<Place, Arc<Entry>>>,
    /// The clocks of the own entries.
    owners: BTreeMap<Tracked, u64>,
    delta: Delta,
}

#[derive(Clone, Debug)]
struct Known {
    status: Status,
    seen: Seen,
    entries: BTreeMap<u64, Arc<Entry>>,
}

impl Known {
    fn new() -> Self {
        Known { status: Status::Up, seen: Seen::default(), entries: BTreeMap::new() }
    }
}

/// Where an entry stands in its topic's list: by key, and within a key by owner, as `Phoenix.Presence.group` has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    key: Arc<str>,
    owner: Owner,
    dot: Dot,
}

/// What tells the own entries apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Tracked {
    owner: Owner,
    topic: Arc<str>,
    key: Arc<str>,
}

/// One entry as it is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its key.
    pub key: &'a str,
    /// Who is present.
    pub owner: Owner,
    /// What is told about it.
    pub meta: &'a Meta,
}

impl<'a> Presence<'a> {
    fn of(entry: &'a Entry) -> Self {
        Presence { topic: &entry.topic, key: &entry.key, owner: entry.owner, meta: &entry.meta }
    }
}

impl Replica {
    /// The empty set of a replica that has just started.
    pub fn new(name: ReplicaRef) -> Self {
        Replica {
            known: BTreeMap::from([(name.clone(), Known::new())]),
            topics: BTreeMap::new(),
            owners: BTreeMap::new(),
            delta: Delta::new(name.clone(), 0),
            me: name,
        }
    }

    /// The reference of this replica.
    pub fn name(&self) -> &ReplicaRef {
        &self.me
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// [`TrackError::AlreadyTracked`] if the owner is on the topic under this key; [`TrackError::UnsafeKey`] if the key
    /// would break clients.
    pub fn join(&mut self, owner: Owner, topic: &str, key: &str, meta: Meta) -> Result<(Dot, Diff), TrackError> {
        check_key(key)?;
        if self.own_clock(owner, topic, key).is_some() {
            return Err(TrackError::AlreadyTracked { topic: topic.to_owned(), key: key.to_owned() });
        }
        let mut changes = Changes::default();
        let dot = self.add(owner, topic, Arc::from(key), meta, &mut changes);
        Ok((dot, changes.into_diff()))
    }

    /// Removes an entry; without one the diff is empty, as Phoenix's `untrack` succeeds then.
    pub fn leave(&mut self, owner: Owner, topic: &str, key: &str) -> Diff {
        let mut changes = Changes::default();
        if let Some(clock) = self.own_clock(owner, topic, key) {
            self.remove(clock, &mut changes);
        }
        changes.into_diff()
    }

    /// Removes all entries of an owner, on every topic: its channel or connection is gone.
    pub fn leave_owner(&mut self, owner: Owner) -> Diff {
        let clocks: Vec<u64> = self.own_clocks(owner).collect();
        self.remove_all(clocks)
    }

    fn remove_all(&mut self, clocks: Vec<u64>) -> Diff {
        let mut changes = Changes::default();
        for clock in clocks {
            self.remove(clock, &mut changes);
        }
        changes.into_diff()
    }

    /// Replaces an entry's meta, whose `phx_ref_prev` becomes the `phx_ref` of the old one.
    ///
    /// The diff holds the new meta as a join and the old one as a leave.
    ///
    /// # Errors
    /// [`NotPresent`] if the owner is not on the topic under this key.
    pub fn update(&mut self, owner: Owner, topic: &str, key: &str, meta: Meta) -> Result<(Dot, Diff), NotPresent> {
        let mut changes = Changes::default();
        let old = self
            .own_clock(owner, topic, key)
            .and_then(|clock| self.remove(clock, &mut changes))
            .ok_or_else(|| NotPresent { topic: topic.to_owned(), key: key.to_owned() })?;
        let meta = meta.with_phx_ref_prev(old.meta.phx_ref());
        let dot = self.add(owner, topic, old.key.clone(), meta, &mut changes);
        Ok((dot, changes.into_diff()))
    }

    /// Lists a topic: keys sorted by their bytes, one key's metas by owner. Hidden entries are left out.
    pub fn get_by_topic(&self, topic: &str) -> impl Iterator<Item = Presence<'_>> {
        self.topics
            .get(topic)
            .into_iter()
            .flatten()
            .filter(|(place, entry)| self.shows(&place.dot.replica, entry))
            .map(|(_, entry)| Presence::of(entry))
    }

    /// Lists one key of a topic, by owner. Hidden entries are left out.
    pub fn get_by_key(&self, topic: &str, key: &str) -> impl Iterator<Item = Presence<'_>> {
        let key: Arc<str> = Arc::from(key);
        let first = Place {
            key: key.clone(),
            owner: Owner { connection: 0, channel: 0 },
            dot: Dot { replica: ReplicaRef::new("", 0), clock: 0 },
        };
        self.topics
            .get(topic)
            .into_iter()
            .flat_map(move |places| places.range(first.clone()..))
            .take_while(move |(place, _)| place.key == key)
            .filter(|(place, entry)| self.shows(&place.dot.replica, entry))
            .map(|(_, entry)| Presence::of(entry))
    }

    /// Lists the entries that an owner has at this replica, by topic and key.
    pub fn get_by_owner(&self, owner: Owner) -> impl Iterator<Item = Presence<'_>> {
        self.own_clocks(owner)
            .filter_map(|clock| self.known.get(&self.me)?.entries.get(&clock))
            .map(|entry| Presence::of(entry))
    }

    /// The clocks of all known replicas, up or down: what a heartbeat tells.
    pub fn clocks(&self) -> Context {
        self.known.iter().map(|(replica, known)| (replica.clone(), known.seen.clock())).collect()
    }

    /// Whether a replica is known, and then whether it is shown.
    pub fn status(&self, replica: &ReplicaRef) -> Option<Status> {
        self.known.get(replica).map(|known| known.status)
    }

    /// Makes a replica known, or shows its entries again. A replica that is up stays as it is.
    pub fn replica_up(&mut self, replica: &ReplicaRef) -> Diff {
        let mut changes = Changes::default();
        let known = self.known.entry(replica.clone()).or_insert_with(Known::new);
        if known.status == Status::Down {
            known.status = Status::Up;
            changes.joins = dotted(replica, &known.entries);
        }
        changes.into_diff()
    }

    /// Hides a replica's entries until it is up again. Not for the own replica, and nothing for an unknown one.
    pub fn replica_down(&mut self, replica: &ReplicaRef) -> Diff {
        let mut changes = Changes::default();
        if *replica != self.me
            && let Some(known) = self.known.get_mut(replica)
            && known.status == Status::Up
        {
            known.status = Status::Down;
            changes.leaves = dotted(replica, &known.entries);
        }
        changes.into_diff()
    }

    /// Forgets a replica that is gone for good: its entries and its clocks. The diff is empty if it was down.
    ///
    /// [`Generations::forget`] belongs to it. Nothing for the own replica.
    pub fn remove_down_replica(&mut self, replica: &ReplicaRef) -> Diff {
        if *replica == self.me {
            return Diff::default();
        }
        let diff = self.replica_down(replica);
        if let Some(known) = self.known.remove(replica) {
            for (clock, entry) in known.entries {
                self.unlist(replica, clock, &entry);
            }
        }
        diff
    }

    /// The changes since the last [`take_delta`](Self::take_delta).
    pub fn delta(&self) -> &Delta {
        &self.delta
    }

    /// Returns the changes since the last call, if there were any, and begins the next delta.
    pub fn take_delta(&mut self) -> Option<Delta> {
        if self.delta.is_empty() {
            return None;
        }
        let next = Delta::new(self.me.clone(), self.delta.end.clock(&self.me));
        Some(std::mem::replace(&mut self.delta, next))
    }

    /// Everything this replica holds.
    pub fn full_state(&self) -> FullState {
        self.state_of(|_| true)
    }

    /// Returns what a peer with the clocks `theirs` lacks, about the replicas it knows and other than itself.
    pub fn extract(&self, generations: &Generations, asker: &ReplicaRef, theirs: &Context) -> Transfer {
        let wanted = |replica: &ReplicaRef| replica != asker && theirs.knows(replica);
        let Some(covering) = generations.covering(&self.clocks(), theirs) else {
            return Transfer::State(self.state_of(wanted));
        };
        let mut delta = covering.clone();
        delta.retain(wanted);
        // A generation may still hold an entry whose removal came with a full state: without the value, its clock in
        // the cloud tells the removal.
        for (replica, values) in &mut delta.values {
            let known = self.known.get(replica);
            let removed = |clock: &u64| {
                known.is_some_and(|known| known.seen.contains(*clock) && !known.entries.contains_key(clock))
            };
            values.retain(|clock, _| !removed(clock));
        }
        Transfer::Delta(delta)
    }

    /// Takes a peer's answer in.
    pub fn merge(&mut self, transfer: &Transfer) -> Diff {
        match transfer {
            Transfer::Delta(delta) => self.merge_delta(delta),
            Transfer::State(state) => self.merge_state(state),
        }
    }

    /// Takes a peer's changes in. What concerns unknown replicas is dropped.
    pub fn merge_delta(&mut self, delta: &Delta) -> Diff {
        let replicas: BTreeSet<&ReplicaRef> = delta.clouds.keys().chain(delta.values.keys()).collect();
        let mut changes = Changes::default();
        for replica in replicas {
            self.merge_replica(replica, 0, &delta.clouds, &delta.values, &mut changes);
        }
        changes.into_diff()
    }

    /// Takes a peer's whole state in. What concerns unknown replicas is dropped.
    pub fn merge_state(&mut self, state: &FullState) -> Diff {
        let mut changes = Changes::default();
        for (replica, clock) in state.context.iter() {
            self.merge_replica(replica, clock, &state.clouds, &state.values, &mut changes);
        }
        changes.into_diff()
    }

    /// Merges what a peer holds of one replica: it has seen all clocks up to `clock` and those in `clouds`.
    fn merge_replica(
        &mut self,
        replica: &ReplicaRef,
        clock: u64,
        clouds: &Clouds,
        values: &Values,
        changes: &mut Changes,
    ) {
        if *replica == self.me {
            return;
        }
        let Some(known) = self.known.get_mut(replica) else {
            return;
        };
        let (no_cloud, no_values) = (BTreeSet::new(), BTreeMap::new());
        let cloud = clouds.get(replica).unwrap_or(&no_cloud);
        let values = values.get(replica).unwrap_or(&no_values);

        let left: Vec<(u64, Arc<Entry>)> = known
            .entries
            .range(..=clock)
            .map(|(held, _)| held)
            .chain(cloud.iter().filter(|beyond| **beyond > clock))
            .filter(|held| !values.contains_key(held))
            .filter_map(|held| Some((*held, known.entries.get(held)?.clone())))
            .collect();
        let joined: Vec<(u64, Arc<Entry>)> = values
            .iter()
            .filter(|(clock, _)| !known.seen.contains(**clock))
            .map(|(clock, entry)| (*clock, entry.clone()))
            .collect();

        known.seen.union(clock, cloud);
        for (clock, entry) in &joined {
            known.seen.insert(*clock);
            known.entries.insert(*clock, entry.clone());
        }
        for (clock, _) in &left {
            known.entries.remove(clock);
        }
        let shown = known.status == Status::Up;
        for (clock, entry) in joined {
            self.list(replica, clock, &entry);
            if shown {
                changes.joins.push((dot(replica, clock), entry));
            }
        }
        for (clock, entry) in left {
            self.unlist(replica, clock, &entry);
            if shown {
                changes.leaves.push((dot(replica, clock), entry));
            }
        }
    }

    fn state_of(&self, wanted: impl Fn(&ReplicaRef) -> bool) -> FullState {
        let mut state = FullState {
            replica: self.me.clone(),
            context: Context::default(),
            clouds: Clouds::new(),
            values: Values::new(),
            statuses: BTreeMap::new(),
        };
        for (replica, known) in self.known.iter().filter(|(replica, _)| wanted(replica)) {
            state.context.set(replica.clone(), known.seen.clock());
            state.clouds.insert(replica.clone(), known.seen.cloud().clone());
            state.values.insert(replica.clone(), known.entries.clone());
            state.statuses.insert(replica.clone(), known.status);
        }
        state
    }

    fn shows(&self, replica: &ReplicaRef, entry: &Entry) -> bool {
        self.status(replica) == Some(Status::Up) && check_key(&entry.key).is_ok()
    }

    fn own_clock(&self, owner: Owner, topic: &str, key: &str) -> Option<u64> {
        self.owners.get(&tracked(owner, topic, key)).copied()
    }

    fn own_clocks(&self, owner: Owner) -> impl Iterator<Item = u64> {
        self.owners
            .range(tracked(owner, "", "")..)
            .take_while(move |(tracked, _)| tracked.owner == owner)
            .map(|(_, clock)| *clock)
    }

    fn own(&mut self) -> &mut Known {
        self.known.get_mut(&self.me).expect("`new` makes the own replica known, and nothing removes it")
    }

    /// Takes the next clock of this replica.
    fn tick(&mut self) -> Dot {
        let seen = &mut self.own().seen;
        let clock = seen.clock() + 1;
        seen.insert(clock);
        dot(&self.me, clock)
    }

    fn add(&mut self, owner: Owner, topic: &str, key: Arc<str>, meta: Meta, changes: &mut Changes) -> Dot {
        let topic = match self.topics.get_key_value(topic) {
            Some((shared, _)) => shared.clone(),
            None => Arc::from(topic),
        };
        let entry = Arc::new(Entry { topic, key, owner, meta });
        let dot = self.tick();
        self.own().entries.insert(dot.clock, entry.clone());
        self.list(&dot.replica, dot.clock, &entry);
        self.owners.insert(tracked_as(&entry), dot.clock);
        self.delta.record_join(&dot, entry.clone());
        self.bound_delta(dot.clock);
        changes.joins.push((dot.clone(), entry));
        dot
    }

    fn remove(&mut self, clock: u64, changes: &mut Changes) -> Option<Arc<Entry>> {
        let entry = self.own().entries.remove(&clock)?;
        let at = self.tick();
        self.unlist(&at.replica, clock, &entry);
        self.owners.remove(&tracked_as(&entry));
        self.delta.record_leave(clock, &at);
        self.bound_delta(at.clock);
        changes.leaves.push((dot(&at.replica, clock), entry.clone()));
        Some(entry)
    }

    fn bound_delta(&mut self, clock: u64) {
        if self.delta.size() > DELTA_SIZE_MAX {
            self.delta = Delta::new(self.me.clone(), clock);
        }
    }

    fn list(&mut self, replica: &ReplicaRef, clock: u64, entry: &Arc<Entry>) {
        self.topics.entry(entry.topic.clone()).or_default().insert(place(replica, clock, entry), entry.clone());
    }

    fn unlist(&mut self, replica: &ReplicaRef, clock: u64, entry: &Entry) {
        if let Some(places) = self.topics.get_mut(&entry.topic) {
            places.remove(&place(replica, clock, entry));
            if places.is_empty() {
                self.topics.remove(&entry.topic);
            }
        }
    }
}

fn dot(replica: &ReplicaRef, clock: u64) -> Dot {
    Dot { replica: replica.clone(), clock }
}

fn tracked(owner: Owner, topic: &str, key: &str) -> Tracked {
    Tracked { owner, topic: Arc::from(topic), key: Arc::from(key) }
}

fn tracked_as(entry: &Entry) -> Tracked {
    Tracked { owner: entry.owner, topic: entry.topic.clone(), key: entry.key.clone() }
}

fn place(replica: &ReplicaRef, clock: u64, entry: &Entry) -> Place {
    Place { key: entry.key.clone(), owner: entry.owner, dot: dot(replica, clock) }
}

fn dotted(replica: &ReplicaRef, entries: &BTreeMap<u64, Arc<Entry>>) -> Vec<(Dot, Arc<Entry>)> {
    entries.iter().map(|(clock, entry)| (dot(replica, *clock), entry.clone())).collect()
}

/// The entries that became visible or hidden, before they are grouped.
#[derive(Default)]
struct Changes {
    joins: Vec<(Dot, Arc<Entry>)>,
    leaves: Vec<(Dot, Arc<Entry>)>,
}

impl Changes {
    fn into_diff(self) -> Diff {
        let mut diff = Diff::default();
        for entry in in_order(self.joins) {
            let topic = diff.topics.entry(entry.topic.clone()).or_default();
            let metas = topic.joins.entry(entry.key.clone()).or_default();
            metas.push(entry.meta.clone());
        }
        for entry in in_order(self.leaves) {
            let topic = diff.topics.entry(entry.topic.clone()).or_default();
            let metas = topic.leaves.entry(entry.key.clone()).or_default();
            metas.push(entry.meta.clone());
        }
        diff
    }
}

/// Sorts as a listing does, and leaves out what a listing leaves out.
fn in_order(mut entries: Vec<(Dot, Arc<Entry>)>) -> impl Iterator<Item = Arc<Entry>> {
    entries.retain(|(_, entry)| check_key(&entry.key).is_ok());
    entries.sort_by(|(left_dot, left), (right_dot, right)| (left.owner, left_dot).cmp(&(right.owner, right_dot)));
    entries.into_iter().map(|(_, entry)| entry)
}
