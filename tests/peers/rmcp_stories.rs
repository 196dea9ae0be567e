//! What rmcp does with the server, in both eras; where they differ, the difference is in the story.

#![expect(deprecated, reason = "rmcp marks sampling, roots, logging and resources/subscribe, which older clients use")]

use rmcp::ServiceError;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CallToolResult, ClientRequest, ErrorCode, GetPromptRequestParams,
    LoggingLevel, PaginatedRequestParams, ReadResourceRequestParams, RequestMetaObject, ServerNotification,
    SetLevelRequestParams, SubscribeRequestParams, SubscriptionFilter, UnsubscribeRequestParams,
};
use rmcp::service::PeerRequestOptions;
use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::rmcp_client::{Client, FILLED_IN, ROOT, SAMPLED};
use crate::{DEADLINE, Era};

const WATCHED: &str = "test://watched-resource";

/// Where a story's client connects.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// To the server itself.
    Straight,
    /// To a gateway before it: nothing is to be different.
    ThroughGateway,
}

/// Declares a test of a story for each era, straight and through a gateway.
macro_rules! stories {
    (@ $module:ident $era:ident $way:ident: $($story:ident)*) => {
        mod $module { $(#[test] fn $story() { super::tell(super::Era::$era, super::Way::$way, super::$story); })* }
    };
    ($($story:ident)*) => {
        stories! { @ legacy Legacy Straight: $($story)* }
        stories! { @ modern Modern Straight: $($story)* }
        stories! { @ legacy_through_a_gateway Legacy ThroughGateway: $($story)* }
        stories! { @ modern_through_a_gateway Modern ThroughGateway: $($story)* }
    };
}

stories! {
    the_server_says_what_it_can
    tools_are_listed_and_called
    content_of_every_type_arrives
    structured_content_fits_its_schema
    errors_of_tools_are_results_and_unknown_tools_are_errors
    resources_are_listed_and_read
    a_watched_resource_can_be_subscribed_to
    prompts_are_listed_and_filled_in
    arguments_are_completed
    log_messages_come_where_they_are_wanted
    progress_comes_in_order_before_the_result
    a_cancelled_call_leaves_the_session_usable
    the_model_is_asked
    the_user_is_asked
    roots_are_asked_for
    lists_have_pages
    a_change_of_the_tools_is_told
    pings_are_answered_where_there_are_any
}

fn tell<F: Future<Output = ()>>(era: Era, way: Way, story: impl FnOnce(Era, Client) -> F) {
    let fixture = Fixture::start(&[]);
    let gateway = match way {
        Way::Straight => None,
        Way::ThroughGateway => Some(Fixture::gateway(&fixture.url)),
    };
    let url = gateway.as_ref().map_or(&fixture.url, |gateway| &gateway.url);
    run(async {
        let client = Client::connect(url, era).await;
        story(era, client).await;
    });
}

fn run(story: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(3 * DEADLINE, story).await }).expect("the story ends in time");
}

fn params(tool: &'static str, arguments: Value) -> CallToolRequestParams {
    let arguments = serde_json::from_value(arguments).expect("arguments are an object");
    CallToolRequestParams::new(tool).with_arguments(arguments)
}

async fn call(client: &Client, tool: &'static str, arguments: Value) -> Value {
    value(client.service.call_tool(params(tool, arguments)).await.unwrap_or_else(|error| panic!("{tool}: {error}")))
}

fn value(result: CallToolResult) -> Value {
    serde_json::to_value(result).expect("a result is JSON")
}

fn code<T: std::fmt::Debug>(result: Result<T, ServiceError>) -> ErrorCode {
    match result {
        Err(ServiceError::McpError(error)) => error.code,
        other => panic!("expected an error of MCP, came {other:?}"),
    }
}

async fn the_server_says_what_it_can(era: Era, client: Client) {
    let info = client.service.peer_info().expect("it was told");
    let info = serde_json::to_value(&*info).expect("it is JSON");
    for capability in ["tools", "resources", "prompts", "completions"] {
        assert!(info["capabilities"][capability].is_object(), "{era:?}: {info}");
    }
    assert!(info["capabilities"]["logging"].is_object(), "{info}");
}

