//! The way in that Bennu brings along: authenticators, policy, limits and audit put together.
//!
//! ```text
//! Security::connect        who a socket's client is
//! impl McpAuth             who is on an MCP topic or asks over HTTP, what they may do, how often, and that it is written down
//! TopicChannel             topics without code
//! Security::revoke         credentials and users that are to go
//! ```

mod audit_channel;
mod authenticators;
mod connect;
mod mcp;
mod options;
mod queues;
mod recording;
mod revoked;
mod stay;
#[cfg(test)]
mod tests;
mod topics;

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::AbortHandle;

pub use self::mcp::SecuredMcp;
pub(crate) use self::options::operator_token;
pub use self::options::{CredentialKind, SecretText, SecurityError, SecurityOptions, TokenOptions};
use self::recording::Recording;
use self::revoked::RevokedTokens;
use crate::audit::{ALERTS_TOPIC, AUDIT_TOPIC, Audit};
use crate::auth::api_keys::{ApiKeys, KeyRecord, KeysError, NewKey};
use crate::auth::live::{Gone, Live, Resident, Revoked};
use crate::auth::sessions::{SessionRefused, Sessions};
use crate::auth::{AuthRefused, Chain, Credential, Door, Identity, Presented, Rights};
use crate::channel::{Endpoint, Payload, RecvError, SocketSpecBuilder};
use crate::clock;
use crate::guard::attempts::{Attempts, Lockout, counted};
use crate::guard::ip::{IpDenied, IpPattern, IpRules, client_ip};
use crate::guard::rate::{Priority, Rates};
use crate::mcp::auth::RateLimited;
use crate::mcp::deployment::Deployment;
use crate::protocol::Time;
use crate::protocol::mcp::{HUB_TOPIC, SERVER_TOPIC_PREFIX, SESSION_TOPIC};
use crate::protocol::policy::{Capability, Roles};
use crate::protocol::topic::TopicPattern;

/// Topic on which every node hears of revocations.
const REVOCATIONS: &str = "bennu:revocations";
/// Event of one.
const REVOKED: &str = "revoked";
/// What begins the ids of sockets. Source: the Elixir deployment.
const SOCKET_ID_PREFIX: &str = "user_socket:";
/// The name of session tokens among credentials.
const SESSION_CREDENTIAL: &str = "session_token";
/// How often what is over is forgotten, and what was counted is stored.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// For how long the same wrong credential from the same address counts once: phoenix.js repeats a refused one for ever, and its
/// neighbours must not be locked out for it.
const SAME_GUESS_MS: u64 = 3_600_000;
/// For how long keys that were revoked or expired are listed.
const ENDED_KEYS_MS: u64 = 90 * 86_400_000;
/// Wrong credentials that are remembered for that; beyond them each counts.
const GUESSES_MAX: usize = 65_536;

/// For how long a revoked credential is looked for among those who come in, which takes them far less.
const COMING_IN_MS: u64 = 60_000;
/// How many are looked for.
const JUST_REVOKED_MAX: usize = 1_024;

/// Whose sessions they are, with their rights, by the sessions' ids.
type SessionUsers = Arc<Mutex<HashMap<Arc<str>, Identity>>>;

/// The way in.
pub struct Security {
    endpoint: Endpoint,
    socket: Chain,
    mcp: Chain,
    by_topic: Vec<(TopicPattern, Chain)>,
    admin: Chain,
    policy: Arc<Policy>,
    may_inherit: bool,
    live: Live,
    keys: ApiKeys,
    revoked_tokens: RevokedTokens,
    sessions: Sessions,
    session_users: SessionUsers,
    /// How many sessions each user has that live, whatever has become of their tokens.
    places: Mutex<HashMap<Arc<str>, usize>>,
    sessions_per_user_max: usize,
    rates: Option<Rates>,
    high_roles: Vec<String>,
    critical_roles: Vec<String>,
    attempts: Attempts,
    lockout: Lockout,
    /// Wrong credentials with their addresses, as hashes of a key that this process alone has.
    guessed: Mutex<HashMap<u64, Time>>,
    just_revoked: Mutex<VecDeque<(String, Time)>>,
    rules: IpRules,
    trusted: Vec<IpPattern>,
    recording: Recording,
    /// A number of this node's own.
    node: u64,
    tasks: OnceLock<[AbortHandle; 3]>,
}

