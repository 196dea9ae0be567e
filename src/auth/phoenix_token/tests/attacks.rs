//! Tokens that were changed, made up, or made to hurt.

use super::super::{
    DerivedKey, KeyOptions, MacDigest, MaxAge, TOKEN_BYTES_MAX, TokenError, base64url, decrypt, decrypt_message,
    encrypt, encrypt_message, sign, sign_message, verify, verify_message,
};
use crate::protocol::etf::{self, Term};

const NOW: u64 = 1_700_000_000_000;
const SIGNED: i64 = 1_700_000_000_000;
const SECRET: &str = "a dummy secret of more than twenty bytes";

fn key(salt: &str) -> DerivedKey {
    DerivedKey::derive(SECRET, salt, &KeyOptions { iterations: 1, ..KeyOptions::default() }).unwrap()
}

fn data() -> Term {
    Term::map(vec![(Term::atom("user_id").unwrap(), Term::binary("u1"))]).unwrap()
}

fn verdict(key: &DerivedKey, token: &str) -> Result<(), TokenError> {
    verify(key, Some(token), None, NOW).map(|_| ())
}

const INVALID: Result<(), TokenError> = Err(TokenError::Invalid);

#[test]
fn a_token_cut_anywhere_is_invalid() {
    let key = key("user socket");
    let signed = sign(&key, &data(), SIGNED, MaxAge::default()).unwrap();
    let encrypted = encrypt(&key, &data(), SIGNED, MaxAge::default()).unwrap();

    assert_eq!(verdict(&key, &signed), Ok(()));
    for end in 0..signed.len() {
        assert_eq!(verdict(&key, &signed[..end]), INVALID, "cut to {end}");
        assert_eq!(verdict(&key, &signed[end + 1..]), INVALID, "cut from {end}");
    }
    assert!(decrypt(&key, Some(&encrypted), None, NOW).is_ok());
    for end in 0..encrypted.len() {
        assert_eq!(decrypt(&key, Some(&encrypted[..end]), None, NOW), Err(TokenError::Invalid), "cut to {end}");
    }
}

#[test]
fn a_token_with_any_character_changed_is_invalid() {
    let key = key("user socket");
    let signed = sign(&key, &data(), SIGNED, MaxAge::default()).unwrap();
    let encrypted = encrypt(&key, &data(), SIGNED, MaxAge::default()).unwrap();
    let changes = |token: &str, at: usize| -> Vec<String> {
        let others = "AZaz09-_.=+/ \0\n".chars().filter(|other| !token[at..].starts_with(*other));
        others.map(|other| format!("{}{other}{}", &token[..at], &token[at + 1..])).collect()
    };

    for at in 0..signed.len() {
        for changed in changes(&signed, at) {
            // The last character's low bits carry nothing, so that another may mean the same signature.
            let same = changed.rsplit_once('.').and_then(|(_, signature)| base64url::decode(signature))
                == signed.rsplit_once('.').and_then(|(_, signature)| base64url::decode(signature));
            if at + 1 < signed.len() || !same {
                assert_eq!(verdict(&key, &changed), INVALID, "{at} {changed:?}");
            }
        }
    }
    for at in 0..encrypted.len() - 1 {
        for changed in changes(&encrypted, at) {
            assert_eq!(decrypt(&key, Some(&changed), None, NOW), Err(TokenError::Invalid), "{at} {changed:?}");
        }
    }
}

#[test]
fn the_header_chooses_no_other_algorithm() {
    let key = key("user socket");
    let token = sign(&key, &data(), SIGNED, MaxAge::default()).unwrap();
    let (_, rest) = token.split_once('.').unwrap();
    let payload = rest.split_once('.').unwrap().0;

    for header in [
        "",
        "none",
        "bm9uZQ",
        "SFMzODQ",
        "SFM1MTI",
        "SFMyNTY=",
        "SFMx",
        "UlMyNTY",
        "XCP",
        "QTEyOEdDTQ",
        "eyJhbGciOiJub25lIn0",
    ] {
        assert_eq!(verdict(&key, &format!("{header}.{rest}")), INVALID, "{header}");
        assert_eq!(verdict(&key, &format!("{header}.{payload}.")), INVALID, "{header}");
    }
    for digest in [MacDigest::Sha256, MacDigest::Sha384, MacDigest::Sha512] {
        let message = sign_message(&key, digest, b"payload").unwrap();
        assert_eq!(verify_message(&key, &message).unwrap(), b"payload");
        let (_, rest) = message.split_once('.').unwrap();
        for other in ["SFMyNTY", "SFMzODQ", "SFM1MTI"].iter().filter(|other| !message.starts_with(**other)) {
            assert_eq!(verify_message(&key, &format!("{other}.{rest}")), Err(TokenError::Invalid));
        }
    }
}

