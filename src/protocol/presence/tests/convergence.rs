//! Three replicas under random changes and a network that delays, repeats, reorders and loses.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::{Clouds, Context, Delta, Diff, Generations, Owner, Replica, Transfer, Values};
use super::{Watcher, meta, owner, replicas};

const TOPICS: [&str; 2] = ["s", "t"];
const KEYS: [&str; 2] = ["ann", "bob"];

#[derive(Clone, Debug)]
enum Step {
    Join(usize, u64, usize, usize),
    Leave(usize, u64, usize, usize),
    Update(usize, u64, usize, usize),
    LeaveOwner(usize, u64),
    /// Ends a replica's delta; it is in flight from then on.
    TakeDelta(usize),
    /// Hands any delta that was ever in flight to a replica.
    Deliver(usize, prop::sample::Index),
    /// The second gives the first what it lacks.
    Transfer(usize, usize),
    /// The second gives the first all it has.
    FullState(usize, usize),
    Down(usize, usize),
    Up(usize, usize),
    Forget(usize, usize),
}

fn local_step() -> BoxedStrategy<Step> {
    let at = || (0usize..3, 0u64..2, 0usize..2, 0usize..2);
    prop_oneof![
        5 => at().prop_map(|(r, o, t, k)| Step::Join(r, o, t, k)),
        2 => at().prop_map(|(r, o, t, k)| Step::Leave(r, o, t, k)),
        2 => at().prop_map(|(r, o, t, k)| Step::Update(r, o, t, k)),
        1 => (0usize..3, 0u64..2).prop_map(|(r, o)| Step::LeaveOwner(r, o)),
    ]
    .boxed()
}

fn step() -> BoxedStrategy<Step> {
    let two = || (0usize..3, 0usize..3);
    prop_oneof![
        10 => local_step(),
        4 => (0usize..3).prop_map(Step::TakeDelta),
        8 => (0usize..3, any::<prop::sample::Index>()).prop_map(|(r, i)| Step::Deliver(r, i)),
        3 => two().prop_map(|(to, from)| Step::Transfer(to, from)),
        2 => two().prop_map(|(to, from)| Step::FullState(to, from)),
        1 => two().prop_map(|(at, of)| Step::Down(at, of)),
        1 => two().prop_map(|(at, of)| Step::Up(at, of)),
        1 => two().prop_map(|(at, of)| Step::Forget(at, of)),
    ]
    .boxed()
}

/// Each replica's own entries: owner, topic and key to the reference of the meta.
type Model = [BTreeMap<(Owner, &'static str, &'static str), String>; 3];

struct Cluster {
    replicas: [Replica; 3],
    generations: [Generations; 3],
    watchers: [Watcher; 3],
    in_flight: Vec<Delta>,
    model: Model,
    steps: usize,
}

impl Cluster {
    fn new() -> Self {
        Cluster {
            replicas: replicas(["a", "b", "c"]),
            generations: Default::default(),
            watchers: Default::default(),
            in_flight: Vec::new(),
            model: Default::default(),
            steps: 0,
        }
    }

    fn watch(&mut self, at: usize, diff: &Diff) {
        self.watchers[at].apply(diff);
        self.watchers[at].check(&self.replicas[at], &TOPICS);
    }

