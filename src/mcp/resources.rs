//! What a client can read: resources at fixed URIs, and templates of URIs.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::completion::{Completer, CompletionRequest};
use super::tools::typed_read;
use super::{CallContext, CallError};
use crate::protocol::mcp::content::{Annotations, Icon, ResourceContents, ResourceLink};
use crate::protocol::mcp::uri_template::UriTemplate;

/// What reading gave, before it knows its URI. Texts, bytes and whole contents turn into it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ResourceOutput {
    /// Text at the URI that was read.
    Text(String),
    /// Bytes at the URI that was read.
    Bytes(Vec<u8>),
    /// Contents with URIs of their own.
    Contents(Vec<ResourceContents>),
}

impl ResourceOutput {
    pub(crate) fn into_contents(self, uri: &str, mime_type: Option<&str>) -> Vec<ResourceContents> {
        let typed = |contents: ResourceContents| match mime_type {
            Some(mime) => contents.mime_type(mime),
            None => contents,
        };
        match self {
            ResourceOutput::Text(text) => vec![typed(ResourceContents::text(uri, text))],
            ResourceOutput::Bytes(bytes) => vec![typed(ResourceContents::blob(uri, bytes))],
            ResourceOutput::Contents(contents) => contents,
        }
    }
}

impl From<String> for ResourceOutput {
    fn from(text: String) -> Self {
        ResourceOutput::Text(text)
    }
}

impl From<&str> for ResourceOutput {
    fn from(text: &str) -> Self {
        ResourceOutput::Text(text.to_owned())
    }
}

impl From<Vec<u8>> for ResourceOutput {
    fn from(bytes: Vec<u8>) -> Self {
        ResourceOutput::Bytes(bytes)
    }
}

impl From<ResourceContents> for ResourceOutput {
    fn from(contents: ResourceContents) -> Self {
        ResourceOutput::Contents(vec![contents])
    }
}

impl From<Vec<ResourceContents>> for ResourceOutput {
    fn from(contents: Vec<ResourceContents>) -> Self {
        ResourceOutput::Contents(contents)
    }
}

/// What a list says of a resource or a template, but for its URI.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Facts {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mime_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<Annotations>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    icons: Vec<Icon>,
    #[serde(rename = "_meta", skip_serializing_if = "Map::is_empty")]
    meta: Map<String, Value>,
}

impl Facts {
    fn listed(&self, key: &str, uri: &str) -> Value {
        let mut listed = serde_json::to_value(self).expect("facts have string keys");
        listed[key] = uri.into();
        listed
    }
}

type Reading = BoxFuture<'static, Result<ResourceOutput, CallError>>;

/// Something at a fixed URI.
///
/// ```
/// use bennu::mcp::{CallContext, Resource};
///
/// let motd = Resource::new("bennu://motd", "motd", |_: CallContext| async { Ok("Rise.") })
///     .description("The message of the day.")
///     .mime_type("text/plain");
/// ```
pub struct Resource {
    pub(crate) uri: String,
    facts: Facts,
    read: Arc<dyn Fn(CallContext) -> Reading + Send + Sync>,
}

