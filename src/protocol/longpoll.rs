//! The time rules of a long-poll session, and how a POST's body becomes messages.
//!
//! Source: `Phoenix.Transports.LongPoll` and `LongPoll.Server`, transcripts group longpoll.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, PAD};

use super::Time;
use super::websocket::Opcode;

/// Base64 as Elixir's `Base.decode64!/1` reads it: padded; the bits that the padding leaves over may be anything.
const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, PAD.with_decode_allow_trailing_bits(true));

/// When a session without polls ends.
///
/// Phoenix looks every one and a half windows whether the last poll is longer ago than that, so a session ends one and
/// a half to three windows after its last poll. Publishing does not keep it alive.
#[derive(Debug, Clone)]
pub struct Inactivity {
    period_ms: u64,
    last_poll: Time,
    next_check: Time,
}

impl Inactivity {
    /// A session that begins now.
    pub fn new(window_ms: u64, now: Time) -> Self {
        let period_ms = window_ms.saturating_mul(3) / 2;
        Inactivity { period_ms, last_poll: now, next_check: now + period_ms }
    }

    /// The client polls.
    pub fn polled(&mut self, now: Time) {
        self.last_poll = now;
    }

    /// When to look next.
    pub fn next_timeout(&self) -> Time {
        self.next_check
    }

    /// Looks. True if the session has ended.
    pub fn expired(&mut self, now: Time) -> bool {
        if now < self.next_check {
            return false;
        }
        self.next_check = now + self.period_ms;
        now.since(self.last_poll) > self.period_ms
    }
}

/// One line of a POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// A text message.
    Text(&'a [u8]),
    /// A binary message, base64.
    Base64(&'a [u8]),
}

impl Line<'_> {
    /// The message of the line and how it would have come over a WebSocket; none if it is no base64.
    pub fn message(&self) -> Option<(Opcode, Vec<u8>)> {
        match self {
            Line::Text(text) => Some((Opcode::Text, text.to_vec())),
            Line::Base64(base64) => Some((Opcode::Binary, BASE64.decode(base64).ok()?)),
        }
    }
}

/// Splits a POST's body into its messages, at most `batch_max`; what follows is ignored, as in Phoenix.
///
/// `application/x-ndjson`, exactly so spelt, is a batch: a line a message, lines that start with neither `[` nor `{` being
/// base64 of a binary message. (Phoenix takes V1's `{` for base64 and answers 500.) Any other body is one text message.
pub fn messages<'a>(content_type: Option<&str>, body: &'a [u8], batch_max: usize) -> Vec<Line<'a>> {
    if content_type != Some("application/x-ndjson") {
        return vec![Line::Text(body)];
    }
    body.split(|byte| *byte == b'\n')
        .take(batch_max)
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .map(|line| match line.first() {
            Some(b'[' | b'{') => Line::Text(line),
            _ => Line::Base64(line),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_between_one_and_a_half_and_three_windows_after_its_last_poll() {
        let mut session = Inactivity::new(1_000, Time(0));

        session.polled(Time(100));
        assert!(!session.expired(Time(1_499)));
        assert!(!session.expired(Time(1_500)), "1 400 ms since the poll");
        assert_eq!(session.next_timeout(), Time(3_000));
        assert!(session.expired(Time(3_000)));
    }

    #[test]
    fn a_batch_is_cut_and_its_lines_told_apart() {
        let body = b"[1]\r\nAAA=\n{\"a\":1}\n\n[5]";

        let lines = messages(Some("application/x-ndjson"), body, 4);

        assert_eq!(lines, [Line::Text(b"[1]"), Line::Base64(b"AAA="), Line::Text(b"{\"a\":1}"), Line::Base64(b"")]);
    }

    #[test]
    fn base64_is_read_as_elixir_reads_it() {
        let message = |base64: &'static [u8]| Line::Base64(base64).message().map(|(_, data)| data);

        assert_eq!(message(b"AP8="), Some(vec![0, 255]));
        assert_eq!(message(b"AP9="), Some(vec![0, 255]), "bits behind the last byte");
        assert_eq!(message(b""), Some(vec![]));
        for refused in [&b"AP8"[..], b"AP8==", b"AP_8", b"AP 8", b"A===", b"AP8=AP8="] {
            assert_eq!(message(refused), None, "{}", refused.escape_ascii());
        }
    }

    #[test]
    fn a_content_type_with_parameters_is_one_message() {
        let lines = messages(Some("application/x-ndjson; charset=utf-8"), b"[1]\n[2]", 100);

        assert_eq!(lines, [Line::Text(b"[1]\n[2]")]);
    }
}
