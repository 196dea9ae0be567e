//! An MCP server that is right in its own words and wrong on request: the upstream that a gateway is tested with.
//!
//! ```text
//! odd_upstream [FLAGS]                 over stdio
//! odd_upstream --http PORT [FLAGS]     over Streamable HTTP at /mcp; says `listening on 127.0.0.1:PORT` on stdout, 0 is any port
//! ```
//!
//! What it sends is well-formed and hardly ever spelled as anybody else would: members that no specification knows at every level,
//! integers of 23 digits, floats such as `1e2` and `1.0`, `result` before `id` and `zeta` before `alpha`, `\/` and `\u00e9` in
//! strings and in the names of methods, blanks between tokens. What it repeats of a message is the message's own text. So whoever
//! parses and prints on the way is found out by comparing texts. Parameters of every request come back, as text, in the result's
//! `x-odd-params`; those of a tool in `structuredContent.params` of `echo_raw`.
//!
//! | flag | what it does |
//! |---|---|
//! | `--era legacy` | `initialize`, up to 2025-11-25; over HTTP with `Mcp-Session-Id` |
//! | `--era stateless` | 2026-07-28: `server/discover`, `_meta` in every request |
//! | `--era both` | either, by how a message looks; the default |
//! | `--plain-envelope` | no unknown members beside `jsonrpc`, `id` and `method`: the TypeScript SDK refuses such messages |
//! | `--start-delay-ms N` | sleeps before it reads or listens |
//! | `--exit-at-start` | exits with 5 and says nothing |
//! | `--exit-after-calls N` | exits with 6 after the answer of the N-th tools/call |
//! | `--banner` | prints lines to stdout that are no JSON-RPC before everything else |
//! | `--stderr` | writes to stderr: three lines at the start, one a request |
//!
//! The environment's `ODD_LOG` names a file to which everything received is appended, a JSON line a message:
//! `{"via":"stdio","message":…}`, over HTTP with `session` and `headers`; `junk` in the place of `message` where it is no JSON-RPC.
//! Lines with `event` tell of what is no message: `start` with `pid`, `eof`, `cancelled`, `closed` (the reader of a stream went away),
//! `session_ended`.
//!
//! The tools, with their arguments:
//!
//! | tool | what it does |
//! |---|---|
//! | `echo_raw` | answers with the text of its params, as `structuredContent.params` and as a text block; its argument `region` has `x-mcp-header` |
//! | `progress` count | so many notifications of progress, if it was given a token, then the result |
//! | `sample`, `elicit`, `roots` | ask the client; the answer's text comes back as `structuredContent.answer`. By a request in the legacy era, by `input_required` in the stateless one. `anyway: true` asks a client that has not declared it can |
//! | `big_id` kind | as `sample`, by a request whose id is a string full of escapes, or with `kind: "number"` has 23 digits; `structuredContent.id` is the id that came back |
//! | `fail_rpc` code | a JSON-RPC error with data |
//! | `fail_tool` | a result with `isError` |
//! | `log` level, count | so many `notifications/message`; in the stateless era only if the request asks for them |
//! | `slow` ms | answers after a while |
//! | `wait` | never answers; ends when it is cancelled. With `answer_anyway: true` it answers then, too late |
//! | `notify_changed` what | toggles the tool `extra`, and tells of changed tools; `what` may be `prompts` or `resources` instead |
//! | `touch` uri | tells of an updated resource, where it is subscribed to |
//! | `sleep_child` inherit | starts `sleep 1000`, whose pid is the result; with `inherit: true` that holds stdout open |
//! | `extra` | is there only after `notify_changed` |
//!
//! And what these do wrong:
//!
//! | tool | what it does wrong |
//! |---|---|
//! | `garbage` | sends blank lines, text, broken UTF-8, half an object, JSON that is no message and an answer that nobody asked for, before its result |
//! | `oversize` bytes | a result of exactly so many bytes, from some 700 on |
//! | `duplicate` | answers twice |
//! | `late` ms | answers, and after a while reports progress and answers again |
//! | `flood` count | so many notifications as fast as it can, then the result |
//! | `interleave` | writes its result seven bytes at a time |
//! | `half_line_exit` | writes half of its answer and exits with 4 |
//! | `crash` | reports progress and exits with 3 |
//! | `hang` | from then on the process neither reads nor writes, and lives on |
//!
//! It is no pattern for a server of one's own: it neither validates arguments nor bounds anything. To have it ignore SIGTERM,
//! start it as `sh -c 'trap "" TERM; exec odd_upstream'`.

