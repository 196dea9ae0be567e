//! MCP as an OAuth resource server: the metadata by which a client finds who gives it tokens, and the challenges that
//! send it there.
//!
//! Tokens are verified elsewhere ([`super::jwt`]), with [`ProtectedResource::resource`] among the audiences. The server
//! is no authorization server: it issues nothing and forwards no token.
//!
//! Source: RFC 9728 (metadata), RFC 6750 section 3 (challenges); MCP, Authorization, revisions 2025-06-18 to
//! 2026-07-28.

use std::net::IpAddr;

use reqwest::Url;
use serde_json::{Value, json};

/// Where the metadata of a resource is, between its host and its path. Source: RFC 9728 section 3.
pub const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";
/// Bytes of an error's description in a challenge; more is cut.
pub const DESCRIPTION_BYTES_MAX: usize = 200;
/// Bytes of the scopes in a challenge. What is more is left out, so that the header stays one that clients and proxies
/// take.
pub const SCOPE_BYTES_MAX: usize = 2_048;

/// What is wrong with a description of a resource: the operator's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadResource {
    /// Source: RFC 9728 section 1.2, RFC 8707 section 2.
    #[error("resource: expected an https URL without user, query and fragment (http on a loopback address)")]
    Resource,
    /// Source: RFC 8414 section 2.
    #[error(
        "authorization server {at}: expected an https URL without user, query and fragment (http on a loopback address)"
    )]
    AuthorizationServer {
        /// Its place among them, from 0.
        at: usize,
    },
    /// A client would not know where to go. Source: MCP, Authorization, "Authorization Server Location".
    #[error("expected at least one authorization server")]
    NoAuthorizationServer,
    /// Source: RFC 6749 section 3.3.
    #[error("scope {at}: expected printable ASCII without spaces, quotes and backslashes")]
    Scope {
        /// Its place among them, from 0.
        at: usize,
    },
}

/// An MCP endpoint that takes tokens of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtectedResource {
    resource: String,
    path_at: usize,
    authorization_servers: Vec<String>,
    scopes_supported: Vec<String>,
    name: Option<String>,
}

/// Why a request that had a credential is refused. One without a credential is challenged without an error.
///
/// Source: RFC 6750 section 3.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// The request is malformed: two credentials, or one in the wrong place.
    InvalidRequest {
        /// For the developer of the client.
        description: Option<String>,
    },
    /// The token is expired, revoked, malformed or not ours. The description should say no more.
    InvalidToken {
        /// For the developer of the client.
        description: Option<String>,
    },
    /// The token is good but grants too little.
    InsufficientScope {
        /// What the request needs. Source: MCP, Authorization, "Runtime Insufficient Scope Errors".
        scopes: Vec<String>,
        /// For the developer of the client.
        description: Option<String>,
    },
}

impl Challenge {
    /// The HTTP status that goes with it; 401 goes with a challenge without an error.
    pub fn status(&self) -> u16 {
        match self {
            Challenge::InvalidRequest { .. } => 400,
            Challenge::InvalidToken { .. } => 401,
            Challenge::InsufficientScope { .. } => 403,
        }
    }
}

impl ProtectedResource {
    /// Describes a resource. `resource` is its canonical URL, as clients write it and as tokens have it in `aud`.
    ///
    /// # Errors
    /// [`BadResource`].
    pub fn new(
        resource: impl Into<String>,
        authorization_servers: Vec<String>,
        scopes_supported: Vec<String>,
        name: Option<String>,
    ) -> Result<Self, BadResource> {
        let resource = resource.into();
        let at = path_at(&resource).ok_or(BadResource::Resource)?;
        if let Some(at) = authorization_servers.iter().position(|server| path_at(server).is_none()) {
            return Err(BadResource::AuthorizationServer { at });
        }
        if authorization_servers.is_empty() {
            return Err(BadResource::NoAuthorizationServer);
        }
        if let Some(at) = scopes_supported.iter().position(|scope| !is_scope(scope)) {
            return Err(BadResource::Scope { at });
        }
        Ok(ProtectedResource { resource, path_at: at, authorization_servers, scopes_supported, name })
    }

    /// The resource's identifier: the audience that its tokens need. Source: RFC 8707 section 2.
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// The metadata document, `application/json`. Source: RFC 9728 section 2.
    pub fn metadata(&self) -> Value {
        let mut metadata = json!({
            "resource": self.resource,
            "authorization_servers": self.authorization_servers,
            // Never in the query or a form. Source: MCP, Authorization, "Token Requirements".
            "bearer_methods_supported": ["header"],
        });
        if !self.scopes_supported.is_empty() {
            metadata["scopes_supported"] = json!(self.scopes_supported);
        }
        if let Some(name) = &self.name {
            metadata["resource_name"] = json!(name);
        }
        metadata
    }

