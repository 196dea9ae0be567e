//! Sockets and their routes: where clients connect, who they are, which channel a topic leads to.
//!
//! Source: `Phoenix.Endpoint.socket/3`, `Phoenix.Socket`.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};

use super::erased::{ChannelFactory, Factory};
use super::subscriber::Subscriber;
use super::{Channel, Payload};
use crate::outbox::{Conn, Control};
use crate::presence::Presence;
use crate::protocol::limits;
use crate::protocol::message::DISCONNECT;
use crate::protocol::origin::OriginPolicy;
use crate::protocol::query::Params;
use crate::protocol::topic::TopicPattern;
use crate::pubsub::{Audience, HistoryOptions, Hub, Overloaded};
use crate::queue::{QueueSettings, Queues};

/// What every socket and channel of a server shares.
#[derive(Debug)]
pub(crate) struct EndpointShared {
    pub(crate) hub: Hub,
    pub(crate) presence: Presence,
    queues: OnceLock<Queues>,
}

impl EndpointShared {
    pub(crate) fn queues(&self) -> &Queues {
        self.queues.get_or_init(|| Queues::in_memory(QueueSettings::default()))
    }
}

/// A server's PubSub and presence, and the place where its sockets are declared.
///
/// Cheap to clone, and usable from anywhere: from any task, and from threads that know nothing of the runtime. It lives as
/// long as something holds it; a server that runs does.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use bennu::Endpoint;
/// use serde_json::json;
///
/// let endpoint = Endpoint::start();
/// let mut news = endpoint.subscribe("news:sport");
///
/// let elsewhere = endpoint.clone();
/// std::thread::spawn(move || elsewhere.broadcast("news:sport", "goal", json!({"score": [1, 0]})));
///
/// let heard = news.recv().await.expect("the endpoint lives");
/// assert_eq!((heard.topic(), heard.event()), ("news:sport", "goal"));
/// # }
/// ```
///
/// Source: `Phoenix.Endpoint`.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub(crate) shared: Arc<EndpointShared>,
}

impl Endpoint {
    /// Starts PubSub on the current runtime, with one shard for each of its workers.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start() -> Self {
        let shards = tokio::runtime::Handle::current().metrics().num_workers();
        // The shards end with the hub's last handle.
        let (hub, _shards) = Hub::start(shards);
        let presence = Presence::new(hub.clone());
        Endpoint { shared: Arc::new(EndpointShared { hub, presence, queues: OnceLock::new() }) }
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.shared.hub
    }

    /// Broadcasts an event on a topic: every channel that is joined to it, and every subscriber, gets it.
    ///
    /// A broadcast that a client's wire version can't carry (V2 wants a JSON object or binary data, V1 any JSON) passes
    /// that client over and is counted.
    ///
    /// # Errors
    /// [`Overloaded`] if PubSub has too much waiting; nothing was sent.
    pub fn broadcast(&self, topic: &str, event: &str, payload: impl Into<Payload>) -> Result<(), Overloaded> {
        self.shared.hub.broadcast(topic, event, payload.into())
    }

    /// Subscribes the caller, who need not be a channel, to a topic. Ends when the subscriber is dropped.
    ///
    /// Source: `Phoenix.Endpoint.subscribe/1` in a process of one's own.
    pub fn subscribe(&self, topic: &str) -> Subscriber {
        Subscriber::new(self.hub(), topic, Audience::Counted)
    }

    /// As [`Endpoint::subscribe`], without being among [`Endpoint::subscriptions`]: what a test overhears.
    pub(crate) fn overhear(&self, topic: &str) -> Subscriber {
        Subscriber::new(self.hub(), topic, Audience::Uncounted)
    }

    /// Closes every socket with this id (close code 1001).
    ///
    /// # Errors
    /// [`Overloaded`] if PubSub has too much waiting; nothing was sent.
    pub fn disconnect(&self, socket_id: &str) -> Result<(), Overloaded> {
        self.broadcast(socket_id, DISCONNECT, Payload::EMPTY)
    }

    /// How many subscriptions a topic has on this node: one for each channel that is joined to it, one for each call of
    /// `subscribe` that holds.
    pub async fn subscriptions(&self, topic: &str) -> usize {
        self.hub().subscriptions(topic).await
    }

    /// How many clients are connected, by WebSocket and by long poll.
    pub fn connections(&self) -> usize {
        self.hub().connections()
    }

    /// Everyone present on a topic: `{key: {"metas": [...]}}`.
    pub fn presences(&self, topic: &str) -> Payload {
        self.shared.presence.list(topic)
    }

    /// Has topics that match a pattern (`room:*`, or one exact topic) keep what is broadcast on them from now on, so that clients
    /// which ask for it when they join get what they missed. Whoever may join a topic may read what it keeps. Of several
    /// patterns that match, the one given first counts. `presence_diff` is not kept.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use bennu::Endpoint;
    /// use bennu::channel::HistoryOptions;
    ///
    /// let endpoint = Endpoint::start();
    /// let mut options = HistoryOptions::default();
    /// options.messages_max = 200;
    /// endpoint.keep("room:*", options);
    /// # }
    /// ```
    ///
    /// # Panics
    /// If the pattern has a star before its end.
    pub fn keep(&self, pattern: &str, options: HistoryOptions) {
        let pattern = TopicPattern::parse(pattern).unwrap_or_else(|error| panic!("{error}"));
        self.hub().histories().keep(pattern, options);
    }

    /// Bounds what all topics keep together: how many have a history, and the bytes of their broadcasts. A topic beyond the first
    /// keeps nothing; beyond the second the topic that is published on keeps less.
    pub fn limit_histories(&self, topics_max: usize, bytes_max: usize) {
        self.hub().histories().limit(topics_max, bytes_max);
    }

    /// How many topics have a history.
    pub fn histories(&self) -> usize {
        self.hub().histories().topics()
    }

    /// Bytes that all topics keep together.
    pub fn history_bytes(&self) -> usize {
        self.hub().histories().bytes()
    }

    /// Gives channels these queues. Once, and before anybody asks for them.
    ///
    /// # Panics
    /// If there are queues already.
    pub fn use_queues(&self, queues: Queues) {
        assert!(self.shared.queues.set(queues).is_ok(), "an endpoint's queues are given once, before they are used");
    }

    /// The queues: those of [`Endpoint::use_queues`]. Where none were given there are none in them, and every name is
    /// refused.
    ///
    /// # Panics
    /// Outside of a tokio runtime, the first time where none were given.
    pub fn queues(&self) -> &Queues {
        self.shared.queues()
    }

    /// Declares a socket at a path such as `/socket`, with Phoenix's defaults. Clients connect to `PATH/websocket`.
    pub fn socket(&self, path: &str) -> SocketSpecBuilder {
        SocketSpecBuilder {
            path: path.trim_end_matches('/').to_owned(),
            routes: Vec::new(),
            connect: None,
            options: SocketOptions::default(),
            endpoint: Arc::clone(&self.shared),
        }
    }
}

