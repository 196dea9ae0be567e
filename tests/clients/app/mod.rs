//! The application that the foreign clients talk to: a server in this process that a test can stop and start again on
//! the same port.

mod absinthe;
mod realtime;
mod room;
mod yjs;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bennu::channel::{ConnectError, ConnectInfo, Connected, Endpoint};
use bennu::server::{Running, ServerOptions};
use serde_json::Value;
use tokio::runtime::Runtime;
use warp::Filter;

use crate::DEADLINE;
use crate::witness::Witness;

/// Workers of the server, and so its shards.
const WORKERS: usize = 2;

/// The key that `/realtime/v1` asks for.
pub const API_KEY: &str = "the-anon-key";

/// How a server goes away.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// As at SIGTERM: every socket is told with a close frame, 1012.
    Drained,
    /// As at SIGKILL: the kernel ends the connections, nobody is told.
    Killed,
}

/// The application.
pub struct App {
    /// What its channels saw, over all restarts.
    pub witness: Arc<Witness>,
    address: SocketAddr,
    server: Option<Server>,
}

struct Server {
    runtime: Runtime,
    running: Running,
    endpoint: Endpoint,
}

impl App {
    /// Starts on a port that the system chooses.
    pub fn start() -> Self {
        let witness = Arc::new(Witness::default());
        let server = Server::start(([127, 0, 0, 1], 0).into(), &witness).expect("a free port of 127.0.0.1");
        App { witness, address: server.running.address(), server: Some(server) }
    }

    /// Where a socket is mounted, such as `ws://127.0.0.1:40123/socket`, without the transport.
    pub fn socket(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }

    /// Broadcasts from outside of every socket.
    pub fn broadcast(&self, topic: &str, event: &str, payload: Value) {
        let server = self.server.as_ref().expect("the server runs");
        server.endpoint.broadcast(topic, event, payload).expect("the hub has room");
    }

    /// Stops the server, and starts it again on its port.
    pub fn restart(&mut self, end: End) {
        self.stop(end);
        self.start_again();
    }

    /// Stops the server: nothing listens on its port.
    pub fn stop(&mut self, end: End) {
        self.server.take().expect("the server runs").stop(end);
    }

    /// Starts the stopped server again on its port. What its channels knew is gone.
    pub fn start_again(&mut self) {
        let given_up = Instant::now() + DEADLINE;
        // Something else may hold the port for a moment: it is one that the system gives to outgoing connections too.
        self.server = Some(loop {
            match Server::start(self.address, &self.witness) {
                Ok(server) => break server,
                Err(error) => assert!(Instant::now() < given_up, "{} again: {error}", self.address),
            }
            std::thread::sleep(Duration::from_millis(10));
        });
    }
}

impl Server {
    fn start(listen: SocketAddr, witness: &Arc<Witness>) -> std::io::Result<Self> {
        let runtime = bennu::server::runtime(WORKERS)?;
        let entered = runtime.enter();
        let mut own = None;
        let running = Running::start(ServerOptions { listen, ..ServerOptions::default() }, |endpoint| {
            own = Some(endpoint.clone());
            let socket = endpoint
                .socket("/socket")
                .channel_with::<room::Room>("room:*", witness.clone())
                .and_then(|socket| {
                    socket
                        .channel_with::<absinthe::Control>("__absinthe__:control", Arc::new(absinthe::Said::default()))
                })
                .and_then(|socket| socket.channel::<yjs::Document>("yjs:*"))
                .expect("the patterns are right")
                .build();
            let supabase = endpoint
                .socket("/realtime/v1")
                .connect(|info| std::future::ready(with_key(&info)))
                .channel_with::<realtime::Realtime>("realtime:*", witness.clone())
                .expect("the pattern is right")
                .build();
            let root = warp::path::end().map(|| warp::Reply::into_response("foreign clients\n"));
            (vec![socket, supabase], root.boxed())
        })?;
        drop(entered);
        Ok(Server { runtime, running, endpoint: own.expect("the application is made") })
    }

    fn stop(self, end: End) {
        let Server { runtime, running, endpoint } = self;
        match end {
            End::Drained => runtime
                .block_on(async { tokio::time::timeout(DEADLINE, running.shut_down()).await })
                .expect("the server drains in time"),
            End::Killed => drop(running),
        }
        drop(endpoint);
        // Ends every task where it stands; with its task each stream is closed, and the listener.
        runtime.shutdown_timeout(DEADLINE);
    }
}

fn with_key(info: &ConnectInfo) -> Result<Connected, ConnectError> {
    match info.params.get_str("apikey") {
        Some(API_KEY) => Ok(Connected::default()),
        _ => Err(ConnectError::Refused),
    }
}