    /// The path of the metadata: [`WELL_KNOWN`] and the resource's path, of which a lone `/` is none.
    ///
    /// Source: RFC 9728 section 3.1.
    pub fn metadata_path(&self) -> String {
        let path = &self.resource[self.path_at..];
        format!("{WELL_KNOWN}{}", if path == "/" { "" } else { path })
    }

    /// The URL of the metadata.
    pub fn metadata_url(&self) -> String {
        format!("{}{}", &self.resource[..self.path_at], self.metadata_path())
    }

    /// The value of `WWW-Authenticate`: visible ASCII and spaces. `None` is for a request without a credential: it gets
    /// no error code, and the scopes that there are.
    ///
    /// Source: RFC 6750 section 3; RFC 9728 section 5.1; MCP 2025-11-25, Authorization, "Scope Selection Strategy".
    pub fn challenge(&self, error: Option<&Challenge>) -> String {
        let (code, scopes, description) = match error {
            None => (None, &self.scopes_supported, None),
            Some(Challenge::InvalidRequest { description }) => {
                (Some("invalid_request"), &self.scopes_supported, description.as_deref())
            }
            Some(Challenge::InvalidToken { description }) => {
                (Some("invalid_token"), &self.scopes_supported, description.as_deref())
            }
            Some(Challenge::InsufficientScope { scopes, description }) => {
                (Some("insufficient_scope"), scopes, description.as_deref())
            }
        };
        let scope = joined(scopes);
        let parameters = [
            ("resource_metadata", Some(self.metadata_url())),
            ("scope", Some(scope).filter(|scope| !scope.is_empty())),
            ("error", code.map(str::to_owned)),
            ("error_description", description.map(described)),
        ];
        let written = parameters.into_iter().filter_map(|(name, text)| Some(format!("{name}={}", quoted(&text?))));
        format!("Bearer {}", written.collect::<Vec<_>>().join(", "))
    }
}

