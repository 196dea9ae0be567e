//! Producers and consumers that note everything and outlive the servers that they talk to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use serde_json::{Value, json};

use super::check::{Got, Name, Note, What, Wish};
use super::{Plan, Random, topic};
use crate::lab::{DEADLINE, Peer, handshake};

const PRIORITIES: [&str; 4] = ["urgent", "high", "normal", "low"];

/// Messages that nobody has acknowledged, above which producers wait.
const WAITING_MAX: usize = 400;

/// Messages of which a consumer says nothing, on one connection.
const KEPT_MAX: u64 = 3;

/// Messages of an earlier connection that a consumer speaks of, and one.
const LATE_MAX: u64 = 4;

/// How long a client with something else to do waits for a frame.
const GLANCE: Duration = Duration::from_millis(10);

/// What all clients of a round share.
pub struct World<'a> {
    pub plan: &'a Plan,
    notes: Mutex<Vec<Note>>,
    connections: AtomicU64,
    /// Messages in the queues, more or less.
    waiting: Mutex<isize>,
    /// Told of each answer, for whoever kills.
    answers: Mutex<Option<mpsc::Sender<()>>>,
    /// The messages that have to come before the end, once it is near.
    owed: Mutex<Option<BTreeSet<String>>>,
}

impl<'a> World<'a> {
    pub fn new(plan: &'a Plan) -> Self {
        World {
            plan,
            notes: Mutex::default(),
            connections: AtomicU64::new(1),
            waiting: Mutex::default(),
            answers: Mutex::default(),
            owed: Mutex::default(),
        }
    }

    pub fn note(&self, connection: u64, what: What) {
        let change = match &what {
            What::Sent(..) => 1,
            What::Acked(_) | What::Nacked { is_dead: true, .. } => -1,
            _ => 0,
        };
        *self.waiting.lock().expect("no panic") += change;
        self.notes.lock().expect("no panic").push(Note { connection, what });
    }

    fn answered(&self, connection: u64, what: What) {
        self.note(connection, what);
        if let Some(answers) = &*self.answers.lock().expect("no panic") {
            // Who kills may have heard enough.
            let _ = answers.send(());
        }
    }

    /// A server is about to be started, in whose queues so many messages are.
    pub fn begin(&self, waiting: usize, answers: mpsc::Sender<()>) {
        self.note(0, What::Life);
        *self.waiting.lock().expect("no panic") = isize::try_from(waiting).expect("a number that fits");
        *self.answers.lock().expect("no panic") = Some(answers);
    }

    /// What was noted since this was asked last.
    pub fn take_notes(&self) -> Vec<Note> {
        std::mem::take(&mut *self.notes.lock().expect("no panic"))
    }

    fn is_too_much(&self) -> bool {
        usize::try_from(*self.waiting.lock().expect("no panic")).is_ok_and(|waiting| waiting > WAITING_MAX)
    }

    /// The end is near: these have to come yet.
    pub fn owe(&self, owed: BTreeSet<String>) {
        *self.owed.lock().expect("no panic") = Some(owed);
    }

    /// How many have to come yet, once the end is near.
    pub fn owes(&self) -> Option<usize> {
        self.owed.lock().expect("no panic").as_ref().map(BTreeSet::len)
    }
}

/// A message of the server in the parts that count.
struct Frame {
    reference: u64,
    event: String,
    topic: String,
    payload: Value,
}

impl Frame {
    fn is_ok(&self) -> bool {
        self.payload["status"] == "ok"
    }

    fn response(&self) -> &Value {
        &self.payload["response"]
    }

    /// The word of a refusal.
    fn reason(&self) -> String {
        self.response()["reason"].as_str().map_or_else(|| self.payload.to_string(), str::to_owned)
    }
}

/// What a look at a connection brings.
enum Came {
    Frame(Frame),
    Nothing,
    Gone,
}

/// A connection to a server that may end at any moment.
struct Line {
    peer: Peer,
    number: u64,
}

impl Line {
    /// None where the server is gone already.
    fn open(address: SocketAddr, world: &World<'_>) -> Option<Self> {
        let mut peer = Peer::raw(TcpStream::connect(address).ok()?);
        peer.write(handshake("vsn=2.0.0").as_bytes());
        let answer = peer.next_within(DEADLINE)?;
        (answer.status == Some(101)).then_some(())?;
        Some(Line { peer, number: world.connections.fetch_add(1, Ordering::Relaxed) })
    }

    fn join(&mut self, queue: usize, params: Value, world: &World<'_>) -> Option<()> {
        let reference = self.peer.send(&topic(queue), "phx_join", params);
        loop {
            match self.next(DEADLINE) {
                Came::Frame(frame) if frame.event == "phx_reply" && frame.reference == reference => {
                    if !frame.is_ok() || frame.response()["durability"] != "durable" {
                        world.note(self.number, What::Odd(format!("a join's reply {}", frame.payload)));
                    }
                    return Some(());
                }
                Came::Frame(_) => {}
                Came::Nothing | Came::Gone => return None,
            }
        }
    }

