//! The tools that the steps of the built-in workflow templates name, in earnest, by the names of the Elixir deployment.
//!
//! ```text
//! data_processing_pipeline   data_fetcher, data_transformer, data_saver
//! user_onboarding            user_validator, welcome_service, notification_service, rejection_service
//! content_moderation         text_analyzer, image_analyzer, spam_detector, moderation_aggregator
//! batch_processing           item_processor, item_validator, batch_aggregator
//! api_integration            api_caller, response_validator, response_transformer
//! ```
//!
//! Each is a tool like any other and works by itself. A step of a workflow gets the result of the step before it as
//! `input`, in a loop `item` and `index`, in a branch `condition_result`: what a tool can use of these its schema
//! names. Data sets and notifications are told to their user alone.
//!
//! Source: the contract of that deployment, section 10.2, which has their names and parameters; it has no such tools.

mod api_caller;
mod batch;
mod image;
mod integration;
mod moderation;
mod onboarding;
mod parameters;
mod pipeline;
mod rows;
mod text_signals;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::deployment::Deployment;
use super::tools::schema_of;
use super::{Content, Tool, ToolOutput};
use crate::protocol::mcp::tool::{EXECUTION_MS_DEFAULT, ToolMetadata};
use crate::store::Store;

/// The tools of the built-in workflow templates, whose data are kept with those of a [`Deployment`].
///
/// ```
/// use bennu::mcp::deployment::Deployment;
/// use bennu::mcp::{McpServer, TemplateToolOptions, TemplateTools};
///
/// let deployment = Deployment::in_memory();
/// let options = TemplateToolOptions::default().api_hosts(["api.example.com"]);
/// let server = McpServer::builder("bennu").tools(TemplateTools::new(&deployment, options)).build()?;
/// # Ok::<_, bennu::mcp::McpServerError>(())
/// ```
#[derive(Clone, Debug)]
pub struct TemplateTools {
    store: Store,
    options: TemplateToolOptions,
}

/// What these tools may do.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TemplateToolOptions {
    /// Hosts that `api_caller` may ask, each as `host` for every port or as `host:port`; none by default.
    pub api_hosts: Vec<String>,
}

impl TemplateToolOptions {
    /// Sets the hosts that `api_caller` may ask.
    #[must_use]
    pub fn api_hosts(mut self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.api_hosts = hosts.into_iter().map(Into::into).collect();
        self
    }
}

impl TemplateTools {
    /// The tools on what a deployment keeps.
    pub fn new(deployment: &Deployment, options: TemplateToolOptions) -> Self {
        TemplateTools { store: deployment.store().clone(), options }
    }
}

impl IntoIterator for TemplateTools {
    type Item = Tool;
    type IntoIter = std::vec::IntoIter<Tool>;

    /// The tools, in the order of the templates and of their steps.
    fn into_iter(self) -> Self::IntoIter {
        let mut tools = Vec::new();
        tools.extend(pipeline::tools(&self.store));
        tools.extend(onboarding::tools(&self.store));
        tools.extend(moderation::tools());
        tools.extend(batch::tools());
        tools.push(api_caller::tool(&self.options.api_hosts));
        tools.extend(integration::tools());
        tools.into_iter()
    }
}

/// What a tool says of itself beside its name and arguments.
struct About {
    description: &'static str,
    category: &'static str,
    effect: Effect,
    /// Arguments to call it with.
    examples: Value,
}

/// What calls of a tool change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Nothing, and each call with the same arguments gives the same.
    Computes,
    /// Nothing, but it may give something else each time.
    Reads,
    /// As `Reads`, of the world outside.
    Asks,
    /// Each call adds something.
    Adds,
    /// A call puts something in the place of something else; twice is as once.
    Replaces,
}

impl Effect {
    fn hints(self) -> Value {
        let is = |effects: &[Effect]| effects.contains(&self);
        json!({
            "readOnlyHint": is(&[Effect::Computes, Effect::Reads, Effect::Asks]),
            "destructiveHint": is(&[Effect::Replaces]),
            "idempotentHint": !is(&[Effect::Adds]),
            "openWorldHint": is(&[Effect::Asks]),
        })
    }
}

