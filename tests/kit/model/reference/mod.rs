//! The reference: what clients see of the server, told as plain sequential code from Phoenix's semantics and protocol.md.
//!
//! It shares nothing with the implementation but the words. Everything happens at once and in order: no tasks, no shards,
//! no fences. What a message brings about reaches other channels as *mail*, which [`World::settle`] hands out.
//!
//! - `channel`: joins, messages and ends of one topic.
//! - `act`: what handlers do.

mod act;
mod channel;

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use super::script::{End, Gate, JoinScript, Script};

pub const CHANNELS_MAX: usize = 3;
/// Source: ARCHITECTURE.md, "Bounds".
pub const WAITING_MAX: usize = 64;
/// Milliseconds that handlers may run on without their connection. Source: the same.
const ORPHAN_MS: u64 = 5_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// What a client sees. In V1 there is no join_ref.
#[derive(Clone, PartialEq)]
pub struct Frame {
    pub join_ref: Value,
    pub reference: Value,
    pub topic: String,
    pub event: String,
    pub status: Option<String>,
    pub payload: Value,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Frame { join_ref, reference, topic, event, status, payload } = self;
        write!(f, "[{join_ref}, {reference}, {topic}, {event} {}, {payload}]", status.as_deref().unwrap_or_default())
    }
}

/// One message of a client.
#[derive(Clone, Debug)]
pub struct Message {
    pub join_ref: Value,
    pub reference: Value,
    pub topic: String,
    pub asks: Asks,
}

/// What it asks for.
#[derive(Clone, Debug)]
pub enum Asks {
    Join {
        n: u64,
        script: JoinScript,
    },
    Leave,
    Do {
        n: u64,
        script: Script,
    },
    /// An event that channels have no clause for.
    Unknown,
    /// An event that is no string.
    OddEvent,
    Heartbeat,
    Malformed,
}

pub struct Client {
    pub version: Version,
    pub id: Option<String>,
    /// None while it is connected.
    pub code: Option<u16>,
    /// When the handlers that it left behind are dropped.
    cut_off_at: Option<u64>,
    pub frames: Vec<Frame>,
    unread: VecDeque<Message>,
    mail: VecDeque<(usize, Work)>,
}

struct Channel {
    client: usize,
    topic: String,
    joined_n: u64,
    join_ref: Value,
    /// The join_ref of its replies and pushes.
    push_ref: Value,
    /// Whether it is what its client's messages on the topic reach.
    is_joined: bool,
    /// Whether broadcasts on its topic reach the client.
    is_subscribed: bool,
    /// Further topics that its code hears.
    subscriptions: Vec<String>,
    state: State,
    waiting: VecDeque<Work>,
    /// The join_ref of the last join that waits.
    awaited: Option<Value>,
    /// The join_ref of the channel whose end this one's answer is followed by.
    replaces: Option<Value>,
    /// It crashes once its handler is through.
    is_doomed: bool,
    at_end: Option<Script>,
}

enum State {
    Idle,
    /// A handler waits at a gate.
    Busy(Task),
    Over,
}

/// A handler under way.
struct Task {
    kind: Kind,
    n: u64,
    acts: VecDeque<(usize, super::script::Act)>,
    results: Vec<bool>,
    /// What it has said since it last waited.
    said: Vec<Said>,
}

enum Said {
    Push(Value),
    Broadcast { topic: String, event: &'static str, payload: Value, except: Option<usize> },
}

enum Kind {
    Join(Value, super::script::JoinEnd),
    Message(Value, End),
    Info(End),
    Terminate,
}

/// What a channel is to do.
enum Work {
    Message(Message),
    Info(u64, Script),
    Heard(Value),
    Intercepted(Value),
}

struct Presence {
    topic: String,
    key: String,
    channel: usize,
    meta: Value,
}

struct Timer {
    at: u64,
    channel: usize,
    n: u64,
    script: Script,
}

struct Late {
    gate: Gate,
    channel: usize,
    reference: Value,
    n: u64,
    is_binary: bool,
}

#[derive(Default)]
pub struct World {
    now: u64,
    pub clients: Vec<Client>,
    channels: Vec<Channel>,
    presences: Vec<Presence>,
    timers: Vec<Timer>,
    late: Vec<Late>,
    /// Whose `terminate` ran, and why.
    pub terminated: Vec<String>,
    phx_refs: usize,
    /// A handler has let others run since the world settled.
    has_yielded: bool,
    /// Something has happened that has no one order: two timers have fired at the same moment, or a channel has sent itself a
    /// message while a broadcast was under way to it, or a socket was closed by a handler that had let others run
    /// while something was under way to it.
    pub is_ambiguous: bool,
}

impl World {
    pub fn connect(&mut self, version: Version, id: Option<String>) {
        self.clients.push(Client {
            version,
            id,
            code: None,
            cut_off_at: None,
            frames: Vec::new(),
            unread: VecDeque::new(),
            mail: VecDeque::new(),
        });
    }

