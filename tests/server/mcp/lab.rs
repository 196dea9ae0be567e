//! A server whose tools ask, wait, flood and fail: whatever a test wants of one.

use bennu::mcp::elicitation::{Answer, Form, TextField};
use bennu::mcp::sampling::{SamplingMessage, SamplingRequest};
use bennu::mcp::{CallContext, CallError, Level, McpServer, Resource, TaskSupport, Tool};
use serde_json::{Map, Value, json};

/// Progress reports of `flood`.
pub const FLOOD: u32 = 50_000;

type Arguments = Map<String, Value>;

/// The server `lab`.
pub fn lab() -> McpServer {
    let clock = Resource::new("lab://clock", "clock", |_: CallContext| async { Ok("noon") });
    let broken = Resource::new("lab://broken", "broken", |_: CallContext| async {
        Err::<&str, _>(CallError::failed("no luck"))
    });
    let builder = McpServer::builder("lab").instructions("Handle with care.").tools(tools());
    builder.resource(clock.mime_type("text/plain")).resource(broken).build().expect("a server")
}

fn tools() -> Vec<Tool> {
    let any = || json!({"type": "object"});
    vec![
        Tool::untyped("echo", any(), |arguments: Arguments, _| async move { Ok(Value::Object(arguments).to_string()) }),
        Tool::untyped("panic", any(), |_: Arguments, _| async {
            if true {
                panic!("the secret of the tool");
            }
            Ok("")
        }),
        Tool::untyped("hang", any(), |_: Arguments, _| async {
            std::future::pending::<()>().await;
            Ok("")
        })
        .max_execution_ms(300),
        Tool::untyped("forever", any(), |_: Arguments, _| async {
            std::future::pending::<()>().await;
            Ok("")
        }),
        Tool::untyped("flood", any(), |_: Arguments, context: CallContext| async move {
            for n in 0..FLOOD {
                context.progress(f64::from(n), Some(f64::from(FLOOD)), Some("x".repeat(500)));
                context.log(Level::Error, None, "y".repeat(100));
                tokio::task::yield_now().await;
            }
            Ok("flooded")
        }),
        Tool::untyped("log", any(), |_: Arguments, context: CallContext| async move {
            context.log(Level::Debug, Some("lab"), json!({"small": true}));
            context.log(Level::Error, Some("lab"), json!({"big": true}));
            Ok("logged")
        }),
        Tool::untyped("sample", any(), |_: Arguments, context: CallContext| async move {
            let asked = SamplingRequest::new([SamplingMessage::user("What?")], 10);
            Ok(context.sample("q", &asked).await?.text())
        }),
        Tool::untyped("name", any(), |_: Arguments, context: CallContext| async move { name("name", &context).await }),
        Tool::untyped("names", any(), |_: Arguments, context: CallContext| async move {
            let first = name("first", &context).await?;
            context.keep(&first);
            let second = name("second", &context).await?;
            Ok(format!("{first} and {second}, kept {:?}", context.kept::<String>()))
        }),
        Tool::untyped("roots", any(), |_: Arguments, context: CallContext| async move {
            let roots = context.roots("roots").await?;
            Ok(roots.into_iter().map(|root| root.uri).collect::<Vec<_>>().join(" "))
        }),
        Tool::untyped("job", any(), |_: Arguments, context: CallContext| async move {
            context.progress(1.0, Some(2.0), Some("half".to_owned()));
            name("go", &context).await
        })
        .tasks(TaskSupport::Optional),
    ]
}

/// Asks for a name.
async fn name(key: &str, context: &CallContext) -> Result<String, CallError> {
    let form = Form::new("Who are you?").required("name", TextField::new());
    Ok(match context.elicit(key, &form).await? {
        Answer::Accept(fields) => fields["name"].as_str().expect("a form's text").to_owned(),
        Answer::Decline => "declined".to_owned(),
        Answer::Cancel => "went away".to_owned(),
    })
}
