//! A request that is not served: its HTTP status, and the JSON-RPC error in its body.

use bytes::Bytes;
use serde_json::value::RawValue;
use warp::http::{HeaderValue, StatusCode, header};
use warp::reply::Response;

use super::{Denial, json};
use crate::mcp::auth::AuthRefused;
use crate::protocol::jsonrpc::{self, Compat, Fault};
use crate::protocol::mcp::error;

/// The methods of a path, for clients of either era.
pub(super) const METHODS: &str = "GET, POST, DELETE, OPTIONS";
/// The methods of a path for stateless clients.
const METHODS_MODERN: &str = "POST, OPTIONS";

/// Why a request is not served.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    fault: Fault,
    /// The id of the request, where one could be read.
    id: Option<Box<RawValue>>,
}

impl Refusal {
    /// With the code of an invalid request.
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Refusal { status, fault: Fault::InvalidRequest(text.into()), id: None }
    }

    /// The request is not what it has to be.
    pub(super) fn invalid(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// Whoever asks may not.
    pub(super) fn forbidden(text: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, text)
    }

    /// Whoever asks lacks a capability.
    pub(super) fn denied(text: String) -> Self {
        let fault = Fault::Unauthorized(text);
        Refusal { status: StatusCode::FORBIDDEN, fault, id: None }
    }

    /// The body is not JSON.
    pub(super) fn parse(text: impl std::fmt::Display) -> Self {
        let fault = error::other(jsonrpc::PARSE_ERROR, format!("Parse error: {text}"), None);
        Refusal { status: StatusCode::BAD_REQUEST, fault, id: None }
    }

    /// The body is JSON and no message.
    pub(super) fn invalid_message(id: Option<&RawValue>) -> Self {
        Refusal { status: StatusCode::BAD_REQUEST, fault: Fault::InvalidMessage, id: id.map(ToOwned::to_owned) }
    }

    /// A request gets this error.
    pub(super) fn of(id: &RawValue, status: StatusCode, fault: Fault) -> Self {
        Refusal { status, fault, id: Some(id.to_owned()) }
    }

    /// The path has no such method.
    pub(super) fn method_not_allowed(is_modern: bool) -> Self {
        let methods = if is_modern { METHODS_MODERN } else { METHODS };
        Self::new(StatusCode::METHOD_NOT_ALLOWED, format!("expected one of {methods}"))
    }

    /// The answer. Where there is no id it has none: the schemas know no null.
    pub(super) fn into_response(self, is_modern: bool) -> Response {
        let Refusal { status, fault, id } = self;
        // An id that is no JSON-RPC id is not echoed where the schema of the answer has no room for it.
        let is_plain = |id: &RawValue| id.get().starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit());
        let id = id.filter(|id| !is_modern || is_plain(id));
        let text: Bytes = match &id {
            None => jsonrpc::anonymous_error(&fault, Compat::Standard),
            id => jsonrpc::error_response(id.as_deref(), &fault, Compat::Standard),
        };
        let mut response = json(status, text);
        if let Fault::Unauthorized(text) = &fault {
            response.extensions_mut().insert(Denial(text.clone()));
        }
        let headers = response.headers_mut();
        match status {
            StatusCode::METHOD_NOT_ALLOWED => {
                let methods = if is_modern { METHODS_MODERN } else { METHODS };
                headers.insert(header::ALLOW, HeaderValue::from_static(methods));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
            }
            _ => {}
        }
        response
    }
}

impl From<AuthRefused> for Refusal {
    fn from(refused: AuthRefused) -> Self {
        let status = if refused.is_of_address() { StatusCode::FORBIDDEN } else { StatusCode::UNAUTHORIZED };
        Self::new(status, refused.0)
    }
}
