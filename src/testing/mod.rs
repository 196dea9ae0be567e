//! A test kit for channels: connect, join, push, and assert what comes back, without a network and on virtual time.
//!
//! The client is not there, everything else is: `connect`, routing, the conversation, PubSub, presence and the wire format
//! are what serves real clients. Run tests on tokio's paused clock (its feature `test-util`): then timers fire when nothing
//! else is left to do, and no assertion waits in real time.
//!
//! ```
//! use bennu::testing::Client;
//! use bennu::{Channel, Cx, Endpoint, JoinCx, Next, Payload, Refusal};
//! use serde_json::json;
//!
//! struct Room;
//!
//! impl Channel for Room {
//!     type Info = ();
//!
//!     async fn join(_: &str, _: Payload, _: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
//!         Ok((Room, json!({"welcome": true}).into()))
//!     }
//!
//!     async fn handle_in(&mut self, event: &str, payload: Payload, cx: &mut Cx<Self>) -> Next {
//!         match event {
//!             "shout" => {
//!                 cx.broadcast("shout", payload);
//!                 Next::ok(json!({"heard": true}))
//!             }
//!             _ => Next::unknown(event),
//!         }
//!     }
//! }
//!
//! #[tokio::main(flavor = "current_thread")] // in a test: #[tokio::test(start_paused = true)]
//! async fn main() {
//!     let endpoint = Endpoint::start();
//!     let socket = endpoint.socket("/socket").channel::<Room>("room:*").build();
//!
//!     let client = Client::new().connect(&socket).await.expect("everyone may connect");
//!     let mut room = client.join("room:lobby", json!({})).await.expect("everyone may join");
//!     assert_eq!(room.joined(), &json!({"welcome": true}).into());
//!
//!     let shout = room.push("shout", json!({"text": "hello", "loud": true}));
//!     room.assert_broadcast("shout", json!({"text": "hello"})).await;
//!     room.assert_push("shout", json!({"text": "hello"})).await;
//!     room.assert_reply(&shout, "ok", json!({"heard": true})).await;
//!     room.leave().await;
//! }
//! ```
//!
//! # Matching
//! An expected JSON value matches an actual one as a pattern does in `Phoenix.ChannelTest`: an object needs the expected
//! members and may have others, at every depth; all else must be equal. Binary data must be equal. Assertions take the
//! first message that matches, leave the others for later ones, and give back the whole payload. They wait for five seconds,
//! refutations for 100 ms, of the runtime's time: where that is paused, both pass as soon as every task waits. What the tested
//! code does outside of the runtime, on threads or sockets of its own, needs a clock that runs.
//!
//! Source: `Phoenix.ChannelTest`.

mod channel;
mod client;
mod driver;
mod mailbox;
mod message;

pub use channel::{Pushed, TestChannel};
pub use client::{Client, TestSocket};
pub use message::Message;

pub use crate::protocol::wire::WireVersion;
