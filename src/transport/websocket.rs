//! WebSocket: our own upgrade under a warp route, then one small task a connection.
//!
//! warp's `ws()` costs 137 KB a connection (ADR 0005). Here hyper hands over the TCP stream after our 101; its read
//! buffer is copied and dropped at once. The task reads into a buffer of its thread, parses frames in place, and sends
//! all answers of one read in one write.

mod deflate;
mod link;
mod task;

use std::sync::Arc;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Parts, Upgraded};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use warp::http::{HeaderValue, Method, Response, StatusCode, header};

use super::admission::Permit;
use super::arrival::Arrival;
use super::connect::{self, Rejected};
use super::mount::{HttpResponse, text};
use crate::channel::host::Host;
use crate::channel::{Compression, Connected, RequestUri, SocketSpec};
use crate::outbox::ConnLimits;
use crate::protocol::query::Params;
use crate::protocol::websocket::deflate::{self as extension, Negotiated};
use crate::protocol::websocket::handshake;
use crate::protocol::wire::WireVersion;
use deflate::Deflate;
use link::{Link, Queued};
use task::Task;

/// What stands before an auth token among the subprotocols.
const TOKEN_PREFIX: &str = "base64url.bearer.phx.";

/// The alphabet is the standard one whatever the prefix says; clients leave the padding out.
const TOKEN_ENCODING: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Answers a request for a socket's `websocket` path. In order: origin, subprotocol, wire version and `connect`, upgrade
/// headers.
pub(super) async fn upgrade(
    spec: &Arc<SocketSpec>,
    arrival: &mut Arrival,
    uri: RequestUri,
    params: Params,
) -> HttpResponse {
    if arrival.method != Method::GET {
        return text(StatusCode::BAD_REQUEST, "expected GET");
    }
    // What follows the head of an upgrade is frames: a body would be read as such.
    let length = arrival.header("content-length");
    if arrival.header("transfer-encoding").is_some() || length.is_some_and(|length| length != "0") {
        return text(StatusCode::BAD_REQUEST, "expected a request without a body");
    }
    if !connect::origin_allowed(spec, arrival, &uri) {
        tracing::warn!(origin = arrival.header("origin"), "origin refused");
        return text(StatusCode::FORBIDDEN, "");
    }
    let Some(offered) = Subprotocols::read(spec, arrival.header("sec-websocket-protocol").as_deref()) else {
        return text(StatusCode::FORBIDDEN, "");
    };

    let (version, connected) = match connect::connect(spec, arrival, uri, params, offered.token).await {
        Ok(accepted) => accepted,
        Err(Rejected::Forbidden) => return text(StatusCode::FORBIDDEN, ""),
        Err(Rejected::Reason(reason)) => {
            let (status, body) = match &spec.on_error {
                Some(handler) => handler(&reason),
                None => (403, String::new()),
            };
            return text(StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN), &body);
        }
        Err(Rejected::Crashed) => return text(StatusCode::INTERNAL_SERVER_ERROR, ""),
    };

    let (connection, upgrade) = (arrival.header("connection"), arrival.header("upgrade"));
    let (wanted, key) = (arrival.header("sec-websocket-version"), arrival.header("sec-websocket-key"));
    let checked =
        handshake::check_upgrade(connection.as_deref(), upgrade.as_deref(), wanted.as_deref(), key.as_deref());
    if let Err(error) = checked {
        return text(StatusCode::BAD_REQUEST, &error.to_string());
    }
    let Some(upgraded) = arrival.upgrade.take() else {
        return text(StatusCode::BAD_REQUEST, "expected a connection that can be upgraded");
    };

    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let accept = handshake::accept_key(&key.unwrap_or_default());
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&accept).expect("base64 is a header value"));
    if let Some(selected) = offered.selected
        && let Ok(value) = HeaderValue::from_str(&selected)
    {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
    let mut deflate = None;
    if spec.options.compression == Compression::On
        && let Some(offers) = arrival.header("sec-websocket-extensions")
        && let Some((negotiated, answer)) = extension::negotiate(&offers)
        && let Ok(value) = HeaderValue::from_str(&answer)
    {
        headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, value);
        deflate = Some(negotiated);
    }

    let permit = arrival.peer.permit.clone();
    tokio::spawn(serve(upgraded, Arc::clone(spec), version, connected, deflate, permit));
    response
}