/// What `connect` made of a client, for its channels to read. Cheap to clone.
#[derive(Clone, Default)]
pub struct Assigns(Option<Arc<dyn Any + Send + Sync>>);

impl Assigns {
    /// Wraps a value of the application's own type.
    pub fn new<T: Any + Send + Sync>(value: T) -> Self {
        Assigns(Some(Arc::new(value)))
    }

    /// The value, if it is of this type.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.as_ref()?.downcast_ref()
    }
}

impl fmt::Debug for Assigns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Assigns")
    }
}

/// Where the client's request went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestUri {
    /// `http` or `https`.
    pub scheme: String,
    /// The host of the `Host` header, without its port.
    pub host: String,
    /// The port of the `Host` header, or the scheme's.
    pub port: u16,
    /// The path.
    pub path: String,
    /// The raw query, empty if there is none.
    pub query: String,
}

/// What is known of a client that connects.
///
/// Its debug text leaves out what may be secret: the values of params and headers, and the token.
#[derive(Clone)]
#[non_exhaustive]
pub struct ConnectInfo {
    /// The decoded query (`Plug.Conn.Query`).
    pub params: Params,
    /// The address it comes from.
    pub peer: SocketAddr,
    /// Where it went.
    pub uri: RequestUri,
    /// Its headers, names in lower case; values of one name in the order they came. Bytes that are no UTF-8 are replaced.
    pub headers: Vec<(String, String)>,
    /// The token it sent as a subprotocol, or over long poll in a header; only where the socket asks for it.
    pub auth_token: Option<String>,
}

impl ConnectInfo {
    /// The first value of a header; its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(present, _)| present == name).map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for ConnectInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (params, headers) = (self.params.0.keys(), self.headers.iter().map(|(name, _)| name));
        f.debug_struct("ConnectInfo")
            .field("peer", &self.peer)
            .field("path", &self.uri.path)
            .field("params", &params.collect::<Vec<_>>())
            .field("headers", &headers.collect::<Vec<_>>())
            .field("auth_token", &self.auth_token.as_ref().map(|_| "…"))
            .finish_non_exhaustive()
    }
}

