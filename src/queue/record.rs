//! What is stored of a message, a dead letter, an idempotency key and a queue: the values of [the log](super::log)'s entries.
//!
//! ```text
//! message       created u64, written u64, expires u64, due u64, retries_max u32, failures u32, priority u8,
//!               key (u16 length, bytes), last error (u16 length, bytes), payload       times in Unix milliseconds
//! dead letter   reason (u16 length, bytes), died u64, then as a message
//! key           created u64, until u64, key
//! next          u64
//! ```

use std::sync::Arc;

use bytes::Bytes;

use super::log::{Kind, Write};
use super::message::is_json_object;
use super::{MESSAGE_ID_PREFIX, Priority};
use crate::protocol::queue::Seq;

/// What of a message never changes.
#[derive(Debug)]
pub(super) struct Record {
    /// A JSON object.
    pub(super) payload: Bytes,
    pub(super) priority: Priority,
    pub(super) created_unix_ms: u64,
    pub(super) retries_max: u32,
    pub(super) key: Option<Box<str>>,
}

/// What of a message changes, in wall time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing<'a> {
    /// When it was like this. The others are trusted no further from it than they stood from it then.
    pub(super) written_unix_ms: u64,
    pub(super) expires_unix_ms: u64,
    pub(super) due_unix_ms: u64,
    pub(super) failures: u32,
    pub(super) last_error: Option<&'a str>,
    /// Why and when it became a dead letter.
    pub(super) died: Option<(&'a str, u64)>,
}

/// What was read.
#[derive(Debug)]
pub(super) struct Stored<'a> {
    pub(super) record: Arc<Record>,
    pub(super) standing: Standing<'a>,
}

/// An idempotency key as it is stored.
#[derive(Debug)]
pub(super) struct StoredKey<'a> {
    pub(super) created_unix_ms: u64,
    pub(super) until_unix_ms: u64,
    pub(super) key: &'a str,
}

impl Record {
    /// The message's id.
    pub(super) fn id(&self, seq: Seq) -> String {
        id_of(self.created_unix_ms, seq)
    }

    /// The value of a message or a dead letter.
    pub(super) fn stored(&self, standing: Standing<'_>) -> Vec<u8> {
        let mut value = Vec::with_capacity(self.payload.len() + 64);
        if let Some((reason, died)) = standing.died {
            text(&mut value, reason);
            value.extend_from_slice(&died.to_be_bytes());
        }
        let Standing { written_unix_ms, expires_unix_ms, due_unix_ms, .. } = standing;
        for number in [self.created_unix_ms, written_unix_ms, expires_unix_ms, due_unix_ms] {
            value.extend_from_slice(&number.to_be_bytes());
        }
        for number in [self.retries_max, standing.failures] {
            value.extend_from_slice(&number.to_be_bytes());
        }
        value.push(priority_byte(self.priority));
        text(&mut value, self.key.as_deref().unwrap_or_default());
        text(&mut value, standing.last_error.unwrap_or_default());
        value.extend_from_slice(&self.payload);
        value
    }

    /// Reads what [`Record::stored`] wrote.
    pub(super) fn read(kind: Kind, value: &[u8]) -> Option<Stored<'_>> {
        let mut rest = value;
        let died = match kind {
            Kind::Dead => Some((read_text(&mut rest)?, read_u64(&mut rest)?)),
            _ => None,
        };
        let (created_unix_ms, written_unix_ms) = (read_u64(&mut rest)?, read_u64(&mut rest)?);
        let (expires_unix_ms, due_unix_ms) = (read_u64(&mut rest)?, read_u64(&mut rest)?);
        let (retries_max, failures) = (read_u32(&mut rest)?, read_u32(&mut rest)?);
        let (priority, tail) = rest.split_first()?;
        rest = tail;
        let (key, last_error) = (read_text(&mut rest)?, read_text(&mut rest)?);
        // What is pushed has to be JSON, whatever the disk says.
        if !is_json_object(rest) {
            return None;
        }
        let record = Record {
            payload: Bytes::copy_from_slice(rest),
            priority: *Priority::ALL.get(usize::from(*priority))?,
            created_unix_ms,
            retries_max,
            key: (!key.is_empty()).then(|| key.into()),
        };
        let last_error = (!last_error.is_empty()).then_some(last_error);
        let standing = Standing { written_unix_ms, expires_unix_ms, due_unix_ms, failures, last_error, died };
        Some(Stored { record: Arc::new(record), standing })
    }
}