#[test]
fn another_salt_or_kind_of_token_or_time_does_not_count() {
    let (socket, session) = (key("user socket"), key("mcp_session"));
    let token = sign(&socket, &data(), SIGNED, MaxAge::default()).unwrap();
    let encrypted = encrypt(&socket, &data(), SIGNED, MaxAge::default()).unwrap();
    let future = sign(&socket, &data(), SIGNED + 1, MaxAge::default()).unwrap();

    assert_eq!(verdict(&session, &token), INVALID);
    assert_eq!(decrypt(&session, Some(&encrypted), None, NOW), Err(TokenError::Invalid));
    assert_eq!(verdict(&socket, &encrypted), INVALID);
    assert_eq!(decrypt(&socket, Some(&token), None, NOW), Err(TokenError::Invalid));
    assert_eq!(verdict(&socket, &future), INVALID);
    assert_eq!(verify(&socket, None, None, NOW), Err(TokenError::Missing));
    assert_eq!(verify(&socket, Some(&token), Some(MaxAge::Seconds(0)), NOW), Err(TokenError::Expired));
}

#[test]
fn megabytes_of_junk_are_invalid() {
    let key = key("user socket");
    for junk in ["A", ".", "=", "SFMyNTY.", "XCP.", "é", "\0"] {
        let junk = junk.repeat(10_485_760 / junk.len());
        assert_eq!(verdict(&key, &junk), INVALID);
        assert_eq!(verdict(&key, &format!("SFMyNTY.{junk}")), INVALID);
        assert_eq!(verdict(&key, &format!("SFMyNTY.A.{junk}")), INVALID);
        assert_eq!(decrypt(&key, Some(&junk), None, NOW), Err(TokenError::Invalid));
    }
    let long = sign_message(&key, MacDigest::Sha256, &vec![0; TOKEN_BYTES_MAX]).unwrap();
    assert_eq!(verify_message(&key, &long), Err(TokenError::Invalid));
}

/// What only who has the key can make, and what must not hurt even so.
#[test]
fn signed_bombs_are_invalid() {
    let key = key("user socket");
    let signed = |payload: &[u8]| sign_message(&key, MacDigest::Sha256, payload).unwrap();
    let deep = [&[131][..], &b"h\x01".repeat(300_000), b"j"].concat();
    let nested_maps = [&[131][..], &b"t\0\0\0\x01".repeat(100_000), b"j"].concat();
    let claims = [&[131][..], &b"l\0\x0f\xff\xff".repeat(100_000)].concat();
    let zip_bomb = {
        let mut deflated = Vec::with_capacity(1_000_000);
        let zeros = vec![b'j'; 200_000_000];
        flate2::Compress::new(flate2::Compression::best(), true)
            .compress_vec(&zeros, &mut deflated, flate2::FlushCompress::Finish)
            .unwrap();
        deflated
    };
    let zipped = |claim: u32| [&[131, 80][..], &claim.to_be_bytes(), &zip_bomb].concat();

    for payload in [deep, nested_maps, claims, zipped(200_000_000), zipped(4_000_000), zipped(10), zipped(u32::MAX)] {
        assert_eq!(verdict(&key, &signed(&payload)), INVALID);
    }
}

#[test]
fn a_deep_term_within_the_limit_is_read_on_a_small_stack() {
    let key = key("user socket");
    let depth = etf::DEPTH_MAX - 1;
    let data = etf::from_tagged(&format!(r#"{{"t":"nestlist","depth":{}}}"#, depth - 1)).unwrap();
    let token = sign(&key, &data, SIGNED, MaxAge::Infinity).unwrap();

    let read = std::thread::Builder::new().stack_size(65_536).spawn(move || {
        let term = verify(&key, Some(&token), None, NOW).unwrap();
        let same = term == data;
        (same, etf::to_tagged(&term).len(), etf::to_json(&term, usize::MAX).unwrap().len())
    });

    let (same, tagged, json) = read.unwrap().join().unwrap();
    assert!(same && tagged < 100);
    assert_eq!(json, 2 * depth);
}

#[test]
fn session_cookies_are_read_with_their_second_key() {
    let (encryption, signing) = (key("encryption salt"), key("signing salt"));
    let cookie = encrypt_message(&encryption, b"payload").unwrap();

    // Version 2 does not use the second key, so that any is right.
    assert_eq!(decrypt_message(&encryption, Some(&signing), &cookie).unwrap(), b"payload");
    assert_eq!(decrypt_message(&signing, Some(&encryption), &cookie), Err(TokenError::Invalid));
}
