//! Clients that break off, and clients that flood: what the server holds for them is bounded meanwhile, and ends where it
//! began: bytes on the heap, tasks, descriptors, rows of its tables.
//!
//! This is a binary of its own because its allocator counts. The tests take turns ([`server::Subject`]), so that what is
//! counted is theirs. `BENNU_CHURN_VISITS` asks for more visits than the 10 000 of the test command.

#![expect(clippy::disallowed_methods, reason = "a client outside of the server has no clock but the machine's")]

mod client;
mod floods;
mod server;
mod sessions;
mod visits;

#[global_allocator]
static HEAP: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;
