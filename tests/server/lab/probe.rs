//! The channel of these tests: its handlers wait at gates that the test opens, crash where they are told to, and note
//! how they end.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use bennu::channel::{Channel, Cx, Handle, JoinCx, Next, Payload, Reason, Refusal, Reply, StopReason};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::DEADLINE;

/// What the channels of one server share with the test.
#[derive(Default)]
pub struct World {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    gates: BTreeMap<String, Arc<Semaphore>>,
    handles: Vec<(String, Handle<Tell>)>,
    reached: Vec<String>,
    ended: Vec<Ended>,
}

/// How a channel ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its topic.
    pub topic: String,
    /// Why.
    pub reason: Reason,
    /// The messages it had begun to handle: the state it ended with.
    pub handled: u32,
}

/// Where handlers wait until the test lets them through, for good.
pub struct Gate(Arc<Semaphore>);

impl Gate {
    /// Lets everyone through.
    pub fn open(&self) {
        self.0.close();
    }
}

impl World {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The gate of a name.
    pub fn gate(&self, name: &str) -> Gate {
        let mut state = self.lock();
        Gate(Arc::clone(state.gates.entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(0)))))
    }

    async fn pass(&self, gate: &str) {
        self.lock().reached.push(gate.to_owned());
        self.changed.notify_all();
        let Gate(gate) = self.gate(gate);
        assert!(gate.acquire().await.is_err(), "a gate opens by being closed as a semaphore");
    }

    /// A handle to the channel that joined a topic last.
    pub fn handle(&self, topic: &str) -> Handle<Tell> {
        let state = self.lock();
        let last = state.handles.iter().rfind(|(joined, _)| joined == topic);
        last.map(|(_, handle)| handle.clone()).expect("somebody has joined the topic")
    }

    /// How the channels of a topic ended so far, in order.
    pub fn ended(&self, topic: &str) -> Vec<Ended> {
        self.lock().ended.iter().filter(|ended| ended.topic == topic).cloned().collect()
    }

    /// Waits until `n` channels of a topic have run `terminate`, and gives their ends.
    #[track_caller]
    pub fn wait_ended(&self, topic: &str, n: usize) -> Vec<Ended> {
        let ended =
            |state: &State| state.ended.iter().filter(|ended| ended.topic == topic).cloned().collect::<Vec<_>>();
        ended(&self.wait(&format!("{n} channels of {topic} end"), |state| ended(state).len() >= n))
    }

    /// Waits until a handler stands before a gate.
    #[track_caller]
    pub fn wait_reached(&self, gate: &str) {
        drop(self.wait(&format!("a handler reaches {gate}"), |state| state.reached.iter().any(|name| name == gate)));
    }

    /// How many handlers have reached a gate so far.
    pub fn reached(&self, gate: &str) -> usize {
        self.lock().reached.iter().filter(|name| *name == gate).count()
    }

    #[track_caller]
    fn wait(&self, what: &str, holds: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let end = Instant::now() + DEADLINE;
        let mut state = self.lock();
        while !holds(&state) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited {DEADLINE:?} in vain: {what}; so far {:?}", state.ended);
            state = self.changed.wait_timeout(state, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        state
    }
}

/// What a test tells a channel from outside.
#[derive(Debug)]
pub enum Tell {
    /// Panic.
    Crash,
    /// Push `told` with this number.
    Push(u64),
}

/// The channel.
pub struct Probe {
    world: Arc<World>,
    topic: String,
    handled: u32,
    crash_at_end: bool,
}

