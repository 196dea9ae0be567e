//! The token of a long-poll session: which session, when it began, and our signature.
//!
//! `SFMyNTY.` payload `.` signature, both base64url without padding, as `Phoenix.Token` writes it. The payload is ours:
//! clients hand it back as they got it.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::protocol::limits::LONGPOLL_TOKEN_AGE_MAX_S;
use crate::random;

/// The header of a token signed with HMAC-SHA256, base64url of `HS256`.
const HEADER: &str = "SFMyNTY";

/// The key that signs tokens, derived from the server's secret.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Derives the key from `secret_key_base`.
    pub fn derive(secret_key_base: &[u8]) -> Self {
        Secret(mac(secret_key_base, &[b"bennu long poll"]))
    }

    /// A key of this process alone.
    pub fn random() -> Self {
        Secret(random::bytes())
    }

    pub(super) fn sign(&self, session: u128, unix_s: u64) -> String {
        let mut payload = [0; 24];
        payload[..16].copy_from_slice(&session.to_be_bytes());
        payload[16..].copy_from_slice(&unix_s.to_be_bytes());
        let payload = BASE64_URL_SAFE_NO_PAD.encode(payload);
        let signature = BASE64_URL_SAFE_NO_PAD.encode(self.signature(&payload));
        format!("{HEADER}.{payload}.{signature}")
    }

    /// The session of a token that is ours and not too old.
    pub(super) fn verify(&self, token: &str, unix_s: u64) -> Option<u128> {
        let (signed, signature) = token.rsplit_once('.')?;
        let payload = signed.strip_prefix(HEADER)?.strip_prefix('.')?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
        let mut expected = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        expected.update(payload.as_bytes());
        expected.verify_slice(&signature).ok()?;

        let payload: [u8; 24] = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?.try_into().ok()?;
        let (session, began) = payload.split_at(16);
        let began = u64::from_be_bytes(began.try_into().ok()?);
        let fresh = unix_s.saturating_sub(began) <= LONGPOLL_TOKEN_AGE_MAX_S;
        fresh.then(|| u128::from_be_bytes(session.try_into().expect("16 bytes were split off")))
    }

    fn signature(&self, payload: &str) -> [u8; 32] {
        mac(&self.0, &[payload.as_bytes()])
    }
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_session_until_it_is_too_old() {
        let secret = Secret::derive(b"a secret key base");
        let token = secret.sign(7, 1_000);

        assert_eq!(secret.verify(&token, 1_000 + LONGPOLL_TOKEN_AGE_MAX_S), Some(7));
        assert_eq!(secret.verify(&token, 1_001 + LONGPOLL_TOKEN_AGE_MAX_S), None);
    }

    #[test]
    fn a_changed_or_foreign_token_names_none() {
        let secret = Secret::derive(b"a secret key base");
        let token = secret.sign(7, 1_000);

        assert_eq!(secret.verify(&format!("{token}x"), 1_000), None);
        assert_eq!(secret.verify(&token.replacen("SFMyNTY.A", "SFMyNTY.B", 1), 1_000), None);
        assert_eq!(Secret::derive(b"another").verify(&token, 1_000), None);
        assert_eq!(secret.verify("garbage", 1_000), None);
    }
}
