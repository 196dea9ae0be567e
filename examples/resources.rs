//! MCP resources: a notebook that clients read and watch. `cargo run --example resources`. `PORT` is 4000 where it is not set.
//!
//! | URI | is |
//! |---|---|
//! | `notebook://about` | fixed text |
//! | `notebook://index` | the notes' names: changes with every new note |
//! | `notebook://notes/{name}` | a note, by a template whose `name` clients can complete |
//!
//! The tool `write` changes a note. Who subscribed to it, or to the index, is told, and reads again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bennu::channel::SocketSpecBuilder;
use bennu::mcp::auth::Development;
use bennu::mcp::{CallContext, CallError, Mcp, McpServer, McpServerError, Resource, ResourceTemplate, Tool};
use bennu::schemars::JsonSchema;
use bennu::{Endpoint, Server};
use serde::Deserialize;

const INDEX: &str = "notebook://index";

/// The notes by their names.
#[derive(Clone)]
struct Notebook(Arc<Mutex<BTreeMap<String, String>>>);

impl Notebook {
    fn notes(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().expect("nothing panics under the lock")
    }

    fn names(&self, beginning: &str) -> Vec<String> {
        self.notes().keys().filter(|name| name.starts_with(beginning)).cloned().collect()
    }
}

/// The variables of the template.
#[derive(Deserialize)]
struct Which {
    name: String,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "bennu::schemars")]
struct Write {
    /// The note's name: lower-case letters.
    #[schemars(regex(pattern = "^[a-z]+$"))]
    name: String,
    /// What it says from now on.
    text: String,
}

pub fn server() -> Result<McpServer, McpServerError> {
    let notes = BTreeMap::from([("milk".to_owned(), "Buy some.".to_owned())]);
    let notebook = Notebook(Arc::new(Mutex::new(notes)));
    let (listed, read, completed) = (notebook.clone(), notebook.clone(), notebook.clone());

    let about = Resource::new("notebook://about", "about", |_: CallContext| async { Ok("A notebook of short notes.") });
    let index = Resource::new(INDEX, "index", move |_: CallContext| {
        let names = listed.names("").join("\n");
        async move { Ok(names) }
    });
    let note = ResourceTemplate::new("notebook://notes/{name}", "note", move |which: Which, _: CallContext| {
        // The client is told that there is no such resource.
        let note = read.notes().get(&which.name).cloned().ok_or(CallError::NotFound);
        async move { note }
    });
    let server = McpServer::builder("notebook")
        .resource(about.description("What this is.").mime_type("text/plain"))
        .resource(index.description("The names of the notes.").mime_type("text/plain"))
        .template(note.description("A note.").mime_type("text/plain").complete("name", move |typed| {
            let names = completed.names(&typed.value);
            async move { Ok(names) }
        }))
        .build()?;

    let changed = server.clone();
    let write = Tool::new("write", move |note: Write, _: CallContext| {
        let uri = format!("notebook://notes/{}", note.name);
        let is_new = notebook.notes().insert(note.name, note.text).is_none();
        // Any part of the program may say so, a timer or another task as well.
        changed.resource_updated(&uri);
        if is_new {
            changed.resource_updated(INDEX);
        }
        async move { Ok(format!("wrote {uri}")) }
    });
    server.add_tool(write.description("Writes a note."))?;
    Ok(server)
}

pub fn socket(endpoint: &Endpoint, mcp: &Arc<Mcp>) -> SocketSpecBuilder {
    mcp.routes(endpoint.socket("/socket"))
}

const TRY: &str = r#"listening on http://localhost:PORT

from phoenix.js, each message after the answer to the one before:
  const socket = new Socket("ws://localhost:PORT/socket")
  const channel = socket.channel("mcp:server:notebook")
  socket.connect(), channel.join()
  const send = (id, method, params) => channel.push("mcp_message", { jsonrpc: "2.0", id, method, params })
  channel.on("mcp_message", console.log)
  send(1, "initialize", { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "me", version: "1" } })
  channel.push("mcp_message", { jsonrpc: "2.0", method: "notifications/initialized" })
  send(2, "resources/subscribe", { uri: "notebook://index" })
  send(3, "tools/call", { name: "write", arguments: { name: "tea", text: "Green." } })
from the inspector, with Streamable HTTP at http://localhost:PORT/mcp:
  npx @modelcontextprotocol/inspector
from curl:
  curl http://localhost:PORT/mcp -H 'content-type: application/json' -H 'accept: application/json, text/event-stream' \
    -H 'mcp-protocol-version: 2026-07-28' -H 'mcp-method: resources/read' -H 'mcp-name: notebook://notes/milk' -d '{
    "jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": "notebook://notes/milk", "_meta": {
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
