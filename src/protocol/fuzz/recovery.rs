//! A session that outlives its connections, under any order of what is done to it.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::input::Input;
use crate::protocol::Time;
use crate::protocol::jsonrpc::{CallNumber, Object};
use crate::protocol::mcp::recovery::{
    Asked, AskedCall, Attachment, Class, Position, RECOVERY_BYTES_MAX, RECOVERY_EVENTS_MAX, Recovery, Taken, Wish,
};

/// Operations of one input; what is behind them is ignored, so that an input stays fast.
const OPERATIONS_MAX: usize = 200;
/// How long a client may be away.
const WINDOW_MS: u64 = 1_000;
/// What messages are cut from, so that large ones cost nothing.
static BODY: [u8; 300_000] = [b' '; 300_000];

/// The session and its clients. Input: operations of one byte and what each needs.
///
/// Messages are said, handed out and acknowledged; connections are lost and come back by any token, with params of any text;
/// attachments of any number act; calls are asked for, run, answered, taken back; time passes; the session ends.
///
/// # Panics
/// If what an attachment is given does not increase, or is missing without a word; if an older attachment is given anything; if
/// a token counts that must not; if a call would be run twice; if more is kept than the bounds let.
pub fn recovery_ops(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new();
    let mut operations = 0;
    while !input.is_empty() && operations < OPERATIONS_MAX {
        world.perform(&mut input);
        operations += 1;
    }
    world.end();
}

struct World {
    recovery: Recovery,
    now: Time,
    /// What was said, in order: whether it may be dropped. The first has position 1.
    said: Vec<bool>,
    /// The last position that each attachment was given, or told to be missing.
    given: BTreeMap<u64, u64>,
    ever_given: u64,
    newest_attachment: u64,
    used: u64,
    newest_token: u64,
    calls: Vec<Known>,
    last_call: u64,
}

/// A call that has begun and is remembered.
struct Known {
    number: CallNumber,
    digest: u8,
    ids: Vec<u8>,
    key: Option<u8>,
    is_running: bool,
    is_not_run: bool,
}

impl World {
    fn new() -> Self {
        World {
            recovery: Recovery::new(WINDOW_MS),
            now: Time(1),
            said: Vec::new(),
            given: BTreeMap::from([(1, 0)]),
            ever_given: 0,
            newest_attachment: 1,
            used: 1,
            newest_token: 1,
            calls: Vec::new(),
            last_call: 0,
        }
    }

    fn perform(&mut self, input: &mut Input<'_>) {
        match input.below(16) {
            0..=2 => self.say(input),
            3..=5 => self.take(input),
            6 => self.lose(input),
            7..=8 => self.come_back(input),
            9 => self.heartbeat(input),
            10..=12 => self.ask(input),
            13 => self.end_call(input),
            14 => self.now = self.now + u64::from(input.byte()) * 8,
            _ => {
                if input.byte() == 0xff {
                    self.end();
                }
            }
        }
        self.check();
    }

    fn check(&self) {
        let log = self.recovery.log();
        assert_eq!(log.last().0, self.said.len() as u64);
        assert!(log.waiting_bytes() <= log.bytes() && log.waiting_len() <= log.len());
        assert_eq!(self.recovery.executions().len(), self.calls.len(), "calls that are remembered");
        let is_attached = self.recovery.state() == Attachment::Attached;
        for number in 0..=self.newest_attachment + 1 {
            assert_eq!(self.recovery.is_present(number), is_attached && number == self.newest_attachment);
        }
    }

    fn is_ended(&self) -> bool {
        self.recovery.state() == Attachment::Ended
    }

    /// Some attachment: mostly the newest, else any number.
    fn attachment(&self, input: &mut Input<'_>) -> u64 {
        match input.below(4) {
            0 => u64::from(input.byte()),
            _ => self.newest_attachment,
        }
    }

    fn said(&mut self, may_be_dropped: bool) {
        self.said.push(may_be_dropped);
        let log = self.recovery.log();
        if log.len() > RECOVERY_EVENTS_MAX || log.bytes() > RECOVERY_BYTES_MAX {
            // What is left is what must not go: neither droppable nor sent.
            let kept = (1..).zip(&self.said).filter(|(position, _)| log.has(Position(*position)));
            let sent = self.given.get(&self.newest_attachment).copied().unwrap_or_default();
            for (position, may_be_dropped) in kept {
                assert!(!may_be_dropped && position > sent, "{position} is kept above the bounds");
            }
        }
    }

