//! JSON Web Tokens that others sign: who is it, in what roles, until when.
//!
//! A [`JwtVerifier`] holds keys of its own and those that a JWK set by URL brings. Outside, a refusal is one of two
//! words; why it was refused goes to the debug log, without any part of the token. Nothing in a token makes the server
//! fetch, read or look up anything: `kid` is compared with the ids of the keys held, and `jku`, `x5u`, `x5c` and `jwk`
//! are not looked at.
//!
//! It signs nothing, does not decrypt (JWE), and knows nothing of revoked tokens.
//!
//! Source: RFC 7515 (JWS), RFC 7519 (JWT), RFC 8725 (best practices).

mod claims;
mod jwks;
mod key;
mod pem;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
pub use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

pub use self::claims::{CLAIMS_DEPTH_MAX, ClaimMap, USER_BYTES_MAX};
use self::claims::{Times, is_one_of};
use self::jwks::Remote;
pub use self::jwks::{
    JWKS_BYTES_MAX, JWKS_INTERVAL_MS, JWKS_REDIRECTS_MAX, JWKS_REFRESH_MS, JWKS_STALE_MS_MAX, JWKS_TIMEOUT,
};
pub use self::key::{JWK_SET_KEYS_MAX, KEYS_TRIED_MAX, LocalKey, SECRET_BYTES_MIN};
use self::key::{Keys, Signed};
use crate::clock;
use crate::protocol::Time;

/// Bytes of a token. Those of identity providers have one or two thousand; some with many groups have eight.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Seconds of leeway that a verifier has unless it is told otherwise.
pub const LEEWAY_S: u64 = 30;

/// What a [`JwtVerifier`] is made from.
#[derive(Clone)]
pub struct JwtOptions {
    /// The algorithms that are accepted, each only with keys of its own kind.
    pub algorithms: Vec<Algorithm>,
    /// Keys that need no network.
    pub keys: Vec<LocalKey>,
    /// Where a JWK set is: an `https` URL, or `http` on a loopback address.
    pub jwks_url: Option<String>,
    /// Milliseconds after which the JWK set is fetched again, when the next token comes. At least [`JWKS_INTERVAL_MS`].
    pub jwks_refresh_ms: u64,
    /// Whether the environment's HTTP proxy is used to fetch it.
    pub jwks_use_proxy: bool,
    /// Of which one has to be `iss`. Empty: any, or none. One that ends with `*` is a beginning: `AshAuthentication*`.
    pub issuers: Vec<String>,
    /// Of which one has to be in `aud`. Empty: not looked at. One that ends with `*` is a beginning.
    pub audiences: Vec<String>,
    /// Seconds that the clocks of the issuer and the server may be apart.
    pub leeway_s: u64,
    /// Whether a token has to have an expiry.
    pub require_exp: bool,
    /// Where in the claims stands what is wanted.
    pub claims: ClaimMap,
}

impl Default for JwtOptions {
    fn default() -> Self {
        JwtOptions {
            algorithms: Vec::new(),
            keys: Vec::new(),
            jwks_url: None,
            jwks_refresh_ms: JWKS_REFRESH_MS,
            jwks_use_proxy: false,
            issuers: Vec::new(),
            audiences: Vec::new(),
            leeway_s: LEEWAY_S,
            require_exp: true,
            claims: ClaimMap::default(),
        }
    }
}

impl fmt::Debug for JwtOptions {
    /// Leaves out the URL, whose query may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtOptions")
            .field("algorithms", &self.algorithms)
            .field("keys", &self.keys)
            .field("has_jwks_url", &self.jwks_url.is_some())
            .field("issuers", &self.issuers)
            .field("audiences", &self.audiences)
            .field("claims", &self.claims)
            .finish_non_exhaustive()
    }
}

