//! Plain HTTP: health, the page's files, and what a request gets that nothing serves.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use warp::http::{HeaderValue, Response, StatusCode, header};
use warp::reply::Response as Answer;
use warp::{Filter, Rejection, Reply};

use super::drain::Stage;
use crate::dashboard::{self, Asset, CONTENT_SECURITY_POLICY};
use crate::mcp::Mcp;
use crate::mcp::upstream::UpstreamState;
use crate::transport::{LOCAL_HOSTS, NotLocal};

/// `/livez`: the process answers. `/readyz`: it should be sent new sockets; 503 once it is to stop.
pub(super) fn health(
    stage: watch::Receiver<Stage>,
) -> impl Filter<Extract = (Answer,), Error = Rejection> + Clone + Send + Sync + 'static {
    let live = warp::path!("livez").map(|| StatusCode::OK);
    let ready = warp::path!("readyz").map(move || match *stage.borrow() {
        Stage::Serving => StatusCode::OK,
        Stage::Leaving | Stage::Draining => StatusCode::SERVICE_UNAVAILABLE,
    });
    get_or_head()
        .and(live.or(ready).unify())
        .map(|status: StatusCode| warp::reply::with_status(status.as_str().to_owned() + "\n", status).into_response())
}

/// `/healthz`: how the servers of others stand that are behind this one, as JSON. 200 as long as the process answers: an upstream
/// that is down is no reason to send clients elsewhere.
pub(super) fn upstreams(
    mcp: Option<Arc<Mcp>>,
    stage: watch::Receiver<Stage>,
) -> impl Filter<Extract = (Answer,), Error = Rejection> + Clone + Send + Sync + 'static {
    get_or_head().and(warp::path!("healthz")).map(move || {
        let health = mcp.as_ref().map(|mcp| mcp.upstream_health()).unwrap_or_default();
        let is_degraded = health.iter().any(|(_, health)| health.state == UpstreamState::Down);
        let status = match (*stage.borrow(), is_degraded) {
            (Stage::Serving, false) => "ok",
            (Stage::Serving, true) => "degraded",
            (Stage::Leaving | Stage::Draining, _) => "stopping",
        };
        let upstreams: serde_json::Map<_, _> =
            health.into_iter().map(|(name, health)| (name, serde_json::json!(health))).collect();
        warp::reply::json(&serde_json::json!({"status": status, "upstreams": upstreams})).into_response()
    })
}

/// Lets requests through until the server drains; health is asked afterwards.
pub(super) fn open(
    stage: watch::Receiver<Stage>,
) -> impl Filter<Extract = (), Error = Rejection> + Clone + Send + Sync + 'static {
    warp::any()
        .and_then(move || {
            let draining = *stage.borrow() == Stage::Draining;
            async move { if draining { Err(warp::reject::custom(Draining)) } else { Ok(()) } }
        })
        .untuple_one()
}

#[derive(Debug)]
struct Draining;

impl warp::reject::Reject for Draining {}

/// GET, and HEAD, whose answer hyper sends without its body.
fn get_or_head() -> impl Filter<Extract = (), Error = Rejection> + Clone + Send + Sync + 'static {
    warp::get().or(warp::head()).unify()
}

/// The page, whose script opens the socket at `socket_path`.
pub(super) fn assets(
    socket_path: &str,
    wants_credential: bool,
) -> impl Filter<Extract = (Answer,), Error = Rejection> + Clone + Send + Sync + 'static {
    let files: Arc<[(Asset, Bytes)]> = dashboard::ASSETS
        .map(|asset| {
            let bytes = match asset.path {
                "/" => Bytes::from(dashboard::page(socket_path, wants_credential)),
                _ => Bytes::from_static(asset.bytes),
            };
            (asset, bytes)
        })
        .into();
    get_or_head().and(warp::path::full()).and_then(move |path: warp::path::FullPath| {
        let found = files.iter().find(|(asset, _)| asset.path == path.as_str());
        let answer = found.map(|(asset, bytes)| file(asset, bytes.clone())).ok_or_else(warp::reject::not_found);
        async move { answer }
    })
}

fn file(asset: &Asset, bytes: Bytes) -> Answer {
    let mut response = Response::new(bytes.into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Makes an answer of a request that was not served.
pub(super) async fn problem(rejection: Rejection) -> Result<Answer, Infallible> {
    let (status, detail) = if rejection.find::<NotLocal>().is_some() {
        let detail =
            format!("Forbidden: in the development setting Host and Origin must be one of {}", LOCAL_HOSTS.join(", "));
        (StatusCode::FORBIDDEN, detail)
    } else if rejection.find::<Draining>().is_some() {
        // A long-poll client of any origin reads the status in the body: it reconnects after 500, and gives up without one.
        let body = serde_json::json!({"errors": {"detail": "the server is stopping"}, "status": 500});
        let answer = warp::reply::with_status(warp::reply::json(&body), StatusCode::SERVICE_UNAVAILABLE);
        return Ok(warp::reply::with_header(answer, header::ACCESS_CONTROL_ALLOW_ORIGIN, "*").into_response());
    } else if rejection.is_not_found() || rejection.find::<warp::reject::MethodNotAllowed>().is_some() {
        (StatusCode::NOT_FOUND, "Not Found".to_owned())
    } else {
        (StatusCode::BAD_REQUEST, "Bad Request".to_owned())
    };
    let body = serde_json::json!({"errors": {"detail": detail}});
    let answer = warp::reply::with_status(warp::reply::json(&body), status);
    Ok(answer.into_response())
}
