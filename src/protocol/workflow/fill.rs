//! Placeholders: where they stand in a definition, and the definition with values in their place.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::protocol::workflow::measure::{escaped_bytes, json_bytes};

/// One piece of a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Text as it stands.
    Text(&'a str),
    /// A placeholder.
    Placeholder {
        /// The name in it.
        name: &'a str,
        /// All of it, braces included.
        written: &'a str,
    },
}

/// Takes a string apart.
///
/// A placeholder is `{{`, a name without braces, `}}`; spaces around the name are not part of it. Of more braces the inner
/// ones count. All else is text, as `{{}}`. Takes time linear in the string.
pub fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let (mut told, mut at) = (0, 0);
    while let Some(open) = text[at..].find("{{").map(|open| at + open) {
        let inner = open + 2;
        let Some(close) = text[inner..].find(['{', '}']).map(|close| inner + close) else { break };
        let name = text[inner..close].trim();
        if text[close..].starts_with("}}") && !name.is_empty() {
            if told < open {
                found.push(Piece::Text(&text[told..open]));
            }
            at = close + 2;
            found.push(Piece::Placeholder { name, written: &text[open..at] });
            told = at;
        } else {
            // Of `{{{`, the next try begins at the second brace.
            at = if close == inner { open + 1 } else { close };
        }
    }
    if told < text.len() {
        found.push(Piece::Text(&text[told..]));
    }
    found
}

/// What is filled in grew above the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

/// Fills values in. Each piece is charged before it is built, so that one that is too large never exists.
pub struct Filling<'a> {
    values: BTreeMap<&'a str, Option<&'a Value>>,
    bytes_left: usize,
}

impl<'a> Filling<'a> {
    /// A filling of at most `bytes_max` bytes of JSON text, with the value of each name, or none.
    pub fn new(values: impl IntoIterator<Item = (&'a str, Option<&'a Value>)>, bytes_max: usize) -> Self {
        Filling { values: values.into_iter().collect(), bytes_left: bytes_max }
    }

    /// `value` with its placeholders replaced; none if it is itself one that has no value.
    ///
    /// A string that is a placeholder and nothing else becomes the value. In a longer string, strings are put in as they
    /// are, other values as JSON text, and nothing where there is none. A placeholder of an unknown name stays. What was
    /// put in is not looked at again, and neither are keys.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub fn fill(&mut self, value: &Value) -> Result<Option<Value>, TooLarge> {
        Ok(Some(match value {
            Value::String(text) => return self.fill_text(text),
            Value::Array(items) => {
                self.charge(2)?;
                let mut filled = Vec::new();
                for item in items {
                    if let Some(item) = self.fill(item)? {
                        self.charge(usize::from(!filled.is_empty()))?;
                        filled.push(item);
                    }
                }
                Value::Array(filled)
            }
            Value::Object(fields) => {
                self.charge(2)?;
                let mut filled = Map::new();
                for (key, field) in fields {
                    if let Some(field) = self.fill(field)? {
                        self.charge(usize::from(!filled.is_empty()) + escaped_bytes(key) + 3)?;
                        filled.insert(key.clone(), field);
                    }
                }
                Value::Object(filled)
            }
            other => self.copy(other)?,
        }))
    }

    fn fill_text(&mut self, text: &str) -> Result<Option<Value>, TooLarge> {
        let pieces = pieces(text);
        if let [Piece::Placeholder { name, .. }] = pieces[..]
            && let Some(value) = self.values.get(name).copied()
        {
            return value.map(|value| self.copy(value)).transpose();
        }
        self.charge(2)?;
        let mut filled = String::new();
        for piece in pieces {
            let put = match piece {
                Piece::Text(text) => Cow::Borrowed(text),
                Piece::Placeholder { name, written } => match self.values.get(name) {
                    Some(Some(Value::String(text))) => Cow::Borrowed(text.as_str()),
                    Some(Some(value)) => Cow::Owned(value.to_string()),
                    Some(None) => continue,
                    None => Cow::Borrowed(written),
                },
            };
            self.charge(escaped_bytes(&put))?;
            filled.push_str(&put);
        }
        Ok(Some(Value::String(filled)))
    }

    fn copy(&mut self, value: &Value) -> Result<Value, TooLarge> {
        self.charge(json_bytes(value))?;
        Ok(value.clone())
    }

    fn charge(&mut self, bytes: usize) -> Result<(), TooLarge> {
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or(TooLarge)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(definition: &Value, expected: &Value) {
        let values = json!({"n": 5, "s": "a\"b", "o": {"k": [1, null]}, "inner": "{{n}}", "b": true});
        let values = values.as_object().expect("an object").iter().map(|(name, value)| (name.as_str(), Some(value)));
        let mut filling = Filling::new(values.chain([("none", None)]), 10_000);

        let filled = filling.fill(definition).expect("small enough");

        assert_eq!(filled.as_ref(), Some(expected));
        assert_eq!(10_000 - filling.bytes_left, json_bytes(expected), "what is charged is what is built");
    }

    #[test]
    fn a_string_that_is_a_placeholder_becomes_the_value() {
        check(&json!({"a": "{{n}}", "b": ["{{ o }}", "{{s}}"]}), &json!({"a": 5, "b": [{"k": [1, null]}, "a\"b"]}));
    }

    #[test]
    fn in_longer_text_values_become_text() {
        check(&json!("{{s}}: {{n}}, {{o}}, {{b}}{{b}}"), &json!("a\"b: 5, {\"k\":[1,null]}, truetrue"));
    }

    #[test]
    fn what_has_no_value_is_left_out_or_empty() {
        check(
            &json!({"a": "{{none}}", "b": ["{{none}}", 1, "{{none}}"], "c": "<{{none}}>"}),
            &json!({"b": [1], "c": "<>"}),
        );
    }

    #[test]
    fn what_was_put_in_is_not_looked_at_again_and_neither_are_keys() {
        check(&json!({"{{n}}": "{{inner}}", "b": "{{inner}}{{s}}"}), &json!({"{{n}}": "{{n}}", "b": "{{n}}a\"b"}));
    }

    #[test]
    fn other_braces_are_text() {
        for text in ["{{}}", "{{ }}", "{n}", "{{n}", "{{n", "{{n}{n}}", "{{unknown}}", "}}{{", "{{a{{"] {
            check(&json!(text), &json!(text));
        }
        check(&json!("{{{n}}}"), &json!("{5}"));
        check(&json!("{{a {{n}} }}"), &json!("{{a 5 }}"));
    }

    #[test]
    fn nothing_above_the_bound_is_built() {
        let large = json!("x".repeat(1_000));
        let mut filling = Filling::new([("x", Some(&large))], 2_000);

        assert!(filling.fill(&json!("{{x}}")).is_ok());
        assert_eq!(filling.fill(&json!("{{x}}")), Err(TooLarge));
        assert_eq!(Filling::new([("x", Some(&large))], 2_001).fill(&json!("{{x}}{{x}}")), Err(TooLarge));
        assert!(Filling::new([("x", Some(&large))], 2_002).fill(&json!("{{x}}{{x}}")).is_ok());
    }

    proptest! {
        #[test]
        fn pieces_are_the_whole_text(text in "[{} a]{0,20}") {
            let written = |piece: &Piece| match piece {
                Piece::Text(text) => (*text).to_owned(),
                Piece::Placeholder { written, .. } => (*written).to_owned(),
            };

            prop_assert_eq!(pieces(&text).iter().map(written).collect::<String>(), text);
        }
    }
}
