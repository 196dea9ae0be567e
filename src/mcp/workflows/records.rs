//! What is kept of runs: how to go on with those under way, and how the others ended.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::live::{LiveRun, RunOptions};
use super::{Finished, journal, prefix};
use crate::clock;
use crate::mcp::auth::{Identity, KeptRights};
use crate::protocol::workflow::stepper::Beginning;
use crate::store::{Entry, Keys, Store, StoreError, Table, Transaction};

/// By user, start and run; each value is a [`Record`] as JSON.
const RECORDS: Table = Table("workflow_runs");
/// By run; each value is the key of its record.
const KEYS: Table = Table("workflow_run_keys");
/// The runs under way; each value is a [`GoingOn`] as JSON.
const LIVE: Table = Table("workflow_runs_live");
/// Runs that have ended and whose journals are still there.
const ENDED: Table = Table("workflow_runs_ended");

/// Runs that are kept of one user, the newest.
pub(super) const RECORDS_MAX: usize = 200;
/// Bytes of the ended ones among them.
pub(super) const RECORDS_BYTES_MAX: usize = 8 << 20;

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// It goes on.
    Running,
    /// It has a result.
    Completed,
    /// It failed.
    Failed,
    /// It was ended from outside.
    Cancelled,
}

/// A run, as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) run_id: String,
    pub(crate) workflow_id: String,
    pub(crate) user: String,
    #[serde(default)]
    pub(crate) rights: KeptRights,
    pub(crate) server: String,
    pub(crate) status: Status,
    pub(crate) request_id: Box<RawValue>,
    pub(crate) started_unix_micros: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) finished_unix_micros: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) result: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// What a run under way is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct GoingOn {
    /// Without templates.
    pub(crate) definition: Value,
    pub(crate) input: Option<Value>,
    pub(crate) context: Value,
    pub(crate) trigger: Value,
    /// Which workflow of a reactive one.
    pub(crate) workflow: usize,
    pub(crate) options: RunOptions,
    pub(crate) depth: u32,
}

impl GoingOn {
    /// What the machine begins with.
    pub(super) fn beginning(&self) -> Beginning {
        Beginning {
            input: self.input.clone(),
            context: self.context.clone(),
            trigger: self.trigger.clone(),
            workflow: self.workflow,
        }
    }
}

impl Record {
    /// As clients get it; `is_whole` with its result.
    pub(super) fn shown(&self, is_whole: bool) -> Value {
        let mut fields = Map::from_iter([
            ("run_id".to_owned(), json!(self.run_id)),
            ("workflow_id".to_owned(), json!(self.workflow_id)),
            ("status".to_owned(), json!(self.status)),
            ("started_at".to_owned(), json!(clock::iso8601_micros(self.started_unix_micros))),
        ]);
        if let Some(finished) = self.finished_unix_micros {
            fields.insert("finished_at".to_owned(), json!(clock::iso8601_micros(finished)));
        }
        if let Some(error) = &self.error {
            fields.insert("error".to_owned(), json!(error));
        }
        if let Some(result) = self.result.as_ref().filter(|_| is_whole) {
            fields.insert("result".to_owned(), result.clone());
        }
        Value::Object(fields)
    }

    fn key(&self) -> Vec<u8> {
        let user = Identity::of_user(self.user.as_str());
        [prefix(&user), self.started_unix_micros.to_be_bytes().to_vec(), self.run_id.as_bytes().to_vec()].concat()
    }
}

/// Stores a run that is about to begin.
///
/// # Errors
/// [`StoreError`], among them that it is too large.
pub(super) async fn begin(store: &Store, record: Record, going_on: &GoingOn) -> Result<(), StoreError> {
    let going_on = serde_json::to_vec(going_on).expect("what a run is made of has string keys");
    let value = serde_json::to_vec(&record).expect("a record has string keys");
    store
        .change(move |change| {
            let key = record.key();
            change.put(KEYS, record.run_id.as_bytes(), key.clone())?;
            change.put(LIVE, record.run_id.as_bytes(), going_on)?;
            change.put(RECORDS, key, value)
        })
        .await
}

/// Stores how a run ended, and takes away what was kept for going on with it.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn finish(store: &Store, live: &LiveRun, finished: &Finished) -> Result<(), StoreError> {
    let record = Record {
        run_id: live.id.clone(),
        workflow_id: live.workflow.to_string(),
        user: live.owner.user.to_string(),
        rights: KeptRights::of(&live.owner),
        server: live.server.clone(),
        status: finished.status(),
        request_id: live.request_id.clone(),
        started_unix_micros: live.started_unix_micros,
        finished_unix_micros: Some(finished.unix_micros),
        result: finished.outcome.as_ref().ok().map(|result| Value::clone(result)),
        error: finished.outcome.as_ref().err().map(crate::protocol::workflow::Failure::to_error_text),
    };
    end(store, record, live.number).await
}

