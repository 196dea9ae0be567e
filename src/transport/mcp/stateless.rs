//! The stateless era: a request is all there is, and closing its response takes it back.
//!
//! Source: MCP 2026-07-28, Streamable HTTP.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use futures::task::AtomicWaker;
use warp::http::{HeaderMap, StatusCode};
use warp::reply::Response;

use super::events::{self, KeepAlive};
use super::refusal::Refusal;
use super::{Arrival, Denial, Shared, Stateless, VERSION, empty, json};
use crate::auth::live::Resident;
use crate::mcp::auth::Identity;
use crate::mcp::{Item, Kind, NewSession, Outgoing, ServerShared, Session};
use crate::protocol::jsonrpc::{self, Fault, Object, Request};
use crate::protocol::mcp::client::{META_VERSION, RequestMeta};
use crate::protocol::mcp::error;
use crate::protocol::mcp::headers::{HeaderMismatch, METHOD, NAME, PARAM_PREFIX};
use crate::protocol::mcp::peer::Peer;

/// Serves a POST.
pub(super) fn post(
    http: &Shared,
    server: Arc<ServerShared>,
    user: Identity,
    arrival: &Arrival,
    text: &[u8],
    message: Stateless<'_>,
) -> Result<Response, Refusal> {
    let (request, meta) = match message {
        Stateless::Request(request, meta) => (request, meta),
        Stateless::Notification(method) => {
            // None of them means anything here: a client takes a request back by closing its response.
            if arrival.headers.contains_key(METHOD) {
                let checked = server.check_headers(lookup(&arrival.headers), &method, None);
                checked.map_err(|bad| Refusal::new(StatusCode::BAD_REQUEST, bad.to_string()))?;
            }
            return Ok(empty(StatusCode::ACCEPTED));
        }
    };
    check(&server, &arrival.headers, &request, meta.as_ref())
        .map_err(|fault| Refusal::of(request.id, StatusCode::BAD_REQUEST, fault))?;

    let (route, waker) = events::outgoing();
    let session = Session::passing(
        &http.mcp,
        NewSession {
            server,
            user,
            connection: arrival.connection(),
            peer: Peer::default(),
            standing: Arc::clone(&route),
            is_streaming: false,
            introduction: None,
            is_workflow: false,
        },
    );
    session.receive(text, &route);
    let mut items = route.take();
    if let [Item { kind: Kind::Response(code), .. }] = *items.make_contiguous() {
        let item = items.pop_front().expect("there is one");
        let mut response = json(code.map_or(StatusCode::OK, status), item.text.clone());
        if code == Some(error::UNAUTHORIZED) {
            response.extensions_mut().insert(Denial(denial(&item.text)));
        }
        return Ok(response);
    }
    let mut first = Vec::new();
    let is_done = write(&mut first, items);
    let keep_alive = KeepAlive::new(http.options.keep_alive_ms);
    let is_cut = Arc::new(AtomicBool::new(false));
    let (cut, woken) = (Arc::clone(&is_cut), Arc::clone(&waker));
    let leave = move |_| {
        cut.store(true, Ordering::Release);
        woken.wake();
    };
    let resident = http.mcp.watch_credential(session.user(), Box::new(leave));
    Ok(events::response(Answer { session, route, waker, first, is_done, keep_alive, is_cut, _resident: resident }))
}

/// Checks what a request says of itself.
fn check(
    server: &ServerShared,
    headers: &HeaderMap,
    request: &Request<'_>,
    meta: Option<&Object<'_>>,
) -> Result<(), Fault> {
    let read = match RequestMeta::read(meta) {
        // Said last: the headers may name another revision.
        Err(Fault::Coded(fault)) if fault.code == error::UNSUPPORTED_VERSION => Err(Fault::Coded(fault)),
        read => Ok(read?),
    };
    let version = meta.and_then(|meta| meta.string(META_VERSION)).unwrap_or_default();
    let mismatch = |bad: HeaderMismatch| error::header_mismatch(&bad.to_string());
    one_each(headers).map_err(mismatch)?;
    let said = lookup(headers)(VERSION).map(|said| said.trim_matches([' ', '\t']));
    if said != Some(version.as_str()) {
        let came = said.map_or_else(|| "none".to_owned(), |said| format!("{said:?}"));
        let bad = HeaderMismatch { header: "MCP-Protocol-Version".to_owned(), expected: format!("{version:?}"), came };
        return Err(mismatch(bad));
    }
    server.check_headers(lookup(headers), &request.method, request.params).map_err(mismatch)?;
    read.map(drop)
}

