//! What `data_processing_pipeline` runs on: rows are fetched by the name of their data set, written in a format, and
//! saved.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::rows::{Format, ROWS_BYTES_MAX, ROWS_MAX, Written, rows_of, write, written_of};
use super::{About, Effect, described, onboarding};
use crate::clock;
use crate::mcp::newest::{Newest, NewestOf};
use crate::mcp::tools::Registered;
use crate::mcp::{CallContext, CallError, Tool};
use crate::store::{Store, Table, Transaction};

/// Data sets that one user has saved; the newest are kept.
const DATASETS_MAX: usize = 20;
/// Bytes of all data sets of one user, as they are stored; the newest are kept.
const DATASETS_BYTES_MAX: usize = 262_144;
/// Characters of a data set's name.
const NAME_CHARS_MAX: u32 = 64;

/// Each entry is a [`Dataset`].
const DATASETS: Newest =
    Newest { table: Table("mcp_datasets"), entries_max: DATASETS_MAX, bytes_max: DATASETS_BYTES_MAX };

/// The data sets that the server has by itself: what it offers, what this user did with it, and what the user was
/// notified of.
const BUILT_IN: [&str; 3] = ["api", "runs", "notifications"];

const CATEGORY: &str = "data_processing";

/// A data set that was saved.
#[derive(Serialize, Deserialize)]
struct Dataset {
    id: String,
    name: String,
    format: Format,
    data: String,
    rows: usize,
    saved_at: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Fetch {
    /// One that data_saver saved, or `api` (this server's tools), `runs` (this user's calls of late), `notifications`.
    #[schemars(length(min = 1, max = NAME_CHARS_MAX))]
    source: String,
}

#[derive(Serialize, JsonSchema)]
struct Fetched {
    /// The data set's name.
    source: String,
    /// What is in it.
    rows: Vec<Value>,
    /// How many rows these are.
    count: usize,
    /// Whether there are more than a data set may have.
    truncated: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Transform {
    /// How the rows are to be written.
    #[serde(default)]
    format: Format,
    /// A list of rows, or an object with the list `rows` or with `data` and `format`; another object is one row.
    input: Option<Value>,
}

#[derive(Serialize, JsonSchema)]
struct Transformed {
    /// How the rows are written.
    format: Format,
    /// The rows, as a text.
    data: String,
    /// How many rows these are.
    rows: usize,
    /// The length of the text in UTF-8.
    bytes: usize,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Save {
    /// The name under which data_fetcher finds it.
    #[schemars(length(min = 1, max = NAME_CHARS_MAX))]
    destination: String,
    /// What to save: what data_transformer gives, or rows as it takes them.
    input: Option<Value>,
}

#[derive(Serialize, JsonSchema)]
struct Saved {
    /// The data set's name.
    destination: String,
    /// How its rows are written.
    format: Format,
    /// How many rows it has.
    rows: usize,
    /// The length of its text in UTF-8.
    bytes: usize,
    /// ISO 8601.
    saved_at: String,
}

pub(super) fn tools(store: &Store) -> [Tool; 3] {
    let (fetched, saved) = (store.clone(), store.clone());
    let fetch = Tool::structured("data_fetcher", move |wanted: Fetch, context: CallContext| {
        let store = fetched.clone();
        async move { fetch(&store, wanted.source, &context).await }
    });
    let transform = Tool::structured("data_transformer", |wanted: Transform, _| async move { transform(wanted) });
    let save = Tool::structured("data_saver", move |wanted: Save, context: CallContext| {
        let store = saved.clone();
        async move {
            let datasets = DATASETS.of(context.user());
            if BUILT_IN.contains(&wanted.destination.as_str()) {
                let (taken, came) = (names(BUILT_IN), wanted.destination);
                let text = format!("destination: {taken} are the server's own, expected another name, came {came:?}");
                return Err(CallError::InvalidArguments(text));
            }
            let written = written_of(&wanted.input.unwrap_or_default()).map_err(at_input)?;
            store.change(move |change| save(change, &datasets, wanted.destination, written)).await
        }
    });
    [
        described(
            fetch,
            About {
                description: "Reads the rows of a data set: one that data_saver saved, or one of the server's own.",
                category: CATEGORY,
                effect: Effect::Reads,
                examples: json!([{"source": "api"}, {"source": "database"}]),
            },
        ),
        described(
            transform,
            About {
                description: "Writes rows as JSON, as CSV (RFC 4180) or as lines of JSON.",
                category: CATEGORY,
                effect: Effect::Computes,
                examples: json!([{"format": "csv", "input": [{"id": 1, "name": "Ann"}, {"id": 2, "name": "Bob"}]}]),
            },
        ),
        described(
            save,
            About {
                description: "Saves rows for this user under a name. What had the name goes; the newest are kept.",
                category: CATEGORY,
                effect: Effect::Replaces,
                examples: json!([{"destination": "database", "input": [{"id": 1, "name": "Ann"}]}]),
            },
        ),
    ]
}

async fn fetch(store: &Store, source: String, context: &CallContext) -> Result<Fetched, CallError> {
    let (rows, truncated) = match source.as_str() {
        "api" => fitting(context.server().catalog().tools.iter().map(|tool| about(tool))),
        "runs" => newest(context.runs().iter().map(|run| json!(run))),
        "notifications" => newest(onboarding::notifications(store, context.user()).await?.into_iter()),
        name => {
            let datasets: Vec<Dataset> = DATASETS.of(context.user()).read(store).await?;
            let Some(found) = datasets.iter().find(|dataset| dataset.name == name) else {
                let known = names(BUILT_IN.into_iter().chain(datasets.iter().map(|dataset| dataset.name.as_str())));
                return Err(CallError::failed(format!("there is no data set {name:?}, expected one of {known}")));
            };
            let rows = rows_of(&json!({"format": found.format, "data": found.data})).map_err(CallError::Failed)?;
            (rows, false)
        }
    };
    Ok(Fetched { source, count: rows.len(), rows, truncated })
}

/// What a tool says of itself, in a row.
fn about(tool: &Registered) -> Value {
    let says: Value = serde_json::from_str(tool.listed_elixir.get()).expect("a listing is JSON");
    let properties = says["inputSchema"]["properties"].as_object();
    let arguments: Vec<_> = properties.into_iter().flat_map(|properties| properties.keys()).collect();
    json!({
        "tool": says["name"],
        "category": says["metadata"]["category"],
        "description": says["description"],
        "arguments": arguments,
    })
}

/// The first rows, as many as a data set may have, and whether there are more.
fn fitting(rows: impl Iterator<Item = Value>) -> (Vec<Value>, bool) {
    // The brackets of the list.
    let (mut fit, mut bytes) = (Vec::new(), 2);
    for row in rows {
        bytes += row.to_string().len() + 1;
        if fit.len() == ROWS_MAX || bytes > ROWS_BYTES_MAX {
            return (fit, true);
        }
        fit.push(row);
    }
    (fit, false)
}

/// The last rows.
fn newest(rows: impl DoubleEndedIterator<Item = Value>) -> (Vec<Value>, bool) {
    let (mut rows, truncated) = fitting(rows.rev());
    rows.reverse();
    (rows, truncated)
}

fn transform(wanted: Transform) -> Result<Transformed, CallError> {
    let rows = rows_of(&wanted.input.unwrap_or_default()).map_err(at_input)?;
    let Written { format, text, rows } = write(wanted.format, &rows).map_err(at_input)?;
    Ok(Transformed { format, bytes: text.len(), data: text, rows })
}

fn save(
    change: &mut Transaction<'_>,
    datasets: &NewestOf,
    destination: String,
    written: Written,
) -> Result<Saved, CallError> {
    let before: Vec<Dataset> = datasets.read_in(change)?;
    if let Some(replaced) = before.iter().find(|dataset| dataset.name == destination) {
        datasets.remove(change, &replaced.id)?;
    }
    let Written { format, text, rows } = written;
    let saved_at = clock::wall_iso8601_micros();
    let saved = datasets.add(change, |id| Dataset { id, name: destination, format, data: text, rows, saved_at })?;
    Ok(Saved { destination: saved.name, format, rows, bytes: saved.data.len(), saved_at: saved.saved_at })
}

fn at_input(why: String) -> CallError {
    CallError::Failed(format!("input: {why}"))
}

fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tools, refused};
    use super::*;
    use crate::mcp::auth::Identity;
    use crate::mcp::deployment::Deployment;

