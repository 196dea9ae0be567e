//! Tokens made from lines of JSON, for the command line.

use serde::Serialize;
use serde_json::value::RawValue;

use super::line::{Line, write, wrong};
use super::{KeyRing, MacDigest, MaxAge, encrypt, limited, payload, sign, sign_message};
use crate::protocol::etf::{self, Term};

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Makes the token of one line and gives it back as one line without its end.
///
/// The line is a JSON object with `secret_key_base`, `salt` and the data: `data` as a tagged term, `json` as any JSON,
/// or `data_json` as text that is JSON. Where they differ from Phoenix's defaults it has `fun` (`sign` or `encrypt`),
/// `key_iterations`, `key_length`, `key_digest`, `signed_at` (seconds) or `signed_at_ms`, for which `now_ms` stands in,
/// and `max_age` (seconds or `infinity`). `mac_digest` signs as MessageVerifier does, with sha256, sha384 or sha512.
/// Fields may stand in an object `sign` too, and `api`, `signed_at_option_s`, `max_age_option_s` and
/// `max_age_in_token_s` stand for the same, as in a description of a token. Other fields are ignored; `id` is given
/// back.
///
/// The answer has `token`, or `error` with what is wrong with the line.
pub fn sign_line(line: &str, now_ms: u64, keys: &mut KeyRing) -> String {
    let read = Line::read(line).map(|line| line.with_object("sign"));
    let id = read.as_ref().ok().and_then(Line::id);
    match read.as_ref().map_err(Clone::clone).and_then(|line| token(line, now_ms, keys)) {
        Ok(token) => write(&Answer { id, token: Some(token), error: None }),
        Err(error) => write(&Answer { id, token: None, error: Some(error) }),
    }
}

fn token(line: &Line<'_>, now_ms: u64, keys: &mut KeyRing) -> Result<String, String> {
    let encrypts = encrypts(line)?;
    let fields = line.key()?;
    let data = data(line)?;
    let signed_at_ms = signed_at_ms(line, now_ms)?;
    let max_age = line.max_age(&["max_age", "max_age_option_s", "max_age_in_token_s"])?.unwrap_or_default();
    if matches!(max_age, MaxAge::Fraction(seconds) if !seconds.is_finite()) {
        return Err("expected max_age to be a 64-bit float, came a greater one".to_string());
    }
    let digest = line.string(&["mac_digest"])?;
    let digest = match digest.as_deref() {
        None | Some("sha256") => MacDigest::Sha256,
        Some("sha384") => MacDigest::Sha384,
        Some("sha512") => MacDigest::Sha512,
        Some(_) => return Err("expected mac_digest to be sha256, sha384 or sha512, came another".to_string()),
    };
    let key = keys.key(&fields.secret_key_base, &fields.salt, &fields.options).map_err(|error| error.to_string())?;
    let token = match (encrypts, digest) {
        (true, _) => encrypt(&key, &data, signed_at_ms, max_age),
        (false, MacDigest::Sha256) => sign(&key, &data, signed_at_ms, max_age),
        (false, digest) => sign_message(&key, digest, &payload(&data, signed_at_ms, max_age)).and_then(limited),
    };
    token.map_err(|error| error.to_string())
}

fn encrypts(line: &Line<'_>) -> Result<bool, String> {
    if let Some(fun) = line.string(&["fun"])? {
        return match fun.as_str() {
            "sign" => Ok(false),
            "encrypt" => Ok(true),
            _ => Err("expected fun to be sign or encrypt, came another".to_string()),
        };
    }
    let Some(api) = line.string(&["api"])? else { return Ok(false) };
    let function = ["Phoenix.Token.", "Plug.Crypto."].iter().find_map(|module| api.strip_prefix(module));
    match function.and_then(|function| function.split(' ').next()) {
        Some("sign") => Ok(false),
        Some("encrypt") => Ok(true),
        _ => Err("expected api to be Phoenix.Token.sign or Phoenix.Token.encrypt, came another".to_string()),
    }
}

fn data(line: &Line<'_>) -> Result<Term, String> {
    if let Some((_, data)) = line.raw(&["data"]) {
        return etf::from_tagged(data).map_err(|error| format!("data: {error}"));
    }
    if let Some((_, json)) = line.raw(&["json"]) {
        return etf::from_json(json).map_err(|error| format!("json: {error}"));
    }
    if let Some((_, text)) = line.raw(&["data_json"]) {
        // What is not text is meant as it stands.
        let json = serde_json::from_str::<String>(text).unwrap_or_else(|_| text.to_string());
        return etf::from_json(&json).map_err(|error| format!("data_json: {error}"));
    }
    if line.has("json") || line.has("data_json") {
        return Ok(Term::nil());
    }
    Err("expected data as a tagged term, json or data_json, came nothing".to_string())
}

