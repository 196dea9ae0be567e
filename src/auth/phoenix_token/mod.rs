//! Phoenix's tokens: signed and encrypted here as an Elixir application does, and read as it reads them.
//!
//! A token is the term `{data, signed_at_ms, max_age_s}`, signed or encrypted with a key that is derived from the
//! application's `secret_key_base` and a salt. Deriving takes a thousand hashes, so keys are kept: [`KeyRing`].
//!
//! Where Plug.Crypto raises on a token, it is [`TokenError::Invalid`] here.
//!
//! Source: `Phoenix.Token` 1.8.12; `Plug.Crypto` at c326c3c: 2.1.1, which also refuses tokens signed in the future.

mod age;
mod base64url;
mod check;
mod encrypted;
#[doc(hidden)]
pub mod fuzz;
mod key;
mod line;
mod sign_line;
mod signed;

#[cfg(test)]
mod tests;

pub use age::MaxAge;
pub use check::check_line;
pub use encrypted::{decrypt_message, encrypt_message};
pub use key::{DerivedKey, KEYS_MAX, KeyDigest, KeyError, KeyOptions, KeyRing};
pub use line::LINE_BYTES_MAX;
pub use sign_line::sign_line;
pub use signed::{MacDigest, sign_message, verify_message};

use crate::protocol::etf::{self, Term};

/// Most bytes of a token as text. Phoenix has no limit; its tokens are usually below 1 KB.
pub const TOKEN_BYTES_MAX: usize = 1_048_576;

/// The max age that a token gets or is taken to have when nothing says otherwise: seconds, a day. Source:
/// `Plug.Crypto`.
pub const MAX_AGE_DEFAULT_S: i64 = 86_400;

/// Why a token does not count: its bearer's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not signed or encrypted with this key, or not a token at all, or signed in the future.
    #[error("token is invalid")]
    Invalid,
    /// Ours, and too old.
    #[error("token is expired")]
    Expired,
    /// No token.
    #[error("token is missing")]
    Missing,
}

/// Why there is no token for some data: our fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The token would be longer than is read here.
    #[error("token would be {came} bytes, the limit is {max}", max = TOKEN_BYTES_MAX)]
    TooLong {
        /// Bytes as text.
        came: usize,
    },
    /// A key that can't be used so: none of 0 bytes signs, and only one of 32 encrypts.
    #[error("key is {came} bytes, expected {expected}")]
    KeyLength {
        /// What is needed.
        expected: &'static str,
        /// What the key has.
        came: usize,
    },
}

/// Signs a term. Anyone may read it; the application with the same secret accepts it.
///
/// `signed_at_ms` is in milliseconds since 1970.
///
/// # Errors
/// [`SignError`].
///
/// Source: `Phoenix.Token.sign/4`, which always signs with HS256.
pub fn sign(key: &DerivedKey, data: &Term, signed_at_ms: i64, max_age: MaxAge) -> Result<String, SignError> {
    limited(sign_message(key, MacDigest::Sha256, &payload(data, signed_at_ms, max_age))?)
}

/// Encrypts a term. Who has the key alone can read it.
///
/// # Errors
/// [`SignError`].
///
/// Source: `Phoenix.Token.encrypt/4`.
pub fn encrypt(key: &DerivedKey, data: &Term, signed_at_ms: i64, max_age: MaxAge) -> Result<String, SignError> {
    limited(encrypt_message(key, &payload(data, signed_at_ms, max_age))?)
}

/// Reads a signed token at the time `now_ms`, in milliseconds since 1970.
///
/// A given max age wins over the one in the token. Nothing but the signature is decoded before it is compared, which
/// takes the same time wherever it differs.
///
/// # Errors
/// [`TokenError`].
///
/// Source: `Phoenix.Token.verify/4`.
pub fn verify(key: &DerivedKey, token: Option<&str>, max_age: Option<MaxAge>, now_ms: u64) -> Result<Term, TokenError> {
    let payload = verify_message(key, token.ok_or(TokenError::Missing)?)?;
    open(&payload, max_age, now_ms)
}

/// Reads an encrypted token at the time `now_ms`, in milliseconds since 1970; those of plug_crypto 1.x are read too.
///
/// # Errors
/// [`TokenError`].
///
/// Source: `Phoenix.Token.decrypt/4`.
pub fn decrypt(
    key: &DerivedKey,
    token: Option<&str>,
    max_age: Option<MaxAge>,
    now_ms: u64,
) -> Result<Term, TokenError> {
    let payload = decrypt_message(key, None, token.ok_or(TokenError::Missing)?)?;
    open(&payload, max_age, now_ms)
}

fn limited(token: String) -> Result<String, SignError> {
    if token.len() > TOKEN_BYTES_MAX { Err(SignError::TooLong { came: token.len() }) } else { Ok(token) }
}

fn payload(data: &Term, signed_at_ms: i64, max_age: MaxAge) -> Vec<u8> {
    etf::encode_tuple(&[data, &Term::int(signed_at_ms), &max_age.into()])
}

/// Takes the data out of a payload that is authentic, if it is not too old.
///
/// Source: `decode/2` of `Plug.Crypto`, with the shapes that Plug.Crypto 1.1 and Phoenix before it wrote.
fn open(payload: &[u8], max_age: Option<MaxAge>, now_ms: u64) -> Result<Term, TokenError> {
    let term = etf::decode(payload).map_err(|_| TokenError::Invalid)?;
    let default = Term::int(MAX_AGE_DEFAULT_S);
    let (signed_at, own_max_age) = match &term {
        Term::Tuple(items) => match &items[..] {
            [_, signed_at, max_age] => (signed_at, max_age),
            [_, signed_at] => (signed_at, &default),
            _ => return Err(TokenError::Invalid),
        },
        map => match (map.atom_field("data"), map.atom_field("signed")) {
            (Some(_), Some(signed_at)) => (signed_at, &default),
            _ => return Err(TokenError::Invalid),
        },
    };
    match max_age {
        Some(max_age) => age::check(signed_at, &max_age.into(), now_ms)?,
        None => age::check(signed_at, own_max_age, now_ms)?,
    }
    match term {
        Term::Tuple(items) => items.into_first().ok_or(TokenError::Invalid),
        Term::Map(map) => map.into_atom_field("data").ok_or(TokenError::Invalid),
        _ => Err(TokenError::Invalid),
    }
}
