//! Tools that make the server tell of changes. Nothing really changes: what a suite finds must not depend on what it called.

use bennu::mcp::{CallContext, McpServer, McpServerError, NoArguments, Tool};

use super::resources::WATCHED;

/// What a tool makes the server do.
type Trigger = fn(&McpServer);

pub fn add_to(server: &McpServer) -> Result<(), McpServerError> {
    let triggers: [(&str, &str, Trigger); 4] = [
        ("test_trigger_tool_change", "tools", McpServer::tools_changed),
        ("test_trigger_prompt_change", "prompts", McpServer::prompts_changed),
        ("test_trigger_resource_change", "resources", McpServer::resources_changed),
        ("test_trigger_resource_update", WATCHED, |server| server.resource_updated(WATCHED)),
    ];
    for (name, what, change) in triggers {
        let changing = server.clone();
        let tool = Tool::new(name, move |_: NoArguments, _: CallContext| {
            change(&changing);
            async { Ok("told those who listen") }
        });
        server.add_tool(tool.description(format!("Tells those who listen of a change: {what}.")))?;
    }
    Ok(())
}
