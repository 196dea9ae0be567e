//! What was received: envelopes, and of the parameters what some method wants to know. Values stay texts.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A JSON-RPC message of any kind.
#[derive(Deserialize)]
pub struct Message {
    pub id: Option<Box<RawValue>>,
    pub method: Option<String>,
    pub params: Option<Box<RawValue>>,
    pub result: Option<Box<RawValue>>,
    pub error: Option<Box<RawValue>>,
}

/// The parameters of all methods.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub struct Params {
    pub name: String,
    pub arguments: Arguments,
    #[serde(rename = "_meta")]
    pub meta: Meta,
    pub uri: String,
    pub cursor: Option<String>,
    pub protocol_version: String,
    pub capabilities: BTreeMap<String, Box<RawValue>>,
    pub input_responses: Option<Box<RawValue>>,
    pub request_state: Option<String>,
    pub request_id: Option<Box<RawValue>>,
    pub notifications: Filter,
}

/// `_meta` of a request.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Meta {
    #[serde(rename = "progressToken")]
    pub progress_token: Option<Box<RawValue>>,
    #[serde(rename = "io.modelcontextprotocol/protocolVersion")]
    pub version: Option<String>,
    #[serde(rename = "io.modelcontextprotocol/clientCapabilities")]
    pub capabilities: Option<BTreeMap<String, Box<RawValue>>>,
    #[serde(rename = "io.modelcontextprotocol/logLevel")]
    pub log_level: Option<Box<RawValue>>,
}

/// What a `subscriptions/listen` asks for.
#[derive(Deserialize, Default, Clone)]
#[serde(default, rename_all = "camelCase")]
pub struct Filter {
    pub tools_list_changed: bool,
    pub prompts_list_changed: bool,
    pub resources_list_changed: bool,
    pub resource_subscriptions: Vec<String>,
}

/// The arguments of a tool, by name.
#[derive(Deserialize, Default)]
#[serde(transparent)]
pub struct Arguments(BTreeMap<String, Box<RawValue>>);

impl Params {
    /// Those of a message: none where it has none or a list.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn of(message: &Message) -> Result<Self, serde_json::Error> {
        match message.params.as_deref().map(RawValue::get) {
            Some(text) if text.starts_with('{') => serde_json::from_str(text),
            _ => Ok(Params::default()),
        }
    }
}

impl Arguments {
    pub fn raw(&self, name: &str) -> Option<&RawValue> {
        self.0.get(name).map(|value| &**value)
    }

    /// A text, where it is one.
    pub fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.raw(name)?.get()).ok()
    }

    /// A number, rounded down, where it is one.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts, sizes and times of a test are small"
    )]
    pub fn number(&self, name: &str, default: u64) -> u64 {
        let number = self.raw(name).and_then(|value| serde_json::from_str::<f64>(value.get()).ok());
        number.map_or(default, |number| number as u64)
    }

    pub fn is_true(&self, name: &str) -> bool {
        self.raw(name).is_some_and(|value| value.get() == "true")
    }
}

/// What two spellings of an id have in common.
pub fn id_key(id: &RawValue) -> String {
    match serde_json::from_str::<String>(id.get()) {
        Ok(text) => format!("string {text}"),
        Err(_) => format!("number {}", id.get()),
    }
}