    #[tokio::test]
    async fn rows_are_fetched_written_saved_and_fetched_again() {
        let tools = Tools::new();

        let fetched = tools.call("data_fetcher", json!({"source": "api"})).await;
        let transformed = tools.call("data_transformer", json!({"format": "json", "input": fetched})).await;
        let saved = tools.call("data_saver", json!({"destination": "database", "input": transformed})).await;

        // The context's server has one tool.
        let row = json!({"tool": "t", "category": "general", "description": "", "arguments": []});
        assert_eq!(fetched, json!({"source": "api", "rows": [row], "count": 1, "truncated": false}));
        let text = json!([row]).to_string();
        assert_eq!(transformed, json!({"format": "json", "data": text, "rows": 1, "bytes": text.len()}));
        assert_eq!(
            (&saved["destination"], &saved["rows"], &saved["bytes"]),
            (&json!("database"), &json!(1), &json!(text.len()))
        );
        let again = tools.call("data_fetcher", json!({"source": "database"})).await;
        assert_eq!(again, json!({"source": "database", "rows": [row], "count": 1, "truncated": false}));
    }

    #[tokio::test]
    async fn a_name_is_saved_once_and_the_text_stays_as_it_was_written() {
        let tools = Tools::new();
        let save = async |input: Value| tools.call("data_saver", json!({"destination": "d", "input": input})).await;

        save(json!([{"a": 1}])).await;
        let saved = save(json!({"format": "csv", "data": "a,b\n1,\n"})).await;

        assert_eq!((&saved["format"], &saved["rows"], &saved["bytes"]), (&json!("csv"), &json!(1), &json!(7)));
        let fetched = tools.call("data_fetcher", json!({"source": "d"})).await;
        assert_eq!(fetched["rows"], json!([{"a": "1", "b": null}]));
        let datasets: Vec<Dataset> = DATASETS.of(&Identity::of_user("u")).read(&tools.store).await.expect("read");
        assert_eq!(datasets.len(), 1);
    }

