//! Checks of tokens as lines of JSON, for the command line.

use serde::Serialize;
use serde_json::value::RawValue;

use super::line::{Line, write};
use super::{KeyError, KeyRing, TokenError, decrypt, verify};
use crate::protocol::etf::{self, Term};

/// Most bytes of the JSON of a token's data; above it is left out, and the tagged form alone is given.
const DATA_JSON_BYTES_MAX: usize = 60_000;

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    verdict: &'static str,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct Data {
    data: Box<RawValue>,
    data_json: Option<String>,
}

/// Checks the token of one line and says what came out, as one line without its end.
///
/// The line is a JSON object with `token` (null is none), `secret_key_base`, `salt`, and where they differ from
/// Phoenix's defaults `fun` (`verify` or `decrypt`), `key_iterations`, `key_length`, `key_digest`, `max_age` (seconds
/// or `infinity`) and `now_ms`, the time of the check, for which `now_ms` stands in. Other fields are ignored; `id` is
/// given back.
///
/// The answer has `verdict`: `ok` with `data` as a tagged term and `data_json` as JSON text or null, `expired`,
/// `invalid`, `missing`, or `error` with what is wrong with the line. Options that make Plug.Crypto raise make a token
/// `invalid`.
pub fn check_line(line: &str, now_ms: u64, keys: &mut KeyRing) -> String {
    let read = Line::read(line);
    let id = read.as_ref().ok().and_then(Line::id);
    match read.as_ref().map_err(Clone::clone).and_then(|line| check(line, now_ms, keys)) {
        Ok(Ok(term)) => {
            let data = RawValue::from_string(etf::to_tagged(&term)).expect("the tagged form is JSON");
            let data = Data { data, data_json: etf::to_json(&term, DATA_JSON_BYTES_MAX) };
            write(&Answer { id, verdict: "ok", data: Some(data), error: None })
        }
        Ok(Err(error)) => {
            let verdict = match error {
                TokenError::Invalid => "invalid",
                TokenError::Expired => "expired",
                TokenError::Missing => "missing",
            };
            write(&Answer { id, verdict, data: None, error: None })
        }
        Err(error) => write(&Answer { id, verdict: "error", data: None, error: Some(error) }),
    }
}

fn check(line: &Line<'_>, now_ms: u64, keys: &mut KeyRing) -> Result<Result<Term, TokenError>, String> {
    let fun = line.string(&["fun"])?;
    let decrypts = match fun.as_deref() {
        None | Some("verify") => false,
        Some("decrypt") => true,
        Some(_) => return Err("expected fun to be verify or decrypt, came another".to_string()),
    };
    let fields = line.key()?;
    if !line.has("token") {
        return Err("expected token to be a string or null, came nothing".to_string());
    }
    let token = line.string(&["token"])?;
    let max_age = line.max_age(&["max_age"])?;
    let now_ms = match line.int(&["now_ms"])? {
        Some(now) => u64::try_from(now).map_err(|_| "expected now_ms to be 0 or more, came less".to_string())?,
        None => now_ms,
    };
    let key = match keys.key(&fields.secret_key_base, &fields.salt, &fields.options) {
        Ok(key) => key,
        Err(KeyError::Secret { .. } | KeyError::Iterations { came: 0 } | KeyError::Length { came: 0 }) => {
            return Ok(Err(TokenError::Invalid));
        }
        Err(error) => return Err(error.to_string()),
    };
    let token = token.as_deref();
    Ok(if decrypts { decrypt(&key, token, max_age, now_ms) } else { verify(&key, token, max_age, now_ms) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn check(line: &str) -> String {
        check_line(line, NOW, &mut KeyRing::default())
    }

    #[test]
    fn a_malformed_line_is_answered_without_its_text() {
        let secret = "hidden hidden hidden hidden";
        let filled = |fields: &str| format!(r#"{{"secret_key_base":"{secret}","salt":"s","token":"x"{fields}}}"#);
        for (line, error) in [
            ("", "expected a JSON object, came nothing"),
            ("[1]", "expected a JSON object, came an array"),
            (r#"{"secret_key_base":"hidden""#, "expected a JSON object, came an object"),
            ("{}", "expected secret_key_base to be a string, came nothing"),
            (r#"{"secret_key_base":["hidden"]}"#, "expected secret_key_base to be a string, came an array"),
            (r#"{"secret_key_base":"hidden"}"#, "expected salt to be a string, came nothing"),
            (r#"{"secret_key_base":"hidden","salt":""}"#, "expected token to be a string or null, came nothing"),
            (&filled(r#","fun":"hidden""#), "expected fun to be verify or decrypt, came another"),
            (&filled(r#","now_ms":-1"#), "expected now_ms to be 0 or more, came less"),
            (&filled(r#","now_ms":"hidden""#), "expected now_ms to be an integer, came a string"),
            (
                &filled(r#","max_age":"hidden""#),
                "expected max_age to be a number of seconds or \"infinity\", came a string",
            ),
            (&filled(r#","key_digest":"hidden""#), "expected key_digest to be sha, sha224, sha256, sha384 or sha512"),
            (&filled(r#","key_iterations":9e99"#), "expected key_iterations to be an integer, came a number"),
            (&filled(r#","key_length":99999"#), "expected key_length from 1 to 1024, came 99999"),
        ] {
            let answer: serde_json::Value = serde_json::from_str(&check(line)).unwrap();
            assert_eq!(answer, serde_json::json!({"verdict": "error", "error": error}));
        }
    }

    #[test]
    fn options_that_make_plug_crypto_raise_make_the_token_invalid() {
        for fields in [
            r#""secret_key_base":"0123456789012345678""#,
            r#""secret_key_base":"01234567890123456789","key_iterations":0"#,
            r#""secret_key_base":"01234567890123456789","key_length":0"#,
        ] {
            let line = format!(r#"{{"id":[1],"salt":"s","token":null,{fields}}}"#);
            assert_eq!(check(&line), r#"{"id":[1],"verdict":"invalid"}"#);
        }
    }

    #[test]
    fn the_time_is_the_lines_or_else_the_given_one() {
        let line = |fields: &str| format!(r#"{{"secret_key_base":"01234567890123456789","salt":"s"{fields}}}"#);
        let signed = super::super::sign_line(&line(r#","json":{"a":1}"#), NOW, &mut KeyRing::default());
        let token: serde_json::Value = serde_json::from_str(&signed).unwrap();
        let check = |fields: &str| check(&line(&format!(r#","token":{}{fields}"#, token["token"])));

        let ok = r#"{"verdict":"ok","data":{"t":"map","v":[[{"t":"bin","utf8":"a"},{"t":"int","v":"1"}]]},"data_json":"{\"a\":1}"}"#;
        assert_eq!(check(""), ok);
        assert_eq!(check(r#","now_ms":null,"max_age":1,"expect":"x","other":[]"#), ok);
        assert_eq!(check(r#","now_ms":1700086400000"#), ok);
        assert_eq!(check(r#","now_ms":1700086400001"#), r#"{"verdict":"expired"}"#);
        assert_eq!(check(r#","now_ms":1699999999999"#), r#"{"verdict":"invalid"}"#);
    }
}
