//! Projects: a resource each, and the tools that make, change and delete them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{DESCRIPTION_CHARS_LISTED, DESCRIPTION_CHARS_MAX, NAME_CHARS_MAX, PROJECTS_MAX, described};
use crate::clock;
use crate::mcp::server::Change;
use crate::mcp::{CallContext, CallError, OnRestart, ResourceLink, ResourceTemplate, Tool, uuid};
use crate::store::{Keys, Store, Table, Transaction};

/// By id; each value is a [`Kept`] as JSON.
const PROJECTS: Table = Table("mcp_projects");

const URI_PREFIX: &str = "workspace://project/";
const MIME_TYPE: &str = "application/json";
/// Ids that one completion gives.
const COMPLETIONS_MAX: usize = 100;

/// A project, as clients read it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Project {
    /// A UUID.
    id: String,
    /// For people.
    name: String,
    /// What it is about, where someone said so.
    description: Option<String>,
    /// ISO 8601.
    created_at: String,
    /// ISO 8601.
    updated_at: String,
}

/// A project, as it is stored.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// The user who made it.
    owner: String,
    /// The call that made it, where that may be run again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made_by: Option<String>,
    #[serde(flatten)]
    project: Project,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Create {
    /// What it is called.
    #[schemars(length(min = 1, max = NAME_CHARS_MAX))]
    name: String,
    /// What it is about.
    #[schemars(length(max = DESCRIPTION_CHARS_MAX))]
    description: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Update {
    /// The project's id.
    id: String,
    /// What it is called from now on; as before where it is left out.
    #[schemars(length(min = 1, max = NAME_CHARS_MAX))]
    name: Option<String>,
    /// What it is about from now on; as before where it is left out.
    #[schemars(length(max = DESCRIPTION_CHARS_MAX))]
    description: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Delete {
    /// The project's id.
    id: String,
}

/// The variables of the template.
#[derive(Deserialize)]
struct Which {
    id: String,
}

pub(super) fn template(store: &Store) -> ResourceTemplate {
    let (read, listed, completed) = (store.clone(), store.clone(), store.clone());
    ResourceTemplate::new(format!("{URI_PREFIX}{{id}}"), "project", move |which: Which, _: CallContext| {
        let store = read.clone();
        async move {
            let kept = store.get(PROJECTS, which.id).await?.ok_or(CallError::NotFound)?;
            Ok(serde_json::to_string(&parse(&kept)?.project).expect("a project has string keys"))
        }
    })
    .description("A project of the workspace.")
    .mime_type(MIME_TYPE)
    .list(move |_| {
        let store = listed.clone();
        async move {
            let all = store.range(PROJECTS, Keys::beginning_with(""), PROJECTS_MAX).await?;
            all.iter().map(|(_, kept)| Ok(link(&parse(kept)?.project))).collect()
        }
    })
    .complete("id", move |typed| {
        let store = completed.clone();
        async move {
            let fitting = store.range(PROJECTS, Keys::beginning_with(typed.value), COMPLETIONS_MAX).await?;
            Ok(fitting.into_iter().filter_map(|(id, _)| String::from_utf8(id).ok()).collect())
        }
    })
}

pub(super) fn tools(store: &Store) -> [Tool; 3] {
    let (created, updated, deleted) = (store.clone(), store.clone(), store.clone());
    let create = Tool::structured("project_create", move |wanted: Create, context: CallContext| {
        let store = created.clone();
        async move {
            let now = clock::wall_iso8601_micros();
            let project = Project {
                id: uuid::draw(),
                name: wanted.name,
                description: wanted.description,
                created_at: now.clone(),
                updated_at: now,
            };
            let made_by = context.may_run_again().then(|| context.execution_id());
            let kept = Kept { owner: context.user().user.to_string(), made_by, project };
            let project = store.change(move |change| create(change, kept)).await?;
            context.server().tell(Change::Resources);
            Ok(project)
        }
    })
    .on_restart(OnRestart::Rerun);
    let update = Tool::structured("project_update", move |wanted: Update, context: CallContext| {
        let store = updated.clone();
        async move {
            let user = context.user().user.to_string();
            let project = store.change(move |change| update(change, wanted, &user)).await?;
            tell(&context, &project.id);
            Ok(project)
        }
    });
    let delete = Tool::structured("project_delete", move |wanted: Delete, context: CallContext| {
        let store = deleted.clone();
        async move {
            let user = context.user().user.to_string();
            let project = store.change(move |change| delete(change, &wanted.id, &user)).await?;
            tell(&context, &project.id);
            Ok(project)
        }
    });
    let id = "0199f0a5-7c00-7000-8000-000000000000";
    [
        described(
            create,
            "Makes a project of the workspace: everyone can read it at workspace://project/<id>, whoever made it can change it.",
            "workspace",
            json!({"readOnlyHint": false, "destructiveHint": false, "idempotentHint": false, "openWorldHint": false}),
            json!([{"name": "Phoenix", "description": "Rises again."}]),
        ),
        described(
            update,
            "Changes the name or the description of a project that this user made.",
            "workspace",
            json!({"readOnlyHint": false, "destructiveHint": true, "idempotentHint": true, "openWorldHint": false}),
            json!([{"id": id, "name": "Phoenix, reborn"}]),
        ),
        described(
            delete,
            "Deletes a project that this user made, and gives back what it was.",
            "workspace",
            json!({"readOnlyHint": false, "destructiveHint": true, "idempotentHint": false, "openWorldHint": false}),
            json!([{"id": id}]),
        ),
    ]
}

/// Makes a project; that of a call which is run again has been made.
fn create(change: &mut Transaction<'_>, kept: Kept) -> Result<Project, CallError> {
    let all = change.range(PROJECTS, &Keys::beginning_with(""), PROJECTS_MAX)?;
    if kept.made_by.is_some() {
        let made = all.iter().filter_map(|(_, other)| parse(other).ok()).find(|other| other.made_by == kept.made_by);
        if let Some(made) = made {
            return Ok(made.project);
        }
    }
    if all.len() == PROJECTS_MAX {
        return Err(CallError::failed(format!("expected at most {PROJECTS_MAX} projects, came one more")));
    }
    change.put(PROJECTS, kept.project.id.as_str(), json(&kept))?;
    Ok(kept.project)
}

fn update(change: &mut Transaction<'_>, wanted: Update, user: &str) -> Result<Project, CallError> {
    let mut kept = owned(change, &wanted.id, user)?;
    let project = &mut kept.project;
    if let Some(name) = wanted.name {
        project.name = name;
    }
    if let Some(description) = wanted.description {
        project.description = Some(description);
    }
    project.updated_at = clock::wall_iso8601_micros();
    change.put(PROJECTS, wanted.id, json(&kept))?;
    Ok(kept.project)
}

fn delete(change: &mut Transaction<'_>, id: &str, user: &str) -> Result<Project, CallError> {
    let kept = owned(change, id, user)?;
    change.delete(PROJECTS, id);
    Ok(kept.project)
}

/// The project, if this user may change it.
fn owned(change: &Transaction<'_>, id: &str, user: &str) -> Result<Kept, CallError> {
    let kept = change.get(PROJECTS, id.as_bytes())?.ok_or_else(|| CallError::failed("Project not found"))?;
    let kept = parse(&kept)?;
    if kept.owner != user {
        return Err(CallError::failed("only who made a project can change it"));
    }
    Ok(kept)
}

/// Tells those who listen that a project is another, or no more: its entry in the list changed as well.
fn tell(context: &CallContext, id: &str) {
    context.server().tell(Change::Resource { uri: &format!("{URI_PREFIX}{id}"), user: None });
    context.server().tell(Change::Resources);
}

fn link(project: &Project) -> ResourceLink {
    let link = ResourceLink::new(format!("{URI_PREFIX}{}", project.id), project.name.as_str()).mime_type(MIME_TYPE);
    // The deployment has this key always.
    let description = project.description.as_deref().unwrap_or_default();
    match description.char_indices().nth(DESCRIPTION_CHARS_LISTED) {
        Some((end, _)) => link.description(format!("{}…", &description[..end])),
        None => link.description(description),
    }
}

fn json(kept: &Kept) -> Vec<u8> {
    serde_json::to_vec(kept).expect("a project has string keys")
}

fn parse(kept: &[u8]) -> Result<Kept, CallError> {
    serde_json::from_slice(kept).map_err(|error| {
        tracing::error!(%error, "a project is stored in a form that this version does not read");
        CallError::failed("the store failed")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(n: usize, name: &str) -> Kept {
        let project = Project {
            id: format!("{n:04}"),
            name: name.to_owned(),
            description: Some("\u{1}".repeat(DESCRIPTION_CHARS_MAX as usize)),
            created_at: clock::wall_iso8601_micros(),
            updated_at: clock::wall_iso8601_micros(),
        };
        Kept { owner: "ann".to_owned(), made_by: None, project }
    }

    async fn put(store: &Store, kept: Kept) -> Result<(), CallError> {
        store.change(move |change| create(change, kept)).await.map(drop)
    }

    #[tokio::test]
    async fn a_call_that_is_run_again_makes_no_second_project() {
        let store = Store::in_memory();
        let made = |n, by: &str| Kept { made_by: Some(by.to_owned()), ..kept(n, "mine") };
        for (n, by, id) in [(1, "a.1", "0001"), (2, "a.1", "0001"), (3, "a.2", "0003"), (4, "a.1", "0001")] {
            let project = store.change(move |change| create(change, made(n, by))).await.expect("room");
            assert_eq!(project.id, id, "{n}");
        }
        let all = store.range(PROJECTS, Keys::beginning_with(""), usize::MAX).await.expect("read");
        assert_eq!(all.len(), 2);
    }

    #[tokio::test]
    async fn there_are_no_more_projects_than_one_list_can_hold() {
        let store = Store::in_memory();
        let name = "\u{1}".repeat(NAME_CHARS_MAX as usize);
        for n in 0..PROJECTS_MAX {
            put(&store, kept(n, &name)).await.expect("a further project");
        }

        let refused = put(&store, kept(PROJECTS_MAX, "one more")).await;

        assert_eq!(refused, Err(CallError::failed("expected at most 500 projects, came one more")));
        let all = store.range(PROJECTS, Keys::beginning_with(""), usize::MAX).await.expect("read");
        let links: Vec<_> = all.iter().map(|(_, kept)| link(&parse(kept).expect("ours").project)).collect();
        let list = serde_json::to_string(&links).expect("JSON");
        // With the widest escapes; what is left is for the tools.
        assert!(list.len() < crate::protocol::mcp::RESOURCE_BYTES_MAX / 4 * 3, "{}", list.len());
    }

    #[tokio::test]
    async fn only_who_made_a_project_can_change_it() {
        let store = Store::in_memory();
        put(&store, kept(1, "mine")).await.expect("a project");
        let wanted = || Update { id: "0001".to_owned(), name: Some("yours".to_owned()), description: None };
        let update_as = async |user: &'static str| store.change(move |change| update(change, wanted(), user)).await;

        assert_eq!(update_as("bob").await, Err(CallError::failed("only who made a project can change it")));
        let deleted = store.change(|change| delete(change, "0001", "bob")).await;
        assert_eq!(deleted, Err(CallError::failed("only who made a project can change it")));
        let updated = update_as("ann").await.expect("hers");
        assert_eq!((updated.name.as_str(), updated.description.map(|text| text.len())), ("yours", Some(4_000)));
        assert!(updated.updated_at > updated.created_at);
        let missing = store.change(|change| delete(change, "0002", "ann")).await;
        assert_eq!(missing, Err(CallError::failed("Project not found")));
        let deleted = store.change(|change| delete(change, "0001", "ann")).await;
        assert_eq!(deleted.map(|project| project.id), Ok("0001".to_owned()));
        assert_eq!(store.get(PROJECTS, "0001").await, Ok(None));
    }

    #[test]
    fn a_list_shows_the_beginning_of_a_long_description() {
        let mut project = kept(1, "n").project;
        project.description = Some("ä".repeat(DESCRIPTION_CHARS_LISTED + 1));
        let shown = |project: &Project| serde_json::to_value(link(project)).expect("JSON")["description"].clone();

        assert_eq!(shown(&project), format!("{}…", "ä".repeat(DESCRIPTION_CHARS_LISTED)));
        project.description = Some("ä".repeat(DESCRIPTION_CHARS_LISTED));
        assert_eq!(shown(&project), "ä".repeat(DESCRIPTION_CHARS_LISTED));
        project.description = None;
        assert_eq!(shown(&project), "");
    }
}
