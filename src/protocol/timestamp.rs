//! Reads moments as ISO 8601 writes them, and as Postgres does.

/// Bytes of a moment: the longest form with a fraction and an offset has fewer.
const TIMESTAMP_BYTES_MAX: usize = 64;
/// Years that are read: four digits, not before 1970.
const YEARS: std::ops::RangeInclusive<u64> = 1970..=9999;

/// Microseconds since the Unix epoch of a moment such as `2026-11-26T19:24:00.123456Z`; none for any other text.
///
/// The time may follow a `T` or a space; seconds, their fraction and the whole time may be left out. The offset is `Z`,
/// `+01:00`, `+0100` or `+01`; without one it is UTC, which is how Ecto's `utc_datetime` stands in Postgres. What is
/// finer than a microsecond is cut off. A leap second counts as the second after it. Nothing before 1970 is read.
pub fn unix_micros(text: &str) -> Option<u64> {
    let text = text.trim();
    if text.len() > TIMESTAMP_BYTES_MAX || !text.is_ascii() {
        return None;
    }
    let (date, time) = match text.split_at_checked(10)? {
        (date, "") => (date, "00:00Z"),
        (date, rest) => (date, rest.strip_prefix(['T', 't', ' '])?),
    };
    let [year, month, day] = fields(date, '-', [4, 2, 2])?;
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days_of_month = match month {
        2 => 28 + u64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !YEARS.contains(&year) || !(1..=days_of_month).contains(&day) {
        return None;
    }
    let offset_at = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
    let (time, offset) = time.split_at(offset_at);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = match time.len() {
        5 => fields(time, ':', [2, 2]).map(|[hour, minute]| [hour, minute, 0])?,
        _ => fields(time, ':', [2, 2, 2])?,
    };
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let of_day = hour * 3_600 + minute * 60 + second;
    let seconds = i64::try_from(days_from_civil(year, month, day) * 86_400 + of_day).ok()?;
    let seconds = u64::try_from(seconds - offset_seconds(offset)?).ok()?;
    Some(seconds * 1_000_000 + fraction_micros(fraction)?)
}

/// Numbers of so many digits each between separators.
fn fields<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[u64; N]> {
    let mut parts = text.split(separator);
    let mut values = [0; N];
    for (value, digits) in values.iter_mut().zip(digits) {
        *value = number(parts.next()?, digits)?;
    }
    parts.next().is_none().then_some(values)
}

fn number(text: &str, digits: usize) -> Option<u64> {
    let is_number = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

fn fraction_micros(fraction: &str) -> Option<u64> {
    let all = number(fraction.get(..fraction.len().min(6))?, fraction.len().min(6))?;
    let is_number = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let missing = u32::try_from(6_usize.saturating_sub(fraction.len())).ok()?;
    is_number.then(|| all * 10_u64.pow(missing))
}

fn offset_seconds(offset: &str) -> Option<i64> {
    let sign = match offset.as_bytes().first() {
        None => return Some(0),
        Some(b'Z' | b'z') => return (offset.len() == 1).then_some(0),
        Some(b'-') => -1,
        Some(_) => 1,
    };
    let [hours, minutes] = match offset[1..].split_once(':') {
        Some((hours, minutes)) => [number(hours, 2)?, number(minutes, 2)?],
        None if offset.len() == 3 => [number(&offset[1..], 2)?, 0],
        None => [number(offset.get(1..3)?, 2)?, number(&offset[3..], 2)?],
    };
    let seconds = i64::try_from(hours * 3_600 + minutes * 60).ok()?;
    (hours < 24 && minutes < 60).then_some(sign * seconds)
}

/// Days from 1970-01-01 to a Gregorian date that is not before it.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: u64 = 1_795_368_555_474_001;

    #[test]
    fn the_forms_of_iso_8601_and_of_postgres_are_read() {
        for (text, micros) in [
            ("2026-11-22T17:29:15.474001Z", MOMENT),
            ("2026-11-22T18:29:15.474001+01:00", MOMENT),
            ("2026-11-22 17:29:15.474001", MOMENT),
            ("2026-11-22 17:29:15.474001+00", MOMENT),
            ("2026-11-22 12:59:15.4740019-0430", MOMENT),
            ("2026-11-22T17:29:15.4Z", MOMENT - 74_001),
            ("2026-11-22T17:29:15Z", MOMENT - 474_001),
            ("2026-11-22T17:29Z", MOMENT - 15_474_001),
            ("2000-02-29", 951_782_400_000_000),
            ("1970-01-01T00:00:00Z", 0),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000_000),
        ] {
            assert_eq!(unix_micros(text), Some(micros), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_not_read() {
        for text in [
            "",
            "tomorrow",
            "2026-11-22T",
            "2026-13-01",
            "2026-02-29",
            "2026-11-31T00:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T17:60:15Z",
            "2026-11-22T17:29:61Z",
            "2026-11-22T17:29:15.Z",
            "2026-11-22T17:29:15.1xZ",
            "2026-11-22T17:29:15ZZ",
            "2026-11-22T17:29:15+1",
            "2026-11-22T17:29:15+24:00",
            "2026-11-22T17:29:15+0:100",
            "2026-11-22X17:29:15Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+01:00",
            "+026-11-22T17:29:15Z",
            "2026-11-22T17:29:15Ｚ",
        ] {
            assert_eq!(unix_micros(text), None, "{text}");
        }
    }
}
