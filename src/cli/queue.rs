//! `bennu queue`: what waits in the queues of the server that runs, and what is dead; sends, retries and purges.

use std::io::{Read, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{ArgMatches, Args, FromArgMatches, Subcommand};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::operator::{Client, query_value};
use crate::clock;
use crate::config::Settings;
use crate::protocol::json;

/// Characters of a payload, or of an error, that a line shows.
const SHOWN_CHARS: usize = 80;

/// How it is wanted.
#[derive(Debug, Args)]
pub(super) struct QueueArgs {
    /// Prints the server's answer as it is, one JSON object
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: QueueCommand,
}

/// What is wanted of the queues.
#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// Lists the queues that are there, and what each holds
    List {
        /// Only those whose names begin so
        #[arg(long, default_value = "")]
        prefix: String,
        /// The first so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Shows what one queue holds, and has counted since the server was started
    Show {
        /// The queue, such as inbox:alice
        name: String,
    },
    /// Lists a queue's messages in the order of their acceptance, those in flight among them
    Messages(Listed),
    /// Lists a queue's dead letters
    Dead(Listed),
    /// Gives a queue a message, and says which durability it has reached
    Send(Send),
    /// Gives a dead letter another life
    Retry {
        /// The queue
        name: String,
        /// The message's id
        id: String,
    },
    /// Takes all messages out of a queue, whoever has them; they are lost
    Purge {
        /// The queue
        name: String,
        /// Takes its dead letters instead, or the one with this id
        #[arg(long, value_name = "ID")]
        dead: Option<Option<String>>,
    },
}

/// What is listed of a queue.
#[derive(Debug, Args)]
struct Listed {
    /// The queue
    name: String,
    /// The first so many
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

/// A message to be sent.
#[derive(Debug, Args)]
struct Send {
    /// The queue
    name: String,
    /// The payload, a JSON object; `-` reads it from standard input
    #[arg(value_name = "JSON", allow_hyphen_values = true)]
    payload: String,
    /// urgent, high, normal or low
    #[arg(long)]
    priority: Option<String>,
    /// Milliseconds until it expires, from when it is due
    #[arg(long)]
    ttl_ms: Option<u64>,
    /// Milliseconds before its first delivery
    #[arg(long)]
    delay_ms: Option<u64>,
    /// Failures after which it is tried again
    #[arg(long)]
    max_retries: Option<u32>,
    /// Its idempotency key: sent again with it, it is taken once
    #[arg(long)]
    key: Option<String>,
}

/// The message as the server reads it.
#[derive(Serialize)]
struct Message<'a> {
    payload: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_retries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<&'a str>,
}

/// A message or a dead letter as the server lists it. Payloads may be nested deeper than a [`Value`] is read.
#[derive(Deserialize)]
struct Kept {
    message_id: String,
    /// Of a message.
    state: Option<String>,
    /// Of a dead letter.
    reason: Option<String>,
    priority: String,
    retry_count: u32,
    created_at: u64,
    last_error: Option<String>,
    payload: Box<RawValue>,
}

pub(super) fn command() -> clap::Command {
    // What the struct's own comment says is for readers of the code.
    QueueArgs::augment_args(clap::Command::new("queue"))
        .about("Shows queues of the running server, sends messages, retries and purges them")
        .long_about(None)
        .subcommand_required(true)
}

pub(super) async fn run(settings: &Settings, matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let QueueArgs { json, command } = QueueArgs::from_arg_matches(matches)?;
    let server = Client::new(settings)?;
    let (method, path, body) = request(&command)?;
    let answer = server.ask(method, &path, body).await?;
    let text = if json { answer } else { told(&command, &answer).context("the server's answer")? };
    // Whoever reads it may have enough.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}

fn request(command: &QueueCommand) -> anyhow::Result<(Method, String, Option<String>)> {
    Ok(match command {
        QueueCommand::List { prefix, limit } => {
            (Method::GET, format!("queues?limit={limit}&prefix={}", query_value(prefix)), None)
        }
        QueueCommand::Show { name } => (Method::GET, path(name)?, None),
        QueueCommand::Messages(Listed { name, limit }) => {
            (Method::GET, format!("{}/messages?limit={limit}", path(name)?), None)
        }
        QueueCommand::Dead(Listed { name, limit }) => {
            (Method::GET, format!("{}/dead?limit={limit}", path(name)?), None)
        }
        QueueCommand::Send(send) => (Method::POST, format!("{}/messages", path(&send.name)?), Some(message(send)?)),
        QueueCommand::Retry { name, id } => {
            (Method::POST, format!("{}/dead/{}/retry", path(name)?, segment(id)?), None)
        }
        QueueCommand::Purge { name, dead: None } => (Method::DELETE, format!("{}/messages", path(name)?), None),
        QueueCommand::Purge { name, dead: Some(None) } => (Method::DELETE, format!("{}/dead", path(name)?), None),
        QueueCommand::Purge { name, dead: Some(Some(id)) } => {
            (Method::DELETE, format!("{}/dead/{}", path(name)?, segment(id)?), None)
        }
    })
}

fn path(name: &str) -> anyhow::Result<String> {
    Ok(format!("queues/{}", segment(name)?))
}

/// A text as a segment of a path. Dots alone would be a step in it, however they are written.
fn segment(text: &str) -> anyhow::Result<String> {
    if ["", ".", ".."].contains(&text) {
        bail!("expected the name of a queue or the id of a message, came {text:?}");
    }
    Ok(query_value(text))
}

fn message(send: &Send) -> anyhow::Result<String> {
    let mut read = String::new();
    let text = match send.payload.as_str() {
        "-" => {
            std::io::stdin().read_to_string(&mut read).context("reading the payload from standard input")?;
            &read
        }
        text => text,
    };
    json::validate(text).context("the payload")?;
    let message = Message {
        payload: serde_json::from_str(text).context("the payload")?,
        priority: send.priority.as_deref(),
        ttl_ms: send.ttl_ms,
        delay_ms: send.delay_ms,
        max_retries: send.max_retries,
        idempotency_key: send.key.as_deref(),
    };
    Ok(serde_json::to_string(&message)?)
}

/// The server's answer for people.
fn told(command: &QueueCommand, answer: &str) -> anyhow::Result<String> {
    match command {
        QueueCommand::Messages(_) | QueueCommand::Dead(_) => told_list(answer),
        QueueCommand::List { .. } => Ok(told_queues(&serde_json::from_str(answer)?)),
        QueueCommand::Show { .. } => Ok(told_stats(&serde_json::from_str(answer)?)),
        QueueCommand::Send(_) => {
            let answer: Value = serde_json::from_str(answer)?;
            let again = if answer["duplicate"] == true { ", which was there already" } else { "" };
            Ok(format!("{} is {}{again}\n", plain(&answer["message_id"]), plain(&answer["durability"])))
        }
        QueueCommand::Retry { id, .. } => Ok(format!("{id} waits again\n")),
        QueueCommand::Purge { dead, .. } => {
            let answer: Value = serde_json::from_str(answer)?;
            let what = if dead.is_some() { "dead letters" } else { "messages" };
            Ok(format!("purged {} {what}\n", answer["purged"]))
        }
    }
}

fn told_queues(answer: &Value) -> String {
    let columns = ["messages", "in_flight", "delayed", "dead_letters", "consumers", "bytes"];
    let mut text = format!("{:32}  {:9}", "queue", "class");
    for column in columns {
        text += &format!("  {column:>12}");
    }
    text.push('\n');
    let queues = answer["queues"].as_array().map(Vec::as_slice).unwrap_or_default();
    for queue in queues {
        text += &format!("{:32}  {:9}", plain(&queue["queue"]), plain(&queue["durability"]));
        for column in columns {
            text += &format!("  {:>12}", plain(&queue[column]));
        }
        text.push('\n');
    }
    let stats = &answer["stats"];
    text += &format!(
        "{} of {} queues; all hold {} messages and {} dead letters, {} bytes\n",
        queues.len(),
        stats["queues"],
        stats["total_messages"],
        stats["dead_letter_messages"],
        stats["bytes"]
    );
    text
}

/// A line for each number, those of an object with its name.
fn told_stats(stats: &Value) -> String {
    let mut text = String::new();
    for (name, value) in stats.as_object().into_iter().flatten() {
        match value.as_object() {
            None => text += &format!("{name:24}  {}\n", plain(value)),
            Some(fields) => {
                for (field, value) in fields {
                    text += &format!("{:24}  {}\n", format!("{name}.{field}"), plain(value));
                }
            }
        }
    }
    text
}

fn told_list(answer: &str) -> anyhow::Result<String> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(alias = "dead_letters")]
        messages: Vec<Kept>,
    }

    let Answer { messages } = serde_json::from_str(answer)?;
    let mut text =
        format!("{:24}  {:19}  {:8}  {:>7}  {:19}  payload\n", "id", "state", "priority", "retries", "created");
    for kept in &messages {
        let state = kept.state.as_ref().or(kept.reason.as_ref()).map_or("", String::as_str);
        let created = clock::iso8601_micros(kept.created_at.saturating_mul(1_000));
        let created = created.get(..19).unwrap_or(&created);
        let (id, priority, retries) = (&kept.message_id, &kept.priority, kept.retry_count);
        let payload = shown(kept.payload.get());
        text += &format!("{id:24}  {state:19}  {priority:8}  {retries:>7}  {created:19}  {payload}\n");
        if let Some(error) = &kept.last_error {
            text += &format!("{:24}  {}\n", "", shown(error));
        }
    }
    Ok(text)
}

/// A text without its quotes, or any other value.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// The beginning of a client's text on one line, without what a terminal would obey.
fn shown(text: &str) -> String {
    let mut chars = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut shown: String = chars.by_ref().take(SHOWN_CHARS).collect();
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}
