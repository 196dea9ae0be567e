//! All runs of this node: found by id, listed, announced, and forgotten after a while.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::value::RawValue;

use super::ended::{Caller, EndedRuns};
use super::{Run, State};
use crate::clock;
use crate::mcp::Settings;
use crate::mcp::auth::Identity;
use crate::mcp::hex::Hex;
use crate::protocol::Time;
use crate::protocol::jsonrpc::{Fault, Scope};
use crate::protocol::mcp::event::{RunSummary, Told};
use crate::protocol::mcp::run_log::{RunLimits, RunLog};
use crate::protocol::mcp::{RUN_FINISHED, RUN_STARTED, RUNS_TOPIC};

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
#[error("expected at most {limit} calls under way on this server, came one more")]
pub struct RunsFull {
    /// Runs that may be under way at once.
    pub limit: usize,
}

impl From<RunsFull> for Fault {
    fn from(RunsFull { limit }: RunsFull) -> Self {
        Fault::TooManyCalls { scope: Scope::Server, limit }
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

/// What a run begins with.
pub(in crate::mcp) struct NewRun<'a> {
    /// Its id.
    pub(in crate::mcp) number: u128,
    /// The tool's name, or the workflow's id.
    pub(in crate::mcp) tool: &'a Arc<str>,
    pub(in crate::mcp) is_workflow: bool,
    pub(in crate::mcp) request_id: &'a RawValue,
    pub(in crate::mcp) owner: &'a Identity,
    /// Among whose runs it is counted.
    pub(in crate::mcp) connection: u64,
}

/// The runs of this node.
///
/// No connection can fill it alone: it has a share of the calls under way, and where ended runs have to make room for
/// a new one, the caller's own go first.
pub struct Runs {
    limits: RunLimits,
    retention_ms: u64,
    runs_max: usize,
    publish: Publish,
    /// Those who hear of announcements; without any none are made.
    followers: AtomicUsize,
    inner: Mutex<Inner>,
}

/// Someone who hears of announcements, until it is dropped.
pub(in crate::mcp) struct Following(Arc<Runs>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.followers.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Default)]
struct Inner {
    next_start: u64,
    by_id: HashMap<u128, Arc<Run>>,
    ended: EndedRuns<Arc<Run>>,
    announcements: VecDeque<Announcement>,
    announced: u64,
}

impl Runs {
    /// No runs yet.
    pub(in crate::mcp) fn new(settings: &Settings, publish: Publish) -> Self {
        Runs {
            limits: RunLimits { events_max: settings.run_events_max.max(2), bytes_max: settings.run_bytes_max },
            retention_ms: settings.run_retention_ms,
            runs_max: settings.runs_max,
            publish,
            followers: AtomicUsize::new(0),
            inner: Mutex::default(),
        }
    }

    /// Takes up a call of a tool.
    ///
    /// # Errors
    /// [`RunsFull`].
    pub(in crate::mcp) fn begin(
        self: &Arc<Self>,
        tool: &Arc<str>,
        request_id: &RawValue,
        owner: &Identity,
        connection: u64,
    ) -> Result<Arc<Run>, RunsFull> {
        let number = Hex::draw();
        self.begin_with(NewRun { number, tool, is_workflow: false, request_id, owner, connection }, Told::Started)
    }

    /// Takes up a run, whose first event is `first`.
    ///
    /// # Errors
    /// [`RunsFull`].
    pub(in crate::mcp) fn begin_with(self: &Arc<Self>, new: NewRun<'_>, first: Told) -> Result<Arc<Run>, RunsFull> {
        let number = new.number;
        let mut run = Run {
            number,
            id: Hex::of(number),
            tool: Arc::clone(new.tool),
            is_workflow: new.is_workflow,
            owner: new.owner.clone(),
            connection: new.connection,
            request_id: new.request_id.to_owned(),
            start: 0,
            runs: Arc::downgrade(self),
            publish: Arc::clone(&self.publish),
            listeners: AtomicUsize::new(0),
            is_announced: AtomicBool::new(false),
            is_end_published: AtomicBool::new(false),
            state: Mutex::new(State { log: RunLog::new(self.limits), watches: Vec::new() }),
        };
        // Nobody can watch it yet.
        let _ = run.append(first, false);
        let mut inner = self.inner.lock();
        inner.forget(self, clock::now());
        let caller = run.caller();
        while inner.by_id.len() >= self.runs_max {
            if !inner.forget_oldest_ended(&caller) {
                return Err(RunsFull { limit: self.runs_max });
            }
        }
        run.start = inner.next_start;
        inner.next_start += 1;
        let run = Arc::new(run);
        inner.by_id.insert(number, Arc::clone(&run));
        let announcement = self.announce(&mut inner, RUN_STARTED, &run, None);
        drop(inner);
        if let Some(announcement) = announcement {
            (self.publish)(RUNS_TOPIC, RUN_STARTED, announcement);
        }
        Ok(run)
    }

