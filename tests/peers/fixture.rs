//! Starts `examples/conformance` for a test and ends it with the test.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A server with the tools, resources and prompts of the conformance suites.
pub struct Fixture {
    pub url: String,
    /// None where the server is somebody else's.
    child: Option<Child>,
}

impl Fixture {
    /// One of the test's own, on a free port. `BENNU_MCP_URL` names one that runs already.
    ///
    /// # Panics
    /// If the example isn't built, or ends before it listens.
    #[track_caller]
    pub fn start(options: &[&str]) -> Self {
        if let Ok(url) = std::env::var("BENNU_MCP_URL") {
            return Fixture { url, child: None };
        }
        Self::of(Command::new(example_path("conformance")).args(["--port", "0"]).args(options), "/mcp")
    }

    /// The example `gateway` on a free port, before a server at that URL.
    ///
    /// # Panics
    /// As [`Fixture::start`].
    #[track_caller]
    pub fn gateway(url: &str) -> Self {
        Self::of(Command::new(example_path("gateway")).args(["up", url]).env("PORT", "0"), "/mcp/up")
    }

    #[track_caller]
    fn of(command: &mut Command, path: &str) -> Self {
        let spawned = command.stdout(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));

        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("stdout can be read");
        let fixture = Fixture {
            url: format!("http://{}{path}", line.trim().strip_prefix("listening on ").unwrap_or_default()),
            child: Some(child),
        };
        assert!(line.starts_with("listening on "), "{command:?} said {line:?}");
        // What it says later is read, so that it never waits for us.
        std::thread::spawn(move || stdout.lines().for_each(drop));
        fixture
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended already; then there is nothing to kill.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// An example next to this test: `target/PROFILE/deps/peers-HASH` → `target/PROFILE/examples/NAME`.
///
/// # Panics
/// If it isn't built.
#[track_caller]
fn example_path(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.ancestors().nth(2).expect("a test is two levels below its profile");
    let path = profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} is missing: run `cargo build --example {name}` in this profile", path.display());
    path
}
