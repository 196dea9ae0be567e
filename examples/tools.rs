//! MCP tools made of functions, beside an ordinary channel: `cargo run --example tools`. `PORT` is 4000 where it is not set.
//!
//! The arguments of a tool are a type: its doc comments and attributes become the schema that clients see, and a call that
//! does not fit it never reaches the function.

use std::sync::Arc;
use std::time::Duration;

use bennu::channel::SocketSpecBuilder;
use bennu::mcp::auth::Development;
use bennu::mcp::{Answer, CallContext, CallError, ChoiceField, Form, Level, Mcp, McpServer, McpServerError, Tool};
use bennu::schemars::JsonSchema;
use bennu::{Channel, Cx, Endpoint, JoinCx, Next, Payload, Refusal, Server};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "bennu::schemars")]
struct Text {
    /// Any text.
    text: String,
}

async fn echo(text: Text, _: CallContext) -> Result<String, CallError> {
    Ok(text.text)
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "bennu::schemars")]
struct Brew {
    /// How many cups.
    #[schemars(range(min = 1, max = 10))]
    cups: u32,
}

/// Takes its time, and says how far it is. A client that cancels the call ends it at the next await.
async fn brew(brew: Brew, context: CallContext) -> Result<String, CallError> {
    for cup in 1..=brew.cups {
        tokio::time::sleep(Duration::from_millis(300)).await;
        context.progress(cup.into(), Some(brew.cups.into()), Some(format!("cup {cup}")));
    }
    context.log(Level::Info, Some("kitchen"), "the pot is empty");
    Ok(format!("{} cups of coffee", brew.cups))
}

/// What `count` gives: a value with a schema, for programs, and its JSON as text, for models.
#[derive(Serialize, JsonSchema)]
#[schemars(crate = "bennu::schemars")]
struct Counts {
    words: usize,
    lines: usize,
}

async fn count(text: Text, _: CallContext) -> Result<Counts, CallError> {
    Ok(Counts { words: text.text.split_whitespace().count(), lines: text.text.lines().count() })
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "bennu::schemars")]
struct Primes {
    /// Where to stop.
    #[schemars(range(max = 1_000_000))]
    below: u32,
}

/// Keeps a thread busy, and looks often whether anyone still waits for it.
fn primes(primes: Primes, context: &CallContext) -> Result<String, CallError> {
    let mut found = 0;
    for n in 2..primes.below {
        context.check()?;
        found += u32::from((2..).take_while(|d| d * d <= n).all(|d| n % d != 0));
    }
    Ok(format!("{found} primes"))
}

/// Asks the person at the client. Where the client's revision has no requests of the server, the call ends with the
/// question, and runs once more with the answer: what has effects comes after the last question.
async fn order(text: Text, context: CallContext) -> Result<String, CallError> {
    let size = ChoiceField::of(["small", "large"]);
    let form = Form::new(format!("Which size of {}?", text.text)).required("size", size);
    match context.elicit("size", &form).await? {
        Answer::Accept(fields) => {
            Ok(format!("ordered: {}, {}", text.text, fields["size"].as_str().unwrap_or_default()))
        }
        Answer::Decline | Answer::Cancel => Err(CallError::failed("nothing was ordered")),
    }
}

pub fn server() -> Result<McpServer, McpServerError> {
    McpServer::builder("demo")
        .tool(Tool::new("echo", echo).description("Answers with the text it was given."))
        .tool(Tool::new("brew", brew).description("Brews coffee, and says how far it is."))
        .tool(Tool::structured("count", count).description("Counts words and lines."))
        .tool(Tool::blocking("primes", primes).description("Counts primes.").max_execution_ms(10_000))
        .tool(Tool::new("order", order).description("Orders something, in the size that the person chooses."))
        .build()
}

/// An ordinary channel: MCP topics and others share a socket.
pub struct Room;

impl Channel for Room {
    type Info = ();

    async fn join(_room: &str, _params: Payload, _cx: &mut JoinCx<Self>) -> Result<(Self, Payload), Refusal> {
        Ok((Room, Payload::EMPTY))
    }

    async fn handle_in(&mut self, event: &str, payload: Payload, _cx: &mut Cx<Self>) -> Next {
        match event {
            "echo" => Next::ok(payload),
            _ => Next::unknown(event),
        }
    }
}

pub fn socket(endpoint: &Endpoint, mcp: &Arc<Mcp>) -> SocketSpecBuilder {
    mcp.routes(endpoint.socket("/socket").channel::<Room>("room:*"))
}

const TRY: &str = r#"listening on http://localhost:PORT

from phoenix.js:
  const socket = new Socket("ws://localhost:PORT/socket")
  const channel = socket.channel("mcp:server:demo", { clientInfo: { name: "me", version: "1" } })
  socket.connect(), channel.join()
  channel.on("mcp_message", console.log)
  channel.push("mcp_message", { jsonrpc: "2.0", id: 1, method: "tools/call", params: { name: "brew", arguments: { cups: 3 } } })
from the inspector, with Streamable HTTP at http://localhost:PORT/mcp:
  npx @modelcontextprotocol/inspector
from curl:
  curl http://localhost:PORT/mcp -H 'content-type: application/json' -H 'accept: application/json, text/event-stream' \
    -H 'mcp-protocol-version: 2026-07-28' -H 'mcp-method: tools/call' -H 'mcp-name: echo' -d '{"jsonrpc": "2.0", "id": 1,
    "method": "tools/call", "params": {"name": "echo", "arguments": {"text": "hello"}, "_meta": {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}}}'"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::var("PORT").map_or(Ok(4000), |port| port.parse())?;
    let endpoint = Endpoint::start();
    // Anyone is the user `dev`: for this machine only.
    let mcp = Mcp::builder(&endpoint, Development).server(server()?).build()?;
    let server = Server::new(&endpoint).socket(socket(&endpoint, &mcp)).mcp(&mcp).listen(([127, 0, 0, 1], port))?;
    println!("{}", TRY.replace("PORT", &server.address().port().to_string()));
    server.until_signalled().await;
    Ok(())
}
