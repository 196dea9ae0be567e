//! The queue's machine beside a plain model, on virtual time, with a disk that is late and fails, and crashes at any point.
//!
//! Every answer, delivery, change and number is compared with the model's after each step, and what the queue promises is
//! held against what was really told to publishers and consumers, which neither of the two decides.
//!
//! `BENNU_QUEUE_SEED=n` plays one seed and prints its steps, `BENNU_QUEUE_SEEDS_TIMES=n` plays so many times the seeds
//! that an ordinary run takes: see `just queues`.

mod dice;
mod disk;
mod model;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bennu::protocol::Time;
use bennu::protocol::queue::{
    AckError, Backoff, Change, ConsumerId, Limits, Nacked, Offer, Offered, Place, Priority, Queue, Restored,
    RetryError, Seq, View,
};

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

/// What the model says, and the machine has to.
macro_rules! same {
    ($sim:expr, $of:literal, $machine:expr, $model:expr) => {
        let (machine, model) = (&$machine, &$model);
        assert!(machine == model, "seed {}, {}: {}: {machine:?}, the model: {model:?}", $sim.seed, $sim.step, $of);
    };
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

    // ── steps ───────────────────────────────────────────────────────────────────────────────────────────────────────

    fn offer(&mut self) {
        self.bodies += 1;
        let offer = Offer {
            body: self.bodies,
            bytes: usize::try_from(self.dice.below(10)).expect("it is small"),
            priority: self.dice.of(&Priority::ALL),
            ttl_ms: if self.dice.one_in(3) { Some(self.dice.below(80)) } else { None },
            delay_ms: if self.dice.one_in(4) { self.dice.below(60) } else { 0 },
            retries_max: self.dice.of(&[0, 1, 2, 7]),
            key: self.dice.one_in(3).then(|| Box::from(self.dice.of(&["a", "b", "c", "d", "e"]))),
        };
        let was = self.queue.next_seq();
        let offered = self.queue.offer(offer.clone(), self.now);
        same!(self, "offered", offered, self.model.offer(&offer, self.now));
        match offered {
            Ok(Offered::New(seq)) => {
                assert_eq!(seq, was, "numbers are given in their order");
                self.says.insert(seq, offer.body);
                match offer.delay_ms {
                    0 => drop(self.delayed_once.remove(&seq)),
                    _ => drop(self.delayed_once.insert(seq)),
                }
                let kept = record(self.queue.message(seq).expect("it was taken in"));
                let key = offer.key.map(|key| {
                    let (first, until) = self.queue.key(&key).expect("it is remembered");
                    assert_eq!(first, seq, "the key is the new message's");
                    (key, until)
                });
                self.writes.push_back(Write::Store(kept, key));
            }
            Ok(Offered::Duplicate { .. }) => self.seen.duplicates += 1,
            Err(_) => self.seen.refused += 1,
        }
    }

    /// The disk does the next write.
    fn write(&mut self) {
        if let Some(write) = self.writes.pop_front() {
            let fails = self.dice.one_in(8);
            self.step += &format!(" {write:?} fails: {fails}");
            let told = self.disk.perform(write, fails);
            self.tells.extend(told);
        }
    }

    /// The queue is told of a write, not in the order of the writes.
    fn tell(&mut self) {
        if self.tells.is_empty() {
            return;
        }
        let at = if self.dice.one_in(2) { 0 } else { self.dice.below(self.tells.len() as u64) };
        let told = self.tells.remove(usize::try_from(at).expect("it is small"));
        self.tell_one(told);
    }

    fn tell_one(&mut self, told: Told) {
        self.step += &format!(" {told:?}");
        match told {
            Told::Stored(seq) => {
                self.queue.stored(seq, self.now);
                self.model.stored(seq, self.now);
                self.promised.insert(seq);
                let is_held = self.queue.message(seq).is_some_and(|message| message.place == Place::Held);
                self.seen.held += u64::from(is_held);
            }
            Told::Failed(seq) => {
                self.queue.failed(seq);
                self.model.failed(seq);
                assert!(self.queue.message(seq).is_none(), "it is forgotten");
            }
            Told::Acked(seq) => {
                self.queue.acked(seq, self.now);
                self.model.acked(seq, self.now);
                self.promised.remove(&seq);
                self.acked.insert(seq);
                self.seen.acked += 1;
            }
            Told::AckFailed(seq) => {
                self.queue.ack_failed(seq, self.now);
                self.model.ack_failed(seq, self.now);
            }
        }
    }

    fn join(&mut self) {
        let in_flight_max = self.dice.of(&[0, 1, 2, 3, 10, 10]);
        let consumer = if self.dice.one_in(5) && !self.consumers.is_empty() {
            self.dice.of(&self.consumers)
        } else {
            self.consumers_made += 1;
            self.consumers.push(ConsumerId(self.consumers_made));
            ConsumerId(self.consumers_made)
        };
        self.queue.join(consumer, in_flight_max);
        self.model.join(consumer, in_flight_max);
    }

    fn leave(&mut self) {
        let consumer = if self.consumers.is_empty() { ConsumerId(99) } else { self.dice.of(&self.consumers) };
        self.consumers.retain(|other| *other != consumer);
        let mut changes = Vec::new();
        self.queue.leave(consumer, self.now, &mut changes);
        let expected = self.model.leave(consumer, self.now);
        self.obey(changes, expected);
        assert!(!self.queue.wants(consumer), "one who left wants nothing");
    }

    fn take(&mut self) -> Option<Seq> {
        let consumer = if self.consumers.is_empty() || self.dice.one_in(30) {
            ConsumerId(99)
        } else {
            self.dice.of(&self.consumers)
        };
        self.take_by(consumer)
    }

    fn take_by(&mut self, consumer: ConsumerId) -> Option<Seq> {
        let wants = self.queue.wants(consumer);
        let has_ready = self.queue.has_ready(self.now);
        let expected = self.model.take(consumer, self.now);
        let was_over = self.queue.message(expected.map_or(Seq(u64::MAX), |(seq, ..)| seq)).map(record);
        let taken = self.queue.take(consumer, self.now);
        same!(self, "taken", taken.as_ref().map(|taken| (taken.seq, taken.deliveries, taken.lease_until)), expected);
        assert_eq!(taken.is_some(), wants && has_ready, "what is announced is given: {}", self.step);
        let taken = taken?;
        let was = was_over.expect("it was there");
        self.step += &format!(" {taken:?}");
        let at = format!("seed {}, {}", self.seed, self.step);
        self.seen.delivered += 1;
        assert_eq!(taken.body, self.says[&taken.seq], "its own words: {at}");
        assert!(was.expires.is_none_or(|expires| expires > self.now), "it has not expired: {at}");
        assert!(was.due <= self.now, "it is due: {at}");
        assert!(!self.acked.contains(&taken.seq), "it was settled: {at}");
        let class = taken.priority as usize;
        if taken.deliveries == 1 && !self.delayed_once.contains(&taken.seq) {
            assert!(self.last_first[class].is_none_or(|last| last < taken.seq), "in the order of acceptance: {at}");
            self.last_first[class] = Some(taken.seq);
        }
        // What was ready beside it, by what the machine said after its last step, and is still.
        let stats = self.queue.stats();
        for other in 0..4 {
            let waited = stats.waiting[other] > 0;
            if other == class || !waited {
                self.passed_over[other] = 0;
            } else if other > class {
                self.passed_over[other] += 1;
            }
            let bound = self.limits.passed_over_max + 2;
            assert!(self.passed_over[other] <= bound, "a class starves: {at}");
        }
        self.seen.owed += u64::from(stats.waiting[..class].iter().any(|waiting| *waiting > 0));
        // As drivers may: the deliveries are written down, or not.
        if self.dice.one_in(2) {
            self.writes.push_back(Write::Update(record(self.queue.message(taken.seq).expect("it is in flight"))));
        }
        self.at_work.push((consumer, taken.seq));
        Some(taken.seq)
    }

    /// A consumer that has something, or says something of what it or another has had.
    fn at_work(&mut self) -> Option<(ConsumerId, Seq)> {
        if self.at_work.is_empty() {
            return None;
        }
        let latest = self.at_work.len().saturating_sub(5);
        let from = if self.dice.one_in(3) { 0 } else { latest };
        let (mut consumer, seq) = self.dice.of(&self.at_work[from..]);
        if self.dice.one_in(3) {
            self.at_work.retain(|other| *other != (consumer, seq));
        }
        if self.dice.one_in(12) {
            consumer = ConsumerId(1 + self.dice.below(self.consumers_made + 1));
        }
        Some((consumer, seq))
    }

    fn ack(&mut self) {
        let Some((consumer, seq)) = self.at_work() else { return };
        let was = self.queue.message(seq).map(|message| message.place);
        let result = self.queue.ack(consumer, seq, self.now);
        self.step += &format!(" {consumer:?} {seq:?} {result:?}");
        same!(self, "acked", result, self.model.ack(consumer, seq, self.now));
        match result {
            Ok(()) => {
                self.seen.late_acks += u64::from(!matches!(was, Some(Place::InFlight { .. })));
                self.writes.push_back(Write::Ack(seq));
            }
            Err(AckError::Foreign) => self.seen.foreign += 1,
            Err(_) => {}
        }
    }

    fn nack(&mut self) {
        let Some((consumer, seq)) = self.at_work() else { return };
        let random = self.dice.next();
        let result = self.queue.nack(consumer, seq, "refused", self.now, random);
        self.step += &format!(" {consumer:?} {seq:?} {result:?}");
        let due = self.queue.message(seq).map(|message| message.due);
        same!(self, "nacked", result, self.model.nack(consumer, seq, "refused", self.now, due));
        match result {
            Ok(Nacked::Retry { .. }) => self.note(Change::Failed(seq)),
            Ok(Nacked::Dead) => self.note(Change::Dead(seq)),
            Ok(Nacked::Expired) => self.note(Change::Removed(seq)),
            Err(_) => {}
        }
    }

    fn extend(&mut self) {
        let Some((consumer, seq)) = self.at_work() else { return };
        let result = self.queue.extend(consumer, seq, self.now);
        self.step += &format!(" {consumer:?} {seq:?} {result:?}");
        same!(self, "extended", result, self.model.extend(consumer, seq, self.now));
    }

    fn wait(&mut self) {
        let next = self.queue.next_timeout().filter(|next| *next > self.now);
        self.now = match (next, self.dice.below(6)) {
            (Some(next), 0) => next,
            (Some(next), 1) => Time(next.0 - 1),
            (Some(next), 2) => Time(next.0 + 1),
            (_, 3) => Time(self.now.0 + self.dice.below(150)),
            _ => Time(self.now.0 + self.dice.below(8)),
        };
    }

    fn timeout(&mut self) {
        let mut changes = Vec::new();
        let dice = &mut self.dice;
        self.queue.handle_timeout(self.now, &mut || dice.next(), &mut changes);
        let queue = &self.queue;
        let expected = self.model.handle_timeout(self.now, |seq| queue.message(seq).map(|message| message.due));
        self.obey(changes, expected);
        let next = self.queue.next_timeout();
        assert!(next.is_none_or(|next| next > self.now), "seed {}: {next:?} at {}", self.seed, self.step);
    }

    fn retry_dead(&mut self) {
        let seq = self.any_seq();
        let ttl_ms = if self.dice.one_in(3) { Some(self.dice.below(50)) } else { None };
        let result = self.queue.retry_dead(seq, self.now, ttl_ms);
        self.step += &format!(" {seq:?} {result:?}");
        same!(self, "retried", result, self.model.retry_dead(seq, self.now, ttl_ms));
        if result.is_ok() {
            self.seen.retried += 1;
            self.delayed_once.insert(seq);
            self.promised.insert(seq);
            self.writes.push_back(Write::Revive(record(self.queue.message(seq).expect("it is back"))));
        }
    }

    /// Calls of which nothing is to come.
    fn odd(&mut self) {
        let seq = self.any_seq();
        let place = self.queue.message(seq).map(|message| message.place);
        if place != Some(Place::Storing) {
            self.queue.stored(seq, self.now);
            self.model.stored(seq, self.now);
            self.queue.failed(seq);
            self.model.failed(seq);
        }
        if !matches!(place, Some(Place::Settling { .. })) {
            self.queue.acked(seq, self.now);
            self.model.acked(seq, self.now);
            self.queue.ack_failed(seq, self.now);
            self.model.ack_failed(seq, self.now);
        }
        let consumer = ConsumerId(98);
        same!(
            self,
            "nacked by a stranger",
            self.queue.nack(consumer, seq, "", self.now, 0),
            self.model.nack(consumer, seq, "", self.now, None)
        );
        same!(
            self,
            "extended by a stranger",
            self.queue.extend(consumer, seq, self.now),
            self.model.extend(consumer, seq, self.now)
        );
        // The last number of all is never given.
        let unknown = self.queue.retry_dead(Seq(u64::MAX), self.now, None);
        assert_eq!(unknown, Err(RetryError::Unknown), "there is none");
    }

    /// The process ends. Some writes were done before, without anybody being told; the rest is lost.
    fn crash(&mut self) {
        self.seen.crashes += 1;
        let done = self.dice.below(self.writes.len() as u64 + 1);
        for _ in 0..done {
            self.write();
        }
        for told in self.tells.drain(..) {
            if let Told::Acked(seq) = told {
                self.promised.remove(&seq);
            }
        }
        self.writes.clear();
        self.promised.retain(|seq| !self.disk.dead.contains_key(seq));
        self.consumers.clear();
        self.last_first = [None; 4];
        self.passed_over = [0; 4];
        self.queue = Queue::new(self.limits, Seq(self.disk.next));
        self.model = Model::new(self.limits, Seq(self.disk.next));
        // In no order, as nothing may depend on it.
        let mut messages: Vec<Restored<u64>> = self.disk.messages.values().cloned().collect();
        while !messages.is_empty() {
            let at = usize::try_from(self.dice.below(messages.len() as u64)).expect("it is small");
            let message = messages.swap_remove(at);
            self.queue.restore(message.clone());
            self.model.restore(message);
        }
        for letter in self.disk.dead.values() {
            self.queue.restore_dead(letter.clone());
            self.model.restore_dead(letter.clone());
        }
        for (key, (seq, until)) in &self.disk.keys {
            self.queue.restore_key(key.clone(), *seq, *until);
            self.model.restore_key(key, *seq, *until);
        }
        // What was taken back is there again, so it is still owed; what was never stored may get a number again.
        let on_disk = &self.disk.messages;
        self.delayed_once.extend(on_disk.keys());
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