    fn perform(&mut self, step: &Step) {
        self.steps += 1;
        let phx_ref = format!("r{}", self.steps);
        match *step {
            Step::Join(r, o, t, k) => {
                let at = (owner(o), TOPICS[t], KEYS[k]);
                if let Ok((_, diff)) = self.replicas[r].join(at.0, at.1, at.2, meta(&phx_ref)) {
                    let tracked = self.model[r].insert(at, phx_ref);
                    assert_eq!(tracked, None);
                    self.watch(r, &diff);
                }
            }
            Step::Update(r, o, t, k) => {
                let at = (owner(o), TOPICS[t], KEYS[k]);
                if let Ok((_, diff)) = self.replicas[r].update(at.0, at.1, at.2, meta(&phx_ref)) {
                    assert!(self.model[r].insert(at, phx_ref).is_some());
                    self.watch(r, &diff);
                }
            }
            Step::Leave(r, o, t, k) => {
                let diff = self.replicas[r].leave(owner(o), TOPICS[t], KEYS[k]);
                self.model[r].remove(&(owner(o), TOPICS[t], KEYS[k]));
                self.watch(r, &diff);
            }
            Step::LeaveOwner(r, o) => {
                let diff = self.replicas[r].leave_owner(owner(o));
                self.model[r].retain(|at, _| at.0 != owner(o));
                self.watch(r, &diff);
            }
            Step::TakeDelta(r) => {
                if let Some(delta) = self.replicas[r].take_delta() {
                    self.generations[r].push(&delta);
                    self.in_flight.push(delta);
                }
            }
            Step::Deliver(r, index) => {
                if !self.in_flight.is_empty() {
                    let delta = index.get(&self.in_flight).clone();
                    self.generations[r].push(&delta);
                    let diff = self.replicas[r].merge_delta(&delta);
                    self.watch(r, &diff);
                }
            }
            Step::Transfer(to, from) => self.transfer(to, from),
            Step::FullState(to, from) => {
                let state = self.replicas[from].full_state();
                let diff = self.replicas[to].merge_state(&state);
                self.watch(to, &diff);
            }
            Step::Down(at, of) => {
                let name = self.replicas[of].name().clone();
                let diff = self.replicas[at].replica_down(&name);
                self.watch(at, &diff);
            }
            Step::Up(at, of) => {
                let name = self.replicas[of].name().clone();
                let diff = self.replicas[at].replica_up(&name);
                self.watch(at, &diff);
            }
            Step::Forget(at, of) => {
                let name = self.replicas[of].name().clone();
                let diff = self.replicas[at].remove_down_replica(&name);
                if at != of {
                    self.generations[at].forget(&name);
                }
                self.watch(at, &diff);
            }
        }
    }

    fn transfer(&mut self, to: usize, from: usize) {
        let (asker, theirs) = (self.replicas[to].name(), self.replicas[to].clocks());
        let transfer = self.replicas[from].extract(&self.generations[from], asker, &theirs);
        if let Transfer::Delta(delta) = &transfer {
            self.generations[to].push(delta);
        }
        let diff = self.replicas[to].merge(&transfer);
        self.watch(to, &diff);
    }

    /// Brings everybody up and lets everybody ask everybody; the lost deltas stay lost.
    fn settle(&mut self) {
        let pairs = || (0..3).flat_map(|at| (0..3).map(move |of| (at, of)));
        for (at, of) in pairs() {
            self.perform(&Step::Up(at, of));
        }
        for (to, from) in pairs() {
            self.perform(&Step::TakeDelta(from));
            if to != from {
                self.transfer(to, from);
            }
        }
    }

    /// What every replica must list: all that the replicas hold themselves, by key, owner and replica.
    fn expected(&self, topic: &str) -> Vec<(&str, Owner, &str)> {
        let mut entries: Vec<_> = (0..3)
            .flat_map(|r| self.model[r].iter().map(move |entry| (r, entry)))
            .filter(|(_, (at, _))| at.1 == topic)
            .map(|(r, (at, phx_ref))| (at.2, at.0, r, phx_ref.as_str()))
            .collect();
        entries.sort();
        entries.into_iter().map(|(key, owner, _, phx_ref)| (key, owner, phx_ref)).collect()
    }

    fn check_agreement(&self) {
        for replica in &self.replicas {
            for topic in TOPICS {
                let found: Vec<_> = replica
                    .get_by_topic(topic)
                    .map(|presence| (presence.key, presence.owner, presence.meta.phx_ref()))
                    .collect();
                assert_eq!(found, self.expected(topic), "{:?} on {topic}", replica.name());
            }
            assert_eq!(replica.clocks(), self.replicas[0].clocks());
            assert!(replica.full_state().clouds.values().all(|cloud| cloud.is_empty()));
        }
    }
}