fn priority_byte(priority: Priority) -> u8 {
    let at = Priority::ALL.iter().position(|one| *one == priority).expect("all priorities are among all");
    u8::try_from(at).expect("there are four")
}

/// A text with its length; what is longer than a length can say is cut.
fn text(value: &mut Vec<u8>, text: &str) {
    let text = &text[..text.floor_char_boundary(u16::MAX.into())];
    value.extend_from_slice(&u16::try_from(text.len()).expect("it was cut").to_be_bytes());
    value.extend_from_slice(text.as_bytes());
}

fn read_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let (length, tail) = rest.split_first_chunk::<2>()?;
    let (text, tail) = tail.split_at_checked(u16::from_be_bytes(*length).into())?;
    *rest = tail;
    std::str::from_utf8(text).ok()
}

fn read_u64(rest: &mut &[u8]) -> Option<u64> {
    let (number, tail) = rest.split_first_chunk::<8>()?;
    *rest = tail;
    Some(u64::from_be_bytes(*number))
}

fn read_u32(rest: &mut &[u8]) -> Option<u32> {
    let (number, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    Some(u32::from_be_bytes(*number))
}

/// The id of the message with a number and a time of acceptance.
pub(super) fn id_of(created_unix_ms: u64, seq: Seq) -> String {
    let mut id = String::with_capacity(MESSAGE_ID_PREFIX.len() + 32);
    id.push_str(MESSAGE_ID_PREFIX);
    id.push_str(itoa::Buffer::new().format(created_unix_ms / 1_000));
    id.push('_');
    id.push_str(itoa::Buffer::new().format(seq.0));
    id
}

/// The Unix seconds and the number of an id.
pub(super) fn parse_id(id: &str) -> Option<(u64, Seq)> {
    let (seconds, number) = id.strip_prefix(MESSAGE_ID_PREFIX)?.split_once('_')?;
    Some((seconds.parse().ok()?, Seq(number.parse().ok()?)))
}

/// Stores an idempotency key.
pub(super) fn key_write(key: &str, seq: Seq, created_unix_ms: u64, until_unix_ms: u64) -> Write {
    let value = [&created_unix_ms.to_be_bytes()[..], &until_unix_ms.to_be_bytes(), key.as_bytes()].concat();
    Write::put(Kind::Key, seq, value)
}

/// Reads what [`key_write`] wrote.
pub(super) fn read_key(value: &[u8]) -> Option<StoredKey<'_>> {
    let mut rest = value;
    let (created_unix_ms, until_unix_ms) = (read_u64(&mut rest)?, read_u64(&mut rest)?);
    Some(StoredKey { created_unix_ms, until_unix_ms, key: std::str::from_utf8(rest).ok()? })
}

/// Stores the first number that was never given.
pub(super) fn next_write(next: u64) -> Write {
    Write::put(Kind::Next, Seq(0), next.to_be_bytes().to_vec())
}

/// Reads what [`next_write`] wrote.
pub(super) fn read_next(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_is_read_again() {
        let record = Record {
            payload: Bytes::from_static(br#"{"a":1}"#),
            priority: Priority::High,
            created_unix_ms: 1_795_724_843_123,
            retries_max: 3,
            key: Some("key".into()),
        };
        let standing = Standing {
            written_unix_ms: 7,
            expires_unix_ms: u64::MAX,
            due_unix_ms: 5,
            failures: 2,
            last_error: Some("boom"),
            died: Some(("retries_exhausted", 9)),
        };
        for (kind, died) in [(Kind::Message, None), (Kind::Dead, standing.died)] {
            let value = record.stored(Standing { died, ..standing });

            let read = Record::read(kind, &value).expect("what was written");

            assert_eq!(format!("{:?}", read.record), format!("{record:?}"));
            assert_eq!(format!("{:?}", read.standing), format!("{:?}", Standing { died, ..standing }));
            for end in 0..value.len() {
                assert!(Record::read(kind, &value[..end]).is_none(), "{kind:?} cut at {end}");
            }
        }
    }

    #[test]
    fn an_id_names_its_second_and_its_number() {
        assert_eq!(id_of(1_795_724_843_999, Seq(17)), "msg_1795724843_17");
        assert_eq!(parse_id("msg_1795724843_17"), Some((1_795_724_843, Seq(17))));
        for not in
            ["", "msg_", "msg_1", "msg_1_", "msg__1", "msg_1_-1", "msg_1_2_3", "1_2", "msg_1_99999999999999999999"]
        {
            assert_eq!(parse_id(not), None, "{not}");
        }
    }
}
