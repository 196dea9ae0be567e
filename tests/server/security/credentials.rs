//! Credentials of every kind, good and bad, as their makers would write them.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bennu::auth::phoenix_token::{self, DerivedKey, KeyOptions, MacDigest, MaxAge};
use bennu::protocol::etf::{self, Term};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use ring::hmac;
use serde_json::{Value, json};

/// The application's secret.
pub const SECRET: &str = "0123456789abcdef-the-secret-key-base-of-the-tests-0123456789abcdef-0123456789abcdef";
/// The secret of HS256.
pub const JWT_SECRET: &str = "the-secret-of-json-web-tokens-in-the-tests-0123456789";
/// The salts. Source: the Elixir deployment, section 6.1.
pub const SOCKET_SALT: &str = "user socket";
pub const MCP_SALT: &str = "mcp_auth";

pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("before the year 584556019")
}

pub fn now_s() -> u64 {
    now_ms() / 1_000
}

pub fn key(secret: &str, salt: &str) -> DerivedKey {
    DerivedKey::derive(secret, salt, &KeyOptions::default()).expect("a key")
}

/// A token that was signed that many milliseconds ago, before now where it is negative after.
pub fn aged(key: &DerivedKey, data: &Term, age_ms: i64) -> String {
    let signed_at_ms = i64::try_from(now_ms()).expect("as above") - age_ms;
    phoenix_token::sign(key, data, signed_at_ms, MaxAge::default()).expect("a token")
}

pub fn signed(salt: &str, data: &Term) -> String {
    aged(&key(SECRET, salt), data, 0)
}

/// The token of a socket.
pub fn socket_token(user: &str) -> String {
    signed(SOCKET_SALT, &Term::binary(user))
}

pub fn map(fields: Vec<(&str, Term)>) -> Term {
    let fields = fields.into_iter().map(|(name, value)| (Term::atom(name).expect("an atom"), value));
    Term::map(fields.collect()).expect("different keys")
}

pub fn texts(texts: &[&str]) -> Term {
    Term::List(texts.iter().map(Term::binary).collect::<Vec<_>>().into())
}

/// The token of an MCP topic.
pub fn mcp_token(user: &str, role: &str) -> String {
    signed(MCP_SALT, &map(vec![("user_id", Term::binary(user)), ("role", Term::binary(role))]))
}

/// The token of the operator on the server's machine, for one request.
pub fn operator_token() -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    signed("bennu operator", &Term::binary(format!("operator {number:016x}")))
}

/// The claims of a user in a role, for so many seconds.
pub fn claims(user: &str, role: &str, seconds: u64) -> Value {
    json!({"sub": user, "roles": [role], "exp": now_s() + seconds})
}

pub fn jwt(claims: &Value) -> String {
    jwt_with(&json!({"alg": "HS256", "typ": "JWT"}), claims, JWT_SECRET.as_bytes())
}

/// A token with any header, signed by HMAC with SHA-256, whatever the header says.
pub fn jwt_with(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A credential that is refused: what is wrong with it, its text, and whether it was good once.
pub struct Bad {
    pub what: String,
    pub text: String,
    pub is_expired: bool,
}

fn bad(what: impl Into<String>, text: impl Into<String>) -> Bad {
    Bad { what: what.into(), text: text.into(), is_expired: false }
}

/// Phoenix tokens that are refused where one with that salt and that data is good.
pub fn bad_tokens(salt: &str, data: fn() -> Term) -> Vec<Bad> {
    let own = key(SECRET, salt);
    let good = aged(&own, &data(), 0);
    let day_ms = 86_400_000;
    let other_salt = if salt == SOCKET_SALT { MCP_SALT } else { SOCKET_SALT };
    let parts: Vec<_> = good.split('.').collect();
    let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).expect("it was written so");
    let mut all = vec![
        bad("another salt", signed(other_salt, &data())),
        bad("the salt of sessions", signed("mcp_session", &data())),
        bad("the operator's", operator_token()),
        bad("another secret", aged(&key(&SECRET.replace('0', "1"), salt), &data(), 0)),
        bad("signed in an hour", aged(&own, &data(), -3_600_000)),
        bad("signed in a thousand years", aged(&own, &data(), -1_000 * 366 * day_ms)),
        bad(
            "encrypted where that is off",
            phoenix_token::encrypt(&own, &data(), 0, MaxAge::Infinity).expect("a token"),
        ),
        bad("no data", signed(salt, &Term::nil())),
        bad("a list for data", signed(salt, &texts(&["a"]))),
        bad("an empty user", signed(salt, &map(vec![("user_id", Term::binary(""))]))),
        bad("a user that is no text", signed(salt, &map(vec![("user_id", Term::binary([0xff, 0xfe]))]))),
        bad("a user of two lines", signed(salt, &map(vec![("user_id", Term::binary("a\r\nb"))]))),
        bad("a header of SHA-384", format!("SFMzODQ.{}.{}", parts[1], parts[2])),
        bad("a header that says none", format!("bm9uZQ.{}.{}", parts[1], parts[2])),
        bad("no signature", format!("{}.{}.", parts[0], parts[1])),
        bad("no header", format!(".{}.{}", parts[1], parts[2])),
        bad("no payload", format!("{}..{}", parts[0], parts[2])),
        bad("four parts", format!("{good}.{}", parts[2])),
        bad("spaces around", format!(" {good} ")),
        bad("twice", format!("{good}{good}")),
    ];
    all.push(Bad { is_expired: true, ..bad("two days old", aged(&own, &data(), 2 * day_ms)) });
    let long = phoenix_token::sign(&own, &data(), 0, MaxAge::Infinity).expect("a token");
    all.push(Bad { is_expired: true, ..bad("from 1970, for ever by its own word", long) });
    for length in 0..good.len() {
        all.push(bad(format!("cut to {length} bytes"), &good[..length]));
    }
    for part in [1, 2] {
        let whole = bytes(parts[part]);
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            let mut parts: Vec<_> = parts.iter().map(ToString::to_string).collect();
            parts[part] = URL_SAFE_NO_PAD.encode(changed);
            all.push(bad(format!("byte {at} of part {part} is another"), parts.join(".")));
        }
    }
    for (what, payload) in bombs() {
        let signed = phoenix_token::sign_message(&own, MacDigest::Sha256, &payload).expect("it is short enough");
        all.push(bad(format!("signed: {what}"), signed));
        let unsigned = format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(&payload), parts[2]);
        all.push(bad(format!("not signed: {what}"), unsigned));
    }
    all
}

