//! Whether a client's capabilities have something on, as the Elixir deployment asks it.
//!
//! Not for what a client may be asked for: there `sampling: {}` means that it can
//! ([`crate::protocol::mcp::client::ClientCapabilities`]), while here an empty object is off.
//!
//! Source: the contract of the Elixir deployment, section 6.4, last point, and the module `RubberDuck.MCP.Capability`
//! it speaks of.

use serde_json::Value;

/// What is on where the client says nothing of it: everything but sampling. `logging` is there, empty, and thereby off.
const DEFAULT_ON: [&str; 5] = [
    "tools.listChanged",
    "resources.subscribe",
    "resources.listChanged",
    "prompts.listChanged",
    "experimental.streaming",
];

/// Whether `declared` has the capability at that dotted path on: `true`, or an object with something in it.
///
/// A capability that the client doesn't declare at its top level is as the default set has it: without sampling. What
/// is declared replaces the whole of that capability. What is no object declares nothing.
pub fn verify(declared: &Value, path: &str) -> bool {
    let mut keys = path.split('.');
    let top = keys.next().unwrap_or_default();
    match declared.get(top) {
        Some(value) => keys.try_fold(value, |value, key| value.get(key)).is_some_and(is_on),
        None => DEFAULT_ON.iter().any(|on| *on == path || *on.split('.').next().unwrap_or_default() == *path),
    }
}

fn is_on(value: &Value) -> bool {
    match value {
        Value::Bool(is_on) => *is_on,
        Value::Object(fields) => !fields.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn without_a_word_everything_is_on_but_sampling() {
        for nothing in [json!({}), json!(null), json!([true])] {
            for path in ["tools", "tools.listChanged", "resources.subscribe", "prompts", "experimental.streaming"] {
                assert!(verify(&nothing, path), "{path}");
            }
            for path in ["sampling", "sampling.tools", "logging", "tools.other", "tools.listChanged.x", "", "."] {
                assert!(!verify(&nothing, path), "{path}");
            }
        }
    }

    #[test]
    fn a_path_leads_through_objects_to_something_that_is_on() {
        let declared = json!({
            "sampling": {"tools": {"a": 1}, "context": {}, "off": false, "n": 1, "deep": {"er": true}}, "roots": {},
        });

        for path in ["sampling", "sampling.tools", "sampling.deep.er"] {
            assert!(verify(&declared, path), "{path}");
        }
        for path in [
            "sampling.context",
            "sampling.off",
            "sampling.n",
            "sampling.none",
            "sampling.deep.er.x",
            "sampling.",
            "roots",
            "Sampling",
        ] {
            assert!(!verify(&declared, path), "{path}");
        }
    }

    #[test]
    fn what_is_declared_replaces_the_default_of_its_top_level() {
        let declared = json!({"tools": {"other": true}});

        assert!(!verify(&declared, "tools.listChanged"));
        assert!(verify(&declared, "prompts.listChanged"));
    }
}
