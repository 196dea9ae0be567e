//! An upstream that is a Streamable HTTP endpoint: each request of ours is a POST, whose answer is JSON or a stream of events.
//!
//! Source: MCP, Streamable HTTP, revisions 2025-03-26 to 2026-07-28.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};

use super::instance::{Hello, Instance, Lost, SESSION_GONE};
use super::options;
use super::sending::Message;
use crate::protocol::jsonrpc::{Incoming, Object, splice};
use crate::protocol::mcp::headers::{self, METHOD, NAME};
use crate::protocol::mcp::sse::Events;
use crate::protocol::mcp::version::Version;
use crate::protocol::mcp::{DISCOVER, INITIALIZE, INITIALIZED, TOOLS_CALL};

const VERSION: &str = "mcp-protocol-version";
const SESSION: &str = "mcp-session-id";
const LAST_EVENT_ID: &str = "last-event-id";
const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

/// In which a connection has to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// In which a notification has to be taken.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end of a session waits to be told.
const DELETE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a stream that ended is not picked up again, where the upstream does not say.
const RETRY: Duration = Duration::from_millis(1_000);
/// The longest such pause that an upstream may ask for.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How long an upstream may take to end the stream of an answer that it gave.
const END_OF_STREAM: Duration = Duration::from_secs(1);
/// Redirects of one request.
const REDIRECTS_MAX: usize = 5;
/// How often a stream is picked up again that brings nothing.
const RESUMES_MAX: u32 = 5;

/// An endpoint in use.
pub(super) struct Endpoint {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    /// The notification that ends the handshake; requests wait until it was taken.
    gate: Option<JoinHandle<()>>,
    has_standing: bool,
}

struct Shared {
    client: Client,
    url: Url,
    headers: HeaderMap,
    bytes_max: usize,
    session: Mutex<Option<HeaderValue>>,
    /// The tasks of requests, by their number.
    open: Mutex<HashMap<u64, AbortHandle>>,
}

/// How the reading of a stream ended.
enum Read {
    /// With its end. The last event's id, and how long to wait.
    Ended(Option<String>, Option<u64>),
    /// An event was too long. The last event's id.
    TooLong(Option<String>),
}

impl Endpoint {
    /// Prepares requests.
    ///
    /// # Errors
    /// What is wrong with the options.
    pub(super) fn open(
        options: &options::Endpoint,
        bytes_max: usize,
        instance: &Arc<Instance>,
    ) -> Result<Self, String> {
        let mut given = HeaderMap::new();
        for (name, value) in &options.headers {
            let name =
                HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("header {name:?}: no header name"))?;
            let mut value =
                HeaderValue::from_str(value).map_err(|_| format!("header {name}: expected printable ASCII"))?;
            value.set_sensitive(true);
            given.append(name, value);
        }
        // One that the program has chosen before stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = Client::builder().connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
        client = client.redirect(if options.follow_redirects { redirects() } else { Policy::none() });
        if !options.use_proxy {
            client = client.no_proxy();
        }
        // What is wrong with it stays out of the text: it may hold what is secret.
        let url = Url::parse(&options.url).map_err(|_| "its URL is none".to_owned())?;
        let client = client.build().map_err(|error| format!("preparing requests: {error}"))?;
        let shared = Arc::new(Shared {
            client,
            url,
            headers: given,
            bytes_max,
            session: Mutex::default(),
            open: Mutex::default(),
        });
        let cutting = Arc::clone(&shared);
        instance.set_cut(move |id| {
            if let Some(task) = cutting.open.lock().remove(&id) {
                task.abort();
            }
        });
        Ok(Endpoint { shared, tasks: JoinSet::new(), gate: None, has_standing: false })
    }

    /// Sends and receives for ever: a request that shows that the endpoint is of no use has the instance ended. Cancel-safe.
    pub(super) async fn run(&mut self, instance: &Arc<Instance>) -> String {
        loop {
            if let Some(gate) = &mut self.gate {
                let _ = gate.await;
                self.gate = None;
                if !std::mem::replace(&mut self.has_standing, true) {
                    self.tasks.spawn(standing(Arc::clone(&self.shared), Arc::clone(instance)));
                }
            }
            tokio::select! {
                biased;
                Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => {}
                message = instance.sending.next() => self.send(message, instance),
            }
        }
    }

    fn send(&mut self, message: Message, instance: &Arc<Instance>) {
        let (shared, instance) = (Arc::clone(&self.shared), Arc::clone(instance));
        let Some(id) = message.id else {
            let method = std::str::from_utf8(&message.text).ok().and_then(|text| splice::get(text, &["method"]));
            let opens = method.is_some_and(|method| method.trim_matches('"') == INITIALIZED);
            let task = notify(shared, instance, message.text);
            if opens {
                self.gate = Some(tokio::spawn(task));
            } else {
                self.tasks.spawn(task);
            }
            return;
        };
        // Held until it is noted, so that a request which is answered at once finds it.
        let open = Arc::clone(&self.shared);
        let mut open = open.open.lock();
        let task = self.tasks.spawn(async move {
            request(&shared, &instance, id, message).await;
            shared.open.lock().remove(&id);
        });
        open.insert(id, task);
    }

    /// Ends the session.
    pub(super) async fn stop(&mut self) {
        self.tasks.abort_all();
        let session = self.shared.session.lock().take();
        if let Some(session) = session {
            let request = self.shared.client.delete(self.shared.url.clone()).headers(self.shared.headers.clone());
            let told = request.header(SESSION, session).timeout(DELETE_TIMEOUT).send().await;
            tracing::debug!(told = told.is_ok(), "the session with an MCP server is ended");
        }
    }
}

