//! What the tools of a server say of themselves, as resources: for people, by example, as a schema.

use std::fmt::Write;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::mcp::catalog::Catalog;
use crate::mcp::tools::Registered;
use crate::mcp::{CallContext, CallError, ResourceContents, ResourceLink, ResourceTemplate};

/// The variables of the template.
#[derive(Deserialize)]
struct Which {
    name: String,
    part: String,
}

/// What there is of a tool: the last segment of the URI, what the list calls it, its MIME type.
#[derive(Clone, Copy)]
enum Part {
    Documentation,
    Examples,
    Schema,
}

impl Part {
    const ALL: [Part; 3] = [Part::Documentation, Part::Examples, Part::Schema];

    fn segment(self) -> &'static str {
        match self {
            Part::Documentation => "documentation",
            Part::Examples => "examples",
            Part::Schema => "schema",
        }
    }

    fn mime_type(self) -> &'static str {
        match self {
            Part::Documentation => "text/markdown",
            Part::Examples => "application/json",
            Part::Schema => "application/schema+json",
        }
    }

    /// The text; none where the tool has nothing of that kind.
    fn of(self, tool: &Value) -> Option<String> {
        let pretty = |value: &Value| serde_json::to_string_pretty(value).expect("JSON serializes");
        match self {
            Part::Documentation => Some(documentation(tool)),
            Part::Examples => {
                let call = |arguments: &Value| json!({"name": tool["name"], "arguments": arguments});
                let calls = examples(tool).map(|examples| examples.iter().map(call).collect());
                calls.map(|calls| pretty(&Value::Array(calls)))
            }
            Part::Schema => Some(pretty(&tool["inputSchema"])),
        }
    }
}

pub(super) fn template() -> ResourceTemplate {
    ResourceTemplate::new("tool://{name}/{part}", "tool", |which: Which, context: CallContext| {
        let read = read(&which, &context.server().catalog());
        async move { read }
    })
    .description("What a tool says of itself: its documentation, examples or schema.")
    .list(|context| {
        let catalog = context.server().catalog();
        async move { Ok(catalog.tools.iter().flat_map(|tool| links(tool)).collect()) }
    })
    .complete("part", |typed| async move {
        let fitting = Part::ALL.map(Part::segment).into_iter().filter(|part| part.starts_with(&typed.value));
        Ok(fitting.map(ToOwned::to_owned).collect())
    })
    .follow_tools()
}

fn read(which: &Which, catalog: &Catalog) -> Result<ResourceContents, CallError> {
    let tool = catalog.tools.find(&which.name).ok_or(CallError::NotFound)?;
    let part = Part::ALL.into_iter().find(|part| part.segment() == which.part).ok_or(CallError::NotFound)?;
    let text = part.of(&listed(tool)).ok_or(CallError::NotFound)?;
    Ok(ResourceContents::text(uri(&tool.name, part), text).mime_type(part.mime_type()))
}

/// What a list says of the parts that a tool has.
fn links(tool: &Registered) -> Vec<ResourceLink> {
    let says = listed(tool);
    let has = |part: &Part| !matches!(part, Part::Examples) || examples(&says).is_some();
    let link = |part: Part| {
        let (name, what) = (&tool.name, part.segment());
        ResourceLink::new(uri(name, part), format!("{name} {what}"))
            .description(format!("The {what} of the tool {name}"))
            .mime_type(part.mime_type())
    };
    Part::ALL.into_iter().filter(has).map(link).collect()
}

fn uri(name: &str, part: Part) -> String {
    format!("tool://{name}/{}", part.segment())
}

/// All that the tool says of itself.
fn listed(tool: &Registered) -> Value {
    serde_json::from_str(tool.listed_elixir.get()).expect("a listing is JSON")
}

fn examples(tool: &Value) -> Option<&Vec<Value>> {
    tool["inputSchema"]["examples"].as_array().filter(|examples| !examples.is_empty())
}

