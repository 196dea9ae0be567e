//! The one-way switch that ends a call, and why it was thrown.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

/// Why a call was ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u8)]
pub enum CancelReason {
    /// The client sent `notifications/cancelled`, or left the answer's stream.
    Client = 1,
    /// The session ended: its channel was left, or its socket lost.
    SessionEnded,
    /// The call took longer than it may.
    Timeout,
    /// The server stops.
    Shutdown,
    /// The call has ended by itself: what still works for it may stop.
    Over,
}

impl CancelReason {
    fn of(code: u8) -> Option<Self> {
        use CancelReason::{Client, Over, SessionEnded, Shutdown, Timeout};
        [Client, SessionEnded, Timeout, Shutdown, Over].into_iter().find(|reason| *reason as u8 == code)
    }
}

/// A switch that stays thrown.
#[derive(Debug, Default)]
pub(crate) struct Cancellation {
    thrown: AtomicU8,
    notify: Notify,
}

impl Cancellation {
    /// Throws the switch; the first reason stays.
    pub(crate) fn cancel(&self, reason: CancelReason) {
        if self.thrown.compare_exchange(0, reason as u8, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.notify.notify_waiters();
        }
    }

    /// Why the switch was thrown, if it was.
    pub(crate) fn reason(&self) -> Option<CancelReason> {
        CancelReason::of(self.thrown.load(Ordering::SeqCst))
    }

    /// Waits until the switch is thrown. Cancel-safe.
    pub(crate) async fn cancelled(&self) -> CancelReason {
        loop {
            let mut notified = std::pin::pin!(self.notify.notified());
            // Listens from here on, so that a throw right after the look is heard.
            notified.as_mut().enable();
            if let Some(reason) = self.reason() {
                return reason;
            }
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn the_first_reason_stays() {
        let switch = Cancellation::default();
        assert_eq!(switch.reason(), None);

        switch.cancel(CancelReason::Client);
        switch.cancel(CancelReason::Shutdown);

        assert_eq!(switch.reason(), Some(CancelReason::Client));
        assert_eq!(switch.cancelled().await, CancelReason::Client);
    }

    #[tokio::test]
    async fn whoever_waits_hears_it() {
        let switch = Arc::new(Cancellation::default());
        let waiting = tokio::spawn({
            let switch = Arc::clone(&switch);
            async move { switch.cancelled().await }
        });
        tokio::task::yield_now().await;

        switch.cancel(CancelReason::Timeout);

        assert_eq!(waiting.await.expect("no panic"), CancelReason::Timeout);
    }
}