    /// A client sends a message. What it brings about elsewhere is done when the world settles.
    pub fn receive(&mut self, client: usize, message: Message) {
        if self.is_open(client) {
            self.clients[client].unread.push_back(message);
            self.read(client);
        }
    }

    /// Does all that is left to do.
    pub fn settle(&mut self) {
        while let Some(client) =
            (0..self.clients.len()).find(|client| self.has_mail(*client) && !self.is_clogged(*client))
        {
            let (channel, work) = self.clients[client].mail.pop_front().expect("there is mail");
            if self.channels[channel].is_joined {
                self.work(channel, work);
            }
            self.read(client);
        }
        for client in 0..self.clients.len() {
            self.read(client);
        }
        self.has_yielded = false;
    }

    /// Whether a client's socket has closed and all its handlers have ended.
    pub fn is_over(&self, client: usize) -> bool {
        !self.is_open(client) && !self.of(client).any(|channel| matches!(self.channels[channel].state, State::Busy(_)))
    }

    /// Whether what waits on a client's topic publishes nothing and sends nothing to channels.
    pub fn is_quiet(&self, client: usize, topic: &str) -> bool {
        use super::script::Act;
        let is_quiet = |act: &Act| matches!(act, Act::Push | Act::Wait(_) | Act::Yield | Act::Later(..));
        let Some(channel) = self.find(client, topic) else { return false };
        let State::Busy(task) = &self.channels[channel].state else { return false };
        task.acts.iter().all(|(_, act)| is_quiet(act))
            && self.channels[channel].at_end.is_none()
            && self.channels[channel].waiting.iter().all(|work| match work {
                Work::Message(Message { asks: Asks::Do { script, .. }, .. }) => script.acts.iter().all(is_quiet),
                Work::Message(Message { asks: Asks::Join { .. }, .. }) => false,
                Work::Message(_) | Work::Heard(_) | Work::Intercepted(_) => true,
                Work::Info(..) => false,
            })
    }

    /// Whether something is under way to a client's channels.
    pub fn has_mail(&self, client: usize) -> bool {
        !self.clients[client].mail.is_empty()
    }

    /// Lets time pass.
    pub fn advance(&mut self, ms: u64) {
        let until = self.now + ms;
        loop {
            let timer = (0..self.timers.len()).min_by_key(|timer| self.timers[*timer].at);
            let timer = timer.map(|timer| (self.timers[timer].at, timer));
            let cut_off = (0..self.clients.len()).filter_map(|client| Some((self.clients[client].cut_off_at?, client)));
            let cut_off = cut_off.min();
            let due = self.timers.iter().map(|timer| timer.at).chain(cut_off.map(|cut_off| cut_off.0));
            let first = due.clone().min().filter(|at| *at <= until);
            self.is_ambiguous |= first.is_some_and(|first| due.filter(|at| *at == first).count() > 1);
            match (timer, cut_off) {
                (Some((at, timer)), cut_off) if at <= until && cut_off.is_none_or(|cut_off| at <= cut_off.0) => {
                    self.now = at;
                    let Timer { channel, n, script, .. } = self.timers.remove(timer);
                    self.post(channel, Work::Info(n, script));
                }
                (_, Some((at, client))) if at <= until => {
                    self.now = at;
                    self.cut_off(client);
                }
                _ => break,
            }
            self.settle();
        }
        self.now = until;
    }

    /// Somebody who is no client broadcasts.
    pub fn broadcast(&mut self, topic: &str, event: &str, payload: &Value) {
        self.publish(topic, event, payload, None);
    }

    /// Closes the sockets with an id, and says which.
    pub fn disconnect(&mut self, id: &str) -> Vec<usize> {
        let is_meant = |client: &usize| self.is_open(*client) && self.clients[*client].id.as_deref() == Some(id);
        let closing: Vec<usize> = (0..self.clients.len()).filter(is_meant).collect();
        closing.iter().for_each(|client| self.close(*client, 1001));
        closing
    }

    /// A socket closes: everything of it ends.
    pub fn close(&mut self, client: usize, code: u16) {
        if !self.is_open(client) {
            return;
        }
        self.clients[client].code = Some(code);
        self.is_ambiguous |= self.has_yielded && self.has_mail(client);
        self.clients[client].unread.clear();
        self.clients[client].mail.clear();
        // Also of handlers that run on.
        for channel in self.of(client).collect::<Vec<_>>() {
            self.channels[channel].subscriptions.clear();
        }
        let joined: Vec<usize> = self.of(client).filter(|channel| self.channels[*channel].is_joined).collect();
        for &channel in &joined {
            self.disappear(channel);
        }
        for &channel in &joined {
            self.channels[channel].is_joined = false;
            self.channels[channel].is_doomed = false;
            self.channels[channel].waiting.clear();
            self.terminate(channel, "SocketClosed");
        }
        if self.of(client).any(|channel| matches!(self.channels[channel].state, State::Busy(_))) {
            self.clients[client].cut_off_at = Some(self.now + ORPHAN_MS);
        }
    }

