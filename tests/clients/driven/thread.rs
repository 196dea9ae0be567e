//! Drivers in Rust: a thread with a runtime of its own.

use std::sync::mpsc::{Sender, channel};

use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{Driven, Log};
use crate::DEADLINE;

/// Commands, in order. None follows `quit`.
pub type Commands = UnboundedReceiver<Value>;

/// Where a driver tells what it saw.
#[derive(Clone)]
pub struct Report(Sender<Value>);

impl Report {
    /// Tells it. Nobody listens any more once the test is over.
    pub fn tell(&self, saw: Value) {
        let _ = self.0.send(saw);
    }
}

/// Starts a driver. It has to return after `quit`, and when there are no more commands.
pub fn start<F: Future<Output = ()>>(name: &str, drive: impl FnOnce(Commands, Report) -> F + Send + 'static) -> Driven {
    let (commands, told) = unbounded_channel();
    let (report, saw) = channel();
    let (done, ended) = channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
        runtime.block_on(drive(told, Report(report)));
        let _ = done.send(());
    });
    let last = commands.clone();
    Driven {
        name: name.to_owned(),
        // A driver that has ended shows in what it no longer sees.
        tell: Box::new(move |command| drop(commands.send(command.clone()))),
        saw,
        log: Log::default(),
        end: Box::new(move |_| {
            let _ = last.send(json!({"do": "quit"}));
            // A driver that hangs is left behind with its thread: what the test says of it matters more.
            ended.recv_timeout(DEADLINE).is_ok()
        }),
    }
}
