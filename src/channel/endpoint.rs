//! Sockets and their routes: where clients connect, who they are, which channel a topic leads to.
//!
//! Source: `Phoenix.Endpoint.socket/3`, `Phoenix.Socket`.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use super::erased::{ChannelFactory, Factory};
use super::{Channel, Payload};
use crate::presence::Presence;
use crate::protocol::limits;
use crate::protocol::message::DISCONNECT;
use crate::protocol::origin::OriginPolicy;
use crate::protocol::query::Params;
use crate::protocol::topic::{PatternError, TopicPattern};
use crate::pubsub::{Hub, Overloaded};

/// What every socket and channel of a server shares.
#[derive(Debug)]
pub(crate) struct EndpointShared {
    pub(crate) hub: Hub,
    pub(crate) presence: Presence,
}

/// A handle to broadcast from anywhere, and the place where sockets are declared.
#[derive(Clone, Debug)]
pub struct Endpoint {
    shared: Arc<EndpointShared>,
}

impl Endpoint {
    /// An endpoint over a hub.
    pub fn new(hub: Hub) -> Self {
        let presence = Presence::new(hub.clone());
        Endpoint { shared: Arc::new(EndpointShared { hub, presence }) }
    }

    /// Its PubSub.
    pub fn hub(&self) -> &Hub {
        &self.shared.hub
    }

    /// Broadcasts an event on a topic.
    ///
    /// # Errors
    /// [`Overloaded`] if PubSub has too much waiting; nothing was sent.
    pub fn broadcast(&self, topic: &str, event: &str, payload: impl Into<Payload>) -> Result<(), Overloaded> {
        self.shared.hub.broadcast(topic, event, payload.into())
    }

    /// Closes every socket with this id (close code 1001).
    ///
    /// # Errors
    /// [`Overloaded`] if PubSub has too much waiting; nothing was sent.
    pub fn disconnect(&self, socket_id: &str) -> Result<(), Overloaded> {
        self.broadcast(socket_id, DISCONNECT, Payload::EMPTY)
    }

    /// Everyone present on a topic: `{key: {"metas": [...]}}`.
    pub fn presences(&self, topic: &str) -> Payload {
        self.shared.presence.list(topic)
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
#[derive(Clone, Debug)]
pub struct ConnectInfo {
    /// The decoded query (`Plug.Conn.Query`).
    pub params: Params,
    /// The address it comes from.
    pub peer: SocketAddr,
    /// Where it went.
    pub uri: RequestUri,
    /// Its headers whose name starts with `x-`, in the order they came.
    pub x_headers: Vec<(String, String)>,
    /// Its `user-agent` header.
    pub user_agent: Option<String>,
    /// The token it sent as a subprotocol, or over long poll in a header; only where the socket asks for it.
    pub auth_token: Option<String>,
}

/// An accepted client.
#[derive(Clone, Debug, Default)]
pub struct Connected {
    /// For its channels.
    pub assigns: Assigns,
    /// The socket's id: a `disconnect` broadcast on it closes the socket.
    pub id: Option<String>,
}

/// A refused client.
#[derive(Clone, Debug, PartialEq, Eq)]
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
pub enum Compression {
    /// Offers are ignored.
    Off,
    /// Offers are taken up; a connection that compresses costs some 40 KB more.
    On,
}

/// Settings of one socket. Phoenix's defaults.
#[derive(Clone, Debug)]
pub struct SocketOptions {
    /// Milliseconds without a frame from the client after which it is closed with 1002.
    pub idle_timeout_ms: u64,
    /// Topics that a socket may have joined at once.
    pub channels_max: usize,
    /// Bytes of one WebSocket frame.
    pub frame_bytes_max: usize,
    /// Bytes of one message, after reassembly and decompression.
    pub message_bytes_max: usize,
    /// Bytes that may wait for a client that does not read.
    pub outbox_bytes_max: usize,
    /// Messages that may wait for a connection's channels.
    pub inbox_messages_max: usize,
    /// Whether `PATH/websocket` is served.
    pub websocket: bool,
    /// Long poll at `PATH/longpoll`, if wanted.
    pub longpoll: Option<LongPollOptions>,
    /// Which origins may connect.
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
    /// # Errors
    /// [`PatternError`] if a star stands before the pattern's end.
    pub fn channel<C: Channel>(self, pattern: &str) -> Result<Self, PatternError> {
        self.route(pattern, Arc::new(ChannelFactory::<C>::new(None)))
    }

    /// The same, with something that each join can read through [`super::JoinCx::state`].
    ///
    /// # Errors
    /// [`PatternError`] if a star stands before the pattern's end.
    pub fn channel_with<C: Channel>(
        self,
        pattern: &str,
        state: Arc<dyn Any + Send + Sync>,
    ) -> Result<Self, PatternError> {
        self.route(pattern, Arc::new(ChannelFactory::<C>::new(Some(state))))
    }

    fn route(mut self, pattern: &str, factory: Arc<dyn Factory>) -> Result<Self, PatternError> {
        self.routes.push((TopicPattern::parse(pattern)?, factory));
        Ok(self)
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

impl fmt::Debug for SocketSpecBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SocketSpecBuilder({})", self.path)
    }
}
