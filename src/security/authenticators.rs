//! What credentials Bennu knows: Phoenix tokens, JSON web tokens, API keys, session tokens, and the operator's own.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Policy, SESSION_CREDENTIAL, SessionUsers};
use crate::auth::api_keys::ApiKeys;
use crate::auth::jwt::{JwtRefused, JwtVerifier};
use crate::auth::phoenix_token::{self, DerivedKey, MaxAge, TokenError};
use crate::auth::sessions::{SessionRefused, Sessions};
use crate::auth::{AuthRefused, Authenticator, Credential, Door, Identity, Presented, Rights};
use crate::clock;
use crate::protocol::etf::Term;
use crate::protocol::policy::{Capability, Grants};

/// Bytes of a user's id: it becomes a part of topics.
const USER_BYTES_MAX: usize = 255;

type Answer<'a> = BoxFuture<'a, Result<Option<Identity>, AuthRefused>>;

fn now_ms() -> u64 {
    clock::unix_micros() / 1_000
}

fn token(presented: &Presented) -> Option<&str> {
    match &presented.credential {
        Some(Credential::Token(token)) => Some(token),
        _ => None,
    }
}

/// Phoenix tokens: at a socket the data is the user's id, elsewhere a map with it.
///
/// Source: the Elixir deployment, section 6.1.
pub(super) struct PhoenixTokens {
    pub(super) policy: Arc<Policy>,
    pub(super) socket: Arc<DerivedKey>,
    pub(super) mcp: Arc<DerivedKey>,
    /// None where encrypted tokens are not taken.
    pub(super) encryption: Option<Arc<DerivedKey>>,
    pub(super) max_age_s: u64,
}

impl PhoenixTokens {
    fn read(&self, token: &str, presented: &Presented) -> Option<Result<Identity, AuthRefused>> {
        let is_signed = ["SFMyNTY.", "SFMzODQ.", "SFM1MTI."].iter().any(|header| token.starts_with(header));
        let is_encrypted = ["XCP.", "QTEyOEdDTQ."].iter().any(|header| token.starts_with(header));
        let max_age = Some(MaxAge::Seconds(i64::try_from(self.max_age_s).unwrap_or(i64::MAX)));
        let is_socket = matches!(presented.door, Door::Socket(_));
        let data = match (&self.encryption, is_signed, is_encrypted) {
            (_, true, _) => {
                let key = if is_socket { &self.socket } else { &self.mcp };
                phoenix_token::verify(key, Some(token), max_age, now_ms())
            }
            (Some(key), _, true) => phoenix_token::decrypt(key, Some(token), max_age, now_ms()),
            _ => return None,
        };
        Some(match data {
            Ok(data) => self.identity(&data, is_socket),
            Err(TokenError::Expired) => Err(AuthRefused::expired_token()),
            Err(TokenError::Invalid | TokenError::Missing) => Err(AuthRefused::invalid_token()),
        })
    }

    fn identity(&self, data: &Term, is_socket: bool) -> Result<Identity, AuthRefused> {
        let field = |name: &str| data.atom_field(name).or_else(|| data.field(name)).filter(|field| !is_nil(field));
        let id = if is_socket && !matches!(data, Term::Map(_)) { Some(data) } else { field("user_id") };
        let user = id.and_then(user_id).ok_or_else(AuthRefused::invalid_token)?;
        let text = |term: &Term| term.as_str().or_else(|| term.as_atom()).map(ToOwned::to_owned);
        let role = match field("role") {
            None => None,
            Some(role) => Some(text(role).ok_or_else(AuthRefused::invalid_token)?),
        };
        let permissions: Option<Vec<String>> = match field("permissions") {
            None => Some(Vec::new()),
            Some(list) => list.as_list().and_then(|list| list.iter().map(text).collect()),
        };
        let permissions = permissions.ok_or_else(AuthRefused::invalid_token)?;
        let rights = self.policy.rights(role.into_iter().collect(), &permissions)?;
        Ok(Identity::new(user, Rights { method: "phoenix_token", ..rights }))
    }
}

fn is_nil(term: &Term) -> bool {
    term.as_atom() == Some("nil")
}

