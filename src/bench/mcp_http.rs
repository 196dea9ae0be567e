//! `bench mcp-http`: what does a `tools/call` cost over Streamable HTTP, and how long does it take?
//!
//! The same calls as [`super::mcp_call`]'s, each a POST on a connection that is kept. Works against any server of that transport:
//! the response may come as JSON or as an event of a stream. A call is done when its HTTP response has ended.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use serde::Serialize;
use tokio::time::timeout;

use super::echo::OPENING_AT_ONCE;
use super::exchange::Exchange;
use super::http::{RequestTemplate, Response, event_data, next_response};
use super::mcp::{self, Answers, Call, CallOptions, Came, Era, LEGACY_VERSION, MODERN_VERSION, TOOLS_CALL};
use super::message::excerpt;
use super::options::{ClientOptions, LoadOptions, OutputOptions};
use super::record::Recorder;
use super::report::{Heading, Report, publish};
use super::stage::{each, run as run_stages};
use super::target::{Origin, Target};
use super::wire::Wire;

/// Arguments of `bennu bench mcp-http`.
#[derive(Args, Clone, Debug, Serialize)]
pub struct McpHttpArgs {
    /// The MCP endpoint
    #[arg(long, default_value = "http://127.0.0.1:4000/mcp")]
    url: String,
    /// A header of each request, may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE")]
    #[serde(skip)]
    headers: Vec<String>,
    #[command(flatten)]
    #[serde(flatten)]
    client: ClientOptions,
    #[command(flatten)]
    #[serde(flatten)]
    call: CallOptions,
    #[command(flatten)]
    #[serde(flatten)]
    load: LoadOptions,
    #[command(flatten)]
    #[serde(flatten)]
    output: OutputOptions,
}

/// Runs the mode.
///
/// # Errors
/// As [`super::run`].
pub fn run(args: &McpHttpArgs) -> Result<()> {
    if args.call.era == Era::Elixir {
        bail!("era is elixir, expected legacy or modern: over HTTP no session begins with a join");
    }
    if args.call.tool.is_empty() || !args.call.tool.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("tool is {:?}, expected visible ASCII characters: the name is sent in a header too", args.call.tool);
    }
    let load = args.call.load()?;
    let plan = args.load.plan(args.output.process()?)?;
    let (target, origin) = Target::http(&args.url, &args.headers, &args.client.sources)?;
    let limit = args.client.limit()?;
    let shared = Arc::new((args.call.clone(), target, origin));
    let outcome = run_stages(&plan, async |part| {
        let connect = |index: usize| {
            let shared = shared.clone();
            let owner = format!("{}-{index}", part.thread);
            async move {
                let (options, target, origin) = &*shared;
                let call = options.call(&owner)?;
                let mut wire = Wire::connect(target, limit).await?;
                let headers = begin(&mut wire, origin, options, limit).await?;
                Ok((wire, HttpCall::new(origin, &headers, call)))
            }
        };
        let connections = each(part.share(args.call.connections), OPENING_AT_ONCE, connect).await?;
        load.run(connections, part, limit).await
    })?;
    let heading = Heading { mode: "mcp-http", unit: "call", parameters: serde_json::to_value(args)? };
    let report = Report::of_load(heading, &args.output, &outcome);
    publish(&[report], &args.output, outcome.recorder.first_fault.as_deref())
}

/// Begins a session where the era has one, and returns the header lines of its calls.
async fn begin(wire: &mut Wire, origin: &Origin, options: &CallOptions, limit: Duration) -> Result<String> {
    if options.era == Era::Modern {
        let tool = &options.tool;
        return Ok(format!(
            "MCP-Protocol-Version: {MODERN_VERSION}\r\nMcp-Method: {TOOLS_CALL}\r\nMcp-Name: {tool}\r\n"
        ));
    }
    let steps = async {
        let session_id = post(wire, &request(origin, "", &mcp::initialize()), check_initialize).await?;
        let session = session_id.map(|id| format!("Mcp-Session-Id: {id}\r\n")).unwrap_or_default();
        let headers = format!("MCP-Protocol-Version: {LEGACY_VERSION}\r\n{session}");
        post(wire, &request(origin, &headers, &mcp::initialized()), check_accepted).await?;
        Ok::<_, anyhow::Error>(headers)
    };
    timeout(limit, steps)
        .await
        .map_err(|_| anyhow!("expected an answer to the handshake, none came within {} s", limit.as_secs_f64()))?
        .context("beginning an MCP session")
}

