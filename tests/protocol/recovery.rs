//! A session and its clients at random: messages, acknowledgements, cuts at any point, returns by old and new tokens, second
//! attachments, calls asked again, time; every other session is stored, and its server crashes before or behind any snapshot. A seed
//! that fails is printed; `BENNU_RECOVERY_SEED` plays one alone, and `BENNU_RECOVERY_SEEDS_TIMES` plays more of them.

mod calls;
mod client;
mod keeping;
mod model;

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use bennu::protocol::Time;
use bennu::protocol::jsonrpc::Object;
use bennu::protocol::mcp::recovery::{Asked, Attached, Class, Position, Recovery, Sending, Taken};
use bytes::Bytes;

use self::calls::{Known, asked};
use self::client::{Client, Frame};
use self::keeping::{Keeping, Tally};
use self::model::PlainLog;
use crate::queue::dice::Dice;

const SEEDS: u64 = 2_000;
const STEPS: usize = 150;
const WINDOW_MS: u64 = 10_000;
/// Bytes of the largest message.
const MESSAGE_BYTES_MAX: usize = 400_000;

/// A connection of the one client. It may have several, of which the newest counts.
struct Connection {
    attachment: u64,
    /// The reply to its join, and which snapshot has to be stored first.
    joining: Option<(u64, Frame)>,
    /// Sent and not received.
    wire: VecDeque<Frame>,
}

struct World {
    dice: Dice,
    now: Time,
    recovery: Recovery,
    plain: PlainLog,
    client: Client,
    connections: Vec<Connection>,
    /// The attachment that the client opened last.
    reading: u64,
    last_used: u64,
    calls: Vec<Known>,
    /// Calls of which the server has lost what it heard: ids, digests and keys.
    unheard: Vec<(u64, u8, Option<u64>)>,
    /// The id under which the client asked last, by the call's first.
    wanted: BTreeMap<u64, u64>,
    /// By its order which call was run, and how often.
    runs: BTreeMap<u64, (u64, u32)>,
    /// Where the session is stored, if it is.
    keeping: Option<Keeping>,
    tally: Tally,
    /// How many are asked, or end, one right behind the other.
    calls_at_once: u64,
    next_text: u64,
    next_call: u64,
    next_id: u64,
}

impl World {
    fn new(seed: u64, is_stored: bool) -> Self {
        let recovery = if is_stored { Recovery::stored(WINDOW_MS) } else { Recovery::new(WINDOW_MS) };
        let mut this = World {
            dice: Dice(seed),
            now: Time(1),
            recovery,
            plain: PlainLog::default(),
            client: Client::default(),
            connections: Vec::new(),
            reading: 0,
            last_used: 1,
            calls: Vec::new(),
            unheard: Vec::new(),
            wanted: BTreeMap::new(),
            runs: BTreeMap::new(),
            keeping: is_stored.then(Keeping::default),
            tally: Tally::default(),
            // Where it is more, snapshots have no room for all that have changed.
            calls_at_once: if seed.is_multiple_of(4) { 4 } else { 1 },
            next_text: 0,
            next_call: 1,
            next_id: 1,
        };
        this.connect(Attached { attachment: 1, serial: 1, position: Position(0) });
        this
    }

    fn step(&mut self) {
        match self.dice.below(if self.keeping.is_some() { 36 } else { 24 }) {
            0..=5 => self.say(),
            6..=8 => self.hand_out(),
            9..=11 => self.receive(),
            12 => self.cut(),
            13..=14 => self.come_back(),
            15 => self.heartbeat(),
            16 => self.strange_token(),
            17 => {
                let longest_ms = if self.dice.one_in(8) { 9_000 } else { 500 };
                self.now = self.now + below(&mut self.dice, longest_ms) as u64;
            }
            18..=19 => (0..self.calls_at_once).for_each(|_| self.ask_new()),
            20..=21 => self.ask_again(),
            22..=23 => (0..self.calls_at_once).for_each(|_| self.end_call()),
            24..=27 => self.snapshot(),
            28..=34 => self.write(),
            _ => self.crash(),
        }
        self.plain.check(self.recovery.log());
    }

    fn say(&mut self) {
        let class = match below(&mut self.dice, 4) {
            0 => Class::Request,
            1 => Class::Event,
            _ => Class::Notification,
        };
        let bytes =
            if self.dice.one_in(3) { below(&mut self.dice, MESSAGE_BYTES_MAX) } else { below(&mut self.dice, 200) };
        self.next_text += 1;
        let mut text = self.next_text.to_string().into_bytes();
        text.resize(bytes.max(text.len()), b' ');
        let text = Bytes::from(text);
        self.recovery.push(class, text.clone());
        self.plain.say(class, text);
    }

