//! A session's channel: its join, JSON-RPC in `mcp_message`, the events of its calls.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::json as object;
use serde_json::value::RawValue;
use tokio::task::AbortHandle;

use super::Mcp;
use super::auth::{SessionEvent, SessionPlace};
use super::credential::{Member, authenticate};
use super::mailbox::{self, Mailbox};
use super::outgoing::{Item, Kind, Outgoing};
use super::recovery::{Attachment, Begun};
use super::server::ServerShared;
use super::session::{NewSession, Session};
use crate::channel::inbox::Step;
use crate::channel::{Channel, Cx, Handle, JoinCx, Next, Payload, Reason, Refusal};
use crate::clock;
use crate::protocol::jsonrpc::{self, Object};
use crate::protocol::mcp::client::Client;
use crate::protocol::mcp::peer::Peer;
use crate::protocol::mcp::recovery::{Offer, Position};
use crate::protocol::mcp::relay::Introduction;
use crate::protocol::mcp::session::{ClientInfo, SessionToken};
use crate::protocol::mcp::version::Version;
use crate::protocol::mcp::{
    ACCESS_TOKEN, HEARTBEAT, HEARTBEAT_ACK, HUB_TOPIC, MCP_MESSAGE, REFRESH_SESSION, SERVER_TOPIC_PREFIX,
    SESSION_TOPIC_PREFIX, STREAMING_EVENT, UNKNOWN_EVENT, UNKNOWN_SERVER, UNKNOWN_TOPIC,
};

/// Bytes of a session's log that may wait for a client which reads slowly; then its further messages are refused, not handled.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// Reason of that refusal.
const TOO_MUCH_WAITS: &str = "too much waits to be read";

/// One session, on `mcp:session`, `mcp:session:<name>`, `mcp:server:<server>` or `mcp:server:<server>:<name>`.
///
/// Every message is answered with `ok` `{}`, whatever becomes of it; what JSON-RPC has to say is a push. Responses come
/// in the order in which calls end. A call that the client cancels gets no response, as MCP wants; its run still ends
/// with `tool_failed`.
///
/// The session ends with its channel, unless the join asked for recovery: then it is held elsewhere, and the channel is attached.
pub(super) struct SessionChannel {
    session: Arc<Session>,
    member: Member,
    liveness: Option<AbortHandle>,
    mailbox: Mailbox,
    /// Where the session can be come back to.
    attachment: Option<Attachment>,
    ending: Ending,
    /// Among its user's sessions, until the channel ends.
    _place: Option<SessionPlace>,
}

/// What becomes of the session when the channel ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It ends, unless its client may come back: the channel crashed, or was replaced.
    Broken,
    /// The client is lost.
    Lost,
    /// It ends: the client left, or may no longer be here.
    Left,
}

/// What a session's channel is told by the server's own code.
pub(super) enum Info {
    /// The join has been answered.
    Joined,
    /// There is something to send.
    Outgoing,
    /// Time to see whether the kernel has what was sent.
    HandedOver,
    /// The session could not be stored, and has ended.
    NotStored,
    /// Another channel has taken this one's place, or the session has ended.
    Superseded,
    /// Time to see whether the client still lives.
    LivenessDue,
    /// The time of its credential is over.
    CredentialExpired,
    /// There is a queue for the session now.
    QueueBegan,
    /// About that queue.
    Queue(Step),
}

impl Channel for SessionChannel {
    type Info = Info;

