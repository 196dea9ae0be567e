//! What `batch_processing` runs on: each item is tidied and given its batch, judged, and all are put together.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::parameters::Whole;
use super::{About, Effect, described, judging, kind};
use crate::mcp::{CallError, Tool};

/// Items of a batch.
const BATCH_ITEMS_MAX: u64 = 10_000;
/// Items that are put together.
const ITEMS_MAX: usize = 10_000;
/// Faults that are told of one item.
const FAULTS_MAX: usize = 10;

const CATEGORY: &str = "data_processing";

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Process {
    /// Items of a batch.
    #[serde(default = "batch_size")]
    batch_size: Whole<1, BATCH_ITEMS_MAX>,
    /// The item; by default `input`.
    item: Option<Value>,
    /// Where the item stands among all, from 0 on.
    index: Option<u64>,
    /// What the step before gave.
    input: Option<Value>,
}

fn batch_size() -> Whole<1, BATCH_ITEMS_MAX> {
    Whole(10)
}

#[derive(Serialize, JsonSchema)]
struct Processed {
    /// Where the item stands among all, from 0 on.
    index: u64,
    /// The number of its batch, from 0 on.
    batch: u64,
    /// Where it stands in its batch, from 0 on.
    position: u64,
    /// The item, its texts without blanks around them.
    value: Value,
    /// Its length as JSON.
    bytes: usize,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Validate {
    /// Whether fields that are null count too, and an item that is not valid fails.
    #[serde(default)]
    strict: bool,
    /// What item_processor gave, or an item by itself; by default `item`.
    input: Option<Value>,
    /// The item.
    item: Option<Value>,
    /// Where the item stands among all, from 0 on.
    index: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
struct Validated {
    /// Whether it can be used.
    valid: bool,
    /// Why not.
    faults: Vec<String>,
    /// Where the item stands among all, from 0 on.
    index: u64,
    /// The number of its batch, from 0 on.
    batch: u64,
    /// The item.
    value: Value,
}

#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum Strategy {
    /// A list of the values, each once.
    #[default]
    Merge,
    /// How many are valid.
    Count,
    /// A list of the values, of which those that are lists give their items.
    Concat,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Aggregate {
    /// What to make of the values.
    #[serde(default)]
    strategy: Strategy,
    /// A list of what item_validator or item_processor gave, or of values.
    input: Option<Value>,
}

#[derive(Serialize, JsonSchema)]
struct Aggregated {
    /// As it was asked for.
    strategy: Strategy,
    /// How many items came.
    items: usize,
    /// How many of them are valid; the others are left out of the result.
    valid: usize,
    /// How many of them are not.
    invalid: usize,
    /// How many values were left out because they came before.
    duplicates: usize,
    /// How many batches they were in.
    batches: usize,
    /// A list, or a number where they were counted.
    result: Value,
}

pub(super) fn tools() -> [Tool; 3] {
    let process = Tool::structured("item_processor", |wanted: Process, _| async move { process(wanted) });
    let aggregate = Tool::structured("batch_aggregator", |wanted: Aggregate, _| async move { aggregate(wanted) });
    [
        described(
            process,
            About {
                description: "Takes the blanks around an item's texts away and says to which batch it belongs.",
                category: CATEGORY,
                effect: Effect::Computes,
                examples: json!([{"batch_size": 10, "index": 12, "item": {"name": " Ann "}}]),
            },
        ),
        described(
            judging("item_validator", validate),
            About {
                description: "Says whether an item has something in it. Where strict is true, one that has not fails.",
                category: CATEGORY,
                effect: Effect::Computes,
                examples: json!([{"strict": false, "input": {"name": "Ann"}}]),
            },
        ),
        described(
            aggregate,
            About {
                description: "Puts items together: merge gives each value once, concat all, count their number.",
                category: CATEGORY,
                effect: Effect::Computes,
                examples: json!([{"strategy": "merge", "input": [{"valid": true, "value": 1}, {"value": 1}]}]),
            },
        ),
    ]
}

fn process(wanted: Process) -> Result<Processed, CallError> {
    let value = tidied(wanted.item.or(wanted.input).unwrap_or_default());
    let (batch_size, index) = (wanted.batch_size.checked("batch_size")?, wanted.index.unwrap_or_default());
    let bytes = value.to_string().len();
    Ok(Processed { index, batch: index / batch_size, position: index % batch_size, value, bytes })
}

/// A value whose texts have no blanks around them.
fn tidied(value: Value) -> Value {
    match value {
        Value::String(text) => text.trim().into(),
        Value::Array(items) => items.into_iter().map(tidied).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (name, tidied(value))).collect::<Map<_, _>>().into()
        }
        other => other,
    }
}

