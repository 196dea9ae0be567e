//! An MCP session over a channel, from the client's side: what the tests of the MCP examples share.

use std::cell::Cell;
use std::sync::Arc;

use bennu::channel::SocketSpec;
use bennu::testing::{Client, TestChannel, TestSocket};
use serde_json::{Value, json};

const MCP_MESSAGE: &str = "mcp_message";

/// The key of `clientCapabilities` that tells of tasks.
pub const TASKS: &str = "io.modelcontextprotocol/tasks";

/// A session with one server.
pub struct Session {
    _client: TestSocket,
    channel: TestChannel,
    last_id: Cell<u64>,
}

/// A request whose answer has not come yet.
#[derive(Clone, Copy)]
pub struct Asked(u64);

impl Session {
    /// Joins the topic of a server, and says nothing more: stateless requests need no more.
    pub async fn join(socket: &Arc<SocketSpec>, server: &str) -> Self {
        let client = Client::new().connect(socket).await.expect("everyone may connect");
        let channel = client.join(&format!("mcp:server:{server}"), json!({})).await.expect("there is such a server");
        Session { _client: client, channel, last_id: Cell::new(0) }
    }

    /// Joins and initializes, as a client with all capabilities.
    pub async fn initialized(socket: &Arc<SocketSpec>, server: &str) -> Self {
        let session = Self::join(socket, server).await;
        let capabilities = json!({"sampling": {}, "elicitation": {}, "roots": {}});
        let client = json!({"name": "kit", "version": "1"});
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": client});
        assert_eq!(session.request("initialize", params).await["protocolVersion"], "2025-11-25");
        session.notify("notifications/initialized", json!({}));
        session
    }

    pub fn notify(&self, method: &str, params: Value) {
        self.channel.push(MCP_MESSAGE, json!({"jsonrpc": "2.0", "method": method, "params": params}));
    }

    /// Sends a request.
    pub fn ask(&self, method: &str, params: Value) -> Asked {
        let id = self.last_id.get() + 1;
        self.last_id.set(id);
        self.channel.push(MCP_MESSAGE, json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        Asked(id)
    }

    /// Waits for an answer: the whole response.
    pub async fn response(&self, asked: Asked) -> Value {
        self.next(json!({"id": asked.0})).await
    }

    /// Sends a request and waits for its result.
    pub async fn request(&self, method: &str, params: Value) -> Value {
        let mut response = self.response(self.ask(method, params)).await;
        assert!(response.get("result").is_some(), "{method}: {response}");
        response["result"].take()
    }

    /// Calls a tool, in the era of the session.
    pub async fn call(&self, tool: &str, arguments: Value) -> Value {
        self.request("tools/call", json!({"name": tool, "arguments": arguments})).await
    }

    /// Sends a stateless request of a client with these capabilities, and waits for its result.
    pub async fn stateless(&self, method: &str, mut params: Value, capabilities: Value) -> Value {
        params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
        params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = capabilities;
        self.request(method, params).await
    }

    /// Waits for a message that matches.
    pub async fn next(&self, message: Value) -> Value {
        self.channel.assert_push(MCP_MESSAGE, message).await.parse().expect("JSON")
    }

    /// Waits for a question of the server, and answers it; gives its params.
    pub async fn answer(&self, method: &str, result: Value) -> Value {
        let mut question = self.next(json!({"method": method})).await;
        self.channel.push(MCP_MESSAGE, json!({"jsonrpc": "2.0", "id": question["id"], "result": result}));
        question["params"].take()
    }

    pub fn cancel(&self, asked: Asked) {
        self.notify("notifications/cancelled", json!({"requestId": asked.0}));
    }
}

/// The text of a result's first content.
pub fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("expected text, came {result}"))
}

/// The names in a list.
pub fn names(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|item| item["name"].as_str().expect("a name")).collect()
}

/// What a person says to a form.
pub fn accept(content: Value) -> Value {
    json!({"action": "accept", "content": content})
}