    /// Hears of announcements from here on: whoever lists runs afterwards misses none.
    pub(in crate::mcp) fn follow(self: &Arc<Self>) -> Following {
        self.followers.fetch_add(1, Ordering::SeqCst);
        Following(Arc::clone(self))
    }

    /// The run of that id, unless it is forgotten.
    pub fn find(&self, id: &str) -> Option<Arc<Run>> {
        let mut inner = self.inner.lock();
        inner.forget(self, clock::now());
        inner.by_id.get(&Hex::number(id)?).cloned()
    }

    /// The newest runs that `may_see` lets through, oldest first, and the number of the last announcement.
    ///
    /// Every run not listed is announced under a later number. A run may be listed as ended just before its
    /// `run_finished` comes.
    pub fn list(&self, may_see: impl Fn(&Identity) -> bool) -> (Vec<RunSummary>, u64) {
        let (mut newest, announced) = {
            let mut inner = self.inner.lock();
            inner.forget(self, clock::now());
            (inner.newest(may_see), inner.announced)
        };
        newest.sort_unstable_by_key(|run| run.start);
        (newest.iter().map(|run| run.summary()).collect(), announced)
    }

    /// The announcements numbered above `number`, in order.
    pub fn announcements_after(&self, number: u64) -> Vec<Announcement> {
        let inner = self.inner.lock();
        let start = inner.announcements.partition_point(|announcement| announcement.number <= number);
        inner.announcements.range(start..).cloned().collect()
    }

    pub(super) fn finish(self: &Arc<Self>, run: &Arc<Run>) {
        let bytes = run.state.lock().log.bytes();
        // Not under the lock of all runs, where it can be avoided: a reader may hold the run's.
        let summary = (self.followers.load(Ordering::SeqCst) > 0).then(|| run.summary());
        let announcement = {
            let mut inner = self.inner.lock();
            inner.note_end(run, clock::now(), bytes);
            self.announce(&mut inner, RUN_FINISHED, run, summary)
        };
        if let Some(announcement) = announcement {
            (self.publish)(RUNS_TOPIC, RUN_FINISHED, announcement);
        }
        if !run.is_end_published() {
            // Ends by itself, after PUBLISH_RETRIES.
            tokio::spawn(repeat_last_word(Arc::clone(run)));
        }
    }

    /// Notes the announcement and gives back its payload; nothing is noted where nobody follows.
    fn announce(
        &self,
        inner: &mut Inner,
        event: &'static str,
        run: &Arc<Run>,
        summary: Option<RunSummary>,
    ) -> Option<Bytes> {
        inner.announced += 1;
        if self.followers.load(Ordering::SeqCst) == 0 {
            inner.announcements = VecDeque::new();
            return None;
        }
        let summary = summary.unwrap_or_else(|| run.summary());
        let payload = serde_json::to_vec(&summary).expect("strings and numbers always serialize");
        let number = inner.announced;
        inner.announcements.push_back(Announcement { number, event, summary, owner: run.owner().clone() });
        if inner.announcements.len() > ANNOUNCEMENTS_MAX {
            inner.announcements.pop_front();
        }
        Some(payload.into())
    }
}

/// Watchers of a run are woken by its broadcasts. If PubSub refused the last one, they would wait for ever.
async fn repeat_last_word(run: Arc<Run>) {
    for _ in 0..PUBLISH_RETRIES {
        tokio::time::sleep(PUBLISH_RETRY).await;
        run.publish_end();
        if run.is_end_published() {
            return;
        }
    }
    tracing::warn!(run = run.id(), "the end of a run could not be broadcast");
}

impl Inner {
    /// The newest runs that `may_see` lets through, in any order.
    fn newest(&self, may_see: impl Fn(&Identity) -> bool) -> Vec<Arc<Run>> {
        let mut newest = BinaryHeap::new();
        for (number, run) in &self.by_id {
            if may_see(run.owner()) {
                newest.push(Reverse((run.start, number)));
                if newest.len() > RUNS_LISTED_MAX {
                    newest.pop();
                }
            }
        }
        newest.into_iter().filter_map(|Reverse((_, number))| self.by_id.get(number).cloned()).collect()
    }

    /// Takes up an ended run. Where logs are too many bytes, older ones of the same caller go first.
    fn note_end(&mut self, run: &Arc<Run>, now: Time, bytes: usize) {
        let caller = run.caller();
        while self.ended.bytes() + bytes > ENDED_BYTES_MAX && self.forget_oldest_ended(&caller) {}
        self.ended.push(Arc::clone(run), caller, now, bytes);
    }

    fn forget(&mut self, runs: &Runs, now: Time) {
        while self.ended.oldest_end().is_some_and(|end| now.since(end) >= runs.retention_ms)
            && let Some(run) = self.ended.pop()
        {
            self.by_id.remove(&run.number);
        }
    }

    /// Forgets the oldest ended run of that caller, or else of anyone; false if none has ended.
    fn forget_oldest_ended(&mut self, caller: &Caller) -> bool {
        let Some(run) = self.ended.pop_of(caller).or_else(|| self.ended.pop()) else {
            return false;
        };
        self.by_id.remove(&run.number);
        true
    }
}
