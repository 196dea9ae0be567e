//! What a call of a tool brings.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::mcp::CallError;
use crate::protocol::mcp::content::Content;

/// What a call brought. Texts, content and lists of content turn into it, and JSON values by [`Content::of_value`].
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ToolOutput {
    /// For the caller.
    pub content: Vec<Content>,
    /// The same as a value, where the tool has an output schema.
    pub structured: Option<Value>,
    /// Whether it says what went wrong: a failure with content of its own.
    pub is_error: bool,
    /// What the tool counted of its work, by name and unit such as `bytesRead`.
    pub usage: BTreeMap<&'static str, u64>,
    /// Further facts, for `_meta`.
    pub meta: Map<String, Value>,
}

impl ToolOutput {
    /// A failure that this content explains.
    pub fn error(content: impl Into<ToolOutput>) -> Self {
        ToolOutput { is_error: true, ..content.into() }
    }

    /// A value, and its JSON text for clients that read no structured output; for those of the Elixir deployment it is content
    /// by [`Content::of_value`].
    ///
    /// # Errors
    /// [`CallError::Failed`] if the value has no JSON form.
    pub fn structured<T: Serialize>(value: &T) -> Result<Self, CallError> {
        let value = serde_json::to_value(value).map_err(|error| CallError::Failed(error.to_string()))?;
        let content = vec![Content::text(value.to_string())];
        Ok(ToolOutput { content, structured: Some(value), ..ToolOutput::default() })
    }
}

impl ToolOutput {
    /// What a client of the Elixir deployment gets in the place of the content, where that is no more than the JSON text of the
    /// structured value.
    pub(crate) fn content_for_elixir(&self) -> Option<Content> {
        let value = self.structured.as_ref()?;
        let is_its_text = self.content == [Content::text(value.to_string())];
        is_its_text.then(|| Content::of_value(value))
    }
}

impl From<()> for ToolOutput {
    fn from((): ()) -> Self {
        ToolOutput::default()
    }
}

impl From<String> for ToolOutput {
    fn from(text: String) -> Self {
        Content::text(text).into()
    }
}

impl From<&str> for ToolOutput {
    fn from(text: &str) -> Self {
        Content::text(text).into()
    }
}

impl From<Value> for ToolOutput {
    fn from(value: Value) -> Self {
        Content::of_value(&value).into()
    }
}

impl From<Content> for ToolOutput {
    fn from(content: Content) -> Self {
        vec![content].into()
    }
}

impl From<Vec<Content>> for ToolOutput {
    fn from(content: Vec<Content>) -> Self {
        ToolOutput { content, ..ToolOutput::default() }
    }
}
