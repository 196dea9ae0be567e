//! MCP over HTTP: one path a server, where a POST brings messages and is answered with JSON or with a stream of events.
//!
//! Clients of either era come to the same path. Those of the stateless one ([`stateless`]) say who they are in each request;
//! those that open with `initialize` ([`legacy`]) get a session, found by a header.
//!
//! A request is authenticated by its bearer token, as the [`McpAuth`](crate::mcp::auth::McpAuth) of the servers has it. Where MCP
//! is a protected resource, its metadata is served below `/.well-known`, and whoever is refused is told of it.
//!
//! Source: MCP, Streamable HTTP, revisions 2025-03-26 to 2026-07-28.

mod checks;
mod events;
mod legacy;
mod refusal;
mod sessions;
mod stateless;
mod stream;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use warp::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Buf, Filter, Rejection};

use super::arrival::{Peer, peer};
use super::local;
use super::mount::Guard;
use crate::auth::oauth::{Challenge, ProtectedResource, WELL_KNOWN};
use crate::mcp::auth::{Door, Presented};
use crate::mcp::{Mcp, ServerShared};
use crate::protocol::jsonrpc::{Incoming, Object, Request};
use crate::protocol::mcp::client::RequestMeta;
use crate::protocol::mcp::version::Version;
use crate::protocol::origin::{OriginPolicy, OriginRule};
use refusal::Refusal;
use sessions::Sessions;

/// Where MCP servers are: the first at this path, each below it by its name.
const PATH: &str = "/mcp";
/// Header of the revision spoken.
const VERSION: &str = "mcp-protocol-version";
/// Header of a session's id.
const SESSION: &str = "mcp-session-id";

/// Numbers of connections that count as others than those of sockets.
const CONNECTION_BIT: u64 = 1 << 63;

/// Settings of MCP over HTTP.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct McpHttpOptions {
    /// Hosts by which requests may name this server, without a port; `*` is any. Others get 403: a page whose name was made to
    /// resolve to this machine does not come in. By default this machine's own names alone.
    pub hosts: Vec<String>,
    /// Pages that may make requests; requests without an origin come from no page. By default this machine's own.
    pub origins: OriginPolicy,
    /// Sessions that may be open at once; further ones get 503.
    pub sessions_max: usize,
    /// Sessions that one user may have open at once; one more ends the least used of those that are not in use.
    pub sessions_per_user_max: usize,
    /// Milliseconds after which a session ends that has no stream open and no request under way.
    pub session_idle_ms: u64,
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// Milliseconds in which a request's body has to arrive.
    pub body_timeout_ms: u64,
    /// Milliseconds without an event after which a stream gets a comment, so that nothing on the way takes it for dead.
    pub keep_alive_ms: u64,
    /// Milliseconds that a client is asked to wait before it picks up a stream again.
    pub retry_ms: u64,
    /// What clients that are refused are told of where tokens are made, and what is served below `/.well-known`.
    ///
    /// Source: RFC 9728; MCP, Authorization.
    pub resource: Option<Arc<ProtectedResource>>,
}

impl Default for McpHttpOptions {
    fn default() -> Self {
        let own = ["//localhost", "//127.0.0.1", "//[::1]"].map(|rule| OriginRule::parse(rule).expect("it has a host"));
        McpHttpOptions {
            hosts: local::LOCAL_HOSTS.map(str::to_owned).to_vec(),
            origins: OriginPolicy::List(own.to_vec()),
            sessions_max: 10_000,
            sessions_per_user_max: 1_000,
            session_idle_ms: 1_800_000,
            // A request above 1 MiB is refused by the session, with its id; this is for the envelope.
            body_bytes_max: 1_114_112,
            body_timeout_ms: 30_000,
            keep_alive_ms: 15_000,
            retry_ms: 1_000,
            resource: None,
        }
    }
}

/// MCP over HTTP with its sessions. Clones share them.
#[derive(Clone)]
pub struct McpHttp(Arc<Shared>);

struct Shared {
    mcp: Arc<Mcp>,
    options: McpHttpOptions,
    sessions: Sessions,
}

impl McpHttp {
    /// Without sessions yet.
    pub fn new(mcp: &Arc<Mcp>, options: McpHttpOptions) -> Self {
        let sessions = Sessions::new(options.sessions_max, options.sessions_per_user_max, options.session_idle_ms);
        McpHttp(Arc::new(Shared { mcp: Arc::clone(mcp), options, sessions }))
    }

    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        self.0.sessions.len()
    }

    /// Ends the calls under way, so that their callers hear of it.
    pub async fn drain(&self) {
        self.0.mcp.drain().await;
    }

    /// Lets clients go whose streams would never end by themselves, because the server stops.
    pub fn end_streams(&self) {
        self.0.mcp.end_streams();
    }

    /// Ends all sessions, because the server has stopped.
    pub fn end_sessions(&self) {
        self.0.sessions.end_all();
    }

    fn target(&self, path: &str) -> Option<Target> {
        let rest = path.strip_prefix(PATH)?;
        if rest.is_empty() || rest == "/" {
            return Some(Target::Server(self.0.mcp.server_at_root()));
        }
        let name = rest.strip_prefix('/')?;
        let name = name.strip_suffix('/').unwrap_or(name);
        (!name.contains('/')).then(|| self.0.mcp.server(name).map_or(Target::Unknown, Target::Server))
    }
}

