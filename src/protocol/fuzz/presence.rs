//! Presence replicas under any history of changes, messages, splits and restarts.

mod model;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use self::model::{Belief, Dots, Present};
use super::input::Input;
use crate::protocol::presence::view::{diff_json, state_json};
use crate::protocol::presence::{
    Clouds, Context, Delta, Diff, Generations, Meta, NotPresent, Owner, PendingClocks, Replica, ReplicaRef, TrackError,
    Transfer, Values,
};

const NODES: usize = 3;
const NAMES: [&str; NODES] = ["a", "b", "c"];
const TOPICS: [&str; 2] = ["s", "t"];
const KEYS: [&str; 3] = ["ann", "bob", "ann:2"];
const OWNERS: [Owner; 4] = [owner(1, 1), owner(1, 2), owner(2, 1), owner(7, 0)];

/// Operations of one input; what is behind them is ignored, so that an input stays fast.
const OPERATIONS_MAX: usize = 200;

const fn owner(connection: u64, channel: u64) -> Owner {
    Owner { connection, channel }
}

/// The replicated set of presences. Input: operations of two to four bytes.
///
/// Three nodes track, update and untrack; send deltas, which arrive late, twice, in another order or never; tell their
/// clocks and ask for what they lack; lose sight of each other; are split; restart. After every operation each node has to
/// hold exactly what a naive belief holds, and has to have told every change once. At the end the laws of merging are
/// checked, and all have to agree on what the nodes themselves track.
///
/// # Panics
/// If any of this is not so.
pub fn presence_ops(data: &[u8]) {
    let mut input = Input::new(data);
    let mut cluster = Cluster::new();
    let mut operations = 0;
    while !input.is_empty() && operations < OPERATIONS_MAX {
        cluster.perform(&mut input);
        operations += 1;
    }
    cluster.meet();
    cluster.check_laws();
    cluster.check_listings();
    cluster.clone().settle_by_heartbeats();
    cluster.settle_by_transfers();
}

#[derive(Clone)]
struct Node {
    replica: Replica,
    generations: Generations,
    pending: PendingClocks,
    belief: Belief,
}

impl Node {
    fn new(name: ReplicaRef) -> Self {
        Node {
            replica: Replica::new(name.clone()),
            generations: Generations::new(),
            pending: PendingClocks::default(),
            belief: Belief::new(name),
        }
    }

    /// Holds a change's diff against the belief's, and what is then listed too.
    fn check(&self, diff: &Diff, dots: Dots) {
        dots.check(diff);
        self.belief.check(&self.replica);
    }

    fn up(&mut self, replica: &ReplicaRef) {
        let diff = self.replica.replica_up(replica);
        let dots = self.belief.up(replica);
        self.check(&diff, dots);
    }

    fn down(&mut self, replica: &ReplicaRef) {
        let diff = self.replica.replica_down(replica);
        let dots = self.belief.down(replica);
        self.check(&diff, dots);
    }

    fn forget(&mut self, replica: &ReplicaRef) {
        let diff = self.replica.remove_down_replica(replica);
        if replica != self.replica.name() {
            self.generations.forget(replica);
        }
        let dots = self.belief.forget(replica);
        self.check(&diff, dots);
    }

    fn take_delta(&mut self) -> Option<Delta> {
        let delta = self.replica.take_delta();
        self.belief.check_delta(delta.as_ref());
        if let Some(delta) = &delta {
            self.generations.push(delta);
        }
        delta
    }

    fn receive(&mut self, delta: &Delta) {
        self.generations.push(delta);
        let diff = self.replica.merge_delta(delta);
        let dots = self.belief.merge_delta(delta);
        self.check(&diff, dots);
    }
}

#[derive(Clone)]
struct Cluster {
    nodes: Vec<Node>,
    /// Every delta that was ever sent, and by whom.
    in_flight: Vec<(usize, Delta)>,
    /// For each node the side of the split that it is on.
    sides: [bool; NODES],
    refs: usize,
}

impl Cluster {
    fn new() -> Self {
        let names = NAMES.map(|name| ReplicaRef::new(name, 1));
        let mut nodes: Vec<Node> = names.iter().map(|name| Node::new(name.clone())).collect();
        for node in &mut nodes {
            names.iter().for_each(|name| node.up(name));
        }
        Cluster { nodes, in_flight: Vec::new(), sides: [false; NODES], refs: 0 }
    }

