//! MCP prompts: conversations that a person begins with a few words. `cargo run --example prompts`. `PORT` is 4000 where it
//! is not set.
//!
//! The arguments of a prompt are a type, as those of a tool; clients send them as texts, which are read as what they spell.

use std::sync::Arc;

use bennu::channel::SocketSpecBuilder;
use bennu::mcp::auth::Development;
use bennu::mcp::{
    CallContext, CallError, Content, Mcp, McpServer, McpServerError, Prompt, PromptMessage, ResourceContents,
};
use bennu::schemars::JsonSchema;
use bennu::{Endpoint, Server};
use serde::Deserialize;

const LANGUAGES: [&str; 4] = ["elixir", "javascript", "python", "rust"];

/// Rules that come with each review, as a resource that the model sees in full.
const RULES: &str = "Names say the thing. Comments give the reason.";

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "bennu::schemars")]
struct Review {
    /// The code to look at.
    code: String,
    /// What it is written in.
    language: Option<String>,
    /// How many remarks there may be.
    remarks: Option<u8>,
}

async fn review(review: Review, _: CallContext) -> Result<Vec<PromptMessage>, CallError> {
    let language = review.language.as_deref().unwrap_or("unknown");
    let remarks = review.remarks.unwrap_or(5);
    let rules = ResourceContents::text("rules://review", RULES).mime_type("text/plain");
    Ok(vec![
        PromptMessage::user(Content::resource(rules)),
        PromptMessage::assistant("I shall keep to these rules."),
        PromptMessage::user(format!("Review this {language} code in at most {remarks} remarks:\n\n{}", review.code)),
    ])
}

/// How a letter sounds. A text that is none of these is refused before the function runs.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[schemars(crate = "bennu::schemars")]
#[serde(rename_all = "lowercase")]
enum Tone {
    Formal,
    Friendly,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "bennu::schemars")]
struct Letter {
    /// Whom it is to.
    to: String,
    /// `formal` or `friendly`.
    tone: Tone,
}

/// A prompt of one message is its text.
async fn letter(letter: Letter, _: CallContext) -> Result<String, CallError> {
    let closing = match letter.tone {
        Tone::Formal => "Yours faithfully",
        Tone::Friendly => "Love",
    };
    Ok(format!("Write a letter to {} that ends with {closing:?}.", letter.to))
}

/// The values that begin with what is typed.
fn beginning_with(typed: &str, values: &[&str]) -> Vec<String> {
    values.iter().filter(|value| value.starts_with(typed)).map(|value| (*value).to_owned()).collect()
}

pub fn server() -> Result<McpServer, McpServerError> {
    McpServer::builder("desk")
        .prompt(
            Prompt::new("review", review)
                .description("Asks for a code review.")
                .complete("language", |typed| async move { Ok(beginning_with(&typed.value, &LANGUAGES)) }),
        )
        .prompt(
            Prompt::new("letter", letter)
                .description("Asks for a letter.")
                .complete("tone", |typed| async move { Ok(beginning_with(&typed.value, &["formal", "friendly"])) }),
        )
        .build()
}

pub fn socket(endpoint: &Endpoint, mcp: &Arc<Mcp>) -> SocketSpecBuilder {
    mcp.routes(endpoint.socket("/socket"))
}

const TRY: &str = r#"listening on http://localhost:PORT

from phoenix.js:
  const socket = new Socket("ws://localhost:PORT/socket")
  const channel = socket.channel("mcp:server:desk", { clientInfo: { name: "me", version: "1" } })
  socket.connect(), channel.join()
  channel.on("mcp_message", console.log)
  channel.push("mcp_message", { jsonrpc: "2.0", id: 1, method: "prompts/get",
    params: { name: "review", arguments: { code: "1 + 1", language: "rust" } } })
from the inspector, with Streamable HTTP at http://localhost:PORT/mcp:
  npx @modelcontextprotocol/inspector
from curl:
  curl http://localhost:PORT/mcp -H 'content-type: application/json' -H 'accept: application/json, text/event-stream' \
    -H 'mcp-protocol-version: 2026-07-28' -H 'mcp-method: prompts/get' -H 'mcp-name: letter' -d '{"jsonrpc": "2.0", "id": 1,
    "method": "prompts/get", "params": {"name": "letter", "arguments": {"to": "Ada", "tone": "friendly"}, "_meta": {
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
