//! Keys by URL: when they are asked for, how long they are used, what an issuer can't do to the server.
//!
//! The age of keys is an argument; only a few tests wait for real time, and then for an end, not for a while.

use std::time::Duration;

use serde_json::{Value, json};

use super::server::{Answer, Issuer};
use super::{NOW, claims, options, sign};
use crate::auth::jwt::{
    Algorithm, JWK_SET_KEYS_MAX, JWKS_BYTES_MAX, JWKS_INTERVAL_MS, JWKS_STALE_MS_MAX, JwtOptions, JwtRefused,
    JwtVerifier,
};
use crate::protocol::Time;

const REFRESH_MS: u64 = 60_000;
const START: Time = Time(1_000_000);
/// Of a request in these tests. A loaded machine answers within it.
const TIMEOUT: Duration = Duration::from_secs(2);

const GOOD: Result<(), JwtRefused> = Ok(());
const INVALID: Result<(), JwtRefused> = Err(JwtRefused::Invalid);

fn set(keys: &[(&str, &str)]) -> Answer {
    let keys: Vec<Value> = keys.iter().map(|(key, kid)| sign::jwk(key, kid)).collect();
    Answer::Ok(json!({ "keys": keys }).to_string())
}

fn verifier(issuer: &Issuer) -> JwtVerifier {
    let (jwks_url, keys) = (Some(issuer.url()), Vec::new());
    let options = JwtOptions { keys, jwks_url, jwks_refresh_ms: REFRESH_MS, ..options() };
    JwtVerifier::with_timeout(options, TIMEOUT).expect("the options are good")
}

/// A token that a key has signed and that names an id.
fn token(key: &str, kid: &str) -> String {
    let algorithm = if key.starts_with("p256") { Algorithm::ES256 } else { Algorithm::RS256 };
    let header = json!({ "alg": format!("{algorithm:?}"), "kid": kid });
    sign::with_key(algorithm, key, &header, &claims())
}

async fn verdict(verifier: &JwtVerifier, token: &str, ms: u64) -> Result<(), JwtRefused> {
    verifier.verify_at(token, NOW, START + ms).await.map(|_| ())
}

