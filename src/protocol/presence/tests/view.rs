//! Metas, keys and the JSON that clients get.

use serde_json::Value;

use super::super::view::{diff_json, state_json};
use super::super::{Meta, MetaError, Replica, check_key, phx_ref};
use super::{owner, replica_ref};

fn text(bytes: bytes::Bytes) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The frames of the recording `presence_three_metas_order`.
#[test]
fn states_and_diffs_are_those_recorded_from_phoenix() {
    let mut replica = Replica::new(replica_ref("a"));
    let meta = |n: u32, phx_ref: &str| Meta::new(&format!("{{\"n\":{n}}}"), phx_ref).unwrap();
    let refs = ["GOpuMDoaMNkFdvWB", "GOpuMDoy4vYFdvWR", "GOpuMDo7gbcFdjIS"];

    assert_eq!(text(state_json(&replica, "room:pr18")), "{}");
    for (n, phx_ref) in (1..).zip(refs) {
        replica.join(owner(n.into()), "room:pr18", "k", meta(n, phx_ref)).unwrap();
    }
    let (_, diff) = replica.update(owner(1), "room:pr18", "k", meta(11, "GOpuMDpKMs0FdvWh")).unwrap();

    assert_eq!(
        text(diff_json(&diff.topics["room:pr18"])),
        r#"{"joins":{"k":{"metas":[{"phx_ref":"GOpuMDpKMs0FdvWh","phx_ref_prev":"GOpuMDoaMNkFdvWB","n":11}]}},"leaves":{"k":{"metas":[{"phx_ref":"GOpuMDoaMNkFdvWB","n":1}]}}}"#
    );
    assert_eq!(
        text(state_json(&replica, "room:pr18")),
        r#"{"k":{"metas":[{"phx_ref":"GOpuMDpKMs0FdvWh","phx_ref_prev":"GOpuMDoaMNkFdvWB","n":11},{"phx_ref":"GOpuMDoy4vYFdvWR","n":2},{"phx_ref":"GOpuMDo7gbcFdjIS","n":3}]}}"#
    );
}

#[test]
fn several_keys_make_valid_json_whatever_is_in_them() {
    let mut replica = Replica::new(replica_ref("a"));
    for (connection, key) in (0..).zip(["", "\"quoted\"", "é\u{2028}\n\\", "0", "a", "a"]) {
        let meta = Meta::new("{}", "r\"1").unwrap();
        replica.join(owner(connection), "t", key, meta).unwrap();
    }

    let state: Value = serde_json::from_slice(&state_json(&replica, "t")).unwrap();

    let one = serde_json::json!({"metas": [{"phx_ref": "r\"1"}]});
    let two = serde_json::json!({"metas": [{"phx_ref": "r\"1"}, {"phx_ref": "r\"1"}]});
    assert_eq!(state, serde_json::json!({"": one, "\"quoted\"": one, "é\u{2028}\n\\": one, "0": one, "a": two}));
}

#[test]
fn a_meta_keeps_its_values_as_written_and_sorts_its_members() {
    let meta =
        Meta::new(" {\"n\": 1.0, \"extra\":[1, {\"b\":1,\"a\":2}],\"big\":123456789012345678901234567890}\n", "r2")
            .unwrap();

    let user = r#""big":123456789012345678901234567890,"extra":[1, {"b":1,"a":2}],"n":1.0"#;
    assert_eq!(meta.as_json(), format!("{{\"phx_ref\":\"r2\",{user}}}"));
    assert_eq!(meta.user_json(), format!("{{{user}}}"));
    let meta = meta.with_phx_ref_prev("r1").with_phx_ref_prev("r\"0");
    assert_eq!(meta.as_json(), format!("{{\"phx_ref\":\"r2\",\"phx_ref_prev\":\"r\\\"0\",{user}}}"));
    assert_eq!(meta.user_json(), format!("{{{user}}}"));
    assert_eq!((meta.phx_ref(), meta.phx_ref_prev()), ("r2", Some("r\"0")));
}

/// Phoenix writes both: recording `presence_meta_edge`.
#[test]
fn references_in_the_application_s_meta_are_dropped() {
    let meta = Meta::new(r#"{"phx_ref":"mine","s":"é","phx_ref_prev":1,"phx\u005fref":2,"s":"last"}"#, "ours").unwrap();

    assert_eq!(meta.as_json(), r#"{"phx_ref":"ours","s":"last"}"#);
    assert_eq!(meta.phx_ref_prev(), None);
}

#[test]
fn a_meta_must_be_an_object() {
    for (json, found) in
        [("\"str\"", "a string"), ("[]", "an array"), (" null", "null"), ("true", "a boolean"), ("-1", "a number")]
    {
        assert_eq!(Meta::new(json, "r"), Err(MetaError::NotAnObject { found }));
    }
    for json in ["", "{", "{}x", "{\"a\":}", "truth", "nil"] {
        assert!(matches!(Meta::new(json, "r"), Err(MetaError::Invalid(_))), "{json}");
    }
}

/// The list is `Object.getOwnPropertyNames(Object.prototype)` of V8.
#[test]
fn keys_that_every_object_has_are_unsafe() {
    let members = "constructor __defineGetter__ __defineSetter__ hasOwnProperty __lookupGetter__ __lookupSetter__ \
        isPrototypeOf propertyIsEnumerable toString valueOf __proto__ toLocaleString";

    for member in members.split(' ') {
        let refused = check_key(member).unwrap_err();
        assert!(refused.to_string().contains(member), "{refused}");
        assert_eq!(check_key(&format!("user:{member}")), Ok(()));
    }
    for key in ["", "ann", "prototype", "Constructor", "tostring", "__proto", "toJSON", "0"] {
        assert_eq!(check_key(key), Ok(()));
    }
}

/// References as recorded, and one with every bit set.
#[test]
fn a_reference_is_url_safe_base64() {
    let check = |bytes: [u8; 12], text: &str| assert_eq!(phx_ref(bytes), text);

    check([24, 234, 110, 48, 53, 241, 96, 231, 5, 118, 245, 33], "GOpuMDXxYOcFdvUh");
    check([24, 234, 111, 254, 224, 147, 233, 109, 5, 118, 74, 226], "GOpv_uCT6W0Fdkri");
    check([24, 234, 110, 47, 241, 126, 138, 46, 5, 118, 242, 193], "GOpuL_F-ii4FdvLB");
    check([255; 12], "________________");
    check([0; 12], "AAAAAAAAAAAAAAAA");
}
