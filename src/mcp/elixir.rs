//! What the clients of the Elixir deployment know otherwise: texts in band, and sampling that the client asks for.
//!
//! Source: the contract of that deployment, section 4.4; what it fakes is done in earnest (section 12).

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::call::{Call, Output};
use super::catalog::Catalog;
use super::input::InputRequest;
use super::{CallContext, CallError};
use crate::clock;
use crate::protocol::jsonrpc::{self, Object};
use crate::protocol::mcp::client::Era;
use crate::protocol::mcp::sampling::{SamplingMessage, SamplingRequest, SamplingResult};

/// Tools among which one is chosen.
const TOOLS_MAX: usize = 1_000;
/// Words of what a tool is wanted for that count, and words of one tool: each is compared with each.
const PURPOSE_WORDS_MAX: usize = 64;
const TOOL_WORDS_MAX: usize = 64;
/// Bytes of a word that count.
const WORD_BYTES_MAX: usize = 64;

/// The result of reading what can't be read.
pub(super) fn resource_failure(text: &str) -> Box<RawValue> {
    jsonrpc::raw(&serde_json::json!({"contents": [{"type": "text", "text": text}], "isError": true}))
}

/// The result of reading what is not there, in the words that the deployment has for each kind of URI.
pub(super) fn resource_not_found(uri: &str, catalog: &Catalog) -> Box<RawValue> {
    let invalid = || format!("Invalid resource URI: {uri}");
    let text = match uri.split_once("://") {
        None => invalid(),
        Some(("workspace", path)) if path.starts_with("project/") => "Project not found".to_owned(),
        Some(("tool", path)) => {
            let (name, part) = path.split_once('/').unwrap_or((path, ""));
            match catalog.tools.find(name) {
                None => format!("Tool not found: {name}"),
                Some(_) if part.is_empty() => invalid(),
                Some(_) => format!("Unknown resource type: {part}"),
            }
        }
        Some((kind, _)) if catalog.has_scheme(kind) => invalid(),
        Some((kind, _)) => format!("Unknown resource type: {kind}"),
    };
    resource_failure(&text)
}

/// The result of a prompt that can't be filled in.
pub(super) fn prompt_failure(text: &str) -> Box<RawValue> {
    jsonrpc::raw(&serde_json::json!({"description": text, "messages": [], "isError": true}))
}

/// One of the tools that a client offers for choice: a name, or an object with one.
#[derive(Clone, Debug)]
struct Offered {
    /// As it came, to be given back.
    value: Value,
    /// Its name and all it says of itself.
    words: BTreeSet<String>,
    name: String,
}

/// What a client wants chosen.
#[derive(Debug)]
struct Choice {
    /// What the tool is wanted for.
    purpose: String,
    tools: Vec<Offered>,
    sampling_type: String,
}

/// `sampling/createMessage` from the client: chooses the tool that fits what it asks for. The client's own model is asked
/// where it offers one; else the tool whose words are the most like the prompt's is taken, the first of several.
pub(super) fn sample(call: &Arc<Call>, params: &Object<'_>) -> super::call::Work {
    #[derive(Serialize)]
    struct Chosen {
        sampling_type: String,
        selected_tool: Value,
        status: &'static str,
        timestamp: String,
    }

    let choice = read(params);
    let (call, has_model) = (Arc::clone(call), call.client.capabilities.sampling);
    Box::pin(async move {
        let choice = match choice {
            Ok(choice) => choice,
            Err(why) => return Ok(Output::Body(sampling_failure(&why))),
        };
        let by_model = if has_model { ask_model(&call, &choice).await? } else { None };
        let index = by_model.unwrap_or_else(|| best(&choice));
        Ok(Output::Body(jsonrpc::raw(&Chosen {
            sampling_type: choice.sampling_type,
            selected_tool: choice.tools[index].value.clone(),
            status: "completed",
            timestamp: clock::wall_iso8601_micros(),
        })))
    })
}

