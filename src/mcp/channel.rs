//! A session's channel: the handshake at its join, JSON-RPC in `mcp_message`, the events of its calls.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::task::AbortHandle;

use super::auth::Identity;
use super::runs::{NewRun, Watch};
use super::session::Session;
use super::tools::{Arguments, CancelReason};
use super::{Mcp, SERVER_NAME};
use crate::channel::{Channel, Cx, JoinCx, Next, Payload, Reason, Refusal};
use crate::clock;
use crate::protocol::jsonrpc::{self, Fault, Incoming, Notification, Object, Request, Scope};
use crate::protocol::mcp::event::{EventKind, progress_notification};
use crate::protocol::mcp::session::{ClientInfo, Credential, Empty, JoinReply};
use crate::protocol::mcp::tool::{CallFailure, CallParams};
use crate::protocol::mcp::{
    CANCELLED, HEARTBEAT, HEARTBEAT_ACK, ID_BYTES_MAX, MCP_MESSAGE, PING, REQUEST_BYTES_MAX, SESSION_TOPIC_PREFIX,
    STREAMING_EVENT, TOOLS_CALL, TOOLS_LIST, UNKNOWN_EVENT, UNKNOWN_TOPIC,
};

/// One session, on `mcp:session` or `mcp:session:<name>`.
///
/// Every message is answered with `ok` `{}`, whatever becomes of it; what JSON-RPC has to say is a push. Responses come
/// in the order in which calls end. A call that the client cancels gets no response, as MCP wants; its run still ends
/// with `tool_failed`.
pub(super) struct SessionChannel {
    mcp: Arc<Mcp>,
    session: Arc<Session>,
    connection: u64,
    user: Identity,
    calls: Vec<Call>,
    liveness: Option<AbortHandle>,
}

/// A call under way.
struct Call {
    watch: Arc<Watch>,
    request_id: Box<RawValue>,
    progress_token: Option<Box<RawValue>>,
    /// The client gave it up: it gets no response.
    is_cancelled: bool,
}

/// What a session's channel is told by the server's own code.
pub(super) enum Info {
    /// The join has been answered.
    Joined,
    /// A call of this session has news.
    Advanced(Arc<Watch>),
    /// Time to see whether the client still lives.
    LivenessDue,
}

impl Channel for SessionChannel {
    type Info = Info;

    async fn join(topic: &str, params: Payload, cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        let mcp = shared(cx);
        if topic == SESSION_TOPIC_PREFIX {
            return Err(Refusal::reason(UNKNOWN_TOPIC));
        }
        let client = ClientInfo::parse(json(&params)).map_err(Refusal::reason)?;
        let user = authenticate(&mcp, &params).await?;

        let connection = cx.connection_id();
        let session = mcp.sessions.open(connection);
        tracing::debug!(client = client.name, version = client.version, user = &*user.user, "an MCP session begins");
        let reply = Payload::json(&JoinReply::new(SERVER_NAME, env!("CARGO_PKG_VERSION"), session.id()))?;
        // An inbox that is full ends the connection, and this session with it.
        cx.send(Info::Joined);
        Ok((SessionChannel { mcp, session, connection, user, calls: Vec::new(), liveness: None }, reply))
    }

    async fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> Next {
        match event {
            MCP_MESSAGE => {
                if let Some(answer) = self.answer(json(&payload), cx) {
                    cx.push(MCP_MESSAGE, Payload::Json(answer));
                }
                Next::ok(Payload::EMPTY)
            }
            HEARTBEAT => {
                #[derive(Serialize)]
                struct Ack {
                    timestamp: String,
                }

                let ack = jsonrpc::raw(&Ack { timestamp: clock::wall_iso8601_micros() });
                cx.push(HEARTBEAT_ACK, Payload::Json(Bytes::from(String::from(Box::<str>::from(ack)))));
                Next::ok(Payload::EMPTY)
            }
            _ => Next::error(Payload::reason(UNKNOWN_EVENT)),
        }
    }

    async fn handle_info(&mut self, info: Info, cx: &mut Cx<Self>) -> Next {
        match info {
            Info::Advanced(watch) => self.stream(&watch, cx),
            Info::Joined => self.expect_life(self.mcp.settings.heartbeat_timeout_ms, cx),
            Info::LivenessDue => {
                let timeout_ms = self.mcp.settings.heartbeat_timeout_ms;
                let idle_ms = cx.socket_idle_ms();
                if idle_ms >= timeout_ms {
                    return Next::crash("heartbeat_timeout");
                }
                self.expect_life(timeout_ms - idle_ms, cx);
            }
        }
        Next::NoReply
    }

    async fn terminate(&mut self, reason: &Reason, _cx: &mut Cx<Self>) {
        tracing::debug!(?reason, calls = self.calls.len(), "an MCP session ends");
    }
}

impl Drop for SessionChannel {
    /// However the channel ends, its calls end with it.
    fn drop(&mut self) {
        self.session.end();
        if let Some(timer) = &self.liveness {
            timer.abort();
        }
    }
}

impl SessionChannel {
    fn expect_life(&mut self, after_ms: u64, cx: &mut Cx<Self>) {
        self.liveness = Some(cx.send_after(Duration::from_millis(after_ms), Info::LivenessDue));
    }

