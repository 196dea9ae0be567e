//! What clients say and hear of positions, to the byte.

use super::*;
use crate::protocol::message::{Payload, Ref};

fn resume(value: &str) -> Result<Option<Resume>, BadResume> {
    Resume::from_params(format!(r#"{{"token":"t","resume":{value},"n":[1]}}"#).as_bytes())
}

/// What a refusal repeats of a value.
#[track_caller]
fn refused(value: &str) -> String {
    let text = resume(value).expect_err(value).to_string();
    let expected = concat!(
        r#"resume: expected true, null or {"epoch": 16 hex digits, "offset": "#,
        "a whole number from 0 to 9007199254740991}, got "
    );
    text.strip_prefix(expected).expect(&text).to_owned()
}

#[test]
fn params_without_the_key_ask_for_nothing() {
    let others = [
        "{}",
        "null",
        "true",
        "[]",
        r#"["resume"]"#,
        r#""resume""#,
        "12",
        r#"{"Resume":true}"#,
        r#"{"a":{"resume":true}}"#,
    ];
    for params in others {
        assert_eq!(Resume::from_params(params.as_bytes()), Ok(None), "{params}");
    }
}

#[test]
fn params_that_are_no_json_ask_for_nothing() {
    for params in ["", "{", r#"{"resume":true"#, r#"{"resume":true}x"#, r#"{"resume":}"#] {
        assert_eq!(Resume::from_params(params.as_bytes()), Ok(None), "{params}");
    }
    assert_eq!(Resume::from_params(b"{\"resume\":true,\"a\":\"\xff\"}"), Ok(None));
}

#[test]
fn true_null_and_an_empty_object_ask_from_now_on() {
    for value in ["true", "null", "{}", "{ }", "{\n\t\r }", "  true ", "\nnull\t"] {
        assert_eq!(resume(value), Ok(Some(Resume::FromNow)), "{value:?}");
    }
}

#[test]
fn a_position_asks_for_what_is_behind_it() {
    let accepted = [
        (r#"{"epoch":"00ab000000000001","offset":12}"#, 12),
        (r#"{"offset":0,"epoch":"00ab000000000001"}"#, 0),
        (r#" { "epoch" : "00ab000000000001" , "offset" : 7 } "#, 7),
        (r#"{"epoch":"00ab000000000001","offset":9007199254740991}"#, OFFSET_MAX),
        // Clients may keep more with it.
        (r#"{"epoch":"00ab000000000001","offset":3,"from":null,"reason":"slow","x":{"offset":9}}"#, 3),
    ];
    for (value, offset) in accepted {
        assert_eq!(resume(value), Ok(Some(after(EPOCH, offset))), "{value}");
    }
}

#[test]
fn escapes_read_like_what_they_stand_for() {
    let value = r#"{"\u0065poch":"\u0030\u0030ab00000000000\u0031","off\u0073et":5}"#;

    assert_eq!(resume(value), Ok(Some(after(EPOCH, 5))));
    assert_eq!(Resume::from_params(br#"{"r\u0065sume":true}"#), Ok(Some(Resume::FromNow)));
}

#[test]
fn of_a_key_that_comes_twice_the_first_counts() {
    assert_eq!(Resume::from_params(br#"{"resume":true,"resume":7}"#), Ok(Some(Resume::FromNow)));
    assert_eq!(Resume::from_params(br#"{"resume":7,"resume":true}"#), resume("7"));
    assert_eq!(refused("7"), "7");
    let value = r#"{"epoch":"00ab000000000001","offset":5,"epoch":"x","offset":-1,"\u006fffset":6}"#;
    assert_eq!(resume(value), Ok(Some(after(EPOCH, 5))));
    refused(r#"{"epoch":"00ab000000000001","offset":-1,"offset":5}"#);
}

#[test]
fn a_whole_number_is_one_without_point_exponent_or_sign() {
    let refused_offsets = [
        "-1",
        "-0",
        "1.0",
        "0.5",
        "1e3",
        "1E0",
        "9007199254740992",
        "18446744073709551615",
        "18446744073709551616",
        "1e400",
        r#""12""#,
        "null",
        "true",
        "[1]",
        "{}",
    ];
    for offset in refused_offsets {
        let value = format!(r#"{{"epoch":"00ab000000000001","offset":{offset}}}"#);
        assert!(refused(&value).starts_with(&value[..40]), "{offset}");
    }
}

#[test]
fn an_epoch_is_16_lower_case_hex_digits() {
    let refused_epochs = [
        r#""""#,
        r#""0ab000000000001""#,
        r#""000ab000000000001""#,
        r#""00AB000000000001""#,
        r#""+0ab000000000001""#,
        r#""0x0b000000000001""#,
        r#""00ab00000000000g""#,
        r#"" 0ab000000000001""#,
        r#""00ab00000000000é""#,
        r#""00ab0000000000é""#,
        "null",
        "1",
        "1000000000000001",
        "[]",
    ];
    for epoch in refused_epochs {
        refused(&format!(r#"{{"epoch":{epoch},"offset":1}}"#));
    }
}

#[test]
fn any_other_shape_is_refused_with_what_came() {
    let shapes = [
        "false",
        "0",
        "1",
        r#""""#,
        r#""true""#,
        r#""null""#,
        "[]",
        "[{}]",
        r#"["00ab000000000001",12]"#,
        r#"{"epoch":"x"}"#,
        r#"{"epoch":"00ab000000000001"}"#,
        r#"{"offset":12}"#,
        r#"{"":{}}"#,
        r#"{"epoch":null,"offset":null}"#,
    ];
    for shape in shapes {
        assert_eq!(refused(shape), shape);
    }
}

#[test]
fn of_a_long_value_the_refusal_repeats_the_beginning() {
    let exactly = format!(r#""{}""#, "x".repeat(58));
    let longer = format!(r#""{}""#, "x".repeat(59));
    let wide = format!(r#""{}""#, "é".repeat(500));

    assert_eq!(refused(&exactly), exactly);
    assert_eq!(refused(&longer), format!(r#""{}…"#, "x".repeat(59)));
    assert_eq!(refused(&wide), format!(r#""{}…"#, "é".repeat(59)), "characters are whole");
}

#[test]
fn an_epoch_is_written_as_it_is_read() {
    for (number, text) in [(0, "0000000000000000"), (EPOCH.0, "00ab000000000001"), (u64::MAX, "ffffffffffffffff")] {
        assert_eq!(Epoch(number).to_string(), text);
        assert_eq!(Epoch::parse(text), Some(Epoch(number)));
        assert_eq!(serde_json::to_string(&Epoch(number)).expect("it is a string"), format!("\"{text}\""));
        assert_eq!(format!("{:?}", Epoch(number)), format!("Epoch({text})"));
    }
}

#[test]
fn a_position_goes_over_the_wire_and_back() {
    let position = Position { epoch: Epoch(0x9f), offset: 12 };

    let text = serde_json::to_string(&position).expect("it is JSON");

    assert_eq!(text, r#"{"epoch":"000000000000009f","offset":12}"#);
    assert_eq!(resume(&text), Ok(Some(Resume::After(position))));
}

#[test]
fn a_reference_is_the_offset_behind_an_at_sign() {
    let texts = [0, 1, 13, OFFSET_MAX, u64::MAX].map(|offset| Ref::position(offset).as_json().to_owned());

    assert_eq!(texts, [r#""@0""#, r#""@1""#, r#""@13""#, r#""@9007199254740991""#, r#""@18446744073709551615""#]);
}

#[test]
fn a_gap_tells_where_the_client_goes_on_what_it_had_and_why() {
    let text = |gap: Gap| {
        let Payload::Json(text) = gap.payload() else { panic!("a gap is JSON") };
        String::from_utf8(text.to_vec()).expect("JSON is UTF-8")
    };
    let expired = gap(40, Some(12), GapReason::Expired);

    assert_eq!(text(expired), r#"{"epoch":"00ab000000000001","offset":40,"from":12,"reason":"expired"}"#);
    assert_eq!(
        text(gap(0, None, GapReason::Epoch)),
        r#"{"epoch":"00ab000000000001","offset":0,"from":null,"reason":"epoch"}"#
    );
    assert!(text(gap(1, Some(2), GapReason::Future)).ends_with(r#""reason":"future"}"#));
    assert!(text(gap(1, Some(0), GapReason::Slow)).ends_with(r#""reason":"slow"}"#));
    assert_eq!(expired.position(), Position { epoch: EPOCH, offset: 40 });
}

#[test]
fn a_clients_position_from_a_gap_goes_on_behind_it() {
    let history = four_of_seven();
    let (offset, told) = history.start(&after(ANOTHER, 3));
    let told = told.expect("it is of another epoch");

    assert_eq!(history.start(&Resume::After(told.position())), (offset, None));
    let payload = told.payload();
    let kept_whole = std::str::from_utf8(payload.as_bytes()).expect("JSON is UTF-8");
    assert_eq!(resume(kept_whole), Ok(Some(Resume::After(told.position()))));
}
