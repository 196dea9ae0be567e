//! A client and its socket.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use super::channel::TestChannel;
use super::driver::{Driver, Sent};
use super::mailbox::Mailbox;
use super::message::Message;
use crate::channel::host::Host;
use crate::channel::{Assigns, ConnectError, ConnectInfo, Endpoint, RequestUri, SocketSpec};
use crate::outbox::ConnLimits;
use crate::protocol::message::{HEARTBEAT, PHOENIX, PHX_JOIN, PHX_REPLY, Payload};
use crate::protocol::query::{Param, Params};
use crate::protocol::websocket::Opcode;
use crate::protocol::wire::WireVersion;

/// What a client brings to `connect`. By default nothing, from 127.0.0.1, with wire version 2.
#[derive(Clone, Debug)]
pub struct Client {
    version: WireVersion,
    peer: SocketAddr,
    params: Params,
    headers: Vec<(String, String)>,
    auth_token: Option<String>,
    silent: bool,
}

impl Default for Client {
    fn default() -> Self {
        Client {
            version: WireVersion::V2,
            peer: ([127, 0, 0, 1], 50_000).into(),
            params: Params::default(),
            headers: Vec::new(),
            auth_token: None,
            silent: false,
        }
    }
}

impl Client {
    /// A client without params.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a connect param.
    pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.params.0.insert(name.into(), Param::Str(value.into()));
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.into()));
        self
    }

    /// Gives it a token ([`ConnectInfo::auth_token`]), which only a socket that asks for one reads.
    pub fn auth_token(mut self, token: impl Into<String>) -> Self {
        self.auth_token = Some(token.into());
        self
    }

    /// Gives it an address.
    pub fn peer(mut self, peer: SocketAddr) -> Self {
        self.peer = peer;
        self
    }

    /// Has it speak a wire version.
    pub fn version(mut self, version: WireVersion) -> Self {
        self.version = version;
        self
    }

    /// Has it send no heartbeats by itself, so that the socket's idle timeout closes it; without this it is never idle.
    pub fn silent(mut self) -> Self {
        self.silent = true;
        self
    }

    /// Asks the socket's `connect`. What comes before it in a real server (origin, wire version) does not come up here.
    ///
    /// # Errors
    /// What `connect` said.
    ///
    /// # Panics
    /// Outside of a tokio runtime, and where `connect` panics.
    pub async fn connect(self, socket: &Arc<SocketSpec>) -> Result<TestSocket, ConnectError> {
        let uri = RequestUri {
            scheme: "http".to_owned(),
            host: "localhost".to_owned(),
            port: 80,
            path: format!("{}/websocket", socket.path),
            query: String::new(),
        };
        let Client { version, peer, params, headers, auth_token, silent } = self;
        let auth_token = auth_token.filter(|_| socket.options.auth_token);
        let connected = (socket.connect)(ConnectInfo { params, peer, uri, headers, auth_token }).await?;

        let options = &socket.options;
        let limits = ConnLimits {
            outbox_bytes_max: options.outbox_bytes_max,
            inbox_messages_max: options.inbox_messages_max,
            idle_timeout_ms: if silent { options.idle_timeout_ms } else { 0 },
        };
        let conn = socket.endpoint.hub.connect(version, limits, None);
        let id = connected.id.clone().map(Arc::from);
        let host = Host::new(Arc::clone(&conn), Arc::clone(socket), connected.assigns.clone(), id);
        let (sender, frames) = mpsc::unbounded_channel();
        let mailbox = Arc::<Mailbox>::default();
        let live = host.live_guard();
        let message_bytes_max = options.message_bytes_max.min(options.frame_bytes_max);
        let driver = Driver { conn, host, frames, mailbox: Arc::clone(&mailbox), live, message_bytes_max, silent };
        tokio::spawn(driver.run());
        let wire = Arc::new(Wire { version, frames: sender, mailbox, last_ref: AtomicU64::new(0) });
        let endpoint = Endpoint { shared: Arc::clone(&socket.endpoint) };
        Ok(TestSocket { wire, endpoint, assigns: connected.assigns, id: connected.id })
    }
}

/// What a socket and its channels share.
#[derive(Debug)]
pub(super) struct Wire {
    version: WireVersion,
    frames: mpsc::UnboundedSender<Sent>,
    pub(super) mailbox: Arc<Mailbox>,
    last_ref: AtomicU64,
}

impl Wire {
    pub(super) fn next_ref(&self) -> String {
        (self.last_ref.fetch_add(1, Ordering::Relaxed) + 1).to_string()
    }

