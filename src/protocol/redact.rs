//! What of a request, an answer or a log line may be kept: JSON and text without their secrets, and not too long.
//!
//! For the audit log and for logs. Secrets are known by the names of their keys, at any depth; by names in text,
//! which [`sanitise::text_by`] finds; and by the forms of the tokens that are in use here. It differs from
//! [`sanitise`], which tells watchers of results, in that it knows more names, redacts numbers too, and bounds what
//! it makes.
//!
//! Source: the contract of the Elixir deployment, section 6.6.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::protocol::workflow::sanitise;
pub use crate::protocol::workflow::sanitise::REDACTED;

/// What stands for what is too deep, or behind the bytes that are kept.
pub const LEFT_OUT: &str = "[LEFT OUT]";
/// Arrays and objects inside one another; what is deeper is left out.
pub const DEPTH_MAX: usize = 32;
/// Bytes of one string, a key too. A longer one is cut, and its length said behind it.
pub const STRING_BYTES_MAX: usize = 2_048;
/// Bytes of a whole value, more or less: what follows once they are reached is left out.
pub const VALUE_BYTES_MAX: usize = 32_768;

/// What stands for a token in text; [`sanitise::text_by`] has the same.
const MASK: &str = "***";
/// Names of secrets beside those that [`sanitise::names_secret`] knows, without `_` and `-`, in lower case.
const NAMES: [&str; 7] = ["passwd", "passphrase", "pwd", "cookie", "privatekey", "accesskey", "jwt"];
/// How tokens begin, and how many bytes have to follow so that it is one and not a word: Phoenix's signed tokens with
/// SHA-256, 384 and 512, its encrypted ones, JSON Web Tokens (`{"` in base64), the deployment's API keys and ours, and the
/// subprotocol in which phoenix.js brings its token.
const TOKENS: [(&str, usize); 9] = [
    ("SFMyNTY.", 4),
    ("SFMzODQ.", 4),
    ("SFM1MTI.", 4),
    ("QTEyOEdDTQ.", 4),
    ("XCP.", 16),
    ("eyJ", 12),
    ("rubberduck_", 16),
    ("bennu_", 24),
    ("base64url.bearer.phx.", 1),
];

/// The first bytes of [`TOKENS`].
const TOKEN_STARTS: &[u8] = b"SQXerb";

/// Whether a key, or a word of a text, names a secret: one that [`sanitise::names_secret`] knows, or one that
/// contains, in whatever case, `passwd`, `passphrase`, `pwd`, `cookie`, `private_key`, `access_key` or `jwt`.
///
/// A session's id is none: the log needs it.
pub fn names_secret(name: &str) -> bool {
    if sanitise::names_secret(name) {
        return true;
    }
    (0..name.len()).any(|at| {
        let letters = || name.as_bytes()[at..].iter().filter(|byte| !matches!(byte, b'_' | b'-'));
        let begins = |secret: &&str| {
            let mut letters = letters();
            secret.bytes().all(|wanted| letters.next().is_some_and(|byte| byte.to_ascii_lowercase() == wanted))
        };
        // Whoever begins with a separator is found one byte further.
        name.as_bytes()[at].is_ascii_alphabetic() && NAMES.iter().any(begins)
    })
}

/// A value as it may be kept: its secrets redacted, and its strings and itself cut to what is kept of one.
///
/// What stands under a key that [`names_secret`] becomes [`REDACTED`], whatever it is; only booleans and nulls stay,
/// and numbers where the key has `tokens` in it, since these count. All other strings, keys too, are those of
/// [`text`]. Arrays and objects keep what fits into [`VALUE_BYTES_MAX`]; the rest of an array is one [`LEFT_OUT`],
/// that of an object a field of that name with the number of fields.
pub fn value(value: &Value) -> Value {
    Keeping { bytes_left: VALUE_BYTES_MAX }.value(value, DEPTH_MAX)
}

/// The value of JSON in text, as [`value`] has it; text that is no JSON as a string.
pub fn json(json: &str) -> Value {
    match serde_json::from_str(json) {
        Ok(read) => value(&read),
        Err(_) => Value::String(text(json).into_owned()),
    }
}

/// Text as it may be kept: without secrets, and at most [`STRING_BYTES_MAX`] of it, `… (N bytes)` beside.
///
/// Masked are the values that [`sanitise::text_by`] finds behind names of secrets and behind `Bearer`, and tokens by
/// their form, wherever they stand. Takes time linear in the text.
pub fn text(text: &str) -> Cow<'_, str> {
    let named = sanitise::text_by(text, names_secret);
    let masked = match without_tokens(&named) {
        Some(masked) => Cow::Owned(masked),
        None => named,
    };
    if masked.len() <= STRING_BYTES_MAX {
        return masked;
    }
    let kept = masked.floor_char_boundary(STRING_BYTES_MAX);
    Cow::Owned(format!("{}… ({} bytes)", &masked[..kept], text.len()))
}

