//! What the official MCP conformance suites call: every tool, resource and prompt that they name, for both eras, and some
//! more for Bennu's own tests. `cargo run --example tools` shows how a server looks that people would use.
//!
//! `conformance --port N` listens on 127.0.0.1 (N = 0 for a free port) and prints `listening on ADDRESS`: the socket at
//! `/socket` with the topic `mcp:server:conformance`, Streamable HTTP at `/mcp`. `--page-size N` has pages of N items; without,
//! everything is on one, as the suites want it. Then:
//!
//! ```sh
//! npx @modelcontextprotocol/conformance server --url http://localhost:4100/mcp --suite all
//! ```
//!
//! Names, keys, texts and pauses are those of the suites, which look for them.

use std::io::Write;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use bennu::channel::SocketSpecBuilder;
use bennu::mcp::auth::Development;
use bennu::mcp::{Mcp, McpServer, McpServerError};
use bennu::server;
use bennu::{Endpoint, Server};

mod changes;
mod content;
mod prompts;
mod questions;
mod resources;
mod strain;
mod tasks;

/// Items of a page where nothing else is said: all of them.
pub const ONE_PAGE: NonZeroUsize = NonZeroUsize::new(1_000).expect("not 0");

/// The server. Some suites call what is listed first, so that is what takes no arguments and always works.
pub fn server(page_items: NonZeroUsize) -> Result<McpServer, McpServerError> {
    let server = McpServer::builder("conformance")
        .display_name("bennu-conformance")
        .page_items(page_items)
        .instructions("Made for the conformance suites.")
        .tools(content::tools())
        .tools(questions::tools())
        .tools(tasks::tools())
        .tools(strain::tools());
    let server = prompts::add_to(resources::add_to(server)).build()?;
    changes::add_to(&server)?;
    Ok(server)
}

/// The server behind its topics. Everyone is the user `dev`: for this machine only.
pub fn mcp(endpoint: &Endpoint, page_items: NonZeroUsize) -> Result<Arc<Mcp>, Box<dyn std::error::Error>> {
    Ok(Mcp::builder(endpoint, Development).server(server(page_items)?).build()?)
}

pub fn socket(endpoint: &Endpoint, mcp: &Arc<Mcp>) -> SocketSpecBuilder {
    mcp.routes(endpoint.socket("/socket"))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut port, mut page_items) = (4100, ONE_PAGE);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.next()) {
            ("--port", Some(value)) => port = value.parse()?,
            ("--page-size", Some(value)) => page_items = value.parse()?,
            (other, _) => return Err(format!("expected --port N or --page-size N, came {other:?}").into()),
        }
    }
    let runtime = server::runtime(0)?;
    runtime.block_on(serve(SocketAddr::from(([127, 0, 0, 1], port)), page_items))
}

async fn serve(address: SocketAddr, page_items: NonZeroUsize) -> Result<(), Box<dyn std::error::Error>> {
    let endpoint = Endpoint::start();
    let mcp = mcp(&endpoint, page_items)?;
    let running = Server::new(&endpoint).socket(socket(&endpoint, &mcp)).mcp(&mcp).listen(address)?;
    println!("listening on {}", running.address());
    std::io::stdout().flush()?;
    running.until_signalled().await;
    Ok(())
}