/// One client's socket, to close it by itself. It keeps nothing alive.
#[derive(Clone, Debug)]
pub struct SocketHandle(Weak<Conn>);

impl SocketHandle {
    pub(crate) fn new(conn: &Arc<Conn>) -> Self {
        SocketHandle(Arc::downgrade(conn))
    }

    /// Closes the socket with 1001, if it is still open.
    pub fn disconnect(&self) {
        if let Some(conn) = self.0.upgrade() {
            conn.order(Control::Disconnect);
        }
    }
}

type WhenOpen = Arc<dyn Fn(SocketHandle) + Send + Sync>;

/// An accepted client.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Connected {
    /// For its channels.
    pub assigns: Assigns,
    /// The socket's id: [`Endpoint::disconnect`] with it closes the socket. Sockets may share one.
    pub id: Option<String>,
    when_open: Option<WhenOpen>,
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected").field("assigns", &self.assigns).field("id", &self.id).finish_non_exhaustive()
    }
}

impl Connected {
    /// Accepts a client, with a value for its channels (`Cx::assigns`) to read.
    pub fn with<T: Any + Send + Sync>(assigns: T) -> Self {
        Connected { assigns: Assigns::new(assigns), ..Connected::default() }
    }

    /// Gives the socket an id, such as `user:7`.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Has a function called with the socket once it is open.
    pub fn when_open(mut self, when_open: impl Fn(SocketHandle) + Send + Sync + 'static) -> Self {
        self.when_open = Some(Arc::new(when_open));
        self
    }

    pub(crate) fn opened(&self, conn: &Arc<Conn>) {
        if let Some(when_open) = &self.when_open {
            when_open(SocketHandle::new(conn));
        }
    }
}

/// A refused client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectError {
    /// `:error`: 403.
    Refused,
    /// `{:error, reason}`: 403, or what the socket's error handler makes of it.
    Reason(String),
}

type ConnectFuture = Pin<Box<dyn Future<Output = Result<Connected, ConnectError>> + Send>>;
type Connect = Arc<dyn Fn(ConnectInfo) -> ConnectFuture + Send + Sync>;
type ErrorHandler = Arc<dyn Fn(&str) -> (u16, String) + Send + Sync>;

/// How a socket's long poll behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LongPollOptions {
    /// Milliseconds that a poll waits for a message.
    pub window_ms: u64,
    /// Messages of one POST that are read; the rest is ignored.
    pub batch_messages_max: usize,
    /// Bytes of one POST's body; beyond it the answer is 400.
    pub body_bytes_max: usize,
    /// Bytes that may wait for the next poll; beyond it the session ends.
    pub buffer_bytes_max: usize,
}

impl Default for LongPollOptions {
    fn default() -> Self {
        LongPollOptions {
            window_ms: limits::LONGPOLL_WINDOW_MS,
            batch_messages_max: limits::LONGPOLL_BATCH_MESSAGES_MAX,
            body_bytes_max: limits::LONGPOLL_BODY_BYTES_MAX,
            buffer_bytes_max: limits::OUTBOX_BYTES_MAX,
        }
    }
}

/// Whether a socket offers permessage-deflate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Offers are ignored.
    Off,
    /// Offers are taken up; a connection that compresses costs some 40 KB more.
    On,
}

/// Settings of one socket. Phoenix's defaults.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SocketOptions {
    /// Milliseconds without a frame from the client after which it is closed with 1002.
    pub idle_timeout_ms: u64,
    /// Topics that a socket may have joined at once.
    pub channels_max: usize,
    /// Bytes of one WebSocket frame.
    pub frame_bytes_max: usize,
    /// Bytes of one message, after reassembly and decompression.
    pub message_bytes_max: usize,
    /// Bytes that may wait for a client that does not read. Where channels send large messages, this should hold some.
    pub outbox_bytes_max: usize,
    /// Messages that may wait for a connection's channels.
    pub inbox_messages_max: usize,
    /// Whether `PATH/websocket` is served.
    pub websocket: bool,
    /// Long poll at `PATH/longpoll`, if wanted.
    pub longpoll: Option<LongPollOptions>,
    /// Which origins may connect. As in Phoenix the default asks for the host that the server is known by, and that is
    /// `localhost` unless set: a page opened by another name, `127.0.0.1` among them, needs another policy.
    pub check_origin: OriginPolicy,
    /// Whether the token subprotocol (and long poll's token header) is read.
    pub auth_token: bool,
    /// Subprotocols that the socket speaks, the preferred one first; a client that asks only for others is refused.
    pub subprotocols: Vec<String>,
    /// permessage-deflate.
    pub compression: Compression,
}

