//! The resources that the suites read.

use bennu::mcp::{CallContext, CallError, McpServerBuilder, Resource, ResourceTemplate};
use serde::Deserialize;
use serde_json::json;

use super::content::PNG;

/// A resource that clients subscribe to.
pub const WATCHED: &str = "test://watched-resource";

/// Adds them; the first one listed is also read by suites that know none by name.
pub fn add_to(server: McpServerBuilder) -> McpServerBuilder {
    server
        .resource(
            Resource::new("test://static-text", "static-text", |_: CallContext| async {
                Ok("This is the content of the static text resource.")
            })
            .description("Text that stays.")
            .mime_type("text/plain"),
        )
        .resource(
            Resource::new("test://static-binary", "static-binary", |_: CallContext| async { Ok(PNG.to_vec()) })
                .description("An image that stays.")
                .mime_type("image/png"),
        )
        .resource(
            Resource::new(WATCHED, "watched-resource", |_: CallContext| async { Ok("Nothing new.") })
                .description("Text to subscribe to.")
                .mime_type("text/plain"),
        )
        .template(
            ResourceTemplate::new("test://template/{id}/data", "template-data", data)
                .description("Data by its id.")
                .mime_type("application/json")
                .complete("id", |request| async move { Ok(super::prompts::completions(&request.value)) }),
        )
}

#[derive(Deserialize)]
struct Data {
    id: String,
}

async fn data(data: Data, _: CallContext) -> Result<String, CallError> {
    let id = data.id;
    Ok(json!({"id": id, "templateTest": true, "data": format!("Data for ID: {id}")}).to_string())
}
