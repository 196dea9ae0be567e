//! Reading a tool's arguments, with errors that name the argument, what was expected and what came.

use std::ops::RangeInclusive;

use serde::de::DeserializeOwned;
use serde_json::Number;
use serde_json::value::RawValue;

use super::ToolError;
use crate::protocol::jsonrpc::Object;

/// Characters of an unfit value that an error repeats.
const CAME_CHARS_MAX: usize = 60;

/// The arguments of one call, each still the text that the client sent. `null` counts as absent.
#[derive(Clone, Debug, Default)]
pub struct Arguments<'a>(pub Object<'a>);

impl<'a> Arguments<'a> {
    /// A whole number within `range`; `default` where it is absent, without which it is required.
    ///
    /// # Errors
    /// [`ToolError::InvalidArguments`].
    pub fn integer(&self, name: &str, range: RangeInclusive<u64>, default: Option<u64>) -> Result<u64, ToolError> {
        let expected = || format!("a whole number from {} to {}", range.start(), range.end());
        let Some(value) = self.present(name) else {
            return default.ok_or_else(|| missing(name, &expected()));
        };
        read(value)
            .as_ref()
            .and_then(whole)
            .filter(|number| range.contains(number))
            .ok_or_else(|| unfit(name, &expected(), value))
    }

    /// A string of at least one and at most `bytes_max` bytes; `None` if absent.
    ///
    /// # Errors
    /// [`ToolError::InvalidArguments`].
    pub fn text(&self, name: &str, bytes_max: usize) -> Result<Option<String>, ToolError> {
        let Some(value) = self.present(name) else {
            return Ok(None);
        };
        let fits = |text: &String| (1..=bytes_max).contains(&text.len());
        let expected = || format!("a string of 1 to {bytes_max} bytes");
        read(value).filter(fits).map(Some).ok_or_else(|| unfit(name, &expected(), value))
    }

    /// A string as [`Arguments::text`] that has to be there.
    ///
    /// # Errors
    /// [`ToolError::InvalidArguments`].
    pub fn required_text(&self, name: &str, bytes_max: usize) -> Result<String, ToolError> {
        self.text(name, bytes_max)?.ok_or_else(|| missing(name, &format!("a string of 1 to {bytes_max} bytes")))
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// [`ToolError::InvalidArguments`].
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, ToolError> {
        let Some(value) = self.present(name) else {
            return Ok(default);
        };
        read(value).ok_or_else(|| unfit(name, "true or false", value))
    }

    fn present(&self, name: &str) -> Option<&'a RawValue> {
        self.0.raw(name).filter(|value| value.get() != "null")
    }
}

/// The value, if it is of that type.
fn read<T: DeserializeOwned>(value: &RawValue) -> Option<T> {
    serde_json::from_str(value.get()).ok()
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

fn missing(name: &str, expected: &str) -> ToolError {
    ToolError::InvalidArguments(format!("{name}: expected {expected}, came nothing"))
}

fn unfit(name: &str, expected: &str, value: &RawValue) -> ToolError {
    let came = value.get();
    let shown: String = came.chars().take(CAME_CHARS_MAX).collect();
    let dots = if shown.len() < came.len() { "…" } else { "" };
    ToolError::InvalidArguments(format!("{name}: expected {expected}, came {shown}{dots}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn integer(arguments: &Value, default: Option<u64>) -> Result<u64, String> {
        let text = arguments.to_string();
        Arguments(Object::parse(text.as_bytes()).expect("an object"))
            .integer("n", 1..=60, default)
            .map_err(|error| error.to_string())
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
        let text = arguments.to_string();
        let arguments = Arguments(Object::parse(text.as_bytes()).expect("an object"));

        assert_eq!(arguments.text("ok", 2), Ok(Some("ab".to_owned())));
        assert_eq!(arguments.text("absent", 2), Ok(None));
        assert!(arguments.text("empty", 2).is_err());
        assert!(arguments.text("no", 2).is_err());
        assert!(arguments.required_text("absent", 2).is_err());
        let error = arguments.text("long", 2).expect_err("too long").to_string();
        assert!(error.ends_with("xxx…") && error.len() < 150, "{error}");
    }

    #[test]
    fn flags_are_true_or_false() {
        let arguments = json!({"yes": true, "no": "true"});
        let text = arguments.to_string();
        let arguments = Arguments(Object::parse(text.as_bytes()).expect("an object"));

        assert_eq!(arguments.flag("yes", false), Ok(true));
        assert_eq!(arguments.flag("absent", true), Ok(true));
        assert!(arguments.flag("no", false).is_err());
    }
}
