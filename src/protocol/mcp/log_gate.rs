//! How many log messages of a call are sent: a gate between what a handler logs and what its client is told.

use crate::protocol::Time;

/// Log messages that a call may send at once.
pub const LOG_BURST: u32 = 64;
/// Milliseconds in which a call that has logged as much as it may gains a further message.
pub const LOG_INTERVAL_MS: u64 = 50;
/// Bytes of the data of one log message; of more its size is told.
pub const LOG_BYTES_MAX: usize = 16_384;

/// Lets a burst of messages through, then one each [`LOG_INTERVAL_MS`], and counts the others: a handler that logs without
/// end would fill the outbox of a connection, which ends it and every channel beside.
///
/// Source: MCP, logging: "Implementations SHOULD rate limit log messages".
#[derive(Clone, Debug)]
pub struct LogGate {
    left: u32,
    /// Until when what was gained is counted.
    counted: Time,
    left_out: u64,
}

impl Default for LogGate {
    fn default() -> Self {
        LogGate { left: LOG_BURST, counted: Time(0), left_out: 0 }
    }
}

impl LogGate {
    /// Whether a message may be sent now; otherwise it is counted.
    pub fn admit(&mut self, now: Time) -> bool {
        let gained = now.since(self.counted) / LOG_INTERVAL_MS;
        let gained_now = u32::try_from(gained).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(gained_now).min(LOG_BURST);
        self.counted = self.counted + gained * LOG_INTERVAL_MS;
        if self.left == 0 {
            self.left_out += 1;
            return false;
        }
        self.left -= 1;
        true
    }

    /// How many were left out since this was asked.
    pub fn take_left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_each_interval() {
        let mut gate = LogGate::default();
        let mut passed = |now: u64, count: usize| (0..count).filter(|_| gate.admit(Time(now))).count();

        assert_eq!(passed(1_000, 100), 64);
        assert_eq!(passed(1_049, 10), 0);
        assert_eq!(passed(1_175, 10), 3);
        assert_eq!(passed(1_200, 10), 1, "what was left over of an interval counts");
        assert_eq!(passed(1_000_000, 100), 64, "no more than a burst is saved up");
        assert_eq!(gate.take_left_out(), 36 + 10 + 7 + 9 + 36);
        assert_eq!(gate.take_left_out(), 0);
    }
}
