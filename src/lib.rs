//! Bennu: a realtime server that speaks Phoenix Channels and carries MCP sessions as channels.
//!
//! The modules stand in the order of their layers; a module uses those below it. `ARCHITECTURE.md` has the picture and
//! the table that a test holds them to.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

// protocol: the specification as deterministic values and machines
pub mod protocol;