/// The text with its tokens masked, if it has any.
fn without_tokens(text: &str) -> Option<String> {
    let mut masked = String::new();
    let (mut copied, mut at) = (0, 0);
    while let Some(found) = text.as_bytes()[at..].iter().position(|byte| TOKEN_STARTS.contains(byte)) {
        at += found;
        match token_end(&text.as_bytes()[at..]) {
            Some(length) => {
                masked.push_str(&text[copied..at]);
                masked.push_str(MASK);
                at += length;
                copied = at;
            }
            None => at += 1,
        }
    }
    (copied > 0).then(|| masked + &text[copied..])
}

/// Bytes of the token at the beginning of the text, if one is there: as far as its characters go, which are ASCII.
fn token_end(text: &[u8]) -> Option<usize> {
    let (prefix, rest) = TOKENS.iter().find(|(prefix, _)| text.starts_with(prefix.as_bytes()))?;
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.+/=~%".contains(byte);
    // A prefix that is none leaves the search one byte further, so that the whole stays linear.
    let enough = text[prefix.len()..].iter().take(*rest).filter(|byte| is_part(byte)).count() == *rest;
    enough.then(|| text.iter().take_while(|byte| is_part(byte)).count())
}

/// What is kept of a value.
struct Keeping {
    bytes_left: usize,
}

impl Keeping {
    fn value(&mut self, value: &Value, levels: usize) -> Value {
        match value {
            Value::String(string) => self.string(string),
            Value::Array(_) | Value::Object(_) if levels == 0 => self.take(Value::from(LEFT_OUT)),
            Value::Array(items) => {
                let mut kept = Vec::new();
                for item in items {
                    if !self.has_room() {
                        kept.push(Value::from(LEFT_OUT));
                        break;
                    }
                    kept.push(self.value(item, levels - 1));
                }
                self.take(Value::Array(kept))
            }
            Value::Object(fields) => {
                let mut kept = Map::new();
                for (n, (key, value)) in fields.iter().enumerate() {
                    if !self.has_room() {
                        kept.insert(LEFT_OUT.to_owned(), Value::from(fields.len() - n));
                        break;
                    }
                    let told = text(key).into_owned();
                    self.spend(told.len());
                    let is_secret = names_secret(key) && !is_harmless(key, value);
                    let value =
                        if is_secret { self.take(Value::from(REDACTED)) } else { self.value(value, levels - 1) };
                    kept.insert(told, value);
                }
                self.take(Value::Object(kept))
            }
            other => self.take(other.clone()),
        }
    }

    fn string(&mut self, string: &str) -> Value {
        let told = text(string).into_owned();
        self.spend(told.len());
        Value::String(told)
    }

    /// Counts what a value costs beside the texts in it.
    fn take(&mut self, value: Value) -> Value {
        self.spend(if let Value::String(text) = &value { text.len() } else { 0 });
        value
    }

    /// Counts bytes, and what JSON has around them.
    fn spend(&mut self, bytes: usize) {
        self.bytes_left = self.bytes_left.saturating_sub(bytes + 4);
    }

    fn has_room(&self) -> bool {
        self.bytes_left > 0
    }
}

