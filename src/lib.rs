//! Bennu: a realtime server that speaks Phoenix Channels and carries MCP sessions as channels.
//!
//! The modules stand in the order of their layers; a module uses those below it. `ARCHITECTURE.md` has the picture and
//! the table that a test holds them to.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

// shell: starts, wires, drains
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod server;

// edges: bytes in, bytes out
#[cfg(feature = "server")]
pub mod dashboard;
#[cfg(feature = "server")]
pub mod transport;

// talk: one client's conversation
#[cfg(feature = "server")]
pub mod channel;
#[cfg(feature = "server")]
pub mod mcp;

// services: each does one thing
#[cfg(feature = "server")]
pub mod presence;

// ground: the node's PubSub and where output goes
#[cfg(feature = "server")]
pub mod outbox;
#[cfg(feature = "server")]
pub mod pubsub;

// base: time, randomness, counting
#[cfg(feature = "server")]
pub mod clock;
#[cfg(feature = "server")]
pub mod metrics;
#[cfg(feature = "server")]
pub mod random;

// protocol: the specification as deterministic values and machines
pub mod protocol;

// beside them: the load tool, which shares nothing with the rest
#[cfg(feature = "server")]
pub mod bench;

#[cfg(all(doctest, feature = "server"))]
#[doc = include_str!("../README.md")]
struct Readme;
