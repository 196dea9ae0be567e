//! A long-poll session: a task that is the socket between polls, and the table that finds it by token.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;

use super::message;
use super::token::Secret;
use crate::channel::host::Host;
use crate::channel::{Connected, LongPollOptions, SocketSpec};
use crate::clock;
use crate::outbox::{Conn, ConnLimits, Control, Status};
use crate::protocol::limits::{ORPHAN_HANDLER_MS, OUTBOX_BYTES_READ_PAUSE};
use crate::protocol::longpoll::Inactivity;
use crate::protocol::websocket::Opcode;
use crate::protocol::wire::WireVersion;
use crate::pubsub::Live;
use crate::random;
use crate::transport::admission::{Admission, AdmissionLimits, Permit};

/// Polls of one session that may wait to be taken up, which is at its task's next turn.
const POLLS_MAX: usize = 16;
/// POSTs of one session that may wait behind the one that is handled; further ones wait in their HTTP connections.
const POSTS_MAX: usize = 16;

/// A message of a POST.
pub(super) type Message = (Opcode, Vec<u8>);

/// A poll: whatever there is, as soon as there is something.
pub(super) type Ask = oneshot::Sender<Polled>;

/// The messages of a POST; its answer is true if all could be read.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) messages: Vec<Message>,
    pub(super) answer: oneshot::Sender<bool>,
}

/// What a poll gets.
#[derive(Debug)]
pub(super) enum Polled {
    Messages(Vec<String>),
    Ended,
}

/// The live sessions of a server. Cloned handles share them.
#[derive(Clone, Debug)]
pub struct LongPolls {
    inner: Arc<Table>,
}

#[derive(Debug)]
struct Table {
    secret: Secret,
    admission: Arc<Admission>,
    body_timeout: Duration,
    sessions: Mutex<BTreeMap<u128, Handle>>,
}

impl LongPolls {
    /// No sessions yet, and never more than `limits` say of connections. A POST's body has to arrive in `body_timeout`.
    pub fn new(secret: Secret, limits: AdmissionLimits, body_timeout: Duration) -> Self {
        let admission = Admission::new(limits);
        LongPolls { inner: Arc::new(Table { secret, admission, body_timeout, sessions: Mutex::default() }) }
    }

    /// The session of a token, if it began at the socket of this path.
    pub(super) fn find(&self, token: &str, path: &str) -> Option<Handle> {
        let id = self.inner.secret.verify(token, clock::unix_micros() / 1_000_000)?;
        let handle = self.inner.sessions.lock().get(&id).cloned()?;
        (handle.spec.path == path).then_some(handle)
    }

    /// How many sessions can be found by their token.
    pub fn sessions(&self) -> usize {
        self.inner.sessions.lock().len()
    }

    /// How many sessions have not ended, those among them that are no longer found but whose handlers run on.
    pub fn open(&self) -> usize {
        self.inner.admission.open()
    }

    /// How long a POST's body may take to arrive.
    pub(super) fn body_timeout(&self) -> Duration {
        self.inner.body_timeout
    }

    fn insert(&self, handle: Handle) -> Registered {
        let id = u128::from_be_bytes(random::bytes());
        self.inner.sessions.lock().insert(id, handle);
        Registered { id, table: Arc::downgrade(&self.inner) }
    }
}

/// A session's place in the table, given up when dropped.
struct Registered {
    id: u128,
    table: Weak<Table>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(table) = self.table.upgrade() {
            table.sessions.lock().remove(&self.id);
        }
    }
}

/// Reaches a session.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    spec: Arc<SocketSpec>,
    polls: mpsc::Sender<Ask>,
    posts: mpsc::Sender<Post>,
}

/// The session is gone.
#[derive(Debug)]
pub(super) struct Gone;

impl Handle {
    pub(super) async fn poll(&self, ask: Ask) -> Result<(), Gone> {
        self.polls.send(ask).await.map_err(|_| Gone)
    }

