//! The command line's side of the settings: one flag for each row of the table.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, value_parser};

use super::kind::Kind;
use super::settings::TABLE;
use super::table::{Fallback, Setting};

const FILE_ID: &str = "config";

/// Returns the flags of all settings and `--config`, for a subcommand that reads settings.
///
/// Values are taken as text: [`load`](super::load) checks them together with the other sources.
pub fn arguments() -> Vec<Arg> {
    let file = Arg::new(FILE_ID)
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("The settings file; without it BENNU_CONFIG names it, or ./bennu.toml is read where it exists");
    std::iter::once(file).chain(TABLE.iter().map(argument)).collect()
}

/// Returns the path of `--config`.
pub fn file_argument(matches: &ArgMatches) -> Option<PathBuf> {
    matches.get_one::<PathBuf>(FILE_ID).cloned()
}

/// Returns the settings' flags that were given, as dotted key and value, in the table's order.
pub fn flags(matches: &ArgMatches) -> Vec<(String, String)> {
    TABLE
        .iter()
        .filter_map(|setting| Some((setting.key.to_owned(), matches.get_one::<String>(setting.key)?.clone())))
        .collect()
}

fn argument(setting: &'static Setting) -> Arg {
    let default = match setting.fallback {
        Fallback::Unset => String::new(),
        Fallback::Is(text) => format!(" [default: {text}]"),
        Fallback::ByMode { development, production } => {
            format!(" [default: {development} in development, {production} in production]")
        }
    };
    Arg::new(setting.key)
        .long(setting.flag())
        .value_name(value_name(setting.kind))
        .allow_hyphen_values(true)
        .help_heading(setting.section())
        .help(format!("{}{default}", setting.doc()))
}

fn value_name(kind: Kind) -> String {
    match kind {
        Kind::Choice(words) => words.join("|"),
        Kind::Count { unit, .. } => unit.to_ascii_uppercase(),
        Kind::Switch => "true|false".to_owned(),
        Kind::Address => "IP:PORT".to_owned(),
        Kind::Host => "HOST".to_owned(),
        Kind::HostPort => "HOST[:PORT]".to_owned(),
        Kind::LogLevels => "LEVELS".to_owned(),
        Kind::Route => "PATH".to_owned(),
        Kind::Origins => "host|off|conn|ORIGINS".to_owned(),
        Kind::Secret { .. } => "SECRET".to_owned(),
        Kind::File => "FILE".to_owned(),
        Kind::Folder => "FOLDER".to_owned(),
        Kind::Url => "URL".to_owned(),
        Kind::IpPattern => "IP".to_owned(),
        Kind::Topic => "TOPIC".to_owned(),
        Kind::Cost => "METHOD=COST".to_owned(),
        Kind::TopicCredentials => "TOPIC=KIND+KIND".to_owned(),
        Kind::Text | Kind::Hidden | Kind::Variable | Kind::HeaderName | Kind::HeaderValue => "TEXT".to_owned(),
        Kind::List(of) => format!("{},...", value_name(*of)),
        Kind::Pairs { .. } => "TABLE".to_owned(),
    }
}
