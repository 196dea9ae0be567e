//! Keys, derived from an application's secret.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use pbkdf2::pbkdf2_hmac;
use sha1::Sha1;
use sha2::{Sha224, Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

/// Fewest bytes of a `secret_key_base`. Source: `Phoenix.Token`, which raises below.
pub const SECRET_KEY_BASE_BYTES_MIN: usize = 20;

/// Most iterations. Plug.Crypto has no limit; it takes 1000, and what is derived from a password 2^16 and more.
pub const KEY_ITERATIONS_MAX: u32 = 1_000_000;

/// Most bytes of a key. Plug.Crypto has no limit to speak of; signing takes 32 to 64, encrypting 32.
pub const KEY_BYTES_MAX: usize = 1_024;

/// Most keys that a [`KeyRing`] holds; the one that was derived first goes for one more.
pub const KEYS_MAX: usize = 64;

/// The hash of a derivation. Source: `:key_digest` of `Plug.Crypto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyDigest {
    /// SHA-1, which the settings of old applications may name.
    Sha1,
    /// SHA-224.
    Sha224,
    /// SHA-256, Plug.Crypto's default.
    #[default]
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// How a key is derived. The defaults are those of Phoenix.Token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyOptions {
    /// Rounds of PBKDF2.
    pub iterations: u32,
    /// Bytes of the key.
    pub length: usize,
    /// The hash.
    pub digest: KeyDigest,
}

impl Default for KeyOptions {
    fn default() -> KeyOptions {
        KeyOptions { iterations: 1_000, length: 32, digest: KeyDigest::Sha256 }
    }
}

/// Why a key can't be derived: the operator's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A secret that is too short.
    #[error("expected a secret_key_base of at least {min} bytes, came {came}", min = SECRET_KEY_BASE_BYTES_MIN)]
    Secret {
        /// Its bytes.
        came: usize,
    },
    /// Too few or too many iterations.
    #[error("expected key_iterations from 1 to {max}, came {came}", max = KEY_ITERATIONS_MAX)]
    Iterations {
        /// How many.
        came: u32,
    },
    /// A key that is too long, or of no bytes.
    #[error("expected key_length from 1 to {max}, came {came}", max = KEY_BYTES_MAX)]
    Length {
        /// Its bytes.
        came: usize,
    },
    /// A hash that is unknown.
    #[error("expected key_digest to be sha, sha224, sha256, sha384 or sha512")]
    Digest,
}

impl FromStr for KeyDigest {
    type Err = KeyError;

    fn from_str(name: &str) -> Result<KeyDigest, KeyError> {
        match name {
            "sha" | "sha1" => Ok(KeyDigest::Sha1),
            "sha224" => Ok(KeyDigest::Sha224),
            "sha256" => Ok(KeyDigest::Sha256),
            "sha384" => Ok(KeyDigest::Sha384),
            "sha512" => Ok(KeyDigest::Sha512),
            _ => Err(KeyError::Digest),
        }
    }
}

/// A key for tokens. Its bytes are never printed, and are erased with it.
pub struct DerivedKey(Zeroizing<Vec<u8>>);

impl DerivedKey {
    /// Derives a key. With the default options it takes as long as checking a thousand tokens, so keep it: [`KeyRing`].
    ///
    /// # Errors
    /// [`KeyError`].
    ///
    /// Source: `Plug.Crypto.KeyGenerator.generate/6`, PBKDF2 of RFC 8018.
    pub fn derive(secret_key_base: &str, salt: &str, options: &KeyOptions) -> Result<DerivedKey, KeyError> {
        let KeyOptions { iterations, length, digest } = *options;
        let (secret, salt) = (secret_key_base.as_bytes(), salt.as_bytes());
        if secret.len() < SECRET_KEY_BASE_BYTES_MIN {
            return Err(KeyError::Secret { came: secret.len() });
        }
        if !(1..=KEY_ITERATIONS_MAX).contains(&iterations) {
            return Err(KeyError::Iterations { came: iterations });
        }
        if !(1..=KEY_BYTES_MAX).contains(&length) {
            return Err(KeyError::Length { came: length });
        }
        let mut key = Zeroizing::new(vec![0; length]);
        match digest {
            KeyDigest::Sha1 => pbkdf2_hmac::<Sha1>(secret, salt, iterations, &mut key),
            KeyDigest::Sha224 => pbkdf2_hmac::<Sha224>(secret, salt, iterations, &mut key),
            KeyDigest::Sha256 => pbkdf2_hmac::<Sha256>(secret, salt, iterations, &mut key),
            KeyDigest::Sha384 => pbkdf2_hmac::<Sha384>(secret, salt, iterations, &mut key),
            KeyDigest::Sha512 => pbkdf2_hmac::<Sha512>(secret, salt, iterations, &mut key),
        }
        Ok(DerivedKey(key))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for DerivedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DerivedKey(..)")
    }
}

