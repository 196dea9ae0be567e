//! Each algorithm against each way of being no good.

use serde_json::{Value, json};

use super::super::*;
use super::{NOW, claims, options, sign, verifier};

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().expect("an object").remove(name);
    claims
}

async fn verdict(verifier: &JwtVerifier, token: &str) -> Result<(), JwtRefused> {
    verifier.verify(token, NOW).await.map(|_| ())
}

const GOOD: Result<(), JwtRefused> = Ok(());
const INVALID: Result<(), JwtRefused> = Err(JwtRefused::Invalid);
const EXPIRED: Result<(), JwtRefused> = Err(JwtRefused::Expired);

#[tokio::test]
async fn each_algorithm_accepts_what_is_good_and_nothing_else() {
    let verifier = verifier(options());

    for algorithm in sign::ALGORITHMS {
        let verdict = async |claims: &Value| verdict(&verifier, &sign::token(algorithm, claims)).await;
        assert_eq!(verdict(&claims()).await, GOOD, "{algorithm:?}");
        assert_eq!(verdict(&with("exp", json!(1_800_000_000))).await, EXPIRED, "{algorithm:?}");
        for claims in [
            with("nbf", json!(1_800_003_000)),
            with("iat", json!(1_800_003_000)),
            with("iss", json!("https://evil.example.com")),
            with("iss", json!(["https://id.example.com"])),
            with("aud", json!(["other"])),
            with("aud", json!({"bennu": true})),
            with("sub", json!("")),
            with("exp", json!("1800003600")),
            without("iss"),
            without("aud"),
            without("sub"),
            without("exp"),
            json!([]),
            json!("alice"),
        ] {
            assert_eq!(verdict(&claims).await, INVALID, "{algorithm:?} {claims}");
        }
    }
}

#[tokio::test]
async fn tokens_of_another_implementation_are_read() {
    let fixture: Value = serde_json::from_str(&sign::fixture("tokens.json")).expect("JSON");
    let verifier = verifier(options());

    assert_eq!(fixture["secret"].as_str().map(str::as_bytes), Some(sign::SECRET));
    for algorithm in sign::ALGORITHMS {
        let token = fixture["tokens"][format!("{algorithm:?}")].as_str().expect("there is one");
        let read = verifier.verify(token, NOW).await.expect("it is good");

        assert_eq!((read.user.as_str(), read.id.as_deref()), ("alice", Some("token-1")));
        assert_eq!(read.roles, ["admin"]);
        assert_eq!(read.capabilities, ["tools:call", "topics:join:room:*"]);
        assert_eq!(read.expires_unix_ms, Some(1_800_003_600_000 + LEEWAY_S * 1_000));
        assert_eq!(read.issuer.as_deref(), Some("https://id.example.com"));
        assert_eq!(read.claims["aud"], json!(["bennu", "other"]));
        assert_eq!(verifier.verify(token, 1_800_003_630_000).await, Err(JwtRefused::Expired));
        assert_eq!(verifier.verify(token, 1_799_999_969_999).await, Err(JwtRefused::Invalid));
    }
}

#[tokio::test]
async fn every_cut_and_edit_of_a_token_is_invalid() {
    let verifier = verifier(options());

    for algorithm in [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let token = sign::token(algorithm, &claims());
        for end in 0..token.len() {
            assert_eq!(verdict(&verifier, &token[..end]).await, INVALID, "{algorithm:?} {end}");
        }
        for at in 0..token.len() {
            // `A` and `B` differ in the last bit only, which a lenient decoder drops at the end of a part.
            for other in ["A", "B", ".", "é"] {
                let mut edited = token.clone();
                if !token[at..].starts_with(other) {
                    edited.replace_range(at..=at, other);
                    assert_eq!(verdict(&verifier, &edited).await, INVALID, "{algorithm:?} {at} {other}");
                }
            }
        }
        for more in
            [format!("{token}A"), format!("{token}="), format!(" {token}"), format!("{token}\n"), format!("{token}.")]
        {
            assert_eq!(verdict(&verifier, &more).await, INVALID, "{more}");
        }
    }
}

