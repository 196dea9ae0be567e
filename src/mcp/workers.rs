//! The threads that tools may keep busy, and how they and the calls are shared among connections.
//!
//! A connection has at most half of the threads, and at most one call of it at a time stands in line for the others':
//! whoever comes next is served next, however much one connection asks for.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The threads of a node and the calls of its connections. Clones share them.
#[derive(Clone, Debug)]
pub struct Workers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    threads: Arc<Semaphore>,
    threads_each_max: usize,
    calls_each_max: usize,
    connections: Mutex<HashMap<u64, Connection>>,
}

/// What one connection has under way.
#[derive(Debug, Default)]
struct Connection {
    calls: usize,
    /// Made when a call first needs a thread: most need none.
    threads: Option<Arc<Semaphore>>,
}

/// One connection has as many calls under way as it may; a later try may succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected at most {limit} calls under way on one connection, came one more")]
pub struct ConnectionFull {
    /// Calls that one connection may have under way at once.
    pub limit: usize,
}

impl Workers {
    /// `threads` busy at once, at least one; half of them, at least one, for one connection, and `calls_each_max` calls.
    pub fn new(threads: usize, calls_each_max: usize) -> Self {
        let threads = threads.max(1);
        Workers(Arc::new(Shared {
            threads: Arc::new(Semaphore::new(threads)),
            threads_each_max: (threads / 2).max(1),
            calls_each_max,
            connections: Mutex::default(),
        }))
    }

    /// The place of a further call of a connection.
    ///
    /// # Errors
    /// [`ConnectionFull`].
    pub fn admit(&self, connection: u64) -> Result<Seat, ConnectionFull> {
        let mut connections = self.0.connections.lock();
        let entry = connections.entry(connection).or_default();
        // An entry made just now is below any limit but 0.
        if entry.calls >= self.0.calls_each_max.max(1) {
            return Err(ConnectionFull { limit: self.0.calls_each_max.max(1) });
        }
        entry.calls += 1;
        Ok(Seat(Arc::new(Held { shared: Arc::clone(&self.0), connection })))
    }
}

/// A call's place among those of its connection, until the last clone is dropped: also work that outlives its call
/// counts.
#[derive(Clone, Debug)]
pub struct Seat(Arc<Held>);

#[derive(Debug)]
struct Held {
    shared: Arc<Shared>,
    connection: u64,
}

impl Held {
    /// The connection's share of the threads.
    fn threads(&self) -> Arc<Semaphore> {
        let mut connections = self.shared.connections.lock();
        let entry = connections.entry(self.connection).or_default();
        let threads = entry.threads.get_or_insert_with(|| Arc::new(Semaphore::new(self.shared.threads_each_max)));
        Arc::clone(threads)
    }
}

impl Seat {
    /// Waits for a thread, which is free again when the turn is dropped. Cancel-safe, but for the place in line.
    pub(super) async fn turn(&self) -> Turn {
        const OPEN: &str = "the semaphores are never closed";
        // First among one's own, so that a connection never fills the line that all stand in.
        let own = self.0.threads().acquire_owned().await.expect(OPEN);
        let all = Arc::clone(&self.0.shared.threads).acquire_owned().await.expect(OPEN);
        Turn { _permits: [own, all] }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut connections = self.shared.connections.lock();
        if let Some(entry) = connections.get_mut(&self.connection) {
            entry.calls -= 1;
            if entry.calls == 0 {
                connections.remove(&self.connection);
            }
        }
    }
}

/// The right to keep one thread busy.
#[derive(Debug)]
pub(super) struct Turn {
    _permits: [OwnedSemaphorePermit; 2],
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_connection_has_half_of_the_threads_and_the_next_one_gets_another() {
        let workers = Workers::new(4, 16);
        let greedy: Vec<_> = (0..8).map(|_| workers.admit(1).expect("room")).collect();
        let other = workers.admit(2).expect("room");

        let mut turns: Vec<_> = greedy.iter().map(|seat| Box::pin(seat.turn())).collect();
        let held: Vec<_> = turns.iter_mut().filter_map(|turn| turn.as_mut().now_or_never()).collect();

        assert_eq!(held.len(), 2);
        assert!(other.turn().now_or_never().is_some(), "the others' half is free");
    }

    #[tokio::test]
    async fn with_one_thread_a_newcomer_waits_for_one_call_and_not_for_the_whole_line() {
        let workers = Workers::new(1, 16);
        let greedy: Vec<_> = (0..8).map(|_| workers.admit(1).expect("room")).collect();
        let mut line: Vec<_> = greedy.iter().map(|seat| Box::pin(seat.turn())).collect();
        let mut held: Vec<_> = line.iter_mut().filter_map(|turn| turn.as_mut().now_or_never()).collect();
        let other = workers.admit(2).expect("room");
        let mut newcomer = Box::pin(other.turn());
        assert!(newcomer.as_mut().now_or_never().is_none() && held.len() == 1);

        // Whoever stands in line of the connection comes into the line of all after the newcomer.
        held.clear();

        assert!(newcomer.as_mut().now_or_never().is_some());
    }

    #[test]
    fn calls_are_counted_by_connection_until_their_last_clone_goes() {
        let workers = Workers::new(1, 2);
        let first = workers.admit(1).expect("room");
        let second = workers.admit(1).expect("room");
        let outliving = second.clone();
        drop(second);

        assert_eq!(workers.admit(1).err(), Some(ConnectionFull { limit: 2 }));
        assert!(workers.admit(2).is_ok());

        drop((first, outliving));
        assert!(workers.admit(1).is_ok() && workers.0.connections.lock().is_empty());
    }
}
