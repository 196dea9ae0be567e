//! Signs tokens with the keys of the fixtures.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use ring::{hmac, rsa};
use serde_json::{Value, json};

use super::super::{Algorithm, pem};

pub const SECRET: &[u8] = b"a secret of the tests that is longer than sixty-four bytes, as HS512 likes it";

pub const ALGORITHMS: [Algorithm; 12] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

pub fn fixture(name: &str) -> String {
    let path = format!("{}/tests/fixtures/jwt/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect("the fixture is there")
}

/// The content of a PEM fixture.
pub fn der(name: &str) -> Vec<u8> {
    pem::decode(&fixture(name)).expect("PEM").1
}

pub fn part(value: &Value) -> String {
    encode(&value.to_string())
}

pub fn encode(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// A token with the usual header and the usual key of an algorithm.
pub fn token(algorithm: Algorithm, claims: &Value) -> String {
    with_header(algorithm, &json!({ "alg": format!("{algorithm:?}"), "typ": "JWT" }), claims)
}

/// A token with any header, signed with the usual key of an algorithm.
pub fn with_header(algorithm: Algorithm, header: &Value, claims: &Value) -> String {
    let key = match algorithm {
        Algorithm::ES256 => "p256",
        Algorithm::ES384 => "p384",
        Algorithm::EdDSA => "ed25519",
        _ => "rsa",
    };
    with_key(algorithm, key, header, claims)
}

/// A token signed with a key of the fixtures by name.
pub fn with_key(algorithm: Algorithm, key: &str, header: &Value, claims: &Value) -> String {
    text(algorithm, key, &format!("{}.{}", part(header), part(claims)))
}

/// Signs the first two parts as they are.
pub fn text(algorithm: Algorithm, key: &str, message: &str) -> String {
    let key = || der(&format!("{key}.key.pem"));
    let bytes = message.as_bytes();
    let signature = match algorithm {
        Algorithm::HS256 => mac(hmac::HMAC_SHA256, SECRET, bytes),
        Algorithm::HS384 => mac(hmac::HMAC_SHA384, SECRET, bytes),
        Algorithm::HS512 => mac(hmac::HMAC_SHA512, SECRET, bytes),
        Algorithm::RS256 => rsa(&signature::RSA_PKCS1_SHA256, &key(), bytes),
        Algorithm::RS384 => rsa(&signature::RSA_PKCS1_SHA384, &key(), bytes),
        Algorithm::RS512 => rsa(&signature::RSA_PKCS1_SHA512, &key(), bytes),
        Algorithm::PS256 => rsa(&signature::RSA_PSS_SHA256, &key(), bytes),
        Algorithm::PS384 => rsa(&signature::RSA_PSS_SHA384, &key(), bytes),
        Algorithm::PS512 => rsa(&signature::RSA_PSS_SHA512, &key(), bytes),
        Algorithm::ES256 => ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &key(), bytes),
        Algorithm::ES384 => ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, &key(), bytes),
        Algorithm::EdDSA => {
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(&key()).expect("a key").sign(bytes).as_ref().to_vec()
        }
        other => panic!("{other:?}"),
    };
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A token whose HMAC has any bytes as its secret.
pub fn with_secret(secret: &[u8], header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", part(header), part(claims));
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac(hmac::HMAC_SHA256, secret, message.as_bytes())))
}

/// The public key of a private one of the fixtures as a JWK.
pub fn jwk(key: &str, kid: &str) -> Value {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    match pem::public_key(&fixture(&format!("{key}.pub.pem"))).expect("a key") {
        pem::PublicKey::Rsa { n, e } => {
            json!({ "kty": "RSA", "kid": kid, "use": "sig", "n": encode(&n[1..]), "e": encode(&e) })
        }
        pem::PublicKey::Ec(point) => {
            let half = point.len() / 2;
            let curve = if half == 32 { "P-256" } else { "P-384" };
            let (x, y) = (encode(&point[1..=half]), encode(&point[half + 1..]));
            json!({ "kty": "EC", "crv": curve, "kid": kid, "x": x, "y": y })
        }
        pem::PublicKey::Ed(key) => json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": encode(&key) }),
    }
}

fn mac(algorithm: hmac::Algorithm, secret: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(algorithm, secret), message).as_ref().to_vec()
}

fn rsa(padding: &'static dyn signature::RsaEncoding, key: &[u8], message: &[u8]) -> Vec<u8> {
    let key: rsa::KeyPair = RsaKeyPair::from_pkcs8(key).expect("a key");
    let mut signature = vec![0; key.public_key().modulus_len()];
    key.sign(padding, &SystemRandom::new(), message, &mut signature).expect("it signs");
    signature
}

fn ecdsa(algorithm: &'static signature::EcdsaSigningAlgorithm, key: &[u8], message: &[u8]) -> Vec<u8> {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(algorithm, key, &random).expect("a key");
    key.sign(&random, message).expect("it signs").as_ref().to_vec()
}
