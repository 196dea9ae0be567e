//! Leases, delays, backoffs and lifetimes: one task looks after the queue whose time comes next.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Shared;
use super::entry::{Entry, State};
use crate::clock;
use crate::protocol::Time;

/// How often queues without messages and consumers are looked for. Source: the Elixir deployment's cleanup, section 8.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// When which queue has something to do.
#[derive(Default)]
pub(super) struct Timer(Arc<Due>);

#[derive(Default)]
struct Due {
    queues: Mutex<BTreeSet<(Time, Arc<str>)>>,
    sooner: Notify,
    is_closed: AtomicBool,
}

impl Timer {
    /// Notes a queue's next time. One that is looked after too early is noted again then.
    pub(super) fn arm(&self, entry: &Entry, state: &mut State) {
        let Some(next) = state.queue.next_timeout() else { return };
        if state.armed.is_some_and(|armed| armed <= next) {
            return;
        }
        let mut queues = self.0.queues.lock();
        if let Some(armed) = state.armed {
            queues.remove(&(armed, Arc::clone(&entry.name)));
        }
        state.armed = Some(next);
        let is_sooner = queues.first().is_none_or(|(first, _)| next < *first);
        queues.insert((next, Arc::clone(&entry.name)));
        drop(queues);
        if is_sooner {
            self.0.sooner.notify_one();
        }
    }

    /// Ends the task.
    pub(super) fn close(&self) {
        self.0.is_closed.store(true, Ordering::Release);
        self.0.sooner.notify_one();
    }
}

/// Looks after all queues until they are dropped.
pub(super) fn run(shared: &Arc<Shared>) {
    let (due, shared) = (Arc::clone(&shared.timer.0), Arc::downgrade(shared));
    tokio::spawn(async move {
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !due.is_closed.load(Ordering::Acquire) {
            let next = due.queues.lock().first().map(|(time, _)| *time);
            let wait_ms = next.map_or(u64::MAX, |time| time.since(clock::now()));
            // In pieces, so that a time far away is no overflow.
            let sleep = tokio::time::sleep(Duration::from_millis(wait_ms.min(3_600_000)));
            tokio::select! {
                () = due.sooner.notified() => continue,
                _ = housekeeping.tick() => {
                    let Some(shared) = shared.upgrade() else { return };
                    shared.forget_idle();
                    continue;
                }
                () = sleep => {}
            }
            let Some(shared) = shared.upgrade() else { return };
            loop {
                let now = clock::now();
                let queue = {
                    let mut queues = due.queues.lock();
                    match queues.first() {
                        Some((time, _)) if *time <= now => queues.pop_first().map(|(_, queue)| queue),
                        _ => None,
                    }
                };
                let Some(queue) = queue else { break };
                let entry = shared.entries.lock().get(&queue).map(Arc::clone);
                if let Some(entry) = entry {
                    shared.time_passed(&entry, now);
                }
            }
        }
    });
}