/// What nodes tell each other of a revocation.
#[derive(serde::Serialize, serde::Deserialize)]
struct Told {
    /// Who tells it.
    node: u64,
    revoked: Revoked,
}

/// Roles, and who has none.
struct Policy {
    roles: Roles,
    default_role: String,
}

impl Policy {
    /// What an identity with these roles and capabilities may do; a text that is no capability refuses the credential, since it
    /// might deny something.
    fn rights(&self, roles: Vec<String>, capabilities: &[String]) -> Result<Rights, AuthRefused> {
        let own: Result<Vec<_>, _> = capabilities.iter().map(|text| Capability::parse(text)).collect();
        let grants = own.and_then(|own| self.roles.resolve(&roles, &own, &self.default_role));
        let grants = grants.map_err(|error| {
            tracing::warn!(%error, "a credential's capabilities can't be used");
            AuthRefused::invalid_token()
        })?;
        Ok(Rights { roles, grants, ..Rights::default() })
    }
}

impl Security {
    /// Puts everything together. Within a runtime.
    ///
    /// # Errors
    /// [`SecurityError`]: what the options say can't be.
    pub async fn start(
        endpoint: &Endpoint,
        deployment: &Deployment,
        options: SecurityOptions,
    ) -> Result<Arc<Self>, SecurityError> {
        options::build(endpoint, deployment.store(), options).await
    }

    /// Lets clients of a socket in, and adds the audit log's topics and those without code to it.
    pub fn socket(self: &Arc<Self>, socket: SocketSpecBuilder, topics: &[String]) -> SocketSpecBuilder {
        let security = Arc::clone(self);
        let socket = socket.connect(move |info| {
            let security = Arc::clone(&security);
            async move { security.connect(info).await }
        });
        let socket = socket
            .channel_with::<audit_channel::AuditChannel>(AUDIT_TOPIC, self.clone())
            .channel_with::<audit_channel::AuditChannel>(ALERTS_TOPIC, self.clone());
        topics.iter().fold(socket, |socket, pattern| socket.channel_with::<topics::TopicChannel>(pattern, self.clone()))
    }

    /// Makes queues of these names and patterns topics of a socket. Before [`Security::socket`], if its topics match some of
    /// them.
    pub fn queues(self: &Arc<Self>, socket: SocketSpecBuilder, queues: &[String]) -> SocketSpecBuilder {
        queues.iter().fold(socket, |socket, queue| socket.channel_with::<queues::QueueChannel>(queue, self.clone()))
    }

    /// Who is asking: the address is looked at first, then the credential.
    ///
    /// # Errors
    /// [`AuthRefused`].
    pub(crate) async fn authenticate(&self, presented: Presented) -> Result<Identity, AuthRefused> {
        let ip = self.client_ip(&presented);
        let refused = ip.and_then(|ip| self.check_address(ip, &presented).err());
        let outcome = match refused {
            Some(refused) => Err(refused),
            None => self.identify(&presented).await,
        };
        if let (Err(refused), Some(ip)) = (&outcome, ip)
            && is_guess(&presented, refused)
        {
            self.note_guess(ip, &presented);
        }
        self.recording.authentication(&presented, ip, &outcome);
        outcome
    }