#[tokio::test]
async fn a_signature_counts_for_its_own_algorithm_only() {
    let verifier = verifier(options());

    for signed in sign::ALGORITHMS {
        for named in sign::ALGORITHMS.into_iter().filter(|named| *named != signed) {
            let token = sign::with_header(signed, &json!({ "alg": format!("{named:?}") }), &claims());
            assert_eq!(verdict(&verifier, &token).await, INVALID, "{signed:?} as {named:?}");
        }
    }
}

#[tokio::test]
async fn an_algorithm_that_is_not_listed_is_not_accepted_though_the_key_is_there() {
    for listed in sign::ALGORITHMS {
        let verifier = verifier(JwtOptions { algorithms: vec![listed], ..options() });
        for algorithm in sign::ALGORITHMS {
            let expected = if algorithm == listed { GOOD } else { INVALID };
            assert_eq!(verdict(&verifier, &sign::token(algorithm, &claims())).await, expected, "{algorithm:?}");
        }
    }
}

#[tokio::test]
async fn none_and_unknown_algorithms_are_invalid_in_any_writing() {
    let verifier = verifier(options());
    let names =
        ["none", "None", "NONE", "nOnE", "none ", "", "hs256", "HS256 ", "HS1", "ES256K", "RS1", "A128KW", "dir"];

    for name in names {
        for signature in ["", "AA"] {
            let token = format!("{}.{}.{signature}", sign::part(&json!({ "alg": name })), sign::part(&claims()));
            assert_eq!(verdict(&verifier, &token).await, INVALID, "{name:?}");
        }
        let signed = sign::with_header(Algorithm::HS256, &json!({ "alg": name }), &claims());
        assert_eq!(verdict(&verifier, &signed).await, INVALID, "{name:?}");
    }
    for alg in [json!(null), json!(["HS256"]), json!(0), json!({})] {
        let signed = sign::with_header(Algorithm::HS256, &json!({ "alg": alg }), &claims());
        assert_eq!(verdict(&verifier, &signed).await, INVALID);
    }
    assert_eq!(verdict(&verifier, &sign::with_header(Algorithm::HS256, &json!({}), &claims())).await, INVALID);
}

#[tokio::test]
async fn a_public_key_is_no_secret() {
    // The verifier accepts HS256 with a secret of its own; the classic attack signs with the public key in any form.
    let verifier = verifier(options());

    for key in ["rsa", "p256", "p384", "ed25519"] {
        let pem = sign::fixture(&format!("{key}.pub.pem"));
        let jwk = sign::jwk(key, "k").to_string();
        let held = match pem::public_key(&pem).expect("a key") {
            pem::PublicKey::Rsa { n, .. } => n,
            pem::PublicKey::Ec(key) | pem::PublicKey::Ed(key) => key,
        };
        let forms = [
            pem.as_bytes().to_vec(),
            pem.trim_end().as_bytes().to_vec(),
            pem.replace('\n', "\r\n").into_bytes(),
            sign::der(&format!("{key}.pub.pem")),
            sign::der("rsa.pkcs1.pub.pem"),
            jwk.into_bytes(),
            held,
            Vec::new(),
        ];
        for form in forms {
            let token = sign::with_secret(&form, &json!({ "alg": "HS256" }), &claims());
            assert_eq!(verdict(&verifier, &token).await, INVALID, "{key}");
        }
    }
    let given = LocalKey::Secret(sign::fixture("rsa.pub.pem").into_bytes());
    let set_up = JwtVerifier::new(JwtOptions { keys: vec![given], ..options() });
    assert!(matches!(set_up, Err(JwtSetupError::Key { at: 0, .. })));
}

