//! Clients that others wrote, each in its own language with its own library, against one application.
//!
//! Each library gets a driver: a few lines that do what the test tells them and report what the library told them
//! ([`driven`]). What has to happen is a story in Rust, the same for all that can the same. docs/clients.md says what is
//! proven with which version, and what is peculiar about it.

#![expect(clippy::disallowed_methods, reason = "a client outside of the server has no clock but the machine's")]

mod app;
mod driven;
mod stories;
mod witness;

use std::time::Duration;

/// Bounds every wait for something that has to happen: some of the libraries wait seconds before they connect again.
const DEADLINE: Duration = Duration::from_secs(20);
