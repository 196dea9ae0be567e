//! Calls under way and just ended: each call is a *run* with an unguessable id, a bounded log and any number of
//! watchers.
//!
//! A run's log is the truth; what wakes its watchers only says that there is more to read. A watcher keeps a cursor and
//! reads what lies behind it, so that it sees each event once, in order, whenever it came.

mod ended;
mod registry;
mod watch;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::value::RawValue;

pub use registry::{Announcement, Publish, Runs, RunsFull};
pub(super) use registry::{Following, NewRun};
pub use watch::Watch;

use super::auth::Identity;
use super::hex::Hex;
use crate::clock;
use crate::protocol::mcp::event::{EventKind, RunStatus, RunSummary, Subject, Told};
use crate::protocol::mcp::progress::Progress;
use crate::protocol::mcp::run_log::{Ended, Entry, Kept, RunLog};
use crate::protocol::mcp::{EVENT_RESULT_BYTES_MAX, RUN_TOPIC_PREFIX, STREAMING_EVENT};

/// One call of a tool, from its start until its log is forgotten.
pub struct Run {
    number: u128,
    /// The number's digits.
    id: Hex,
    tool: Arc<str>,
    /// Whether it is of a workflow, whose id `tool` then is.
    is_workflow: bool,
    owner: Identity,
    connection: u64,
    request_id: Box<RawValue>,
    /// Its place among the starts.
    start: u64,
    runs: Weak<Runs>,
    publish: Publish,
    /// Those who hear of it through PubSub; without any nothing is published.
    listeners: AtomicUsize,
    /// Whether those who listen have been told that there is more than anyone has read since.
    is_announced: AtomicBool,
    /// Whether PubSub took the end.
    is_end_published: AtomicBool,
    state: Mutex<State>,
}

struct State {
    log: RunLog<Text>,
    watches: Vec<Arc<Watch>>,
}

