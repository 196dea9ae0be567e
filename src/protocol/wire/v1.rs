//! Version 1: one JSON object a message.
//!
//! Source: `Phoenix.Socket.V1.JSONSerializer`, `Phoenix.Socket.Message.from_map!/1`; transcripts, group v1.

use super::element::Element;
use super::{DecodeError, Incoming, PayloadRef, Text};
use crate::protocol::json::{JsonError, expect_end, skip_whitespace, write_str};
use crate::protocol::message::Ref;

/// Reads the object. The first of repeated keys counts, unknown keys don't.
pub(super) fn decode(message: &str) -> Result<Incoming<'_>, DecodeError> {
    let bytes = message.as_bytes();
    let mut pos = skip_whitespace(bytes, 0);
    if bytes.get(pos) != Some(&b'{') {
        return Err(DecodeError::NotAnObject);
    }
    let mut fields = Fields::default();
    pos = skip_whitespace(bytes, pos + 1);
    if bytes.get(pos) == Some(&b'}') {
        pos += 1;
    } else {
        pos = fields.read(message, pos)?;
    }
    expect_end(bytes, pos)?;
    fields.into_incoming()
}

/// Appends the object up to its payload.
pub(super) fn open(out: &mut Vec<u8>, event: &str) {
    out.extend_from_slice(br#"{"event":"#);
    write_str(out, event);
    out.extend_from_slice(br#","payload":"#);
}

/// Appends the object from behind its payload. There is no `join_ref` on the way out.
pub(super) fn close(out: &mut Vec<u8>, reference: &Ref, topic: &Text<'_>) {
    out.extend_from_slice(br#","ref":"#);
    out.extend_from_slice(reference.as_json().as_bytes());
    out.extend_from_slice(br#","topic":"#);
    topic.write_json(out);
    out.push(b'}');
}

#[derive(Default)]
struct Fields<'a> {
    topic: Option<Element<'a>>,
    event: Option<Element<'a>>,
    payload: Option<Element<'a>>,
    reference: Option<Element<'a>>,
    join_ref: Option<Element<'a>>,
}

impl<'a> Fields<'a> {
    /// Reads members up to the closing brace, from the first one's key at `pos` on; returns the position behind the brace.
    fn read(&mut self, message: &'a str, mut pos: usize) -> Result<usize, JsonError> {
        let bytes = message.as_bytes();
        loop {
            if bytes.get(pos) != Some(&b'"') {
                return Err(JsonError::at(bytes, pos, "a key"));
            }
            let (key, colon) = Element::read(message, pos)?;
            if bytes.get(colon) != Some(&b':') {
                return Err(JsonError::at(bytes, colon, "a colon"));
            }
            let (value, next) = Element::read(message, colon + 1)?;
            self.keep(&key.into_string(), value);
            match bytes.get(next) {
                Some(b',') => pos = skip_whitespace(bytes, next + 1),
                Some(b'}') => return Ok(next + 1),
                _ => return Err(JsonError::at(bytes, next, "a comma or a closing brace")),
            }
        }
    }

    fn keep(&mut self, key: &str, value: Element<'a>) {
        let field = match key {
            "topic" => &mut self.topic,
            "event" => &mut self.event,
            "payload" => &mut self.payload,
            "ref" => &mut self.reference,
            "join_ref" => &mut self.join_ref,
            _ => return,
        };
        field.get_or_insert(value);
    }

    fn into_incoming(self) -> Result<Incoming<'a>, DecodeError> {
        Ok(Incoming {
            topic: self.topic.ok_or(DecodeError::MissingKey("topic"))?.into_text(),
            event: self.event.ok_or(DecodeError::MissingKey("event"))?.into_text(),
            payload: PayloadRef::Json(self.payload.ok_or(DecodeError::MissingKey("payload"))?.text),
            reference: self.reference.ok_or(DecodeError::MissingKey("ref"))?.into_ref(),
            join_ref: self.join_ref.map_or(Ref::NULL, Element::into_ref),
        })
    }
}
