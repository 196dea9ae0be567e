//! The program under load, killed again and again: what was answered for is delivered, and not after its ack was answered.
//!
//! ```text
//! play    a store; lives of the program on it, each killed; one more, in which all that is owed has to come
//! life    producers send, some again with their idempotency keys; consumers take, ack, nack, leave; all note what they do and see
//! check   reads the notes of all lives
//! ```
//!
//! What clients do and how many answers a life has follow from a seed, which is printed: `BENNU_CRASH_SEED=n` has the same done
//! again, though not at the same moments; `BENNU_CRASH_TIMES=n` plays so many times.

mod check;
mod clients;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use self::check::{Checker, Rules, Seen};
use self::clients::{Consumer, Producer, World};
use crate::lab::DEADLINE;

/// Kills of one play.
const KILLS: u64 = 80;
const PRODUCERS: u64 = 4;

/// When a life is over.
#[derive(Clone, Copy)]
enum Kill {
    /// After a random number of answers, and a moment.
    AnyMoment,
    /// Right after an answer.
    AtAnswer,
    /// Half of them while the program starts, the others right after an answer.
    AtStart,
}

struct Plan {
    /// Consumers of each queue are `consumers / queues` at least.
    queues: usize,
    consumers: usize,
    lease_ms: u64,
    /// One message of so many is large.
    large_every: u64,
    /// Answers of a life at most.
    answers_max: u64,
    kill: Kill,
}

const PLAN: Plan =
    Plan { queues: 2, consumers: 3, lease_ms: 60_000, large_every: 100, answers_max: 160, kill: Kill::AtAnswer };

impl Plan {
    /// Whether leases end while connections last.
    fn leases_end(&self) -> bool {
        self.lease_ms < 1_000
    }
}

fn topic(queue: usize) -> String {
    format!("queue:crash-{}", queue + 1)
}

/// xorshift64*, begun as splitmix64 says, so that neighbouring seeds have nothing in common.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        let mut mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Random((mixed ^ (mixed >> 31)) | 1)
    }

    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % below
    }
}

/// A folder of the play's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(plan: &Plan) -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let name = format!("bennu-crash-{}-{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).expect("a new name in the folder for such");
        let settings = format!(
            "server.listen = \"127.0.0.1:0\"\nstore.path = {:?}\n[queues]\nlease_ms = {}\nttl_ms = 86400000\n\
             retries_max = 100\ndeliveries_max = 1000000\nbackoff_base_ms = 2\nbackoff_max_ms = 20\n\
             dedup_window_ms = 86400000\ndedup_keys_max = 1000000\ndead_letter_ttl_ms = 86400000\ndead_letters_max = 100000\n",
            folder.join("store.redb"),
            plan.lease_ms,
        );
        std::fs::write(folder.join("bennu.toml"), settings).expect("the folder takes it");
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The program, killed when dropped.
struct Program {
    child: Child,
    /// Says where it listens, once.
    address: mpsc::Receiver<SocketAddr>,
}

impl Program {
    fn start(folder: &Folder) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bennu"));
        command.args(["serve", "--config"]).arg(folder.0.join("bennu.toml")).stdin(Stdio::null());
        // The program would take the tests' own variables for settings.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("BENNU_")) {
            command.env_remove(name);
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.0.join("log")).expect("a file");
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("stdout is piped above");
        let (sender, address) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix("listening on ") {
                    // Who waits may have killed it.
                    let _ = sender.send(address.parse().expect("an address"));
                }
            }
        });
        Program { child, address }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One store with the programs that live on it.
struct Play<'a> {
    seed: u64,
    random: Random,
    folder: Folder,
    world: World<'a>,
    producers: Vec<Producer>,
    consumers: Vec<Consumer>,
    checker: Checker,
}

impl<'a> Play<'a> {
    fn new(seed: u64, plan: &'a Plan) -> Self {
        let mut random = Random::new(seed);
        let mut part = || Random::new(random.below(u64::MAX));
        let producers = (0..PRODUCERS).map(|number| Producer::new(number, part())).collect();
        let consumers = (0..plan.consumers).map(|number| Consumer::new(number % plan.queues, part())).collect();
        let folder = Folder::new(plan);
        let checker = Checker::new(Rules { leases_end: plan.leases_end() });
        Play { seed, random, folder, world: World::new(plan), producers, consumers, checker }
    }

    fn begin(&mut self) -> (Program, mpsc::Receiver<()>) {
        let (sender, answers) = mpsc::channel();
        self.world.begin(self.checker.owed().len(), sender);
        (Program::start(&self.folder), answers)
    }

    /// Where the program listens, which has to start whatever became of the one before.
    fn started(&self, program: &Program) -> SocketAddr {
        program.address.recv_timeout(DEADLINE).unwrap_or_else(|_| {
            let log = std::fs::read_to_string(self.folder.0.join("log")).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(5).collect();
            panic!("BENNU_CRASH_SEED={}: no start; it said, the last first: {last:#?}", self.seed)
        })
    }

