//! The application that the foreign clients talk to: a server in this process that a test can stop and start again on
//! the same port.

mod absinthe;
mod realtime;
mod room;
mod yjs;

use std::net::SocketAddr;
use std::sync::Arc;

use bennu::channel::{ConnectError, ConnectInfo, Connected, Endpoint};
use bennu::server::Running;
use serde_json::Value;
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;

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
    /// Bound to the port and never listening, so that nobody else gets it between a stop and the next start.
    _port: TcpSocket,
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
        let port = TcpSocket::new_v4().expect("a socket");
        port.set_reuseaddr(true).expect("it can be set");
        port.bind(([127, 0, 0, 1], 0).into()).expect("a free port of 127.0.0.1");
        let address = port.local_addr().expect("it is bound");
        let server = Server::start(address, &witness).expect("the port is ours");
        App { witness, address, server: Some(server), _port: port }
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
        self.server = Some(Server::start(self.address, &self.witness).expect("the port is ours"));
    }
}

impl Server {
    fn start(listen: SocketAddr, witness: &Arc<Witness>) -> std::io::Result<Self> {
        let runtime = bennu::server::runtime(WORKERS)?;
        let entered = runtime.enter();
        let endpoint = Endpoint::start();
        let socket = endpoint
            .socket("/socket")
            .channel_with::<room::Room>("room:*", witness.clone())
            .channel_with::<absinthe::Control>("__absinthe__:control", Arc::new(absinthe::Said::default()))
            .channel::<yjs::Document>("yjs:*");
        let supabase = endpoint
            .socket("/realtime/v1")
            .connect(|info| std::future::ready(with_key(&info)))
            .channel_with::<realtime::Realtime>("realtime:*", witness.clone());
        let running = bennu::Server::new(&endpoint).socket(socket).socket(supabase).listen(listen)?;
        drop(entered);
        Ok(Server { runtime, running, endpoint })
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