/// Where the path of a URL begins, if it is one that may stand for a resource or an issuer.
///
/// The text is kept as it is, since clients compare it byte by byte (RFC 9728 section 3.3); a parsed URL would be
/// another one.
fn path_at(text: &str) -> Option<usize> {
    let url = Url::parse(text).ok()?;
    let is_plain =
        url.query().is_none() && url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
    // A parser mends what no client would: spaces, line breaks, backslashes, `https:host`.
    let is_exact = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\<>^`{|}?#".contains(&byte));
    let (scheme, rest) = text.split_once("://")?;
    let is_safe = scheme == "https" || (scheme == "http" && is_loopback(&url));
    if !(is_plain && is_exact && is_safe) || rest.starts_with('/') {
        return None;
    }
    Some(scheme.len() + 3 + rest.find('/').unwrap_or(rest.len()))
}

fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Source: RFC 6749 section 3.3, `scope-token`.
fn is_scope(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
}

/// Scopes as one text. What no token can have as a scope is left out.
fn joined(scopes: &[String]) -> String {
    let mut text = String::new();
    for scope in scopes.iter().filter(|scope| is_scope(scope)) {
        if text.len() + 1 + scope.len() > SCOPE_BYTES_MAX {
            break;
        }
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(scope);
    }
    text
}

/// A description with the characters that it may have. Source: RFC 6750 section 3: no quote, no backslash, not escaped
/// either.
fn described(text: &str) -> String {
    let allowed = text.chars().map(|char| match char {
        '"' => '\'',
        '\\' => '/',
        ' '..='~' => char,
        _ => '?',
    });
    allowed.take(DESCRIPTION_BYTES_MAX).collect()
}

/// A `quoted-string`. Source: RFC 9110 section 5.6.4.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    fn resource(url: &str) -> ProtectedResource {
        let servers = texts(&["https://id.example.com/realms/a"]);
        ProtectedResource::new(url, servers, texts(&["tools:call", "prompts:*"]), Some("Bennu".to_owned()))
            .expect("good")
    }

    #[test]
    fn the_metadata_names_the_resource_and_who_gives_tokens() {
        let metadata = resource("https://mcp.example.com/mcp").metadata();

        let expected = json!({
            "resource": "https://mcp.example.com/mcp",
            "authorization_servers": ["https://id.example.com/realms/a"],
            "bearer_methods_supported": ["header"],
            "scopes_supported": ["tools:call", "prompts:*"],
            "resource_name": "Bennu",
        });
        assert_eq!(metadata, expected);
    }

    #[test]
    fn what_is_not_said_is_not_in_the_metadata() {
        let bare = ProtectedResource::new("https://a.example", texts(&["https://b.example"]), Vec::new(), None);
        let metadata = bare.expect("good").metadata();

        assert!(metadata.get("scopes_supported").is_none() && metadata.get("resource_name").is_none());
    }

    #[test]
    fn the_well_known_part_stands_between_host_and_path() {
        let url = |of: &str| resource(of).metadata_url();

        assert_eq!(url("https://a.example"), "https://a.example/.well-known/oauth-protected-resource");
        assert_eq!(url("https://a.example/"), "https://a.example/.well-known/oauth-protected-resource");
        assert_eq!(url("https://a.example/mcp"), "https://a.example/.well-known/oauth-protected-resource/mcp");
        assert_eq!(url("https://a.example/x/y/"), "https://a.example/.well-known/oauth-protected-resource/x/y/");
        assert_eq!(url("http://[::1]:4000/mcp"), "http://[::1]:4000/.well-known/oauth-protected-resource/mcp");
        assert_eq!(resource("https://a.example/mcp").metadata_path(), "/.well-known/oauth-protected-resource/mcp");
    }

    #[test]
    fn a_challenge_without_a_credential_has_no_error() {
        assert_eq!(
            resource("https://a.example/mcp").challenge(None),
            "Bearer resource_metadata=\"https://a.example/.well-known/oauth-protected-resource/mcp\", \
             scope=\"tools:call prompts:*\""
        );
    }

    #[test]
    fn a_challenge_names_its_error_and_what_is_needed() {
        let challenge = Challenge::InsufficientScope { scopes: texts(&["tools:*"]), description: None };
        let value = resource("https://a.example").challenge(Some(&challenge));

        assert!(value.ends_with(", scope=\"tools:*\", error=\"insufficient_scope\""), "{value}");
        assert_eq!(challenge.status(), 403);
        let challenge = Challenge::InvalidToken { description: Some("expired".to_owned()) };
        let value = resource("https://a.example").challenge(Some(&challenge));
        assert!(value.ends_with("error=\"invalid_token\", error_description=\"expired\""), "{value}");
    }

    #[test]
    fn nothing_breaks_out_of_a_challenge() {
        let hostile = "a\"b\\c\r\nX-Evil: 1\u{e9}\u{0}".to_owned();
        let scopes = vec![hostile.clone(), "good".to_owned(), String::new()];
        let challenge = Challenge::InsufficientScope { scopes, description: Some(hostile + &"x".repeat(500)) };
        let value = resource("https://a.example").challenge(Some(&challenge));

        assert!(value.contains("scope=\"good\""), "{value}");
        assert!(value.contains("error_description=\"a'b/c??X-Evil: 1??xxx"), "{value}");
        assert!(value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) && value.len() < 500, "{value}");
        assert_eq!(value.matches('"').count(), 8);
        assert_eq!(quoted(r#"a"\b"#), r#""a\"\\b""#);
    }

    #[test]
    fn the_scopes_of_a_challenge_are_bounded() {
        let scopes = (0..1_000).map(|n| format!("tools:call:{n}")).collect();
        let value =
            resource("https://a.example").challenge(Some(&Challenge::InsufficientScope { scopes, description: None }));

        assert!(value.len() < SCOPE_BYTES_MAX + 200);
    }

    #[test]
    fn descriptions_that_no_client_could_use_are_refused() {
        let new = |resource: &str, server: &str, scope: &str| {
            ProtectedResource::new(resource, texts(&[server]), texts(&[scope]), None).map(|_| ())
        };
        let (good, server) = ("https://a.example/mcp", "https://b.example");

        assert_eq!(new(good, server, "a"), Ok(()));
        let bad = [
            "",
            "/mcp",
            "a.example/mcp",
            "http://a.example/mcp",
            "https://a.example/mcp#x",
            "https://a.example/mcp?x=1",
            "https://u:p@a.example/",
            "https:a.example/",
            "https:///a.example",
            "https://a.example/\"",
            "https://a.example/ b",
            "https://a.example/\r\nX: y",
            "https://\u{e9}.example/",
            "ftp://a.example/",
        ];
        for url in bad {
            assert_eq!(new(url, server, "a"), Err(BadResource::Resource), "{url}");
            assert_eq!(new(good, url, "a"), Err(BadResource::AuthorizationServer { at: 0 }), "{url}");
        }
        for scope in ["", "a b", "a\"", "a\\", "\u{e9}"] {
            assert_eq!(new(good, server, scope), Err(BadResource::Scope { at: 0 }), "{scope}");
        }
        assert_eq!(ProtectedResource::new(good, Vec::new(), Vec::new(), None), Err(BadResource::NoAuthorizationServer));
    }
}
