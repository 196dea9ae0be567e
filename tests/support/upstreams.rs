//! MCP servers to put behind a gateway.
//!
//! Test targets include this file by path.

#![allow(dead_code, reason = "each target that includes this uses another part")]

use std::path::PathBuf;
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

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}
