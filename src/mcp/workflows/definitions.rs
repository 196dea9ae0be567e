//! Workflows that are kept to be run by their id, each user's own.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::prefix;
use crate::clock;
use crate::mcp::CallError;
use crate::mcp::auth::{Identity, KeptRights};
use crate::protocol::workflow::TIMEOUT_MS_MAX;
use crate::store::{Keys, Store, StoreError, Table, Transaction};

/// By user and id; each value is a [`Stored`] as JSON.
const WORKFLOWS: Table = Table("workflows");

/// Workflows of one user.
pub(super) const WORKFLOWS_MAX: usize = 500;
/// Bytes of them together.
pub(super) const WORKFLOWS_BYTES_MAX: usize = 8 << 20;
/// Bytes of a workflow's id.
pub(super) const WORKFLOW_ID_BYTES_MAX: usize = 128;

/// A workflow that is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) workflow_id: String,
    /// With which it is begun by its own triggers.
    #[serde(default)]
    pub(super) rights: KeptRights,
    /// Of which server its tools are.
    pub(super) server: String,
    /// `sequential` and the like.
    pub(super) kind: String,
    /// Counts the definitions that this id has had.
    pub(super) version: u64,
    /// As it came.
    pub(super) definition: Value,
    /// Without templates.
    pub(super) expanded: Value,
    pub(super) created_at: String,
    pub(super) updated_at: String,
}

impl Stored {
    /// As clients get it; `is_whole` with its definition.
    pub(super) fn shown(&self, is_whole: bool) -> Value {
        let mut fields = Map::from_iter([
            ("workflow_id".to_owned(), json!(self.workflow_id)),
            ("type".to_owned(), json!(self.kind)),
            ("version".to_owned(), json!(self.version)),
            ("created_at".to_owned(), json!(self.created_at)),
            ("updated_at".to_owned(), json!(self.updated_at)),
        ]);
        for key in ["name", "description"] {
            if let Some(text) = self.definition.get(key) {
                fields.insert(key.to_owned(), text.clone());
            }
        }
        if is_whole {
            fields.insert("definition".to_owned(), self.definition.clone());
        }
        Value::Object(fields)
    }
}

/// Keeps a workflow in the place of what its id had; gives its version.
///
/// # Errors
/// [`StoreError`], or the user has as much as may be.
pub(super) async fn put(store: &Store, user: &Identity, mut workflow: Stored) -> Result<u64, CallError> {
    let prefix = prefix(user);
    store
        .change(move |change| {
            let key = [&prefix[..], workflow.workflow_id.as_bytes()].concat();
            let before = change.get(WORKFLOWS, &key)?;
            if let Some(before) = before.as_deref().and_then(parse) {
                workflow.version = before.version + 1;
                workflow.created_at = before.created_at;
            }
            let value = serde_json::to_vec(&workflow).expect("a workflow has string keys");
            check_room(change, &prefix, before.map_or(0, |before| before.len()), value.len())?;
            change.put(WORKFLOWS, key, value)?;
            Ok(workflow.version)
        })
        .await
}

fn check_room(change: &Transaction<'_>, prefix: &[u8], before: usize, bytes: usize) -> Result<(), CallError> {
    let all = change.range(WORKFLOWS, &Keys::beginning_with(prefix), WORKFLOWS_MAX + 1)?;
    let together = all.iter().map(|(_, value)| value.len()).sum::<usize>() - before + bytes;
    let count = all.len() + usize::from(before == 0);
    if count > WORKFLOWS_MAX || together > WORKFLOWS_BYTES_MAX {
        return Err(CallError::failed(format!(
            "expected at most {WORKFLOWS_MAX} workflows of {WORKFLOWS_BYTES_MAX} bytes together, came {count} of {together}"
        )));
    }
    Ok(())
}

/// A workflow of a user.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn find(store: &Store, user: &Identity, id: &str) -> Result<Option<Stored>, StoreError> {
    let key = [&prefix(user), id.as_bytes()].concat();
    if key.len() > crate::store::KEY_BYTES_MAX {
        return Ok(None);
    }
    Ok(store.get(WORKFLOWS, key).await?.as_deref().and_then(parse))
}

/// All workflows of a user, by their ids.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn list(store: &Store, user: &Identity) -> Result<Vec<Stored>, StoreError> {
    let all = store.range(WORKFLOWS, Keys::beginning_with(prefix(user)), usize::MAX).await?;
    Ok(all.iter().filter_map(|(_, value)| parse(value)).collect())
}

/// The workflows of all users that are reactive as a whole, each with its user.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn reactive(store: &Store) -> Result<Vec<(Identity, Stored)>, StoreError> {
    let all = store.range(WORKFLOWS, Keys::beginning_with([]), usize::MAX).await?;
    let reactive = all.iter().filter_map(|(key, value)| {
        let stored = parse(value).filter(|stored| stored.kind == "reactive")?;
        let user = key.get(4..key.len().checked_sub(stored.workflow_id.len())?)?;
        Some((stored.rights.identity(std::str::from_utf8(user).ok()?), stored))
    });
    Ok(reactive.collect())
}

/// Takes a workflow away. Whether it was there.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn delete(store: &Store, user: &Identity, id: &str) -> Result<bool, StoreError> {
    let key = [&prefix(user), id.as_bytes()].concat();
    store
        .change(move |change| {
            let was_there = change.get(WORKFLOWS, &key)?.is_some();
            change.delete(WORKFLOWS, key);
            Ok(was_there)
        })
        .await
}

/// What a new workflow is kept as.
pub(super) fn new(id: &str, owner: &Identity, server: &str, kind: &str, definition: Value, expanded: Value) -> Stored {
    let now = clock::wall_iso8601_micros();
    Stored {
        workflow_id: id.to_owned(),
        rights: KeptRights::of(owner),
        server: server.to_owned(),
        kind: kind.to_owned(),
        version: 1,
        definition,
        expanded,
        created_at: now.clone(),
        updated_at: now,
    }
}

/// Milliseconds of a whole run that a caller asks for.
///
/// # Errors
/// What was expected, and what came.
pub(super) fn timeout_ms(value: &Value) -> Result<u64, String> {
    let ms = value.as_u64().filter(|ms| (1..=TIMEOUT_MS_MAX).contains(ms));
    ms.ok_or_else(|| format!("options.timeout: expected milliseconds from 1 to {TIMEOUT_MS_MAX}, came {value}"))
}

fn parse(value: &[u8]) -> Option<Stored> {
    let read = serde_json::from_slice(value);
    read.inspect_err(|error| tracing::error!(%error, "a workflow is stored in a form that this version does not read"))
        .ok()
}