impl Default for SocketOptions {
    fn default() -> Self {
        SocketOptions {
            idle_timeout_ms: limits::IDLE_TIMEOUT_MS,
            channels_max: limits::CHANNELS_PER_SOCKET_MAX,
            frame_bytes_max: limits::FRAME_BYTES_MAX,
            message_bytes_max: limits::MESSAGE_BYTES_MAX,
            outbox_bytes_max: limits::OUTBOX_BYTES_MAX,
            inbox_messages_max: limits::INBOX_MESSAGES_MAX,
            websocket: true,
            longpoll: None,
            check_origin: OriginPolicy::Host("localhost".to_owned()),
            auth_token: false,
            subprotocols: Vec::new(),
            compression: Compression::Off,
        }
    }
}

/// A socket: a path, its routes, who may connect, its settings.
pub struct SocketSpec {
    pub(crate) path: String,
    routes: Vec<(TopicPattern, Arc<dyn Factory>)>,
    pub(crate) connect: Connect,
    pub(crate) on_error: Option<ErrorHandler>,
    /// Its settings.
    pub options: SocketOptions,
    pub(crate) endpoint: Arc<EndpointShared>,
}

impl SocketSpec {
    /// The first route that matches a topic.
    pub(crate) fn route(&self, topic: &str) -> Option<Arc<dyn Factory>> {
        let route = self.routes.iter().find(|(pattern, _)| pattern.matches(topic));
        route.map(|(_, factory)| Arc::clone(factory))
    }
}

impl fmt::Debug for SocketSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SocketSpec({})", self.path)
    }
}

/// Declares a socket.
pub struct SocketSpecBuilder {
    path: String,
    routes: Vec<(TopicPattern, Arc<dyn Factory>)>,
    connect: Option<(Connect, Option<ErrorHandler>)>,
    options: SocketOptions,
    endpoint: Arc<EndpointShared>,
}

impl SocketSpecBuilder {
    /// Routes topics that match a pattern (`room:*`, or one exact topic) to channels of a type. The first route that
    /// matches is taken.
    ///
    /// # Panics
    /// If a star stands before the pattern's end.
    pub fn channel<C: Channel>(self, pattern: &str) -> Self {
        self.route(pattern, Arc::new(ChannelFactory::<C>::new(None)))
    }

    /// The same, with something that each join can read through [`super::JoinCx::state`].
    ///
    /// # Panics
    /// If a star stands before the pattern's end.
    pub fn channel_with<C: Channel>(self, pattern: &str, state: Arc<impl Any + Send + Sync>) -> Self {
        self.route(pattern, Arc::new(ChannelFactory::<C>::new(Some(state))))
    }

    fn route(mut self, pattern: &str, factory: Arc<dyn Factory>) -> Self {
        let pattern = TopicPattern::parse(pattern).unwrap_or_else(|error| panic!("{error}"));
        self.routes.push((pattern, factory));
        self
    }

    /// Says who may connect. Without it everyone may.
    pub fn connect<F, R>(mut self, connect: F) -> Self
    where
        F: Fn(ConnectInfo) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Connected, ConnectError>> + Send + 'static,
    {
        let on_error = self.connect.take().and_then(|(_, on_error)| on_error);
        self.connect = Some((Arc::new(move |info| Box::pin(connect(info))), on_error));
        self
    }

    /// Makes an HTTP status and body of a refusal's reason (over WebSocket).
    pub fn on_connect_error(mut self, handler: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) -> Self {
        let connect = self.connect.take().map_or_else(everyone, |(connect, _)| connect);
        self.connect = Some((connect, Some(Arc::new(handler))));
        self
    }

    /// Changes settings.
    pub fn options(mut self, change: impl FnOnce(&mut SocketOptions)) -> Self {
        change(&mut self.options);
        self
    }

    /// The socket.
    pub fn build(self) -> Arc<SocketSpec> {
        let (connect, on_error) = self.connect.unwrap_or_else(|| (everyone(), None));
        Arc::new(SocketSpec {
            path: self.path,
            routes: self.routes,
            connect,
            on_error,
            options: self.options,
            endpoint: self.endpoint,
        })
    }
}

fn everyone() -> Connect {
    Arc::new(|_| Box::pin(std::future::ready(Ok(Connected::default()))))
}

impl From<SocketSpecBuilder> for Arc<SocketSpec> {
    fn from(builder: SocketSpecBuilder) -> Self {
        builder.build()
    }
}

impl fmt::Debug for SocketSpecBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SocketSpecBuilder({})", self.path)
    }
}
