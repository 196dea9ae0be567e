//! Plays the steps of one case against a server and says what differs from the recording.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use regex::{Captures, Regex};

use super::case::{Case, HttpAnswer, HttpStep, Observed, Step};
use super::client::{self, Client, Handshake};
use super::frames::{FrameBits, encode_frame, text_frame};
use super::http;
use super::normalize::comparable;

/// Milliseconds between an `async` request and the next step.
const ASYNC_SETTLE_MS: u64 = 60;

/// Bounds a line of the report: a large payload differs near its start or isn't readable anyway.
const REPORT_CHARS_MAX: usize = 500;

static VARIABLE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\$\{(\w+)\}").expect("a valid expression"));

/// Recorded payloads are base64 with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What the clients saw, and which waits were in vain.
pub struct Played {
    pub observed: Observed,
    pub notes: Vec<String>,
}

/// Plays a case against the server at `server`.
pub fn play(case: &Case, server: SocketAddr) -> Played {
    let mut stage = Stage {
        server,
        clients: Vec::new(),
        answers: Vec::new(),
        pending: BTreeMap::new(),
        variables: BTreeMap::new(),
        notes: Vec::new(),
    };
    for (at, step) in case.steps.iter().enumerate() {
        stage.perform(at, step);
    }
    sleep(Duration::from_millis(case.settle_ms));

    let clients = stage.clients.iter().map(|(name, client)| (name.clone(), client.events())).collect();
    stage.answers.sort_by_key(|answer| answer.step);
    Played { observed: Observed::new(clients, stage.answers), notes: stage.notes }
}

/// Compares what was seen with the recording; `None` where they are the same, else a report of every difference.
pub fn difference(case: &Case, played: &Played) -> Option<String> {
    let (want, have) = (comparable(case, &case.observed), comparable(case, &played.observed));
    if want == have {
        return None;
    }
    let mut report = vec![format!("{}: {}", case.name, case.description)];
    let mut names: Vec<&String> = want.clients.keys().chain(have.clients.keys()).collect();
    names.sort();
    names.dedup();
    let nothing = Vec::new();
    for name in names {
        let lines = (want.clients.get(name).unwrap_or(&nothing), have.clients.get(name).unwrap_or(&nothing));
        report_lines(&mut report, name, lines.0, lines.1);
    }
    report_lines(&mut report, "http", &want.http, &have.http);
    report.extend(played.notes.iter().map(|note| format!("  note: {note}")));
    Some(report.join("\n"))
}

fn report_lines(report: &mut Vec<String>, of: &str, want: &[String], have: &[String]) {
    for at in 0..want.len().max(have.len()) {
        if want.get(at) != have.get(at) {
            report.push(format!("  {of}[{at}]"));
            for (who, line) in [("phoenix", want.get(at)), ("here   ", have.get(at))] {
                let shown: String = line.map_or("nothing", |line| line).chars().take(REPORT_CHARS_MAX).collect();
                report.push(format!("    {who} {shown}"));
            }
        }
    }
}

struct Stage {
    server: SocketAddr,
    /// In the order of their connecting; a client that connects again replaces its former connection.
    clients: Vec<(String, Client)>,
    answers: Vec<HttpAnswer>,
    pending: BTreeMap<String, (HttpStep, JoinHandle<HttpAnswer>)>,
    /// Values saved from answers.
    variables: BTreeMap<String, String>,
    notes: Vec<String>,
}

impl Stage {
    fn perform(&mut self, at: usize, step: &Step) {
        match step {
            Step::Connect {
                client,
                path,
                qs,
                headers,
                subprotocols,
                method,
                omit,
                host,
                extra_frames,
                no_close_echo,
                timeout,
            } => {
                let qs = self.fill_encoded(qs);
                let handshake = Handshake {
                    path,
                    qs: &qs,
                    headers: &headers.0,
                    subprotocols: subprotocols.as_deref(),
                    method: method.as_deref(),
                    omit,
                    host: host.as_deref(),
                };
                let extra: Vec<u8> = extra_frames.iter().flat_map(|text| text_frame(text)).collect();
                let connection = Client::connect(self.server, &handshake, &extra, !no_close_echo);
                self.enter(at, client, connection, *timeout);
            }
            Step::Tcp { client, send, timeout } => {
                let connection = Client::request(self.server, send, &[], true);
                self.enter(at, client, connection, *timeout);
            }
            Step::Send { client, text } => {
                let text = self.fill(text);
                self.client(client).send_text(&text);
            }
            Step::SendRepeat { client, prefix, repeat, suffix } => {
                let text = format!("{prefix}{}{suffix}", repeat.0.repeat(repeat.1));
                self.client(client).send_text(&text);
            }
            Step::SendMany { client, texts } => {
                let frames: Vec<u8> = texts.iter().flat_map(|text| text_frame(text)).collect();
                self.client(client).write(&frames);
            }
            Step::SendBinary { client, base64 } => self.client(client).send_binary(&decode(base64)),
            Step::Frame { client, opcode, base64, text, fin, mask, rsv } => {
                let payload = match base64 {
                    Some(base64) => decode(base64),
                    None => text.clone().unwrap_or_default().into_bytes(),
                };
                let bits = FrameBits { fin: fin.unwrap_or(true), mask: mask.unwrap_or(true), rsv: *rsv };
                self.client(client).write(&encode_frame(*opcode, &payload, bits));
            }
            Step::RawBytes { client, base64 } => self.client(client).write(&decode(base64)),
            Step::Close { client, code, reason } => self.client(client).send_close(*code, reason),
            Step::TcpDestroy { client } => self.client(client).destroy(),
            Step::Recv { client, n, timeout, .. } => {
                let received = self.client(client).recv(*n, limit(*timeout), at);
                if !received.complete {
                    self.notes.push(format!("step {at}: {client} wanted {n} frame(s), got {}", received.got.len()));
                }
            }
            Step::AwaitClosed { client, timeout } => {
                if !self.client(client).await_closed(limit(*timeout)) {
                    self.notes.push(format!("step {at}: {client} not closed by the server"));
                }
            }
            Step::Wait { ms } => sleep(Duration::from_millis(*ms)),
            Step::Http(http) if http.is_async => {
                let request = self.prepare(at, http);
                let handle = std::thread::spawn(request);
                let id = http.id.clone().expect("an async request has an id to await it by");
                self.pending.insert(id, (http.clone(), handle));
                sleep(Duration::from_millis(http.settle.unwrap_or(ASYNC_SETTLE_MS)));
            }
            Step::Http(http) => {
                let answer = self.prepare(at, http)();
                self.finish(http, answer);
            }
            Step::HttpAwait { id } => {
                let (http, handle) =
                    self.pending.remove(id).unwrap_or_else(|| panic!("step {at}: no request {id} is pending"));
                let answer = handle.join().expect("a request ends with an answer or an error");
                self.finish(&http, answer);
            }
            Step::Described | Step::Sigterm => panic!("step {at}: a shutdown is played by its own test"),
        }
    }

