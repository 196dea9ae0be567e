//! One spelling for equal JSON texts: key order, whitespace and the spelling of numbers and escapes don't count.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// Returns the canonical spelling of a JSON text, or `None` where it isn't one.
///
/// Of duplicate keys the last counts. Integers compare digit by digit, so that large ones have to be exact; other numbers
/// as doubles (`1.0` is `1`, `1e2` is `100.0`). A string with a lone surrogate keeps its spelling.
pub fn canonical(text: &str) -> Option<String> {
    let value: &RawValue = serde_json::from_str(text).ok()?;
    Some(spell(value.get()))
}

/// [`canonical`], with the messages inside a long-poll body (`{"messages": [text, ..]}`) compared as JSON too.
pub fn canonical_body(text: &str) -> Option<String> {
    let value: &RawValue = serde_json::from_str(text).ok()?;
    let Ok(mut object) = serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(value.get()) else {
        return Some(spell(value.get()));
    };
    if let Some(list) = object.get_mut("messages")
        && let Ok(messages) = serde_json::from_str::<Vec<Box<RawValue>>>(list.get())
    {
        let messages: Vec<String> = messages.iter().map(|message| spell_message(message.get())).collect();
        *list = RawValue::from_string(format!("[{}]", messages.join(","))).expect("made of JSON texts");
    }
    Some(spell_object(&object))
}

fn spell_message(message: &str) -> String {
    match serde_json::from_str::<String>(message).ok().and_then(|text| canonical(&text)) {
        Some(text) => quoted(&text),
        None => spell(message),
    }
}

fn spell(value: &str) -> String {
    match value.as_bytes()[0] {
        b'{' => match serde_json::from_str(value) {
            Ok(object) => spell_object(&object),
            Err(_) => value.to_owned(),
        },
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(value).expect("an array of a text that was parsed");
            let items: Vec<String> = items.into_iter().map(|item| spell(item.get())).collect();
            format!("[{}]", items.join(","))
        }
        b'"' => serde_json::from_str::<String>(value).map_or_else(|_| value.to_owned(), |text| quoted(&text)),
        b'-' | b'0'..=b'9' => spell_number(value),
        _ => value.to_owned(),
    }
}

fn spell_object(object: &BTreeMap<String, Box<RawValue>>) -> String {
    let members: Vec<String> =
        object.iter().map(|(key, value)| format!("{}:{}", quoted(key), spell(value.get()))).collect();
    format!("{{{}}}", members.join(","))
}

fn spell_number(digits: &str) -> String {
    /// Up to here a double holds every integer.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

    if !digits.contains(['.', 'e', 'E']) {
        return if digits == "-0" { "0".to_owned() } else { digits.to_owned() };
    }
    match digits.parse::<f64>() {
        Ok(number) if number.fract() == 0.0 && number.abs() < EXACT_MAX => (number as i64).to_string(),
        Ok(number) if number.is_finite() => format!("{number:e}"),
        _ => digits.to_owned(),
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string can be written as JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_have_one_spelling() {
        for (one, other) in [
            (r#"{"a":1,"b":[true,null]}"#, r#" { "b" : [ true , null ] , "a" : 1 } "#),
            (r#"[1.0,1e2,-0,0.5]"#, r#"[1,100.0,0,5e-1]"#),
            (r#""\u00e9\/""#, r#""é/""#),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#""\ud800""#, r#""\ud800""#),
        ] {
            assert_eq!(canonical(one), canonical(other), "{one} {other}");
            assert!(canonical(one).is_some(), "{one}");
        }
    }

    #[test]
    fn different_texts_have_different_spellings() {
        for (one, other) in [
            (r#"[1,2]"#, r#"[2,1]"#),
            (r#"12345678901234567890"#, r#"12345678901234567891"#),
            (r#""1""#, r#"1"#),
            (r#"{"a":null}"#, r#"{}"#),
            (r#"[0.1]"#, r#"[0.10000000000000002]"#),
        ] {
            assert_ne!(canonical(one), canonical(other), "{one} {other}");
        }
        assert_eq!(canonical("[1,]"), None);
    }

    #[test]
    fn the_messages_of_a_poll_compare_as_json() {
        let one = r#"{"status":200,"messages":["{\"a\":1,\"b\":2}","not json"]}"#;
        let other = r#"{"messages":["{ \"b\":2, \"a\":1}","not json"],"status":200}"#;

        assert_eq!(canonical_body(one), canonical_body(other));
        assert_ne!(canonical_body(one), canonical_body(&other.replace(":2", ":3")));
    }
}