    /// The answer to a JSON-RPC message that has one at once.
    fn answer(&mut self, message: &[u8], cx: &Cx<Self>) -> Option<Bytes> {
        let compat = self.mcp.settings.compat;
        match Incoming::classify(message) {
            Incoming::Request(request) => match self.serve(&request, cx) {
                Ok(result) => result.map(|result| jsonrpc::result_response(request.id, &result)),
                Err(fault) => Some(jsonrpc::error_response(Some(request.id), &fault, compat)),
            },
            Incoming::Notification(notification) => {
                self.note(&notification);
                None
            }
            Incoming::Response(response) => {
                tracing::debug!(id = response.id.get(), "a response to no request of ours");
                None
            }
            Incoming::Invalid { id } => Some(jsonrpc::error_response(id, &Fault::InvalidMessage, compat)),
        }
    }

    /// The result of a request; none yet for a call that has begun.
    fn serve(&mut self, request: &Request<'_>, cx: &Cx<Self>) -> Result<Option<Box<RawValue>>, Fault> {
        if request.bytes() > REQUEST_BYTES_MAX {
            return Err(Fault::RequestTooLarge);
        }
        match request.method.as_str() {
            PING => Ok(Some(jsonrpc::raw(&Empty {}))),
            TOOLS_LIST => Ok(Some(self.mcp.tools.listing().to_owned())),
            TOOLS_CALL => self.call(request, cx),
            unknown => Err(Fault::MethodNotFound(unknown.to_owned())),
        }
    }

    /// Begins a call. A tool that is not there and arguments that don't fit are failures in band, as failures inside
    /// tools are; they are no runs.
    fn call(&mut self, request: &Request<'_>, cx: &Cx<Self>) -> Result<Option<Box<RawValue>>, Fault> {
        let params = CallParams::parse(request.params)?;
        if request.id.get().len() > ID_BYTES_MAX {
            return Err(Fault::RequestTooLarge);
        }
        let Some(tool) = self.mcp.tools.find(&params.name) else {
            return Ok(Some(jsonrpc::raw(&CallFailure::tool_not_found())));
        };
        let limit = self.mcp.settings.calls_per_session_max;
        if self.calls.len() >= limit {
            return Err(Fault::TooManyCalls { scope: Scope::Session, limit });
        }

        let work = match tool.prepare(&Arguments(params.arguments)) {
            Ok(work) => work,
            Err(unfit) => return Ok(Some(jsonrpc::raw(&CallFailure::new(unfit)))),
        };
        let (request_id, owner) = (request.id.to_owned(), self.user.clone());
        let new = NewRun { tool, work, request_id, owner, connection: self.connection };
        let (session, channel) = (&self.session, cx.handle());
        let mut watch = None;
        let started = self.mcp.runs.start(new, |run| {
            watch = Some(run.watch(0, move |watch| channel.send(Info::Advanced(Arc::clone(watch))).is_ok()));
            session.begin(run);
        });
        match (started, watch) {
            (Ok(_), Some(watch)) => self.calls.push(Call {
                watch,
                request_id: request.id.to_owned(),
                progress_token: params.progress_token,
                is_cancelled: false,
            }),
            (Err(full), _) => return Err(full.into()),
            (Ok(_), None) => unreachable!("a run that starts is attached to"),
        }
        Ok(None)
    }

    fn note(&mut self, notification: &Notification<'_>) {
        if notification.method != CANCELLED {
            tracing::debug!(method = notification.method, "a notification that nothing waits for");
            return;
        }
        let params = notification.params.and_then(|params| Object::parse(params.get().as_bytes()));
        let Some(id) = params.as_ref().and_then(|params| params.raw("requestId")).map(jsonrpc::id_key) else {
            return;
        };
        for call in self.calls.iter_mut().filter(|call| jsonrpc::id_key(&call.request_id) == id) {
            call.is_cancelled = true;
            call.watch.run().cancel(CancelReason::Client);
        }
    }

    /// Pushes what is new of a call; after its last event the response.
    fn stream(&mut self, watch: &Arc<Watch>, cx: &mut Cx<Self>) {
        let Some(index) = self.calls.iter().position(|call| Arc::ptr_eq(&call.watch, watch)) else {
            return;
        };
        let mut has_ended = false;
        for entry in watch.take_new() {
            let call = &self.calls[index];
            let notification = match (&call.progress_token, entry.kind) {
                (Some(token), EventKind::Progress) if !call.is_cancelled => progress_notification(&entry.event, token),
                _ => None,
            };
            cx.push(STREAMING_EVENT, Payload::Json(entry.event));
            if let Some(notification) = notification {
                cx.push(MCP_MESSAGE, Payload::Json(notification));
            }
            has_ended |= entry.kind.is_terminal();
        }
        if !has_ended {
            return;
        }
        let call = self.calls.swap_remove(index);
        self.session.finish(watch.run());
        if let (false, Some(result)) = (call.is_cancelled, watch.run().take_result()) {
            cx.push(MCP_MESSAGE, Payload::Json(jsonrpc::result_response(&call.request_id, &result)));
        }
    }
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

/// Who joins, by the credential among the join's parameters.
pub(super) async fn authenticate(mcp: &Mcp, params: &Payload) -> Result<Identity, Refusal> {
    let credential = Credential::choose(json(params));
    mcp.auth.authenticate(credential).await.map_err(|refused| Refusal::reason(refused.0))
}
