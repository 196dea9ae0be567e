//! Makes two observations of one case comparable: placeholders for what is volatile, and nothing of what is transport noise.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use regex::{Captures, NoExpand, Regex};
use serde_json::{Value, json};

use super::case::{Case, Event, Observed, Step};
use super::json;

/// The reference of a presence, as JSON or as JSON inside a JSON string.
static PHX_REF: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"(\\?"phx_ref(?:_prev)?\\?":\\?")([^"\\]+)"#).expect("a valid expression"));

/// A long-poll token: a signed term of Phoenix, and the form that ours follow.
static TOKEN: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#""token":"(SFMyNTY[^"]+)""#).expect("a valid expression"));

static NUMBERED_REF: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"<phx_ref:\d+>").expect("a valid expression"));

/// The headers that the protocol gives a meaning to; all others are the server's own affair.
const CORE_HEADERS: [&str; 9] = [
    "content-type",
    "access-control-allow-origin",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-max-age",
    "sec-websocket-protocol",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "upgrade",
];

/// What of an observation counts: one line for each event or answer, equal where they are equal.
#[derive(Debug, PartialEq)]
pub struct Comparable {
    /// By client.
    pub clients: BTreeMap<String, Vec<String>>,
    pub http: Vec<String>,
}

/// Reduces an observation to what counts of it.
pub fn comparable(case: &Case, observed: &Observed) -> Comparable {
    let mut observed = observed.clone();
    Normalizer::new(case).apply(&mut observed);

    let clients = observed.clients.0.iter().map(|(name, events)| (name.clone(), client_lines(case, name, events)));
    let http = observed.http.iter().map(|answer| {
        let mut view = serde_json::Map::new();
        view.insert("id".to_owned(), json!(answer.id));
        view.insert("error".to_owned(), json!(answer.error));
        view.insert("status".to_owned(), json!(answer.status));
        if !case.racy.http_body {
            view.insert("headers".to_owned(), core_headers(answer.status, answer.headers.as_deref()));
            view.insert("norm".to_owned(), core_text(answer.status, answer.norm.as_deref()));
        }
        line(view)
    });
    Comparable { clients: clients.collect(), http: http.collect() }
}

/// Numbers volatile values in the order of their appearance: the same value gets the same placeholder within a case.
struct Normalizer<'a> {
    case: &'a Case,
    rewrites: Vec<(Regex, &'a str)>,
    /// The placeholder of each value, by kind and value.
    placeholders: BTreeMap<(&'static str, String), String>,
    /// How many values each kind has.
    counts: BTreeMap<&'static str, usize>,
}

impl<'a> Normalizer<'a> {
    fn new(case: &'a Case) -> Self {
        let rewrites = case
            .rewrites
            .iter()
            .map(|rewrite| (Regex::new(&rewrite.re).expect("a recording's expression is valid"), rewrite.to.as_str()))
            .collect();
        Self { case, rewrites, placeholders: BTreeMap::new(), counts: BTreeMap::new() }
    }

    fn apply(&mut self, observed: &mut Observed) {
        for event in observed.clients.0.iter_mut().flat_map(|(_, events)| events) {
            let text = if event.kind == "http_response" { &event.body } else { &event.raw };
            event.norm = text.as_deref().map(|text| self.text(text));
        }
        for answer in &mut observed.http {
            let Some(body) = &answer.body else { continue };
            let mut text = self.text(body);
            if self.case.uses_longpoll {
                text = TOKEN
                    .replacen(&text, 1, |found: &Captures<'_>| {
                        format!(r#""token":"{}""#, self.placeholder("token", &found[1]))
                    })
                    .into_owned();
            }
            answer.norm = Some(text);
        }
    }

    fn text(&mut self, text: &str) -> String {
        let mut text = PHX_REF
            .replace_all(text, |found: &Captures<'_>| {
                format!("{}{}", &found[1], self.placeholder("phx_ref", &found[2]))
            })
            .into_owned();
        for (expression, to) in &self.rewrites {
            if let Cow::Owned(replaced) = expression.replace_all(&text, NoExpand(to)) {
                text = replaced;
            }
        }
        text
    }

    fn placeholder(&mut self, kind: &'static str, value: &str) -> String {
        let Self { placeholders, counts, .. } = self;
        placeholders
            .entry((kind, value.to_owned()))
            .or_insert_with(|| {
                let count = counts.entry(kind).or_default();
                *count += 1;
                format!("<{kind}:{count}>")
            })
            .clone()
    }
}