/// Waits until the issuer was asked so many times and what it said has come in.
async fn settled(issuer: &Issuer, verifier: &JwtVerifier, times: usize) {
    while issuer.times() < times || verifier.remote.as_ref().is_some_and(super::super::Remote::is_asking) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn keys_are_fetched_once_and_held() {
    let issuer = Issuer::start(set(&[("rsa", "a"), ("p256", "b")])).await;
    let verifier = verifier(&issuer);
    assert_eq!(issuer.times(), 0);

    for ms in [0, 1, 59_999] {
        assert_eq!(verdict(&verifier, &token("rsa", "a"), ms).await, GOOD);
        assert_eq!(verdict(&verifier, &token("p256", "b"), ms).await, GOOD);
        assert_eq!(verdict(&verifier, &token("rsa_other", "a"), ms).await, INVALID);
    }

    assert_eq!(issuer.asked(), ["/keys"]);
}

#[tokio::test]
async fn a_token_that_no_key_could_fit_asks_nothing() {
    let issuer = Issuer::start(set(&[("rsa", "a")])).await;
    let verifier = verifier(&issuer);

    for token in ["", "a.b.c", "e30.e30.", &format!("{}.e30.AA", sign::part(&json!({ "alg": "none", "kid": "x" })))] {
        assert_eq!(verdict(&verifier, token, 0).await, INVALID);
    }

    assert_eq!(issuer.times(), 0);
}

#[tokio::test]
async fn local_keys_need_no_network() {
    let issuer = Issuer::start(set(&[("rsa_other", "a")])).await;
    let verifier = JwtVerifier::new(JwtOptions { jwks_url: Some(issuer.url()), ..options() }).expect("good");

    assert_eq!(verdict(&verifier, &token("rsa", "a"), 0).await, GOOD);
    assert_eq!(issuer.times(), 0);
    assert_eq!(verdict(&verifier, &token("rsa_other", "a"), 0).await, GOOD);
    assert_eq!(issuer.times(), 1);
}

#[tokio::test]
async fn an_unknown_key_id_fetches_at_once_but_not_again_within_the_interval() {
    let issuer = Issuer::start(set(&[("rsa", "a")])).await;
    let verifier = verifier(&issuer);
    assert_eq!(verdict(&verifier, &token("rsa", "a"), 0).await, GOOD);
    issuer.set(set(&[("p256", "b")]));

    for kid in ["x", "../../etc/passwd", "b", "' or 1=1"] {
        assert_eq!(verdict(&verifier, &token("p256", kid), JWKS_INTERVAL_MS - 1).await, INVALID, "{kid}");
    }
    assert_eq!(issuer.times(), 1);
    assert_eq!(verdict(&verifier, &token("p256", "b"), JWKS_INTERVAL_MS).await, GOOD);
    assert_eq!(issuer.times(), 2);
    // The key that the issuer has withdrawn is gone at the same time.
    assert_eq!(verdict(&verifier, &token("rsa", "a"), JWKS_INTERVAL_MS).await, INVALID);
    for n in 0..50 {
        let kid = format!("x{n}");
        assert_eq!(verdict(&verifier, &token("p256", &kid), 2 * JWKS_INTERVAL_MS - 1).await, INVALID);
    }
    assert_eq!(issuer.times(), 2);
}

#[tokio::test]
async fn old_keys_count_while_they_are_fetched_anew() {
    let issuer = Issuer::start(set(&[("rsa", "a")])).await;
    let verifier = verifier(&issuer);
    assert_eq!(verdict(&verifier, &token("rsa", "a"), 0).await, GOOD);
    issuer.set(set(&[("p256", "b")]));

    assert_eq!(verdict(&verifier, &token("rsa", "a"), REFRESH_MS).await, GOOD);
    settled(&issuer, &verifier, 2).await;

    assert_eq!(verdict(&verifier, &token("rsa", "a"), REFRESH_MS).await, INVALID);
    assert_eq!(verdict(&verifier, &token("p256", "b"), REFRESH_MS).await, GOOD);
    assert_eq!(issuer.times(), 2);
}

#[tokio::test]
async fn after_a_long_silence_keys_are_fetched_first() {
    let issuer = Issuer::start(set(&[("rsa", "a")])).await;
    let verifier = verifier(&issuer);
    assert_eq!(verdict(&verifier, &token("rsa", "a"), 0).await, GOOD);
    issuer.set(set(&[("p256", "b")]));

    assert_eq!(verdict(&verifier, &token("rsa", "a"), 2 * REFRESH_MS).await, INVALID);
}

#[tokio::test]
async fn keys_are_used_while_the_issuer_fails_until_they_are_stale() {
    let issuer = Issuer::start(set(&[("rsa", "a")])).await;
    let verifier = verifier(&issuer);
    assert_eq!(verdict(&verifier, &token("rsa", "a"), 0).await, GOOD);
    let no_sets = ["", "[]", "{}", r#"{"keys":{}}"#, "<html>"].map(|text| Answer::Ok(text.to_owned()));

    let failures = [500, 404, 304].map(Answer::Status).into_iter().chain(no_sets);
    let mut ms = 2 * REFRESH_MS;
    for (n, failure) in failures.enumerate() {
        issuer.set(failure);
        assert_eq!(verdict(&verifier, &token("rsa", "a"), ms).await, GOOD, "{n}");
        settled(&issuer, &verifier, n + 2).await;
        ms += JWKS_INTERVAL_MS;
    }
    assert_eq!(verdict(&verifier, &token("rsa", "a"), JWKS_STALE_MS_MAX - 1).await, GOOD);
    assert_eq!(verdict(&verifier, &token("rsa", "a"), JWKS_STALE_MS_MAX).await, INVALID);
    issuer.set(set(&[("rsa", "a")]));
    assert_eq!(verdict(&verifier, &token("rsa", "a"), JWKS_STALE_MS_MAX + JWKS_INTERVAL_MS).await, GOOD);
}

#[tokio::test]
async fn a_set_is_taken_up_to_a_length() {
    let Answer::Ok(set) = set(&[("rsa", "a")]) else { unreachable!("it is one") };
    let padded = |bytes: usize| format!("{set}{}", " ".repeat(bytes - set.len()));
    let cases = [
        (Answer::Ok(padded(JWKS_BYTES_MAX)), GOOD),
        (Answer::Ok(padded(JWKS_BYTES_MAX + 1)), INVALID),
        (Answer::Unsized(padded(JWKS_BYTES_MAX)), GOOD),
        (Answer::Unsized(padded(JWKS_BYTES_MAX + 1)), INVALID),
    ];

    for (answer, expected) in cases {
        let issuer = Issuer::start(answer).await;
        assert_eq!(verdict(&verifier(&issuer), &token("rsa", "a"), 0).await, expected);
    }
}

#[tokio::test]
async fn tokens_that_come_at_once_wait_for_one_request() {
    let Answer::Ok(body) = set(&[("rsa", "a")]) else { unreachable!("it is one") };
    let issuer = Issuer::start(Answer::Late(Duration::from_millis(100), body)).await;
    let verifier = std::sync::Arc::new(verifier(&issuer));

    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..20 {
        let (verifier, token) = (std::sync::Arc::clone(&verifier), token("rsa", "a"));
        // Some come while the request is under way.
        tasks.spawn(async move { verdict(&verifier, &token, n * 10).await });
    }

    assert!(tasks.join_all().await.into_iter().all(|verdict| verdict == GOOD));
    assert_eq!(issuer.times(), 1);
}

#[tokio::test]
async fn who_stops_waiting_does_not_end_the_request() {
    let Answer::Ok(body) = set(&[("rsa", "a")]) else { unreachable!("it is one") };
    let issuer = Issuer::start(Answer::Late(Duration::from_millis(100), body)).await;
    let verifier = verifier(&issuer);
    let token = token("rsa", "a");

    let gave_up = tokio::time::timeout(Duration::from_millis(1), verdict(&verifier, &token, 0)).await;
    assert!(gave_up.is_err());

    assert_eq!(verdict(&verifier, &token, 1).await, GOOD);
    assert_eq!(issuer.times(), 1);
}

#[tokio::test]
async fn a_verifier_that_is_dropped_ends_its_request() {
    let issuer = Issuer::start(Answer::Silence).await;
    let options = JwtOptions { keys: Vec::new(), jwks_url: Some(issuer.url()), ..options() };
    // It would not end by itself.
    let verifier = JwtVerifier::with_timeout(options, Duration::from_secs(3_600)).expect("good");
    let (token, wait) = (token("rsa", "a"), Duration::from_millis(1));
    assert!(tokio::time::timeout(wait, verdict(&verifier, &token, 0)).await.is_err());
    let task = verifier.remote.as_ref().and_then(super::super::Remote::task).expect("there is one");

    drop(verifier);

    let ended = async {
        while !task.is_finished() {
            tokio::time::sleep(wait).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), ended).await.is_ok());
}

#[tokio::test]
async fn a_slow_issuer_is_given_up() {
    for slow in [Answer::Silence, Answer::Drip] {
        let issuer = Issuer::start(slow).await;
        let options = JwtOptions { keys: Vec::new(), jwks_url: Some(issuer.url()), ..options() };
        let verifier = JwtVerifier::with_timeout(options, Duration::from_millis(200)).expect("good");

        assert_eq!(verdict(&verifier, &token("rsa", "a"), 0).await, INVALID);
        assert_eq!(verdict(&verifier, &token("rsa", "a"), 1).await, INVALID);
        assert_eq!(issuer.times(), 1);
    }
}

#[tokio::test]
async fn an_issuer_that_is_not_there_costs_one_try_in_the_interval() {
    let issuer = Issuer::start(Answer::Silence).await;
    let url = issuer.url();
    drop(issuer);
    let options = JwtOptions { keys: Vec::new(), jwks_url: Some(url), ..options() };
    let verifier = JwtVerifier::with_timeout(options, TIMEOUT).expect("good");

    for ms in 0..10 {
        assert_eq!(verdict(&verifier, &token("rsa", "a"), ms).await, INVALID);
    }
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_server_only() {
    let other = Issuer::start(set(&[("rsa", "a")])).await;
    let issuer = Issuer::start(Answer::Redirect(other.url())).await;
    let verifier = verifier(&issuer);

    assert_eq!(verdict(&verifier, &token("rsa", "a"), 0).await, INVALID);
    assert_eq!((issuer.times(), other.times()), (1, 0));
    issuer.set(Answer::Redirect("/elsewhere".to_owned()));
    assert_eq!(verdict(&verifier, &token("rsa", "a"), JWKS_INTERVAL_MS).await, INVALID);
    assert_eq!(issuer.asked(), ["/keys", "/keys", "/elsewhere", "/elsewhere", "/elsewhere"]);
}

#[tokio::test]
async fn keys_that_are_not_for_this_are_left_out_and_the_others_are_used() {
    let mut for_encryption = sign::jwk("rsa", "enc");
    for_encryption["use"] = json!("enc");
    let secret =
        json!({ "kty": "oct", "kid": "oct", "k": sign::encode(std::str::from_utf8(sign::SECRET).expect("text")) });
    let odd =
        [json!(1), json!({}), json!({ "kty": "XYZ", "kid": "a" }), json!({ "kty": "EC", "crv": "P-521", "kid": "a" })];
    let mut keys = vec![for_encryption, secret, sign::jwk("rsa_weak", "weak"), sign::jwk("p256", "good")];
    keys.splice(0..0, odd);
    let issuer = Issuer::start(Answer::Ok(json!({ "keys": keys }).to_string())).await;
    let verifier = verifier(&issuer);

    assert_eq!(verdict(&verifier, &token("p256", "good"), 0).await, GOOD);
    assert_eq!(verdict(&verifier, &token("rsa", "enc"), 0).await, INVALID);
    let with_secret = sign::with_secret(sign::SECRET, &json!({ "alg": "HS256", "kid": "oct" }), &claims());
    assert_eq!(verdict(&verifier, &with_secret, 0).await, INVALID);
}

#[tokio::test]
async fn the_keys_of_a_set_are_bounded() {
    let mut keys = vec![sign::jwk("p256_other", "filler"); JWK_SET_KEYS_MAX - 1];
    keys.extend([sign::jwk("rsa", "in"), sign::jwk("p256", "out")]);
    let issuer = Issuer::start(Answer::Ok(json!({ "keys": keys }).to_string())).await;
    let verifier = verifier(&issuer);

    assert_eq!(verdict(&verifier, &token("rsa", "in"), 0).await, GOOD);
    assert_eq!(verdict(&verifier, &token("p256", "out"), 0).await, INVALID);
}