/// Takes the stream over from hyper and runs the connection.
async fn serve(
    upgraded: OnUpgrade,
    spec: Arc<SocketSpec>,
    version: WireVersion,
    connected: Connected,
    deflate: Option<Negotiated>,
    permit: Option<Arc<Permit>>,
) {
    let task = match upgraded.await {
        Ok(upgraded) => match take_over(upgraded) {
            // The read buffer pins hyper's 8 KiB: what is in it is copied, and it is dropped here.
            Ok((stream, unparsed)) => start(stream, unparsed.to_vec(), spec, version, connected, deflate, permit),
            Err(_) => return tracing::error!("an upgraded connection was neither plain TCP nor our own TLS"),
        },
        Err(error) => return tracing::debug!(%error, "the upgrade did not come about"),
    };
    task.await;
}

/// What hyper gives back.
enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The stream, from our accept loop or from `warp::serve`'s, and what was read of it already.
fn take_over(upgraded: Upgraded) -> Result<(Stream, Bytes), Upgraded> {
    let upgraded = match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(Parts { io, read_buf, .. }) => return Ok((Stream::Tcp(io.into_inner()), read_buf)),
        Err(upgraded) => upgraded,
    };
    let upgraded = match upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>() {
        Ok(Parts { io, read_buf, .. }) => return Ok((Stream::Tls(Box::new(io.into_inner())), read_buf)),
        Err(upgraded) => upgraded,
    };
    let auto::upgrade::Parts { io, read_buf, .. } = auto::upgrade::downcast::<TokioIo<TcpStream>>(upgraded)?;
    let stream = io.into_inner();
    // Our own listener has it set for every connection.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was not set");
    }
    Ok((Stream::Tcp(stream), read_buf))
}

fn start(
    stream: Stream,
    unparsed: Vec<u8>,
    spec: Arc<SocketSpec>,
    version: WireVersion,
    connected: Connected,
    negotiated: Option<Negotiated>,
    permit: Option<Arc<Permit>>,
) -> Task {
    let options = &spec.options;
    let limits = ConnLimits {
        outbox_bytes_max: options.outbox_bytes_max,
        inbox_messages_max: options.inbox_messages_max,
        idle_timeout_ms: options.idle_timeout_ms,
    };
    let deflate = negotiated.as_ref().map(Deflate::new);
    let (link, direct) = match (stream, deflate) {
        (Stream::Tcp(stream), None) => {
            let (read, write) = stream.into_split();
            (Link::Direct(read), Some(write))
        }
        (Stream::Tcp(stream), deflate) => (Link::Deflating(Queued::new(stream, deflate)), None),
        (Stream::Tls(stream), deflate) => (Link::Tls(Queued::new(*stream, deflate)), None),
    };
    let conn = spec.endpoint.hub.connect(version, limits, direct);
    connected.opened(&conn);
    let socket_id = connected.id.map(Arc::from);
    let host = Host::new(Arc::clone(&conn), spec, connected.assigns, socket_id);
    Task::new(link, conn, host, negotiated, unparsed, permit)
}

/// What came of the client's `sec-websocket-protocol`.
struct Subprotocols {
    selected: Option<String>,
    token: Option<String>,
}

impl Subprotocols {
    /// None refuses the client: it asks for subprotocols and none is ours, or its token can't be read.
    ///
    /// Source: transcripts auth_*, sub_*. Where more than one token is sent, none is used.
    fn read(spec: &SocketSpec, header: Option<&str>) -> Option<Self> {
        let mut offered: Vec<&str> =
            header.unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let mut ours: Vec<&str> = spec.options.subprotocols.iter().map(String::as_str).collect();
        let mut token = None;
        if spec.options.auth_token {
            if !ours.contains(&"phoenix") {
                ours.push("phoenix");
            }
            let tokens: Vec<&str> = offered.iter().filter_map(|name| name.strip_prefix(TOKEN_PREFIX)).collect();
            if let [encoded] = tokens[..] {
                let bytes = TOKEN_ENCODING.decode(encoded).ok()?;
                token = Some(String::from_utf8(bytes).ok()?);
                offered.retain(|name| !name.starts_with(TOKEN_PREFIX));
            }
        }
        if ours.is_empty() || offered.is_empty() {
            return Some(Subprotocols { selected: None, token });
        }
        let selected = ours.iter().find(|name| offered.contains(name))?;
        Some(Subprotocols { selected: Some((*selected).to_owned()), token })
    }
}
