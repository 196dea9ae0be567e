//! What a client says of itself: once with `initialize`, at its join, or in the `_meta` of each request.

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::protocol::jsonrpc::{self, Fault, Object};
use crate::protocol::mcp::error;
use crate::protocol::mcp::level::Level;
use crate::protocol::mcp::version::Version;
use crate::protocol::mcp::{CLIENT_INFO_BYTES_MAX, CREATE_MESSAGE, ELICIT, ROOTS_LIST};

/// `_meta` key of the revision of a stateless request.
pub const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// `_meta` key of the client's capabilities.
pub const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// `_meta` key of the client's name and version.
pub const META_CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
/// `_meta` key of the least severe log message that is wanted.
pub const META_LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
/// `_meta` key of the server's name and version, in results.
pub const META_SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
/// `_meta` key of the request that opened a subscription, in what it brings.
pub const META_SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
/// Id of the extension for tasks.
pub const TASKS_EXTENSION: &str = "io.modelcontextprotocol/tasks";

/// What a client can do for a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCapabilities {
    /// `sampling/createMessage`.
    pub sampling: bool,
    /// Sampling with tools.
    pub sampling_tools: bool,
    /// `elicitation/create` with a form.
    pub elicitation_form: bool,
    /// `elicitation/create` with a URL.
    pub elicitation_url: bool,
    /// `roots/list`.
    pub roots: bool,
    /// Tasks as results: the extension of 2026-07-28.
    pub tasks: bool,
}

impl ClientCapabilities {
    /// Whether a server may ask the client anything.
    pub fn can_be_asked(&self) -> bool {
        self.sampling || self.elicitation_form || self.elicitation_url || self.roots
    }

    /// Whether the client said that it answers such requests; of methods that are not known here it may be so.
    pub fn can_answer(&self, method: &str) -> bool {
        match method {
            CREATE_MESSAGE => self.sampling,
            ELICIT => self.elicitation_form || self.elicitation_url,
            ROOTS_LIST => self.roots,
            _ => true,
        }
    }

    /// Reads a `ClientCapabilities` object; what is no object counts as empty.
    pub fn read(raw: &RawValue) -> Self {
        let Some(object) = Object::parse(raw.get().as_bytes()) else {
            return Self::default();
        };
        let elicitation = object.object("elicitation");
        let url = elicitation.as_ref().is_some_and(|modes| modes.has("url"));
        ClientCapabilities {
            sampling: object.object("sampling").is_some(),
            sampling_tools: object.object("sampling").is_some_and(|sampling| sampling.has("tools")),
            // A client that names no mode has forms. Source: 2025-11-25, elicitation, "Capabilities".
            elicitation_form: elicitation.as_ref().is_some_and(|modes| modes.has("form") || !url),
            elicitation_url: url,
            roots: object.object("roots").is_some(),
            tasks: object.object("extensions").is_some_and(|extensions| extensions.has(TASKS_EXTENSION)),
        }
    }
}

/// How a client opened, which decides the words it is answered in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// Its join was the handshake: the Elixir deployment's clients.
    Elixir,
    /// It sent `initialize`.
    Legacy,
    /// Its requests carry what they need.
    Modern,
}

/// What is known of the client behind a request.
#[derive(Clone, Debug)]
pub struct Client {
    /// How it opened.
    pub era: Era,
    /// The revision spoken with it.
    pub version: Version,
    /// What it can do.
    pub capabilities: ClientCapabilities,
    /// Its name and version, an `Implementation` object, if it said so.
    pub info: Option<Box<RawValue>>,
}

impl Client {
    /// The client of an `initialize` request.
    ///
    /// # Errors
    /// [`Fault::InvalidParams`]: no `protocolVersion`, or `capabilities` or `clientInfo` missing or no objects.
    pub fn initialize(params: &Object<'_>) -> Result<Self, Fault> {
        let invalid = |what: &str| Fault::InvalidParams(what.to_owned());
        let requested = params.string("protocolVersion").ok_or_else(|| invalid("protocolVersion must be a string"))?;
        let object = |key: &str| {
            let raw = params.raw(key).filter(|_| params.object(key).is_some());
            raw.ok_or_else(|| Fault::InvalidParams(format!("{key} must be an object")))
        };
        let capabilities = ClientCapabilities::read(object("capabilities")?);
        let info = object("clientInfo")?;
        if info.get().len() > CLIENT_INFO_BYTES_MAX {
            let came = info.get().len();
            let text = format!("clientInfo: expected at most {CLIENT_INFO_BYTES_MAX} bytes, came {came}");
            return Err(Fault::InvalidParams(text));
        }
        let info = Some(info.to_owned());
        Ok(Client { era: Era::Legacy, version: Version::negotiate(&requested), capabilities, info })
    }