/// Keys that were derived, so that each is derived once.
///
/// It holds at most [`KEYS_MAX`]: secrets and salts come from settings, not from clients.
#[derive(Default)]
pub struct KeyRing {
    keys: Vec<(Recipe, Arc<DerivedKey>)>,
}

#[derive(PartialEq)]
struct Recipe {
    secret_key_base: Zeroizing<String>,
    salt: String,
    options: KeyOptions,
}

impl KeyRing {
    /// The key of this secret, salt and options, derived if it is asked for the first time.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn key(
        &mut self,
        secret_key_base: &str,
        salt: &str,
        options: &KeyOptions,
    ) -> Result<Arc<DerivedKey>, KeyError> {
        let known = self.keys.iter().find(|(recipe, _)| {
            recipe.options == *options && recipe.salt == salt && *recipe.secret_key_base == secret_key_base
        });
        if let Some((_, key)) = known {
            return Ok(Arc::clone(key));
        }
        let key = Arc::new(DerivedKey::derive(secret_key_base, salt, options)?);
        if self.keys.len() == KEYS_MAX {
            self.keys.remove(0);
        }
        let secret_key_base = Zeroizing::new(secret_key_base.to_string());
        self.keys.push((Recipe { secret_key_base, salt: salt.to_string(), options: *options }, Arc::clone(&key)));
        Ok(key)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "a dummy secret of more than twenty bytes";

    #[test]
    fn options_out_of_bounds_are_refused() {
        let derive = |secret: &str, iterations, length| {
            let options = KeyOptions { iterations, length, ..KeyOptions::default() };
            DerivedKey::derive(secret, "salt", &options).map(|_| ())
        };

        assert_eq!(derive(&SECRET[..20], 1, 1), Ok(()));
        assert_eq!(derive(&SECRET[..19], 1, 1), Err(KeyError::Secret { came: 19 }));
        assert_eq!(derive(SECRET, 0, 32), Err(KeyError::Iterations { came: 0 }));
        assert_eq!(derive(SECRET, u32::MAX, 32), Err(KeyError::Iterations { came: u32::MAX }));
        assert_eq!(derive(SECRET, 1, 0), Err(KeyError::Length { came: 0 }));
        assert_eq!(derive(SECRET, 1, usize::MAX), Err(KeyError::Length { came: usize::MAX }));
    }

    #[test]
    fn a_ring_derives_once_and_keeps_so_many() {
        let mut ring = KeyRing::default();
        let options = KeyOptions { iterations: 1, ..KeyOptions::default() };

        let first = ring.key(SECRET, "0", &options).unwrap();
        assert!(Arc::ptr_eq(&first, &ring.key(SECRET, "0", &options).unwrap()));
        for salt in 1..=KEYS_MAX {
            ring.key(SECRET, &salt.to_string(), &options).unwrap();
        }

        assert_eq!(ring.keys.len(), KEYS_MAX);
        assert!(!Arc::ptr_eq(&first, &ring.key(SECRET, "0", &options).unwrap()));
    }

    #[test]
    fn neither_secret_nor_key_is_printed() {
        let mut ring = KeyRing::default();
        let key = ring.key(SECRET, "salt", &KeyOptions::default()).unwrap();

        assert_eq!(format!("{key:?} {ring:?}"), "DerivedKey(..) KeyRing { keys: 1, .. }");
    }
}
