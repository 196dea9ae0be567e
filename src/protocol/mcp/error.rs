//! MCP's own JSON-RPC errors, each with its code and the shape of its data.

use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::protocol::jsonrpc::{self, ErrorObject, Fault};
use crate::protocol::mcp::version::Version;

/// A header of the HTTP request does not say what its body says. Source: 2026-07-28.
pub const HEADER_MISMATCH: i64 = -32020;
/// Serving the request needs a capability that the client did not declare. Source: 2026-07-28.
pub const MISSING_CLIENT_CAPABILITY: i64 = -32021;
/// The request names a revision that is not spoken here. Source: 2026-07-28.
pub const UNSUPPORTED_VERSION: i64 = -32022;
/// There are as many calls under way as may be, in the stateless era: MCP gives the codes up to -32000 meanings of its own
/// there, so this is one of the application's. Before it was [`jsonrpc::SERVER_ERROR`].
pub const TOO_MANY_CALLS: i64 = 429;
/// Who asks may not, in the stateless era, as [`TOO_MANY_CALLS`] is.
pub const UNAUTHORIZED: i64 = 403;
/// There is no such resource, in revisions before 2026-07-28; from then on it is -32602.
pub const RESOURCE_NOT_FOUND: i64 = -32002;
/// The client has to visit a URL first. Source: 2025-11-25 alone.
pub const URL_ELICITATION_REQUIRED: i64 = -32042;

fn coded(code: i64, message: String, data: Option<&impl Serialize>) -> Fault {
    Fault::Coded(Box::new(ErrorObject { code, message, data: data.map(jsonrpc::raw) }))
}

/// The request's revision is not spoken.
pub fn unsupported_version(requested: &str) -> Fault {
    let data = json!({"supported": Version::MODERN, "requested": requested});
    coded(UNSUPPORTED_VERSION, format!("Unsupported protocol version: {requested}"), Some(&data))
}

/// `required` is a `ClientCapabilities` object with what is missing.
pub fn missing_capability(required: &serde_json::Value) -> Fault {
    let names: Vec<_> = required.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    let message = format!("Missing required client capability: {}", names.join(", "));
    coded(MISSING_CLIENT_CAPABILITY, message, Some(&json!({"requiredCapabilities": required})))
}

/// A header that is missing or does not match; the text says which, what was expected and what came.
pub fn header_mismatch(text: &str) -> Fault {
    coded(HEADER_MISMATCH, format!("Header mismatch: {text}"), None::<&()>)
}

/// There is no resource at that URI, in the words and the code of the revision.
pub fn resource_not_found(uri: &str, version: Version) -> Fault {
    let data = json!({"uri": uri});
    if version.is_modern() {
        return coded(jsonrpc::INVALID_PARAMS, format!("Resource not found: {uri}"), Some(&data));
    }
    coded(RESOURCE_NOT_FOUND, format!("Resource not found: {uri}"), Some(&data))
}

/// A fault as the stateless era has it.
pub fn stateless(fault: Fault) -> Fault {
    match fault {
        Fault::TooManyCalls { .. } => coded(TOO_MANY_CALLS, fault.to_string(), None::<&()>),
        Fault::RateLimited { retry_after_s } => {
            coded(TOO_MANY_CALLS, fault.to_string(), Some(&json!({"retry_after": retry_after_s})))
        }
        Fault::Unauthorized(_) => coded(UNAUTHORIZED, fault.to_string(), None::<&()>),
        other => other,
    }
}

/// An error with a code of the application's own.
pub fn other(code: i64, message: impl Into<String>, data: Option<Box<RawValue>>) -> Fault {
    Fault::Coded(Box::new(ErrorObject { code, message: message.into(), data }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::jsonrpc::Compat;

    fn object(fault: &Fault) -> serde_json::Value {
        serde_json::to_value(fault.to_object(Compat::Standard)).expect("serializes")
    }

    #[test]
    fn the_stateless_era_has_no_code_of_ours_among_those_of_mcp() {
        let full = Fault::TooManyCalls { scope: jsonrpc::Scope::Session, limit: 3 };

        let text = "Too many concurrent calls: the limit is 3";
        assert_eq!(object(&stateless(full)), json!({"code": 429, "message": text}));
        assert_eq!(object(&stateless(Fault::RequestTooLarge)), object(&Fault::RequestTooLarge));
    }

    #[test]
    fn errors_have_the_codes_and_the_data_of_the_specification() {
        assert_eq!(
            object(&unsupported_version("1900-01-01")),
            json!({
                "code": -32022, "message": "Unsupported protocol version: 1900-01-01",
                "data": {"supported": ["2026-07-28"], "requested": "1900-01-01"}
            })
        );
        assert_eq!(
            object(&missing_capability(&json!({"sampling": {}}))),
            json!({
                "code": -32021, "message": "Missing required client capability: sampling",
                "data": {"requiredCapabilities": {"sampling": {}}}
            })
        );
        assert_eq!(object(&resource_not_found("a:b", Version::V2025_11_25))["code"], -32002);
        assert_eq!(object(&resource_not_found("a:b", Version::V2026_07_28))["code"], -32602);
        assert_eq!(
            object(&header_mismatch("x")),
            json!({"code": -32020, "message": "Header mismatch: x"}),
            "no data where there is none"
        );
    }
}
