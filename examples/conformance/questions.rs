//! Tools that ask their client: the person, the model, the folders.
//!
//! The eras differ in how a question travels, not in how it is asked: a request to the client while the call waits, or a
//! result that says what is wanted, after which the tool runs from its beginning with the answers.

use bennu::mcp::{
    Answer, BooleanField, CallContext, CallError, ChoiceField, ChoicesField, Form, InputRequest, NoArguments,
    NumberField, SamplingMessage, SamplingRequest, TextField, Tool,
};
use bennu::schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

pub fn tools() -> Vec<Tool> {
    vec![
        Tool::new("test_sampling", sampling).description("Asks the client's model."),
        Tool::new("test_elicitation", elicitation).description("Asks the person who they are."),
        Tool::new("test_elicitation_sep1034_defaults", defaults).description("Asks with a form that starts filled in."),
        Tool::new("test_elicitation_sep1330_enums", choices).description("Asks to choose, in each way there is."),
        Tool::new("test_streaming_elicitation", name).description("Asks the person's name."),
        Tool::new("test_missing_capability", capital).description("Needs a client with a model."),
        Tool::new("test_input_required_result_elicitation", name).description("Asks the person's name."),
        Tool::new("test_input_required_result_sampling", capital).description("Asks the client's model."),
        Tool::new("test_input_required_result_list_roots", roots).description("Asks for the client's folders."),
        Tool::new("test_input_required_result_request_state", kept).description("Keeps something between its rounds."),
        Tool::new("test_input_required_result_tampered_state", kept)
            .description("Keeps something that the client must not change."),
        Tool::new("test_input_required_result_multiple_inputs", several).description("Asks three questions at once."),
        Tool::new("test_input_required_result_multi_round", rounds).description("Asks two questions, one by one."),
        Tool::new("test_input_required_result_capabilities", able).description("Asks what the client can answer."),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "bennu::schemars")]
struct Sampling {
    /// What the model is asked.
    prompt: String,
}

async fn sampling(sampling: Sampling, context: CallContext) -> Result<String, CallError> {
    let answer = context.sample("answer", &ask_model(&sampling.prompt, 100)).await?;
    Ok(format!("LLM response: {}", answer.text()))
}

fn ask_model(prompt: &str, tokens_max: u64) -> SamplingRequest {
    SamplingRequest::new([SamplingMessage::user(prompt)], tokens_max)
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "bennu::schemars")]
struct Elicitation {
    /// What the person is told.
    message: String,
}

async fn elicitation(elicitation: Elicitation, context: CallContext) -> Result<String, CallError> {
    let email = TextField::new().description("User's email address");
    let form = Form::new(elicitation.message)
        .required("username", TextField::new().description("User's response"))
        .required("email", email);
    Ok(format!("User response: {}", told(&context.elicit("user", &form).await?)))
}

/// What the person did, in words.
fn told(answer: &Answer) -> String {
    match answer {
        Answer::Accept(content) => format!("action=accept, content={}", Value::Object(content.clone())),
        Answer::Decline => "action=decline, content={}".to_owned(),
        Answer::Cancel => "action=cancel, content={}".to_owned(),
    }
}

async fn defaults(_: NoArguments, context: CallContext) -> Result<String, CallError> {
    let form = Form::new("Please review and update the form fields with defaults")
        .optional("name", TextField::new().description("User name").default("John Doe"))
        .optional("age", NumberField::integer().description("User age").default(30.0))
        .optional("score", NumberField::number().description("User score").default(95.5))
        .optional("status", ChoiceField::of(["active", "inactive", "pending"]).default("active"))
        .optional("verified", BooleanField::new().description("Verification status").default(true));
    Ok(format!("Elicitation completed: {}", told(&context.elicit("form", &form).await?)))
}

async fn choices(_: NoArguments, context: CallContext) -> Result<String, CallError> {
    let plain = ["option1", "option2", "option3"];
    let titled = [("value1", "First Option"), ("value2", "Second Option"), ("value3", "Third Option")];
    let legacy = [("opt1", "Option One"), ("opt2", "Option Two"), ("opt3", "Option Three")];
    let form = Form::new("Please select options from the enum fields")
        .optional("untitledSingle", ChoiceField::of(plain))
        .optional("titledSingle", ChoiceField::titled(titled))
        .optional("legacyEnum", ChoiceField::legacy_titled(legacy))
        .optional("untitledMulti", ChoicesField::of(plain))
        .optional("titledMulti", ChoicesField::titled(titled));
    Ok(format!("Elicitation completed: {}", told(&context.elicit("form", &form).await?)))
}

pub async fn name(_: NoArguments, context: CallContext) -> Result<String, CallError> {
    let form = Form::new("What is your name?").required("name", TextField::new());
    Ok(match context.elicit("user_name", &form).await? {
        Answer::Accept(content) => format!("Hello, {}!", text(&content["name"])),
        Answer::Decline | Answer::Cancel => "Hello, whoever you are!".to_owned(),
    })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

async fn capital(_: NoArguments, context: CallContext) -> Result<String, CallError> {
    let question = ask_model("What is the capital of France?", 100);
    Ok(context.sample("capital_question", &question).await?.text())
}

async fn roots(_: NoArguments, context: CallContext) -> Result<String, CallError> {
    let roots = context.roots("client_roots").await?;
    let names = roots.into_iter().map(|root| root.name.unwrap_or(root.uri));
    Ok(format!("the client works in: {}", names.collect::<Vec<_>>().join(", ")))
}

async fn kept(_: NoArguments, context: CallContext) -> Result<String, CallError> {
    let rounds: u32 = context.kept().unwrap_or(0) + 1;
    context.keep(&rounds);
    let form = Form::new("Please confirm").required("ok", BooleanField::new());
    let answer = context.elicit("confirm", &form).await?;
    Ok(format!("state-ok after {rounds} rounds, {}", told(&answer)))
}

async fn several(_: NoArguments, context: CallContext) -> Result<String, CallError> {
    let form = Form::new("What is your name?").required("name", TextField::new());
    let questions = [
        ("user_name".to_owned(), InputRequest::form(&form, context.client().version)),
        ("greeting".to_owned(), InputRequest::sampling(&ask_model("Generate a greeting", 50))),
        ("client_roots".to_owned(), InputRequest::roots()),
    ];
    let answers = context.ask_all(questions).await?;
    let answers: Vec<_> = answers.iter().map(|(key, answer)| format!("{key}: {answer}")).collect();
    Ok(answers.join("\n"))
}

async fn rounds(_: NoArguments, context: CallContext) -> Result<String, CallError> {
    let form = Form::new("Step 1: What is your name?").required("name", TextField::new());
    let name = context.elicit("step1", &form).await?;
    let form = Form::new("Step 2: What is your favorite color?").required("color", TextField::new());
    let color = context.elicit("step2", &form).await?;
    Ok(format!("name: {}; color: {}", told(&name), told(&color)))
}

async fn able(_: NoArguments, context: CallContext) -> Result<String, CallError> {
    let client = context.client();
    let form = Form::new("What is your name?").required("name", TextField::new());
    let questions = [
        (client.capabilities.sampling, "model", InputRequest::sampling(&ask_model("Say hello", 100))),
        (client.capabilities.elicitation_form, "person", InputRequest::form(&form, client.version)),
        (client.capabilities.roots, "folders", InputRequest::roots()),
    ];
    let fitting = questions.into_iter().filter(|(is_able, ..)| *is_able);
    let answers = context.ask_all(fitting.map(|(_, key, question)| (key.to_owned(), question))).await?;
    Ok(format!("the client answered {} questions", answers.len()))
}
