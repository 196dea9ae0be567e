//! What a token says: its JSON read strictly, its times held against a time that is given, its names mapped to ours.
//!
//! Source: RFC 7519 section 4; RFC 8725 section 2.
//!
//! Nothing here trusts or checks a signature.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::Why;

/// Arrays and objects inside one another, in a header or in claims. Keycloak's deepest claim has three.
pub const CLAIMS_DEPTH_MAX: usize = 16;
/// Bytes of a user's id. It becomes a part of topics.
pub const USER_BYTES_MAX: usize = 255;

/// Where in the claims stand the user, the roles and the capabilities.
///
/// A name is tried as the exact key first (`https://example.com/roles`), then as a path whose keys are joined by dots
/// (`realm_access.roles`). Roles and capabilities are text with spaces between them or a list of texts; a claim that is
/// not there, or of another kind, grants none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimMap {
    /// The user's id: a text that is not empty, or a whole number.
    pub user: String,
    /// Of the user's id only what follows this text counts, if it is in it exactly once: `id=` of `user?id=<uuid>`.
    ///
    /// Source: the Elixir deployment, section 1.2.
    pub user_prefix_strip: Option<String>,
    /// The roles.
    pub roles: String,
    /// The capabilities.
    pub capabilities: String,
}

impl Default for ClaimMap {
    fn default() -> Self {
        ClaimMap {
            user: "sub".to_owned(),
            user_prefix_strip: None,
            roles: "roles".to_owned(),
            capabilities: "scope".to_owned(),
        }
    }
}

impl ClaimMap {
    pub(super) fn user(&self, claims: &Map<String, Value>) -> Result<String, Why> {
        let user = match find(claims, &self.user) {
            Some(Value::String(user)) => user.clone(),
            Some(Value::Number(user)) if user.is_u64() || user.is_i64() => user.to_string(),
            _ => return Err(Why::NoUser),
        };
        let user = match &self.user_prefix_strip {
            Some(prefix) if !prefix.is_empty() => match user.split(prefix.as_str()).collect::<Vec<_>>()[..] {
                [_, id] => id.to_owned(),
                _ => user,
            },
            _ => user,
        };
        let is_good = !user.is_empty() && user.len() <= USER_BYTES_MAX && !user.contains(char::is_control);
        if is_good { Ok(user) } else { Err(Why::NoUser) }
    }

    pub(super) fn roles(&self, claims: &Map<String, Value>) -> Vec<String> {
        texts(find(claims, &self.roles))
    }

    pub(super) fn capabilities(&self, claims: &Map<String, Value>) -> Vec<String> {
        texts(find(claims, &self.capabilities))
    }
}

fn texts(claim: Option<&Value>) -> Vec<String> {
    match claim {
        Some(Value::String(text)) => text.split_ascii_whitespace().map(str::to_owned).collect(),
        Some(Value::Array(texts)) => texts.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

fn find<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(exact) = claims.get(path) {
        return Some(exact);
    }
    path.match_indices('.').find_map(|(dot, _)| find(claims.get(&path[..dot])?.as_object()?, &path[dot + 1..]))
}

/// Whether a claim is one of those that are wanted: any if none is. One that ends with `*` is a beginning.
pub(super) fn is_one_of(wanted: &[String], claim: Option<&Value>) -> bool {
    let is_wanted = |came: &str| {
        wanted.iter().any(|wanted| match wanted.strip_suffix('*') {
            Some(beginning) => came.starts_with(beginning),
            None => wanted == came,
        })
    };
    match claim {
        _ if wanted.is_empty() => true,
        Some(Value::String(came)) => is_wanted(came),
        // Several audiences: one has to be ours. Source: RFC 7519 section 4.1.3.
        Some(Value::Array(came)) => came.iter().filter_map(Value::as_str).any(is_wanted),
        _ => false,
    }
}

/// The times that a token names, in Unix milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    expires: Option<u64>,
    not_before: Option<u64>,
    issued: Option<u64>,
}

impl Times {
    pub(super) fn of(claims: &Map<String, Value>) -> Result<Self, Why> {
        let time = |name| claims.get(name).map(unix_ms).transpose();
        Ok(Times { expires: time("exp")?, not_before: time("nbf")?, issued: time("iat")? })
    }

