//! `bennu keys`: API keys in the store's file, or at the server that has it open.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, FromArgMatches, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::operator::{Place, query_value};
use crate::auth::api_keys::{KeyRecord, NewKey};
use crate::clock;
use crate::config::Settings;
use crate::protocol::policy::Capability;

/// What is wanted of the keys.
#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Creates a key and prints it: it can't be shown again
    Create(Create),
    /// Lists the keys, without their texts
    List,
    /// Revokes a key: whoever came by it is cut off at once
    Revoke {
        /// The key's id
        id: String,
    },
    /// Imports the table `api_keys` of the Elixir deployment: JSON lines or CSV with `api_key_hash`, `user_id`, `expires_at`
    Import {
        /// The file
        file: PathBuf,
        /// A role that the keys get, since the table has none; may be given several times
        #[arg(long = "role")]
        roles: Vec<String>,
    },
}

/// What a new key is to be.
#[derive(Debug, Args)]
pub(super) struct Create {
    /// Who comes with it
    #[arg(long)]
    user: String,
    /// What people call it
    #[arg(long, default_value = "")]
    name: String,
    /// A role that it gives; may be given several times
    #[arg(long = "role")]
    roles: Vec<String>,
    /// A capability that it gives, such as `tools:call`; may be given several times
    #[arg(long = "scope")]
    scopes: Vec<String>,
    /// Days after which it ends
    #[arg(long, default_value_t = 365)]
    expires_in_days: u64,
}

pub(super) fn command() -> clap::Command {
    // What the struct's own comment says is for readers of the code.
    KeysCommand::augment_subcommands(clap::Command::new("keys"))
        .about("Manages API keys: creates, lists, revokes and imports them")
        .long_about(None)
        .subcommand_required(true)
}

pub(super) async fn run(settings: &Settings, matches: &clap::ArgMatches) -> anyhow::Result<ExitCode> {
    let wanted = KeysCommand::from_arg_matches(matches)?;
    let place = Place::open(settings).await?;
    let done = act(&place, wanted).await;
    if let Place::File(_, store) = &place {
        store.close().await;
    }
    done?;
    Ok(ExitCode::SUCCESS)
}

async fn act(place: &Place, wanted: KeysCommand) -> anyhow::Result<()> {
    let now_unix_ms = clock::unix_micros() / 1_000;
    match (place, wanted) {
        (_, KeysCommand::Create(Create { scopes, .. }))
            if scopes.iter().any(|scope| Capability::parse(scope).is_err()) =>
        {
            let fault = scopes.iter().find_map(|scope| Capability::parse(scope).err()).expect("one is faulty");
            bail!("--scope: {fault}");
        }
        (Place::File(keys, _), KeysCommand::Create(Create { user, name, roles, scopes, expires_in_days })) => {
            let expires_unix_ms = Some(now_unix_ms.saturating_add(expires_in_days.saturating_mul(86_400_000)));
            let (record, text) =
                keys.create(NewKey { name, user, roles, scopes, expires_unix_ms }, now_unix_ms).await?;
            show_created(&json!(record), &text);
        }
        (Place::Server(server), KeysCommand::Create(Create { user, name, roles, scopes, expires_in_days })) => {
            let expires_in_s = expires_in_days.saturating_mul(86_400);
            let body =
                json!({"user": user, "name": name, "roles": roles, "scopes": scopes, "expires_in_s": expires_in_s});
            let made = server.ask_json(Method::POST, "keys", Some(body)).await?;
            show_created(&made["record"], made["key"].as_str().context("the server's answer has no key")?);
        }
        (Place::File(keys, _), KeysCommand::List) => show_all(&keys.list()),
        (Place::Server(server), KeysCommand::List) => {
            let answer = server.ask_json(Method::GET, "keys", None).await?;
            show_all(&serde_json::from_value::<Vec<KeyRecord>>(answer["keys"].clone()).context("the server's answer")?);
        }
        (Place::File(keys, _), KeysCommand::Revoke { id }) => match keys.revoke(&id, now_unix_ms).await? {
            Some(record) => println!("revoked {}", record.id),
            None => bail!("there is no key {id:?}"),
        },
        (Place::Server(server), KeysCommand::Revoke { id }) => {
            if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                bail!("there is no key {id:?}");
            }
            let answer = server.ask_json(Method::DELETE, &format!("keys/{id}"), None).await?;
            println!("revoked {id}; {} connections were closed", answer["closed"]);
        }
        (place, KeysCommand::Import { file, roles }) => {
            let rows = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            let (new, known, expired) = match place {
                Place::File(keys, _) => {
                    let imported = keys.import(&rows, &roles, &[], now_unix_ms).await?;
                    (json!(imported.new), json!(imported.known), json!(imported.expired))
                }
                Place::Server(server) => {
                    let answer = server
                        .ask(Method::POST, &format!("keys/import?roles={}", query_value(&roles.join(","))), Some(rows))
                        .await?;
                    let answer: Value = serde_json::from_str(&answer).context("the server's answer")?;
                    (answer["new"].clone(), answer["known"].clone(), answer["expired"].clone())
                }
            };
            println!("imported {new}; {known} were there already, {expired} had expired");
        }
    }
    Ok(())
}

fn show_created(record: &Value, text: &str) {
    eprintln!("created {} for {}; this is the only time that it is shown:", record["id"], record["user"]);
    println!("{text}");
}

fn show_all(keys: &[KeyRecord]) {
    let now_unix_ms = clock::unix_micros() / 1_000;
    let mut out = std::io::stdout().lock();
    // Whoever reads it may have enough.
    let _ = writeln!(out, "{:16}  {:7}  {:20}  {:20}  {:24}  hint", "id", "state", "user", "roles", "expires");
    for key in keys {
        let state = match (key.revoked_unix_ms, key.is_expired(now_unix_ms)) {
            (Some(_), _) => "revoked",
            (None, true) => "expired",
            (None, false) => "valid",
        };
        let expires = key.expires_unix_ms.map_or("never".to_owned(), |ms| clock::iso8601_micros(ms * 1_000));
        let expires = expires.get(..19).unwrap_or(&expires);
        let (id, user, roles) = (&key.id, &key.user, key.roles.join(","));
        let _ = writeln!(out, "{id:16}  {state:7}  {user:20}  {roles:20}  {expires:24}  {}…", key.hint);
    }
}
