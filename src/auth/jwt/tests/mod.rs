//! The verifier from outside: what it accepts, what it refuses, and what it asks of the network.

mod remote;
mod server;
mod sign;
mod table;

use serde_json::{Value, json};

use super::*;

/// A time at which the fixtures' tokens are good, in Unix milliseconds.
const NOW: u64 = 1_800_000_600_000;

/// Claims that are good at [`NOW`], for [`options`].
fn claims() -> Value {
    json!({
        "iss": "https://id.example.com", "aud": "bennu", "sub": "alice", "jti": "token-1", "iat": 1_800_000_000,
        "nbf": 1_800_000_000, "exp": 1_800_003_600, "roles": ["admin"], "scope": "tools:call topics:join:room:*",
    })
}

/// Options with the keys of every kind, that accept all algorithms.
fn options() -> JwtOptions {
    let pem = |name: &str| LocalKey::Pem(sign::fixture(&format!("{name}.pub.pem")));
    JwtOptions {
        algorithms: sign::ALGORITHMS.to_vec(),
        keys: vec![LocalKey::Secret(sign::SECRET.to_vec()), pem("rsa"), pem("p256"), pem("p384"), pem("ed25519")],
        issuers: vec!["https://id.example.com".to_owned()],
        audiences: vec!["bennu".to_owned()],
        ..JwtOptions::default()
    }
}

fn verifier(options: JwtOptions) -> JwtVerifier {
    JwtVerifier::new(options).expect("the options are good")
}
