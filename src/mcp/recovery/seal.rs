//! The signature of recovery tokens.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::protocol::mcp::recovery::Claims;

/// What sets these signatures apart from others with the same secret. Source: the Elixir deployment's salt.
const SALT: &[u8] = b"mcp_recovery";
/// The first byte, so that another layout can be told from this one.
const VERSION: u8 = 1;
/// Bytes of HMAC-SHA256.
const MAC_BYTES: usize = 32;
/// Most bytes of a token that is looked at.
const TOKEN_BYTES_MAX: usize = 8_192;

/// Signs tokens and reads them; nodes with the same secret read each other's.
pub(super) struct Seal([u8; 32]);

impl Seal {
    /// One with a key derived from the server's secret.
    pub(super) fn new(secret: &[u8]) -> Self {
        Seal(mac(secret, SALT).finalize().into_bytes().into())
    }

    /// A token. Its bearer may read it.
    pub(super) fn seal(&self, claims: &Claims) -> String {
        let text = claims.to_text();
        let mut bytes = Vec::with_capacity(1 + MAC_BYTES + text.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.mac(text.as_bytes()).finalize().into_bytes());
        bytes.extend_from_slice(text.as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What a token says, if it is one of ours.
    pub(super) fn open(&self, token: &str) -> Option<Claims> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
        let (signature, text) = bytes.strip_prefix(&[VERSION])?.split_first_chunk::<MAC_BYTES>()?;
        // Takes the same time wherever the first difference is.
        self.mac(text).verify_slice(signature).ok()?;
        Claims::parse(std::str::from_utf8(text).ok()?)
    }

    fn mac(&self, text: &[u8]) -> Hmac<Sha256> {
        let mut mac = mac(&self.0, &[VERSION]);
        mac.update(text);
        mac
    }
}

fn mac(key: &[u8], text: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_by_who_has_the_secret_and_as_it_was_made() {
        let claims = Claims { session: "mcp_session_1".to_owned(), user: "ann".to_owned(), serial: 3 };
        let seal = Seal::new(b"one secret");
        let token = seal.seal(&claims);

        assert_eq!(Seal::new(b"one secret").open(&token), Some(claims));
        assert_eq!(Seal::new(b"another").open(&token), None);
        for index in 0..token.len() {
            let mut forged = token.clone().into_bytes();
            forged[index] = if forged[index] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).expect("ASCII");
            assert_eq!(seal.open(&forged), None, "{index}");
        }
        for wrong in ["", "AQ", "!", &token[1..], &"A".repeat(TOKEN_BYTES_MAX + 4)] {
            assert_eq!(seal.open(wrong), None);
        }
    }
}