    /// Each connection tries to get something out of the session; the newest does, if it has not been lost.
    fn hand_out(&mut self) {
        let bytes_max = if self.dice.one_in(2) { usize::MAX } else { below(&mut self.dice, 500_000) };
        let stored_upto = self.stored_upto();
        let mut handed = Vec::new();
        for connection in self.connections.iter_mut().filter(|one| one.joining.is_none()) {
            let is_present = self.recovery.is_present(connection.attachment);
            match self.recovery.take(connection.attachment, bytes_max) {
                None => assert!(!is_present),
                Some(Taken { gap, messages, has_more }) => {
                    assert!(is_present);
                    let bytes: usize = messages.iter().map(|message| message.text.len()).sum();
                    assert!(messages.len() <= 1 || bytes <= bytes_max, "{bytes} of at most {bytes_max} bytes");
                    handed.extend(messages.iter().cloned());
                    let upto = match messages.last() {
                        Some(last) if has_more => last.position.0,
                        _ => stored_upto,
                    };
                    self.plain.hand_out(upto);
                    connection.wire.extend(gap.map(Frame::Gap));
                    connection.wire.extend(messages.into_iter().map(Frame::Message));
                }
            }
        }
        handed.iter().for_each(|message| self.check_handed(message));
        let present = self.connections.iter().filter(|one| self.recovery.is_present(one.attachment)).count();
        assert!(present <= 1);
    }

    /// How far what was said may be handed out.
    fn stored_upto(&self) -> u64 {
        self.keeping.as_ref().map_or(self.plain.said.len() as u64, |keeping| keeping.upto)
    }

    /// That a message is what was said in its place, and stored where all are.
    fn check_handed(&self, message: &Sending) {
        assert_eq!(self.plain.said[message.position.0 as usize - 1].text, message.text);
        if let Some(keeping) = &self.keeping {
            keeping.check_stored(message);
        }
    }

    /// The client has a connection more, and is told so when that is stored.
    fn connect(&mut self, attached: Attached) {
        let Attached { attachment, serial, position } = attached;
        assert!(self.keeping.is_none() || self.recovery.has_unsaved(), "that a client has come is stored");
        self.reading = attachment;
        let joined = Frame::Joined { position: position.0, serial };
        let joining = Some((self.wanted_snapshot(), joined));
        self.connections.push(Connection { attachment, joining, wire: VecDeque::new() });
        self.tell_joined();
    }

    /// The client reads some of what has come, on the connection that it opened last: it has given up the others.
    fn receive(&mut self) {
        let Some(connection) = self.connections.last_mut().filter(|last| last.attachment == self.reading) else {
            return;
        };
        let frames = below(&mut self.dice, connection.wire.len() + 1);
        for frame in connection.wire.drain(..frames) {
            self.client.receive(frame);
        }
    }

    /// A connection is lost with what is on its way; the server hears of it at once, or later than of the next one.
    fn cut(&mut self) {
        if self.connections.is_empty() {
            return;
        }
        let index = below(&mut self.dice, self.connections.len());
        let cut = self.connections.remove(index);
        if cut.attachment == self.reading {
            self.client.lose();
        }
        let was_present = self.recovery.is_present(cut.attachment);
        assert_eq!(self.recovery.detach(cut.attachment, self.now).is_some(), was_present);
    }

    fn come_back(&mut self) {
        let Some(newest) = self.client.tokens.last().copied() else { return };
        let serial = match below(&mut self.dice, 4) {
            0 => {
                let index = below(&mut self.dice, self.client.tokens.len());
                self.client.tokens[index]
            }
            _ => newest,
        };
        let position = match below(&mut self.dice, 8) {
            0 => None,
            1 => Some(u64::MAX),
            _ => Some(self.client.position),
        };
        let is_in_time = self.recovery.state().may_attach(self.now);
        match self.recovery.attach(serial, position.map(Position), self.now) {
            Ok(attached) => {
                assert!(is_in_time && serial >= self.last_used, "{serial} after {}", self.last_used);
                self.last_used = serial;
                self.plain.rewind(position);
                assert_eq!(attached.position.0, self.plain.sent as u64);
                self.client.lose();
                self.connect(attached);
            }
            // Those count that were given since the one used last, and the newest that came always is.
            Err(_) => assert!(!is_in_time || serial < self.last_used && serial != newest),
        }
    }

    fn heartbeat(&mut self) {
        let position = Position(self.client.position);
        for connection in self.connections.iter_mut().filter(|one| one.joining.is_none()) {
            let is_present = self.recovery.is_present(connection.attachment);
            self.recovery.acknowledge(connection.attachment, position);
            let serial = self.recovery.renew(connection.attachment);
            assert_eq!(serial.is_some(), is_present);
            if let Some(serial) = serial {
                self.plain.acknowledge(position.0);
                connection.wire.push_back(Frame::Token(serial));
            }
        }
    }

