//! The table of a socket's topics against Phoenix's rules over an ordered map.
//!
//! Stands in for the two sides that the table has: a client whose messages go through the real wire, and a server whose
//! channels answer joins at once or later, push, close and crash. The model has the rules of
//! `Phoenix.Socket.__in__/2` on decoded values; it knows neither positions nor canonical texts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::input::Input;
use super::json::Term;
use crate::protocol::message::{HEARTBEAT, PHOENIX, PHX_CLOSE, PHX_ERROR, PHX_JOIN, PHX_LEAVE, Payload, Ref, Reply};
use crate::protocol::socket::{ChannelId, Request, Socket};
use crate::protocol::wire::{
    Incoming, Kind, Text, WireVersion, decode_binary, decode_text, encode_message, encode_push, encode_reply,
};

/// Topics as JSON. Phoenix takes any value for a topic and finds no channel for those that are no string.
const TOPICS: [&str; 8] = ["\"a\"", "\"b\"", "\"room:1\"", "\"\\u0061\"", "\"phoenix\"", "\"\"", "1", "null"];

const EVENTS: [&str; 8] =
    ["\"phx_join\"", "\"phx_leave\"", "\"echo\"", "\"heartbeat\"", "\"phx\\u005fjoin\"", "\"phx_close\"", "null", "7"];

/// References that are equal in some way and not in another.
const REFS: [&str; 12] = [
    "null",
    "\"1\"",
    "1",
    "1.0",
    "10e-1",
    "\"\\u0031\"",
    "\"2\"",
    "2",
    "[1]",
    "[ 1 ]",
    "{\"a\":1,\"b\":2}",
    "{ \"b\":2, \"a\":1}",
];

/// Topics that a socket may have joined.
const CHANNELS_MAX: usize = 3;

/// The topic table, driven as the server drives it. Input: the version, then operations of one to five bytes.
///
/// # Panics
/// If the table asks for something else than the model, if its entries are not the model's, if an id comes twice, or if
/// a frame says something else than the model would.
pub fn socket_ops(data: &[u8]) {
    let mut input = Input::new(data);
    let version = if input.flag() { WireVersion::V1 } else { WireVersion::V2 };
    let mut play = Play { version, socket: Socket::default(), model: BTreeMap::new(), ids: Vec::new(), serial: 0 };
    while !input.is_empty() {
        match input.below(16) {
            0..10 => play.message(&mut input),
            10 => play.finish_join(&mut input),
            11 => play.push(&mut input),
            12 => play.end(&mut input, PHX_CLOSE),
            13 => play.end(&mut input, PHX_ERROR),
            14 => play.late_mail(&mut input),
            _ => play.disconnect(),
        }
        play.check_table();
    }
}

/// What the driver keeps beside an entry: which channel it is, and the join that waits for it.
#[derive(Debug)]
struct Slot {
    serial: u32,
    /// The join's answer is still due.
    pending: Option<Ref>,
    /// A further join, with its reference, that has to wait for the pending one.
    awaited: Option<(Ref, Ref)>,
}

/// A channel as the model has it, by its topic.
#[derive(Clone, PartialEq, Debug)]
struct Channel {
    serial: u32,
    join_ref: Term,
    reference: Term,
    pending: bool,
    /// The join_ref and the ref of the join that waits.
    awaited: Option<(Term, Term)>,
}

impl Channel {
    /// What the channel's own frames carry: without a join_ref, the join's ref.
    fn push_ref(&self) -> &Term {
        if self.join_ref == null() { &self.reference } else { &self.join_ref }
    }
}

/// What a message asks for, by the model: channels by their number.
#[derive(PartialEq, Debug)]
enum Asked {
    Heartbeat,
    Join(Option<u32>),
    Leave(u32),
    LeaveUnjoined,
    Deliver(u32),
    Stale,
    Unmatched,
}

struct Play {
    version: WireVersion,
    socket: Socket<Slot>,
    model: BTreeMap<String, Channel>,
    /// Every id so far, by the channel's number.
    ids: Vec<ChannelId>,
    serial: u32,
}

