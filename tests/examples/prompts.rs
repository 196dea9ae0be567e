//! examples/prompts.rs, by both eras of MCP.

use bennu::Endpoint;
use bennu::mcp::Mcp;
use bennu::mcp::auth::Development;
use serde_json::{Value, json};

use super::session::{Session, names};

#[path = "../../examples/prompts.rs"]
#[allow(dead_code, reason = "its main is not called")]
mod example;

fn socket() -> std::sync::Arc<bennu::channel::SocketSpec> {
    let endpoint = Endpoint::start();
    let server = example::server().expect("a server");
    let mcp = Mcp::builder(&endpoint, Development).server(server).build().expect("one server");
    example::socket(&endpoint, &mcp).build()
}

async fn fill(session: &Session, prompt: &str, arguments: Value) -> Value {
    session.request("prompts/get", json!({"name": prompt, "arguments": arguments})).await["messages"].take()
}

#[tokio::test(start_paused = true)]
async fn each_prompt_is_listed_with_its_arguments_and_filled_in() {
    let session = Session::initialized(&socket(), "desk").await;

    let listed = session.request("prompts/list", json!({})).await;
    assert_eq!(names(&listed["prompts"]), ["review", "letter"]);
    let code = json!({"name": "code", "description": "The code to look at.", "required": true});
    assert_eq!(listed["prompts"][0]["arguments"][0], code);

    let review = fill(&session, "review", json!({"code": "1 + 1", "language": "rust", "remarks": "3"})).await;
    let rules = json!({"uri": "rules://review", "mimeType": "text/plain",
        "text": "Names say the thing. Comments give the reason."});
    assert_eq!(review[0], json!({"role": "user", "content": {"type": "resource", "resource": rules}}));
    assert_eq!(review[1]["role"], "assistant");
    assert_eq!(review[2]["content"]["text"], "Review this rust code in at most 3 remarks:\n\n1 + 1");
    let letter = fill(&session, "letter", json!({"to": "Ada", "tone": "formal"})).await;
    assert_eq!(letter[0]["content"]["text"], "Write a letter to Ada that ends with \"Yours faithfully\".");
}

#[tokio::test(start_paused = true)]
async fn arguments_that_do_not_fit_are_refused() {
    let session = Session::initialized(&socket(), "desk").await;

    for (prompt, arguments) in [
        ("review", json!({})),
        ("review", json!({"code": "1 + 1", "remarks": "many"})),
        ("letter", json!({"to": "Ada", "tone": "rude"})),
        ("letter", json!({"to": "Ada", "tone": 7})),
    ] {
        let asked = session.ask("prompts/get", json!({"name": prompt, "arguments": arguments}));
        assert_eq!(session.response(asked).await["error"]["code"], -32602, "{prompt} {arguments}");
    }
}

#[tokio::test(start_paused = true)]
async fn arguments_are_completed() {
    let session = Session::initialized(&socket(), "desk").await;

    for (prompt, argument, typed, values) in [
        ("review", "language", "r", json!(["rust"])),
        ("letter", "tone", "f", json!(["formal", "friendly"])),
        ("letter", "to", "A", json!([])),
    ] {
        let reference = json!({"type": "ref/prompt", "name": prompt});
        let params = json!({"ref": reference, "argument": {"name": argument, "value": typed}});
        assert_eq!(session.request("completion/complete", params).await["completion"]["values"], values);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stateless_request_is_filled_in_as_well() {
    let session = Session::join(&socket(), "desk").await;

    let params = json!({"name": "letter", "arguments": {"to": "Ada", "tone": "friendly"}});
    let letter = session.stateless("prompts/get", params, json!({})).await;

    assert_eq!(letter["resultType"], "complete");
    assert_eq!(letter["messages"][0]["content"]["text"], "Write a letter to Ada that ends with \"Love\".");
}
