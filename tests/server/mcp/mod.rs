//! MCP sessions, their calls and those who watch them, over real sockets.

mod calls;
mod http;
mod many_calls;
mod peer;
mod sessions;
mod watching;
