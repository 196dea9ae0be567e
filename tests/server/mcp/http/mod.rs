//! MCP over HTTP: what is refused, both eras, streams and their ends.

mod checks;
mod connections;
mod lab;
mod repeats;
mod sessions;
mod stateless;
mod streams;