    fn next(&mut self, limit: Duration) -> Came {
        let Some(event) = self.peer.next_within(limit) else { return Came::Nothing };
        let Some(text) = event.raw else { return Came::Gone };
        let parts: Result<(Value, Value, String, String, Value), _> = serde_json::from_str(&text);
        let (_, reference, topic, event, payload) = parts.unwrap_or_else(|error| panic!("{error}: {text}"));
        let reference = reference.as_u64().unwrap_or_default();
        Came::Frame(Frame { reference, event, topic, payload })
    }
}

/// The payload of a message: whoever gets it sees whose it is, and whether it is whole.
fn payload(name: Name, bytes: usize) -> Value {
    let text: String = (0..bytes as u64)
        .map(|at| {
            char::from(b'a' + (name.n.wrapping_mul(7).wrapping_add(at.wrapping_mul(name.producer + 3)) % 26) as u8)
        })
        .collect();
    json!({"producer": name.producer, "n": name.n, "text": text})
}

/// Whose message a payload is; none where it is not as it was sent.
fn name_of(came: &Value) -> Option<Name> {
    let name = Name { producer: came["producer"].as_u64()?, n: came["n"].as_u64()? };
    (payload(name, came["text"].as_str()?.len()) == *came).then_some(name)
}

/// An id with its queue, within which alone it is a message's own.
fn whole(queue: usize, id: &str) -> String {
    format!("{} {id}", topic(queue))
}

/// The id in [`whole`].
fn bare(id: &str) -> &str {
    id.rsplit(' ').next().unwrap_or_default()
}

/// Sends messages of its own numbers through all lives.
pub struct Producer {
    number: u64,
    random: Random,
    n: u64,
    /// Messages with a key whose answer never came.
    unanswered: VecDeque<(Name, Value, Wish)>,
    /// One with a key that was answered, to be sent again.
    answered: Option<(Name, Value, Wish)>,
}

impl Producer {
    pub fn new(number: u64, random: Random) -> Self {
        Producer { number, random, n: 0, unanswered: VecDeque::new(), answered: None }
    }

    /// Sends until the server is gone.
    pub fn live(&mut self, address: SocketAddr, world: &World<'_>) {
        let Some(mut line) = Line::open(address, world) else { return };
        for queue in 0..world.plan.queues {
            if line.join(queue, json!({"consume": false}), world).is_none() {
                return;
            }
        }
        let at_once = 1 + self.random.below(16) as usize;
        let mut again: VecDeque<_> = std::mem::take(&mut self.unanswered);
        again.extend(self.answered.take());
        let mut open: BTreeMap<u64, (Name, Value, Wish)> = BTreeMap::new();
        loop {
            let has_room = open.len() < at_once;
            if has_room && (!again.is_empty() || !world.is_too_much()) {
                let (name, message, wish) = again.pop_front().unwrap_or_else(|| self.next(world.plan));
                world.note(line.number, What::Sent(name, wish.clone()));
                let reference = line.peer.send(&topic(wish.queue), "enqueue", message.clone());
                open.insert(reference, (name, message, wish));
                continue;
            }
            match line.next(if has_room { GLANCE } else { DEADLINE }) {
                Came::Nothing if has_room => {}
                Came::Nothing => {
                    world.note(line.number, What::Odd("no answer for a long time".into()));
                    break;
                }
                Came::Gone => break,
                Came::Frame(frame) => self.answer(&frame, line.number, &mut open, world),
            }
        }
        let open = open.into_values().chain(again);
        self.unanswered.extend(open.filter(|(_, _, wish)| wish.is_keyed));
    }

    /// Sends a message of each priority to each queue, and nothing else. Gives their ids.
    pub fn mark(&mut self, address: SocketAddr, world: &World<'_>) -> Vec<String> {
        let Some(mut line) = Line::open(address, world) else { return Vec::new() };
        let mut ids = Vec::new();
        for queue in 0..world.plan.queues {
            line.join(queue, json!({"consume": false}), world);
            for priority in PRIORITIES {
                self.n += 1;
                let name = Name { producer: self.number, n: self.n };
                let wish = Wish { queue, priority, is_keyed: false, is_delayed: false, is_frail: false };
                world.note(line.number, What::Sent(name, wish));
                let message = json!({"payload": payload(name, 10), "priority": priority});
                line.peer.send(&topic(queue), "enqueue", message);
                match line.next(DEADLINE) {
                    Came::Frame(frame) if frame.response()["message_id"].is_string() => {
                        let id = whole(queue, frame.response()["message_id"].as_str().unwrap_or_default());
                        world.note(line.number, What::Answered(name, id.clone()));
                        ids.push(id);
                    }
                    _ => world.note(line.number, What::Odd("no answer to the last messages".into())),
                }
            }
        }
        ids
    }

