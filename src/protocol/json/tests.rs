//! What is JSON here, how references are spelt, and agreement with serde_json where the two mean the same.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn accepts(text: &str) {
    assert_eq!(validate(text), Ok(()), "{text}");
}

fn refuses(text: &str) {
    assert!(validate(text).is_err(), "{text}");
}

#[test]
fn every_kind_of_value_is_accepted() {
    for text in [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "7",
        "-12",
        "0.5",
        "1.10",
        "1e3",
        "1E+3",
        "1e-7",
        "\"\"",
        "\"é😀\"",
        "[]",
        "{}",
        "[null,{\"a\":null}]",
        "[[],[[]],{}]",
        "{\"a\":{\"b\":[1,2]},\"c\":\"\"}",
        " \t\r\n[ 1 , 2 ]\n",
        "{ \"a\" : 1 }",
        "\"\u{7f}\"",
    ] {
        accepts(text);
    }
}

#[test]
fn the_recorded_malformed_texts_are_refused() {
    for text in ["garbage", "01", "NaN", "'1'", "[1,]", "[1", "\u{feff}[]", "1e400", "\"\\ud800\"", ""] {
        refuses(text);
    }
}

#[test]
fn near_misses_are_refused() {
    for text in [
        "-",
        "+1",
        ".5",
        "1.",
        "1.e3",
        "1e",
        "1e+",
        "00",
        "-01",
        "0x1",
        "1_0",
        "--1",
        "Infinity",
        "nul",
        "nulL",
        "truee",
        "tru",
        "\"",
        "\"\n\"",
        "\"\u{1f}\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\",
        "\"\\u",
        "{a:1}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{\"a\":1 \"b\":2}",
        "{1:2}",
        "[,]",
        "[1 2]",
        "[}",
        "{]",
        "[1}",
        "{\"a\":1]",
        "1 2",
        "[] []",
        "]",
        "}",
        "[[]",
        "{\"a\":{}",
        "\u{a0}1",
        "/**/1",
        "\u{c}1",
        ",",
        ":",
        "[1,,2]",
    ] {
        refuses(text);
    }
}

#[test]
fn surrogate_escapes_come_in_pairs() {
    accepts("\"\\ud83d\\ude00\"");
    accepts("\"\\uD83D\\uDE00\\u0041\"");
    for text in [
        "\"\\ud800x\"",
        "\"\\udc00\"",
        "\"\\ud800\\u0041\"",
        "\"\\ud800\\ud800\"",
        "\"\\ud83d\\n\"",
        "\"\\ude00\\ud83d\"",
    ] {
        refuses(text);
    }
    assert_eq!(validate("[\"ab\\udc00\"]"), Err(JsonError::LoneSurrogate { at: 4 }));
}

#[test]
fn floats_must_fit_64_bits_and_integers_need_not() {
    let digits = "9".repeat(400);
    accepts(&digits);
    accepts(&format!("-{digits}"));
    for text in
        ["1.7976931348623157e308", "5e-324", "1e-400", "1e-99999999999999999999", "0e400", "0.0e99999999999999999999"]
    {
        accepts(text);
    }
    accepts(&format!("0.{}e300", "0".repeat(300)));
    accepts(&format!("1{}e-200", "0".repeat(400)));
    for text in ["1e309", "-1e400", "1.8e308", "17976931348623159e292", "1e99999999999999999999"] {
        assert_eq!(validate(text), Err(JsonError::Overflow { at: 0 }), "{text}");
    }
    assert_eq!(validate(&format!("{digits}.0")), Err(JsonError::Overflow { at: 0 }));
}

#[test]
fn nesting_stops_at_the_limit() {
    let arrays = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));

    accepts(&arrays(JSON_DEPTH_MAX));
    accepts(&objects(JSON_DEPTH_MAX));
    assert_eq!(validate(&arrays(JSON_DEPTH_MAX + 1)), Err(JsonError::TooDeep { at: JSON_DEPTH_MAX }));
    assert_eq!(validate(&objects(JSON_DEPTH_MAX + 1)), Err(JsonError::TooDeep { at: 5 * JSON_DEPTH_MAX }));
    assert!(validate(&"[".repeat(1_000_000)).is_err());
}

#[test]
fn containers_of_both_kinds_close_in_order_at_every_depth() {
    let mixed = |depth: usize| {
        let open: String = (0..depth).map(|level| if level % 3 == 0 { "{\"a\":" } else { "[" }).collect();
        let close: String = (0..depth).rev().map(|level| if level % 3 == 0 { '}' } else { ']' }).collect();
        (open, close)
    };
    for depth in [1, 2, 63, 64, 65, 128, 200] {
        let (open, close) = mixed(depth);
        accepts(&format!("{open}1{close}"));
        let swapped: String = close.chars().map(|bracket| if bracket == '}' { ']' } else { '}' }).collect();
        refuses(&format!("{open}1{swapped}"));
    }
}

