//! The bounded log of one run: what a client that comes late can still be told.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::protocol::mcp::event::EventKind;

/// Events that a log keeps at most, the terminal event included.
pub const RUN_EVENTS_MAX: usize = 1_024;
/// Bytes of events that a log keeps at most.
pub const RUN_BYTES_MAX: usize = 1_048_576;
/// How long a run can be found after its end, in milliseconds: 5 minutes.
pub const RUN_RETENTION_MS: u64 = 300_000;

/// What a log may hold.
#[derive(Clone, Copy, Debug)]
pub struct RunLimits {
    /// Events at most; at least 2, for a first and a last one.
    pub events_max: usize,
    /// Bytes of events at most, as JSON text.
    pub bytes_max: usize,
}

impl Default for RunLimits {
    fn default() -> Self {
        RunLimits { events_max: RUN_EVENTS_MAX, bytes_max: RUN_BYTES_MAX }
    }
}

/// One event as its readers get it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The event's `seq`.
    pub seq: u64,
    /// The event's `type`.
    pub kind: EventKind,
    /// The JSON text of the event.
    pub event: Bytes,
}

/// One event as a log keeps it.
#[derive(Clone, Debug)]
pub struct Kept<T> {
    /// The event's `seq`.
    pub seq: u64,
    /// The event's `type`.
    pub kind: EventKind,
    /// What there is to tell.
    pub told: T,
    bytes: usize,
}

/// The events of a run, oldest first, within [`RunLimits`].
///
/// Over a bound the oldest *progress* goes, and is counted. The first and the terminal event are never dropped, so that
/// the bytes can exceed their bound by these two. After the terminal event nothing is taken.
///
/// A log of a start and an end alone, as of a quick call, has no buffer.
#[derive(Clone, Debug)]
pub struct RunLog<T> {
    limits: RunLimits,
    first: Option<Kept<T>>,
    progress: VecDeque<Kept<T>>,
    last: Option<Kept<T>>,
    bytes: usize,
    last_seq: u64,
    dropped: u64,
}

/// The run has its terminal event; nothing can follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the run has ended")]
pub struct Ended;

impl<T> RunLog<T> {
    /// An empty log.
    pub fn new(limits: RunLimits) -> Self {
        RunLog { limits, first: None, progress: VecDeque::new(), last: None, bytes: 0, last_seq: 0, dropped: 0 }
    }

    /// Takes the next event, which counts as so many bytes, and returns its number.
    ///
    /// # Errors
    /// [`Ended`] after a terminal event.
    pub fn append(&mut self, kind: EventKind, bytes: usize, told: T) -> Result<u64, Ended> {
        if self.last.is_some() {
            return Err(Ended);
        }
        self.last_seq += 1;
        self.bytes += bytes;
        let kept = Kept { seq: self.last_seq, kind, told, bytes };
        if kind.is_first() {
            self.first = Some(kept);
        } else if kind.is_terminal() {
            self.last = Some(kept);
        } else {
            self.progress.push_back(kept);
        }
        self.drop_oldest_progress();
        Ok(self.last_seq)
    }

    /// The kept events with a number above `seq`, oldest first; 0 gives all.
    pub fn events_after(&mut self, seq: u64) -> impl Iterator<Item = &mut Kept<T>> {
        let start = self.progress.partition_point(|kept| kept.seq <= seq);
        let above = move |kept: &&mut Kept<T>| kept.seq > seq;
        let (first, last) = (self.first.as_mut().filter(above), self.last.as_mut().filter(above));
        first.into_iter().chain(self.progress.range_mut(start..)).chain(last)
    }

    /// The terminal event, once it is there.
    pub fn last(&self) -> Option<&Kept<T>> {
        self.last.as_ref()
    }

