//! What tools, prompts, resources and sampling put into their results: typed pieces that serialize to the schema's shapes.
//!
//! The types build what goes out. Nothing here reads content, and no size is bounded: who sends a result bounds it whole.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

/// One piece of a result: text, an image, sound, a resource or a link to one.
///
/// Source: `ContentBlock` of the MCP schema. Clients of 2024-11-05 know no audio, those before 2025-06-18 no links.
#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    block: Block,
    annotations: Option<Annotations>,
    meta: Option<Map<String, Value>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Block {
    Text { text: String, mime_type: Option<Cow<'static, str>> },
    Image { data: String, mime_type: Cow<'static, str> },
    Audio { data: String, mime_type: Cow<'static, str> },
    Link(ResourceLink),
    Resource(ResourceContents),
    Raw(Map<String, Value>),
}

impl Content {
    /// Plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Content::of(Block::Text { text: text.into(), mime_type: None })
    }

    /// A map or a list: pretty JSON, said so by its MIME type.
    pub fn json(value: &Value) -> Self {
        let text = serde_json::to_string_pretty(value).expect("a JSON value always serializes");
        Content::of(Block::Text { text, mime_type: Some("application/json".into()) })
    }

    /// A value by the content rule of the Elixir deployment: a string is plain text; `{"output": …, "format": "json"}` is the
    /// output as pretty JSON, said so by its MIME type; `{"output": "…", "format": "markdown"}` is Markdown; `{"output": "…"}`
    /// is plain text; another map or a list is pretty JSON; what else there is is its JSON as plain text.
    pub fn of_value(value: &Value) -> Self {
        let format = value.get("format").and_then(Value::as_str);
        match (value, value.get("output"), format) {
            (Value::String(text), _, _) => Content::text(text.as_str()),
            (Value::Object(_), Some(output), Some("json")) => Content::json(output),
            (Value::Object(_), Some(Value::String(output)), Some("markdown")) => {
                Content::text(output.as_str()).mime_type("text/markdown")
            }
            (Value::Object(_), Some(Value::String(output)), _) => Content::text(output.as_str()),
            (Value::Object(_) | Value::Array(_), _, _) => Content::json(value),
            (other, _, _) => Content::text(other.to_string()),
        }
    }

    /// An image, such as `image/png`.
    pub fn image(bytes: impl AsRef<[u8]>, mime_type: impl Into<Cow<'static, str>>) -> Self {
        Content::of(Block::Image { data: STANDARD.encode(bytes), mime_type: mime_type.into() })
    }

    /// Sound, such as `audio/wav`.
    pub fn audio(bytes: impl AsRef<[u8]>, mime_type: impl Into<Cow<'static, str>>) -> Self {
        Content::of(Block::Audio { data: STANDARD.encode(bytes), mime_type: mime_type.into() })
    }

    /// A resource that the client may read, by its URI alone.
    pub fn resource_link(link: ResourceLink) -> Self {
        Content::of(Block::Link(link))
    }

    /// A resource with what it holds.
    pub fn resource(contents: ResourceContents) -> Self {
        Content::of(Block::Resource(contents))
    }

    /// A block that this module has no constructor for, sent as it is.
    ///
    /// Only an object is a block; any other value becomes the text that [`Content::json`] makes of it.
    pub fn raw(value: Value) -> Self {
        match value {
            Value::Object(fields) => Content::of(Block::Raw(fields)),
            other => Content::json(&other),
        }
    }

    /// Sets the MIME type of what it holds. A raw block gets the key `mimeType`.
    ///
    /// The schema has none on text; the Elixir deployment sends it, and clients ignore keys they don't know.
    pub fn mime_type(mut self, mime: impl Into<Cow<'static, str>>) -> Self {
        let mime = mime.into();
        match &mut self.block {
            Block::Text { mime_type, .. } => *mime_type = Some(mime),
            Block::Image { mime_type, .. } | Block::Audio { mime_type, .. } => *mime_type = mime,
            Block::Link(link) => link.mime_type = Some(mime.into_owned()),
            Block::Resource(contents) => contents.mime_type = Some(mime.into_owned()),
            Block::Raw(fields) => {
                fields.insert("mimeType".to_owned(), Value::String(mime.into_owned()));
            }
        }
        self
    }

    /// Says for whom it is and how much it matters.
    pub fn annotations(mut self, annotations: Annotations) -> Self {
        self.annotations = Some(annotations);
        self
    }

    /// Sets `_meta`.
    pub fn meta(mut self, meta: Map<String, Value>) -> Self {
        self.meta = Some(meta);
        self
    }

    fn of(block: Block) -> Self {
        Content { block, annotations: None, meta: None }
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Content::text(text)
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Content::text(text)
    }
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match &self.block {
            Block::Text { text, mime_type } => {
                map.serialize_entry("type", "text")?;
                map.serialize_entry("text", text)?;
                if let Some(mime) = mime_type {
                    map.serialize_entry("mimeType", mime)?;
                }
            }
            Block::Image { data, mime_type } => {
                map.serialize_entry("type", "image")?;
                map.serialize_entry("data", data)?;
                map.serialize_entry("mimeType", mime_type)?;
            }
            Block::Audio { data, mime_type } => {
                map.serialize_entry("type", "audio")?;
                map.serialize_entry("data", data)?;
                map.serialize_entry("mimeType", mime_type)?;
            }
            Block::Link(link) => {
                map.serialize_entry("type", "resource_link")?;
                link.serialize_fields(&mut map)?;
            }
            Block::Resource(contents) => {
                map.serialize_entry("type", "resource")?;
                map.serialize_entry("resource", contents)?;
            }
            Block::Raw(fields) => {
                // A key set on the builder stands for the one in the block: no key comes twice.
                let set = |key: &str| match key {
                    "annotations" => self.annotations.is_some(),
                    "_meta" => self.meta.is_some(),
                    _ => false,
                };
                for (key, value) in fields.iter().filter(|(key, _)| !set(key)) {
                    map.serialize_entry(key, value)?;
                }
            }
        }
        if let Some(annotations) = &self.annotations {
            map.serialize_entry("annotations", annotations)?;
        }
        if let Some(meta) = &self.meta {
            map.serialize_entry("_meta", meta)?;
        }
        map.end()
    }
}

/// A resource by its URI, for a client to read or to show.
///
/// Source: `ResourceLink` of the MCP schema.
#[derive(Clone, Debug, PartialEq)]
pub struct ResourceLink {
    uri: String,
    name: String,
    title: Option<String>,
    description: Option<String>,
    mime_type: Option<String>,
    size: Option<u64>,
    icons: Vec<Icon>,
}

impl ResourceLink {
    /// A link; `name` is for programs, and for people where there is no title.
    pub fn new(uri: impl Into<String>, name: impl Into<String>) -> Self {
        ResourceLink {
            uri: uri.into(),
            name: name.into(),
            title: None,
            description: None,
            mime_type: None,
            size: None,
            icons: Vec::new(),
        }
    }

    /// Where it is.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Sets the name for people.
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// Sets what a model reads to understand what the resource is.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Sets the MIME type of the resource.
    pub fn mime_type(mut self, mime: impl Into<String>) -> Self {
        self.mime_type = Some(mime.into());
        self
    }

    /// Sets the size of the resource in bytes, before any encoding.
    pub fn size(mut self, bytes: u64) -> Self {
        self.size = Some(bytes);
        self
    }

    /// Adds an icon.
    pub fn icon(mut self, icon: Icon) -> Self {
        self.icons.push(icon);
        self
    }

    fn serialize_fields<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("uri", &self.uri)?;
        map.serialize_entry("name", &self.name)?;
        if let Some(title) = &self.title {
            map.serialize_entry("title", title)?;
        }
        if let Some(description) = &self.description {
            map.serialize_entry("description", description)?;
        }
        if let Some(mime) = &self.mime_type {
            map.serialize_entry("mimeType", mime)?;
        }
        if let Some(bytes) = self.size {
            map.serialize_entry("size", &bytes)?;
        }
        if !self.icons.is_empty() {
            map.serialize_entry("icons", &self.icons)?;
        }
        Ok(())
    }
}

