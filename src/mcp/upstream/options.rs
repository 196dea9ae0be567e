//! What the operator says of an upstream: how it is reached, and how it is shared, bounded and restarted.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How an upstream is reached.
#[derive(Clone)]
#[non_exhaustive]
pub enum Reach {
    /// A program that is started, and spoken with through its standard input and output.
    Stdio(Command),
    /// A Streamable HTTP endpoint.
    Http(Endpoint),
}

/// A program with everything that it is started with.
#[derive(Clone)]
pub struct Command {
    /// The program: a path, or a name that is looked for in `PATH`.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment; nothing is inherited.
    pub env: Vec<(String, String)>,
    /// The folder it runs in; this process's own where there is none.
    pub folder: Option<PathBuf>,
}

/// An HTTP endpoint with everything that it is asked with.
#[derive(Clone)]
pub struct Endpoint {
    /// `http` or `https`.
    pub url: String,
    /// Headers of every request, such as a credential.
    pub headers: Vec<(String, String)>,
    /// Whether redirects are followed: then the headers go where the upstream says.
    pub follow_redirects: bool,
    /// Whether the proxy is used that the environment names.
    pub use_proxy: bool,
}

impl fmt::Debug for Reach {
    /// Without what may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reach::Stdio(command) => write!(f, "Stdio({:?})", command.program),
            Reach::Http(_) => f.write_str("Http(…)"),
        }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({:?}, …)", self.program)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Endpoint(…)")
    }
}

/// Which revisions are spoken with an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpokenEra {
    /// That of the client, and the other where the upstream does not speak it.
    #[default]
    Auto,
    /// Those with `initialize`.
    Legacy,
    /// Those whose requests say what they need.
    Stateless,
}

/// Which clients share a connection with an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// All whose revision is stateless, or that can't be asked anything; others get one of their own. So a question of an
    /// upstream always reaches the client whose call caused it.
    #[default]
    Auto,
    /// All. A question of an upstream is refused where it is not known whose call caused it.
    Shared,
    /// None: each session has its own.
    Session,
}

/// An upstream's settings.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UpstreamOptions {
    /// How it is reached.
    pub reach: Reach,
    /// Which revisions are spoken with it.
    pub era: SpokenEra,
    /// Which clients share a connection with it.
    pub sharing: Sharing,
    /// Connections with it, or processes of it, that there may be at once.
    pub instances_max: usize,
    /// Whether the shared one is started with the server, and not when it is first needed.
    pub starts_at_boot: bool,
    /// In which it has to start and shake hands, and how long a call waits for that.
    pub start_timeout: Duration,
    /// How long a call may take.
    pub call_timeout: Duration,
    /// How long it may say nothing though it was asked whether it is there; then it is cut. None for ever.
    pub hang_timeout: Option<Duration>,
    /// How long it is kept when nobody uses it. None for ever.
    pub idle_timeout: Option<Duration>,
    /// The longest pause between two tries to start it.
    pub restart_delay_max: Duration,
    /// Bytes of one of its messages.
    pub message_bytes_max: usize,
}

impl UpstreamOptions {
    /// The settings' defaults for an upstream that is reached so.
    pub fn new(reach: Reach) -> Self {
        UpstreamOptions {
            reach,
            era: SpokenEra::Auto,
            sharing: Sharing::Auto,
            instances_max: 32,
            starts_at_boot: false,
            start_timeout: Duration::from_secs(30),
            call_timeout: Duration::from_secs(3_600),
            hang_timeout: Some(Duration::from_secs(120)),
            idle_timeout: Some(Duration::from_secs(600)),
            restart_delay_max: Duration::from_secs(60),
            message_bytes_max: 1 << 20,
        }
    }
}

/// The names of the environment that a program gets where the operator does not say: what the MCP SDKs hand on.
pub const ENV_DEFAULT: [&str; 8] = ["HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "USER"];

impl Command {
    /// A program with these arguments, and of this process's environment [`ENV_DEFAULT`] alone.
    pub fn new<S: Into<String>>(program: impl Into<String>, args: impl IntoIterator<Item = S>) -> Self {
        let env = ENV_DEFAULT.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
        Command {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            env: env.collect(),
            folder: None,
        }
    }
}

impl Endpoint {
    /// An endpoint without headers, redirects or proxy.
    pub fn new(url: impl Into<String>) -> Self {
        Endpoint { url: url.into(), headers: Vec::new(), follow_redirects: false, use_proxy: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_is_not_printed() {
        let mut command = Command::new("server", ["--token", "hunter2"]);
        command.env.push(("KEY".into(), "hunter2".into()));
        let mut endpoint = Endpoint::new("http://user.example/hunter2");
        endpoint.headers.push(("authorization".into(), "hunter2".into()));

        for reach in [Reach::Stdio(command), Reach::Http(endpoint)] {
            let text = format!("{:?}", UpstreamOptions::new(reach));
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