impl Play {
    /// The client says something.
    fn message(&mut self, input: &mut Input<'_>) {
        let (topic, event) = (input.pick(&TOPICS), input.pick(&EVENTS));
        let (join_ref, reference) = (self.some_ref(topic, input), input.pick(&REFS));
        let answers = input.byte();
        let sent = Sent::write(self.version, &join_ref, reference, topic, event, answers & 0x80 != 0);
        let Sent { join_ref, reference, .. } = sent.as_decoded();

        let message = sent.decode(self.version);
        assert_eq!(term(message.reference.as_json()), reference);
        assert_eq!(term(message.join_ref.as_json()), join_ref);
        let asked = self.ask(&term(topic), &term(event), &join_ref);
        let request = self.socket.classify(&message);
        assert_eq!(self.by_number(request), asked, "{message:?} among {:?}", self.model);
        self.obey(request, &message, (&join_ref, &reference), answers);
    }

    /// A reference: one of the usual, or the one that the topic was joined with.
    fn some_ref(&self, topic: &str, input: &mut Input<'_>) -> String {
        let choice = input.below(16);
        let joined = match term(topic) {
            Term::Str(topic) => self.socket.find(&topic).and_then(|_| self.model.get(&topic)),
            _ => None,
        };
        match (choice, joined) {
            (12..16, Some(channel)) => {
                let mut spelt = String::new();
                let awaited = channel.awaited.as_ref().map(|(join_ref, _)| join_ref);
                awaited.filter(|_| choice & 1 == 0).unwrap_or(&channel.join_ref).spell(&mut spelt);
                spelt
            }
            _ => REFS[choice % REFS.len()].to_owned(),
        }
    }

    /// What Phoenix would do.
    fn ask(&self, topic: &Term, event: &Term, join_ref: &Term) -> Asked {
        let is = |name: &str| *event == Term::Str(name.to_owned());
        let channel = match topic {
            Term::Str(topic) if topic == PHOENIX && is(HEARTBEAT) => return Asked::Heartbeat,
            Term::Str(topic) => self.model.get(topic),
            _ => None,
        };
        let Some(channel) = channel else {
            return match () {
                () if is(PHX_JOIN) => Asked::Join(None),
                () if is(PHX_LEAVE) => Asked::LeaveUnjoined,
                () => Asked::Unmatched,
            };
        };
        let current = channel.awaited.as_ref().map_or(&channel.join_ref, |(join_ref, _)| join_ref);
        match () {
            () if is(PHX_JOIN) => Asked::Join(Some(channel.serial)),
            () if *join_ref != null() && join_ref != current => Asked::Stale,
            () if is(PHX_LEAVE) => Asked::Leave(channel.serial),
            () => Asked::Deliver(channel.serial),
        }
    }

    fn by_number(&mut self, request: Request) -> Asked {
        let mut serial = |at| self.socket.entry(at).state.serial;
        match request {
            Request::Heartbeat => Asked::Heartbeat,
            Request::Join { existing } => Asked::Join(existing.map(serial)),
            Request::Leave(at) => Asked::Leave(serial(at)),
            Request::LeaveUnjoined => Asked::LeaveUnjoined,
            Request::Deliver(at) => Asked::Deliver(serial(at)),
            Request::Stale => Asked::Stale,
            Request::Unmatched => Asked::Unmatched,
        }
    }

