//! Signed messages: `SFMyNTY.` + base64url of the payload + `.` + base64url of the signature.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha256, Sha384, Sha512};

use super::{DerivedKey, SignError, TOKEN_BYTES_MAX, TokenError, base64url};

/// The hash of a signature. Phoenix.Token signs with SHA-256 alone and accepts all three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MacDigest {
    /// `SFMyNTY`: HS256.
    Sha256,
    /// `SFMzODQ`: HS384.
    Sha384,
    /// `SFM1MTI`: HS512.
    Sha512,
}

impl MacDigest {
    fn header(self) -> &'static str {
        match self {
            MacDigest::Sha256 => "SFMyNTY",
            MacDigest::Sha384 => "SFMzODQ",
            MacDigest::Sha512 => "SFM1MTI",
        }
    }

    /// The hash that a header names, once it is read as leniently as the rest.
    fn of_header(header: &str) -> Option<MacDigest> {
        match &base64url::decode(header)?[..] {
            b"HS256" => Some(MacDigest::Sha256),
            b"HS384" => Some(MacDigest::Sha384),
            b"HS512" => Some(MacDigest::Sha512),
            _ => None,
        }
    }

    fn sign(self, key: &[u8], text: &[u8]) -> Vec<u8> {
        match self {
            MacDigest::Sha256 => mac::<Hmac<Sha256>>(key, text).finalize().into_bytes().to_vec(),
            MacDigest::Sha384 => mac::<Hmac<Sha384>>(key, text).finalize().into_bytes().to_vec(),
            MacDigest::Sha512 => mac::<Hmac<Sha512>>(key, text).finalize().into_bytes().to_vec(),
        }
    }

    /// Compares in a time that does not depend on where the signatures differ.
    fn verify(self, key: &[u8], text: &[u8], signature: &[u8]) -> bool {
        match self {
            MacDigest::Sha256 => mac::<Hmac<Sha256>>(key, text).verify_slice(signature).is_ok(),
            MacDigest::Sha384 => mac::<Hmac<Sha384>>(key, text).verify_slice(signature).is_ok(),
            MacDigest::Sha512 => mac::<Hmac<Sha512>>(key, text).verify_slice(signature).is_ok(),
        }
    }
}

fn mac<M: Mac + KeyInit>(key: &[u8], text: &[u8]) -> M {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text);
    mac
}

/// Signs a payload of any bytes.
///
/// # Errors
/// [`SignError::KeyLength`] never happens with a key that was derived.
///
/// Source: `Plug.Crypto.MessageVerifier.sign/3`.
pub fn sign_message(key: &DerivedKey, digest: MacDigest, payload: &[u8]) -> Result<String, SignError> {
    if key.bytes().is_empty() {
        return Err(SignError::KeyLength { expected: "1 or more", came: 0 });
    }
    let text = format!("{}.{}", digest.header(), base64url::encode(payload));
    let signature = digest.sign(key.bytes(), text.as_bytes());
    Ok(format!("{text}.{}", base64url::encode(&signature)))
}

/// Takes the payload out of a signed message.
///
/// The header chooses among three hashes, all with the same key; nothing else that the message says has a say.
///
/// # Errors
/// [`TokenError::Invalid`], also above [`TOKEN_BYTES_MAX`].
///
/// Source: `Plug.Crypto.MessageVerifier.verify/2`.
pub fn verify_message(key: &DerivedKey, message: &str) -> Result<Vec<u8>, TokenError> {
    payload_of(key, message).ok_or(TokenError::Invalid)
}

fn payload_of(key: &DerivedKey, message: &str) -> Option<Vec<u8>> {
    if message.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let (header, rest) = message.split_once('.')?;
    let (payload, signature) = rest.split_once('.')?;
    let digest = MacDigest::of_header(header)?;
    let signature = base64url::decode(signature)?;
    let text = &message.as_bytes()[..header.len() + 1 + payload.len()];
    if !digest.verify(key.bytes(), text, &signature) {
        return None;
    }
    base64url::decode(payload)
}
