//! `examples/odd_upstream` behind a server of the test's own, over stdio or HTTP, and what it noted of what reached it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bennu::mcp::McpServer;
use bennu::mcp::upstream::{Command, Endpoint, Reach, UpstreamOptions};
use serde_json::{Value, json};

use super::super::peer::{Peer, TestServer};
use crate::upstreams::{self, Upstream};

/// Where clients reach it.
pub const ODD: &str = "mcp:server:odd";
/// How long anything may take that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What the upstream noted.
#[derive(Clone, Debug)]
pub struct Log(PathBuf);

impl Log {
    pub fn new() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let name = format!("bennu-odd-{}-{}.jsonl", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&path);
        Log(path)
    }

    pub fn path(&self) -> String {
        self.0.to_str().expect("a temporary folder of UTF-8").to_owned()
    }

    pub fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until a line is there for which `wanted` holds.
    #[track_caller]
    pub fn wait(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let lines = self.lines();
            if let Some(line) = lines.iter().find(|line| wanted(line)) {
                return line.clone();
            }
            assert!(Instant::now() < end, "expected {what}, came {lines:#?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The messages with that method.
    pub fn messages(&self, method: &str) -> Vec<Value> {
        let is_it = |line: &Value| line["message"]["method"] == method;
        self.lines().into_iter().filter(is_it).map(|line| line["message"].clone()).collect()
    }

    /// The processes that were started, by their ids, in order.
    pub fn pids(&self) -> Vec<u64> {
        self.lines().iter().filter(|line| line["event"] == "start").filter_map(|line| line["pid"].as_u64()).collect()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// How a program is reached.
pub fn stdio(upstream: &Upstream) -> Reach {
    let mut command = Command::new(upstream.command.to_str().expect("UTF-8"), &upstream.args);
    command.env.extend(upstream.env.iter().cloned());
    Reach::Stdio(command)
}

/// The flags with one that keeps messages to their schema, unless they say otherwise.
fn plain<'f>(flags: &[&'f str]) -> Vec<&'f str> {
    match flags {
        [ODDEST, rest @ ..] => rest.to_vec(),
        flags => [&["--plain-envelope"], flags].concat(),
    }
}

/// Stands before the flags of a server that puts fields of its own beside those of messages.
pub const ODDEST: &str = "oddest";

/// The odd server with these flags, under the name `odd`.
pub fn odd(flags: &[&str], change: impl FnOnce(&mut UpstreamOptions)) -> McpServer {
    named("odd", &upstreams::odd(&plain(flags)), change)
}

/// The same, that notes what reaches it.
pub fn noting(log: &Log, flags: &[&str], change: impl FnOnce(&mut UpstreamOptions)) -> McpServer {
    named("odd", &upstreams::odd(&plain(flags)).with_env("ODD_LOG", log.path()), change)
}

pub fn named(name: &str, upstream: &Upstream, change: impl FnOnce(&mut UpstreamOptions)) -> McpServer {
    let mut options = UpstreamOptions::new(stdio(upstream));
    options.restart_delay_max = Duration::from_millis(200);
    change(&mut options);
    McpServer::upstream(name, options).expect("a name")
}

/// The odd server as a process of its own that listens.
pub struct Listening {
    child: Child,
    pub url: String,
}

impl Listening {
    pub fn start(flags: &[&str], log: Option<&Log>) -> Self {
        Self::at(0, flags, log)
    }

    pub fn at(port: u16, flags: &[&str], log: Option<&Log>) -> Self {
        let port = port.to_string();
        let mut upstream = upstreams::odd(&[&["--http", &port], plain(flags).as_slice()].concat());
        if let Some(log) = log {
            upstream = upstream.with_env("ODD_LOG", log.path());
        }
        let mut child = upstream.command().stdout(Stdio::piped()).spawn().expect("it starts");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let said = output
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("listening on ").map(ToOwned::to_owned));
        Listening { url: format!("http://{}/mcp", said.expect("it says where it listens")), child }
    }

    pub fn port(&self) -> u16 {
        let port = self.url.rsplit(':').next().and_then(|rest| rest.strip_suffix("/mcp"));
        port.and_then(|port| port.parse().ok()).expect("a port")
    }

    pub fn server(&self, change: impl FnOnce(&mut UpstreamOptions)) -> McpServer {
        let mut options = UpstreamOptions::new(Reach::Http(Endpoint::new(&self.url)));
        options.restart_delay_max = Duration::from_millis(200);
        change(&mut options);
        McpServer::upstream("odd", options).expect("a name")
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that has shaken hands with the odd server.
pub fn client(server: &TestServer) -> Peer {
    client_that(server, &json!({}))
}

/// The same with capabilities.
pub fn client_that(server: &TestServer, capabilities: &Value) -> Peer {
    let mut peer = server.connect();
    peer.initialized(ODD, "2025-11-25", capabilities);
    peer
}

/// A client of which nothing is held against a schema: the odd server has fields where there may be none.
pub fn unchecked(server: &TestServer, capabilities: &Value) -> Peer {
    let mut peer = server.connect_unchecked();
    peer.initialized(ODD, "2025-06-18", capabilities);
    peer
}

/// Params of a call.
pub fn call(name: &str, arguments: Value) -> Value {
    json!({"name": name, "arguments": arguments})
}

/// The text of the payload of the frame that answers a request: what the client was sent, byte for byte.
#[track_caller]
pub fn answer_text(peer: &mut Peer, id: &Value) -> String {
    payload(&peer.wait(|frame| frame.topic == ODD && frame.is_response(id)).text)
}

/// The payload's text of a frame.
pub fn payload(frame: &str) -> String {
    let parts: [&serde_json::value::RawValue; 5] = serde_json::from_str(frame).expect("a frame");
    parts[4].get().to_owned()
}

/// Whether a process is there, zombies apart.
pub fn is_running(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z'))
}

/// Waits until something holds.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "expected {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
