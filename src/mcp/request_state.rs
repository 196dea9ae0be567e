//! The `requestState` of a call that asks its client for more: what is known so far, kept by the client and sealed by us.
//!
//! The client brings it back with its answers, perhaps to another node, so it is all that is remembered. It is signed, not
//! encrypted: the client may read it. What must stay hidden from the client stays out of it.
//!
//! Source: the MCP specification 2026-07-28, multi round-trip requests: treat it as an attacker's, bind it to the user and
//! the request, let it expire. A state may come back several times until it expires; who must prevent that keeps a list.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::protocol::json;
use crate::protocol::jsonrpc::{self, Object};

/// Most bytes of a sealed state as text. It comes back with each round beside the answers, within the bytes of a request.
pub const STATE_BYTES_MAX: usize = 262_144;

/// The first byte, so that another layout can be told from this one.
const VERSION: u8 = 1;
/// Bytes of HMAC-SHA256.
const MAC_BYTES: usize = 32;
/// Params of a request that differ from round to round, or say who carries it and not what is asked.
const PARAMS_LEFT_OUT: [&str; 3] = ["_meta", "inputResponses", "requestState"];

/// What a call knows between two rounds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sealed {
    /// Whose call it is.
    pub user: String,
    /// When it ends to count: milliseconds since 1970.
    pub expires_unix_ms: u64,
    /// The request it belongs to: [`request_digest`].
    #[serde(serialize_with = "write_digest", deserialize_with = "read_digest")]
    pub digest: [u8; 32],
    /// The answers of the rounds before, by the keys that they were asked under.
    pub answers: BTreeMap<String, Box<RawValue>>,
    /// What the tool itself wants to find again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Box<RawValue>>,
}

impl Sealed {
    /// Checks that it belongs to this user and this request.
    ///
    /// # Errors
    /// [`BadState::OtherUser`], [`BadState::OtherRequest`].
    pub fn check(&self, user: &str, digest: &[u8; 32]) -> Result<(), BadState> {
        if self.user != user {
            return Err(BadState::OtherUser);
        }
        if self.digest != *digest {
            return Err(BadState::OtherRequest);
        }
        Ok(())
    }
}

/// Why a state that came back does not count: the client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadState {
    /// Not what we gave, for this purpose and with this secret.
    #[error("requestState: expected the text that the server gave, unchanged")]
    Forged,
    /// Ours, and too old.
    #[error("requestState: expired")]
    Expired,
    /// Given to another user.
    #[error("requestState: expected one given to this user")]
    OtherUser,
    /// Given for a request with another method or other params.
    #[error("requestState: expected one given for this request, came one for another")]
    OtherRequest,
}

/// A state is more than a client can bring back: the fault of the tool that wants to keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("request state is {came} bytes sealed, the limit is {max}", max = STATE_BYTES_MAX)]
pub struct StateTooLarge {
    /// Bytes as text.
    pub came: usize,
}

/// Seals states and opens them; nodes with the same secret open each other's.
#[derive(Clone)]
pub struct Sealer([u8; 32]);

impl Sealer {
    /// A sealer with a key derived from the server's secret.
    pub fn new(secret: &[u8]) -> Self {
        Sealer(mac(secret, &[b"bennu mcp request state"]).finalize().into_bytes().into())
    }

    /// Seals a state. `purpose` is a word of ours; what is sealed for one purpose opens for no other.
    ///
    /// # Errors
    /// [`StateTooLarge`] above [`STATE_BYTES_MAX`].
    pub fn seal(&self, sealed: &Sealed, purpose: &str) -> Result<String, StateTooLarge> {
        let body = jsonrpc::raw(sealed);
        let mut bytes = Vec::with_capacity(1 + MAC_BYTES + body.get().len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.mac(purpose, body.get().as_bytes()).finalize().into_bytes());
        bytes.extend_from_slice(body.get().as_bytes());
        let text = BASE64_URL_SAFE_NO_PAD.encode(bytes);
        if text.len() > STATE_BYTES_MAX {
            return Err(StateTooLarge { came: text.len() });
        }
        Ok(text)
    }