/// Chooses one of `tools` for what a workflow's step wants; by the model of a call's client, where there is one that can be
/// asked. Gives the tool's name.
pub(super) fn choose(
    call: Option<Arc<Call>>,
    purpose: &Value,
    tools: &[Value],
) -> futures::future::BoxFuture<'static, Result<String, String>> {
    let purpose = purpose.as_str().map_or_else(|| purpose.to_string(), ToOwned::to_owned);
    let offered = tools.iter().map(offered).collect::<Option<Vec<_>>>();
    Box::pin(async move {
        let tools = offered.ok_or("Invalid sampling tools: expected names, or objects with a name")?;
        let choice = Choice { purpose, tools, sampling_type: "tool_selection".to_owned() };
        let asked = call.filter(|call| {
            call.client.capabilities.sampling && (call.client.era != Era::Modern || call.task.get().is_some())
        });
        let by_model = match asked {
            Some(call) => ask_model(&call, &choice).await.map_err(|error| error.to_string())?,
            None => None,
        };
        Ok(choice.tools[by_model.unwrap_or_else(|| best(&choice))].name.clone())
    })
}

fn sampling_failure(error: &str) -> Box<RawValue> {
    jsonrpc::raw(&serde_json::json!({"status": "failed", "error": error, "isError": true}))
}

/// Reads `config` (or the params themselves) in either form: `{model, prompt, tools}` or `{type: "tool_selection", criteria,
/// tools}`.
fn read(params: &Object<'_>) -> Result<Choice, String> {
    let config: Value = match params.raw("config") {
        Some(config) => serde_json::from_str(config.get()).unwrap_or_default(),
        None => {
            let fields = params.fields().filter(|(name, _)| *name != "_meta" && *name != "options");
            let value = |raw: &RawValue| serde_json::from_str::<Value>(raw.get()).unwrap_or_default();
            fields.map(|(name, raw)| (name.to_owned(), value(raw))).collect()
        }
    };
    let Some(config) = config.as_object().filter(|config| !config.is_empty()) else {
        return Err("Missing required sampling field: model".to_owned());
    };
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let (sampling_type, purpose) = match config.get("type") {
        Some(Value::String(kind)) if kind == "tool_selection" => {
            let criteria = config.get("criteria").ok_or("Missing required sampling field: criteria")?;
            (kind.clone(), text(criteria))
        }
        Some(kind) => return Err(format!("Invalid sampling type: expected \"tool_selection\", came {kind}")),
        None => {
            for field in ["model", "prompt", "tools"] {
                if !config.contains_key(field) {
                    return Err(format!("Missing required sampling field: {field}"));
                }
            }
            ("tool_selection".to_owned(), text(&config["prompt"]))
        }
    };
    let tools = config.get("tools").ok_or("Missing required sampling field: tools")?;
    let Some(tools) = tools.as_array() else {
        return Err(format!("Invalid sampling tools: expected a list, came {}", kind_of(tools)));
    };
    if tools.is_empty() {
        return Err("No tools available for sampling".to_owned());
    }
    if tools.len() > TOOLS_MAX {
        return Err(format!("Invalid sampling tools: expected at most {TOOLS_MAX}, came {}", tools.len()));
    }
    let tools = tools.iter().map(offered).collect::<Option<Vec<_>>>();
    let tools = tools.ok_or("Invalid sampling tools: expected names, or objects with a name")?;
    Ok(Choice { purpose, tools, sampling_type })
}

fn offered(value: &Value) -> Option<Offered> {
    let name = value.as_str().or_else(|| value.get("name")?.as_str())?.to_owned();
    let described = value.get("description").and_then(Value::as_str).unwrap_or_default();
    let words = words(&name).chain(words(described)).take(TOOL_WORDS_MAX).collect();
    Some(Offered { value: value.clone(), words, name })
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The words of a text in lower case; those of `snake_case` and `camelCase` names apart.
fn words(text: &str) -> impl Iterator<Item = String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut was_lower = false;
    for c in text.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && was_lower) {
            words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
        }
        if c.is_alphanumeric() && word.len() < WORD_BYTES_MAX {
            word.extend(c.to_lowercase());
        }
        was_lower = c.is_lowercase();
    }
    words.extend((!word.is_empty()).then_some(word));
    words.into_iter()
}