/// As a list of resources has it.
impl Serialize for ResourceLink {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.serialize_fields(&mut map)?;
        map.end()
    }
}

/// What a resource holds: one entry of a `resources/read`, or embedded in [`Content::resource`].
///
/// Source: `TextResourceContents` and `BlobResourceContents` of the MCP schema.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceContents {
    uri: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mime_type: Option<String>,
    #[serde(flatten)]
    body: Body,
    #[serde(rename = "_meta", skip_serializing_if = "Option::is_none")]
    meta: Option<Map<String, Value>>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Body {
    Text(String),
    Blob(String),
}

impl ResourceContents {
    /// A resource that is text.
    pub fn text(uri: impl Into<String>, text: impl Into<String>) -> Self {
        ResourceContents { uri: uri.into(), mime_type: None, body: Body::Text(text.into()), meta: None }
    }

    /// A resource of bytes.
    pub fn blob(uri: impl Into<String>, bytes: impl AsRef<[u8]>) -> Self {
        ResourceContents { uri: uri.into(), mime_type: None, body: Body::Blob(STANDARD.encode(bytes)), meta: None }
    }

    /// Sets the MIME type.
    pub fn mime_type(mut self, mime: impl Into<String>) -> Self {
        self.mime_type = Some(mime.into());
        self
    }

