//! JSON as nobody else would spell it: every message is put together here, of texts.

use std::sync::OnceLock;

use serde_json::value::RawValue;

/// What the specification has no word for, as the members of an object.
pub const MEMBERS: &str = concat!(
    r#""x-odd" : { "zeta":1e2,"alpha":12345678901234567890123 ,"#,
    r#""one":1.0,"caf\u00e9":"a\/b" , "tiny":-0.0,"none":null,"list":[ ] }"#
);

/// Such an object.
pub const VALUE: &str =
    r#"{ "zeta":-1.50e+3,"alpha":98765432109876543210987 ,"nested":[ {"b":1.0, "a":"\u00E9\ud83d\ude00"} ]}"#;

/// What the server says of itself.
pub const SERVER_INFO: &str =
    r#"{ "x-odd-info":1.0,"version":"1.0","title":"The odd one \u00e9\/\u00e8", "name":"odd_upstream"}"#;

/// The members of `_meta` that every result has.
pub const META: &str = r#""vendor.example\/odd":{ "zeta":1e2 , "alpha":12345678901234567890123}"#;

/// What stands beside `id` and `method`.
static ENVELOPE: OnceLock<&str> = OnceLock::new();

/// Has messages without unknown members at their top.
pub fn leave_envelopes_plain() {
    ENVELOPE.get_or_init(|| "");
}

fn envelope() -> &'static str {
    ENVELOPE.get_or_init(|| {
        concat!(r#""x-odd-envelope":{ "zeta":1e2,"alpha":12345678901234567890123 ,"#, r#""one":1.0,"s":"\/\u00e9"}, "#)
    })
}

/// A text as a JSON string.
pub fn string(text: &str) -> String {
    serde_json::to_string(text).expect("a text is a JSON string")
}

/// The name of a method, with its slashes escaped.
fn method_name(method: &str) -> String {
    string(method).replace('/', r"\/")
}

/// The text of what may be left out.
pub fn or_null(value: Option<&RawValue>) -> &str {
    value.map_or("null", RawValue::get)
}

pub fn response(id: &str, result: &str) -> String {
    format!(r#"{{"result":{result}, {}"id":{id} ,"jsonrpc":"2.0"}}"#, envelope())
}

pub fn error(id: &str, code: &str, message: &str, data: &str) -> String {
    let message = string(message);
    format!(
        r#"{{"error":{{ "data":{data},{MEMBERS} ,"message":{message} ,"code":{code}}},{}"id":{id},"jsonrpc":"2.0"}}"#,
        envelope()
    )
}

/// `params` is an object with members of its own.
pub fn notification(method: &str, params: &str) -> String {
    format!(r#"{{"params":{params} , {}"method":{},"jsonrpc":"2.0"}}"#, envelope(), method_name(method))
}

pub fn request(id: &str, method: &str, params: &str) -> String {
    format!(r#"{{"params":{params} ,{}"id":{id}, "method":{},"jsonrpc":"2.0"}}"#, envelope(), method_name(method))
}

/// A block of content.
pub fn text_block(text: &str) -> String {
    format!(
        r#"{{ "x-odd-block":[ 1e2 ,1.0],"annotations":{{"x-odd-hint":12345678901234567890123,"priority":1.0 ,"audience":["user"]}},"text":{} , "type":"text","_meta":{{{META}}}}}"#,
        string(text)
    )
}