    /// The number of the newest event, 0 before the first.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Progress events dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Bytes of the kept events.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn drop_oldest_progress(&mut self) {
        while self.len() > self.limits.events_max || self.bytes > self.limits.bytes_max {
            let Some(gone) = self.progress.pop_front() else { return };
            self.bytes -= gone.bytes;
            self.dropped += 1;
        }
    }

    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.progress.len() + usize::from(self.last.is_some())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SMALL: RunLimits = RunLimits { events_max: 4, bytes_max: 100 };

    fn push(log: &mut RunLog<()>, kind: EventKind, bytes: usize) -> Result<u64, Ended> {
        log.append(kind, bytes, ())
    }

    fn seqs(log: &mut RunLog<()>, after: u64) -> Vec<u64> {
        log.events_after(after).map(|kept| kept.seq).collect()
    }

    #[test]
    fn the_oldest_progress_goes_first_and_is_counted() {
        let mut log = RunLog::new(SMALL);
        push(&mut log, EventKind::Started, 1).expect("running");
        for _ in 0..5 {
            push(&mut log, EventKind::Progress, 1).expect("running");
        }

        assert_eq!((seqs(&mut log, 0), log.dropped()), (vec![1, 4, 5, 6], 2));

        push(&mut log, EventKind::Completed, 1).expect("running");

        assert_eq!((seqs(&mut log, 0), log.dropped()), (vec![1, 5, 6, 7], 3));
        assert_eq!(seqs(&mut log, 5), [6, 7]);
    }

    #[test]
    fn bytes_bound_the_log_as_events_do() {
        let mut log = RunLog::new(SMALL);
        push(&mut log, EventKind::Started, 30).expect("running");
        push(&mut log, EventKind::Progress, 40).expect("running");
        push(&mut log, EventKind::Progress, 40).expect("running");

        assert_eq!((seqs(&mut log, 0), log.bytes()), (vec![1, 3], 70));
    }

    #[test]
    fn an_event_above_the_bound_stays_only_if_it_is_first_or_terminal() {
        let mut log = RunLog::new(SMALL);
        push(&mut log, EventKind::Started, 101).expect("running");
        push(&mut log, EventKind::Progress, 1).expect("running");
        push(&mut log, EventKind::Failed, 200).expect("running");

        assert_eq!((seqs(&mut log, 0), log.bytes(), log.dropped()), (vec![1, 3], 301, 1));
    }

    #[test]
    fn nothing_follows_a_terminal_event() {
        let mut log = RunLog::new(SMALL);
        push(&mut log, EventKind::Started, 1).expect("running");
        push(&mut log, EventKind::Completed, 1).expect("running");

        assert_eq!(push(&mut log, EventKind::Progress, 1), Err(Ended));
        assert_eq!(push(&mut log, EventKind::Failed, 1), Err(Ended));
        assert_eq!((log.last_seq(), log.last().map(|kept| kept.kind)), (2, Some(EventKind::Completed)));
    }

    proptest! {
        /// Whatever the sizes: the first and the last event stay, the bounds hold, and kept plus dropped is everything.
        #[test]
        fn the_bounds_hold_and_the_ends_stay(
            sizes in prop::collection::vec(0usize..60, 0..40),
            events_max in 2usize..8,
            bytes_max in 0usize..200,
            end in 0usize..60,
        ) {
            let mut log = RunLog::new(RunLimits { events_max, bytes_max });
            push(&mut log, EventKind::Started, 10).expect("running");
            for size in &sizes {
                push(&mut log, EventKind::Progress, *size).expect("running");
            }
            push(&mut log, EventKind::Failed, end).expect("running");

            let kept = seqs(&mut log, 0);
            let bytes: usize = log.events_after(0).map(|kept| kept.bytes).sum();
            prop_assert_eq!(kept.first(), Some(&1));
            prop_assert_eq!(kept.last(), Some(&log.last_seq()));
            prop_assert!(kept.is_sorted_by(|a, b| a < b));
            prop_assert!(kept.len() <= events_max);
            prop_assert_eq!(bytes, log.bytes());
            prop_assert!(bytes <= bytes_max.max(10 + end));
            prop_assert_eq!(kept.len() as u64 + log.dropped(), log.last_seq());
            // The kept progress is the newest.
            let progress = &kept[1..kept.len() - 1];
            prop_assert!(progress.iter().zip(log.last_seq() - progress.len() as u64..).all(|(a, b)| *a == b));
        }
    }
}
