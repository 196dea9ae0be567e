//! Long poll: GET waits for messages, POST sends them; the session is a task of its own.
//!
//! Every answer of a session is HTTP 200 with the real status in the body: 200, 204 (nothing within the window), 403
//! (refused), 408 (a message could not be read, and the session is gone; or a POST was not handled within the window: its
//! messages still will be, unless more POSTs than `POSTS_MAX` waited before it), 410 (no such session).
//!
//! Source: `Phoenix.Transports.LongPoll`, transcripts group longpoll.

mod message;
mod session;
mod token;

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use serde::Serialize;
use tokio::time::timeout_at;
use tokio_stream::StreamExt;
use warp::Buf;
use warp::http::{HeaderValue, Method, Response, StatusCode, header};

use super::arrival::Arrival;
use super::connect::{self, Rejected};
use super::mount::{HttpResponse, text};
use crate::channel::{LongPollOptions, RequestUri, SocketSpec};
use crate::clock;
use crate::protocol::longpoll::{Line, messages};
use crate::protocol::query::Params;
pub use session::LongPolls;
use session::{Message, Post, Session};
pub use token::Secret;

/// Answers a request for a socket's `longpoll` path.
pub(super) async fn answer<B: Buf>(
    spec: &Arc<SocketSpec>,
    arrival: &Arrival,
    uri: RequestUri,
    params: Params,
    body: impl Stream<Item = Result<B, warp::Error>> + Send,
    longpolls: &LongPolls,
) -> HttpResponse {
    let Some(options) = spec.options.longpoll else {
        return text(StatusCode::NOT_FOUND, "");
    };
    if !connect::origin_allowed(spec, arrival, &uri) {
        tracing::warn!(origin = arrival.header("origin"), "origin refused");
        return Status::only(403).into_response();
    }
    // The header is preferred: a token in a query ends in logs.
    let token = arrival.header("x-phoenix-longpoll-token").or_else(|| params.get_str("token").map(str::to_owned));
    let session = token.as_deref().and_then(|token| longpolls.find(token, &spec.path));
    match arrival.method {
        Method::OPTIONS => preflight(arrival),
        Method::GET => match (session, token) {
            (Some(session), Some(token)) => poll(&session, token, options).await,
            _ => begin(spec, arrival, uri, params, options, longpolls).await,
        },
        Method::POST => match session {
            Some(session) => publish(&session, arrival, body, options, longpolls).await,
            None => Status::only(410).into_response(),
        },
        _ => with_cors(text(StatusCode::BAD_REQUEST, "")),
    }
}

fn preflight(arrival: &Arrival) -> HttpResponse {
    let mut response = text(StatusCode::OK, "");
    let headers = response.headers_mut();
    let asked = arrival.header("access-control-request-headers").unwrap_or_default();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_str(&asked).unwrap_or(HeaderValue::from_static("")),
    );
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("get, post, options"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("3600"));
    with_cors(response)
}

/// A new session: 410 with its token, as Phoenix has it.
async fn begin(
    spec: &Arc<SocketSpec>,
    arrival: &Arrival,
    uri: RequestUri,
    params: Params,
    options: LongPollOptions,
    longpolls: &LongPolls,
) -> HttpResponse {
    let auth_token = arrival.header("x-phoenix-authtoken").filter(|_| spec.options.auth_token);
    let (version, connected) = match connect::connect(spec, arrival, uri, params, auth_token).await {
        Ok(accepted) => accepted,
        Err(Rejected::Forbidden | Rejected::Reason(_)) => return Status::only(403).into_response(),
        Err(Rejected::Crashed) => return try_again(StatusCode::INTERNAL_SERVER_ERROR),
    };
    match Session::start(spec, arrival.peer.address.ip(), version, connected, options, longpolls) {
        Some(token) => Status { status: 410, token: Some(&token), messages: Some(&[]) }.into_response(),
        None => {
            tracing::warn!(
                "a long-poll session was refused: there are as many in all, or of its address, as there may be"
            );
            try_again(StatusCode::SERVICE_UNAVAILABLE)
        }
    }
}

