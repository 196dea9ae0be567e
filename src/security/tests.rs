//! Who is let in by what, who is locked out, and what a revocation reaches: without a network.

use std::time::Duration;

use ring::hmac;

use super::*;
use crate::auth::api_keys::NewKey;
use crate::auth::jwt::{Algorithm, JwtOptions, LocalKey};
use crate::auth::live::Gone;
use crate::auth::phoenix_token::{self, DerivedKey, KeyOptions, MaxAge};
use crate::mcp::auth::McpAuth;
use crate::protocol::etf::Term;

const SECRET: &str = "a secret of the tests, longer than the sixty-four bytes that are wanted";
const JWT_SECRET: &[u8] = b"another secret of the tests, for JSON web tokens";
const TOPIC: &str = "mcp:session";

async fn start(change: impl FnOnce(&mut SecurityOptions)) -> Arc<Security> {
    start_on(&Deployment::in_memory(), change).await
}

async fn start_on(deployment: &Deployment, change: impl FnOnce(&mut SecurityOptions)) -> Arc<Security> {
    let keys = vec![LocalKey::Secret(JWT_SECRET.to_vec())];
    let mut options = SecurityOptions {
        secret_key_base: Some(SecretText::new(SECRET)),
        jwt: Some(JwtOptions { algorithms: vec![Algorithm::HS256], keys, leeway_s: 0, ..JwtOptions::default() }),
        audit: None,
        ..SecurityOptions::default()
    };
    change(&mut options);
    Security::start(&Endpoint::start(), deployment, options).await.expect("the options are good")
}

fn now_ms() -> u64 {
    clock::unix_micros() / 1_000
}

fn signed(salt: &str, data: &Term) -> String {
    let key = DerivedKey::derive(SECRET, salt, &KeyOptions::default()).expect("a key");
    let signed_at_ms = i64::try_from(now_ms()).expect("before the year 292277026596");
    phoenix_token::sign(&key, data, signed_at_ms, MaxAge::default()).expect("a token")
}

fn map(fields: Vec<(&str, Term)>) -> Term {
    let fields = fields.into_iter().map(|(name, value)| (Term::atom(name).expect("an atom"), value));
    Term::map(fields.collect()).expect("different keys")
}

fn of_user(user: &str, role: &str) -> String {
    signed("mcp_auth", &map(vec![("user_id", Term::binary(user)), ("role", Term::binary(role))]))
}