    async fn identify(&self, presented: &Presented) -> Result<Identity, AuthRefused> {
        let chain = match &presented.door {
            Door::Socket(_) => &self.socket,
            Door::Admin => &self.admin,
            Door::Topic(topic) => self.chain_of(topic),
            Door::Http(server) => self.chain_of(&format!("{SERVER_TOPIC_PREFIX}{server}")),
        };
        match (&presented.credential, &presented.door, &presented.socket) {
            (None, Door::Topic(topic), Some(user))
                if self.may_inherit && !is_of_deployment(topic) && !self.is_apart(topic) =>
            {
                let ends = user.rights().expires_unix_ms;
                match ends.is_none_or(|ends| ends > clock::unix_micros() / 1_000) {
                    true => Ok(user.clone()),
                    false => Err(AuthRefused::expired_token()),
                }
            }
            _ => chain.authenticate(presented).await,
        }
    }

    /// Whether a topic takes other credentials than the rest, so that a socket's are not enough.
    fn is_apart(&self, topic: &str) -> bool {
        let topic = of_which(topic);
        self.by_topic.iter().any(|(pattern, _)| pattern.matches(&topic))
    }

    fn chain_of(&self, topic: &str) -> &Chain {
        let topic = of_which(topic);
        self.by_topic.iter().find(|(pattern, _)| pattern.matches(&topic)).map_or(&self.mcp, |(_, chain)| chain)
    }

    /// The client's own address: that of its connection, or the one that a trusted proxy tells.
    fn client_ip(&self, presented: &Presented) -> Option<IpAddr> {
        presented.ip.map(|peer| client_ip(peer, presented.forwarded.as_deref(), &self.trusted))
    }

    /// Whether an address may come in. Sockets are counted as they connect; elsewhere only what fails is.
    fn check_address(&self, ip: IpAddr, presented: &Presented) -> Result<(), AuthRefused> {
        let now = clock::now();
        let denied = |denied: IpDenied| AuthRefused::address(&denied.to_string());
        // A lock keeps those out who come in: not who is in already, nor the operator on this machine.
        let is_in = presented.socket.is_some() && (presented.credential.is_none() || presented.is_renewal);
        let is_operator = presented.door == Door::Admin && ip.is_loopback();
        let is_locked = !is_in && !is_operator && self.lockout.is_locked(ip, now);
        self.rules.check(ip, is_locked).map_err(denied)?;
        match &presented.door {
            Door::Socket(_) => self.attempts.attempt(ip, now).map_err(|_| denied(IpDenied::Locked)),
            _ => Ok(()),
        }
    }

    fn note_guess(&self, ip: IpAddr, presented: &Presented) {
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let guess = KEY.hash_one((counted(ip), credential_text(presented)));
        let now = clock::now();
        {
            let mut guessed = self.guessed.lock();
            if guessed.get(&guess).is_some_and(|at| now.since(*at) < SAME_GUESS_MS) {
                return;
            }
            if guessed.len() < GUESSES_MAX {
                guessed.insert(guess, now);
            }
        }
        if self.lockout.failed(ip, None, now).ip {
            tracing::warn!(%ip, "an address is locked out after many wrong credentials");
            self.recording.locked_out(ip);
        }
    }

    /// Counts one request of a user.
    fn admit(&self, user: &Identity, method: &str) -> Result<(), RateLimited> {
        let Some(rates) = &self.rates else { return Ok(()) };
        let rights = user.rights();
        let has = |roles: &[String]| rights.roles.iter().any(|role| roles.contains(role));
        let priority = match (has(&self.critical_roles), has(&self.high_roles)) {
            (true, _) => Priority::Critical,
            (_, true) => Priority::High,
            _ => Priority::Normal,
        };
        let checked = rates.check(&user.user, priority, method, clock::now());
        checked.map_err(|after| RateLimited { retry_after_s: after.seconds })
    }