    /// A client that opened by its join; these speak the revision that the join's reply states.
    pub fn joined(name: &str, version: &str, capabilities: &RawValue) -> Self {
        let info = jsonrpc::raw(&serde_json::json!({"name": name, "version": version}));
        let info = Some(info).filter(|info| info.get().len() <= CLIENT_INFO_BYTES_MAX);
        Client {
            era: Era::Elixir,
            version: Version::V2024_11_05,
            capabilities: ClientCapabilities::read(capabilities),
            info,
        }
    }
}

/// What the `_meta` of a stateless request says, beside its progress token.
#[derive(Clone, Debug)]
pub struct RequestMeta {
    /// The client.
    pub client: Arc<Client>,
    /// The least severe log message it wants; none, if it wants none.
    pub level: Option<Level>,
}

impl RequestMeta {
    /// Whether `_meta` claims a stateless revision: it has the key, whatever the value.
    pub fn is_modern(meta: Option<&Object<'_>>) -> bool {
        meta.is_some_and(|meta| meta.has(META_VERSION))
    }

    /// Reads `_meta` of a stateless request.
    ///
    /// # Errors
    /// [`Fault::InvalidParams`] where a required key is missing or has the wrong type; an unsupported version.
    pub fn read(meta: Option<&Object<'_>>) -> Result<Self, Fault> {
        let missing = |key: &str, what: &str| Fault::InvalidParams(format!("_meta[\"{key}\"] must be {what}"));
        let requested = meta.and_then(|meta| meta.string(META_VERSION));
        let requested = requested.ok_or_else(|| missing(META_VERSION, "a protocol version"))?;
        let version = Version::parse(&requested).filter(|version| version.is_modern());
        let version = version.ok_or_else(|| error::unsupported_version(&requested))?;
        let object = |key| meta.filter(|meta| meta.object(key).is_some()).and_then(|meta| meta.raw(key));
        let capabilities = object(META_CAPABILITIES).ok_or_else(|| missing(META_CAPABILITIES, "an object"))?;
        let has = |key| meta.is_some_and(|meta| meta.has(key));
        if has(META_CLIENT_INFO) && object(META_CLIENT_INFO).is_none() {
            return Err(missing(META_CLIENT_INFO, "an object"));
        }
        let level = meta.and_then(|meta| meta.get::<Level>(META_LOG_LEVEL));
        if has(META_LOG_LEVEL) && level.is_none() {
            return Err(missing(META_LOG_LEVEL, "a log level"));
        }
        let client = Client {
            era: Era::Modern,
            version,
            capabilities: ClientCapabilities::read(capabilities),
            info: object(META_CLIENT_INFO).map(ToOwned::to_owned),
        };
        Ok(RequestMeta { client: Arc::new(client), level })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn capabilities(value: &Value) -> ClientCapabilities {
        ClientCapabilities::read(&jsonrpc::raw(value))
    }

    #[test]
    fn elicitation_without_modes_means_forms() {
        let forms = |value: Value| {
            let read = capabilities(&value);
            (read.elicitation_form, read.elicitation_url)
        };

        assert_eq!(forms(json!({})), (false, false));
        assert_eq!(forms(json!({"elicitation": {}})), (true, false));
        assert_eq!(forms(json!({"elicitation": {"url": {}}})), (false, true));
        assert_eq!(forms(json!({"elicitation": {"url": {}, "form": {}}})), (true, true));
        assert_eq!(capabilities(&json!([1])), ClientCapabilities::default());
    }

    fn meta(value: &Value) -> Result<RequestMeta, Fault> {
        let text = value.to_string();
        RequestMeta::read(Object::parse(text.as_bytes()).as_ref())
    }

    #[test]
    fn a_stateless_request_says_its_version_and_capabilities() {
        let whole = json!({
            META_VERSION: "2026-07-28", META_CAPABILITIES: {"roots": {}, "extensions": {TASKS_EXTENSION: {}}},
            META_LOG_LEVEL: "warning"
        });
        let read = meta(&whole).expect("whole");
        assert!(read.client.capabilities.roots && read.client.capabilities.tasks);
        assert_eq!((read.client.version, read.level), (Version::V2026_07_28, Some(Level::Warning)));

        let faults = [
            (json!({}), -32602),
            (json!({META_VERSION: 1, META_CAPABILITIES: {}}), -32602),
            (json!({META_VERSION: "2026-07-28"}), -32602),
            (json!({META_VERSION: "2026-07-28", META_CAPABILITIES: []}), -32602),
            (json!({META_VERSION: "2026-07-28", META_CAPABILITIES: {}, META_CLIENT_INFO: "x"}), -32602),
            (json!({META_VERSION: "2026-07-28", META_CAPABILITIES: {}, META_LOG_LEVEL: "loud"}), -32602),
            (json!({META_VERSION: "2999-01-01", META_CAPABILITIES: {}}), -32022),
            (json!({META_VERSION: "2025-11-25", META_CAPABILITIES: {}}), -32022),
        ];
        for (value, code) in faults {
            let fault = meta(&value).expect_err("refused");
            assert_eq!(fault.code(jsonrpc::Compat::Standard), code, "{value}: {fault}");
        }
    }
}
