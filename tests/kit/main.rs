//! Channels through the test kit, and the kit itself: no network, virtual time.

mod assertions;
mod connections;
mod hazards;
mod mcp;
mod model;
mod recovery;
mod restarts;
mod resume;
mod room;
mod sockets;
mod subscriptions;
mod timers;
mod waiting;
