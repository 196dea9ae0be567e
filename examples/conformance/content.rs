//! Tools that answer without asking: each sort of content, log messages, progress, failures, schemas.

use std::time::Duration;

use bennu::mcp::{CallContext, CallError, Content, Level, NoArguments, ResourceContents, Tool, ToolOutput};
use bennu::schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::sleep;

/// A red pixel.
pub const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0\x90wS\xde\
    \0\0\0\x0cIDATx\x9cc\xf8\xcf\xc0\0\0\x03\x01\x01\0\xc9\xfe\x92\xef\0\0\0\0IEND\xaeB`\x82";

/// A millisecond of silence.
const WAV: &[u8] = b"RIFF,\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0@\x1f\0\0@\x1f\0\0\x01\0\x08\0\
    data\x08\0\0\0\x80\x80\x80\x80\x80\x80\x80\x80";

/// Between two steps that a suite wants to see apart.
const STEP: Duration = Duration::from_millis(50);

pub fn tools() -> Vec<Tool> {
    vec![
        Tool::new("test_simple_text", simple_text).description("Answers with text."),
        Tool::new("test_image_content", image).description("Answers with an image."),
        Tool::new("test_audio_content", audio).description("Answers with sound."),
        Tool::new("test_embedded_resource", embedded_resource).description("Answers with a resource."),
        Tool::new("test_multiple_content_types", several).description("Answers with text, an image and a resource."),
        Tool::new("test_tool_with_logging", logging).description("Logs three messages."),
        Tool::new("test_logging_tool", logging).description("Logs three messages, for those who ask for such."),
        Tool::new("test_tool_with_progress", progress).description("Reports progress three times."),
        Tool::new("test_error_handling", failure).description("Fails."),
        Tool::new("test_reconnection", reconnection).description("Lets its client come back for the answer."),
        Tool::untyped("json_schema_2020_12_tool", person_schema(), person)
            .description("Has a schema of many keywords."),
        Tool::new("test_custom_header", custom_header).description("Has an argument that a header repeats."),
    ]
}

async fn simple_text(_: NoArguments, _: CallContext) -> Result<&'static str, CallError> {
    Ok("This is a simple text response for testing.")
}

async fn image(_: NoArguments, _: CallContext) -> Result<Content, CallError> {
    Ok(Content::image(PNG, "image/png"))
}

async fn audio(_: NoArguments, _: CallContext) -> Result<Content, CallError> {
    Ok(Content::audio(WAV, "audio/wav"))
}

async fn embedded_resource(_: NoArguments, _: CallContext) -> Result<Content, CallError> {
    let contents = ResourceContents::text("test://embedded-resource", "This is an embedded resource content.");
    Ok(Content::resource(contents.mime_type("text/plain")))
}

async fn several(_: NoArguments, _: CallContext) -> Result<Vec<Content>, CallError> {
    let contents = ResourceContents::text("test://mixed-content-resource", r#"{"test":"data","value":123}"#);
    Ok(vec![
        Content::text("Multiple content types test:"),
        Content::image(PNG, "image/png"),
        Content::resource(contents.mime_type("application/json")),
    ])
}

async fn logging(_: NoArguments, context: CallContext) -> Result<&'static str, CallError> {
    context.log(Level::Info, None, "Tool execution started");
    sleep(STEP).await;
    context.log(Level::Info, None, "Tool processing data");
    sleep(STEP).await;
    context.log(Level::Info, None, "Tool execution completed");
    Ok("logged three messages")
}

async fn progress(_: NoArguments, context: CallContext) -> Result<&'static str, CallError> {
    context.progress(0.0, Some(100.0), None);
    sleep(STEP).await;
    context.progress(50.0, Some(100.0), None);
    sleep(STEP).await;
    context.progress(100.0, Some(100.0), None);
    Ok("reported progress three times")
}

async fn failure(_: NoArguments, _: CallContext) -> Result<ToolOutput, CallError> {
    Err(CallError::failed("This tool intentionally returns an error for testing"))
}

async fn reconnection(_: NoArguments, context: CallContext) -> Result<&'static str, CallError> {
    context.close_stream();
    sleep(STEP).await;
    Ok("the client came back for this")
}

/// As the suites have it, word by word.
fn person_schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
            },
        },
        "properties": {
            "name": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": {"type": "string"},
            "email": {"type": "string"},
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": false,
    })
}

async fn person(arguments: Map<String, Value>, _: CallContext) -> Result<String, CallError> {
    Ok(Value::Object(arguments).to_string())
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "bennu::schemars")]
struct Located {
    /// Where: over HTTP also in `Mcp-Param-Region`, for proxies to route by.
    #[schemars(extend("x-mcp-header" = "Region"))]
    region: String,
}

async fn custom_header(located: Located, _: CallContext) -> Result<String, CallError> {
    Ok(located.region)
}