    fn name(&self, node: usize) -> ReplicaRef {
        self.nodes[node].replica.name().clone()
    }

    fn reaches(&self, from: usize, to: usize) -> bool {
        self.sides[from] == self.sides[to]
    }

    fn perform(&mut self, input: &mut Input<'_>) {
        let operation = input.below(20);
        let at = input.below(NODES);
        match operation {
            0..=3 => self.join(at, input),
            4 => self.update(at, input),
            5 => self.leave(at, input),
            6 => {
                let owner = input.pick(&OWNERS);
                let node = &mut self.nodes[at];
                let diff = node.replica.leave_owner(owner);
                let dots = node.belief.leave_owner(owner);
                node.check(&diff, dots);
            }
            7 | 8 => {
                if let Some(delta) = self.nodes[at].take_delta() {
                    self.in_flight.push((at, delta));
                }
            }
            9..=11 => self.deliver(at, input),
            12 => self.transfer(at, input.below(NODES)),
            13 => self.full_state(at, input.below(NODES)),
            14 => {
                let of = self.some_replica(input);
                self.nodes[at].down(&of);
            }
            15 => {
                let of = self.some_replica(input);
                self.nodes[at].up(&of);
            }
            16 => {
                let of = self.some_replica(input);
                self.nodes[at].forget(&of);
            }
            17 => self.restart(at),
            18 => self.split(input.byte()),
            _ => {
                let from = input.below(NODES);
                if input.flag() {
                    self.hear(at, from);
                } else {
                    self.ask_those_ahead(at);
                }
            }
        }
    }

