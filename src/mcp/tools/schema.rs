//! JSON Schemas of arguments and output, compiled once, with errors that name the place, what was expected and what came.

use jsonschema::Validator;
use serde_json::{Map, Value};

/// Faults that one text names.
const FAULTS_MAX: usize = 5;
/// Characters of one fault.
const FAULT_CHARS_MAX: usize = 200;

/// A compiled schema. References lead nowhere but into itself: nothing is fetched.
pub(crate) struct Schema {
    validator: Validator,
    /// The properties, where no others are allowed.
    closed: Option<Vec<String>>,
}

impl Schema {
    /// Compiles a schema; of draft 2020-12 where it does not say.
    pub(crate) fn compile(schema: &Value) -> Result<Self, String> {
        let validator = jsonschema::options().offline().build(schema).map_err(|error| cut(&error.to_string()))?;
        let is_closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
        let names = || schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        let closed = is_closed.then(|| names().map(|(name, _)| name.clone()).collect());
        Ok(Schema { validator, closed })
    }

    /// The fields of a JSON object that fits. Where `is_lenient`, fields that a closed schema does not have are dropped
    /// first.
    pub(crate) fn check_fields(&self, text: &str, is_lenient: bool) -> Result<Map<String, Value>, String> {
        let mut value: Value = serde_json::from_str(text).map_err(|error| format!("expected JSON: {error}"))?;
        if let (true, Some(closed), Some(fields)) = (is_lenient, &self.closed, value.as_object_mut()) {
            fields.retain(|name, value| closed.contains(name) && !value.is_null());
        }
        self.check(&value)?;
        match value {
            Value::Object(fields) => Ok(fields),
            other => Err(format!("expected an object, came {}", cut(&other.to_string()))),
        }
    }

    /// Says where a value does not fit, without repeating any of it.
    pub(crate) fn misfits(&self, value: &Value) -> Option<String> {
        if self.validator.is_valid(value) {
            return None;
        }
        let errors = self.validator.iter_errors(value).take(FAULTS_MAX);
        let places: Vec<_> =
            errors.map(|error| format!("{} ({})", error.instance_path(), error.kind().keyword())).collect();
        Some(places.join("; "))
    }

    /// Says what does not fit.
    pub(crate) fn check(&self, value: &Value) -> Result<(), String> {
        if self.validator.is_valid(value) {
            return Ok(());
        }
        let mut faults: Vec<String> = Vec::new();
        let mut further = 0;
        for error in self.validator.iter_errors(value) {
            if faults.len() == FAULTS_MAX {
                further += 1;
                continue;
            }
            let place = error.instance_path().to_string();
            let place = place.trim_start_matches('/').replace('/', ".");
            let colon = if place.is_empty() { "" } else { ": " };
            faults.push(format!("{place}{colon}{}", cut(&error.to_string())));
        }
        if further > 0 {
            faults.push(format!("and {further} more"));
        }
        Err(faults.join("; "))
    }
}

fn cut(text: &str) -> String {
    let shown: String = text.chars().take(FAULT_CHARS_MAX).collect();
    if shown.len() < text.len() { shown + "…" } else { shown }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Schema {
        let schema = json!({
            "type": "object",
            "properties": {"n": {"type": "integer", "maximum": 9}, "who": {"$ref": "#/$defs/who"}},
            "required": ["n"], "additionalProperties": false,
            "$defs": {"who": {"type": "object", "properties": {"name": {"type": "string"}}}},
        });
        Schema::compile(&schema).expect("valid")
    }

    fn fault(value: &Value) -> String {
        schema().check_fields(&value.to_string(), false).expect_err("does not fit")
    }

    #[test]
    fn faults_name_the_place_what_was_expected_and_what_came() {
        assert_eq!(fault(&json!({"n": 10})), "n: 10 is greater than the maximum of 9");
        assert_eq!(fault(&json!({})), "\"n\" is a required property");
        assert_eq!(fault(&json!({"n": 1, "who": {"name": 5}})), "who.name: 5 is not of type \"string\"");
        let both = fault(&json!({"n": "x", "more": 1}));
        assert!(both.contains("\"x\" is not of type \"integer\"") && both.contains("more"), "{both}");
        assert!(fault(&json!({"n": "x".repeat(5_000)})).len() < 1_000);
    }

    #[test]
    fn unknown_fields_and_nulls_are_dropped_where_asked() {
        let fields = schema().check_fields(r#"{"n":1,"who":null,"more":1}"#, true).expect("fits");

        assert_eq!(Value::Object(fields), json!({"n": 1}));
    }
}
