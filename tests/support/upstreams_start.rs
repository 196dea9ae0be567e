//! The upstreams of others start from what is installed. `js-client/test/upstreams.test.js` insists that all are.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::upstreams::{self, Upstream};

/// A process that ends with its test.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a server is called by its own answer to `initialize`.
#[track_caller]
fn name_of(upstream: &Upstream) -> Value {
    let mut command = upstream.command();
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut started = Started(child.unwrap_or_else(|error| panic!("{command:?}: {error}")));
    let mut stdin = started.0.stdin.take().expect("stdin is piped");
    let mut stdout = BufReader::new(started.0.stdout.take().expect("stdout is piped"));
    let client = json!({"name": "test", "version": "1"});
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
    writeln!(stdin, "{}", json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}))
        .expect("it reads");

    let mut line = String::new();
    stdout.read_line(&mut line).expect("it writes text");
    let answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{command:?}: {error}: {line:?}"));
    answer["result"]["serverInfo"]["name"].clone()
}

#[test]
fn each_that_is_installed_answers_initialize() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let memory = std::env::temp_dir().join(format!("bennu-memory-{}.json", std::process::id()));

    for (upstream, name) in [
        (upstreams::everything(), "mcp-servers/everything"),
        (upstreams::filesystem(here), "secure-filesystem-server"),
        (upstreams::memory(&memory), "memory-server"),
        (upstreams::time(), "mcp-time"),
        (upstreams::git(here), "mcp-git"),
        (Some(upstreams::odd(&[])), "odd_upstream"),
    ] {
        if let Some(upstream) = upstream {
            assert_eq!(name_of(&upstream), name);
        }
    }
}
