//! What the fuzzers run: one plain function a target, each beside an oracle of its own.
//!
//! A body takes any bytes and panics where the protocol breaks its word. It is pure, so the same bytes do the same
//! everywhere: under libFuzzer (`fuzz/`), which searches for new inputs, and in `tests/protocol`, which replays the
//! committed ones and some random ones with every test run. Not part of the public API. One more, of signed and
//! encrypted tokens, is in `src/auth/phoenix_token/fuzz.rs`: its ciphers are none of the protocol's.
//!
//! | target | input | held against |
//! |---|---|---|
//! | [`websocket_frames`] | a client's bytes, or a conversation to be framed | a slow reader of RFC 6455 and an inflater of RFC 1951, over the whole stream at once; every other split into reads |
//! | [`v1_text`], [`v2_text`] | a message | serde_json and Elixir terms; what is encoded is decoded |
//! | [`v2_binary`] | a message | a parser by plain slices; what is encoded is decoded |
//! | [`longpoll_body`] | a POST's body | plain splitting and a base64 decoder by arithmetic; what is batched comes out |
//! | [`mcp_peer`] | how an MCP client opens, and its messages | rules on decoded values |
//! | [`erlang_term`] | an Erlang term, as tokens carry them | what is written of it, read again |
//! | [`policy_matcher`] | capabilities, and what is wanted | the rules, character by character |
//! | [`socket_ops`] | a client's and a server's doings | Phoenix's rules over an ordered map of decoded values |
//! | [`resume_params`] | the params of a join that resumes, or a heartbeat's payload | rules on decoded terms; what is told is read again |
//! | [`recovery_ops`] | doings of a session that outlives its connections, and of its clients | what was said, given and run, noted plainly |
//! | [`presence_ops`] | doings of a cluster and its network | explicit sets of dots, and what the replicas have tracked |

mod binary;
mod frames;
mod input;
mod json;
mod longpoll;
mod mcp;
mod policy;
mod presence;
mod recovery;
mod resume;
mod socket;
mod term;
mod text;

pub use binary::v2_binary;
#[cfg(test)]
pub(crate) use frames::Seen;
pub use frames::websocket_frames;
pub use longpoll::longpoll_body;
pub use mcp::mcp_peer;
pub use policy::policy_matcher;
pub use presence::presence_ops;
pub use recovery::recovery_ops;
pub use resume::resume_params;
pub use socket::socket_ops;
pub use term::erlang_term;
pub use text::{v1_text, v2_text};

/// A target's body.
pub type Body = fn(&[u8]);

/// Every target by its name, which its program and its corpus have too.
pub const TARGETS: [(&str, Body); 12] = [
    ("erlang_term", erlang_term),
    ("longpoll_body", longpoll_body),
    ("mcp_peer", mcp_peer),
    ("policy_matcher", policy_matcher),
    ("presence_ops", presence_ops),
    ("recovery_ops", recovery_ops),
    ("resume_params", resume_params),
    ("socket_ops", socket_ops),
    ("v1_text", v1_text),
    ("v2_binary", v2_binary),
    ("v2_text", v2_text),
    ("websocket_frames", websocket_frames),
];