    fn strange_token(&mut self) {
        for serial in [0, self.recovery.serial() + 1, u64::MAX] {
            assert!(self.recovery.attach(serial, None, self.now).is_err());
        }
    }

    /// Whether the client has a connection on which it is heard.
    fn may_ask(&self) -> bool {
        self.connections.iter().any(|one| one.joining.is_none() && self.recovery.is_present(one.attachment))
    }

    /// The client comes back for good: everything that is kept reaches it, and every call has an answer under the id asked last.
    fn settle(&mut self) {
        if self.dice.one_in(2) {
            self.crash();
        }
        while let Some(cut) = self.connections.pop() {
            self.recovery.detach(cut.attachment, self.now);
        }
        self.client.lose();
        let Some(newest) = self.client.tokens.last().copied() else { return };
        let Ok(attached) = self.recovery.attach(newest, Some(Position(self.client.position)), self.now) else {
            return assert!(!self.recovery.state().may_attach(self.now));
        };
        let (position, attachment) = (self.client.position, attached.attachment);
        self.plain.rewind(Some(position));
        self.client.passed = position;
        self.last_used = newest;
        self.connect(attached);
        self.store_all();
        self.store_all();
        for round in 0..2 {
            let taken = self.recovery.take(attachment, usize::MAX).expect("it is the present one");
            taken.messages.iter().for_each(|message| self.check_handed(message));
            self.plain.hand_out(self.plain.said.len() as u64);
            let frames = taken.gap.map(Frame::Gap).into_iter().chain(taken.messages.into_iter().map(Frame::Message));
            frames.for_each(|frame| self.client.receive(frame));
            if round == 0 {
                self.ask_all_again();
                self.store_all();
            }
        }
        for Known { facts, .. } in self.calls.iter().filter(|call| call.facts.is_answered()) {
            assert!(self.client.answered.contains(&facts.asked_as), "the answer of {} has not come", facts.asked_as);
        }
        self.client.pass_gap();
        assert_eq!(self.client.passed, self.plain.said.len() as u64, "nothing is missing without a word");
    }

    /// Whoever does not ask again has had the answers that are kept; who does gets the others too.
    fn ask_all_again(&mut self) {
        for index in 0..self.calls.len() {
            let facts = &self.calls[index].facts;
            let Some((_, position)) = facts.answer else { continue };
            let has_come = self.client.answered.contains(&facts.asked_as);
            assert!(has_come || !self.plain.said[position as usize - 1].is_kept, "{} has not come", facts.asked_as);
            let id = self.wanted[&facts.identity()];
            match self.recovery.ask(&asked(id, facts.digest, facts.key)).expect("its answer is remembered") {
                Asked::Again(..) => {
                    self.calls[index].facts.asked_as = id;
                    if !self.calls[index].facts.ids.contains(&id) {
                        self.calls[index].facts.ids.push(id);
                    }
                    self.say_answer(index);
                }
                asked => assert!(asked == Asked::Settled && facts.asked_as == id, "{asked:?}"),
            }
        }
    }
}

fn below(dice: &mut Dice, bound: usize) -> usize {
    dice.below(bound.max(1) as u64) as usize
}

/// The id of a call's answer; none where it was not run.
fn answered_id(response: &[u8]) -> Option<u64> {
    let is_answer = Object::parse(response).is_some_and(|response| response.has("result"));
    is_answer.then(|| id_of(response))
}

fn id_of(response: &[u8]) -> u64 {
    Object::parse(response).and_then(|response| response.get("id")).expect("a response with a number")
}

#[test]
fn every_message_comes_once_in_order_or_is_told_to_be_missing_and_no_call_runs_twice() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("BENNU_RECOVERY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + SEEDS * number("BENNU_RECOVERY_SEEDS_TIMES").unwrap_or(1),
    };
    let mut tally = Tally::default();
    let is_whole = seeds.end - seeds.start >= SEEDS;
    for seed in seeds {
        let played = catch_unwind(AssertUnwindSafe(|| {
            let mut world = World::new(seed, seed % 2 == 0);
            for _ in 0..STEPS {
                world.step();
            }
            world.settle();
            world.tally
        }));
        match played {
            Ok(played) => tally.add(&played),
            Err(panic) => {
                eprintln!("BENNU_RECOVERY_SEED={seed}");
                resume_unwind(panic);
            }
        }
    }
    assert!(!is_whole || tally.is_full(), "something never happens: {tally:?}");
}
