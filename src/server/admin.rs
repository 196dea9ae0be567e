//! The operator's interface over HTTP: API keys, sessions, revocations, the audit log. JSON in, JSON out, below `/admin/api`.
//!
//! ```text
//! GET    /admin/api/keys               admin:keys       the keys, without their texts
//! POST   /admin/api/keys               admin:keys       {name, user, roles?, scopes?, expires_in_s?}: the key, its text once
//! POST   /admin/api/keys/import?roles= admin:keys       rows of the Elixir deployment's table
//! DELETE /admin/api/keys/<id>          admin:keys       revokes it: what came by it is closed
//! GET    /admin/api/sessions?user=     admin:sessions   what is remembered of a user's MCP sessions
//! POST   /admin/api/revoke             admin:sessions   {"user"} or {"credential"} or {"session"}: what is theirs is closed
//! POST   /admin/api/forgive            admin:sessions   {"ip"}: its failures and its lock; or {"user"}: what they used of their rate
//! GET    /admin/api/audit?...          admin:audit      type, user_id, client_id, operation, from, to, limit, format
//! GET    /admin/api/security           admin:stats      what was counted
//! ```
//!
//! Live MCP sessions are beside it: [`super::admin_mcp`], queues: [`super::admin_queues`], backups of the store:
//! [`super::admin_store`]. Whoever asks brings a bearer credential: an API key or a token whose capabilities include what stands
//! in the second column.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_stream::StreamExt;
use warp::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Buf, Filter, Rejection};

use crate::audit::{EntryType, Export, Filter as AuditFilter, Format};
use crate::auth::api_keys::{KeysError, NewKey};
use crate::auth::{Credential, Door, Identity, Presented};
use crate::clock;
use crate::protocol::policy::Capability;
use crate::protocol::{query, timestamp};
use crate::security::Security;
use crate::transport::Peer;

/// Where it is.
const PATH: &str = "/admin/api/";
/// Bytes of a request's body but for an import.
const BODY_BYTES_MAX: usize = 65_536;
/// Bytes of a table to import over HTTP; larger ones are imported while the server does not run.
const IMPORT_BODY_BYTES_MAX: usize = 8 << 20;
/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a request is not served.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) status: StatusCode,
    pub(super) why: String,
}

impl Fault {
    pub(super) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Fault { status, why: why.into() }
    }

    pub(super) fn bad(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, why)
    }
}

impl From<KeysError> for Fault {
    fn from(error: KeysError) -> Self {
        match error {
            KeysError::Store(error) => {
                tracing::error!(%error, "API keys could not be changed");
                Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "the store failed")
            }
            other => Fault::bad(other.to_string()),
        }
    }
}

