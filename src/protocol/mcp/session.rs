//! The handshake of a session: what a join must bring, in which order it is refused, and what it gets.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::protocol::jsonrpc::{self, Object};
use crate::protocol::mcp::PROTOCOL_VERSION;
use crate::protocol::mcp::recovery::Offer;

/// What session ids start with, before 16 lower-case hex digits.
pub const SESSION_ID_PREFIX: &str = "mcp_session_";

/// What a client says about itself.
#[derive(Clone, Debug)]
pub struct ClientInfo {
    /// Not empty.
    pub name: String,
    /// Not empty.
    pub version: String,
    /// A JSON object, `{}` where the client sent none. It never changes what the server offers.
    pub capabilities: Box<RawValue>,
    /// Any JSON value, `{}` where the client sent none.
    pub metadata: Box<RawValue>,
}

/// What a client gives to be let in; independent of what it gave to its socket.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// The join's `token`, possibly empty. It wins over an API key.
    Token(String),
    /// The join's `apiKey`, possibly empty.
    ApiKey(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Credential::Token(_) => "Token(…)",
            Credential::ApiKey(_) => "ApiKey(…)",
        })
    }
}

impl Credential {
    /// Chooses the credential of a join payload; `None` if neither key is a string.
    pub fn choose(params: &[u8]) -> Option<Self> {
        let params = Object::parse(params)?;
        let token = params.string("token").map(Credential::Token);
        token.or_else(|| params.string("apiKey").map(Credential::ApiKey))
    }
}

/// Why `clientInfo` is refused, in the order of checking. The text is the join's `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientInfoRefused {
    /// `clientInfo` is absent or not an object.
    #[error("Missing required clientInfo parameter")]
    Missing,
    /// `name` is absent, empty or not a string.
    #[error("Missing or invalid client name")]
    Name,
    /// `version` is absent, empty or not a string.
    #[error("Missing or invalid client version")]
    Version,
    /// `capabilities` is there and not an object.
    #[error("Invalid client capabilities format")]
    Capabilities,
}

impl ClientInfo {
    /// Reads `clientInfo` of a join payload. Fields not named here are ignored.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn parse(params: &[u8]) -> Result<Self, ClientInfoRefused> {
        let params = Object::parse(params).ok_or(ClientInfoRefused::Missing)?;
        let info = params.object("clientInfo").ok_or(ClientInfoRefused::Missing)?;
        let text = |key| info.string(key).filter(|text| !text.is_empty());
        let name = text("name").ok_or(ClientInfoRefused::Name)?;
        let version = text("version").ok_or(ClientInfoRefused::Version)?;
        if info.has("capabilities") && info.object("capabilities").is_none() {
            return Err(ClientInfoRefused::Capabilities);
        }
        let or_empty = |key| info.raw(key).map_or_else(|| jsonrpc::raw(&Empty {}), ToOwned::to_owned);
        Ok(ClientInfo { name, version, capabilities: or_empty("capabilities"), metadata: or_empty("metadata") })
    }
}

/// An object without keys.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Empty {}

/// A token by which a session's client may come back. Its debug text does not show it.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct SessionToken {
    /// The token.
    #[serde(rename = "sessionToken")]
    pub token: String,
    /// When it ends, as ISO 8601 in UTC.
    #[serde(rename = "sessionExpiresAt")]
    pub expires_at: String,
}

impl std::fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SessionToken(…, until {})", self.expires_at)
    }
}

/// The reply to a session's join. Later versions may add keys; none is renamed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinReply<'a> {
    protocol_version: &'static str,
    capabilities: Capabilities,
    server_info: ServerInfo<'a>,
    session_id: &'a str,
    #[serde(flatten)]
    token: Option<&'a SessionToken>,
    #[serde(flatten)]
    recovery: Option<&'a Offer>,
}

#[derive(Clone, Debug, Serialize)]
struct ServerInfo<'a> {
    name: &'a str,
    version: &'a str,
}

