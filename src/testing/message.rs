//! What a client gets: the server's frames, decoded.

use serde_json::Value;

use crate::protocol::message::Payload;
use crate::protocol::websocket::{ServerFrameKind, ServerFrames};
use crate::protocol::wire::WireVersion;

/// One message from the server, of any version and form.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// The `join_ref`: null in V1, and in a broadcast.
    pub join_ref: Value,
    /// The `ref`: null in a push and in a broadcast.
    pub reference: Value,
    /// The topic; its JSON where it is no string.
    pub topic: String,
    /// The event; of a reply it is `phx_reply`.
    pub event: String,
    /// The payload; of a reply its response.
    pub payload: Payload,
    /// The status of a reply.
    pub status: Option<String>,
}

/// The messages among framed bytes.
pub(super) fn decode(version: WireVersion, framed: &[u8]) -> Vec<Message> {
    ServerFrames::new(framed)
        .filter_map(|frame| match frame.kind {
            ServerFrameKind::Text => Some(text(version, frame.payload)),
            ServerFrameKind::Binary => Some(binary(frame.payload)),
            _ => None,
        })
        .map(|message| message.expect("our encoder writes whole messages"))
        .collect()
}

fn text(version: WireVersion, text: &[u8]) -> Option<Message> {
    let mut value: Value = serde_json::from_slice(text).ok()?;
    let [join_ref, reference, topic, event, mut payload] = match version {
        WireVersion::V2 => value.as_array_mut()?.iter_mut().map(Value::take).collect::<Vec<_>>().try_into().ok()?,
        WireVersion::V1 => {
            let mut field = |name: &str| value.get_mut(name).map(Value::take);
            [Value::Null, field("ref")?, field("topic")?, field("event")?, field("payload")?]
        }
    };
    let is_reply = event == "phx_reply";
    let status = if is_reply { Some(payload["status"].as_str()?.to_owned()) } else { None };
    if is_reply {
        payload = payload["response"].take();
    }
    Some(Message { join_ref, reference, topic: text_of(topic), event: text_of(event), payload: payload.into(), status })
}

/// A string; of anything else, which a client may have sent and the server echoes, its JSON.
fn text_of(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// A binary message of V2: see `protocol::wire::v2_binary` for its layout.
fn binary(message: &[u8]) -> Option<Message> {
    let (kind, rest) = message.split_first()?;
    let parts: &[&str] = match kind {
        0 => &["join_ref", "topic", "event"],
        1 => &["join_ref", "ref", "topic", "status"],
        _ => &["topic", "event"],
    };
    let (lengths, mut rest) = rest.split_at_checked(parts.len())?;
    let mut texts = Vec::new();
    for length in lengths {
        let (text, after) = rest.split_at_checked(usize::from(*length))?;
        texts.push(std::str::from_utf8(text).ok()?);
        rest = after;
    }
    let part = |name| parts.iter().position(|part| *part == name).map(|at| texts[at]);
    Some(Message {
        join_ref: part("join_ref").into(),
        reference: part("ref").into(),
        topic: part("topic")?.to_owned(),
        event: part("event").unwrap_or("phx_reply").to_owned(),
        payload: Payload::Binary(rest.to_vec().into()),
        status: part("status").map(str::to_owned),
    })
}

/// Whether a payload is what was expected; see [the kit](super#matching).
pub(super) fn matches(expected: &Payload, actual: &Payload) -> bool {
    let parsed = |payload: &Payload| payload.parse::<Value>().ok();
    match (parsed(expected), parsed(actual)) {
        (Some(expected), Some(actual)) => value_matches(&expected, &actual),
        _ => expected == actual,
    }
}

fn value_matches(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => expected
            .iter()
            .all(|(name, expected)| actual.get(name).is_some_and(|actual| value_matches(expected, actual))),
        (Value::Array(expected), Value::Array(actual)) => {
            expected.len() == actual.len() && expected.iter().zip(actual).all(|(a, b)| value_matches(a, b))
        }
        _ => expected == actual,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn is_match(expected: Value, actual: Value) -> bool {
        matches(&expected.into(), &actual.into())
    }

    #[test]
    fn an_object_may_have_more_than_expected_at_every_depth() {
        assert!(is_match(json!({}), json!({"a": 1})));
        assert!(is_match(json!({"a": {"b": [1, {"c": 2}]}}), json!({"a": {"b": [1, {"c": 2, "d": 3}]}, "e": 4})));

        assert!(!is_match(json!({"a": 1}), json!({})));
        assert!(!is_match(json!({"a": {"b": 1}}), json!({"a": {"b": 2}})));
        assert!(!is_match(json!([1]), json!([1, 2])));
        assert!(!is_match(json!({}), json!([])));
        assert!(!is_match(json!(null), json!({})));
    }

    #[test]
    fn binary_data_is_no_json() {
        let binary = |data: &'static [u8]| Payload::Binary(data.into());
        assert!(matches(&binary(b"{}"), &binary(b"{}")));
        assert!(!matches(&binary(b"{}"), &binary(b"{ }")));
        assert!(!matches(&Payload::EMPTY, &binary(b"{}")));
    }
}
