//! The other MCP servers that this one stands before: the sections `[mcp.servers.NAME]` of the settings file.
//!
//! The file chooses their names, so they have neither flags nor environment variables. Their rows are a table of their own
//! (`table.rs`); `sections.rs` reads what the file gives of them, `rules.rs` judges that and fills the structs.

#[cfg(test)]
mod listing;
mod rules;
mod sections;
mod table;
#[cfg(test)]
mod tests;

use serde::Deserialize;

#[cfg(test)]
pub(super) use self::listing::{example, markdown};
pub(super) use self::rules::{Surroundings, settle};
pub(super) use self::sections::{Section, read};
pub use self::table::{McpHttpSettings, McpServerOptions, McpStdioSettings};

/// The key below which the sections stand.
pub(super) const KEY: &str = "mcp.servers";

/// The sections of the table that say how a server is reached, each with the setting that only and always such a server has.
const TRANSPORTS: [(&str, &str); 2] = [("stdio", "command"), ("http", "url")];

/// One MCP server that this one stands before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpServerSettings {
    /// Its name: 1 to 64 ASCII letters, digits, `_` and `-`, unlike those of all others, and neither `hub` nor `bennu`.
    pub name: String,
    /// How it is reached.
    pub transport: McpServerTransport,
    /// What is set however it is reached.
    pub options: McpServerOptions,
}

/// How a server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum McpServerTransport {
    /// It is a program that is started and spoken with over its standard input and output.
    Stdio(McpStdioSettings),
    /// It is spoken with over Streamable HTTP.
    Http(McpHttpSettings),
}

/// Which revisions of MCP are spoken with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum McpEra {
    /// Whichever it turns out to speak.
    Auto,
    /// Those that open with `initialize`.
    Legacy,
    /// Those in which every request stands alone.
    Stateless,
}

/// Whether clients share one connection with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum McpInstances {
    /// As it fits the server.
    Auto,
    /// All clients share one.
    Shared,
    /// Each session has its own.
    Session,
}

/// When a server is started or connected with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum McpStart {
    /// When a client first needs it.
    Demand,
    /// When this server starts.
    Boot,
}
