use serde_json::{Value, json};

use super::super::compile;
use crate::protocol::workflow::builtin;

/// The faults of a definition, each as `path: message`.
fn faults(value: &Value) -> Vec<String> {
    let faults = compile(value, &()).err().unwrap_or_default();
    faults.iter().map(|fault| format!("{}: {}", fault.path, fault.message)).collect()
}

#[track_caller]
fn one(value: &Value, path: &str, part: &str) {
    let found = faults(value);
    let fits = |fault: &String| fault.starts_with(&format!("{path}: ")) && fault.contains(part);
    assert!(found.len() == 1 && fits(&found[0]), "expected {path}: …{part}…, came {found:?}");
}

fn steps(steps: Value) -> Value {
    json!({"type": "sequential", "steps": steps})
}

#[test]
fn the_deployments_texts_are_its_own() {
    one(&json!({"steps": []}), "", "Missing required field: type");
    one(&json!({"type": "other"}), "/type", "Unsupported workflow type: other");
    one(&json!({"type": "sequential"}), "", "Missing required field: steps");
    one(&json!({"type": "parallel", "steps": {"tool": "a"}}), "/steps", "expected a list");
    one(&steps(json!([{"params": {}}])), "/steps/0", "Missing required field: tool");
    one(&json!({"type": "conditional", "success": [{"tool": "a"}]}), "", "Missing required field: condition");
    one(&json!({"type": "loop", "steps": [{"tool": "a"}]}), "", "Missing required field: max_iterations");
    one(&json!({"type": "loop", "items": [1]}), "", "Missing required field: steps");
    let workflow = steps(json!([{"tool": "a"}]));
    one(&json!({"type": "reactive", "workflow": workflow}), "", "Missing required field: triggers");
    one(&json!({"type": "reactive", "workflows": {"a": workflow}}), "", "Missing required field: triggers");
    one(&json!({"type": "template", "template": "gone"}), "/template", "Template not found: gone");
    one(&json!({"type": "multi_tool", "calls": []}), "/calls", "at least one tool call");
    one(&json!({"type": "multi_tool", "calls": [{"name": "a"}]}), "/calls/0", "Invalid tool call format");
    one(&json!(3), "", "expected a workflow definition, an object, came a number");
}

#[test]
fn every_fault_is_found_with_its_place() {
    let found = faults(&json!({"type": "sequential", "on_restart": "maybe", "color": 1, "steps": [
        {"tool": "a", "id": "x", "retry": 99, "timeout_ms": 0},
        {"tool": "", "id": "x y"},
        {"type": "loop", "items": 3, "max_iterations": 0, "steps": []},
        {"tool": "b", "on_error": "explode", "run_once": 1, "input": {"n": "nobody/a", "m": "x/~5"}},
        7,
    ]}));

    let places: Vec<_> = found.iter().map(|fault| fault.split(": ").next().unwrap_or_default()).collect();
    assert_eq!(
        places,
        [
            "/color",
            "/on_restart",
            "/steps/0/retry",
            "/steps/0/timeout_ms",
            "/steps/1/id",
            "/steps/1/tool",
            "/steps/2/items",
            "/steps/3/input/m",
            "/steps/3/input/n",
            "/steps/3/on_error",
            "/steps/3/run_once",
            "/steps/4",
        ],
        "{found:#?}"
    );
}

#[test]
fn a_source_names_what_has_ended_wherever_its_step_runs() {
    let uses = |from: &str| json!({"tool": "u", "input": {"p": from}});
    let fits = [
        steps(json!([{"tool": "a"}, uses("a/x")])),
        steps(
            json!([{"tool": "a"}, {"type": "parallel", "steps": [uses("a"), {"type": "loop", "items": "a", "steps": [uses("a"), uses("u_2")]}]}]),
        ),
        json!({"type": "parallel", "steps": [{"tool": "a"}, {"tool": "b"}], "merge_step": {"tool": "m", "input": {"x": "a", "y": "b"}}}),
        json!({"type": "conditional", "condition": {"tool": "c"}, "success": [uses("c")], "failure": [uses("$condition")]}),
        json!({"type": "loop", "id": "out", "items": [1], "steps": [{"type": "loop", "items": "$item/rows", "steps": [uses("$item:out")]}]}),
        steps(json!([{"tool": "a", "on_error": {"step": uses("$error/message")}}])),
        json!({"type": "loop", "max_iterations": 3, "while": {"source": "$last/more", "op": "ne", "value": false}, "steps": [{"tool": "a"}]}),
        steps(json!([{"tool": "a", "input": {"p": {"from": "$trigger/payload", "default": null}}}])),
    ];
    for definition in fits {
        assert_eq!(faults(&definition), [""; 0], "{definition}");
    }
    let unfit = [
        (steps(json!([uses("a"), {"tool": "b", "id": "a"}])), "has not ended where this one runs"),
        (json!({"type": "parallel", "steps": [{"tool": "a"}, uses("a")]}), "has not ended"),
        (steps(json!([{"type": "loop", "items": [1], "steps": [{"tool": "a"}]}, uses("a")])), "has not ended"),
        (
            json!({"type": "conditional", "condition": {"tool": "c"}, "success": [{"tool": "a"}], "failure": [uses("a")]}),
            "has not ended",
        ),
        (steps(json!([uses("$item")])), "$item or $index within a loop"),
        (json!({"type": "loop", "items": [1], "steps": [uses("$item:other")]}), "is not there"),
        (steps(json!([uses("$error")])), "$error in the step of an on_error"),
        (steps(json!([uses("$last")])), "$last in a while"),
        (steps(json!([uses("u/x")])), "has not ended"),
        (steps(json!([uses("a/~x"), {"tool": "a"}])), "expected a JSON Pointer"),
    ];
    for (definition, part) in unfit {
        let found = faults(&definition);
        assert!(found.len() == 1 && found[0].contains(part), "expected {part:?}, came {found:?} of {definition}");
    }
}

