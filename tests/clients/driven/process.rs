//! Drivers in other languages: child processes that take commands on stdin and tell what they saw on stdout, a JSON
//! object a line.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::{Driven, Ending, Log};
use crate::DEADLINE;

/// How often a child that has to end is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Starts `python/NAME.py` in the environment that scripts/install.sh makes.
#[track_caller]
pub fn python(name: &str, arguments: &[&str]) -> Driven {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(installed(here.join(".venv/bin/python")));
    command.arg("-u").arg(here.join("python").join(name).with_extension("py")).args(arguments);
    start(name, command)
}

/// Starts `js-client/drivers/NAME.js`.
#[track_caller]
pub fn node(name: &str, arguments: &[&str]) -> Driven {
    let js_client = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../js-client");
    installed(js_client.join("node_modules"));
    let mut command = Command::new("node");
    command.arg(js_client.join("drivers").join(name).with_extension("js")).args(arguments);
    start(name, command)
}

#[track_caller]
fn installed(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is missing: run scripts/install.sh", path.display());
    path
}

#[track_caller]
fn start(name: &str, mut command: Command) -> Driven {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let log = Log::default();

    let (sender, saw) = channel();
    let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let noise = log.clone();
    // Both readers end with the child, whose ends of the pipes are closed then.
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(seen) => drop(sender.send(seen)),
                Err(_) => noise.note(format!("wrote {line}")),
            }
        }
    });
    let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
    let noise = log.clone();
    std::thread::spawn(move || {
        stderr.lines().map_while(Result::ok).for_each(|line| noise.note(format!("      {line}")));
    });

    let mut stdin = child.stdin.take().expect("stdin is piped");
    Driven {
        name: name.to_owned(),
        // A child that has gone shows in what it no longer sees.
        tell: Box::new(move |command| drop(writeln!(stdin, "{command}"))),
        saw,
        log,
        end: Box::new(move |ending| end(&mut child, ending)),
    }
}

fn end(child: &mut Child, ending: Ending) -> bool {
    let given_up = Instant::now() + DEADLINE;
    while ending == Ending::Quit && Instant::now() < given_up {
        if let Ok(Some(status)) = child.try_wait() {
            return status.success();
        }
        std::thread::sleep(LOOK);
    }
    // It may have ended already; then there is nothing to kill.
    let _ = child.kill();
    let _ = child.wait();
    false
}
