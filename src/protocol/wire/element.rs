//! One JSON value of an envelope, still where it was read.

use std::borrow::Cow;

use super::Text;
use crate::protocol::json::{JsonError, canonical, skip_string, skip_value, skip_whitespace, string_value};
use crate::protocol::message::Ref;

/// A valid JSON value: its text, and whether it is a string with escapes in it.
#[derive(Clone, Copy)]
pub(super) struct Element<'a> {
    pub(super) text: &'a str,
    escaped: bool,
}

impl<'a> Element<'a> {
    /// Reads the value at `pos`, or behind whitespace there, and returns the position of what follows it but whitespace.
    pub(super) fn read(message: &'a str, pos: usize) -> Result<(Self, usize), JsonError> {
        let bytes = message.as_bytes();
        let start = skip_whitespace(bytes, pos);
        let (end, escaped) = if bytes.get(start) == Some(&b'"') {
            let string = skip_string(bytes, start)?;
            (string.end, string.escaped)
        } else {
            (skip_value(bytes, start)?, false)
        };
        let element = Element { text: &message[start..end], escaped };
        Ok((element, skip_whitespace(bytes, end)))
    }

    /// The value as a reference.
    pub(super) fn into_ref(self) -> Ref {
        if self.is_canonical() { Ref::from_json(self.text) } else { Ref::from_json(&canonical(self.text)) }
    }

    /// The value as a topic or an event.
    pub(super) fn into_text(self) -> Text<'a> {
        if self.text.starts_with('"') { Text::Str(self.into_string()) } else { Text::Json(Cow::Borrowed(self.text)) }
    }

    /// The value of a string.
    pub(super) fn into_string(self) -> Cow<'a, str> {
        if self.escaped { string_value(self.text) } else { Cow::Borrowed(&self.text[1..self.text.len() - 1]) }
    }

    /// Whether the text is surely canonical as it is: what clients send nearly always.
    fn is_canonical(self) -> bool {
        match self.text.as_bytes() {
            [b'"', ..] => !self.escaped,
            [b'n' | b't' | b'f', ..] => true,
            [b'0'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
            _ => false,
        }
    }
}
