//! An upstream that is a program: started in a process group of its own, spoken with in lines, and killed with the group.
//!
//! Source: MCP, stdio transport.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};

use super::instance::Instance;
use super::options::Command;
use super::sending::Message;
use crate::protocol::jsonrpc::lines::{Line, Lines};

/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;
/// Bytes of a line of standard error that reach the log.
const LOG_LINE_BYTES: usize = 2_048;
/// How long a program may take to end by itself when its standard input is closed, and then when it is told to.
const END_PATIENCE: Duration = Duration::from_millis(1_000);
/// How long what a program wrote before it ended is still read, where others hold its output open.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A running program.
pub(super) struct Program {
    child: Child,
    group: Option<Pid>,
    input: Option<ChildStdin>,
    output: ChildStdout,
    errors: Option<ChildStderr>,
    lines: Lines,
    error_lines: Lines,
    bytes_max: usize,
    /// The message that is being written, and how far.
    writing: Option<(Message, usize)>,
    buffer: Vec<u8>,
}

/// What happened next.
enum Step {
    Read(std::io::Result<usize>),
    ReadError(std::io::Result<usize>),
    Wrote(std::io::Result<()>),
    Exited(std::io::Result<ExitStatus>),
}

impl Program {
    /// Starts it.
    ///
    /// # Errors
    /// Why it can't be.
    pub(super) fn start(command: &Command, bytes_max: usize) -> Result<Self, String> {
        let mut start = tokio::process::Command::new(&command.program);
        start.args(&command.args).env_clear().envs(command.env.iter().map(|(name, value)| (name, value)));
        if let Some(folder) = &command.folder {
            start.current_dir(folder);
        }
        start.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = start.spawn().map_err(|error| format!("starting {:?}: {error}", command.program))?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        const PIPED: &str = "it was started with pipes";
        Ok(Program {
            input: child.stdin.take(),
            output: child.stdout.take().expect(PIPED),
            errors: child.stderr.take(),
            child,
            group,
            lines: Lines::new(bytes_max),
            error_lines: Lines::new(LOG_LINE_BYTES),
            bytes_max,
            writing: None,
            buffer: vec![0; READ_BYTES],
        })
    }

    /// Sends and receives until it is gone, and says why.
    pub(super) async fn run(&mut self, instance: &Arc<Instance>) -> String {
        let mut error_buffer = vec![0; LOG_LINE_BYTES];
        loop {
            // Each arm is cancel-safe: what was read or written is noted in `self` before the next await.
            let step = tokio::select! {
                read = self.output.read(&mut self.buffer) => Step::Read(read),
                wrote = write(&mut self.input, &mut self.writing, instance) => Step::Wrote(wrote),
                read = read_errors(&mut self.errors, &mut error_buffer) => Step::ReadError(read),
                exited = self.child.wait() => Step::Exited(exited),
            };
            match step {
                Step::Read(Ok(0)) => return self.gone().await,
                Step::Read(Ok(count)) => self.take(count, instance),
                Step::Read(Err(error)) => return format!("reading its standard output: {error}"),
                Step::Wrote(Err(error)) => {
                    self.last_words(instance).await;
                    let why = self.gone().await;
                    return if why.contains("ended") { why } else { format!("writing to its standard input: {error}") };
                }
                Step::Wrote(Ok(())) => {}
                Step::ReadError(Ok(0) | Err(_)) => self.errors = None,
                Step::ReadError(Ok(count)) => log(&mut self.error_lines, &error_buffer[..count], &instance.name),
                Step::Exited(status) => {
                    self.last_words(instance).await;
                    return self.how_it_ended(status);
                }
            }
        }
    }

    fn take(&mut self, count: usize, instance: &Arc<Instance>) {
        let bytes_max = self.bytes_max;
        self.lines.push(&self.buffer[..count], |line| match line {
            Line::Whole(text) => instance.receive(text, None),
            Line::TooLong { bytes, id } => {
                instance.too_long(bytes, bytes_max, id.and_then(|id| id.parse().ok()));
            }
        });
    }

    /// Reads what it wrote before it ended. What it started may hold its output open for ever.
    async fn last_words(&mut self, instance: &Arc<Instance>) {
        let rest = async {
            while let Ok(count @ 1..) = self.output.read(&mut self.buffer).await {
                self.take(count, instance);
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, rest).await;
    }

    /// Its output has ended: it ends, or is of no use.
    async fn gone(&mut self) -> String {
        match tokio::time::timeout(LAST_WORDS, self.child.wait()).await {
            Ok(status) => self.how_it_ended(status),
            Err(_) => "it closed its standard output".to_owned(),
        }
    }

    fn how_it_ended(&self, status: std::io::Result<ExitStatus>) -> String {
        let cut = if self.lines.is_within_line() { ", in the middle of a message" } else { "" };
        match status {
            Ok(status) => format!("its process ended with {status}{cut}"),
            Err(error) => format!("waiting for its process: {error}"),
        }
    }

    /// Closes its standard input, then asks it to end, then kills it with its group: at once, where it listens to nothing.
    pub(super) async fn stop(&mut self, listens: bool) {
        self.input = None;
        if listens && tokio::time::timeout(END_PATIENCE, self.child.wait()).await.is_err() {
            self.signal(Signal::TERM);
            let _ = tokio::time::timeout(END_PATIENCE, self.child.wait()).await;
        }
        self.signal(Signal::KILL);
        let _ = self.child.wait().await;
        self.group = None;
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // Nobody may be left in it.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Writes what is being written, or the next message, as far as the pipe takes it. Cancel-safe.
async fn write(
    input: &mut Option<ChildStdin>,
    writing: &mut Option<(Message, usize)>,
    instance: &Instance,
) -> std::io::Result<()> {
    let Some(pipe) = input else { return std::future::pending().await };
    if writing.is_none() {
        let message = instance.sending.next().await;
        // A line is a message: within it JSON has line breaks between its tokens at most, where spaces do as well.
        let text: Vec<u8> =
            message.text.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect();
        let text = [&text[..], b"\n"].concat().into();
        *writing = Some((Message { text, ..message }, 0));
    }
    while let Some((message, written)) = writing {
        let count = pipe.write(&message.text[*written..]).await?;
        if count == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        *written += count;
        if *written == message.text.len() {
            *writing = None;
        }
    }
    Ok(())
}

async fn read_errors(errors: &mut Option<ChildStderr>, buffer: &mut [u8]) -> std::io::Result<usize> {
    async fn read(pipe: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> std::io::Result<usize> {
        pipe.read(buffer).await
    }
    match errors {
        Some(errors) => read(errors, buffer).await,
        None => std::future::pending().await,
    }
}

fn log(lines: &mut Lines, bytes: &[u8], name: &str) {
    lines.push(bytes, |line| match line {
        Line::Whole(text) => tracing::info!(server = name, "{}", String::from_utf8_lossy(text)),
        Line::TooLong { bytes, .. } => tracing::info!(server = name, bytes, "a line too long for the log"),
    });
}
