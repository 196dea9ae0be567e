//! The eras with `initialize`: a session that requests name by a header, one stream a POST, and a standing one.
//!
//! Source: MCP 2025-03-26 to 2025-11-25, Streamable HTTP. A client of 2024-11-05 that comes here is served the same way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use bytes::{BufMut, Bytes, BytesMut};
use warp::http::{HeaderValue, StatusCode};
use warp::reply::Response;

use super::refusal::Refusal;
use super::sessions::{Full, HttpSession, Visiting};
use super::stream::{EventStream, Unreadable};
use super::{Arrival, CONNECTION_BIT, Legacy, SESSION, Shared, VERSION, empty, events, json};
use crate::mcp::auth::Identity;
use crate::mcp::{Item, Kind, NewSession, ServerShared, Session};
use crate::protocol::jsonrpc::{self, Incoming, Object};
use crate::protocol::mcp::client::RequestMeta;
use crate::protocol::mcp::peer::Peer;
use crate::protocol::mcp::replay::EventId;
use crate::protocol::mcp::version::Version;
use crate::protocol::mcp::{BATCH_MESSAGES_MAX, INITIALIZE};

/// Header of the last event that a client has.
const LAST_EVENT_ID: &str = "last-event-id";

/// Serves a POST.
pub(super) async fn post(
    http: &Arc<Shared>,
    server: &Arc<ServerShared>,
    user: Identity,
    arrival: &Arrival,
    text: &[u8],
    message: Legacy<'_>,
) -> Result<Response, Refusal> {
    if let Legacy::One(Incoming::Request(request)) = &message
        && request.method == INITIALIZE
        && arrival.one(SESSION)?.is_none()
    {
        return open(http, server, user, text).await;
    }
    let session = session(http, server, &user, arrival)?;
    let requests = match message {
        Legacy::One(Incoming::Request(_)) => 1,
        Legacy::One(_) => 0,
        Legacy::Batch => answers_of(&session.session, text)?,
    };
    if requests == 0 {
        session.receive(&user, text, session.session.standing());
        return Ok(empty(StatusCode::ACCEPTED));
    }
    let is_batch = text.first() == Some(&b'[');
    let (asking, attachment) = session.asking(is_batch);
    let (route, waker) = events::asking(asking);
    // One that asks the same at this moment finds the stream.
    let response = session.receive_then(&user, text, &route, || {
        let waiting = route.take();
        let is_whole = waiting.len() == requests && waiting.iter().all(|item| matches!(item.kind, Kind::Response(_)));
        if is_whole {
            session.delivered(attachment);
            return Ok(json(StatusCode::OK, if is_batch { array(waiting) } else { first(waiting) }));
        }
        let stream = match route.joined() {
            Some(earlier) => {
                let gone = || Refusal::invalid("the answer of the call under way is not to be had");
                let stream = session.stream_of(earlier).ok_or_else(gone)?;
                stream.attach(attachment);
                stream
            }
            None => session.open_answer(Arc::clone(&route), waker, attachment, waiting, requests),
        };
        let retry_ms = session.can_pause().then_some(http.options.retry_ms);
        Ok(events::response(stream.open(&session, retry_ms, http.options.keep_alive_ms)))
    });
    session.count_calls();
    response
}

/// Opens a session.
async fn open(
    http: &Arc<Shared>,
    server: &Arc<ServerShared>,
    user: Identity,
    text: &[u8],
) -> Result<Response, Refusal> {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let (standing, waker) = events::outgoing();
    let session = Session::open(
        &http.mcp,
        NewSession {
            server: Arc::clone(server),
            user: user.clone(),
            connection: LAST.fetch_add(1, Ordering::Relaxed) | CONNECTION_BIT,
            peer: Peer::default(),
            standing: Arc::clone(&standing),
            is_streaming: false,
            introduction: None,
            is_workflow: false,
        },
    );
    let unanswered = Unanswered(Some(Arc::clone(&session)));
    let (route, waker_of_route) = events::outgoing();
    session.receive(text, &route);
    // At once, unless another server is to be asked.
    let answer = std::future::poll_fn(|cx| {
        waker_of_route.register(cx.waker());
        let waiting = route.take();
        if waiting.is_empty() { Poll::Pending } else { Poll::Ready(first(waiting)) }
    })
    .await;
    if session.version().is_none() {
        return Ok(json(StatusCode::BAD_REQUEST, answer));
    }
    unanswered.keep();
    tracing::debug!(session = session.id(), user = &*user.user, "an MCP session begins");
    let stream = EventStream::standing(standing, waker, http.sessions.kept());
    let opened = HttpSession::new(Arc::clone(&session), stream, Arc::clone(server), user);
    let (id, _visiting) = http.sessions.insert(opened).map_err(|full| {
        session.end();
        tracing::warn!(?full, "an MCP session was refused: there are as many as there may be");
        match full {
            Full::Server => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "there are as many sessions as there may be"),
            Full::User => {
                let limit = http.options.sessions_per_user_max;
                let text = format!("this user has {limit} sessions, as many as there may be, and all are in use");
                Refusal::new(StatusCode::TOO_MANY_REQUESTS, text)
            }
        }
    })?;
    http.sessions.watch(&http.mcp, &id);
    let mut response = json(StatusCode::OK, answer);
    let id = HeaderValue::from_str(&id).expect("hex digits are visible ASCII");
    response.headers_mut().insert(SESSION, id);
    Ok(response)
}