/// Waits for messages. The later of two polls gets them; the first waits its window out in vain.
async fn poll(session: &session::Handle, token: String, options: LongPollOptions) -> HttpResponse {
    let deadline = clock::in_ms(options.window_ms);
    let (answer, mut answered) = tokio::sync::oneshot::channel();
    if let Ok(Err(session::Gone)) = timeout_at(deadline, session.poll(answer)).await {
        return Status::only(410).into_response();
    }
    let polled = match timeout_at(deadline, &mut answered).await {
        Ok(Ok(polled)) => polled,
        Ok(Err(_)) => {
            // A later poll has taken over.
            tokio::time::sleep_until(deadline).await;
            session::Polled::Messages(Vec::new())
        }
        Err(_) => {
            answered.close();
            answered.try_recv().unwrap_or(session::Polled::Messages(Vec::new()))
        }
    };
    match polled {
        // The next poll learns that the session is gone, as it does from Phoenix.
        session::Polled::Ended => Status { status: 204, token: Some(&token), messages: Some(&[]) }.into_response(),
        session::Polled::Messages(messages) => {
            let status = if messages.is_empty() { 204 } else { 200 };
            Status { status, token: Some(&token), messages: Some(&messages) }.into_response()
        }
    }
}

/// Hands messages over and waits until they are handled, for a window at most: the answers that a client does not poll
/// for hold its next messages back.
async fn publish<B: Buf>(
    session: &session::Handle,
    arrival: &Arrival,
    body: impl Stream<Item = Result<B, warp::Error>> + Send,
    options: LongPollOptions,
    longpolls: &LongPolls,
) -> HttpResponse {
    let read = tokio::time::timeout(longpolls.body_timeout(), read_body(body, options.body_bytes_max));
    let Ok(Some(body)) = read.await else {
        return text(StatusCode::BAD_REQUEST, "the body is too large, broken or late");
    };
    let Some(messages) = decode(arrival, body, options.batch_messages_max) else {
        // Phoenix crashes here, and its clients are used to 500.
        return try_again(StatusCode::INTERNAL_SERVER_ERROR);
    };

    let (answer, answered) = tokio::sync::oneshot::channel();
    let handled = timeout_at(clock::in_ms(options.window_ms), async {
        session.post(Post { messages, answer }).await?;
        Ok(answered.await.unwrap_or(false))
    });
    let status = match handled.await {
        Ok(Ok(true)) => 200,
        Ok(Err(session::Gone)) => 410,
        Ok(Ok(false)) | Err(_) => 408,
    };
    Status::only(status).into_response()
}

/// The messages of a body, which is let go of: they may have to wait.
fn decode(arrival: &Arrival, body: Vec<u8>, batch_max: usize) -> Option<Vec<Message>> {
    let content_type = arrival.header("content-type");
    messages(content_type.as_deref(), &body, batch_max).iter().map(Line::message).collect()
}

/// Reads a body of at most `bytes_max` bytes. None if it is larger, or breaks off.
async fn read_body<B: Buf>(body: impl Stream<Item = Result<B, warp::Error>>, bytes_max: usize) -> Option<Vec<u8>> {
    let mut body = pin!(body);
    let mut read = Vec::new();
    while let Some(chunk) = body.next().await {
        let mut chunk = chunk.ok()?;
        if read.len() + chunk.remaining() > bytes_max {
            return None;
        }
        while chunk.has_remaining() {
            let part = chunk.chunk();
            read.extend_from_slice(part);
            let taken = part.len();
            chunk.advance(taken);
        }
    }
    Some(read)
}

/// The body of a session's answers.
#[derive(Serialize)]
struct Status<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<&'a [String]>,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
}

impl Status<'static> {
    fn only(status: u16) -> Self {
        Status { messages: None, status, token: None }
    }
}

impl Status<'_> {
    fn into_response(self) -> HttpResponse {
        let body = serde_json::to_vec(&self).expect("strings and numbers have a JSON form");
        let mut response = Response::new(Bytes::from(body));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        with_cors(response)
    }
}

/// A failure. phoenix.js reads the status in the body whatever HTTP says, and reconnects after 500; of a body without a
/// status it makes an exception and never polls again.
fn try_again(status: StatusCode) -> HttpResponse {
    let mut response = text(status, r#"{"status":500}"#);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    response
}

/// Any origin may read: the origin check has been made.
fn with_cors(mut response: HttpResponse) -> HttpResponse {
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}
