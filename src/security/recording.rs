//! What is written down: the audit log's entries, as the ways in make them.

use std::net::IpAddr;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::audit::{Audit, EntryType, NewEntry};
use crate::auth::live::Revoked;
use crate::auth::{AuthRefused, Door, Identity, Presented};
use crate::clock;
use crate::mcp::auth::{Operation, Outcome, SessionEvent};
use crate::protocol::policy::methods;

/// Entries of refusals in a second: whoever floods the server must not fill its disk.
pub(super) const REFUSALS_PER_SECOND: u64 = 50;

/// The audit log, or none.
#[derive(Debug)]
pub(super) struct Recording {
    audit: Option<Audit>,
    refusals: Mutex<Refusals>,
}

/// The refusals of one second.
#[derive(Debug, Default)]
struct Refusals {
    second: u64,
    count: u64,
    left_out: u64,
}

impl Recording {
    pub(super) fn new(audit: Option<Audit>) -> Self {
        Recording { audit, refusals: Mutex::default() }
    }

    pub(super) fn audit(&self) -> Option<&Audit> {
        self.audit.as_ref()
    }

    fn record(&self, make: impl FnOnce() -> NewEntry) {
        if let Some(audit) = &self.audit {
            audit.record(make());
        }
    }

    /// The same of what a client can bring about as often as it likes: beyond [`REFUSALS_PER_SECOND`] they are counted, and the
    /// count is recorded later.
    fn record_refusal(&self, make: impl FnOnce() -> NewEntry) {
        if self.audit.is_none() {
            return;
        }
        let second = clock::now().0 / 1_000;
        let (is_within, left_out) = {
            let mut refusals = self.refusals.lock();
            let mut left_out = 0;
            if second > refusals.second {
                left_out = refusals.left_out;
                *refusals = Refusals { second, ..Refusals::default() };
            }
            refusals.count += 1;
            let is_within = refusals.count <= REFUSALS_PER_SECOND;
            refusals.left_out += u64::from(!is_within);
            (is_within, left_out)
        };
        self.record_left_out(left_out);
        if is_within {
            self.record(make);
        }
    }

    /// Records how many refusals were left out, if none came since that would have.
    pub(super) fn flush_refusals(&self) {
        let left_out = std::mem::take(&mut self.refusals.lock().left_out);
        self.record_left_out(left_out);
    }

    fn record_left_out(&self, left_out: u64) {
        if left_out > 0 {
            self.record(|| {
                let mut entry = NewEntry::new(EntryType::SecurityEvent);
                entry.operation = Some("refusals_left_out".to_owned());
                entry.result = Some(json!({"count": left_out}));
                entry
            });
        }
    }

    pub(super) fn authentication(
        &self,
        presented: &Presented,
        ip: Option<IpAddr>,
        outcome: &Result<Identity, AuthRefused>,
    ) {
        let make = || {
            let (kind, name) = match &presented.door {
                Door::Socket(path) => ("connect", path.as_str()),
                Door::Topic(topic) => ("join", topic.as_str()),
                Door::Http(server) => ("http", server.as_str()),
                Door::Admin => ("admin", ""),
            };
            let mut entry = NewEntry::authentication(outcome.is_ok());
            entry.operation = Some(kind.to_owned());
            entry.metadata.ip_address = ip.map(|ip| ip.to_string());
            entry.metadata.user_agent.clone_from(&presented.user_agent);
            let mut params = json!({"door": name});
            match outcome {
                Ok(identity) => {
                    let rights = identity.rights();
                    entry.user_id = Some(identity.user.to_string());
                    params["method"] = rights.method.into();
                    params["roles"] = json!(rights.roles);
                    if let Some(credential) = &rights.credential {
                        params["by"] = named(credential);
                    }
                }
                Err(refused) => entry.metadata.error_message = Some(refused.0.clone()),
            }
            entry.params = Some(params);
            entry
        };
        match outcome {
            Ok(_) => self.record(make),
            Err(_) => self.record_refusal(make),
        }
    }

