//! Random histories of queues in a file, with commits that fail and restarts, beside a ledger of what was answered.
//!
//! `BENNU_QUEUES_SEED=n` plays one seed, `BENNU_QUEUES_SEEDS_TIMES=n` so many times the seeds.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const SEEDS: u64 = 240;
const STEPS: u64 = 100;
const LEASE_MS: u64 = 5_000;
const QUEUES: [&str; 2] = ["jobs-1", "jobs-2"];

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % below
    }
}

/// What the ledger knows of a message; its number is in its payload.
#[derive(Debug)]
struct Known {
    queue: usize,
    priority: Priority,
    key: Option<u64>,
    is_delayed: bool,
    id: String,
    outcome: Outcome,
    /// An ack of it was begun, and its answer was not one that says no.
    may_be_acked: bool,
    /// An ack of it was answered with an error. The store may have it all the same, which a restart shows.
    ack_failed: bool,
    is_acked: bool,
    /// Its id was answered or delivered, so somebody may name it.
    is_public: bool,
    /// Who has it until when.
    held: Option<(u64, Time)>,
    failures: u32,
    /// A nack or an end of its lease may not have been stored.
    failures_least: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Open,
    Answered,
    /// It was refused, or its producer never heard; it may be there all the same once there was a restart.
    Unknown,
    /// It was refused in this life: it is not there before a restart.
    Refused,
}

struct Consuming {
    number: u64,
    queue: usize,
    member: Member,
}

/// How often what happened.
#[derive(Debug, Default)]
struct Seen {
    answered: u64,
    refused: u64,
    duplicates: u64,
    delivered: u64,
    again: u64,
    acked: u64,
    ack_failures: u64,
    nacked: u64,
    restarts: u64,
}

struct Play<'a> {
    seed: u64,
    random: Random,
    bench: Bench,
    seen: &'a mut Seen,
    known: BTreeMap<u64, Known>,
    /// The message that each key stands for, by queue, as far as it was answered.
    keys: BTreeMap<(usize, u64), u64>,
    storing: Vec<(u64, Storing)>,
    settling: Vec<(u64, Settling)>,
    nacking: Vec<(u64, Settling)>,
    consumers: Vec<Consuming>,
    /// The greatest number that was delivered for the first time in this life, by queue and priority.
    latest: BTreeMap<(usize, Priority), u64>,
    last: u64,
    /// The store says of some commits that they were stored, and they were not: this has to be found.
    lies: bool,
}