    fn enter(&mut self, at: usize, name: &str, mut connection: Client, timeout: Option<u64>) {
        if !connection.await_answer(limit(timeout)) {
            self.notes.push(format!("step {at}: no answer to the handshake"));
        }
        match self.clients.iter_mut().find(|(present, _)| present == name) {
            Some((_, present)) => *present = connection,
            None => self.clients.push((name.to_owned(), connection)),
        }
    }

    fn client(&mut self, name: &str) -> &mut Client {
        match self.clients.iter_mut().find(|(present, _)| present == name) {
            Some((_, client)) => client,
            None => panic!("client {name} has not connected"),
        }
    }

    /// Fills in the saved values and returns the request as a thing to run, here or on a thread of its own.
    fn prepare(&self, at: usize, http: &HttpStep) -> impl FnOnce() -> HttpAnswer + Send + 'static {
        let server = self.server;
        let (method, path) = (http.method.clone(), http.path.clone());
        let qs = http.qs.as_deref().map(|qs| self.fill_encoded(qs));
        let headers: Vec<(String, String)> =
            http.headers.0.iter().map(|(name, value)| (name.clone(), self.fill(value))).collect();
        let body = match (&http.body_base64, &http.body_repeat, &http.body) {
            (Some(base64), _, _) => Some(decode(base64)),
            (_, Some((part, n)), _) => {
                Some(format!("{}{}{}", http.body_prefix, part.repeat(*n), http.body_suffix).into_bytes())
            }
            (_, _, body) => body.as_deref().map(|body| self.fill(body).into_bytes()),
        };
        let timeout = http.timeout.map_or(http::TIMEOUT, Duration::from_millis);
        let id = http.id.clone().unwrap_or_else(|| format!("h{at}"));

        move || {
            let request = http::Request {
                method: &method,
                path: &path,
                qs: qs.as_deref(),
                headers: &headers,
                body: body.as_deref(),
                timeout,
            };
            let empty = HttpAnswer { step: at, id, ..HttpAnswer::default() };
            match http::send(server, &request) {
                Ok(answer) => HttpAnswer {
                    status: Some(answer.status),
                    headers: Some(answer.headers),
                    body: Some(String::from_utf8_lossy(&answer.body).into_owned()),
                    ..empty
                },
                Err(error) => HttpAnswer { error: Some(error.to_string()), ..empty },
            }
        }
    }

    fn finish(&mut self, http: &HttpStep, answer: HttpAnswer) {
        let json = answer.body.as_deref().and_then(|body| serde_json::from_str::<serde_json::Value>(body).ok());
        if let Some(json) = json {
            for (variable, field) in &http.save.0 {
                let value = match json.get(field) {
                    Some(serde_json::Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                    None => "undefined".to_owned(),
                };
                self.variables.insert(variable.clone(), value);
            }
        }
        self.answers.push(answer);
    }

    /// Puts saved values in the place of `${name}`; an unknown name stays.
    fn fill(&self, text: &str) -> String {
        self.fill_with(text, str::to_owned)
    }

    /// [`Stage::fill`] with the values percent-encoded.
    fn fill_encoded(&self, text: &str) -> String {
        self.fill_with(text, |value| {
            value
                .bytes()
                .map(|byte| match byte {
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => char::from(byte).to_string(),
                    b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')' => char::from(byte).to_string(),
                    _ => format!("%{byte:02X}"),
                })
                .collect()
        })
    }

    fn fill_with(&self, text: &str, encode: impl Fn(&str) -> String) -> String {
        VARIABLE
            .replace_all(text, |found: &Captures<'_>| {
                self.variables.get(&found[1]).map_or_else(|| found[0].to_owned(), |value| encode(value))
            })
            .into_owned()
    }
}

fn limit(timeout_ms: Option<u64>) -> Duration {
    timeout_ms.map_or(client::TIMEOUT, Duration::from_millis)
}

fn decode(base64: &str) -> Vec<u8> {
    BASE64.decode(base64).unwrap_or_else(|error| panic!("a recorded payload is base64, got {base64:?}: {error}"))
}