/// A user's id as text: a text, or a whole number.
fn user_id(term: &Term) -> Option<String> {
    let text = term.as_str().map(ToOwned::to_owned).or_else(|| term.as_i64().map(|id| id.to_string()))?;
    let is_good = !text.is_empty() && text.len() <= USER_BYTES_MAX && !text.contains(char::is_control);
    is_good.then_some(text)
}

impl Authenticator for PhoenixTokens {
    fn name(&self) -> &'static str {
        "phoenix_token"
    }

    fn authenticate<'a>(&'a self, presented: &'a Presented) -> Answer<'a> {
        let read = token(presented).and_then(|token| self.read(token, presented));
        std::future::ready(read.transpose()).boxed()
    }
}

/// JSON web tokens.
pub(super) struct Jwts {
    pub(super) policy: Arc<Policy>,
    pub(super) verifier: JwtVerifier,
    pub(super) revoked: super::revoked::RevokedTokens,
}

impl Authenticator for Jwts {
    fn name(&self) -> &'static str {
        "jwt"
    }

    fn authenticate<'a>(&'a self, presented: &'a Presented) -> Answer<'a> {
        let Some(token) = token(presented).filter(|token| token.starts_with("ey") && token.matches('.').count() == 2)
        else {
            return std::future::ready(Ok(None)).boxed();
        };
        async move {
            let claims = self.verifier.verify(token, now_ms()).await.map_err(|refused| match refused {
                JwtRefused::Expired => AuthRefused::expired_token(),
                _ => AuthRefused::invalid_token(),
            })?;
            let credential: Option<Arc<str>> = claims.id.as_ref().map(|id| format!("jwt:{id}").into());
            if credential.as_ref().is_some_and(|credential| self.revoked.contains(credential, now_ms())) {
                return Err(AuthRefused::invalid_token());
            }
            // Scopes of others, such as `openid`, are none of ours; what denies is never passed over.
            let capabilities: Vec<String> =
                claims.capabilities.into_iter().filter(|text| text.starts_with('!') || is_of_ours(text)).collect();
            let rights = self.policy.rights(claims.roles, &capabilities)?;
            let expires_unix_ms = claims.expires_unix_ms;
            Ok(Some(Identity::new(claims.user, Rights { method: "jwt", credential, expires_unix_ms, ..rights })))
        }
        .boxed()
    }
}

/// Whether a scope is a capability of this server's, and not another's word.
fn is_of_ours(scope: &str) -> bool {
    let family = scope.split_once(':').map_or(scope, |(family, _)| family);
    FAMILIES.contains(&family) && Capability::parse(scope).is_ok()
}

/// What capabilities begin with.
const FAMILIES: [&str; 11] =
    ["*", "tools", "resources", "prompts", "sampling", "workflows", "contexts", "servers", "topics", "runs", "admin"];

/// API keys: as such, and over HTTP as a bearer token.
pub(super) struct Keys {
    pub(super) policy: Arc<Policy>,
    pub(super) keys: ApiKeys,
}

impl Keys {
    fn read(&self, presented: &Presented) -> Result<Option<Identity>, AuthRefused> {
        let text = match &presented.credential {
            Some(Credential::ApiKey(text)) => text,
            // A bearer token without dots is none of the other kinds.
            Some(Credential::Token(text))
                if matches!(presented.door, Door::Http(_) | Door::Admin) && !text.contains('.') =>
            {
                text
            }
            _ => return Ok(None),
        };
        let record = self.keys.verify(text, now_ms()).map_err(|refused| {
            tracing::debug!(?refused, "an API key is refused");
            AuthRefused::invalid_key()
        })?;
        let rights =
            self.policy.rights(record.roles.clone(), &record.scopes).map_err(|_| AuthRefused::invalid_key())?;
        let rights = Rights {
            method: "api_key",
            credential: Some(key_credential(&record.id).into()),
            expires_unix_ms: record.expires_unix_ms,
            ..rights
        };
        Ok(Some(Identity::new(record.user.as_str(), rights)))
    }
}

/// The name of an API key as a credential.
pub(super) fn key_credential(id: &str) -> String {
    format!("api_key:{id}")
}

impl Authenticator for Keys {
    fn name(&self) -> &'static str {
        "api_key"
    }

    fn authenticate<'a>(&'a self, presented: &'a Presented) -> Answer<'a> {
        std::future::ready(self.read(presented)).boxed()
    }
}

