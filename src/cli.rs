//! The command line: reads subcommands and flags, and hands over to what they name.

mod audit;
mod keys;
mod operator;
mod queue;
mod store;
mod token;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::bench::BenchArgs;
use crate::config::{self, Faults, Mode, Settings, Sources};

/// Runs the program with these arguments, the first of which is its own name.
///
/// Ends the process itself for `--help`, `--version` and a command line that can't be read (status 2).
///
/// # Errors
/// What the server or the load tool could not do. Faulty settings are printed, and the status returned is 1.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<ExitCode> {
    let matches = command().get_matches_from(arguments);
    match matches.subcommand() {
        Some(("check", matches)) => Ok(check(matches)),
        Some(("token", matches)) => token::run(matches),
        Some(("keys", matches)) => with_settings(matches, async |settings, matches| keys::run(settings, matches).await),
        Some(("audit", matches)) => {
            with_settings(matches, async |settings, matches| audit::run(settings, matches).await)
        }
        Some(("queue", matches)) => {
            with_settings(matches, async |settings, matches| queue::run(settings, matches).await)
        }
        Some(("store", matches)) => store::run(matches),
        Some(("bench", matches)) => {
            crate::bench::run(BenchArgs::from_arg_matches(matches)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Some((_, matches)) => serve(matches),
        None => serve(&matches),
    }
}

/// Describes the command line. Without a subcommand the flags are those of `serve`.
pub fn command() -> Command {
    let serve_flags = config::arguments();
    let hidden_flags = serve_flags.clone().into_iter().map(|argument| argument.hide(true));
    Command::new("bennu")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A realtime server that speaks Phoenix Channels and carries MCP sessions as channels")
        .after_help("Without a command: serve, which also takes its flags directly. `bennu help serve` lists them.")
        .args_conflicts_with_subcommands(true)
        .args(hidden_flags)
        .subcommand(
            Command::new("serve")
                .about("Runs the server")
                .after_help("Flags are stronger than BENNU_* variables, those than the settings file.")
                .args(serve_flags.clone()),
        )
        .subcommand(
            Command::new("check")
                .about("Checks the settings that serve would run with, and the store's file, and reports every fault")
                .args(serve_flags),
        )
        .subcommand(keys::command().args(hidden_globals()))
        .subcommand(audit::command().args(hidden_globals()))
        .subcommand(queue::command().args(hidden_globals()))
        .subcommand(store::command().args(hidden_globals()))
        .subcommand(token::command())
        .subcommand(
            BenchArgs::augment_args(Command::new("bench"))
                .about("Loads a server that speaks the Phoenix protocol and measures it")
                .long_about(None),
        )
}

fn serve(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    match config::load(&sources(matches)) {
        Ok(settings) => {
            crate::server::run(settings)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(faults) => Ok(report(&faults)),
    }
}

/// The settings' flags for a command that has flags of its own: only `--config` is listed.
fn hidden_globals() -> impl Iterator<Item = clap::Arg> {
    config::arguments().into_iter().map(|argument| {
        let is_config = argument.get_id() == "config";
        argument.hide(!is_config).global(true)
    })
}

/// Runs a command that needs the settings, on a runtime of its own.
fn with_settings(
    matches: &ArgMatches,
    run: impl AsyncFnOnce(&Settings, &ArgMatches) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    match config::load(&sources(matches)) {
        Ok(settings) => crate::server::runtime(1)?.block_on(run(&settings, matches)),
        Err(faults) => Ok(report(&faults)),
    }
}

fn check(matches: &ArgMatches) -> ExitCode {
    let sources = sources(matches);
    match config::load(&sources) {
        Ok(settings) => match summaries(&settings) {
            Ok(parts) => {
                println!("{}\n{parts}", summary(&sources, &settings));
                store::check_of(&settings)
            }
            Err(error) => {
                eprintln!("{error:#}\nbennu: 1 fault in the settings");
                ExitCode::FAILURE
            }
        },
        Err(faults) => report(&faults),
    }
}

/// The stock program has no authenticator of its own; a program that embeds the library may bring one.
fn sources(matches: &ArgMatches) -> Sources {
    let env = config::environment();
    let file = config::default_path(config::file_argument(matches).as_deref(), &env);
    Sources { file, env, flags: config::flags(matches), authenticator: false }
}

/// What the parts of the server will be.
fn summaries(settings: &Settings) -> anyhow::Result<String> {
    Ok(format!("{}\n{}", crate::server::security_summary(settings)?, crate::server::queues_summary(settings)?))
}

fn summary(sources: &Sources, settings: &Settings) -> String {
    let file = sources.file.as_ref().map_or("no settings file".to_owned(), |path| path.display().to_string());
    let mode = match settings.server.mode {
        Mode::Development => "development",
        Mode::Production => "production",
    };
    format!("no faults ({file}): {mode} on {}", settings.server.listen)
}

fn report(faults: &Faults) -> ExitCode {
    eprintln!("{faults}");
    match faults.0.len() {
        1 => eprintln!("bennu: 1 fault in the settings"),
        count => eprintln!("bennu: {count} faults in the settings"),
    }
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> ArgMatches {
        command().try_get_matches_from(words).expect("the command line is fine")
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn flags_are_read_with_and_without_the_subcommand() {
        let words = ["--server-listen", "127.0.0.1:0", "--socket-compress=true"];
        let expected: Vec<(String, String)> = [("server.listen", "127.0.0.1:0"), ("socket.compress", "true")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();

        let bare = parse(&[&["bennu"], &words[..]].concat());
        let named = parse(&[&["bennu", "serve"], &words[..]].concat());

        assert_eq!(config::flags(&bare), expected);
        assert_eq!(config::flags(named.subcommand_matches("serve").expect("serve was named")), expected);
    }

    #[test]
    fn a_negative_number_reaches_the_check_and_not_the_parser() {
        let matches = parse(&["bennu", "--server-workers", "-1"]);

        assert_eq!(config::flags(&matches), [("server.workers".to_owned(), "-1".to_owned())]);
    }

    #[test]
    fn a_misspelt_flag_is_refused_without_its_value() {
        let words = ["bennu", "check", "--server-secret-key-bas=hush-hush"];

        let error = command().try_get_matches_from(words).expect_err("there is no such flag").to_string();

        assert!(error.contains("--server-secret-key-base"), "{error}");
        assert!(!error.contains("hush-hush"), "{error}");
    }
}
