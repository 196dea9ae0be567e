//! Settings to the way in.

use std::time::Duration;

use anyhow::Context;

use crate::audit::AuditOptions;
use crate::auth::jwt::{Algorithm, ClaimMap, JwtOptions, JwtVerifier, LocalKey};
use crate::auth::oauth::ProtectedResource;
use crate::auth::phoenix_token::{KeyDigest, KeyOptions};
use crate::auth::sessions::SessionOptions;
use crate::config::{AuthMethod, Jwt, Mode, Settings};
use crate::guard::attempts::{Allowance, Locking};
use crate::guard::rate::{Quota, RateLimits};
use crate::protocol::policy::{RoleError, Roles};
use crate::protocol::topic::TopicPattern;
use crate::security::{CredentialKind, SecretText, SecurityOptions, TokenOptions};

/// The window in which attempts of an address are counted.
const ATTEMPTS_WINDOW: Duration = Duration::from_secs(60);
/// The window in which its failures are.
const FAILURES_WINDOW: Duration = Duration::from_secs(300);

/// The table of roles: those that are built in, and those of the settings in their place.
///
/// # Errors
/// A role can't be.
pub fn roles(settings: &Settings) -> Result<Roles, RoleError> {
    settings.roles.iter().try_fold(Roles::default(), |roles, (name, capabilities)| roles.with(name, capabilities))
}

/// What the way in will be, on one screen; made of the same settings as the way in itself, so that what can't be is said.
///
/// # Errors
/// As [`options`] and [`resource`].
pub fn summary(settings: &Settings) -> anyhow::Result<String> {
    let auth = &settings.auth;
    let options = options(settings)?;
    resource(settings)?;
    if let Some(jwt) = options.jwt {
        JwtVerifier::new(jwt).context("jwt")?;
    }
    if auth.method == AuthMethod::None {
        return Ok("no authentication: everyone on this machine is the user `dev` and may do everything".to_owned());
    }
    let Settings { limits, access, topics, audit, .. } = settings;
    let mut text = format!("sockets take {}\nMCP takes {}\n", auth.socket.join(", "), auth.mcp.join(", "));
    for topic in &auth.mcp_topics {
        text += &format!("  but {}\n", topic.replace('=', " takes "));
    }
    text += &format!("roles; who has none that is listed is {}:\n", auth.default_role);
    for (role, capabilities) in options.roles.iter() {
        let capabilities: Vec<_> = capabilities.iter().map(ToString::to_string).collect();
        text += &format!("  {role:<12} {}\n", capabilities.join(" "));
    }
    let listed = |list: &[String], none: &str| if list.is_empty() { none.to_owned() } else { list.join(", ") };
    text += &format!("topics without code: {}\n", listed(&topics.patterns, "none"));
    text += &match limits.enabled {
        true => format!(
            "a user has {} tokens and {} for bursts, {} come back in a minute\n",
            limits.user_tokens, limits.user_burst, limits.user_refill_per_minute
        ),
        false => "requests are not limited\n".to_owned(),
    };
    let (allow, deny) = (listed(&access.allow, "all"), listed(&access.deny, "none"));
    text +=
        &format!("addresses: {allow} allowed, {deny} denied; proxies: {}\n", listed(&access.trusted_proxies, "none"));
    text += &match (audit.enabled, &audit.folder) {
        (true, Some(folder)) => format!("the audit log is in {}\n", folder.display()),
        (true, None) => "the audit log is in memory alone\n".to_owned(),
        (false, _) => "there is no audit log\n".to_owned(),
    };
    for warning in warnings(settings) {
        text += &format!("warning: {warning}\n");
    }
    Ok(text.trim_end().to_owned())
}