    fn answer(
        &mut self,
        frame: &Frame,
        connection: u64,
        open: &mut BTreeMap<u64, (Name, Value, Wish)>,
        world: &World<'_>,
    ) {
        let Some((name, message, wish)) = open.remove(&frame.reference).filter(|_| frame.event == "phx_reply") else {
            return world.note(connection, What::Odd(format!("{} {}", frame.event, frame.payload)));
        };
        match frame.response()["message_id"].as_str() {
            Some(id) if frame.is_ok() && frame.response()["durability"] == "durable" => {
                world.answered(connection, What::Answered(name, whole(wish.queue, id)));
            }
            _ => world.note(connection, What::Refused(name, frame.payload.to_string())),
        }
        if wish.is_keyed && self.random.below(10) == 0 {
            self.answered = Some((name, message, wish));
        }
    }

    /// A message that was never sent.
    fn next(&mut self, plan: &Plan) -> (Name, Value, Wish) {
        self.n += 1;
        let name = Name { producer: self.number, n: self.n };
        let random = &mut self.random;
        let wish = Wish {
            queue: random.below(plan.queues as u64) as usize,
            priority: PRIORITIES[random.below(4) as usize],
            is_keyed: random.below(3) == 0,
            is_delayed: random.below(20) == 0,
            is_frail: !plan.leases_end() && random.below(20) == 0,
        };
        let bytes = 40 + random.below(120) as usize;
        let bytes = if random.below(plan.large_every) == 0 { 64 * bytes } else { bytes };
        let mut message = json!({"payload": payload(name, bytes), "priority": wish.priority});
        if wish.is_keyed {
            message["idempotency_key"] = format!("{}-{}", name.producer, name.n).into();
        }
        if wish.is_delayed {
            message["delay_ms"] = (1 + random.below(200)).into();
        }
        if wish.is_frail {
            message["max_retries"] = 0.into();
        }
        (name, message, wish)
    }
}

/// What is open on a consumer's connection: requests by their refs.
#[derive(Default)]
struct Open {
    acks: BTreeMap<u64, (Vec<String>, bool)>,
    nacks: BTreeMap<u64, String>,
    /// To be acknowledged together.
    gathered: Vec<String>,
    /// Messages of which nothing is said.
    kept: u64,
}

/// Takes messages through all lives.
pub struct Consumer {
    queue: usize,
    random: Random,
    /// What it had from earlier connections and never acknowledged.
    before: Vec<String>,
}

impl Consumer {
    pub fn new(queue: usize, random: Random) -> Self {
        Consumer { queue, random, before: Vec::new() }
    }

    /// Takes until the server is gone, or nothing is owed any more.
    pub fn live(&mut self, address: SocketAddr, world: &World<'_>) {
        while let Some(line) = Line::open(address, world) {
            if self.visit(line, world).is_none() {
                return;
            }
        }
    }

    /// One connection; none where the server is gone or the end has come.
    fn visit(&mut self, mut line: Line, world: &World<'_>) -> Option<()> {
        let is_end = world.owes().is_some();
        let in_flight_max = if is_end { 100 } else { KEPT_MAX + LATE_MAX + self.random.below(30) };
        let params = json!({"capabilities": ["message_ack", "message_nack"], "max_in_flight": in_flight_max});
        // Some say late what they did before; they come first, as what waits is pushed behind the join.
        let mut late = std::mem::take(&mut self.before);
        late.truncate(if is_end { 0 } else { self.random.below(LATE_MAX) as usize });
        let late_set: BTreeSet<String> = late.iter().cloned().collect();
        line.join(self.queue, params, world)?;
        let mut open = Open::default();
        for id in late {
            self.ack(vec![id], true, &mut line, &mut open, world);
        }
        // Some leave after a while, and come again.
        let mut left = if is_end || self.random.below(3) > 0 { u64::MAX } else { 5 + self.random.below(60) };
        let mut held: BTreeSet<String> = BTreeSet::new();
        let outcome = loop {
            if left == 0 {
                world.note(line.number, What::Closing);
                break Some(());
            }
            if world.owes() == Some(0) && open.acks.is_empty() && open.nacks.is_empty() && open.gathered.is_empty() {
                world.note(line.number, What::Closing);
                return None;
            }
            let wait = if open.gathered.is_empty() && !is_end { DEADLINE } else { GLANCE };
            match line.next(wait) {
                Came::Gone => break None,
                Came::Nothing => self.ack_gathered(&mut line, &mut open, world),
                Came::Frame(frame) if frame.event == "message" && frame.topic == topic(self.queue) => {
                    left -= 1;
                    let text = |key: &str| frame.payload[key].as_str().unwrap_or_default().to_owned();
                    let number = |key: &str| frame.payload[key].as_u64().unwrap_or(u64::MAX);
                    let id = whole(self.queue, &text("message_id"));
                    let got = Got {
                        id: id.clone(),
                        name: name_of(&frame.payload["payload"]),
                        queue: self.queue,
                        priority: text("priority"),
                        attempt: number("attempt"),
                        retries: number("retry_count"),
                    };
                    world.note(line.number, What::Got(got));
                    if !late_set.contains(&id) {
                        held.insert(id.clone());
                        self.decide(id, is_end, &mut line, &mut open, world);
                    } else if is_end {
                        self.ack(vec![id], true, &mut line, &mut open, world);
                    }
                }
                Came::Frame(frame) => {
                    self.answer(&frame, line.number, &mut open, &mut held, world);
                }
            }
        };
        self.before = held.into_iter().collect();
        outcome
    }