    /// Carries out what the table decided, on both.
    fn obey(&mut self, request: Request, message: &Incoming<'_>, sent: (&Term, &Term), answers: u8) {
        let (join_ref, reference) = (&message.join_ref, &message.reference);
        let ok = Reply::ok(Payload::EMPTY);
        match request {
            Request::Stale => {}
            Request::Heartbeat => self.reply(&Ref::NULL, message, &ok, &null(), sent.1),
            Request::LeaveUnjoined => self.reply(join_ref, message, &ok, sent.0, sent.1),
            Request::Unmatched => self.reply(&Ref::NULL, message, &unmatched(), &null(), sent.1),
            Request::Deliver(at) => {
                let push_ref = self.socket.entry(at).push_ref().clone();
                let expected = self.channel(message.topic.as_str()).push_ref().clone();
                self.reply(&push_ref, message, &ok, &expected, sent.1);
            }
            Request::Leave(at) => {
                let push_ref = self.socket.entry(at).push_ref().clone();
                let expected = self.channel(message.topic.as_str()).push_ref().clone();
                self.reply(&push_ref, message, &ok, &expected, sent.1);
                self.remove(at, PHX_CLOSE);
            }
            Request::Join { existing } => {
                let Some(topic) = message.topic.as_str() else {
                    return self.reply(&Ref::NULL, message, &unmatched(), &null(), sent.1);
                };
                let refs = (join_ref.clone(), reference.clone());
                let terms = (sent.0.clone(), sent.1.clone());
                match existing {
                    Some(at) if self.socket.entry(at).state.pending.is_some() => {
                        let entry = self.socket.entry(at);
                        entry.awaited_join_ref = Some(Box::new(refs.0.clone()));
                        entry.state.awaited = Some(refs);
                        self.model.get_mut(topic).expect("the topic is joined").awaited = Some(terms);
                    }
                    Some(at) => {
                        self.remove(at, PHX_CLOSE);
                        self.join(topic, refs, terms, answers);
                    }
                    None => self.join(topic, refs, terms, answers),
                }
            }
        }
    }

    /// Takes a topic up; the answer comes at once or later.
    fn join(&mut self, topic: &str, (join_ref, reference): (Ref, Ref), terms: (Term, Term), answers: u8) {
        if self.socket.len() >= CHANNELS_MAX {
            return;
        }
        let serial = self.serial;
        self.serial += 1;
        let pending = answers & 1 == 1;
        let slot = Slot { serial, pending: pending.then(|| reference.clone()), awaited: None };
        let id = self.socket.insert(Arc::from(topic), join_ref, &reference, slot);
        assert!(!self.ids.contains(&id), "{id:?} comes twice");
        self.ids.push(id);
        let channel = Channel { serial, join_ref: terms.0, reference: terms.1, pending, awaited: None };
        assert_eq!(self.model.insert(topic.to_owned(), channel), None, "{topic} was still joined");
    }

    /// A pending join is answered, or refused; the join that waited for it follows.
    fn finish_join(&mut self, input: &mut Input<'_>) {
        let accepted = input.flag();
        let pending: Vec<String> =
            self.model.iter().filter(|(_, channel)| channel.pending).map(|(topic, _)| topic.clone()).collect();
        if pending.is_empty() {
            return;
        }
        let topic = pending[input.below(pending.len())].clone();
        let at = self.socket.find(&topic).expect("the topic is joined");
        let slot = &mut self.socket.entry(at).state;
        let reference = slot.pending.take().expect("the join is pending on both sides");
        let awaited = slot.awaited.take();
        let channel = self.model.get_mut(&topic).expect("the topic is joined");
        channel.pending = false;
        let awaited_terms = channel.awaited.take();
        let (join_ref, channel) = (self.socket.entry(at).join_ref.clone(), channel.clone());
        self.write_reply(&join_ref, &reference, &topic, &Reply::ok(Payload::EMPTY), &channel);

        assert_eq!(awaited.is_some(), awaited_terms.is_some());
        let gone = !accepted || awaited.is_some();
        if gone {
            self.remove(at, PHX_CLOSE);
        }
        if let (Some(refs), Some(terms)) = (awaited, awaited_terms) {
            self.join(&topic, refs, terms, input.byte());
        }
    }

    /// A channel pushes.
    fn push(&mut self, input: &mut Input<'_>) {
        let Some((topic, channel)) = self.some_channel(input) else { return };
        let at = self.socket.find(&topic).expect("the topic is joined");
        let push_ref = self.socket.entry(at).push_ref().clone();
        let mut out = Vec::new();
        encode_push(self.version, &mut out, &push_ref, &topic, "news", &Payload::EMPTY).expect("JSON can be encoded");
        self.check_frame(&out, [channel.push_ref(), &null(), &str_term(&topic), &str_term("news")]);
    }