    /// Lets a client stay while its credential holds, and a session if it has one. One that was revoked while it came in is told
    /// at once.
    fn enter(
        &self,
        identity: &Identity,
        session: Option<&Arc<str>>,
        leave: impl Fn(Gone) + Send + Sync + 'static,
    ) -> Resident {
        let leave = Arc::new(leave);
        let told = Arc::clone(&leave);
        let resident = self.live.enter(identity, session.cloned(), move |gone| told(gone));
        let rights = identity.rights();
        let names = [rights.credential.as_deref(), rights.session.as_deref(), session.map(|session| &**session)];
        let is_gone = {
            let revoked = self.just_revoked.lock();
            names.into_iter().flatten().any(|name| revoked.iter().any(|(gone, _)| gone == name))
        };
        let has_ended = || {
            let session = rights.session.as_ref();
            session.is_some_and(|session| !self.session_users.lock().contains_key(session))
        };
        if is_gone {
            leave(Gone::Revoked);
        } else if has_ended() {
            leave(Gone::Expired);
        }
        resident
    }

    /// Who is here.
    #[cfg(test)]
    pub(crate) fn live(&self) -> &Live {
        &self.live
    }

    /// The API keys.
    pub(crate) fn keys(&self) -> &ApiKeys {
        &self.keys
    }

    /// The sessions.
    pub(crate) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The audit log, if there is one.
    pub(crate) fn audit(&self) -> Option<&Audit> {
        self.recording.audit()
    }

    /// Notes that a user may not do something with a topic.
    pub(crate) fn denied(&self, user: &Identity, topic: &str, capability: &str) {
        self.recording.denied(user, topic, capability);
    }

    /// Tells all to go, on every node, who came by a credential or are a user: their sockets close with 1001.
    pub(crate) fn revoke(&self, revoked: &Revoked) -> usize {
        if let Revoked::Credential(credential) = revoked {
            let now = clock::now();
            let mut just = self.just_revoked.lock();
            just.retain(|(_, at)| now.since(*at) < COMING_IN_MS);
            just.push_back((credential.clone(), now));
            while just.len() > JUST_REVOKED_MAX {
                just.pop_front();
            }
        }
        let gone = self.live.revoke(revoked);
        let told =
            self.endpoint.broadcast(REVOCATIONS, REVOKED, json!(Told { node: self.node, revoked: revoked.clone() }));
        let told = match revoked {
            Revoked::User(user) => told.and(self.endpoint.disconnect(&format!("{SOCKET_ID_PREFIX}{user}"))),
            Revoked::Credential(_) => told,
        };
        if told.is_err() {
            tracing::error!("other nodes were not told of a revocation: there is too much waiting");
        }
        self.recording.revoked(revoked, gone);
        gone
    }

