//! The prompts that the suites fill in.

use bennu::mcp::{
    Answer, CallContext, CallError, Content, Form, McpServerBuilder, NoArguments, Prompt, PromptMessage,
    ResourceContents, TextField,
};
use bennu::schemars::JsonSchema;
use serde::Deserialize;

use super::content::PNG;

pub fn add_to(server: McpServerBuilder) -> McpServerBuilder {
    server
        .prompt(Prompt::new("test_simple_prompt", simple).description("A prompt without arguments."))
        .prompt(
            Prompt::new("test_prompt_with_arguments", with_arguments)
                .description("A prompt with two arguments.")
                .complete("arg1", |request| async move { Ok(completions(&request.value)) }),
        )
        .prompt(
            Prompt::new("test_prompt_with_embedded_resource", with_resource).description("A prompt with a resource."),
        )
        .prompt(Prompt::new("test_prompt_with_image", with_image).description("A prompt with an image."))
        .prompt(
            Prompt::new("test_input_required_result_prompt", with_question)
                .description("A prompt that asks before it is there."),
        )
}

/// Values that begin as far as is typed.
pub fn completions(typed: &str) -> Vec<String> {
    let values = ["test", "testValue1", "testValue2", "text"];
    values.into_iter().filter(|value| value.starts_with(typed)).map(str::to_owned).collect()
}

async fn simple(_: NoArguments, _: CallContext) -> Result<&'static str, CallError> {
    Ok("This is a simple prompt for testing.")
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "bennu::schemars")]
struct Two {
    /// First test argument.
    arg1: String,
    /// Second test argument.
    arg2: String,
}

async fn with_arguments(two: Two, _: CallContext) -> Result<String, CallError> {
    Ok(format!("Prompt with arguments: arg1='{}', arg2='{}'", two.arg1, two.arg2))
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "bennu::schemars")]
#[serde(rename_all = "camelCase")]
struct Embedded {
    /// URI of the resource to embed.
    resource_uri: String,
}

async fn with_resource(embedded: Embedded, _: CallContext) -> Result<Vec<PromptMessage>, CallError> {
    let contents = ResourceContents::text(embedded.resource_uri, "Embedded resource content for testing.");
    Ok(vec![
        PromptMessage::user(Content::resource(contents.mime_type("text/plain"))),
        PromptMessage::user("Please process the embedded resource above."),
    ])
}

async fn with_image(_: NoArguments, _: CallContext) -> Result<Vec<PromptMessage>, CallError> {
    Ok(vec![
        PromptMessage::user(Content::image(PNG, "image/png")),
        PromptMessage::user("Please analyze the image above."),
    ])
}

async fn with_question(_: NoArguments, context: CallContext) -> Result<String, CallError> {
    let form = Form::new("What context should the prompt use?").required("context", TextField::new());
    Ok(match context.elicit("user_context", &form).await? {
        Answer::Accept(content) => format!("Use this context: {}", content["context"].as_str().unwrap_or_default()),
        Answer::Decline | Answer::Cancel => "Use no context.".to_owned(),
    })
}
