//! When each message of an open-loop run is due, whatever the server does.
//!
//! Latency is counted from the time a message was due and not from when it was sent: a server that stalls doesn't get its pauses
//! left out because the client waited for it ("coordinated omission").

/// Message `number` of part `offset` of `step` is due at `start + (number * step + offset) / rate`.
///
/// The parts are the client's threads; together they send at the whole rate.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// When the first message of all is due, in nanoseconds.
    pub start_ns: u64,
    /// Messages a second of all parts together, above 0.
    pub rate_per_s: f64,
    /// Which part this is, from 0.
    pub offset: u64,
    /// How many parts there are, at least 1.
    pub step: u64,
}

impl Schedule {
    /// When message `number` of this part is due, in nanoseconds.
    pub fn due_ns(&self, number: u64) -> u64 {
        let index = number * self.step + self.offset;
        self.start_ns + (index as f64 * 1e9 / self.rate_per_s) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_together_keep_the_rate_without_drift() {
        let parts = [0, 1, 2].map(|offset| Schedule { start_ns: 500, rate_per_s: 3000.0, offset, step: 3 });

        let mut due: Vec<u64> = (0..1000).flat_map(|number| parts.map(|part| part.due_ns(number))).collect();
        due.sort_unstable();

        for (index, due_ns) in due.iter().enumerate() {
            let exact = 500.0 + index as f64 * 1e6 / 3.0;
            assert!((*due_ns as f64 - exact).abs() <= 1.0, "{index}: {due_ns}");
        }
    }

    #[test]
    fn a_day_at_a_million_a_second_stays_exact_to_a_microsecond() {
        let schedule = Schedule { start_ns: 0, rate_per_s: 1e6, offset: 0, step: 1 };
        let messages = 86_400_000_000;
        assert!(schedule.due_ns(messages).abs_diff(86_400_000_000_000) <= 1000);
    }
}
