//! Data that several workflows, and several users, share: kept, versioned, and gone when its time is over.
//!
//! Source: the contract of the Elixir deployment, sections 10.3 and 10.4.

use serde::Serialize as _;
use serde_json::{Map, Value, json};

use super::prefix;
use crate::clock;
use crate::mcp::CallError;
use crate::mcp::auth::Identity;
use crate::protocol::workflow::shared_context::{ContextError, NewContext, OLDER_VERSIONS_MAX, SharedContext};
use crate::random;
use crate::store::{Keys, Store, StoreError, Table, Transaction};

/// By id; each value is a [`SharedContext`] as JSON.
const CONTEXTS: Table = Table("workflow_contexts");
/// By user and id, those that the user made.
const OWNED: Table = Table("workflow_contexts_owned");
/// By user, how many bytes these and their older versions are.
const USED: Table = Table("workflow_contexts_used");
/// By id and version, older ones.
const VERSIONS: Table = Table("workflow_context_versions");

/// Contexts of one user.
pub(super) const CONTEXTS_MAX: usize = 200;
/// Bytes of them together, their older versions included.
pub(super) const CONTEXTS_BYTES_MAX: usize = 16 << 20;

/// What can't be done with a context: a word for programs, and one for people.
#[derive(Debug)]
pub(super) enum Refused {
    Context(ContextError),
    Other(CallError),
}

impl From<ContextError> for Refused {
    fn from(error: ContextError) -> Self {
        Refused::Context(error)
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Refused::Other(error.into())
    }
}

/// A context as clients get it.
pub(super) fn shown(context: &SharedContext) -> Value {
    let time = |ms: u64| clock::iso8601_micros(ms * 1_000);
    let mut policy = Value::Null;
    if let Ok(value) = context.access_policy.serialize(serde_json::value::Serializer) {
        policy = value;
    }
    let mut fields = Map::from_iter([
        ("context_id".to_owned(), json!(context.context_id)),
        ("data".to_owned(), context.data.clone()),
        ("version".to_owned(), json!(context.version)),
        ("created_at".to_owned(), json!(time(context.created_at_ms))),
        ("updated_at".to_owned(), json!(time(context.updated_at_ms))),
        ("access_policy".to_owned(), policy),
        ("metadata".to_owned(), context.metadata.clone()),
    ]);
    if let Some(expires) = context.expires_at_ms {
        fields.insert("expires_at".to_owned(), json!(time(expires)));
    }
    Value::Object(fields)
}

fn now_ms() -> u64 {
    clock::unix_micros() / 1_000
}

/// `context_` and 24 hex digits.
pub(super) fn new_id() -> String {
    let digits: String = random::bytes::<12>().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("context_{digits}")
}

/// Makes a context.
pub(super) async fn create(store: &Store, user: &Identity, new: NewContext) -> Result<SharedContext, Refused> {
    let context = SharedContext::create(new, now_ms())?;
    let (made, prefix) = (context.clone(), prefix(user));
    store
        .change(move |change| {
            sweep(change, &prefix)?;
            let owned = change.range(OWNED, &Keys::beginning_with(prefix.clone()), CONTEXTS_MAX)?;
            if owned.len() >= CONTEXTS_MAX {
                let text = format!("expected at most {CONTEXTS_MAX} contexts, came one more");
                return Err(Refused::Other(CallError::failed(text)));
            }
            let id = context.context_id.as_bytes();
            change.put(OWNED, [&prefix, id].concat(), id)?;
            put(change, &context)
        })
        .await?;
    Ok(made)
}

/// Whether an access policy lets a user in, by name or by role.
fn may(context: &SharedContext, user: &Identity, may: fn(&SharedContext, &str, &[&str]) -> bool) -> bool {
    let rights = user.rights();
    let roles: Vec<_> = rights.roles.iter().map(String::as_str).collect();
    may(context, &user.user, &roles)
}

/// A context that a user may read, or an older version of it.
pub(super) async fn get(
    store: &Store,
    user: &Identity,
    id: &str,
    version: Option<u64>,
) -> Result<SharedContext, Refused> {
    let context = stored(store.get(CONTEXTS, key(id)?).await?)?;
    if !may(&context, user, SharedContext::may_read) {
        return Err(ContextError::AccessDenied.into());
    }
    if context.is_expired(now_ms()) {
        return Err(ContextError::Expired.into());
    }
    match version.filter(|version| *version != context.version) {
        None => Ok(context),
        Some(version) => stored(store.get(VERSIONS, version_key(id, version)).await?),
    }
}

/// The versions of a context that are kept, the newest first.
pub(super) async fn versions(store: &Store, user: &Identity, id: &str) -> Result<Vec<SharedContext>, Refused> {
    let newest = get(store, user, id, None).await?;
    let older =
        store.range(VERSIONS, Keys::beginning_with(version_key(id, 0)[..id.len() + 1].to_vec()), usize::MAX).await?;
    let older = older.into_iter().rev().filter_map(|(_, value)| serde_json::from_slice(&value).ok());
    Ok(std::iter::once(newest).chain(older).collect())
}

