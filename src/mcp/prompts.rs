//! What a client can fill in: prompts with arguments.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::completion::{Completer, CompletionRequest};
use super::resources::from_texts;
use super::tools::schema_of;
use super::{CallContext, CallError};
use crate::protocol::mcp::content::{Icon, PromptMessage};

/// A prompt that has been filled in. Messages and texts (of the user) turn into it.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PromptOutput {
    /// What it is about, if not what the prompt says of itself.
    pub description: Option<String>,
    /// The conversation to begin with.
    pub messages: Vec<PromptMessage>,
}

impl From<Vec<PromptMessage>> for PromptOutput {
    fn from(messages: Vec<PromptMessage>) -> Self {
        PromptOutput { description: None, messages }
    }
}

impl From<PromptMessage> for PromptOutput {
    fn from(message: PromptMessage) -> Self {
        vec![message].into()
    }
}

impl From<String> for PromptOutput {
    fn from(text: String) -> Self {
        PromptMessage::user(text).into()
    }
}

impl From<&str> for PromptOutput {
    fn from(text: &str) -> Self {
        PromptMessage::user(text).into()
    }
}

/// One argument, as `prompts/list` tells it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct PromptArgument {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    pub(crate) required: bool,
}

type Filling = BoxFuture<'static, Result<PromptOutput, CallError>>;

/// A prompt that clients can fill in.
///
/// ```
/// use bennu::mcp::{CallContext, Prompt};
/// use schemars::JsonSchema;
/// use serde::Deserialize;
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Review {
///     /// The code to look at.
///     code: String,
///     language: Option<String>,
/// }
///
/// let review = Prompt::new("review", |review: Review, _: CallContext| async move {
///     let language = review.language.as_deref().unwrap_or("unknown");
///     Ok(format!("Review this {language} code:\n{}", review.code))
/// })
/// .description("Asks for a code review.");
/// ```
pub struct Prompt {
    pub(crate) name: String,
    title: Option<String>,
    pub(crate) description: Option<String>,
    icons: Vec<Icon>,
    meta: Map<String, Value>,
    pub(crate) arguments: Vec<PromptArgument>,
    fill: Arc<dyn Fn(BTreeMap<String, String>, CallContext) -> Filling + Send + Sync>,
    completers: BTreeMap<String, Completer>,
}

impl Prompt {
    /// A prompt that `fill` fills in. Its arguments are the fields of `A`: their descriptions are the fields' doc comments,
    /// and those that are no `Option` have to be given. Clients send texts; numbers and truth values are taken for what they
    /// say.
    pub fn new<A, O, F, Fut>(name: impl Into<String>, fill: F) -> Self
    where
        A: DeserializeOwned + JsonSchema + Send + 'static,
        O: Into<PromptOutput>,
        F: Fn(A, CallContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, CallError>> + Send + 'static,
    {
        let fill = move |arguments: BTreeMap<String, String>, context: CallContext| -> Filling {
            match from_texts::<A>(&arguments) {
                Some(arguments) => fill(arguments, context).map(|filled| filled.map(Into::into)).boxed(),
                None => {
                    let why = CallError::InvalidArguments("an argument is not what its prompt takes".to_owned());
                    std::future::ready(Err(why)).boxed()
                }
            }
        };
        Prompt {
            name: name.into(),
            title: None,
            description: None,
            icons: Vec::new(),
            meta: Map::new(),
            arguments: arguments_of(&schema_of::<A>()),
            fill: Arc::new(fill),
            completers: BTreeMap::new(),
        }
    }

    /// Sets the name that a person sees.
    pub fn title(mut self, text: impl Into<String>) -> Self {
        self.title = Some(text.into());
        self
    }

    /// Sets the text for a person or a model.
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into());
        self
    }

    /// Adds a picture.
    pub fn icon(mut self, icon: Icon) -> Self {
        self.icons.push(icon);
        self
    }

    /// Adds a further fact, for `_meta`.
    pub fn meta(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.meta.insert(name.into(), value.into());
        self
    }

    /// Completes an argument: `complete` gives values that begin as far as the client has typed, the best first.
    pub fn complete<F, Fut>(mut self, argument: &str, complete: F) -> Self
    where
        F: Fn(CompletionRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<String>, CallError>> + Send + 'static,
    {
        self.completers.insert(argument.to_owned(), Completer::new(complete));
        self
    }

    pub(crate) fn listed(&self) -> Value {
        #[derive(Serialize)]
        struct Listed<'a> {
            name: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            title: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            description: Option<&'a str>,
            arguments: &'a [PromptArgument],
            #[serde(skip_serializing_if = "<[Icon]>::is_empty")]
            icons: &'a [Icon],
            #[serde(rename = "_meta", skip_serializing_if = "Map::is_empty")]
            meta: &'a Map<String, Value>,
        }

        let listed = Listed {
            name: &self.name,
            title: self.title.as_deref(),
            description: self.description.as_deref(),
            arguments: &self.arguments,
            icons: &self.icons,
            meta: &self.meta,
        };
        serde_json::to_value(listed).expect("a listing has string keys")
    }

    pub(crate) fn fill(&self, arguments: BTreeMap<String, String>, context: CallContext) -> Filling {
        (self.fill)(arguments, context)
    }

    pub(crate) fn completer(&self, argument: &str) -> Option<&Completer> {
        self.completers.get(argument)
    }
}

/// The arguments that a schema's properties stand for, in the order of their names.
fn arguments_of(schema: &Value) -> Vec<PromptArgument> {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let text = |property: &Value, key: &str| property[key].as_str().map(ToOwned::to_owned);
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties
        .map(|(name, property)| PromptArgument {
            name: name.clone(),
            title: text(property, "title"),
            description: text(property, "description"),
            required: required.iter().any(|required| required == name),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "only its schema counts")]
    struct Arguments {
        /// What to look at.
        code: String,
        goal: Option<String>,
    }

    #[test]
    fn arguments_are_the_fields_of_a_type() {
        let prompt = Prompt::new("p", |_: Arguments, _| async { Ok("") }).description("d");

        assert_eq!(
            prompt.listed(),
            serde_json::json!({"name": "p", "description": "d", "arguments": [
                {"name": "code", "description": "What to look at.", "required": true},
                {"name": "goal", "required": false},
            ]})
        );
    }
}
