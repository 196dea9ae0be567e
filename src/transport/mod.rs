//! Bytes to frames and back: the accept loop, WebSocket, long poll, MCP over HTTP.

pub mod accept;
mod admission;
mod arrival;
mod connect;
mod local;
mod longpoll;
mod mcp;
mod mount;
mod tls;
mod websocket;

pub use admission::{Admission, AdmissionLimits};
pub use arrival::Peer;
pub use local::{LOCAL_HOSTS, NotLocal, local_only};
pub use longpoll::{LongPolls, Secret};
pub use mcp::{McpHttp, McpHttpOptions, mcp, protected_resource};
pub use mount::{Guard, sockets};
pub use tls::{Hangups, Tls, TlsError, TlsOptions};