    /// Sends a message as phoenix.js does. A socket that has closed takes none, as a browser's doesn't.
    pub(super) fn send(&self, join_ref: Option<&str>, reference: &str, topic: &str, event: &str, payload: &Payload) {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let frame = match (payload, self.version) {
            (Payload::Json(json), version) => {
                let json = String::from_utf8_lossy(json);
                let join_ref = join_ref.map_or("null".to_owned(), quoted);
                let (reference, topic, event) = (quoted(reference), quoted(topic), quoted(event));
                let text = match version {
                    WireVersion::V2 => format!("[{join_ref},{reference},{topic},{event},{json}]"),
                    WireVersion::V1 => format!(
                        r#"{{"join_ref":{join_ref},"ref":{reference},"topic":{topic},"event":{event},"payload":{json}}}"#
                    ),
                };
                (Opcode::Text, text.into_bytes())
            }
            (Payload::Binary(data), WireVersion::V2) => {
                let parts = [join_ref.unwrap_or_default(), reference, topic, event];
                let length =
                    |part: &&str| u8::try_from(part.len()).expect("a binary message's parts have up to 255 bytes");
                let mut bytes = vec![0];
                bytes.extend(parts.iter().map(length));
                bytes.extend(parts.concat().bytes());
                bytes.extend_from_slice(data);
                (Opcode::Binary, bytes)
            }
            (Payload::Binary(_), WireVersion::V1) => panic!("wire version 1 carries JSON, got binary data to push"),
        };
        let (opcode, bytes) = frame;
        let _ = self.frames.send(Sent::Message(opcode, bytes));
    }
}

/// A connected client. Dropped together with its channels, it goes away without a word.
#[derive(Debug)]
pub struct TestSocket {
    wire: Arc<Wire>,
    endpoint: Endpoint,
    assigns: Assigns,
    id: Option<String>,
}

impl TestSocket {
    /// What `connect` gave for the channels to read, if it is of this type.
    pub fn assigns<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.assigns.get()
    }

    /// The id that `connect` gave the socket.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Joins a topic and waits for the answer. From here on [`TestChannel::assert_broadcast`] sees the topic's broadcasts.
    ///
    /// # Errors
    /// The response of a refusal.
    ///
    /// # Panics
    /// If no answer comes.
    pub async fn join(&self, topic: &str, params: impl Into<Payload>) -> Result<TestChannel, Payload> {
        let broadcasts = self.endpoint.overhear(topic);
        let join_ref = self.wire.next_ref();
        self.wire.send(Some(&join_ref), &join_ref, topic, PHX_JOIN, &params.into());
        let is_answer = |message: &Message| message.event == PHX_REPLY && message.reference == join_ref.as_str();
        let answer = self.wire.mailbox.expect(&format!("an answer to the join of {topic:?}"), is_answer).await;
        match answer.status.as_deref() {
            Some("ok") => {
                Ok(TestChannel::new(Arc::clone(&self.wire), topic.to_owned(), join_ref, answer.payload, broadcasts))
            }
            _ => Err(answer.payload),
        }
    }

    /// Sends a heartbeat and waits for its answer.
    ///
    /// # Panics
    /// If no answer comes.
    pub async fn heartbeat(&self) {
        let reference = self.wire.next_ref();
        self.wire.send(None, &reference, PHOENIX, HEARTBEAT, &Payload::EMPTY);
        let is_answer = |message: &Message| message.topic == PHOENIX && message.reference == reference.as_str();
        self.wire.mailbox.expect("an answer to the heartbeat", is_answer).await;
    }

    /// Sends one message as it is, right or wrong.
    pub fn send_text(&self, text: impl Into<String>) {
        let _ = self.wire.frames.send(Sent::Message(Opcode::Text, text.into().into_bytes()));
    }

    /// Takes the next message that no assertion has taken. None if none comes, or the socket has closed.
    pub async fn next(&self) -> Option<Message> {
        self.wire.mailbox.next().await
    }

    /// Waits until the server has closed the socket and every channel has run `terminate`. Gives the close code: 1001 after
    /// [`Endpoint::disconnect`], 1002 where the client was silent for too long, 1006 where it went away or did not read, 1009
    /// where a message was too long, 1011 where it can't be read.
    ///
    /// # Panics
    /// If it doesn't close.
    pub async fn closed(&self) -> u16 {
        self.wire.mailbox.closed().await
    }

    /// The client goes away. Waits until every channel has run `terminate`.
    ///
    /// # Panics
    /// If the channels do not end.
    pub async fn disconnect(self) {
        let mailbox = Arc::clone(&self.wire.mailbox);
        let _ = self.wire.frames.send(Sent::Gone);
        mailbox.closed().await;
    }
}
