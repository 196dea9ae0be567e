//! How long a call has been working: the time it waits for a thread, or for its client, does not count.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock;
use crate::protocol::Time;

/// A call's stopwatch.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    reading: Mutex<Reading>,
    changed: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    started: Time,
    /// Of the waits that are over.
    waited_ms: u64,
    /// Those under way, and since when there is one.
    waits: usize,
    waiting_since: Time,
}

impl Stopwatch {
    /// A stopwatch that runs.
    pub(crate) fn start() -> Self {
        let now = clock::now();
        let reading = Reading { started: now, waited_ms: 0, waits: 0, waiting_since: now };
        Stopwatch { reading: Mutex::new(reading), changed: Notify::new() }
    }

    /// Milliseconds worked so far.
    pub(crate) fn worked_ms(&self) -> u64 {
        self.reading.lock().worked_ms(clock::now())
    }

    /// Returns once the call has worked for so long. Cancel-safe.
    pub(crate) async fn reaches(&self, limit_ms: u64) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let reading = *self.reading.lock();
            let left_ms = limit_ms.saturating_sub(reading.worked_ms(clock::now()));
            if left_ms == 0 {
                return;
            }
            if reading.waits > 0 {
                changed.await;
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(left_ms)) => {}
                () = changed => {}
            }
        }
    }

    /// Stops until the pause is dropped.
    pub(crate) fn pause(&self) -> Pause<'_> {
        {
            let mut reading = self.reading.lock();
            if reading.waits == 0 {
                reading.waiting_since = clock::now();
            }
            reading.waits += 1;
        }
        self.changed.notify_waiters();
        Pause(self)
    }
}

impl Reading {
    fn worked_ms(&self, now: Time) -> u64 {
        let waiting_ms = if self.waits > 0 { now.since(self.waiting_since) } else { 0 };
        now.since(self.started).saturating_sub(self.waited_ms + waiting_ms)
    }
}

/// A wait that does not count.
pub(crate) struct Pause<'a>(&'a Stopwatch);

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        {
            let mut reading = self.0.reading.lock();
            reading.waits -= 1;
            if reading.waits == 0 {
                reading.waited_ms += clock::now().since(reading.waiting_since);
            }
        }
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_do_not_count_however_they_overlap() {
        let watch = Stopwatch::start();
        let (one, other) = (watch.pause(), watch.pause());
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(one);
        assert!(tokio::time::timeout(Duration::from_millis(200), watch.reaches(100)).await.is_err());
        drop(other);

        assert!(watch.worked_ms() < 100, "{}", watch.worked_ms());
        watch.reaches(100).await;
        assert!(watch.worked_ms() >= 100);
    }
}