    async fn join(topic: &str, params: Payload, cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        let mcp = shared(cx);
        let (server, is_of_the_deployment) = server_of(&mcp, topic)?;
        let fields = Object::parse(json(&params)).unwrap_or_default();
        // On the topics of the Elixir deployment the join is always the handshake, elsewhere where the client says who it is.
        let client = if is_of_the_deployment || fields.has("clientInfo") {
            Some(ClientInfo::parse(json(&params)).map_err(Refusal::reason)?)
        } else {
            None
        };
        let is_streaming = is_of_the_deployment || fields.get("streaming").unwrap_or(false);
        let user = authenticate(&mcp, topic, &params, cx).await?;
        if !mcp.may_use(&user, &server) {
            return Err(Refusal::reason(UNKNOWN_SERVER));
        }

        let introduced = client.as_ref().filter(|_| server.passes_on()).map(|client| {
            let info = jsonrpc::raw(&object!({"name": client.name, "version": client.version}));
            let introduction = Introduction { capabilities: client.capabilities.to_owned(), info: Some(info) };
            introduction.to_initialize(Version::V2024_11_05)
        });
        let peer = match &client {
            Some(client) => Peer::joined(Client::joined(&client.name, &client.version, &client.capabilities)),
            None => Peer::default(),
        };
        let acks = client.as_ref().is_some_and(|client| mailbox::acknowledges(client.capabilities.get()));
        let wish = mcp.recoveries.wish(&fields);
        let again = match &wish {
            Some(wish) => Begun::again(&mcp, topic, wish, &user, cx).await?,
            None => None,
        };
        let begun = match again {
            Some(begun) => begun,
            None => {
                if wish.as_ref().is_some_and(|wish| wish.token.is_some()) {
                    mcp.connections.bad_token();
                }
                let new = NewSession {
                    server,
                    user: user.clone(),
                    connection: cx.connection_id(),
                    peer,
                    standing: Arc::new(Outgoing::new(wake(cx.handle()))),
                    is_streaming,
                    introduction: introduced,
                    is_workflow: false,
                };
                Begun::anew(&mcp, topic, new, wish.is_some(), cx)?
            }
        };
        let begun = begun.stored().await?;
        let Begun { session, attachment, token, name, place, offer } = begun;
        let member = Member::stay_in(&mcp, user, name.as_ref(), || Info::CredentialExpired, cx);
        let mailbox = Mailbox::new(session.id(), acks, cx);
        let ending = Ending::Broken;
        let channel = SessionChannel { session, member, liveness: None, mailbox, attachment, ending, _place: place };
        let reply = match client {
            Some(_) => channel.session.join_reply(token.as_ref(), offer.as_ref()),
            None => introduction(&channel.session, token.as_ref(), offer.as_ref()),
        };
        // An inbox that is full ends the connection, and this session with it.
        cx.send(Info::Joined);
        Ok((channel, Payload::json(&reply)?))
    }

    async fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> Next {
        self.session.record.touch();
        match event {
            _ if !self.is_present() => Next::stop(),
            MCP_MESSAGE if let Some(attachment) = &self.attachment => {
                self.carry_rights();
                let outgoing = self.session.standing();
                if outgoing.bytes() > WAITING_BYTES_MAX {
                    return Next::error(Payload::reason(TOO_MUCH_WAITS));
                }
                let held = outgoing.hold();
                self.session.receive(json(&payload), outgoing);
                held.release(attachment.number());
                match self.push(cx) {
                    Next::NoReply => Next::ok(Payload::EMPTY),
                    stop => stop,
                }
            }
            MCP_MESSAGE => {
                let outgoing = self.session.standing();
                let held = outgoing.hold();
                self.session.receive(json(&payload), outgoing);
                for item in held.take() {
                    push(item, cx);
                }
                Next::ok(Payload::EMPTY)
            }
            HEARTBEAT => {
                #[derive(Serialize)]
                #[serde(rename_all = "camelCase")]
                struct Ack {
                    timestamp: String,
                    #[serde(skip_serializing_if = "Option::is_none")]
                    recovery_token: Option<String>,
                }

                let renew = |attachment: &Attachment| attachment.heartbeat(Position::acknowledged(json(&payload)));
                let recovery_token = self.attachment.as_ref().and_then(renew);
                let ack = jsonrpc::raw(&Ack { timestamp: clock::wall_iso8601_micros(), recovery_token });
                cx.push(HEARTBEAT_ACK, Payload::Json(Bytes::from(String::from(Box::<str>::from(ack)))));
                Next::ok(Payload::EMPTY)
            }
            ACCESS_TOKEN => {
                let next = self.member.renew(&self.session.mcp, cx.topic(), &payload, cx).await;
                if self.attachment.is_some() && self.is_present() {
                    self.carry_rights();
                }
                next
            }
            REFRESH_SESSION => {
                let fields = Object::parse(json(&payload)).unwrap_or_default();
                let Some(token) = fields.string("sessionToken") else {
                    return Next::error(Payload::reason("sessionToken must be a string"));
                };
                let refreshed = self.session.mcp.auth.refresh_session(&token);
                if let (Some(attachment), Ok(refreshed)) = (&self.attachment, &refreshed) {
                    attachment.recoverable().refreshed(&token, refreshed);
                }
                match refreshed {
                    Ok(token) => Next::ok(Payload::Json(Bytes::from(jsonrpc::raw(&token).get().to_owned()))),
                    Err(refused) => Next::error(Payload::reason(&refused.0)),
                }
            }
            _ => {
                let handled = self.mailbox.handle_in(event, &payload, cx);
                match handled {
                    Some(handled) => handled.next().await,
                    None => Next::error(Payload::reason(UNKNOWN_EVENT)),
                }
            }
        }
    }

