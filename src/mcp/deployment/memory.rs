//! Short-term memory: what a user's sessions remembered, the newest of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{MEMORIES_BYTES_MAX, MEMORIES_MAX, MEMORY_CHARS_MAX, described};
use crate::clock;
use crate::mcp::newest::{Newest, NewestOf};
use crate::mcp::server::Change;
use crate::mcp::{CallContext, CallError, Resource, Tool};
use crate::store::{Store, Table, Transaction};

/// Each entry is a [`Memory`].
const MEMORIES: Newest =
    Newest { table: Table("mcp_memories"), entries_max: MEMORIES_MAX, bytes_max: MEMORIES_BYTES_MAX };

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
            let items = MEMORIES.of(context.user()).read(&store).await?;
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
            let memories = MEMORIES.of(context.user());
            let memory = store.change(move |change| remember(change, &memories, wanted.content)).await?;
            context.server().tell(Change::Resource { uri: URI, user: Some(context.user()) });
            Ok(memory)
        }
    });
    let forget = Tool::structured("memory_forget", move |wanted: Forget, context: CallContext| {
        let store = forgetting.clone();
        async move {
            let memories = MEMORIES.of(context.user());
            let forgotten = store.change(move |change| forget(change, &memories, &wanted)).await?;
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

fn remember(change: &mut Transaction<'_>, memories: &NewestOf, content: String) -> Result<Memory, CallError> {
    Ok(memories.add(change, |id| Memory { id, content, created_at: clock::wall_iso8601_micros() })?)
}

fn forget(change: &mut Transaction<'_>, memories: &NewestOf, wanted: &Forget) -> Result<usize, CallError> {
    match (&wanted.id, wanted.all) {
        (Some(id), None | Some(false)) => match memories.remove(change, id)? {
            true => Ok(1),
            false => Err(CallError::failed(format!("nothing is remembered by the id {id:?}"))),
        },
        (None, Some(true)) => Ok(memories.clear(change)?),
        _ => Err(CallError::InvalidArguments("expected either an id or all: true".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::auth::Identity;

    fn of(user: &str) -> NewestOf {
        MEMORIES.of(&Identity::of_user(user))
    }

    async fn remembered(store: &Store, who: &str, content: &str) -> Memory {
        let (memories, content) = (of(who), content.to_owned());
        store.change(move |change| remember(change, &memories, content)).await.expect("remembered")
    }

    async fn contents(store: &Store, who: &str) -> Vec<String> {
        let all: Vec<Memory> = of(who).read(store).await.expect("read");
        all.into_iter().map(|memory| memory.content).collect()
    }

    #[tokio::test]
    async fn no_more_is_kept_than_one_result_can_hold() {
        let store = Store::in_memory();
        let widest = "\u{1}".repeat(MEMORY_CHARS_MAX as usize);

        for _ in 0..MEMORIES_MAX {
            remembered(&store, "ann", &widest).await;
        }

        let all: Vec<Memory> = of("ann").read(&store).await.expect("read");
        let text = serde_json::to_string(&all).expect("JSON");
        assert!(text.len() <= MEMORIES_BYTES_MAX && text.len() > MEMORIES_BYTES_MAX / 2, "{}", text.len());
        let result = serde_json::to_string(&text).expect("JSON");
        assert!(result.len() < crate::protocol::mcp::RESOURCE_BYTES_MAX / 2, "{}", result.len());
    }

    #[tokio::test]
    async fn a_user_has_no_part_in_what_others_remember() {
        let store = Store::in_memory();
        let hers = remembered(&store, "ann", "hers").await;
        remembered(&store, "annabel", "another's").await;
        let forget_as = async |who: &str, wanted: Forget| {
            let memories = of(who);
            store.change(move |change| forget(change, &memories, &wanted)).await
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
