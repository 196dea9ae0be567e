//! Tools whose calls may become tasks, for clients that have the extension, and one whose calls never do.

use std::time::Duration;

use bennu::mcp::{
    Answer, BooleanField, CallContext, CallError, Form, InputRequest, NoArguments, TaskSupport, TextField, Tool,
    ToolOutput,
};
use bennu::protocol::jsonrpc::INTERNAL_ERROR;
use bennu::schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::sleep;

use super::questions;

/// How long the jobs take that fail.
const JOB: Duration = Duration::from_millis(500);
/// Seconds that a computation may be asked for.
const SECONDS_MAX: f64 = 600.0;

pub fn tools() -> Vec<Tool> {
    vec![
        Tool::new("greet", greet).description("Greets, at once."),
        Tool::new("slow_compute", slow_compute)
            .description("Takes a while.")
            .max_execution_ms(1_000 * SECONDS_MAX as u64 + 10_000)
            .tasks(TaskSupport::Optional),
        Tool::new("failing_job", failing_job).description("Fails after a while.").tasks(TaskSupport::Required),
        Tool::new("protocol_error_job", protocol_error_job)
            .description("Ends with an error of the protocol.")
            .tasks(TaskSupport::Required),
        Tool::new("confirm_delete", confirm_delete)
            .description("Asks before it pretends to delete a file.")
            .tasks(TaskSupport::Optional),
        Tool::new("multi_input", multi_input).description("Asks two questions at once.").tasks(TaskSupport::Optional),
        Tool::new("test_tool_with_task", questions_first)
            .description("Asks the person's name before it becomes a task.")
            .tasks(TaskSupport::Required)
            .spec(|spec| spec.begins_as_task = false),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "bennu::schemars")]
struct Greet {
    /// Whom to greet.
    name: String,
}

async fn greet(greet: Greet, _: CallContext) -> Result<String, CallError> {
    Ok(format!("Hello, {}!", greet.name))
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "bennu::schemars")]
struct Compute {
    /// How long it takes.
    #[schemars(range(min = 0.0, max = 600.0))]
    seconds: f64,
    /// What to call it.
    label: Option<String>,
}

async fn slow_compute(compute: Compute, _: CallContext) -> Result<String, CallError> {
    let seconds = compute.seconds.clamp(0.0, SECONDS_MAX);
    sleep(Duration::from_secs_f64(seconds)).await;
    Ok(format!("computed {} for {seconds} s", compute.label.as_deref().unwrap_or("something")))
}

async fn failing_job(_: NoArguments, _: CallContext) -> Result<ToolOutput, CallError> {
    sleep(JOB).await;
    Err(CallError::failed("the job failed, as it should"))
}

async fn protocol_error_job(_: NoArguments, _: CallContext) -> Result<ToolOutput, CallError> {
    sleep(JOB).await;
    Err(CallError::rpc(INTERNAL_ERROR, "the job broke, as it should", None))
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "bennu::schemars")]
struct Delete {
    /// The file.
    filename: String,
}

async fn confirm_delete(delete: Delete, context: CallContext) -> Result<String, CallError> {
    let filename = delete.filename;
    let form = Form::new(format!("Delete {filename}?")).required("confirm", BooleanField::new());
    Ok(match context.elicit("confirm", &form).await? {
        Answer::Accept(content) if content["confirm"] == true => format!("deleted {filename}"),
        _ => format!("left {filename} where it is"),
    })
}

async fn multi_input(_: NoArguments, context: CallContext) -> Result<String, CallError> {
    let name = Form::new("What is your name?").required("name", TextField::new());
    let confirm = Form::new("Go on?").required("confirm", BooleanField::new());
    let version = context.client().version;
    let questions = [
        ("name".to_owned(), InputRequest::form(&name, version)),
        ("confirm".to_owned(), InputRequest::form(&confirm, version)),
    ];
    let answers = context.ask_all(questions).await?;
    Ok(format!("the client answered {} questions", answers.len()))
}

async fn questions_first(arguments: NoArguments, context: CallContext) -> Result<String, CallError> {
    let greeting = questions::name(arguments, context.clone()).await?;
    context.become_task();
    sleep(JOB).await;
    Ok(greeting)
}
