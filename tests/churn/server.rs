//! The server whose holdings are counted, in this process, and its channel.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bennu::Server;
use bennu::channel::{Channel, Compression, Connected, Cx, Endpoint, JoinCx, Next, Payload, Refusal, SocketOptions};
use bennu::server::{Held, Running, ServerOptions};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::HEAP;
use crate::client::Client;

/// Bounds every wait for something that has to happen.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The topic whose presences are counted.
pub const CROWD: &str = "room:crowd";

/// A server that has the process to itself.
pub struct Subject {
    pub endpoint: Endpoint,
    running: Running,
    runtime: Runtime,
    /// What was there before anybody came.
    rest: Rest,
    _turn: MutexGuard<'static, ()>,
}

/// What is there when nobody is.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Rest {
    held: Held,
    tasks: usize,
    descriptors: usize,
    present: bool,
}

/// Waits until no other test counts.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Subject {
    /// Starts a server with compression and a long poll of a short window.
    pub fn start(change: impl FnOnce(&mut ServerOptions, &mut SocketOptions)) -> Self {
        let turn = turn();
        let runtime = bennu::server::runtime(2).expect("a runtime starts");
        let guard = runtime.enter();
        let mut options = ServerOptions::default();
        options.listen = ([127, 0, 0, 1], 0).into();
        let mut socket = SocketOptions::default();
        socket.compression = Compression::On;
        socket.longpoll.get_or_insert_default().window_ms = 100;
        change(&mut options, &mut socket);

        let endpoint = Endpoint::start();
        let spec = endpoint
            .socket("/socket")
            .connect(|info| {
                let mut connected = Connected::default();
                connected.id = info.params.get_str("user").map(str::to_owned);
                std::future::ready(Ok(connected))
            })
            .channel::<Room>("room:*")
            .options(|options| *options = socket);
        let server = Server::new(&endpoint).socket(spec).options(|settings| *settings = options);
        let running = server.start().expect("a free port of 127.0.0.1");
        drop(guard);
        let mut subject = Subject { endpoint, running, runtime, rest: Rest::default(), _turn: turn };
        // A first client, so that everything stands that the runtime makes when it is first needed.
        Client::open(subject.address()).end();
        until("the first client is gone", || subject.held() == Held::default());
        subject.rest = subject.now();
        subject
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.running.address()
    }

    /// What it holds for its clients.
    pub fn held(&self) -> Held {
        self.running.held()
    }

    /// What is there at this moment.
    fn now(&self) -> Rest {
        // The listing has a descriptor of its own while it is read.
        let descriptors = std::fs::read_dir("/proc/self/fd").expect("proc(5)").count() - 1;
        let present = self.endpoint.presences(CROWD).as_bytes() != b"{}";
        Rest { held: self.held(), tasks: self.runtime.metrics().num_alive_tasks(), descriptors, present }
    }

    /// Waits until everyone who came is gone.
    #[track_caller]
    pub fn until_at_rest(&self) {
        // Connections are accepted in the order of their coming: none waits behind this one.
        Client::open(self.address()).end();
        let end = Instant::now() + DEADLINE;
        while self.now() != self.rest {
            let (now, rest) = (self.now(), &self.rest);
            assert!(Instant::now() < end, "after {DEADLINE:?} there is {now:?}, expected {rest:?}");
            std::thread::yield_now();
        }
    }

    /// Waits until everyone who came is gone, and gives the bytes on the heap.
    #[track_caller]
    pub fn bytes_at_rest(&self) -> usize {
        self.until_at_rest();
        HEAP.current_usage()
    }
}

/// Waits until a condition holds.
///
/// # Panics
/// If it doesn't within [`DEADLINE`].
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "waited {DEADLINE:?} in vain: {what}");
        std::thread::yield_now();
    }
}

/// The channel: it answers, tracks, waits, and sends itself messages.
struct Room;

impl Channel for Room {
    type Info = ();
    const INTERCEPT: &'static [&'static str] = &["seen"];

    async fn join(_topic: &str, _params: Payload, _cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        Ok((Room, Payload::EMPTY))
    }

    async fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> Next {
        match event {
            "track" => {
                let asked: Value = payload.parse().expect("JSON");
                cx.track(asked["key"].as_str().expect("a key"), &Payload::EMPTY).expect("a key of its own");
            }
            "shout" => cx.broadcast("shout", payload.clone()),
            "see" => cx.broadcast("seen", payload.clone()),
            "later" => drop(cx.send_after(Duration::from_millis(50), ())),
            "wait" => tokio::time::sleep(Duration::from_millis(50)).await,
            "big" => return Next::ok(json!({"fill": "x".repeat(200_000)})),
            _ => {}
        }
        Next::ok(payload)
    }

    async fn handle_info(&mut self, (): (), cx: &mut Cx<Self>) -> Next {
        cx.push("told", Payload::EMPTY);
        Next::NoReply
    }
}
