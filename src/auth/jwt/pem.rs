//! Public keys out of PEM texts: just enough DER for the three kinds of keys that sign tokens.
//!
//! Reads no certificates and no private keys.
//!
//! Source: RFC 7468 (PEM), RFC 5280 section 4.1 (`SubjectPublicKeyInfo`), RFC 8017 A.1.1 (`RSAPublicKey`), RFC 5480,
//! RFC 8410.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OID: u8 = 0x06;

const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// How a PEM text begins.
pub(super) const BEGIN: &str = "-----BEGIN ";

/// A public key as its numbers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PublicKey {
    /// The modulus and the exponent, big-endian.
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// A point of P-256 or P-384, uncompressed: its length tells the curve.
    Ec(Vec<u8>),
    /// Of Ed25519.
    Ed(Vec<u8>),
}

/// Reads a public key.
///
/// # Errors
/// What is wrong, for the operator; nothing of the text.
pub(super) fn public_key(text: &str) -> Result<PublicKey, &'static str> {
    let (label, der) = decode(text).ok_or("expected one key in PEM")?;
    let key = match label {
        "PUBLIC KEY" => subject_public_key(&der),
        "RSA PUBLIC KEY" => rsa(&der),
        label if label.ends_with("PRIVATE KEY") => return Err("expected a public key, came a private one"),
        "CERTIFICATE" => {
            return Err("expected a public key, came a certificate (openssl x509 -pubkey -noout writes its key)");
        }
        _ => return Err("expected PUBLIC KEY or RSA PUBLIC KEY, came another kind of PEM"),
    };
    key.ok_or("expected a key of RSA, of P-256, P-384 or of Ed25519")
}

/// The label and the content of a text that is one PEM block.
pub(super) fn decode(text: &str) -> Option<(&str, Vec<u8>)> {
    let (label, rest) = text.trim().strip_prefix(BEGIN)?.split_once("-----")?;
    let (body, end) = rest.split_once("-----END ")?;
    if end.strip_suffix("-----") != Some(label) {
        return None;
    }
    let body: String = body.split_ascii_whitespace().collect();
    Some((label, STANDARD.decode(body).ok()?))
}

fn subject_public_key(der: &[u8]) -> Option<PublicKey> {
    let (outer, []) = take(der, SEQUENCE)? else { return None };
    let (algorithm, rest) = take(outer, SEQUENCE)?;
    let (bits, []) = take(rest, BIT_STRING)? else { return None };
    let (kind, parameters) = take(algorithm, OID)?;
    // The first byte counts the unused bits of the last.
    let (&0, key) = bits.split_first()? else { return None };
    match kind {
        RSA => rsa(key),
        EC => {
            let (curve, []) = take(parameters, OID)? else { return None };
            let bytes = match curve {
                P256 => 65,
                P384 => 97,
                _ => return None,
            };
            (key.len() == bytes && key[0] == 4).then(|| PublicKey::Ec(key.to_vec()))
        }
        ED25519 => (parameters.is_empty() && key.len() == 32).then(|| PublicKey::Ed(key.to_vec())),
        _ => None,
    }
}

fn rsa(der: &[u8]) -> Option<PublicKey> {
    let (numbers, []) = take(der, SEQUENCE)? else { return None };
    let (n, rest) = take(numbers, INTEGER)?;
    let (e, []) = take(rest, INTEGER)? else { return None };
    Some(PublicKey::Rsa { n: n.to_vec(), e: e.to_vec() })
}

/// The content of the value that `der` begins with, if it has that tag, and what follows it.
fn take(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        ..=0x7f => (usize::from(first), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        // Longer than any key that is taken.
        _ => return None,
    };
    if found != tag { None } else { rest.split_at_checked(length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> String {
        let path = format!("{}/tests/fixtures/jwt/{name}.pem", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).expect("the fixture is there")
    }

    #[test]
    fn both_forms_of_an_rsa_key_read_the_same() {
        let key = public_key(&fixture("rsa.pub")).expect("a key");

        assert_eq!(Ok(&key), public_key(&fixture("rsa.pkcs1.pub")).as_ref());
        assert!(matches!(key, PublicKey::Rsa { n, e } if n.len() == 257 && e == [1, 0, 1]));
    }

    #[test]
    fn keys_of_curves_are_read() {
        assert!(matches!(public_key(&fixture("p256.pub")), Ok(PublicKey::Ec(point)) if point.len() == 65));
        assert!(matches!(public_key(&fixture("p384.pub")), Ok(PublicKey::Ec(point)) if point.len() == 97));
        assert!(matches!(public_key(&fixture("ed25519.pub")), Ok(PublicKey::Ed(key)) if key.len() == 32));
    }

    #[test]
    fn other_keys_and_other_texts_are_refused() {
        assert!(public_key(&fixture("p521.pub")).is_err());
        assert_eq!(public_key(&fixture("rsa.key")), Err("expected a public key, came a private one"));
        let two = fixture("p256.pub") + &fixture("p384.pub");
        for text in ["", "secret", "-----BEGIN PUBLIC KEY-----", "-----BEGIN A-----\n-----END B-----", &two] {
            assert_eq!(public_key(text), Err("expected one key in PEM"), "{text}");
        }
    }

    #[test]
    fn no_part_and_no_edit_of_a_key_panics() {
        for name in ["rsa.pub", "rsa.pkcs1.pub", "p256.pub", "ed25519.pub"] {
            let text = fixture(name);
            let (label, der) = decode(&text).expect("PEM");
            let read = |der: &[u8]| if label == "PUBLIC KEY" { subject_public_key(der) } else { rsa(der) };
            for end in 0..der.len() {
                assert_eq!(read(&der[..end]), None, "{name} {end}");
            }
            for at in 0..der.len() {
                for byte in [0, 1, 0x7f, 0x80, 0x81, 0x82, 0x83, 0xff] {
                    let mut edited = der.clone();
                    edited[at] = byte;
                    let _ = read(&edited);
                }
            }
        }
    }
}