mod call;
mod catalog;
mod http;
mod message;
mod odd;
mod output;
mod server;
mod stdio;
mod tools;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use crate::server::Server;

/// Exit statuses, each with its own reason.
pub mod exit {
    pub const USAGE: u8 = 2;
    pub const CRASH: i32 = 3;
    pub const HALF_LINE: i32 = 4;
    pub const AT_START: u8 = 5;
    pub const AFTER_CALLS: i32 = 6;
}

/// Which clients are served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Eras {
    Legacy,
    Stateless,
    Both,
}

/// The command line.
#[derive(Debug)]
pub struct Options {
    http: Option<u16>,
    pub eras: Eras,
    plain_envelope: bool,
    start_delay: Duration,
    exit_at_start: bool,
    pub exit_after_calls: Option<u64>,
    banner: bool,
    pub stderr: bool,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Options {
            http: None,
            eras: Eras::Both,
            plain_envelope: false,
            start_delay: Duration::ZERO,
            exit_at_start: false,
            exit_after_calls: None,
            banner: false,
            stderr: false,
        };
        while let Some(flag) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{flag} lacks its value"));
            match flag.as_str() {
                "--http" => options.http = Some(number(&flag, &value()?)?),
                "--era" => options.eras = eras(&value()?)?,
                "--plain-envelope" => options.plain_envelope = true,
                "--start-delay-ms" => options.start_delay = Duration::from_millis(number(&flag, &value()?)?),
                "--exit-at-start" => options.exit_at_start = true,
                "--exit-after-calls" => options.exit_after_calls = Some(number(&flag, &value()?)?),
                "--banner" => options.banner = true,
                "--stderr" => options.stderr = true,
                other => return Err(format!("no flag is called {other}")),
            }
        }
        Ok(options)
    }
}

fn number<T: std::str::FromStr>(flag: &str, word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("{flag} is followed by a number, got {word:?}"))
}

fn eras(word: &str) -> Result<Eras, String> {
    match word {
        "legacy" => Ok(Eras::Legacy),
        "stateless" => Ok(Eras::Stateless),
        "both" => Ok(Eras::Both),
        _ => Err(format!("--era is legacy, stateless or both, got {word:?}")),
    }
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(fault) => {
            eprintln!("odd_upstream: {fault}");
            return ExitCode::from(exit::USAGE);
        }
    };
    if options.exit_at_start {
        return ExitCode::from(exit::AT_START);
    }
    if options.plain_envelope {
        odd::leave_envelopes_plain();
    }
    if options.stderr {
        eprintln!("odd_upstream: starting, process {}", std::process::id());
        eprintln!("odd_upstream: {options:?}");
        eprintln!("{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/stderr_is_no_protocol\"}}");
    }
    std::thread::sleep(options.start_delay);
    if options.banner {
        print!("odd_upstream 1.0 \u{2014} welcome!\n\n{{ not json }}\nPress Ctrl-C to quit\n");
        // Where stdout is closed, so is everything else.
        let _ = std::io::stdout().flush();
    }

    let port = options.http;
    let server = Server::new(options);
    let ended = match port {
        Some(port) => http::serve(&server, port),
        None => stdio::serve(&server),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("odd_upstream: {fault}");
            ExitCode::FAILURE
        }
    }
}