/// What a merge decides: clocks, clouds and values of every replica.
fn content(replica: &Replica) -> (Context, Clouds, Values) {
    let state = replica.full_state();
    (state.context, state.clouds, state.values)
}

/// The clouds and values of a delta without empty ones.
fn parts(delta: &Delta) -> (Clouds, Values) {
    let (mut clouds, mut values) = (delta.clouds.clone(), delta.values.clone());
    clouds.retain(|_, cloud| !cloud.is_empty());
    values.retain(|_, values| !values.is_empty());
    (clouds, values)
}

fn merged(into: &Replica, from: &Replica) -> Replica {
    let mut merged = into.clone();
    merged.merge_state(&from.full_state());
    merged
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn replicas_agree_after_any_history(steps in prop::collection::vec(step(), 0..80)) {
        let mut cluster = Cluster::new();

        for step in &steps {
            cluster.perform(step);
        }
        cluster.settle();

        cluster.check_agreement();
    }

    #[test]
    fn merging_commutes_associates_and_repeats(steps in prop::collection::vec(step(), 0..60)) {
        let mut cluster = Cluster::new();
        // A replica that one of them does not know is outside of what a merge decides.
        for step in steps.iter().filter(|step| !matches!(step, Step::Forget(..))) {
            cluster.perform(step);
        }
        let [a, b, c] = &cluster.replicas;

        prop_assert_eq!(content(&merged(a, b)), content(&merged(b, a)));
        prop_assert_eq!(content(&merged(&merged(a, b), c)), content(&merged(a, &merged(b, c))));
        prop_assert_eq!(content(&merged(a, a)), content(a));
        let once = merged(a, b);
        let mut twice = once.clone();
        prop_assert!(twice.merge_state(&b.full_state()).is_empty());
        prop_assert_eq!(content(&twice), content(&once));
    }

    #[test]
    fn deltas_say_what_the_full_state_says(
        before in prop::collection::vec(local_step(), 0..20),
        after in prop::collection::vec((local_step(), any::<bool>()), 0..30),
    ) {
        let of_a = |step: &Step| match *step {
            Step::Join(_, o, t, k) => Step::Join(0, o, t, k),
            Step::Leave(_, o, t, k) => Step::Leave(0, o, t, k),
            Step::Update(_, o, t, k) => Step::Update(0, o, t, k),
            _ => Step::LeaveOwner(0, 0),
        };
        let mut cluster = Cluster::new();
        for step in &before {
            cluster.perform(step);
        }
        cluster.settle();
        cluster.in_flight.clear();
        let b = cluster.replicas[1].clone();

        for (step, cut) in &after {
            cluster.perform(&of_a(step));
            if *cut {
                cluster.perform(&Step::TakeDelta(0));
            }
        }
        cluster.perform(&Step::TakeDelta(0));

        let mut by_state = b.clone();
        let told_by_state = by_state.merge_state(&cluster.replicas[0].full_state());
        let mut by_deltas = b.clone();
        for delta in &cluster.in_flight {
            by_deltas.merge_delta(delta);
        }
        prop_assert_eq!(content(&by_deltas), content(&by_state));
        let mut deltas = cluster.in_flight.clone().into_iter();
        if let Some(mut joined) = deltas.next() {
            for delta in deltas {
                joined.merge(&delta).unwrap();
            }
            let mut joined_back = cluster.in_flight.last().unwrap().clone();
            for delta in cluster.in_flight.iter().rev() {
                joined_back.merge(delta).unwrap();
            }
            prop_assert_eq!(parts(&joined_back), parts(&joined));
            let mut by_joined = b.clone();
            let told_by_joined = by_joined.merge_delta(&joined);
            prop_assert_eq!(told_by_joined, told_by_state);
            prop_assert_eq!(content(&by_joined), content(&by_state));
        }
        let mut by_transfer = b.clone();
        by_transfer.merge(&cluster.replicas[0].extract(&cluster.generations[0], b.name(), &b.clocks()));
        prop_assert_eq!(content(&by_transfer), content(&by_state));
    }
}