    #[tokio::test]
    async fn what_is_no_data_set_is_told_with_those_that_are() {
        let tools = Tools::new();
        tools.call("data_saver", json!({"destination": "mine", "input": []})).await;
        let (fetch, save) = (async |name| tools.try_call("data_fetcher", json!({"source": name})).await, "data_saver");

        let text = "there is no data set \"x\", expected one of \"api\", \"runs\", \"notifications\", \"mine\"";
        assert_eq!(fetch("x").await, refused(text));
        let taken = tools.try_call(save, json!({"destination": "runs", "input": []})).await;
        let text = "invalid arguments: destination: \"api\", \"runs\", \"notifications\" are the server's own, \
                    expected another name, came \"runs\"";
        assert_eq!(taken, refused(text));
        let unfit = tools.try_call(save, json!({"destination": "d", "input": 7})).await;
        let text = "input: expected rows: a list, or an object with rows or with format and data; came a number";
        assert_eq!(unfit, refused(text));
        let unfit = tools.try_call("data_transformer", json!({"format": "csv"})).await;
        assert_eq!(unfit, refused(&text.replace("a number", "null")));
    }

    #[tokio::test]
    async fn a_users_newest_data_sets_are_kept_and_are_no_one_elses() {
        let store = Deployment::in_memory().store().clone();
        let of = |user: &str| DATASETS.of(&Identity::of_user(user));
        let save_as = async |user: &str, name: String| {
            let (of, written) = (of(user), write(Format::Json, &[json!("x".repeat(15_000))]).expect("written"));
            store.change(move |change| save(change, &of, name, written)).await.expect("saved");
        };

        for n in 0..DATASETS_MAX + 5 {
            save_as("ann", n.to_string()).await;
        }
        save_as("bob", "his".to_owned()).await;

        let kept = async |user| of(user).read::<Dataset>(&store).await.expect("read");
        let hers: Vec<_> = kept("ann").await.into_iter().map(|dataset| dataset.name).collect();
        // As many as fit the bytes.
        assert_eq!((hers.len(), hers[hers.len() - 1].as_str()), (17, "24"));
        assert_eq!(kept("bob").await.len(), 1);
    }

    #[test]
    fn of_many_rows_as_many_are_given_as_a_data_set_may_have() {
        let many = || (0..ROWS_MAX + 5).map(Value::from);

        let (first, truncated) = fitting(many());
        assert_eq!((first.len(), &first[0], truncated), (ROWS_MAX, &json!(0), true));
        let (last, truncated) = newest(many().collect::<Vec<_>>().into_iter());
        assert_eq!((last.len(), &last[0], &last[ROWS_MAX - 1], truncated), (ROWS_MAX, &json!(5), &json!(1_004), true));
        let long = || (0..100).map(|_| Value::from("x".repeat(1_000)));
        let (fit, truncated) = fitting(long());
        assert_eq!((fit.len(), truncated), (32, true));
        assert!(rows_of(&fit.into()).is_ok());
    }
}