async fn tools_are_listed_and_called(_era: Era, client: Client) {
    let tools = client.service.list_all_tools().await.expect("tools");
    assert!(tools.iter().any(|tool| tool.name == "test_simple_text"));
    let composed = tools.iter().find(|tool| tool.name == "json_schema_2020_12_tool").expect("the tool");
    let schema = Value::Object((*composed.input_schema).clone());
    assert_eq!(schema["$defs"]["address"]["$anchor"], "addressDef", "its keywords are kept: {schema}");

    let result = call(&client, "test_simple_text", json!({})).await;

    assert_eq!(result["content"], json!([{"type": "text", "text": "This is a simple text response for testing."}]));
}

async fn content_of_every_type_arrives(_era: Era, client: Client) {
    for (tool, types) in [
        ("test_image_content", json!(["image"])),
        ("test_audio_content", json!(["audio"])),
        ("test_embedded_resource", json!(["resource"])),
        ("test_multiple_content_types", json!(["text", "image", "resource"])),
    ] {
        let result = call(&client, tool, json!({})).await;
        let content = result["content"].as_array().expect("content");
        assert_eq!(json!(content.iter().map(|block| &block["type"]).collect::<Vec<_>>()), types, "{tool}");
    }
}

async fn structured_content_fits_its_schema(_era: Era, client: Client) {
    let tools = client.service.list_all_tools().await.expect("tools");
    let tool =
        tools.iter().find(|tool| tool.output_schema.is_some()).expect("the fixture has a tool with an output schema");
    let schema = Value::Object((**tool.output_schema.as_ref().expect("a schema")).clone());

    let result = client.service.call_tool(CallToolRequestParams::new(tool.name.clone())).await.expect("a result");

    let structured = result.structured_content.clone().expect("structured content");
    jsonschema::validate(&schema, &structured).unwrap_or_else(|error| panic!("{structured}: {error}"));
    let text = value(result)["content"][0]["text"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    assert_eq!(text, Some(structured), "clients without structured content read the same as text");
}

async fn errors_of_tools_are_results_and_unknown_tools_are_errors(_era: Era, client: Client) {
    let failed = call(&client, "test_error_handling", json!({})).await;
    assert_eq!(failed["isError"], true);

    let unknown = client.service.call_tool(params("no_such_tool", json!({}))).await;
    assert_eq!(code(unknown), ErrorCode::INVALID_PARAMS);

    // Which of the two changed with the revisions: 2025-11-25 wants the model to see it.
    match client.service.call_tool(params("json_schema_2020_12_tool", json!({"name": 1}))).await {
        Ok(result) => assert_eq!(result.is_error, Some(true)),
        refused => assert_eq!(code(refused), ErrorCode::INVALID_PARAMS),
    }
}

async fn resources_are_listed_and_read(era: Era, client: Client) {
    let resources = client.service.list_all_resources().await.expect("resources");
    let uris: Vec<_> = resources.iter().map(|resource| resource.uri.as_str()).collect();
    for uri in ["test://static-text", "test://static-binary", WATCHED] {
        assert!(uris.contains(&uri), "{uri} in {uris:?}");
    }
    let templates = client.service.list_all_resource_templates().await.expect("templates");
    assert!(templates.iter().any(|template| template.uri_template == "test://template/{id}/data"));

    let read = async |uri: &str| client.service.read_resource(ReadResourceRequestParams::new(uri)).await;
    let text = serde_json::to_value(read("test://static-text").await.expect("a text")).expect("it is JSON");
    assert_eq!(text["contents"][0]["text"], "This is the content of the static text resource.");
    let binary = serde_json::to_value(read("test://static-binary").await.expect("a blob")).expect("it is JSON");
    assert!(binary["contents"][0]["blob"].is_string(), "{binary}");
    let made = serde_json::to_value(read("test://template/123/data").await.expect("a text")).expect("it is JSON");
    assert!(made["contents"][0]["text"].as_str().is_some_and(|text| text.contains("123")), "{made}");

    let expected = if era == Era::Legacy { ErrorCode::RESOURCE_NOT_FOUND } else { ErrorCode::INVALID_PARAMS };
    assert_eq!(code(read("test://no-such-resource").await), expected);
}

async fn a_watched_resource_can_be_subscribed_to(era: Era, client: Client) {
    match era {
        Era::Legacy => {
            client.service.subscribe(SubscribeRequestParams::new(WATCHED)).await.expect("it is subscribed to");
            client.service.unsubscribe(UnsubscribeRequestParams::new(WATCHED)).await.expect("it is given up");
        }
        Era::Modern => {
            let filter = SubscriptionFilter::builder().resource_subscriptions(vec![WATCHED.to_owned()]).build();
            let mut subscription = client.service.listen(filter).await.expect("it is acknowledged");
            let watched = subscription.acknowledged().resource_subscriptions.clone();
            assert_eq!(watched, Some(vec![WATCHED.to_owned()]));
            subscription.cancel().await.expect("it is given up");
        }
    }
}

async fn prompts_are_listed_and_filled_in(_era: Era, client: Client) {
    let prompts = client.service.list_all_prompts().await.expect("prompts");
    assert!(prompts.iter().any(|prompt| prompt.name == "test_simple_prompt"));
    let arguments = serde_json::from_value(json!({"arg1": "first", "arg2": "second"})).expect("an object");

    let params = GetPromptRequestParams::new("test_prompt_with_arguments").with_arguments(arguments);
    let prompt = client.service.get_prompt(params).await.expect("a prompt");

    let text = serde_json::to_string(&prompt.messages).expect("it is JSON");
    assert!(text.contains("first") && text.contains("second"), "{text}");
    let unknown = client.service.get_prompt(GetPromptRequestParams::new("no_such_prompt")).await;
    assert_eq!(code(unknown), ErrorCode::INVALID_PARAMS);
}

async fn arguments_are_completed(_era: Era, client: Client) {
    let completion = client.service.complete_prompt_argument("test_prompt_with_arguments", "arg1", "t", None);
    assert!(completion.await.expect("a completion").values.len() <= 100);
}

async fn log_messages_come_where_they_are_wanted(era: Era, client: Client) {
    let (tool, at_least) = match era {
        Era::Legacy => {
            client.service.set_level(SetLevelRequestParams::new(LoggingLevel::Debug)).await.expect("it is set");
            ("test_tool_with_logging", 3)
        }
        Era::Modern => {
            call(&client, "test_logging_tool", json!({})).await;
            let unwanted = client.tap.before_response(&client.tap.sent("tools/call"), "notifications/message");
            assert!(unwanted.is_empty(), "{unwanted:?}");
            ("test_logging_tool", 1)
        }
    };
    let mut wanting = params(tool, json!({}));
    if era == Era::Modern {
        let mut meta = RequestMetaObject::new();
        meta.set_log_level(LoggingLevel::Debug);
        wanting.meta = Some(meta);
    }

    client.service.call_tool(wanting).await.expect("a result");

    let messages = client.tap.before_response(&client.tap.sent("tools/call"), "notifications/message");
    assert!(messages.len() >= at_least, "{messages:?}");
}

async fn progress_comes_in_order_before_the_result(_era: Era, client: Client) {
    call(&client, "test_tool_with_progress", json!({})).await;

    let request = client.tap.sent("tools/call");
    let told = client.tap.before_response(&request, "notifications/progress");
    let token = &request["params"]["_meta"]["progressToken"];
    assert!(
        token.is_number() && told.iter().all(|told| told["params"]["progressToken"] == *token),
        "{token}: {told:?}"
    );
    let progress: Vec<_> = told.iter().filter_map(|told| told["params"]["progress"].as_f64()).collect();
    assert_eq!(progress, [0.0, 50.0, 100.0]);
    let received = client.tap.received();
    assert_eq!(received.iter().filter(|message| message["method"] == "notifications/progress").count(), 3);
}

async fn a_cancelled_call_leaves_the_session_usable(_era: Era, client: Client) {
    let request = ClientRequest::CallToolRequest(CallToolRequest::new(params("slow_compute", json!({"seconds": 60}))));
    let options = PeerRequestOptions::no_options();
    let handle = client.service.send_request_with_option(request, options).await.expect("it is sent");
    let id = json!(handle.id);

    handle.cancel(Some("enough".to_owned())).await.expect("it is cancelled");

    call(&client, "test_simple_text", json!({})).await;
    let answered =
        client.tap.received().into_iter().find(|message| message["id"] == id && message.get("result").is_some());
    assert_eq!(answered, None);
}

async fn the_model_is_asked(era: Era, client: Client) {
    let (tool, arguments) = match era {
        Era::Legacy => ("test_sampling", json!({"prompt": "a question"})),
        Era::Modern => ("test_input_required_result_sampling", json!({})),
    };
    let result = call(&client, tool, arguments).await;
    assert!(result["content"][0]["text"].as_str().is_some_and(|text| text.contains(SAMPLED)), "{result}");
}

async fn the_user_is_asked(era: Era, client: Client) {
    let (tool, arguments) = match era {
        Era::Legacy => ("test_elicitation", json!({"message": "Who are you?"})),
        Era::Modern => ("test_input_required_result_elicitation", json!({})),
    };
    let result = call(&client, tool, arguments).await;
    assert!(result["content"][0]["text"].as_str().is_some_and(|text| text.contains(FILLED_IN)), "{result}");
}

async fn roots_are_asked_for(era: Era, client: Client) {
    // No tool of the suites asks for roots in the revisions with a handshake.
    if era == Era::Modern {
        let result = call(&client, "test_input_required_result_list_roots", json!({})).await;
        assert!(result["content"][0]["text"].as_str().is_some_and(|text| text.contains(ROOT)), "{result}");
    }
}

async fn lists_have_pages(era: Era, client: Client) {
    let unknown = PaginatedRequestParams::default().with_cursor(Some("no such cursor".to_owned()));
    assert_eq!(code(client.service.list_tools(Some(unknown)).await), ErrorCode::INVALID_PARAMS);
    if std::env::var_os("BENNU_MCP_URL").is_some() {
        return;
    }

    let paged = Fixture::start(&["--page-size", "3"]);
    let in_pages = Client::connect(&paged.url, era).await;

    assert_eq!(in_pages.service.list_tools(None).await.expect("a page").tools.len(), 3);
    let all = |tools: Vec<rmcp::model::Tool>| tools.into_iter().map(|tool| tool.name).collect::<Vec<_>>();
    let expected = all(client.service.list_all_tools().await.expect("tools"));
    assert_eq!(all(in_pages.service.list_all_tools().await.expect("tools")), expected);
}

async fn a_change_of_the_tools_is_told(era: Era, client: Client) {
    match era {
        Era::Legacy => {
            call(&client, "test_trigger_tool_change", json!({})).await;
            let changed = |message: &Value| message["method"] == "notifications/tools/list_changed";
            client.tap.wait("a change of the tools", changed).await;
        }
        Era::Modern => {
            let filter = SubscriptionFilter::builder().tools_list_changed().build();
            let mut subscription = client.service.listen(filter).await.expect("it is acknowledged");
            call(&client, "test_trigger_tool_change", json!({})).await;
            let told = tokio::time::timeout(DEADLINE, subscription.next()).await.expect("it comes in time");
            assert!(matches!(told, Ok(Some(ServerNotification::ToolListChangedNotification(_)))), "{told:?}");
            subscription.cancel().await.expect("it is given up");
        }
    }
}

async fn pings_are_answered_where_there_are_any(era: Era, client: Client) {
    let ping = serde_json::from_value(json!({"method": "ping"})).expect("a request");
    let answer = client.service.send_request(ClientRequest::PingRequest(ping)).await;
    match era {
        Era::Legacy => drop(answer.expect("an answer")),
        Era::Modern => assert_eq!(code(answer), ErrorCode::METHOD_NOT_FOUND),
    }
}
