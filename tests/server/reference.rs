//! Starts the reference application (`examples/reference.rs`) for a test and ends it with the test.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use bennu::server::TlsOptions;

/// Bounds the wait for the line that names the port: a debug build on a busy machine starts within a second or two.
const START_MAX: Duration = Duration::from_secs(20);

/// Bounds what is kept of the server's stderr, in bytes: the end of it is what explains a failed test.
const STDERR_BYTES_MAX: usize = 16 * 1024;

/// A running reference application; ended when dropped.
///
/// With `BENNU_TEST_PORT` set, [`Server::shared`] stands for the server that already listens on that port of 127.0.0.1.
pub struct Server {
    address: SocketAddr,
    process: Option<Process>,
}

struct Process {
    child: Child,
    stderr: Arc<Mutex<Vec<u8>>>,
}

impl Server {
    /// Starts a server on a free port, or takes the one that `BENNU_TEST_PORT` names.
    pub fn shared() -> Self {
        match std::env::var("BENNU_TEST_PORT") {
            Ok(port) => {
                let port: u16 = port.parse().unwrap_or_else(|_| panic!("BENNU_TEST_PORT is a port, got {port:?}"));
                Self { address: (Ipv4Addr::LOCALHOST, port).into(), process: None }
            }
            Err(_) => Self::own(),
        }
    }

    /// Starts a server on a free port that nobody else uses: for tests that end or exhaust it.
    ///
    /// # Panics
    /// If the example isn't built, or doesn't say `listening on 127.0.0.1:PORT` in time.
    pub fn own() -> Self {
        Self::start(&[])
    }

    /// The same with TLS.
    pub fn own_with_tls(tls: &TlsOptions) -> Self {
        let [certificates, key] = [&tls.certificates, &tls.key].map(|path| path.as_os_str());
        Self::start(&["--tls-certificate".as_ref(), certificates, "--tls-key".as_ref(), key])
    }

    fn start(further: &[&OsStr]) -> Self {
        let path = example_path();
        assert!(path.exists(), "{} is missing: run `cargo build --example reference` in this profile", path.display());

        let mut child = Command::new(&path)
            .args(["--port", "0"])
            .args(further)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", path.display()));
        let stdout = child.stdout.take().expect("stdout is piped above");
        let stderr = child.stderr.take().expect("stderr is piped above");
        let process = Process { child, stderr: keep_tail(stderr) };
        let mut server = Self { address: (Ipv4Addr::LOCALHOST, 0).into(), process: Some(process) };

        let (said, heard) = mpsc::channel();
        // Reads to the end, so that the server never blocks on a full pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix("listening on ") {
                    let _ = said.send(address.trim().to_owned());
                }
            }
        });
        let address = heard.recv_timeout(START_MAX).unwrap_or_else(|_| {
            panic!("the reference application did not print `listening on 127.0.0.1:PORT` within {START_MAX:?}")
        });
        server.address =
            address.parse().unwrap_or_else(|_| panic!("expected `listening on 127.0.0.1:PORT`, got {address:?}"));
        server
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The most memory that the process has held so far, in bytes.
    pub fn memory_peak_bytes(&self) -> usize {
        let process = self.process.as_ref().expect("only a server of the test's own is measured");
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.child.id())).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("proc(5) has VmHWM");
        let kib: usize = peak.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
        kib * 1024
    }

    /// Sends SIGTERM to the process.
    pub fn terminate(&self) {
        let process = self.process.as_ref().expect("only a server of the test's own is terminated");
        let status =
            Command::new("sh").arg("-c").arg(format!("kill -TERM {}", process.child.id())).status().expect("sh runs");
        assert!(status.success(), "kill -TERM answered {status}");
    }

    /// Waits until the process has exited; `None` when it still runs after `limit`.
    pub fn exited_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let process = self.process.as_mut().expect("only a server of the test's own is waited for");
        let end = Instant::now() + limit;
        loop {
            match process.child.try_wait().expect("the child is ours to wait for") {
                Some(status) => return Some(status),
                None if Instant::now() >= end => return None,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(process) = &mut self.process else { return };
        let _ = process.child.kill();
        let _ = process.child.wait();
        if std::thread::panicking() {
            let stderr = process.stderr.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            eprintln!("the server's last words on stderr:\n{}", String::from_utf8_lossy(&stderr));
        }
    }
}

/// The example next to this test: `target/PROFILE/deps/server-HASH` → `target/PROFILE/examples/reference`.
fn example_path() -> PathBuf {
    let test = std::env::current_exe().expect("the test knows its own path");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("a test executable lies in target/PROFILE/deps");
    profile.join("examples").join(format!("reference{}", std::env::consts::EXE_SUFFIX))
}

/// Reads `from` to its end in the background and keeps its last [`STDERR_BYTES_MAX`] bytes.
fn keep_tail(mut from: impl Read + Send + 'static) -> Arc<Mutex<Vec<u8>>> {
    let tail = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&tail);
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut chunk) {
            let mut kept = kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            kept.extend_from_slice(&chunk[..n]);
            let surplus = kept.len().saturating_sub(STDERR_BYTES_MAX);
            kept.drain(..surplus);
        }
    });
    tail
}
