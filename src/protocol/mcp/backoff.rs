//! How long to wait between two tries to start something that ends.

/// The pauses, in milliseconds: none after something that lived long, then doubling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    max_ms: u64,
    tries: u32,
}

/// What lives so long counts as having lived.
pub const LIVED_MS: u64 = 10_000;
/// The first pause after a failure.
const FIRST_MS: u64 = 100;

impl Backoff {
    /// No failure yet; pauses of at most `max_ms`.
    pub fn new(max_ms: u64) -> Self {
        Backoff { max_ms, tries: 0 }
    }

    /// The pause after an end, of what had lived for so long. `random` spreads those who failed together: a pause is between
    /// half of its length and the whole.
    pub fn pause_ms(&mut self, lived_ms: u64, random: u32) -> u64 {
        if lived_ms >= LIVED_MS {
            self.tries = 0;
            return 0;
        }
        let whole = FIRST_MS.saturating_mul(1 << self.tries.min(32)).min(self.max_ms);
        self.tries = self.tries.saturating_add(1);
        let half = whole / 2;
        let spread = u128::from(whole - half) * u128::from(random) / u128::from(u32::MAX);
        half + u64::try_from(spread).unwrap_or(u64::MAX - half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound_and_begin_anew() {
        let mut backoff = Backoff::new(1_000);

        let pauses: Vec<_> = (0..6).map(|_| backoff.pause_ms(0, u32::MAX)).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(backoff.pause_ms(LIVED_MS, 0), 0);
        assert_eq!(backoff.pause_ms(LIVED_MS - 1, 0), 50);
    }

    #[test]
    fn no_number_of_failures_overflows() {
        let mut backoff = Backoff { max_ms: u64::MAX, tries: u32::MAX - 1 };

        assert!(backoff.pause_ms(0, u32::MAX) > 0 && backoff.pause_ms(0, 7) > 0);
    }
}
