//! What one identity may do.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::capability::{CAPABILITY_BYTES_MAX, Capability, CapabilityError, Pattern};
use super::methods::{Needed, needed};

/// Capabilities and denials of one identity: of its roles and those of its own. Each is compared at each request.
pub const CAPABILITIES_PER_IDENTITY_MAX: usize = 256;

/// Resources that need a capability of their own beside that of the method: their URIs' scheme, and what is denied
/// without.
const GUARDED: [(&str, &str, Denied); 2] =
    [("workspace", "resources:workspace", Denied::Workspace), ("memory", "resources:memory", Denied::Memory)];

/// The capabilities of an identity, and its denials. By default none: it may do nothing.
///
/// A clone shares them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    granted: Arc<[Pattern]>,
    denied: Arc<[Pattern]>,
}

/// Why something may not be done. The client reads it behind `Unauthorized: `.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denied {
    /// A capability is not granted, or is denied.
    #[error("Missing capability: {0}")]
    Capability(String),
    /// The resource is the workspace's.
    #[error("No access to workspace resources")]
    Workspace,
    /// The resource is the memory's.
    #[error("No access to memory resources")]
    Memory,
}

impl Denied {
    /// The kind of denial, for logs and counters; it says nothing of the request.
    pub fn reason(&self) -> &'static str {
        match self {
            Denied::Capability(_) => "missing capability",
            Denied::Workspace => "no access to workspace resources",
            Denied::Memory => "no access to memory resources",
        }
    }
}

impl Grants {
    /// Gathers capabilities and denials; one that comes twice counts once.
    ///
    /// # Errors
    /// [`CapabilityError::TooMany`] above [`CAPABILITIES_PER_IDENTITY_MAX`].
    pub fn new(capabilities: impl IntoIterator<Item = Capability>) -> Result<Self, CapabilityError> {
        let (mut granted, mut denied) = (BTreeSet::new(), BTreeSet::new());
        for capability in capabilities {
            let is_denial = capability.is_denial();
            if is_denial { &mut denied } else { &mut granted }.insert(capability.into_pattern());
            if granted.len() + denied.len() > CAPABILITIES_PER_IDENTITY_MAX {
                return Err(CapabilityError::TooMany { limit: CAPABILITIES_PER_IDENTITY_MAX });
            }
        }
        Ok(Grants { granted: granted.into_iter().collect(), denied: denied.into_iter().collect() })
    }

