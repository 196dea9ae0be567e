//! The sockets as one warp filter.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use hyper::upgrade::OnUpgrade;
use warp::http::{HeaderMap, Method, Response, StatusCode, Version};
use warp::path::FullPath;
use warp::{Buf, Filter, Rejection};

use super::arrival::{Arrival, Peer, peer};
use super::longpoll::{self, LongPolls};
use super::websocket;
use super::{connect, local};
use crate::channel::SocketSpec;

pub(super) type HttpResponse = Response<Bytes>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    WebSocket,
    LongPoll,
}

type Mounts = BTreeMap<String, (Arc<SocketSpec>, Transport)>;

/// Who may reach the sockets at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Everyone, or somebody else has looked already.
    None,
    /// This machine's own pages and tools; others get 403.
    LocalOnly,
}

/// Serves sockets at their paths, `PATH/websocket` and where wanted `PATH/longpoll`. Other paths are rejected, so that
/// further filters can have them.
pub fn sockets(
    specs: &[Arc<SocketSpec>],
    longpolls: LongPolls,
    guard: Guard,
) -> impl Filter<Extract = (HttpResponse,), Error = Rejection> + Clone + Send + Sync + use<> {
    let mounts = Arc::new(mounts(specs));
    // The path decides first: a request for somebody else keeps its body.
    let mounted = warp::path::full().and_then(move |path: FullPath| {
        let found = find(&mounts, path.as_str());
        async move { found.ok_or_else(warp::reject::not_found) }
    });
    mounted
        .and(warp::method())
        .and(warp::path::full())
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(warp::header::headers_cloned())
        .and(peer())
        .and(warp::ext::optional::<OnUpgrade>())
        .and(warp::body::stream())
        .and(warp::any().map(move || longpolls.clone()))
        .then(
            move |(spec, transport): (Arc<SocketSpec>, Transport),
                  method: Method,
                  path: FullPath,
                  query: String,
                  headers: HeaderMap,
                  peer: Peer,
                  upgrade: Option<OnUpgrade>,
                  body,
                  longpolls: LongPolls| async move {
                if guard == Guard::LocalOnly && !local::is_local(&peer, &method, path.as_str(), &headers) {
                    return text(StatusCode::FORBIDDEN, "expected a local host and a local page");
                }
                let path = path.as_str().to_owned();
                let arrival = Arrival { method, path, query, headers, peer, upgrade };
                answer(&spec, transport, arrival, body, &longpolls).await
            },
        )
}

fn mounts(specs: &[Arc<SocketSpec>]) -> Mounts {
    let mut mounts = Mounts::new();
    for spec in specs {
        if spec.options.websocket {
            mounts.insert(format!("{}/websocket", spec.path), (Arc::clone(spec), Transport::WebSocket));
        }
        if spec.options.longpoll.is_some() {
            mounts.insert(format!("{}/longpoll", spec.path), (Arc::clone(spec), Transport::LongPoll));
        }
    }
    mounts
}

/// Empty segments do not count, as in Plug.
fn find(mounts: &Mounts, path: &str) -> Option<(Arc<SocketSpec>, Transport)> {
    if let Some(found) = mounts.get(path) {
        return Some(found.clone());
    }
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    mounts.get(&format!("/{}", segments.join("/"))).cloned()
}

async fn answer<B: Buf>(
    spec: &Arc<SocketSpec>,
    transport: Transport,
    mut arrival: Arrival,
    body: impl Stream<Item = Result<B, warp::Error>> + Send,
    longpolls: &LongPolls,
) -> HttpResponse {
    if arrival.peer.version != Version::HTTP_11 {
        return text(StatusCode::BAD_REQUEST, &format!("HTTP version {:?} unsupported", arrival.peer.version));
    }
    let Some(uri) = arrival.uri() else {
        return text(StatusCode::BAD_REQUEST, "expected one host, with or without a port, got none");
    };
    let params = match connect::params(&arrival) {
        Ok(params) => params,
        Err(error) => return text(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    match transport {
        Transport::WebSocket => websocket::upgrade(spec, &mut arrival, uri, params).await,
        Transport::LongPoll => longpoll::answer(spec, &arrival, uri, params, body, longpolls).await,
    }
}

pub(super) fn text(status: StatusCode, body: &str) -> HttpResponse {
    let mut response = Response::new(Bytes::copy_from_slice(body.as_bytes()));
    *response.status_mut() = status;
    response
}
