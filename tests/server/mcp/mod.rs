//! MCP sessions, their calls and those who watch them, over real sockets.

mod calls;
mod deployment;
mod elixir;
mod gateway;
mod http;
mod lab;
mod many_calls;
mod misbehaviour;
pub mod peer;
mod recovery;
mod servers;
mod sessions;
mod status;
mod tasks;
mod template_tools;
mod watching;
mod withdrawn;
mod workflows;
