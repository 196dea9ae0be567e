//! One reader of one run: a cursor, and a way to be told that there is more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::Run;
use crate::protocol::mcp::run_log::Entry;

type Wake = Box<dyn Fn(&Arc<Watch>) -> bool + Send + Sync>;

/// A reader of a run. However fast the run is, at most one wake-up is under way, so that no inbox overflows.
pub struct Watch {
    run: Arc<Run>,
    cursor: Mutex<u64>,
    is_woken: AtomicBool,
    wake: Wake,
}

impl Watch {
    pub(super) fn new(run: Arc<Run>, after: u64, wake: Wake) -> Self {
        Watch { run, cursor: Mutex::new(after), is_woken: AtomicBool::new(false), wake }
    }

    /// The run.
    pub fn run(&self) -> &Arc<Run> {
        &self.run
    }

    /// The events since the last call, in order.
    ///
    /// What the log's bound dropped meanwhile is missing; the numbers show it.
    pub fn take_new(&self) -> Vec<Entry> {
        let mut cursor = self.cursor.lock();
        // Before reading: an event that comes right after the reading wakes again.
        self.is_woken.store(false, Ordering::SeqCst);
        let events = self.run.events_after(*cursor);
        if let Some(last) = events.last() {
            *cursor = last.seq;
        }
        events
    }

    /// Wakes the reader unless it is awake; whether it is still there.
    pub(super) fn notify(self: &Arc<Self>) -> bool {
        self.is_woken.swap(true, Ordering::SeqCst) || (self.wake)(self)
    }
}
