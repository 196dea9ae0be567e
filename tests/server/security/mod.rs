//! Who is let in, what they may do, and what becomes of them: over real sockets, by the way in that Bennu brings along.

mod attack;
mod backup;
pub mod credentials;
pub mod house;
pub mod http;
mod kept;
mod leaving;
mod live_sessions;
mod refused;
mod table;
