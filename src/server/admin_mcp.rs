//! The operator's side of the live MCP sessions over HTTP: JSON out, below `/admin/api/mcp`. All of it takes `admin:sessions`.
//!
//! ```text
//! GET    mcp/sessions?after=&limit=&user=  {"sessions", "next"?}: those that follow the id `after`, all or a user's
//! GET    mcp/sessions/<id>                 the session
//! DELETE mcp/sessions/<id>                 {"ended": id}: its channel is closed, its calls are cancelled, nobody comes back to it
//! GET    mcp/stats                         {"sessions"}: how many there are, and what was counted since the start
//! ```
//!
//! Pages are in the order of ids. `next` is there where more follows: it is the next page's `after`. A session that begins or ends
//! between two pages is in them or not; every other one is there once. `/admin/api/sessions`, of [`super::admin`], is something else:
//! what is remembered of sessions and their tokens, those that have ended included.

use std::sync::Arc;

use serde::Serialize;
use serde_json::json;
use warp::http::{Method, StatusCode};
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Filter, Rejection};

use super::admin::{Fault, Request, authorize, of_json, params, refuse, uncached};
use crate::mcp::{Mcp, SessionInfo};
use crate::protocol::query::Params;
use crate::security::Security;
use crate::transport::Peer;

/// What all paths of it begin with.
const PATH: &str = "/admin/api/";
/// What it takes.
const OPERATE: &str = "admin:sessions";
/// Sessions of one page, where the query says nothing.
const LIMIT_DEFAULT: usize = 100;
/// And at most.
const LIMIT_MAX: usize = 1_000;
/// Bytes of an id to go on behind: more than any session's has.
const AFTER_BYTES_MAX: usize = 128;

/// What is asked for.
enum Wanted<'a> {
    Page,
    One(&'a str),
    End(&'a str),
    Stats,
}

#[derive(Serialize)]
struct Page {
    sessions: Vec<SessionInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Serves it. Other paths are rejected, so that further filters can have them.
pub(super) fn admin_mcp(
    security: Arc<Security>,
    mcp: Arc<Mcp>,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone + Send + Sync + 'static {
    let here = warp::path::full().and_then(|path: FullPath| async move {
        let path = path.as_str().strip_prefix(PATH);
        let is_it = |path: &&str| path.split('/').next() == Some("mcp");
        path.filter(is_it).map(ToOwned::to_owned).ok_or_else(warp::reject::not_found)
    });
    here.and(warp::method())
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<Peer>())
        .then(move |path, method, query, headers, peer| {
            let (security, mcp) = (Arc::clone(&security), Arc::clone(&mcp));
            async move {
                let request = Request { method, path, query, headers, peer };
                uncached(answer(&security, &mcp, &request).await.unwrap_or_else(refuse))
            }
        })
}

async fn answer(security: &Security, mcp: &Mcp, request: &Request) -> Result<Response, Fault> {
    let segments: Vec<&str> = request.path.split('/').skip(1).collect();
    let wanted = match (&request.method, &segments[..]) {
        (&Method::GET, ["sessions"]) => Wanted::Page,
        (&Method::GET, ["sessions", id]) => Wanted::One(id),
        (&Method::DELETE, ["sessions", id]) => Wanted::End(id),
        (&Method::GET, ["stats"]) => Wanted::Stats,
        (_, ["sessions"] | ["sessions", _] | ["stats"]) => {
            return Err(Fault::new(StatusCode::METHOD_NOT_ALLOWED, "this path has no such method"));
        }
        _ => return Err(Fault::new(StatusCode::NOT_FOUND, "Not Found")),
    };
    let operator = authorize(security, request, OPERATE).await?;
    let unknown = || Fault::new(StatusCode::NOT_FOUND, "Session not found");
    match wanted {
        Wanted::Page => Ok(of_json(StatusCode::OK, &page(mcp, &params(&request.query)?)?)),
        Wanted::One(id) => Ok(of_json(StatusCode::OK, &mcp.session(id).ok_or_else(unknown)?)),
        Wanted::End(id) => {
            let is_ended = mcp.end_session(id)
                || mcp.end_stored_session(id).await.map_err(|error| {
                    tracing::error!(%error, "an MCP session could not be read from the store");
                    Fault::new(StatusCode::SERVICE_UNAVAILABLE, "the store failed")
                })?;
            if !is_ended {
                return Err(unknown());
            }
            security.administered(&operator, "mcp/sessions/end", id);
            Ok(of_json(StatusCode::OK, &json!({"ended": id})))
        }
        Wanted::Stats => Ok(of_json(StatusCode::OK, &json!({"sessions": mcp.session_stats()}))),
    }
}

fn page(mcp: &Mcp, params: &Params) -> Result<Page, Fault> {
    let (user, after) = (text(params, "user")?, text(params, "after")?);
    let is_id =
        |text: &str| (1..=AFTER_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if let Some(after) = after.filter(|after| !is_id(after)) {
        let came = match after.len() {
            0..=AFTER_BYTES_MAX => format!("{after:?}"),
            bytes => format!("{bytes} bytes"),
        };
        return Err(Fault::bad(format!("after: expected a session's id, came {came}")));
    }
    let limit = match text(params, "limit")? {
        None => LIMIT_DEFAULT,
        Some(text) => match text.parse() {
            Ok(limit @ 1..=LIMIT_MAX) => limit,
            _ => return Err(Fault::bad(format!("limit: expected 1 to {LIMIT_MAX}, came {text:?}"))),
        },
    };
    // One more tells whether there is more.
    let mut sessions = match user {
        Some(user) => mcp.list_sessions_of(user, after, limit + 1),
        None => mcp.list_sessions(after, limit + 1),
    };
    let has_more = sessions.len() > limit;
    sessions.truncate(limit);
    let next = sessions.last().filter(|_| has_more).map(|last| last.id.clone());
    Ok(Page { sessions, next })
}

/// A parameter that is one text, or absent. A filter of another shape is not taken for none.
fn text<'a>(params: &'a Params, key: &str) -> Result<Option<&'a str>, Fault> {
    match params.get_str(key) {
        None if params.contains(key) => Err(Fault::bad(format!("{key}: expected one text, came a list or a map"))),
        text => Ok(text),
    }
}
