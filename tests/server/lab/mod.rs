//! A server inside the test, whose limits and channels the test chooses, and a client that reads only when it is told to.

mod kernel;
mod peer;
mod poll;
pub mod probe;

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bennu::channel::{ConnectInfo, Connected, Endpoint, SocketOptions};
use bennu::metrics::{Counter, METRICS};
use bennu::server::{Held, Running, Server, ServerOptions};
use tokio::runtime::Runtime;
use warp::Filter;

use crate::transcripts::http;
pub use kernel::{reset_at_end, trickle, until_read, write_all};
pub use peer::{Message, Peer, connect, handshake};
pub use poll::Poll;
use probe::{Plain, Probe};
pub use probe::{Tell, World};

/// Bounds every wait for something that has to happen.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Workers of each server, and so its shards: connections take them in turn.
pub const SHARDS: usize = 2;

/// A server in this process; its socket at `/socket` routes `probe:*` to the probe channel, which intercepts events, and
/// `plain:*` to one that does nothing.
pub struct Lab {
    /// The server's endpoint.
    pub endpoint: Endpoint,
    /// What its channels know and tell.
    pub world: std::sync::Arc<World>,
    address: SocketAddr,
    running: Option<Running>,
    runtime: Runtime,
}

impl Lab {
    /// With the defaults of servers and sockets.
    pub fn new() -> Self {
        Self::with_socket(|_| {})
    }

    /// With some settings of the socket changed.
    pub fn with_socket(change: impl FnOnce(&mut SocketOptions)) -> Self {
        Self::with(|_| {}, change)
    }

    /// With some settings of the server and of the socket changed.
    pub fn with(server: impl FnOnce(&mut ServerOptions), socket: impl FnOnce(&mut SocketOptions)) -> Self {
        Self::with_workers(SHARDS, server, socket)
    }

    /// The same with another number of workers, and so of shards.
    pub fn with_workers(
        workers: usize,
        server: impl FnOnce(&mut ServerOptions),
        socket: impl FnOnce(&mut SocketOptions),
    ) -> Self {
        let runtime = bennu::server::runtime(workers).expect("a runtime starts");
        let _guard = runtime.enter();
        let world = std::sync::Arc::new(World::default());
        let endpoint = Endpoint::start();
        let spec = endpoint
            .socket("/socket")
            .connect(|info| std::future::ready(Ok(connected(&info))))
            .channel_with::<Probe>("probe:*", world.clone())
            .channel::<Plain>("plain:*")
            .options(socket);
        let root = warp::path::end().map(|| warp::Reply::into_response("the root\n"));
        let running = Server::new(&endpoint)
            .socket(spec)
            .routes(root)
            .options(server)
            .listen(([127, 0, 0, 1], 0))
            .expect("a free port of 127.0.0.1");
        let address = running.address();
        drop(_guard);
        Lab { endpoint, world, address, running: Some(running), runtime }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Has its clients come by another address: that of something between them and it.
    pub fn reach_at(&mut self, address: SocketAddr) {
        self.address = address;
    }

    /// A client on a socket of its own.
    pub fn open(&self) -> Peer {
        Peer::open(self.address, "vsn=2.0.0")
    }

    /// A client whose socket has the id `user:USER`.
    pub fn open_as(&self, user: &str) -> Peer {
        Peer::open(self.address, &format!("vsn=2.0.0&user={user}"))
    }

    /// A client that has joined a topic, with ref 1.
    pub fn joined(&self, topic: &str) -> Peer {
        let mut peer = self.open();
        peer.join(topic);
        peer
    }

    /// What the server holds for its clients.
    pub fn held(&self) -> Held {
        self.running.as_ref().expect("it has not been shut down").held()
    }

    /// How many tasks of the server have not ended.
    pub fn tasks(&self) -> usize {
        self.runtime.metrics().num_alive_tasks()
    }

    /// Shuts the server down beside the test.
    pub fn shut_down(&mut self) -> tokio::task::JoinHandle<()> {
        let running = self.running.take().expect("a server is shut down once");
        self.runtime.spawn(running.shut_down())
    }

    /// Waits for a task of the server.
    pub fn wait_for<T>(&self, task: tokio::task::JoinHandle<T>) -> T {
        self.runtime
            .block_on(async { tokio::time::timeout(DEADLINE, task).await })
            .expect("the task ends in time")
            .expect("the task does not panic")
    }

    /// Sends an HTTP request and gives its status and body.
    pub fn http(&self, method: &str, target: &str, headers: &[(&str, &str)], body: Option<&str>) -> (u16, String) {
        let (path, qs) = target.split_once('?').unwrap_or((target, ""));
        let headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let request = http::Request {
            method,
            path,
            qs: Some(qs),
            headers: &headers,
            body: body.map(str::as_bytes),
            timeout: DEADLINE,
        };
        let answer = http::send(self.address, &request).expect("an answer");
        (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// Broadcasts from outside of every socket.
    pub fn broadcast(&self, topic: &str, event: &str, payload: serde_json::Value) {
        self.endpoint.broadcast(topic, event, payload).expect("the hub has room");
    }
}

fn connected(info: &ConnectInfo) -> Connected {
    let mut connected = Connected::default();
    connected.id = info.params.get_str("user").map(|user| format!("user:{user}"));
    connected
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

/// Holds a counter of the process for a test that counts on it: tests that move it take turns.
pub struct Counted {
    counter: &'static Counter,
    before: u64,
    _turn: MutexGuard<'static, ()>,
}

impl Counted {
    /// Connections cut because they did not read.
    pub fn slow_consumers() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        Self::new(&METRICS.slow_consumers, &TURN)
    }

    /// Connections refused at the door.
    pub fn refused_connections() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        Self::new(&METRICS.refused_connections, &TURN)
    }

    fn new(counter: &'static Counter, turn: &'static Mutex<()>) -> Self {
        let turn = turn.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        Counted { counter, before: counter.get(), _turn: turn }
    }

    /// How much it has grown.
    pub fn growth(&self) -> u64 {
        self.counter.get() - self.before
    }
}
