//! Numbers among the parameters of these tools: a template may put them in as text.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::kind;
use crate::mcp::CallError;

/// A whole number, or its digits; [`Whole::checked`] says whether it is in the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whole<const MIN: u64, const MAX: u64>(pub(super) u64);

/// A number from 0 to 1, or its digits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fraction(pub(super) f64);

impl<const MIN: u64, const MAX: u64> Whole<MIN, MAX> {
    /// The number, as the parameter of this name.
    ///
    /// # Errors
    /// It is out of the range.
    pub(super) fn checked(self, name: &str) -> Result<u64, CallError> {
        let Whole(number) = self;
        if (MIN..=MAX).contains(&number) {
            return Ok(number);
        }
        let text = format!("{name}: expected a whole number from {MIN} to {MAX}, came {number}");
        Err(CallError::InvalidArguments(text))
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Whole<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let number = match &value {
            Value::String(digits) => digits.parse().ok(),
            Value::Number(number) => whole(number),
            _ => None,
        };
        let unfit = || D::Error::custom(format!("expected a whole number from {MIN} to {MAX}, came {}", kind(&value)));
        number.map(Whole).ok_or_else(unfit)
    }
}

/// JSON has no whole numbers: 3.0 is one.
fn whole(number: &serde_json::Number) -> Option<u64> {
    let from_float = |float: f64| (float.fract() == 0.0 && (0.0..1e15).contains(&float)).then_some(float as u64);
    number.as_u64().or_else(|| number.as_f64().and_then(from_float))
}

impl<'de> Deserialize<'de> for Fraction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let number = match &value {
            Value::String(digits) => digits.parse().ok(),
            value => value.as_f64(),
        };
        let number = number.filter(|number| (0.0..=1.0).contains(number));
        let unfit = || D::Error::custom(format!("expected a number from 0 to 1, came {}", kind(&value)));
        number.map(Fraction).ok_or_else(unfit)
    }
}

impl<const MIN: u64, const MAX: u64> JsonSchema for Whole<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Whole_{MIN}_{MAX}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // The bounds are of numbers alone, the pattern is of texts; of two schemas a fault would name neither.
        json_schema!({"type": ["integer", "string"], "minimum": MIN, "maximum": MAX, "pattern": "^[0-9]{1,15}$"})
    }
}

impl JsonSchema for Fraction {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Fraction".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let pattern = "^(0(\\.[0-9]{1,15})?|1(\\.0{1,15})?)$";
        json_schema!({"type": ["number", "string"], "minimum": 0, "maximum": 1, "pattern": pattern})
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::mcp::Tool;
    use crate::mcp::tools::Registered;

    #[test]
    fn a_number_may_come_as_text() {
        let whole = |value: Value| {
            let read = serde_json::from_value::<Whole<1, 50>>(value).ok()?;
            read.checked("size").ok()
        };
        let fraction = |value: Value| serde_json::from_value::<Fraction>(value).map(|number| number.0).ok();

        assert_eq!([json!(5), json!("5"), json!(5.0)].map(whole), [Some(5); 3]);
        for unfit in [json!(0), json!(51), json!("51"), json!("-1"), json!(1.5), json!(1e300), json!(null), json!([5])]
        {
            assert_eq!(whole(unfit.clone()), None, "{unfit}");
        }
        assert_eq!([json!(0.8), json!("0.8")].map(fraction), [Some(0.8); 2]);
        assert_eq!([json!(0), json!("1")].map(fraction), [Some(0.0), Some(1.0)]);
        for unfit in [json!(1.1), json!("2"), json!("nan"), json!(-0.1), json!(true)] {
            assert_eq!(fraction(unfit.clone()), None, "{unfit}");
        }
    }

    #[test]
    fn an_unfit_number_is_told_with_its_name() {
        #[derive(Deserialize, JsonSchema)]
        struct Sizes {
            size: Whole<1, 50>,
            share: Fraction,
        }
        let fault = |size: Value, share: Value| {
            let sizes = Tool::new("t", |sizes: Sizes, _| async move {
                sizes.size.checked("size")?;
                Ok(sizes.share.0.to_string())
            });
            let arguments = json!({"size": size, "share": share}).to_string();
            let prepared = Registered::new(sizes).expect("a tool").prepare(&arguments, false);
            prepared.err().map(|error| error.to_string()).unwrap_or_default()
        };

        assert_eq!(fault(json!(51), json!(1)), "invalid arguments: size: 51 is greater than the maximum of 50");
        assert!(fault(json!("x"), json!(1)).starts_with("invalid arguments: size: \"x\" does not match "));
        assert_eq!(fault(json!(1), json!(1.5)), "invalid arguments: share: 1.5 is greater than the maximum of 1");
        assert!(fault(json!(1), json!("1.5")).starts_with("invalid arguments: share: \"1.5\" does not match "));
        assert_eq!(fault(json!("50"), json!("0.25")), "");
        let unfit = Whole::<1, 50>(99).checked("size").expect_err("out of range").to_string();
        assert_eq!(unfit, "invalid arguments: size: expected a whole number from 1 to 50, came 99");
    }
}
