//! What is known of an API key: everything but its text.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::KeysError;
use crate::random;

/// Bytes of a key's text; those of either format have fewer than 64.
pub const KEY_TEXT_BYTES_MAX: usize = 256;
/// Bytes of what new keys begin with.
pub const PREFIX_BYTES_MAX: usize = 32;
/// Bytes of a key's name, or of its user.
pub const NAME_BYTES_MAX: usize = 255;
/// Roles of one key.
pub const ROLES_MAX: usize = 32;
/// Scopes of one key.
pub const SCOPES_MAX: usize = 256;
/// Bytes of a role or a scope.
pub const SCOPE_BYTES_MAX: usize = 255;

/// Random bytes of a key's text, as many as in the Elixir deployment.
const SECRET_BYTES: usize = 32;
/// Characters of the random part that are shown, so that people tell keys apart: 24 bits of 256.
const HINT_CHARACTERS: usize = 4;

/// The SHA-256 of a key's whole text: all that is kept of it. The text has 256 random bits, so a slow hash would add
/// nothing.
pub(super) type Hash = [u8; 32];

/// What a key is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewKey {
    /// What people call it, at most [`NAME_BYTES_MAX`] bytes; may be empty.
    pub name: String,
    /// Who comes with it, 1 to [`NAME_BYTES_MAX`] bytes.
    pub user: String,
    /// Roles that it gives, at most [`ROLES_MAX`].
    pub roles: Vec<String>,
    /// Capabilities that it is limited to or gives, as texts such as `tools:call`; at most [`SCOPES_MAX`]. What they
    /// mean is the policy's.
    pub scopes: Vec<String>,
    /// When it ends to count, milliseconds since 1970; none for never.
    pub expires_unix_ms: Option<u64>,
}

impl NewKey {
    /// Checks the bounds of its fields.
    ///
    /// # Errors
    /// [`KeysError::Invalid`].
    pub(super) fn check(&self) -> Result<(), KeysError> {
        let within = |what: &'static str, came: usize, min: usize, max: usize| {
            let is_within = (min..=max).contains(&came);
            is_within.then_some(()).ok_or(KeysError::Invalid { what, came, min, max })
        };
        within("bytes of a key's name", self.name.len(), 0, NAME_BYTES_MAX)?;
        within("bytes of a key's user", self.user.len(), 1, NAME_BYTES_MAX)?;
        let controls = |text: &str| text.chars().filter(|c| c.is_control()).count();
        within("control characters in a key's user and name", controls(&self.user) + controls(&self.name), 0, 0)?;
        within("roles of a key", self.roles.len(), 0, ROLES_MAX)?;
        within("scopes of a key", self.scopes.len(), 0, SCOPES_MAX)?;
        for role in &self.roles {
            within("bytes of a role", role.len(), 1, SCOPE_BYTES_MAX)?;
        }
        for scope in &self.scopes {
            within("bytes of a scope", scope.len(), 1, SCOPE_BYTES_MAX)?;
        }
        Ok(())
    }
}

/// What is known of a key. Neither its text nor its hash is in it, so it may be shown and logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// 16 hex digits. It names the key in lists, in the audit log and to revoke it; it is no secret.
    pub id: Arc<str>,
    /// What people call it.
    pub name: String,
    /// Who comes with it.
    pub user: String,
    /// Roles that it gives.
    pub roles: Vec<String>,
    /// Capabilities as texts.
    pub scopes: Vec<String>,
    /// The first characters of its text: the prefix, and four more where the text was known.
    pub hint: String,
    /// When it was created or imported, milliseconds since 1970.
    pub created_unix_ms: u64,
    /// When it ends to count; none for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_unix_ms: Option<u64>,
    /// When it was last verified, to the minute. Only what [`super::ApiKeys::list`] gives has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_unix_ms: Option<u64>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_unix_ms: Option<u64>,
}

impl KeyRecord {
    /// A record of a key that has just come to be.
    pub(super) fn new(key: NewKey, hint: String, now_unix_ms: u64) -> Self {
        KeyRecord {
            id: format!("{:016x}", u64::from_be_bytes(random::bytes())).into(),
            name: key.name,
            user: key.user,
            roles: key.roles,
            scopes: key.scopes,
            hint,
            created_unix_ms: now_unix_ms,
            expires_unix_ms: key.expires_unix_ms,
            last_used_unix_ms: None,
            revoked_unix_ms: None,
        }
    }

    /// Whether it has ended by itself. In its last millisecond it has: the deployment wants `expires_at` > now.
    pub fn is_expired(&self, now_unix_ms: u64) -> bool {
        self.expires_unix_ms.is_some_and(|expires| expires <= now_unix_ms)
    }

    /// When it ended to count, be it revoked or expired; none while it counts.
    pub fn ended_unix_ms(&self, now_unix_ms: u64) -> Option<u64> {
        let expired = self.expires_unix_ms.filter(|expires| *expires <= now_unix_ms);
        self.revoked_unix_ms.into_iter().chain(expired).min()
    }
}

/// Draws a key's text.
pub(super) fn draw(prefix: &str) -> String {
    format!("{prefix}{}", BASE64_URL_SAFE_NO_PAD.encode(random::bytes::<SECRET_BYTES>()))
}

/// What may be shown of a text that [`draw`] made.
pub(super) fn hint(prefix: &str, text: &str) -> String {
    text.chars().take(prefix.chars().count() + HINT_CHARACTERS).collect()
}

pub(super) fn hash(text: &str) -> Hash {
    Sha256::digest(text.as_bytes()).into()
}
