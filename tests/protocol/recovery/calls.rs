//! Calls as they are known outside the machine: asked, asked again, run and ended.

use bennu::protocol::jsonrpc::{CallNumber, id_key};
use bennu::protocol::mcp::recovery::{Asked, AskedCall, Class, KeptCall, KeptState, Position, RepeatRefused};
use bytes::Bytes;
use serde_json::value::RawValue;

use super::{World, below, id_of};

/// What is true of a call, and stored of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub digest: u8,
    /// The ids under which it was asked. The first is no other call's.
    pub ids: Vec<u64>,
    pub key: Option<u64>,
    /// The id asked last.
    pub asked_as: u64,
    pub is_running: bool,
    pub is_taken_back: bool,
    /// What it was answered with, and where in the log that was said last.
    pub answer: Option<(u64, u64)>,
}

/// A call of the server that runs.
#[derive(Clone, Debug)]
pub struct Known {
    pub number: CallNumber,
    /// Which of the session's it is.
    pub order: u64,
    pub facts: Facts,
    pub stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It begins when that snapshot is stored, or a later one.
    Waits(u64),
    /// It has begun in this life of the server, or has ended.
    Runs,
    /// An earlier server left it.
    BrokenOff,
}

impl Facts {
    pub fn identity(&self) -> u64 {
        self.ids[0]
    }

    pub fn request(&self) -> Bytes {
        format!(r#"{{"jsonrpc":"2.0","id":{},"method":"tools/call"}}"#, self.ids[0]).into()
    }

    /// Whether its client is to be told how it ended.
    pub fn is_answered(&self) -> bool {
        self.answer.is_some()
    }

    pub fn text(&self) -> Bytes {
        response(self.asked_as, self.answer.expect("it was answered").0)
    }

    /// That it is stored so.
    pub fn check(&self, kept: &KeptCall) {
        let key = self.key.map(|key| key.to_string());
        assert_eq!((kept.digest, kept.key.as_deref()), ([self.digest; 32], key.as_deref()));
        let mut ids: Vec<_> = self.ids.iter().map(|id| id_key(&raw(*id))).collect();
        let mut stored = kept.ids.clone();
        assert!(kept.asked_as.is_some() || stored.first() == ids.first(), "the first is the id asked last");
        ids.sort();
        stored.sort();
        assert_eq!(stored, ids);
        let asked_as = kept.asked_as.as_ref().map_or(self.ids[0], |id| id.get().parse().expect("a number"));
        assert_eq!(asked_as, self.asked_as);
        let expected = match self.answer {
            Some((_, position)) => KeptState::Answered { text: self.text(), position: Position(position) },
            None if self.is_taken_back => KeptState::TakenBack,
            None => KeptState::Running { request: self.request() },
        };
        assert_eq!(kept.state, expected);
    }
}

fn raw(id: u64) -> Box<RawValue> {
    RawValue::from_string(id.to_string()).expect("a number")
}

fn response(id: u64, result: u64) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#).into()
}

fn not_run(id: u64) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{}}}}"#).into()
}

pub fn asked(id: u64, digest: u8, key: Option<u64>) -> AskedCall {
    AskedCall { id: raw(id), digest: [digest; 32], key: key.map(|key| key.to_string().into()) }
}

impl World {
    pub fn ask_new(&mut self) {
        if !self.may_ask() {
            return;
        }
        let (id, digest, key) = match self.unheard.pop() {
            Some(unheard) => unheard,
            None => {
                let (id, digest) = (self.next_id, below(&mut self.dice, 3) as u8);
                self.next_id += 1;
                (id, digest, self.dice.one_in(2).then_some(id))
            }
        };
        let call = asked(id, digest, key);
        assert_eq!(self.recovery.ask(&call), Ok(Asked::New));
        let number = self.number();
        assert!(self.recovery.begin(number, &call));
        assert!(!self.recovery.begin(CallNumber(u64::MAX), &call), "nothing begins twice");
        let order = self.recovery.executions().order(number).expect("it has begun");
        assert!(!self.runs.contains_key(&order), "{order} is the order of a call that was run");
        assert!(self.calls.iter().all(|other| other.order != order), "{order} is the order of another call");
        let facts =
            Facts { digest, ids: vec![id], key, asked_as: id, is_running: true, is_taken_back: false, answer: None };
        self.recovery.keep_request(number, facts.request());
        self.wanted.insert(id, id);
        let stage = Stage::Waits(self.wanted_snapshot());
        self.calls.push(Known { number, order, facts, stage });
        self.run_waiting();
    }