/// Sends one request and gives its response to `check`.
async fn post<T>(wire: &mut Wire, request: &str, check: fn(&Response<'_>) -> Result<T>) -> Result<T> {
    wire.out.extend_from_slice(request.as_bytes());
    let mut checked = None;
    while checked.is_none() {
        wire.turn(|_, bytes, _| {
            let Some((response, taken)) = next_response(bytes)? else {
                return Ok(0);
            };
            checked = Some(check(&response)?);
            Ok(taken)
        })
        .await?;
    }
    checked.context("the loop ends with a response")
}

fn check_initialize(response: &Response<'_>) -> Result<Option<String>> {
    for message in messages(response).map_err(anyhow::Error::msg)? {
        if mcp::is_initialize_result(&message)? {
            return Ok(response.session_id.map(str::to_owned));
        }
    }
    bail!("expected the answer to initialize, came {}", describe(response))
}

fn check_accepted(response: &Response<'_>) -> Result<()> {
    if response.status != 202 {
        bail!("expected status 202 to a notification, came {}", describe(response));
    }
    Ok(())
}

/// The whole text of a POST of one JSON-RPC message.
fn request(origin: &Origin, headers: &str, message: &str) -> String {
    format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n\
         Content-Length: {}\r\n{}{headers}\r\n{message}",
        origin.path,
        origin.authority,
        message.len(),
        origin.headers,
    )
}

/// The JSON-RPC messages of a response with status 200.
///
/// # Errors
/// What was expected and what came, as text.
fn messages<'a>(response: &'a Response<'_>) -> Result<Vec<Cow<'a, str>>, String> {
    let expected = |what: &str| Err(format!("expected {what}, came {}", describe(response)));
    if response.status != 200 {
        return expected("status 200");
    }
    let Ok(body) = std::str::from_utf8(&response.body) else {
        return expected("a body of UTF-8");
    };
    match response.content_type {
        json if json.eq_ignore_ascii_case("application/json") => Ok(vec![Cow::Borrowed(body)]),
        events if events.eq_ignore_ascii_case("text/event-stream") => Ok(event_data(body)),
        _ => expected("application/json or text/event-stream"),
    }
}

fn describe(response: &Response<'_>) -> String {
    format!(
        "status {} with {:?} and body {:?}",
        response.status,
        response.content_type,
        excerpt(&String::from_utf8_lossy(&response.body))
    )
}

/// Calls on one connection. HTTP answers in order; the id tells whether it did.
struct HttpCall {
    template: RequestTemplate,
    answers: Answers,
    in_flight: VecDeque<u64>,
}

impl HttpCall {
    fn new(origin: &Origin, headers: &str, call: Call) -> Self {
        Self {
            // A number has as many digits as its placeholder, so the length that is sent is right.
            template: RequestTemplate::new(&request(origin, headers, &call.request)),
            answers: Answers::new(call.text),
            in_flight: VecDeque::new(),
        }
    }

    fn check(&mut self, number: u64, response: &Response<'_>) -> Result<(), String> {
        let mut answered = false;
        for message in messages(response)? {
            match self.answers.read(&message) {
                Came::Answer(came, verdict) if came == number && !answered => {
                    answered = true;
                    verdict?;
                }
                Came::Other => Recorder::with(|recorder| recorder.pushes += 1),
                Came::Answer(..) => return Err(format!("expected one answer to call {number}, came {message}")),
                Came::Stray(what) => return Err(what),
            }
        }
        if answered { Ok(()) } else { Err(format!("expected an answer to call {number}, came {}", describe(response))) }
    }
}

impl Exchange for HttpCall {
    fn write(&mut self, out: &mut Vec<u8>, number: u64) {
        self.template.write(out, number);
        self.in_flight.push_back(number);
    }