/// Ends a run that nobody can go on with.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn give_up(store: &Store, mut record: Record, why: &str) -> Result<(), StoreError> {
    let number = crate::mcp::Hex::number(&record.run_id).unwrap_or_default();
    record.status = Status::Failed;
    record.finished_unix_micros = Some(clock::unix_micros());
    record.error = Some(format!("Workflow execution failed: {why}"));
    end(store, record, number).await
}

async fn end(store: &Store, record: Record, number: u128) -> Result<(), StoreError> {
    let owner = Identity::of_user(record.user.as_str());
    let stored = put_end(store, record.clone(), number, owner.clone()).await;
    if let Err(StoreError::TooLarge { .. } | StoreError::Full { .. }) = stored {
        // That it has ended is worth more than with what.
        let error = Some("Workflow execution failed: its result could not be stored".to_owned());
        let record = Record { status: Status::Failed, result: None, error, ..record };
        put_end(store, record, number, owner).await?;
    } else {
        stored?;
    }
    clear(store, number).await
}

async fn put_end(store: &Store, record: Record, number: u128, owner: Identity) -> Result<(), StoreError> {
    let value = serde_json::to_vec(&record).expect("a record has string keys");
    store
        .change(move |change| {
            change.delete(LIVE, record.run_id.as_bytes());
            change.put(ENDED, number.to_be_bytes(), [])?;
            let key = record.key();
            change.put(RECORDS, key.clone(), value)?;
            forget_oldest(change, &owner, &key)
        })
        .await
}

/// Takes away the journal of a run that has ended.
async fn clear(store: &Store, number: u128) -> Result<(), StoreError> {
    journal::delete(store, number).await?;
    store
        .change(move |change| {
            change.delete(ENDED, number.to_be_bytes());
            Ok(())
        })
        .await
}

/// Takes away the journals that a crash left behind.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn clear_ended(store: &Store) -> Result<(), StoreError> {
    for (key, _) in store.range(ENDED, Keys::beginning_with([]), usize::MAX).await? {
        if let Ok(number) = key.as_slice().try_into() {
            clear(store, u128::from_be_bytes(number)).await?;
        }
    }
    Ok(())
}

/// Keeps a user's ended runs within their bounds; the one that has just ended stays, however long ago it began.
fn forget_oldest(change: &mut Transaction<'_>, user: &Identity, newest: &[u8]) -> Result<(), StoreError> {
    let all = change.range(RECORDS, &Keys::beginning_with(prefix(user)), usize::MAX)?;
    let is_ended = |value: &[u8]| parse(value).is_none_or(|record| record.status != Status::Running);
    let ended: Vec<Entry> = all.into_iter().filter(|(_, value)| is_ended(value)).collect();
    let (mut count, mut bytes) = (ended.len(), ended.iter().map(|(_, value)| value.len()).sum::<usize>());
    for (key, value) in ended.into_iter().filter(|(key, _)| key != newest) {
        if count <= RECORDS_MAX && bytes <= RECORDS_BYTES_MAX {
            break;
        }
        count -= 1;
        bytes -= value.len();
        if let Some(record) = parse(&value) {
            change.delete(KEYS, record.run_id);
        }
        change.delete(RECORDS, key);
    }
    Ok(())
}

/// The runs of a user, the newest first.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn list(store: &Store, user: &Identity) -> Result<Vec<Record>, StoreError> {
    let all = store.range(RECORDS, Keys::beginning_with(prefix(user)), usize::MAX).await?;
    Ok(all.iter().rev().filter_map(|(_, value)| parse(value)).collect())
}

/// A run of anyone.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn find(store: &Store, run_id: &str) -> Result<Option<Record>, StoreError> {
    let Some(key) = store.get(KEYS, run_id.as_bytes()).await? else { return Ok(None) };
    Ok(store.get(RECORDS, key).await?.and_then(|value| parse(&value)))
}

/// The runs that were under way when the process ended.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn unfinished(store: &Store) -> Result<Vec<(Record, Option<GoingOn>)>, StoreError> {
    let mut records = Vec::new();
    for (run_id, going_on) in store.range(LIVE, Keys::beginning_with([]), usize::MAX).await? {
        match find(store, &String::from_utf8_lossy(&run_id)).await? {
            Some(record) => records.push((record, serde_json::from_slice(&going_on).ok())),
            None => tracing::error!(run = %String::from_utf8_lossy(&run_id), "a workflow's run can't be read"),
        }
    }
    Ok(records)
}

fn parse(value: &[u8]) -> Option<Record> {
    let read = serde_json::from_slice(value);
    read.inspect_err(
        |error| tracing::error!(%error, "a workflow's run is stored in a form that this version does not read"),
    )
    .ok()
}
