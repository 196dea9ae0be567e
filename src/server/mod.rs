//! A running server: starts every part, mounts every edge, drains and stops.

mod admin;
mod admin_mcp;
mod admin_queues;
mod admin_store;
mod app;
mod drain;
mod history;
mod pages;
mod queues;
mod security;
mod upstreams;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use warp::Filter;
use warp::filters::BoxedFilter;

pub(crate) use app::run;
use drain::Stage;
pub use drain::{DrainOptions, signal as signalled};
pub(crate) use queues::summary as queues_summary;
pub(crate) use security::summary as security_summary;

use crate::channel::{Endpoint, SocketSpec};
use crate::mcp::Mcp;
use crate::pubsub::Hub;
pub use crate::transport::accept::HttpOptions;
use crate::transport::{self, Admission, Guard, Hangups, LongPolls, McpHttp, Tls, accept};
pub use crate::transport::{AdmissionLimits, McpHttpOptions, Secret, TlsError, TlsOptions};

/// How long calls over HTTP may take to heed their cancellation at the end.
const CALLS_END: Duration = Duration::from_secs(2);

/// Settings of a server.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The certificates to listen with; none for plain HTTP. Their files are read again at SIGHUP and when they change.
    pub tls: Option<TlsOptions>,
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
    /// How MCP is served over HTTP, where it is.
    pub mcp: McpHttpOptions,
    /// Whether only pages of this machine may come in: the development setting.
    pub local_only: bool,
    /// How it stops.
    pub drain: DrainOptions,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            listen: SocketAddr::from(([127, 0, 0, 1], 4000)),
            tls: None,
            http: HttpOptions { handshake_timeout_ms: 10_000, header_bytes_max: 16 * 1024, write_timeout_ms: 30_000 },
            admission: AdmissionLimits { connections_max: 100_000, connections_per_ip_max: 0 },
            secret: None,
            longpoll_sessions_max: 10_000,
            longpoll_body_timeout_ms: 30_000,
            mcp: McpHttpOptions::default(),
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

/// A server that is being put together: an endpoint's sockets, and an application's own routes beside them.
///
/// ```no_run
/// # use bennu::{Channel, Endpoint, Server};
/// # fn serve<Room: Channel>() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let endpoint = Endpoint::start();
/// let socket = endpoint.socket("/socket").channel::<Room>("room:*");
/// let running = Server::new(&endpoint).socket(socket).listen(([127, 0, 0, 1], 4000))?;
/// running.until_signalled().await;
/// # Ok(())
/// # })
/// # }
/// ```
pub struct Server {
    endpoint: Endpoint,
    sockets: Vec<Arc<SocketSpec>>,
    mcp: Option<Arc<Mcp>>,
    routes: BoxedFilter<(warp::reply::Response,)>,
    options: ServerOptions,
}

impl Server {
    /// A server without sockets yet.
    pub fn new(endpoint: &Endpoint) -> Self {
        let none =
            warp::any().and_then(|| std::future::ready(Err::<warp::reply::Response, _>(warp::reject::not_found())));
        Server {
            endpoint: endpoint.clone(),
            sockets: Vec::new(),
            mcp: None,
            routes: none.boxed(),
            options: ServerOptions::default(),
        }
    }

    /// Adds a socket.
    ///
    /// # Panics
    /// If another endpoint declared it: what is broadcast here would not reach it.
    pub fn socket(mut self, socket: impl Into<Arc<SocketSpec>>) -> Self {
        let socket = socket.into();
        assert!(
            Arc::ptr_eq(&socket.endpoint, &self.endpoint.shared),
            "the socket at {:?} was declared by another endpoint than the server's",
            socket.path
        );
        self.sockets.push(socket);
        self
    }

    /// Serves MCP over HTTP: the first server at `/mcp`, each at `/mcp/<name>`.
    ///
    /// Whoever reaches the server reaches these paths: what a request may do is up to the [`McpAuth`] that the `Mcp` was built
    /// with, which is asked at each request with its bearer token, or with none. Requests for other hosts than this machine's
    /// own names, and of other pages, are refused unless [`ServerOptions::mcp`] names them.
    ///
    /// [`McpAuth`]: crate::mcp::auth::McpAuth
    pub fn mcp(mut self, mcp: &Arc<Mcp>) -> Self {
        self.mcp = Some(Arc::clone(mcp));
        self
    }

    /// Adds routes of the application's own, behind the sockets' and those added before.
    pub fn routes<F, R>(mut self, routes: F) -> Self
    where
        F: Filter<Extract = (R,)> + Clone + Send + Sync + 'static,
        F::Error: Into<warp::Rejection>,
        R: warp::Reply + 'static,
    {
        self.routes = accept::boxed(self.routes.or(accept::boxed(routes)).unify());
        self
    }

    /// Changes settings.
    pub fn options(mut self, change: impl FnOnce(&mut ServerOptions)) -> Self {
        change(&mut self.options);
        self
    }

