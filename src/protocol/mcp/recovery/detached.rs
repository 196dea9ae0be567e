//! The sessions whose clients are away: whose time is over, and which gives way.

use std::collections::{BTreeMap, BTreeSet};

use super::{DETACHED_BYTES_MAX, DETACHED_SESSIONS_MAX};
use crate::protocol::Time;

/// Sessions whose clients are away, by their numbers. Bounded in number and in the bytes of their logs.
#[derive(Debug, Default)]
pub struct DetachedSessions {
    by_number: BTreeMap<u64, Entry>,
    /// By when their clients went, and in which order.
    by_order: BTreeMap<u64, u64>,
    by_end: BTreeSet<(Time, u64)>,
    by_user: BTreeMap<String, BTreeMap<u64, u64>>,
    bytes: usize,
    order: u64,
}

#[derive(Debug)]
struct Entry {
    user: String,
    until: Time,
    bytes: usize,
    order: u64,
}

impl DetachedSessions {
    /// Takes a session up; gives those that have to give way, which are no longer in it.
    pub fn insert(&mut self, number: u64, user: &str, until: Time, bytes: usize) -> Vec<u64> {
        self.remove(number);
        self.order += 1;
        let order = self.order;
        self.by_order.insert(order, number);
        self.by_end.insert((until, number));
        self.by_user.entry(user.to_owned()).or_default().insert(order, number);
        self.bytes += bytes;
        self.by_number.insert(number, Entry { user: user.to_owned(), until, bytes, order });
        let mut gone = Vec::new();
        // One alone stays, whatever its size.
        while self.by_number.len() > DETACHED_SESSIONS_MAX
            || self.bytes > DETACHED_BYTES_MAX && self.by_number.len() > 1
        {
            let Some((_, longest)) = self.by_order.first_key_value() else { break };
            let longest = *longest;
            self.remove(longest);
            gone.push(longest);
        }
        gone
    }

    /// Lets a session go: its client is back, or it has ended. Whether it was there.
    pub fn remove(&mut self, number: u64) -> bool {
        let Some(entry) = self.by_number.remove(&number) else { return false };
        self.by_order.remove(&entry.order);
        self.by_end.remove(&(entry.until, number));
        self.bytes -= entry.bytes;
        if let Some(of_user) = self.by_user.get_mut(&entry.user) {
            of_user.remove(&entry.order);
            if of_user.is_empty() {
                self.by_user.remove(&entry.user);
            }
        }
        true
    }

    /// The session of a user whose client went first.
    pub fn longest_of(&self, user: &str) -> Option<u64> {
        self.by_user.get(user)?.first_key_value().map(|(_, number)| *number)
    }

    /// Takes out those whose time is over.
    pub fn expire(&mut self, now: Time) -> Vec<u64> {
        let mut over = Vec::new();
        while let Some((until, number)) = self.by_end.first().copied()
            && until <= now
        {
            self.remove(number);
            over.push(number);
        }
        over
    }

    /// When the next one's time is over.
    pub fn next_end(&self) -> Option<Time> {
        self.by_end.first().map(|(until, _)| *until)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_end_when_their_time_is_over_and_not_before() {
        let mut detached = DetachedSessions::default();
        detached.insert(1, "ann", Time(100), 10);
        detached.insert(2, "bob", Time(50), 10);
        assert_eq!((detached.next_end(), detached.expire(Time(49))), (Some(Time(50)), vec![]));

        assert_eq!(detached.expire(Time(50)), [2]);
        assert!(detached.remove(1) && !detached.remove(1));

        assert_eq!((detached.expire(Time(1_000)), detached.len(), detached.bytes), (vec![], 0, 0));
        assert!(detached.by_user.is_empty() && detached.by_order.is_empty() && detached.by_end.is_empty());
    }

    #[test]
    fn a_users_longest_is_the_one_whose_client_went_first() {
        let mut detached = DetachedSessions::default();
        detached.insert(2, "ann", Time(100), 0);
        detached.insert(1, "ann", Time(100), 0);
        detached.insert(3, "bob", Time(100), 0);
        assert_eq!(detached.longest_of("ann"), Some(2));

        // Its client came back, and went again.
        detached.insert(2, "ann", Time(200), 0);

        assert_eq!((detached.longest_of("ann"), detached.longest_of("eve")), (Some(1), None));
    }

    #[test]
    fn above_the_bounds_those_go_whose_clients_went_first() {
        let mut detached = DetachedSessions::default();
        for number in 0..DETACHED_SESSIONS_MAX as u64 {
            assert!(detached.insert(number, "ann", Time(1), 0).is_empty());
        }
        assert_eq!(detached.insert(1 << 40, "bob", Time(1), 0), [0]);

        let mut detached = DetachedSessions::default();
        detached.insert(1, "ann", Time(9), DETACHED_BYTES_MAX / 2);
        detached.insert(2, "ann", Time(1), DETACHED_BYTES_MAX / 2);
        assert_eq!(detached.insert(3, "ann", Time(5), DETACHED_BYTES_MAX / 2 + 1), [1, 2]);
        assert_eq!(detached.insert(4, "ann", Time(5), 2 * DETACHED_BYTES_MAX), [3]);
        assert_eq!(detached.len(), 1);
    }
}
