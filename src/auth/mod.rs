//! Who is asking, and by what right: identities, the trait that finds them out, and what is known of a client meanwhile.
//!
//! ```text
//! Authenticator   what a client brought -> who it is, not mine, or refused
//! Chain           several of them, asked in order
//! Admitted        what a socket keeps of its client, for its channels
//! Live            who is here by which credential, until when: expiry and revocation
//! ```

pub mod admitted;
pub mod api_keys;
pub mod chain;
pub mod jwt;
pub mod live;
pub mod oauth;
pub mod phoenix_token;
pub mod sessions;

use std::net::IpAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::RwLock;

pub use self::admitted::Admitted;
pub use self::chain::Chain;
pub use self::live::Live;
pub use crate::protocol::mcp::session::Credential;
use crate::protocol::policy::Grants;

/// Who is asking. Two are equal where their users are; clones share their rights, which a later credential may renew.
#[derive(Clone)]
pub struct Identity {
    /// The user's id, unique in the deployment.
    pub user: Arc<str>,
    rights: Arc<RwLock<Arc<Rights>>>,
}

/// What an identity may do, and how it was found out.
#[derive(Clone, Debug, Default)]
pub struct Rights {
    /// The roles that the credential names, known to the policy or not.
    pub roles: Vec<String>,
    /// What it may do.
    pub grants: Grants,
    /// The authenticator's name: `jwt`, `api_key` and so on.
    pub method: &'static str,
    /// The credential by a name that is no secret, where it can be revoked by itself.
    pub credential: Option<Arc<str>>,
    /// The session whose token it came by, which can be revoked by itself too.
    pub session: Option<Arc<str>>,
    /// When the credential ends, in milliseconds since the Unix epoch.
    pub expires_unix_ms: Option<u64>,
}

impl Identity {
    /// A user with these rights.
    pub fn new(user: impl Into<Arc<str>>, rights: Rights) -> Self {
        Identity { user: user.into(), rights: Arc::new(RwLock::new(Arc::new(rights))) }
    }

    /// A user who may do everything.
    pub fn unrestricted(user: impl Into<Arc<str>>) -> Self {
        Self::new(user, Rights { grants: Grants::all(), ..Rights::default() })
    }

    /// A user who may do everything with what is their own, on every server.
    pub fn member(user: impl Into<Arc<str>>) -> Self {
        Self::new(user, Rights { grants: Grants::of_members(), ..Rights::default() })
    }

    /// A user who may do nothing: who owns something, not who asks for it.
    pub fn of_user(user: impl Into<Arc<str>>) -> Self {
        Self::new(user, Rights::default())
    }

    /// All that is known beside the user, at this moment.
    pub fn rights(&self) -> Arc<Rights> {
        Arc::clone(&self.rights.read())
    }

    /// Whether it is a clone of the other, so that a renewal is one of both.
    pub(crate) fn shares_rights(&self, other: &Identity) -> bool {
        Arc::ptr_eq(&self.rights, &other.rights)
    }

    /// Takes over the rights that a later credential of the same user brought, for all clones.
    pub fn renew(&self, later: &Identity) {
        let rights = later.rights();
        *self.rights.write() = rights;
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.user == other.user
    }
}

impl Eq for Identity {}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("user", &self.user)
            .field("roles", &self.rights().roles)
            .finish_non_exhaustive()
    }
}

/// Where a client wants to come in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Door {
    /// A socket, by its path.
    Socket(String),
    /// A topic of a socket.
    Topic(String),
    /// An MCP server over HTTP, by its name.
    Http(String),
    /// The operator's interface.
    Admin,
}

/// What an authenticator is given.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Presented {
    /// None where the client brought nothing.
    pub credential: Option<Credential>,
    /// Where it wants to come in.
    pub door: Door,
    /// The address of its connection, as far as it is known.
    pub ip: Option<IpAddr>,
    /// The values of its `X-Forwarded-For`, joined by commas; believed only where a trusted proxy sent them.
    pub forwarded: Option<String>,
    /// What the client calls itself.
    pub user_agent: Option<String>,
    /// Whether it takes the place of one that holds, on a channel that is open.
    pub is_renewal: bool,
    /// Who its socket is, where it has one that was let in.
    pub socket: Option<Identity>,
}

impl Presented {
    /// A credential at a door.
    pub fn new(credential: Option<Credential>, door: Door) -> Self {
        Presented { credential, door, ip: None, forwarded: None, user_agent: None, is_renewal: false, socket: None }
    }

    /// The same, in the place of one that holds.
    pub fn renewal(mut self) -> Self {
        self.is_renewal = true;
        self
    }

    /// The same, with what is known of the client's socket.
    pub fn by(mut self, admitted: Option<&Admitted>) -> Self {
        if let Some(admitted) = admitted {
            self.ip = admitted.ip();
            self.socket = admitted.identity().cloned();
        }
        self
    }
}

/// What begins the refusal of an address.
const ADDRESS_DENIED: &str = "IP access denied: ";

/// A credential was not accepted. The text is the join's `reason`; it says nothing that helps to guess.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AuthRefused(pub String);

impl AuthRefused {
    /// No credential, where one is needed.
    pub fn no_credentials() -> Self {
        AuthRefused("No authentication credentials provided".to_owned())
    }

    /// A token that is none of ours, whatever is wrong with it.
    pub fn invalid_token() -> Self {
        AuthRefused("Token verification failed: invalid".to_owned())
    }

    /// A token whose time is over.
    pub fn expired_token() -> Self {
        AuthRefused("Token verification failed: expired".to_owned())
    }

    /// A key that is none of ours, no longer, or never was.
    pub fn invalid_key() -> Self {
        AuthRefused("Invalid API key".to_owned())
    }

    /// The user has as many sessions as they may.
    pub fn too_many_sessions(limit: usize) -> Self {
        AuthRefused(format!("Maximum sessions ({limit}) reached for user"))
    }

    /// The address may not come in; `why` is one of the reasons of the deployment.
    pub fn address(why: &str) -> Self {
        AuthRefused(format!("{ADDRESS_DENIED}{why}"))
    }

    /// Whether it is the address that may not come in, whatever the credential.
    pub fn is_of_address(&self) -> bool {
        self.0.starts_with(ADDRESS_DENIED)
    }
}

/// Finds out who is behind a credential.
///
/// It is asked at each connect, join and request, and phoenix.js repeats a refused one for ever: refusing must be cheap.
pub trait Authenticator: Send + Sync + 'static {
    /// Its name, for the audit log.
    fn name(&self) -> &'static str;

    /// Who is asking; `Ok(None)` where the credential is not of a kind that this one knows, so that the next is asked.
    fn authenticate<'a>(&'a self, presented: &'a Presented) -> BoxFuture<'a, Result<Option<Identity>, AuthRefused>>;
}