fn validate(wanted: Validate) -> (Validated, Option<String>) {
    let mut came = wanted.input.or(wanted.item).unwrap_or_default();
    let number = |came: &Value, name: &str| came[name].as_u64();
    let index = number(&came, "index").or(wanted.index).unwrap_or_default();
    let batch = number(&came, "batch").unwrap_or_default();
    let value = came.as_object_mut().and_then(|fields| fields.remove("value")).unwrap_or(came);
    let faults = faults(&value, wanted.strict);
    let valid = faults.is_empty();
    let fault = (wanted.strict && !valid).then(|| format!("item {index}: {}", faults.join("; ")));
    (Validated { valid, faults, index, batch, value }, fault)
}

fn faults(value: &Value, is_strict: bool) -> Vec<String> {
    let is_empty = match value {
        Value::Null => return vec!["expected a value, came null".to_owned()],
        Value::String(text) => text.trim().is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    };
    if is_empty {
        return vec![format!("expected a value, came {} with nothing in it", kind(value))];
    }
    let fields = value.as_object().filter(|_| is_strict).into_iter().flatten();
    let nulls = fields.filter(|(_, value)| value.is_null());
    nulls.map(|(name, _)| format!("field {name:?}: expected a value, came null")).take(FAULTS_MAX).collect()
}

fn aggregate(wanted: Aggregate) -> Result<Aggregated, CallError> {
    let items = match wanted.input.unwrap_or_default() {
        Value::Array(items) => items,
        other => return Err(CallError::failed(format!("input: expected a list of items, came {}", kind(&other)))),
    };
    let count = items.len();
    if count > ITEMS_MAX {
        return Err(CallError::failed(format!("input: expected at most {ITEMS_MAX} items, came {count}")));
    }
    let batches: BTreeSet<u64> = items.iter().map(|item| item["batch"].as_u64().unwrap_or_default()).collect();
    let values: Vec<Value> = items.into_iter().filter_map(usable).collect();
    let valid = values.len();
    let (result, duplicates) = match wanted.strategy {
        Strategy::Count => (valid.into(), 0),
        Strategy::Concat => {
            let spread = |value| match value {
                Value::Array(items) => items,
                other => vec![other],
            };
            (values.into_iter().flat_map(spread).collect(), 0)
        }
        Strategy::Merge => {
            let mut seen = BTreeSet::new();
            let once: Vec<_> = values.into_iter().filter(|value| seen.insert(value.to_string())).collect();
            let duplicates = valid - once.len();
            (once.into(), duplicates)
        }
    };
    Ok(Aggregated {
        strategy: wanted.strategy,
        items: count,
        valid,
        invalid: count - valid,
        duplicates,
        batches: batches.len(),
        result,
    })
}