/// The value of a header. What is no UTF-8 is none that fits.
fn lookup<'h>(headers: &'h HeaderMap) -> impl Fn(&str) -> Option<&'h str> {
    |name| headers.get(name).map(|value| std::str::from_utf8(value.as_bytes()).unwrap_or("\u{fffd}"))
}

/// None of the headers that are checked comes twice: proxies would look at one, the server at another.
fn one_each(headers: &HeaderMap) -> Result<(), HeaderMismatch> {
    let prefix = PARAM_PREFIX.to_ascii_lowercase();
    let is_checked = |name: &str| {
        name == VERSION
            || name.eq_ignore_ascii_case(METHOD)
            || name.eq_ignore_ascii_case(NAME)
            || name.starts_with(&prefix)
    };
    if headers.len() == headers.keys_len() {
        return Ok(());
    }
    for name in headers.keys().filter(|name| is_checked(name.as_str())) {
        let count = headers.get_all(name).iter().count();
        if count > 1 {
            let (expected, came) = ("one".to_owned(), format!("{count}"));
            return Err(HeaderMismatch { header: name.to_string(), expected, came });
        }
    }
    Ok(())
}

/// The status that goes with an error's code; others are failures within a request that was good.
fn status(code: i64) -> StatusCode {
    match code {
        jsonrpc::METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
        jsonrpc::PARSE_ERROR
        | jsonrpc::INVALID_REQUEST
        | error::HEADER_MISMATCH
        | error::MISSING_CLIENT_CAPABILITY
        | error::UNSUPPORTED_VERSION => StatusCode::BAD_REQUEST,
        error::UNAUTHORIZED => StatusCode::FORBIDDEN,
        _ => StatusCode::OK,
    }
}

/// The text of an error.
fn denial(text: &[u8]) -> String {
    let error = Object::parse(text).and_then(|response| response.object("error"));
    error.and_then(|error| error.string("message")).unwrap_or_default()
}

/// Writes messages as events; whether the answer is among them.
fn write(out: &mut Vec<u8>, items: impl IntoIterator<Item = Item>) -> bool {
    let mut is_done = false;
    for item in items {
        if item.kind.is_message() {
            events::write(out, None, &item.text);
        }
        is_done |= matches!(item.kind, Kind::Response(_) | Kind::Unanswered);
    }
    is_done
}

/// The body of a response that is a stream. Where it is dropped before its end, the client has gone.
struct Answer {
    session: Arc<Session>,
    route: Arc<Outgoing>,
    waker: Arc<AtomicWaker>,
    /// What is there already.
    first: Vec<u8>,
    is_done: bool,
    keep_alive: KeepAlive,
    /// The credential has ended.
    is_cut: Arc<AtomicBool>,
    _resident: Option<Resident>,
}

impl Stream for Answer {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let mut out = std::mem::take(&mut this.first);
        if !this.is_done {
            this.waker.register(cx.waker());
            if this.is_cut.load(Ordering::Acquire) {
                return Poll::Ready(None);
            }
            this.is_done = write(&mut out, this.route.take());
        }
        if !out.is_empty() {
            this.keep_alive.sent();
            return Poll::Ready(Some(Ok(out.into())));
        }
        if this.is_done {
            return Poll::Ready(None);
        }
        this.keep_alive.poll(cx).map(|()| Some(Ok(events::COMMENT)))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.is_done {
            self.route.close();
            self.session.abandon();
        }
    }
}