/// Changes a context that a user may write.
pub(super) async fn change(
    store: &Store,
    user: &Identity,
    id: &str,
    work: impl FnOnce(&mut SharedContext, u64) -> Result<(), ContextError> + Send + 'static,
) -> Result<SharedContext, Refused> {
    let (key, id, user) = (key(id)?, id.to_owned(), user.clone());
    store
        .change(move |change| {
            let mut context = stored(change.get(CONTEXTS, &key)?)?;
            if !may(&context, &user, SharedContext::may_write) {
                return Err(ContextError::AccessDenied.into());
            }
            let before = context.clone();
            work(&mut context, now_ms())?;
            if context.version != before.version {
                let value = serde_json::to_vec(&before).expect("a context has string keys");
                let oldest = before.version.checked_sub(OLDER_VERSIONS_MAX as u64);
                if let Some(oldest) = oldest.map(|oldest| version_key(&id, oldest)) {
                    let freed = change.get(VERSIONS, &oldest)?.map_or(0, |value| value.len());
                    change.delete(VERSIONS, oldest);
                    charge(change, &context.owner, 0, freed)?;
                }
                charge(change, &context.owner, value.len(), 0)?;
                change.put(VERSIONS, version_key(&id, before.version), value)?;
            }
            put(change, &context)?;
            Ok(context)
        })
        .await
}

/// Takes a context away that a user may write.
pub(super) async fn delete(store: &Store, user: &Identity, id: &str) -> Result<(), Refused> {
    let (key, user) = (key(id)?, user.clone());
    store
        .change(move |change| {
            let context = stored(change.get(CONTEXTS, &key)?)?;
            if !may(&context, &user, SharedContext::may_write) {
                return Err(ContextError::AccessDenied.into());
            }
            remove(change, &context)
        })
        .await
}

/// The contexts that a user made.
pub(super) async fn list(store: &Store, user: &Identity) -> Result<Vec<SharedContext>, Refused> {
    let prefix = prefix(user);
    store
        .change(move |change| {
            sweep(change, &prefix)?;
            let mut all = Vec::new();
            for (_, id) in change.range(OWNED, &Keys::beginning_with(prefix), CONTEXTS_MAX)? {
                // One that can't be read is logged, and hides no other.
                all.extend(stored(change.get(CONTEXTS, &id)?).ok());
            }
            Ok(all)
        })
        .await
}

/// Takes away those of a user whose time is over.
fn sweep(change: &mut Transaction<'_>, prefix: &[u8]) -> Result<(), Refused> {
    for (key, id) in change.range(OWNED, &Keys::beginning_with(prefix), CONTEXTS_MAX)? {
        match change.get(CONTEXTS, &id)? {
            None => change.delete(OWNED, key),
            Some(value) => {
                if let Ok(context) = stored(Some(value))
                    && context.is_expired(now_ms())
                {
                    remove(change, &context)?;
                }
            }
        }
    }
    Ok(())
}

fn remove(change: &mut Transaction<'_>, context: &SharedContext) -> Result<(), Refused> {
    let id = context.context_id.as_bytes();
    let owner = Identity::of_user(context.owner.as_str());
    let mut freed = change.get(CONTEXTS, id)?.map_or(0, |value| value.len());
    change.delete(CONTEXTS, id);
    change.delete(OWNED, [&prefix(&owner), id].concat());
    let of_this = version_key(&context.context_id, 0)[..id.len() + 1].to_vec();
    for (key, value) in change.range(VERSIONS, &Keys::beginning_with(of_this), usize::MAX)? {
        freed += value.len();
        change.delete(VERSIONS, key);
    }
    charge(change, &context.owner, 0, freed)
}

/// Counts what a user's contexts take.
fn charge(change: &mut Transaction<'_>, owner: &str, more: usize, freed: usize) -> Result<(), Refused> {
    let key = prefix(&Identity::of_user(owner));
    let used = change.get(USED, &key)?.and_then(|value| value.try_into().ok()).map_or(0, u64::from_be_bytes);
    let used = (used + more as u64).saturating_sub(freed as u64);
    if more > freed && used > CONTEXTS_BYTES_MAX as u64 {
        let text = format!(
            "contexts: expected at most {CONTEXTS_BYTES_MAX} bytes together, older versions included, came {used}"
        );
        return Err(Refused::Other(CallError::failed(text)));
    }
    Ok(change.put(USED, key, used.to_be_bytes())?)
}

fn put(change: &mut Transaction<'_>, context: &SharedContext) -> Result<(), Refused> {
    let value = serde_json::to_vec(context).expect("a context has string keys");
    let before = change.get(CONTEXTS, context.context_id.as_bytes())?.map_or(0, |value| value.len());
    charge(change, &context.owner, value.len(), before)?;
    Ok(change.put(CONTEXTS, context.context_id.as_bytes(), value)?)
}

/// The key of an id, which is no longer than those that are drawn here.
fn key(id: &str) -> Result<Vec<u8>, Refused> {
    let is_id = id.strip_prefix("context_").is_some_and(|digits| digits.len() == 24);
    if is_id { Ok(id.as_bytes().to_vec()) } else { Err(ContextError::NotFound.into()) }
}

fn version_key(id: &str, version: u64) -> Vec<u8> {
    [id.as_bytes(), b"\0", &version.to_be_bytes()].concat()
}

fn stored(value: Option<Vec<u8>>) -> Result<SharedContext, Refused> {
    let value = value.ok_or(ContextError::NotFound)?;
    serde_json::from_slice(&value).map_err(|error| {
        tracing::error!(%error, "a context is stored in a form that this version does not read");
        Refused::Other(CallError::failed("the store failed"))
    })
}