/// The value of an item, unless it is said not to be valid.
fn usable(mut item: Value) -> Option<Value> {
    if item["valid"] == Value::Bool(false) || item.is_null() {
        return None;
    }
    match item.as_object_mut().and_then(|fields| fields.remove("value")) {
        Some(value) => Some(value).filter(|value| !value.is_null()),
        None => Some(item),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tools, refused};
    use super::*;

    /// What the loop of the template makes of items.
    async fn run(items: &[Value], batch_size: Value, strategy: &str) -> Value {
        let tools = Tools::new();
        let mut results = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let arguments = json!({"batch_size": batch_size, "item": item, "index": index});
            let processed = tools.call("item_processor", arguments).await;
            let arguments = json!({"strict": false, "input": processed, "item": item, "index": index});
            results.push(tools.call("item_validator", arguments).await);
        }
        tools.call("batch_aggregator", json!({"strategy": strategy, "input": results})).await
    }

    #[tokio::test]
    async fn items_are_put_together_by_a_strategy() {
        let items = [json!(" a"), json!("a "), json!([1, " 2 "]), json!(null), json!({"n": " b"}), json!(" ")];

        let merged = run(&items, json!("4"), "merge").await;
        let concatenated = run(&items, json!(4), "concat").await;
        let counted = run(&items, json!(1), "count").await;

        let of_merge = json!({
            "strategy": "merge", "items": 6, "valid": 4, "invalid": 2, "duplicates": 1, "batches": 2,
            "result": ["a", [1, "2"], {"n": "b"}],
        });
        assert_eq!(merged, of_merge);
        assert_eq!(concatenated["result"], json!(["a", "a", 1, "2", {"n": "b"}]));
        assert_eq!((&counted["result"], &counted["batches"]), (&json!(4), &json!(6)));
    }

    #[tokio::test]
    async fn rounds_without_items_have_their_index_as_item() {
        let rounds: Vec<Value> = (0..25).map(Value::from).collect();

        let merged = run(&rounds, json!(10), "merge").await;

        assert_eq!((&merged["valid"], &merged["batches"], &merged["result"][24]), (&json!(25), &json!(3), &json!(24)));
        assert_eq!(run(&[], json!(10), "merge").await["result"], json!([]));
    }

    #[tokio::test]
    async fn an_item_is_given_its_batch() {
        let processed = Tools::new().call("item_processor", json!({"item": " a ", "index": 12})).await;

        assert_eq!(processed, json!({"index": 12, "batch": 1, "position": 2, "value": "a", "bytes": 3}));
        for unfit in [json!(0), json!("0"), json!(10_001)] {
            let refusal = Tools::new().try_call("item_processor", json!({"batch_size": unfit})).await;
            assert!(refusal.expect_err("unfit").starts_with("invalid arguments: batch_size: "));
        }
    }

    #[tokio::test]
    async fn a_strict_judgement_fails_what_a_lenient_one_tells() {
        let tools = Tools::new();
        let judge =
            async |strict, value| tools.try_call("item_validator", json!({"strict": strict, "input": value})).await;
        let half = json!({"a": 1, "b": null, "c": null});

        let lenient = judge(false, half.clone()).await.expect("a verdict");
        assert_eq!(lenient, json!({"valid": true, "faults": [], "index": 0, "batch": 0, "value": half}));
        let text = "item 0: field \"b\": expected a value, came null; field \"c\": expected a value, came null";
        assert_eq!(judge(true, half).await, refused(text));
        assert_eq!(judge(true, json!([])).await, refused("item 0: expected a value, came a list with nothing in it"));
        assert_eq!(
            judge(true, json!({"index": 3, "value": null})).await,
            refused("item 3: expected a value, came null")
        );
        let empty = judge(false, json!("")).await.expect("a verdict");
        assert_eq!(empty["faults"], json!(["expected a value, came a text with nothing in it"]));
    }

    #[tokio::test]
    async fn what_is_no_list_is_refused() {
        let tools = Tools::new();
        let aggregate = async |input| tools.try_call("batch_aggregator", json!({"input": input})).await;

        assert_eq!(aggregate(json!({"a": 1})).await, refused("input: expected a list of items, came an object"));
        assert_eq!(aggregate(json!(null)).await, refused("input: expected a list of items, came null"));
        assert_eq!(
            aggregate(json!([null, {"id": 7}, 8])).await.expect("put together")["result"],
            json!([{"id": 7}, 8])
        );
    }
}
