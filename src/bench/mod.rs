//! `bennu bench`: a load tool for any server that speaks the Phoenix Channels protocol (V2 serializer), and for MCP on such
//! channels or on Streamable HTTP.
//!
//! Each mode asks one question; [`floor`] asks it of plain TCP, so that a figure can be held against what the machine gives at
//! best. The client is its own small implementation of the wire and shares nothing with the server's, so a fault in one isn't
//! answered by the same fault in the other. One thread, one core: on two cores, the other is the server's.
//!
//! What every figure means: a rate counts units completed in the measured window, CPU time is that of all the server's threads in
//! that window, and an answer that isn't what it has to be makes the run fail. A broken answer is never a fast answer.

pub mod clock;
pub mod echo;
pub mod exchange;
pub mod fanout;
pub mod floor;
pub mod frame;
pub mod http;
pub mod idle;
pub mod join;
pub mod mcp;
pub mod mcp_call;
pub mod mcp_http;
pub mod mcp_idle;
pub mod message;
pub mod options;
pub mod process;
pub mod record;
pub mod report;
pub mod schedule;
pub mod stage;
pub mod summary;
pub mod target;
mod tls;
pub mod wire;

use anyhow::Result;
use clap::{Args, Subcommand};

/// Arguments of `bennu bench`.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand, Clone, Debug)]
enum Mode {
    /// Messages answered: a closed loop with some in flight a connection, or a fixed rate
    Echo(echo::EchoArgs),
    /// Broadcasts delivered to the subscribers of one topic
    Fanout(fanout::FanoutArgs),
    /// Memory of joined, idle connections, and of further channels on them
    Idle(idle::IdleArgs),
    /// Connect, upgrade, join, close, over and over
    Join(join::JoinArgs),
    /// Tools called in MCP sessions on channels: a closed loop with some calls in flight a connection
    McpCall(mcp_call::McpCallArgs),
    /// The same calls over Streamable HTTP
    McpHttp(mcp_http::McpHttpArgs),
    /// Memory of idle MCP sessions on channels
    McpIdle(mcp_idle::McpIdleArgs),
    /// The same load on plain TCP, to compare with
    Floor(floor::FloorArgs),
    /// The TCP echo server that `floor` loads
    FloorServer(floor::FloorServerArgs),
    /// Medians and ratios of JSON lines that labelled runs wrote, held against the targets
    Summary(summary::SummaryArgs),
}

/// Runs one mode to its end. It starts its own runtime and must not be called from within one.
///
/// # Errors
/// If the load can't be run as asked, or if the server answered anything wrongly.
pub fn run(args: BenchArgs) -> Result<()> {
    match args.mode {
        Mode::Echo(args) => echo::run(&args),
        Mode::Fanout(args) => fanout::run(&args),
        Mode::Idle(args) => idle::run(&args),
        Mode::Join(args) => join::run(&args),
        Mode::McpCall(args) => mcp_call::run(&args),
        Mode::McpHttp(args) => mcp_http::run(&args),
        Mode::McpIdle(args) => mcp_idle::run(&args),
        Mode::Floor(args) => floor::run(&args),
        Mode::FloorServer(args) => floor::serve(&args),
        Mode::Summary(args) => summary::run(&args),
    }
}
