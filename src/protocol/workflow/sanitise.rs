//! What of a workflow may be told to its watchers: contexts, options and results without their secrets.
//!
//! Secrets are known by their names. One that has no name, or whose name says nothing of it, passes.
//!
//! Source: the contract of the Elixir deployment, section 6.6, and T16: intermediate results too.

use std::borrow::Cow;

use serde_json::{Map, Value};

pub use crate::protocol::workflow::mask::{names_secret, text, text_by};

/// What stands for a secret in a result.
pub const REDACTED: &str = "[REDACTED]";
/// The field that says of a context, or of options, that they went through [`context`].
pub const SANITIZED: &str = "sanitized";
/// Arrays and objects inside one another that are looked at; what is deeper is redacted as a whole. serde_json reads 128.
pub const SANITISE_DEPTH_MAX: usize = 256;

/// Fields that contexts and options lose.
const DROPPED: [&str; 3] = ["credentials", "secrets", "tokens"];

/// A context, or options, as it may be told: without its own fields `credentials`, `secrets` and `tokens`, in whatever
/// case, the others as of a [`result`], and with `sanitized: true`. What is no object is treated as a result.
pub fn context(value: &Value) -> Value {
    let Value::Object(fields) = value else { return result(value).into_owned() };
    let is_dropped = |key: &str| DROPPED.iter().any(|dropped| key.eq_ignore_ascii_case(dropped));
    let kept = fields.iter().filter(|(key, _)| !is_dropped(key));
    let mut told: Map<_, _> =
        kept.map(|kept| changed_field(kept, SANITISE_DEPTH_MAX).unwrap_or_else(|| owned(kept))).collect();
    told.insert(SANITIZED.to_owned(), Value::Bool(true));
    Value::Object(told)
}

/// A result as it may be told: `value` itself where it has no secrets.
///
/// Strings, arrays and objects under a key that [`names_secret`] become [`REDACTED`]; numbers and booleans stay, since
/// `max_tokens` counts. All other strings, keys too, are masked by [`text`]. Takes time linear in the value, and what is
/// sanitised once is not changed by it again.
pub fn result(value: &Value) -> Cow<'_, Value> {
    changed(value, SANITISE_DEPTH_MAX).map_or(Cow::Borrowed(value), Cow::Owned)
}

/// The value without its secrets, if it has any.
fn changed(value: &Value, levels: usize) -> Option<Value> {
    match value {
        Value::String(string) => match text(string) {
            Cow::Borrowed(_) => None,
            Cow::Owned(masked) => Some(Value::String(masked)),
        },
        Value::Array(_) | Value::Object(_) if levels == 0 => Some(Value::from(REDACTED)),
        Value::Array(items) => {
            let told = |item| changed(item, levels - 1);
            let (i, first) = items.iter().enumerate().find_map(|(i, item)| Some((i, told(item)?)))?;
            let before = items[..i].iter().cloned();
            let after = items[i + 1..].iter().map(|item| told(item).unwrap_or_else(|| item.clone()));
            Some(Value::Array(before.chain([first]).chain(after).collect()))
        }
        Value::Object(fields) => {
            let told = |field| changed_field(field, levels - 1);
            let (i, first) = fields.iter().enumerate().find_map(|(i, field)| Some((i, told(field)?)))?;
            let before = fields.iter().take(i).map(owned);
            let after = fields.iter().skip(i + 1).map(|field| told(field).unwrap_or_else(|| owned(field)));
            Some(Value::Object(before.chain([first]).chain(after).collect()))
        }
        _ => None,
    }
}

/// A field without its secrets, if it has any.
fn changed_field((key, value): (&String, &Value), levels: usize) -> Option<(String, Value)> {
    let is_secret = matches!(value, Value::String(_) | Value::Array(_) | Value::Object(_)) && names_secret(key);
    let told_value = match is_secret {
        true if value == REDACTED => None,
        true => Some(Value::from(REDACTED)),
        false => changed(value, levels),
    };
    match (text(key), told_value) {
        (Cow::Borrowed(_), None) => None,
        (key, told_value) => Some((key.into_owned(), told_value.unwrap_or_else(|| value.clone()))),
    }
}