/// The tool that shares the most words with the purpose; words with the same beginning count half.
fn best(choice: &Choice) -> usize {
    let wanted: BTreeSet<_> = words(&choice.purpose).take(PURPOSE_WORDS_MAX).collect();
    let score = |tool: &Offered| -> usize {
        let of = |word: &String| {
            if tool.words.contains(word) {
                2
            } else {
                usize::from(tool.words.iter().any(|other| are_akin(word, other)))
            }
        };
        wanted.iter().map(of).sum()
    };
    // The first of the best, so that the same question has the same answer.
    let (mut best, mut highest) = (0, 0);
    for (index, tool) in choice.tools.iter().enumerate() {
        let score = score(tool);
        if score > highest {
            (best, highest) = (index, score);
        }
    }
    best
}

/// Whether two words differ in their endings alone, as `calculate` and `calculator` do.
fn are_akin(one: &str, other: &str) -> bool {
    let shared = one.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
    let shorter = one.chars().count().min(other.chars().count());
    shared > 3 && shared + 2 >= shorter
}

/// Lets the client's model choose; none where it names no tool.
async fn ask_model(call: &Arc<Call>, choice: &Choice) -> Result<Option<usize>, CallError> {
    let list: Vec<_> = choice.tools.iter().map(|tool| format!("- {}", tool.value)).collect();
    let prompt = format!(
        "Choose the one tool that fits best. Answer with its name and nothing else.\n\nWanted: {}\n\nTools:\n{}",
        choice.purpose,
        list.join("\n")
    );
    let request = InputRequest::sampling(&SamplingRequest::new([SamplingMessage::user(prompt)], 100));
    let context = CallContext::new(Arc::clone(call));
    let answer = context.ask_all([("choice".to_owned(), request)]).await;
    let Ok(answers) = answer else { return Ok(None) };
    let said = answers.get("choice").and_then(|answer| SamplingResult::read(answer).ok()).map(|result| result.text());
    let said = said.unwrap_or_default();
    Ok(choice
        .tools
        .iter()
        .position(|tool| tool.name == said.trim())
        .or_else(|| choice.tools.iter().position(|tool| said.contains(&tool.name))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chosen(params: &Value) -> Result<Value, String> {
        let text = params.to_string();
        let choice = read(&Object::parse(text.as_bytes()).expect("an object"))?;
        Ok(choice.tools[best(&choice)].value.clone())
    }

    #[test]
    fn the_tool_whose_words_fit_is_chosen() {
        let tools = json!(["file_reader", {"name": "webSearch", "description": "Finds pages"}, "calculator"]);
        let by = |prompt: &str| chosen(&json!({"config": {"model": "m", "prompt": prompt, "tools": tools}}));

        assert_eq!(by("please search the web for news"), Ok(tools[1].clone()));
        assert_eq!(by("read this file"), Ok(json!("file_reader")));
        assert_eq!(by("calculate 3 + 4"), Ok(json!("calculator")));
        assert_eq!(by("zzz"), Ok(json!("file_reader")), "the first, where none fits");
        let criteria = json!({"type": "tool_selection", "criteria": {"task": "calculator"}, "tools": tools});
        assert_eq!(chosen(&criteria), Ok(json!("calculator")));
    }

    #[test]
    fn faults_are_named_as_the_deployment_names_them() {
        let fault = |config: Value| chosen(&json!({"config": config})).expect_err("a fault");

        assert_eq!(fault(json!({})), "Missing required sampling field: model");
        assert_eq!(fault(json!({"model": "m"})), "Missing required sampling field: prompt");
        assert_eq!(fault(json!({"model": "m", "prompt": "p"})), "Missing required sampling field: tools");
        assert_eq!(fault(json!({"model": "m", "prompt": "p", "tools": []})), "No tools available for sampling");
        assert!(fault(json!({"type": "other"})).starts_with("Invalid sampling"));
        assert!(fault(json!({"model": "m", "prompt": "p", "tools": "x"})).starts_with("Invalid sampling"));
        assert!(fault(json!({"model": "m", "prompt": "p", "tools": [1]})).starts_with("Invalid sampling"));
    }
}