    /// What becomes of a message.
    fn decide(&mut self, id: String, is_end: bool, line: &mut Line, open: &mut Open, world: &World<'_>) {
        match self.random.below(100) {
            _ if is_end => self.ack(vec![id], false, line, open, world),
            0..70 => self.ack(vec![id], false, line, open, world),
            70..85 => {
                open.gathered.push(id);
                if open.gathered.len() as u64 > self.random.below(8) {
                    self.ack_gathered(line, open, world);
                }
            }
            85..92 => {
                world.note(line.number, What::Nacking(id.clone()));
                let payload = json!({"message_id": bare(&id), "error": "not today"});
                let reference = line.peer.send(&topic(self.queue), "message_nack", payload);
                open.nacks.insert(reference, id);
            }
            92..96 => {
                line.peer.send(&topic(self.queue), "message_extend", json!({"message_id": bare(&id)}));
                self.ack(vec![id], false, line, open, world);
            }
            // Kept until the connection ends, or its lease; not so many that it has no room for others.
            _ if open.kept < KEPT_MAX => open.kept += 1,
            _ => self.ack(vec![id], false, line, open, world),
        }
    }

    fn ack(&mut self, ids: Vec<String>, late: bool, line: &mut Line, open: &mut Open, world: &World<'_>) {
        ids.iter().for_each(|id| world.note(line.number, What::Acking(id.clone())));
        let payload = match &ids[..] {
            [id] => json!({"message_id": bare(id)}),
            ids => json!({"message_ids": ids.iter().map(|id| bare(id)).collect::<Vec<_>>()}),
        };
        let reference = line.peer.send(&topic(self.queue), "message_ack", payload);
        open.acks.insert(reference, (ids, late));
    }

    fn ack_gathered(&mut self, line: &mut Line, open: &mut Open, world: &World<'_>) {
        if !open.gathered.is_empty() {
            let ids = std::mem::take(&mut open.gathered);
            self.ack(ids, false, line, open, world);
        }
    }

    fn answer(
        &mut self,
        frame: &Frame,
        connection: u64,
        open: &mut Open,
        held: &mut BTreeSet<String>,
        world: &World<'_>,
    ) {
        let response = frame.response();
        let odd = || world.note(connection, What::Odd(format!("{} {}", frame.event, frame.payload)));
        // Where leases end, a message comes twice, and what is said of it then may be said twice.
        let may_be_late =
            |frame: &Frame| world.plan.leases_end() && ["lease_over", "already_settled"].contains(&&*frame.reason());
        if frame.event != "phx_reply" {
            return odd();
        }
        if let Some(id) = open.nacks.remove(&frame.reference) {
            let is_dead = response["dead_letter"] == true;
            match frame.is_ok() {
                true => world.answered(connection, What::Nacked { id: id.clone(), is_dead }),
                false if may_be_late(frame) => {}
                false => odd(),
            }
            held.remove(&id);
            settle(&id, world);
            return;
        }
        let Some((ids, late)) = open.acks.remove(&frame.reference) else {
            // An extension's.
            if !frame.is_ok() && !may_be_late(frame) {
                odd();
            }
            return;
        };
        for id in &ids {
            let refused = match (frame.is_ok(), &ids[..]) {
                (false, _) => Some(frame.reason()),
                (true, [_]) => None,
                (true, _) => response["refused"][bare(id)].as_str().map(str::to_owned),
            };
            match refused {
                None => {
                    held.remove(id);
                    settle(id, world);
                    world.answered(connection, What::Acked(id.clone()));
                }
                Some(why) => world.note(connection, What::AckRefused { id: id.clone(), why, late }),
            }
        }
    }
}

/// Nothing is owed of it any more.
fn settle(id: &str, world: &World<'_>) {
    if let Some(owed) = &mut *world.owed.lock().expect("no panic") {
        owed.remove(id);
    }
}