    fn say(&mut self, input: &mut Input<'_>) {
        let class = input.pick(&[Class::Notification, Class::Event, Class::Request, Class::Response]);
        let (bytes, times) = (usize::from(input.byte()), input.byte());
        // Many small ones or a few large ones: either bound is met.
        let (bytes, times) = if times & 1 == 1 { (bytes, times) } else { (bytes * 1_024, 1) };
        if self.is_ended() {
            return self.recovery.push(class, Bytes::new());
        }
        for _ in 0..times {
            self.recovery.push(class, Bytes::from_static(&BODY[..bytes]));
            self.said(matches!(class, Class::Notification | Class::Event));
        }
    }

    fn take(&mut self, input: &mut Input<'_>) {
        let attachment = self.attachment(input);
        let bytes_max = if input.flag() { usize::MAX } else { usize::from(input.byte()) * 512 };
        let is_present = self.recovery.is_present(attachment);
        let taken = self.recovery.take(attachment, bytes_max);
        assert_eq!(taken.is_some(), is_present, "the present attachment is given what waits, and nobody else");
        let Some(Taken { gap, messages, has_more }) = taken else { return };

        let given = self.given.get_mut(&attachment).expect("it was attached");
        let before = *given;
        for message in &messages {
            assert!(message.position.0 > *given, "{} after {given}", message.position);
            *given = message.position.0;
        }
        let bytes: usize = messages.iter().map(|message| message.text.len()).sum();
        assert!(bytes <= bytes_max || messages.len() == 1, "{bytes} bytes, at most {bytes_max} were wanted");
        assert!(!has_more || !messages.is_empty(), "what goes on has begun");
        if !has_more {
            *given = self.said.len() as u64;
        }
        let missing = gap.map_or(0, |gap| {
            assert!(gap.from > before && gap.to <= *given && (1..=gap.to + 1 - gap.from).contains(&gap.dropped));
            gap.dropped
        });
        assert_eq!(*given - before, messages.len() as u64 + missing, "each was given, or told to be missing");
        self.ever_given = self.ever_given.max(*given);
    }

    fn lose(&mut self, input: &mut Input<'_>) {
        let attachment = self.attachment(input);
        let was_present = self.recovery.is_present(attachment);
        let until = self.recovery.detach(attachment, self.now);
        assert_eq!(until, was_present.then_some(self.now + WINDOW_MS));
    }

    /// What a client says it has; spelt as JSON, and as it is to be read.
    fn position(&self, input: &mut Input<'_>) -> (String, Option<u64>) {
        let number = match input.below(4) {
            0 => u64::from(input.byte()),
            1 => u64::MAX,
            2 => self.ever_given,
            _ => self.given.get(&self.newest_attachment).copied().unwrap_or_default(),
        };
        match input.below(6) {
            0 => ("null".to_owned(), None),
            1 => (format!("\"@@{number}\""), None),
            2 => (format!("\"{number}\""), Some(number)),
            3 => (number.to_string(), Some(number)),
            _ => (format!("\"@{number}\""), Some(number)),
        }
    }

