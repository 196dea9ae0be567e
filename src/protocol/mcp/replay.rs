//! What a client that lost a stream of events can still be given: event ids, and a stream's last events.
//!
//! Source: MCP 2025-03-26 to 2025-11-25, Streamable HTTP, "Resumability and Redelivery".

use std::fmt;

use bytes::Bytes;

use super::recovery::{Class, EventLog, Position, RECOVERY_BYTES_MAX, RECOVERY_EVENTS_MAX};

/// Events that a stream keeps for clients that come back.
pub const REPLAY_EVENTS_MAX: usize = RECOVERY_EVENTS_MAX;
/// Bytes of events that a stream keeps for clients that come back; the last event is kept whatever its size.
pub const REPLAY_BYTES_MAX: usize = RECOVERY_BYTES_MAX;
/// Bytes that all ended streams of a session keep, what nobody has read included; the oldest streams go.
pub const SESSION_REPLAY_BYTES_MAX: usize = 4 << 20;
/// Bytes that all streams of a server keep. Above it they give up what was read of them already; what nobody has read stays,
/// within the bounds of each session.
pub const SERVER_REPLAY_BYTES_MAX: usize = 256 << 20;

/// The id of an event: `<stream>-<seq>`, two numbers without signs or leading zeros.
///
/// `seq` counts the events of a stream from 1; 0 is the place before the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventId {
    /// The stream's number in its session.
    pub stream: u64,
    /// The event's place in its stream.
    pub seq: u64,
}

impl EventId {
    /// Reads an id; `None` for what [`fmt::Display`] never writes.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| {
            let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
            is_plain.then(|| text.parse().ok()).flatten()
        };
        let (stream, seq) = text.split_once('-')?;
        Some(EventId { stream: number(stream)?, seq: number(seq)? })
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.stream, self.seq)
    }
}

/// Why the events after a place can't be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    /// Later ones have gone already.
    #[error("the events after {after} are no longer kept, from {oldest} on they are")]
    Gone {
        /// The place asked for.
        after: u64,
        /// The oldest event that is kept, or the next one to come.
        oldest: u64,
    },
    /// No such event has been sent.
    #[error("no event {after} has been sent: the last is {last}")]
    NeverSent {
        /// The place asked for.
        after: u64,
        /// The last event.
        last: u64,
    },
}

/// The last events of a stream, each as it was sent: an [`EventLog`] whose messages are handed out as they come. So nothing in it
/// waits, and the oldest go above the bounds, but never the last.
#[derive(Clone, Debug, Default)]
pub struct ReplayLog(EventLog);

impl ReplayLog {
    /// Takes the next event, which `encode` writes with its number. Above the bounds the oldest go.
    pub fn append(&mut self, encode: impl FnOnce(u64) -> Bytes) -> &Bytes {
        // What could be dropped was dropped before it became an event: of these none is worth more than another.
        self.0.append(Class::Response, encode(self.last() + 1));
        self.0.take(usize::MAX);
        &self.0.newest().expect("the last event is kept").text
    }

    /// Forgets all events.
    pub fn forget(&mut self) {
        self.0.forget_sent();
    }

    /// Bytes of the kept events.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// The number of the last event; 0 if there was none.
    pub fn last(&self) -> u64 {
        self.0.last().0
    }

    /// The events later than `after`, oldest first.
    ///
    /// # Errors
    /// [`NotKept`]: some of them have gone, or `after` is no event.
    pub fn after(&self, after: u64) -> Result<impl Iterator<Item = &Bytes>, NotKept> {
        if after > self.last() {
            return Err(NotKept::NeverSent { after, last: self.last() });
        }
        let later = self.0.after(Position(after)).map_err(|gap| NotKept::Gone { after, oldest: gap.to + 1 })?;
        Ok(later.map(|event| &event.text))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written_and_nothing_else_is() {
        for id in ["0-0", "0-1", "17-1024", "18446744073709551615-9"] {
            assert_eq!(EventId::parse(id).map(|id| id.to_string()).as_deref(), Some(id));
        }
        let wrong = ["", "-", "1", "1-", "-1", "1-2-3", "01-2", "1-02", "+1-2", "1--2", " 1-2", "1-2 ", "a-b", "1_2"];
        for id in wrong.into_iter().chain(["18446744073709551616-1", "１-２", "1-2\u{0}"]) {
            assert_eq!(EventId::parse(id), None, "{id:?}");
        }
    }

    #[test]
    fn what_has_gone_or_never_came_is_told_apart() {
        let mut log = ReplayLog::default();
        assert_eq!(log.after(0).map(Iterator::count), Ok(0));
        assert_eq!(log.after(1).map(Iterator::count), Err(NotKept::NeverSent { after: 1, last: 0 }));

        for _ in 0..REPLAY_EVENTS_MAX + 2 {
            log.append(|seq| Bytes::from(seq.to_string()));
        }

        assert_eq!(log.after(1).map(Iterator::count), Err(NotKept::Gone { after: 1, oldest: 3 }));
        assert_eq!(log.after(2).map(Iterator::count), Ok(REPLAY_EVENTS_MAX));
        let last: Vec<_> = log.after(REPLAY_EVENTS_MAX as u64).expect("kept").collect();
        assert_eq!(last, [&Bytes::from("1025"), &Bytes::from("1026")]);
    }

    #[test]
    fn the_last_event_is_kept_whatever_its_size() {
        let mut log = ReplayLog::default();
        log.append(|_| Bytes::from_static(b"small"));
        log.append(|_| Bytes::from(vec![0; REPLAY_BYTES_MAX + 1]));

        assert_eq!(log.after(1).map(Iterator::count), Ok(1));
        assert_eq!(log.after(0).map(Iterator::count), Err(NotKept::Gone { after: 0, oldest: 2 }));

        log.forget();
        assert_eq!((log.after(2).map(Iterator::count), log.bytes()), (Ok(0), 0));
        assert_eq!(log.after(1).map(Iterator::count), Err(NotKept::Gone { after: 1, oldest: 3 }));
        log.append(|_| Bytes::from_static(b"third"));
        assert_eq!(log.after(2).map(Iterator::count), Ok(1));
    }

    proptest! {
        #[test]
        fn a_reader_that_comes_back_gets_each_event_once_in_order(
            sizes in proptest::collection::vec(1_usize..100_000, 1..40),
            read in 0_u64..40,
        ) {
            let mut log = ReplayLog::default();
            for size in &sizes {
                log.append(|seq| Bytes::from(format!("{seq} ").into_bytes().into_iter().chain(vec![b'x'; *size]).collect::<Vec<_>>()));
                prop_assert!(log.bytes() <= REPLAY_BYTES_MAX);
            }
            if let Ok(events) = log.after(read) {
                let numbers: Vec<u64> = events.map(|event| {
                    let text = String::from_utf8_lossy(event);
                    text.split(' ').next().and_then(|seq| seq.parse().ok()).expect("a number")
                }).collect();
                prop_assert_eq!(numbers, (read + 1..=sizes.len() as u64).collect::<Vec<_>>());
            }
        }
    }
}