/// What is wrong with the options: the operator's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtSetupError {
    /// No algorithm is accepted.
    #[error("expected at least one algorithm")]
    NoAlgorithms,
    /// There is nothing to verify with.
    #[error("expected a key or the URL of a JWK set")]
    NoKeys,
    /// A key is no good.
    #[error("key {at}: {why}")]
    Key {
        /// Its place among the keys, from 0.
        at: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The URL is no good.
    #[error("the URL of the JWK set: {0}")]
    Url(&'static str),
    /// HTTP requests can't be prepared.
    #[error("preparing requests: {0}")]
    Client(String),
}

/// What a verified token says.
#[derive(Clone, PartialEq)]
pub struct JwtClaims {
    /// The user's id, at most [`USER_BYTES_MAX`] bytes without control characters.
    pub user: String,
    /// The roles, as they stand there.
    pub roles: Vec<String>,
    /// The capabilities, as they stand there.
    pub capabilities: Vec<String>,
    /// When it stops being good, in Unix milliseconds: `exp` and the leeway.
    pub expires_unix_ms: Option<u64>,
    /// The token's own id, `jti`.
    pub id: Option<String>,
    /// Who has signed it, `iss`.
    pub issuer: Option<String>,
    /// All claims: an object.
    pub claims: Value,
}

impl fmt::Debug for JwtClaims {
    /// Leaves out the claims, which hold what their user would not like to see in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtClaims")
            .field("user", &self.user)
            .field("roles", &self.roles)
            .field("capabilities", &self.capabilities)
            .field("expires_unix_ms", &self.expires_unix_ms)
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

/// A token was not accepted. More than this is said to nobody but the debug log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtRefused {
    /// It was good in all but its time. Only who held a good token hears this.
    #[error("expired")]
    Expired,
    /// Anything else.
    #[error("invalid")]
    Invalid,
}

/// Why, for the debug log: no variant holds a part of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Why {
    #[error("longer than the limit")]
    TooLong,
    #[error("not three parts of base64url with JSON objects in them, or JSON with repeated keys or nested too deep")]
    Malformed,
    #[error("its algorithm is not accepted")]
    Algorithm,
    #[error("its header has critical extensions")]
    Critical,
    #[error("no key has made the signature")]
    Signature,
    #[error("another issuer")]
    Issuer,
    #[error("another audience")]
    Audience,
    #[error("not good yet, or issued in the future")]
    NotYet,
    #[error("without an expiry")]
    NoExpiry,
    #[error("expired")]
    Expired,
    #[error("no user that can be one")]
    NoUser,
}

impl From<Why> for JwtRefused {
    fn from(why: Why) -> Self {
        if why == Why::Expired { JwtRefused::Expired } else { JwtRefused::Invalid }
    }
}

/// Verifies tokens. Dropped, it ends the request that fetches its keys.
#[derive(Debug)]
pub struct JwtVerifier {
    algorithms: Vec<Algorithm>,
    local: Keys,
    remote: Option<Remote>,
    issuers: Vec<String>,
    audiences: Vec<String>,
    leeway_ms: u64,
    require_exp: bool,
    map: ClaimMap,
}

impl JwtVerifier {
    /// Reads the keys. It asks no network: a JWK set is fetched when the first token comes that needs it.
    ///
    /// # Errors
    /// [`JwtSetupError`], which holds no part of a key.
    pub fn new(options: JwtOptions) -> Result<Self, JwtSetupError> {
        Self::with_timeout(options, JWKS_TIMEOUT)
    }

    fn with_timeout(options: JwtOptions, jwks_timeout: Duration) -> Result<Self, JwtSetupError> {
        if options.algorithms.is_empty() {
            return Err(JwtSetupError::NoAlgorithms);
        }
        if options.keys.is_empty() && options.jwks_url.is_none() {
            return Err(JwtSetupError::NoKeys);
        }
        let local = Keys::local(&options.keys).map_err(|(at, why)| JwtSetupError::Key { at, why })?;
        let open = |url: String| Remote::open(&url, options.jwks_refresh_ms, options.jwks_use_proxy, jwks_timeout);
        Ok(JwtVerifier {
            algorithms: options.algorithms,
            local,
            remote: options.jwks_url.map(open).transpose()?,
            issuers: options.issuers,
            audiences: options.audiences,
            leeway_ms: options.leeway_s.saturating_mul(1_000),
            require_exp: options.require_exp,
            map: options.claims,
        })
    }