    /// Returns when the token stops being good: at its expiry and the leeway.
    pub(super) fn check(self, now_unix_ms: u64, leeway_ms: u64, require_exp: bool) -> Result<Option<u64>, Why> {
        let is_ahead = |time: Option<u64>| time.is_some_and(|time| time > now_unix_ms.saturating_add(leeway_ms));
        if is_ahead(self.not_before) || is_ahead(self.issued) {
            return Err(Why::NotYet);
        }
        let end = self.expires.map(|expires| expires.saturating_add(leeway_ms));
        match end {
            None if require_exp => Err(Why::NoExpiry),
            // On the second itself it is over. Source: RFC 7519 section 4.1.4.
            Some(end) if end <= now_unix_ms => Err(Why::Expired),
            end => Ok(end),
        }
    }
}

/// Reads seconds, with a fraction or without, before the epoch as the epoch. Source: RFC 7519 section 2, `NumericDate`.
fn unix_ms(date: &Value) -> Result<u64, Why> {
    if let Some(seconds) = date.as_u64() {
        return Ok(seconds.saturating_mul(1_000));
    }
    let seconds = date.as_f64().filter(|seconds| seconds.is_finite()).ok_or(Why::Malformed)?;
    // Such a cast ends at the bounds of u64.
    Ok((seconds * 1_000.0) as u64)
}

/// Reads a JSON object in which no key comes twice and nothing is nested deeper than [`CLAIMS_DEPTH_MAX`].
///
/// A repeated key is what two parsers read differently: one of them would check another value than the one that counts.
pub(super) fn object(json: &[u8]) -> Result<Map<String, Value>, Why> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    Strict { depth_left: CLAIMS_DEPTH_MAX }.deserialize(&mut reader).map_err(|_| Why::Malformed)?;
    serde_json::from_slice(json).map_err(|_| Why::Malformed)
}

/// Passes over a value, or fails. It keeps nothing, so that it does not depend on how serde_json hands numbers over.
#[derive(Clone, Copy)]
struct Strict {
    depth_left: usize,
}

