//! How long a call has been working: the time it waits for a thread does not count.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock;
use crate::protocol::Time;

/// A call's stopwatch. Clones share it.
#[derive(Clone, Debug)]
pub struct Stopwatch(Arc<watch::Sender<Reading>>);

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
    pub fn start() -> Self {
        let now = clock::now();
        Stopwatch(Arc::new(watch::Sender::new(Reading { started: now, waited_ms: 0, waits: 0, waiting_since: now })))
    }

    /// Milliseconds worked so far.
    pub fn worked_ms(&self) -> u64 {
        self.0.borrow().worked_ms(clock::now())
    }

    /// Returns once the call has worked for so long. Cancel-safe.
    pub async fn reaches(&self, limit_ms: u64) {
        let mut readings = self.0.subscribe();
        loop {
            let reading = *readings.borrow_and_update();
            let left_ms = limit_ms.saturating_sub(reading.worked_ms(clock::now()));
            if left_ms == 0 {
                return;
            }
            let sleep = async {
                if reading.waits > 0 {
                    return std::future::pending().await;
                }
                tokio::time::sleep(Duration::from_millis(left_ms)).await;
            };
            tokio::select! {
                () = sleep => {}
                changed = readings.changed() => changed.expect("self keeps the sender"),
            }
        }
    }

    /// Stops until the pause is dropped.
    pub(super) fn pause(&self) -> Pause<'_> {
        self.0.send_modify(|reading| {
            if reading.waits == 0 {
                reading.waiting_since = clock::now();
            }
            reading.waits += 1;
        });
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
pub(super) struct Pause<'a>(&'a Stopwatch);

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|reading| {
            reading.waits -= 1;
            if reading.waits == 0 {
                reading.waited_ms += clock::now().since(reading.waiting_since);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
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