    pub(super) async fn post(&self, post: Post) -> Result<(), Gone> {
        self.posts.send(post).await.map_err(|_| Gone)
    }
}

/// The socket of one long-poll client.
pub(super) struct Session {
    polls: mpsc::Receiver<Ask>,
    posts: mpsc::Receiver<Post>,
    conn: Arc<Conn>,
    host: Host,
    inactivity: Inactivity,
    timer: Pin<Box<Sleep>>,
    waiting: Option<Ask>,
    /// Messages that a poll gave up on before it got them.
    undelivered: Vec<String>,
    /// The POST that is handled, and how many of its messages have been.
    post: Option<(Post, usize)>,
    /// The server stops, and what was said before has been handled.
    is_draining: bool,
    registered: Registered,
    live: Live,
    permit: Permit,
}

/// What came of handling POSTs.
enum Work {
    /// Nothing more can be handled for now.
    Waits,
    /// A message could not be read: the session ends.
    Malformed,
}

impl Session {
    /// Starts a session for a client at `ip` and gives back its token. None, and counted, if there are as many as there
    /// may be.
    pub(super) fn start(
        spec: &Arc<SocketSpec>,
        ip: IpAddr,
        version: WireVersion,
        connected: Connected,
        options: LongPollOptions,
        longpolls: &LongPolls,
    ) -> Option<String> {
        let permit = longpolls.inner.admission.admit(ip)?;
        let limits = ConnLimits {
            outbox_bytes_max: options.buffer_bytes_max,
            inbox_messages_max: spec.options.inbox_messages_max,
            idle_timeout_ms: 0,
        };
        let (polling, polls) = mpsc::channel(POLLS_MAX);
        let (posting, posts) = mpsc::channel(POSTS_MAX);
        let registered = longpolls.insert(Handle { spec: Arc::clone(spec), polls: polling, posts: posting });
        let token = longpolls.inner.secret.sign(registered.id, clock::unix_micros() / 1_000_000);
        let live = spec.endpoint.hub.live_guard();
        let conn = spec.endpoint.hub.connect(version, limits, None);
        connected.opened(&conn);
        let socket_id = connected.id.map(Arc::from);
        let host = Host::new(Arc::clone(&conn), Arc::clone(spec), connected.assigns, socket_id);
        let inactivity = Inactivity::new(options.window_ms, clock::now());
        let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        let session = Session {
            polls,
            posts,
            conn,
            host,
            inactivity,
            timer,
            waiting: None,
            undelivered: Vec::new(),
            post: None,
            is_draining: false,
            registered,
            live,
            permit,
        };
        tokio::spawn(session.run());
        Some(token)
    }

    async fn run(mut self) {
        self.arm();
        poll_fn(|cx| self.poll(cx)).await;

        // From here on the session is not found; who waits is told.
        let Session { polls, posts, post, conn, mut host, waiting, registered, live, permit, .. } = self;
        drop((registered, polls, posts, post));
        if let Some(waiting) = waiting {
            let _ = waiting.send(Polled::Ended);
        }
        poll_fn(|cx| {
            host.close(cx, &[]);
            Poll::Ready(())
        })
        .await;
        let rest = poll_fn(|cx| {
            conn.register(cx);
            let _ = host.poll(cx, &mut Vec::new());
            if host.is_at_rest() { Poll::Ready(()) } else { Poll::Pending }
        });
        if tokio::time::timeout(Duration::from_millis(ORPHAN_HANDLER_MS), rest).await.is_err() {
            tracing::warn!("a handler ran on after its long-poll session had ended, and was dropped");
        }
        conn.close();
        drop((host, live, permit));
    }

    fn arm(&mut self) {
        let wait = self.inactivity.next_timeout().since(clock::now());
        self.timer.as_mut().reset(clock::in_ms(wait));
    }