    /// Revokes an API key. Its record and how many were cut off, or none where there is no such key.
    ///
    /// # Errors
    /// [`KeysError`].
    pub(crate) async fn revoke_key(
        self: &Arc<Self>,
        id: &str,
        now_unix_ms: u64,
    ) -> Result<Option<(Arc<KeyRecord>, usize)>, KeysError> {
        let (this, id) = (Arc::clone(self), id.to_owned());
        // In a task of its own: whether anybody waits for the answer does not decide who is cut off.
        let revoking = tokio::spawn(async move {
            let revoked = this.keys.revoke(&id, now_unix_ms).await;
            // Where it could not be stored, the key is refused all the same.
            let closed = match &revoked {
                Ok(None) => 0,
                _ => this.revoke(&Revoked::Credential(authenticators::key_credential(&id))),
            };
            Ok(revoked?.map(|record| (record, closed)))
        });
        revoking.await.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Ok(None),
        })
    }

    /// Revokes a JSON web token by its `jti`, as `jwt:<jti>`: it does not come in again.
    ///
    /// # Errors
    /// The store failed; the token is refused until this process ends.
    pub(crate) async fn revoke_token(
        &self,
        credential: &str,
        now_unix_ms: u64,
    ) -> Result<usize, crate::store::StoreError> {
        let stored = self.revoked_tokens.add(credential, now_unix_ms).await;
        let closed = self.revoke(&Revoked::Credential(credential.to_owned()));
        stored.map(|()| closed)
    }

    /// Revokes all sessions of a user, and cuts off all that is theirs.
    pub(crate) fn revoke_user(&self, user: &str, now_unix_ms: u64) -> usize {
        self.sessions.revoke_user(user, now_unix_ms);
        self.revoke(&Revoked::User(user.to_owned()))
    }

    /// Revokes one session, and cuts off what came by its token. None where there is no such session.
    pub(crate) fn revoke_session(&self, id: &str, now_unix_ms: u64) -> Option<usize> {
        // One whose token's time is over goes on.
        let was_revoked = self.sessions.touch(id, now_unix_ms) == Err(SessionRefused::Revoked);
        let is_there = !was_revoked && self.session_users.lock().contains_key(id);
        let record = self.sessions.revoke(id, now_unix_ms);
        (record.is_some() || is_there).then(|| self.revoke(&Revoked::Credential(id.to_owned())))
    }

    /// Bounds a new key by who makes it: it gets none of what they lack, and is denied what they are.
    ///
    /// # Errors
    /// The capability that they lack.
    pub(crate) fn bound_key(&self, operator: &Identity, new: &mut NewKey) -> Result<(), String> {
        let rights = operator.rights();
        // What is a user's own needs no capability, so that a key of another's would do more.
        if *new.user != *operator.user && !rights.grants.allows("*") {
            return Err("* (for another user than yourself)".to_owned());
        }
        if let Some(ends) = rights.expires_unix_ms {
            new.expires_unix_ms = Some(new.expires_unix_ms.map_or(ends, |expires| expires.min(ends)));
        }
        let denials = rights.grants.texts().into_iter().filter(|text| text.starts_with('!'));
        new.scopes.extend(denials);
        let wanted = self.policy.rights(new.roles.clone(), &new.scopes).map_err(|refused| refused.0)?;
        let wanted = wanted.grants.texts().into_iter().filter(|text| !text.starts_with('!'));
        wanted.into_iter().find(|text| !rights.grants.allows(text)).map_or(Ok(()), Err)
    }

    /// Forgives an address its failures, and unlocks it; whether it had any.
    pub(crate) fn unlock(&self, ip: IpAddr) -> bool {
        self.lockout.unlock_ip(ip)
    }

    /// Forgives a user what they have used; whether anything is counted.
    pub(crate) fn reset_rate(&self, user: &str) -> bool {
        self.rates.as_ref().inspect(|rates| rates.reset(user)).is_some()
    }

    /// Notes that an operator changed something.
    pub(crate) fn administered(&self, operator: &Identity, operation: &str, id: &str) {
        self.recording.administered(operator, operation, id);
    }

    /// What was counted.
    pub(crate) async fn stats(&self) -> Value {
        let now = clock::now();
        let rates = self.rates.as_ref().map(|rates| {
            let stats = rates.stats(now);
            let top = stats.top_consumers.iter().map(|consumer| {
                json!({
                    "user": consumer.identity, "tokens": consumer.tokens, "max_tokens": consumer.max_tokens,
                    "utilization": consumer.utilization_percent,
                })
            });
            json!({
                "requests_allowed": stats.requests_allowed, "requests_limited": stats.requests_limited,
                "active_buckets": stats.active_buckets, "top_consumers": top.collect::<Vec<_>>(),
            })
        });
        let audit = match self.audit() {
            Some(audit) => audit.stats().await.ok().map(|stats| json!(stats)),
            None => None,
        };
        json!({
            "live": self.live.len(), "api_keys": self.keys.count(), "sessions": self.sessions.stats(),
            "rate_limiter": rates, "tracked_failures": self.lockout.tracked_ips(), "audit": audit,
        })
    }

    /// Starts what goes on beside: revocations of other nodes, expiries, housekeeping. They end with this.
    fn begin(self: &Arc<Self>) {
        let mut heard = self.endpoint.subscribe(REVOCATIONS);
        let (live, node) = (self.live.clone(), self.node);
        let hearing = tokio::spawn(async move {
            loop {
                let broadcast = match heard.recv().await {
                    Ok(broadcast) => broadcast,
                    Err(RecvError::Missed(count)) => {
                        tracing::error!(count, "revocations of other nodes were missed");
                        continue;
                    }
                    Err(RecvError::Closed) => return,
                };
                if broadcast.event() == REVOKED
                    && let Payload::Json(text) = broadcast.payload()
                    && let Ok(told) = serde_json::from_slice::<Told>(text)
                    && told.node != node
                {
                    live.revoke(&told.revoked);
                }
            }
        });
        let expiring = tokio::spawn(self.live.expiring());
        let this = Arc::downgrade(self);
        let keeping = tokio::spawn(async move {
            loop {
                tokio::time::sleep(HOUSEKEEPING).await;
                let Some(security) = this.upgrade() else { return };
                security.keep_house().await;
            }
        });
        let tasks = [hearing.abort_handle(), expiring.abort_handle(), keeping.abort_handle()];
        assert!(self.tasks.set(tasks).is_ok(), "they are started once");
    }

    async fn keep_house(&self) {
        let now = clock::now();
        self.recording.flush_refusals();
        self.attempts.forget_idle(now);
        self.lockout.forget_idle(now);
        if let Some(rates) = &self.rates {
            rates.forget_idle(now);
        }
        self.guessed.lock().retain(|_, at| now.since(*at) < SAME_GUESS_MS);
        self.sessions.expire(clock::unix_micros() / 1_000);
        if let Err(error) = self.keys.store_uses().await {
            tracing::warn!(%error, "when API keys were used could not be stored");
        }
        let now_unix_ms = clock::unix_micros() / 1_000;
        if let Err(error) = self.keys.forget_ended(now_unix_ms.saturating_sub(ENDED_KEYS_MS), now_unix_ms).await {
            tracing::warn!(%error, "API keys that ended long ago could not be forgotten");
        }
    }

    /// Writes what waits; for the end of the process.
    pub async fn close(&self) {
        if let Err(error) = self.keys.store_uses().await {
            tracing::warn!(%error, "when API keys were used could not be stored");
        }
        self.recording.flush_refusals();
        if let Some(audit) = self.audit() {
            audit.close().await;
        }
    }
}

