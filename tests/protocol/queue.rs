//! The queue's machine beside a plain model, on virtual time, with a disk that is late and fails, and crashes at any point.
//!
//! Every answer, delivery, change and number is compared with the model's after each step, and what the queue promises is
//! held against what was really told to publishers and consumers, which neither of the two decides.
//!
//! `BENNU_QUEUE_SEED=n` plays one seed and prints its steps, `BENNU_QUEUE_SEEDS_TIMES=n` plays so many times the seeds
//! that an ordinary run takes: see `just queues`.

/// What the model says, and the machine has to.
macro_rules! same {
    ($sim:expr, $of:literal, $machine:expr, $model:expr) => {
        let (machine, model) = (&$machine, &$model);
        assert!(machine == model, "seed {}, {}: {}: {machine:?}, the model: {model:?}", $sim.seed, $sim.step, $of);
    };
}

pub mod dice;
mod disk;
mod model;
mod steps;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bennu::protocol::Time;
use bennu::protocol::queue::{Backoff, Change, ConsumerId, Limits, Queue, Restored, Seq, View};

use self::dice::Dice;
use self::disk::{Disk, Told, Write};
use self::model::Model;

const SEEDS: u64 = 2_000;

/// Seeds that have found something.
const PAST: [u64; 1] = [25_877];

/// Steps of one seed, before all is taken to its end.
const STEPS: usize = 400;

/// What happened in all seeds together, so that they can be seen to say something.
#[derive(Debug, Default)]
struct Seen {
    delivered: u64,
    acked: u64,
    expired: u64,
    dead: u64,
    retried: u64,
    duplicates: u64,
    refused: u64,
    crashes: u64,
    late_acks: u64,
    foreign: u64,
    held: u64,
    purged: u64,
    owed: u64,
}

/// The operations, each drawn as often as its seed says.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Op {
    Offer,
    Write,
    Tell,
    Join,
    Leave,
    Take,
    Ack,
    Nack,
    Extend,
    Wait,
    Timeout,
    Crash,
    Purge,
    PurgeDead,
    Retry,
    Odd,
}

const OPS: [Op; 16] = [
    Op::Offer,
    Op::Write,
    Op::Tell,
    Op::Join,
    Op::Leave,
    Op::Take,
    Op::Ack,
    Op::Nack,
    Op::Extend,
    Op::Wait,
    Op::Timeout,
    Op::Crash,
    Op::Purge,
    Op::PurgeDead,
    Op::Retry,
    Op::Odd,
];

/// How often each is drawn, about; a seed multiplies each by 0 to 3.
const WEIGHTS: [u64; 16] = [36, 28, 28, 6, 3, 52, 24, 14, 6, 20, 14, 1, 1, 1, 8, 6];

struct Sim<'a> {
    dice: Dice,
    seed: u64,
    prints: bool,
    step: String,
    limits: Limits,
    now: Time,
    queue: Queue<u64>,
    model: Model,
    disk: Disk,
    writes: VecDeque<Write>,
    tells: Vec<Told>,
    consumers: Vec<ConsumerId>,
    consumers_made: u64,
    bodies: u64,
    /// Deliveries whose consumers have not said anything of them, also of consumers that are gone.
    at_work: Vec<(ConsumerId, Seq)>,
    /// Publishers were told that these are kept, and nobody was told that they are settled.
    promised: BTreeSet<Seq>,
    /// Consumers were told that these are settled.
    acked: BTreeSet<Seq>,
    /// What each message says.
    says: BTreeMap<Seq, u64>,
    /// The last first delivery of each class, of those never delayed, since the last crash.
    last_first: [Option<Seq>; 4],
    delayed_once: BTreeSet<Seq>,
    passed_over: [u32; 4],
    seen: &'a mut Seen,
}

fn record(view: View<'_, u64>) -> Restored<u64> {
    Restored {
        seq: view.seq,
        body: *view.body,
        bytes: view.bytes,
        priority: view.priority,
        expires: view.expires,
        due: view.due,
        retries_max: view.retries_max,
        failures: view.failures,
        last_error: view.last_error.map(Box::from),
        deliveries: view.deliveries,
        key: view.key.map(Box::from),
    }
}

fn limits(dice: &mut Dice) -> Limits {
    let base_ms = dice.below(20);
    Limits {
        messages_max: dice.of(&[2, 8, 20, 40]),
        bytes_max: dice.of(&[20, 100, 1_000]),
        message_bytes_max: dice.of(&[8, 12]),
        lease_ms: 1 + dice.below(40),
        deliveries_max: dice.of(&[1, 2, 3, 4, 100, 100]),
        backoff: Backoff { base_ms, max_ms: base_ms * dice.of(&[1, 3, 10]) },
        dead_letters_max: dice.of(&[0, 1, 3, 100]),
        dead_bytes_max: dice.of(&[5, 20, 1_000]),
        dead_letter_ttl_ms: 20 + dice.below(300),
        dedup_window_ms: dice.below(100),
        dedup_keys_max: dice.of(&[0, 1, 3, 100]),
        passed_over_max: dice.of(&[1, 2, 3, 5]),
    }
}

