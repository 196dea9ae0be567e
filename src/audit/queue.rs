//! What waits for the thread that writes: bounded, and nobody ever waits to put something in.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::entry::NewEntry;

/// Bytes, about, of all entries that wait, however few they are.
pub const QUEUE_BYTES_MAX: usize = 32 << 20;

/// An entry with when it was recorded.
pub(super) struct Waiting {
    pub(super) entry: NewEntry,
    pub(super) unix_micros: u64,
}

/// What the thread takes at once.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) entries: Vec<Waiting>,
    /// Entries that came since the last batch and had no place.
    pub(super) lost: u64,
    /// Those who wait until the entries are written.
    pub(super) flushes: Vec<oneshot::Sender<()>>,
    /// Nothing comes after it.
    pub(super) is_last: bool,
}

pub(super) struct Queue {
    waiting: Mutex<State>,
    wake: Condvar,
    entries_max: usize,
}

#[derive(Default)]
struct State {
    batch: Batch,
    bytes: usize,
}

impl Queue {
    pub(super) fn new(entries_max: usize) -> Self {
        Queue { waiting: Mutex::default(), wake: Condvar::new(), entries_max: entries_max.max(1) }
    }

    /// Puts an entry in, unless it is full or closed: then the entry is counted and gone. `now` is read under the lock,
    /// so that entries wait in the order of their time.
    pub(super) fn push(&self, mut entry: NewEntry, now: impl FnOnce() -> u64) {
        let bytes = entry.bound();
        let mut state = self.waiting.lock();
        if state.batch.is_last || state.batch.entries.len() >= self.entries_max || state.bytes + bytes > QUEUE_BYTES_MAX
        {
            state.batch.lost += 1;
            return;
        }
        state.bytes += bytes;
        state.batch.entries.push(Waiting { entry, unix_micros: now() });
        let is_first = state.batch.entries.len() == 1;
        drop(state);
        if is_first {
            self.wake.notify_one();
        }
    }

    /// Tells when all that was put in before is written.
    pub(super) fn flush(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.waiting.lock();
        // Once it is closed nobody takes anything any more: the sender is dropped, which tells the same.
        if !state.batch.is_last {
            state.batch.flushes.push(sender);
        }
        drop(state);
        self.wake.notify_one();
        receiver
    }

    pub(super) fn close(&self) {
        self.waiting.lock().batch.is_last = true;
        self.wake.notify_one();
    }

    /// Takes all there is, at most `wait` after having been asked; then it may be nothing.
    pub(super) fn take(&self, wait: Duration) -> Batch {
        let mut state = self.waiting.lock();
        let is_idle = |state: &State| {
            let batch = &state.batch;
            batch.entries.is_empty() && batch.flushes.is_empty() && batch.lost == 0 && !batch.is_last
        };
        if is_idle(&state) {
            self.wake.wait_for(&mut state, wait);
        }
        state.bytes = 0;
        let next = Batch { is_last: state.batch.is_last, ..Batch::default() };
        std::mem::replace(&mut state.batch, next)
    }
}