#[test]
fn a_skipped_value_ends_where_the_next_byte_is_not_its_own() {
    assert_eq!(skip_value(b"12,3", 0), Ok(2));
    assert_eq!(
        skip_value(b"[\"a\"  ,{}],1", 5),
        Err(JsonError::Unexpected { at: 6, found: b',', expected: "a value" })
    );
    assert_eq!(skip_value(b"x{\"a\":[1]} ", 1), Ok(10));
    assert_eq!(skip_value(b"  \"a\\\"b\" ", 0), Ok(8));
    assert_eq!(skip_value(b"1", 9), Err(JsonError::End { at: 1, expected: "a value" }));
}

#[test]
fn special_bytes_are_found_at_every_offset() {
    for special in ["\"", "\\", "\u{0}", "\u{1f}"] {
        for before in 0..20 {
            for filler in ["a", "\u{7f}", " ", "!", "#", "[", "]"] {
                let text = format!("{}{special}{}", filler.repeat(before), "\"\\".repeat(9));
                assert_eq!(find_special(text.as_bytes(), 0), before, "{text:?}");
            }
            let text = format!("{}{special}", "é".repeat(before));
            assert_eq!(find_special(text.as_bytes(), 0), 2 * before, "{text:?}");
        }
    }
}

#[test]
fn strings_are_written_with_the_fewest_escapes() {
    let mut out = b"x".to_vec();

    write_str(&mut out, "a\"b\\c/\n\r\t\u{8}\u{c}\u{0}\u{1f}\u{7f}é😀");

    assert_eq!(String::from_utf8_lossy(&out), "x\"a\\\"b\\\\c/\\n\\r\\t\\b\\f\\u0000\\u001f\u{7f}é😀\"");
}