    fn come_back(&mut self, input: &mut Input<'_>) {
        let wish = if input.below(4) == 0 {
            // Any text; most are no params at all.
            Object::parse(input.chunk()).and_then(|params| Wish::read(&params)).unwrap_or_default()
        } else {
            let (spelt, number) = self.position(input);
            let params = format!(r#"{{"lastMessageId":{spelt},"recoveryToken":"t"}}"#);
            let params = Object::parse(params.as_bytes()).expect("an object");
            let wish = Wish::read(&params).expect("it names the token");
            assert_eq!((wish.token.as_deref(), wish.position), (Some("t"), number.map(Position)), "{spelt}");
            wish
        };
        let serial = match input.below(4) {
            0 => u64::from(input.byte()),
            1 => self.newest_token + 1,
            2 => self.used,
            _ => self.newest_token,
        };
        let may = self.recovery.state().may_attach(self.now) && (self.used..=self.newest_token).contains(&serial);
        let before = self.recovery.state();
        let Ok(attached) = self.recovery.attach(serial, wish.position, self.now) else {
            assert!(!may, "token {serial} counts");
            return assert_eq!(self.recovery.state(), before, "nothing has changed");
        };
        assert!(may, "token {serial} does not count, or no longer");
        assert_eq!(attached.attachment, self.newest_attachment + 1);
        assert_eq!(attached.serial, self.newest_token + 1, "a token is given once");
        assert!(attached.position.0 <= self.ever_given, "nobody has what was never given");
        if let Some(said) = wish.position.filter(|position| position.0 <= self.ever_given) {
            assert_eq!(attached.position, said);
        }
        (self.newest_attachment, self.used, self.newest_token) = (attached.attachment, serial, attached.serial);
        self.given.insert(attached.attachment, attached.position.0);
    }

    fn heartbeat(&mut self, input: &mut Input<'_>) {
        let attachment = self.attachment(input);
        let (spelt, number) = self.position(input);
        let acknowledged = Position::acknowledged(format!(r#"{{"lastMessageId":{spelt}}}"#).as_bytes());
        assert_eq!(acknowledged, number.map(Position), "{spelt}");
        let (is_present, before) = (self.recovery.is_present(attachment), self.recovery.log().len());
        if let Some(position) = acknowledged {
            self.recovery.acknowledge(attachment, position);
            let may = is_present && position.0 <= self.ever_given;
            assert!(may || self.recovery.log().len() == before, "what can't be had lets nothing go");
        }
        let renewed = self.recovery.renew(attachment);
        assert_eq!(renewed, is_present.then_some(self.newest_token + 1));
        self.newest_token = renewed.unwrap_or(self.newest_token);
    }

    fn ask(&mut self, input: &mut Input<'_>) {
        let (id, digest) = (input.byte() % 32, input.byte() % 4);
        let key = input.flag().then(|| input.byte() % 16);
        let raw = RawValue::from_string(id.to_string()).expect("a number");
        let call = AskedCall { id: raw, digest: [digest; 32], key: key.map(|key| key.to_string().into()) };
        let by_id = self.calls.iter().position(|known| known.ids.contains(&id));
        let by_key = self.calls.iter().position(|known| key.is_some() && known.key == key);
        assert_eq!(self.recovery.knows(&call.id), by_id.is_some());
        let asked = self.recovery.ask(&call);
        let Some(index) = by_id.or(by_key) else {
            assert_eq!(asked, Ok(Asked::New));
            self.last_call += 1;
            let number = CallNumber(self.last_call);
            assert!(self.recovery.begin(number, &call));
            assert!(!self.recovery.begin(CallNumber(u64::MAX), &call), "nothing begins twice");
            return self.calls.push(Known { number, digest, ids: vec![id], key, is_running: true, is_not_run: false });
        };
        assert_ne!(asked, Ok(Asked::New), "it would be run twice");
        // One whose answer, given again, says that it was not run is forgotten with that.
        if !self.calls[index].is_not_run {
            assert!(!self.recovery.begin(CallNumber(u64::MAX), &call), "nothing begins twice");
        }
        let Ok(asked) = asked else { return };
        assert!(by_id.is_none() || by_key.is_none() || by_id == by_key, "two calls are not one");
        let known = &mut self.calls[index];
        assert!(known.digest == digest && (key.is_none() || known.key.is_none() || known.key == key));
        known.key = known.key.or(key);
        if !known.ids.contains(&id) {
            known.ids.push(id);
        }
        match asked {
            Asked::New => unreachable!("it was refused above"),
            Asked::Settled => {}
            Asked::Renamed(number) => assert_eq!(number, known.number),
            Asked::Again(number, text) => {
                assert_eq!(number, known.number);
                let said = Object::parse(&text).and_then(|text| text.get::<u8>("id"));
                assert_eq!(said, Some(id), "the answer comes under the id asked last");
                if known.is_not_run {
                    self.calls.remove(index);
                }
                self.said(false);
            }
        }
    }

    fn end_call(&mut self, input: &mut Input<'_>) {
        let (way, index) = (input.below(8), input.byte());
        if self.calls.is_empty() {
            return;
        }
        let index = usize::from(index) % self.calls.len();
        let number = self.calls[index].number;
        match way {
            0 => {
                self.recovery.take_back(number);
                // What is taken back before it is said that it was not run is forgotten with that.
                let known = &mut self.calls[index];
                if std::mem::replace(&mut known.is_running, false) && known.is_not_run && !self.is_ended() {
                    self.calls.remove(index);
                }
            }
            1 => {
                self.recovery.not_run(number);
                self.calls.remove(index);
            }
            2 => {
                self.recovery.answers_not_run(number);
                self.calls[index].is_not_run = true;
            }
            _ => {
                let id = self.calls[index].ids[0];
                self.recovery.answer(number, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#).into());
                // What ends says nothing more.
                if !self.is_ended() {
                    self.calls[index].is_running = false;
                    if self.calls[index].is_not_run {
                        self.calls.remove(index);
                    }
                    self.said(false);
                }
            }
        }
    }

    /// It ends once, and leaves nothing.
    fn end(&mut self) {
        let had_ended = self.is_ended();
        assert_eq!(self.recovery.end(), !had_ended);
        // Positions begin anew with a log that nobody is given.
        (self.said, self.calls) = (Vec::new(), Vec::new());
        assert_eq!((self.recovery.bytes(), self.recovery.log().len()), (0, 0));
        assert!(self.recovery.take(self.newest_attachment, usize::MAX).is_none());
        assert!(self.recovery.attach(self.newest_token, None, self.now).is_err());
    }
}