    async fn handle_info(&mut self, info: Info, cx: &mut Cx<Self>) -> Next {
        let timeout_ms = self.session.mcp.settings.heartbeat_timeout_ms;
        match info {
            Info::Outgoing if self.attachment.is_some() => return self.push(cx),
            Info::HandedOver => {
                return self.attachment.as_mut().map_or(Next::NoReply, |attachment| attachment.look_again(cx));
            }
            Info::Superseded => return Next::stop(),
            // Its client joins again by itself.
            Info::NotStored => return Next::crash("not_stored"),
            Info::Outgoing => {
                for item in self.session.standing().take() {
                    push(item, cx);
                }
            }
            Info::Joined => {
                self.expect_life(timeout_ms, cx);
                if let Some(attachment) = &self.attachment {
                    self.session.settle(attachment.recoverable());
                    return self.push(cx);
                }
            }
            Info::CredentialExpired => return self.member.expire(),
            Info::QueueBegan => self.mailbox.begin(cx),
            Info::Queue(_) if !self.is_present() => return Next::stop(),
            Info::Queue(step) => self.mailbox.step(&step, cx),
            Info::LivenessDue => {
                let idle_ms = cx.socket_idle_ms();
                if idle_ms >= timeout_ms {
                    self.session_event(SessionEvent::TimedOut);
                    self.ending = Ending::Lost;
                    return Next::crash("heartbeat_timeout");
                }
                self.expect_life(timeout_ms - idle_ms, cx);
            }
        }
        Next::NoReply
    }

    async fn terminate(&mut self, reason: &Reason, cx: &mut Cx<Self>) {
        self.mailbox.end(cx);
        match reason {
            _ if self.member.is_revoked() => {
                // One whose place another has says nothing of the session.
                if self.attachment.as_ref().is_none_or(Attachment::is_present) {
                    self.session.record.is_revoked();
                }
                self.ending = Ending::Left;
            }
            Reason::Left => self.ending = Ending::Left,
            Reason::SocketClosed => self.ending = Ending::Lost,
            _ => {}
        }
        if self.attachment.is_some() {
            return;
        }
        self.session.record.ends_with_channel(reason);
        tracing::debug!(?reason, calls = self.session.under_way(), "an MCP session ends");
        if self.session.mcp.auth.is_audited() {
            self.session_event(SessionEvent::Terminated(&format!("{reason:?}")));
        }
    }
}