fn client_lines(case: &Case, client: &str, events: &[Event]) -> Vec<String> {
    let is_optional = |event: &Event| {
        event.kind == "text"
            && case.racy.optional.iter().any(|optional| {
                optional.client == client && event.norm.as_deref().unwrap_or_default().contains(&optional.part)
            })
    };
    // How TCP ends is noise.
    let counted = events.iter().filter(|event| event.kind != "tcp_closed" && !is_optional(event));
    let unordered: BTreeSet<usize> = case
        .steps
        .iter()
        .enumerate()
        .filter(|(_, step)| matches!(step, Step::Recv { unordered: true, client: name, .. } if name == client))
        .map(|(at, _)| at)
        .collect();

    // Frames that one unordered `recv` consumed may come in any order. Placeholders were numbered in the order of
    // arrival, so inside such a group they lose their numbers.
    let mut groups: Vec<(Option<usize>, Vec<String>)> = Vec::new();
    for event in counted {
        let step = event.recv.filter(|step| unordered.contains(step));
        match groups.last_mut() {
            Some((last, lines)) if step.is_some() && *last == step => lines.push(event_line(event)),
            _ => groups.push((step, vec![event_line(event)])),
        }
    }
    let mut lines: Vec<String> = groups
        .into_iter()
        .flat_map(|(_, mut lines)| {
            if lines.len() > 1 {
                lines = lines.iter().map(|line| without_numbers(line)).collect();
                lines.sort();
            }
            lines
        })
        .collect();
    if case.racy.renumber {
        lines = lines.iter().map(|line| without_numbers(line)).collect();
    }
    lines
}

fn without_numbers(line: &str) -> String {
    NUMBERED_REF.replace_all(line, NoExpand("<phx_ref>")).into_owned()
}

fn event_line(event: &Event) -> String {
    let mut view = serde_json::Map::new();
    view.insert("type".to_owned(), json!(event.kind));
    view.insert("status".to_owned(), json!(event.status));
    view.insert("headers".to_owned(), core_headers(event.status, event.headers.as_deref()));
    view.insert("norm".to_owned(), core_text(event.status, event.norm.as_deref()));
    view.insert("base64".to_owned(), json!(event.base64));
    view.insert("reason".to_owned(), json!(event.reason));
    view.insert("fin".to_owned(), json!(event.fin));
    view.insert("rsv".to_owned(), json!(event.rsv));
    view.insert("what".to_owned(), json!(event.what));
    if event.json_error {
        view.insert("json_error".to_owned(), json!(true));
    }
    if event.kind == "close" {
        view.insert("code".to_owned(), json!(event.code.map_or_else(|| json!("none"), |code| json!(code))));
    }
    line(view)
}

/// Members that aren't there don't count.
fn line(mut view: serde_json::Map<String, Value>) -> String {
    view.retain(|_, value| !value.is_null());
    Value::Object(view).to_string()
}

/// The headers that count, by lower-case name, in an order of their own.
fn core_headers(status: Option<u16>, headers: Option<&[(String, String)]>) -> Value {
    let Some(headers) = headers else { return Value::Null };
    let refused = status.is_none_or(|status| status >= 400);
    let mut core: Vec<(String, &str)> = headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
        .filter(|(name, _)| CORE_HEADERS.contains(&name.as_str()) && (!refused || name.starts_with("access-control")))
        .collect();
    core.sort();
    json!(core)
}

/// The text as canonical JSON where it is JSON; nothing of the body of a 4xx or 5xx answer.
fn core_text(status: Option<u16>, norm: Option<&str>) -> Value {
    match norm {
        Some(_) if status.is_some_and(|status| status >= 400) => Value::Null,
        Some(text) => json!(json::canonical_body(text).unwrap_or_else(|| text.to_owned())),
        None => Value::Null,
    }
}
