//! What a server asks of the client's model: `sampling/createMessage`, its params and its result.
//!
//! Which revision and which capability allows what is not looked at here: tools and several blocks a message are from
//! 2025-11-25 on. Sampling is deprecated since 2026-07-28, which embeds the request in the result of a call.
//!
//! Source: `CreateMessageRequestParams` and `CreateMessageResult` of the MCP schema.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

use crate::protocol::jsonrpc;
use crate::protocol::mcp::content::{Content, Role};
use crate::protocol::mcp::event::number;

/// A request for a message of the model.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SamplingRequest {
    messages: Vec<SamplingMessage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_preferences: Option<ModelPreferences>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    include_context: Option<IncludeContext>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<Number>,
    max_tokens: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stop_sequences: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<ToolChoice>,
}

impl SamplingRequest {
    /// A request that continues these messages by at most `max_tokens` tokens.
    pub fn new(messages: impl IntoIterator<Item = SamplingMessage>, max_tokens: u64) -> Self {
        SamplingRequest {
            messages: messages.into_iter().collect(),
            model_preferences: None,
            system_prompt: None,
            include_context: None,
            temperature: None,
            max_tokens,
            stop_sequences: Vec::new(),
            metadata: None,
            tools: Vec::new(),
            tool_choice: None,
        }
    }

    /// Adds a message behind those that are there.
    pub fn message(mut self, message: SamplingMessage) -> Self {
        self.messages.push(message);
        self
    }

    /// Says which model would do.
    pub fn model_preferences(mut self, preferences: ModelPreferences) -> Self {
        self.model_preferences = Some(preferences);
        self
    }

    /// Sets the system prompt; the client may change it.
    pub fn system_prompt(mut self, prompt: impl Into<String>) -> Self {
        self.system_prompt = Some(prompt.into());
        self
    }

    /// Asks for context of servers. Deprecated by MCP for anything but [`IncludeContext::None`].
    pub fn include_context(mut self, context: IncludeContext) -> Self {
        self.include_context = Some(context);
        self
    }

    /// Sets the temperature, if it is finite.
    pub fn temperature(mut self, temperature: f64) -> Self {
        self.temperature = number(temperature);
        self
    }

    /// Adds a text at which the model stops.
    pub fn stop_sequence(mut self, text: impl Into<String>) -> Self {
        self.stop_sequences.push(text.into());
        self
    }

    /// Sets what is passed on to the model's provider.
    pub fn metadata(mut self, metadata: Map<String, Value>) -> Self {
        self.metadata = Some(metadata);
        self
    }

    /// Adds a tool that the model may use, in the shape of `tools/list`. Who asks runs it.
    pub fn tool(mut self, tool: Value) -> Self {
        self.tools.push(tool);
        self
    }

    /// Says whether the model has to use a tool.
    pub fn tool_choice(mut self, choice: ToolChoice) -> Self {
        self.tool_choice = Some(choice);
        self
    }

    /// The params of `sampling/createMessage`.
    pub fn to_params(&self) -> Box<RawValue> {
        jsonrpc::raw(self)
    }
}

/// One message of the conversation with the model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SamplingMessage {
    role: Role,
    #[serde(serialize_with = "one_or_many")]
    content: Vec<Content>,
}

impl SamplingMessage {
    /// A message of the user.
    pub fn user(content: impl Into<Content>) -> Self {
        SamplingMessage { role: Role::User, content: vec![content.into()] }
    }

    /// A message of the model.
    pub fn assistant(content: impl Into<Content>) -> Self {
        SamplingMessage { role: Role::Assistant, content: vec![content.into()] }
    }

    /// Adds a block behind those that are there. Source: 2025-11-25 and later.
    pub fn and(mut self, content: impl Into<Content>) -> Self {
        self.content.push(content.into());
        self
    }
}

/// One block is written bare, as every revision reads it; several are an array.
fn one_or_many<S: Serializer>(content: &[Content], serializer: S) -> Result<S::Ok, S::Error> {
    match content {
        [one] => one.serialize(serializer),
        many => many.serialize(serializer),
    }
}

