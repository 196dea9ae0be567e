//! What an operator chooses, and how the way in is made of it.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::authenticators::{
    Everyone, Jwts, Keys, OPERATOR_DATA, OPERATOR_MAX_AGE_S, OPERATOR_SALT, OperatorTokens, PhoenixTokens,
    SessionTokens, TestKey,
};
use super::recording::Recording;
use super::revoked::RevokedTokens;
use super::{Policy, Security};
use crate::audit::{Audit, AuditOptions};
use crate::auth::api_keys::{ApiKeys, KeysError, PREFIX_DEFAULT};
use crate::auth::jwt::{JwtOptions, JwtSetupError, JwtVerifier};
use crate::auth::live::Live;
use crate::auth::phoenix_token::{self, DerivedKey, KeyError, KeyOptions, MaxAge};
use crate::auth::sessions::{SessionOptions, Sessions};
use crate::auth::{Authenticator, Chain};
use crate::channel::{Endpoint, Payload};
use crate::clock;
use crate::guard::attempts::{Allowance, Attempts, Locking, Lockout};
use crate::guard::ip::{IpPattern, IpPatternError, IpRules};
use crate::guard::rate::{RateLimits, Rates};
use crate::protocol::etf::Term;
use crate::protocol::policy::{RoleError, Roles};
use crate::protocol::redact;
use crate::protocol::topic::TopicPattern;
use crate::random;
use crate::store::{Store, StoreError};

/// The salt of session tokens. Source: the Elixir deployment.
const SESSION_SALT: &str = "mcp_session";

/// A kind of credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CredentialKind {
    /// Phoenix tokens.
    PhoenixToken,
    /// JSON web tokens.
    Jwt,
    /// API keys.
    ApiKey,
    /// Tokens of MCP sessions that live.
    SessionToken,
}

/// How Phoenix tokens are read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenOptions {
    /// The salt of sockets' tokens.
    pub user_salt: String,
    /// The salt of MCP topics' tokens.
    pub mcp_salt: String,
    /// The salt of encrypted ones; none where they are not taken.
    pub encryption_salt: Option<String>,
    /// How old they may be, in seconds.
    pub max_age_s: u64,
    /// How keys are derived.
    pub key: KeyOptions,
}

impl Default for TokenOptions {
    fn default() -> Self {
        TokenOptions {
            user_salt: "user socket".to_owned(),
            mcp_salt: "mcp_auth".to_owned(),
            encryption_salt: None,
            max_age_s: 86_400,
            key: KeyOptions::default(),
        }
    }
}

/// What the way in is made of. The default lets nobody in but holders of API keys.
#[derive(Clone)]
#[non_exhaustive]
pub struct SecurityOptions {
    /// Authenticators of the program's own, asked before all others but at the operator's door; each sees at which door a client is, so that sockets and
    /// topics can have their own.
    pub authenticators: Vec<Arc<dyn Authenticator>>,
    /// Whether everyone is let in and may do everything, as the user `dev`; for development.
    pub is_open: bool,
    /// The secret that Phoenix tokens are signed with; without it there are none, and session tokens end with the process.
    pub secret_key_base: Option<SecretText>,
    /// What sockets take, in this order.
    pub socket: Vec<CredentialKind>,
    /// What MCP takes, in this order.
    pub mcp: Vec<CredentialKind>,
    /// What single MCP topics take instead; the first pattern that fits counts.
    pub mcp_topics: Vec<(TopicPattern, Vec<CredentialKind>)>,
    /// Whether a join of other topics than `mcp:session` without a credential is its socket's user.
    pub socket_user: bool,
    /// What roles grant.
    pub roles: Roles,
    /// The role of who has none that is known.
    pub default_role: String,
    /// Whether `test_key` is a key; for development.
    pub test_key: bool,
    /// Phoenix tokens.
    pub tokens: TokenOptions,
    /// JSON web tokens, where there are keys for them.
    pub jwt: Option<JwtOptions>,
    /// Sessions.
    pub sessions: SessionOptions,
    /// Rates; none where nothing is counted.
    pub rates: Option<RateLimits>,
    /// Roles whose users have more.
    pub high_roles: Vec<String>,
    /// Roles whose users have most.
    pub critical_roles: Vec<String>,
    /// Addresses that may connect; if there are any, no others may.
    pub allow: Vec<String>,
    /// Addresses that may not.
    pub deny: Vec<String>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<String>,
    /// Sockets that one address may try to open.
    pub attempts: Allowance,
    /// When failures lock an address out.
    pub locking: Locking,
    /// The audit log, if there is to be one.
    pub audit: Option<AuditOptions>,
}

impl std::fmt::Debug for SecurityOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecurityOptions").field("socket", &self.socket).field("mcp", &self.mcp).finish_non_exhaustive()
    }
}