impl<'a> Sim<'a> {
    fn new(seed: u64, prints: bool, seen: &'a mut Seen) -> Self {
        let mut dice = Dice(seed);
        let limits = limits(&mut dice);
        let next = Seq(dice.below(3));
        Sim {
            dice,
            seed,
            prints,
            step: String::new(),
            limits,
            now: Time(1_000),
            queue: Queue::new(limits, next),
            model: Model::new(limits, next),
            disk: Disk { next: next.0, ..Disk::default() },
            writes: VecDeque::new(),
            tells: Vec::new(),
            consumers: Vec::new(),
            consumers_made: 0,
            bodies: 0,
            at_work: Vec::new(),
            promised: BTreeSet::new(),
            acked: BTreeSet::new(),
            says: BTreeMap::new(),
            last_first: [None; 4],
            delayed_once: BTreeSet::new(),
            passed_over: [0; 4],
            seen,
        }
    }

    fn play(mut self) {
        let weights = WEIGHTS.map(|weight| weight * self.dice.of(&[0, 1, 1, 2, 2, 3]) + weight.div_ceil(4));
        for n in 0..STEPS {
            let mut at = self.dice.below(weights.iter().sum());
            let mut ops = OPS.into_iter().zip(weights);
            let op = loop {
                let (op, weight) = ops.next().expect("it is below their sum");
                match at.checked_sub(weight) {
                    Some(left) => at = left,
                    None => break op,
                }
            };
            self.step = format!("step {n} at {}: {op:?}", self.now.0);
            self.perform(op);
            if self.prints {
                eprintln!("{}: {:?}", self.step, self.queue.stats());
            }
            self.check();
        }
        self.end();
    }

    fn perform(&mut self, op: Op) {
        match op {
            Op::Offer => self.offer(),
            Op::Write => (0..=self.dice.below(3)).for_each(|_| self.write()),
            Op::Tell => (0..=self.dice.below(3)).for_each(|_| self.tell()),
            Op::Join => self.join(),
            Op::Leave => self.leave(),
            Op::Take => drop(self.take()),
            Op::Ack => self.ack(),
            Op::Nack => self.nack(),
            Op::Extend => self.extend(),
            Op::Wait => self.wait(),
            Op::Timeout => self.timeout(),
            Op::Crash => self.crash(),
            Op::Purge => {
                let mut changes = Vec::new();
                self.queue.purge(&mut changes);
                self.seen.purged += changes.len() as u64;
                let expected = self.model.purge();
                self.obey(changes, expected);
            }
            Op::PurgeDead => {
                let seq = (!self.dice.one_in(3)).then(|| self.any_seq());
                let mut changes = Vec::new();
                self.queue.purge_dead(seq, &mut changes);
                let expected = self.model.purge_dead(seq);
                self.obey(changes, expected);
            }
            Op::Retry => self.retry_dead(),
            Op::Odd => self.odd(),
        }
    }

    fn any_seq(&mut self) -> Seq {
        let dead: Vec<Seq> = self.queue.dead().map(|letter| letter.seq).collect();
        if !dead.is_empty() && self.dice.one_in(2) {
            return self.dice.of(&dead);
        }
        Seq(self.dice.below(self.queue.next_seq().0 + 2))
    }

    // ── what comes of it ────────────────────────────────────────────────────────────────────────────────────────────

    /// Compares changes, and writes them down.
    fn obey(&mut self, changes: Vec<Change>, mut expected: Vec<Change>) {
        self.step += &format!(" {changes:?}");
        let sorted = |changes: &mut Vec<Change>| changes.sort_by_key(|change| format!("{change:?}"));
        let mut came = changes.clone();
        sorted(&mut came);
        sorted(&mut expected);
        same!(self, "changes", came, expected);
        for change in changes {
            self.note(change);
        }
    }

    fn note(&mut self, change: Change) {
        let write = match change {
            Change::Removed(seq) => {
                self.promised.remove(&seq);
                self.seen.expired += 1;
                Write::Remove(seq)
            }
            Change::Failed(seq) => Write::Update(record(self.queue.message(seq).expect("it waits"))),
            Change::Dead(seq) => {
                self.promised.remove(&seq);
                self.seen.dead += 1;
                match self.queue.dead_letter(seq) {
                    Some(letter) => Write::Bury(letter.clone()),
                    None => Write::Remove(seq),
                }
            }
            Change::DeadRemoved(seq) => {
                assert!(self.queue.dead_letter(seq).is_none(), "it is gone");
                Write::RemoveDead(seq)
            }
            Change::KeyRemoved(key) => {
                assert!(self.queue.key(&key).is_none(), "it is gone");
                Write::RemoveKey(key)
            }
        };
        self.writes.push_back(write);
    }

