//! Plays a conversation on Bennu and on the reference, and compares after each step.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bennu::channel::SocketSpec;
use bennu::testing::{self, TestSocket, WireVersion};
use bennu::{ConnectInfo, Connected, Endpoint, Payload};
use serde_json::{Value, json};

use super::operation::{Broadcast, CLIENTS_MAX, IDS, JoinRef, NEWS, Op, ROOMS, Says, Sent, Shouted};
use super::puppet::{ClientName, Puppet, Stage};
use super::reference::{Asks, CHANNELS_MAX, Frame, Message, Version, WAITING_MAX, World, binary};
use super::script::{Act, BINARY, End, JoinScript, Script, Told};
use super::sight::{Names, Sight, lane};

/// Turns after which everything that is awake has run, also what that woke.
const TURNS: usize = 64;
/// Longer than any handler runs on.
const LONG_MS: u64 = 10_000;

/// Where Bennu does not do what the reference says.
pub type Divergence = String;

/// Plays a conversation to its end, and everything's.
///
/// # Errors
/// The first divergence, with the step it came up in.
pub fn play(ops: &[Op]) -> Result<(), Divergence> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O needs nothing").block_on(async {
        let mut play = Play::start().await;
        for (step, op) in ops.iter().enumerate() {
            play.op(op).await.map_err(|what| format!("step {step}, {op:?}:\n{what}"))?;
            if play.world.is_ambiguous {
                return Ok(());
            }
        }
        play.end().await.map_err(|what| format!("at the end of everything:\n{what}"))
    })
}

struct Play {
    endpoint: Endpoint,
    spec: Arc<SocketSpec>,
    stage: Arc<Stage>,
    world: World,
    peers: Vec<Peer>,
    names: Names,
    messages: u64,
    tasks_before: usize,
}

/// The real side of one client.
struct Peer {
    socket: Option<TestSocket>,
    version: Version,
    last_ref: u64,
    /// The join_refs it has joined a topic with.
    join_refs: HashMap<&'static str, Vec<Value>>,
    sight: Sight,
    /// It was disconnected, perhaps with others, and may have seen them go or not.
    sees_anything: bool,
}

impl Play {
    async fn start() -> Self {
        let endpoint = Endpoint::start();
        let stage = Arc::<Stage>::default();
        let connect = async |info: ConnectInfo| {
            let name = info.params.get_str("name").and_then(|name| name.parse().ok()).expect("the test gives one");
            let connected = Connected::with(ClientName(name));
            Ok(match info.params.get_str("id") {
                Some(id) => connected.id(id),
                None => connected,
            })
        };
        let spec = endpoint
            .socket("/socket")
            .connect(connect)
            .channel_with::<Puppet>("room:*", Arc::<Stage>::clone(&stage))
            .options(|options| options.channels_max = CHANNELS_MAX)
            .build();
        let mut play = Play {
            endpoint,
            spec,
            stage,
            world: World::default(),
            peers: Vec::new(),
            names: Names::default(),
            messages: 0,
            tasks_before: 0,
        };
        play.pass(1).await;
        play.tasks_before = alive_tasks();
        play
    }

    async fn op(&mut self, op: &Op) -> Result<(), Divergence> {
        match op {
            Op::Connect { is_v1, id } => {
                if self.world.connections() < CLIENTS_MAX {
                    self.connect(*is_v1, id.map(|id| IDS[id])).await;
                }
            }
            Op::Send { client, messages, yields } => {
                let Some(client) = self.open_client(*client) else { return Ok(()) };
                let mut yielding = None;
                for sent in messages {
                    // Nobody says what comes first of a message and of what is under way to the channel it is for.
                    let overlaps = yielding.is_some_and(|topic| !self.waits_its_turn(client, topic, sent));
                    if overlaps || self.world.has_mail(client) {
                        self.settle_and_compare().await?;
                        yielding = None;
                    }
                    if yields_in(&sent.says) {
                        yielding = Some(sent.topic);
                    }
                    self.send(client, sent);
                    for _ in 0..*yields {
                        tokio::task::yield_now().await;
                    }
                }
            }
            Op::Storm(shouted) => self.storm(shouted),
            Op::Open(which) => {
                let gates = self.world.gates();
                if let Some(gate) = gates.get(which % gates.len().max(1)) {
                    self.open(*gate)?;
                }
            }
            Op::Broadcast(topic, what) => self.broadcast(topic, *what),
            Op::Disconnect(id) => {
                for client in self.world.disconnect(IDS[*id]) {
                    self.peers[client].sees_anything = true;
                }
                self.endpoint.disconnect(IDS[*id]).expect("there is room");
            }
            Op::Gone(client) => {
                let Some(client) = self.open_client(*client) else { return Ok(()) };
                self.gone(client);
            }
            Op::Advance(ms) => {
                self.world.advance(*ms);
                self.pass(*ms).await;
            }
            Op::Flood { client, topic } => {
                let Some(client) = self.open_client(*client) else { return Ok(()) };
                return self.flood(client, topic).await;
            }
        }
        self.settle_and_compare().await
    }

