//! The calls that are under way on this node, so that a server which stops can end them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::call::Call;
use super::cancel::CancelReason;

/// The calls that have a task.
pub(crate) struct UnderWay {
    calls: Arc<Mutex<HashMap<u64, Weak<Call>>>>,
    count: watch::Sender<u64>,
    next: Mutex<u64>,
}

impl Default for UnderWay {
    fn default() -> Self {
        UnderWay { calls: Arc::default(), count: watch::Sender::new(0), next: Mutex::new(0) }
    }
}

/// One of them, until it is dropped.
pub(crate) struct Guard {
    number: u64,
    calls: Arc<Mutex<HashMap<u64, Weak<Call>>>>,
    count: watch::Sender<u64>,
}

impl UnderWay {
    /// Counts a call.
    pub(crate) fn begin(&self, call: &Arc<Call>) -> Guard {
        let number = {
            let mut next = self.next.lock();
            *next += 1;
            *next
        };
        self.calls.lock().insert(number, Arc::downgrade(call));
        self.count.send_modify(|count| *count += 1);
        Guard { number, calls: Arc::clone(&self.calls), count: self.count.clone() }
    }

    /// Cancels every call and waits until all have ended.
    pub(crate) async fn drain(&self) {
        let calls: Vec<_> = self.calls.lock().values().filter_map(Weak::upgrade).collect();
        for call in calls {
            call.cancel(CancelReason::Shutdown);
        }
        self.idle().await;
    }

    /// Waits until no call is under way.
    pub(crate) async fn idle(&self) {
        let mut count = self.count.subscribe();
        count.wait_for(|count| *count == 0).await.expect("the sender is part of self");
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.calls.lock().remove(&self.number);
        self.count.send_modify(|count| *count -= 1);
    }
}
