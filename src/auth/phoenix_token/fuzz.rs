//! What the fuzzer runs: bytes as a token, and as what a token was signed over.
//!
//! As those of `crate::protocol::fuzz`, the body takes any bytes and panics where this module breaks its word; it is
//! searched with and replayed in the same way. Not part of the public API.

use std::sync::LazyLock;

use super::{DerivedKey, KeyOptions, MacDigest, MaxAge, decrypt, sign, sign_message, verify, verify_message};
use crate::protocol::etf::Term;

/// The moment at which the fixtures were signed, in milliseconds since 1970.
const NOW_MS: i64 = 1_700_000_000_123;
/// Most bytes of a token that has to be read again: a small one may hold data that was compressed, and what it says is
/// then longer than a token may be.
const AGAIN_BYTES_MAX: usize = 65_536;

/// The key of the fixtures in `tests/fixtures/tokens`, so that they are good tokens here.
static KEY: LazyLock<DerivedKey> = LazyLock::new(|| {
    let secret = "rig2_dummy_secret_key_base_not_a_real_secret_0123456789abcdefghijklmnopqrstuvwxyz";
    DerivedKey::derive(secret, "user socket", &KeyOptions::default()).expect("the secret is long enough")
});

/// Bytes as a token, signed or encrypted, and as a payload that somebody with the key has signed.
///
/// Whatever is accepted says the same once it is signed again, is accepted where its age does not matter, and no longer
/// where a character of its payload is another.
pub fn phoenix_token(bytes: &[u8]) {
    if let Ok(token) = std::str::from_utf8(bytes) {
        signed(token);
        encrypted(token);
    }
    for digest in [MacDigest::Sha256, MacDigest::Sha384, MacDigest::Sha512] {
        let token = sign_message(&KEY, digest, bytes).expect("the key has 32 bytes");
        if let Ok(payload) = verify_message(&KEY, &token) {
            assert_eq!(payload, bytes);
        } else {
            assert!(token.len() > super::TOKEN_BYTES_MAX, "what was signed is refused");
        }
        signed(&token);
    }
}

fn signed(token: &str) {
    let read = |max_age| verify(&KEY, Some(token), max_age, NOW_MS.unsigned_abs());
    let timeless = read(Some(MaxAge::Infinity));
    for max_age in [None, Some(MaxAge::Seconds(60)), Some(MaxAge::Fraction(0.5)), Some(MaxAge::Seconds(0))] {
        if let Ok(data) = read(max_age) {
            assert!(timeless.as_ref() == Ok(&data), "its data depends on its age");
        }
    }
    if let Ok(data) = timeless {
        says_the_same_again(&data);
        let (header, rest) = token.split_once('.').expect("it was read");
        let other = if rest.starts_with('A') { "B" } else { "A" };
        let changed = format!("{header}.{other}{}", rest.get(1..).unwrap_or_default());
        assert!(verify_message(&KEY, &changed).is_err(), "another payload has the same signature");
    }
}

fn encrypted(token: &str) {
    if let Ok(data) = decrypt(&KEY, Some(token), Some(MaxAge::Infinity), NOW_MS.unsigned_abs()) {
        says_the_same_again(&data);
    }
}

fn says_the_same_again(data: &Term) {
    let Ok(token) = sign(&KEY, data, NOW_MS, MaxAge::Infinity) else { return };
    if token.len() > AGAIN_BYTES_MAX {
        return;
    }
    let again = verify(&KEY, Some(&token), None, NOW_MS.unsigned_abs());
    assert!(again.as_ref() == Ok(data), "other data came back");
}
