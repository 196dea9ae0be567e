//! The tools; the table is in `main.rs`.

use std::process::{self, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::call::{Call, Question, content, pause};
use crate::output;
use crate::server::{Change, INVALID_PARAMS};
use crate::{exit, odd};

/// An id in which everything is escaped that can be.
const STRING_ID: &str = r#""odd \"id\" \\ \/ \u00e9 \ud83d\ude00 \t \u0001""#;
const NUMBER_ID: &str = "12345678901234567890123";

/// Neither a line with a message nor nothing.
const GARBAGE: [&[u8]; 8] = [
    b"",
    b"   \t ",
    b"Warning: this is no JSON",
    b"\xff\xfe\x00 broken UTF-8 \xc3",
    br#"{"jsonrpc":"2.0","id":"#,
    b"[ ]",
    br#"{"zeta":1e2}"#,
    br#"{"result":{},"id":"nobody asked","jsonrpc":"2.0"}"#,
];

/// Runs a tool to its end.
pub fn run(call: &Call) {
    let arguments = call.arguments();
    let count = |default| arguments.number("count", default);
    match call.request.params.name.as_str() {
        "echo_raw" => echo_raw(call),
        "progress" => {
            let count = count(3);
            (1..=count).take_while(|_| !call.is_cancelled()).for_each(|step| call.progress(step, count));
            call.answer("done");
        }
        "sample" => call.ask(None, &sampling()),
        "elicit" => call.ask(None, &elicitation()),
        "roots" => call.ask(None, &roots()),
        "big_id" => {
            let is_number = arguments.text("kind").as_deref() == Some("number");
            call.ask(Some(if is_number { NUMBER_ID } else { STRING_ID }), &sampling());
        }
        "fail_rpc" => {
            let code = arguments.raw("code").map_or("-31001", |code| code.get());
            call.fail(code, "it failed as asked \u{e9}", odd::VALUE);
        }
        "fail_tool" => call.fail_as_tool("it failed as asked \u{e9}"),
        "log" => {
            let level = arguments.text("level").unwrap_or_else(|| "warning".to_owned());
            let count = if call.may_log() { count(1) } else { 0 };
            (1..=count).for_each(|one| call.output.send(&call.log_text(&level, one)));
            call.answer("logged");
        }
        "slow" => {
            call.sleep(Duration::from_millis(arguments.number("ms", 1_000)));
            call.answer("at last");
        }
        "wait" => {
            call.wait_until_cancelled();
            if arguments.is_true("answer_anyway") {
                call.output.send(&call.text_response("too late"));
            }
        }
        "notify_changed" => notify_changed(call),
        "touch" => {
            let uri = arguments.text("uri").unwrap_or_else(|| "odd://one".to_owned());
            call.server().announce(&Change::Resource(uri));
            call.answer("touched");
        }
        "sleep_child" => sleep_child(call),
        "extra" if call.server().has_extra() => call.answer("here for now"),

        "garbage" => {
            GARBAGE.iter().for_each(|junk| call.output.send_bytes(junk));
            call.answer("after the garbage");
        }
        "oversize" => oversize(call),
        "duplicate" => {
            call.answer("first");
            call.answer("second");
        }
        "late" => {
            call.answer("in time");
            pause(arguments.number("ms", 50));
            call.progress(1, 2);
            call.answer("late");
        }
        "flood" => flood(call, count(10_000)),
        "interleave" => call.output.send_in_pieces(&call.text_response("in pieces \u{e9}\u{1f600}")),
        "half_line_exit" => {
            call.output.send_half(&call.text_response("never seen"));
            process::exit(exit::HALF_LINE);
        }
        "crash" => {
            call.progress(1, 2);
            process::exit(exit::CRASH);
        }
        "hang" => output::hang(),
        other => call.fail(INVALID_PARAMS, &format!("no tool is called {other}"), odd::VALUE),
    }
}

fn echo_raw(call: &Call) {
    let params = odd::or_null(call.request.text.as_deref());
    call.answer_structured(params, &format!(r#""params":{params}"#));
}

fn sampling() -> Question {
    let content = odd::text_block("What is odd? \u{e9}");
    let members = format!(r#""messages":[ {{"x-odd":1e2,"content":{content},"role":"user"}}],"maxTokens":100"#);
    Question { method: "sampling/createMessage", capability: "sampling", members }
}

fn elicitation() -> Question {
    let members = concat!(
        r#""requestedSchema":{"required":["name"],"properties":{ "name":{"title":"Name \u00e9\/","type":"string","minLength":1}},"#,
        r#""type":"object"} , "message":"Who are you? \u00e9\/","mode":"form""#
    );
    Question { method: "elicitation/create", capability: "elicitation", members: members.to_owned() }
}

fn roots() -> Question {
    let members = format!(r#""_meta":{{{}}}"#, odd::META);
    Question { method: "roots/list", capability: "roots", members }
}

fn notify_changed(call: &Call) {
    let (change, text) = match call.arguments().text("what").as_deref() {
        Some("prompts") => (Change::Prompts, "told of prompts"),
        Some("resources") => (Change::Resources, "told of resources"),
        _ if call.server().toggle_extra() => (Change::Tools, "extra is there"),
        _ => (Change::Tools, "extra is gone"),
    };
    call.server().announce(&change);
    call.answer(text);
}

fn sleep_child(call: &Call) {
    let mut command = Command::new("sleep");
    command.arg("1000").stdin(Stdio::null());
    if !call.arguments().is_true("inherit") {
        command.stdout(Stdio::null()).stderr(Stdio::null());
    }
    match command.spawn() {
        Ok(mut child) => {
            call.answer_structured(&child.id().to_string(), &format!(r#""pid":{}"#, child.id()));
            // When it is killed, nothing of it is to stay.
            thread::spawn(move || child.wait());
        }
        Err(fault) => call.fail_as_tool(&format!("sleep: {fault}")),
    }
}

fn oversize(call: &Call) {
    let bytes = usize::try_from(call.arguments().number("bytes", 1 << 20)).unwrap_or(usize::MAX);
    let result = |text: &str| call.request.result(&content(text));
    let padding = bytes.saturating_sub(result("").len());
    call.send(&odd::response(call.request.id.get(), &result(&"x".repeat(padding))));
}

fn flood(call: &Call, count: u64) {
    for one in 1..=count {
        let text = call.progress_text(one, count).unwrap_or_else(|| call.log_text("debug", one));
        call.output.send(&text);
    }
    call.answer("flooded");
}
