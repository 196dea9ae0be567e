//! A place in a session's log, as it stands in the otherwise null `ref` of a push.

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// The number of a message, counted from 1; 0 is the place before the first. Written `@12`, so that no client takes it for the
/// `ref` of a message of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub u64);

impl Position {
    /// Reads what a client says: `"@12"`, `"12"` or `12`; none for anything else.
    pub fn read(value: &RawValue) -> Option<Self> {
        let text = value.get();
        let text = match text.strip_prefix('"') {
            // A number needs no escapes.
            Some(text) => text.strip_suffix('"').map(|text| text.strip_prefix('@').unwrap_or(text))?,
            None => text,
        };
        let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_plain.then(|| text.parse().ok()).flatten().map(Position)
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<u64> {
        let value = RawValue::from_string(text.to_owned()).expect("JSON");
        Position::read(&value).map(|position| position.0)
    }

    #[test]
    fn a_position_is_read_in_three_spellings_and_in_no_other() {
        for text in [r#""@12""#, r#""12""#, "12"] {
            assert_eq!(read(text), Some(12), "{text}");
        }
        assert_eq!(read(&format!("\"{}\"", Position(7))), Some(7));
        let wrong =
            ["null", "true", "-1", "1.0", "1e3", r#""""#, r#""@""#, r#""@@1""#, r#""+1""#, r#"" 1""#, "[1]", "{}"];
        for text in wrong.into_iter().chain(["18446744073709551616", r#""@1\u0030""#]) {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