    /// The sockets and routes as one filter, for a warp application that listens by itself, over plain TCP:
    /// `warp::serve(server.into_filter().or(application))`. Requests for other paths are rejected.
    ///
    /// What this server's own listener does is left to that application's: limits on connections, timeouts for request
    /// heads and for clients that take nothing, `/livez` and `/readyz`, and to [`drain()`] before it stops, and [`Mcp::drain`].
    pub fn into_filter(self) -> BoxedFilter<(warp::reply::Response,)> {
        let Server { sockets, mcp, routes, options, .. } = self;
        let guard = if options.local_only { Guard::LocalOnly } else { Guard::None };
        let sockets = transport::sockets(&sockets, longpolls(&options), guard);
        match mcp.map(|mcp| McpHttp::new(&mcp, options.mcp)) {
            Some(http) => {
                let resource = transport::protected_resource(&http);
                accept::boxed(sockets.or(transport::mcp(&http, guard)).or(resource).or(routes))
            }
            None => accept::boxed(sockets.or(routes)),
        }
    }

    /// Listens and serves on the current runtime, as long as what is given back is kept; port 0 takes a free one.
    ///
    /// # Errors
    /// What the operating system says of the address, or a [`TlsError`] where the certificates can't be used.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn listen(mut self, address: impl Into<SocketAddr>) -> io::Result<Running> {
        self.options.listen = address.into();
        self.start()
    }

    /// As [`Server::listen`], at the address of the options.
    ///
    /// # Errors
    /// What the operating system says of the address, or a [`TlsError`] where the certificates can't be used.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(self) -> io::Result<Running> {
        Running::start(self)
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("sockets", &self.sockets).field("options", &self.options).finish_non_exhaustive()
    }
}

fn longpolls(options: &ServerOptions) -> LongPolls {
    LongPolls::new(
        options.secret.clone().unwrap_or_else(Secret::random),
        AdmissionLimits { connections_max: options.longpoll_sessions_max, ..options.admission },
        Duration::from_millis(options.longpoll_body_timeout_ms),
    )
}

/// Closes every socket of an endpoint with 1012, in batches, and waits for their conversations to end: what an application
/// that listens by itself does once it accepts no more connections, since clients come back at once. `delay_ms` and
/// `linger_ms` are left to it.
pub async fn drain(endpoint: &Endpoint, options: &DrainOptions) {
    drain::drain(endpoint.hub(), options).await;
}

/// What a server holds for its clients at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
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
    /// MCP sessions that are found by the header of an HTTP request.
    pub mcp_http_sessions: usize,
}

/// A server that listens. Where it is dropped, listening ends at once; sockets that are open stay.
#[derive(Debug)]
#[must_use = "where it is dropped, the server listens no more"]
pub struct Running {
    address: SocketAddr,
    hub: Hub,
    admission: Arc<Admission>,
    longpolls: LongPolls,
    mcp: Option<McpHttp>,
    stage: watch::Sender<Stage>,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    drain: DrainOptions,
}

impl Running {
    fn start(server: Server) -> io::Result<Running> {
        let Server { endpoint, sockets, mcp, routes: further, options } = server;
        let hub = endpoint.hub().clone();
        let tls = options.tls.clone().map(Tls::load).transpose().map_err(io::Error::other)?;
        // From here on a hangup no longer ends the process.
        let hangups = tls.as_ref().map(|_| Hangups::listen()).transpose()?;
        let listener = accept::bind(options.listen, options.http)?;
        let address = listener.local_addr()?;

        let (stage, staged) = watch::channel(Stage::Serving);
        let (stop, stopped) = watch::channel(false);
        let longpolls = longpolls(&options);
        let health = pages::upstreams(mcp.clone(), staged.clone());
        let mcp = mcp.map(|mcp| McpHttp::new(&mcp, options.mcp.clone()));
        let sockets = transport::sockets(&sockets, longpolls.clone(), Guard::None);
        // Sockets stand first: one may be below the path of MCP.
        let edges = match &mcp {
            Some(http) => {
                let resource = transport::protected_resource(http);
                accept::boxed(sockets.or(transport::mcp(http, Guard::None)).or(resource))
            }
            None => accept::boxed(sockets),
        };
        let served = pages::open(staged.clone()).and(edges).or(pages::health(staged)).or(health).or(further);
        let routes = if options.local_only {
            accept::boxed(transport::local_only().and(served).recover(pages::problem))
        } else {
            accept::boxed(served.recover(pages::problem))
        };

        let admission = Admission::new(options.admission);
        if let Some((tls, hangups)) = tls.clone().zip(hangups) {
            tokio::spawn(tls.watch(hangups, stopped.clone()));
        }
        let accepting =
            tokio::spawn(accept::serve(listener, tls, routes, options.http, Arc::clone(&admission), stopped));
        Ok(Running { address, hub, admission, longpolls, mcp, stage, stop, accepting, drain: options.drain })
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
            mcp_http_sessions: self.mcp.as_ref().map_or(0, McpHttp::sessions),
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
        let Running { hub, mcp, stage, stop, accepting, drain, .. } = self;
        stage.send_replace(Stage::Leaving);
        tokio::time::sleep(Duration::from_millis(drain.delay_ms)).await;
        stage.send_replace(Stage::Draining);
        if let Some(mcp) = &mcp {
            mcp.end_streams();
        }
        drain::drain(&hub, &drain).await;
        if let Some(mcp) = &mcp
            && tokio::time::timeout(CALLS_END, mcp.drain()).await.is_err()
        {
            tracing::warn!("tools that did not heed their cancellation were cut off");
        }
        stop.send_replace(true);
        if accepting.await.is_err() {
            tracing::error!("the accept loop had crashed");
        }
        // Requests that were being answered get a moment to end.
        tokio::time::sleep(Duration::from_millis(drain.linger_ms)).await;
        if let Some(mcp) = &mcp {
            mcp.end_sessions();
        }
    }
}