#[test]
fn a_tool_may_appear_twice_and_an_id_once() {
    let (definition, _) =
        compile(&steps(json!([{"tool": "a"}, {"tool": "a"}, {"tool": "b", "id": "a_3"}, {"tool": "a"}])), &())
            .expect("it fits");
    let ids: Vec<_> = definition.steps[1..].iter().map(|step| step.id.as_str()).collect();
    assert_eq!(ids, ["a", "a_2", "a_3", "a_4"]);
    one(&steps(json!([{"tool": "a", "id": "x"}, {"tool": "b", "id": "x"}])), "/steps/1/id", "two steps have the id");
}

#[test]
fn what_is_null_or_named_at_length_is_a_fault() {
    one(
        &json!({"type": "conditional", "condition": null, "success": [{"tool": "a"}]}),
        "",
        "Missing required field: condition",
    );
    let one_workflow = json!({"x".repeat(100): steps(json!([{"tool": "a"}]))});
    one(
        &json!({"type": "reactive", "triggers": [{"event": "e"}], "workflows": one_workflow}),
        "/workflows",
        "by names",
    );
    let on = |condition: &str| json!({"type": "reactive", "triggers": [{"event": "e", "condition": {"source": condition}}], "workflow": steps(json!([{"tool": "a"}]))});
    assert_eq!(faults(&on("$trigger/payload/x")), [""; 0]);
    one(&on("$context/x"), "/triggers/0/condition/source", "no run has begun");
    one(&json!({"type": "template", "template": "t", "version": 2}), "/version", "expected a version");
    let replaced = json!({"type": "template", "template": "t", "steps": [{"tool": "a"}]});
    assert!(faults(&replaced).iter().any(|fault| fault.starts_with("/steps: ")), "{:?}", faults(&replaced));
    let own = json!({"type": "reactive", "triggers": [{"event": "e", "topic": "mcp:runs"}], "workflow": steps(json!([{"tool": "a"}]))});
    one(&own, "/triggers/0/topic", "not MCP's own");
}

#[test]
fn definitions_are_bounded() {
    let many: Vec<_> = (0..2_001).map(|_| json!({"tool": "a"})).collect();
    assert!(faults(&steps(json!(many))).iter().any(|fault| fault.contains("at most 2000 steps")));
    let mut deep = json!({"tool": "a"});
    for _ in 0..20 {
        deep = steps(json!([deep]));
    }
    assert!(faults(&deep).iter().all(|fault| fault.contains("at most 16 definitions within each other")));
    assert!(!faults(&deep).is_empty());
    let large = steps(json!([{"tool": "a", "params": {"x": "y".repeat(300_000)}}]));
    one(&large, "", "at most 262144 bytes");
    let wide = json!({"type": "sequential", "steps": vec![json!(1); 1_999]});
    assert!(faults(&wide).len() <= 101);
}

#[test]
fn conditions_and_triggers_say_what_they_expect() {
    let when = |condition: Value| json!({"type": "conditional", "condition": condition, "success": [{"tool": "a"}]});
    assert_eq!(
        faults(&when(json!({"all": [{"source": "$context/a"}, {"not": {"source": "$context/b", "op": "exists"}}]}))),
        [""; 0]
    );
    one(&when(json!({"source": "$context", "op": "like", "value": 1})), "/condition/op", "one of eq");
    one(&when(json!({"source": "$context", "op": "eq"})), "/condition", "Missing required field: value");
    one(&when(json!({"source": "$context", "op": "in", "value": 1})), "/condition/value", "expected a list");
    one(&when(json!({"any": []})), "/condition/any", "a list of conditions");
    let on =
        |trigger: Value| json!({"type": "reactive", "triggers": [trigger], "workflow": steps(json!([{"tool": "a"}]))});
    assert_eq!(faults(&on(json!({"event": "order", "workflow": "anything", "delay": 5}))), [""; 0]);
    one(&on(json!({"topic": "room:1"})), "/triggers/0", "Missing required trigger field: event");
    one(&on(json!({"event": "schedule"})), "/triggers/0/every_ms", "expected milliseconds");
    one(&on(json!({"event": "schedule", "every_ms": 1})), "/triggers/0/every_ms", "from 100");
}

#[test]
fn each_example_of_the_built_in_templates_is_a_definition() {
    for template in builtin::templates() {
        for example in &template.examples {
            let made = template.instantiate(&example.params).expect("the example fits");
            assert_eq!(faults(&made), [""; 0], "{}", template.name);
        }
    }
}
