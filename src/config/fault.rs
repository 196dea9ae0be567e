//! What can be wrong with the settings, and where each fault came from.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Where a setting was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// No source names it.
    Default,
    /// The settings file; `line` counts from 1 and is absent where the file could not be read.
    File {
        /// The path as it was given.
        path: PathBuf,
        /// The line of the key.
        line: Option<usize>,
    },
    /// The environment variable of this name.
    Environment(String),
    /// The command line's flag of this name, with its dashes.
    Flag(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Default => f.write_str("default"),
            Place::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Place::File { path, line: None } => write!(f, "{}", path.display()),
            Place::Environment(name) | Place::Flag(name) => f.write_str(name),
        }
    }
}

/// One thing wrong with the settings: where, which setting, and what.
///
/// Its text is one line and never holds the value of a secret or of an unknown key.
#[derive(Debug, Error)]
#[error("{place}: {problem}")]
pub struct Fault {
    /// Where it was given; for something missing, where the setting that needs it was given.
    pub place: Place,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with one setting, one source, or two settings together.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Problem {
    /// The settings file or the file of a secret can't be read.
    #[error("expected a file that can be read: {0}")]
    Unreadable(io::Error),
    /// The settings file is not UTF-8.
    #[error("expected text in UTF-8")]
    NotText,
    /// The settings file is not TOML.
    #[error("expected TOML: {0}")]
    Syntax(String),
    /// A key that no setting has.
    #[error("unknown {what} `{name}`, the nearest known is `{nearest}`")]
    Unknown {
        /// "key", "section", "variable" or "flag".
        what: &'static str,
        /// The name that came.
        name: String,
        /// The known name that takes the fewest changes.
        nearest: String,
    },
    /// A value of the wrong type or out of its range.
    #[error("`{key}`: expected {expected}, came {came}")]
    Value {
        /// The dotted key.
        key: String,
        /// What the setting takes.
        expected: String,
        /// What came; of a secret the type or length alone.
        came: String,
    },
    /// Development is reachable from this machine alone.
    #[error(
        "`server.listen`: the development setting listens on loopback only: expected an address such as \
         \"127.0.0.1:4000\" or \"[::1]:4000\", came {came:?} (elsewhere takes server.mode = \"production\")"
    )]
    ListenBeyondLoopback {
        /// The address that came.
        came: String,
    },
    /// Development answers to local names alone.
    #[error(
        "`server.host`: the development setting answers to local names only: expected \"localhost\", \
         \"127.0.0.1\" or \"[::1]\", came {came:?}"
    )]
    HostBeyondLocal {
        /// The host that came.
        came: String,
    },
    /// Production without a secret.
    #[error(
        "`server.secret_key_base`: production needs a secret of at least {bytes_min} bytes: expected \
         server.secret_key_base_file or server.secret_key_base, came neither"
    )]
    SecretMissing {
        /// The shortest secret taken, in bytes.
        bytes_min: usize,
    },
    /// The secret and its file given in one source, where neither comes first.
    #[error("`server.secret_key_base`: expected it or server.secret_key_base_file, came both from one source")]
    SecretTwice,
    /// A secret's file holds too little, or no text.
    #[error("`server.secret_key_base_file`: expected a file with a text of at least {bytes_min} bytes, came {came}")]
    SecretFile {
        /// The shortest secret taken, in bytes.
        bytes_min: usize,
        /// The length or type of what the file holds.
        came: String,
    },
    /// A secret's file can't be read.
    #[error("`server.secret_key_base_file`: expected a file that can be read: {0}")]
    SecretFileUnreadable(io::Error),
    /// Production without authentication.
    #[error("`auth.method`: production needs authentication: expected \"builtin\" or \"module\", came \"none\"")]
    AuthenticationMissing,
    /// The back door of development.
    #[error("`auth.test_key`: expected false in production, came true")]
    TestKey,
    /// One of the two files of TLS without the other.
    #[error("`{missing}`: expected it beside `{given}`, or neither for plain HTTP; came none")]
    HalfOfTls {
        /// The dotted key that came.
        given: &'static str,
        /// The dotted key that did not.
        missing: &'static str,
    },
    /// `auth.method = "module"` in a program that brings no authenticator.
    #[error(
        "`auth.method`: expected an authenticator from the program that embeds this server, came none: \
         this program has none compiled in"
    )]
    NoAuthenticator,
    /// An outbox that a run's events so far would overflow.
    #[error(
        "`{key}`: expected more than mcp.run_bytes_max ({run_bytes} bytes), since a run's events are sent at once, \
         came {came}"
    )]
    BelowRun {
        /// The dotted key.
        key: &'static str,
        /// What `mcp.run_bytes_max` is.
        run_bytes: i64,
        /// What came.
        came: i64,
    },
    /// A folder that is not there.
    #[error("`{key}`: expected a folder, came {came:?}")]
    NoFolder {
        /// The dotted key.
        key: String,
        /// The path that came.
        came: String,
    },
    /// A server behind this one that is neither a program nor at a URL, or both.
    #[error("`{key}`: expected one of `command` and `url`, came {came}")]
    McpServerTransport {
        /// The dotted key of the server's section.
        key: String,
        /// "neither" or "both".
        came: &'static str,
    },
    /// A setting of programs for a server at a URL, or the other way round.
    #[error("`{key}`: expected it only beside `{beside}`, came beside `{came}`")]
    OtherTransport {
        /// The dotted key.
        key: String,
        /// The setting that it goes with.
        beside: &'static str,
        /// The one that is there.
        came: &'static str,
    },
    /// Messages from a server behind this one that would overflow what a client may leave waiting.
    #[error(
        "`{key}`: expected less than {bound} ({bound_bytes} bytes), since a message is passed on whole, came {came}"
    )]
    NotBelow {
        /// The dotted key.
        key: String,
        /// The dotted key of the bound.
        bound: &'static str,
        /// What the bound is.
        bound_bytes: i64,
        /// What came.
        came: i64,
    },
    /// An environment variable that a setting names and that is not set.
    #[error("`{key}`: expected the environment variable `{variable}` to be set, came none")]
    VariableMissing {
        /// The dotted key.
        key: String,
        /// The variable's name.
        variable: String,
    },
    /// An environment variable that a setting names and whose value is not one for it.
    #[error("`{key}`: expected in the environment variable `{variable}` {expected}, came {came}")]
    VariableValue {
        /// The dotted key.
        key: String,
        /// The variable's name.
        variable: String,
        /// What the setting takes.
        expected: String,
        /// The length of what came.
        came: String,
    },
    /// The same header given twice.
    #[error("`{key}`: expected each header once, came one that was given before (case does not count)")]
    HeaderTwice {
        /// The dotted key.
        key: String,
    },
}

/// Every fault of the settings: at least one.
#[derive(Debug, Error)]
#[error("{}", .0.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Faults(pub Vec<Fault>);
