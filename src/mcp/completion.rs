//! Completing the arguments of prompts and the variables of templates while a person types.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::CallError;

/// What a client has typed so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompletionRequest {
    /// The beginning of the value.
    pub value: String,
    /// Other arguments that have been given already.
    pub arguments: BTreeMap<String, String>,
}

type Completing = BoxFuture<'static, Result<Vec<String>, CallError>>;

/// Completes one argument.
#[derive(Clone)]
pub(crate) struct Completer(Arc<dyn Fn(CompletionRequest) -> Completing + Send + Sync>);

impl Completer {
    pub(crate) fn new<F, Fut>(complete: F) -> Self
    where
        F: Fn(CompletionRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<String>, CallError>> + Send + 'static,
    {
        Completer(Arc::new(move |request| complete(request).boxed()))
    }

    pub(crate) fn complete(&self, request: CompletionRequest) -> Completing {
        (self.0)(request)
    }
}
