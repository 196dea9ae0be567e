//! The operator's side of queues over HTTP, and that of producers: JSON in, JSON out, below `/admin/api/queues`.
//!
//! ```text
//! GET    queues?prefix=&limit=          admin:queues            {"stats", "queues"}: all together, and the first of them
//! GET    queues/<name>                  admin:queues            what it holds, and has counted
//! GET    queues/<name>/messages?limit=  admin:queues            {"messages"}: those accepted first, in flight or not
//! POST   queues/<name>/messages         queues:enqueue:<name>   {"payload", "priority"?, "ttl_ms"?, "delay_ms"?,
//!                                                               "max_retries"?, "idempotency_key"?}:
//!                                                               {"message_id", "durability", "duplicate"?}
//! DELETE queues/<name>/messages         admin:queues            {"purged": n}
//! GET    queues/<name>/dead?limit=      admin:queues            {"dead_letters"}
//! DELETE queues/<name>/dead             admin:queues            {"purged": n}
//! DELETE queues/<name>/dead/<id>        admin:queues            {"purged": 1}
//! POST   queues/<name>/dead/<id>/retry  admin:queues            {"retried": id}
//! ```
//!
//! Names are percent-encoded; `:` may stand as it is. A producer's key may also be in the header `Idempotency-Key`, which counts
//! where the body has none. What the queue refuses is `{"errors": {"reason": <word>, "detail": <text>}}`: 400 what is no
//! message, 404 unknown, 409 nobody consumes an ephemeral queue, 413 too large, 503 with `Retry-After` where it may be taken
//! later. An answer to a producer that breaks off says nothing: one that has to know sends its message again under its key.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::Stream;
use serde::{Deserialize, Serialize};
use serde_json::json;
use warp::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Buf, Filter, Rejection};

use super::admin::{Fault, Request, authenticate, authorize, of_json, params, read_body, refuse, uncached};
use crate::protocol::json;
use crate::protocol::queue::Refused as Full;
use crate::queue::{
    AckRefused, Enqueued, NewMessage, PriorityCounts, QueueError, QueueStats, Queues, QueuesStats, RetryRefused, Totals,
};
use crate::security::Security;
use crate::transport::Peer;

/// What all paths of it begin with.
const PATH: &str = "/admin/api/";
/// What it takes for everything but a message to a queue.
const OPERATE: &str = "admin:queues";
/// What it takes for that, for all queues or, with `:<name>`, for one.
const ENQUEUE: &str = "queues:enqueue";
/// The header of a producer's key. Source: draft-ietf-httpapi-idempotency-key-header; here its value counts as it stands.
const KEY_HEADER: &str = "idempotency-key";
/// Bytes of a message's body beside its payload: its other fields, escapes and white space.
const ENVELOPE_BYTES_MAX: usize = 4_096;
/// Queues, messages or dead letters of one answer, where the query says nothing.
const LIMIT_DEFAULT: usize = 100;
/// And at most.
const LIMIT_MAX: usize = 1_000;
/// Seconds after which whoever was refused for want of room, or by the store, may try again: the least that can be said.
const RETRY_AFTER_S: &str = "1";

/// Why a request is not served.
enum Refusal {
    /// As all of the operator's interface.
    Fault(Fault),
    /// By the queue, with the word of it.
    Queue { status: StatusCode, reason: &'static str, detail: String },
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault.status {
            // Bodies are those of messages.
            status @ StatusCode::PAYLOAD_TOO_LARGE => Refusal::Queue { status, reason: "too_large", detail: fault.why },
            _ => Refusal::Fault(fault),
        }
    }
}

