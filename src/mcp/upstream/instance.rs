//! One connection with an upstream: which of our requests wait for it, and what it says, in the order in which it says it.
//!
//! Everything that comes passes [`Instance::receive`], called by one task at a time for each stream: progress reaches its
//! caller before the answer that it came before.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use compact_str::CompactString;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

use super::sending::{Message, Sending};
use super::slot::Slot;
use crate::clock;
use crate::mcp::call::Call;
use crate::metrics::UpstreamMetrics;
use crate::protocol::Time;
use crate::protocol::jsonrpc::{self, Incoming, Object, splice};
use crate::protocol::mcp::version::Version;
use crate::protocol::mcp::{CANCELLED, DISCOVER, INITIALIZE, PING};

/// Why a connection over HTTP is to be opened again.
pub(super) const SESSION_GONE: &str = "its session is gone";

/// Questions of one upstream that wait for clients.
pub(super) const ASKED_MAX: usize = 64;

/// One connection, from its start to its end.
pub(in crate::mcp) struct Instance {
    pub(super) slot: Weak<Slot>,
    /// The upstream's name.
    pub(super) name: Arc<str>,
    pub(super) stats: Arc<UpstreamMetrics>,
    pub(super) sending: Sending,
    /// Cuts what an HTTP request of ours has open, where the carrier has such.
    cut: OnceLock<Box<dyn Fn(u64) + Send + Sync>>,
    hello: OnceLock<Hello>,
    pub(super) state: Mutex<State>,
    last_heard: AtomicU64,
    ended: OnceLock<String>,
    end: Notify,
}

#[derive(Default)]
pub(super) struct State {
    last: u64,
    pub(super) pending: BTreeMap<u64, Pending>,
    /// Questions of the upstream by the key of their id.
    pub(super) asked: HashMap<CompactString, Asked>,
    has_ended: bool,
}

/// A request of ours that waits.
pub(super) struct Pending {
    pub(super) call: Option<Arc<Call>>,
    events: mpsc::UnboundedSender<Event>,
    /// Whether a question in its course waits for the client: one at a time, since nobody takes more.
    is_asking: bool,
    since: Time,
}

impl Pending {
    /// Tells whoever waits of a question in the course of the request; false if one waits already.
    pub(super) fn question(&mut self, text: Bytes) -> bool {
        !std::mem::replace(&mut self.is_asking, true) && self.events.send(Event::Question(text)).is_ok()
    }
}

/// A question of the upstream that waits for a client.
pub(super) struct Asked {
    /// The request of ours on whose stream it was asked, where that is known.
    pub(super) cause: Option<u64>,
    pub(super) id: Box<RawValue>,
    pub(super) task: AbortHandle,
}

/// What becomes of a request of ours.
pub(in crate::mcp) enum Event {
    /// Its response, the whole text.
    Answer(Bytes),
    /// A question in its course, which the caller answers: the whole text.
    Question(Bytes),
    /// There will be none.
    Lost(Lost),
}

/// Why a request of ours gets no answer.
#[derive(Clone, Debug)]
pub(in crate::mcp) struct Lost {
    pub(in crate::mcp) why: String,
    /// Whether the upstream certainly did nothing.
    pub(in crate::mcp) is_unserved: bool,
}

impl Lost {
    pub(in crate::mcp) fn new(why: impl Into<String>) -> Self {
        Lost { why: why.into(), is_unserved: false }
    }

    pub(super) fn unserved(why: impl Into<String>) -> Self {
        Lost { why: why.into(), is_unserved: true }
    }
}

/// What the upstream said of itself.
#[derive(Debug)]
pub(in crate::mcp) struct Hello {
    /// The revision spoken with it.
    pub(in crate::mcp) version: Version,
    /// The result of `initialize` or `server/discover`.
    pub(in crate::mcp) result: Box<RawValue>,
    /// The whole response.
    pub(in crate::mcp) text: Bytes,
}

impl Hello {
    pub(in crate::mcp) fn is_modern(&self) -> bool {
        self.version.is_modern()
    }

    /// Whether a capability is there, such as `resources`, or `resources.subscribe`, that is not false.
    pub(in crate::mcp) fn can(&self, path: &[&str]) -> bool {
        let path: Vec<_> = std::iter::once("capabilities").chain(path.iter().copied()).collect();
        splice::get(self.result.get(), &path).is_some_and(|value| value != "false" && value != "null")
    }

