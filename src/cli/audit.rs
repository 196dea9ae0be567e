//! `bennu audit`: reads the audit log's files, or asks the server that runs.

use std::io::Write;
use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, FromArgMatches, ValueEnum};
use reqwest::Method;

use super::operator::{Client, query_value};
use crate::audit::{EntryType, Export, Filter, Format, each_in_folder};
use crate::config::Settings;
use crate::protocol::timestamp;

/// Which entries are wanted.
#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    /// From this time on: 2026-11-26T12:00:00Z
    #[arg(long)]
    from: Option<String>,
    /// Before this time
    #[arg(long)]
    to: Option<String>,
    /// Only of this type: authentication, authorization, operation, security_event, rate_limit or error; may be given several times
    #[arg(long = "type")]
    types: Vec<String>,
    /// Only of this user
    #[arg(long)]
    user: Option<String>,
    /// Only of this connection
    #[arg(long)]
    client: Option<String>,
    /// Only of this operation, such as tools/call
    #[arg(long)]
    operation: Option<String>,
    /// The newest so many
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
    /// How they are written
    #[arg(long, value_enum, default_value = "jsonl")]
    format: AuditFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AuditFormat {
    Jsonl,
    Csv,
}

pub(super) fn command() -> clap::Command {
    AuditArgs::augment_args(clap::Command::new("audit"))
        .about("Shows entries of the audit log, the newest first")
        .long_about(None)
}

pub(super) async fn run(settings: &Settings, matches: &clap::ArgMatches) -> anyhow::Result<ExitCode> {
    let wanted = AuditArgs::from_arg_matches(matches)?;
    let filter = filter(&wanted)?;
    match &settings.audit.folder {
        Some(folder) => {
            let format = if wanted.format == AuditFormat::Csv { Format::Csv } else { Format::JsonLines };
            let out = std::io::BufWriter::new(std::io::stdout().lock());
            let mut export = Export::begin(out, format)?;
            let mut written = Ok(());
            let visited = each_in_folder(folder, &filter, |entry, _| {
                written = export.write(&entry);
                if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            let visited = visited.with_context(|| format!("reading {}", folder.display()))?;
            // Whoever reads it may have enough.
            if written.and_then(|()| export.end().flush()).is_err() {
                return Ok(ExitCode::SUCCESS);
            }
            if visited.damaged_lines > 0 {
                eprintln!("{} lines are damaged and were passed over", visited.damaged_lines);
            }
        }
        None => {
            let text = Client::new(settings)?.ask(Method::GET, &format!("audit?{}", query(&wanted)), None).await?;
            // Whoever reads it may have enough.
            let _ = std::io::stdout().lock().write_all(text.as_bytes());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn filter(wanted: &AuditArgs) -> anyhow::Result<Filter> {
    let moment = |name: &str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => match timestamp::unix_micros(text) {
            Some(moment) => Ok(Some(moment)),
            None => bail!("--{name}: expected a time such as 2026-11-26T12:00:00Z, came {text:?}"),
        },
    };
    let types = wanted.types.iter().map(|word| {
        let all = || EntryType::ALL.map(EntryType::as_str).join(", ");
        EntryType::parse(word).with_context(|| format!("--type: expected one of {}, came {word:?}", all()))
    });
    Ok(Filter {
        from_unix_micros: moment("from", &wanted.from)?,
        to_unix_micros: moment("to", &wanted.to)?,
        types: types.collect::<anyhow::Result<_>>()?,
        user_id: wanted.user.clone(),
        client_id: wanted.client.clone(),
        operation: wanted.operation.clone(),
        limit: wanted.limit,
    })
}

/// The same as a query.
fn query(wanted: &AuditArgs) -> String {
    let format = if wanted.format == AuditFormat::Csv { "csv" } else { "jsonl" };
    let mut pairs = vec![("limit", wanted.limit.to_string()), ("format", format.to_owned())];
    let types = (!wanted.types.is_empty()).then(|| wanted.types.join(","));
    let optional = [
        ("from", &wanted.from),
        ("to", &wanted.to),
        ("type", &types),
        ("user_id", &wanted.user),
        ("client_id", &wanted.client),
        ("operation", &wanted.operation),
    ];
    pairs.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
    pairs.iter().map(|(name, value)| format!("{name}={}", query_value(value))).collect::<Vec<_>>().join("&")
}
