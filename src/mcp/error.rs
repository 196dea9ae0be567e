//! Why serving a request failed, in the words of whoever serves it.

use std::borrow::Cow;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::protocol::jsonrpc::ErrorObject;

/// Why a tool, a resource or a prompt could not do what was asked. It reaches the caller as its revision wants it: a tool's
/// failure is a result with `isError`, others are JSON-RPC errors.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// An argument does not fit: which one, what was expected, what came.
    #[error("invalid arguments: {0}")]
    InvalidArguments(String),
    /// It could not be done; the text is for the caller.
    #[error("{0}")]
    Failed(String),
    /// It noticed that the call was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// There is no such resource; for handlers of templates.
    #[error("not found")]
    NotFound,
    /// The client lacks a capability that this needs: an object of `ClientCapabilities`.
    #[error("the client does not have the capability that is needed: {0}")]
    MissingCapability(Value),
    /// A JSON-RPC error of this code, with these words and data.
    #[error("{}", .0.message)]
    Rpc(Box<ErrorObject>),
    /// The client has to answer questions first; it calls again with the answers. Handlers get it from
    /// [`CallContext`](super::CallContext) and pass it on with `?`.
    #[error("the client has to answer first")]
    InputRequired(InputRequired),
}

/// Held by [`CallError::InputRequired`]; made by the context alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputRequired(pub(super) ());

impl CallError {
    /// It could not be done, for this reason.
    pub fn failed(why: impl Into<String>) -> Self {
        CallError::Failed(why.into())
    }

    /// A JSON-RPC error of this code.
    pub fn rpc(code: i64, message: impl Into<Cow<'static, str>>, data: Option<Box<RawValue>>) -> Self {
        CallError::Rpc(Box::new(ErrorObject { code, message: message.into().into_owned(), data }))
    }
}

impl From<String> for CallError {
    fn from(why: String) -> Self {
        CallError::Failed(why)
    }
}

impl From<&str> for CallError {
    fn from(why: &str) -> Self {
        CallError::Failed(why.to_owned())
    }
}
