//! Tools beyond the suites, for Bennu's own tests: what is large, long, many, stuck or broken.

use bennu::mcp::{CallContext, CallError, NoArguments, Tool, ToolOutput};
use bennu::schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::yield_now;

/// How long the tools may take that never end.
const HANG_MS: u64 = 60_000;

pub fn tools() -> Vec<Tool> {
    vec![
        Tool::new("echo", echo).description("Answers with the text that it was given."),
        Tool::structured("structured", structured).description("Counts letters, words and lines."),
        Tool::new("many_progress", many_progress).description("Reports progress many times in a row."),
        Tool::new("floods", floods).description("Reports progress without an end.").max_execution_ms(HANG_MS),
        Tool::new("hangs", hangs).description("Never ends.").max_execution_ms(HANG_MS),
        Tool::blocking("blocks", blocks).description("Keeps a thread busy.").max_execution_ms(HANG_MS),
        Tool::new("panics", panics).description("Panics."),
        Tool::new("big", big).description("Answers with a text of a size."),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "bennu::schemars")]
struct Text {
    text: String,
}

async fn echo(text: Text, _: CallContext) -> Result<String, CallError> {
    Ok(text.text)
}

#[derive(Serialize, JsonSchema)]
#[schemars(crate = "bennu::schemars")]
struct Counts {
    letters: usize,
    words: usize,
    lines: usize,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "bennu::schemars")]
struct Counted {
    /// Nothing, where it is left out.
    #[serde(default)]
    text: String,
}

async fn structured(Counted { text }: Counted, _: CallContext) -> Result<Counts, CallError> {
    let letters = text.chars().filter(|letter| letter.is_alphabetic()).count();
    Ok(Counts { letters, words: text.split_whitespace().count(), lines: text.lines().count() })
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "bennu::schemars")]
struct Count {
    count: u32,
}

async fn many_progress(Count { count }: Count, context: CallContext) -> Result<String, CallError> {
    for step in 1..=count {
        context.progress(step.into(), Some(count.into()), None);
        // Lets other calls come between.
        yield_now().await;
    }
    Ok(format!("reported progress {count} times"))
}

async fn floods(_: NoArguments, context: CallContext) -> Result<ToolOutput, CallError> {
    let mut step = 0.0;
    loop {
        step += 1.0;
        context.progress(step, None, None);
        yield_now().await;
    }
}

async fn hangs(_: NoArguments, _: CallContext) -> Result<ToolOutput, CallError> {
    std::future::pending().await
}

fn blocks(_: NoArguments, context: &CallContext) -> Result<ToolOutput, CallError> {
    loop {
        context.check()?;
        std::hint::spin_loop();
    }
}

async fn panics(_: NoArguments, _: CallContext) -> Result<ToolOutput, CallError> {
    panic!("the tool was asked to panic")
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "bennu::schemars")]
struct Size {
    bytes: usize,
}

/// Above what a result may have, Bennu answers that it is too large; far above, this does.
async fn big(Size { bytes }: Size, _: CallContext) -> Result<String, CallError> {
    const BYTES_MAX: usize = 4 << 20;
    if bytes > BYTES_MAX {
        return Err(CallError::InvalidArguments(format!("bytes: expected at most {BYTES_MAX}, came {bytes}")));
    }
    Ok("x".repeat(bytes))
}