impl From<QueueError> for Refusal {
    fn from(error: QueueError) -> Self {
        let status = match &error {
            QueueError::Name | QueueError::Invalid(_) => StatusCode::BAD_REQUEST,
            QueueError::Unknown(_) => StatusCode::NOT_FOUND,
            QueueError::NoConsumer => StatusCode::CONFLICT,
            QueueError::Refused(Full::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            QueueError::Refused(_) | QueueError::AllFull { .. } | QueueError::TooMany { .. } | QueueError::Store(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        Refusal::Queue { status, reason: error.code(), detail: error.detail() }
    }
}

impl From<RetryRefused> for Refusal {
    fn from(error: RetryRefused) -> Self {
        match error {
            RetryRefused::Queue(error) => error.into(),
            RetryRefused::Store(error) => unsure(&error, "it may be a dead letter again"),
            _ => no_dead_letter(),
        }
    }
}

impl Refusal {
    fn into_response(self) -> Response {
        match self {
            Refusal::Fault(fault) => refuse(fault),
            Refusal::Queue { status, reason, detail } => {
                let mut response = of_json(status, &json!({"errors": {"reason": reason, "detail": detail}}));
                if status == StatusCode::SERVICE_UNAVAILABLE {
                    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
                }
                response
            }
        }
    }
}

fn no_dead_letter() -> Refusal {
    let detail = "the queue has no such dead letter".to_owned();
    Refusal::Queue { status: StatusCode::NOT_FOUND, reason: AckRefused::Unknown.code(), detail }
}

/// A change holds while the process does: to try again is of no use, since memory has it already.
fn unsure(error: &impl std::fmt::Display, what: &str) -> Refusal {
    tracing::error!(%error, "a change of a queue could not be stored");
    let detail = format!("the store failed: it is done, and after a restart {what}");
    Refusal::Queue { status: StatusCode::INTERNAL_SERVER_ERROR, reason: "store_failed", detail }
}

/// What is asked for; of a queue but for [`Wanted::All`].
enum Wanted<'a> {
    All,
    Stats,
    Messages,
    Enqueue,
    Purge,
    DeadLetters,
    PurgeDead(Option<&'a str>),
    Retry(&'a str),
}

/// Serves it. Other paths are rejected, so that further filters can have them.
pub(super) fn admin_queues(
    security: Arc<Security>,
    queues: Queues,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone + Send + Sync + 'static {
    let here = warp::path::full().and_then(|path: FullPath| async move {
        let path = path.as_str().strip_prefix(PATH);
        let is_it = |path: &&str| path.split('/').next() == Some("queues");
        path.filter(is_it).map(ToOwned::to_owned).ok_or_else(warp::reject::not_found)
    });
    here.and(warp::method())
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<Peer>())
        .and(warp::body::stream())
        .then(move |path, method, query, headers, peer, body| {
            let (security, queues) = (Arc::clone(&security), queues.clone());
            async move {
                let request = Request { method, path, query, headers, peer };
                uncached(answer(&security, &queues, &request, body).await.unwrap_or_else(Refusal::into_response))
            }
        })
}

async fn answer<B: Buf>(
    security: &Security,
    queues: &Queues,
    request: &Request,
    body: impl Stream<Item = Result<B, warp::Error>> + Send,
) -> Result<Response, Refusal> {
    let segments: Vec<&str> = request.path.split('/').skip(1).collect();
    let wanted = match (&request.method, &segments[..]) {
        (&Method::GET, []) => Wanted::All,
        (&Method::GET, [_]) => Wanted::Stats,
        (&Method::GET, [_, "messages"]) => Wanted::Messages,
        (&Method::POST, [_, "messages"]) => Wanted::Enqueue,
        (&Method::DELETE, [_, "messages"]) => Wanted::Purge,
        (&Method::GET, [_, "dead"]) => Wanted::DeadLetters,
        (&Method::DELETE, [_, "dead"]) => Wanted::PurgeDead(None),
        (&Method::DELETE, [_, "dead", id]) => Wanted::PurgeDead(Some(id)),
        (&Method::POST, [_, "dead", id, "retry"]) => Wanted::Retry(id),
        (_, [] | [_] | [_, "messages" | "dead"] | [_, "dead", _] | [_, "dead", _, "retry"]) => {
            return Err(Fault::new(StatusCode::METHOD_NOT_ALLOWED, "this path has no such method").into());
        }
        _ => return Err(Fault::new(StatusCode::NOT_FOUND, "Not Found").into()),
    };
    let name = match segments.first() {
        Some(segment) => decoded(segment).ok_or(QueueError::Name)?,
        None => String::new(),
    };
    let user = match wanted {
        Wanted::Enqueue => {
            let producer = authenticate(security, request).await?;
            if !producer.rights().grants.may_enqueue(&name) {
                security.denied(&producer, &name, ENQUEUE);
                return Err(Fault::new(StatusCode::FORBIDDEN, format!("Missing capability: {ENQUEUE}")).into());
            }
            producer
        }
        _ => authorize(security, request, OPERATE).await?,
    };
    if !matches!(wanted, Wanted::All) {
        queues.class(&name)?;
    }
    match wanted {
        Wanted::Enqueue => {
            let enqueued = enqueue(queues, &name, request, body).await?;
            if !enqueued.duplicate {
                security.administered(&user, "queues/enqueue", &format!("{name} {}", enqueued.id));
            }
            Ok(of_json(StatusCode::OK, &enqueued))
        }
        Wanted::All | Wanted::Stats | Wanted::Messages | Wanted::DeadLetters => show(queues, &wanted, &name, request),
        Wanted::Purge | Wanted::PurgeDead(_) | Wanted::Retry(_) => {
            let (operation, id) = match wanted {
                Wanted::Retry(id) => ("queues/retry", id),
                Wanted::PurgeDead(id) => ("queues/purge_dead", id.unwrap_or_default()),
                _ => ("queues/purge", ""),
            };
            let done = change(queues, &wanted, &name).await;
            // What the store fails at is done all the same.
            if matches!(&done, Ok(_) | Err(Refusal::Queue { status: StatusCode::INTERNAL_SERVER_ERROR, .. })) {
                security.administered(&user, operation, format!("{name} {id}").trim_end());
            }
            done
        }
    }
}

/// Answers what changes nothing. JSON of producers goes through as it came, at any depth, and so never through a tree.
fn show(queues: &Queues, wanted: &Wanted<'_>, name: &str, request: &Request) -> Result<Response, Refusal> {
    #[derive(Serialize)]
    struct All {
        stats: QueuesStats,
        queues: Vec<QueueStats>,
    }

    let params = params(&request.query)?;
    let limit = match params.get_str("limit") {
        None => LIMIT_DEFAULT,
        Some(text) => match text.parse() {
            Ok(limit @ 1..=LIMIT_MAX) => limit,
            _ => return Err(Fault::bad(format!("limit: expected 1 to {LIMIT_MAX}, came {text:?}")).into()),
        },
    };
    Ok(match wanted {
        Wanted::All => {
            let prefix = params.get_str("prefix").unwrap_or_default();
            let names = queues.names();
            // One may go between the two.
            let named =
                names.iter().filter(|name| name.starts_with(prefix)).filter_map(|name| queues.queue_stats(name));
            of_json(StatusCode::OK, &All { queues: named.take(limit).collect(), stats: queues.stats() })
        }
        Wanted::Messages => of_json(StatusCode::OK, &BTreeMap::from([("messages", queues.messages(name, limit))])),
        Wanted::DeadLetters => {
            of_json(StatusCode::OK, &BTreeMap::from([("dead_letters", queues.dead_letters(name, limit))]))
        }
        _ => of_json(StatusCode::OK, &stats(queues, name)?),
    })
}

/// What a queue holds; one that may be and is not there holds nothing.
fn stats(queues: &Queues, name: &str) -> Result<QueueStats, QueueError> {
    if let Some(stats) = queues.queue_stats(name) {
        return Ok(stats);
    }
    Ok(QueueStats {
        queue: name.to_owned(),
        durability: queues.reached(name)?,
        consumers: 0,
        messages: 0,
        in_flight: 0,
        delayed: 0,
        priority_counts: PriorityCounts::default(),
        dead_letters: 0,
        bytes: 0,
        totals: Totals::default(),
    })
}

async fn change(queues: &Queues, wanted: &Wanted<'_>, name: &str) -> Result<Response, Refusal> {
    let purged = match wanted {
        Wanted::Retry(id) => {
            queues.retry(name, id).await?;
            return Ok(of_json(StatusCode::OK, &json!({"retried": id})));
        }
        Wanted::PurgeDead(id) => match queues.purge_dead(name, *id).await {
            Ok(0) if id.is_some() => return Err(no_dead_letter()),
            purged => purged,
        },
        _ => queues.purge(name).await,
    };
    let purged = purged.map_err(|error| unsure(&error, "what was purged may be back"))?;
    Ok(of_json(StatusCode::OK, &json!({"purged": purged})))
}

async fn enqueue<B: Buf>(
    queues: &Queues,
    name: &str,
    request: &Request,
    body: impl Stream<Item = Result<B, warp::Error>> + Send,
) -> Result<Enqueued, Refusal> {
    let bytes_max = queues.settings().limits.message_bytes_max.saturating_add(ENVELOPE_BYTES_MAX);
    let body = read_body(body, bytes_max).await?;
    let invalid = |why: String| QueueError::Invalid(format!("the message: {why}"));
    let text = std::str::from_utf8(&body).map_err(|_| invalid("expected text in UTF-8".to_owned()))?;
    json::validate(text).map_err(|error| invalid(error.to_string()))?;
    let message = NewMessage::parse(&body)?;
    let message = match key(&request.headers, text)? {
        Some(key) => message.idempotency_key(key),
        None => message,
    };
    Ok(queues.enqueue(name, message).await?)
}

/// The key in the headers, if the message has none of its own.
fn key<'a>(headers: &'a HeaderMap, message: &str) -> Result<Option<&'a str>, QueueError> {
    #[derive(Deserialize)]
    struct Keyed {
        idempotency_key: Option<serde::de::IgnoredAny>,
    }

    let mut keys = headers.get_all(KEY_HEADER).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let invalid = |came: &str| QueueError::Invalid(format!("idempotency-key: expected one text in ASCII, came {came}"));
    if keys.next().is_some() {
        return Err(invalid("several"));
    }
    let key = key.to_str().map_err(|_| invalid("other characters"))?;
    let has_key = serde_json::from_str::<Keyed>(message).is_ok_and(|keyed| keyed.idempotency_key.is_some());
    Ok((!has_key).then_some(key))
}

/// The text of a path's segment; none for a `%` without two hex digits, and for what is not UTF-8.
fn decoded(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (pair, after) = rest.split_at_checked(2)?;
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        bytes.push(u8::try_from(digit(0)? << 4 | digit(1)?).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}
