//! How often a run's progress is told: a gate between what a tool reports and what its watchers see.

use crate::protocol::Time;
use crate::protocol::mcp::PROGRESS_MESSAGE_BYTES_MAX;

/// One report of a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// How far, in the unit of `total`.
    pub progress: f64,
    /// Where it ends, if known.
    pub total: Option<f64>,
    /// For a person to read.
    pub message: Option<String>,
}

/// Lets a burst of reports through, then one each `interval_ms`; meanwhile the newest report waits.
///
/// MCP demands that progress grows with each notification, so a report that does not exceed all before it is dropped,
/// and so is one that is no finite number.
#[derive(Clone, Debug)]
pub struct ProgressGate {
    burst: u32,
    interval_ms: u64,
    highest: Option<f64>,
    /// Reports that may pass at once, and since when that is so.
    left: u32,
    counted: Time,
    waiting: Option<Progress>,
}

impl ProgressGate {
    /// A gate that lets `burst` reports through at once, at least one, and gains one each `interval_ms`.
    pub fn new(burst: u32, interval_ms: u64) -> Self {
        let burst = burst.max(1);
        ProgressGate { burst, interval_ms, highest: None, left: burst, counted: Time(0), waiting: None }
    }

    /// Takes a report and gives back the one to tell, if one is due.
    pub fn offer(&mut self, mut report: Progress, now: Time) -> Option<Progress> {
        let finite = report.progress.is_finite() && report.total.is_none_or(f64::is_finite);
        if !finite || self.highest.is_some_and(|highest| report.progress <= highest) {
            return None;
        }
        self.highest = Some(report.progress);
        if let Some(message) = &mut report.message {
            cut(message);
            // It may be kept for as long as its run is, and counts there as what it is long.
            message.shrink_to_fit();
        }
        self.gain(now);
        if self.left == 0 {
            self.waiting = Some(report);
            return None;
        }
        if self.left == self.burst {
            self.counted = now;
        }
        self.left -= 1;
        self.waiting = None;
        Some(report)
    }

    fn gain(&mut self, now: Time) {
        let passed = now.since(self.counted);
        let gained = passed.checked_div(self.interval_ms).unwrap_or(u64::from(self.burst));
        let gained = u32::try_from(gained).unwrap_or(u32::MAX);
        if gained > 0 {
            self.left = self.left.saturating_add(gained).min(self.burst);
            self.counted = self.counted + u64::from(gained) * self.interval_ms;
        }
    }

    /// Gives back the report that waits, if one does; to be told before the run's terminal event.
    pub fn flush(&mut self) -> Option<Progress> {
        self.waiting.take()
    }
}

fn cut(message: &mut String) {
    if message.len() > PROGRESS_MESSAGE_BYTES_MAX {
        let end = message.floor_char_boundary(PROGRESS_MESSAGE_BYTES_MAX - '…'.len_utf8());
        message.truncate(end);
        message.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(progress: f64) -> Progress {
        Progress { progress, total: Some(10.0), message: None }
    }

    fn passed(gate: &mut ProgressGate, progress: f64, now: u64) -> Option<f64> {
        gate.offer(report(progress), Time(now)).map(|report| report.progress)
    }

    #[test]
    fn a_report_that_passes_holds_no_more_memory_than_its_message_is_long() {
        let mut gate = ProgressGate::new(3, 50);

        for text in ["x".repeat(1 << 20), String::with_capacity(1 << 20) + "short"] {
            let offered = Progress { message: Some(text), ..report(gate.highest.unwrap_or(0.0) + 1.0) };
            let message = gate.offer(offered, Time(0)).and_then(|report| report.message).expect("a message");
            assert!(message.capacity() <= PROGRESS_MESSAGE_BYTES_MAX, "{}", message.capacity());
        }
    }

    #[test]
    fn after_a_burst_reports_closer_than_the_interval_wait_and_the_newest_wins() {
        let mut gate = ProgressGate::new(3, 50);

        for n in 1..=3 {
            assert_eq!(passed(&mut gate, f64::from(n), 0), Some(f64::from(n)));
        }
        assert_eq!(passed(&mut gate, 4.0, 10), None);
        assert_eq!(passed(&mut gate, 5.0, 49), None);
        assert_eq!(gate.flush().map(|report| report.progress), Some(5.0));
        assert_eq!(gate.flush(), None);
        assert_eq!(passed(&mut gate, 6.0, 50), Some(6.0));
        assert_eq!(passed(&mut gate, 7.0, 99), None);
        assert_eq!(passed(&mut gate, 8.0, 100), Some(8.0));
        let later: Vec<_> = (0..5).map(|n| passed(&mut gate, 9.0 + f64::from(n), 10_000).is_some()).collect();
        assert_eq!(later, [true, true, true, false, false], "a pause gives a new burst, and no more");
    }

    #[test]
    fn a_report_let_through_replaces_the_one_that_waits() {
        let mut gate = ProgressGate::new(1, 50);
        passed(&mut gate, 1.0, 0);
        passed(&mut gate, 2.0, 1);

        assert_eq!(passed(&mut gate, 3.0, 60), Some(3.0));
        assert_eq!(gate.flush(), None);
    }

    #[test]
    fn progress_only_grows_and_is_finite() {
        let mut gate = ProgressGate::new(9, 0);

        assert_eq!(passed(&mut gate, 1.0, 0), Some(1.0));
        assert_eq!(passed(&mut gate, 1.0, 1), None);
        assert_eq!(passed(&mut gate, 0.5, 2), None);
        assert_eq!(passed(&mut gate, f64::NAN, 3), None);
        assert_eq!(passed(&mut gate, f64::INFINITY, 4), None);
        assert_eq!(gate.offer(Progress { total: Some(f64::NAN), ..report(5.0) }, Time(5)), None);
        assert_eq!(passed(&mut gate, 2.0, 6), Some(2.0));
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let mut gate = ProgressGate::new(9, 0);
        let long = Progress { message: Some("ä".repeat(PROGRESS_MESSAGE_BYTES_MAX)), ..report(1.0) };

        let told = gate.offer(long, Time(0)).and_then(|report| report.message).expect("a message");

        assert!(told.len() <= PROGRESS_MESSAGE_BYTES_MAX, "{} bytes", told.len());
        assert!(told.starts_with("äää") && told.ends_with("ä…"));
    }
}
