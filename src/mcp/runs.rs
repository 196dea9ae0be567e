//! Calls under way and just ended: each call is a *run* with an unguessable id, a bounded log and any number of
//! watchers.
//!
//! A run's log is the truth; what wakes its watchers only says that there is more to read. A watcher keeps a cursor and
//! reads what lies behind it, so that it sees each event once, in order, whenever it came.

mod registry;
mod watch;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::value::RawValue;

pub use registry::{Announcement, Publish, Runs, RunsFull};
pub(super) use registry::{Following, hex};
pub use watch::Watch;

use super::auth::Identity;
use crate::clock;
use crate::protocol::jsonrpc;
use crate::protocol::mcp::event::{self, Event, EventKind, RunStatus, RunSummary};
use crate::protocol::mcp::progress::Progress;
use crate::protocol::mcp::run_log::{Entry, RunLog};
use crate::protocol::mcp::{EVENT_RESULT_BYTES_MAX, RUN_TOPIC_PREFIX, STREAMING_EVENT};

/// One call of a tool, from its start until its log is forgotten.
pub struct Run {
    id: String,
    tool: Arc<str>,
    owner: Identity,
    connection: u64,
    request_id: Box<RawValue>,
    started_at: String,
    /// Its place among the starts.
    start: u64,
    runs: Weak<Runs>,
    publish: Publish,
    /// Those who hear of it through PubSub; without any nothing is published.
    listeners: AtomicUsize,
    /// Whether those who listen have been told that there is more than anyone has read since.
    is_announced: AtomicBool,
    state: Mutex<State>,
}

struct State {
    log: RunLog,
    finished_at: Option<String>,
    watches: Vec<Arc<Watch>>,
    is_end_published: bool,
}

/// How a run ended.
pub(super) enum Ending<'a> {
    /// With the result that the caller gets.
    Completed(&'a RawValue),
    /// Without one.
    Failed {
        /// Which sort of failure.
        reason: &'static str,
        /// For a person to read.
        error: String,
    },
}

/// Someone who hears of a run through PubSub, until it is dropped.
pub(super) struct Listening(Arc<Run>);

