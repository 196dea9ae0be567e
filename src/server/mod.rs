//! A running server: starts every part, mounts every edge, drains and stops.

mod app;
mod drain;
mod pages;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use warp::Filter;
use warp::filters::BoxedFilter;

pub use app::run;
pub use drain::DrainOptions;
use drain::Stage;

use crate::channel::{Endpoint, SocketSpec};
use crate::pubsub::Hub;
use crate::transport::accept::{self, HttpOptions};
use crate::transport::{self, Admission, AdmissionLimits, LongPolls, Secret};

/// Further routes of a server, beside its sockets.
pub type Routes = BoxedFilter<(warp::reply::Response,)>;

/// Settings of a server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How requests are read.
    pub http: HttpOptions,
    /// How many connections may be open. The limit for one address holds for its long-poll sessions as well.
    pub admission: AdmissionLimits,
    /// What long-poll tokens are signed with; none for a secret of this process alone.
    pub secret: Option<Secret>,
    /// Long-poll sessions that may live at once.
    pub longpoll_sessions_max: usize,
    /// Milliseconds in which the body of a long-poll request has to arrive.
    pub longpoll_body_timeout_ms: u64,
    /// Whether only pages of this machine may come in: the development setting.
    pub local_only: bool,
    /// How it stops.
    pub drain: DrainOptions,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            listen: SocketAddr::from(([127, 0, 0, 1], 4000)),
            http: HttpOptions { handshake_timeout_ms: 10_000, header_bytes_max: 16 * 1024, write_timeout_ms: 30_000 },
            admission: AdmissionLimits { connections_max: 100_000, connections_per_ip_max: 0 },
            secret: None,
            longpoll_sessions_max: 10_000,
            longpoll_body_timeout_ms: 30_000,
            local_only: false,
            drain: DrainOptions::default(),
        }
    }
}

/// A runtime with as many workers as wanted; 0 takes `TOKIO_WORKER_THREADS`, or one a core.
///
/// # Errors
/// What the operating system says: no thread could be started.
pub fn runtime(workers: usize) -> io::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if workers > 0 {
        builder.worker_threads(workers);
    }
    builder.enable_all().build()
}

/// What a server holds for its clients at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// Open TCP connections, WebSockets among them.
    pub connections: usize,
    /// Sockets of either transport whose conversation has not ended: their last output and their handlers included.
    pub conversations: usize,
    /// Sockets of either transport that PubSub writes to.
    pub sockets: usize,
    /// Topics with subscribers, socket ids among them; one with subscribers in several shards counts in each.
    pub topics: usize,
    /// Long-poll sessions, those included that are no longer found but whose handlers run on.
    pub longpoll_sessions: usize,
    /// Long-poll sessions that are found by their token.
    pub longpoll_tokens: usize,
}

/// A server that listens.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    hub: Hub,
    admission: Arc<Admission>,
    longpolls: LongPolls,
    stage: watch::Sender<Stage>,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    drain: DrainOptions,
}

impl Running {
    /// Starts a server on the current runtime. `application` makes its sockets, and its further routes.
    ///
    /// # Errors
    /// What the operating system says of the address.
    pub fn start(
        options: ServerOptions,
        application: impl FnOnce(&Endpoint) -> (Vec<Arc<SocketSpec>>, Routes),
    ) -> io::Result<Running> {
        let listener = accept::bind(options.listen, options.http)?;
        let address = listener.local_addr()?;
        let shards = tokio::runtime::Handle::current().metrics().num_workers();
        // The shards end with the hub's last handle.
        let (hub, _shards) = Hub::start(shards);
        let endpoint = Endpoint::new(hub.clone());
        let (sockets, further) = application(&endpoint);

        let (stage, staged) = watch::channel(Stage::Serving);
        let (stop, stopped) = watch::channel(false);
        let longpolls = LongPolls::new(
            options.secret.unwrap_or_else(Secret::random),
            AdmissionLimits { connections_max: options.longpoll_sessions_max, ..options.admission },
            Duration::from_millis(options.longpoll_body_timeout_ms),
        );
        // Sockets stand first: each connection passes here.
        let served = pages::open(staged.clone())
            .and(transport::sockets(&sockets, longpolls.clone()))
            .or(pages::health(staged))
            .or(further);
        let routes = if options.local_only {
            accept::boxed(transport::local_only().and(served).recover(pages::problem))
        } else {
            accept::boxed(served.recover(pages::problem))
        };

        let admission = Admission::new(options.admission);
        let accepting = tokio::spawn(accept::serve(listener, routes, options.http, Arc::clone(&admission), stopped));
        Ok(Running { address, hub, admission, longpolls, stage, stop, accepting, drain: options.drain })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it holds for its clients. The counts are taken one after another, not at one moment.
    pub fn held(&self) -> Held {
        Held {
            connections: self.admission.open(),
            conversations: self.hub.live(),
            sockets: self.hub.connections(),
            topics: self.hub.topics(),
            longpoll_sessions: self.longpolls.open(),
            longpoll_tokens: self.longpolls.sessions(),
        }
    }

    /// Serves until SIGTERM or SIGINT, then drains. A second signal ends the process at once.
    pub async fn until_signalled(self) {
        drain::signal().await;
        tracing::info!("stopping: a second signal ends the process at once");
        tokio::spawn(async {
            drain::signal().await;
            tracing::warn!("second signal: ending at once");
            std::process::exit(130);
        });
        self.shut_down().await;
    }

    /// Stops: `/readyz` turns off; after the delay sockets close with 1012 in batches; then listening ends.
    pub async fn shut_down(self) {
        let Running { hub, stage, stop, accepting, drain, .. } = self;
        stage.send_replace(Stage::Leaving);
        tokio::time::sleep(Duration::from_millis(drain.delay_ms)).await;
        stage.send_replace(Stage::Draining);
        drain::drain(&hub, &drain).await;
        stop.send_replace(true);
        if accepting.await.is_err() {
            tracing::error!("the accept loop had crashed");
        }
        // Requests that were being answered get a moment to end.
        tokio::time::sleep(Duration::from_millis(drain.linger_ms)).await;
    }
}
