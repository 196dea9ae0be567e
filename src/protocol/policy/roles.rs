//! The table of roles: what each name grants.

use std::collections::BTreeMap;

use super::capability::{Capability, CapabilityError};
use super::grants::{CAPABILITIES_PER_IDENTITY_MAX, Grants};

/// Roles of the table.
pub const ROLES_MAX: usize = 256;
/// Bytes of a role's name.
pub const ROLE_BYTES_MAX: usize = 64;

/// The role of whoever has none that is known. Source: the deployment, section 6.3, "else readonly".
pub const DEFAULT_ROLE: &str = "readonly";

/// What the roles grant where the configuration has no table of its own.
///
/// `admin` and `power_user` are the deployment's, `user` and `readonly` those of its legacy check, which knew prompts
/// and templates, and `api_user` that of T5. What is added are the methods that no role of the deployment could use:
/// of a role that may create and execute workflows, those for its own workflows and runs, and contexts, whose access
/// policies are asked anyway. Templates for all, events and triggers, which begin runs when their user is gone, are
/// for `power_user` and `api_user`. `servers:use:*` lets every server be used, so that a denial of one is enough to
/// close it.
///
/// Source: the contract of the Elixir deployment, section 6.4 and T5.
pub const DEFAULT_ROLES: [(&str, &[&str]); 6] = [
    ("admin", &["*"]),
    ("api_user", &["tools:*", "resources:*", "prompts:*", "workflows:*", "contexts:*", "servers:use:*"]),
    ("dashboard", &["runs:watch", "topics:join:*", "topics:presence:*"]),
    (
        "power_user",
        &["tools:*", "resources:*", "prompts:*", "workflows:*", "contexts:*", "sampling:*", "servers:use:*"],
    ),
    (
        "readonly",
        &[
            "tools:list",
            "resources:list",
            "resources:read",
            "prompts:list",
            "prompts:get",
            "workflows:templates",
            "workflows:get_template",
            "servers:use:*",
        ],
    ),
    (
        "user",
        &[
            "tools:list",
            "tools:call",
            "resources:list",
            "resources:read",
            "resources:subscribe",
            "prompts:list",
            "prompts:get",
            "workflows:create",
            "workflows:create_from_template",
            "workflows:execute",
            "workflows:multi_tool",
            "workflows:templates",
            "workflows:get_template",
            "workflows:list",
            "workflows:get",
            "workflows:delete",
            "workflows:runs",
            "workflows:run",
            "workflows:cancel",
            "contexts:*",
            "servers:use:*",
        ],
    ),
];

/// Roles by name. A role includes no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roles(BTreeMap<String, Vec<Capability>>);

/// A table of roles that can't be used: the operator's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoleError {
    /// Its name is empty, too long, or has control characters.
    #[error("role: expected a name of 1 to {ROLE_BYTES_MAX} bytes without control characters, came {0:?}")]
    Name(String),
    /// One of its capabilities is none, or there are too many.
    #[error("role {role}: {error}")]
    Capability {
        /// The role.
        role: String,
        /// What is wrong.
        error: CapabilityError,
    },
    /// There are too many.
    #[error("expected at most {ROLES_MAX} roles, came more")]
    TooMany,
}

impl Roles {
    /// A table without roles.
    pub fn none() -> Self {
        Roles(BTreeMap::new())
    }

    /// The same with that role, in place of the one of that name if there was one.
    ///
    /// # Errors
    /// [`RoleError`].
    pub fn with<T: AsRef<str>>(mut self, role: &str, capabilities: &[T]) -> Result<Self, RoleError> {
        if !(1..=ROLE_BYTES_MAX).contains(&role.len()) || role.contains(char::is_control) {
            return Err(RoleError::Name(role.chars().take(ROLE_BYTES_MAX).collect()));
        }
        let wrong = |error| RoleError::Capability { role: role.to_owned(), error };
        if capabilities.len() > CAPABILITIES_PER_IDENTITY_MAX {
            return Err(wrong(CapabilityError::TooMany { limit: CAPABILITIES_PER_IDENTITY_MAX }));
        }
        let read: Result<Vec<_>, _> = capabilities.iter().map(|text| Capability::parse(text.as_ref())).collect();
        self.0.insert(role.to_owned(), read.map_err(wrong)?);
        if self.0.len() > ROLES_MAX {
            return Err(RoleError::TooMany);
        }
        Ok(self)
    }

    /// Every role with its capabilities, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[Capability])> {
        self.0.iter().map(|(role, capabilities)| (role.as_str(), capabilities.as_slice()))
    }

    /// Whether there is that role.
    pub fn contains(&self, role: &str) -> bool {
        self.0.contains_key(role)
    }

    /// What an identity may do that has these roles, and `extra` capabilities of its own.
    ///
    /// A role that is not in the table grants nothing. Who has no known role and is granted nothing of their own has
    /// what `default_role` grants, with the denials of their own. An API key with scopes and no role has thus its
    /// scopes alone.
    ///
    /// # Errors
    /// [`CapabilityError::TooMany`]: then the identity is to be refused.
    ///
    /// Source: the deployment, section 6.4: "anything else".
    pub fn resolve<T: AsRef<str>>(
        &self,
        roles: &[T],
        extra: &[Capability],
        default_role: &str,
    ) -> Result<Grants, CapabilityError> {
        let known = roles.iter().filter_map(|role| self.0.get(role.as_ref())).flatten();
        let has_own = roles.iter().any(|role| self.contains(role.as_ref())) || extra.iter().any(|own| !own.is_denial());
        let default = self.0.get(default_role).filter(|_| !has_own).into_iter().flatten();
        Grants::new(known.chain(default).chain(extra).cloned())
    }
}

/// [`DEFAULT_ROLES`].
impl Default for Roles {
    fn default() -> Self {
        let with = |roles: Self, (role, capabilities): (&str, &[&str])| roles.with(role, capabilities);
        DEFAULT_ROLES.into_iter().try_fold(Self::none(), with).expect("the table is well formed")
    }
}

/// The role that grants amount to, for a credential that names capabilities and no role: `admin` for `admin:*`,
/// `user` for `workflows:create`, else `readonly`.
///
/// Source: the deployment, section 6.3.
pub fn derived_role(grants: &Grants) -> &'static str {
    if grants.allows("admin:*") {
        "admin"
    } else if grants.allows("workflows:create") {
        "user"
    } else {
        DEFAULT_ROLE
    }
}