#[test]
fn equal_references_have_one_spelling() {
    for (text, expected) in [
        ("null", "null"),
        ("true", "true"),
        ("0", "0"),
        ("-0", "0"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("\"abc\"", "\"abc\""),
        ("\"\\u0061\\/\\u00e9\"", "\"a/é\""),
        ("\"\\ud83d\\ude00\\u000a\"", "\"😀\\n\""),
        ("\"\\u0022\\u005c\\u0000\"", "\"\\\"\\\\\\u0000\""),
        ("[ 1 , 2.50 , \"\\u0041\" , null ]", "[1,2.5,\"A\",null]"),
        ("{ \"b\" : [ { } , [ ] ] , \"a\" : -0 }", "{\"a\":0,\"b\":[{},[]]}"),
        ("{\"a\":1,\"\\u0061\":2,\"A\":3}", "{\"A\":3,\"a\":1}"),
        ("{\"a\":{\"x\":1},\"a\":[[2]],\"b\":true}", "{\"a\":{\"x\":1},\"b\":true}"),
        ("{\"\\n\\\"\":\"\\u0001\"}", "{\"\\n\\\"\":\"\\u0001\"}"),
        ("[[1],[2,[3]],4]", "[[1],[2,[3]],4]"),
        ("[{\"k\":\"v\"},false]", "[{\"k\":\"v\"},false]"),
    ] {
        assert_eq!(canonical(text), expected);
        assert_eq!(canonical(expected), expected, "the form is stable");
    }
}

#[test]
fn floats_are_spelt_as_elixir_spells_them() {
    // The recorded pairs of transcript payload_floats: as sent, as answered.
    for (sent, answered) in [
        ("0.0", "0.0"),
        ("-0.0", "-0.0"),
        ("1.0", "1.0"),
        ("1.5", "1.5"),
        ("0.1", "0.1"),
        ("1e3", "1.0e3"),
        ("1E3", "1.0e3"),
        ("1e-7", "1.0e-7"),
        ("1.0e+2", "100.0"),
        ("123456.789", "123456.789"),
        ("1e15", "1.0e15"),
        ("1e16", "1.0e16"),
        ("1e21", "1.0e21"),
        ("1.5e300", "1.5e300"),
        ("5e-324", "5.0e-324"),
        ("1.7976931348623157e308", "1.7976931348623157e308"),
        ("100000000000000000000.0", "1.0e20"),
        ("0.00001", "1.0e-5"),
        ("0.0001", "0.0001"),
        ("0.001", "0.001"),
        ("3.141592653589793", "3.141592653589793"),
        ("2.5e-5", "2.5e-5"),
        ("1.10", "1.1"),
        ("4.35", "4.35"),
        ("9007199254740992.0", "9.007199254740992e15"),
        ("9007199254740993.0", "9.007199254740992e15"),
        ("123456789012345680.0", "1.2345678901234568e17"),
        ("1e22", "1.0e22"),
        ("1e23", "1.0e23"),
        ("-1e3", "-1.0e3"),
        ("-2.5", "-2.5"),
        ("12345678.0", "12345678.0"),
    ] {
        assert_eq!(canonical(sent), answered);
    }
}

#[test]
fn a_deep_reference_is_spelt_without_recursion() {
    let deep =
        format!("{}{}", "[{\"a\":".repeat(JSON_DEPTH_MAX / 2), "1".to_owned() + &"}]".repeat(JSON_DEPTH_MAX / 2));

    assert_eq!(canonical(&deep), deep);
}

/// Text that is JSON, or nearly.
fn jsonish() -> impl Strategy<Value = String> {
    prop_oneof![
        "[\\[\\]{}:,\"0-9eE+. \\\\unltrfasd-]{0,24}",
        "\"[a\\\\\"/bu0-9dDcC\\n\u{1}é]{0,16}\"",
        "-?[0-9]{0,3}\\.?[0-9]{0,3}([eE][+-]?[0-9]{0,3})?",
        (value(), any::<proptest::sample::Index>(), "[\\[\\]{}:,\"0e \\\\-]?").prop_map(|(value, at, insert)| {
            let mut text: Vec<char> = value.to_string().chars().collect();
            let at = at.index(text.len());
            text.splice(at..=at, insert.chars());
            text.into_iter().collect()
        }),
    ]
}

/// Floats are eighths, which serde_json reads exactly even without its `float_roundtrip`.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i16>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((any::<String>(), inner), 0..4).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    // serde_json refuses integers beyond a float too; jsonish has too few digits for that.
    #[test]
    fn the_validator_agrees_with_serde_json(text in jsonish()) {
        prop_assert_eq!(validate(&text).is_ok(), serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
    }

    #[test]
    fn any_bytes_are_skipped_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40), pos in 0_usize..50) {
        if let Ok(end) = skip_value(&bytes, pos) {
            prop_assert!(end <= bytes.len());
        }
    }

    #[test]
    fn values_that_serde_json_writes_are_valid(value in value()) {
        prop_assert_eq!(validate(&value.to_string()), Ok(()));
        prop_assert_eq!(validate(&format!("{value:#}")), Ok(()));
    }

    #[test]
    fn strings_come_back(text in any::<String>()) {
        let mut written = Vec::new();
        write_str(&mut written, &text);
        let written = String::from_utf8(written).expect("what is written is UTF-8");

        prop_assert_eq!(&serde_json::from_str::<String>(&written).expect("valid JSON"), &text);
        prop_assert_eq!(skip_string(written.as_bytes(), 0).map(|string| string.end), Ok(written.len()));
        prop_assert_eq!(string_value(&written), text);
    }

    #[test]
    fn string_values_are_those_of_serde_json(text in "\"([a-zé]|\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-cA-C][0-9a-fA-F]{3}|\\\\ud83d\\\\ude0[0-9]){0,8}\"") {
        prop_assert_eq!(validate(&text), Ok(()));
        prop_assert_eq!(string_value(&text), serde_json::from_str::<String>(&text).expect("valid JSON"));
    }

    #[test]
    fn anything_is_unescaped_without_a_panic(text in "[\"\\\\unD8cé0-9]{0,20}") {
        let _ = string_value(&text);
        let _ = canonical(&text);
    }

    #[test]
    fn the_canonical_form_keeps_the_value_and_forgets_the_layout(value in value()) {
        let compact = value.to_string();
        let spread = format!("{value:#}");
        let form = canonical(&compact).into_owned();

        prop_assert_eq!(&serde_json::from_str::<Value>(&form).expect("valid JSON"), &value);
        prop_assert_eq!(canonical(&spread).into_owned(), form.clone());
        prop_assert_eq!(canonical(&form).into_owned(), form.clone());
    }

    #[test]
    fn floats_read_back_as_themselves(value in any::<f64>().prop_filter("finite", |value| value.is_finite())) {
        let text = canonical(&format!("{value:e}")).into_owned();
        prop_assert_eq!(text.parse::<f64>().expect("a float").to_bits(), value.to_bits(), "{}", text);
        prop_assert!(text.contains('.'));
    }
}
