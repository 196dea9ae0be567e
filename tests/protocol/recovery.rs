//! A session and its clients at random: messages, acknowledgements, cuts at any point, returns by old and new tokens, second
//! attachments, calls asked again, time. A seed that fails is printed; `BENNU_RECOVERY_SEED` plays one alone, and
//! `BENNU_RECOVERY_SEEDS_TIMES` plays more of them.

mod client;
mod model;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use bennu::protocol::Time;
use bennu::protocol::jsonrpc::{CallNumber, Object};
use bennu::protocol::mcp::recovery::{Asked, AskedCall, Attachment, Class, Position, Recovery, RepeatRefused, Taken};
use bytes::Bytes;
use serde_json::value::RawValue;

use self::client::{Client, Frame};
use self::model::PlainLog;
use crate::queue::dice::Dice;

const SEEDS: u64 = 2_000;
const STEPS: usize = 150;
const WINDOW_MS: u64 = 10_000;
/// What messages are cut from, so that large ones cost nothing.
static BODY: [u8; 400_000] = [b' '; 400_000];

/// A connection of the one client. It may have several, of which the newest counts.
struct Connection {
    attachment: u64,
    /// Sent and not received.
    wire: VecDeque<Frame>,
}

/// One call as it is known outside the machine.
struct Known {
    number: CallNumber,
    digest: u8,
    ids: Vec<u64>,
    key: Option<u64>,
    is_running: bool,
    is_taken_back: bool,
    runs: u32,
    /// The id asked last.
    asked_as: u64,
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
    newest: u64,
    /// The client has come back by a token that was not the newest it had.
    went_back: bool,
    calls: Vec<Known>,
    next_call: u64,
    next_id: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let first = Connection { attachment: 1, wire: VecDeque::from([Frame::Joined { position: 0, serial: 1 }]) };
        World {
            dice: Dice(seed),
            now: Time(1),
            recovery: Recovery::new(WINDOW_MS),
            plain: PlainLog::default(),
            client: Client::default(),
            connections: vec![first],
            reading: 1,
            last_used: 0,
            newest: 1,
            went_back: false,
            calls: Vec::new(),
            next_call: 1,
            next_id: 1,
        }
    }

    fn step(&mut self) {
        match self.dice.below(24) {
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
            18..=19 => self.ask_new(),
            20..=21 => self.ask_again(),
            _ => self.end_call(),
        }
        self.plain.check(self.recovery.log());
    }

    fn say(&mut self) {
        let class = match below(&mut self.dice, 4) {
            0 => Class::Request,
            1 => Class::Event,
            _ => Class::Notification,
        };
        let bytes = if self.dice.one_in(3) { below(&mut self.dice, BODY.len()) } else { below(&mut self.dice, 200) };
        self.recovery.push(class, Bytes::from_static(&BODY[..bytes]));
        self.plain.say(class, bytes);
    }

    /// Each connection tries to get something out of the session; the newest does, if it has not been lost.
    fn hand_out(&mut self) {
        let bytes_max = if self.dice.one_in(2) { usize::MAX } else { below(&mut self.dice, 500_000) };
        for connection in &mut self.connections {
            let is_present = self.recovery.is_present(connection.attachment);
            match self.recovery.take(connection.attachment, bytes_max) {
                None => assert!(!is_present),
                Some(Taken { gap, messages, has_more }) => {
                    assert!(is_present);
                    let upto = match messages.last() {
                        Some(last) if has_more => last.position.0,
                        _ => self.plain.said.len() as u64,
                    };
                    self.plain.hand_out(upto);
                    connection.wire.extend(gap.map(Frame::Gap));
                    connection.wire.extend(messages.into_iter().map(Frame::Message));
                }
            }
        }
        let present = self.connections.iter().filter(|one| self.recovery.is_present(one.attachment)).count();
        assert!(present <= 1);
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
                self.went_back = serial != self.newest && (serial != newest || self.went_back);
                (self.last_used, self.newest) = (serial, attached.serial);
                self.plain.rewind(position);
                assert_eq!(attached.position.0, self.plain.sent as u64);
                self.client.lose();
                self.reading = attached.attachment;
                let joined = Frame::Joined { position: attached.position.0, serial: attached.serial };
                self.connections.push(Connection { attachment: attached.attachment, wire: VecDeque::from([joined]) });
            }
            // The newest token that came counts, unless two later ones were lost on their way, or an older one was used since.
            Err(_) => assert!(!is_in_time || serial != newest || self.newest > serial + 1 || self.went_back),
        }
    }

    fn heartbeat(&mut self) {
        let position = Position(self.client.position);
        for connection in &mut self.connections {
            let is_present = self.recovery.is_present(connection.attachment);
            self.recovery.acknowledge(connection.attachment, position);
            let serial = self.recovery.renew(connection.attachment);
            assert_eq!(serial.is_some(), is_present);
            if let Some(serial) = serial {
                self.newest = serial;
                self.plain.acknowledge(position.0);
                connection.wire.push_back(Frame::Token(serial));
            }
        }
    }

    fn strange_token(&mut self) {
        for serial in [0, self.newest + 1, u64::MAX] {
            assert!(self.recovery.attach(serial, None, self.now).is_err());
        }
    }

    fn asked(id: u64, digest: u8, key: Option<u64>) -> AskedCall {
        let id = RawValue::from_string(id.to_string()).expect("a number");
        AskedCall { id, digest: [digest; 32], key: key.map(|key| key.to_string().into()) }
    }

    fn is_attached(&self) -> bool {
        self.recovery.state() == Attachment::Attached
    }

    fn ask_new(&mut self) {
        if !self.is_attached() {
            return;
        }
        let (id, digest) = (self.next_id, below(&mut self.dice, 3) as u8);
        let key = self.dice.one_in(2).then_some(id);
        self.next_id += 1;
        let call = Self::asked(id, digest, key);
        assert_eq!(self.recovery.ask(&call), Ok(Asked::New));
        let number = CallNumber(self.next_call);
        self.next_call += 1;
        assert!(self.recovery.begin(number, &call));
        assert!(!self.recovery.begin(CallNumber(u64::MAX), &call), "nothing begins twice");
        let known =
            Known { number, digest, ids: vec![id], key, is_running: true, is_taken_back: false, runs: 1, asked_as: id };
        self.calls.push(known);
    }

    fn ask_again(&mut self) {
        if !self.is_attached() || self.calls.is_empty() {
            return;
        }
        let index = below(&mut self.dice, self.calls.len());
        let is_other = self.dice.one_in(4);
        let new_id = self.next_id;
        let call = &mut self.calls[index];
        let digest = if is_other { call.digest + 100 } else { call.digest };
        let id = match call.key {
            Some(_) if self.dice.one_in(2) => {
                self.next_id += 1;
                new_id
            }
            _ => call.ids[below(&mut self.dice, call.ids.len())],
        };
        let asked = self.recovery.ask(&Self::asked(id, digest, call.key));
        if is_other {
            assert!(matches!(asked, Err(RepeatRefused::OtherCall(_) | RepeatRefused::OtherKeyed(_))), "{asked:?}");
            return;
        }
        let is_ok = asked.is_ok();
        match asked {
            Ok(Asked::New) => panic!("call {} would be run again", call.ids[0]),
            Ok(Asked::Settled) => assert_eq!(call.asked_as, id),
            Ok(Asked::Renamed(number)) => {
                assert!(call.is_running && call.number == number && call.asked_as != id);
            }
            Ok(Asked::Again(number, text)) => {
                assert!(!call.is_running && call.number == number);
                assert_eq!(id_of(&text), id);
                self.plain.say(Class::Response, text.len());
            }
            Err(RepeatRefused::TakenBack(_)) => assert!(call.is_taken_back),
            Err(RepeatRefused::UnderWay(_)) => assert!(call.is_running),
            Err(RepeatRefused::Answered(_)) => assert!(!call.is_running && call.asked_as == id),
            Err(refused) => panic!("{refused}"),
        }
        if is_ok {
            call.asked_as = id;
            if !call.ids.contains(&id) {
                call.ids.push(id);
            }
        }
    }

    fn end_call(&mut self) {
        let running: Vec<usize> = (0..self.calls.len()).filter(|index| self.calls[*index].is_running).collect();
        if running.is_empty() {
            return;
        }
        let index = running[below(&mut self.dice, running.len())];
        let call = &mut self.calls[index];
        call.is_running = false;
        match below(&mut self.dice, 6) {
            0 => {
                call.is_taken_back = true;
                self.recovery.take_back(call.number);
            }
            1 => {
                self.recovery.not_run(call.number);
                self.calls.remove(index);
            }
            _ => {
                let before = self.recovery.log().last();
                let text = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{}}}"#, call.ids[0], call.runs);
                self.recovery.answer(call.number, text.into());
                let bytes = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{}}}"#, call.asked_as, call.runs).len();
                self.plain.say(Class::Response, bytes);
                assert_eq!(self.recovery.log().last().0, before.0 + 1, "an answer is one message");
            }
        }
    }

    /// The client comes back for good: everything that is kept reaches it, and every call has an answer under the id asked last.
    fn settle(&mut self) {
        while let Some(cut) = self.connections.pop() {
            self.recovery.detach(cut.attachment, self.now);
        }
        self.client.lose();
        let newest = self.newest;
        if self.recovery.attach(newest, Some(Position(self.client.position)), self.now).is_err() {
            assert!(!self.recovery.state().may_attach(self.now));
            return;
        }
        let position = self.client.position;
        self.plain.rewind(Some(position));
        self.client.passed = position;
        let attachment = (1..).find(|number| self.recovery.is_present(*number)).expect("it is attached");
        let mut answered = Vec::new();
        for round in 0..2 {
            let taken = self.recovery.take(attachment, usize::MAX).expect("it is the present one");
            self.plain.hand_out(self.plain.said.len() as u64);
            for message in &taken.messages {
                if message.class == Class::Response {
                    answered.push(id_of(&message.text));
                }
            }
            let frames = taken.gap.map(Frame::Gap).into_iter().chain(taken.messages.into_iter().map(Frame::Message));
            frames.for_each(|frame| self.client.receive(frame));
            if round == 0 {
                let ended: Vec<_> = self
                    .calls
                    .iter()
                    .filter(|call| !call.is_running && !call.is_taken_back)
                    .map(|call| (call.asked_as, Self::asked(call.asked_as, call.digest, call.key), call.runs))
                    .collect();
                for (_, call, runs) in ended {
                    assert_eq!(runs, 1);
                    if let Asked::Again(_, text) = self.recovery.ask(&call).expect("its answer is remembered") {
                        self.plain.say(Class::Response, text.len());
                    }
                }
            }
        }
        for call in self.calls.iter().filter(|call| !call.is_running && !call.is_taken_back) {
            let times = answered.iter().filter(|id| **id == call.asked_as).count();
            assert!(times >= 1, "the answer of {} has not come", call.asked_as);
        }
        self.client.pass_gap();
        assert_eq!(self.client.passed, self.plain.said.len() as u64, "nothing is missing without a word");
    }
}

fn below(dice: &mut Dice, bound: usize) -> usize {
    dice.below(bound.max(1) as u64) as usize
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
    for seed in seeds {
        let played = catch_unwind(AssertUnwindSafe(|| {
            let mut world = World::new(seed);
            for _ in 0..STEPS {
                world.step();
            }
            world.settle();
        }));
        if let Err(panic) = played {
            eprintln!("BENNU_RECOVERY_SEED={seed}");
            resume_unwind(panic);
        }
    }
}