    /// Runs the session until it ends.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.conn.register(cx);
        let mut out = Vec::new();
        // Polls are always taken, whatever else waits: they are what makes room.
        while let Poll::Ready(asked) = self.polls.poll_recv(cx) {
            let Some(ask) = asked else { return Poll::Ready(()) };
            self.inactivity.polled(clock::now());
            self.waiting = Some(ask);
            self.deliver();
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if self.inactivity.expired(clock::now()) {
                return Poll::Ready(());
            }
            self.arm();
        }
        match self.conn.ordered() {
            Some(Control::Drain) => return self.poll_draining(cx),
            Some(_) => return Poll::Ready(()),
            None => {}
        }
        if self.host.poll(cx, &mut out).is_err() {
            return Poll::Ready(());
        }
        self.host.flush(&mut out);
        loop {
            if let Work::Malformed = self.work_off(cx, &mut out) {
                return Poll::Ready(());
            }
            let was_behind = self.is_behind();
            if !self.deliver() {
                return Poll::Ready(());
            }
            if !was_behind || self.is_behind() {
                if self.host.can_catch_up() {
                    cx.waker().wake_by_ref();
                }
                return Poll::Pending;
            }
        }
    }

    /// What was said before the drain still goes out to a poll that waits, also what is on its way through the shard.
    fn poll_draining(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !std::mem::replace(&mut self.is_draining, true) {
            let mut out = Vec::new();
            let _ = self.host.poll(cx, &mut out);
            self.host.flush(&mut out);
        }
        if self.conn.awaits_fence() {
            return Poll::Pending;
        }
        self.deliver();
        Poll::Ready(())
    }

    /// Whether so much waits for the next poll that nothing further is handled until it comes.
    fn is_behind(&self) -> bool {
        let undelivered: usize = self.undelivered.iter().map(String::len).sum();
        undelivered + self.conn.pending_bytes() > OUTBOX_BYTES_READ_PAUSE
    }

    /// Whether the next message of a POST has to wait; then the task is woken when it no longer has to.
    fn holds_back(&mut self) -> bool {
        self.host.is_clogged() || self.is_behind() || self.host.awaits_shard() || self.live.awaits_room(&self.conn)
    }

    /// Handles the messages of POSTs, as far as they need not wait.
    fn work_off(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Work {
        loop {
            if self.post.is_none()
                && let Poll::Ready(Some(post)) = self.posts.poll_recv(cx)
            {
                self.post = Some((post, 0));
            }
            let Some((post, mut at)) = self.post.take() else { return Work::Waits };
            while let Some((opcode, bytes)) = post.messages.get(at) {
                if self.holds_back() {
                    self.post = Some((post, at));
                    return Work::Waits;
                }
                at += 1;
                let received = self.host.receive(*opcode, bytes, cx, out);
                self.host.flush(out);
                if let Err(fatal) = received {
                    tracing::debug!(why = fatal.0, "malformed long-poll message");
                    let _ = post.answer.send(false);
                    return Work::Malformed;
                }
            }
            self.conn.seen(clock::now());
            // A client that did not wait for the answer still had its messages handled.
            let _ = post.answer.send(true);
        }
    }

    /// Gives a waiting poll what there is. False if the buffer overflowed.
    fn deliver(&mut self) -> bool {
        if self.conn.status() != Status::Open {
            return false;
        }
        let Some(waiting) = self.waiting.take_if(|waiting| !waiting.is_closed()) else {
            self.waiting = None;
            return true;
        };
        let (framed, _) = self.conn.take_pending();
        let mut messages = std::mem::take(&mut self.undelivered);
        messages.extend(message::strings(&framed));
        if messages.is_empty() {
            self.waiting = Some(waiting);
        } else if let Err(Polled::Messages(messages)) = waiting.send(Polled::Messages(messages)) {
            self.undelivered = messages;
        } else {
            self.conn.handed_over();
        }
        true
    }
}