impl Shared {
    /// A request with what all have.
    fn with_headers(&self, request: RequestBuilder, instance: &Instance) -> RequestBuilder {
        let mut request = request.headers(self.headers.clone());
        if let Some(session) = self.session.lock().clone() {
            request = request.header(SESSION, session);
        }
        match instance.hello() {
            Some(hello) => request.header(VERSION, hello.version.as_str()),
            None => request,
        }
    }

    fn post(&self, instance: &Instance, text: Bytes) -> RequestBuilder {
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, JSON)
            .header(ACCEPT, "application/json, text/event-stream");
        self.with_headers(request, instance).body(text)
    }
}

/// Redirects that keep the method and the body; others would make a GET of a POST.
fn redirects() -> Policy {
    Policy::custom(|attempt| {
        let keeps = matches!(attempt.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
        if keeps && attempt.previous().len() <= REDIRECTS_MAX { attempt.follow() } else { attempt.stop() }
    })
}

async fn notify(shared: Arc<Shared>, instance: Arc<Instance>, text: Bytes) {
    match shared.post(&instance, text).timeout(NOTIFY_TIMEOUT).send().await {
        Ok(response) if response.status().is_success() => instance.heard(),
        Ok(response) => {
            if response.status() == StatusCode::NOT_FOUND && shared.session.lock().is_some() {
                instance.ask_to_end(SESSION_GONE);
            }
            tracing::debug!(server = &*instance.name, status = response.status().as_u16(), "a message was not taken");
        }
        Err(error) => tracing::debug!(server = &*instance.name, why = why(&error), "a message was not taken"),
    }
}

async fn request(shared: &Arc<Shared>, instance: &Arc<Instance>, id: u64, message: Message) {
    let is_opening = matches!(&*message.method, INITIALIZE | DISCOVER) && instance.hello().is_none();
    let mut post = shared.post(instance, message.text.clone());
    let is_modern = instance.hello().map_or(&*message.method == DISCOVER, Hello::is_modern);
    if is_modern {
        post = modern_headers(post, instance, &message, is_opening);
    }
    let response = match post.send().await {
        Ok(response) => response,
        Err(error) => {
            let text = format!("the MCP server {:?} can't be reached: {}", instance.name, why(&error));
            let is_unserved = error.is_connect();
            instance.lose(id, Lost { why: text, is_unserved });
            if is_unserved && instance.has_no_calls() {
                // Other streams may be well.
                instance.ask_to_end(&why(&error));
            }
            return;
        }
    };
    let status = response.status();
    if status == StatusCode::NOT_FOUND && !is_opening && shared.session.lock().is_some() {
        // It did not look at the request: the session is to be opened again. Source: Streamable HTTP, "Session Management".
        let why = format!("the session with the MCP server {:?} is gone", instance.name);
        instance.lose(id, Lost::unserved(why));
        return instance.ask_to_end(SESSION_GONE);
    }
    // Whatever it says, it is there.
    instance.heard();
    if is_opening && let Some(session) = response.headers().get(SESSION) {
        *shared.session.lock() = Some(session.clone());
    }
    let kind = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default()
        .to_ascii_lowercase();
    if status.is_success() && kind.starts_with(EVENTS) {
        return answer_of_stream(shared, instance, id, response).await;
    }
    if kind.starts_with(JSON) {
        return answer_of_body(shared, instance, id, status, response).await;
    }
    let text = match status {
        status if status.is_redirection() => format!("HTTP status {}: redirects are not followed", status.as_u16()),
        status => format!("HTTP status {}, content type {kind:?}", status.as_u16()),
    };
    instance.lose(id, Lost::new(format!("the MCP server {:?} answered with {text}", instance.name)));
}

/// The headers that repeat what the body says. Source: 2026-07-28, Streamable HTTP.
fn modern_headers(
    mut post: RequestBuilder,
    instance: &Instance,
    message: &Message,
    is_opening: bool,
) -> RequestBuilder {
    if is_opening {
        post = post.header(VERSION, Version::V2026_07_28.as_str());
    }
    post = post.header(METHOD, &*message.method);
    let text = std::str::from_utf8(&message.text).unwrap_or_default();
    let Some(param) = headers::name_param(&message.method) else { return post };
    let name = splice::get(text, &["params", param]).and_then(|name| serde_json::from_str::<String>(name).ok());
    let Some(name) = name else { return post };
    post = post.header(NAME, &*headers::encode(&name));
    let slot = instance.slot.upgrade().filter(|_| &*message.method == TOOLS_CALL);
    let wanted = slot.and_then(|slot| slot.upstream.learned.headers_of(&name));
    if let Some(wanted) = wanted
        && let Some(arguments) = splice::get(text, &["params", "arguments"])
        && let Ok(arguments) = serde_json::from_str(arguments)
    {
        for (header, value) in wanted.values(&arguments) {
            post = post.header(header, value);
        }
    }
    post
}

async fn answer_of_body(
    shared: &Shared,
    instance: &Arc<Instance>,
    id: u64,
    status: StatusCode,
    mut response: Response,
) {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > shared.bytes_max => {
                return instance.too_long(body.len() + chunk.len(), shared.bytes_max, Some(id));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => return cut(instance, id, &why(&error)),
        }
    }
    let is_ours = |text: &[u8]| matches!(Incoming::classify(text), Incoming::Response(response) if response.id.get() == id.to_string());
    let text = body.trim_ascii();
    if status.is_success() || is_ours(text) {
        instance.receive(text, Some(id));
        return instance.lose(id, Lost::new(format!("the MCP server {:?} answered something else", instance.name)));
    }
    // An error that no request can be told of by its id.
    let message = Object::parse(text).and_then(|body| body.object("error")?.string("message"));
    let message: String = message.unwrap_or_default().chars().take(200).collect();
    let text = format!("the MCP server {:?} answered with HTTP status {}: {message}", instance.name, status.as_u16());
    instance.lose(id, Lost::new(text));
}

