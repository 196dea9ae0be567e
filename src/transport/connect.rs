//! What both transports ask of a client before it has a socket: origin, wire version, connect params, `connect`.
//!
//! Source: `Phoenix.Transports.WebSocket.call/2`, `Phoenix.Socket.Transport`.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;

use super::arrival::Arrival;
use crate::channel::{ConnectError, ConnectInfo, Connected, RequestUri, SocketSpec};
use crate::protocol::origin::{self, RequestOrigin};
use crate::protocol::query::{self, Params};
use crate::protocol::wire::WireVersion;

/// Why there is no socket.
#[derive(Debug)]
pub(super) enum Rejected {
    /// The wire version is not one of ours, or `connect` refused.
    Forbidden,
    /// `connect` refused with a reason.
    Reason(String),
    /// `connect` panicked.
    Crashed,
}

/// Whether the request's origin may connect.
pub(super) fn origin_allowed(spec: &SocketSpec, arrival: &Arrival, uri: &RequestUri) -> bool {
    let origin = arrival.header("origin");
    let request = RequestOrigin { scheme: &uri.scheme, host: &uri.host, port: uri.port };
    origin::check(&spec.options.check_origin, origin.as_deref(), &request)
}

/// Decodes the query.
pub(super) fn params(arrival: &Arrival) -> Result<Params, query::QueryError> {
    query::decode(&arrival.query)
}

/// Chooses the wire version, then asks `connect`.
pub(super) async fn connect(
    spec: &SocketSpec,
    arrival: &Arrival,
    uri: RequestUri,
    params: Params,
    auth_token: Option<String>,
) -> Result<(WireVersion, Connected), Rejected> {
    let vsn = params.get_str("vsn");
    if vsn.is_none() && params.contains("vsn") {
        tracing::warn!("a client's vsn is no string");
        return Err(Rejected::Forbidden);
    }
    let version = WireVersion::negotiate(vsn).map_err(|error| {
        tracing::warn!(%error, "a client asks for a wire version that is not served");
        Rejected::Forbidden
    })?;

    let info = ConnectInfo { params, peer: arrival.peer.address, uri, headers: headers(arrival), auth_token };
    // Both the making of the future and its polls may panic.
    let connecting = AssertUnwindSafe(async { (spec.connect)(info).await }).catch_unwind();
    match connecting.await {
        Ok(Ok(connected)) => Ok((version, connected)),
        Ok(Err(ConnectError::Refused)) => Err(Rejected::Forbidden),
        Ok(Err(ConnectError::Reason(reason))) => Err(Rejected::Reason(reason)),
        Err(_) => Err(Rejected::Crashed),
    }
}

fn headers(arrival: &Arrival) -> Vec<(String, String)> {
    let texts = arrival
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    texts.collect()
}
