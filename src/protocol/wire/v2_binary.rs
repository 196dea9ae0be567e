//! Version 2, binary: a kind, the lengths of the header's parts in a byte each, the parts, then the data.
//!
//! | kind | from | parts |
//! |---|---|---|
//! | 0 push | client | join_ref, ref, topic, event |
//! | 0 push | server | join_ref, topic, event |
//! | 1 reply | server | join_ref, ref, topic, status |
//! | 2 broadcast | server | topic, event |
//!
//! Source: `Phoenix.Socket.V2.JSONSerializer`; transcripts, group binary.

use std::borrow::Cow;

use super::{DecodeError, EncodeError, Incoming, PayloadRef, Text};
use crate::protocol::json::{string_value, write_str};
use crate::protocol::message::Ref;

const PUSH: u8 = 0;
const REPLY: u8 = 1;
const BROADCAST: u8 = 2;

/// Reads a client's push. An empty reference is the empty string, not null (transcript `binary_empty_join_ref`).
pub(super) fn decode(message: &[u8]) -> Result<Incoming<'_>, DecodeError> {
    match message {
        [PUSH, join_ref, reference, topic, event, rest @ ..] => {
            let lengths = [join_ref, reference, topic, event].map(|&length| usize::from(length));
            let mut parts =
                Parts { message_bytes: message.len(), header_bytes: 5 + lengths.iter().sum::<usize>(), rest };
            let join_ref = parts.take(lengths[0], "join_ref")?;
            let reference = parts.take(lengths[1], "ref")?;
            let topic = parts.take(lengths[2], "topic")?;
            let event = parts.take(lengths[3], "event")?;
            Ok(Incoming {
                join_ref: string_ref(join_ref),
                reference: string_ref(reference),
                topic: topic.into(),
                event: event.into(),
                payload: PayloadRef::Binary(parts.rest),
            })
        }
        [] | [PUSH, ..] => Err(DecodeError::Truncated { found: message.len(), needed: 5 }),
        [kind, ..] => Err(DecodeError::UnknownKind(*kind)),
    }
}

/// Appends a reply: kind 1.
pub(super) fn encode_reply(
    out: &mut Vec<u8>,
    join_ref: &Ref,
    reference: &Ref,
    topic: &Text<'_>,
    status: &str,
    data: &[u8],
) -> Result<(), EncodeError> {
    let join_ref = ref_text(join_ref, "join_ref")?;
    let reference = ref_text(reference, "ref")?;
    let topic = topic.as_str().ok_or(EncodeError::TopicNotText)?;
    let parts = [("join_ref", &*join_ref), ("ref", &*reference), ("topic", topic), ("status", status)];
    encode(out, REPLY, &parts, data)
}

/// Appends a push: kind 0.
pub(super) fn encode_push(
    out: &mut Vec<u8>,
    join_ref: &Ref,
    topic: &str,
    event: &str,
    data: &[u8],
) -> Result<(), EncodeError> {
    let join_ref = ref_text(join_ref, "join_ref")?;
    encode(out, PUSH, &[("join_ref", &*join_ref), ("topic", topic), ("event", event)], data)
}

/// Appends a broadcast: kind 2.
pub(super) fn encode_broadcast(out: &mut Vec<u8>, topic: &str, event: &str, data: &[u8]) -> Result<(), EncodeError> {
    encode(out, BROADCAST, &[("topic", topic), ("event", event)], data)
}

fn encode(out: &mut Vec<u8>, kind: u8, parts: &[(&'static str, &str)], data: &[u8]) -> Result<(), EncodeError> {
    let start = out.len();
    out.push(kind);
    for (part, text) in parts {
        let Ok(length) = u8::try_from(text.len()) else {
            out.truncate(start);
            return Err(EncodeError::HeaderTooLong { part, bytes: text.len() });
        };
        out.push(length);
    }
    for (_, text) in parts {
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(data);
    Ok(())
}

/// A reference as Elixir's `to_string/1` gives it: strings as they are, null empty, other scalars as their canonical text.
///
/// Phoenix turns a list into the text of its code points and crashes on a map; both are an error here.
///
/// Source: transcripts `binary_null_ref_reply` and `binary_ref_types`.
fn ref_text<'a>(reference: &'a Ref, part: &'static str) -> Result<Cow<'a, str>, EncodeError> {
    let json = reference.as_json();
    match json.as_bytes().first() {
        Some(b'"') => Ok(string_value(json)),
        Some(b'n') => Ok(Cow::Borrowed("")),
        Some(b'[' | b'{') => Err(EncodeError::CompositeRef(part)),
        _ => Ok(Cow::Borrowed(json)),
    }
}

fn string_ref(text: &str) -> Ref {
    let mut json = Vec::with_capacity(text.len() + 2);
    write_str(&mut json, text);
    Ref::from_json(&String::from_utf8_lossy(&json))
}

/// The parts of a header, front to back.
struct Parts<'a> {
    message_bytes: usize,
    header_bytes: usize,
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    fn take(&mut self, length: usize, part: &'static str) -> Result<&'a str, DecodeError> {
        let (head, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(DecodeError::Truncated { found: self.message_bytes, needed: self.header_bytes })?;
        self.rest = rest;
        std::str::from_utf8(head).map_err(|_| DecodeError::NotUtf8(part))
    }
}
