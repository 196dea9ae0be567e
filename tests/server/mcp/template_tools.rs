//! The tools of the built-in workflow templates on a server: whose their data are, and what the program lets them ask.

use bennu::mcp::deployment::Deployment;
use bennu::mcp::{McpServer, TemplateToolOptions, TemplateTools};
use serde_json::{Value, json};

use super::peer::{Names, Peer, TestServer, client_info};
use crate::development::start;

const SESSION: &str = "mcp:session";

/// What a call gives, or why it failed.
fn call(peer: &mut Peer, id: &str, name: &str, arguments: &Value) -> Result<Value, String> {
    let response = peer.request(json!(id), "tools/call", json!({"name": name, "arguments": arguments}));
    let result = &response["result"];
    let text = result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("a text: {response}"));
    if result["isError"] == true {
        return Err(text.to_owned());
    }
    Ok(serde_json::from_str(text).expect("JSON"))
}

#[test]
fn data_sets_and_notifications_are_their_users_alone() {
    let options = TemplateToolOptions::default();
    let tools = TemplateTools::new(&Deployment::in_memory(), options);
    let server = McpServer::builder("bennu").tools(tools).build().expect("a server");
    let server = TestServer::of([server], |_| {}, Names);
    let [mut ann, mut bob] = ["ann", "bob"].map(|user| {
        let mut peer = server.connect();
        let mut params = client_info();
        params["token"] = json!(user);
        peer.joined(SESSION, &params);
        peer
    });

    call(&mut ann, "1", "data_saver", &json!({"destination": "mine", "input": [{"n": 1}]})).expect("saved");
    call(&mut ann, "2", "notification_service", &json!({"event": "saved"})).expect("recorded");

    let rows = |peer: &mut Peer, id: &str, source: &str| {
        call(peer, id, "data_fetcher", &json!({"source": source})).map(|fetched| fetched["rows"].clone())
    };
    assert_eq!(rows(&mut ann, "3", "mine"), Ok(json!([{"n": 1}])));
    assert_eq!(rows(&mut ann, "4", "notifications").expect("hers")[0]["event"], "saved");
    let text =
        "Tool execution failed: there is no data set \"mine\", expected one of \"api\", \"runs\", \"notifications\"";
    assert_eq!(rows(&mut bob, "3", "mine"), Err(text.to_owned()));
    assert_eq!(rows(&mut bob, "4", "notifications"), Ok(json!([])));
    let runs = rows(&mut bob, "5", "runs").expect("his");
    let tools: Vec<_> = runs.as_array().expect("rows").iter().map(|run| &run["tool"]).collect();
    assert_eq!(tools, ["data_fetcher"; 3], "hers are not among them");
}

#[test]
fn the_program_may_ask_this_machine_in_development_and_whom_the_setting_names() {
    let healthz = |flags: &[&str], host: &str| {
        let (_program, address, _lines) = start(flags);
        let mut peer = Peer::connect(address);
        peer.joined(SESSION, &client_info());
        let endpoint = format!("http://{host}:{}/healthz", address.port());
        let told = call(&mut peer, "1", "api_caller", &json!({"endpoint": endpoint, "retries": "0"}));
        told.map(|answer| answer["body"]["status"].clone())
    };

    assert_eq!(healthz(&[], "127.0.0.1"), Ok(json!("ok")));
    let refused = healthz(&["--mcp-api-hosts", "api.example.com"], "127.0.0.1").expect_err("not named");
    assert!(refused.contains("expected a host that the setting mcp.api_hosts names, came \"127.0.0.1:"), "{refused}");
    assert_eq!(healthz(&["--mcp-api-hosts", "a.example,127.0.0.1"], "127.0.0.1"), Ok(json!("ok")));
}
