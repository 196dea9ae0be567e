//! The table of what is set for one MCP server behind this one.

use std::path::PathBuf;

use super::{McpEra, McpInstances, McpStart};
use crate::config::kind::Kind;
use crate::config::settings::Secret;
use crate::config::table::Fallback::{Is, Unset};
use crate::config::table::{GIB, HOUR_MS, bytes, count, milliseconds, table};

table! { #[cfg(test)] SECTIONS, TABLE:
    /// With `command`: a program that Bennu starts and speaks with over its standard input and output.
    stdio: McpStdioSettings {
        /// The program: a path, or a name that is looked for in `PATH`. No shell reads it.
        command: String = Unset, Kind::Text;
        /// Its arguments. They show in the list of processes: give secrets in `env`.
        args: Vec<String> = Unset, Kind::List(&Kind::Hidden);
        /// Environment variables that it gets; of one that `pass_env` names too, this value counts. The values are never shown.
        env: Vec<(String, Secret)> = Unset, Kind::Pairs { name: &Kind::Variable, text: &Kind::Hidden };
        /// The variables of Bennu's own environment that it gets, where they are set, and no others.
        pass_env: Vec<String> = Is("HOME,LANG,LOGNAME,PATH,SHELL,TERM,TMPDIR,USER"), Kind::List(&Kind::Variable);
        /// The folder that it starts in; without it the one that Bennu was started in.
        cwd: Option<PathBuf> = Unset, Kind::Folder;
    }

    /// With `url`: a server that Bennu speaks with over Streamable HTTP.
    http: McpHttpSettings {
        /// Where it is. Logs may show it, so secrets belong into headers.
        url: String = Unset, Kind::Url;
        /// Headers of every request to it. The values are never shown.
        headers: Vec<(String, Secret)> = Unset, Kind::Pairs { name: &Kind::HeaderName, text: &Kind::HeaderValue };
        /// Further headers, each with the variable of Bennu's environment that holds its value at start; one that is not set is a
        /// fault. Names that begin with `BENNU_` are taken by settings.
        headers_env: Vec<(String, String)> = Unset, Kind::Pairs { name: &Kind::HeaderName, text: &Kind::Variable };
        /// Whether redirects are followed.
        follow_redirects: bool = Is("false"), Kind::Switch;
        /// Whether the proxy that the environment names is used.
        use_proxy: bool = Is("false"), Kind::Switch;
    }

    /// With either: revisions, connections, times and bounds.
    options: McpServerOptions {
        /// Which revisions of MCP are spoken with it: those that open with `initialize` (legacy), those in which every request
        /// stands alone (stateless), or whichever it turns out to speak.
        era: McpEra = Is("auto"), Kind::Choice(&["auto", "legacy", "stateless"]);
        /// Whether all clients share one connection with it, or each session has its own; left to Bennu with auto.
        instances: McpInstances = Is("auto"), Kind::Choice(&["auto", "shared", "session"]);
        /// Connections with it at a time; for a program, processes.
        instances_max: usize = Is("32"), count("connections", 1, 10_000);
        /// Whether it is started when a client first needs it, or when Bennu starts.
        start: McpStart = Is("demand"), Kind::Choice(&["demand", "boot"]);
        /// The time from its start to the end of its handshake.
        start_timeout_ms: u64 = Is("30_000"), milliseconds(100, 600_000);
        /// The time that one request to it may take.
        call_timeout_ms: u64 = Is("3_600_000"), milliseconds(100, 24 * HOUR_MS);
        /// The time without a sign of life, while requests to it wait, after which it counts as hung; 0 is never.
        hang_timeout_ms: u64 = Is("120_000"), milliseconds(0, HOUR_MS);
        /// The time without use after which a connection with it ends; 0 is never.
        idle_timeout_ms: u64 = Is("600_000"), milliseconds(0, 24 * HOUR_MS);
        /// The longest pause before it is started again after it failed; pauses grow up to it.
        restart_delay_max_ms: u64 = Is("60_000"), milliseconds(10, HOUR_MS);
        /// One message from it. Less than `socket.outbox_bytes_max` and `longpoll.buffer_bytes_max`, since a message is passed
        /// on whole.
        message_bytes_max: usize = Is("1_048_576"), bytes(1_024, GIB);
    }
}
