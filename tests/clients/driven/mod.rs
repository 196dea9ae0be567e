//! A foreign client under a test's control.
//!
//! A driver takes commands and tells what it saw, both as JSON objects, so that a process and a thread are driven alike.
//! Commands have `do`: `join` (`topic`, `params`), `push` (`topic`, `event`, `payload`), `crash` (`topic`: push what crashes
//! the channel), `leave` (`topic`), `quit`, and what one library alone can do. What it saw has `saw`:
//!
//! | saw | with | when |
//! |---|---|---|
//! | `joined` | `topic`, `response` | a join was accepted, also one that the library made by itself |
//! | `refused` | `topic`, `response` | a join was refused |
//! | `reply` | `topic`, `status`, `response` | a push was answered |
//! | `event` | `topic`, `event`, `payload` | a push or broadcast came |
//! | `crashed` | `topic` | the channel crashed |
//! | `left` | `topic` | a leave was answered |
//! | `disconnected` | | the connection was lost; once until it is there again |
//!
//! `response` is null where the library keeps it to itself.

mod managed;
mod phyllo;
mod process;
mod thread;

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::{Value, json};

use crate::DEADLINE;
pub use managed::managed;
pub use phyllo::phyllo;
pub use process::{node, python};

/// The client.
pub struct Driven {
    name: String,
    tell: Box<dyn FnMut(&Value)>,
    saw: Receiver<Value>,
    log: Log,
    /// Waits until the driver has ended; true if it ended well.
    end: Box<dyn FnMut(Ending) -> bool>,
}

/// How a driver is to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// It was told to.
    Quit,
    /// At once, without a word to the server.
    Kill,
}

/// What was said and seen, for the report of a failure.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, line: String) {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(line);
    }

    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).join("\n")
    }
}

impl Driven {
    /// Tells it what to do.
    pub fn tell(&mut self, command: Value) {
        self.log.note(format!("told  {command}"));
        (self.tell)(&command);
    }

    /// What it saw next.
    #[track_caller]
    pub fn next(&mut self) -> Value {
        self.next_before(Instant::now() + DEADLINE, "something")
    }

    /// Expects it to see this next.
    #[track_caller]
    pub fn expect(&mut self, expected: Value) {
        let saw = self.next_before(Instant::now() + DEADLINE, &expected.to_string());
        assert_eq!(saw, expected, "{}", self.report());
    }

    /// Expects it to see these next, in any order: libraries hand events and replies to different callbacks.
    #[track_caller]
    pub fn expect_all<const N: usize>(&mut self, expected: [Value; N]) {
        let mut left = Vec::from(expected);
        while !left.is_empty() {
            let saw = self.next_before(Instant::now() + DEADLINE, &json!(left).to_string());
            match left.iter().position(|expected| *expected == saw) {
                Some(at) => drop(left.swap_remove(at)),
                None => panic!("saw {saw}, expected one of {left:?}\n{}", self.report()),
            }
        }
    }

    /// Waits until it sees this. What it sees before has to be of these kinds: states on the way, or news that may come
    /// at any time.
    #[track_caller]
    pub fn until(&mut self, over: &[&str], expected: Value) {
        let given_up = Instant::now() + DEADLINE;
        loop {
            let saw = self.next_before(given_up, &expected.to_string());
            if saw == expected {
                return;
            }
            let passed = over.iter().any(|kind| saw["saw"] == *kind);
            assert!(passed, "saw {saw}, waited for {expected}\n{}", self.report());
        }
    }

    /// Tells it to end, and waits for that.
    #[track_caller]
    pub fn quit(mut self) {
        self.tell(json!({"do": "quit"}));
        assert!((self.end)(Ending::Quit), "did not end well\n{}", self.report());
    }

    /// Ends it where it stands: the server is not told.
    pub fn kill(mut self) {
        (self.end)(Ending::Kill);
    }

    #[track_caller]
    fn next_before(&mut self, given_up: Instant, what: &str) -> Value {
        match self.saw.recv_timeout(given_up.saturating_duration_since(Instant::now())) {
            Ok(saw) => {
                self.log.note(format!("saw   {saw}"));
                saw
            }
            Err(RecvTimeoutError::Timeout) => panic!("waited in vain for {what}\n{}", self.report()),
            Err(RecvTimeoutError::Disconnected) => panic!("ended before {what}\n{}", self.report()),
        }
    }

    fn report(&self) -> String {
        format!("── {}\n{}\n──", self.name, self.log.text())
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        (self.end)(Ending::Kill);
    }
}
