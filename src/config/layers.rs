//! Lays the sources over each other: file over default, environment over file, flag over environment.
//!
//! Every value is checked where it stands, also one that a stronger source covers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use toml::Value;
use toml::de::{DeTable, DeValue};

use super::fault::{Fault, Place, Problem};
use super::kind::{Raw, on_one_line};
use super::mcp_servers::{self, Section};
use super::nearest::nearest;
use super::roles::{self, ROLES};
use super::settings::{SECTIONS, TABLE};
use super::table::Setting;

/// Variables of the same prefix that are not settings.
///
/// The first names the settings file. The rest is what Kubernetes and Docker links set in every container when a
/// service is called `bennu`: `BENNU_SERVICE_PORT_HTTP`, `BENNU_PORT_4000_TCP_ADDR` and so on. Their `BENNU_PORT` is a URL;
/// a number there is somebody's wish for a port.
fn is_allowed_variable(name: &str, text: &str) -> bool {
    let Some(rest) = name.strip_prefix("BENNU_") else {
        return true;
    };
    matches!(rest, "CONFIG" | "SERVICE_HOST" | "SERVICE_PORT")
        || rest == "PORT" && ["tcp://", "udp://", "sctp://"].iter().any(|scheme| text.starts_with(scheme))
        || rest.starts_with("SERVICE_PORT_")
        || rest.strip_prefix("PORT_").is_some_and(|port| port.starts_with(|first: char| first.is_ascii_digit()))
}

/// What the sources gave, the strongest for each setting.
///
/// Has no `Debug`: it holds secrets.
#[derive(Default)]
pub(super) struct Layers {
    found: BTreeMap<&'static str, Found>,
    mcp_servers: Vec<Section>,
    roles: Vec<(String, Vec<String>)>,
}

/// One setting's value and where it was given.
pub(super) struct Found {
    /// Absent where the value given is faulty.
    pub(super) value: Option<Value>,
    pub(super) place: Place,
}

impl Layers {
    pub(super) fn find(&self, key: &str) -> Option<&Found> {
        self.found.get(key)
    }

    /// Returns the sections of MCP servers in the file's order.
    pub(super) fn mcp_servers(&self) -> &[Section] {
        &self.mcp_servers
    }

    /// Returns the roles that the file gives.
    pub(super) fn roles(&self) -> &[(String, Vec<String>)] {
        &self.roles
    }

    /// Lays the settings file over what is there.
    pub(super) fn add_file(&mut self, path: &Path, text: &str, faults: &mut Vec<Fault>) {
        let mut lines = Lines { path, text, broken: BTreeSet::new() };
        let mut file_faults = Vec::new();

        let (document, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            // Only the message: the error's own text repeats the line, which may hold a secret.
            let line = error.span().map_or(1, |span| lines.line(span.start));
            file_faults.push((line, Problem::Syntax(error.message().to_owned())));
        }
        // What the parser made up to go on after an error is not worth a fault of its own.
        lines.broken = file_faults.iter().map(|(line, _)| *line).collect();

        for entry in entries(document.get_ref()) {
            if let (mcp_servers::KEY, Some(servers)) = (entry.key.as_str(), entry.value) {
                self.mcp_servers = mcp_servers::read(servers, entry.offset, &lines, &mut file_faults);
                continue;
            }
            let Some(line) = lines.sound_line(entry.offset) else {
                continue;
            };
            if let Some(name) = entry.key.strip_prefix(ROLES) {
                match roles::read(name, entry.value) {
                    Ok(role) => self.roles.push(role),
                    Err(problem) => file_faults.push((line, problem)),
                }
                continue;
            }
            if let Err(problem) = self.add_entry(&entry, lines.place(line)) {
                file_faults.push((line, problem));
            }
        }

        file_faults.sort_by_key(|(line, _)| *line);
        faults.extend(file_faults.into_iter().map(|(line, problem)| Fault { place: lines.place(line), problem }));
    }

    fn add_entry(&mut self, entry: &Entry<'_>, place: Place) -> Result<(), Problem> {
        let Some(value) = entry.value else {
            let known = SECTIONS.iter().map(|(section, _)| *section);
            return if SECTIONS.iter().any(|(section, _)| *section == entry.key) {
                Ok(())
            } else {
                Err(unknown("section", &entry.key, known, |name| name))
            };
        };
        if SECTIONS.iter().any(|(section, _)| *section == entry.key) {
            return Err(Problem::Value {
                key: entry.key.clone(),
                expected: format!("a section headed [{}]", entry.key),
                came: "a single value".to_owned(),
            });
        }
        let setting = Setting::find(&entry.key).ok_or_else(|| unknown_key(&entry.key, &[mcp_servers::KEY]))?;
        self.add(setting, Raw::Toml(value), place)
    }