/// The time of signing: milliseconds as they are, or seconds, of whose fraction the milliseconds are kept.
fn signed_at_ms(line: &Line<'_>, now_ms: u64) -> Result<i64, String> {
    if let Some(ms) = line.int(&["signed_at_ms"])? {
        return Ok(ms);
    }
    let Some((name, value)) = line.raw(&["signed_at", "signed_at_option_s"]) else {
        return i64::try_from(now_ms).map_err(|_| "expected a time within 64 bits".to_string());
    };
    let far = || wrong(&name, "a number of seconds within 64 bits of milliseconds", value);
    if let Ok(seconds) = serde_json::from_str::<i64>(value) {
        return seconds.checked_mul(1000).ok_or_else(far);
    }
    let ms = serde_json::from_str::<f64>(value).map_err(|_| far())? * 1000.0;
    etf::Int::from_float(ms).as_i64().ok_or_else(far)
}

#[cfg(test)]
mod tests {
    use super::super::check_line;
    use super::*;

    const NOW: u64 = 1_700_000_000_000;
    const KEY: &str = r#""secret_key_base":"hidden hidden hidden hidden","salt":"s""#;

    fn answer(fields: &str) -> serde_json::Value {
        let line = format!("{{{KEY},{fields}}}");
        serde_json::from_str(&sign_line(&line, NOW, &mut KeyRing::default())).unwrap()
    }

    /// Signs, and checks when the token ends to count: it counts at `last_ms` and not a millisecond later.
    fn counts_until(fields: &str, fun: &str, last_ms: u64) {
        let token = answer(fields)["token"].to_string();
        for (now_ms, verdict) in [(last_ms, "ok"), (last_ms + 1, "expired")] {
            let line = format!(r#"{{{KEY},"fun":"{fun}","token":{token},"now_ms":{now_ms}}}"#);
            let checked = check_line(&line, NOW, &mut KeyRing::default());
            assert!(checked.contains(&format!(r#""verdict":"{verdict}""#)), "{fields} {now_ms} {checked}");
        }
    }

    #[test]
    fn options_are_read_by_either_name() {
        counts_until(r#""json":1"#, "verify", NOW + 86_400_000);
        counts_until(r#""json":1,"max_age":1.5"#, "verify", NOW + 1_500);
        counts_until(r#""json":1,"max_age":2,"signed_at":1000.0019,"fun":"encrypt""#, "decrypt", 1_002_001);
        counts_until(
            r#""json":1,"sign":{"api":"Phoenix.Token.encrypt","signed_at_option_s":5,"max_age_option_s":7}"#,
            "decrypt",
            12_000,
        );
        counts_until(
            r#""json":1,"api":"Phoenix.Token.sign","signed_at_option_s":null,"signed_at_ms":9,"max_age_in_token_s":1"#,
            "verify",
            1_009,
        );
        counts_until(r#""json":1,"mac_digest":"sha512","max_age":1"#, "verify", NOW + 1_000);
    }

    #[test]
    fn data_comes_tagged_as_json_or_as_text_of_json() {
        let tokens: Vec<_> = [
            r#""json":{"a":[1,null]}"#,
            r#""data_json":{"a":[1,null]}"#,
            r#""data_json":"{\"a\":[1,null]}""#,
            r#""data":{"t":"map","v":[[{"t":"bin","utf8":"a"},{"t":"list","v":[{"t":"int","v":"1"},{"t":"atom","v":"nil"}]}]]}"#,
        ]
        .map(answer)
        .to_vec();

        assert!(tokens[0]["token"].is_string());
        assert!(tokens.iter().all(|token| *token == tokens[0]));
        assert_eq!(answer(r#""json":null"#), answer(r#""data":{"t":"atom","v":"nil"}"#));
        assert_ne!(answer(r#""json":"1""#), answer(r#""data_json":"1""#));
    }

    #[test]
    fn a_malformed_line_is_answered_without_its_text() {
        let long = format!(r#""json":"{}""#, "x".repeat(1_000_000));
        for (fields, error) in [
            (r#""id":7"#, "expected data as a tagged term, json or data_json, came nothing"),
            (r#""data":"hidden""#, "data: expected a tagged term, an object, came a string"),
            (r#""data_json":"hidden""#, "data_json: expected a JSON value, came other text"),
            (r#""json":1,"fun":"hidden""#, "expected fun to be sign or encrypt, came another"),
            (
                r#""json":1,"api":"hidden""#,
                "expected api to be Phoenix.Token.sign or Phoenix.Token.encrypt, came another",
            ),
            (
                r#""json":1,"signed_at":"hidden""#,
                "expected signed_at to be a number of seconds within 64 bits of milliseconds, came a string",
            ),
            (
                r#""json":1,"signed_at":1e300"#,
                "expected signed_at to be a number of seconds within 64 bits of milliseconds, came a number",
            ),
            (r#""json":1,"fun":"encrypt","key_length":16"#, "key is 16 bytes, expected 32"),
            (r#""json":1,"mac_digest":"none""#, "expected mac_digest to be sha256, sha384 or sha512, came another"),
            (&long, "token would be 1333415 bytes, the limit is 1048576"),
        ] {
            assert_eq!(answer(fields)["error"], error);
        }
        assert_eq!(answer(r#""id":7"#)["id"], 7);
    }
}
