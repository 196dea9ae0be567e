//! Tests of a whole server over real sockets.
//!
//! Those that hold the recordings talk to the reference application, a process of its own; the others start a server in
//! this process, with limits and channels of their choice ([`lab`]).

#![expect(clippy::disallowed_methods, reason = "a client outside of the server has no clock but the machine's")]

mod artefacts;
mod busy;
mod development;
mod draining;
mod edge;
mod embedded;
mod endpoint;
mod isolation;
mod lab;
mod limits;
mod longpoll;
mod mcp;
#[path = "../support/mcp_schema/mod.rs"]
mod mcp_schema;
mod order;
mod queue;
mod reference;
mod resuming;
mod security;
mod sequence;
mod shutdown;
mod slow;
mod tls;
mod transcripts;
#[path = "../support/upstreams.rs"]
mod upstreams;