/// Terms that would cost much, or do something, to whoever read them without care.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let tuple_of = |data: Vec<u8>| {
        let mut payload = vec![131, 104, 3];
        payload.extend(data);
        // Signed now, for a day.
        payload.extend(&etf::encode(&Term::int(i64::try_from(now_ms()).expect("as above")))[1..]);
        payload.extend(&etf::encode(&Term::int(86_400))[1..]);
        payload
    };
    let zeros = |count: usize| {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
        for _ in 0..count / 65_536 {
            zlib.write_all(&[0; 65_536]).expect("memory takes it");
        }
        zlib.finish().expect("memory takes it")
    };
    let compressed = |claimed: u32, body: Vec<u8>| [vec![131, 80], claimed.to_be_bytes().to_vec(), body].concat();
    let atoms: Vec<_> =
        (0..2_000).map(|n| Term::atom(&format!("atom_that_nobody_has_{n}")).expect("an atom")).collect();
    let atoms = etf::encode(&Term::List(atoms.into()));
    let deep = |depth: usize| [[104, 1].repeat(depth), vec![106]].concat();
    vec![
        ("4,000 tuples inside one another", tuple_of(deep(4_000))),
        ("100,000 tuples inside one another", tuple_of(deep(100_000))),
        ("100,000 lists inside one another", tuple_of([108, 0, 0, 0, 1].repeat(100_000))),
        ("16 MB of zeros, compressed", compressed(16 << 20, zeros(16 << 20))),
        ("16 MB of zeros that claim to be 16 bytes", compressed(16, zeros(16 << 20))),
        ("a claim of 4 GB", compressed(u32::MAX, zeros(65_536))),
        ("compressed inside compressed", compressed(64, vec![131, 80, 0, 0, 0, 64])),
        ("2,000 atoms", tuple_of(atoms[1..].to_vec())),
        ("a list that claims 4,294,967,295 items", tuple_of(vec![108, 255, 255, 255, 255])),
        ("a map that claims 4,294,967,295 fields", tuple_of(vec![116, 255, 255, 255, 255])),
        ("a binary that claims 4 GB", tuple_of(vec![109, 255, 255, 255, 255])),
        ("an integer of 20,000 bytes", tuple_of([vec![111, 0, 0, 78, 32, 0], vec![255; 20_000]].concat())),
        // &:erlang.halt/0.
        ("a function", tuple_of([&[113, 100, 0, 6][..], b"erlang", &[100, 0, 4], b"halt", &[97, 0]].concat())),
        ("a port", tuple_of([&[102, 100, 0, 1, b'n'][..], &[0, 0, 0, 1, 1]].concat())),
        ("nothing", vec![131]),
        ("another version", vec![130, 97, 1]),
        ("bytes behind the term", [tuple_of(vec![106]), vec![97]].concat()),
    ]
}

