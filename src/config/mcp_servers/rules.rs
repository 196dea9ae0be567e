//! What the settings of one MCP server demand of each other, of other settings and of the machine; fills the structs.
//!
//! A setting whose value is faulty has its fault already; rules that need it are passed over.

use std::path::Path;

use serde::Deserialize;
use toml::Value;

use super::sections::{Given, Pair, Section};
use super::table::TABLE;
use super::{McpHttpSettings, McpServerOptions, McpServerSettings, McpServerTransport, McpStdioSettings, TRANSPORTS};
use crate::config::Files;
use crate::config::fault::{Fault, Problem};
use crate::config::kind::{Kind, Raw};
use crate::config::rules::Held;
use crate::config::table::Setting;

/// What a message has to stay below, since a client that reads slowly has it waiting there.
const MESSAGE_BOUNDS: [&str; 2] = ["socket.outbox_bytes_max", "longpoll.buffer_bytes_max"];

/// What servers are judged against.
///
/// Has no `Debug`: it holds secrets.
pub(in crate::config) struct Surroundings<'a> {
    pub(in crate::config) held: &'a Held<'a>,
    pub(in crate::config) env: &'a [(String, String)],
    pub(in crate::config) files: &'a dyn Files,
}

/// Judges the sections and returns the servers, in the same order and without those that have a fault.
pub(in crate::config) fn settle(
    sections: &[Section],
    around: &Surroundings<'_>,
    faults: &mut Vec<Fault>,
) -> Vec<McpServerSettings> {
    sections.iter().filter_map(|section| settle_one(section, around, faults)).collect()
}

fn settle_one(section: &Section, around: &Surroundings<'_>, faults: &mut Vec<Fault>) -> Option<McpServerSettings> {
    let before = faults.len();
    let transport = judge_transport(section, faults);
    judge_headers(section, faults);
    let from_env = headers_from(section, around.env, faults);
    judge_folder(section, around.files, faults);
    judge_message_bytes(section, around.held, faults);
    if faults.len() > before || section.given.iter().any(|given| given.value.is_none()) {
        return None;
    }

    let transport = if transport? == "stdio" {
        let stdio = McpStdioSettings::deserialize(rows_of(section, "stdio"));
        McpServerTransport::Stdio(stdio.expect("the table's kinds give what its types take"))
    } else {
        let mut rows = rows_of(section, "http");
        let headers = rows.get_mut("headers").and_then(Value::as_array_mut).expect("pairs are always there");
        headers.extend(from_env);
        let http = McpHttpSettings::deserialize(rows);
        McpServerTransport::Http(http.expect("the table's kinds give what its types take"))
    };
    let options = McpServerOptions::deserialize(rows_of(section, "options"));
    let options = options.expect("the table's kinds give what its types take");
    Some(McpServerSettings { name: section.name.clone(), transport, options })
}

/// Finds out how the server is reached, and reports what does not go with that.
fn judge_transport(section: &Section, faults: &mut Vec<Fault>) -> Option<&'static str> {
    let mut present = TRANSPORTS.iter().filter(|(_, sign)| section.find(sign).is_some());
    let (transport, sign) = match (present.next(), present.next()) {
        (Some((transport, sign)), None) => (*transport, *sign),
        (first, _) => {
            let came = if first.is_some() { "both" } else { "neither" };
            let problem = Problem::McpServerTransport { key: section.key(), came };
            faults.push(Fault { place: section.place.clone(), problem });
            return None;
        }
    };
    for given in &section.given {
        let other = TRANSPORTS.iter().find(|(other, _)| *other != transport && *other == given.setting.section());
        if let Some((_, beside)) = other {
            let problem = Problem::OtherTransport { key: key_of(section, given.setting), beside, came: sign };
            faults.push(Fault { place: given.place.clone(), problem });
        }
    }
    Some(transport)
}