    fn read(&mut self, bytes: &[u8], _out: &mut Vec<u8>, done: &mut Vec<u64>) -> Result<usize> {
        let mut taken = 0;
        while let Some((response, response_bytes)) = next_response(&bytes[taken..])? {
            taken += response_bytes;
            let Some(number) = self.in_flight.pop_front() else {
                bail!("expected nothing, since no call is in flight, came {}", describe(&response));
            };
            if let Err(wrong) = self.check(number, &response) {
                Recorder::with(|recorder| recorder.fault(|| wrong));
            }
            done.push(number);
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::frame::NUMBER_PLACEHOLDER;

    fn origin() -> Origin {
        let headers = vec!["Authorization: Bearer t".to_owned()];
        Target::http("http://127.0.0.1:4000/mcp/demo", &headers, &[]).expect("a valid url").1
    }

    fn exchange(in_flight: u64) -> HttpCall {
        let call = Call { request: format!(r#"{{"id":{NUMBER_PLACEHOLDER}}}"#), text: "abc".to_owned() };
        let mut exchange = HttpCall::new(&origin(), "Mcp-Session-Id: s\r\n", call);
        for number in 0..in_flight {
            exchange.write(&mut Vec::new(), number);
        }
        exchange
    }

    fn message(number: u64, text: &str) -> String {
        let id = 1_000_000_000 + number;
        format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":"{text}"}}]}}}}"#)
    }

    fn json(body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
    }

    fn events(chunks: &[&str]) -> String {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunks = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len()));
        format!("{head}{}0\r\n\r\n", chunks.collect::<String>())
    }

    /// Returns the numbers answered, and the faults and pushes counted; the bytes come in two reads cut at `cut`.
    fn check_cut(exchange: &mut HttpCall, bytes: &str, cut: usize) -> (Vec<u64>, u64, u64) {
        let mut done = Vec::new();
        let mut read = |bytes: &str| exchange.read(bytes.as_bytes(), &mut Vec::new(), &mut done).expect("readable");
        let taken = read(&bytes[..cut]);
        assert_eq!(taken + read(&bytes[taken..]), bytes.len());
        let recorder = Recorder::take();
        (done, recorder.faults, recorder.pushes)
    }

    fn check(exchange: &mut HttpCall, bytes: &str) -> (Vec<u64>, u64, u64) {
        check_cut(exchange, bytes, 0)
    }

    #[test]
    fn a_call_is_one_post_with_the_headers_of_its_session() {
        let mut out = Vec::new();
        exchange(0).write(&mut out, 5);

        let expected = "POST /mcp/demo HTTP/1.1\r\nHost: 127.0.0.1:4000\r\nContent-Type: application/json\r\n\
                        Accept: application/json, text/event-stream\r\nContent-Length: 17\r\nAuthorization: Bearer t\r\n\
                        Mcp-Session-Id: s\r\n\r\n{\"id\":1000000005}";
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }

    #[test]
    fn json_and_events_are_answers_wherever_a_read_cuts_them() {
        let priming = "id: 0\nretry: 3000\ndata:\n\n";
        let event = format!(": pause\n\nid: 1\ndata: {}\n\n", message(1, "abc"));
        let bytes = [json(&message(0, "abc")), events(&[priming, &event]), json(&message(2, "abc"))].concat();

        for cut in 0..=bytes.len() {
            assert_eq!(check_cut(&mut exchange(3), &bytes, cut), (vec![0, 1, 2], 0, 0), "cut at {cut}");
        }
    }

    #[test]
    fn notifications_before_the_response_are_counted_and_passed_over() {
        let progress = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\n";
        let response = format!("data: {}\n\n", message(0, "abc"));
        assert_eq!(check(&mut exchange(1), &events(&[progress, &response])), (vec![0], 0, 1));
    }

    #[test]
    fn planted_wrong_answers_are_faults_and_never_block_the_loop() {
        let right = message(0, "abc");
        let twice = format!("data: {right}\n\ndata: {right}\n\n");
        for wrong in [
            json(&message(0, "abd")),
            json(&message(1, "abc")),
            json(r#"{"jsonrpc":"2.0","id":1000000000,"error":{"code":-32603,"message":"no"}}"#),
            json(r#"{"jsonrpc":"2.0","method":"notifications/progress"}"#),
            json(""),
            json(&right).replace("200 OK", "500 Internal Server Error"),
            json(&right).replace("200 OK", "202 Accepted"),
            json(&right).replace("application/json", "text/html"),
            events(&["id: 0\ndata:\n\n"]),
            events(&[&twice]),
            events(&[]),
        ] {
            let (done, faults, _) = check(&mut exchange(1), &wrong);
            assert_eq!((done, faults), (vec![0], 1), "{wrong}");
        }
    }

    #[test]
    fn a_response_to_no_call_is_an_error() {
        let bytes = json(&message(0, "abc"));
        assert!(exchange(0).read(bytes.as_bytes(), &mut Vec::new(), &mut Vec::new()).is_err());
    }

    #[test]
    fn a_handshake_takes_the_session_id_and_needs_its_statuses() {
        let result = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25"}}"#;
        let session = |text: &str| check_initialize(&next_response(text.as_bytes()).expect("valid").expect("whole").0);
        let with_id = json(result).replace("content-type", "mcp-session-id: s-1\r\ncontent-type");
        let event = events(&["id: 0\ndata:\n\n", &format!("data: {result}\n\n")]);
        assert_eq!(session(&with_id).expect("a session").as_deref(), Some("s-1"));
        assert_eq!(session(&event).expect("none is needed"), None);
        assert!(session(&json(result).replace("200", "400")).is_err());
        assert!(session(&events(&["data:\n\n"])).is_err());

        let accepted = |status: &str| {
            let text = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            check_accepted(&next_response(text.as_bytes()).expect("valid").expect("whole").0)
        };
        assert!(accepted("202 Accepted").is_ok());
        assert!(accepted("200 OK").is_err());
    }
}