    fn present(&mut self, input: &mut Input<'_>) -> (Present, Meta) {
        self.refs += 1;
        let (place, owner) = (input.byte(), input.pick(&OWNERS));
        let phx_ref = format!("r{}", self.refs);
        let meta = Meta::new(r#"{"online":true}"#, phx_ref.as_str()).expect("an object is a meta");
        let topic = TOPICS[usize::from(place & 1)];
        let key = KEYS[usize::from(place >> 1) % KEYS.len()];
        (Present { topic, key, owner, phx_ref }, meta)
    }

    fn join(&mut self, at: usize, input: &mut Input<'_>) {
        let (present, meta) = self.present(input);
        let Present { topic, key, owner, .. } = present;
        let node = &mut self.nodes[at];
        let unsafe_key = node.replica.join(owner, topic, "__proto__", meta.clone());
        assert!(matches!(unsafe_key, Err(TrackError::UnsafeKey(_))));
        match (node.replica.join(owner, topic, key, meta), node.belief.join(present)) {
            (Ok((_, diff)), Some(dots)) => node.check(&diff, dots),
            (Err(TrackError::AlreadyTracked { .. }), None) => {}
            (result, dots) => panic!("{result:?}, believed to be {}", if dots.is_some() { "new" } else { "tracked" }),
        }
    }

    fn update(&mut self, at: usize, input: &mut Input<'_>) {
        let (present, meta) = self.present(input);
        let Present { topic, key, owner, .. } = present;
        let node = &mut self.nodes[at];
        let before = node.replica.get_by_key(topic, key).any(|it| it.owner == owner);
        match (node.replica.update(owner, topic, key, meta), node.belief.update(present)) {
            (Ok((_, diff)), Some(dots)) => {
                let changes = &diff.topics[topic];
                assert_eq!(changes.joins[key][0].phx_ref_prev(), Some(changes.leaves[key][0].phx_ref()));
                assert!(before, "only what is listed is updated");
                node.check(&diff, dots);
            }
            (Err(NotPresent { .. }), None) => {}
            (result, dots) => panic!("{result:?}, believed to be {}", if dots.is_some() { "tracked" } else { "new" }),
        }
    }

    fn leave(&mut self, at: usize, input: &mut Input<'_>) {
        let Present { topic, key, owner, .. } = self.present(input).0;
        let node = &mut self.nodes[at];
        let diff = node.replica.leave(owner, topic, key);
        let dots = node.belief.leave(owner, topic, key);
        node.check(&diff, dots);
    }

    fn deliver(&mut self, at: usize, input: &mut Input<'_>) {
        // Counted from the newest: that is what arrives most of the time.
        let back = input.below(256);
        let Some((from, delta)) = self.in_flight.iter().rev().nth(back % self.in_flight.len().max(1)) else { return };
        if self.reaches(*from, at) {
            let delta = delta.clone();
            self.nodes[at].receive(&delta);
        }
    }

    fn transfer(&mut self, to: usize, from: usize) {
        if !self.reaches(from, to) {
            return;
        }
        let (asker, theirs) = (self.name(to), self.nodes[to].replica.clocks());
        let giver = &self.nodes[from];
        let (transfer, given) = (giver.replica.extract(&giver.generations, &asker, &theirs), giver.belief.clone());
        let node = &mut self.nodes[to];
        if let Transfer::Delta(delta) = &transfer {
            node.generations.push(delta);
        }
        let diff = node.replica.merge(&transfer);
        let dots = node.belief.merge(&transfer);
        dots.are_not_gone_for(&given);
        node.belief.lacks_nothing_of(&given);
        node.check(&diff, dots);
    }

    fn full_state(&mut self, to: usize, from: usize) {
        if !self.reaches(from, to) {
            return;
        }
        let (state, given) = (self.nodes[from].replica.full_state(), self.nodes[from].belief.clone());
        let node = &mut self.nodes[to];
        let diff = node.replica.merge_state(&state);
        let dots = node.belief.merge_state(&state);
        dots.are_not_gone_for(&given);
        node.belief.lacks_nothing_of(&given);
        node.check(&diff, dots);
    }

    /// A node's replica, as it is or in an earlier life.
    fn some_replica(&self, input: &mut Input<'_>) -> ReplicaRef {
        let choice = input.byte();
        let name = self.name(usize::from(choice) % NODES);
        let earlier = if choice & 0x80 == 0 { 0 } else { 1 };
        ReplicaRef { vsn: (name.vsn - earlier).max(1), ..name }
    }

    /// A node loses everything and begins a new life; it finds the others, they have not found it yet.
    fn restart(&mut self, at: usize) {
        let old = self.name(at);
        self.nodes[at] = Node::new(ReplicaRef { vsn: old.vsn + 1, ..old });
        for other in 0..NODES {
            let name = self.name(other);
            self.nodes[at].up(&name);
        }
    }

    /// Parts the nodes by the bits of `sides`; those who meet see each other again, the others lose sight.
    fn split(&mut self, sides: u8) {
        self.sides = std::array::from_fn(|node| sides >> node & 1 == 1);
        for at in 0..NODES {
            for of in 0..NODES {
                let name = self.name(of);
                if self.reaches(of, at) {
                    self.nodes[at].up(&name);
                } else {
                    self.nodes[at].down(&name);
                }
            }
        }
    }

    fn hear(&mut self, at: usize, from: usize) {
        if at != from && self.reaches(from, at) {
            let (name, clocks) = (self.name(from), self.nodes[from].replica.clocks());
            self.nodes[at].pending.hear(name, clocks);
        }
    }

    fn ask_those_ahead(&mut self, at: usize) {
        let own = self.nodes[at].replica.clocks();
        let ahead: BTreeSet<ReplicaRef> = self.nodes[at].pending.ahead_of(&own).cloned().collect();
        for from in 0..NODES {
            if ahead.contains(&self.name(from)) {
                self.transfer(at, from);
            }
        }
        self.nodes[at].pending.clear();
    }

    /// Ends the split: all know each other, and nobody an earlier life of anyone.
    fn meet(&mut self) {
        self.split(0);
        let names: BTreeSet<ReplicaRef> = (0..NODES).map(|node| self.name(node)).collect();
        for node in &mut self.nodes {
            for name in &names {
                for vsn in 1..name.vsn {
                    node.forget(&ReplicaRef { vsn, ..name.clone() });
                }
            }
        }
    }

    /// Merging commutes, associates and repeats, for states as they are after any history.
    fn check_laws(&self) {
        let [a, b, c] = [0, 1, 2].map(|node| &self.nodes[node].replica);
        for (left, right) in [(a, b), (b, c), (a, c)] {
            assert_eq!(content(&merged(left, right)), content(&merged(right, left)), "merging commutes");
        }
        let (left, right) = (merged(&merged(a, b), c), merged(a, &merged(b, c)));
        assert_eq!(content(&left), content(&right), "merging associates");
        for replica in [a, b, c] {
            assert_eq!(content(&merged(replica, replica)), content(replica), "merging with itself changes nothing");
        }
        let once = merged(a, b);
        let mut twice = once.clone();
        assert!(twice.merge_state(&b.full_state()).is_empty(), "merging again tells nothing");
        assert_eq!(content(&twice), content(&once), "merging again changes nothing");
    }

    /// What clients get, and every way to list, is what is believed.
    fn check_listings(&self) {
        for node in &self.nodes {
            node.belief.check_lookups(&node.replica);
            for topic in TOPICS {
                let state: Value = serde_json::from_slice(&state_json(&node.replica, topic)).expect("it is JSON");
                assert_eq!(refs(&state), grouped(&node.belief, topic));
            }
            for at in 0..NODES {
                // All that a node shows of another, as the diff that hides it.
                let diff = node.clone().replica.replica_down(&self.name(at));
                for changes in diff.topics.values() {
                    let json: Value = serde_json::from_slice(&diff_json(changes)).expect("it is JSON");
                    assert_eq!(json["joins"], serde_json::json!({}));
                    let left = changes.leaves.iter().map(|(key, metas)| {
                        (key.to_string(), metas.iter().map(|meta| meta.phx_ref().to_owned()).collect::<Vec<_>>())
                    });
                    assert_eq!(refs(&json["leaves"]), left.collect());
                }
            }
        }
    }

    /// Everybody tells its clocks once, and asks those who are ahead.
    fn settle_by_heartbeats(mut self) {
        self.take_deltas();
        for at in 0..NODES {
            self.nodes[at].pending.clear();
            (0..NODES).for_each(|from| self.hear(at, from));
        }
        (0..NODES).for_each(|at| self.ask_those_ahead(at));
        self.check_agreement();
    }

    /// Everybody asks everybody.
    fn settle_by_transfers(&mut self) {
        self.take_deltas();
        for to in 0..NODES {
            (0..NODES).filter(|from| *from != to).for_each(|from| self.transfer(to, from));
        }
        self.check_agreement();
    }

    /// Ends the deltas under way; they are lost.
    fn take_deltas(&mut self) {
        for node in &mut self.nodes {
            node.take_delta();
        }
    }

    fn check_agreement(&self) {
        let expected: BTreeMap<ReplicaRef, BTreeMap<u64, Present>> = self
            .nodes
            .iter()
            .map(|node| (node.replica.name().clone(), node.belief.own_entries()))
            .filter(|(_, entries)| !entries.is_empty())
            .collect();
        for node in &self.nodes {
            let (context, clouds, values) = content(&node.replica);
            assert_eq!(context, content(&self.nodes[0].replica).0, "clocks");
            assert!(clouds.is_empty(), "nothing is missing in between");
            let values: BTreeMap<_, BTreeMap<u64, Present>> = values
                .into_iter()
                .map(|(name, entries)| (name, entries.iter().map(|(clock, it)| (*clock, Present::of(it))).collect()))
                .collect();
            assert_eq!(values, expected, "{:?} holds what everybody tracks", node.replica.name());
        }
    }
}

/// What a merge decides: clocks, clouds and values of every replica, without the empty ones.
fn content(replica: &Replica) -> (Context, Clouds, Values) {
    let mut state = replica.full_state();
    state.clouds.retain(|_, cloud| !cloud.is_empty());
    state.values.retain(|_, values| !values.is_empty());
    (state.context, state.clouds, state.values)
}

fn merged(into: &Replica, from: &Replica) -> Replica {
    let mut merged = into.clone();
    merged.merge_state(&from.full_state());
    merged
}

type Groups = BTreeMap<String, Vec<String>>;

/// The references of `{"key":{"metas":[{"phx_ref":…}]}}` by key.
fn refs(json: &Value) -> Groups {
    let metas = |group: &Value| -> Vec<String> {
        let metas = group["metas"].as_array().expect("a group has metas");
        metas.iter().map(|meta| meta["phx_ref"].as_str().expect("a meta has its reference").to_owned()).collect()
    };
    json.as_object().expect("groups by key").iter().map(|(key, group)| (key.clone(), metas(group))).collect()
}

fn grouped(belief: &Belief, topic: &str) -> Groups {
    let mut groups = Groups::new();
    for (key, _, phx_ref) in belief.listed(topic) {
        groups.entry(key.to_owned()).or_default().push(phx_ref.to_owned());
    }
    groups
}
