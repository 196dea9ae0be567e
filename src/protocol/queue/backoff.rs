//! How long a message waits after a failure.

/// Waits that double with each failure, up to a bound, of which a random part is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Milliseconds after the first failure.
    pub base_ms: u64,
    /// Milliseconds at most.
    pub max_ms: u64,
}

impl Default for Backoff {
    /// The deployment's: one second, doubled up to a minute.
    fn default() -> Self {
        Backoff { base_ms: 1_000, max_ms: 60_000 }
    }
}

impl Backoff {
    /// The whole wait in milliseconds after so many failures, without jitter: `min(base * 2^(failures - 1), max)`.
    ///
    /// No failure counts as one.
    pub fn whole(self, failures: u32) -> u64 {
        let factor = 1_u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX);
        self.base_ms.saturating_mul(factor).min(self.max_ms)
    }

    /// The wait in milliseconds: between half of [`Backoff::whole`], rounded up, and the whole of it, as `random` says.
    ///
    /// Source: "Exponential Backoff and Jitter" (AWS), *equal jitter*: messages that failed together come back apart, and
    /// none comes back at once.
    pub fn delay(self, failures: u32, random: u64) -> u64 {
        let whole = self.whole(failures);
        let left_out = whole / 2;
        whole - random % (left_out + 1)
    }
}
