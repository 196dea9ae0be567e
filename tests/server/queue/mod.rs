//! Queues of a whole server: what operators and producers do over HTTP and by commands.

mod admin;
mod crash;
