//! Bennu: a realtime server that speaks Phoenix Channels and carries MCP sessions as channels.
//!
//! As a library it is three things: [`Channel`], which you implement; an [`Endpoint`], where sockets are declared and from
//! where anyone broadcasts; a [`Server`] that listens, or gives its sockets to a warp application of yours
//! ([`Server::into_filter`]). [`testing`] tests channels without a network. Clients are phoenix.js, unchanged.
//!
//! ```no_run
//! use bennu::{Channel, Cx, Endpoint, JoinCx, Next, Payload, Refusal, Server};
//!
//! struct Room;
//!
//! impl Channel for Room {
//!     type Info = ();
//!
//!     async fn join(topic: &str, _params: Payload, _cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
//!         match topic {
//!             "room:closed" => Err(Refusal::reason("closed")),
//!             _ => Ok((Room, Payload::EMPTY)),
//!         }
//!     }
//!
//!     async fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> Next {
//!         match event {
//!             "say" => {
//!                 cx.broadcast("said", payload);
//!                 Next::ok(Payload::EMPTY)
//!             }
//!             _ => Next::unknown(event),
//!         }
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> std::io::Result<()> {
//!     let endpoint = Endpoint::start();
//!     let socket = endpoint.socket("/socket").channel::<Room>("room:*");
//!     let running = Server::new(&endpoint).socket(socket).listen(([127, 0, 0, 1], 4000))?;
//!     running.until_signalled().await;
//!     Ok(())
//! }
//! ```
//!
//! Who may connect is said by a socket's `connect`, and by [`mcp::auth::McpAuth`] for MCP. [`security`] is the `bennu`
//! program's own way in for both: Phoenix tokens, JSON web tokens, API keys, roles, limits and an audit log; [`auth`],
//! [`guard`] and [`audit`] are its parts.
//!
//! [`protocol`] is the wire as pure values and machines; it builds alone, without default features.
//!
//! The modules stand in the order of their layers; a module uses those below it. `ARCHITECTURE.md` has the picture and
//! the table that a test holds them to.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

// shell: starts, wires, drains
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "server")]
mod config;
#[cfg(feature = "server")]
pub mod server;

// edges: bytes in, bytes out
#[cfg(feature = "server")]
mod dashboard;
#[cfg(feature = "server")]
mod transport;

// the way in: authenticators, policy, limits and audit put together
#[cfg(feature = "server")]
pub mod security;

// talk: one client's conversation
#[cfg(feature = "server")]
pub mod channel;
#[cfg(feature = "server")]
pub mod mcp;
#[cfg(feature = "server")]
pub mod testing;

// services: each does one thing
#[cfg(feature = "server")]
pub mod audit;
#[cfg(feature = "server")]
pub mod auth;
#[cfg(feature = "server")]
pub mod guard;
#[cfg(feature = "server")]
mod presence;
#[cfg(feature = "server")]
pub mod queue;

// ground: the node's PubSub, where output goes, what survives a crash
#[cfg(feature = "server")]
mod outbox;
#[cfg(feature = "server")]
mod pubsub;
#[cfg(feature = "server")]
mod store;

// base: time, randomness, counting
#[cfg(feature = "server")]
mod clock;
#[cfg(feature = "server")]
pub mod metrics;
#[cfg(feature = "server")]
mod random;

// protocol: the specification as deterministic values and machines
pub mod protocol;

// beside them: the load tool, which shares nothing with the rest
#[cfg(feature = "server")]
mod bench;

#[cfg(feature = "server")]
pub use channel::{
    Broadcast, Channel, ConnectError, ConnectInfo, Connected, Cx, Endpoint, JoinCx, Next, Payload, Refusal, Reply,
};
/// The schemars whose `JsonSchema` the arguments of tools and prompts derive: `#[derive(bennu::schemars::JsonSchema)]` with
/// `#[schemars(crate = "bennu::schemars")]`, so that a program needs no schemars of the same version beside Bennu.
///
/// ```
/// use bennu::mcp::{CallContext, Tool};
/// use bennu::schemars::JsonSchema;
///
/// #[derive(serde::Deserialize, JsonSchema)]
/// #[schemars(crate = "bennu::schemars")]
/// struct Greet {
///     /// Whom to greet.
///     name: String,
/// }
///
/// let greet = Tool::new("greet", |greet: Greet, _: CallContext| async move { Ok(format!("Hello, {}!", greet.name)) });
/// ```
#[cfg(feature = "server")]
pub use schemars;
#[cfg(feature = "server")]
pub use server::Server;
/// The warp whose filters [`Server::routes`] takes and [`Server::into_filter`] gives.
#[cfg(feature = "server")]
pub use warp;

#[cfg(all(doctest, feature = "server"))]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(all(doctest, feature = "server"))]
#[doc = include_str!("../docs/migrating.md")]
struct Migrating;