    /// Verifies a token at a time, in Unix milliseconds.
    ///
    /// It waits for the network at most [`JWKS_TIMEOUT`]: where no keys are held that are fresh enough, and where the
    /// token names a key that is not held, unless a JWK set was asked for within [`JWKS_INTERVAL_MS`]. Cancel-safe.
    ///
    /// # Errors
    /// [`JwtRefused::Expired`] for what was a good token; [`JwtRefused::Invalid`] for all else.
    pub async fn verify(&self, token: &str, now_unix_ms: u64) -> Result<JwtClaims, JwtRefused> {
        self.verify_at(token, now_unix_ms, clock::now()).await
    }

    /// `now` is for the age of fetched keys, which no change of the wall clock touches.
    async fn verify_at(&self, token: &str, now_unix_ms: u64, now: Time) -> Result<JwtClaims, JwtRefused> {
        let judged = match parts(token).and_then(|parts| Ok((self.header(&parts)?, parts))) {
            Ok((header, parts)) => self.judge(&header, &parts, now_unix_ms, now).await,
            Err(why) => Err(why),
        };
        judged.map_err(|why| {
            tracing::debug!(%why, "a JWT was refused");
            why.into()
        })
    }

    fn header(&self, parts: &Parts<'_>) -> Result<Header, Why> {
        let mut fields = claims::object(&parts.header)?;
        // `b64` counts only where `crit` names it. Source: RFC 7797 section 6.
        if fields.contains_key("crit") {
            return Err(Why::Critical);
        }
        let kid = match fields.remove("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid),
            Some(_) => return Err(Why::Malformed),
        };
        let algorithm = fields.get("alg").and_then(Value::as_str).and_then(|name| Algorithm::from_str(name).ok());
        let algorithm = algorithm.filter(|algorithm| self.algorithms.contains(algorithm)).ok_or(Why::Algorithm)?;
        Ok(Header { algorithm, kid })
    }

    async fn judge(&self, header: &Header, parts: &Parts<'_>, now_unix_ms: u64, now: Time) -> Result<JwtClaims, Why> {
        let signed = Signed {
            algorithm: header.algorithm,
            kid: header.kid.as_deref(),
            message: parts.message,
            signature: &parts.signature,
        };
        let is_signed = self.local.verify(&signed)
            || match &self.remote {
                Some(remote) => remote.verify(&signed, now).await,
                None => false,
            };
        if is_signed { self.read(&parts.claims, now_unix_ms) } else { Err(Why::Signature) }
    }

    fn read(&self, json: &[u8], now_unix_ms: u64) -> Result<JwtClaims, Why> {
        let claims: Map<String, Value> = claims::object(json)?;
        if !is_one_of(&self.issuers, claims.get("iss").filter(|issuer| issuer.is_string())) {
            return Err(Why::Issuer);
        }
        if !is_one_of(&self.audiences, claims.get("aud")) {
            return Err(Why::Audience);
        }
        let user = self.map.user(&claims)?;
        // Last, so that only a token that was good is called expired.
        let expires_unix_ms = Times::of(&claims)?.check(now_unix_ms, self.leeway_ms, self.require_exp)?;
        let text = |name| claims.get(name).and_then(Value::as_str).map(str::to_owned);
        Ok(JwtClaims {
            user,
            roles: self.map.roles(&claims),
            capabilities: self.map.capabilities(&claims),
            expires_unix_ms,
            id: text("jti"),
            issuer: text("iss"),
            claims: Value::Object(claims),
        })
    }
}

struct Header {
    algorithm: Algorithm,
    kid: Option<String>,
}

/// A token taken apart. Nothing of it is believed yet.
struct Parts<'a> {
    header: Vec<u8>,
    claims: Vec<u8>,
    signature: Vec<u8>,
    message: &'a [u8],
}

/// Takes a token apart. Base64url is strict, so that each token has one form only. Source: RFC 7515 section 7.1.
fn parts(token: &str) -> Result<Parts<'_>, Why> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Why::TooLong);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(Why::Malformed)?;
    // A second dot in the claims is no base64url.
    let (header, claims) = message.split_once('.').ok_or(Why::Malformed)?;
    let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Why::Malformed);
    Ok(Parts {
        header: bytes(header)?,
        claims: bytes(claims)?,
        signature: bytes(signature)?,
        message: message.as_bytes(),
    })
}