/// Whether a value may stay although its key names a secret.
fn is_harmless(key: &str, value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) => true,
        Value::Number(_) => key.to_ascii_lowercase().contains("tokens"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const SECRET: &str = "Zq9Xw7Zq9Xw7Zq9Xw7";

    #[test]
    fn keys_that_name_secrets_are_redacted_at_any_depth() {
        for key in [
            "password",
            "DB_PASSWORD",
            "passwd",
            "pwd",
            "token",
            "authToken",
            "client_secret",
            "apiKey",
            "api_key",
            "x-api-key",
            "credentials",
            "Authorization",
            "Set-Cookie",
            "cookies",
            "private_key",
            "privateKey",
            "ACCESS-KEY",
            "accessKeyId",
            "passphrase",
            "id_jwt",
            "secret_key_base",
        ] {
            for secret in [json!("x"), json!(["x"]), json!({"a": "x"}), json!(1234)] {
                let given = json!({"a": [{"b": {key: secret, "c": 1}}]});
                assert_eq!(value(&given), json!({"a": [{"b": {key: "[REDACTED]", "c": 1}}]}), "{key}");
            }
        }
    }

    #[test]
    fn counts_switches_and_session_ids_stay() {
        let given = json!({
            "max_tokens": 512, "has_password": true, "token": null, "session_id": "mcp_session_1", "progress": 0.5,
        });

        assert_eq!(value(&given), given);
    }

    #[track_caller]
    fn check(given: &str, expected: &str) {
        assert_eq!(text(given), expected);
    }

    #[test]
    fn secrets_in_text_are_masked_by_their_names() {
        check("login with password=hunter2 failed", "login with password=*** failed");
        check("passwd: x, user: bob", "passwd=*** user: bob");
        check("Authorization: Bearer abc\nHost: x", "Authorization=***\nHost: x");
        check("Cookie: a=b; c=d\nHost: x", "Cookie=***\nHost: x");
        check(r#"{"private_key":"abc","n":1}"#, r#"{"private_key":"***","n":1}"#);
    }

    #[test]
    fn tokens_in_text_are_masked_by_their_form() {
        check("got SFMyNTY.g2gDbQ.abc-_, dropped", "got ***, dropped");
        check("xSFM1MTI.g2gDbQ.abc=", "x***");
        check("GET /ws?a=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln&vsn=2.0.0", "GET /ws?a=***&vsn=2.0.0");
        check("key rubberduck_YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXo0NTY3ODk+/ ok", "key *** ok");
        check("phoenix, base64url.bearer.phx.U0ZNeU5UWQ", "phoenix, ***");
        check("QTEyOEdDTQ.abc.def XCP.YWJjZGVmZ2hpamts XCP.v1", "*** *** XCP.v1");
        check("a rubberduck_server with eyJ and SFMyNTY. in it", "a rubberduck_server with eyJ and SFMyNTY. in it");
    }

    #[test]
    fn a_token_is_looked_for_where_one_may_start() {
        assert!(TOKENS.iter().all(|(prefix, _)| TOKEN_STARTS.contains(&prefix.as_bytes()[0])));
    }

    #[test]
    fn keys_are_texts_too() {
        assert_eq!(
            value(&json!({"password=x": 1, "eyJhbGciOiJIUzI1NiJ9": 2})),
            json!({"password=***": "[REDACTED]", "***": 2})
        );
    }

    #[test]
    fn long_strings_are_cut_with_their_length() {
        let long = "é".repeat(3_000);
        let expected = format!("{}… (6000 bytes)", "é".repeat(STRING_BYTES_MAX / 2));

        check(&long, &expected);
        assert_eq!(value(&json!([long])), json!([expected]));
        check(&format!("{}é", "x".repeat(2_047)), &format!("{}… (2049 bytes)", "x".repeat(2_047)));
        assert!(matches!(text(&"x".repeat(STRING_BYTES_MAX)), Cow::Borrowed(_)));
    }

    #[test]
    fn what_is_too_deep_is_left_out() {
        let nest = |levels: usize| (0..levels).fold(json!("x"), |inner, _| json!([inner]));

        assert_eq!(value(&nest(DEPTH_MAX)), nest(DEPTH_MAX));
        let told = value(&nest(DEPTH_MAX + 1)).to_string();
        assert!(told.contains(LEFT_OUT) && !told.contains('x'), "{told}");
    }

    #[test]
    fn what_is_too_long_is_left_out() {
        let list = value(&Value::from(vec![json!("x".repeat(1_000)); 100]));
        let list = list.as_array().unwrap();
        assert_eq!((list.len(), list.last()), (34, Some(&json!(LEFT_OUT))));

        let fields: Map<_, _> = (0..10_000).map(|n| (format!("{n:05}"), json!(n))).collect();
        let told = value(&Value::Object(fields));
        let kept = told.as_object().unwrap().len() - 1;
        assert_eq!(told[LEFT_OUT], json!(10_000 - kept));
        assert!(told.to_string().len() < 2 * VALUE_BYTES_MAX);
    }

    #[test]
    fn json_is_read_and_other_text_is_masked() {
        assert_eq!(json(r#"{"token":"x"}"#), json!({"token": "[REDACTED]"}));
        assert_eq!(json(r#"{"token":"x"#), json!(r#"{"token":"***""#));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let key = prop_oneof!["[ab]", Just("max_tokens".to_owned()), Just("Cookie".to_owned())];
        let leaf =
            prop_oneof!["[a =eSé]{0,5}".prop_map(Value::from), any::<i8>().prop_map(Value::from), Just(Value::Null)];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key.clone(), inner, 0..4).prop_map(|fields| fields.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_024))]

        #[test]
        fn a_planted_secret_never_survives(
            given in any_json(),
            form in prop::sample::select(&[
                r#"{"passwd": "@"}"#, r#"{"a": [{"X-Access-Key": ["@"]}]}"#, r#"{"JWT": {"a": "@"}}"#, r#""a secret: @ b""#,
                r#""{\"token\": \"@\"}""#, r#"["Bearer @"]"#, r#"{"password=@": 1}"#, r#"{"a": "Cookie: a; @"}"#,
                r#"{"a": "xSFMyNTY.@"}"#, r#"{"eyJ@": 1}"#, r#"["rubberduck_@"]"#, r#""base64url.bearer.phx.@""#,
                r#"{"rubberduck_@": {"a": 1}}"#,
            ]),
            before in "[a =:\"Se]{0,4}",
        ) {
            let secret: Value = serde_json::from_str(&form.replace('@', SECRET)).expect("JSON");
            for planted in [json!([given, secret]), json!({"a": {"b": secret}, "c": given})] {
                prop_assert!(!value(&planted).to_string().contains(SECRET), "{}", planted);
            }
            let planted = format!("{before} {secret}");
            prop_assert!(!text(&planted).contains(SECRET), "{}", planted);
        }

        #[test]
        fn any_text_is_masked_and_short(given in any::<String>()) {
            prop_assert!(text(&given).len() <= STRING_BYTES_MAX + 32);
        }

        #[test]
        fn what_has_no_secret_stays(given in "[abcdfghklmnopqstuvxyz ,.{}éß]{0,60}") {
            prop_assert_eq!(text(&given), given.as_str());
        }
    }
}
