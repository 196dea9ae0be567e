//! `bennu token`: verifies and signs Phoenix tokens, a JSON object a line.

use std::io::{BufRead, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::{ArgMatches, Command};

use crate::auth::phoenix_token::{KeyRing, LINE_BYTES_MAX, check_line, sign_line};
use crate::clock;

pub(super) fn command() -> Command {
    Command::new("token")
        .about("Verifies and signs Phoenix tokens")
        .subcommand_required(true)
        .subcommand(Command::new("check").about(
            "Reads JSON lines {fun, secret_key_base, salt, token, max_age, now_ms, ...}, prints a verdict and the data for each",
        ))
        .subcommand(
            Command::new("sign").about("Reads JSON lines {data, secret_key_base, salt, ...}, prints a token for each"),
        )
}

pub(super) fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let is_check = matches.subcommand_name() == Some("check");
    let mut input = std::io::stdin().lock();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut line = Vec::new();
    let mut keys = KeyRing::default();
    while read_line(&mut input, &mut line).context("reading the lines")? {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        let now_ms = clock::unix_micros() / 1_000;
        let answer = if is_check { check_line(text, now_ms, &mut keys) } else { sign_line(text, now_ms, &mut keys) };
        writeln!(out, "{answer}").and_then(|()| out.flush()).context("printing the answers")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the next line, cut just above [`LINE_BYTES_MAX`], so that it is refused as too long; whether there was one.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    loop {
        let available = input.fill_buf()?;
        if available.is_empty() {
            return Ok(!line.is_empty());
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(available.len(), |end| end + 1);
        let room = (LINE_BYTES_MAX + 1).saturating_sub(line.len());
        line.extend_from_slice(&available[..taken.min(room)]);
        input.consume(taken);
        if end.is_some() {
            return Ok(true);
        }
    }
}