/// The block that answers a [`Block::ToolUse`]: what the tool `id` of that block gave.
///
/// A message with such a block holds nothing else but more of them.
pub fn tool_result(tool_use_id: &str, content: &[Content], is_error: bool) -> Content {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct ToolResult<'a> {
        #[serde(rename = "type")]
        kind: &'static str,
        tool_use_id: &'a str,
        content: &'a [Content],
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
    }

    let result = ToolResult { kind: "tool_result", tool_use_id, content, is_error };
    Content::raw(serde_json::to_value(result).expect("content has string keys and a serializer that can't fail"))
}

/// Which model would do, by its name or by what matters.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelPreferences {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hints: Vec<Hint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_priority: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    speed_priority: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    intelligence_priority: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Hint {
    name: String,
}

/// Priorities go from 0 to 1; numbers beyond are drawn to the nearest end, and what is no number says nothing.
impl ModelPreferences {
    /// Preferences that say nothing yet.
    pub fn new() -> Self {
        ModelPreferences::default()
    }

    /// Adds a part of a model's name; those added first count more.
    pub fn hint(mut self, name: impl Into<String>) -> Self {
        self.hints.push(Hint { name: name.into() });
        self
    }

    /// Says how much the cost matters.
    pub fn cost(mut self, priority: f64) -> Self {
        self.cost_priority = between_0_and_1(priority);
        self
    }

    /// Says how much the speed matters.
    pub fn speed(mut self, priority: f64) -> Self {
        self.speed_priority = between_0_and_1(priority);
        self
    }

    /// Says how much the quality matters.
    pub fn intelligence(mut self, priority: f64) -> Self {
        self.intelligence_priority = between_0_and_1(priority);
        self
    }
}

fn between_0_and_1(priority: f64) -> Option<f64> {
    (!priority.is_nan()).then(|| priority.clamp(0.0, 1.0))
}

/// Whose context the client adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum IncludeContext {
    /// Nobody's.
    None,
    /// That of the server that asks.
    ThisServer,
    /// That of all servers of the client.
    AllServers,
}

/// Whether the model uses a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum ToolChoice {
    /// As it likes.
    Auto,
    /// At least one.
    Required,
    /// None.
    None,
}

/// What the model said.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingResult {
    /// Who says it; the model, as a rule.
    pub role: Role,
    /// The blocks, in their order; of a bare block, one.
    pub content: Vec<Block>,
    /// The model's name.
    pub model: String,
    /// Why it stopped, if known: `endTurn`, `stopSequence`, `maxTokens`, `toolUse`, or the provider's own word.
    pub stop_reason: Option<String>,
    raw: Vec<Value>,
}

/// One block of what the model said.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    /// Text.
    Text(String),
    /// An image.
    Image {
        /// Decoded.
        bytes: Vec<u8>,
        /// Such as `image/png`.
        mime_type: String,
    },
    /// Sound.
    Audio {
        /// Decoded.
        bytes: Vec<u8>,
        /// Such as `audio/wav`.
        mime_type: String,
    },
    /// The model wants a tool run; [`tool_result`] answers.
    ToolUse {
        /// To answer by.
        id: String,
        /// The tool.
        name: String,
        /// Its arguments.
        input: Map<String, Value>,
    },
    /// What a tool gave, as it came.
    ToolResult(Map<String, Value>),
}

/// Why a result is no `CreateMessageResult`: the client's fault. What the model said is not repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSampling {
    /// Any other JSON value.
    #[error("sampling result: expected an object")]
    NoObject,
    /// A field of the result that is absent or of another type.
    #[error("sampling result: {field}: expected {expected}")]
    Field {
        /// Which.
        field: &'static str,
        /// What the schema has there.
        expected: &'static str,
    },
    /// A block that is none.
    #[error("sampling result: content block {index}: expected {expected}")]
    Block {
        /// Which, counted from 0.
        index: usize,
        /// What the schema has there.
        expected: &'static str,
    },
}