async fn answer_of_stream(shared: &Shared, instance: &Arc<Instance>, id: u64, response: Response) {
    let mut next = Ok(response);
    let mut resumes = 0;
    let mut last_id = None;
    loop {
        let (ended, retry_ms) = match next {
            Ok(response) => match read(shared, instance, Some(id), response).await {
                Read::Ended(ended, retry_ms) => (ended, retry_ms),
                Read::TooLong(_) => return instance.too_long(shared.bytes_max + 1, shared.bytes_max, Some(id)),
            },
            Err(_) => (None, None),
        };
        if !instance.is_pending(id) {
            return;
        }
        if ended.is_some() {
            resumes = 0;
            last_id = ended;
        }
        resumes += 1;
        // Only the legacy era has streams that are picked up again.
        let is_legacy = instance.hello().is_some_and(|hello| !hello.is_modern());
        let Some(last) = last_id.as_deref().filter(|_| is_legacy && resumes <= RESUMES_MAX) else {
            return cut(instance, id, "the stream of the answer ended before it");
        };
        tokio::time::sleep(pause(retry_ms)).await;
        next = get(shared, instance, Some(last)).await;
    }
}

fn pause(retry_ms: Option<u64>) -> Duration {
    retry_ms.map_or(RETRY, Duration::from_millis).min(RETRY_MAX)
}