    /// Everybody goes, and what waits is given the time it may take: nothing is left.
    async fn end(&mut self) -> Result<(), Divergence> {
        for client in 0..self.peers.len() {
            self.gone(client);
        }
        self.settle_and_compare().await?;
        self.world.advance(LONG_MS);
        self.pass(LONG_MS).await;
        self.settle_and_compare().await?;
        let tasks = alive_tasks();
        match tasks == self.tasks_before {
            true => Ok(()),
            false => Err(format!("{} tasks were alive before all this, {tasks} are", self.tasks_before)),
        }
    }

    async fn connect(&mut self, is_v1: bool, id: Option<&str>) {
        let (version, wire) = if is_v1 { (Version::V1, WireVersion::V1) } else { (Version::V2, WireVersion::V2) };
        let mut client = testing::Client::new().version(wire).param("name", self.peers.len().to_string());
        if let Some(id) = id {
            client = client.param("id", id);
        }
        let socket = client.connect(&self.spec).await.expect("everybody may connect");
        self.world.connect(version, id.map(str::to_owned));
        self.peers.push(Peer {
            socket: Some(socket),
            version,
            last_ref: 0,
            join_refs: HashMap::new(),
            sight: Sight::default(),
            sees_anything: false,
        });
    }

    fn open_client(&self, client: usize) -> Option<usize> {
        let open: Vec<usize> = (0..self.peers.len()).filter(|client| self.world.is_open(*client)).collect();
        open.get(client % open.len().max(1)).copied()
    }

    /// Whether it makes no difference for a message if a handler on this topic is still under way.
    fn waits_its_turn(&self, client: usize, topic: &str, sent: &Sent) -> bool {
        let join_ref = self.peers[client].join_refs.get(topic).and_then(|joins| joins.last());
        let is_current = sent.join_ref == JoinRef::Right && join_ref.is_some_and(|join_ref| !join_ref.is_null());
        sent.topic == topic && is_current && matches!(sent.says, Says::Do(_) | Says::Leave)
    }

    fn gone(&mut self, client: usize) {
        self.peers[client].socket = None;
        self.world.close(client, 1006);
    }

    /// A client sends a message, on both sides.
    fn send(&mut self, client: usize, sent: &Sent) {
        let Some(socket) = &self.peers[client].socket else { return };
        if let Says::Malformed = sent.says {
            socket.send_text("[");
            let asks = Asks::Malformed;
            let (join_ref, reference) = (Value::Null, Value::Null);
            return self.world.receive(client, Message { join_ref, reference, topic: String::new(), asks });
        }
        self.messages += 1;
        let n = self.messages;
        let told = |script: &Script| json!(Told { n, script });
        let (event, payload, asks) = match &sent.says {
            Says::Join(script) => {
                let asks = Asks::Join { n, script: script.clone() };
                (json!("phx_join"), json!(Told::<&JoinScript> { n, script }), asks)
            }
            Says::Leave => (json!("phx_leave"), json!({}), Asks::Leave),
            Says::Do(script) => (json!("do"), told(script), Asks::Do { n, script: script.clone() }),
            Says::Unknown => (json!("phx_close"), json!({}), Asks::Unknown),
            Says::OddEvent => (json!(["do"]), json!({}), Asks::OddEvent),
            Says::Heartbeat => (json!("heartbeat"), json!({}), Asks::Heartbeat),
            Says::Malformed => unreachable!("it was seen to above"),
        };
        let topic = if matches!(sent.says, Says::Heartbeat) { "phoenix" } else { sent.topic };
        let is_join = matches!(sent.says, Says::Join(_));
        let peer = &mut self.peers[client];
        let (join_ref, reference) = peer.references(sent.topic, sent.join_ref, is_join);
        if is_join {
            peer.sight.asked_to_join(&reference, sent.topic, &join_ref);
        }
        let text = match peer.version {
            Version::V2 => json!([join_ref, reference, topic, event, payload]),
            Version::V1 if join_ref.is_null() => {
                json!({"ref": reference, "topic": topic, "event": event, "payload": payload})
            }
            Version::V1 => {
                json!({"join_ref": join_ref, "ref": reference, "topic": topic, "event": event, "payload": payload})
            }
        };
        self.peers[client].socket.as_ref().expect("it was there above").send_text(text.to_string());
        self.world.receive(client, Message { join_ref, reference, topic: topic.to_owned(), asks });
    }