impl Play<'_> {
    fn text(&self, what: &str) -> String {
        format!("BENNU_QUEUES_SEED={}: {what}", self.seed)
    }

    async fn step(&mut self) {
        match self.random.below(100) {
            0..22 => self.offer(),
            22..38 => self.hear_one().await,
            38..58 => self.take(),
            58..82 => self.settle_one(),
            82..84 => self.leave(),
            84..88 => self.join(),
            88..91 => {
                let faults: Vec<_> = (0..=self.random.below(2)).map(|_| self.fault()).collect();
                self.bench.fail(faults);
            }
            91..95 => {
                let ms = [1, 200, 2_000, LEASE_MS][self.random.below(4) as usize];
                self.bench.pass(ms).await;
            }
            95..98 => tokio::task::yield_now().await,
            _ => self.restart().await,
        }
    }

    fn fault(&mut self) -> Fault {
        match self.random.below(2) {
            0 if self.lies => Fault::Lied,
            0 => Fault::Lost,
            _ => Fault::Unheard,
        }
    }

    fn offer(&mut self) {
        let number = self.last + 1;
        let queue = self.random.below(2) as usize;
        let priority = Priority::ALL[self.random.below(4) as usize];
        let key = (self.random.below(3) == 0).then(|| self.random.below(12));
        let is_delayed = self.random.below(10) == 0;
        let mut new = message(number).priority(priority).retries_max(100).ttl_ms(86_400_000);
        if let Some(key) = key {
            new = new.idempotency_key(format!("key-{key}"));
        }
        if is_delayed {
            new = new.delay_ms(1 + self.random.below(3_000));
        }
        self.last = number;
        let storing = self
            .bench
            .queues
            .offer(QUEUES[queue], new)
            .unwrap_or_else(|error| panic!("{}", self.text(&error.to_string())));
        let (Storing::Done(enqueued) | Storing::Wait(_, enqueued)) = &storing;
        if enqueued.duplicate {
            self.seen.duplicates += 1;
            // Of one that is there, or is being stored: its id says which.
            let is_known =
                self.known.values().any(|known| known.id == enqueued.id && known.key == key && known.queue == queue);
            assert!(is_known, "{}", self.text(&format!("{enqueued:?} is the duplicate of none")));
            return;
        }
        if let Some(first) = key.and_then(|key| self.keys.get(&(queue, key))) {
            panic!("{}", self.text(&format!("{first} was answered for, and {number} with its key was taken")));
        }
        let known = Known {
            queue,
            priority,
            key,
            is_delayed,
            id: enqueued.id.clone(),
            outcome: Outcome::Open,
            may_be_acked: false,
            ack_failed: false,
            is_acked: false,
            is_public: false,
            held: None,
            failures: 0,
            failures_least: 0,
        };
        self.known.insert(number, known);
        self.storing.push((number, storing));
    }

    /// Hears what became of something that was begun.
    async fn hear_one(&mut self) {
        match self.random.below(3) {
            0 if !self.storing.is_empty() => {
                let at = self.random.below(self.storing.len() as u64) as usize;
                let (number, storing) = self.storing.remove(at);
                self.hear_storing(number, storing).await;
            }
            1 if !self.nacking.is_empty() => {
                let (number, settling) = self.nacking.remove(0);
                self.hear_nacking(number, settling).await;
            }
            _ if !self.settling.is_empty() => {
                let at = self.random.below(self.settling.len() as u64) as usize;
                let (number, settling) = self.settling.remove(at);
                self.hear_settling(number, settling).await;
            }
            _ => {}
        }
    }

    async fn hear_storing(&mut self, number: u64, storing: Storing) {
        let answer = storing.answer().await;
        let known = self.known.get_mut(&number).expect("it was offered");
        match answer {
            Ok(enqueued) => {
                assert_eq!(enqueued.durability, Durability::Durable);
                self.seen.answered += 1;
                known.outcome = Outcome::Answered;
                known.is_public = true;
                if let Some(key) = known.key {
                    self.keys.insert((known.queue, key), number);
                }
            }
            Err(QueueError::Store(_)) => {
                self.seen.refused += 1;
                known.outcome = Outcome::Refused;
            }
            Err(error) => panic!("BENNU_QUEUES_SEED={}: {error}", self.seed),
        }
    }

    async fn hear_settling(&mut self, number: u64, settling: Settling) {
        let answer = settling.answer().await;
        let known = self.known.get_mut(&number).expect("it was taken");
        match answer {
            Ok(()) => {
                self.seen.acked += 1;
                known.is_acked = true;
                known.held = None;
            }
            Err(AckRefused::Store(_)) => {
                self.seen.ack_failures += 1;
                // Unless it was acknowledged once more since.
                let is_last = !known.is_acked && self.settling.iter().all(|(other, _)| *other != number);
                (known.may_be_acked, known.ack_failed) = (!is_last, true);
                // It is with its consumer still, or waits.
                known.held = None;
            }
            Err(error) => panic!("BENNU_QUEUES_SEED={}: {number}: {error}", self.seed),
        }
    }

    async fn hear_nacking(&mut self, number: u64, settling: Settling) {
        if settling.answer().await.is_ok() {
            let known = self.known.get_mut(&number).expect("it was taken");
            known.failures_least = known.failures_least.max(known.failures);
            self.seen.nacked += 1;
        }
    }

    fn take(&mut self) {
        let Some(at) = self.pick_consumer() else { return };
        let max = 1 + self.random.below(3) as usize;
        let taken = take_up_to(max, &self.consumers[at].member);
        let (queue, consumer) = (self.consumers[at].queue, self.consumers[at].number);
        for delivered in taken {
            self.delivered(queue, consumer, &delivered);
        }
    }

    fn delivered(&mut self, queue: usize, consumer: u64, delivered: &Delivered) {
        let (number, now, seed) = (n(delivered), clock::now(), self.seed);
        let Some(known) = self.known.get_mut(&number) else {
            panic!("BENNU_QUEUES_SEED={seed}: {number} was never sent")
        };
        let fault = |what: &str| panic!("BENNU_QUEUES_SEED={seed}: {number}, {what}: {delivered:?}");
        self.seen.delivered += 1;
        self.seen.again += u64::from(delivered.deliveries > 1);
        if (known.queue, known.priority, &known.id) != (queue, delivered.priority, &delivered.id) {
            fault("which is another than was sent");
        }
        if known.is_acked {
            fault("which was acknowledged");
        }
        if known.outcome == Outcome::Refused {
            fault("which was refused");
        }
        if let Some((other, until)) = known.held
            && until > now
            && self.consumers.iter().any(|one| one.number == other)
        {
            fault("which another has");
        }
        if delivered.failures < known.failures_least {
            fault("whose failures were forgotten");
        }
        // In a life in which it was there at the beginning it counts as delivered once.
        if delivered.deliveries == 1 && !known.is_delayed {
            let latest = self.latest.entry((queue, known.priority)).or_default();
            if *latest >= seq(&delivered.id) {
                fault("out of its order");
            }
            *latest = seq(&delivered.id);
        }
        known.is_public = true;
        known.held = Some((consumer, now + LEASE_MS));
        known.failures = known.failures.max(delivered.failures);
    }

    fn pick_consumer(&mut self) -> Option<usize> {
        let count = self.consumers.len() as u64;
        (count > 0).then(|| self.random.below(count) as usize)
    }

    /// Acks or nacks something that somebody has, or had.
    fn settle_one(&mut self) {
        let Some(at) = self.pick_consumer() else { return };
        let Consuming { number: consumer, queue, .. } = self.consumers[at];
        let now = clock::now();
        let has = |known: &&Known| known.held.is_some_and(|(who, until)| who == consumer && until > now);
        let mine: Vec<u64> = self.known.iter().filter(|(_, known)| has(known)).map(|(number, _)| *number).collect();
        let any: Vec<u64> = self
            .known
            .iter()
            .filter(|(_, known)| known.queue == queue && known.is_public)
            .map(|(number, _)| *number)
            .collect();
        let is_late = mine.is_empty() || self.random.below(5) == 0;
        let choice = if is_late { &any } else { &mine };
        if choice.is_empty() {
            return;
        }
        let number = choice[self.random.below(choice.len() as u64) as usize];
        let is_nack = self.random.below(4) == 0;
        let member = &self.consumers[at].member;
        let known = self.known.get_mut(&number).expect("it was chosen of them");
        if is_nack {
            match member.nack(&known.id, "no") {
                Ok((Nacked::Retry { failures, .. }, settling)) => {
                    (known.failures, known.held) = (failures, None);
                    self.nacking.push((number, settling));
                }
                Ok((nacked, _)) => panic!("BENNU_QUEUES_SEED={}: {number} is {nacked:?}", self.seed),
                Err(error) => assert!(is_late, "BENNU_QUEUES_SEED={}: {number}: {error}", self.seed),
            }
            return;
        }
        match member.ack(&known.id) {
            Ok(settling) => {
                assert!(!known.is_acked, "BENNU_QUEUES_SEED={}: {number} was acknowledged twice", self.seed);
                known.may_be_acked = true;
                known.held = None;
                self.settling.push((number, settling));
            }
            Err(error) => assert!(is_late, "BENNU_QUEUES_SEED={}: {number}: {error}", self.seed),
        }
    }

    fn join(&mut self) {
        if self.consumers.len() < 4 {
            let queue = self.random.below(2) as usize;
            let max = 1 + self.random.below(5) as usize;
            let member = self.bench.queues.member(QUEUES[queue], max, || {}).expect("a queue");
            self.last += 1;
            self.consumers.push(Consuming { number: self.last, queue, member });
        }
    }

    fn leave(&mut self) {
        if let Some(at) = self.pick_consumer() {
            self.consumers.remove(at);
        }
    }

    /// Half of the time what is under way is heard before; otherwise it is lost, or not.
    async fn restart(&mut self) {
        self.seen.restarts += 1;
        if self.random.below(2) == 0 {
            self.hear_all().await;
        }
        self.storing.clear();
        self.settling.clear();
        self.nacking.clear();
        self.consumers.clear();
        self.bench.reopen().await;
        self.join();
        self.join();
        self.latest.clear();
        for known in self.known.values_mut() {
            known.held = None;
            known.may_be_acked |= known.ack_failed;
            if matches!(known.outcome, Outcome::Open | Outcome::Refused) {
                known.outcome = Outcome::Unknown;
            }
        }
    }

    async fn hear_all(&mut self) {
        for (number, storing) in std::mem::take(&mut self.storing) {
            self.hear_storing(number, storing).await;
        }
        for (number, settling) in std::mem::take(&mut self.settling) {
            self.hear_settling(number, settling).await;
        }
        for (number, settling) in std::mem::take(&mut self.nacking) {
            self.hear_nacking(number, settling).await;
        }
    }

    async fn end(&mut self) {
        self.hear_all().await;
        if self.random.below(2) == 0 {
            self.restart().await;
        }
        self.consumers.clear();
        let mut came = BTreeSet::new();
        for (queue, name) in QUEUES.into_iter().enumerate() {
            let member = self.bench.queues.member(name, 10_000, || {}).expect("a queue");
            let number = u64::MAX - queue as u64;
            self.consumers.push(Consuming { number, queue, member });
            // Longer than any backoff.
            for _ in 0..2 {
                self.bench.pass(60_000).await;
                for delivered in take_up_to(64, &self.consumers[queue].member) {
                    self.delivered(queue, number, &delivered);
                    came.insert(n(&delivered));
                }
            }
        }
        for (number, known) in &self.known {
            let has_to_come = known.outcome == Outcome::Answered && !known.may_be_acked;
            assert!(!has_to_come || came.contains(number), "{}", self.text(&format!("{number} is lost: {known:?}")));
        }
    }
}

