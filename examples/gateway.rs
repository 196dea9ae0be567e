//! Other MCP servers behind Bennu, in a program of one's own: each is a name and a command, or a URL.
//!
//! ```sh
//! cargo run --example gateway -- time "uvx mcp-server-time" wiki https://mcp.example.com/mcp
//! ```
//!
//! Their channels are `mcp:server:time` and `mcp:server:wiki`, their paths `/mcp/time` and `/mcp/wiki`; all as one are at `mcp:hub`
//! and `/mcp`. The program of the `bennu` binary does the same from `[mcp.servers.<name>]` in `bennu.toml`.
//!
//! Without authentication, for this machine alone. `PORT` is 4000 where it is not set.

use bennu::mcp::auth::Development;
use bennu::mcp::upstream::{Command, Endpoint as Url, Reach, UpstreamOptions};
use bennu::mcp::{Mcp, McpServer};
use bennu::{Endpoint, Server};

/// How a server is reached that is given as one word of the command line.
fn reach(target: &str) -> Reach {
    if target.starts_with("http://") || target.starts_with("https://") {
        return Reach::Http(Url::new(target));
    }
    let mut words = target.split_whitespace();
    Reach::Stdio(Command::new(words.next().unwrap_or_default(), words))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let endpoint = Endpoint::start();
        let mut mcp = Mcp::builder(&endpoint, Development);
        let words: Vec<String> = std::env::args().skip(1).collect();
        for pair in words.chunks(2) {
            let [name, target] = pair else { return Err("expected a name and a command or URL, came a name".into()) };
            mcp = mcp.server(McpServer::upstream(name.as_str(), UpstreamOptions::new(reach(target)))?);
        }
        let mcp = mcp.build()?;
        mcp.boot();

        let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(4000);
        let socket = mcp.routes(endpoint.socket("/socket"));
        let running = Server::new(&endpoint)
            .socket(socket)
            .mcp(&mcp)
            .options(|options| options.local_only = true)
            .listen(([127, 0, 0, 1], port))?;
        println!("listening on {}", running.address());
        running.until_signalled().await;
        mcp.stop_upstreams().await;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_url_or_a_command() {
        assert!(matches!(reach("http://127.0.0.1:1/mcp"), Reach::Http(_)));
        let Reach::Stdio(command) = reach("node  server.js stdio") else { panic!("a command") };
        assert_eq!((command.program.as_str(), command.args.len()), ("node", 2));
    }
}
