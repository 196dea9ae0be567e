//! Workflows as tools, for clients that know no methods but those of MCP: with the extension for tasks an execution is a
//! task, which goes on when its client has gone.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::methods::{self, Failed, call_of};
use crate::mcp::{CallContext, CallError, Content, Tool, ToolOutput};
use crate::protocol::mcp::tool::{TaskSupport, ToolMetadata};
use crate::protocol::workflow::TIMEOUT_MS_MAX;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Create {
    /// The id to execute it by later; drawn at random where there is none.
    #[schemars(length(min = 1, max = 128))]
    workflow_id: Option<String>,
    /// What it does.
    definition: Map<String, Value>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Execute {
    /// The id of a workflow that was created; or a name for the run of a definition that comes along.
    #[schemars(length(min = 1, max = 128))]
    workflow_id: Option<String>,
    /// What to do, where no workflow was created.
    definition: Option<Map<String, Value>>,
    /// The name of a template, in the place of a definition.
    template: Option<String>,
    /// What the template is filled in with.
    params: Option<Map<String, Value>>,
    /// What the first step gets.
    input: Option<Value>,
    /// What every step may take values from.
    context: Option<Map<String, Value>>,
    /// Milliseconds for the whole.
    #[schemars(range(min = 1, max = 86_400_000))]
    timeout_ms: Option<u64>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Templates {
    /// Only those of this category.
    category: Option<String>,
}

/// `workflow_create`, `workflow_execute` and `workflow_templates`.
pub fn workflow_tools() -> [Tool; 3] {
    let create = Tool::new("workflow_create", |wanted: Create, context: CallContext| async move {
        let mut params = Map::from_iter([("definition".to_owned(), Value::Object(wanted.definition))]);
        if let Some(id) = wanted.workflow_id {
            params.insert("workflowId".to_owned(), id.into());
        }
        Ok(output(method(&context, "workflows/create", params).await))
    });
    let execute = Tool::new("workflow_execute", |wanted: Execute, context: CallContext| async move {
        execute(wanted, context).await.map(output)
    });
    let templates = Tool::new("workflow_templates", |wanted: Templates, context: CallContext| async move {
        let mut params = Map::new();
        if let Some(category) = wanted.category {
            params.insert("category".to_owned(), category.into());
        }
        Ok(output(method(&context, "workflows/templates", params).await))
    });
    let described = |tool: Tool, text: &str, hints: Value, limit_ms: u64| {
        tool.description(text).annotations(hints).max_execution_ms(limit_ms).spec(|spec| {
            spec.metadata = ToolMetadata::new("workflows", &["workflows"], limit_ms);
        })
    };
    let short = crate::protocol::mcp::tool::EXECUTION_MS_DEFAULT;
    [
        described(
            create,
            "Keeps a workflow: a definition that composes tools, to be executed by its id.",
            json!({"readOnlyHint": false, "destructiveHint": false, "idempotentHint": true, "openWorldHint": false}),
            short,
        ),
        described(
            execute,
            "Executes a workflow: one that was created, one that comes along, or one made of a template.",
            json!({"readOnlyHint": false, "destructiveHint": true, "idempotentHint": false, "openWorldHint": true}),
            // A run has a limit of its own, which it tells in the deployment's words.
            TIMEOUT_MS_MAX + 60_000,
        )
        .tasks(TaskSupport::Optional),
        described(
            templates,
            "Lists the templates that workflows can be made of, with their parameters and examples.",
            json!({"readOnlyHint": true, "destructiveHint": false, "idempotentHint": true, "openWorldHint": false}),
            short,
        ),
    ]
}

async fn execute(wanted: Execute, context: CallContext) -> Result<Result<Value, Failed>, CallError> {
    let call = call_of(&context);
    if call.session.is_workflow() {
        return Err(CallError::failed("a workflow's step can't execute a workflow: nest its definition instead"));
    }
    let mut params = Map::new();
    if let Some(id) = wanted.workflow_id {
        params.insert("workflowId".to_owned(), id.into());
    }
    match (wanted.definition, wanted.template) {
        (Some(_), Some(_)) => {
            return Err(CallError::InvalidArguments(
                "expected either a definition or a template, came both".to_owned(),
            ));
        }
        (Some(definition), None) => drop(params.insert("definition".to_owned(), Value::Object(definition))),
        (None, Some(template)) => {
            let definition =
                json!({"type": "template", "template": template, "params": wanted.params.unwrap_or_default()});
            params.insert("definition".to_owned(), definition);
        }
        (None, None) => {}
    }
    let mut options = Map::new();
    let mut option = |name: &str, value: Option<Value>| value.map(|value| options.insert(name.to_owned(), value));
    option("input", wanted.input);
    option("context", wanted.context.map(Value::Object));
    option("timeout", wanted.timeout_ms.map(Value::from));
    params.insert("options".to_owned(), Value::Object(options));
    Ok(method(&context, "workflows/execute", params).await)
}

async fn method(context: &CallContext, name: &str, params: Map<String, Value>) -> Result<Value, Failed> {
    let call = call_of(context);
    // As whoever asks for the method itself.
    if let Err(denied) = call.session.user.rights().grants.permit_method(name) {
        return Err(Failed::new(json!({"status": "error"}), format!("Unauthorized: {denied}")));
    }
    methods::by_name(&call, name, &params).await
}

/// A method's result as a tool's: the same fields, as text and as a value.
fn output(result: Result<Value, Failed>) -> ToolOutput {
    let (mut value, is_error) = match result {
        Ok(value) => (value, false),
        Err(Failed(value)) => (value, true),
    };
    if let Some(fields) = value.as_object_mut() {
        fields.remove("isError");
    }
    let mut output = ToolOutput::from(vec![Content::text(value.to_string())]);
    output.structured = Some(value);
    output.is_error = is_error;
    output
}
