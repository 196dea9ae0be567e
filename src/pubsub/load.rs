//! Whether the shards have too much waiting, and who waits for that to pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::outbox::Conn;
use crate::protocol::limits::SHARD_COMMANDS_MAX;

/// Commands of a crowded shard at which it is crowded no longer. Below the limit, so that those who come back at once do
/// not fill it in one go.
const EASED_COMMANDS: usize = SHARD_COMMANDS_MAX / 2;

/// What all shards of a hub have waiting, as connections look at it before they read: one word that hardly ever changes.
#[derive(Debug, Default)]
pub(super) struct Load {
    crowded_shards: AtomicUsize,
    parked: Mutex<Vec<Arc<Conn>>>,
}

/// The commands that wait for one shard.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    waiting: AtomicUsize,
    crowded: AtomicBool,
}

impl Backlog {
    /// Whether as many wait as may.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) >= SHARD_COMMANDS_MAX
    }

    /// One more command waits.
    pub(super) fn add(&self, load: &Load) {
        let waiting = self.waiting.fetch_add(1, Ordering::SeqCst) + 1;
        if waiting >= SHARD_COMMANDS_MAX && !self.crowded.load(Ordering::Relaxed) {
            // Counted first: the shard may take it back at once.
            load.crowded_shards.fetch_add(1, Ordering::SeqCst);
            if self.crowded.swap(true, Ordering::SeqCst) {
                load.one_less();
            }
        }
    }

    /// The shard has taken `taken` commands. [`Backlog::look`] follows.
    pub(super) fn take(&self, taken: usize) {
        self.waiting.fetch_sub(taken, Ordering::SeqCst);
    }

    /// The shard looks whether it is crowded no longer. It also does from time to time, in case it was called crowded just
    /// after it had looked.
    pub(super) fn look(&self, load: &Load) {
        let eased = self.crowded.load(Ordering::SeqCst) && self.waiting.load(Ordering::SeqCst) <= EASED_COMMANDS;
        if eased && self.crowded.swap(false, Ordering::SeqCst) {
            load.one_less();
        }
    }
}

impl Load {
    /// Whether a shard is crowded; where one is, the connection's task is woken once none is.
    pub(super) fn awaits_room(&self, conn: &Arc<Conn>) -> bool {
        if self.crowded_shards.load(Ordering::Relaxed) == 0 {
            return false;
        }
        if conn.park() {
            self.parked.lock().push(Arc::clone(conn));
        }
        // It may have eased before the connection was parked; then nobody would wake it.
        let crowded = self.crowded_shards.load(Ordering::SeqCst) != 0;
        if !crowded {
            self.wake();
        }
        crowded
    }

    fn one_less(&self) {
        if self.crowded_shards.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.wake();
        }
    }

    fn wake(&self) {
        let parked = std::mem::take(&mut *self.parked.lock());
        for conn in parked {
            conn.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Wake};

    use super::*;
    use crate::outbox::ConnLimits;
    use crate::protocol::wire::WireVersion;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_parked_connection_is_woken_once_every_full_shard_is_half_done() {
        let load = Load::default();
        let shards = [Backlog::default(), Backlog::default()];
        let limits = ConnLimits { outbox_bytes_max: 1, inbox_messages_max: 1, idle_timeout_ms: 0 };
        let conn = Conn::new(1, 0, WireVersion::V2, limits, None);
        let wakes = Arc::<Wakes>::default();
        conn.register(&Context::from_waker(&Arc::clone(&wakes).into()));
        let done = |shard: &Backlog, commands| {
            shard.take(commands);
            shard.look(&load);
            wakes.0.load(Ordering::Relaxed)
        };

        (1..SHARD_COMMANDS_MAX).for_each(|_| shards[0].add(&load));
        assert!(!load.awaits_room(&conn), "one more may wait");
        shards[0].add(&load);
        (0..SHARD_COMMANDS_MAX).for_each(|_| shards[1].add(&load));
        assert!(load.awaits_room(&conn) && load.awaits_room(&conn));

        assert_eq!(done(&shards[0], SHARD_COMMANDS_MAX), 0, "the other one is full");
        assert_eq!(done(&shards[1], SHARD_COMMANDS_MAX / 2 - 1), 0);
        assert!(!shards[1].is_full() && load.awaits_room(&conn), "it takes broadcasts, but is more than half full");
        assert_eq!(done(&shards[1], 1), 1, "it was parked three times and is woken once");
        assert!(!load.awaits_room(&conn));
    }
}
