//! The specification's own examples: the check of messages accepts them all.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::mcp_schema::{MODERN, Validator};

/// How many the specification has; a folder that was not found has none.
const EXAMPLES: usize = 129;

/// Without the hints for caches that its type requires: the union in its response's type lets it pass for a result that asks
/// for input.
const WRONG: &str = "ReadResourceResultResponse/read-resource-result-response.json";

fn examples() -> Vec<(String, PathBuf, Value)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mcp/examples").join(MODERN);
    let entries = |path: &Path| {
        let read = std::fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut paths: Vec<_> = read.map(|entry| entry.expect("the folder can be read").path()).collect();
        paths.sort();
        paths
    };
    let files = entries(&root).into_iter().flat_map(|folder| entries(&folder));
    files
        .map(|path| {
            let folder = path.parent().and_then(Path::file_name).expect("a folder is above");
            let text = std::fs::read_to_string(&path).expect("an example is text");
            (
                folder.to_string_lossy().into_owned(),
                path.clone(),
                serde_json::from_str(&text).expect("an example is JSON"),
            )
        })
        .collect()
}

/// The method whose result has that type.
fn method_of(result: &str) -> Option<&'static str> {
    Some(match result {
        "CallToolResult" | "InputRequiredResult" => "tools/call",
        "CompleteResult" => "completion/complete",
        "DiscoverResult" => "server/discover",
        "GetPromptResult" => "prompts/get",
        "ListPromptsResult" => "prompts/list",
        "ListResourceTemplatesResult" => "resources/templates/list",
        "ListResourcesResult" => "resources/list",
        "ListToolsResult" => "tools/list",
        "ReadResourceResult" => "resources/read",
        "SubscriptionsListenResult" => "subscriptions/listen",
        _ => return None,
    })
}

#[test]
fn every_example_is_of_its_type() {
    let examples = examples();
    let check = |(name, path, value): &(String, PathBuf, Value)| {
        Validator::shared()
            .check_type(MODERN, name, value)
            .map_err(|complaint| format!("{}: {complaint}", path.display()))
    };
    let complaints: Vec<_> = examples.iter().map(check).filter_map(Result::err).collect();

    assert_eq!(complaints, Vec::<String>::new());
    assert_eq!(examples.len(), EXAMPLES);
}

#[test]
fn every_example_that_a_server_can_send_is_accepted_as_its_message() {
    let mut sent = 0;
    for (name, path, value) in examples() {
        let result = name.strip_suffix("Response").unwrap_or(&name);
        let (message, method) = if value.get("jsonrpc").is_some() && !name.ends_with("Request") {
            (value, method_of(result))
        } else if method_of(&name).is_some() {
            (json!({"jsonrpc": "2.0", "id": 1, "result": value}), method_of(&name))
        } else if name.ends_with("Error") && value.get("code").is_some() {
            (json!({"jsonrpc": "2.0", "id": 1, "error": value}), None)
        } else {
            continue;
        };
        sent += 1;
        if let Err(complaint) = Validator::shared().check_from_server(MODERN, &message, method) {
            // Examples of changes leave out the subscription, which the specification's text requires.
            let known = path.ends_with(WRONG) || complaint.contains("without `_meta[");
            assert!(known, "{}: {complaint}", path.display());
        }
    }
    assert!(sent > 40, "only {sent}");
}
