//! What a text in a form has to look like.

use serde::Serialize;

/// What a text has to look like.
///
/// An answer is held to the outer shape only: `a@b` is an email, a URI has a scheme, a date has a month and a day that
/// there are. Who needs more looks closer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// An email address.
    Email,
    /// A URI.
    Uri,
    /// A day: `2026-07-28`.
    Date,
    /// A moment, as RFC 3339 writes it.
    DateTime,
}

impl Format {
    /// Whether a text looks so.
    pub(super) fn fits(self, text: &str) -> bool {
        match self {
            Format::Email => is_email(text),
            Format::Uri => is_uri(text),
            Format::Date => is_date(text),
            Format::DateTime => is_date_time(text),
        }
    }

    /// What was expected, in words.
    pub(super) fn expected(self) -> &'static str {
        match self {
            Format::Email => "an email address",
            Format::Uri => "a uri",
            Format::Date => "a date such as 2026-07-28",
            Format::DateTime => "a time such as 2026-07-28T12:00:00Z",
        }
    }
}

fn is_email(text: &str) -> bool {
    let ends = text.rsplit_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty());
    ends && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else {
        return false;
    };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
        && !rest.contains(|c: char| c.is_whitespace() || c.is_control())
}

fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return false;
    }
    let (Some(year), Some(month), Some(day)) = (digits(&bytes[..4]), digits(&bytes[5..7]), digits(&bytes[8..])) else {
        return false;
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        1..=12 => 31,
        _ => 0,
    };
    (1..=days).contains(&day)
}

fn is_date_time(text: &str) -> bool {
    let Some((date, time)) = text.split_once(['T', 't']) else {
        return false;
    };
    let Some((clock, rest)) = time.split_at_checked(8) else {
        return false;
    };
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => {
            let end = fraction.bytes().take_while(u8::is_ascii_digit).count();
            if end == 0 {
                return false;
            }
            &fraction[end..]
        }
        None => rest,
    };
    let zone_fits = match zone.as_bytes() {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', offset @ ..] => offset.len() == 5 && is_clock(offset),
        _ => false,
    };
    is_date(date) && is_clock(clock.as_bytes()) && zone_fits
}

/// Whether the bytes are hours, minutes and perhaps seconds; RFC 3339 allows a leap second.
fn is_clock(bytes: &[u8]) -> bool {
    const LIMITS: [u32; 3] = [23, 59, 60];
    let parts = bytes.split(|byte| *byte == b':');
    parts.zip(LIMITS).all(|(part, limit)| part.len() == 2 && digits(part).is_some_and(|value| value <= limit))
        && bytes.iter().filter(|byte| **byte == b':').count() == bytes.len() / 3
}

fn digits(bytes: &[u8]) -> Option<u32> {
    bytes.iter().try_fold(0, |value, byte| Some(value * 10 + char::from(*byte).to_digit(10)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_held_to_their_outer_shape() {
        let cases: &[(Format, &[&str], &[&str])] = &[
            (Format::Email, &["a@b", "a.b@c.example"], &["", "a", "@b", "a@", "a b@c"]),
            (Format::Uri, &["https://a/b", "urn:x"], &["", "/a", "1a:b", ":b", "a:b c"]),
            (Format::Date, &["2026-07-28", "2024-02-29"], &["", "2026-7-28", "2026-13-01", "2026-02-29", "2026-01-00"]),
            (
                Format::DateTime,
                &["2026-07-28T12:00:00Z", "2026-07-28t12:00:60.5+02:00"],
                &[
                    "2026-07-28",
                    "2026-07-28T12:00Z",
                    "2026-07-28T24:00:00Z",
                    "2026-07-28T12:00:00",
                    "2026-07-28T12:00:00.Z",
                    "2026-07-28T12:00:00+2:00",
                    "2026-07-28T120:00:0Z",
                ],
            ),
        ];

        for (format, good, bad) in cases {
            for (texts, fit) in [(good, true), (bad, false)] {
                for text in *texts {
                    assert_eq!(format.fits(text), fit, "{format:?} {text:?}");
                }
            }
        }
    }
}