    pub(super) fn operation(&self, operation: &Operation<'_>) {
        let make = || {
            let mut entry = match operation.outcome {
                Outcome::Allowed => NewEntry::new(EntryType::Operation),
                Outcome::Denied(_) => NewEntry::authorization(false),
                Outcome::RateLimited(_) => NewEntry::new(EntryType::RateLimit),
            };
            match operation.outcome {
                Outcome::Allowed => entry.result = Some(json!("allowed")),
                Outcome::Denied(why) => entry.metadata.error_message = Some(why.to_owned()),
                Outcome::RateLimited(limited) => entry.result = Some(json!({"retry_after": limited.retry_after_s})),
            }
            entry.user_id = Some(operation.user.user.to_string());
            entry.session_id = Some(operation.session_id.to_owned());
            entry.client_id = Some(operation.session_id.to_owned());
            // A client's own words are not kept as a name.
            let method = methods::known(operation.method).unwrap_or("(unknown)");
            entry.operation = Some(method.to_owned());
            if !matches!(operation.outcome, Outcome::RateLimited(_)) {
                entry.params = operation.params.map(|params| params_of(params.get()));
            }
            entry
        };
        match operation.outcome {
            Outcome::Allowed => self.record(make),
            Outcome::Denied(_) | Outcome::RateLimited(_) => self.record_refusal(make),
        }
    }

    pub(super) fn denied(&self, user: &Identity, topic: &str, capability: &str) {
        self.record_refusal(|| {
            let mut entry = NewEntry::authorization(false);
            entry.user_id = Some(user.user.to_string());
            entry.operation = Some(capability.to_owned());
            entry.params = Some(json!({"topic": topic}));
            entry
        });
    }

    pub(super) fn session(&self, user: &Identity, session_id: &str, event: SessionEvent<'_>) {
        self.record(|| {
            let (name, reason) = match event {
                SessionEvent::TimedOut => ("session_timeout", "heartbeat_timeout"),
                SessionEvent::Terminated(reason) => ("session_terminated", reason),
            };
            let mut entry = NewEntry::new(EntryType::SecurityEvent);
            entry.user_id = Some(user.user.to_string());
            entry.session_id = Some(session_id.to_owned());
            entry.operation = Some(name.to_owned());
            entry.params = Some(json!({"reason": reason, "session_id": session_id}));
            entry
        });
    }

    pub(super) fn locked_out(&self, ip: IpAddr) {
        self.record(|| {
            let mut entry = NewEntry::new(EntryType::SecurityEvent);
            entry.operation = Some("brute_force_attempt".to_owned());
            entry.metadata.ip_address = Some(ip.to_string());
            entry
        });
    }

    pub(super) fn revoked(&self, revoked: &Revoked, closed: usize) {
        self.record(|| {
            let mut entry = NewEntry::new(EntryType::SecurityEvent);
            entry.operation = Some("revoked".to_owned());
            entry.params = Some(match revoked {
                Revoked::User(user) => json!({"user": user}),
                Revoked::Credential(credential) => json!({"by": named(credential)}),
            });
            entry.result = Some(json!({"closed": closed}));
            entry
        });
    }

    pub(super) fn administered(&self, operator: &Identity, operation: &str, id: &str) {
        self.record(|| {
            let mut entry = NewEntry::new(EntryType::SecurityEvent);
            entry.user_id = Some(operator.user.to_string());
            entry.operation = Some(operation.to_owned());
            entry.params = Some(json!({"id": id}));
            entry
        });
    }
}

/// A credential's name, which is no secret: its kind and its id apart, since together they look like one.
fn named(credential: &str) -> Value {
    let (kind, id) = credential.split_once(':').unwrap_or(("session", credential));
    json!({"kind": kind, "id": id})
}

/// Params as a value; those that are too large to be kept are not read.
fn params_of(text: &str) -> Value {
    if text.len() > crate::audit::VALUE_BYTES_MAX {
        return json!({"omitted": "too large", "bytes": text.len()});
    }
    serde_json::from_str(text).unwrap_or_else(|_| json!({"omitted": "nested too deep"}))
}