impl std::fmt::Debug for McpHttp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("McpHttp").field("options", &self.0.options).finish_non_exhaustive()
    }
}

/// Which server a path names.
enum Target {
    Server(Arc<ServerShared>),
    Unknown,
}

/// A request but for its body.
struct Arrival {
    method: Method,
    headers: HeaderMap,
    peer: Peer,
}

impl Arrival {
    /// The value of a header that may come once; `Err` where it came twice, or is no text.
    fn one(&self, name: &'static str) -> Result<Option<&str>, Refusal> {
        let mut values = self.headers.get_all(name).iter();
        let Some(first) = values.next() else { return Ok(None) };
        match (first.to_str(), values.next()) {
            (Ok(text), None) => Ok(Some(text.trim_matches([' ', '\t']))),
            _ => Err(Refusal::invalid(format!("header {name}: expected one of printable ASCII"))),
        }
    }

    /// Whether the version header names a stateless revision.
    fn says_modern(&self) -> bool {
        let said = self.headers.get(VERSION).and_then(|value| value.to_str().ok());
        said.and_then(|said| Version::parse(said.trim())).is_some_and(Version::is_modern)
    }

    /// The number under which calls of this TCP connection count.
    fn connection(&self) -> u64 {
        connection(&self.peer.address)
    }
}

fn connection(address: &SocketAddr) -> u64 {
    let mut hasher = DefaultHasher::new();
    address.hash(&mut hasher);
    hasher.finish() | CONNECTION_BIT
}

/// Serves MCP at its paths. Other paths are rejected, so that further filters can have them.
pub fn mcp(
    http: &McpHttp,
    guard: Guard,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone + Send + Sync + use<> {
    let http = http.clone();
    let finder = http.clone();
    // The path decides first: a request for somebody else keeps its body.
    let found = warp::path::full().and_then(move |path: FullPath| {
        let target = finder.target(path.as_str());
        async move { target.ok_or_else(warp::reject::not_found) }
    });
    found.and(warp::method()).and(warp::header::headers_cloned()).and(peer()).and(warp::body::stream()).then(
        move |target: Target, method: Method, headers: HeaderMap, peer: Peer, body| {
            let http = http.clone();
            async move {
                let arrival = Arrival { method, headers, peer };
                let mut response = match answer(&http.0, target, &arrival, guard, body).await {
                    Ok(response) => response,
                    Err(refusal) => refusal.into_response(arrival.says_modern()),
                };
                let is_denied = challenge(&http.0.options, &arrival, &mut response);
                if let Some(origin) = arrival.headers.get(header::ORIGIN) {
                    // Also on errors, so that a page reads why; one whose origin is refused reads nothing.
                    if is_denied || response.status() != StatusCode::FORBIDDEN {
                        allow(&mut response, origin);
                    }
                }
                response
            }
        },
    )
}

/// Says of a refusal by which credential it would be none; whether it is one of what a user may not.
fn challenge(options: &McpHttpOptions, arrival: &Arrival, response: &mut Response) -> bool {
    let denied = response.extensions_mut().remove::<Denial>();
    let error = match (response.status(), denied) {
        (StatusCode::UNAUTHORIZED, _) if checks::credential(arrival).is_none() => None,
        (StatusCode::UNAUTHORIZED, _) => Some(Challenge::InvalidToken { description: None }),
        (StatusCode::FORBIDDEN, Some(Denial(text))) => {
            let scopes = text.rsplit_once("Missing capability: ").map(|(_, scope)| vec![scope.to_owned()]);
            Some(Challenge::InsufficientScope { scopes: scopes.unwrap_or_default(), description: None })
        }
        _ => return false,
    };
    let value = match (&options.resource, &error) {
        (Some(resource), error) => resource.challenge(error.as_ref()),
        (None, None) => "Bearer".to_owned(),
        (None, Some(Challenge::InsufficientScope { .. })) => "Bearer error=\"insufficient_scope\"".to_owned(),
        (None, Some(_)) => "Bearer error=\"invalid_token\"".to_owned(),
    };
    let value = HeaderValue::from_str(&value).expect("a challenge is visible ASCII and spaces");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    matches!(error, Some(Challenge::InsufficientScope { .. }))
}

/// Among a response's extensions: the text of the error by which a user may not.
#[derive(Clone, Debug)]
struct Denial(String);

/// Serves the metadata of MCP as a protected resource, where it is one. Pages of any origin may read it.
///
/// Source: RFC 9728, section 3.
pub fn protected_resource(
    http: &McpHttp,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone + Send + Sync + use<> {
    let resource = http.0.options.resource.clone();
    warp::path::full().and(warp::get().or(warp::head()).unify()).and_then(move |path: FullPath| {
        // For the resource itself, and for clients that ask for the host's.
        let found = resource
            .as_ref()
            .filter(|resource| [resource.metadata_path().as_str(), WELL_KNOWN].contains(&path.as_str()));
        let answer = found.map(|resource| {
            let mut response = json(StatusCode::OK, resource.metadata().to_string().into());
            response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            response
        });
        async move { answer.ok_or_else(warp::reject::not_found) }
    })
}

async fn answer<B: Buf>(
    http: &Arc<Shared>,
    target: Target,
    arrival: &Arrival,
    guard: Guard,
    body: impl Stream<Item = Result<B, warp::Error>> + Send,
) -> Result<Response, Refusal> {
    let Arrival { method, headers, peer } = arrival;
    if guard == Guard::LocalOnly && !local::is_local(peer, method, PATH, headers) {
        return Err(Refusal::forbidden("expected a local host and a local page"));
    }
    checks::host_and_origin(&http.options, arrival)?;
    let Target::Server(server) = target else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "there is no MCP server of that name"));
    };
    if *method == Method::OPTIONS {
        return Ok(preflight(headers));
    }
    let is_modern = arrival.says_modern();
    match *method {
        Method::POST => {}
        Method::GET | Method::DELETE if !is_modern => {}
        _ => return Err(Refusal::method_not_allowed(is_modern)),
    }
    if *method == Method::POST {
        checks::content_type(arrival)?;
        checks::accept(arrival, &["application/json", "text/event-stream"])?;
    } else if *method == Method::GET {
        checks::accept(arrival, &["text/event-stream"])?;
    }
    let mut presented = Presented::new(checks::credential(arrival), Door::Http(server.name.clone()));
    presented.ip = Some(peer.address.ip());
    presented.forwarded = checks::joined(arrival, "x-forwarded-for");
    presented.user_agent = checks::joined(arrival, "user-agent");
    let user = http.mcp.authenticate(presented).await?;
    if !http.mcp.may_use(&user, &server) {
        return Err(Refusal::denied(format!("Missing capability: servers:use:{}", server.name)));
    }
    match *method {
        Method::GET => return legacy::get(http, &server, &user, arrival),
        Method::DELETE => return legacy::delete(http, &server, &user, arrival),
        _ => {}
    }
    let body = checks::body(&http.options, arrival, body).await?;
    let text = checks::json(&body)?;
    match read(text, is_modern)? {
        Content::Stateless(message) => stateless::post(http, server, user, arrival, text, message),
        Content::Legacy(message) => legacy::post(http, &server, user, arrival, text, message).await,
    }
}

