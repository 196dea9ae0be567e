//! MCP servers to put behind a gateway: those of others, which `scripts/install.sh` installs, and `examples/odd_upstream`.
//!
//! Test targets include this file by path. None of them needs the network. `js-client/test/support/upstreams.js` is the same list
//! for Node.

#![allow(dead_code, reason = "each target that includes this uses another part")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Upstream {
    pub command: PathBuf,
    pub args: Vec<String>,
    /// What it needs besides the environment.
    pub env: Vec<(String, String)>,
}

impl Upstream {
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.command);
        command.args(&self.args).envs(self.env.iter().cloned());
        command
    }

    pub fn with_env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }
}

const EVERYTHING: &str = "@modelcontextprotocol/server-everything/dist/index.js";

/// Legacy era: progress, sampling, elicitation, logs, subscriptions, tasks of 2025-11-25. None if it isn't installed, as below.
pub fn everything() -> Option<Upstream> {
    in_node(EVERYTHING, &["stdio"])
}

/// The same over Streamable HTTP at `/mcp`. It says on stderr that it listens; 0 is no port that it would tell.
pub fn everything_over_http(port: u16) -> Option<Upstream> {
    Some(in_node(EVERYTHING, &["streamableHttp"])?.with_env("PORT", port.to_string()))
}

/// Legacy era: the files below a folder.
pub fn filesystem(folder: &Path) -> Option<Upstream> {
    in_node("@modelcontextprotocol/server-filesystem/dist/index.js", &[text(folder)])
}

/// Legacy era: a graph of knowledge, kept in a file.
pub fn memory(file: &Path) -> Option<Upstream> {
    let server = in_node("@modelcontextprotocol/server-memory/dist/index.js", &[])?;
    Some(server.with_env("MEMORY_FILE_PATH", text(file)))
}

/// Both eras, whichever a process is first spoken to in: two tools with `outputSchema`.
pub fn time() -> Option<Upstream> {
    in_python("mcp-server-time", &["--local-timezone", "UTC"])
}

/// Both eras: twelve tools on a git repository.
pub fn git(repository: &Path) -> Option<Upstream> {
    in_python("mcp-server-git", &["--repository", text(repository)])
}

/// Another gateway: Streamable HTTP of both eras at `/mcp`, before an upstream to which it speaks as `protocol` says: `legacy`,
/// `modern`, or `auto`.
pub fn mcp_proxy(port: u16, upstream: &Upstream, protocol: &str) -> Option<Upstream> {
    let port = port.to_string();
    let options =
        ["--port", &port, "--host", "127.0.0.1", "--upstreamProtocol", protocol, "--", text(&upstream.command)];
    let mut proxy = in_node("mcp-proxy/dist/bin/mcp-proxy.mjs", &options)?;
    proxy.args.extend(upstream.args.iter().cloned());
    proxy.env.extend(upstream.env.iter().cloned());
    Some(proxy)
}

/// Our own that is odd, or wrong on request: `examples/odd_upstream` says how.
///
/// # Panics
/// If the example isn't built.
#[track_caller]
pub fn odd(flags: &[&str]) -> Upstream {
    // target/PROFILE/deps/TEST-HASH → target/PROFILE/examples/odd_upstream
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.ancestors().nth(2).expect("a test is two levels below its profile");
    let command = profile.join("examples").join(format!("odd_upstream{}", std::env::consts::EXE_SUFFIX));
    assert!(
        command.exists(),
        "{} is missing: run `cargo build --example odd_upstream` in this profile",
        command.display()
    );
    Upstream { command, args: owned(flags), env: Vec::new() }
}

fn in_node(path: &str, args: &[&str]) -> Option<Upstream> {
    let module = root().join("js-client/node_modules").join(path);
    let args = [&[text(&module)], args].concat();
    module.exists().then(|| Upstream { command: PathBuf::from("node"), args: owned(&args), env: Vec::new() })
}

fn in_python(name: &str, args: &[&str]) -> Option<Upstream> {
    let command = root().join("tests/peers/.venv/bin").join(name);
    command.exists().then(|| Upstream { command, args: owned(args), env: Vec::new() })
}

/// The repository: the package of a test is it, or lies in its `tests`.
fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_root = |folder: &&Path| folder.join("js-client").is_dir();
    package.ancestors().find(is_root).expect("js-client is in the repository")
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}