    /// Reads capabilities and denials.
    ///
    /// # Errors
    /// That of the first text that is none, or [`CapabilityError::TooMany`]. To leave it out would be wrong: it may deny.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, CapabilityError> {
        let read: Result<Vec<_>, _> = texts.iter().map(|text| Capability::parse(text.as_ref())).collect();
        Self::new(read?)
    }

    /// Everything.
    pub fn all() -> Self {
        Self::parse(&["*"]).expect("the capability is well formed")
    }

    /// Everything with what is the user's own, on every server: not the runs of others, not the topics of sockets
    /// and the queues behind them, not what operators do.
    pub fn of_members() -> Self {
        Self::parse(&["*", "!runs:*", "!topics:*", "!queues:*", "!admin:*"]).expect("the capabilities are well formed")
    }

    /// The capabilities and denials as texts; [`Grants::parse`] reads them.
    pub fn texts(&self) -> Vec<String> {
        let granted = self.granted.iter().map(Pattern::to_string);
        granted.chain(self.denied.iter().map(|denied| format!("!{denied}"))).collect()
    }

    /// Whether a capability is granted and not denied. A star in `wanted` is a character like others.
    pub fn allows(&self, wanted: &str) -> bool {
        self.grants(&[wanted]) && !self.denies(&[wanted])
    }

    /// Whether something of a name may be done: `action` or `action:name` is granted, and neither is denied.
    pub fn allows_on(&self, action: &str, name: &str) -> bool {
        let (general, named) = ([action], [action, ":", name]);
        (self.grants(&general) || self.grants(&named)) && !self.denies(&general) && !self.denies(&named)
    }

    /// Whether that tool may be called: `tools:call` or `tools:call:<name>`.
    pub fn may_call_tool(&self, name: &str) -> bool {
        self.permit_tool(name).is_ok()
    }

    /// Whether that resource may be read: `resources:read` or `resources:read:<uri>`, and what its scheme needs.
    pub fn may_read_resource(&self, uri: &str) -> bool {
        self.permit_resource("resources/read", uri).is_ok()
    }

    /// Whether that prompt may be had: `prompts:get` or `prompts:get:<name>`.
    pub fn may_get_prompt(&self, name: &str) -> bool {
        self.permit_prompt(name).is_ok()
    }

    /// Whether that MCP server may be used: `servers:use` or `servers:use:<name>`.
    pub fn may_use_server(&self, name: &str) -> bool {
        self.allows_on("servers:use", name)
    }

    /// Whether that MCP server is denied by name.
    pub fn denies_server(&self, name: &str) -> bool {
        self.denies(&["servers:use"]) || self.denies(&["servers:use", ":", name])
    }

    /// Whether that topic may be joined: `topics:join` or `topics:join:<topic>`.
    pub fn may_join(&self, topic: &str) -> bool {
        self.allows_on("topics:join", topic)
    }

    /// Whether it may be broadcast on that topic: `topics:broadcast` or `topics:broadcast:<topic>`.
    pub fn may_broadcast(&self, topic: &str) -> bool {
        self.allows_on("topics:broadcast", topic)
    }

    /// Whether presences of that topic may be seen: `topics:presence` or `topics:presence:<topic>`.
    pub fn may_see_presence(&self, topic: &str) -> bool {
        self.allows_on("topics:presence", topic)
    }

    /// Whether messages of that queue may be taken: `queues:consume` or `queues:consume:<queue>`.
    pub fn may_consume(&self, queue: &str) -> bool {
        self.allows_on("queues:consume", queue)
    }

    /// Whether that queue may be given messages: `queues:enqueue` or `queues:enqueue:<queue>`.
    pub fn may_enqueue(&self, queue: &str) -> bool {
        self.allows_on("queues:enqueue", queue)
    }

    /// Lets a method pass whose params name nothing that has rules of its own.
    ///
    /// # Errors
    /// [`Denied::Capability`].
    pub fn permit_method(&self, method: &str) -> Result<(), Denied> {
        match needed(method) {
            Needed::Capability(wanted) if !self.allows(wanted) => Err(Denied::Capability(wanted.to_owned())),
            _ => Ok(()),
        }
    }

    /// Lets `tools/call` of that tool pass.
    ///
    /// # Errors
    /// [`Denied::Capability`].
    pub fn permit_tool(&self, name: &str) -> Result<(), Denied> {
        self.permit("tools:call", name)
    }

    /// Lets `prompts/get` of that prompt pass.
    ///
    /// # Errors
    /// [`Denied::Capability`].
    pub fn permit_prompt(&self, name: &str) -> Result<(), Denied> {
        self.permit("prompts:get", name)
    }

    /// Lets a method pass that reads a resource, or is told of its changes. Those of `workspace:` and `memory:` need
    /// `resources:workspace` and `resources:memory` too.
    ///
    /// # Errors
    /// Any [`Denied`].
    pub fn permit_resource(&self, method: &str, uri: &str) -> Result<(), Denied> {
        if let Needed::Capability(action) = needed(method) {
            self.permit(action, uri)?;
        }
        let scheme = uri.split(':').next().unwrap_or_default().trim();
        let guarded = GUARDED.iter().find(|(guarded, ..)| guarded.eq_ignore_ascii_case(scheme));
        match guarded {
            Some((_, wanted, denied)) if !self.allows(wanted) => Err(denied.clone()),
            _ => Ok(()),
        }
    }

    fn permit(&self, action: &str, name: &str) -> Result<(), Denied> {
        if self.allows_on(action, name) {
            return Ok(());
        }
        // Who has the action lacks the name; who lacks the action is told what clients know.
        let is_named = self.allows(action) && action.len() + 1 + name.len() <= CAPABILITY_BYTES_MAX;
        Err(Denied::Capability(if is_named { format!("{action}:{name}") } else { action.to_owned() }))
    }

    fn grants(&self, wanted: &[&str]) -> bool {
        self.granted.iter().any(|pattern| pattern.matches(wanted))
    }

    fn denies(&self, wanted: &[&str]) -> bool {
        self.denied.iter().any(|pattern| pattern.matches(wanted))
    }
}