/// What can be, and is hardly meant.
fn warnings(settings: &Settings) -> Vec<&'static str> {
    let Settings { jwt, tls, access, store, .. } = settings;
    let has_keys = jwt.secret.is_some() || jwt.key_file.is_some() || jwt.jwks_url.is_some();
    let takes_secrets = jwt.algorithms.iter().any(|name| name.starts_with("HS"));
    let cases = [
        (
            jwt.secret.is_some() && !takes_secrets,
            "jwt.secret is of no use: jwt.algorithms has none of HS256, HS384, HS512",
        ),
        (
            has_keys && jwt.audiences.is_empty() && settings.oauth.resource.is_none(),
            "jwt.audiences is empty: tokens that their issuer made for others are accepted",
        ),
        (
            settings.server.mode == Mode::Production
                && tls.certificate_file.is_none()
                && access.trusted_proxies.is_empty(),
            "there is neither TLS nor a trusted proxy: credentials travel in the clear",
        ),
        (store.path.is_none(), "store.path is not set: API keys and revocations end with the process"),
    ];
    cases.into_iter().filter(|(is_so, _)| *is_so).map(|(_, warning)| warning).collect()
}

/// What the way in is made of.
///
/// # Errors
/// A file can't be read, or holds no key.
pub fn options(settings: &Settings) -> anyhow::Result<SecurityOptions> {
    let Settings { server, auth, access, limits, audit, .. } = settings;
    let digest = match auth.key_digest.as_str() {
        "sha384" => KeyDigest::Sha384,
        "sha512" => KeyDigest::Sha512,
        _ => KeyDigest::Sha256,
    };
    let window_ms = |window: Duration| u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    Ok(SecurityOptions {
        authenticators: Vec::new(),
        is_open: auth.method == AuthMethod::None,
        secret_key_base: server.secret_key_base.as_ref().map(|secret| SecretText::new(secret.expose())),
        socket: kinds(&auth.socket),
        mcp: kinds(&auth.mcp),
        mcp_topics: auth.mcp_topics.iter().map(|text| topic_kinds(text)).collect::<anyhow::Result<_>>()?,
        socket_user: auth.socket_user,
        roles: roles(settings)?,
        default_role: auth.default_role.clone(),
        test_key: auth.test_key,
        tokens: TokenOptions {
            user_salt: auth.user_salt.clone(),
            mcp_salt: auth.mcp_salt.clone(),
            encryption_salt: auth.encryption_salt.clone(),
            max_age_s: auth.token_max_age_s,
            key: KeyOptions { iterations: auth.key_iterations, length: auth.key_bytes, digest },
        },
        jwt: jwt(settings)?,
        sessions: SessionOptions {
            timeout_s: auth.session_timeout_ms / 1_000,
            per_user_max: if auth.sessions_per_user_max == 0 { usize::MAX } else { auth.sessions_per_user_max },
            refresh_window_s: auth.session_refresh_window_ms / 1_000,
            revoked_remembered_s: auth.session_timeout_ms / 1_000,
            ..SessionOptions::default()
        },
        rates: limits.enabled.then(|| rates(settings)),
        high_roles: limits.high_roles.clone(),
        critical_roles: limits.critical_roles.clone(),
        allow: access.allow.clone(),
        deny: access.deny.clone(),
        trusted_proxies: access.trusted_proxies.clone(),
        attempts: Allowance { attempts_max: access.attempts_per_minute, window_ms: window_ms(ATTEMPTS_WINDOW) },
        locking: Locking {
            failures_max: access.failures_max,
            window_ms: window_ms(FAILURES_WINDOW),
            locked_ms: access.lockout_ms,
        },
        audit: audit.enabled.then(|| AuditOptions {
            folder: audit.folder.clone(),
            file_bytes_max: audit.file_bytes_max,
            retention_days: audit.retention_days.into(),
            ..AuditOptions::default()
        }),
    })
}

