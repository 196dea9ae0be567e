//! `bennu store`: looks a store's file over, and makes backups of it, also while a server has it open.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use clap::{ArgMatches, FromArgMatches, Subcommand};

use super::operator::Client;
use super::with_settings;
use crate::config::Settings;
use crate::store::{self, StoreError};

/// What is wanted of the store.
#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Reads a whole store and says what is in it, or what is damaged; the file stays as it is
    Check {
        /// The file, which no server has open
        path: PathBuf,
    },
    /// Writes what is stored at one moment to a new file, which is a store: of the server that runs, or of a file that none has open
    Backup {
        /// The new file
        to: PathBuf,
        /// The file to copy, instead of the settings' store.path
        #[arg(long)]
        path: Option<PathBuf>,
    },
}

pub(super) fn command() -> clap::Command {
    // What the enum's own comment says is for readers of the code.
    StoreCommand::augment_subcommands(clap::Command::new("store"))
        .about("Checks a store's file and makes backups of it, also while the server runs")
        .long_about(None)
        .subcommand_required(true)
}

pub(super) fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    match StoreCommand::from_arg_matches(matches)? {
        StoreCommand::Check { path } => {
            println!("{}", crate::server::runtime(1)?.block_on(store::verify(&path))?);
            Ok(ExitCode::SUCCESS)
        }
        StoreCommand::Backup { to, path: Some(path) } => {
            crate::server::runtime(1)?.block_on(backup(&to, async |file, new| copy(&path, file, new).await))
        }
        StoreCommand::Backup { to, path: None } => with_settings(matches, async |settings, _| {
            backup(&to, async |file, new| copy_or_download(settings, file, new).await).await
        }),
    }
}

/// Looks over the store of these settings, prints what it finds and gives the status that `bennu check` ends with.
pub(super) fn check_of(settings: &Settings) -> ExitCode {
    let Some(path) = &settings.store.path else { return ExitCode::SUCCESS };
    if let Err(error) = std::fs::metadata(path)
        && error.kind() == ErrorKind::NotFound
    {
        // Also where a link leads to nothing: a server makes the file there.
        return ExitCode::SUCCESS;
    }
    let verified = match crate::server::runtime(1) {
        Ok(runtime) => runtime.block_on(store::verify(path)),
        Err(error) => {
            eprintln!("bennu: starting the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match verified {
        Ok(verified) => println!("{verified}"),
        Err(StoreError::InUse { path }) => println!("store {}: in use, so it was not read", path.display()),
        Err(error) => {
            eprintln!("{error}\nbennu: the store can't be used");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Has a new file filled under another name, looks it over and gives it its own. A signal to end takes what there is of it away.
async fn backup(to: &Path, fill: impl AsyncFnOnce(File, &Path) -> anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    let is_there = || anyhow!("{} is there already: a backup is a new file", to.display());
    if std::fs::symlink_metadata(to).is_ok() {
        return Err(is_there());
    }
    let signals = ended_by_signal().context("listening for signals")?;
    let (file, new) = store::new_beside(to).with_context(|| format!("making a file beside {}", to.display()))?;
    let made = async {
        fill(file, &new).await?;
        let verified = store::verify(&new).await.context("looking the backup over")?;
        // Whoever made one of that name meanwhile keeps it.
        store::name_file(&new, to).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => is_there(),
            _ => anyhow!(error).context(format!("naming {}", to.display())),
        })?;
        Ok(verified)
    };
    let made = tokio::select! {
        made = made => made,
        status = signals => {
            let _ = std::fs::remove_file(&new);
            // A copy under way would hold the runtime's end up.
            std::process::exit(status);
        }
    };
    match made {
        Ok(mut verified) => {
            to.clone_into(&mut verified.path);
            println!("{verified}");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            // What there is of it is of no use.
            let _ = std::fs::remove_file(&new);
            Err(error)
        }
    }
}

/// Ends with the status for a signal that ends the process, when one comes.
#[cfg(unix)]
fn ended_by_signal() -> std::io::Result<impl Future<Output = i32>> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => 128 + SignalKind::interrupt().as_raw_value(),
            _ = terminate.recv() => 128 + SignalKind::terminate().as_raw_value(),
        }
    })
}

#[cfg(not(unix))]
fn ended_by_signal() -> std::io::Result<impl Future<Output = i32>> {
    Ok(async {
        match tokio::signal::ctrl_c().await {
            Ok(()) => 130,
            Err(_) => std::future::pending().await,
        }
    })
}

async fn copy(from: &Path, to: File, named: &Path) -> anyhow::Result<()> {
    store::copy_file(from, to, named).await?;
    Ok(())
}

/// From the file, or from the server that has it.
async fn copy_or_download(settings: &Settings, mut to: File, named: &Path) -> anyhow::Result<()> {
    let Some(path) = &settings.store.path else {
        bail!("the settings name no store's file (store.path): what a server keeps in memory can't be copied");
    };
    match store::copy_file(path, to.try_clone().context("preparing the file")?, named).await {
        Err(StoreError::InUse { .. }) => {}
        copied => {
            copied?;
            return Ok(());
        }
    }
    Client::new(settings)?.download("store/backup", &mut to).await?;
    to.flush().and_then(|()| to.sync_all()).context("syncing the backup")
}