/// Reports headers that are given twice, whatever their case.
fn judge_headers(section: &Section, faults: &mut Vec<Fault>) {
    let mut seen = Vec::new();
    for name in ["headers", "headers_env"] {
        for (key, pair) in pairs(section, name) {
            let header = pair.name.to_ascii_lowercase();
            if seen.contains(&header) {
                faults.push(Fault { place: pair.place.clone(), problem: Problem::HeaderTwice { key } });
            }
            seen.push(header);
        }
    }
}

/// Reads the headers whose values stand in the environment, as pairs.
fn headers_from(section: &Section, env: &[(String, String)], faults: &mut Vec<Fault>) -> Vec<Value> {
    let mut headers = Vec::new();
    for (key, pair) in pairs(section, "headers_env") {
        let variable = pair.text.clone();
        let problem = match env.iter().find(|(name, _)| *name == variable) {
            None => Problem::VariableMissing { key, variable },
            Some((_, text)) if Kind::HeaderValue.read(Raw::Text(text)).is_none() => {
                let kind = Kind::HeaderValue;
                Problem::VariableValue { key, variable, expected: kind.expected(), came: kind.came(Raw::Text(text)) }
            }
            Some((_, text)) => {
                headers.push(pair_value(&pair.name, text));
                continue;
            }
        };
        faults.push(Fault { place: pair.place.clone(), problem });
    }
    headers
}

fn judge_folder(section: &Section, files: &dyn Files, faults: &mut Vec<Fault>) {
    for given in section.given.iter().filter(|given| matches!(given.setting.kind, Kind::Folder)) {
        if let Some(path) = given.value.as_ref().and_then(Value::as_str)
            && !files.is_folder(Path::new(path))
        {
            let problem = Problem::NoFolder { key: key_of(section, given.setting), came: path.to_owned() };
            faults.push(Fault { place: given.place.clone(), problem });
        }
    }
}

fn judge_message_bytes(section: &Section, held: &Held<'_>, faults: &mut Vec<Fault>) {
    let setting = TABLE.iter().find(|setting| setting.name() == "message_bytes_max").expect("the table has this row");
    let given = section.find(setting.name());
    let Some(came) = value_of(given, setting).as_ref().and_then(Value::as_integer) else {
        return;
    };
    for bound in MESSAGE_BOUNDS {
        if let Some(bound_bytes) = held.number(bound)
            && came >= bound_bytes
        {
            let place = given.map_or_else(|| held.place(bound), |given| given.place.clone());
            let problem = Problem::NotBelow { key: key_of(section, setting), bound, bound_bytes, came };
            faults.push(Fault { place, problem });
        }
    }
}

/// Gathers the values of one section of the table, all of which were checked.
fn rows_of(section: &Section, of: &str) -> toml::Table {
    let settings = TABLE.iter().filter(|setting| setting.section() == of);
    let rows = settings.filter_map(|setting| {
        let given = section.find(setting.name());
        let value = match (setting.kind, given) {
            (Kind::Pairs { .. }, Some(given)) => {
                Some(Value::Array(given.pairs.iter().map(|pair| pair_value(&pair.name, &pair.text)).collect()))
            }
            (Kind::Pairs { .. } | Kind::List(_), None) => {
                setting.default(false).or_else(|| Some(Value::Array(Vec::new())))
            }
            _ => value_of(given, setting),
        };
        Some((setting.name().to_owned(), value?))
    });
    rows.collect()
}

/// Returns the value that holds, given or default; `None` where it is unset or faulty.
fn value_of(given: Option<&Given>, setting: &Setting) -> Option<Value> {
    // No default of these depends on the mode.
    given.map_or_else(|| setting.default(false), |given| given.value.clone())
}

/// The pairs that a setting gives, each with its dotted key.
fn pairs<'a>(section: &'a Section, name: &str) -> impl Iterator<Item = (String, &'a Pair)> {
    section.find(name).into_iter().flat_map(|given| {
        let key = key_of(section, given.setting);
        given.pairs.iter().map(move |pair| (format!("{key}.{}", pair.name), pair))
    })
}

fn pair_value(name: &str, text: &str) -> Value {
    Value::Array(vec![name.into(), text.into()])
}

fn key_of(section: &Section, setting: &Setting) -> String {
    format!("{}.{}", section.key(), setting.name())
}
