//! Reading a tool's arguments, with errors that name the argument, what was expected and what came.

use std::ops::RangeInclusive;

use serde_json::{Map, Number, Value};

use crate::mcp::CallError;

/// Characters of an unfit value that an error repeats.
const CAME_CHARS_MAX: usize = 60;

/// The arguments of one call, which fit the tool's schema. `null` counts as absent.
#[derive(Clone, Debug, Default)]
pub struct Arguments<'a> {
    text: &'a str,
    fields: Map<String, Value>,
}

impl<'a> Arguments<'a> {
    /// The arguments in `text`, whose fields are these.
    pub(crate) fn new(text: &'a str, fields: Map<String, Value>) -> Self {
        Arguments { text, fields }
    }

    /// The JSON object as the client sent it: numbers, order and unknown fields included.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// All of them.
    pub fn into_fields(self) -> Map<String, Value> {
        self.fields
    }

    /// A whole number within `range`; `default` where it is absent, without which it is required.
    ///
    /// # Errors
    /// [`CallError::InvalidArguments`].
    pub fn integer(&self, name: &str, range: RangeInclusive<u64>, default: Option<u64>) -> Result<u64, CallError> {
        let expected = || format!("a whole number from {} to {}", range.start(), range.end());
        let Some(value) = self.present(name) else {
            return default.ok_or_else(|| missing(name, &expected()));
        };
        let number = value.as_number().and_then(whole).filter(|number| range.contains(number));
        number.ok_or_else(|| unfit(name, &expected(), value))
    }

    /// A string of at least one and at most `bytes_max` bytes; `None` if absent.
    ///
    /// # Errors
    /// [`CallError::InvalidArguments`].
    pub fn string(&self, name: &str, bytes_max: usize) -> Result<Option<String>, CallError> {
        let Some(value) = self.present(name) else {
            return Ok(None);
        };
        let fits = |text: &&str| (1..=bytes_max).contains(&text.len());
        let expected = || format!("a string of 1 to {bytes_max} bytes");
        let text = value.as_str().filter(fits).map(|text| Some(text.to_owned()));
        text.ok_or_else(|| unfit(name, &expected(), value))
    }

    /// A string as [`Arguments::string`] that has to be there.
    ///
    /// # Errors
    /// [`CallError::InvalidArguments`].
    pub fn required_string(&self, name: &str, bytes_max: usize) -> Result<String, CallError> {
        self.string(name, bytes_max)?.ok_or_else(|| missing(name, &format!("a string of 1 to {bytes_max} bytes")))
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// [`CallError::InvalidArguments`].
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, CallError> {
        let Some(value) = self.present(name) else {
            return Ok(default);
        };
        value.as_bool().ok_or_else(|| unfit(name, "true or false", value))
    }

    fn present(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }
}

/// JSON Schema's integers: `5` and `5.0`.
fn whole(value: &Number) -> Option<u64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if let Some(number) = value.as_u64() {
        return Some(number);
    }
    let number = value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..=EXACT).contains(number))?;
    Some(number as u64)
}

fn missing(name: &str, expected: &str) -> CallError {
    CallError::InvalidArguments(format!("{name}: expected {expected}, came nothing"))
}

fn unfit(name: &str, expected: &str, value: &Value) -> CallError {
    let came = value.to_string();
    let shown: String = came.chars().take(CAME_CHARS_MAX).collect();
    let dots = if shown.len() < came.len() { "…" } else { "" };
    CallError::InvalidArguments(format!("{name}: expected {expected}, came {shown}{dots}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(arguments: &Value) -> Arguments<'static> {
        Arguments::new("", arguments.as_object().expect("an object").clone())
    }

    fn integer(arguments: &Value, default: Option<u64>) -> Result<u64, String> {
        read(arguments).integer("n", 1..=60, default).map_err(|error| error.to_string())
    }

    #[test]
    fn integers_are_whole_and_in_range() {
        assert_eq!(integer(&json!({"n": 60}), None), Ok(60));
        assert_eq!(integer(&json!({"n": 5.0}), None), Ok(5));
        assert_eq!(integer(&json!({"n": null}), Some(7)), Ok(7));
        let expected = "invalid arguments: n: expected a whole number from 1 to 60, came";
        for (came, shown) in
            [(json!(0), "0"), (json!(61), "61"), (json!(-1), "-1"), (json!(1.5), "1.5"), (json!("5"), "\"5\"")]
        {
            assert_eq!(integer(&json!({"n": came}), Some(7)), Err(format!("{expected} {shown}")));
        }
        assert_eq!(integer(&json!({}), None), Err(format!("{expected} nothing")));
    }

    #[test]
    fn texts_have_a_length_and_errors_repeat_little_of_them() {
        let arguments = json!({"ok": "ab", "empty": "", "long": "x".repeat(100), "no": 1});
        let arguments = read(&arguments);

        assert_eq!(arguments.string("ok", 2), Ok(Some("ab".to_owned())));
        assert_eq!(arguments.string("absent", 2), Ok(None));
        assert!(arguments.string("empty", 2).is_err());
        assert!(arguments.string("no", 2).is_err());
        assert!(arguments.required_string("absent", 2).is_err());
        let error = arguments.string("long", 2).expect_err("too long").to_string();
        assert!(error.ends_with("xxx…") && error.len() < 150, "{error}");
    }

    #[test]
    fn flags_are_true_or_false() {
        let arguments = json!({"yes": true, "no": "true"});
        let arguments = read(&arguments);

        assert_eq!(arguments.flag("yes", false), Ok(true));
        assert_eq!(arguments.flag("absent", true), Ok(true));
        assert!(arguments.flag("no", false).is_err());
    }
}