#[tokio::test]
async fn a_key_id_is_compared_and_never_looked_up() {
    let set = json!({ "keys": [sign::jwk("p256", "a"), sign::jwk("p256_other", "b"), sign::jwk("rsa", "c")] });
    let keys = vec![LocalKey::JwkSet(set.to_string())];
    let verifier = verifier(JwtOptions { keys, ..options() });
    let named = |kid: Value| {
        let header = json!({ "alg": "ES256", "kid": kid });
        sign::with_key(Algorithm::ES256, "p256", &header, &claims())
    };

    assert_eq!(verdict(&verifier, &named(json!("a"))).await, GOOD);
    let strange =
        ["b", "c", "A", "a ", "", "../../etc/passwd", "/dev/null", "' or 1=1", "a\0", "http://127.0.0.1/", "*"];
    for kid in strange {
        assert_eq!(verdict(&verifier, &named(json!(kid))).await, INVALID, "{kid}");
    }
    for kid in [json!(null), json!(["a"]), json!(0)] {
        assert_eq!(verdict(&verifier, &named(kid)).await, INVALID);
    }
    assert_eq!(verdict(&verifier, &sign::token(Algorithm::ES256, &claims())).await, GOOD);
    // A key without an id is for all tokens.
    let given = self::verifier(options());
    assert_eq!(verdict(&given, &named(json!("../../etc/passwd"))).await, GOOD);
}

#[tokio::test]
async fn a_token_without_a_key_id_is_tried_with_a_few_keys() {
    let set = |others: usize| {
        let mut keys: Vec<Value> = (0..others).map(|n| sign::jwk("p256_other", &format!("{n}"))).collect();
        keys.push(sign::jwk("p256", "last"));
        verifier(JwtOptions { keys: vec![LocalKey::JwkSet(json!({ "keys": keys }).to_string())], ..options() })
    };
    let anonymous = sign::token(Algorithm::ES256, &claims());
    let named = sign::with_header(Algorithm::ES256, &json!({ "alg": "ES256", "kid": "last" }), &claims());

    assert_eq!(verdict(&set(KEYS_TRIED_MAX - 1), &anonymous).await, GOOD);
    assert_eq!(verdict(&set(KEYS_TRIED_MAX), &anonymous).await, INVALID);
    assert_eq!(verdict(&set(KEYS_TRIED_MAX), &named).await, GOOD);
}

#[tokio::test]
async fn headers_that_bring_keys_are_not_looked_at_and_critical_ones_are_refused() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/keys", listener.local_addr().expect("bound"));
    let verifier = verifier(options());
    let header = json!({
        "alg": "RS256", "jku": url, "x5u": url, "jwk": sign::jwk("rsa_other", "a"), "x5c": ["AAAA"], "kid": url,
    });

    let forged = sign::with_key(Algorithm::RS256, "rsa_other", &header, &claims());
    assert_eq!(verdict(&verifier, &forged).await, INVALID);
    assert_eq!(verdict(&verifier, &sign::with_header(Algorithm::RS256, &header, &claims())).await, GOOD);
    for crit in [json!(["exp"]), json!([]), json!(null), json!(["b64"])] {
        let header = json!({ "alg": "RS256", "crit": crit, "b64": true });
        assert_eq!(verdict(&verifier, &sign::with_header(Algorithm::RS256, &header, &claims())).await, INVALID);
    }
    let asked = tokio::time::timeout(std::time::Duration::from_millis(50), listener.accept()).await;
    assert!(asked.is_err(), "somebody asked");
}