/// A request but for its body.
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) peer: Option<Peer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedKey {
    #[serde(default)]
    name: String,
    user: String,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    scopes: Vec<String>,
    expires_in_s: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum WantedRevocation {
    User(String),
    Credential(String),
    Session(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum WantedForgiveness {
    Ip(IpAddr),
    User(String),
}

/// Serves it. Other paths are rejected, so that further filters can have them.
pub(super) fn admin(
    security: Arc<Security>,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone + Send + Sync + 'static {
    let here = warp::path::full().and_then(|path: FullPath| async move {
        path.as_str().strip_prefix(PATH).map(ToOwned::to_owned).ok_or_else(warp::reject::not_found)
    });
    here.and(warp::method())
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<Peer>())
        .and(warp::body::stream())
        .then(move |path, method, query, headers, peer, body| {
            let security = Arc::clone(&security);
            async move {
                let request = Request { method, path, query, headers, peer };
                uncached(answer(&security, &request, body).await.unwrap_or_else(refuse))
            }
        })
}

/// Has nobody between keep an answer, nor take it for something else.
pub(super) fn uncached(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Reads a body of whoever may send one.
pub(super) async fn read_body<B: Buf>(
    body: impl Stream<Item = Result<B, warp::Error>> + Send,
    bytes_max: usize,
) -> Result<Bytes, Fault> {
    let mut body = pin!(body);
    let reading = async {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|_| Fault::bad("the body breaks off"))?;
            if bytes.len() + chunk.remaining() > bytes_max {
                let why = format!("expected a body of at most {bytes_max} bytes, came more");
                return Err(Fault::new(StatusCode::PAYLOAD_TOO_LARGE, why));
            }
            bytes.put(chunk);
        }
        Ok(bytes.freeze())
    };
    let timeout = || Fault::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time");
    tokio::time::timeout(BODY_TIMEOUT, reading).await.map_err(|_| timeout())?
}

pub(super) fn refuse(fault: Fault) -> Response {
    let mut response = of_json(fault.status, &json!({"errors": {"detail": fault.why}}));
    if fault.status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

pub(super) fn of_json(status: StatusCode, value: &impl Serialize) -> Response {
    let text = serde_json::to_string(value).expect("texts, numbers and JSON have a JSON form");
    let mut response = Response::new(Bytes::from(text + "\n").into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn answer<B: Buf>(
    security: &Arc<Security>,
    request: &Request,
    body: impl Stream<Item = Result<B, warp::Error>> + Send,
) -> Result<Response, Fault> {
    let segments: Vec<&str> = request.path.split('/').collect();
    let wanted = match (&request.method, &segments[..]) {
        (&Method::GET, ["keys"]) | (&Method::POST, ["keys"] | ["keys", "import"]) | (&Method::DELETE, ["keys", _]) => {
            "admin:keys"
        }
        (&Method::GET, ["sessions"]) | (&Method::POST, ["revoke" | "forgive"]) => "admin:sessions",
        (&Method::GET, ["audit"]) => "admin:audit",
        (&Method::GET, ["security"]) => "admin:stats",
        (_, ["keys", ..] | ["sessions"] | ["revoke"] | ["forgive"] | ["audit"] | ["security"]) => {
            return Err(Fault::new(StatusCode::METHOD_NOT_ALLOWED, "this path has no such method"));
        }
        _ => return Err(Fault::new(StatusCode::NOT_FOUND, "Not Found")),
    };
    let operator = authorize(security, request, wanted).await?;
    let bytes_max = if segments == ["keys", "import"] { IMPORT_BODY_BYTES_MAX } else { BODY_BYTES_MAX };
    let body = read_body(body, bytes_max).await?;
    let now_unix_ms = clock::unix_micros() / 1_000;
    let value = match (&request.method, &segments[..]) {
        (&Method::GET, ["keys"]) => json!({"keys": security.keys().list()}),
        (&Method::POST, ["keys"]) => {
            let wanted: WantedKey = read(&body)?;
            let expires_unix_ms = wanted.expires_in_s.map(|s| now_unix_ms.saturating_add(s.saturating_mul(1_000)));
            let WantedKey { name, user, roles, scopes, .. } = wanted;
            let mut new = NewKey { name, user, roles, scopes, expires_unix_ms };
            if let Some(error) = new.scopes.iter().find_map(|scope| Capability::parse(scope).err()) {
                return Err(Fault::bad(format!("scopes: {error}")));
            }
            security.bound_key(&operator, &mut new).map_err(|lacking| {
                Fault::new(
                    StatusCode::FORBIDDEN,
                    format!("a key can't do more than who makes it: Missing capability: {lacking}"),
                )
            })?;
            let (record, text) = security.keys().create(new, now_unix_ms).await?;
            security.administered(&operator, "keys/create", &record.id);
            json!({"key": text, "record": record})
        }
        (&Method::POST, ["keys", "import"]) => {
            let params = params(&request.query)?;
            let roles: Vec<_> = params
                .get_str("roles")
                .iter()
                .flat_map(|roles| roles.split(','))
                .filter(|role| !role.is_empty())
                .map(ToOwned::to_owned)
                .collect();
            if !operator.rights().grants.allows("*") {
                return Err(Fault::new(StatusCode::FORBIDDEN, "Missing capability: *"));
            }
            let rows = String::from_utf8(body.to_vec()).map_err(|_| Fault::bad("expected text in UTF-8"))?;
            let imported = security.keys().import(&rows, &roles, &[], now_unix_ms).await?;
            security.administered(&operator, "keys/import", "");
            json!({"new": imported.new, "known": imported.known, "expired": imported.expired})
        }
        (&Method::DELETE, ["keys", id]) => {
            let revoked = security.revoke_key(id, now_unix_ms).await?;
            let Some((record, closed)) = revoked else {
                return Err(Fault::new(StatusCode::NOT_FOUND, "there is no such key"));
            };
            security.administered(&operator, "keys/revoke", &record.id);
            json!({"record": record, "closed": closed})
        }
        (&Method::GET, ["sessions"]) => {
            let params = params(&request.query)?;
            let user = params.get_str("user").ok_or_else(|| Fault::bad("expected the query's `user`, came none"))?;
            json!({"sessions": security.sessions().of_user(user)})
        }
        (&Method::POST, ["revoke"]) => {
            let wanted: WantedRevocation = read(&body)?;
            let target = match &wanted {
                WantedRevocation::User(target)
                | WantedRevocation::Credential(target)
                | WantedRevocation::Session(target) => target.replace(':', " "),
            };
            let closed = match wanted {
                WantedRevocation::User(user) => security.revoke_user(&user, now_unix_ms),
                WantedRevocation::Credential(credential) => match credential.split_once(':') {
                    Some(("api_key", id)) => {
                        let revoked = security.revoke_key(id, now_unix_ms).await?;
                        revoked.ok_or_else(|| Fault::new(StatusCode::NOT_FOUND, "there is no such key"))?.1
                    }
                    Some(("jwt", _)) => security.revoke_token(&credential, now_unix_ms).await.map_err(|error| {
                        tracing::error!(%error, "a revocation could not be stored");
                        let why = "the store failed: it holds until the server is restarted";
                        Fault::new(StatusCode::INTERNAL_SERVER_ERROR, why)
                    })?,
                    _ => return Err(Fault::bad("credential: expected api_key:<id> or jwt:<jti>")),
                },
                WantedRevocation::Session(id) => security
                    .revoke_session(&id, now_unix_ms)
                    .ok_or_else(|| Fault::new(StatusCode::NOT_FOUND, "Session not found"))?,
            };
            security.administered(&operator, "revoke", &target);
            json!({"closed": closed})
        }
        (&Method::POST, ["forgive"]) => {
            let wanted: WantedForgiveness = read(&body)?;
            let target = match &wanted {
                WantedForgiveness::Ip(ip) => ip.to_string(),
                WantedForgiveness::User(user) => user.clone(),
            };
            let forgiven = match wanted {
                WantedForgiveness::Ip(ip) => security.unlock(ip),
                WantedForgiveness::User(user) => security.reset_rate(&user),
            };
            security.administered(&operator, "forgive", &target);
            json!({"forgiven": forgiven})
        }
        (&Method::GET, ["audit"]) => return audit(security, &request.query).await,
        _ => security.stats().await,
    };
    Ok(of_json(StatusCode::OK, &value))
}

/// Who asks, if they may.
pub(super) async fn authorize(security: &Security, request: &Request, wanted: &str) -> Result<Identity, Fault> {
    let identity = authenticate(security, request).await?;
    if !identity.rights().grants.allows(wanted) {
        security.denied(&identity, &request.path, wanted);
        return Err(Fault::new(StatusCode::FORBIDDEN, format!("Missing capability: {wanted}")));
    }
    Ok(identity)
}

/// Who asks, whatever they may.
pub(super) async fn authenticate(security: &Security, request: &Request) -> Result<Identity, Fault> {
    let value = |name: header::HeaderName| request.headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = value(header::AUTHORIZATION).and_then(|value| value.trim().split_once(' '));
    let token = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
    let mut presented = Presented::new(token.map(|token| Credential::Token(token.to_owned())), Door::Admin);
    presented.ip = request.peer.as_ref().map(|peer| peer.address.ip());
    let forwarded = request.headers.get_all("x-forwarded-for").iter();
    let forwarded: Vec<_> = forwarded.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    presented.forwarded = (!forwarded.is_empty()).then(|| forwarded.join(","));
    presented.user_agent = value(header::USER_AGENT).map(ToOwned::to_owned);
    let identity = security.authenticate(presented).await;
    identity.map_err(|refused| {
        let status = if refused.is_of_address() { StatusCode::FORBIDDEN } else { StatusCode::UNAUTHORIZED };
        Fault::new(status, refused.0)
    })
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Fault> {
    serde_json::from_slice(body).map_err(|error| Fault::bad(format!("the body: {error}")))
}

pub(super) fn params(text: &str) -> Result<query::Params, Fault> {
    query::decode(text).map_err(|error| Fault::bad(error.to_string()))
}

/// Entries of the audit log, the newest first.
async fn audit(security: &Security, query: &str) -> Result<Response, Fault> {
    let Some(audit) = security.audit() else {
        return Err(Fault::new(StatusCode::NOT_FOUND, "there is no audit log: audit.enabled is false"));
    };
    let params = params(query)?;
    let text = |name: &str| params.get_str(name).map(ToOwned::to_owned);
    let moment = |name: &str| match params.get_str(name) {
        None => Ok(None),
        Some(text) => timestamp::unix_micros(text)
            .map(Some)
            .ok_or_else(|| Fault::bad(format!("{name}: expected a time such as 2026-11-26T12:00:00Z, came {text:?}"))),
    };
    let mut types = Vec::new();
    for word in text("type").iter().flat_map(|types| types.split(',')) {
        let known = EntryType::parse(word).ok_or_else(|| {
            let all = EntryType::ALL.map(EntryType::as_str).join(", ");
            Fault::bad(format!("type: expected one of {all}, came {word:?}"))
        });
        types.push(known?);
    }
    let mut filter = AuditFilter {
        from_unix_micros: moment("from")?,
        to_unix_micros: moment("to")?,
        types,
        user_id: text("user_id"),
        client_id: text("client_id"),
        operation: text("operation"),
        ..AuditFilter::default()
    };
    if let Some(limit) = params.get_str("limit") {
        filter.limit = limit.parse().map_err(|_| Fault::bad(format!("limit: expected a number, came {limit:?}")))?;
    }
    let format = match params.get_str("format") {
        None | Some("jsonl") => Format::JsonLines,
        Some("csv") => Format::Csv,
        Some(other) => return Err(Fault::bad(format!("format: expected jsonl or csv, came {other:?}"))),
    };
    let found = audit.query(filter).await.map_err(|error| {
        tracing::error!(%error, "the audit log can't be read");
        Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "the audit log can't be read")
    })?;
    let written = Export::begin(Vec::new(), format).and_then(|mut export| {
        found.entries.iter().try_for_each(|entry| export.write(entry))?;
        Ok(export.end())
    });
    let mut response = Response::new(Bytes::from(written.expect("memory takes what is written")).into());
    let kind = if format == Format::Csv { "text/csv; charset=utf-8" } else { "application/x-ndjson" };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}
