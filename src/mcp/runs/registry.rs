//! All runs of this node: found by id, listed, announced, and forgotten after a while.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{NewRun, Run, drive};
use crate::clock;
use crate::mcp::Settings;
use crate::mcp::auth::Identity;
use crate::mcp::tools::{CancelReason, ConnectionFull, Workers};
use crate::protocol::Time;
use crate::protocol::jsonrpc::{Fault, Scope};
use crate::protocol::mcp::event::RunSummary;
use crate::protocol::mcp::run_log::RunLimits;
use crate::protocol::mcp::{RUN_FINISHED, RUN_STARTED, RUNS_TOPIC};
use crate::random;

/// Runs that one listing names at most, the newest.
const RUNS_LISTED_MAX: usize = 1_000;
/// Announcements kept for those who read them late.
const ANNOUNCEMENTS_MAX: usize = 1_024;
/// Bytes of all ended runs' logs; above it runs are forgotten before their time. 64 logs at their bound.
const ENDED_BYTES_MAX: usize = 64 << 20;
/// How long the last word of a run is tried again where PubSub has too much waiting.
const PUBLISH_RETRY: Duration = Duration::from_millis(50);
const PUBLISH_RETRIES: usize = 100;

/// Broadcasts an event on a topic to all of this deployment; the payload is JSON. False if PubSub has too much waiting.
pub type Publish = Arc<dyn Fn(&str, &str, Bytes) -> bool + Send + Sync>;

/// As many runs are under way as may be; a later try may succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected at most {limit} calls under way{scope}, came one more")]
pub struct RunsFull {
    /// Of what the limit is: the caller's connection or the server.
    pub scope: Scope,
    /// Runs that may be under way at once.
    pub limit: usize,
}

impl From<RunsFull> for Fault {
    fn from(RunsFull { scope, limit }: RunsFull) -> Self {
        Fault::TooManyCalls { scope, limit }
    }
}

impl From<ConnectionFull> for RunsFull {
    fn from(ConnectionFull { limit }: ConnectionFull) -> Self {
        RunsFull { scope: Scope::Connection, limit }
    }
}

/// The beginning or the end of a run, as `mcp:runs` tells it.
#[derive(Clone, Debug)]
pub struct Announcement {
    /// Counts the announcements from 1.
    pub number: u64,
    /// `run_started` or `run_finished`.
    pub event: &'static str,
    /// Where the run stood at that moment.
    pub summary: RunSummary,
    /// Whose run it is.
    pub owner: Identity,
}

/// The runs of this node.
///
/// No connection can fill it alone: it has a share of the calls under way, and where ended runs have to make room for
/// a new one, the caller's own go first. Whoever stops the server calls [`Runs::drain`] first, so that tools end
/// and their callers hear of it: the `bennu` program does, a program that embeds the crate has to.
pub struct Runs {
    limits: RunLimits,
    retention_ms: u64,
    runs_max: usize,
    workers: Workers,
    publish: Publish,
    inner: Mutex<Inner>,
    running: watch::Sender<usize>,
}

#[derive(Default)]
struct Inner {
    next_start: u64,
    by_id: HashMap<String, u64>,
    by_start: BTreeMap<u64, Arc<Run>>,
    /// By the order of their ends.
    ended: BTreeMap<u64, Ended>,
    /// The same by whose they are.
    ended_of: HashMap<Caller, BTreeSet<u64>>,
    ended_bytes: usize,
    next_end: u64,
    announcements: VecDeque<Announcement>,
    announced: u64,
}

/// An ended run: its place among the starts, when it ended, and the bytes of its log.
struct Ended {
    start: u64,
    at: Time,
    bytes: usize,
}

/// Who calls: the same user on another connection is someone else, for there may be one user for all.
type Caller = (Arc<str>, u64);

impl Runs {
    /// No runs yet.
    pub fn new(settings: &Settings, publish: Publish) -> Self {
        let each_max = (settings.runs_max / 4).max(settings.calls_per_session_max).min(settings.runs_max);
        Runs {
            limits: RunLimits { events_max: settings.run_events_max.max(2), bytes_max: settings.run_bytes_max },
            retention_ms: settings.run_retention_ms,
            runs_max: settings.runs_max,
            workers: Workers::new(settings.worker_threads, each_max),
            publish,
            inner: Mutex::default(),
            running: watch::Sender::new(0),
        }
    }

    /// Starts a call. `attach` gives the run its first watchers, before its first event.
    ///
    /// # Errors
    /// [`RunsFull`]; nothing was started.
    pub fn start(self: &Arc<Self>, new: NewRun<'_>, attach: impl FnOnce(&Arc<Run>)) -> Result<Arc<Run>, RunsFull> {
        let id: String = random::bytes::<16>().iter().map(|byte| format!("{byte:02x}")).collect();
        let seat = self.workers.admit(new.connection)?;
        let run = Arc::new(Run::new(&new, id, self.limits, Arc::clone(&self.publish)));
        let (start, announcement) = self.inner.lock().admit(&run, self)?;
        self.running.send_modify(|running| *running += 1);
        attach(&run);
        run.start();
        (self.publish)(RUNS_TOPIC, RUN_STARTED, announcement);

        let (runs, driven) = (Arc::clone(self), Arc::clone(&run));
        let (work, execution_ms_max) = (new.work, new.tool.execution_ms_max);
        // Owned by `running`: `drain` cancels the task and waits until it has ended.
        tokio::spawn(async move {
            drive(Arc::clone(&driven), work, execution_ms_max, seat).await;
            runs.finish(start, &driven);
            runs.repeat_last_word(&driven).await;
        });
        Ok(run)
    }

