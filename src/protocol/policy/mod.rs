//! Who may do what: capabilities, the roles that grant them, and which one a method needs. Pure.
//!
//! ```text
//! Capability   one right, or with `!` one denial, as it is written
//! Grants       all that an identity has: what it may do
//! needed       a method -> the capability it needs
//! Roles        names of roles -> their capabilities: the policy's table
//! ```
//!
//! Everything that is not granted is denied, and a denial beats every grant.
//!
//! Source: the contract of the Elixir deployment, sections 6.3 and 6.4, with the decisions made on it.

pub mod capability;
pub mod client;
mod grants;
pub mod methods;
pub mod roles;
#[cfg(test)]
mod tests;

pub use self::capability::{CAPABILITY_BYTES_MAX, Capability, CapabilityError};
pub use self::grants::{CAPABILITIES_PER_IDENTITY_MAX, Denied, Grants};
pub use self::methods::{Needed, needed};
pub use self::roles::{RoleError, Roles};