    fn storm(&mut self, shouted: &[Shouted]) {
        for Shouted { client, topic, script } in shouted {
            match client {
                None => self.broadcast(topic, Broadcast::Shout),
                Some(client) => {
                    let says = Says::Do(script.clone());
                    if let Some(client) = self.open_client(*client) {
                        self.send(client, &Sent { topic, join_ref: JoinRef::Right, says });
                    }
                }
            }
        }
    }

    fn broadcast(&mut self, topic: &str, what: Broadcast) {
        self.messages += 1;
        let said = json!({"by": "endpoint", "n": self.messages});
        let (event, shown, payload): (_, _, Payload) = match what {
            Broadcast::Shout => ("shout", said.clone(), said.into()),
            Broadcast::Secret => ("secret", said.clone(), said.into()),
            Broadcast::List => ("shout", json!([said]), json!([said]).into()),
            Broadcast::Binary => ("shout", binary(BINARY), Payload::Binary(BINARY.into())),
        };
        self.world.broadcast(topic, event, &shown);
        self.endpoint.broadcast(topic, event, payload).expect("there is room");
    }

    fn open(&mut self, gate: u32) -> Result<(), Divergence> {
        self.world.open(gate);
        if self.stage.open(gate) { Ok(()) } else { Err(format!("nothing waits at gate {gate}")) }
    }

    async fn flood(&mut self, client: usize, topic: &'static str) -> Result<(), Divergence> {
        if !self.world.is_quiet(client, topic) {
            return Ok(());
        }
        let says = |says| Sent { topic, join_ref: JoinRef::Right, says };
        for _ in 0..WAITING_MAX + 2 {
            self.send(client, &says(Says::Do(Script { acts: vec![Act::Push], end: End::Ok })));
        }
        self.send(client, &says(Says::Heartbeat));
        self.settle_and_compare().await?;
        while self.world.is_clogged(client)
            && let Some(gate) = self.world.gate_on(client, topic)
        {
            self.open(gate)?;
            self.settle_and_compare().await?;
        }
        Ok(())
    }

    /// Lets all that is under way arrive.
    async fn pass(&mut self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
    }

    async fn settle_and_compare(&mut self) -> Result<(), Divergence> {
        self.world.settle();
        self.world.advance(1);
        self.pass(1).await;
        if self.world.is_ambiguous {
            return Ok(());
        }
        for client in 0..self.peers.len() {
            self.compare_client(client).await?;
        }
        let mut expected = std::mem::take(&mut self.world.terminated);
        let mut actual = self.stage.take_terminated();
        expected.sort();
        actual.sort();
        same("terminate", &expected, &actual)?;
        for topic in ROOMS.iter().chain(&IDS).chain(&[NEWS]) {
            let (expected, actual) = (self.world.subscriptions(topic), self.endpoint.subscriptions(topic).await);
            same(&format!("subscriptions of {topic}"), &expected, &actual)?;
        }
        for topic in ROOMS {
            let (expected, actual) = (self.world.presences(topic), self.endpoint.presences(topic));
            let actual = actual.parse().expect("presences are JSON");
            if !self.names.same(&expected, &actual) {
                same(&format!("presences of {topic}"), &expected, &actual)?;
            }
        }
        same("connections", &self.world.connections(), &self.endpoint.connections())
    }

