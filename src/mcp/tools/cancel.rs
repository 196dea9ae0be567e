//! The one-way switch that ends a call, and why it was thrown.

use std::sync::Arc;

use tokio::sync::watch;

/// Why a call was ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelReason {
    /// The client sent `notifications/cancelled`.
    Client,
    /// The session's channel ended: left, or its socket lost.
    SessionEnded,
    /// The call took longer than its tool may.
    Timeout,
    /// The server stops.
    Shutdown,
}

/// A switch that stays thrown. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Cancellation(Arc<watch::Sender<Option<CancelReason>>>);

impl Cancellation {
    /// A switch that is not thrown.
    pub fn new() -> Self {
        Self::default()
    }

    /// Throws the switch; the first reason stays.
    pub fn cancel(&self, reason: CancelReason) {
        self.0.send_if_modified(|thrown| {
            let first = thrown.is_none();
            thrown.get_or_insert(reason);
            first
        });
    }

    /// Why the switch was thrown, if it was.
    pub fn reason(&self) -> Option<CancelReason> {
        *self.0.borrow()
    }

    /// Waits until the switch is thrown. Cancel-safe.
    pub async fn cancelled(&self) -> CancelReason {
        let mut switch = self.0.subscribe();
        let thrown = switch.wait_for(Option::is_some).await.expect("this handle keeps the sender");
        thrown.expect("waited for a reason")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_stays() {
        let switch = Cancellation::new();
        assert_eq!(switch.reason(), None);

        switch.cancel(CancelReason::Client);
        switch.cancel(CancelReason::Shutdown);

        assert_eq!(switch.reason(), Some(CancelReason::Client));
        assert_eq!(switch.cancelled().await, CancelReason::Client);
    }
}
