//! How large a JSON value is, without its text being written anywhere.

use serde_json::Value;

/// Bytes of the compact JSON text of a value.
pub fn json_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(true) => 4,
        Value::Bool(false) => 5,
        Value::Number(number) => number.to_string().len(),
        Value::String(text) => escaped_bytes(text) + 2,
        Value::Array(items) => bytes_of_list(items.len()) + items.iter().map(json_bytes).sum::<usize>(),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| escaped_bytes(name) + 3 + json_bytes(value);
            bytes_of_list(fields.len()) + fields.iter().map(field).sum::<usize>()
        }
    }
}

/// The brackets of a list, and its commas.
fn bytes_of_list(len: usize) -> usize {
    2 + len.saturating_sub(1)
}

/// Bytes that a text takes inside the quotes of a JSON string.
pub fn escaped_bytes(text: &str) -> usize {
    text.bytes().map(escaped).sum()
}

fn escaped(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    }
}

/// Whether more than `levels` arrays and objects stand inside one another.
pub fn is_deeper(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels == 0 || items.iter().any(|item| is_deeper(item, levels - 1)),
        Value::Object(fields) => levels == 0 || fields.values().any(|field| is_deeper(field, levels - 1)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn depth_counts_the_containers() {
        for (value, depth) in [(json!(1), 0), (json!([]), 1), (json!({"a": [1], "b": 2}), 2), (json!([[], [[]]]), 3)] {
            assert!(!is_deeper(&value, depth), "{value}");
            assert!(depth == 0 || is_deeper(&value, depth - 1), "{value}");
        }
    }

    proptest! {
        #[test]
        fn bytes_are_those_of_the_text(text in any::<String>(), number in any::<f64>()) {
            let value = json!({"a": [text, number], "b": null});

            prop_assert_eq!(json_bytes(&value), value.to_string().len());
            prop_assert_eq!(escaped_bytes(&text) + 2, json!(text).to_string().len());
        }
    }
}
