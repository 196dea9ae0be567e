//! The server that our benchmarks compare with: rmcp's Streamable HTTP service under axum, as its documentation sets it up.
//!
//! ```text
//! rmcp_server [--stateless] [--json] [PORT]
//! rmcp_server --stdio
//! ```
//!
//! Listens on 127.0.0.1, on a free port unless one is given, and says so in a line. It has one tool, `echo`. Sessions of
//! the revisions with `initialize` are kept unless `--stateless`; with `--json` too, an answer is `application/json`
//! instead of an event stream, which rmcp offers without sessions only. With `--stdio` it serves whoever started it. Nothing is logged: no subscriber is installed.

use std::process::exit;
use std::sync::Arc;

use axum::serve::ListenerExt;
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{ServerCapabilities, ServerConfig};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ServerHandler, ServiceExt};
use rmcp::{schemars, tool, tool_handler, tool_router};

const USAGE: &str = "usage: rmcp_server [--stateless] [--json] [PORT], or --stdio";

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Echo {
    /// What comes back.
    text: String,
}

#[derive(Clone)]
struct Server {
    tool_router: ToolRouter<Self>,
}

#[tool_router]
impl Server {
    fn new() -> Self {
        Server { tool_router: Self::tool_router() }
    }

    #[tool(description = "Answers with the text it was given")]
    fn echo(&self, Parameters(Echo { text }): Parameters<Echo>) -> String {
        text
    }
}

#[tool_handler(router = self.tool_router)]
impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("--stdio") {
        let served = Server::new().serve(rmcp::transport::stdio()).await.map_err(std::io::Error::other)?;
        served.waiting().await.map_err(std::io::Error::other)?;
        return Ok(());
    }
    let (mut config, mut port) = (StreamableHttpServerConfig::default(), 0);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--stateless" => config = config.with_legacy_session_mode(false),
            "--json" => config = config.with_json_response(true),
            number => port = number.parse().unwrap_or_else(|_| usage()),
        }
    }
    if config.json_response && config.legacy_session_mode {
        usage();
    }

    let sessions = Arc::new(LocalSessionManager::default());
    let service = StreamableHttpService::new(|| Ok(Server::new()), sessions, config);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on {}", listener.local_addr()?);
    // Without this the kernel holds small writes of an event stream back for 40 ms.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, axum::Router::new().nest_service("/mcp", service)).await
}

fn usage() -> ! {
    eprintln!("{USAGE}");
    exit(2);
}