/// A session whose client has no answer yet: it ends with the client's request.
struct Unanswered(Option<Arc<Session>>);

impl Unanswered {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(session) = &self.0 {
            session.end();
        }
    }
}

/// The session that a request names.
fn session(http: &Shared, server: &Arc<ServerShared>, user: &Identity, arrival: &Arrival) -> Result<Visiting, Refusal> {
    let Some(id) = arrival.one(SESSION)? else {
        return Err(Refusal::invalid("expected the header Mcp-Session-Id, or initialize first"));
    };
    let session = http.sessions.find(id, server, user);
    let session =
        session.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "there is no such session, or no longer"))?;
    if let Some(version) = arrival.one(VERSION)?
        && Version::parse(version).is_none()
    {
        let known: Vec<_> = Version::ALL.iter().map(|version| version.as_str()).collect();
        return Err(Refusal::invalid(format!("MCP-Protocol-Version: expected one of {}", known.join(", "))));
    }
    Ok(session)
}

/// How many answers a batch gets.
fn answers_of(session: &Session, text: &[u8]) -> Result<usize, Refusal> {
    if !session.version().is_some_and(Version::has_batches) {
        return Err(Refusal::invalid("expected one message, came an array: the session's revision has no batches"));
    }
    let messages = jsonrpc::batch(text).unwrap_or_default();
    if messages.is_empty() || messages.len() > BATCH_MESSAGES_MAX {
        let text = format!("expected 1 to {BATCH_MESSAGES_MAX} messages in a batch, came {}", messages.len());
        return Err(Refusal::invalid(text));
    }
    let is_stateless = |text: &[u8]| match Incoming::classify(text) {
        Incoming::Request(request) => {
            let params = request.params.and_then(|params| Object::parse(params.get().as_bytes()));
            RequestMeta::is_modern(params.and_then(|params| params.object("_meta")).as_ref())
        }
        _ => false,
    };
    if messages.iter().any(|message| is_stateless(message.get().as_bytes())) {
        return Err(Refusal::invalid("expected requests of the session's revision in a batch, came a stateless one"));
    }
    let is_answered = |text: &[u8]| matches!(Incoming::classify(text), Incoming::Request(_) | Incoming::Invalid { .. });
    Ok(messages.iter().filter(|message| is_answered(message.get().as_bytes())).count())
}

fn first(items: impl IntoIterator<Item = Item>) -> Bytes {
    items.into_iter().next().map(|item| item.text).unwrap_or_default()
}

fn array(items: impl IntoIterator<Item = Item>) -> Bytes {
    let mut text = BytesMut::new();
    for item in items {
        text.put_u8(if text.is_empty() { b'[' } else { b',' });
        text.extend_from_slice(&item.text);
    }
    text.put_u8(b']');
    text.freeze()
}

/// Serves a GET: the standing stream, or one that its client lost.
pub(super) fn get(
    http: &Shared,
    server: &Arc<ServerShared>,
    user: &Identity,
    arrival: &Arrival,
) -> Result<Response, Refusal> {
    let session = session(http, server, user, arrival)?;
    let Some(id) = arrival.one(LAST_EVENT_ID)? else {
        let retry_ms = session.can_pause().then_some(http.options.retry_ms);
        return Ok(events::response(session.standing.open(&session, retry_ms, http.options.keep_alive_ms)));
    };
    let id = EventId::parse(id).ok_or_else(|| Refusal::invalid("Last-Event-ID: expected the id of an event"))?;
    let stream = session.stream(id.stream);
    // Not 404, which says that the session is gone.
    let gone = || Refusal::invalid("Last-Event-ID: there is no such stream, or no longer");
    match stream.ok_or_else(gone)?.resume(&session, id.seq, http.options.keep_alive_ms) {
        Ok(reader) => Ok(events::response(reader)),
        // What tells an EventSource not to come back.
        Err(Unreadable::Ended) => Ok(empty(StatusCode::NO_CONTENT)),
        Err(Unreadable::NotKept(why)) => Err(Refusal::invalid(format!("Last-Event-ID: {why}"))),
    }
}

/// Serves a DELETE: the session ends, and what it has under way.
pub(super) fn delete(
    http: &Shared,
    server: &Arc<ServerShared>,
    user: &Identity,
    arrival: &Arrival,
) -> Result<Response, Refusal> {
    session(http, server, user, arrival)?;
    if let Some(id) = arrival.one(SESSION)? {
        http.sessions.end(id);
    }
    Ok(empty(StatusCode::NO_CONTENT))
}