    /// Fails with what was wrong.
    fn look(&mut self) {
        self.checker.read(&self.world.take_notes());
        if !self.checker.faults().is_empty() {
            let log = std::fs::read_to_string(self.folder.0.join("log")).unwrap_or_default();
            let errors: Vec<&str> = log.lines().filter(|line| line.contains("ERROR")).take(20).collect();
            let count = self.checker.faults().len();
            let first = &self.checker.faults()[..count.min(20)];
            panic!("BENNU_CRASH_SEED={}: {count} faults\n{}\n{}", self.seed, first.join("\n"), errors.join("\n"));
        }
    }

    /// A program that is killed.
    fn live(&mut self) {
        let plan = self.world.plan;
        let at_start = matches!(plan.kill, Kill::AtStart) && self.random.below(2) == 0;
        let wanted = 1 + self.random.below(plan.answers_max);
        let moment = Duration::from_micros(self.random.below(match plan.kill {
            _ if at_start => 80_000,
            Kill::AnyMoment => 20_000,
            Kill::AtAnswer | Kill::AtStart => 1,
        }));
        let (mut program, answers) = self.begin();
        if at_start {
            // It may be that it listens before.
            let _ = program.address.recv_timeout(moment);
            return;
        }
        let address = self.started(&program);
        let (world, producers, consumers) = (&self.world, &mut self.producers, &mut self.consumers);
        let heard = std::thread::scope(|scope| {
            for producer in producers {
                scope.spawn(move || producer.live(address, world));
            }
            for consumer in consumers {
                scope.spawn(move || consumer.live(address, world));
            }
            let heard = (0..wanted).take_while(|_| answers.recv_timeout(DEADLINE).is_ok()).count() as u64;
            let until = Instant::now() + moment;
            while let left = until.saturating_duration_since(Instant::now())
                && !left.is_zero()
                && answers.recv_timeout(left).is_ok()
            {}
            program.child.kill().expect("it can be killed");
            program.child.wait().expect("it ends");
            heard
        });
        assert_eq!(heard, wanted, "BENNU_CRASH_SEED={}: the program answers nothing any more", self.seed);
        self.look();
    }

    /// The last two: all that is owed comes, and behind it nothing that should not.
    fn end(&mut self) {
        self.look();
        self.drain(self.checker.owed(), false);
        self.look();
        self.drain(BTreeSet::new(), true);
        self.checker.read(&self.world.take_notes());
        self.checker.end();
        self.look();
    }

    /// A life in which consumers alone are there, until all that is owed has come; with `marks` also a message of each priority
    /// behind all that may still be there.
    fn drain(&mut self, mut owed: BTreeSet<String>, marks: bool) {
        let (mut program, answers) = self.begin();
        let address = self.started(&program);
        if marks {
            owed.extend(self.producers[0].mark(address, &self.world));
        }
        let (world, consumers) = (&self.world, &mut self.consumers);
        world.owe(owed);
        std::thread::scope(|scope| {
            for consumer in consumers {
                scope.spawn(move || consumer.live(address, world));
            }
            while world.owes() != Some(0) && answers.recv_timeout(DEADLINE).is_ok() {}
            if world.owes() != Some(0) {
                // Nothing came any more: the clients end with it, and what is missing is told.
                let _ = program.child.kill();
            }
        });
    }
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Plays with a seed of the environment's or of this process's, and as often as is wanted.
fn check(plan: &Plan) {
    let first = from_environment("BENNU_CRASH_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    for seed in first..first + from_environment("BENNU_CRASH_TIMES").unwrap_or(1) {
        println!("BENNU_CRASH_SEED={seed}");
        let mut play = Play::new(seed, plan);
        for _ in 0..KILLS {
            play.live();
        }
        play.end();
        let seen = &play.checker.seen;
        println!("{seen:?}");
        let Seen { answered, got, redelivered, acked, nacked, ordered, .. } = *seen;
        let least = [answered, got, acked, ordered, 10 * redelivered, 10 * nacked];
        assert!(least.into_iter().all(|count| count as u64 > KILLS), "seed {seed}: it says little: {seen:?}");
    }
}

#[test]
fn what_is_killed_right_after_an_answer_keeps_its_word() {
    check(&PLAN);
}

#[test]
fn what_is_killed_at_any_moment_keeps_its_word_and_cuts_its_log() {
    check(&Plan { large_every: 4, kill: Kill::AnyMoment, ..PLAN });
}

#[test]
fn what_is_killed_while_it_starts_keeps_its_word() {
    check(&Plan { kill: Kill::AtStart, ..PLAN });
}

#[test]
fn what_is_killed_while_leases_end_keeps_its_word() {
    check(&Plan { consumers: 2, lease_ms: 40, kill: Kill::AnyMoment, ..PLAN });
}