    /// Opens what [`Sealer::seal`] made for the same purpose. Whose it is says [`Sealed::check`].
    ///
    /// # Errors
    /// [`BadState::Forged`] for any other text, [`BadState::Expired`].
    pub fn open(&self, text: &str, purpose: &str, now_unix_ms: u64) -> Result<Sealed, BadState> {
        if text.len() > STATE_BYTES_MAX {
            return Err(BadState::Forged);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| BadState::Forged)?;
        let signed = bytes.strip_prefix(&[VERSION]).and_then(<[u8]>::split_first_chunk::<MAC_BYTES>);
        let (signature, body) = signed.ok_or(BadState::Forged)?;
        // Takes the same time wherever the first difference is.
        self.mac(purpose, body).verify_slice(signature).map_err(|_| BadState::Forged)?;
        let sealed: Sealed = serde_json::from_slice(body).map_err(|_| BadState::Forged)?;
        if now_unix_ms >= sealed.expires_unix_ms {
            return Err(BadState::Expired);
        }
        Ok(sealed)
    }

    fn mac(&self, purpose: &str, body: &[u8]) -> Hmac<Sha256> {
        let key: [u8; 32] = mac(&self.0, &[purpose.as_bytes()]).finalize().into_bytes().into();
        mac(&key, &[&[VERSION], body])
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(…)")
    }
}

/// The digest of what a request asks: its method and its params, but for what differs between the rounds of one call.
///
/// The order of keys, escapes and whitespace don't count.
pub fn request_digest(method: &str, params: &Object<'_>) -> [u8; 32] {
    digest_without(method, params, &PARAMS_LEFT_OUT)
}

/// A hash of a method and its params but for some fields: the same for what reads the same.
pub fn digest_without(method: &str, params: &Object<'_>, left_out: &[&str]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    // The length before each text keeps two lists of texts from reading the same.
    let mut add = |text: &str| {
        hasher.update(u64::try_from(text.len()).expect("64 bits hold any length").to_be_bytes());
        hasher.update(text);
    };
    add(method);
    for (key, value) in params.fields().filter(|(key, _)| !left_out.contains(key)) {
        add(key);
        // Only what is valid has a canonical form. Other text, such as `1e400`, is its own.
        match json::validate(value.get()) {
            Ok(()) => add(&json::canonical(value.get())),
            Err(_) => add(value.get()),
        }
    }
    hasher.finalize().into()
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac
}

fn write_digest<S: Serializer>(digest: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64_URL_SAFE_NO_PAD.encode(digest))
}

