//! Phoenix messages (V2 serializer: a JSON array of join_ref, ref, topic, event, payload) as far as a load tool needs them:
//! texts to send, and a scan of what comes that allocates nothing and falls back to a JSON parser for what it can't read.

use serde::Deserialize;
use serde_json::value::RawValue;

/// The five fields of a message, the payload as the JSON text it came in.
#[derive(Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The ref of the join that opened the channel; `None` for null.
    pub join_ref: Option<&'a str>,
    /// The ref of the message answered; `None` for null.
    pub reference: Option<&'a str>,
    /// The topic.
    pub topic: &'a str,
    /// The event: `phx_reply`, `phx_error`, or an application's.
    pub event: &'a str,
    /// The payload, unparsed.
    pub payload: &'a str,
}

/// Why a text is no V2 message.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The frame isn't UTF-8.
    #[error("expected a V2 message, came {0} bytes that are no UTF-8")]
    Utf8(usize),
    /// The text isn't an array of five as the V2 serializer writes it.
    #[error("expected a V2 message [join_ref, ref, topic, event, payload] with plain strings, came {0}")]
    Shape(String),
}

/// Returns the fields of a V2 message.
///
/// The scan takes the compact form that serializers write; spaces between the fields go through the JSON parser. A field with an
/// escape is refused: no name this tool uses has one.
///
/// # Errors
/// [`ScanError`] if the text is no array of five with strings in front.
pub fn scan(text: &[u8]) -> Result<Envelope<'_>, ScanError> {
    let text = std::str::from_utf8(text).map_err(|_| ScanError::Utf8(text.len()))?;
    scan_compact(text).or_else(|| scan_json(text)).ok_or_else(|| ScanError::Shape(excerpt(text)))
}

fn scan_compact(text: &str) -> Option<Envelope<'_>> {
    let rest = text.strip_prefix('[')?;
    let (join_ref, rest) = optional_field(rest)?;
    let (reference, rest) = optional_field(rest)?;
    let (topic, rest) = field(rest)?;
    let (event, rest) = field(rest)?;
    let payload = rest.strip_suffix(']')?;
    (payload.starts_with('{') && payload.ends_with('}')).then_some(Envelope {
        join_ref,
        reference,
        topic,
        event,
        payload,
    })
}

fn optional_field(text: &str) -> Option<(Option<&str>, &str)> {
    match text.strip_prefix("null,") {
        Some(rest) => Some((None, rest)),
        None => field(text).map(|(value, rest)| (Some(value), rest)),
    }
}

fn field(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('"')?;
    let end = text.bytes().position(|byte| byte == b'"' || byte == b'\\')?;
    let rest = text[end..].strip_prefix("\",")?;
    Some((&text[..end], rest))
}

fn scan_json(text: &str) -> Option<Envelope<'_>> {
    type Fields<'a> = (Option<&'a str>, Option<&'a str>, &'a str, &'a str, &'a RawValue);
    // Deserializing into a tuple refuses a sixth element; text behind the array is refused too.
    #[derive(Deserialize)]
    struct Message<'a>(#[serde(borrow)] Fields<'a>);
    let Message((join_ref, reference, topic, event, payload)) = serde_json::from_str(text).ok()?;
    Some(Envelope { join_ref, reference, topic, event, payload: payload.get() })
}