/// An event as the log keeps it. Most are never read, so the text is made for the first reader; the others share it.
#[derive(Debug)]
struct Text {
    unix_micros: u64,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Told(Told),
    Encoded(Bytes),
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
        self.id.as_str()
    }

    /// The tool's name; of a workflow its id.
    pub(super) fn tool(&self) -> &Arc<str> {
        &self.tool
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
        self.read(&mut self.state.lock(), seq)
    }

    /// As [`Run::events_after`], for one of those who listen: what comes from here on is broadcast.
    pub(super) fn read_after(&self, seq: u64) -> Vec<Entry> {
        // Before reading: an event that comes right after the reading is broadcast again.
        self.is_announced.store(false, Ordering::SeqCst);
        self.events_after(seq)
    }

    /// Where the run stands together with all kept events: one moment, nothing in between.
    pub fn snapshot(&self) -> (RunSummary, Vec<Entry>) {
        let mut state = self.state.lock();
        (self.summary_of(&mut state), self.read(&mut state, 0))
    }

    /// Where the run stands.
    pub fn summary(&self) -> RunSummary {
        self.summary_of(&mut self.state.lock())
    }

    fn read(&self, state: &mut State, after: u64) -> Vec<Entry> {
        let events = state.log.events_after(after);
        events
            .map(|Kept { seq, kind, told, .. }| Entry { seq: *seq, kind: *kind, event: self.text(told, *seq) })
            .collect()
    }

    /// The JSON text of an event.
    fn text(&self, text: &mut Text, seq: u64) -> Bytes {
        let told = match &text.form {
            Form::Encoded(encoded) => return encoded.clone(),
            Form::Told(told) => told,
        };
        let encoded = told.encode(&self.subject(), &clock::iso8601_micros(text.unix_micros), seq);
        text.form = Form::Encoded(encoded.clone());
        encoded
    }

    fn subject(&self) -> Subject<'_> {
        Subject {
            stream_id: self.id(),
            request_id: &self.request_id,
            tool: &self.tool,
            workflow: self.is_workflow.then_some(&*self.tool),
        }
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
            if state.log.last().is_none() {
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
    fn caller(&self) -> ended::Caller {
        (Arc::clone(&self.owner.user), self.connection)
    }

    /// The number of the newest event.
    pub fn last_seq(&self) -> u64 {
        self.state.lock().log.last_seq()
    }

    fn summary_of(&self, state: &mut State) -> RunSummary {
        let (status, finished) = match state.log.last() {
            None => (RunStatus::Running, None),
            Some(last) if last.kind.is_completion() => (RunStatus::Completed, Some(last.told.unix_micros)),
            Some(last) => (RunStatus::Failed, Some(last.told.unix_micros)),
        };
        let started = state.log.events_after(0).next().map_or(0, |first| first.told.unix_micros);
        RunSummary {
            run_id: self.id().to_owned(),
            tool: self.tool.to_string(),
            workflow_id: self.is_workflow.then(|| self.tool.to_string()),
            status,
            started_at: clock::iso8601_micros(started),
            finished_at: finished.map(clock::iso8601_micros),
            events: state.log.last_seq(),
            dropped_events: state.log.dropped(),
        }
    }

    /// The text of its first event.
    pub(super) fn started(&self) -> Option<Bytes> {
        self.events_after(0).into_iter().next().map(|entry| entry.event)
    }

    /// Notes progress; gives the event's text, where it `is_streamed`.
    pub(super) fn tell(&self, report: Progress, is_streamed: bool) -> Option<Bytes> {
        self.append(Told::Progress(report), is_streamed).ok().flatten()
    }

    /// Ends the run; gives the event's text, where it `is_streamed`. Nothing happens at a second end.
    pub(super) fn end(
        self: &Arc<Self>,
        ending: Ending<'_>,
        execution_time_ms: u64,
        is_streamed: bool,
    ) -> Option<Bytes> {
        let told = match ending {
            Ending::Completed(result) => {
                let result_bytes = result.get().len();
                let result = (result_bytes <= EVENT_RESULT_BYTES_MAX).then(|| result.to_owned());
                Told::Completed { result, result_bytes, execution_time_ms }
            }
            Ending::Failed { reason, error } => Told::Failed { reason, error, execution_time_ms },
        };
        self.tell_last(told, is_streamed)
    }

    /// Notes the last event; gives its text, where it `is_streamed`. Nothing happens at a second end.
    pub(super) fn tell_last(self: &Arc<Self>, told: Told, is_streamed: bool) -> Option<Bytes> {
        let text = self.append(told, is_streamed).ok()?;
        if let Some(runs) = self.runs.upgrade() {
            runs.finish(self);
        }
        text
    }

    /// Notes something of a workflow that is not its end; gives the event's text, where it `is_streamed`.
    pub(super) fn tell_workflow(&self, kind: EventKind, data: Box<RawValue>, is_streamed: bool) -> Option<Bytes> {
        self.append(Told::Workflow { kind, data }, is_streamed).ok().flatten()
    }

    /// Puts an event into the log and says so to everyone; gives its text, where it `is_wanted`.
    ///
    /// # Errors
    /// [`Ended`], and nothing happens, after the run's end.
    fn append(&self, told: Told, is_wanted: bool) -> Result<Option<Bytes>, Ended> {
        let (kind, bytes) = (told.kind(), told.bytes_max(&self.subject()));
        let mut text = Text { unix_micros: clock::unix_micros(), form: Form::Told(told) };
        let (wanted, seq, watches) = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let wanted = is_wanted.then(|| self.text(&mut text, state.log.last_seq() + 1));
            let seq = state.log.append(kind, bytes, text)?;
            let watches = if kind.is_terminal() { std::mem::take(&mut state.watches) } else { state.watches.clone() };
            (wanted, seq, watches)
        };
        let gone: Vec<_> = watches.iter().filter(|watch| !watch.notify()).map(Arc::as_ptr).collect();
        if !gone.is_empty() {
            self.state.lock().watches.retain(|watch| !gone.contains(&Arc::as_ptr(watch)));
        }
        // A broadcast only says that there is more: until someone has read, one is enough, or a quick run would fill inboxes.
        let is_news = kind.is_terminal() || !self.is_announced.swap(true, Ordering::SeqCst);
        let is_published = !is_news || self.publish(seq);
        if kind.is_terminal() {
            self.is_end_published.store(is_published, Ordering::SeqCst);
        } else if !is_published {
            self.is_announced.store(false, Ordering::SeqCst);
        }
        Ok(wanted)
    }

    /// Broadcasts an event, if anyone listens; false if PubSub has too much waiting.
    ///
    /// Whoever begins to listen after this look finds the event in the log: it was put there before.
    fn publish(&self, seq: u64) -> bool {
        if self.listeners.load(Ordering::SeqCst) == 0 {
            return true;
        }
        let read = || self.events_after(seq - 1).into_iter().next();
        let entry = read().or_else(|| {
            // The log's bound has dropped it already: what follows says that there is more, or has just not done so.
            self.is_announced.store(false, Ordering::SeqCst);
            read()
        });
        let Some(entry) = entry else { return true };
        (self.publish)(&format!("{RUN_TOPIC_PREFIX}{}", self.id()), STREAMING_EVENT, entry.event)
    }

    fn is_end_published(&self) -> bool {
        self.is_end_published.load(Ordering::SeqCst)
    }

    /// Broadcasts the terminal event again; those who have it already leave it out.
    fn publish_end(&self) {
        let is_published = self.publish(self.last_seq());
        self.is_end_published.store(is_published, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;
