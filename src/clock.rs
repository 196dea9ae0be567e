//! The only place that reads a clock.
#![expect(clippy::disallowed_methods, reason = "this module is where clocks are read")]

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::protocol::Time;

/// How long before the process first asks the clock starts. A paused clock begins at the real time and runs ahead: whoever
/// asks first, none may be before the start.
const HEADSTART: Duration = Duration::from_secs(86_400);

/// Monotonic time since the process's start, more or less: the runtime's, so that it stands still where a test has paused it.
pub fn now() -> Time {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(|| {
        let real = std::time::Instant::now();
        Instant::from_std(real.checked_sub(HEADSTART).unwrap_or(real))
    });
    Time(u64::try_from(Instant::now().saturating_duration_since(*start).as_millis()).unwrap_or(u64::MAX))
}

/// The moment so many milliseconds from here, for the runtime's timers.
pub fn in_ms(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

/// Wall time in microseconds since the Unix epoch.
pub fn unix_micros() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

/// Wall time as the Elixir deployment writes it: ISO 8601, UTC, six fractional digits and `Z`.
pub fn wall_iso8601_micros() -> String {
    iso8601_micros(unix_micros())
}

/// Formats microseconds since the Unix epoch as ISO 8601 in UTC.
pub fn iso8601_micros(unix_micros: u64) -> String {
    let (seconds, micros) = (unix_micros / 1_000_000, unix_micros % 1_000_000);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_from_days(days);
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    let of_day = [of_day / 3_600, of_day % 3_600 / 60, of_day % 60];
    let fields = [(0, 4, year), (5, 2, month), (8, 2, day), (11, 2, of_day[0]), (14, 2, of_day[1]), (17, 2, of_day[2])];
    for (start, digits, value) in fields.into_iter().chain([(20, 6, micros)]) {
        let mut rest = value;
        for byte in text[start..start + digits].iter_mut().rev() {
            *byte = b'0' + u8::try_from(rest % 10).expect("a digit");
            rest /= 10;
        }
    }
    String::from_utf8(text.to_vec()).expect("digits are ASCII")
}

/// The Gregorian date of a day counted from 1970-01-01.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_elixir_writes_them() {
        assert_eq!(iso8601_micros(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(iso8601_micros(951_782_400_000_000), "2000-02-29T00:00:00.000000Z");
        assert_eq!(iso8601_micros(1_795_368_555_474_001), "2026-11-22T17:29:15.474001Z");
    }
}
