//! A topic, shards, connections and clients at random, beside a plain list of what was published.
//!
//! A failure names its seed. `BENNU_HISTORY_SEEDS_TIMES=n` at the build plays so many times the seeds.

mod client;
mod ledger;
mod server;

use client::Client;
use server::{Message, OnSlow, Rules, Server};

use super::*;

const SEEDS: u64 = 9_000;
const STEPS: u64 = 300;
/// Frames that may be handed over at once by any play's rules.
const AT_ONCE_FRAMES_MAX: usize = 4;

/// As many times more as the build was told.
fn seeds() -> impl Iterator<Item = u64> {
    let times = option_env!("BENNU_HISTORY_SEEDS_TIMES").and_then(|times| times.parse::<u64>().ok());
    1..=SEEDS * times.unwrap_or(1)
}

/// xorshift.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..8 {
            dice.below(2);
        }
        dice
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n.max(1)
    }

    fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    fn count(&mut self, least: usize, most: usize) -> usize {
        least + self.index(most - least + 1)
    }

    fn index(&mut self, n: usize) -> usize {
        usize::try_from(self.below(n as u64)).expect("it is less than a length")
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Names the seed that is played, unless it is played to its end.
struct Seed(Option<u64>);

impl Drop for Seed {
    fn drop(&mut self) {
        if let Some(seed) = self.0 {
            eprintln!("it fails with seed {seed}");
        }
    }
}

/// How often what is looked for has come about.
#[derive(Debug, Default)]
struct Seen {
    given: u64,
    given_again: u64,
    thinned: u64,
    fell_behind: u64,
    pieces: u64,
    caught_up: u64,
    cuts: u64,
    rejoins: u64,
    overflows: u64,
    expired: u64,
    of_another_epoch: u64,
    of_the_future: u64,
    slow: u64,
    forgotten: u64,
}

fn rules(dice: &mut Dice, on_slow: OnSlow) -> Rules {
    // A history of a few, of many, or of as many as come.
    let messages_max = [3, 12, 40, 1_000][dice.index(4)];
    let bytes_max = [900, 4_000, 1 << 20][dice.index(3)];
    let age_ms = [60, 400, 100_000][dice.index(3)];
    let room_frames = dice.count(2, 10);
    let piece_frames_max = dice.count(1, 8);
    Rules {
        bounds: Bounds { messages_max, bytes_max, age_ms },
        on_slow,
        at_once_bytes_max: dice.count(0, AT_ONCE_FRAMES_MAX * ENTRY_BYTES),
        piece_bytes_max: dice.count(0, 1_200),
        room_frames,
        piece_frames_max,
        // Beside the room: a piece or what is handed over at once, and once more with the reply to a join.
        outbox_frames_max: room_frames + piece_frames_max.max(AT_ONCE_FRAMES_MAX) + AT_ONCE_FRAMES_MAX + 1,
        message_bytes_max: dice.between(0, 300),
        keys: dice.between(1, 4),
    }
}

struct Play {
    dice: Dice,
    server: Server,
    clients: Vec<Client>,
    /// Of all messages.
    published: u64,
    /// One step in so many goes wrong.
    calm: u64,
    /// As many are published at most in a step.
    flood: u64,
    /// As many are received at most in a step.
    haste: u64,
}

impl Play {
    fn new(seed: u64, on_slow: OnSlow) -> Self {
        let mut dice = Dice::new(seed);
        let rules = rules(&mut dice, on_slow);
        let shards = dice.count(1, 3);
        let server = Server::new(rules, shards, Epoch(dice.below(u64::MAX)));
        let clients = (0..dice.count(1, 3)).map(|_| Client::default()).collect();
        let calm = [12, 60, 400][dice.index(3)];
        let (flood, haste) = (dice.between(1, 4), dice.between(1, 16));
        Play { dice, server, clients, published: 0, calm, flood, haste }
    }

    fn publish(&mut self) {
        self.published += 1;
        let rules = &self.server.rules;
        let message = Message { number: self.published, key: self.dice.below(rules.keys) };
        let bytes = self.dice.below(rules.message_bytes_max + 1);
        self.server.publish(message, usize::try_from(bytes).expect("it is small"));
    }

    fn step(&mut self, seen: &mut Seen) {
        let Play { dice, server, clients, calm, flood, haste, .. } = self;
        let client = dice.index(clients.len());
        let client = &mut clients[client];
        if dice.one_in(*calm) {
            match dice.below(9) {
                8 => {
                    server.restart_with_what_is_kept();
                    clients.iter_mut().for_each(Client::cut);
                }
                0 => {
                    server.restart(Epoch(dice.below(u64::MAX)));
                    clients.iter_mut().for_each(Client::cut);
                }
                1 => {
                    server.squeeze();
                }
                2 | 3 => {
                    seen.rejoins += u64::from(client.rejoin(server, dice));
                }
                _ => {
                    seen.cuts += 1;
                    client.hang_up(server);
                }
            }
            return;
        }
        match dice.below(16) {
            0..3 => {
                for _ in 0..dice.between(1, *flood) {
                    self.publish();
                }
            }
            3..6 => {
                let shard = dice.index(server.shards());
                let times = dice.between(1, 6);
                server.take(shard, times, seen);
            }
            6..8 => {
                let shard = dice.index(server.shards());
                server.write_out(shard, seen);
            }
            8..10 => client.let_connection_run(server, seen),
            10..13 => {
                for _ in 0..dice.between(1, *haste) {
                    client.receive(server, seen);
                }
            }
            13 | 14 => client.connect(server, dice),
            _ => {
                server.pass(dice.between(1, 30));
                seen.forgotten += u64::from(server.forget(Epoch(dice.below(u64::MAX))));
            }
        }
    }

    /// Nothing is cut any more, and everybody reads on: so everybody reaches the head.
    fn settle(&mut self, seen: &mut Seen) {
        for _ in 0..1_000 {
            for shard in 0..self.server.shards() {
                self.server.take(shard, u64::MAX, seen);
                self.server.write_out(shard, seen);
            }
            for client in &mut self.clients {
                client.connect_on(&mut self.server, &mut self.dice);
                client.let_connection_run(&mut self.server, seen);
                while client.receive(&mut self.server, seen) {}
            }
            if self.server.is_quiet() && self.clients.iter().all(|client| client.has_all(&self.server)) {
                return;
            }
        }
        panic!("a client that reads on does not reach the head: {:?}", self.clients);
    }
}

fn play(seed: u64, on_slow: OnSlow, seen: &mut Seen) {
    let mut named = Seed(Some(seed));
    let mut play = Play::new(seed, on_slow);
    for _ in 0..STEPS {
        play.step(seen);
    }
    play.settle(seen);
    // Whoever has caught up is live.
    for _ in 0..play.server.rules.room_frames {
        play.publish();
    }
    play.settle(seen);
    named.0 = None;
}

/// Plays a third of the seeds, so that the policies together have all of them.
fn play_all(on_slow: OnSlow) -> (Seen, u64) {
    let (mut seen, mut played) = (Seen::default(), 0);
    for seed in seeds().filter(|seed| seed % 3 == on_slow as u64) {
        play(seed, on_slow, &mut seen);
        played += 1;
    }
    println!("{played} seeds: {seen:?}");
    (seen, played)
}

fn check_what_any_policy_sees(seen: &Seen, played: u64) {
    let Seen { given, given_again, pieces, caught_up, cuts, rejoins, .. } = *seen;
    let Seen { expired, of_another_epoch, of_the_future, forgotten, .. } = *seen;
    assert!(given > played * 20, "{seen:?}: the seeds say little");
    let least = [given_again, pieces, caught_up, cuts, rejoins, expired, of_another_epoch, of_the_future, forgotten];
    assert!(least.into_iter().all(|count| count > played / 10), "{seen:?}: the seeds say little");
}

#[test]
fn a_slow_client_gets_all_in_order_and_once_or_hears_of_the_gap() {
    let (seen, played) = play_all(OnSlow::Gap);

    check_what_any_policy_sees(&seen, played);
    assert_eq!((seen.thinned, seen.overflows), (0, 0), "{seen:?}");
    assert!(seen.fell_behind.min(seen.slow) > played / 10, "{seen:?}: the seeds say little");
}

#[test]
fn a_slow_client_of_which_the_latest_counts_gets_the_last_of_each_key() {
    let (seen, played) = play_all(OnSlow::Latest);

    check_what_any_policy_sees(&seen, played);
    assert_eq!(seen.overflows, 0, "{seen:?}");
    assert!(seen.thinned.min(seen.fell_behind).min(seen.slow) > played / 10, "{seen:?}: the seeds say little");
}

#[test]
fn a_slow_client_that_is_disconnected_resumes() {
    let (seen, played) = play_all(OnSlow::Disconnect);

    check_what_any_policy_sees(&seen, played);
    assert_eq!((seen.thinned, seen.fell_behind), (0, 0), "{seen:?}");
    assert!(seen.overflows > played / 10, "{seen:?}: the seeds say little");
}
