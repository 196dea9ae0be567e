//! What the application's channels saw of their clients, for a test to wait for.

use std::sync::{Condvar, Mutex};
use std::time::Instant;

use bennu::channel::Reason;

use crate::DEADLINE;

/// The channels' beginnings and ends, in order, over all restarts.
#[derive(Default)]
pub struct Witness {
    seen: Mutex<Vec<(String, Seen)>>,
    changed: Condvar,
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Joined,
    Ended(Reason),
}

impl Witness {
    /// Notes that a channel has joined: its client hears broadcasts.
    pub fn joined(&self, topic: &str) {
        self.note(topic, Seen::Joined);
    }

    /// Notes that a channel ended.
    pub fn ended(&self, topic: &str, reason: &Reason) {
        self.note(topic, Seen::Ended(reason.clone()));
    }

    /// Waits until a topic was joined this often.
    #[track_caller]
    pub fn wait_joined(&self, topic: &str, times: usize) {
        self.wait(topic, &Seen::Joined, times);
    }

    /// Waits until a client has left a topic by its own wish.
    #[track_caller]
    pub fn wait_left(&self, topic: &str) {
        self.wait(topic, &Seen::Ended(Reason::Left), 1);
    }

    fn note(&self, topic: &str, what: Seen) {
        self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((topic.to_owned(), what));
        self.changed.notify_all();
    }

    #[track_caller]
    fn wait(&self, topic: &str, what: &Seen, times: usize) {
        let given_up = Instant::now() + DEADLINE;
        let mut seen = self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        while seen.iter().filter(|(of, seen)| of == topic && seen == what).count() < times {
            let left = given_up.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain for {times} × {topic} {what:?}; so far {seen:?}");
            seen = self.changed.wait_timeout(seen, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }
}