impl SamplingResult {
    /// Reads a result. Fields that the schema does not have are ignored.
    ///
    /// # Errors
    /// [`BadSampling`] with the first place that does not fit.
    pub fn read(result: &RawValue) -> Result<Self, BadSampling> {
        let mut fields: Map<String, Value> = serde_json::from_str(result.get()).map_err(|_| BadSampling::NoObject)?;
        let field = |field, expected| BadSampling::Field { field, expected };
        let role = match fields.get("role").and_then(Value::as_str) {
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            _ => return Err(field("role", "user or assistant")),
        };
        let Some(Value::String(model)) = fields.remove("model") else {
            return Err(field("model", "a string"));
        };
        let stop_reason = match fields.remove("stopReason") {
            None | Some(Value::Null) => None,
            Some(Value::String(reason)) => Some(reason),
            Some(_) => return Err(field("stopReason", "a string")),
        };
        let raw = match fields.remove("content") {
            Some(Value::Array(blocks)) => blocks,
            Some(block @ Value::Object(_)) => vec![block],
            _ => return Err(field("content", "an object or an array of objects")),
        };
        let block = |(index, block)| read_block(block).map_err(|expected| BadSampling::Block { index, expected });
        let content = raw.iter().enumerate().map(block).collect::<Result<_, _>>()?;
        Ok(SamplingResult { role, content, model, stop_reason, raw })
    }

    /// What it says in text, the blocks of text after one another.
    pub fn text(&self) -> String {
        let text = |block: &Block| match block {
            Block::Text(text) => Some(text.clone()),
            _ => None,
        };
        self.content.iter().filter_map(text).collect()
    }

    /// The message to put into the next request, each block as it came: clients keep what they need in `_meta`.
    pub fn into_message(self) -> SamplingMessage {
        SamplingMessage { role: self.role, content: self.raw.into_iter().map(Content::raw).collect() }
    }
}

