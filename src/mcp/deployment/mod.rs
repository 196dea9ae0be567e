//! What clients of the Elixir deployment find on their server, in earnest: projects, memories and what tools say of themselves.
//!
//! ```text
//! workspace://project/<id>         a project, of everyone; made by project_create, changed by project_update, project_delete
//! memory://short-term/current      what this user's sessions remembered by memory_remember and not forgot by memory_forget
//! memory://patterns/recent         which tools this user's sessions called of late
//! tool://<name>/documentation      a tool of this server for people to read
//! tool://<name>/examples           arguments to call it with, where its input schema has `examples`
//! tool://<name>/schema             its input schema
//! ```
//!
//! Projects are everyone's to read; who made one may change it. Memories are told to their user alone. Both are kept in a
//! store: in a file they outlive the process, and without one they end with it.
//!
//! Source: the contract of that deployment, section 4.4.

mod documentation;
mod memory;
mod patterns;
mod project;

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{CallError, McpServerBuilder, Tool};
use crate::protocol::mcp::tool::{EXECUTION_MS_DEFAULT, ToolMetadata};
use crate::store::Store;
pub use crate::store::StoreError;

/// Projects in all. All of them are listed at once to a client of the Elixir deployment, which has to fit one result.
const PROJECTS_MAX: usize = 500;
/// Characters of a project's name.
const NAME_CHARS_MAX: u32 = 100;
/// Characters of a project's description.
const DESCRIPTION_CHARS_MAX: u32 = 4_000;
/// Characters of a description that the list of resources shows, so that the list fits one result.
const DESCRIPTION_CHARS_LISTED: usize = 100;
/// Memories of one user; the newest are kept.
const MEMORIES_MAX: usize = 100;
/// Characters of one memory.
const MEMORY_CHARS_MAX: u32 = 4_000;
/// Bytes of all memories of one user, as they are stored; the newest are kept. They are read as one result, in which a
/// character may be escaped twice.
const MEMORIES_BYTES_MAX: usize = 131_072;
/// Tools in a user's patterns, those called last.
const PATTERNS_MAX: usize = 50;

/// What is kept for the users of a deployment. Clones are the same.
///
/// ```
/// use bennu::mcp::McpServer;
/// use bennu::mcp::deployment::Deployment;
///
/// let deployment = Deployment::in_memory();
/// let server = deployment.add_to(McpServer::builder("bennu")).build()?;
/// # Ok::<_, bennu::mcp::McpServerError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Deployment {
    store: Store,
}

impl Deployment {
    /// Keeps everything in memory, until the last clone is dropped.
    pub fn in_memory() -> Self {
        Deployment { store: Store::in_memory() }
    }

    /// Keeps everything in a file, which is made where there is none. One process at a time has it.
    ///
    /// # Errors
    /// [`StoreError`]: the file is something else, in use, damaged or can't be reached.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Ok(Deployment { store: Store::open(path).await? })
    }

    /// Closes the file, after what is being stored. Whoever ends without it loses nothing, but the file is checked when it is
    /// opened the next time.
    pub async fn close(&self) {
        self.store.close().await;
    }

    /// Where it is kept, for what else keeps something for the same users.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Adds the resources and the tools to a server. The resources under `tool://` are those of all tools that the server has
    /// at a time.
    pub fn add_to(&self, builder: McpServerBuilder) -> McpServerBuilder {
        builder
            .template(project::template(&self.store))
            .resource(memory::resource(&self.store))
            .resource(patterns::resource())
            .template(documentation::template())
            .tools(project::tools(&self.store))
            .tools(memory::tools(&self.store))
    }
}

/// What a client is told of a store that failed: what is its own doing, but nothing of this machine.
impl From<StoreError> for CallError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::TooLarge { .. } | StoreError::Full { .. } => CallError::failed(error.to_string()),
            _ => {
                tracing::error!(%error, "the store failed");
                CallError::failed("the store failed")
            }
        }
    }
}

/// Says of a tool what all of them say alike.
fn described(tool: Tool, description: &str, category: &str, hints: Value, examples: Value) -> Tool {
    tool.description(description).annotations(hints).spec(|spec| {
        spec.metadata = ToolMetadata::new(category, &[category, "deployment"], EXECUTION_MS_DEFAULT);
        spec.input_schema["examples"] = examples;
        if spec.input_schema.get("required").is_none() {
            spec.input_schema["required"] = json!([]);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_learns_nothing_of_the_servers_disk() {
        let failed = StoreError::Failed { path: "/var/lib/secret".into(), why: "disk full".to_owned() };

        assert_eq!(CallError::from(failed), CallError::failed("the store failed"));
        let told = CallError::from(StoreError::Full { limit: 3 });
        assert_eq!(told.to_string(), "the store in memory is full: it holds at most 3 bytes");
    }
}