impl Listening {
    /// The run.
    pub(super) fn run(&self) -> &Arc<Run> {
        &self.0
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.listeners.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Run {
    /// 32 lower-case hex digits: 128 random bits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whose call it is.
    pub fn owner(&self) -> &Identity {
        &self.owner
    }

    /// Hears of it through PubSub from here on; what came before is in its log.
    pub(super) fn listen(self: &Arc<Self>) -> Listening {
        self.listeners.fetch_add(1, Ordering::SeqCst);
        Listening(Arc::clone(self))
    }

    /// The kept events numbered above `seq`, oldest first.
    pub fn events_after(&self, seq: u64) -> Vec<Entry> {
        self.state.lock().log.events_after(seq).cloned().collect()
    }

    /// As [`Run::events_after`], for one of those who listen: what comes from here on is broadcast.
    pub(super) fn read_after(&self, seq: u64) -> Vec<Entry> {
        // Before reading: an event that comes right after the reading is broadcast again.
        self.is_announced.store(false, Ordering::SeqCst);
        self.events_after(seq)
    }

    /// Where the run stands together with all kept events: one moment, nothing in between.
    pub fn snapshot(&self) -> (RunSummary, Vec<Entry>) {
        let state = self.state.lock();
        (self.summary_of(&state), state.log.events_after(0).cloned().collect())
    }

    /// Where the run stands.
    pub fn summary(&self) -> RunSummary {
        self.summary_of(&self.state.lock())
    }

    /// Lets someone watch from `after` on: `wake` is called when there is something to read, at once if there already
    /// is.
    ///
    /// `wake` returns whether whoever watches is still there; it may be called from any thread and must not block.
    pub fn watch(
        self: &Arc<Self>,
        after: u64,
        wake: impl Fn(&Arc<Watch>) -> bool + Send + Sync + 'static,
    ) -> Arc<Watch> {
        let watch = Arc::new(Watch::new(Arc::clone(self), after, Box::new(wake)));
        let has_more = {
            let mut state = self.state.lock();
            if state.log.ended().is_none() {
                state.watches.push(Arc::clone(&watch));
            }
            state.log.last_seq() > after
        };
        if has_more {
            watch.notify();
        }
        watch
    }

    /// Ends a watch, however it stands; nothing happens if it has ended.
    pub fn unwatch(&self, watch: &Arc<Watch>) {
        self.state.lock().watches.retain(|other| !Arc::ptr_eq(other, watch));
    }

    /// Those who watch a run that is under way.
    #[cfg(test)]
    pub(super) fn watchers(&self) -> usize {
        self.state.lock().watches.len()
    }

    /// Whose call it is, and on which connection.
    fn caller(&self) -> (Arc<str>, u64) {
        (Arc::clone(&self.owner.user), self.connection)
    }

    /// The number of the newest event.
    pub fn last_seq(&self) -> u64 {
        self.state.lock().log.last_seq()
    }

    fn summary_of(&self, state: &State) -> RunSummary {
        let status = match state.log.ended() {
            None => RunStatus::Running,
            Some((EventKind::Completed, _)) => RunStatus::Completed,
            Some(_) => RunStatus::Failed,
        };
        RunSummary {
            run_id: self.id.clone(),
            tool: self.tool.to_string(),
            status,
            started_at: self.started_at.clone(),
            finished_at: state.finished_at.clone(),
            events: state.log.last_seq(),
            dropped_events: state.log.dropped(),
        }
    }

    /// Begins the log; gives the event.
    pub(super) fn start(&self) -> Option<Bytes> {
        self.append(EventKind::Started, &event::Started { tool: &self.tool }, self.started_at.clone())
    }

    /// Notes progress; gives the event.
    pub(super) fn tell(&self, report: &Progress) -> Option<Bytes> {
        let progress = event::number(report.progress)?;
        let total = report.total.and_then(event::number);
        let data = event::Progress { tool: &self.tool, progress, total, message: report.message.as_deref() };
        self.append(EventKind::Progress, &data, clock::wall_iso8601_micros())
    }

    /// Ends the run; gives the event. Nothing happens at a second end.
    pub(super) fn end(self: &Arc<Self>, ending: Ending<'_>, execution_time_ms: u64) -> Option<Bytes> {
        let now = clock::wall_iso8601_micros();
        let event = match ending {
            Ending::Completed(result) => {
                let bytes = result.get().len();
                let told = (bytes <= EVENT_RESULT_BYTES_MAX).then_some(result);
                let data = event::Completed {
                    tool: &self.tool,
                    result: told,
                    result_bytes_omitted: told.is_none().then_some(bytes),
                    execution_time_ms,
                };
                self.append(EventKind::Completed, &data, now)
            }
            Ending::Failed { reason, error } => {
                let data = event::Failed { tool: &self.tool, reason, error: &error, execution_time_ms };
                self.append(EventKind::Failed, &data, now)
            }
        };
        if event.is_some()
            && let Some(runs) = self.runs.upgrade()
        {
            runs.finish(self);
        }
        event
    }

    /// Puts an event into the log and says so to everyone; gives it. Nothing happens after the run's end.
    fn append(&self, kind: EventKind, data: &impl Serialize, timestamp: String) -> Option<Bytes> {
        let data = jsonrpc::raw(data);
        let mut encoded = Bytes::new();
        let watches = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let appended = state.log.append(kind, clock::now(), |seq| {
                let event = Event {
                    kind,
                    stream_id: &self.id,
                    request_id: &self.request_id,
                    data: &data,
                    timestamp: &timestamp,
                    seq,
                };
                encoded = event.encode();
                encoded.clone()
            });
            appended.ok()?;
            if kind.is_terminal() {
                state.finished_at = Some(timestamp);
                std::mem::take(&mut state.watches)
            } else {
                state.watches.clone()
            }
        };
        let gone: Vec<_> = watches.iter().filter(|watch| !watch.notify()).map(Arc::as_ptr).collect();
        if !gone.is_empty() {
            self.state.lock().watches.retain(|watch| !gone.contains(&Arc::as_ptr(watch)));
        }
        // A broadcast only says that there is more: until someone has read, one is enough, or a quick run would fill inboxes.
        let is_news = kind.is_terminal() || !self.is_announced.swap(true, Ordering::SeqCst);
        let is_published = !is_news || self.publish(encoded.clone());
        if kind.is_terminal() {
            self.state.lock().is_end_published = is_published;
        }
        Some(encoded)
    }

    /// Broadcasts an event, if anyone listens; false if PubSub has too much waiting.
    ///
    /// Whoever begins to listen after this look finds the event in the log: it was put there before.
    fn publish(&self, event: Bytes) -> bool {
        if self.listeners.load(Ordering::SeqCst) == 0 {
            return true;
        }
        (self.publish)(&format!("{RUN_TOPIC_PREFIX}{}", self.id), STREAMING_EVENT, event)
    }

    fn is_end_published(&self) -> bool {
        self.state.lock().is_end_published
    }

    /// Broadcasts the terminal event again; those who have it already leave it out.
    fn publish_end(&self) {
        let Some(end) = self.state.lock().log.events_after(0).last().cloned() else {
            return;
        };
        let is_published = self.publish(end.event);
        self.state.lock().is_end_published = is_published;
    }
}

#[cfg(test)]
mod tests;