/// JSON web tokens that are refused where HS256 is taken with [`JWT_SECRET`], and RS256 with the key of that PEM.
pub fn bad_jwts(pem: &str) -> Vec<Bad> {
    let claims = || claims("ann", "admin", 600);
    let good = jwt(&claims());
    let parts: Vec<_> = good.split('.').collect();
    let with = |header: Value| jwt_with(&header, &claims(), JWT_SECRET.as_bytes());
    let forged = |header: Value, secret: &[u8]| jwt_with(&header, &claims(), secret);
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut claims = claims();
        change(&mut claims);
        jwt(&claims)
    };
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let unsigned = |alg: &str| format!("{}.{}.", encode(&json!({"alg": alg}).to_string()), parts[1]);
    let mut all = vec![
        bad("alg none", unsigned("none")),
        bad("alg None", unsigned("None")),
        bad("alg none and a signature", forged(json!({"alg": "none"}), JWT_SECRET.as_bytes())),
        bad("alg of nothing", forged(json!({"alg": ""}), JWT_SECRET.as_bytes())),
        bad("no alg", forged(json!({"typ": "JWT"}), JWT_SECRET.as_bytes())),
        bad("HS512 in the header", with(json!({"alg": "HS512"}))),
        bad("HS256 by the public key as a secret", forged(json!({"alg": "HS256"}), pem.as_bytes())),
        bad("HS256 by the trimmed public key", forged(json!({"alg": "HS256"}), pem.trim().as_bytes())),
        bad("RS256 in the header of an HMAC", with(json!({"alg": "RS256"}))),
        bad("RS256 without a signature", unsigned("RS256")),
        bad("an empty secret", forged(json!({"alg": "HS256"}), b"")),
        bad("another secret", forged(json!({"alg": "HS256"}), b"another secret of as many bytes, as it happens")),
        bad("crit", with(json!({"alg": "HS256", "crit": ["exp"]}))),
        bad("a kid that is no text", with(json!({"alg": "HS256", "kid": {"$ne": ""}}))),
        bad("expires not", changed(&|claims| drop(claims.as_object_mut().expect("an object").remove("exp")))),
        bad("an end that is no number", changed(&|claims| claims["exp"] = json!("never"))),
        bad("not before an hour", changed(&|claims| claims["nbf"] = json!(now_s() + 3_600))),
        bad("issued in an hour", changed(&|claims| claims["iat"] = json!(now_s() + 3_600))),
        bad("nobody", changed(&|claims| drop(claims.as_object_mut().expect("an object").remove("sub")))),
        bad("a user of two lines", changed(&|claims| claims["sub"] = json!("a\nb"))),
        bad("claims that are a list", jwt(&json!(["sub", "ann"]))),
        bad("two subjects", {
            let twice = format!(r#"{{"sub":"ann","sub":"bob","exp":{}}}"#, now_s() + 600);
            let message = format!("{}.{}", parts[0], encode(&twice));
            let key = hmac::Key::new(hmac::HMAC_SHA256, JWT_SECRET.as_bytes());
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes())))
        }),
        bad("claims 2,000 deep", {
            let mut deep = json!(1);
            for _ in 0..100 {
                deep = json!([deep]);
            }
            changed(&|claims| claims["x"] = deep.clone())
        }),
        bad("five parts, as JWE has", format!("{good}.a.b")),
        bad("two parts", format!("{}.{}", parts[0], parts[1])),
        bad("a payload of another", format!("{}.{}.{}", parts[0], encode(r#"{"sub":"root"}"#), parts[2])),
        bad("padding", format!("{good}=")),
        bad("17 KB", changed(&|claims| claims["x"] = json!("x".repeat(17_000)))),
    ];
    for kid in ["../../../../dev/null", "' UNION SELECT 'x", "http://127.0.0.1:9/jwks", "|id", "\u{0}"] {
        // By what such a path, query or address would give.
        for secret in [&b""[..], b"x", b"\0"] {
            all.push(bad(format!("kid {kid:?} by {secret:?}"), forged(json!({"alg": "HS256", "kid": kid}), secret)));
        }
    }
    for header in ["jku", "x5u"] {
        let header = json!({"alg": "RS256", header: "http://127.0.0.1:9/jwks.json"});
        all.push(bad(format!("{header}"), with(header)));
    }
    let own = json!({"kty": "oct", "k": encode("a secret of whoever forges this, of 32 bytes")});
    let header = json!({"alg": "HS256", "jwk": own});
    all.push(bad("a key of its own", forged(header, b"a secret of whoever forges this, of 32 bytes")));
    all.push(Bad { is_expired: true, ..bad("over", changed(&|claims| claims["exp"] = json!(now_s() - 3_600))) });
    all.push(Bad { is_expired: true, ..bad("over since 1970", changed(&|claims| claims["exp"] = json!(0))) });
    for length in (0..good.len()).step_by(7) {
        all.push(bad(format!("JWT cut to {length} bytes"), &good[..length]));
    }
    all
}

/// API keys that are refused.
pub fn bad_keys() -> Vec<Bad> {
    [
        String::new(),
        "x".to_owned(),
        "test_key".to_owned(),
        "x".repeat(32),
        format!("bennu_{}", "A".repeat(43)),
        format!("rubberduck_{}", "A/+A".repeat(11)),
        "bennu_".to_owned(),
        "ключ".repeat(10),
        "\u{0}\n\r\t".to_owned(),
        "x".repeat(4_096),
    ]
    .map(|text| bad(format!("key {:?}", text.chars().take(20).collect::<String>()), text))
    .into()
}

/// A text as a value of a query.
pub fn query(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