fn described(tool: Tool, about: About) -> Tool {
    tool.description(about.description).annotations(about.effect.hints()).spec(|spec| {
        spec.metadata = ToolMetadata::new(about.category, &[about.category, "workflow"], EXECUTION_MS_DEFAULT);
        spec.input_schema["examples"] = about.examples;
        if spec.input_schema.get("required").is_none() {
            spec.input_schema["required"] = json!([]);
        }
    })
}

/// A tool as [`Tool::structured`] that judges: where its verdict comes with a fault, the call has failed for that
/// reason, and the verdict is there all the same.
fn judging<A, O>(name: &str, judge: impl Fn(A) -> (O, Option<String>) + Send + Sync + 'static) -> Tool
where
    A: DeserializeOwned + JsonSchema + Send + 'static,
    O: Serialize + JsonSchema + Send + 'static,
{
    let tool = Tool::new(name, move |arguments: A, _| {
        let (verdict, fault) = judge(arguments);
        async move {
            let output = ToolOutput::structured(&verdict)?;
            Ok(match fault {
                None => output,
                Some(fault) => ToolOutput { is_error: true, content: vec![Content::text(fault)], ..output },
            })
        }
    });
    tool.spec(|spec| spec.output_schema = Some(schema_of::<O>()))
}

/// What kind of value this is, for errors, which don't repeat the value.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests {
    use super::testing::Tools;
    use super::*;

    /// What a tool says of itself.
    fn said() -> Vec<(String, Value)> {
        let listed = |json: &str| serde_json::from_str::<Value>(json).expect("JSON");
        Tools::new().iter().map(|tool| (tool.name.to_string(), listed(tool.listed_elixir.get()))).collect()
    }

    #[test]
    fn what_a_step_gets_without_asking_is_named_by_who_can_use_it() {
        let implicit = |schema: &Value| {
            let takes = |name: &&str| schema["properties"].get(*name).is_some();
            ["input", "item", "index", "condition_result"].into_iter().filter(takes).collect::<Vec<_>>().join(" ")
        };

        let takes: Vec<_> =
            said().iter().map(|(name, says)| format!("{name}: {}", implicit(&says["inputSchema"]))).collect();

        let expected = [
            "data_fetcher: ",
            "data_transformer: input",
            "data_saver: input",
            "user_validator: ",
            "welcome_service: condition_result",
            "notification_service: input",
            "rejection_service: condition_result",
            "text_analyzer: input",
            "image_analyzer: input",
            "spam_detector: input",
            "moderation_aggregator: input",
            "item_processor: input item index",
            "item_validator: input item index",
            "batch_aggregator: input",
            "api_caller: ",
            "response_validator: input",
            "response_transformer: input",
        ];
        assert_eq!(takes, expected);
    }

    #[test]
    fn examples_are_arguments_that_fit() {
        for tool in Tools::new().iter() {
            let listed: Value = serde_json::from_str(tool.listed_elixir.get()).expect("JSON");
            let examples = listed["inputSchema"]["examples"].as_array().expect("examples");

            for example in examples {
                let fit = tool.prepare(&example.to_string(), false).map(|_| ());
                assert_eq!(fit, Ok(()), "{} {example}", tool.name);
            }
            assert!(!examples.is_empty(), "{}", tool.name);
        }
    }

    #[test]
    fn every_argument_and_every_part_of_a_result_is_described() {
        for (name, says) in said() {
            for schema in [&says["inputSchema"], &says["outputSchema"]] {
                for (part, schema) in schema["properties"].as_object().expect("properties") {
                    assert!(schema["description"].is_string(), "{name}: {part}: {schema}");
                }
            }
            assert_eq!(says["metadata"]["timeout"], says["capabilities"]["maxExecutionTime"], "{name}");
        }
    }
}
