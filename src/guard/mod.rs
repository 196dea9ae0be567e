//! Who is let in and how often: rates by identity, attempts by address, and lists of addresses.
//!
//! ```text
//! rate       tokens for each request, by identity: what a client may do, and how soon again
//! attempts   connects in a window, and lockout after failures, by address or by name
//! ip         addresses that are let in or not, and which address a client behind proxies has
//! ```
//!
//! Time is an argument. What is kept is bounded: `table`.

pub mod attempts;
pub mod ip;
pub mod rate;
mod table;
