//! Version 2, text: one JSON array a message, `[join_ref, ref, topic, event, payload]`.
//!
//! Source: `Phoenix.Socket.V2.JSONSerializer`; transcripts, groups v2-join-leave, payloads and invalid-frames.

use super::element::Element;
use super::{DecodeError, Incoming, PayloadRef, Text};
use crate::protocol::json::{JsonError, expect_end, skip_whitespace, write_str};
use crate::protocol::message::Ref;

/// Reads the array. Elements after the fifth are checked and ignored (transcript `heartbeat_extra_elements`).
pub(super) fn decode(message: &str) -> Result<Incoming<'_>, DecodeError> {
    let start = skip_whitespace(message.as_bytes(), 0);
    if message.as_bytes().get(start) != Some(&b'[') {
        return Err(DecodeError::NotAnArray);
    }
    let mut array = Array { message, pos: start + 1, read: 0, closed: false };
    let incoming = Incoming {
        join_ref: array.required()?.into_ref(),
        reference: array.required()?.into_ref(),
        topic: array.required()?.into_text(),
        event: array.required()?.into_text(),
        payload: PayloadRef::Json(array.required()?.text),
    };
    while array.next()?.is_some() {}
    expect_end(message.as_bytes(), array.pos)?;
    Ok(incoming)
}

/// Appends the array up to its payload.
pub(super) fn open(out: &mut Vec<u8>, join_ref: &Ref, reference: &Ref, topic: &Text<'_>, event: &str) {
    out.push(b'[');
    out.extend_from_slice(join_ref.as_json().as_bytes());
    out.push(b',');
    out.extend_from_slice(reference.as_json().as_bytes());
    out.push(b',');
    topic.write_json(out);
    out.push(b',');
    write_str(out, event);
    out.push(b',');
}

/// The array while it is read: open, then closed by its bracket.
struct Array<'a> {
    message: &'a str,
    /// Where the next element starts, or what follows the bracket.
    pos: usize,
    read: usize,
    closed: bool,
}

impl<'a> Array<'a> {
    #[inline(always)]
    fn required(&mut self) -> Result<Element<'a>, DecodeError> {
        self.next()?.ok_or(DecodeError::TooFewElements(self.read))
    }

    #[inline(always)]
    fn next(&mut self) -> Result<Option<Element<'a>>, JsonError> {
        let bytes = self.message.as_bytes();
        if self.closed {
            return Ok(None);
        }
        if self.read == 0 {
            self.pos = skip_whitespace(bytes, self.pos);
            if bytes.get(self.pos) == Some(&b']') {
                self.closed = true;
                self.pos += 1;
                return Ok(None);
            }
        }
        let (element, next) = Element::read(self.message, self.pos)?;
        self.closed = match bytes.get(next) {
            Some(b',') => false,
            Some(b']') => true,
            _ => return Err(JsonError::at(bytes, next, "a comma or a closing bracket")),
        };
        self.pos = next + 1;
        self.read += 1;
        Ok(Some(element))
    }
}