/// Whether the payload of a `phx_reply` has status `ok`, whichever of its two keys comes first.
pub fn reply_is_ok(payload: &str) -> bool {
    // At the end a single brace closes the reply itself, so this "status" is the reply's own and not one inside its response.
    payload.starts_with(r#"{"status":"ok","#)
        || (payload.ends_with(r#","status":"ok"}"#) && payload.starts_with(r#"{"response":"#))
        || Reply::parse(payload).is_some_and(|reply| reply.status == "ok")
}

/// The payload of a `phx_reply`.
#[derive(Debug, Deserialize)]
pub struct Reply {
    /// `ok`, `error`, or the application's own.
    pub status: String,
    /// What the handler answered.
    #[serde(default)]
    pub response: serde_json::Value,
}

impl Reply {
    /// Parses the payload as JSON; `None` if it is no reply.
    pub fn parse(payload: &str) -> Option<Self> {
        serde_json::from_str(payload).ok()
    }
}

/// Returns the ten digits after `"n":` in the payload of a delivered broadcast, as a number counted from 0.
pub fn delivered_number(payload: &str) -> Option<u64> {
    let at = payload.find("\"n\":")? + 4;
    super::frame::parse_number(payload.as_bytes().get(at..at + super::frame::NUMBER_DIGITS)?)
}

/// Returns the text of a message, all of its strings quoted as JSON; `payload` is JSON already.
pub fn text(join_ref: &str, reference: &str, topic: &str, event: &str, payload: &str) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    format!("[{},{},{},{},{payload}]", quoted(join_ref), quoted(reference), quoted(topic), quoted(event))
}

/// Returns the start of a text for an error message, at most 200 characters.
pub fn excerpt(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, join_ref: Option<&str>, reference: Option<&str>, payload: &str) {
        let expected = Envelope { join_ref, reference, topic: "bench:a", event: "phx_reply", payload };
        assert_eq!(scan(text.as_bytes()).expect("a V2 message"), expected);
    }

    #[test]
    fn compact_and_spaced_messages_scan_alike() {
        let payload = r#"{"status":"ok","response":{"a":"],\""}}"#;
        for (text, join_ref, reference) in [
            (r#"["1","2","bench:a","phx_reply",P]"#, Some("1"), Some("2")),
            (r#"[null,"2","bench:a","phx_reply",P]"#, None, Some("2")),
            (r#"[ "1", null, "bench:a", "phx_reply", P]"#, Some("1"), None),
            (r#"[null,null,"bench:a","phx_reply",P]"#, None, None),
        ] {
            check(&text.replace('P', payload), join_ref, reference, payload);
        }
    }

    #[test]
    fn a_text_of_another_shape_is_refused_and_shown() {
        for wrong in [
            "",
            "{}",
            r#"["1","2","t","e"]"#,
            r#"["1","2","t","e",{},1]"#,
            r#"["1","2","t","e",{}"#,
            r#"["1","2","a\"b","e",{}]"#,
            r#"["1","2",3,"e",{}]"#,
        ] {
            let error = scan(wrong.as_bytes()).expect_err(wrong).to_string();
            assert!(error.ends_with(wrong), "{error}");
        }
        assert!(scan(b"\xff\xff").is_err());
    }

    #[test]
    fn the_status_is_read_from_either_end_and_never_from_the_response() {
        assert!(reply_is_ok(r#"{"status":"ok","response":{}}"#));
        assert!(reply_is_ok(r#"{"response":{"status":"error"},"status":"ok"}"#));
        assert!(reply_is_ok(r#"{ "status" : "ok" }"#));
        assert!(!reply_is_ok(r#"{"status":"error","response":{"status":"ok"}}"#));
        assert!(!reply_is_ok(r#"{"response":{"status":"ok"},"status":"error"}"#));
        assert!(!reply_is_ok(r#"{"response":{}}"#));
        assert!(!reply_is_ok("nothing"));
    }

    #[test]
    fn the_number_of_a_broadcast_is_found_wherever_it_stands() {
        assert_eq!(delivered_number(r#"{"n":1000000042,"p":"x"}"#), Some(42));
        assert_eq!(delivered_number(r#"{"a":1,"n":1000000007}"#), Some(7));
        for wrong in [r#"{"p":"x"}"#, r#"{"n":12}"#, r#"{"n":"1000000042"}"#] {
            assert_eq!(delivered_number(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_are_quoted_as_json() {
        let text = text("1", "2", "a\"b", "echo", "{}");
        assert_eq!(text, r#"["1","2","a\"b","echo",{}]"#);
    }
}