    /// Sets `_meta`.
    pub fn meta(mut self, meta: Map<String, Value>) -> Self {
        self.meta = Some(meta);
        self
    }

    /// The URI that it was read from.
    pub fn uri(&self) -> &str {
        &self.uri
    }
}

/// One message of a prompt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PromptMessage {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: Content,
}

impl PromptMessage {
    /// A message of the user.
    pub fn user(content: impl Into<Content>) -> Self {
        PromptMessage { role: Role::User, content: content.into() }
    }

    /// A message of the model.
    pub fn assistant(content: impl Into<Content>) -> Self {
        PromptMessage { role: Role::Assistant, content: content.into() }
    }
}

/// Who says a message, or whom content is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The person.
    User,
    /// The model.
    Assistant,
}

/// For whom content is, how much it matters, how fresh it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Annotations {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    audience: Vec<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_modified: Option<String>,
}

impl Annotations {
    /// Annotations that say nothing yet.
    pub fn new() -> Self {
        Annotations::default()
    }

    /// Says for whom the content is.
    pub fn audience(mut self, audience: &[Role]) -> Self {
        self.audience = audience.to_vec();
        self
    }

    /// Says how much it matters, from 0, which may be left out, to 1, without which the rest is of no use.
    ///
    /// Numbers beyond are drawn to the nearest end; what is no number says nothing.
    pub fn priority(mut self, priority: f64) -> Self {
        self.priority = (!priority.is_nan()).then(|| priority.clamp(0.0, 1.0));
        self
    }

    /// Says when it last changed, in ISO 8601.
    pub fn last_modified(mut self, time: impl Into<String>) -> Self {
        self.last_modified = Some(time.into());
        self
    }
}

/// A picture that stands for a tool, a prompt, a resource or the server.
///
/// Source: `Icon` of the MCP schema, from 2025-11-25 on.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Icon {
    src: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mime_type: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sizes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    theme: Option<Theme>,
}

/// Which background an icon is drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Theme {
    /// A light background.
    Light,
    /// A dark background.
    Dark,
}

impl Icon {
    /// An icon at an `https:` or `data:` URI.
    pub fn new(src: impl Into<String>) -> Self {
        Icon { src: src.into(), mime_type: None, sizes: Vec::new(), theme: None }
    }

    /// Sets the MIME type.
    pub fn mime_type(mut self, mime: impl Into<String>) -> Self {
        self.mime_type = Some(mime.into());
        self
    }

    /// Adds a size that it may be drawn at: `48x48`, or `any` where it scales.
    pub fn size(mut self, size: impl Into<String>) -> Self {
        self.sizes.push(size.into());
        self
    }