async fn play(seed: u64, lies: bool, seen: &mut Seen) {
    let bench = Bench::with(|settings| {
        settings.limits.lease_ms = LEASE_MS;
        settings.limits.dedup_window_ms = 86_400_000;
        settings.limits.deliveries_max = 10_000;
    })
    .await;
    let mut play = Play {
        seed,
        random: Random(seed),
        bench,
        seen,
        known: BTreeMap::new(),
        keys: BTreeMap::new(),
        storing: Vec::new(),
        settling: Vec::new(),
        nacking: Vec::new(),
        consumers: Vec::new(),
        latest: BTreeMap::new(),
        last: 0,
        lies,
    };
    play.join();
    play.join();
    for _ in 0..STEPS {
        play.step().await;
    }
    play.end().await;
}

/// A variable's number.
fn set(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test(start_paused = true)]
async fn any_history_with_restarts_and_failures_keeps_what_was_answered() {
    let mut seen = Seen::default();
    if let Some(seed) = set("BENNU_QUEUES_SEED") {
        return play(seed, false, &mut seen).await;
    }
    let seeds = SEEDS * set("BENNU_QUEUES_SEEDS_TIMES").unwrap_or(1);
    for seed in 1..=seeds {
        play(seed, false, &mut seen).await;
    }
    println!("{seeds} seeds: {seen:?}");
    let Seen { answered, refused, duplicates, delivered, again, acked, ack_failures, nacked, restarts } = seen;
    let least = [answered, refused, duplicates, delivered, again, acked, ack_failures, nacked, restarts];
    assert!(least.into_iter().all(|count| count > seeds / 10), "{seen:?}: the seeds say little");
}

#[test]
fn a_store_that_lies_is_found() {
    let is_found = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let runtime = runtime.expect("a runtime starts");
        let played = || runtime.block_on(play(seed, true, &mut Seen::default()));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(played)).is_err()
    };

    let found = (1..=20).filter(|seed| is_found(*seed)).count();

    assert!(found >= 5, "in {found} of 20 histories");
}