    /// The `Implementation` object that says who it is.
    pub(in crate::mcp) fn server_info(&self) -> Option<Box<RawValue>> {
        let path: &[&str] = match self.is_modern() {
            true => &["_meta", crate::protocol::mcp::client::META_SERVER_INFO],
            false => &["serverInfo"],
        };
        splice::get(self.result.get(), path).and_then(|info| RawValue::from_string(info.to_owned()).ok())
    }
}

impl Instance {
    pub(super) fn new(slot: &Arc<Slot>) -> Arc<Self> {
        Arc::new(Instance {
            slot: Arc::downgrade(slot),
            name: Arc::clone(&slot.upstream.name),
            stats: Arc::clone(&slot.upstream.stats),
            sending: Sending::default(),
            cut: OnceLock::new(),
            hello: OnceLock::new(),
            state: Mutex::default(),
            last_heard: AtomicU64::new(clock::now().0),
            ended: OnceLock::new(),
            end: Notify::new(),
        })
    }

    /// What it said of itself, once it has shaken hands.
    pub(in crate::mcp) fn hello(&self) -> Option<&Hello> {
        self.hello.get()
    }

    pub(super) fn set_hello(&self, hello: Hello) {
        // A connection shakes hands once.
        let _ = self.hello.set(hello);
    }

    /// Sets how a request is cut whose answer is a stream.
    pub(super) fn set_cut(&self, cut: impl Fn(u64) + Send + Sync + 'static) {
        let _ = self.cut.set(Box::new(cut));
    }

    /// Sends a request that `text` makes of its number.
    ///
    /// # Errors
    /// The upstream has ended, or does not read.
    pub(in crate::mcp) fn request(
        self: &Arc<Self>,
        call: Option<&Arc<Call>>,
        method: &str,
        text: impl FnOnce(u64) -> String,
    ) -> Result<Ticket, Lost> {
        let (sender, events) = mpsc::unbounded_channel();
        let id = {
            let mut state = self.state.lock();
            if state.has_ended || !self.is_up() {
                return Err(Lost::unserved(self.why_ended()));
            }
            state.last += 1;
            let id = state.last;
            state
                .pending
                .insert(id, Pending { call: call.cloned(), events: sender, is_asking: false, since: clock::now() });
            id
        };
        let ticket = Ticket { instance: Arc::clone(self), id, events, method: method.into() };
        let text = Bytes::from(text(id));
        self.sending.push(Message { id: Some(id), method: method.into(), text }).map_err(|_| {
            self.state.lock().pending.remove(&id);
            Lost::unserved(format!("the MCP server {:?} does not read what it is sent", self.name))
        })?;
        Ok(ticket)
    }

    /// Sends a notification, or an answer to a question of the upstream. Where it does not read, that is lost.
    pub(in crate::mcp) fn tell(&self, text: impl Into<Bytes>) {
        let message = Message { id: None, method: "".into(), text: text.into() };
        if self.sending.push(message).is_err() {
            tracing::warn!(server = &*self.name, "an MCP server does not read what it is sent");
        }
    }

    /// Asks whether the upstream is there.
    pub(super) fn ping(self: &Arc<Self>) -> Result<Ticket, Lost> {
        let is_modern = self.hello().is_some_and(Hello::is_modern);
        self.request(None, if is_modern { DISCOVER } else { PING }, |id| match is_modern {
            true => super::handshake::discover(id),
            false => format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{PING}"}}"#),
        })
    }

    /// Milliseconds since it said anything.
    pub(super) fn silent_ms(&self) -> u64 {
        clock::now().since(Time(self.last_heard.load(Ordering::Relaxed)))
    }

    /// Whether no call of a client waits for it.
    pub(super) fn has_no_calls(&self) -> bool {
        self.state.lock().pending.values().all(|pending| pending.call.is_none())
    }

    /// Notes that it lives.
    pub(super) fn heard(&self) {
        self.last_heard.store(clock::now().0, Ordering::Relaxed);
    }