    /// Everything that can be asked, and what holds whatever the model says.
    fn check(&self) {
        let stats = self.queue.stats();
        same!(self, "stats", stats, self.model.stats());
        same!(self, "next timeout", self.queue.next_timeout(), self.model.next_timeout());
        same!(self, "has ready", self.queue.has_ready(self.now), self.model.has_ready(self.now));
        same!(self, "is idle", self.queue.is_idle(), self.model.is_idle());
        same!(self, "next number", self.queue.next_seq(), Seq(self.model.next));
        same!(self, "bytes", self.queue.bytes(), stats.bytes);
        let mut expected: Vec<_> = self.model.messages.iter().collect();
        expected.sort_by_key(|message| message.kept.seq);
        let expected: Vec<_> =
            expected.into_iter().map(|message| (message.kept.clone(), self.model.place(message))).collect();
        let listed: Vec<_> = self.queue.list(None, usize::MAX).map(|view| (record(view), view.place)).collect();
        same!(self, "messages", listed, expected);
        same!(self, "dead letters", self.queue.dead().collect::<Vec<_>>(), self.model.dead.iter().collect::<Vec<_>>());
        for (key, seq, until) in &self.model.keys {
            same!(self, "key", self.queue.key(key), Some((*seq, *until)));
        }
        for consumer in &self.consumers {
            same!(self, "wants", self.queue.wants(*consumer), self.model.wants(*consumer));
            same!(self, "in flight", self.queue.in_flight(*consumer), self.model.in_flight(*consumer));
        }

        let at = || format!("seed {}, {}", self.seed, self.step);
        for seq in &self.promised {
            assert!(self.queue.message(*seq).is_some(), "{seq:?} is lost: {}", at());
        }
        assert!(stats.messages <= self.limits.messages_max && stats.bytes <= self.limits.bytes_max, "full: {}", at());
        let is_bounded = stats.dead <= self.limits.dead_letters_max && stats.dead_bytes <= self.limits.dead_bytes_max;
        assert!(is_bounded, "too many dead: {}", at());
        let parts = stats.storing + stats.waiting.iter().sum::<usize>() + stats.delayed + stats.expiring;
        assert_eq!(stats.messages, parts + stats.in_flight + stats.settling, "each is somewhere: {}", at());
    }

    /// The disk catches up, one consumer takes everything that is left, and nothing stays.
    fn end(mut self) {
        self.step = "the end".into();
        self.consumers_made += 1;
        let last = ConsumerId(self.consumers_made);
        self.queue.join(last, usize::MAX);
        self.model.join(last, usize::MAX);
        self.consumers.push(last);
        let mut left = 1_000;
        while self.queue.stats().messages > 0 {
            left -= 1;
            assert!(left > 0, "seed {}: messages stay: {:?}", self.seed, self.queue.stats());
            while let Some(write) = self.writes.pop_front() {
                let told = self.disk.perform(write, false);
                self.tells.extend(told);
            }
            while let Some(told) = self.tells.pop() {
                self.tell_one(told);
            }
            while let Some(seq) = self.take_by(last) {
                same!(self, "acked", self.queue.ack(last, seq, self.now), self.model.ack(last, seq, self.now));
                self.writes.push_back(Write::Ack(seq));
            }
            if self.writes.is_empty() {
                self.now = self.queue.next_timeout().unwrap_or(self.now).max(self.now);
                self.timeout();
            }
            self.check();
            self.step = "the end".into();
        }
        assert!(self.promised.is_empty(), "seed {}: {:?} were never settled", self.seed, self.promised);
        for consumer in std::mem::take(&mut self.consumers) {
            let mut changes = Vec::new();
            self.queue.leave(consumer, self.now, &mut changes);
            let expected = self.model.leave(consumer, self.now);
            self.obey(changes, expected);
        }
        let mut left = 1_000;
        while let Some(next) = self.queue.next_timeout() {
            left -= 1;
            assert!(left > 0, "seed {}: there is always a next timeout", self.seed);
            self.now = next.max(self.now);
            self.timeout();
        }
        self.check();
        assert!(self.queue.is_idle(), "seed {}: {:?}", self.seed, self.queue.stats());
        while let Some(write) = self.writes.pop_front() {
            self.disk.perform(write, false);
        }
        let Disk { messages, dead, .. } = &self.disk;
        assert!(messages.is_empty() && dead.is_empty(), "seed {}: on disk: {messages:?} {dead:?}", self.seed);
    }
}

/// A variable's number.
fn set(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn any_history_goes_as_the_model_says_and_loses_nothing() {
    let mut seen = Seen::default();
    if let Some(seed) = set("BENNU_QUEUE_SEED") {
        return Sim::new(seed, true, &mut seen).play();
    }
    let seeds = SEEDS * set("BENNU_QUEUE_SEEDS_TIMES").unwrap_or(1);
    for seed in PAST.into_iter().chain(1..=seeds) {
        Sim::new(seed, false, &mut seen).play();
    }
    println!("{seeds} seeds: {seen:?}");
    let Seen { delivered, acked, expired, dead, retried, duplicates, refused, .. } = seen;
    let Seen { crashes, late_acks, foreign, held, purged, owed, .. } = seen;
    let least = [
        delivered, acked, expired, dead, retried, duplicates, refused, crashes, late_acks, foreign, held, purged, owed,
    ];
    assert!(least.into_iter().all(|count| count > SEEDS / 4), "{seen:?}: the seeds say little");
}