fn owned((key, value): (&String, &Value)) -> (String, Value) {
    (key.clone(), value.clone())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(given: &Value, expected: &Value) {
        assert_eq!(result(given).as_ref(), expected);
    }

    #[test]
    fn contexts_lose_their_secrets_and_say_so() {
        let given = json!({
            "user": "bob", "credentials": {"a": 1}, "Secrets": [], "tokens": 5, "password": "x",
            "inner": {"tokens": ["a"], "max_tokens": 5},
        });

        let told = json!({
            "user": "bob", "password": "[REDACTED]", "sanitized": true,
            "inner": {"tokens": "[REDACTED]", "max_tokens": 5},
        });
        assert_eq!(context(&given), told);
        assert_eq!(context(&json!({})), json!({"sanitized": true}));
        assert_eq!(context(&json!(["Bearer x"])), json!(["Bearer ***"]));
    }

    #[test]
    fn keys_that_name_secrets_redact_strings_lists_and_objects() {
        for key in
            ["password", "DB_PASSWORD", "tokens", "clientSecret", "apiKey", "x-api-key", "API_KEY", "Authorization"]
        {
            for value in [json!("x"), json!(["x"]), json!({"a": "x"})] {
                check(&json!([{key: value, "a": 1}]), &json!([{key: "[REDACTED]", "a": 1}]));
            }
        }
        check(&json!({"credential_id": "x"}), &json!({"credential_id": "[REDACTED]"}));
    }

    #[test]
    fn counters_switches_and_nulls_stay() {
        let given = json!({"max_tokens": 4096, "tokens_used": 1.5, "has_password": true, "token": null});

        assert!(matches!(result(&given), Cow::Borrowed(same) if *same == given));
    }

    #[test]
    fn strings_and_keys_are_masked_as_text_is() {
        check(
            &json!(["a", {"error": "token: x y", "b": [1, "Bearer x"]}, 2]),
            &json!(["a", {"error": "token=*** y", "b": [1, "Bearer ***"]}, 2]),
        );
        check(&json!({"a": 1, "password=x": 2, "z": "z"}), &json!({"a": 1, "password=***": 2, "z": "z"}));
        check(&json!("secret=x"), &json!("secret=***"));
    }

    #[test]
    fn what_is_too_deep_is_redacted() {
        let nest = |levels: usize| (0..levels).fold(json!("x"), |inner, _| json!([inner]));

        assert!(matches!(result(&nest(SANITISE_DEPTH_MAX)), Cow::Borrowed(_)));
        let told = result(&nest(SANITISE_DEPTH_MAX + 1)).to_string();
        assert!(told.contains(REDACTED) && !told.contains('x'));
    }

    fn json() -> impl Strategy<Value = Value> {
        let key = || {
            prop_oneof!["[ab]", Just("max_tokens".to_owned()), Just("Password".to_owned()), Just("token=b".to_owned())]
        };
        let text = prop_oneof!["[a =]{0,3}", Just("password=b c".to_owned()), Just("Bearer b".to_owned())];
        let leaf = prop_oneof![text.prop_map(Value::from), any::<i8>().prop_map(Value::from), Just(Value::Null)];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key(), inner, 0..4).prop_map(|fields| fields.into_iter().collect()),
            ]
        })
    }

    /// `value` with `secret` somewhere in it.
    fn plant(value: &Value, secret: &Value, at: &mut impl Iterator<Item = usize>) -> Value {
        match value {
            Value::Array(items) if !items.is_empty() => {
                let chosen = at.next().unwrap_or(0) % items.len();
                let mut items = items.clone();
                items[chosen] = plant(&items[chosen], secret, at);
                Value::Array(items)
            }
            Value::Object(fields) => {
                let chosen = at.next().unwrap_or(0) % (fields.len() + 1);
                let mut fields = fields.clone();
                match fields.values_mut().nth(chosen) {
                    Some(value) => *value = plant(value, secret, at),
                    None => drop(fields.insert("c".to_owned(), secret.clone())),
                }
                Value::Object(fields)
            }
            _ => secret.clone(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_048))]

        #[test]
        fn sanitising_twice_is_sanitising_once(given in json()) {
            let once = result(&given).into_owned();

            prop_assert!(matches!(result(&once), Cow::Borrowed(_)), "{}", once);
            prop_assert_eq!(context(&context(&given)), context(&given));
        }

        #[test]
        fn what_is_borrowed_has_no_secrets_and_what_is_owned_differs(given in json()) {
            match result(&given) {
                Cow::Borrowed(same) => prop_assert!(std::ptr::eq(same, &given)),
                Cow::Owned(told) => prop_assert_ne!(told, given),
            }
        }

        #[test]
        fn a_planted_secret_never_survives(
            given in json(),
            secret in prop::sample::select(&[
                r#"{"password": "@"}"#, r#"{"x_token": ["@"]}"#, r#"{"APIKEY": {"a": "@"}}"#, r#""a secret: @ b""#,
                r#""{\"token\": \"@\"}""#, r#"["Bearer @"]"#, r#"{"password=@": 1}"#, r#"{"Authorization": "@"}"#,
            ]),
            at in prop::collection::vec(any::<usize>(), 4),
        ) {
            let secret = serde_json::from_str(&secret.replace('@', "Zq9Xw7")).expect("JSON");
            let planted = plant(&given, &secret, &mut at.into_iter());
            prop_assert!(planted.to_string().contains("Zq9Xw7"));

            prop_assert!(!result(&planted).to_string().contains("Zq9Xw7"), "{}", planted);
            prop_assert!(!context(&planted).to_string().contains("Zq9Xw7"), "{}", planted);
        }
    }
}