    /// The handlers that a client left behind are dropped.
    fn cut_off(&mut self, client: usize) {
        self.clients[client].cut_off_at = None;
        for channel in self.of(client).collect::<Vec<_>>() {
            if matches!(self.channels[channel].state, State::Busy(_)) {
                self.channels[channel].state = State::Over;
                self.disappear(channel);
            }
        }
    }

    /// The gates at which something waits, the oldest first.
    pub fn gates(&self) -> Vec<Gate> {
        let mut gates: Vec<Gate> = self.late.iter().map(|late| late.gate).collect();
        gates.extend((0..self.channels.len()).filter_map(|channel| self.gate_of(channel)));
        gates.sort_unstable();
        gates
    }

    /// The gate at which the handler of a client's channel waits.
    pub fn gate_on(&self, client: usize, topic: &str) -> Option<Gate> {
        self.gate_of(self.find(client, topic)?)
    }

    fn gate_of(&self, channel: usize) -> Option<Gate> {
        match &self.channels[channel].state {
            State::Busy(Task { acts, .. }) => match acts.front() {
                Some((_, super::script::Act::Wait(gate))) => Some(*gate),
                _ => None,
            },
            _ => None,
        }
    }

    /// Opens a gate.
    pub fn open(&mut self, gate: Gate) {
        if let Some(late) = self.late.iter().position(|late| late.gate == gate) {
            let Late { channel, reference, n, is_binary, .. } = self.late.remove(late);
            return self.reply_late(channel, &reference, n, is_binary);
        }
        let Some(channel) = (0..self.channels.len()).find(|channel| self.gate_of(*channel) == Some(gate)) else {
            return;
        };
        let State::Busy(mut task) = std::mem::replace(&mut self.channels[channel].state, State::Idle) else {
            unreachable!("a handler waits there");
        };
        task.acts.pop_front();
        self.run(channel, task);
        let client = self.channels[channel].client;
        if !self.of(client).any(|channel| matches!(self.channels[channel].state, State::Busy(_))) {
            self.clients[client].cut_off_at = None;
        }
    }

    /// How many subscriptions a topic has.
    pub fn subscriptions(&self, topic: &str) -> usize {
        let ids = self.clients.iter().filter(|client| client.code.is_none() && client.id.as_deref() == Some(topic));
        let of = |channel: &Channel| {
            let further = channel.subscriptions.iter().filter(|held| *held == topic).count();
            further + usize::from(channel.is_subscribed && channel.topic == topic)
        };
        ids.count() + self.channels.iter().map(of).sum::<usize>()
    }

    /// Who is on a topic, as clients are told.
    pub fn presences(&self, topic: &str) -> Value {
        let mut keys = BTreeMap::<&str, Vec<(usize, usize, &Value)>>::new();
        for presence in self.presences.iter().filter(|presence| presence.topic == topic) {
            let owner = (self.channels[presence.channel].client, presence.channel, &presence.meta);
            keys.entry(&presence.key).or_default().push(owner);
        }
        let mut state = json!({});
        for (key, mut metas) in keys {
            metas.sort_by_key(|(client, channel, _)| (*client, *channel));
            state[key] = json!({"metas": metas.iter().map(|(_, _, meta)| meta).collect::<Vec<_>>()});
        }
        state
    }

    pub fn connections(&self) -> usize {
        self.clients.iter().filter(|client| client.code.is_none()).count()
    }

    /// Whether a channel has as much waiting as it may: then its client is not read.
    pub fn is_clogged(&self, client: usize) -> bool {
        self.of(client).any(|channel| self.channels[channel].waiting.len() >= WAITING_MAX)
    }

    pub fn is_open(&self, client: usize) -> bool {
        self.clients[client].code.is_none()
    }

    fn of(&self, client: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.channels.len()).filter(move |channel| self.channels[*channel].client == client)
    }

    fn find(&self, client: usize, topic: &str) -> Option<usize> {
        self.of(client).find(|channel| self.channels[*channel].is_joined && self.channels[*channel].topic == topic)
    }

    fn frame(&mut self, client: usize, frame: Frame) {
        let client = &mut self.clients[client];
        if client.code.is_none() {
            let join_ref = if client.version == Version::V1 { Value::Null } else { frame.join_ref };
            client.frames.push(Frame { join_ref, ..frame });
        }
    }
}

/// A binary payload as these tests write it.
pub fn binary(data: &[u8]) -> Value {
    json!({"binary": data})
}

pub fn is_binary(payload: &Value) -> bool {
    payload.get("binary").is_some()
}
