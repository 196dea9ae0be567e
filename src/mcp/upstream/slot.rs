//! A place for connections with an upstream, one at a time: started when it is needed, started again when it ended, and
//! who hears of what it says.
//!
//! ```text
//! Down ─ wanted ─► Starting ─ handshake ─► Up ─ ends, hangs, idle ─► Down, for a pause after a failure
//! ```

mod keeper;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::{Notify, watch};

pub(super) use keeper::Carrier;

use super::handshake;
use super::instance::{Hello, Instance, Lost, Ticket, result_of};
use super::{Sharing, Upstream};
use crate::clock;
use crate::mcp::session::Session;
use crate::protocol::Time;
use crate::protocol::jsonrpc;
use crate::protocol::mcp::hub::Shelf;
use crate::protocol::mcp::level::Level;
use crate::protocol::mcp::version::Version;
use crate::protocol::mcp::{
    PROMPTS_CHANGED, RESOURCES_CHANGED, RESOURCES_SUBSCRIBE, RESOURCES_UNSUBSCRIBE, SET_LEVEL, SUBSCRIPTIONS_LISTEN,
    TOOLS_CHANGED,
};

/// What a pause may last for a call to wait for its end, and not to fail at once.
const WAITED_PAUSE_MS: u64 = 2_000;
/// How long a stream of changes is not asked for again that the upstream ended.
const LISTEN_PAUSE: Duration = Duration::from_secs(1);

/// Whom a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    /// All who open in this era.
    Shared { is_modern: bool },
    /// One session.
    Session(u64),
    /// One stateless call at a time.
    Lent(u64),
}

/// Who is behind a connection.
pub(super) struct Introduced {
    /// The params of `initialize`.
    pub(super) params: Box<RawValue>,
    /// The one user whose calls it has, of [`Key::Lent`].
    pub(super) user: Option<Arc<str>>,
}

/// How it stands.
#[derive(Clone)]
pub(super) enum Standing {
    /// Not started; why it ended, and until when it is not tried again.
    Down {
        why: Option<String>,
        until: Time,
    },
    Starting,
    Up(Arc<Instance>),
    /// For good.
    Closed,
}

/// One place.
pub(in crate::mcp) struct Slot {
    pub(super) upstream: Arc<Upstream>,
    pub(super) key: Key,
    introduction: Introduced,
    /// Whether the stateless era is tried first.
    is_modern_first: bool,
    standing: watch::Sender<Standing>,
    wanted: Notify,
    /// That other resources are wanted to be heard of.
    interest_changed: Notify,
    sessions: Mutex<BTreeMap<u64, Weak<Session>>>,
    interest: Mutex<Interest>,
    has_ended: watch::Sender<bool>,
    /// Whether a stateless call has it, of [`Key::Lent`].
    pub(super) is_lent: Mutex<bool>,
    last_used: Mutex<Time>,
    failed_starts: AtomicU64,
    /// Whether a list was given without it.
    is_missed: AtomicBool,
}

#[derive(Default)]
struct Interest {
    /// Who wants to hear of which resource.
    uris: BTreeMap<String, BTreeSet<u64>>,
    level: Option<Level>,
    /// Whether the client said that it is ready, of a connection for one.
    is_ready: bool,
}

/// Says that a slot's task has ended, however it did.
struct Ended(Arc<Slot>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.standing.send_replace(Standing::Closed);
        self.0.has_ended.send_replace(true);
        self.0.upstream.forget(&self.0);
    }
}

/// Why there is no connection.
#[derive(Clone, Debug)]
pub(in crate::mcp) struct NotUp(pub(in crate::mcp) String);

impl Slot {
    pub(super) fn new(
        upstream: &Arc<Upstream>,
        key: Key,
        introduction: Introduced,
        is_modern_first: bool,
    ) -> Arc<Self> {
        let slot = Arc::new(Slot {
            upstream: Arc::clone(upstream),
            key,
            introduction,
            is_modern_first,
            standing: watch::Sender::new(Standing::Down { why: None, until: Time(0) }),
            wanted: Notify::new(),
            interest_changed: Notify::new(),
            sessions: Mutex::default(),
            interest: Mutex::default(),
            has_ended: watch::Sender::new(false),
            is_lent: Mutex::new(false),
            last_used: Mutex::new(clock::now()),
            failed_starts: AtomicU64::new(0),
            is_missed: AtomicBool::new(false),
        });
        // Ends with `close`, which `ended` waits for.
        let kept = Arc::clone(&slot);
        tokio::spawn(async move {
            let _ended = Ended(Arc::clone(&kept));
            keeper::keep(kept).await;
        });
        slot
    }

