//! The options that several modes share, and what they build.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use serde::{Serialize, Serializer};

use super::process::Process;
use super::stage::Plan;
use super::target::{Request, Target};

/// Which Phoenix-protocol server is loaded, and as whom.
#[derive(Args, Clone, Debug, Serialize)]
pub struct ServerOptions {
    /// The socket, `vsn=2.0.0` is added
    #[arg(long, default_value = "ws://127.0.0.1:4000/socket/websocket")]
    #[serde(serialize_with = "without_query")]
    pub url: String,
    /// PEM file with the certificates that vouch for the server of a `wss://` url
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub trusted: Option<PathBuf>,
    /// Value of the connect parameter `token`
    #[arg(long)]
    #[serde(skip)]
    pub token: Option<String>,
    /// A further connect parameter, may be repeated
    #[arg(long = "param", value_name = "NAME=VALUE")]
    #[serde(skip)]
    pub params: Vec<String>,
    /// A header of the upgrade request, may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE")]
    #[serde(skip)]
    pub headers: Vec<String>,
    /// Payload of each join, a JSON object
    #[arg(long, visible_alias = "join", default_value = "{}", value_name = "JSON")]
    #[serde(skip)]
    pub join_payload: String,
    /// Options of the client itself.
    #[command(flatten)]
    #[serde(flatten)]
    pub client: ClientOptions,
}

/// Where the load comes from.
#[derive(Args, Clone, Debug, Serialize)]
pub struct ClientOptions {
    /// Local addresses to connect from in turn, e.g. 127.0.0.1,127.0.0.2: one address has some 28 000 ports
    #[arg(long = "source", value_delimiter = ',', value_name = "ADDRESS")]
    pub sources: Vec<IpAddr>,
    /// Seconds to wait for a connection, an upgrade, a join, or the last answers
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    pub timeout: f64,
}

/// How long load runs.
#[derive(Args, Clone, Debug, Serialize)]
pub struct LoadOptions {
    /// Length of the measured window
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Load before the window, in seconds
    #[arg(long, default_value_t = 1.0)]
    pub warmup: f64,
    /// Client threads
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
}

/// What is watched and where results go.
#[derive(Args, Clone, Debug, Serialize)]
pub struct OutputOptions {
    /// Process of the server: its CPU time and memory are read from /proc
    #[arg(long)]
    #[serde(skip)]
    pub pid: Option<u32>,
    /// Append the result as a JSON line to a file; `-` prints it and moves the table to stderr
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub json: Option<String>,
    /// Name of this run in the results
    #[arg(long, default_value = "")]
    #[serde(skip)]
    pub label: String,
}

impl ServerOptions {
    /// Resolves the server and prepares the upgrade.
    ///
    /// # Errors
    /// If the URL, a parameter, a header or the join payload has another form than expected.
    pub fn target(&self) -> Result<Target> {
        match serde_json::from_str::<serde_json::Value>(&self.join_payload) {
            Ok(serde_json::Value::Object(_)) => {}
            _ => bail!("join payload is {:?}, expected a JSON object", self.join_payload),
        }
        let mut params = Vec::new();
        for param in &self.params {
            match param.split_once('=') {
                Some(pair) => params.push(pair),
                None => bail!("param is {param:?}, expected NAME=VALUE"),
            }
        }
        params.extend(self.token.as_deref().map(|token| ("token", token)));
        let request = Request { params, headers: &self.headers };
        Target::websocket(&self.url, &request, &self.client.sources, self.trusted.as_deref())
    }
}

impl ClientOptions {
    /// How long to wait for an answer.
    ///
    /// # Errors
    /// If it isn't above 0.
    pub fn limit(&self) -> Result<Duration> {
        seconds("timeout", self.timeout, 0.001)
    }
}

impl LoadOptions {
    /// The plan of a run that watches `server`.
    ///
    /// # Errors
    /// If a time or the number of threads makes no sense.
    pub fn plan(&self, server: Option<Process>) -> Result<Plan> {
        at_least_one("threads", self.threads)?;
        Ok(Plan {
            threads: self.threads,
            warmup: seconds("warmup", self.warmup, 0.0)?,
            seconds: seconds("seconds", self.seconds, 0.01)?,
            server,
        })
    }
}

impl OutputOptions {
    /// The server's process, if its pid was given.
    ///
    /// # Errors
    /// If it doesn't run.
    pub fn process(&self) -> Result<Option<Process>> {
        self.pid.map(Process::new).transpose()
    }
}

/// Reads a time option.
///
/// # Errors
/// If it is below `least` or no number.
pub fn seconds(name: &str, value: f64, least: f64) -> Result<Duration> {
    match Duration::try_from_secs_f64(value) {
        Ok(duration) if value >= least => Ok(duration),
        _ => bail!("{name} is {value}, expected at least {least} seconds"),
    }
}

/// Refuses a count of 0.
///
/// # Errors
/// If `value` is 0.
pub fn at_least_one(name: &str, value: usize) -> Result<()> {
    if value == 0 {
        bail!("{name} is 0, expected at least 1");
    }
    Ok(())
}

/// A query may carry a token, which has no place in a file of results.
fn without_query<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(url.split('?').next().unwrap_or_default())
}