fn read_digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(String::deserialize(deserializer)?).ok();
    let digest = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    digest.ok_or_else(|| serde::de::Error::custom("expected base64url of 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PURPOSE: &str = "tools/call";

    fn digest(method: &str, params: &str) -> [u8; 32] {
        request_digest(method, &Object::parse(params.as_bytes()).expect("an object"))
    }

    fn sealed() -> Sealed {
        Sealed {
            user: "alice".to_owned(),
            expires_unix_ms: 1_000,
            digest: digest("tools/call", r#"{"name":"t"}"#),
            answers: BTreeMap::from([("name".to_owned(), jsonrpc::raw(&"Alice"))]),
            state: Some(jsonrpc::raw(&[1, 2])),
        }
    }

    fn sealer() -> Sealer {
        Sealer::new(b"a secret")
    }

    fn text() -> String {
        sealer().seal(&sealed(), PURPOSE).expect("small")
    }

    fn open(text: &str) -> Result<Sealed, BadState> {
        sealer().open(text, PURPOSE, 999)
    }

    #[test]
    fn what_was_sealed_opens_unchanged() {
        let opened = open(&text()).expect("ours");

        assert_eq!((opened.user.as_str(), opened.expires_unix_ms), ("alice", 1_000));
        assert_eq!(opened.digest, sealed().digest);
        assert_eq!(opened.answers["name"].get(), r#""Alice""#);
        assert_eq!(opened.state.as_deref().map(RawValue::get), Some("[1,2]"));
    }

    #[test]
    fn a_state_without_answers_opens() {
        let bare = Sealed { answers: BTreeMap::new(), state: None, ..sealed() };

        let opened = open(&sealer().seal(&bare, PURPOSE).expect("small")).expect("ours");

        assert!(opened.answers.is_empty() && opened.state.is_none());
    }

    #[test]
    fn every_edit_of_one_byte_is_forged() {
        let text = text();

        for at in 0..text.len() {
            for other in ['A', 'B', '_', '-', '=', 'z', ' '].iter().filter(|other| !text[at..].starts_with(**other)) {
                let mut edited = text.clone();
                edited.replace_range(at..=at, other.encode_utf8(&mut [0; 4]));
                assert_eq!(open(&edited).map(|_| ()), Err(BadState::Forged), "{at} {other:?}");
            }
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&text).expect("base64");
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut edited = bytes.clone();
                edited[at] ^= 1 << bit;
                let edited = BASE64_URL_SAFE_NO_PAD.encode(edited);
                assert_eq!(open(&edited).map(|_| ()), Err(BadState::Forged), "{at} {bit}");
            }
        }
    }

    #[test]
    fn garbage_and_parts_are_forged() {
        let text = text();

        for end in 0..text.len() {
            assert_eq!(open(&text[..end]).map(|_| ()), Err(BadState::Forged), "{end}");
        }
        assert_eq!(open(&format!("{text}A")).map(|_| ()), Err(BadState::Forged));
        assert_eq!(open(&"A".repeat(STATE_BYTES_MAX + 1)).map(|_| ()), Err(BadState::Forged));
    }

    #[test]
    fn a_state_expires() {
        let at = |now_unix_ms| sealer().open(&text(), PURPOSE, now_unix_ms).map(|_| ());

        assert_eq!(at(999), Ok(()));
        assert_eq!(at(1_000), Err(BadState::Expired));
    }

    #[test]
    fn other_purposes_and_secrets_open_nothing() {
        let other_purpose = sealer().open(&text(), "prompts/get", 999).map(|_| ());
        let other_secret = Sealer::new(b"another secret").open(&text(), PURPOSE, 999).map(|_| ());

        assert_eq!(other_purpose, Err(BadState::Forged));
        assert_eq!(other_secret, Err(BadState::Forged));
    }

    #[test]
    fn a_state_counts_for_its_user_and_its_request() {
        let sealed = sealed();

        assert_eq!(sealed.check("alice", &sealed.digest), Ok(()));
        assert_eq!(sealed.check("bob", &sealed.digest), Err(BadState::OtherUser));
        let other = digest("tools/call", r#"{"name":"u"}"#);
        assert_eq!(sealed.check("alice", &other), Err(BadState::OtherRequest));
    }

    #[test]
    fn a_state_too_large_to_come_back_is_not_sealed() {
        let large = Sealed { state: Some(jsonrpc::raw(&"x".repeat(STATE_BYTES_MAX))), ..sealed() };

        assert!(sealer().seal(&large, PURPOSE).is_err());
    }

    #[test]
    fn the_digest_is_of_what_is_asked_and_not_of_how_it_is_written() {
        let params = r#"{"name":"t","arguments":{"a":1,"b":"x"}}"#;
        let same = r#"{ "requestState":"s", "arguments":{"b":"\u0078", "a":1}, "inputResponses":{}, "name":"t", "_meta":{"x":1}}"#;
        let first = digest("tools/call", params);

        assert_eq!(digest("tools/call", same), first);
        assert_ne!(digest("prompts/get", params), first);
        assert_ne!(digest("tools/call", r#"{"name":"t","arguments":{"a":2,"b":"x"}}"#), first);
        assert_ne!(digest("tools/call", r#"{"name":"t","arguments":{"a":1,"b":"x"},"c":null}"#), first);
        assert_ne!(digest("tools/call", r#"{"ab":"c"}"#), digest("tools/call", r#"{"a":"bc"}"#));
    }

    #[test]
    fn values_without_a_canonical_form_are_told_apart() {
        let first = digest("m", r#"{"a":{"x":1e400,"y":1}}"#);

        assert_ne!(first, digest("m", r#"{"a":{"x":1e400,"y":2}}"#));
    }

    #[test]
    fn a_sealer_does_not_print_its_key() {
        assert_eq!(format!("{:?}", sealer()), "Sealer(…)");
    }
}