impl Channel for Probe {
    type Info = Tell;
    const INTERCEPT: &'static [&'static str] = &["crash_out", "seen"];

    async fn join(topic: &str, params: Payload, cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        let world: Arc<World> = cx.state().expect("the route gives the world");
        let asked: Value = params.parse()?;
        if let Some(gate) = asked["gate"].as_str() {
            world.pass(gate).await;
        }
        assert!(asked["crash"] != true, "join was asked to crash");
        if asked["refuse"] == true {
            return Err(Refusal::reason("refused"));
        }
        world.lock().handles.push((topic.to_owned(), cx.handle()));
        Ok((Probe { world, topic: topic.to_owned(), handled: 0, crash_at_end: false }, Payload::EMPTY))
    }

    async fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> Next {
        self.handled += 1;
        match event {
            "echo" => Next::ok(payload),
            "hold_track" => {
                let asked: Value = payload.parse().expect("JSON");
                self.world.pass(asked["gate"].as_str().expect("a gate")).await;
                let tracked = cx.track(asked["key"].as_str().expect("a key"), &Payload::EMPTY);
                if let Some(gate) = asked["then"].as_str() {
                    self.world.pass(gate).await;
                }
                Next::ok(json!({"tracked": tracked.is_ok()}))
            }
            "big" => Next::ok(big(&payload)),
            "hold" => {
                let asked: Value = payload.parse().expect("JSON");
                self.world.pass(asked["gate"].as_str().expect("a gate")).await;
                assert!(asked["crash"] != true, "asked to crash after the gate");
                Next::ok(payload)
            }
            // The connection itself stands still, not only this channel.
            "freeze" => {
                let asked: Value = payload.parse().expect("JSON");
                let pass = self.world.pass(asked["gate"].as_str().expect("a gate"));
                tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(pass));
                Next::NoReply
            }
            "big_shout" => {
                cx.broadcast("shout", big(&payload));
                Next::ok(Payload::EMPTY)
            }
            "big_beside_shout" => {
                cx.broadcast("shout", payload.clone());
                Next::ok(big(&payload))
            }
            "shout" => {
                cx.broadcast("shout", payload);
                Next::ok(Payload::EMPTY)
            }
            "shout_from" => {
                cx.broadcast_from("shout", payload);
                Next::ok(Payload::EMPTY)
            }
            "push_shout_push" => {
                cx.push("first", payload.clone());
                cx.broadcast("shout", payload.clone());
                cx.push("second", payload);
                Next::ok(Payload::EMPTY)
            }
            "seen" | "crash_out" => {
                cx.broadcast(event, payload);
                Next::ok(Payload::EMPTY)
            }
            "crash" => panic!("asked to crash"),
            "crash_at_end" => {
                self.crash_at_end = true;
                Next::ok(Payload::EMPTY)
            }
            "stop" => Next::Stop { reason: StopReason::Normal, reply: Some(Reply::ok(payload)) },
            "track" => {
                let asked: Value = payload.parse().expect("JSON");
                let key = asked["key"].as_str().expect("a key");
                match cx.track(key, asked["meta"].clone()) {
                    Ok(_) => Next::ok(cx.presences()),
                    Err(error) => Next::error(json!({"reason": error.to_string()})),
                }
            }
            "untrack" => {
                let asked: Value = payload.parse().expect("JSON");
                cx.untrack(asked["key"].as_str().expect("a key"));
                Next::ok(cx.presences())
            }
            other => Next::crash(format!("no clause for {other:?}")),
        }
    }

    async fn handle_info(&mut self, info: Tell, cx: &mut Cx<Self>) -> Next {
        match info {
            Tell::Crash => panic!("told to crash"),
            Tell::Push(n) => cx.push("told", json!({"n": n})),
        }
        Next::NoReply
    }

    async fn handle_out(&mut self, event: &str, payload: &Payload, cx: &mut Cx<Self>) -> Next {
        assert!(event != "crash_out", "asked to crash in handle_out");
        cx.push(event, payload.clone());
        Next::NoReply
    }

    async fn terminate(&mut self, reason: &Reason, _cx: &mut Cx<Self>) {
        let ended = Ended { topic: self.topic.clone(), reason: reason.clone(), handled: self.handled };
        self.world.lock().ended.push(ended);
        self.world.changed.notify_all();
        assert!(!self.crash_at_end, "asked to crash in terminate");
    }
}

/// A channel that only listens.
pub struct Plain;

impl Channel for Plain {
    type Info = ();

    async fn join(_topic: &str, _params: Payload, _cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        Ok((Plain, Payload::EMPTY))
    }
}

/// As large a payload as asked for.
fn big(asked: &Payload) -> Value {
    let asked: Value = asked.parse().expect("JSON");
    let bytes = usize::try_from(asked["bytes"].as_u64().expect("a number")).expect("it fits");
    json!({"n": asked["n"], "fill": "x".repeat(bytes)})
}