impl Resource {
    /// A resource that `read` gives.
    pub fn new<O, F, Fut>(uri: impl Into<String>, name: impl Into<String>, read: F) -> Self
    where
        O: Into<ResourceOutput>,
        F: Fn(CallContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, CallError>> + Send + 'static,
    {
        let read = move |context| read(context).map(|read| read.map(Into::into)).boxed();
        let facts = Facts { name: name.into(), ..Facts::default() };
        Resource { uri: uri.into(), facts, read: Arc::new(read) }
    }

    /// Sets the bytes that reading gives, where they are known.
    pub fn size(mut self, bytes: u64) -> Self {
        self.facts.size = Some(bytes);
        self
    }

    pub(crate) fn listed(&self) -> Value {
        self.facts.listed("uri", &self.uri)
    }

    pub(crate) fn mime(&self) -> Option<&str> {
        self.facts.mime_type.as_deref()
    }

    pub(crate) fn read(&self, context: CallContext) -> Reading {
        (self.read)(context)
    }
}

/// Things at URIs of one form.
///
/// ```
/// use bennu::mcp::{CallContext, CallError, ResourceTemplate};
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct Square {
///     n: u64,
/// }
///
/// let squares = ResourceTemplate::new("math://square/{n}", "square", |square: Square, _: CallContext| async move {
///     let n = square.n;
///     n.checked_mul(n).map(|square| square.to_string()).ok_or(CallError::NotFound)
/// });
/// ```
pub struct ResourceTemplate {
    pub(crate) uri_template: String,
    template: Result<UriTemplate, String>,
    facts: Facts,
    read: Arc<dyn Fn(BTreeMap<String, String>, CallContext) -> Reading + Send + Sync>,
    list: Option<Arc<dyn Fn(CallContext) -> Listing + Send + Sync>>,
    /// Whether what it lists changes with the tools.
    pub(crate) follows_tools: bool,
    completers: BTreeMap<String, Completer>,
}

type Listing = BoxFuture<'static, Result<Vec<ResourceLink>, CallError>>;

impl ResourceTemplate {
    /// A template whose resources `read` gives. `V` is read from the variables, which are texts: numbers and truth values
    /// may be taken for what they say. A URI whose variables are no `V` is not found.
    pub fn new<V, O, F, Fut>(uri_template: impl Into<String>, name: impl Into<String>, read: F) -> Self
    where
        V: DeserializeOwned + Send + 'static,
        O: Into<ResourceOutput>,
        F: Fn(V, CallContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, CallError>> + Send + 'static,
    {
        let uri_template = uri_template.into();
        let read = move |variables: BTreeMap<String, String>, context: CallContext| -> Reading {
            match from_texts::<V>(&variables) {
                Some(variables) => read(variables, context).map(|read| read.map(Into::into)).boxed(),
                None => std::future::ready(Err(CallError::NotFound)).boxed(),
            }
        };
        ResourceTemplate {
            template: UriTemplate::parse(&uri_template).map_err(|error| error.to_string()),
            uri_template,
            facts: Facts { name: name.into(), ..Facts::default() },
            read: Arc::new(read),
            list: None,
            follows_tools: false,
            completers: BTreeMap::new(),
        }
    }

    /// Lists the resources that there are by this template, for whoever asks: `resources/list` has them in the place that the
    /// template has among the server's resources. They are looked up for each page, so `list` keeps their order from one to
    /// the next. The server is to be told of changes by
    /// [`McpServer::resources_changed`](super::McpServer::resources_changed).
    pub fn list<F, Fut>(mut self, list: F) -> Self
    where
        F: Fn(CallContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<ResourceLink>, CallError>> + Send + 'static,
    {
        self.list = Some(Arc::new(move |context| list(context).boxed()));
        self
    }

    pub(crate) fn follow_tools(mut self) -> Self {
        self.follows_tools = true;
        self
    }

    /// Whether it lists resources.
    pub(crate) fn is_listing(&self) -> bool {
        self.list.is_some()
    }

    /// Its resources, where it lists any.
    pub(crate) fn resources(&self, context: CallContext) -> Listing {
        match &self.list {
            Some(list) => list(context),
            None => std::future::ready(Ok(Vec::new())).boxed(),
        }
    }

    /// Completes a variable: `complete` gives values that begin as far as the client has typed, the best first.
    pub fn complete<F, Fut>(mut self, variable: &str, complete: F) -> Self
    where
        F: Fn(CompletionRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<String>, CallError>> + Send + 'static,
    {
        self.completers.insert(variable.to_owned(), Completer::new(complete));
        self
    }

    pub(crate) fn fault(&self) -> Option<&str> {
        self.template.as_ref().err().map(String::as_str)
    }

    pub(crate) fn listed(&self) -> Value {
        self.facts.listed("uriTemplate", &self.uri_template)
    }

    pub(crate) fn mime(&self) -> Option<&str> {
        self.facts.mime_type.as_deref()
    }

    pub(crate) fn match_uri(&self, uri: &str) -> Option<BTreeMap<String, String>> {
        self.template.as_ref().ok()?.matches(uri)
    }

    pub(crate) fn read(&self, variables: BTreeMap<String, String>, context: CallContext) -> Reading {
        (self.read)(variables, context)
    }

    pub(crate) fn completer(&self, variable: &str) -> Option<&Completer> {
        self.completers.get(variable)
    }
}

macro_rules! facts {
    ($($kind:ident),*) => {$(
        impl $kind {
            /// Sets the name that a person sees.
            pub fn title(mut self, text: impl Into<String>) -> Self {
                self.facts.title = Some(text.into());
                self
            }

            /// Sets the text for a person or a model.
            pub fn description(mut self, text: impl Into<String>) -> Self {
                self.facts.description = Some(text.into());
                self
            }

            /// Sets the MIME type of what reading gives.
            pub fn mime_type(mut self, mime: impl Into<String>) -> Self {
                self.facts.mime_type = Some(mime.into());
                self
            }

            /// Sets whom it is for, and how much it matters.
            pub fn annotations(mut self, annotations: Annotations) -> Self {
                self.facts.annotations = Some(annotations);
                self
            }

            /// Adds a picture.
            pub fn icon(mut self, icon: Icon) -> Self {
                self.facts.icons.push(icon);
                self
            }

            /// Adds a further fact, for `_meta`.
            pub fn meta(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
                self.facts.meta.insert(name.into(), value.into());
                self
            }
        }
    )*};
}

facts!(Resource, ResourceTemplate);

/// Reads texts as a type: as they are, or else with those that spell numbers and truth values taken for these.
pub(crate) fn from_texts<V: DeserializeOwned>(texts: &BTreeMap<String, String>) -> Option<V> {
    let as_text = texts.iter().map(|(name, text)| (name.clone(), Value::from(text.as_str()))).collect();
    if let Ok(read) = typed_read(as_text) {
        return Some(read);
    }
    let spelt = |text: &str| match serde_json::from_str(text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
        _ => Value::from(text),
    };
    typed_read(texts.iter().map(|(name, text)| (name.clone(), spelt(text))).collect()).ok()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Mixed {
        name: String,
        n: u8,
        on: Option<bool>,
    }

    #[test]
    fn variables_are_read_as_what_they_spell_where_a_text_does_not_do() {
        let texts = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();

        let read: Option<Mixed> = from_texts(&texts(&[("name", "x"), ("n", "7"), ("on", "true")]));
        assert_eq!(read, Some(Mixed { name: "x".into(), n: 7, on: Some(true) }));
        assert_eq!(from_texts::<Mixed>(&texts(&[("name", "x"), ("n", "300")])), None);
        let all: Option<BTreeMap<String, String>> = from_texts(&texts(&[("n", "007")]));
        assert_eq!(all.expect("texts")["n"], "007");
    }
}