    /// The run of that id, unless it is forgotten.
    pub fn find(&self, id: &str) -> Option<Arc<Run>> {
        let mut inner = self.inner.lock();
        inner.forget(self, clock::now());
        let start = inner.by_id.get(id)?;
        inner.by_start.get(start).cloned()
    }

    /// The newest runs that `may_see` lets through, oldest first, and the number of the last announcement.
    ///
    /// Every run not listed is announced under a later number. A run may be listed as ended just before its
    /// `run_finished` comes.
    pub fn list(&self, may_see: impl Fn(&Identity) -> bool) -> (Vec<RunSummary>, u64) {
        let (runs, announced) = {
            let mut inner = self.inner.lock();
            inner.forget(self, clock::now());
            let newest = inner.by_start.values().rev().filter(|run| may_see(run.owner()));
            (newest.take(RUNS_LISTED_MAX).cloned().collect::<Vec<_>>(), inner.announced)
        };
        (runs.iter().rev().map(|run| run.summary()).collect(), announced)
    }

    /// The announcements numbered above `number`, in order.
    pub fn announcements_after(&self, number: u64) -> Vec<Announcement> {
        let inner = self.inner.lock();
        let start = inner.announcements.partition_point(|announcement| announcement.number <= number);
        inner.announcements.range(start..).cloned().collect()
    }

    /// Cancels every run and waits until all have ended. The caller bounds the waiting.
    pub async fn drain(&self) {
        let runs: Vec<_> = self.inner.lock().by_start.values().cloned().collect();
        for run in runs {
            run.cancel(CancelReason::Shutdown);
        }
        self.idle().await;
    }

    /// Waits until no run is under way.
    pub async fn idle(&self) {
        let mut running = self.running.subscribe();
        running.wait_for(|running| *running == 0).await.expect("the sender is part of self");
    }

    fn finish(&self, start: u64, run: &Arc<Run>) {
        let bytes = run.state.lock().log.bytes();
        let announcement = {
            let mut inner = self.inner.lock();
            inner.note_end(run.caller(), Ended { start, at: clock::now(), bytes });
            inner.announce(RUN_FINISHED, run)
        };
        (self.publish)(RUNS_TOPIC, RUN_FINISHED, announcement);
        self.running.send_modify(|running| *running -= 1);
    }

    /// Watchers of a run are woken by its broadcasts. If PubSub refused the last one, they would wait for ever.
    async fn repeat_last_word(&self, run: &Arc<Run>) {
        for _ in 0..PUBLISH_RETRIES {
            if run.is_end_published() {
                return;
            }
            tokio::time::sleep(PUBLISH_RETRY).await;
            run.publish_end();
        }
        tracing::warn!(run = run.id(), "the end of a run could not be broadcast");
    }
}

impl Inner {
    /// Takes a run up; gives its place in the order of starts and the announcement to publish.
    fn admit(&mut self, run: &Arc<Run>, runs: &Runs) -> Result<(u64, Bytes), RunsFull> {
        self.forget(runs, clock::now());
        while self.by_start.len() >= runs.runs_max {
            if !self.forget_oldest_ended(&run.caller()) {
                return Err(RunsFull { scope: Scope::Server, limit: runs.runs_max });
            }
        }
        let start = self.next_start;
        self.next_start += 1;
        self.by_id.insert(run.id.clone(), start);
        self.by_start.insert(start, Arc::clone(run));
        Ok((start, self.announce(RUN_STARTED, run)))
    }

    /// Notes the announcement and gives back its payload.
    fn announce(&mut self, event: &'static str, run: &Arc<Run>) -> Bytes {
        let summary = run.summary();
        let payload = serde_json::to_vec(&summary).expect("strings and numbers always serialize");
        self.announced += 1;
        let number = self.announced;
        self.announcements.push_back(Announcement { number, event, summary, owner: run.owner().clone() });
        if self.announcements.len() > ANNOUNCEMENTS_MAX {
            self.announcements.pop_front();
        }
        payload.into()
    }

    /// Takes up an ended run. Where logs are too many bytes, older ones of the same caller go first.
    fn note_end(&mut self, caller: Caller, ended: Ended) {
        self.ended_bytes += ended.bytes;
        while self.ended_bytes > ENDED_BYTES_MAX && self.forget_oldest_ended(&caller) {}
        self.next_end += 1;
        self.ended_of.entry(caller).or_default().insert(self.next_end);
        self.ended.insert(self.next_end, ended);
    }

    fn forget(&mut self, runs: &Runs, now: Time) {
        while let Some(first) = self.ended.first_entry()
            && now.since(first.get().at) >= runs.retention_ms
        {
            let end = *first.key();
            self.forget_ended(end);
        }
    }

    /// Forgets the oldest ended run of that caller, or else of anyone; false if none has ended.
    fn forget_oldest_ended(&mut self, caller: &Caller) -> bool {
        let own = self.ended_of.get(caller).and_then(BTreeSet::first).copied();
        let Some(end) = own.or_else(|| self.ended.keys().next().copied()) else {
            return false;
        };
        self.forget_ended(end);
        true
    }

    fn forget_ended(&mut self, end: u64) {
        let Ended { start, bytes, .. } = self.ended.remove(&end).expect("the caller found it");
        self.ended_bytes -= bytes;
        let run = self.by_start.remove(&start).expect("an ended run is known until it is forgotten");
        self.by_id.remove(run.id());
        let caller = run.caller();
        if let Some(ends) = self.ended_of.get_mut(&caller) {
            ends.remove(&end);
            if ends.is_empty() {
                self.ended_of.remove(&caller);
            }
        }
    }
}
