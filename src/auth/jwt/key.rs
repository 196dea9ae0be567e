//! Keys that tokens are verified with: read from what the operator gives or a JWK set says, and used by ring.
//!
//! jsonwebtoken's own `decode` is not used: it asks a cryptography provider that is one for the whole process, and a
//! provider installed here would be the only one that an embedding program can have. A key knows its family, and no
//! algorithm of another one is ever tried with it: a public key is no HMAC secret.
//!
//! Source: RFC 7517 (JWK), RFC 7518 (algorithms), RFC 8037 (EdDSA), RFC 8725 (best practices).

use std::fmt;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};
use ring::{hmac, signature};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::pem::{self, PublicKey};

/// Keys of one JWK set that are used: the first ones.
pub const JWK_SET_KEYS_MAX: usize = 64;
/// Keys that one token is tried with. A token without `kid` fits each key of its algorithm, and a try costs a
/// verification.
pub const KEYS_TRIED_MAX: usize = 8;
/// Bytes that an HMAC secret has at least. RFC 7518 section 3.2 wants as many as the digest has, 32 to 64; deployments
/// that are to keep their secret may have fewer, but what is shorter than this is guessed.
pub const SECRET_BYTES_MIN: usize = 16;
/// Bits that an RSA modulus has. Source: RFC 7518 section 3.3; the upper bound is ring's.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A key, or a set of them, that the operator gives.
#[derive(Clone)]
pub enum LocalKey {
    /// The secret of HS256, HS384 and HS512, as bytes.
    Secret(Vec<u8>),
    /// A public key of RSA, P-256, P-384 or Ed25519 in PEM (`PUBLIC KEY`, or `RSA PUBLIC KEY`).
    Pem(String),
    /// A JWK set as JSON text. Source: RFC 7517 section 5.
    JwkSet(String),
}

impl fmt::Debug for LocalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LocalKey::Secret(_) => "Secret(…)",
            LocalKey::Pem(_) => "Pem(…)",
            LocalKey::JwkSet(_) => "JwkSet(…)",
        })
    }
}

/// What a signature is checked against.
pub(super) struct Signed<'a> {
    pub algorithm: Algorithm,
    pub kid: Option<&'a str>,
    /// The header and the claims as they came, with the dot between them.
    pub message: &'a [u8],
    pub signature: &'a [u8],
}

/// Keys that are held together.
#[derive(Debug, Default)]
pub(super) struct Keys(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// The only algorithm that the key is for, where it says so.
    algorithm: Option<Algorithm>,
    /// Its `Debug` prints neither secrets nor keys.
    key: DecodingKey,
}

/// Why a JWK is not used.
enum Unusable {
    /// It is for something else.
    Foreign,
    Broken(&'static str),
}

/// Who wrote a JWK set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Operator,
    Network,
}

impl Keys {
    /// Reads the operator's keys.
    ///
    /// # Errors
    /// The place of the first key that is no good, and why; nothing of the key.
    pub(super) fn local(given: &[LocalKey]) -> Result<Self, (usize, &'static str)> {
        let mut keys = Vec::new();
        for (at, given) in given.iter().enumerate() {
            match given {
                LocalKey::Secret(secret) => keys.push(anonymous(secret_key(secret).map_err(|why| (at, why))?)),
                LocalKey::Pem(text) => {
                    let key = pem::public_key(text).and_then(decoding_key).map_err(|why| (at, why))?;
                    keys.push(anonymous(key));
                }
                LocalKey::JwkSet(text) => {
                    let set = set(text.as_bytes(), Origin::Operator).map_err(|why| (at, why))?;
                    if set.0.is_empty() {
                        return Err((at, "the JWK set has no key for signatures"));
                    }
                    keys.extend(set.0);
                }
            }
        }
        Ok(Keys(keys))
    }

    /// Reads a JWK set that came over the network. Keys that can't be used are left out, and so are secrets: what
    /// anyone may fetch is none.
    ///
    /// # Errors
    /// What is wrong, if it is no JWK set at all.
    pub(super) fn fetched(json: &[u8]) -> Result<Self, &'static str> {
        set(json, Origin::Network)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a key has that id.
    pub(super) fn holds(&self, kid: Option<&str>) -> bool {
        kid.is_some() && self.0.iter().any(|key| key.id.as_deref() == kid)
    }