    /// Compares what a client has seen since the last time.
    async fn compare_client(&mut self, client: usize) -> Result<(), Divergence> {
        let expected = std::mem::take(&mut self.world.clients[client].frames);
        let Peer { socket, sight, sees_anything, .. } = &mut self.peers[client];
        let Some(socket) = socket else { return Ok(()) };
        let mut actual = Vec::new();
        while let Some(message) = at_once(socket.next()).await.flatten() {
            actual.push(frame(message));
        }
        let told = || {
            let list = |frames: &[Frame]| frames.iter().map(|frame| format!("\n    {frame:?}")).collect::<String>();
            format!("client {client}\n  should see:{}\n  sees:{}", list(&expected), list(&actual))
        };
        let lanes = |frames: &[Frame]| {
            let mut lanes = BTreeMap::<String, Vec<Frame>>::new();
            for frame in frames {
                lanes.entry(lane(client, frame)).or_default().push(frame.clone());
            }
            lanes
        };
        let (expected_lanes, actual_lanes) = (lanes(&expected), lanes(&actual));
        let is_same = expected_lanes.len() == actual_lanes.len()
            && expected_lanes.iter().zip(&actual_lanes).all(|(expected, actual)| {
                expected.0 == actual.0
                    && expected.1.len() == actual.1.len()
                    && expected.1.iter().zip(actual.1).all(|(expected, actual)| {
                        let without = |frame: &Frame| Frame { payload: Value::Null, ..frame.clone() };
                        without(expected) == without(actual) && self.names.same(&expected.payload, &actual.payload)
                    })
            });
        if !is_same && !*sees_anything {
            return Err(told());
        }
        for frame in &actual {
            sight.sees(frame).map_err(|what| format!("{what}\n{}", told()))?;
        }
        let code = at_once(socket.closed()).await;
        let due = self.world.clients[client].code.filter(|_| self.world.is_over(client));
        same(&format!("close code of client {client}"), &due, &code)
    }
}

impl Peer {
    /// The join_ref and ref of its next message on a topic.
    fn references(&mut self, topic: &'static str, which: JoinRef, is_join: bool) -> (Value, Value) {
        self.last_ref += 1;
        let (number, text) = (json!(self.last_ref), json!(self.last_ref.to_string()));
        let joins = self.join_refs.entry(topic).or_default();
        if is_join {
            let (join_ref, reference) = match which {
                // A join without one lends its ref to the channel, so that both kinds come up.
                JoinRef::Right if self.version == Version::V1 => (Value::Null, text),
                JoinRef::Right | JoinRef::Stale => (text.clone(), text),
                JoinRef::Null => (Value::Null, text),
                JoinRef::OtherType => (number.clone(), number),
                JoinRef::Foreign => (json!(format!("j{}", self.last_ref)), text),
            };
            joins.push(join_ref.clone());
            return (join_ref, reference);
        }
        let right = joins.last().cloned().unwrap_or_else(|| json!("0"));
        let join_ref = match which {
            JoinRef::Right => right,
            JoinRef::Stale => joins.iter().rev().nth(1).cloned().unwrap_or_else(|| json!("0")),
            JoinRef::Null => Value::Null,
            JoinRef::OtherType => match right {
                Value::String(text) => text.parse::<u64>().map_or(json!(text), |number| json!(number)),
                other => json!(other.to_string()),
            },
            JoinRef::Foreign => json!("foreign"),
        };
        (join_ref, text)
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, expected: &T, actual: &T) -> Result<(), Divergence> {
    if expected == actual { Ok(()) } else { Err(format!("{what}\n  should be {expected:?}\n  is        {actual:?}")) }
}

/// What a future gives, if it has that already.
async fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        value = future => Some(value),
        () = std::future::ready(()) => None,
    }
}

fn frame(message: testing::Message) -> Frame {
    let testing::Message { join_ref, reference, topic, event, payload, status, .. } = message;
    let payload = payload.parse().unwrap_or_else(|_| binary(payload.as_bytes()));
    Frame { join_ref, reference, topic, event, status, payload }
}

fn alive_tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

fn yields_in(says: &Says) -> bool {
    let acts = match says {
        Says::Join(script) => &script.acts,
        Says::Do(script) => &script.acts,
        _ => return false,
    };
    acts.contains(&Act::Yield)
}