fn jwt(claims: &Value) -> String {
    use base64::Engine;
    let encode = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let message = format!("{}.{}", encode(br#"{"alg":"HS256"}"#), encode(claims.to_string().as_bytes()));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, JWT_SECRET), message.as_bytes());
    format!("{message}.{}", encode(signature.as_ref()))
}

fn at(door: Door, credential: Option<Credential>) -> Presented {
    Presented::new(credential, door)
}

fn on(topic: &str, token: &str) -> Presented {
    at(Door::Topic(topic.to_owned()), Some(Credential::Token(token.to_owned())))
}

fn key(text: &str) -> Presented {
    at(Door::Topic(TOPIC.to_owned()), Some(Credential::ApiKey(text.to_owned())))
}

/// The user, or the reason.
async fn who(security: &Security, presented: Presented) -> Result<String, String> {
    let found = security.authenticate(presented).await;
    found.map(|identity| identity.user.to_string()).map_err(|refused| refused.0)
}

const INVALID: &str = "Token verification failed: invalid";

#[tokio::test]
async fn each_door_takes_the_kinds_it_is_set_to_and_no_others() {
    let security = start(|options| {
        options.socket = vec![CredentialKind::PhoenixToken];
        options.mcp = vec![CredentialKind::Jwt];
    })
    .await;
    let socket = || Door::Socket("/socket".to_owned());
    let token = |text: &str| Some(Credential::Token(text.to_owned()));
    let web = jwt(&json!({"sub": "ann", "exp": now_ms() / 1_000 + 60}));
    let phoenix = signed("user socket", &Term::binary("ann"));

    assert_eq!(who(&security, at(socket(), token(&phoenix))).await.as_deref(), Ok("ann"));
    assert_eq!(who(&security, at(socket(), token(&web))).await.unwrap_err(), INVALID);
    assert_eq!(who(&security, on(TOPIC, &web)).await.as_deref(), Ok("ann"));
    assert_eq!(who(&security, on(TOPIC, &of_user("ann", "user"))).await.unwrap_err(), INVALID);
    assert_eq!(who(&security, key("k")).await.unwrap_err(), "Invalid API key");
}

#[tokio::test]
async fn a_token_is_good_at_the_door_of_its_salt_alone() {
    let security = start(|_| {}).await;
    let socket = |text: String| at(Door::Socket("/socket".to_owned()), Some(Credential::Token(text)));
    let of_mcp = of_user("ann", "user");

    assert_eq!(who(&security, socket(of_mcp.clone())).await.unwrap_err(), INVALID);
    assert_eq!(who(&security, on(TOPIC, &signed("user socket", &Term::binary("ann")))).await.unwrap_err(), INVALID);
    let http = |text: String| at(Door::Http("bennu".to_owned()), Some(Credential::Token(text)));
    assert_eq!(who(&security, http(of_mcp)).await.as_deref(), Ok("ann"));
    assert_eq!(
        who(&security, on(TOPIC, &signed("bennu operator", &Term::binary("operator 0")))).await.unwrap_err(),
        INVALID
    );
}

#[tokio::test]
async fn the_data_of_a_token_has_to_name_a_user() {
    let security = start(|_| {}).await;
    let user = || ("user_id", Term::binary("ann"));
    let list = |texts: &[&str]| Term::List(texts.iter().map(Term::binary).collect::<Vec<_>>().into());
    let cases: Vec<(Term, Result<&str, &str>)> = vec![
        (map(vec![user()]), Ok("ann")),
        (map(vec![("user_id", Term::int(7))]), Ok("7")),
        (map(vec![user(), ("role", Term::nil()), ("permissions", Term::nil())]), Ok("ann")),
        (map(vec![user(), ("role", Term::atom("admin").expect("an atom"))]), Ok("ann")),
        (map(vec![user(), ("permissions", list(&["tools:call", "!prompts:*"]))]), Ok("ann")),
        (Term::map(vec![(Term::binary("user_id"), Term::binary("ann"))]).expect("a map"), Ok("ann")),
        (map(vec![]), Err(INVALID)),
        (Term::binary("ann"), Err(INVALID)),
        (map(vec![("user_id", Term::binary(""))]), Err(INVALID)),
        (map(vec![("user_id", Term::nil())]), Err(INVALID)),
        (map(vec![("user_id", Term::binary("a\nb"))]), Err(INVALID)),
        (map(vec![("user_id", Term::binary("x".repeat(256)))]), Err(INVALID)),
        (map(vec![("user_id", Term::binary([0xff]))]), Err(INVALID)),
        (map(vec![user(), ("role", Term::int(1))]), Err(INVALID)),
        (map(vec![user(), ("permissions", Term::binary("tools:*"))]), Err(INVALID)),
        (map(vec![user(), ("permissions", list(&["tools"]))]), Err(INVALID)),
        (map(vec![user(), ("permissions", list(&["!tools"]))]), Err(INVALID)),
    ];
    for (at, (data, expected)) in cases.iter().enumerate() {
        let came = who(&security, on(TOPIC, &signed("mcp_auth", data))).await;
        assert_eq!(came.as_deref().map_err(String::as_str), *expected, "case {at}");
    }
}

#[tokio::test]
async fn without_a_credential_a_topic_is_the_sockets_but_those_of_the_deployment_are_nobodys() {
    let bare = |topic: &str| {
        let mut presented = at(Door::Topic(topic.to_owned()), None);
        presented.socket = Some(Identity::member("ann"));
        presented
    };
    let none = "No authentication credentials provided";

    let security = start(|_| {}).await;
    for topic in ["mcp:server:bennu", "mcp:hub", "mcp:runs", "room:1", "mcp:sessions"] {
        assert_eq!(who(&security, bare(topic)).await.as_deref(), Ok("ann"), "{topic}");
    }
    for topic in ["mcp:session", "mcp:session:a"] {
        assert_eq!(who(&security, bare(topic)).await.unwrap_err(), none, "{topic}");
    }
    let mut wrong = bare("room:1");
    wrong.credential = Some(Credential::Token("x".to_owned()));
    assert_eq!(who(&security, wrong).await.unwrap_err(), INVALID, "one that is brought has to be good");

    let security = start(|options| options.socket_user = false).await;
    assert_eq!(who(&security, bare("room:1")).await.unwrap_err(), none);
}

#[tokio::test(start_paused = true)]
async fn different_guesses_lock_an_address_out_for_a_while_and_the_same_one_does_not() {
    let security = start(|options| {
        options.locking.failures_max = 3;
        options.attempts.attempts_max = 0;
    })
    .await;
    let good = of_user("ann", "user");
    let from = |ip: &str, mut presented: Presented| {
        presented.ip = Some(ip.parse().expect("an address"));
        presented
    };
    let locked = "IP access denied: IP temporarily blocked";

    for _ in 0..100 {
        assert_eq!(who(&security, from("192.0.2.1", key("the same"))).await.unwrap_err(), "Invalid API key");
    }
    assert_eq!(who(&security, from("192.0.2.1", on(TOPIC, &good))).await.as_deref(), Ok("ann"));
    for guess in ["one", "another"] {
        assert_eq!(who(&security, from("192.0.2.1", key(guess))).await.unwrap_err(), "Invalid API key");
    }
    assert_eq!(who(&security, from("192.0.2.1", on(TOPIC, &good))).await.unwrap_err(), locked);
    assert_eq!(who(&security, from("192.0.2.2", on(TOPIC, &good))).await.as_deref(), Ok("ann"));

    tokio::time::sleep(Duration::from_secs(301)).await;
    assert_eq!(who(&security, from("192.0.2.1", on(TOPIC, &good))).await.as_deref(), Ok("ann"));
}

#[tokio::test(start_paused = true)]
async fn neither_nothing_nor_what_was_good_is_a_guess() {
    let security = start(|options| options.locking.failures_max = 1).await;
    let mut bare = at(Door::Topic(TOPIC.to_owned()), None);
    bare.ip = Some([192, 0, 2, 1].into());
    let mut late = on(TOPIC, &jwt(&json!({"sub": "ann", "exp": 1_000})));
    late.ip = bare.ip;

    for _ in 0..5 {
        assert_eq!(who(&security, bare.clone()).await.unwrap_err(), "No authentication credentials provided");
        assert_eq!(who(&security, late.clone()).await.unwrap_err(), "Token verification failed: expired");
    }
}

#[tokio::test(start_paused = true)]
async fn connects_of_an_address_are_counted_in_each_minute() {
    let security = start(|options| options.attempts.attempts_max = 3).await;
    let from = |mut presented: Presented| {
        presented.ip = Some([192, 0, 2, 1].into());
        presented
    };
    let token = Credential::Token(signed("user socket", &Term::binary("ann")));
    let connect = || from(at(Door::Socket("/socket".to_owned()), Some(token.clone())));

    for _ in 0..3 {
        assert!(who(&security, connect()).await.is_ok());
    }
    let refused = who(&security, connect()).await.unwrap_err();
    assert_eq!(refused, "IP access denied: IP temporarily blocked");
    for _ in 0..10 {
        assert!(who(&security, from(on(TOPIC, &of_user("ann", "user")))).await.is_ok(), "sockets alone are counted");
    }
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!(who(&security, connect()).await.is_ok());
}

#[tokio::test]
async fn a_proxy_is_believed_where_it_is_trusted() {
    let security = start(|options| {
        options.deny = vec!["203.0.113.0/24".to_owned()];
        options.trusted_proxies = vec!["192.0.2.1".to_owned()];
    })
    .await;
    let from = |ip: &str, forwarded: &str| {
        let mut presented = on(TOPIC, &of_user("ann", "user"));
        presented.ip = Some(ip.parse().expect("an address"));
        presented.forwarded = Some(forwarded.to_owned());
        presented
    };
    let denied = "IP access denied: IP blacklisted";

    assert_eq!(who(&security, from("192.0.2.1", "203.0.113.9")).await.unwrap_err(), denied);
    assert_eq!(who(&security, from("192.0.2.1", "198.51.100.1, 203.0.113.9")).await.unwrap_err(), denied);
    assert!(
        who(&security, from("192.0.2.1", "203.0.113.9, 198.51.100.1")).await.is_ok(),
        "the last one is the proxy's"
    );
    assert!(who(&security, from("192.0.2.2", "203.0.113.9")).await.is_ok(), "anyone can say so");
    assert_eq!(who(&security, from("203.0.113.9", "198.51.100.1")).await.unwrap_err(), denied);
}

#[tokio::test]
async fn a_revoked_token_stays_revoked_in_the_store() {
    let deployment = Deployment::in_memory();
    let security = start_on(&deployment, |_| {}).await;
    let token = |id: &str| jwt(&json!({"sub": "ann", "jti": id, "exp": now_ms() / 1_000 + 60}));
    let identity = security.authenticate(on(TOPIC, &token("a"))).await.expect("it is good");
    let gone = Arc::new(Mutex::new(Vec::new()));
    let telling = Arc::clone(&gone);
    let _resident = security.live().enter(&identity, None, move |why| telling.lock().push(why));

    assert_eq!(security.revoke_token("jwt:a", now_ms()).await, Ok(1));

    assert_eq!(gone.lock()[0], Gone::Revoked);
    assert_eq!(who(&security, on(TOPIC, &token("a"))).await.unwrap_err(), INVALID);
    assert_eq!(who(&security, on(TOPIC, &token("b"))).await.as_deref(), Ok("ann"));
    drop(security);
    let security = start_on(&deployment, |_| {}).await;
    assert_eq!(who(&security, on(TOPIC, &token("a"))).await.unwrap_err(), INVALID);
    assert_eq!(who(&security, on(TOPIC, &token("b"))).await.as_deref(), Ok("ann"));
}

#[tokio::test]
async fn a_session_token_has_the_rights_of_whoever_opened_the_session() {
    let security = start(|_| {}).await;
    let opener = security.authenticate(on(TOPIC, &of_user("ann", "readonly"))).await.expect("it is good");
    let opened = security.mcp().open_session(&opener, "").expect("the first");
    let token = opened.token.expect("a token").token;

    let come = security.authenticate(on(TOPIC, &token)).await.expect("the session lives");
    assert_eq!((&*come.user, &come.rights().roles), ("ann", &vec!["readonly".to_owned()]));
    assert!(come.rights().grants.allows("tools:list") && !come.rights().grants.allows("tools:call"));
    assert!(come.rights().expires_unix_ms.is_some_and(|end| end <= now_ms() + 3_600_000));
    assert_eq!(come.rights().method, "session_token");

    drop(opened.place);
    assert_eq!(who(&security, on(TOPIC, &token)).await.unwrap_err(), "Session not found");
}

#[tokio::test]
async fn a_session_token_ends_with_the_credential_of_whoever_opened_the_session() {
    let security = start(|_| {}).await;
    let end_s = now_ms() / 1_000 + 60;
    let opener = security.authenticate(on(TOPIC, &jwt(&json!({"sub": "ann", "exp": end_s})))).await.expect("good");
    let opened = security.mcp().open_session(&opener, "").expect("the first");

    let come = security.authenticate(on(TOPIC, &opened.token.expect("a token").token)).await.expect("it lives");

    assert_eq!(come.rights().expires_unix_ms, Some(end_s * 1_000));
}

#[tokio::test]
async fn revoking_a_session_reaches_what_came_by_its_token_whatever_opened_it() {
    let security = start(|_| {}).await;
    let new = NewKey { user: "ann".to_owned(), roles: vec!["user".to_owned()], ..NewKey::default() };
    let (record, text) = security.keys().create(new, now_ms()).await.expect("a key");
    for opener in [key(&text), on(TOPIC, &of_user("ann", "user"))] {
        let opener = security.authenticate(opener).await.expect("it is good");
        let opened = security.mcp().open_session(&opener, "").expect("room");
        let token = opened.token.expect("a token").token;
        let come = security.authenticate(on(TOPIC, &token)).await.expect("it lives");
        let told = Arc::new(Mutex::new(0));
        let telling = Arc::clone(&told);
        let _resident = security.live().enter(&come, None, move |_| *telling.lock() += 1);
        let id = security.sessions().of_user("ann").pop().expect("it is open").id;

        assert_eq!(security.revoke_session(&id, now_ms()), Some(1));
        assert_eq!(*told.lock(), 1);
        assert_eq!(who(&security, on(TOPIC, &token)).await.unwrap_err(), "Token revoked");
        assert_eq!(security.revoke_session(&id, now_ms()), None);
    }

    let opener = security.authenticate(key(&text)).await.expect("it is good");
    let opened = security.mcp().open_session(&opener, "").expect("room");
    let come = security.authenticate(on(TOPIC, &opened.token.expect("a token").token)).await.expect("it lives");
    let _resident = security.live().enter(&come, None, |_| {});
    let (_, closed) = security.revoke_key(&record.id, now_ms()).await.expect("stored").expect("it is there");
    assert_eq!(closed, 1, "what came by the session's token came by the key");
}

#[tokio::test]
async fn a_revoked_token_is_forgotten_when_it_would_have_ended_anyway() {
    let store = crate::store::Store::in_memory();
    let revoked = RevokedTokens::open(store.clone()).await.expect("it is empty");
    revoked.add("jwt:a", 1_000).await.expect("stored");
    let day_ms = 86_400_000;

    assert!(revoked.contains("jwt:a", 1_000 + 30 * day_ms - 1) && !revoked.contains("jwt:b", 1_000));
    assert!(!revoked.contains("jwt:a", 1_000 + 30 * day_ms));
    revoked.add("jwt:b", 31 * day_ms).await.expect("stored");
    let again = RevokedTokens::open(store).await.expect("it is read");
    assert!(!again.contains("jwt:a", 1_000), "it is gone from the store as well");
    assert!(again.contains("jwt:b", 32 * day_ms));
}

#[tokio::test]
async fn what_options_can_not_be_is_said() {
    let start = async |change: &dyn Fn(&mut SecurityOptions)| {
        let mut options = SecurityOptions::default();
        change(&mut options);
        let started = Security::start(&Endpoint::start(), &Deployment::in_memory(), options).await;
        let error = started.map(|_| ()).unwrap_err();
        // With what it comes of, as `anyhow` prints it.
        match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }
    };

    let role = start(&|options| options.default_role = "nobody".to_owned()).await;
    assert_eq!(role, "auth.default_role: expected a role that there is, came \"nobody\"");
    let short = start(&|options| options.secret_key_base = Some(SecretText::new("short"))).await;
    assert!(short.contains("expected a secret_key_base of at least 20 bytes, came 5"), "{short}");
    assert!(start(&|options| options.deny = vec!["x".to_owned()]).await.starts_with("access: "));
    assert!(start(&|options| options.trusted_proxies = vec!["1.2.3".to_owned()]).await.starts_with("access: "));
    let jwt = start(&|options| options.jwt = Some(JwtOptions::default())).await;
    assert_eq!(jwt, "jwt: expected at least one algorithm");
    for salt in ["mcp_session", "bennu operator"] {
        assert!(start(&|options| options.tokens.mcp_salt = salt.to_owned()).await.contains(salt));
    }
}

#[tokio::test]
async fn no_secret_is_printed() {
    let keys = vec![LocalKey::Secret(JWT_SECRET.to_vec())];
    let options = SecurityOptions {
        secret_key_base: Some(SecretText::new(SECRET)),
        jwt: Some(JwtOptions { algorithms: vec![Algorithm::HS256], keys, ..JwtOptions::default() }),
        ..SecurityOptions::default()
    };
    let shown = format!("{options:?} {:?}", start(|_| {}).await);

    for secret in [SECRET, std::str::from_utf8(JWT_SECRET).expect("text")] {
        assert!(!shown.contains(secret) && !shown.contains(&format!("{:?}", secret.as_bytes())), "{shown}");
    }
}