    /// Takes a message of the upstream, which came on the stream of the answer to `stream`, if on one.
    pub(super) fn receive(self: &Arc<Self>, text: &[u8], stream: Option<u64>) {
        self.heard();
        match Incoming::classify(text) {
            Incoming::Response(response) => match response.id.get().parse::<u64>() {
                Ok(id) => self.answered(id, text),
                Err(_) => self.stats.late.inc(),
            },
            Incoming::Request(request) => self.asked(text, &request, stream),
            Incoming::Notification(notification) => self.told(text, &notification, stream),
            Incoming::Invalid { .. } => match jsonrpc::batch(text) {
                // Of revision 2025-03-26. A batch in a batch is none.
                Some(messages) if self.hello().is_some_and(|hello| hello.version.has_batches()) => {
                    for message in messages.iter().filter(|message| !message.get().starts_with('[')) {
                        self.receive(message.get().as_bytes(), stream);
                    }
                }
                _ => self.garbage(text.len()),
            },
        }
    }

    /// Notes what is no message.
    pub(super) fn garbage(&self, bytes: usize) {
        self.stats.garbage.inc();
        tracing::debug!(server = &*self.name, bytes, "an MCP server said what is no message");
    }

    fn answered(&self, id: u64, text: &[u8]) {
        let pending = self.state.lock().pending.remove(&id);
        let Some(pending) = pending else {
            // Given up, answered before, or never asked.
            self.stats.late.inc();
            return;
        };
        self.stats.answered(clock::now().since(pending.since));
        // Whoever asked may have gone just now.
        let _ = pending.events.send(Event::Answer(Bytes::copy_from_slice(text)));
    }

    /// Notes that a message was too long; the request that it answers, if it says so, fails.
    pub(super) fn too_long(&self, bytes: usize, bytes_max: usize, id: Option<u64>) {
        self.heard();
        self.stats.too_long.inc();
        tracing::warn!(server = &*self.name, bytes, bytes_max, "a message of an MCP server is too long");
        if let Some(id) = id {
            let why = format!(
                "the answer of the MCP server {:?} is too long: expected at most {bytes_max} bytes, came {bytes}",
                self.name
            );
            self.lose(id, Lost::new(why));
        }
    }

    /// Ends a request of ours without an answer.
    pub(super) fn lose(&self, id: u64, lost: Lost) {
        let pending = self.state.lock().pending.remove(&id);
        if let Some(pending) = pending {
            self.stats.failed.inc();
            let _ = pending.events.send(Event::Lost(lost));
        }
    }

    /// Whether a request of ours still waits.
    pub(super) fn is_pending(&self, id: u64) -> bool {
        self.state.lock().pending.contains_key(&id)
    }

    /// Makes another call hear what comes of a request.
    pub(super) fn hand_over(&self, id: u64, call: &Arc<Call>) {
        let before = self.state.lock().pending.get_mut(&id).map(|pending| {
            pending.is_asking = false;
            pending.call.replace(Arc::clone(call))
        });
        // Not under the lock: with its call a session may go, which takes locks of its own.
        drop(before);
    }

    /// Ends the connection: every request that waits is lost, and questions are taken back.
    pub(super) fn end(&self, why: &str) {
        let _ = self.ended.set(why.to_owned());
        let (pending, asked) = {
            let mut state = self.state.lock();
            state.has_ended = true;
            (std::mem::take(&mut state.pending), std::mem::take(&mut state.asked))
        };
        for (id, pending) in pending {
            self.stats.failed.inc();
            // What was never sent did nothing.
            let is_unserved = self.sending.withdraw(id);
            let _ = pending.events.send(Event::Lost(Lost { why: self.why_ended(), is_unserved }));
        }
        for asked in asked.into_values() {
            asked.task.abort();
        }
        self.end.notify_waiters();
    }

    /// Has the connection ended by its keeper, which `why` tells.
    pub(super) fn ask_to_end(&self, why: &str) {
        let _ = self.ended.set(why.to_owned());
        self.end.notify_waiters();
    }

    /// Waits until someone wants it ended.
    pub(super) async fn wants_end(&self) -> String {
        loop {
            let mut notified = std::pin::pin!(self.end.notified());
            notified.as_mut().enable();
            if let Some(why) = self.ended.get() {
                return why.clone();
            }
            notified.await;
        }
    }

    /// Whether requests can be sent.
    pub(in crate::mcp) fn is_up(&self) -> bool {
        self.ended.get().is_none()
    }

