//! JSON text to terms, for signing.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::{Int, Items, Term};

/// Most arrays and objects inside one another in JSON that becomes a term. It bounds the stack that reading takes.
pub const JSON_INPUT_DEPTH_MAX: usize = 128;

/// Text that is no term in the form that was asked for. The text itself is not repeated: it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, came {came}")]
pub struct BadInput {
    /// What should have come.
    pub expected: &'static str,
    /// The kind of what came.
    pub came: &'static str,
}

/// Reads JSON as a term, as Jason does: strings are binaries, objects maps with such keys, `null` is `nil`.
///
/// Integers may be of any size up to [`super::INT_BYTES_MAX`]. Of equal keys the last counts.
///
/// # Errors
/// [`BadInput`] for text that is not JSON, for numbers beyond 64-bit floats, and beyond [`JSON_INPUT_DEPTH_MAX`].
pub fn from_json(text: &str) -> Result<Term, BadInput> {
    let value: &RawValue = read(text, "a JSON value")?;
    value_of(value.get(), JSON_INPUT_DEPTH_MAX)
}

fn value_of(text: &str, depth: usize) -> Result<Term, BadInput> {
    match text.as_bytes().first() {
        Some(b'"') => Ok(Term::binary(read::<String>(text, "a string in UTF-8")?)),
        Some(b'[') => {
            let depth = deeper(depth)?;
            let items: Vec<&RawValue> = read(text, "an array")?;
            let items = items.into_iter().map(|item| value_of(item.get(), depth));
            Ok(Term::List(Items(items.collect::<Result<_, _>>()?)))
        }
        Some(b'{') => {
            let depth = deeper(depth)?;
            let entries: BTreeMap<String, &RawValue> = read(text, "an object")?;
            let entries =
                entries.into_iter().map(|(key, value)| Ok((Term::binary(key), value_of(value.get(), depth)?)));
            let entries = entries.collect::<Result<_, _>>()?;
            Ok(Term::map(entries).expect("the keys of an ordered map are different"))
        }
        Some(b'n') => Ok(Term::nil()),
        Some(b't') => Ok(Term::from(true)),
        Some(b'f') => Ok(Term::from(false)),
        _ => number(text),
    }
}

fn number(text: &str) -> Result<Term, BadInput> {
    let bad = BadInput { expected: "an integer within the limit or a 64-bit float", came: "another number" };
    if text.contains(['.', 'e', 'E']) {
        let float = text.parse::<f64>().ok().filter(|float| float.is_finite());
        return float.map(Term::Float).ok_or(bad);
    }
    Int::parse(text).map(Term::Int).ok_or(bad)
}

pub(super) fn deeper(depth: usize) -> Result<usize, BadInput> {
    depth.checked_sub(1).ok_or(BadInput { expected: "JSON nested within the limit", came: "deeper JSON" })
}

pub(super) fn read<'a, T: serde::Deserialize<'a>>(text: &'a str, expected: &'static str) -> Result<T, BadInput> {
    serde_json::from_str(text).map_err(|_| BadInput { expected, came: json_kind(text) })
}

/// What kind of JSON a text begins as, for messages that must not repeat the text.
pub fn json_kind(text: &str) -> &'static str {
    match text.trim_start().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'[') => "an array",
        Some(b'{') => "an object",
        Some(b'n') => "null",
        Some(b't' | b'f') => "a boolean",
        Some(b'-' | b'0'..=b'9') => "a number",
        Some(_) => "other text",
        None => "nothing",
    }
}

#[cfg(test)]
mod tests {
    use super::super::{to_json, to_tagged};
    use super::*;

    #[test]
    fn json_goes_both_ways() {
        for text in [
            "null",
            "true",
            r#""é\n""#,
            "[]",
            "{}",
            "-0.5",
            "1.0e300",
            "123456789012345678901234567890",
            r#"{"a":[1,{"b":null}],"b":"c"}"#,
        ] {
            assert_eq!(to_json(&from_json(text).unwrap(), 1_000).unwrap(), text);
        }
        assert_eq!(to_tagged(&from_json("1e3").unwrap()), r#"{"t":"float","v":"1.0e3","bits":"408f400000000000"}"#);
        assert_eq!(from_json(r#"{"a":1,"\u0061":2}"#).unwrap(), from_json(r#"{"a":2}"#).unwrap());
    }

    #[test]
    fn what_is_not_json_or_too_deep_is_refused() {
        for text in ["", "nul", "[1,]", "1e400", "\"\\ud800\"", "{1:2}", "01", &"[".repeat(1_000_000)] {
            assert!(from_json(text).is_err());
        }
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(from_json(&deep(JSON_INPUT_DEPTH_MAX)).is_ok());
        assert!(from_json(&deep(JSON_INPUT_DEPTH_MAX + 1)).is_err());
    }
}