fn topic_kinds(text: &str) -> anyhow::Result<(TopicPattern, Vec<CredentialKind>)> {
    let (topic, words) = text.split_once('=').context("auth.mcp_topics: expected a topic and what it takes")?;
    let words: Vec<_> = words.split('+').map(ToOwned::to_owned).collect();
    Ok((TopicPattern::parse(topic)?, kinds(&words)))
}

fn kinds(words: &[String]) -> Vec<CredentialKind> {
    let kind = |word: &String| match word.as_str() {
        "phoenix_token" => CredentialKind::PhoenixToken,
        "jwt" => CredentialKind::Jwt,
        "session_token" => CredentialKind::SessionToken,
        _ => CredentialKind::ApiKey,
    };
    words.iter().map(kind).collect()
}

fn rates(settings: &Settings) -> RateLimits {
    let limits = &settings.limits;
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let quota = |times: u64, tokens: u64, burst: u64, per_minute: u64| Quota {
        tokens: number(tokens.saturating_mul(times)),
        burst: number(burst.saturating_mul(times)),
        refill_milli_per_s: number(per_minute.saturating_mul(times).saturating_mul(1_000).div_ceil(60)),
    };
    let of_user = |times| quota(times, limits.user_tokens, limits.user_burst, limits.user_refill_per_minute);
    let mut rates = RateLimits {
        global: quota(1, limits.global_tokens, limits.global_burst, limits.global_refill_per_minute),
        normal: of_user(1),
        high: of_user(5),
        critical: of_user(10),
        // Who is refused all the time must not use up what all share.
        refunds_global: true,
        ..RateLimits::default()
    };
    for (method, cost) in limits.costs.iter().filter_map(|cost| cost.split_once('=')) {
        rates.costs.insert(method.to_owned(), cost.parse().expect("Kind::Cost parsed it"));
    }
    rates
}

/// The verifier of JSON web tokens, where there is a key for them.
fn jwt(settings: &Settings) -> anyhow::Result<Option<JwtOptions>> {
    let Jwt { algorithms, secret, key_file, jwks_url, .. } = &settings.jwt;
    let mut keys: Vec<_> = secret.iter().map(|secret| LocalKey::Secret(secret.expose().as_bytes().to_vec())).collect();
    if let Some(path) = key_file {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("jwt.key_file: reading {}", path.display()))?;
        keys.push(if text.trim_start().starts_with('{') { LocalKey::JwkSet(text) } else { LocalKey::Pem(text) });
    }
    if keys.is_empty() && jwks_url.is_none() {
        return Ok(None);
    }
    let jwt = &settings.jwt;
    let algorithms: Result<Vec<Algorithm>, _> = algorithms.iter().map(|name| name.parse()).collect();
    let mut audiences = jwt.audiences.clone();
    if audiences.is_empty() {
        audiences.extend(settings.oauth.resource.clone());
    }
    Ok(Some(JwtOptions {
        algorithms: algorithms.map_err(|_| anyhow::anyhow!("jwt.algorithms: a name is unknown"))?,
        keys,
        jwks_url: jwks_url.clone(),
        jwks_refresh_ms: jwt.jwks_refresh_ms,
        issuers: jwt.issuers.clone(),
        audiences,
        leeway_s: jwt.leeway_s,
        claims: ClaimMap {
            user: jwt.user_claim.clone(),
            user_prefix_strip: jwt.user_after_id.then(|| "id=".to_owned()),
            roles: jwt.roles_claim.clone(),
            capabilities: jwt.capabilities_claim.clone(),
        },
        ..JwtOptions::default()
    }))
}

/// MCP as a protected resource, where the settings describe one.
///
/// # Errors
/// They describe none that can be.
pub fn resource(settings: &Settings) -> anyhow::Result<Option<ProtectedResource>> {
    let oauth = &settings.oauth;
    let Some(resource) = &oauth.resource else { return Ok(None) };
    let described = ProtectedResource::new(resource, oauth.authorization_servers.clone(), oauth.scopes.clone(), None);
    Ok(Some(described.context("oauth")?))
}
