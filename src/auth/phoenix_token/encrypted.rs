//! Encrypted messages: `XCP.` of plug_crypto 2, and `QTEyOEdDTQ.` of plug_crypto 1, which is read alone.

use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{Aead, KeyInit, Nonce, Payload};
use aes_gcm::aes::{Aes128, Aes192, Aes256};
use aes_gcm::{AeadCore, AesGcm};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::{DerivedKey, SignError, TOKEN_BYTES_MAX, TokenError, base64url};

/// How a message of plug_crypto 2 begins.
const HEADER: &str = "XCP.";
/// What is authenticated beside the text, in both versions.
const ASSOCIATED: &[u8] = b"A128GCM";
/// Bytes of the numbers that are used once: XChaCha20's, and AES-GCM's.
const NONCE_BYTES: usize = 24;
const GCM_NONCE_BYTES: usize = 12;
/// Bytes of a tag in both versions.
const TAG_BYTES: usize = 16;
/// Bytes of a key for XChaCha20.
const KEY_BYTES: usize = 32;

/// Encrypts a payload of any bytes.
///
/// # Errors
/// [`SignError::KeyLength`] for a key of other than 32 bytes.
///
/// Source: `Plug.Crypto.MessageEncryptor.encrypt/4` of plug_crypto 2.
pub fn encrypt_message(key: &DerivedKey, payload: &[u8]) -> Result<String, SignError> {
    let bad_key = SignError::KeyLength { expected: "32", came: key.bytes().len() };
    let cipher = XChaCha20Poly1305::new_from_slice(key.bytes()).map_err(|_| bad_key)?;
    let nonce = crate::random::bytes::<NONCE_BYTES>();
    let sealed = cipher
        .encrypt(&XNonce::from(nonce), Payload { msg: payload, aad: ASSOCIATED })
        .expect("a payload is far below the 256 GB of the cipher");
    // The cipher puts its tag last, Plug.Crypto puts it first.
    let (text, tag) = sealed.split_at(sealed.len() - TAG_BYTES);
    Ok(format!("{HEADER}{}", base64url::encode(&[&nonce[..], tag, text].concat())))
}

/// Decrypts a message of either version.
///
/// `sign_key` is that of a session cookie, derived with the salt for signing; messages of plug_crypto 1 were bound to
/// it. Tokens have none.
///
/// # Errors
/// [`TokenError::Invalid`], also above [`TOKEN_BYTES_MAX`] and for keys of other than 32 bytes; 16 and 24 read those of
/// version 1.
///
/// Source: `Plug.Crypto.MessageEncryptor.decrypt/4`.
pub fn decrypt_message(key: &DerivedKey, sign_key: Option<&DerivedKey>, message: &str) -> Result<Vec<u8>, TokenError> {
    if message.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::Invalid);
    }
    let payload = match message.strip_prefix(HEADER) {
        Some(sealed) => open(key.bytes(), sealed),
        None => open_version_1(key.bytes(), sign_key.map_or(&[], DerivedKey::bytes), message),
    };
    payload.ok_or(TokenError::Invalid)
}

fn open(key: &[u8], sealed: &str) -> Option<Vec<u8>> {
    let cipher = XChaCha20Poly1305::new_from_slice(key).ok()?;
    let bytes = base64url::decode(sealed)?;
    let (nonce, rest) = bytes.split_first_chunk::<NONCE_BYTES>()?;
    let (tag, text) = rest.split_first_chunk::<TAG_BYTES>()?;
    let sealed = [text, tag].concat();
    cipher.decrypt(&XNonce::from(*nonce), Payload { msg: &sealed, aad: ASSOCIATED }).ok()
}