    /// Waits until a slot that was closed has ended.
    pub(super) async fn ended(&self) {
        // The sender is part of self.
        let _ = self.has_ended.subscribe().wait_for(|has_ended| *has_ended).await;
    }

    /// Whether it opens with these params of `initialize`, for that user.
    pub(super) fn introduces(&self, params: &RawValue, user: &Arc<str>) -> bool {
        self.introduction.params.get() == params.get() && self.introduction.user.as_ref() == Some(user)
    }

    /// How it stands.
    pub(super) fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Has it started.
    pub(in crate::mcp) fn want(&self) {
        *self.last_used.lock() = clock::now();
        self.wanted.notify_one();
    }

    /// The connection, once it is up.
    ///
    /// # Errors
    /// Why it is not: it can't be started, or not in time.
    pub(in crate::mcp) async fn up(&self) -> Result<Arc<Instance>, NotUp> {
        if let Standing::Up(instance) = &*self.standing.borrow()
            && instance.is_up()
        {
            return Ok(Arc::clone(instance));
        }
        self.want();
        let name = &self.upstream.name;
        let mut standing = self.standing.subscribe();
        let failed_before = self.failed_starts.load(Ordering::SeqCst);
        let waiting = async {
            loop {
                match &*standing.borrow_and_update() {
                    Standing::Up(instance) if instance.is_up() => return Ok(Arc::clone(instance)),
                    Standing::Up(_) | Standing::Starting => {}
                    Standing::Closed => return Err(NotUp(format!("the MCP server {name:?} is stopped"))),
                    Standing::Down { why, until } => {
                        let pause_ms = until.since(clock::now());
                        let why = why.as_deref().unwrap_or("it has not been started");
                        let has_failed_since = self.failed_starts.load(Ordering::SeqCst) > failed_before;
                        if has_failed_since || pause_ms > WAITED_PAUSE_MS {
                            return Err(NotUp(format!("the MCP server {name:?} can't be reached: {why}")));
                        }
                    }
                }
                if standing.changed().await.is_err() {
                    return Err(NotUp(format!("the MCP server {name:?} is stopped")));
                }
            }
        };
        let timeout = self.upstream.options.start_timeout;
        let waited = tokio::time::timeout(timeout, waiting).await;
        waited.unwrap_or_else(|_| {
            Err(NotUp(format!(
                "the MCP server {name:?} can't be reached: not started within {} ms",
                timeout.as_millis()
            )))
        })
    }

    /// Lets a session hear of what the upstream says.
    pub(in crate::mcp) fn attach(&self, session: &Arc<Session>) {
        self.sessions.lock().insert(session.number(), Arc::downgrade(session));
    }

    /// Forgets a session.
    pub(super) fn detach(&self, number: u64) {
        self.sessions.lock().remove(&number);
        *self.last_used.lock() = clock::now();
        let gone: Vec<String> = {
            let mut interest = self.interest.lock();
            for wanting in interest.uris.values_mut() {
                wanting.remove(&number);
            }
            interest.uris.extract_if(.., |_, wanting| wanting.is_empty()).map(|(uri, _)| uri).collect()
        };
        if self.key == Key::Session(number) {
            return self.close();
        }
        for uri in gone {
            self.subscription(RESOURCES_UNSUBSCRIBE, &uri);
        }
    }

