//! The examples of workflows: each is a definition, and the page explains it.

use bennu::protocol::workflow::{Fault, Templates, builtin, compile};
use serde_json::{Map, Value};

/// The built-in templates.
struct BuiltIn;

impl Templates for BuiltIn {
    fn instantiate(&self, name: &str, _: Option<&str>, params: &Map<String, Value>) -> Result<Value, Vec<Fault>> {
        let templates = builtin::templates();
        let template = templates.iter().find(|template| template.name == name);
        template.ok_or_else(|| vec![Fault::new("", format!("no template {name}"))])?.instantiate(params)
    }
}

/// The types of a definition and of those within it.
fn collect_kinds(value: &Value, kinds: &mut std::collections::BTreeSet<String>) {
    kinds.extend(value.get("type").and_then(Value::as_str).map(ToOwned::to_owned));
    match value {
        Value::Object(fields) => fields.values().for_each(|field| collect_kinds(field, kinds)),
        Value::Array(items) => items.iter().for_each(|item| collect_kinds(item, kinds)),
        _ => {}
    }
}

#[test]
fn each_example_is_a_definition_that_the_page_explains() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/workflows.md")).expect("the page is there");
    let mut kinds = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(root.join("examples/workflows")).expect("the folder is there") {
        let path = entry.expect("a file").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let text = std::fs::read_to_string(&path).expect("a text");
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));

        let (definition, _) = compile(&value, &BuiltIn).unwrap_or_else(|faults| panic!("{name}: {faults:?}"));

        assert!(value["description"].is_string(), "{name} says what it shows");
        assert!(page.contains(&name), "docs/workflows.md names {name}");
        collect_kinds(&value, &mut kinds);
        assert!(!definition.steps.is_empty());
    }
    let all = ["conditional", "loop", "multi_tool", "parallel", "reactive", "sampling", "sequential", "template"];
    assert!(all.iter().all(|kind| kinds.contains(*kind)), "every type has an example, of {kinds:?}");
}