fn documentation(tool: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut page = format!("# {}\n", text(tool.get("title").unwrap_or(&tool["name"])));
    let mut add = |paragraph: String| {
        if !paragraph.is_empty() {
            page.push('\n');
            page.push_str(&paragraph);
            page.push('\n');
        }
    };
    add(text(&tool["description"]));
    add(arguments(&tool["inputSchema"]));
    if let Some(output) = tool.get("outputSchema") {
        add(format!("## Result\n\nJSON that fits this schema:\n\n{}", fenced(output)));
    }
    if let Some(examples) = examples(tool) {
        add("## Examples".to_owned());
        for example in examples {
            add(fenced(example));
        }
    }
    let ms = &tool["capabilities"]["maxExecutionTime"];
    add(format!("## Limits\n\nA call is ended as failed after {ms} ms."));
    page
}

fn arguments(schema: &Value) -> String {
    let properties = schema["properties"].as_object().filter(|properties| !properties.is_empty());
    let Some(properties) = properties else { return "It takes no arguments that it says anything of.".to_owned() };
    let required = |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|each| each == name));
    let mut list = "## Arguments\n\n".to_owned();
    for (name, property) in properties {
        let need = if required(name) { "required" } else { "optional" };
        let _ = write!(list, "- `{name}` ({}{need}", kind(property));
        for (key, says) in [
            ("default", "by default"),
            ("minimum", "at least"),
            ("maximum", "at most"),
            ("minLength", "characters at least"),
            ("maxLength", "characters at most"),
            ("pattern", "pattern"),
            ("enum", "one of"),
        ] {
            if let Some(value) = property.get(key).filter(|value| !value.is_null()) {
                let _ = write!(list, ", {says} `{value}`");
            }
        }
        list.push(')');
        if let Some(description) = property["description"].as_str() {
            // An entry of the list is one paragraph.
            let _ = write!(list, ": {}", description.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        list.push('\n');
    }
    list.truncate(list.trim_end().len());
    list
}

/// The types of a property, with a comma behind; nothing where it does not say.
fn kind(property: &Value) -> String {
    match &property["type"] {
        Value::String(kind) => format!("{kind}, "),
        Value::Array(kinds) => {
            let kinds: Vec<_> = kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect();
            if kinds.is_empty() { String::new() } else { format!("{}, ", kinds.join(" or ")) }
        }
        _ => String::new(),
    }
}

fn fenced(value: &Value) -> String {
    format!("```json\n{}\n```", serde_json::to_string_pretty(value).expect("JSON serializes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::Tool;

    fn tool(schema: Value) -> Registered {
        let tool = Tool::untyped("sum", schema, |_, _| async { Ok("") }).description("Adds numbers.");
        Registered::new(tool.max_execution_ms(5)).expect("a tool")
    }

    #[test]
    fn a_tools_documentation_says_what_its_spec_says() {
        let schema = json!({
            "type": "object",
            "properties": {
                "a": {"type": "integer", "minimum": 1, "default": 5, "description": "The\nfirst."},
                "b": {"type": ["string", "null"], "maxLength": 3},
                "c": {},
            },
            "required": ["a"],
            "examples": [{"a": 1}],
        });

        let page = documentation(&listed(&tool(schema)));

        let expected = "# sum\n\nAdds numbers.\n\n## Arguments\n\n\
            - `a` (integer, required, by default `5`, at least `1`): The first.\n\
            - `b` (string, optional, characters at most `3`)\n- `c` (optional)\n\n\
            ## Examples\n\n```json\n{\n  \"a\": 1\n}\n```\n\n\
            ## Limits\n\nA call is ended as failed after 5 ms.\n";
        assert_eq!(page, expected);
    }

    #[test]
    fn examples_are_there_where_the_schema_has_some() {
        let uris =
            |schema: Value| -> Vec<String> { links(&tool(schema)).iter().map(|link| link.uri().to_owned()).collect() };

        assert_eq!(uris(json!({"type": "object"})), ["tool://sum/documentation", "tool://sum/schema"]);
        assert_eq!(uris(json!({"type": "object", "examples": []})).len(), 2);
        let with = json!({"type": "object", "examples": [{"a": 1}]});
        assert_eq!(uris(with.clone()), ["tool://sum/documentation", "tool://sum/examples", "tool://sum/schema"]);
        let text = Part::Examples.of(&listed(&tool(with))).expect("examples");
        let read: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(read, json!([{"name": "sum", "arguments": {"a": 1}}]));
    }
}
