//! Server frames as the strings of a poll's answer.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::protocol::websocket::{ServerFrameKind, ServerFrames};

/// The messages among framed bytes.
///
/// Phoenix puts a binary message's bytes into a JSON string where they are UTF-8, and loses the poll's messages where
/// they are not. Here such a message comes as the text message it stands for, with the payload `{"base64": …}`.
pub(super) fn strings(framed: &[u8]) -> Vec<String> {
    ServerFrames::new(framed)
        .filter_map(|frame| match frame.kind {
            ServerFrameKind::Text => Some(String::from_utf8_lossy(frame.payload).into_owned()),
            ServerFrameKind::Binary => Some(match std::str::from_utf8(frame.payload) {
                Ok(text) => text.to_owned(),
                Err(_) => as_text(frame.payload),
            }),
            _ => None,
        })
        .collect()
}

/// A V2 binary message in V2's text form.
fn as_text(message: &[u8]) -> String {
    let mut parts = Parts { rest: message };
    let kind = parts.byte();
    let value = match kind {
        0 => {
            let lengths = [parts.byte(), parts.byte(), parts.byte()];
            let [join_ref, topic, event] = lengths.map(|length| parts.text(length));
            json!([join_ref, Value::Null, topic, event, parts.payload()])
        }
        1 => {
            let lengths = [parts.byte(), parts.byte(), parts.byte(), parts.byte()];
            let [join_ref, reference, topic, status] = lengths.map(|length| parts.text(length));
            json!([join_ref, reference, topic, "phx_reply", {"response": parts.payload(), "status": status}])
        }
        _ => {
            let lengths = [parts.byte(), parts.byte()];
            let [topic, event] = lengths.map(|length| parts.text(length));
            json!([Value::Null, Value::Null, topic, event, parts.payload()])
        }
    };
    value.to_string()
}

/// Reads our own encoder's output.
struct Parts<'a> {
    rest: &'a [u8],
}

impl Parts<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.rest.split_first().expect("our encoder writes whole headers");
        self.rest = rest;
        *first
    }

    fn text(&mut self, length: u8) -> Value {
        let (text, rest) = self.rest.split_at(usize::from(length));
        self.rest = rest;
        Value::from(String::from_utf8_lossy(text).into_owned())
    }

    fn payload(&self) -> Value {
        json!({"base64": BASE64_STANDARD.encode(self.rest)})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::websocket::{Opcode, write_frame};

    fn binary(message: &[u8]) -> Vec<String> {
        let mut framed = Vec::new();
        write_frame(&mut framed, Opcode::Binary, message);
        strings(&framed)
    }

    #[test]
    fn binary_that_is_utf_8_comes_as_its_characters() {
        assert_eq!(binary(b"\x01\x01\x01\x03\x0212r:aokabc"), ["\u{1}\u{1}\u{1}\u{3}\u{2}12r:aokabc"]);
    }

    #[test]
    fn other_binary_comes_as_text_with_base64() {
        assert_eq!(
            binary(b"\x01\x01\x01\x03\x0212r:aok\xff"),
            [r#"["1","2","r:a","phx_reply",{"response":{"base64":"/w=="},"status":"ok"}]"#]
        );
        assert_eq!(binary(b"\x02\x03\x02r:ahi\xff"), [r#"[null,null,"r:a","hi",{"base64":"/w=="}]"#]);
        assert_eq!(binary(b"\x00\x01\x03\x021r:ahi\xff"), [r#"["1",null,"r:a","hi",{"base64":"/w=="}]"#]);
    }
}
