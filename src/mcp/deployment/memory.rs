//! Short-term memory: what a user's sessions remembered, the newest of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{MEMORIES_BYTES_MAX, MEMORIES_MAX, MEMORY_CHARS_MAX, described, id_after, new_id};
use crate::clock;
use crate::mcp::auth::Identity;
use crate::mcp::server::Change;
use crate::mcp::{CallContext, CallError, Resource, Tool};
use crate::store::{Keys, Store, Table, Transaction};

/// By user and id; each value is a [`Memory`] as JSON.
const MEMORIES: Table = Table("mcp_memories");

const URI: &str = "memory://short-term/current";

/// One thing remembered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Memory {
    /// A UUID.
    id: String,
    /// What was remembered.
    content: String,
    /// ISO 8601.
    created_at: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Remember {
    /// What to remember.
    #[schemars(length(min = 1, max = MEMORY_CHARS_MAX))]
    content: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Forget {
    /// The id of what to forget; everything where `all` is true instead.
    id: Option<String>,
    /// Whether to forget everything.
    all: Option<bool>,
}

#[derive(Serialize, JsonSchema)]
struct Forgotten {
    /// How many memories are gone.
    forgotten: usize,
}

pub(super) fn resource(store: &Store) -> Resource {
    #[derive(Serialize)]
    struct Current<'a> {
        items: Vec<Memory>,
        session_id: Option<&'a str>,
    }

    let store = store.clone();
    Resource::new(URI, "Short-term memory", move |context: CallContext| {
        let store = store.clone();
        async move {
            let all = store.range(MEMORIES, Keys::beginning_with(prefix(context.user())), MEMORIES_MAX).await?;
            let items = all.iter().map(|(_, memory)| parse(memory)).collect::<Result<_, _>>()?;
            let current = Current { items, session_id: context.session_id() };
            Ok(serde_json::to_string(&current).expect("memories have string keys"))
        }
    })
    .description("What this user's sessions remembered, the oldest first.")
    .mime_type("application/json")
}

pub(super) fn tools(store: &Store) -> [Tool; 2] {
    let (remembering, forgetting) = (store.clone(), store.clone());
    let remember = Tool::structured("memory_remember", move |wanted: Remember, context: CallContext| {
        let store = remembering.clone();
        async move {
            let prefix = prefix(context.user());
            let memory = store.change(move |change| remember(change, &prefix, wanted.content)).await?;
            context.server().tell(Change::Resource { uri: URI, user: Some(context.user()) });
            Ok(memory)
        }
    });
    let forget = Tool::structured("memory_forget", move |wanted: Forget, context: CallContext| {
        let store = forgetting.clone();
        async move {
            let prefix = prefix(context.user());
            let forgotten = store.change(move |change| forget(change, &prefix, &wanted)).await?;
            context.server().tell(Change::Resource { uri: URI, user: Some(context.user()) });
            Ok(Forgotten { forgotten })
        }
    });
    [
        described(
            remember,
            "Remembers a text for all sessions of this user, who reads it at memory://short-term/current. The newest are kept.",
            "memory",
            json!({"readOnlyHint": false, "destructiveHint": false, "idempotentHint": false, "openWorldHint": false}),
            json!([{"content": "The staging server is down until Monday."}]),
        ),
        described(
            forget,
            "Forgets one thing that this user's sessions remembered, or all of them.",
            "memory",
            json!({"readOnlyHint": false, "destructiveHint": true, "idempotentHint": true, "openWorldHint": false}),
            json!([{"id": "0199f0a5-7c00-7000-8000-000000000000"}, {"all": true}]),
        ),
    ]
}

fn remember(change: &mut Transaction<'_>, prefix: &[u8], content: String) -> Result<Memory, CallError> {
    let mut memories = change.range(MEMORIES, &Keys::beginning_with(prefix), MEMORIES_MAX)?;
    let mut memory = Memory { id: new_id(), content, created_at: clock::wall_iso8601_micros() };
    let key_of = |id: &str| [prefix, id.as_bytes()].concat();
    // The clock may have been set back, or not have moved: what is newest sorts last all the same.
    if let Some((last, _)) = memories.last().filter(|(last, _)| *last >= key_of(&memory.id)) {
        memory.id = id_after(&String::from_utf8_lossy(&last[prefix.len()..]));
    }
    let value = serde_json::to_vec(&memory).expect("a memory has string keys");
    let mut bytes = value.len() + memories.iter().map(|(_, value)| value.len()).sum::<usize>();
    let mut count = 1 + memories.len();
    for (key, value) in memories.drain(..) {
        if count <= MEMORIES_MAX && bytes <= MEMORIES_BYTES_MAX {
            break;
        }
        count -= 1;
        bytes -= value.len();
        change.delete(MEMORIES, key);
    }
    change.put(MEMORIES, key_of(&memory.id), value)?;
    Ok(memory)
}