/// Opens header, wrapped key, nonce, text and tag: a key of its own encrypts each message, and is encrypted with ours.
fn open_version_1(key: &[u8], sign_key: &[u8], message: &str) -> Option<Vec<u8>> {
    if key.len() > KEY_BYTES {
        return None;
    }
    let parts: Vec<&str> = message.splitn(5, '.').collect();
    let [header, wrapped_key, nonce, text, tag] = parts[..] else { return None };
    if base64url::decode(header)? != ASSOCIATED {
        return None;
    }
    let wrapped_key = base64url::decode(wrapped_key)?;
    let (wrapped_key, wrap_nonce) = wrapped_key.split_last_chunk::<GCM_NONCE_BYTES>()?;
    let nonce: [u8; GCM_NONCE_BYTES] = base64url::decode(nonce)?.try_into().ok()?;
    let mut sealed = base64url::decode(text)?;
    let tag: [u8; TAG_BYTES] = base64url::decode(tag)?.try_into().ok()?;
    sealed.extend_from_slice(&tag);
    let message_key = Zeroizing::new(open_gcm(key, wrap_nonce, Payload { msg: wrapped_key, aad: sign_key })?);
    open_gcm(&message_key, &nonce, Payload { msg: &sealed, aad: ASSOCIATED })
}

fn open_gcm(key: &[u8], nonce: &[u8; GCM_NONCE_BYTES], sealed: Payload<'_, '_>) -> Option<Vec<u8>> {
    match key.len() {
        16 => open_with::<AesGcm<Aes128, U12>>(key, nonce, sealed),
        24 => open_with::<AesGcm<Aes192, U12>>(key, nonce, sealed),
        32 => open_with::<AesGcm<Aes256, U12>>(key, nonce, sealed),
        _ => None,
    }
}

fn open_with<C: Aead + KeyInit + AeadCore<NonceSize = U12>>(
    key: &[u8],
    nonce: &[u8; GCM_NONCE_BYTES],
    sealed: Payload<'_, '_>,
) -> Option<Vec<u8>> {
    C::new_from_slice(key).ok()?.decrypt(&Nonce::<C>::from(*nonce), sealed).ok()
}

#[cfg(test)]
mod tests {
    use super::super::KeyOptions;
    use super::*;

    fn key(length: usize) -> DerivedKey {
        let options = KeyOptions { iterations: 1, length, ..KeyOptions::default() };
        DerivedKey::derive("a dummy secret of more than twenty bytes", "salt", &options).unwrap()
    }

    fn seal<C: Aead + KeyInit + AeadCore<NonceSize = U12>>(
        key: &[u8],
        nonce: [u8; 12],
        msg: &[u8],
        aad: &[u8],
    ) -> Vec<u8> {
        C::new_from_slice(key).unwrap().encrypt(&Nonce::<C>::from(nonce), Payload { msg, aad }).unwrap()
    }

    /// A message as plug_crypto 1 makes it, with this key wrapping one of 16 bytes.
    fn version_1<C: Aead + KeyInit + AeadCore<NonceSize = U12>>(key: &[u8], sign_key: &[u8]) -> String {
        let message_key = [7; 16];
        let wrapped = [&seal::<C>(key, [1; 12], &message_key, sign_key)[..], &[1; 12]].concat();
        let sealed = seal::<AesGcm<Aes128, U12>>(&message_key, [2; 12], b"payload", ASSOCIATED);
        let (text, tag) = sealed.split_at(sealed.len() - TAG_BYTES);
        [ASSOCIATED, &wrapped, &[2; 12], text, tag].map(base64url::encode).join(".")
    }

    #[test]
    fn messages_of_version_1_are_read_with_keys_of_three_lengths_and_bound_to_the_second_key() {
        let sign_key = key(64);
        let messages = [
            (16, version_1::<AesGcm<Aes128, U12>>(key(16).bytes(), sign_key.bytes())),
            (24, version_1::<AesGcm<Aes192, U12>>(key(24).bytes(), sign_key.bytes())),
            (32, version_1::<AesGcm<Aes256, U12>>(key(32).bytes(), sign_key.bytes())),
        ];

        for (length, message) in &messages {
            assert_eq!(decrypt_message(&key(*length), Some(&sign_key), message).unwrap(), b"payload");
            for other in [1, 16, 24, 31, 32, 33, 64].into_iter().filter(|other| other != length) {
                assert_eq!(decrypt_message(&key(other), Some(&sign_key), message), Err(TokenError::Invalid));
            }
            assert_eq!(decrypt_message(&key(*length), None, message), Err(TokenError::Invalid));
        }
    }
}