    /// Whether one of the keys has made the signature.
    ///
    /// A key with an id is for tokens that name it or name none; a key without one is for all. Those that the token
    /// names are tried first, and no more than [`KEYS_TRIED_MAX`].
    pub(super) fn verify(&self, signed: &Signed<'_>) -> bool {
        let fitting = || self.0.iter().filter(|key| key.is_for(signed.algorithm));
        let named = fitting().filter(|key| signed.kid.is_some() && key.id.as_deref() == signed.kid);
        let rest = fitting().filter(|key| signed.kid.is_none() || key.id.is_none());
        named.chain(rest).take(KEYS_TRIED_MAX).any(|key| key.verify(signed))
    }
}

impl Key {
    fn is_for(&self, algorithm: Algorithm) -> bool {
        self.key.family() == algorithm.family() && self.algorithm.is_none_or(|only| only == algorithm)
    }

    fn verify(&self, signed: &Signed<'_>) -> bool {
        match signed.algorithm {
            // The family once more, beside the comparison that everything hangs on.
            algorithm if algorithm.family() != self.key.family() => false,
            Algorithm::HS256 => self.verify_hmac(hmac::HMAC_SHA256, signed),
            Algorithm::HS384 => self.verify_hmac(hmac::HMAC_SHA384, signed),
            Algorithm::HS512 => self.verify_hmac(hmac::HMAC_SHA512, signed),
            Algorithm::RS256 => self.verify_rsa(&signature::RSA_PKCS1_2048_8192_SHA256, signed),
            Algorithm::RS384 => self.verify_rsa(&signature::RSA_PKCS1_2048_8192_SHA384, signed),
            Algorithm::RS512 => self.verify_rsa(&signature::RSA_PKCS1_2048_8192_SHA512, signed),
            Algorithm::PS256 => self.verify_rsa(&signature::RSA_PSS_2048_8192_SHA256, signed),
            Algorithm::PS384 => self.verify_rsa(&signature::RSA_PSS_2048_8192_SHA384, signed),
            Algorithm::PS512 => self.verify_rsa(&signature::RSA_PSS_2048_8192_SHA512, signed),
            Algorithm::ES256 => self.verify_curve(&signature::ECDSA_P256_SHA256_FIXED, signed),
            Algorithm::ES384 => self.verify_curve(&signature::ECDSA_P384_SHA384_FIXED, signed),
            Algorithm::EdDSA => self.verify_curve(&signature::ED25519, signed),
            // What a later jsonwebtoken adds is not known here.
            _ => false,
        }
    }

    fn verify_hmac(&self, algorithm: hmac::Algorithm, signed: &Signed<'_>) -> bool {
        let Ok(secret) = self.key.try_get_as_bytes() else { return false };
        // Compares in constant time.
        hmac::verify(&hmac::Key::new(algorithm, secret), signed.message, signed.signature).is_ok()
    }

    fn verify_rsa(&self, parameters: &'static signature::RsaParameters, signed: &Signed<'_>) -> bool {
        let DecodingKeyKind::RsaModulusExponent { n, e } = self.key.kind() else { return false };
        signature::RsaPublicKeyComponents { n, e }.verify(parameters, signed.message, signed.signature).is_ok()
    }

    /// A key of another curve has another length, which ring refuses.
    fn verify_curve(&self, algorithm: &'static dyn signature::VerificationAlgorithm, signed: &Signed<'_>) -> bool {
        let Ok(key) = self.key.try_get_as_bytes() else { return false };
        signature::UnparsedPublicKey::new(algorithm, key).verify(signed.message, signed.signature).is_ok()
    }
}

fn anonymous(key: DecodingKey) -> Key {
    Key { id: None, algorithm: None, key }
}

fn secret_key(secret: &[u8]) -> Result<DecodingKey, &'static str> {
    if secret.trim_ascii_start().starts_with(pem::BEGIN.as_bytes()) {
        // Everyone has it: who signs with it as a secret would be anyone.
        return Err("expected a secret, came a key in PEM");
    }
    if secret.len() < SECRET_BYTES_MIN {
        return Err("the secret is shorter than 16 bytes");
    }
    Ok(DecodingKey::from_secret(secret))
}

fn decoding_key(key: PublicKey) -> Result<DecodingKey, &'static str> {
    match key {
        PublicKey::Rsa { n, e } => rsa_key(&n, &e),
        PublicKey::Ec(point) => Ok(DecodingKey::from_ec_der(&point)),
        PublicKey::Ed(key) => Ok(DecodingKey::from_ed_der(&key)),
    }
}