    /// Lays environment variables over what is there; only names that begin with `BENNU_` count.
    pub(super) fn add_environment(&mut self, variables: &[(String, String)], faults: &mut Vec<Fault>) {
        let known: Vec<String> = TABLE.iter().map(Setting::variable).collect();
        let ordered: BTreeMap<&str, &str> =
            variables.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        for (name, text) in ordered {
            if is_allowed_variable(name, text) {
                continue;
            }
            let place = Place::Environment(name.to_owned());
            let outcome = match TABLE.iter().zip(&known).find(|(_, variable)| *variable == name) {
                Some((setting, _)) => self.add(setting, Raw::Text(text), place.clone()),
                None => Err(unknown("variable", name, known.iter().map(String::as_str), |name| {
                    name.splitn(3, '_').last().unwrap_or(name)
                })),
            };
            faults.extend(outcome.err().map(|problem| Fault { place, problem }));
        }
    }

    /// Lays flags over what is there; each comes with its dotted key.
    pub(super) fn add_flags(&mut self, flags: &[(String, String)], faults: &mut Vec<Fault>) {
        for (key, text) in flags {
            let place = Place::Flag(format!("--{}", key.replace(['.', '_'], "-")));
            let outcome = Setting::find(key)
                .ok_or_else(|| unknown_key(key, &[]))
                .and_then(|setting| self.add(setting, Raw::Text(text), place.clone()));
            faults.extend(outcome.err().map(|problem| Fault { place, problem }));
        }
    }

    fn add(&mut self, setting: &'static Setting, raw: Raw<'_>, place: Place) -> Result<(), Problem> {
        let value = setting.kind.read(raw);
        let outcome = if value.is_some() {
            Ok(())
        } else {
            Err(Problem::Value {
                key: setting.key.to_owned(),
                expected: setting.kind.expected(),
                came: setting.kind.came(raw),
            })
        };
        self.found.insert(setting.key, Found { value, place });
        outcome
    }
}

/// The lines of the settings file.
pub(super) struct Lines<'a> {
    path: &'a Path,
    text: &'a str,
    /// Those that are not TOML.
    broken: BTreeSet<usize>,
}

impl Lines<'_> {
    /// Returns the line of an offset, counted from 1.
    fn line(&self, offset: usize) -> usize {
        1 + self.text.as_bytes()[..offset.min(self.text.len())].iter().filter(|&&byte| byte == b'\n').count()
    }

    /// Returns the line of an offset, unless that line is not TOML and so has its fault already.
    pub(super) fn sound_line(&self, offset: usize) -> Option<usize> {
        Some(self.line(offset)).filter(|line| !self.broken.contains(line))
    }

    pub(super) fn place(&self, line: usize) -> Place {
        Place::File { path: self.path.to_owned(), line: Some(line) }
    }
}

/// A key of the file with the section it stands in, or a section that holds nothing (no value).
struct Entry<'a> {
    key: String,
    value: Option<&'a DeValue<'a>>,
    offset: usize,
}

fn entries<'a>(document: &'a DeTable<'a>) -> Vec<Entry<'a>> {
    let mut entries = Vec::new();
    for (section, value) in document {
        let section_name = section.get_ref();
        match value.get_ref() {
            DeValue::Table(table) if !table.is_empty() => {
                entries.extend(table.iter().map(|(name, value)| Entry {
                    key: format!("{section_name}.{}", name.get_ref()),
                    value: Some(value.get_ref()),
                    offset: name.span().start,
                }));
            }
            DeValue::Table(_) => {
                entries.push(Entry { key: section_name.to_string(), value: None, offset: section.span().start });
            }
            other => {
                entries.push(Entry { key: section_name.to_string(), value: Some(other), offset: section.span().start });
            }
        }
    }
    entries
}

/// `more` are keys that the source knows beside those of the table.
fn unknown_key(key: &str, more: &[&'static str]) -> Problem {
    let known = TABLE.iter().map(|setting| setting.key).chain(more.iter().copied());
    unknown("key", key, known, |key| key.split_once('.').map_or(key, |(_, name)| name))
}

pub(super) fn unknown<'a>(
    what: &'static str,
    name: &str,
    known: impl Iterator<Item = &'a str>,
    tail: impl Fn(&str) -> &str,
) -> Problem {
    let nearest = nearest(name, known, tail).unwrap_or_default().to_owned();
    Problem::Unknown { what, name: on_one_line(name), nearest }
}