impl Default for SecurityOptions {
    fn default() -> Self {
        SecurityOptions {
            authenticators: Vec::new(),
            is_open: false,
            secret_key_base: None,
            socket: vec![CredentialKind::PhoenixToken, CredentialKind::Jwt, CredentialKind::ApiKey],
            mcp: vec![
                CredentialKind::PhoenixToken,
                CredentialKind::Jwt,
                CredentialKind::ApiKey,
                CredentialKind::SessionToken,
            ],
            mcp_topics: Vec::new(),
            socket_user: true,
            roles: Roles::default(),
            default_role: "user".to_owned(),
            test_key: false,
            tokens: TokenOptions::default(),
            jwt: None,
            sessions: SessionOptions::default(),
            rates: Some(RateLimits::default()),
            high_roles: vec!["power_user".to_owned()],
            critical_roles: vec!["admin".to_owned()],
            allow: Vec::new(),
            deny: Vec::new(),
            trusted_proxies: Vec::new(),
            attempts: Allowance { attempts_max: 600, window_ms: 60_000 },
            locking: Locking { failures_max: 20, ..Locking::default() },
            audit: Some(AuditOptions::default()),
        }
    }
}

/// A text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl SecretText {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        SecretText(secret.into())
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretText(…)")
    }
}

/// Options that can't be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecurityError {
    /// The role of who has none is not in the table.
    #[error("auth.default_role: expected a role that there is, came {0:?}")]
    DefaultRole(String),
    /// A salt is the server's own: whoever has a token of it is somebody else.
    #[error("auth: expected another salt than {0:?}, which is this server's own")]
    Salt(String),
    /// A role can't be.
    #[error(transparent)]
    Role(#[from] RoleError),
    /// A key can't be derived.
    #[error("deriving the keys of tokens")]
    Key(#[from] KeyError),
    /// JSON web tokens can't be verified.
    #[error("jwt")]
    Jwt(#[from] JwtSetupError),
    /// An address is none.
    #[error("access")]
    Address(#[from] IpPatternError),
    /// The keys can't be read.
    #[error("API keys")]
    Keys(#[from] KeysError),
    /// The store can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The audit log can't be started.
    #[error("the audit log")]
    Audit(#[source] std::io::Error),
}

pub(super) async fn build(
    endpoint: &Endpoint,
    store: &Store,
    options: SecurityOptions,
) -> Result<Arc<Security>, SecurityError> {
    if !options.roles.contains(&options.default_role) {
        return Err(SecurityError::DefaultRole(options.default_role));
    }
    for salt in [&options.tokens.user_salt, &options.tokens.mcp_salt].into_iter().chain(&options.tokens.encryption_salt)
    {
        if [SESSION_SALT, OPERATOR_SALT].contains(&salt.as_str()) {
            return Err(SecurityError::Salt(salt.clone()));
        }
    }
    let policy = Arc::new(Policy { roles: options.roles, default_role: options.default_role });
    let keys = ApiKeys::open(store.clone(), PREFIX_DEFAULT).await?;
    let revoked_tokens = RevokedTokens::open(store.clone()).await?;
    let secret = options.secret_key_base.as_ref().map(|secret| secret.0.as_str());
    let derive = |salt: &str| secret.map(|secret| DerivedKey::derive(secret, salt, &options.tokens.key)).transpose();

    let session_key = match derive_default(secret, SESSION_SALT)? {
        Some(key) => key,
        None => DerivedKey::derive(&random_secret(), SESSION_SALT, &KeyOptions::default())?,
    };
    let session_key = Arc::new(session_key);
    // A session counts as long as it lives, its token shorter.
    let sessions = sessions(SessionOptions { per_user_max: usize::MAX, ..options.sessions }, &session_key);
    let session_users = super::SessionUsers::default();

    let phoenix = match (derive(&options.tokens.user_salt)?, derive(&options.tokens.mcp_salt)?) {
        (Some(socket), Some(mcp)) => Some(Arc::new(PhoenixTokens {
            policy: Arc::clone(&policy),
            socket: Arc::new(socket),
            mcp: Arc::new(mcp),
            encryption: match &options.tokens.encryption_salt {
                Some(salt) => derive(salt)?.map(Arc::new),
                None => None,
            },
            max_age_s: options.tokens.max_age_s,
        })),
        _ => None,
    };
    let jwt = match options.jwt {
        Some(jwt) => {
            let verifier = JwtVerifier::new(jwt)?;
            Some(Arc::new(Jwts { policy: Arc::clone(&policy), verifier, revoked: revoked_tokens.clone() }))
        }
        None => None,
    };
    let of_keys = Arc::new(Keys { policy: Arc::clone(&policy), keys: keys.clone() });
    let of_sessions = Arc::new(SessionTokens {
        sessions: sessions.clone(),
        key: Arc::clone(&session_key),
        users: Arc::clone(&session_users),
    });
    let test_key = options.test_key.then(|| Arc::new(TestKey { policy: Arc::clone(&policy) }));
    let is_open = options.is_open;
    let chain = |kinds: &[CredentialKind]| {
        let mut chain = Chain::default();
        for own in &options.authenticators {
            chain = chain.with(Arc::clone(own));
        }
        if is_open {
            return chain.with(Arc::new(Everyone));
        }
        // The session's tokens are Phoenix tokens too, of another salt.
        if kinds.contains(&CredentialKind::SessionToken) {
            chain = chain.with(of_sessions.clone());
        }
        if let Some(test_key) = &test_key {
            chain = chain.with(test_key.clone());
        }
        for kind in kinds {
            chain = match kind {
                CredentialKind::PhoenixToken => match &phoenix {
                    Some(phoenix) => chain.with(phoenix.clone()),
                    None => chain,
                },
                CredentialKind::Jwt => match &jwt {
                    Some(jwt) => chain.with(jwt.clone()),
                    None => chain,
                },
                CredentialKind::ApiKey => chain.with(of_keys.clone()),
                CredentialKind::SessionToken => chain,
            };
        }
        chain
    };
    let mut admin = Chain::default();
    if let Some(key) = derive_default(secret, OPERATOR_SALT)? {
        admin = admin.with(Arc::new(OperatorTokens { key: Arc::new(key) }));
    }
    if let Some(jwt) = &jwt {
        admin = admin.with(jwt.clone());
    }
    admin = if is_open { admin.with(Arc::new(Everyone)) } else { admin.with(of_keys.clone()) };

    let audit = match options.audit {
        Some(options) => {
            let publishing = endpoint.clone();
            let publish = move |topic: &str, event: &str, json| {
                // Who watches misses what there is no room for; the log has it.
                let _ = publishing.broadcast(topic, event, Payload::Json(json));
            };
            Some(Audit::start(options, redact::value, Box::new(publish)).map_err(SecurityError::Audit)?)
        }
        None => None,
    };
    let trusted: Result<Vec<_>, _> = options.trusted_proxies.iter().map(|text| IpPattern::parse(text)).collect();
    let security = Arc::new(Security {
        endpoint: endpoint.clone(),
        socket: chain(&options.socket),
        mcp: chain(&options.mcp),
        by_topic: options.mcp_topics.iter().map(|(topic, kinds)| (topic.clone(), chain(kinds))).collect(),
        admin,
        policy,
        may_inherit: options.socket_user,
        live: Live::default(),
        keys,
        revoked_tokens,
        sessions,
        session_users,
        places: Mutex::default(),
        sessions_per_user_max: options.sessions.per_user_max,
        rates: options.rates.map(Rates::new),
        high_roles: options.high_roles,
        critical_roles: options.critical_roles,
        attempts: Attempts::new(options.attempts),
        lockout: Lockout::new(options.locking, Locking { failures_max: 0, ..Locking::default() }),
        guessed: Mutex::new(HashMap::new()),
        just_revoked: Mutex::default(),
        rules: IpRules::parse(&options.allow, &options.deny, options.allow.is_empty())?,
        trusted: trusted?,
        recording: Recording::new(audit),
        node: u64::from_be_bytes(random::bytes()),
        tasks: OnceLock::new(),
    });
    security.begin();
    Ok(security)
}

/// A key of Bennu's own: derived as Phoenix does by default, whatever is set for the application's tokens.
fn derive_default(secret: Option<&str>, salt: &str) -> Result<Option<DerivedKey>, KeyError> {
    secret.map(|secret| DerivedKey::derive(secret, salt, &KeyOptions::default())).transpose()
}

/// A secret that ends with the process.
fn random_secret() -> String {
    random::bytes::<32>().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sessions(options: SessionOptions, key: &Arc<DerivedKey>) -> Sessions {
    let (signing, verifying) = (Arc::clone(key), Arc::clone(key));
    let sign = move |data: &str| {
        let signed_at_ms = i64::try_from(clock::unix_micros() / 1_000).unwrap_or(i64::MAX);
        let token = phoenix_token::sign(&signing, &Term::binary(data), signed_at_ms, MaxAge::Infinity);
        token.expect("an id is short, and the key is not empty")
    };
    let verify = move |token: &str| {
        let data = phoenix_token::verify(&verifying, Some(token), None, clock::unix_micros() / 1_000).ok()?;
        data.as_str().map(ToOwned::to_owned)
    };
    Sessions::new(options, sign, verify)
}

/// A token of the operator on this machine, for one request.
pub(crate) fn operator_token(secret_key_base: &str) -> Result<String, KeyError> {
    let key = DerivedKey::derive(secret_key_base, OPERATOR_SALT, &KeyOptions::default())?;
    let signed_at_ms = i64::try_from(clock::unix_micros() / 1_000).unwrap_or(i64::MAX);
    let nonce = u64::from_be_bytes(random::bytes());
    let data = Term::binary(format!("{OPERATOR_DATA}{nonce:016x}"));
    let token = phoenix_token::sign(&key, &data, signed_at_ms, MaxAge::Seconds(OPERATOR_MAX_AGE_S));
    Ok(token.expect("the data is short, and the key is not empty"))
}
