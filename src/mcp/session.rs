//! What the channels of one socket share of a session, and where they find it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::runs::{Run, Watch};
use super::tools::CancelReason;
use crate::protocol::mcp::session::session_id;
use crate::random;

/// The sessions of this node, by id.
#[derive(Default)]
pub(super) struct Sessions(Arc<Mutex<HashMap<String, Weak<Session>>>>);

/// One session: its calls under way and who else watches them. Ends when its channel drops it.
pub(super) struct Session {
    id: String,
    connection: u64,
    registry: Weak<Mutex<HashMap<String, Weak<Session>>>>,
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    runs: Vec<Arc<Run>>,
    observer: Option<Observer>,
    /// Counts the observers, so that one that goes takes only itself away.
    last_observer: u64,
    has_ended: bool,
}

/// The channel beside the session that sees its events: how it is woken, and its watch of each call under way.
struct Observer {
    number: u64,
    wake: Wake,
    watches: Vec<Arc<Watch>>,
}

type Wake = Arc<dyn Fn(&Arc<Watch>) -> bool + Send + Sync>;

/// The right to see a session's events, until it is dropped or another channel takes its place.
pub(super) struct Observation {
    session: Weak<Session>,
    number: u64,
}

impl Drop for Observation {
    fn drop(&mut self) {
        if let Some(session) = self.session.upgrade() {
            let mut shared = session.shared.lock();
            drop(shared.observer.take_if(|observer| observer.number == self.number));
        }
    }
}

impl Observer {
    fn watch(&mut self, run: &Arc<Run>, after: u64) {
        let wake = Arc::clone(&self.wake);
        self.watches.push(run.watch(after, move |watch| wake(watch)));
    }
}

impl Drop for Observer {
    /// A channel that is gone takes mail without a word while its connection lives, so that no run would notice.
    fn drop(&mut self) {
        for watch in &self.watches {
            watch.run().unwatch(watch);
        }
    }
}

impl Sessions {
    /// A new session of a connection.
    pub(super) fn open(&self, connection: u64) -> Arc<Session> {
        let session = Arc::new(Session {
            id: session_id(random::bytes()),
            connection,
            registry: Arc::downgrade(&self.0),
            shared: Mutex::default(),
        });
        self.0.lock().insert(session.id.clone(), Arc::downgrade(&session));
        session
    }

    /// The session of that id, if it is one of that connection.
    pub(super) fn find(&self, id: &str, connection: u64) -> Option<Arc<Session>> {
        let session = self.0.lock().get(id)?.upgrade()?;
        (session.connection == connection).then_some(session)
    }
}

impl Session {
    /// `mcp_session_` and 16 hex digits.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Notes a call that begins, and lets the observers watch it from its first event.
    pub(super) fn begin(&self, run: &Arc<Run>) {
        let mut shared = self.shared.lock();
        if shared.has_ended {
            run.cancel(CancelReason::SessionEnded);
        }
        if let Some(observer) = &mut shared.observer {
            observer.watch(run, 0);
        }
        shared.runs.push(Arc::clone(run));
    }

    /// Forgets a call that has ended.
    pub(super) fn finish(&self, run: &Arc<Run>) {
        let mut shared = self.shared.lock();
        shared.runs.retain(|other| !Arc::ptr_eq(other, run));
        if let Some(observer) = &mut shared.observer {
            observer.watches.retain(|watch| !Arc::ptr_eq(watch.run(), run));
        }
    }

    /// Lets a channel of the same socket see the session's events from now on. A later observer takes its place: the
    /// topic of observers is one a socket. `wake` is as in [`Run::watch`].
    pub(super) fn observe(self: &Arc<Self>, wake: impl Fn(&Arc<Watch>) -> bool + Send + Sync + 'static) -> Observation {
        let mut shared = self.shared.lock();
        shared.last_observer += 1;
        let number = shared.last_observer;
        let mut observer = Observer { number, wake: Arc::new(wake), watches: Vec::new() };
        for run in &shared.runs {
            observer.watch(run, run.last_seq());
        }
        shared.observer = Some(observer);
        Observation { session: Arc::downgrade(self), number }
    }

    /// Cancels the calls under way.
    pub(super) fn end(&self) {
        let runs = {
            let mut shared = self.shared.lock();
            shared.has_ended = true;
            std::mem::take(&mut shared.runs)
        };
        for run in runs {
            run.cancel(CancelReason::SessionEnded);
        }
        if let Some(registry) = self.registry.upgrade() {
            registry.lock().remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;
    use futures::future::BoxFuture;
    use serde_json::Map;

    use super::*;
    use crate::mcp::Settings;
    use crate::mcp::auth::Identity;
    use crate::mcp::runs::{NewRun, Runs};
    use crate::mcp::tools::{Arguments, Tool, ToolError, Tools, Work};
    use crate::protocol::jsonrpc;
    use crate::protocol::mcp::tool::{InputSchema, ToolCapabilities, ToolMetadata, ToolSpec};

    /// A tool that does not end by itself.
    struct Hanging;

    impl Tool for Hanging {
        fn spec(&self) -> ToolSpec {
            ToolSpec {
                name: "t".into(),
                description: String::new(),
                input_schema: InputSchema::new(Map::new(), &[]),
                capabilities: ToolCapabilities::default(),
                metadata: ToolMetadata::new("test", &[], 0),
            }
        }

        fn prepare(&self, _: &Arguments<'_>) -> Result<Work, ToolError> {
            Ok(Work::new(|_| -> BoxFuture<'static, _> { futures::future::pending().boxed() }))
        }
    }

    #[tokio::test]
    async fn observers_that_come_and_go_leave_no_watches_and_get_no_mail() {
        let runs = Arc::new(Runs::new(&Settings::default(), Arc::new(|_: &str, _: &str, _| true)));
        let tools = Tools::new([Arc::new(Hanging) as Arc<dyn Tool>]).expect("one tool");
        let tool = tools.find("t").expect("the tool");
        let session = Sessions::default().open(1);
        let start = || {
            let work = tool.prepare(&Arguments::default()).expect("takes anything");
            let owner = Identity { user: "u".into() };
            let new = NewRun { tool, work, request_id: jsonrpc::raw(&1), owner, connection: 1 };
            runs.start(new, |run| session.begin(run)).expect("room")
        };
        let calls: Vec<_> = (0..15).map(|_| start()).collect();
        let (stale, fresh) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let observe = |mails: &Arc<AtomicUsize>| {
            let mails = Arc::clone(mails);
            session.observe(move |_| mails.fetch_add(1, Ordering::SeqCst) < usize::MAX)
        };

        let mut last = observe(&stale);
        for _ in 0..2_000 {
            // The old channel ends after the new one has joined, or before.
            last = observe(&stale);
        }
        drop(last);
        assert!(calls.iter().all(|run| run.watchers() == 0));
        let kept = observe(&fresh);
        assert!(calls.iter().all(|run| run.watchers() == 1));

        start();
        runs.drain().await;

        // The sixteenth call's first event was told at once; then came one mail or two for its end, and one for each other.
        assert_eq!(stale.load(Ordering::SeqCst), 0);
        assert!((16..=18).contains(&fresh.load(Ordering::SeqCst)), "{fresh:?}");
        drop(kept);
    }
}