impl Drop for SessionChannel {
    /// However the channel ends, nobody is told anything more by it.
    fn drop(&mut self) {
        match (&self.attachment, self.ending) {
            (Some(attachment), Ending::Left) => attachment.end("Left"),
            (Some(attachment), Ending::Lost | Ending::Broken) => attachment.lose(),
            (None, ending) => {
                self.session.standing().close();
                match ending {
                    Ending::Lost => self.session.let_run_on(),
                    Ending::Left | Ending::Broken => self.session.end(),
                }
            }
        }
        if let Some(timer) = &self.liveness {
            timer.abort();
        }
    }
}

impl SessionChannel {
    /// Whether no other channel has come back to its session.
    fn is_present(&self) -> bool {
        self.attachment.as_ref().is_none_or(Attachment::is_present)
    }

    fn push(&mut self, cx: &mut Cx<Self>) -> Next {
        self.attachment.as_mut().map_or(Next::NoReply, |attachment| attachment.push(cx))
    }

    /// The session goes on with the rights of whoever is attached, which may have become others.
    fn carry_rights(&self) {
        if !Arc::ptr_eq(&self.session.user.rights(), &self.member.user.rights()) {
            self.session.user.renew(&self.member.user);
        }
    }

    fn session_event(&self, event: SessionEvent<'_>) {
        self.session.mcp.auth.session_changed(&self.session.user, self.session.id(), event);
    }

    fn expect_life(&mut self, after_ms: u64, cx: &mut Cx<Self>) {
        self.liveness = Some(cx.send_after(Duration::from_millis(after_ms), Info::LivenessDue));
    }
}

fn wake(handle: Handle<Info>) -> impl Fn() + Send + Sync + 'static {
    move || {
        // Where the connection is going, nobody waits for the message.
        let _ = handle.send(Info::Outgoing);
    }
}

fn push(item: Item, cx: &mut Cx<SessionChannel>) {
    if !item.kind.is_message() {
        return;
    }
    let event = if item.kind == Kind::Event { STREAMING_EVENT } else { MCP_MESSAGE };
    cx.push(event, Payload::Json(item.text));
}

/// The server that a topic names, and whether it is a topic of the Elixir deployment.
fn server_of(mcp: &Mcp, topic: &str) -> Result<(Arc<ServerShared>, bool), Refusal> {
    let of_hub = topic.strip_prefix(HUB_TOPIC);
    if of_hub.is_some_and(|rest| rest.is_empty() || rest.len() > 1) {
        return Ok((mcp.hub(), false));
    }
    if let Some(name) = topic.strip_prefix(SERVER_TOPIC_PREFIX) {
        let (name, session) = name.split_once(':').map_or((name, None), |(name, session)| (name, Some(session)));
        if session == Some("") {
            return Err(Refusal::reason(UNKNOWN_TOPIC));
        }
        let server = mcp.server(name).ok_or_else(|| Refusal::reason(UNKNOWN_SERVER))?;
        return Ok((server, false));
    }
    if topic == SESSION_TOPIC_PREFIX {
        return Err(Refusal::reason(UNKNOWN_TOPIC));
    }
    Ok((mcp.default_server(), true))
}

/// The reply to a join that is not the handshake.
fn introduction(session: &Session, token: Option<&SessionToken>, recovery: Option<&Offer>) -> Box<RawValue> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Introduction<'a> {
        server_info: &'a RawValue,
        supported_versions: &'a [Version],
        session_id: &'a str,
        #[serde(flatten)]
        token: Option<&'a SessionToken>,
        #[serde(flatten)]
        recovery: Option<&'a Offer>,
    }

    jsonrpc::raw(&Introduction {
        server_info: &session.server.facts.info,
        supported_versions: &Version::ALL,
        session_id: session.id(),
        token,
        recovery,
    })
}

/// What the route of an MCP topic was given.
pub(super) fn shared<C: Channel>(cx: &JoinCx<C>) -> Arc<Mcp> {
    cx.state().expect("the routes of MCP topics are given an Mcp")
}

/// The JSON of a payload; `null` for binary data, which no MCP message is.
pub(super) fn json(payload: &Payload) -> &[u8] {
    match payload {
        Payload::Json(text) => text,
        Payload::Binary(_) => b"null",
    }
}