fn cut(instance: &Instance, id: u64, why: &str) {
    instance
        .lose(id, Lost::new(format!("the MCP server {:?} was lost in the middle of its answer: {why}", instance.name)));
}

/// Opens a stream that no request has, or picks one up after an event.
async fn get(shared: &Shared, instance: &Instance, after: Option<&str>) -> Result<Response, StatusCode> {
    let mut request = shared.with_headers(shared.client.get(shared.url.clone()).header(ACCEPT, EVENTS), instance);
    if let Some(after) = after {
        request = request.header(LAST_EVENT_ID, after);
    }
    match request.send().await {
        Ok(response) if response.status() == StatusCode::OK => Ok(response),
        Ok(response) => Err(response.status()),
        Err(_) => Err(StatusCode::BAD_GATEWAY),
    }
}

/// Reads events until the stream ends.
async fn read(shared: &Shared, instance: &Arc<Instance>, stream: Option<u64>, mut response: Response) -> Read {
    let mut events = Events::new(shared.bytes_max);
    let (mut last_id, mut retry_ms) = (None, None);
    while let Ok(Some(chunk)) = response.chunk().await {
        // Comments are signs of life too.
        instance.heard();
        let pushed = events.push(&chunk, |event| {
            if event.id.as_ref().is_some_and(|id| !id.is_empty()) {
                last_id.clone_from(&event.id);
            }
            retry_ms = event.retry_ms.or(retry_ms);
            let text = event.data.trim();
            if !text.is_empty() {
                instance.receive(text.as_bytes(), stream);
            }
        });
        if pushed.is_err() {
            return Read::TooLong(last_id);
        }
        if stream.is_some_and(|id| !instance.is_pending(id)) {
            // Read to its end, the connection serves the next request; what an upstream does not close is left.
            let rest = async { while let Ok(Some(_)) = response.chunk().await {} };
            let _ = tokio::time::timeout(END_OF_STREAM, rest).await;
            break;
        }
    }
    Read::Ended(last_id, retry_ms)
}

/// The stream of what no request caused, for as long as the upstream offers it.
async fn standing(shared: Arc<Shared>, instance: Arc<Instance>) {
    if instance.hello().is_some_and(Hello::is_modern) {
        return;
    }
    let mut last_id: Option<String> = None;
    loop {
        let mut wait = RETRY;
        match get(&shared, &instance, last_id.as_deref()).await {
            Ok(response) => match read(&shared, &instance, None, response).await {
                Read::Ended(id, retry_ms) => {
                    last_id = id.or(last_id);
                    wait = pause(retry_ms);
                }
                Read::TooLong(id) => {
                    instance.too_long(shared.bytes_max + 1, shared.bytes_max, None);
                    last_id = id.or(last_id);
                }
            },
            Err(StatusCode::NOT_FOUND) if shared.session.lock().is_some() => return instance.ask_to_end(SESSION_GONE),
            // The upstream is to be asked again, or has nothing of that sort.
            Err(status) if status.is_client_error() => return,
            Err(_) => {}
        }
        tokio::time::sleep(wait).await;
    }
}

/// Why a request failed, without its URL, which may hold what is secret.
pub(in crate::mcp) fn why(error: &reqwest::Error) -> String {
    let mut text = match error {
        error if error.is_connect() => "no connection".to_owned(),
        error if error.is_timeout() => "timed out".to_owned(),
        _ => "the connection broke".to_owned(),
    };
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if inner.source().is_none() && !inner_text.contains("://") {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}
