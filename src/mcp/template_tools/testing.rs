//! Calling these tools in a test, as a server does: arguments and results are checked against what the tools say of them.

use serde_json::Value;

use super::{TemplateToolOptions, TemplateTools};
use crate::mcp::deployment::Deployment;
use crate::mcp::tools::Registered;
use crate::mcp::tools::testing::context;
use crate::store::Store;

/// The tools on a store of their own.
pub(super) struct Tools {
    pub(super) store: Store,
    tools: Vec<Registered>,
}

impl Tools {
    pub(super) fn new() -> Self {
        Self::asking(&[])
    }

    /// Those whose `api_caller` may ask these hosts.
    pub(super) fn asking(api_hosts: &[&str]) -> Self {
        let deployment = Deployment::in_memory();
        let options = TemplateToolOptions::default().api_hosts(api_hosts.iter().copied());
        let tools = TemplateTools::new(&deployment, options).into_iter();
        let tools = tools.map(|tool| Registered::new(tool).expect("a tool that a server can have")).collect();
        Tools { store: deployment.store().clone(), tools }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Registered> {
        self.tools.iter()
    }

    /// What a call gives, which does not fail.
    pub(super) async fn call(&self, name: &str, arguments: Value) -> Value {
        self.try_call(name, arguments).await.unwrap_or_else(|why| panic!("{name}: {why}"))
    }

    /// What a call gives, or why it failed.
    pub(super) async fn try_call(&self, name: &str, arguments: Value) -> Result<Value, String> {
        let tool = self.tools.iter().find(|tool| &*tool.name == name).expect("a tool of that name");
        let (context, _reports) = context();
        let work = tool.prepare(&arguments.to_string(), false).map_err(|error| error.to_string())?;
        let output = work.run(context).await.map_err(|error| error.to_string())?;
        tool.check_output(&output).unwrap_or_else(|misfit| panic!("{name}: {misfit}"));
        if output.is_error {
            let content = serde_json::to_value(&output.content).expect("JSON");
            return Err(content[0]["text"].as_str().expect("a failure has a text").to_owned());
        }
        Ok(output.structured.expect("these tools give structured output"))
    }
}

/// A call that failed for this reason.
pub(super) fn refused(why: &str) -> Result<Value, String> {
    Err(why.to_owned())
}
