//! All runs of this node: found by id, listed, announced, and forgotten after a while.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::value::RawValue;

use super::{Run, State};
use crate::clock;
use crate::mcp::Settings;
use crate::mcp::auth::Identity;
use crate::protocol::Time;
use crate::protocol::jsonrpc::{Fault, Scope};
use crate::protocol::mcp::event::RunSummary;
use crate::protocol::mcp::run_log::{RunLimits, RunLog};
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

    /// Takes up a call of a tool. It begins with [`Run::start`].
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
        let id = hex(random::bytes());
        let state =
            State { log: RunLog::new(self.limits), finished_at: None, watches: Vec::new(), is_end_published: false };
        let mut inner = self.inner.lock();
        inner.forget(self, clock::now());
        let caller = (Arc::clone(&owner.user), connection);
        while inner.by_start.len() >= self.runs_max {
            if !inner.forget_oldest_ended(&caller) {
                return Err(RunsFull { limit: self.runs_max });
            }
        }
        let start = inner.next_start;
        inner.next_start += 1;
        let run = Arc::new(Run {
            id,
            tool: Arc::clone(tool),
            owner: owner.clone(),
            connection,
            request_id: request_id.to_owned(),
            started_at: clock::wall_iso8601_micros(),
            start,
            runs: Arc::downgrade(self),
            publish: Arc::clone(&self.publish),
            listeners: AtomicUsize::new(0),
            is_announced: AtomicBool::new(false),
            state: Mutex::new(state),
        });
        inner.by_id.insert(run.id.clone(), start);
        inner.by_start.insert(start, Arc::clone(&run));
        let announcement = self.announce(&mut inner, RUN_STARTED, &run);
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

    pub(super) fn finish(self: &Arc<Self>, run: &Arc<Run>) {
        let (bytes, is_published) = {
            let state = run.state.lock();
            (state.log.bytes(), state.is_end_published)
        };
        let announcement = {
            let mut inner = self.inner.lock();
            inner.note_end(run.caller(), Ended { start: run.start, at: clock::now(), bytes });
            self.announce(&mut inner, RUN_FINISHED, run)
        };
        if let Some(announcement) = announcement {
            (self.publish)(RUNS_TOPIC, RUN_FINISHED, announcement);
        }
        if !is_published {
            // Ends by itself, after PUBLISH_RETRIES.
            tokio::spawn(repeat_last_word(Arc::clone(run)));
        }
    }

    /// Notes the announcement and gives back its payload; nothing is noted where nobody follows.
    fn announce(&self, inner: &mut Inner, event: &'static str, run: &Arc<Run>) -> Option<Bytes> {
        inner.announced += 1;
        if self.followers.load(Ordering::SeqCst) == 0 {
            inner.announcements = VecDeque::new();
            return None;
        }
        let summary = run.summary();
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

/// Bytes as lower-case hex digits.
pub(in crate::mcp) fn hex(bytes: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(bytes))
}

impl Inner {
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