fn rsa_key(n: &[u8], e: &[u8]) -> Result<DecodingKey, &'static str> {
    let [n, e] = [n, e].map(|number| &number[number.iter().take_while(|byte| **byte == 0).count()..]);
    let first_bits = n.first().map_or(0, |byte| 8 - byte.leading_zeros() as usize);
    if !RSA_BITS.contains(&(n.len().saturating_sub(1) * 8 + first_bits)) {
        return Err("expected an RSA key of 2048 to 8192 bits");
    }
    Ok(DecodingKey::from_rsa_raw_components(n, e))
}

#[derive(Deserialize)]
struct Set {
    // Each is read by itself: one that is not understood leaves the others. Source: RFC 7517 section 5.
    keys: Vec<Box<RawValue>>,
}

fn set(json: &[u8], origin: Origin) -> Result<Keys, &'static str> {
    let Set { keys: written } = serde_json::from_slice(json).map_err(|_| "expected a JWK set in JSON")?;
    let mut keys = Vec::new();
    for text in &written {
        if keys.len() == JWK_SET_KEYS_MAX {
            tracing::warn!(keys = written.len(), "a JWK set has more keys than are used");
            break;
        }
        match (jwk(text.get(), origin), origin) {
            (Ok(key), _) => keys.push(key),
            (Err(Unusable::Broken(why)), Origin::Operator) => return Err(why),
            (Err(Unusable::Broken(why)), Origin::Network) => tracing::debug!(why, "a fetched JWK is not used"),
            (Err(Unusable::Foreign), _) => {}
        }
    }
    Ok(Keys(keys))
}

fn jwk(text: &str, origin: Origin) -> Result<Key, Unusable> {
    let jwk: Jwk = serde_json::from_str(text).map_err(|_| Unusable::Broken("a key of the JWK set is malformed"))?;
    let common = &jwk.common;
    let is_for_signatures = common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
    let is_to_verify = common.key_operations.as_ref().is_none_or(|operations| {
        // A key that signs, as a set of the operator's may have it, verifies too.
        operations.iter().any(|operation| matches!(operation, KeyOperations::Verify | KeyOperations::Sign))
    });
    if !is_for_signatures || !is_to_verify {
        return Err(Unusable::Foreign);
    }
    let algorithm = common.key_algorithm.map(Algorithm::try_from).transpose().map_err(|_| Unusable::Foreign)?;
    let broken = |_| Unusable::Broken("a key of the JWK set is malformed");
    let key = match &jwk.algorithm {
        AlgorithmParameters::OctetKey(_) if origin == Origin::Network => {
            return Err(Unusable::Broken("a secret that is fetched is none"));
        }
        AlgorithmParameters::EllipticCurve(parameters) => {
            let bytes = match parameters.curve {
                EllipticCurve::P256 => 65,
                EllipticCurve::P384 => 97,
                _ => return Err(Unusable::Foreign),
            };
            with_length(DecodingKey::from_jwk(&jwk).map_err(broken)?, bytes)?
        }
        AlgorithmParameters::OctetKeyPair(parameters) if parameters.curve == EllipticCurve::Ed25519 => {
            with_length(DecodingKey::from_jwk(&jwk).map_err(broken)?, 32)?
        }
        AlgorithmParameters::RSA(_) | AlgorithmParameters::OctetKey(_) => {
            DecodingKey::from_jwk(&jwk).map_err(broken)?
        }
        _ => return Err(Unusable::Foreign),
    };
    let key = match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => rsa_key(n, e).map_err(Unusable::Broken)?,
        DecodingKeyKind::SecretOrDer(secret) if key.family() == AlgorithmFamily::Hmac => {
            secret_key(secret).map_err(Unusable::Broken)?
        }
        DecodingKeyKind::SecretOrDer(_) => key,
    };
    if algorithm.is_some_and(|algorithm| algorithm.family() != key.family()) {
        return Err(Unusable::Broken("a key of the JWK set names an algorithm of another kind of key"));
    }
    Ok(Key { id: jwk.common.key_id, algorithm, key })
}

fn with_length(key: DecodingKey, bytes: usize) -> Result<DecodingKey, Unusable> {
    let fits = key.try_get_as_bytes().is_ok_and(|key| key.len() == bytes);
    if fits { Ok(key) } else { Err(Unusable::Broken("a key of the JWK set has a wrong length")) }
}
