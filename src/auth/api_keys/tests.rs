use base64::Engine;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE};

use super::*;

/// 2026-11-22T17:29:15Z.
const NOW: u64 = 1_795_368_555_000;

async fn keys() -> (Store, ApiKeys) {
    let store = Store::in_memory();
    let keys = ApiKeys::open(store.clone(), PREFIX_DEFAULT).await.expect("opened");
    (store, keys)
}

fn of(user: &str) -> NewKey {
    NewKey {
        name: "for tests".into(),
        user: user.into(),
        roles: vec!["api".into()],
        scopes: vec!["tools:call".into()],
        expires_unix_ms: None,
    }
}

fn hex_of(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn import(keys: &ApiKeys, text: &str) -> Result<Imported, KeysError> {
    keys.import(text, &["api_user".to_owned()], &["tools:list".to_owned()], NOW).await
}

#[tokio::test]
async fn a_key_verifies_as_what_it_was_created_as() {
    let (_, keys) = keys().await;

    let (record, text) = keys.create(of("ann"), NOW).await.expect("created");

    assert_eq!(text.len(), "bennu_".len() + 43);
    assert!(text.starts_with(&record.hint) && record.hint.len() == "bennu_".len() + 4, "{}", record.hint);
    assert_eq!(*keys.verify(&text, NOW).expect("verified"), record);
    assert_eq!(
        (record.user.as_str(), &*record.roles, &*record.scopes),
        ("ann", &["api".into()][..], &["tools:call".into()][..])
    );
}

#[tokio::test]
async fn every_refusal_has_the_same_text() {
    let (_, keys) = keys().await;
    let (_, good) = keys.create(of("ann"), NOW).await.expect("created");
    let (revoked, revoked_text) = keys.create(of("bob"), NOW).await.expect("created");
    keys.revoke(&revoked.id, NOW).await.expect("stored").expect("there");
    let expiring = NewKey { expires_unix_ms: Some(NOW + 10), ..of("cy") };
    let (expired, expired_text) = keys.create(expiring, NOW).await.expect("created");

    assert!(keys.verify(&expired_text, NOW + 9).is_ok());
    for (text, why) in [
        ("", KeyRefused::Unknown),
        ("test_key", KeyRefused::Unknown),
        (&good[..good.len() - 1], KeyRefused::Unknown),
        (&format!("{good} "), KeyRefused::Unknown),
        (&good.to_uppercase(), KeyRefused::Unknown),
        (&"x".repeat(KEY_TEXT_BYTES_MAX), KeyRefused::Unknown),
        (&"x".repeat(KEY_TEXT_BYTES_MAX + 1), KeyRefused::TooLong),
        (&revoked_text, KeyRefused::Revoked { id: revoked.id }),
        (&expired_text, KeyRefused::Expired { id: expired.id }),
    ] {
        let refused = keys.verify(text, NOW + 10).expect_err(text);
        assert_eq!(refused, why);
        assert_eq!(refused.to_string(), "Invalid API key");
    }
}

#[tokio::test]
async fn neither_the_text_nor_its_hash_is_shown_or_stored() {
    let (store, keys) = keys().await;

    let (record, text) = keys.create(of("ann"), NOW).await.expect("created");

    let secret = text.strip_prefix("bennu_").expect("the prefix");
    let stored = store.range(KEYS, Keys::beginning_with([]), 10).await.expect("read");
    let shown = [
        format!("{record:?} {keys:?} {:?}", keys.verify("x", NOW)),
        serde_json::to_string(&keys.list()).expect("JSON"),
        String::from_utf8_lossy(&stored[0].1).into_owned(),
    ];
    for shown in shown {
        assert!(!shown.contains(&secret[..8]) && !shown.contains(&hex_of(&hash(&text))), "{shown}");
    }
    assert_eq!(stored[0].0, hash(&text));
}

#[tokio::test]
async fn keys_are_there_again_after_a_restart() {
    let (store, keys) = keys().await;
    let (first, text) = keys.create(of("ann"), NOW).await.expect("created");
    let (second, revoked) = keys.create(of("bob"), NOW + 1).await.expect("created");
    keys.verify(&text, NOW + 5).expect("verified");
    keys.revoke(&second.id, NOW + 7).await.expect("stored");
    keys.store_uses().await.expect("stored");

    let again = ApiKeys::open(store, PREFIX_DEFAULT).await.expect("opened");

    assert_eq!(again.list(), keys.list());
    assert_eq!(again.list()[0].last_used_unix_ms, Some(NOW + 5));
    assert_eq!(again.verify(&text, NOW).expect("verified").id, first.id);
    assert!(matches!(again.verify(&revoked, NOW), Err(KeyRefused::Revoked { .. })));
}

#[tokio::test]
async fn more_keys_than_are_read_at_once_are_read() {
    let (store, keys) = keys().await;
    let count = 2 * READ_AT_ONCE + 3;
    let rows = (0..count).map(|n| format!("{},u{n},2030-01-01\n", hex_of(&hash(&n.to_string()))));
    let table = format!("api_key_hash,user_id,expires_at\n{}", rows.collect::<String>());
    assert_eq!(import(&keys, &table).await.expect("imported").new, count);
    for n in [0, 7_001, count - 1] {
        keys.verify(&n.to_string(), NOW + 1).expect("verified");
    }
    keys.store_uses().await.expect("stored");

    let again = ApiKeys::open(store, PREFIX_DEFAULT).await.expect("opened");

    assert_eq!(again.list(), keys.list());
    assert_eq!(again.list().iter().filter(|key| key.last_used_unix_ms.is_some()).count(), 3);
}

#[tokio::test]
async fn a_use_is_noted_once_a_minute_and_stored_only_when_asked() {
    let (store, keys) = keys().await;
    let (_, text) = keys.create(of("ann"), NOW).await.expect("created");
    let used = || keys.list()[0].last_used_unix_ms;
    let stored = async || store.range(USES, Keys::beginning_with([]), 10).await.expect("read").len();

    assert_eq!(used(), None);
    for (after, expected) in [(0, 0), (59_999, 0), (60_000, 60_000), (61_000, 60_000), (500_000, 500_000), (3, 500_000)]
    {
        keys.verify(&text, NOW + after).expect("verified");
        assert_eq!(used(), Some(NOW + expected), "{after}");
    }
    assert_eq!(stored().await, 0);
    keys.store_uses().await.expect("stored");
    assert_eq!(stored().await, 1);
    assert_eq!(keys.0.snapshot.unstored_uses(), []);
}

#[tokio::test]
async fn revoking_again_changes_nothing_and_unknown_ids_are_none() {
    let (_, keys) = keys().await;
    let (record, _) = keys.create(of("ann"), NOW).await.expect("created");

    let first = keys.revoke(&record.id, NOW + 1).await.expect("stored").expect("there");
    let second = keys.revoke(&record.id, NOW + 2).await.expect("stored").expect("there");

    assert_eq!((first.revoked_unix_ms, second.revoked_unix_ms), (Some(NOW + 1), Some(NOW + 1)));
    assert_eq!(keys.revoke("0123456789abcdef", NOW).await, Ok(None));
}

#[tokio::test]
async fn a_key_is_refused_even_where_its_revocation_can_not_be_stored() {
    let folder = std::env::temp_dir().join(format!("bennu-keys-{:016x}", u64::from_be_bytes(crate::random::bytes())));
    std::fs::create_dir(&folder).expect("made");
    let store = Store::open(folder.join("store.redb")).await.expect("opened");
    let keys = ApiKeys::open(store.clone(), PREFIX_DEFAULT).await.expect("opened");
    let (record, text) = keys.create(of("ann"), NOW).await.expect("created");
    store.close().await;

    assert_eq!(keys.revoke(&record.id, NOW).await, Err(KeysError::Store(StoreError::Closed)));
    assert!(matches!(keys.verify(&text, NOW), Err(KeyRefused::Revoked { .. })));
    assert_eq!(keys.create(of("bob"), NOW).await, Err(KeysError::Store(StoreError::Closed)));
    assert_eq!(keys.count(), 1);
    std::fs::remove_dir_all(folder).expect("removed");
}

#[tokio::test]
async fn ended_keys_are_forgotten_and_others_stay() {
    let (store, keys) = keys().await;
    let (_, good) = keys.create(of("ann"), NOW).await.expect("created");
    let (revoked, revoked_text) = keys.create(of("bob"), NOW).await.expect("created");
    keys.revoke(&revoked.id, NOW + 5).await.expect("stored");
    keys.create(NewKey { expires_unix_ms: Some(NOW + 6), ..of("cy") }, NOW).await.expect("created");
    keys.create(NewKey { expires_unix_ms: Some(NOW + 900), ..of("di") }, NOW).await.expect("created");

    assert_eq!(keys.forget_ended(NOW + 5, NOW + 100).await, Ok(0));
    assert_eq!(keys.forget_ended(NOW + 7, NOW + 100).await, Ok(2));

    assert_eq!(keys.verify(&revoked_text, NOW), Err(KeyRefused::Unknown));
    assert_eq!(ApiKeys::open(store, PREFIX_DEFAULT).await.expect("opened").list(), keys.list());
    assert!(keys.verify(&good, NOW + 100).is_ok());
    assert_eq!(keys.count(), 2);
}

#[tokio::test]
async fn a_new_key_has_bounds() {
    let (_, keys) = keys().await;

    for key in [
        of(""),
        of(&"u".repeat(NAME_BYTES_MAX + 1)),
        NewKey { name: "n".repeat(NAME_BYTES_MAX + 1), ..of("ann") },
        NewKey { roles: vec!["r".into(); ROLES_MAX + 1], ..of("ann") },
        NewKey { scopes: vec!["s".into(); SCOPES_MAX + 1], ..of("ann") },
        NewKey { scopes: vec![String::new()], ..of("ann") },
        NewKey { roles: vec!["r".repeat(SCOPE_BYTES_MAX + 1)], ..of("ann") },
    ] {
        assert!(matches!(keys.create(key, NOW).await, Err(KeysError::Invalid { .. })));
    }
    for prefix in ["", "with space", "ü", &"p".repeat(PREFIX_BYTES_MAX + 1)] {
        let refused = ApiKeys::open(Store::in_memory(), prefix).await;
        assert!(matches!(refused, Err(KeysError::Prefix { .. })), "{prefix}");
    }
    assert_eq!(keys.count(), 0);
}

#[tokio::test]
async fn keys_of_the_deployment_verify_once_their_hashes_are_imported() {
    let text = "rubberduck_q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJ+/";
    let digits = hex_of(&hash(text));
    let base64 = BASE64_STANDARD_NO_PAD.encode(hash(text));
    let url_safe = BASE64_URL_SAFE.encode(hash(text));
    for table in [
        format!("api_key_hash,user_id,expires_at\n{digits},u1,2027-07-18T00:00:00Z\n"),
        format!("id,API_KEY_HASH, user_id,expires_at\r\n7,\\x{digits},u1,2027-07-18 00:00:00\r\n\r\n"),
        format!("user_id,expires_at,api_key_hash\n\"u1\",\"2027-07-18 00:00:00+00\",\"\\x{}\"", digits.to_uppercase()),
        format!("\u{feff}expires_at,api_key_hash,user_id\n2027-07-18,{base64},u1"),
        format!("expires_at,api_key_hash,user_id\n2027-07-18,{url_safe},u1"),
        format!(r#"{{"api_key_hash":"\\x{digits}","user_id":"u1","expires_at":"2027-07-18T00:00:00Z","id":null}}"#),
        format!("\n{{\"expires_at\":\"2027-07-18\",\"user_id\":\"u1\",\"api_key_hash\":\"{base64}=\"}}\n\n"),
    ] {
        let (store, keys) = keys().await;

        assert_eq!(import(&keys, &table).await, Ok(Imported { new: 1, known: 0, expired: 0 }), "{table}");
        assert_eq!(import(&keys, &table).await, Ok(Imported { new: 0, known: 1, expired: 0 }), "{table}");

        let again = ApiKeys::open(store, PREFIX_DEFAULT).await.expect("opened");
        let key = again.verify(text, NOW).expect("verified");
        assert_eq!((key.user.as_str(), key.hint.as_str()), ("u1", "rubberduck_"));
        assert_eq!(key.expires_unix_ms, Some(1_815_868_800_000));
        assert_eq!((&*key.roles, &*key.scopes), (&["api_user".into()][..], &["tools:list".into()][..]));
    }
}

#[tokio::test]
async fn a_faulty_line_is_named_and_nothing_is_imported() {
    let (_, keys) = keys().await;
    let digits = hex_of(&hash("a"));
    let head = "api_key_hash,user_id,expires_at";
    let json = |hash: &str, user: &str, expires: &str| {
        format!("{{\"api_key_hash\":{hash},\"user_id\":{user},\"expires_at\":{expires}}}")
    };
    let good = json(&format!("\"{digits}\""), "\"u\"", "\"2027-01-01\"");
    for (table, expected) in [
        (
            "hash,user".to_owned(),
            "line 1: expected a JSON object or a CSV head with the column api_key_hash, came neither",
        ),
        (String::new(), "line 1: expected a JSON object or a CSV head with the column api_key_hash, came neither"),
        (
            format!("{head}\n{digits},u,2027-01-01\n{},u,2027-01-01", &digits[1..]),
            r"line 3: api_key_hash: expected 32 bytes as hex digits, as \x and hex digits or as base64, came 63 characters",
        ),
        (
            format!("{head}\n{digits},\"u\n1\",2027-01-01\n{digits},u,soon"),
            "line 4: expires_at: expected a moment such as 2027-07-18T00:00:00Z, came \"soon\"",
        ),
        (format!("{head}\n{digits},,2027-01-01"), "line 2: user_id: expected 1 to 255 bytes, came 0"),
        (format!("{head}\n{digits},u"), "line 2: expected 3 fields, came 2"),
        (
            format!("{head}\n{digits},\"u,2027-01-01"),
            "line 2: expected a quote at the end of a quoted field, came the end",
        ),
        (
            format!("{head}\n{digits},\"u\"x,2027-01-01"),
            "line 2: expected a comma or the line's end after a quoted field, came other text",
        ),
        (
            format!("{good}\n[1]"),
            "line 2: expected a JSON object with each column once, came something else at column 1",
        ),
        (
            format!("{good}\n{}", json("[1]", "\"u\"", "\"2027-01-01\"")),
            "line 2: api_key_hash: expected a string, came another",
        ),
        (
            format!("{good}\n{}", json(&format!("\"{digits}\""), "7", "null")),
            "line 2: expires_at: expected a moment such as 2027-07-18T00:00:00Z, came \"\"",
        ),
    ] {
        let refused = import(&keys, &table).await.expect_err(&table);
        assert_eq!(refused.to_string(), expected);
        assert_eq!(keys.count(), 0);
    }
}

#[tokio::test]
async fn expired_rows_are_left_out_and_doubled_ones_count_once() {
    let (_, keys) = keys().await;
    let (one, two) = (hex_of(&hash("1")), hex_of(&hash("2")));
    let table = format!(
        "api_key_hash,user_id,expires_at\n{one},u1,2027-01-01\n{one},u2,2027-01-01\n{two},u3,2026-11-22T17:29:15Z\n"
    );

    assert_eq!(import(&keys, &table).await, Ok(Imported { new: 1, known: 0, expired: 1 }));
    assert_eq!(keys.verify("1", NOW).expect("verified").user, "u1");
}

#[tokio::test]
async fn there_is_room_for_so_many_keys_and_no_more() {
    let (_, keys) = keys().await;
    for n in 0..KEYS_MAX {
        let record = KeyRecord::new(of("ann"), String::new(), NOW);
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&n.to_be_bytes());
        assert!(keys.0.snapshot.insert(hash, Arc::new(record), 0));
    }

    assert_eq!(keys.create(of("ann"), NOW).await, Err(KeysError::Full));
    let table = format!("api_key_hash,user_id,expires_at\n{},u1,2027-01-01\n", hex_of(&hash("1")));
    assert_eq!(import(&keys, &table).await, Err(KeysError::Full));
    assert_eq!(keys.count(), KEYS_MAX);
}