/// A POST's body, by its era.
enum Content<'a> {
    Stateless(Stateless<'a>),
    Legacy(Legacy<'a>),
}

enum Stateless<'a> {
    /// With its `_meta`, if that is an object.
    Request(Request<'a>, Option<Object<'a>>),
    Notification(String),
}

enum Legacy<'a> {
    One(Incoming<'a>),
    Batch,
}

fn read(text: &[u8], is_modern: bool) -> Result<Content<'_>, Refusal> {
    if text.first() == Some(&b'[') {
        return match is_modern {
            true => Err(Refusal::invalid("expected one message, came an array")),
            false => Ok(Content::Legacy(Legacy::Batch)),
        };
    }
    Ok(match Incoming::classify(text) {
        Incoming::Request(request) => {
            let params = request.params.and_then(|params| Object::parse(params.get().as_bytes()));
            let meta = params.and_then(|params| params.object("_meta"));
            match is_modern || RequestMeta::is_modern(meta.as_ref()) {
                true => Content::Stateless(Stateless::Request(request, meta)),
                false => Content::Legacy(Legacy::One(Incoming::Request(request))),
            }
        }
        Incoming::Notification(notification) if is_modern => {
            Content::Stateless(Stateless::Notification(notification.method))
        }
        Incoming::Response(_) if is_modern => return Err(Refusal::invalid("expected a request, came a response")),
        Incoming::Invalid { id } => return Err(Refusal::invalid_message(id)),
        message => Content::Legacy(Legacy::One(message)),
    })
}

/// A whole answer in JSON.
fn json(status: StatusCode, text: Bytes) -> Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Bytes::new().into());
    *response.status_mut() = status;
    response
}

/// What a browser asks before a page's request. Which headers a tool wants is the tool's, so all that are asked for are allowed.
fn preflight(headers: &HeaderMap) -> Response {
    let mut response = empty(StatusCode::NO_CONTENT);
    let answer = response.headers_mut();
    answer.insert(header::ALLOW, HeaderValue::from_static(refusal::METHODS));
    answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(refusal::METHODS));
    if let Some(asked) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("3600"));
    response
}

/// Lets a page of an origin that was checked read the answer.
fn allow(response: &mut Response, origin: &HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Mcp-Session-Id, WWW-Authenticate"));
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
}
