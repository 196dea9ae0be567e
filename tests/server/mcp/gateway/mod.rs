//! Other MCP servers behind this one: what passes, in both eras, and what becomes of upstreams that do wrong.

mod chaos;
mod eras;
mod hub;
mod life;
mod many;
mod odd;
mod passing;
mod sharing;
mod wrong;