fn read_block(block: &Value) -> Result<Block, &'static str> {
    let fields = block.as_object().ok_or("an object")?;
    let string = |key: &str, expected| fields.get(key).and_then(Value::as_str).map(str::to_owned).ok_or(expected);
    let bytes = || {
        let data = fields.get("data").and_then(Value::as_str);
        data.and_then(|data| STANDARD.decode(data).ok()).ok_or("\"data\" to be base64")
    };
    match fields.get("type").and_then(Value::as_str) {
        Some("text") => Ok(Block::Text(string("text", "\"text\" to be a string")?)),
        Some("image") => {
            Ok(Block::Image { bytes: bytes()?, mime_type: string("mimeType", "\"mimeType\" to be a string")? })
        }
        Some("audio") => {
            Ok(Block::Audio { bytes: bytes()?, mime_type: string("mimeType", "\"mimeType\" to be a string")? })
        }
        Some("tool_use") => Ok(Block::ToolUse {
            id: string("id", "\"id\" to be a string")?,
            name: string("name", "\"name\" to be a string")?,
            input: fields.get("input").and_then(Value::as_object).ok_or("\"input\" to be an object")?.clone(),
        }),
        Some("tool_result") => Ok(Block::ToolResult(fields.clone())),
        _ => Err("\"type\" to be text, image, audio, tool_use or tool_result"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value(raw: &RawValue) -> Value {
        serde_json::from_str(raw.get()).expect("JSON")
    }

    fn read(result: Value) -> Result<SamplingResult, String> {
        SamplingResult::read(&jsonrpc::raw(&result)).map_err(|error| error.to_string())
    }

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("an object")
    }

    #[test]
    fn a_request_is_its_messages_and_its_bound_until_it_is_told_more() {
        let request = SamplingRequest::new([SamplingMessage::user("hi")], 100);

        assert_eq!(
            value(&request.to_params()),
            json!({"messages": [{"role": "user", "content": {"type": "text", "text": "hi"}}], "maxTokens": 100})
        );
    }

    #[test]
    fn a_request_with_everything_has_the_shape_of_the_schema() {
        let preferences = ModelPreferences::new().hint("big").hint("small").cost(2.0).speed(0.5).intelligence(f64::NAN);
        let request = SamplingRequest::new([], 9)
            .message(SamplingMessage::assistant("a").and(Content::text("b")))
            .model_preferences(preferences)
            .system_prompt("s")
            .include_context(IncludeContext::ThisServer)
            .temperature(0.5)
            .stop_sequence("x")
            .metadata(object(json!({"k": 1})))
            .tool(json!({"name": "t", "inputSchema": {"type": "object"}}))
            .tool_choice(ToolChoice::Required);

        assert_eq!(
            value(&request.to_params()),
            json!({
                "messages": [{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
                "modelPreferences": {
                    "hints": [{"name": "big"}, {"name": "small"}], "costPriority": 1.0, "speedPriority": 0.5
                },
                "systemPrompt": "s",
                "includeContext": "thisServer",
                "temperature": 0.5,
                "maxTokens": 9,
                "stopSequences": ["x"],
                "metadata": {"k": 1},
                "tools": [{"name": "t", "inputSchema": {"type": "object"}}],
                "toolChoice": {"mode": "required"}
            })
        );
    }

    #[test]
    fn a_result_has_one_block_or_several() {
        let one = read(json!({"role": "assistant", "content": {"type": "text", "text": "hi"}, "model": "m"}));
        let many = read(json!({
            "role": "assistant", "model": "m", "stopReason": "toolUse",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image", "data": "aGk=", "mimeType": "image/png"},
                {"type": "audio", "data": "aGk=", "mimeType": "audio/wav"},
                {"type": "tool_use", "id": "1", "name": "t", "input": {"x": 1}},
                {"type": "tool_result", "toolUseId": "1", "content": []},
                {"type": "text", "text": "b"}
            ]
        }))
        .expect("a result");

        let one = one.expect("a result");
        assert_eq!((one.content, one.model.as_str(), one.stop_reason), (vec![Block::Text("hi".into())], "m", None));
        assert_eq!(many.text(), "ab");
        assert_eq!(many.stop_reason.as_deref(), Some("toolUse"));
        assert_eq!(many.content[1], Block::Image { bytes: b"hi".to_vec(), mime_type: "image/png".into() });
        assert_eq!(many.content[2], Block::Audio { bytes: b"hi".to_vec(), mime_type: "audio/wav".into() });
        let input = object(json!({"x": 1}));
        assert_eq!(many.content[3], Block::ToolUse { id: "1".into(), name: "t".into(), input });
    }

    #[test]
    fn what_is_no_result_is_refused_with_its_place() {
        let block = |block: Value| json!({"role": "assistant", "model": "m", "content": [block]});
        let cases = [
            (json!([]), "expected an object"),
            (json!({"model": "m"}), "role: expected user or assistant"),
            (json!({"role": "system"}), "role: expected user or assistant"),
            (json!({"role": "user"}), "model: expected a string"),
            (json!({"role": "user", "model": "m"}), "content: expected an object or an array of objects"),
            (json!({"role": "user", "model": "m", "stopReason": 1}), "stopReason: expected a string"),
            (block(json!("hi")), "content block 0: expected an object"),
            (
                block(json!({"type": "video"})),
                "content block 0: expected \"type\" to be text, image, audio, tool_use or tool_result",
            ),
            (block(json!({"type": "text"})), "content block 0: expected \"text\" to be a string"),
            (block(json!({"type": "image", "data": "?"})), "content block 0: expected \"data\" to be base64"),
            (block(json!({"type": "image", "data": ""})), "content block 0: expected \"mimeType\" to be a string"),
            (
                block(json!({"type": "tool_use", "id": "1", "name": "t"})),
                "content block 0: expected \"input\" to be an object",
            ),
        ];

        for (result, expected) in cases {
            let error = read(result.clone()).map(|_| ());
            assert_eq!(error, Err(format!("sampling result: {expected}")), "{result}");
        }
    }

    #[test]
    fn a_result_goes_into_the_next_request_as_it_came() {
        let block = json!({"type": "tool_use", "id": "1", "name": "t", "input": {}, "_meta": {"cache": 1}});
        let result = read(json!({"role": "assistant", "model": "m", "content": [block]})).expect("a result");

        let request = SamplingRequest::new([result.into_message()], 1).message(SamplingMessage::user(tool_result(
            "1",
            &[Content::text("done")],
            false,
        )));

        assert_eq!(
            value(&request.to_params())["messages"],
            json!([
                {"role": "assistant", "content": block},
                {"role": "user", "content": {
                    "type": "tool_result", "toolUseId": "1", "content": [{"type": "text", "text": "done"}]
                }}
            ])
        );
    }
}