/// What every session is told, whatever the client's own capabilities.
#[derive(Clone, Debug, Serialize)]
struct Capabilities {
    tools: Changes,
    resources: Resources,
    prompts: Changes,
    logging: Empty,
    sampling: Empty,
    experimental: Experimental,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Changes {
    list_changed: bool,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Resources {
    subscribe: bool,
    list_changed: bool,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Experimental {
    streaming: bool,
    workflows: bool,
    multi_tool: bool,
}

impl<'a> JoinReply<'a> {
    /// The reply of the server `name` at `version` for one session.
    pub fn new(name: &'a str, version: &'a str, session_id: &'a str, token: Option<&'a SessionToken>) -> Self {
        JoinReply {
            protocol_version: PROTOCOL_VERSION,
            capabilities: Capabilities {
                tools: Changes { list_changed: true },
                resources: Resources { subscribe: true, list_changed: true },
                prompts: Changes { list_changed: true },
                logging: Empty {},
                sampling: Empty {},
                experimental: Experimental { streaming: true, workflows: true, multi_tool: true },
            },
            server_info: ServerInfo { name, version },
            session_id,
            token,
            recovery: None,
        }
    }

    /// The same of a session that can be come back to.
    pub fn with_recovery(self, recovery: Option<&'a Offer>) -> Self {
        JoinReply { recovery, ..self }
    }
}

/// Makes a session id of 8 random bytes.
pub fn session_id(random: [u8; 8]) -> String {
    format!("{SESSION_ID_PREFIX}{:016x}", u64::from_be_bytes(random))
}

/// Whether a text is such an id.
pub fn is_session_id(text: &str) -> bool {
    let digits = text.strip_prefix(SESSION_ID_PREFIX).map(str::as_bytes);
    digits.is_some_and(|digits| digits.len() == 16 && digits.iter().all(|digit| b"0123456789abcdef".contains(digit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_known_from_others() {
        assert!(is_session_id(&session_id([0; 8])) && is_session_id(&session_id([0xfe; 8])));
        for other in [
            "",
            "mcp_session_",
            "mcp_session_000000000000000",
            "mcp_session_00000000000000000",
            "mcp_session_000000000000000A",
        ] {
            assert!(!is_session_id(other), "{other}");
        }
    }

    fn refusal(params: &str) -> Option<&'static str> {
        match ClientInfo::parse(params.as_bytes()) {
            Ok(_) => None,
            Err(ClientInfoRefused::Missing) => Some("missing"),
            Err(ClientInfoRefused::Name) => Some("name"),
            Err(ClientInfoRefused::Version) => Some("version"),
            Err(ClientInfoRefused::Capabilities) => Some("capabilities"),
        }
    }

    #[test]
    fn client_info_is_refused_in_the_order_of_the_deployment() {
        let cases: &[(&str, Option<&str>)] = &[
            ("null", Some("missing")),
            ("[]", Some("missing")),
            ("{}", Some("missing")),
            (r#"{"clientInfo":null}"#, Some("missing")),
            (r#"{"clientInfo":"x"}"#, Some("missing")),
            (r#"{"clientInfo":{}}"#, Some("name")),
            (r#"{"clientInfo":{"name":"","version":"","capabilities":1}}"#, Some("name")),
            (r#"{"clientInfo":{"name":1,"version":"1"}}"#, Some("name")),
            (r#"{"clientInfo":{"name":"a"}}"#, Some("version")),
            (r#"{"clientInfo":{"name":"a","version":"","capabilities":1}}"#, Some("version")),
            (r#"{"clientInfo":{"name":"a","version":2}}"#, Some("version")),
            (r#"{"clientInfo":{"name":"a","version":"1","capabilities":[]}}"#, Some("capabilities")),
            (r#"{"clientInfo":{"name":"a","version":"1","capabilities":null}}"#, Some("capabilities")),
            (r#"{"clientInfo":{"name":"a","version":"1"}}"#, None),
            (r#"{"clientInfo":{"name":"a","version":"1","capabilities":{},"metadata":3,"x":1},"y":2}"#, None),
        ];

        for (params, expected) in cases {
            assert_eq!(refusal(params), *expected, "{params}");
        }
    }

    #[test]
    fn capabilities_and_metadata_are_kept_and_default_to_an_empty_object() {
        let sent = br#"{"clientInfo":{"name":"a","version":"1","capabilities":{"x":1.0},"metadata":[2]}}"#;
        let sent = ClientInfo::parse(sent).expect("valid");
        let bare = ClientInfo::parse(br#"{"clientInfo":{"name":"a","version":"1"}}"#).expect("valid");

        assert_eq!((sent.capabilities.get(), sent.metadata.get()), (r#"{"x":1.0}"#, "[2]"));
        assert_eq!((bare.capabilities.get(), bare.metadata.get()), ("{}", "{}"));
    }

    #[test]
    fn refusals_read_as_the_deployment_words_them() {
        assert_eq!(ClientInfoRefused::Missing.to_string(), "Missing required clientInfo parameter");
        assert_eq!(ClientInfoRefused::Name.to_string(), "Missing or invalid client name");
        assert_eq!(ClientInfoRefused::Version.to_string(), "Missing or invalid client version");
        assert_eq!(ClientInfoRefused::Capabilities.to_string(), "Invalid client capabilities format");
    }

    #[test]
    fn a_token_wins_over_an_api_key_even_if_empty() {
        let choose = |params: &str| Credential::choose(params.as_bytes());

        assert_eq!(choose(r#"{"token":"","apiKey":"k"}"#), Some(Credential::Token(String::new())));
        assert_eq!(choose(r#"{"token":1,"apiKey":"k"}"#), Some(Credential::ApiKey("k".into())));
        assert_eq!(choose(r#"{"token":null,"apiKey":{}}"#), None);
        assert_eq!(choose("3"), None);
    }

    #[test]
    fn a_credential_never_prints_its_secret() {
        let printed = format!("{:?} {:?}", Credential::Token("s3cret".into()), Credential::ApiKey("s3cret".into()));

        assert!(!printed.contains("s3cret"), "{printed}");
    }

    #[test]
    fn the_join_reply_has_every_key_of_the_deployment() {
        let id = session_id([0, 1, 2, 3, 4, 0xab, 0xcd, 0xef]);
        let reply = serde_json::to_value(JoinReply::new("Bennu", "0.1.0", &id, None)).expect("serializes");

        assert_eq!(
            reply,
            serde_json::json!({
                "protocolVersion": "2024-11-05",
                "capabilities": {
                    "tools": {"listChanged": true},
                    "resources": {"subscribe": true, "listChanged": true},
                    "prompts": {"listChanged": true},
                    "logging": {},
                    "sampling": {},
                    "experimental": {"streaming": true, "workflows": true, "multiTool": true}
                },
                "serverInfo": {"name": "Bennu", "version": "0.1.0"},
                "sessionId": "mcp_session_0001020304abcdef"
            })
        );
    }
}