    pub fn number(&mut self) -> CallNumber {
        self.next_call += 1;
        CallNumber(self.next_call - 1)
    }

    /// Runs the calls whose time it is.
    pub fn run_waiting(&mut self) {
        for call in &mut self.calls {
            let Stage::Waits(until) = call.stage else { continue };
            if !call.facts.is_running {
                call.stage = Stage::Runs;
                continue;
            }
            if let Some(keeping) = &self.keeping {
                if keeping.snapshots_stored() < until {
                    continue;
                }
                let stored = keeping.call(call.order).map(|kept| &kept.state);
                assert!(matches!(stored, Some(KeptState::Running { .. })), "it runs before that it begins is stored");
            }
            call.stage = Stage::Runs;
            let (identity, runs) = self.runs.entry(call.order).or_insert((call.facts.identity(), 0));
            assert_eq!(*identity, call.facts.identity(), "two calls have the order {}", call.order);
            *runs += 1;
        }
    }

    pub fn ask_again(&mut self) {
        if !self.may_ask() || self.calls.is_empty() {
            return;
        }
        let index = below(&mut self.dice, self.calls.len());
        let is_other = self.dice.one_in(4);
        let new_id = self.next_id;
        let Known { number, facts, .. } = &mut self.calls[index];
        let digest = if is_other { facts.digest + 100 } else { facts.digest };
        let id = match facts.key {
            Some(_) if self.dice.one_in(2) => {
                self.next_id += 1;
                new_id
            }
            _ => facts.ids[below(&mut self.dice, facts.ids.len())],
        };
        let asked = self.recovery.ask(&asked(id, digest, facts.key));
        if is_other {
            assert!(matches!(asked, Err(RepeatRefused::OtherCall(_) | RepeatRefused::OtherKeyed(_))), "{asked:?}");
            return;
        }
        let before = facts.asked_as;
        if asked.is_ok() {
            facts.asked_as = id;
            self.wanted.insert(facts.identity(), id);
            if !facts.ids.contains(&id) {
                facts.ids.push(id);
            }
        }
        match asked {
            Ok(Asked::New) => panic!("call {} would be run again", facts.ids[0]),
            Ok(Asked::Settled) => assert_eq!(before, id),
            Ok(Asked::Renamed(renamed)) => assert!(facts.is_running && *number == renamed && before != id),
            Ok(Asked::Again(again, text)) => {
                assert!(*number == again && id_of(&text) == id);
                self.say_answer(index);
            }
            Err(RepeatRefused::TakenBack(_)) => assert!(facts.is_taken_back),
            Err(RepeatRefused::UnderWay(_)) => assert!(facts.is_running),
            Err(RepeatRefused::Answered(_)) => assert!(facts.is_answered() && before == id),
            Err(refused) => panic!("{refused}"),
        }
    }

    /// The plain log has a call's answer again, under the id asked last.
    pub fn say_answer(&mut self, index: usize) {
        let facts = &mut self.calls[index].facts;
        self.plain.say(Class::Response, facts.text());
        facts.answer = facts.answer.map(|(result, _)| (result, self.plain.said.len() as u64));
    }

    /// A call is answered with a number.
    pub fn answer(&mut self, index: usize, result: u64) {
        let before = self.recovery.log().last();
        let Known { number, facts, .. } = &mut self.calls[index];
        facts.is_running = false;
        facts.answer = Some((result, 0));
        self.recovery.answer(*number, response(facts.identity(), result));
        self.say_answer(index);
        assert_eq!(self.recovery.log().last().0, before.0 + 1, "an answer is one message");
    }

    pub fn end_call(&mut self) {
        let is_here = |call: &Known| call.facts.is_running && call.stage != Stage::BrokenOff;
        let running: Vec<usize> = (0..self.calls.len()).filter(|index| is_here(&self.calls[*index])).collect();
        if running.is_empty() {
            return;
        }
        let index = running[below(&mut self.dice, running.len())];
        let call = &mut self.calls[index];
        match below(&mut self.dice, 6) {
            0 => {
                call.facts.is_running = false;
                call.facts.is_taken_back = true;
                self.recovery.take_back(call.number);
            }
            1 => {
                let Known { number, order, facts, .. } = self.calls.remove(index);
                self.recovery.answers_not_run(number);
                self.recovery.answer(number, not_run(facts.identity()));
                self.plain.say(Class::Response, not_run(facts.asked_as));
                self.runs.remove(&order);
            }
            _ if call.stage == Stage::Runs => {
                let (_, runs) = self.runs[&call.order];
                self.answer(index, u64::from(runs));
            }
            _ => {}
        }
    }
}