    /// Those who hear of it.
    pub(super) fn sessions(&self) -> Vec<Arc<Session>> {
        self.sessions.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// The session that it is for, if for one.
    pub(super) fn owner(&self) -> Option<Arc<Session>> {
        match self.key {
            Key::Session(number) => self.sessions.lock().get(&number)?.upgrade(),
            _ => None,
        }
    }

    /// Whether it is a place with that upstream.
    pub(in crate::mcp) fn is_of(&self, upstream: &Arc<Upstream>) -> bool {
        Arc::ptr_eq(&self.upstream, upstream)
    }

    /// Whether it is for one session.
    pub(in crate::mcp) fn is_owned(&self) -> bool {
        matches!(self.key, Key::Session(_))
    }

    /// Notes that the client of the session that it is for is ready, which only it can say.
    pub(in crate::mcp) fn client_is_ready(&self) {
        self.interest.lock().is_ready = true;
    }

    /// Notes that a session wants to hear of a resource; whether nobody did so far.
    pub(in crate::mcp) fn add_interest(&self, uri: &str, number: u64) -> bool {
        let mut interest = self.interest.lock();
        let wanting = interest.uris.entry(uri.to_owned()).or_default();
        let is_first = wanting.is_empty();
        wanting.insert(number);
        is_first
    }

    /// Takes [`Slot::add_interest`] back; whether nobody wants it any more.
    pub(in crate::mcp) fn remove_interest(&self, uri: &str, number: u64) -> bool {
        let mut interest = self.interest.lock();
        let Some(wanting) = interest.uris.get_mut(uri) else { return false };
        let is_last = wanting.remove(&number) && wanting.is_empty();
        if is_last {
            interest.uris.remove(uri);
        }
        is_last
    }

    /// Has the upstream tell of a resource, or not, without waiting for its answer.
    pub(in crate::mcp) fn subscription(&self, method: &str, uri: &str) {
        let Standing::Up(instance) = self.standing() else { return };
        if instance.hello().is_some_and(Hello::is_modern) {
            return self.interest_changed.notify_one();
        }
        if instance.hello().is_some_and(|hello| hello.can(&["resources", "subscribe"])) {
            unheard(&instance, method, &json!({"uri": uri}));
        }
    }

    /// Has the upstream log what is at least as severe, if it does not yet.
    pub(in crate::mcp) fn want_level(&self, level: Level) {
        {
            let mut interest = self.interest.lock();
            if interest.level.is_some_and(|wanted| wanted <= level) {
                return;
            }
            interest.level = Some(level);
        }
        if let Standing::Up(instance) = self.standing() {
            set_level(&instance, level);
        }
    }

    /// Notes what is logged, should the connection be made again.
    pub(in crate::mcp) fn note_level(&self, level: Level) {
        self.interest.lock().level = Some(level);
    }

    /// Whether it is known that the upstream there speaks the stateless era.
    pub(in crate::mcp) fn is_stateless(&self) -> bool {
        matches!(self.standing(), Standing::Up(instance) if instance.hello().is_some_and(Hello::is_modern))
    }

    /// Passes a client's notification on, to an upstream of the legacy era.
    pub(in crate::mcp) fn tell_legacy(&self, text: &[u8]) {
        if let Standing::Up(instance) = self.standing()
            && instance.hello().is_some_and(|hello| !hello.is_modern())
        {
            instance.tell(bytes::Bytes::copy_from_slice(text));
        }
    }

    /// Notes that a list was given without it.
    pub(super) fn miss(&self) {
        self.is_missed.store(true, Ordering::SeqCst);
        // It may have come up just now, and told nobody.
        if let Standing::Up(instance) = self.standing()
            && instance.is_up()
            && self.is_missed.swap(false, Ordering::SeqCst)
        {
            self.tell_lists(&instance);
        }
    }

    /// Whether a list was given without it, and it was not up since.
    pub(super) fn is_missed(&self) -> bool {
        self.is_missed.load(Ordering::SeqCst)
    }

    /// Tells those who want to know that the lists may be others.
    fn tell_lists(&self, instance: &Instance) {
        for (method, list) in [(TOOLS_CHANGED, "tools"), (PROMPTS_CHANGED, "prompts"), (RESOURCES_CHANGED, "resources")]
        {
            let Some(hello) = instance.hello().filter(|hello| hello.can(&[list])) else { continue };
            let is_declared = hello.can(&[list, "listChanged"]);
            let text = format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#);
            for session in self.sessions().iter().filter(|session| is_declared || session.server.is_hub()) {
                session.relay_change(method, &text);
            }
        }
    }

    /// Waits until it is closed.
    async fn closed(&self) {
        // The sender is part of self.
        let _ = self.standing.subscribe().wait_for(|standing| matches!(standing, Standing::Closed)).await;
    }

    /// Tells those who want to know that lists are others, in the upstream's words.
    pub(super) fn changed(&self, method: &str, text: &str) {
        for session in self.sessions() {
            session.relay_change(method, text);
        }
    }

    /// Tells those who asked for a resource that it has another content. What is updated may be a part of what was asked for.
    pub(super) fn updated(&self, text: &str, uri: &str) {
        let wanting: Vec<(String, Vec<u64>)> = {
            let interest = self.interest.lock();
            let concerned = interest.uris.iter().filter(|(wanted, _)| is_part(uri, wanted));
            concerned.map(|(wanted, who)| (wanted.clone(), who.iter().copied().collect())).collect()
        };
        for (wanted, who) in wanting {
            for number in who {
                let session = self.sessions.lock().get(&number).and_then(Weak::upgrade);
                if let Some(session) = session {
                    session.relay_update(&self.upstream.name, text, &wanted);
                }
            }
        }
    }

    /// Takes back what a session does not want to hear of any more, by the URI here or, of a hub, behind the server's name.
    pub(in crate::mcp) fn release(&self, uri: &str, number: u64, is_hub: bool) {
        let own = if is_hub { Shelf::Resources.unprefixed(&self.upstream.name, uri) } else { None };
        let own = own.filter(|own| self.wants(own, number)).unwrap_or(uri);
        if self.remove_interest(own, number) {
            self.subscription(RESOURCES_UNSUBSCRIBE, own);
        }
    }

    fn wants(&self, uri: &str, number: u64) -> bool {
        self.interest.lock().uris.get(uri).is_some_and(|who| who.contains(&number))
    }

    /// Ends it for good.
    pub(super) fn close(&self) {
        let before = self.standing.send_replace(Standing::Closed);
        match before {
            Standing::Up(instance) => instance.ask_to_end("it is not needed any more"),
            _ => self.wanted.notify_one(),
        }
        self.upstream.retire(self);
    }

    /// Whether it has ended, or is about to.
    pub(super) fn is_closed(&self) -> bool {
        matches!(*self.standing.borrow(), Standing::Closed)
    }

    /// Sets how it stands, unless it was closed; whether it was not.
    fn stands(&self, next: Standing) -> bool {
        self.standing.send_if_modified(|standing| {
            if matches!(standing, Standing::Closed) {
                return false;
            }
            *standing = next;
            true
        })
    }

    /// Whether nobody used it for so long.
    fn is_idle(&self, instance: &Instance, timeout: Duration) -> bool {
        let is_unused =
            clock::now().since(*self.last_used.lock()) >= u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let may_end = !self.is_owned() && !self.is_booted();
        may_end && is_unused && !*self.is_lent.lock() && instance.has_no_calls() && self.sessions.lock().is_empty()
    }

    /// Whether it is for single calls, and none has it.
    fn is_for_nobody(&self) -> bool {
        matches!(self.key, Key::Lent(_)) && self.is_spare()
    }

    /// Whether no call has it, and no session hears of it.
    pub(super) fn is_spare(&self) -> bool {
        !*self.is_lent.lock() && self.sessions.lock().is_empty()
    }

    /// Whether it has no program and no session, and none is about to start.
    pub(super) fn is_asleep(&self) -> bool {
        matches!(*self.standing.borrow(), Standing::Down { .. }) && self.is_spare() && !self.is_booted()
    }

    /// Notes that a call has done with it.
    pub(super) fn give_back(&self) {
        *self.last_used.lock() = clock::now();
        *self.is_lent.lock() = false;
    }

    /// Whether it is up for as long as the server is.
    fn is_booted(&self) -> bool {
        self.upstream.options.starts_at_boot && matches!(self.key, Key::Shared { .. })
    }

    /// What a new connection is told of what was wanted of the one before.
    fn restore(&self, instance: &Arc<Instance>) {
        let (uris, level) = {
            let interest = self.interest.lock();
            (interest.uris.keys().cloned().collect::<Vec<_>>(), interest.level)
        };
        if instance.hello().is_some_and(Hello::is_modern) {
            return;
        }
        if let Some(level) = level {
            set_level(instance, level);
        }
        for uri in uris {
            unheard(instance, RESOURCES_SUBSCRIBE, &json!({"uri": uri}));
        }
    }

    /// Keeps a stream of changes open with an upstream of the stateless era; never ends.
    async fn listen(&self, instance: &Arc<Instance>) {
        let Some(hello) = instance.hello().filter(|hello| hello.is_modern()) else {
            return std::future::pending().await;
        };
        let introduction = crate::protocol::mcp::relay::Introduction::of_initialize(&self.introduction.params);
        let mut open: Option<Ticket> = None;
        loop {
            let uris: Vec<String> = self.interest.lock().uris.keys().cloned().collect();
            let mut wanted = serde_json::Map::new();
            for (key, list) in [
                ("toolsListChanged", "tools"),
                ("promptsListChanged", "prompts"),
                ("resourcesListChanged", "resources"),
            ] {
                if hello.can(&[list, "listChanged"]) {
                    wanted.insert(key.to_owned(), true.into());
                }
            }
            if !uris.is_empty() && hello.can(&["resources", "subscribe"]) {
                wanted.insert("resourceSubscriptions".to_owned(), json!(uris));
            }
            let before = open.take();
            if !wanted.is_empty() {
                open = instance
                    .request(None, SUBSCRIPTIONS_LISTEN, |id| {
                        let params = json!({"notifications": wanted});
                        let text = format!(
                            r#"{{"jsonrpc":"2.0","id":{id},"method":"{SUBSCRIPTIONS_LISTEN}","params":{params}}}"#
                        );
                        crate::protocol::mcp::relay::into_stateless(&text, &introduction, None)
                    })
                    .ok();
            }
            // The stream before ends when the next was asked for, so that nothing is missed between.
            drop(before);
            let ended = async {
                match &mut open {
                    Some(ticket) => {
                        let answer = ticket.answer().await;
                        if answer.is_ok_and(|text| result_of(&text).is_err()) {
                            // An upstream that refuses is not asked again, before something else is wanted.
                            std::future::pending().await
                        }
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.interest_changed.notified() => {}
                () = ended => tokio::time::sleep(LISTEN_PAUSE).await,
            }
        }
    }
}

/// Whether a resource is another, or a part of it.
fn is_part(uri: &str, of: &str) -> bool {
    uri.strip_prefix(of).is_some_and(|rest| rest.is_empty() || of.ends_with('/') || rest.starts_with(['/', '?', '#']))
}

/// Sends a request whose answer is of no use to anyone.
fn unheard(instance: &Arc<Instance>, method: &str, params: &serde_json::Value) {
    let request = instance
        .request(None, method, |id| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#));
    if let Ok(mut ticket) = request {
        // Ends with its answer, or with the connection.
        tokio::spawn(async move { drop(ticket.answer().await) });
    }
}

fn set_level(instance: &Arc<Instance>, level: Level) {
    if instance.hello().is_some_and(|hello| hello.can(&["logging"])) {
        unheard(instance, SET_LEVEL, &json!({"level": level}));
    }
}

/// The params of `initialize` where no single client is behind it.
pub(super) fn own_introduction(sharing: Sharing) -> Box<RawValue> {
    let capabilities = match sharing {
        // Whatever the upstream asks then, some client may answer.
        Sharing::Shared => json!({"sampling": {}, "elicitation": {"form": {}, "url": {}}, "roots": {}}),
        Sharing::Auto | Sharing::Session => json!({}),
    };
    jsonrpc::raw(&json!({
        "protocolVersion": Version::LATEST_LEGACY, "capabilities": capabilities, "clientInfo": handshake::own_info(),
    }))
}

impl From<NotUp> for Lost {
    fn from(NotUp(why): NotUp) -> Self {
        Lost::unserved(why)
    }
}