/// The back door of development.
///
/// Source: the Elixir deployment, sections 1.2 and 6.2.
pub(super) struct TestKey {
    pub(super) policy: Arc<Policy>,
}

impl Authenticator for TestKey {
    fn name(&self) -> &'static str {
        "test_key"
    }

    fn authenticate<'a>(&'a self, presented: &'a Presented) -> Answer<'a> {
        let is_it = presented.credential == Some(Credential::ApiKey("test_key".to_owned()));
        let identity = is_it.then(|| {
            let rights = self.policy.rights(vec!["api_user".to_owned()], &[])?;
            Ok(Identity::new("mcp_user_test", Rights { method: "test_key", ..rights }))
        });
        std::future::ready(identity.transpose()).boxed()
    }
}

/// Session tokens, as long as their session lives.
pub(super) struct SessionTokens {
    pub(super) sessions: Sessions,
    pub(super) key: Arc<DerivedKey>,
    pub(super) users: SessionUsers,
}

impl SessionTokens {
    fn read(&self, token: &str) -> Result<Option<Identity>, AuthRefused> {
        // Others are signed with other keys.
        if !token.starts_with("SFMyNTY.") || phoenix_token::verify(&self.key, Some(token), None, now_ms()).is_err() {
            return Ok(None);
        }
        let record = self.sessions.validate(token, now_ms()).map_err(|refused| match refused {
            SessionRefused::Invalid => AuthRefused::invalid_token(),
            other => AuthRefused(other.to_string()),
        })?;
        let users = self.users.lock();
        let user = users.get(&record.id).ok_or_else(|| AuthRefused("Session not found".to_owned()))?;
        let rights = user.rights();
        Ok(Some(Identity::new(
            Arc::clone(&user.user),
            Rights {
                method: SESSION_CREDENTIAL,
                credential: rights.credential.clone().or_else(|| Some(Arc::clone(&record.id))),
                session: Some(Arc::clone(&record.id)),
                expires_unix_ms: Some(rights.expires_unix_ms.unwrap_or(u64::MAX).min(record.expires_unix_ms)),
                ..Rights::clone(&rights)
            },
        )))
    }
}

impl Authenticator for SessionTokens {
    fn name(&self) -> &'static str {
        SESSION_CREDENTIAL
    }

    fn authenticate<'a>(&'a self, presented: &'a Presented) -> Answer<'a> {
        let read = token(presented).map_or(Ok(None), |token| self.read(token));
        std::future::ready(read).boxed()
    }
}

/// The operator on the server's own machine, who has its secret.
pub(super) struct OperatorTokens {
    pub(super) key: Arc<DerivedKey>,
}

/// The salt of the operator's tokens.
pub(super) const OPERATOR_SALT: &str = "bennu operator";
/// What its data begins with.
pub(super) const OPERATOR_DATA: &str = "operator ";
/// For how long such a token holds: it is made for one request.
pub(super) const OPERATOR_MAX_AGE_S: i64 = 60;

impl Authenticator for OperatorTokens {
    fn name(&self) -> &'static str {
        "operator"
    }

    fn authenticate<'a>(&'a self, presented: &'a Presented) -> Answer<'a> {
        let max_age = Some(MaxAge::Seconds(OPERATOR_MAX_AGE_S));
        let data =
            token(presented).and_then(|token| phoenix_token::verify(&self.key, Some(token), max_age, now_ms()).ok());
        let is_it = data.is_some_and(|data| data.as_str().is_some_and(|data| data.starts_with(OPERATOR_DATA)));
        let rights = || Rights { method: "operator", grants: Grants::all(), ..Rights::default() };
        std::future::ready(Ok(is_it.then(|| Identity::new("operator", rights())))).boxed()
    }
}

/// Everyone, with a credential or without: the user `dev`. For development.
pub(super) struct Everyone;

impl Authenticator for Everyone {
    fn name(&self) -> &'static str {
        "development"
    }

    fn authenticate<'a>(&'a self, _presented: &'a Presented) -> Answer<'a> {
        std::future::ready(Ok(Some(Identity::unrestricted("dev")))).boxed()
    }
}