    /// Sets the background that it is drawn for.
    pub fn theme(mut self, theme: Theme) -> Self {
        self.theme = Some(theme);
        self
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(content: Content, expected: Value) {
        let text = serde_json::to_string(&content).expect("serializes");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), expected, "{text}");
    }

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("an object")
    }

    #[test]
    fn text_is_the_bare_shape_until_it_is_told_more() {
        check(Content::text("hi"), json!({"type": "text", "text": "hi"}));
        check(Content::from("hi"), json!({"type": "text", "text": "hi"}));
        check(
            Content::text("# hi").mime_type("text/markdown").meta(object(json!({"a": 1}))),
            json!({"type": "text", "text": "# hi", "mimeType": "text/markdown", "_meta": {"a": 1}}),
        );
    }

    #[test]
    fn json_is_pretty_text_with_its_mime_type() {
        check(
            Content::json(&json!({"a": 1})),
            json!({"type": "text", "text": "{\n  \"a\": 1\n}", "mimeType": "application/json"}),
        );
    }

    #[test]
    fn a_value_becomes_content_by_the_rule_of_the_deployment() {
        let text = |text: &str| json!({"type": "text", "text": text});
        let typed = |text: &str, mime: &str| json!({"type": "text", "text": text, "mimeType": mime});
        let cases = [
            (json!("plain"), text("plain")),
            (json!({"output": {"a": 1}, "format": "json"}), typed("{\n  \"a\": 1\n}", "application/json")),
            (json!({"output": "a", "format": "json"}), typed("\"a\"", "application/json")),
            (json!({"output": "# a", "format": "markdown"}), typed("# a", "text/markdown")),
            (json!({"output": "a", "format": "text"}), text("a")),
            (json!({"output": "a", "more": 1}), text("a")),
            (
                json!({"output": [1], "format": "markdown"}),
                typed("{\n  \"format\": \"markdown\",\n  \"output\": [\n    1\n  ]\n}", "application/json"),
            ),
            (json!({"a": 1}), typed("{\n  \"a\": 1\n}", "application/json")),
            (json!([]), typed("[]", "application/json")),
            (json!(1.5), text("1.5")),
            (json!(null), text("null")),
        ];

        for (value, expected) in cases {
            check(Content::of_value(&value), expected);
        }
    }

    #[test]
    fn bytes_are_standard_base64_with_padding() {
        check(
            Content::image([0xfb, 0xff], "image/png"),
            json!({"type": "image", "data": "+/8=", "mimeType": "image/png"}),
        );
        check(Content::audio(b"", "audio/wav"), json!({"type": "audio", "data": "", "mimeType": "audio/wav"}));
    }

    #[test]
    fn annotations_come_beside_the_block() {
        let annotations = Annotations::new()
            .audience(&[Role::User, Role::Assistant])
            .priority(0.5)
            .last_modified("2026-01-01T00:00:00Z");

        check(
            Content::text("hi").annotations(annotations),
            json!({"type": "text", "text": "hi", "annotations": {
                "audience": ["user", "assistant"], "priority": 0.5, "lastModified": "2026-01-01T00:00:00Z"
            }}),
        );
    }

    #[test]
    fn a_priority_stays_between_0_and_1() {
        let priority = |value: f64| serde_json::to_value(Annotations::new().priority(value)).expect("serializes");

        assert_eq!(priority(7.0), json!({"priority": 1.0}));
        assert_eq!(priority(-1.0), json!({"priority": 0.0}));
        assert_eq!(priority(f64::NAN), json!({}));
    }

    #[test]
    fn a_link_carries_what_is_known_of_the_resource() {
        check(
            Content::resource_link(ResourceLink::new("file:///a", "a")),
            json!({"type": "resource_link", "uri": "file:///a", "name": "a"}),
        );
        let icon = Icon::new("https://a/i.png").mime_type("image/png").size("48x48").theme(Theme::Dark);
        let link = ResourceLink::new("file:///a", "a").title("A").description("d").mime_type("text/plain").size(3);
        check(
            Content::resource_link(link.icon(icon)),
            json!({
                "type": "resource_link", "uri": "file:///a", "name": "a", "title": "A", "description": "d",
                "mimeType": "text/plain", "size": 3,
                "icons": [{"src": "https://a/i.png", "mimeType": "image/png", "sizes": ["48x48"], "theme": "dark"}]
            }),
        );
    }

    #[test]
    fn an_embedded_resource_holds_text_or_bytes() {
        check(
            Content::resource(ResourceContents::text("test://a", "hi").mime_type("text/plain")),
            json!({"type": "resource", "resource": {"uri": "test://a", "mimeType": "text/plain", "text": "hi"}}),
        );
        check(
            Content::resource(ResourceContents::blob("test://a", b"hi").meta(object(json!({"a": 1})))),
            json!({"type": "resource", "resource": {"uri": "test://a", "blob": "aGk=", "_meta": {"a": 1}}}),
        );
        check(
            Content::resource(ResourceContents::blob("test://a", b"hi")).mime_type("image/png"),
            json!({"type": "resource", "resource": {"uri": "test://a", "mimeType": "image/png", "blob": "aGk="}}),
        );
    }

    #[test]
    fn a_raw_block_is_sent_as_it_is_and_never_with_a_key_twice() {
        let raw = json!({"type": "x", "a": [1], "_meta": {"old": 1}});

        check(Content::raw(raw.clone()), raw.clone());
        let content = Content::raw(raw).meta(object(json!({"new": 1}))).annotations(Annotations::new());
        let text = serde_json::to_string(&content).expect("serializes");
        assert_eq!(text, r#"{"a":[1],"type":"x","annotations":{},"_meta":{"new":1}}"#);
    }

    #[test]
    fn what_is_no_object_is_no_raw_block_but_json_text() {
        assert_eq!(Content::raw(json!([1])), Content::json(&json!([1])));
    }

    #[test]
    fn a_prompt_message_says_who_speaks() {
        let messages = [PromptMessage::user("hi"), PromptMessage::assistant(Content::text("ho"))];

        assert_eq!(
            serde_json::to_value(messages).expect("serializes"),
            json!([
                {"role": "user", "content": {"type": "text", "text": "hi"}},
                {"role": "assistant", "content": {"type": "text", "text": "ho"}}
            ])
        );
    }
}