    fn why_ended(&self) -> String {
        let why = self.ended.get().map_or("it was cut", String::as_str);
        format!("the MCP server {:?} has ended: {why}", self.name)
    }

    /// Answers a question of the upstream with an error.
    pub(in crate::mcp) fn refuse(&self, id: &RawValue, code: i64, message: &str) {
        let fault = crate::protocol::mcp::error::other(code, message, None);
        self.tell(jsonrpc::error_response(Some(id), &fault, jsonrpc::Compat::Standard));
    }

    /// Takes a request of ours back.
    fn cancel(&self, id: u64, method: &str, reason: &str) {
        // Dropped after the lock: with its call a session may go, which takes locks of its own.
        let _gone;
        let asked: Vec<_> = {
            let mut state = self.state.lock();
            let Some(pending) = state.pending.remove(&id) else { return };
            _gone = pending;
            // Where it is not known who caused a question, the last call takes all of them along.
            let is_last = state.pending.values().all(|pending| pending.call.is_none());
            let is_its = |asked: &Asked| asked.cause.map_or(is_last, |cause| cause == id);
            state.asked.extract_if(|_, asked| is_its(asked)).map(|(_, asked)| asked).collect()
        };
        for asked in asked {
            asked.task.abort();
            self.refuse(&asked.id, jsonrpc::INTERNAL_ERROR, "the call that asked was cancelled");
        }
        // What was never sent needs no taking back; and nobody may take `initialize` back.
        if self.sending.withdraw(id) || method == INITIALIZE {
            return;
        }
        let is_stream_cut = self.cut.get().is_some_and(|cut| {
            cut(id);
            self.hello().is_some_and(Hello::is_modern)
        });
        if !is_stream_cut {
            let reason = jsonrpc::raw(reason);
            self.tell(format!(
                r#"{{"jsonrpc":"2.0","method":"{CANCELLED}","params":{{"requestId":{id},"reason":{reason}}}}}"#
            ));
        }
    }
}

/// A request of ours; where it is dropped before its answer, it is taken back.
pub(in crate::mcp) struct Ticket {
    pub(super) instance: Arc<Instance>,
    pub(super) id: u64,
    events: mpsc::UnboundedReceiver<Event>,
    method: Box<str>,
}

impl Ticket {
    /// Waits for what comes of it. Cancel-safe.
    pub(in crate::mcp) async fn next(&mut self) -> Event {
        let event = self.events.recv().await;
        event.unwrap_or_else(|| Event::Lost(Lost::new(self.instance.why_ended())))
    }

    /// Waits for the answer, of a request in whose course nothing is asked. Cancel-safe.
    pub(in crate::mcp) async fn answer(&mut self) -> Result<Bytes, Lost> {
        loop {
            match self.next().await {
                Event::Answer(text) => return Ok(text),
                Event::Question(_) => {}
                Event::Lost(lost) => return Err(lost),
            }
        }
    }

    /// Makes another call hear what comes of it.
    pub(in crate::mcp) fn hand_over(&self, call: &Arc<Call>) {
        self.instance.hand_over(self.id, call);
    }

    pub(in crate::mcp) fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let reason = {
            let state = self.instance.state.lock();
            let call = state.pending.get(&self.id).and_then(|pending| pending.call.clone());
            drop(state);
            call.and_then(|call| call.why_cancelled())
        };
        self.instance.cancel(self.id, &self.method, reason.as_deref().unwrap_or("not needed any more"));
    }
}

/// The result of a response, or its error's message.
pub(super) fn result_of(text: &[u8]) -> Result<Box<RawValue>, String> {
    match Incoming::classify(text) {
        Incoming::Response(response) => match response.outcome {
            Ok(result) if Object::parse(result.get().as_bytes()).is_some() => Ok(result.to_owned()),
            Ok(_) => Err("its result is no object".to_owned()),
            Err(error) => {
                let object = Object::parse(error.get().as_bytes()).unwrap_or_default();
                let code = object.raw("code").map_or("none", RawValue::get);
                let message: String = object.string("message").unwrap_or_default().chars().take(200).collect();
                Err(format!("error {code}: {message}"))
            }
        },
        _ => Err("no response".to_owned()),
    }
}
