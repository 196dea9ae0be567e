use proptest::prelude::*;

use super::*;

/// Decodes and compares as JSON, which is how `connect` sees the parameters.
fn check(query: &str, expected: &str) {
    let params = decode(query).expect("the query is decodable");

    let expected: serde_json::Value = serde_json::from_str(expected).expect("the expectation is JSON");
    assert_eq!(serde_json::to_value(&params).expect("parameters serialise"), expected, "{query}");
}

#[test]
fn the_recorded_connect_params_arrive_as_in_phoenix() {
    check(
        "vsn=2.0.0&a[b]=1&a[c][]=2&a[c][]=3&r=1&r=2&p=x+y%20z&e=&flag&u=%C3%A9",
        r#"{"a":{"b":"1","c":["2","3"]},"e":"","flag":"","p":"x y z","r":"2","u":"é","vsn":"2.0.0"}"#,
    );
}

#[test]
fn nothing_gives_no_parameters() {
    check("", "{}");
    check("&&", "{}");
}

#[test]
fn an_invalid_percent_escape_stands_for_itself() {
    check("x=%zz&y=%4&z=%", r#"{"x":"%zz","y":"%4","z":"%"}"#);
    check("x=%%41", r#"{"x":"%A"}"#);
}

#[test]
fn keys_are_decoded_before_they_are_split() {
    check("a%5Bb%5D=1&c+d=2", r#"{"a":{"b":"1"},"c d":"2"}"#);
}

#[test]
fn only_the_first_equals_sign_separates() {
    check("a=b=c&=d", r#"{"a":"b=c","":"d"}"#);
}

#[test]
fn decoded_bytes_that_are_no_utf_8_are_an_error() {
    assert_eq!(decode("vsn=2.0.0&x=%ff"), Err(QueryError::NotUtf8("%ff".to_owned())));
    assert_eq!(decode("%c3=1"), Err(QueryError::NotUtf8("%c3".to_owned())));
}

#[test]
fn a_version_given_as_list_or_map_is_there_but_no_string() {
    for query in ["vsn[]=2.0.0", "vsn[a]=2.0.0"] {
        let params = decode(query).expect("the query is decodable");

        assert!(params.contains("vsn"), "{query}");
        assert_eq!(params.get_str("vsn"), None, "{query}");
    }
    assert_eq!(decode("vsn=1.0.0&vsn=2.0.0").expect("decodable").get_str("vsn"), Some("2.0.0"));
}

#[test]
fn the_last_use_decides_between_string_and_container() {
    check("a=1&a[b]=2", r#"{"a":{"b":"2"}}"#);
    check("a[b]=2&a=1", r#"{"a":"1"}"#);
    // The container was noted when it was first met, before the string.
    check("a[b]=2&a=1&a[c]=3", r#"{"a":"1"}"#);
}

#[test]
fn the_last_use_decides_between_list_and_map() {
    check("a[]=1&a[b]=2", r#"{"a":{"b":"2"}}"#);
    check("a[b]=2&a[]=1&a[]=3", r#"{"a":["1","3"]}"#);
}

#[test]
fn maps_inside_a_list_are_one_item() {
    check("u[][a]=1&u[][b]=2", r#"{"u":[{"a":"1","b":"2"}]}"#);
    check("u[0][a]=1&u[1][a]=2", r#"{"u":{"0":{"a":"1"},"1":{"a":"2"}}}"#);
}

#[test]
fn brackets_in_other_places_belong_to_the_name() {
    check("[a]=1&b]=2&c[=3&d[e=4&f[g]h=5", r#"{"[a]":"1","b]":"2","c[":"3","d[e":"4","f[g]h":"5"}"#);
    check("a[b[c]=1&x[y]z]=2", r#"{"a":{"b[c":"1"},"x":{"y]z":"2"}}"#);
}

#[test]
fn the_bounds_hold() {
    let pairs = |count: usize| vec!["a=1"; count].join("&");
    assert!(decode(&pairs(QUERY_PAIRS_MAX)).is_ok());
    assert_eq!(decode(&pairs(QUERY_PAIRS_MAX + 1)), Err(QueryError::TooManyPairs(QUERY_PAIRS_MAX + 1)));

    let nested = |depth: usize| format!("a{}=1", "[b]".repeat(depth));
    assert!(decode(&nested(QUERY_DEPTH_MAX)).is_ok());
    assert_eq!(decode(&nested(QUERY_DEPTH_MAX + 1)), Err(QueryError::TooDeep(QUERY_DEPTH_MAX + 1)));
}

proptest! {
    #[test]
    fn any_text_decodes_or_is_refused(query in "[ab\\[\\]=&%c3+é]{0,40}") {
        let _ = decode(&query);
    }

    #[test]
    fn plain_pairs_come_back(pairs in proptest::collection::btree_map("[a-z]{1,4}", "\\PC{0,8}", 0..8)) {
        let query = pairs.iter().map(|(key, value)| {
            let value: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
            format!("{key}={value}")
        });

        let params = decode(&query.collect::<Vec<_>>().join("&")).expect("the query is decodable");

        prop_assert_eq!(params.0.len(), pairs.len());
        for (key, value) in &pairs {
            prop_assert_eq!(params.get_str(key), Some(value.as_str()));
        }
    }
}