fn forget(change: &mut Transaction<'_>, prefix: &[u8], wanted: &Forget) -> Result<usize, CallError> {
    match (&wanted.id, wanted.all) {
        (Some(id), None | Some(false)) => {
            let key = [prefix, id.as_bytes()].concat();
            if change.get(MEMORIES, &key)?.is_none() {
                return Err(CallError::failed(format!("nothing is remembered by the id {id:?}")));
            }
            change.delete(MEMORIES, key);
            Ok(1)
        }
        (None, Some(true)) => {
            let all = change.range(MEMORIES, &Keys::beginning_with(prefix), MEMORIES_MAX)?;
            let count = all.len();
            for (key, _) in all {
                change.delete(MEMORIES, key);
            }
            Ok(count)
        }
        _ => Err(CallError::InvalidArguments("expected either an id or all: true".to_owned())),
    }
}

/// What a user's keys begin with: no user's is the beginning of another's.
fn prefix(user: &Identity) -> Vec<u8> {
    let user = user.user.as_bytes();
    let length = u32::try_from(user.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), user].concat()
}

fn parse(memory: &[u8]) -> Result<Memory, CallError> {
    serde_json::from_slice(memory).map_err(|error| {
        tracing::error!(%error, "a memory is stored in a form that this version does not read");
        CallError::failed("the store failed")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> Identity {
        Identity { user: name.into() }
    }

    async fn remembered(store: &Store, who: &str, content: &str) -> Memory {
        let (prefix, content) = (prefix(&user(who)), content.to_owned());
        store.change(move |change| remember(change, &prefix, content)).await.expect("remembered")
    }

    async fn contents(store: &Store, who: &str) -> Vec<String> {
        let all = store.range(MEMORIES, Keys::beginning_with(prefix(&user(who))), usize::MAX).await.expect("read");
        all.iter().map(|(_, memory)| parse(memory).expect("ours").content).collect()
    }

    #[tokio::test]
    async fn the_newest_are_kept() {
        let store = Store::in_memory();

        for n in 0..MEMORIES_MAX + 30 {
            remembered(&store, "ann", &n.to_string()).await;
        }

        let kept: Vec<_> = (30..MEMORIES_MAX + 30).map(|n| n.to_string()).collect();
        assert_eq!(contents(&store, "ann").await, kept);
    }

    #[tokio::test]
    async fn no_more_is_kept_than_one_result_can_hold() {
        let store = Store::in_memory();
        let widest = "\u{1}".repeat(MEMORY_CHARS_MAX as usize);

        for _ in 0..MEMORIES_MAX {
            remembered(&store, "ann", &widest).await;
        }

        let all = store.range(MEMORIES, Keys::beginning_with(prefix(&user("ann"))), usize::MAX).await.expect("read");
        let bytes: usize = all.iter().map(|(_, value)| value.len()).sum();
        assert!(bytes <= MEMORIES_BYTES_MAX && bytes > MEMORIES_BYTES_MAX / 2, "{bytes}");
        let text = all.iter().map(|(_, value)| String::from_utf8_lossy(value)).collect::<String>();
        let result = serde_json::to_string(&text).expect("JSON");
        assert!(result.len() < crate::protocol::mcp::RESOURCE_BYTES_MAX / 2, "{}", result.len());
    }

    #[tokio::test]
    async fn a_user_has_no_part_in_what_others_remember() {
        let store = Store::in_memory();
        let hers = remembered(&store, "ann", "hers").await;
        remembered(&store, "annabel", "another's").await;
        let forget_as = async |who: &str, wanted: Forget| {
            let prefix = prefix(&user(who));
            store.change(move |change| forget(change, &prefix, &wanted)).await
        };
        let by_id = |id: &str| Forget { id: Some(id.to_owned()), all: None };
        let all = || Forget { id: None, all: Some(true) };

        assert_eq!(contents(&store, "ann").await, ["hers"]);
        assert!(forget_as("bob", by_id(&hers.id)).await.is_err());
        assert_eq!(forget_as("bob", all()).await, Ok(0));
        assert_eq!(forget_as("ann", by_id(&hers.id)).await, Ok(1));
        assert!(forget_as("ann", by_id(&hers.id)).await.is_err(), "it is gone");
        assert_eq!((contents(&store, "ann").await.len(), contents(&store, "annabel").await.len()), (0, 1));
        for unclear in [Forget { id: None, all: None }, Forget { all: Some(true), ..by_id("x") }] {
            assert!(matches!(forget_as("ann", unclear).await, Err(CallError::InvalidArguments(_))));
        }
    }
}