    /// The server ends a channel.
    fn end(&mut self, input: &mut Input<'_>, event: &str) {
        let Some((topic, _)) = self.some_channel(input) else { return };
        let at = self.socket.find(&topic).expect("the topic is joined");
        self.remove(at, event);
    }

    /// Something comes for a channel that is perhaps no longer there.
    fn late_mail(&mut self, input: &mut Input<'_>) {
        if self.ids.is_empty() {
            return;
        }
        let number = input.below(self.ids.len().min(256));
        let first = self.serial as usize - self.ids.len();
        let found = self.socket.position(self.ids[number]);
        let found = found.map(|at| self.socket.entry(at).topic.to_string());
        let expected = self.model.iter().find(|(_, channel)| channel.serial as usize == first + number);
        assert_eq!(found.as_ref(), expected.map(|(topic, _)| topic));
    }

    /// The connection ends; the client comes back with a fresh one.
    fn disconnect(&mut self) {
        let drained: BTreeMap<String, u32> =
            self.socket.drain().into_iter().map(|entry| (entry.topic.to_string(), entry.state.serial)).collect();
        let expected = std::mem::take(&mut self.model).into_iter().map(|(topic, channel)| (topic, channel.serial));
        assert_eq!(drained, expected.collect());
        assert!(self.socket.is_empty());
        self.socket = Socket::default();
        self.ids.clear();
    }

    fn some_channel(&self, input: &mut Input<'_>) -> Option<(String, Channel)> {
        let count = self.model.len();
        let chosen = self.model.iter().nth(input.below(count.max(1)))?;
        Some((chosen.0.clone(), chosen.1.clone()))
    }

    fn channel(&self, topic: Option<&str>) -> &Channel {
        topic.and_then(|topic| self.model.get(topic)).expect("the topic is joined")
    }

    /// Takes a channel out and tells the client.
    fn remove(&mut self, at: usize, event: &str) {
        let entry = self.socket.remove(at);
        let channel = self.model.remove(&*entry.topic).expect("the topic is joined");
        assert_eq!(entry.state.serial, channel.serial);
        let mut out = Vec::new();
        encode_message(self.version, &mut out, &entry.join_ref, &entry.join_ref, &entry.topic, event, &Payload::EMPTY)
            .expect("JSON can be encoded");
        self.check_frame(&out, [&channel.join_ref, &channel.join_ref, &str_term(&entry.topic), &str_term(event)]);
    }

    /// Answers a message; `expected` are the references that the model has for it.
    fn reply(
        &self,
        join_ref: &Ref,
        message: &Incoming<'_>,
        reply: &Reply,
        expected_join_ref: &Term,
        expected_ref: &Term,
    ) {
        let mut out = Vec::new();
        let kind = encode_reply(
            self.version,
            &mut out,
            join_ref,
            &message.reference,
            &message.topic,
            &reply.status,
            &reply.response,
        );
        assert_eq!(kind, Ok(Kind::Text));
        let topic = match &message.topic {
            Text::Str(topic) => str_term(topic),
            Text::Json(json) => term(json),
        };
        self.check_frame(&out, [expected_join_ref, expected_ref, &topic, &str_term("phx_reply")]);
    }

    /// Answers a join.
    fn write_reply(&self, join_ref: &Ref, reference: &Ref, topic: &str, reply: &Reply, channel: &Channel) {
        let mut out = Vec::new();
        encode_reply(self.version, &mut out, join_ref, reference, &topic.into(), &reply.status, &reply.response)
            .expect("JSON can be encoded");
        self.check_frame(&out, [&channel.join_ref, &channel.reference, &str_term(topic), &str_term("phx_reply")]);
    }