impl Strict {
    fn inside<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth_left = self.depth_left.checked_sub(1).ok_or_else(|| E::custom("nested too deep"))?;
        Ok(Strict { depth_left })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without repeated keys")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        while items.next_element_seed(inside)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        let mut keys = BTreeSet::new();
        while let Some(key) = fields.next_key::<String>()? {
            if !keys.insert(key) {
                fields.next_value::<IgnoredAny>()?;
                return Err(A::Error::custom("a key comes twice"));
            }
            fields.next_value_seed(inside)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: &Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn a_name_is_an_exact_key_first_and_a_path_then() {
        let found = |path: &str| {
            let claims = claims(&json!({
                "a": {"b": {"c": 1}, "x.y": {"z": 2}}, "a.b": {"c": 3}, "https://example.com/roles": 4, "a.b.d": 5,
            }));
            find(&claims, path).and_then(Value::as_u64)
        };

        assert_eq!(found("https://example.com/roles"), Some(4));
        assert_eq!(found("a.b.c"), Some(1));
        assert_eq!(found("a.x.y.z"), Some(2));
        assert_eq!(found("a.b.d"), Some(5));
        for absent in ["", ".", "a.", ".a", "a..b", "a.b.e", "b.c", "a.b.c.d"] {
            assert_eq!(found(absent), None, "{absent}");
        }
    }

    #[test]
    fn the_users_id_is_what_follows_the_prefix_that_comes_once() {
        let map = ClaimMap { user_prefix_strip: Some("id=".to_owned()), ..ClaimMap::default() };
        let user = |sub: Value| map.user(&claims(&json!({ "sub": sub }))).ok();

        assert_eq!(user(json!("user?id=42-a")).as_deref(), Some("42-a"));
        assert_eq!(user(json!("alice")).as_deref(), Some("alice"));
        assert_eq!(user(json!("user?id=1&id=2")).as_deref(), Some("user?id=1&id=2"));
        assert_eq!(user(json!("user?id=")), None);
    }

    #[test]
    fn a_user_is_a_short_text_or_a_whole_number() {
        let user = |sub: Value| ClaimMap::default().user(&claims(&json!({ "sub": sub }))).ok();

        assert_eq!(user(json!(42)).as_deref(), Some("42"));
        assert!(user(json!("u".repeat(USER_BYTES_MAX))).is_some());
        let long = "u".repeat(USER_BYTES_MAX + 1);
        for bad in [json!(""), json!(null), json!(1.5), json!(["alice"]), json!({}), json!("a\nb"), json!(long)] {
            assert_eq!(user(bad.clone()), None, "{bad}");
        }
    }

    #[test]
    fn roles_are_words_or_a_list_and_anything_else_grants_none() {
        let roles = |value: Value| ClaimMap::default().roles(&claims(&json!({ "roles": value })));

        assert_eq!(roles(json!(" a  b ")), ["a", "b"]);
        assert_eq!(roles(json!(["a b", 1, null, ["c"], "d"])), ["a b", "d"]);
        for none in [json!(null), json!(1), json!(true), json!({"admin": true}), json!([])] {
            assert!(roles(none.clone()).is_empty(), "{none}");
        }
    }

    #[test]
    fn issuers_and_audiences_are_exact_or_a_beginning() {
        let wanted = ["bennu".to_owned(), "AshAuthentication*".to_owned()];
        let fits = |claim: Value| is_one_of(&wanted, Some(&claim));

        assert!(fits(json!("bennu")) && fits(json!(["other", "bennu"])) && fits(json!("AshAuthentication v4.9.7")));
        for other in [json!("Bennu"), json!("bennu2"), json!(""), json!([]), json!([["bennu"]]), json!({"bennu": 1})] {
            assert!(!fits(other.clone()), "{other}");
        }
        assert!(!is_one_of(&wanted, None));
        assert!(is_one_of(&[], None));
    }

    #[test]
    fn times_are_held_against_the_one_given_with_leeway() {
        let check = |value: Value, now| {
            Times::of(&claims(&value)).and_then(|times| times.check(now, 5_000, true)).map_err(|why| why.to_string())
        };
        let expired = Err(Why::Expired.to_string());
        let not_yet = Err(Why::NotYet.to_string());

        assert_eq!(check(json!({"exp": 100}), 104_999), Ok(Some(105_000)));
        assert_eq!(check(json!({"exp": 100}), 105_000), expired);
        assert_eq!(check(json!({"exp": 100.5}), 105_499), Ok(Some(105_500)));
        assert_eq!(check(json!({"exp": -1}), 5_000), expired);
        assert_eq!(check(json!({"exp": 1e300}), 5_000), Ok(Some(u64::MAX)));
        assert_eq!(check(json!({"exp": u64::MAX}), u64::MAX - 1), Ok(Some(u64::MAX)));
        for name in ["nbf", "iat"] {
            assert_eq!(check(json!({"exp": 200, name: 100}), 95_000), Ok(Some(205_000)));
            assert_eq!(check(json!({"exp": 200, name: 100}), 94_999), not_yet);
        }
        for name in ["exp", "nbf", "iat"] {
            for bad in [json!("100"), json!(null), json!([]), json!(true)] {
                let mut given = json!({"exp": 100});
                given[name] = bad;
                assert_eq!(check(given.clone(), 0), Err(Why::Malformed.to_string()), "{given}");
            }
        }
        assert_eq!(check(json!({}), 0), Err(Why::NoExpiry.to_string()));
    }

    #[test]
    fn repeated_keys_and_deep_nesting_are_refused() {
        let nested = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));

        assert!(object(nested(CLAIMS_DEPTH_MAX).as_bytes()).is_ok());
        assert!(object(nested(CLAIMS_DEPTH_MAX + 1).as_bytes()).is_err());
        let refused = [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"a":[{"b":1,"b":2}]}"#,
            r#"{"a":1}x"#,
            "[]",
            "1",
            "",
            r#"{"a":1e999}"#,
            "{\"a\":\"\u{0}\"}",
        ];
        for text in refused {
            assert!(object(text.as_bytes()).is_err(), "{text}");
        }
        assert!(object(br#"{"a":1,"b":{"a":1.5},"c":[null,true,-1,"x"]}"#).is_ok());
        assert!(object(b"{\"a\":\"\xff\"}").is_err());
    }
}