impl Drop for Security {
    fn drop(&mut self) {
        for task in self.tasks.get().into_iter().flatten() {
            task.abort();
        }
    }
}

impl std::fmt::Debug for Security {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Security").field("socket", &self.socket).field("mcp", &self.mcp).finish_non_exhaustive()
    }
}

/// The topic without the name of a session: several of one server, of the first or of the hub are as one.
fn of_which(topic: &str) -> Cow<'_, str> {
    if let Some(rest) = topic.strip_prefix(SERVER_TOPIC_PREFIX) {
        let name = rest.split(':').next().unwrap_or(rest);
        return format!("{SERVER_TOPIC_PREFIX}{name}").into();
    }
    let of_several = [SESSION_TOPIC, HUB_TOPIC];
    let is_one = |of: &&str| topic.strip_prefix(*of).is_some_and(|rest| rest.starts_with(':'));
    of_several.iter().find(|of| is_one(of)).map_or(topic.into(), |of| (*of).into())
}

/// Whether a topic is one whose join has to bring a credential, as in the Elixir deployment.
fn is_of_deployment(topic: &str) -> bool {
    topic == "mcp:session" || topic.starts_with("mcp:session:")
}

/// Whether a refusal counts as a guess: not where nothing came, nor where the time of something good is over.
fn is_guess(presented: &Presented, refused: &AuthRefused) -> bool {
    presented.credential.is_some()
        && (*refused == AuthRefused::invalid_token() || *refused == AuthRefused::invalid_key())
}

fn credential_text(presented: &Presented) -> &str {
    match &presented.credential {
        Some(Credential::Token(text) | Credential::ApiKey(text)) => text,
        None => "",
    }
}