    /// Holds a frame's join_ref, ref, topic and event against the model's.
    fn check_frame(&self, frame: &[u8], expected: [&Term; 4]) {
        let text = std::str::from_utf8(frame).expect("a text frame is UTF-8");
        match (self.version, term(text)) {
            (WireVersion::V2, Term::List(fields)) => {
                assert_eq!(fields.len(), 5, "{text}");
                for (found, expected) in fields.iter().zip(expected) {
                    assert_eq!(found, expected, "{text}");
                }
            }
            (WireVersion::V1, Term::Map(fields)) => {
                let names = ["ref", "topic", "event"];
                assert_eq!(fields.len(), 4, "{text}");
                for (name, expected) in names.into_iter().zip(&expected[1..]) {
                    assert_eq!(&fields.get(name), &Some(*expected), "{text}");
                }
            }
            (_, other) => panic!("{other:?} is no frame"),
        }
    }

    /// Every entry is a channel of the model, and every channel has its entry.
    fn check_table(&mut self) {
        assert_eq!(self.socket.len(), self.model.len());
        assert_eq!(self.socket.is_empty(), self.model.is_empty());
        assert!(self.socket.len() <= CHANNELS_MAX);
        for (topic, channel) in &self.model {
            let at = self.socket.find(topic).expect("a joined topic is found");
            let entry = self.socket.entry(at);
            assert_eq!(&*entry.topic, topic);
            assert_eq!(entry.state.serial, channel.serial);
            assert_eq!(term(entry.join_ref.as_json()), channel.join_ref);
            assert_eq!(term(entry.push_ref().as_json()), *channel.push_ref());
            let id = entry.id;
            assert_eq!(self.socket.position(id), Some(at));
        }
        for topic in ["nowhere", "A", "room:"] {
            assert_eq!(self.socket.find(topic), None);
        }
    }
}

/// A client's message as it is sent, and its references as JSON.
struct Sent<R> {
    join_ref: R,
    reference: R,
    bytes: Vec<u8>,
    binary: bool,
}

impl Sent<String> {
    /// Writes a message; in binary where it is asked for and all parts are strings, as phoenix.js has them.
    fn write(version: WireVersion, join_ref: &str, reference: &str, topic: &str, event: &str, binary: bool) -> Self {
        let parts = [join_ref, reference, topic, event].map(term);
        let texts = parts.iter().map(|part| match part {
            Term::Str(text) => Some(text.as_str()),
            _ => None,
        });
        let texts: Option<Vec<&str>> = texts.collect();
        let (bytes, binary) = match (version, texts) {
            (WireVersion::V2, Some(texts)) if binary => {
                let lengths = texts.iter().map(|text| text.len() as u8);
                let mut bytes: Vec<u8> = std::iter::once(0).chain(lengths).collect();
                bytes.extend(texts.concat().into_bytes());
                (bytes, true)
            }
            (WireVersion::V2, _) => (format!("[{join_ref} ,{reference}, {topic},\n{event},{{}}]").into_bytes(), false),
            (WireVersion::V1, _) => {
                let join_ref = if join_ref == "null" { String::new() } else { format!(",\"join_ref\":{join_ref}") };
                let text = format!(
                    "{{\"topic\":{topic},\"event\":{event},\"payload\":{{}},\"ref\":{reference}{join_ref},\"ref\":0}}"
                );
                (text.into_bytes(), false)
            }
        };
        Sent { join_ref: join_ref.to_owned(), reference: reference.to_owned(), bytes, binary }
    }

    fn as_decoded(&self) -> Sent<Term> {
        Sent {
            join_ref: term(&self.join_ref),
            reference: term(&self.reference),
            bytes: Vec::new(),
            binary: self.binary,
        }
    }

    fn decode(&self, version: WireVersion) -> Incoming<'_> {
        let decoded = if self.binary {
            decode_binary(version, &self.bytes)
        } else {
            decode_text(version, std::str::from_utf8(&self.bytes).expect("the parts are text"))
        };
        decoded.expect("the client's messages are sound")
    }
}

fn unmatched() -> Reply {
    Reply::error(Payload::reason("unmatched topic"))
}

fn null() -> Term {
    Term::Word("null".to_owned())
}

fn str_term(text: &str) -> Term {
    Term::Str(text.to_owned())
}

/// The term of a sound text.
fn term(json: &str) -> Term {
    Term::read(json, 16).expect("the text is JSON")
}