#[tokio::test]
async fn oversized_deep_and_repeating_tokens_are_invalid() {
    let verifier = verifier(options());
    let padded = |bytes: usize| with("x", json!("x".repeat(bytes)));
    let nested = (0..CLAIMS_DEPTH_MAX).fold(json!(1), |inner, _| json!([inner]));

    let (mut fits, mut large) = (padded(11_000), padded(12_500));
    assert!(sign::token(Algorithm::HS256, &large).len() > TOKEN_BYTES_MAX);
    assert_eq!(verdict(&verifier, &sign::token(Algorithm::HS256, &fits)).await, GOOD);
    assert_eq!(verdict(&verifier, &sign::token(Algorithm::HS256, &large)).await, INVALID);
    fits["x"] = nested[0].clone();
    large["x"] = nested;
    assert_eq!(verdict(&verifier, &sign::token(Algorithm::HS256, &fits)).await, GOOD);
    large = with("x", large["x"].clone());
    assert_eq!(verdict(&verifier, &sign::token(Algorithm::HS256, &large)).await, INVALID);

    let repeat = |json: &Value, more: &str| {
        let text = json.to_string();
        sign::encode(&format!("{},{more}}}", text.strip_suffix('}').expect("an object")))
    };
    let header = json!({ "alg": "HS256" });
    let claims_twice = format!("{}.{}", sign::part(&header), repeat(&claims(), r#""sub":"root""#));
    let header_twice = format!("{}.{}", repeat(&header, r#""alg":"none""#), sign::part(&claims()));
    for message in [claims_twice, header_twice] {
        assert_eq!(verdict(&verifier, &sign::text(Algorithm::HS256, "", &message)).await, INVALID);
    }
}

#[tokio::test]
async fn expiry_is_called_so_only_where_all_else_is_good() {
    let verifier = verifier(options());
    let expired = with("exp", json!(1));

    for name in ["iss", "aud", "sub"] {
        let mut wrong = expired.clone();
        wrong[name] = json!(["x"]);
        assert_eq!(verdict(&verifier, &sign::token(Algorithm::HS256, &wrong)).await, INVALID, "{name}");
    }
    let forged = sign::with_secret(b"another secret of some length", &json!({ "alg": "HS256" }), &expired);
    assert_eq!(verdict(&verifier, &forged).await, INVALID);
    assert_eq!(JwtRefused::Expired.to_string(), "expired");
    assert_eq!(JwtRefused::Invalid.to_string(), "invalid");
}

#[tokio::test]
async fn options_say_what_is_not_required() {
    let lax = JwtOptions { require_exp: false, issuers: Vec::new(), audiences: Vec::new(), ..options() };
    let verifier = verifier(lax);
    let token = sign::token(Algorithm::HS256, &json!({ "sub": "alice" }));

    let read = verifier.verify(&token, NOW).await.expect("nothing else is required");

    assert_eq!((read.expires_unix_ms, read.id, read.issuer), (None, None, None));
    assert_eq!(verdict(&verifier, &sign::token(Algorithm::HS256, &json!({ "sub": "a", "exp": 1 }))).await, EXPIRED);
}

#[tokio::test]
async fn the_elixir_deployments_tokens_fit() {
    let claims = json!({
        "iss": "AshAuthentication v4.9.7", "aud": "~> 4.9", "sub": "user?id=7d0e7a3c-8a9b-4f0e-9d3e-1f2a3b4c5d6e",
        "jti": "2v5k", "iat": 1_800_000_000, "nbf": 1_800_000_000, "exp": 1_801_209_600, "purpose": "user",
    });
    let verifier = verifier(JwtOptions {
        algorithms: vec![Algorithm::HS256],
        keys: vec![LocalKey::Secret(sign::SECRET.to_vec())],
        issuers: vec!["AshAuthentication*".to_owned()],
        audiences: vec!["~> 4.9".to_owned()],
        claims: ClaimMap { user_prefix_strip: Some("id=".to_owned()), ..ClaimMap::default() },
        ..JwtOptions::default()
    });

    let read = verifier.verify(&sign::token(Algorithm::HS256, &claims), NOW).await.expect("good");

    assert_eq!(read.user, "7d0e7a3c-8a9b-4f0e-9d3e-1f2a3b4c5d6e");
    assert!(read.roles.is_empty() && read.capabilities.is_empty());
}

#[tokio::test]
async fn jwk_sets_are_used_as_they_say() {
    let with = |mut jwk: Value, name: &str, value: Value| {
        jwk[name] = value;
        jwk
    };
    let verdicts = async |jwk: Value, algorithm: Algorithm| {
        let keys = vec![LocalKey::JwkSet(json!({ "keys": [jwk, sign::jwk("p256_other", "other")] }).to_string())];
        let verifier = JwtVerifier::new(JwtOptions { keys, ..options() }).map_err(|_| ())?;
        Ok(verdict(&verifier, &sign::token(algorithm, &claims())).await)
    };
    let oct = json!({ "kty": "oct", "k": sign::encode(std::str::from_utf8(sign::SECRET).expect("text")) });

    for (key, algorithm) in [("rsa", Algorithm::PS384), ("p384", Algorithm::ES384), ("ed25519", Algorithm::EdDSA)] {
        assert_eq!(verdicts(sign::jwk(key, "a"), algorithm).await, Ok(GOOD), "{key}");
    }
    assert_eq!(verdicts(oct, Algorithm::HS384).await, Ok(GOOD));
    let rsa = || sign::jwk("rsa", "a");
    assert_eq!(verdicts(with(rsa(), "alg", json!("RS256")), Algorithm::RS256).await, Ok(GOOD));
    assert_eq!(verdicts(with(rsa(), "alg", json!("RS256")), Algorithm::PS256).await, Ok(INVALID));
    assert_eq!(verdicts(with(rsa(), "alg", json!("RSA-OAEP")), Algorithm::RS256).await, Ok(INVALID));
    assert_eq!(verdicts(with(rsa(), "use", json!("enc")), Algorithm::RS256).await, Ok(INVALID));
    assert_eq!(verdicts(with(rsa(), "key_ops", json!(["encrypt"])), Algorithm::RS256).await, Ok(INVALID));
    assert_eq!(verdicts(with(rsa(), "key_ops", json!(["verify"])), Algorithm::RS256).await, Ok(GOOD));
    assert_eq!(verdicts(with(rsa(), "kty", json!("XYZ")), Algorithm::RS256).await, Ok(INVALID));
    assert_eq!(verdicts(with(rsa(), "alg", json!("HS256")), Algorithm::HS256).await, Err(()));
    assert_eq!(verdicts(with(sign::jwk("p256", "a"), "crv", json!("P-384")), Algorithm::ES256).await, Err(()));
    assert_eq!(verdicts(sign::jwk("rsa_weak", "a"), Algorithm::RS256).await, Err(()));
    assert_eq!(verdicts(with(rsa(), "n", json!("*")), Algorithm::RS256).await, Err(()));
}

#[test]
fn faults_of_the_options_are_named_without_the_keys() {
    let fault = |keys: Vec<LocalKey>| JwtVerifier::new(JwtOptions { keys, ..options() }).map(|_| ());
    let pem = |name: &str| LocalKey::Pem(sign::fixture(name));

    assert!(matches!(fault(vec![pem("rsa.pub.pem"), pem("rsa_weak.pub.pem")]), Err(JwtSetupError::Key { at: 1, .. })));
    for key in [pem("rsa.key.pem"), pem("p521.pub.pem"), LocalKey::Secret(b"short".to_vec())] {
        assert!(matches!(fault(vec![key]), Err(JwtSetupError::Key { at: 0, .. })));
    }
    for set in ["", "{}", "[]", r#"{"keys":[]}"#, r#"{"keys":[1]}"#, r#"{"keys":[{"kty":"EC"}]}"#] {
        assert!(fault(vec![LocalKey::JwkSet(set.to_owned())]).is_err(), "{set}");
    }
    assert_eq!(fault(Vec::new()), Err(JwtSetupError::NoKeys));
    let none = JwtVerifier::new(JwtOptions { algorithms: Vec::new(), ..options() }).map(|_| ());
    assert_eq!(none, Err(JwtSetupError::NoAlgorithms));
}

#[tokio::test]
async fn nothing_printed_has_a_secret_or_claims_in_it() {
    let secret = LocalKey::Secret(b"open sesame open sesame".to_vec());
    let jwks_url = Some("https://id.example.com/?code=tulip".to_owned());
    let options = JwtOptions { keys: vec![secret], jwks_url, ..options() };
    let verifier = verifier(options.clone());
    let mut given = claims();
    given["email"] = json!("alice@example.com");
    let token = sign::with_secret(b"open sesame open sesame", &json!({ "alg": "HS256" }), &given);

    let read = verifier.verify(&token, NOW).await.expect("good");

    let printed = format!("{options:?} {verifier:?} {read:?}");
    assert!(printed.contains("alice"), "{printed}");
    let bytes = format!("{:?}", b"open sesame").trim_matches(['[', ']']).to_owned();
    for hidden in ["sesame", "tulip", "alice@example.com", &bytes] {
        assert!(!printed.contains(hidden), "{hidden} in {printed}");
    }
}
