//! Reads what the settings file gives of each MCP server, value by value.

use toml::Value;
use toml::de::{DeTable, DeValue};

use super::KEY;
use super::table::TABLE;
use crate::config::fault::{Place, Problem};
use crate::config::kind::{Kind, Raw, on_one_line, shown};
use crate::config::layers::{Lines, unknown};
use crate::config::table::Setting;

/// The longest name of a server, in characters.
const NAME_CHARS_MAX: usize = 64;

/// Names that mean this server itself.
const NAMES_TAKEN: [&str; 2] = ["hub", "bennu"];

/// What the file gives of one server.
///
/// Has no `Debug`: it holds secrets.
pub(in crate::config) struct Section {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) given: Vec<Given>,
}

/// A setting that the file gives.
pub(super) struct Given {
    pub(super) setting: &'static Setting,
    pub(super) place: Place,
    /// Absent where it is faulty, in all or in one of its pairs; empty for pairs.
    pub(super) value: Option<Value>,
    /// What pairs hold, in the file's order and without those that are faulty.
    pub(super) pairs: Vec<Pair>,
}

/// One name of a table with its text.
pub(super) struct Pair {
    pub(super) name: String,
    pub(super) text: String,
    pub(super) place: Place,
}

impl Section {
    /// Returns the dotted key of the section, fit for a fault.
    pub(super) fn key(&self) -> String {
        section_key(&self.name)
    }

    pub(super) fn find(&self, name: &str) -> Option<&Given> {
        self.given.iter().find(|given| given.setting.name() == name)
    }
}

/// Reads the value of `mcp.servers`, which stands at `offset`, and adds the faults with their lines.
pub(in crate::config) fn read(
    servers: &DeValue<'_>,
    offset: usize,
    lines: &Lines<'_>,
    faults: &mut Vec<(usize, Problem)>,
) -> Vec<Section> {
    let Some(servers) = servers.as_table() else {
        let problem = Problem::Value {
            key: KEY.to_owned(),
            expected: format!("sections headed [{KEY}.NAME]"),
            came: Raw::Toml(servers).type_name().to_owned(),
        };
        faults.extend(lines.sound_line(offset).map(|line| (line, problem)));
        return Vec::new();
    };
    let mut reader = Reader { lines, faults };
    in_order(servers, lines).iter().filter_map(|entry| reader.section(entry)).collect()
}

struct Reader<'a> {
    lines: &'a Lines<'a>,
    faults: &'a mut Vec<(usize, Problem)>,
}

impl Reader<'_> {
    fn section(&mut self, entry: &Entry<'_>) -> Option<Section> {
        if !is_name(entry.name) {
            let taken = NAMES_TAKEN.map(|name| format!("{name:?}")).join(" and ");
            let expected = format!(
                "a name of 1 to {NAME_CHARS_MAX} ASCII letters, digits, _ and -, other than {taken}, which are taken"
            );
            self.fault(entry, Problem::Value { key: KEY.to_owned(), expected, came: shown(entry.name) });
        }
        let key = section_key(entry.name);
        let Some(table) = entry.value.as_table() else {
            let expected = format!("a section headed [{key}]");
            self.fault(entry, Problem::Value { key, expected, came: "a single value".to_owned() });
            return None;
        };

        let mut given = Vec::new();
        for entry in in_order(table, self.lines) {
            let setting_key = format!("{key}.{}", entry.name);
            if let Some(setting) = TABLE.iter().find(|setting| setting.name() == entry.name) {
                given.push(self.setting(setting, &setting_key, &entry));
            } else {
                let known: Vec<String> = TABLE.iter().map(|setting| format!("{key}.{}", setting.name())).collect();
                self.fault(&entry, unknown("key", &setting_key, known.iter().map(String::as_str), |key| key));
            }
        }
        Some(Section { name: entry.name.to_owned(), place: self.lines.place(entry.line), given })
    }

    fn setting(&mut self, setting: &'static Setting, key: &str, entry: &Entry<'_>) -> Given {
        let before = self.faults.len();
        let mut pairs = Vec::new();
        let value = match (setting.kind, entry.value) {
            (Kind::Pairs { name, text }, DeValue::Table(table)) => {
                for entry in in_order(table, self.lines) {
                    pairs.extend(self.pair((*name, *text), key, &entry));
                }
                (self.faults.len() == before).then(|| Value::Array(Vec::new()))
            }
            (kind, value) => read_value(kind, key, value).map_err(|problem| self.fault(entry, problem)).ok(),
        };
        Given { setting, place: self.lines.place(entry.line), value, pairs }
    }

    /// Reads a name and its text, of these kinds.
    fn pair(&mut self, (name, text): (Kind, Kind), key: &str, entry: &Entry<'_>) -> Option<Pair> {
        let raw_name = Raw::Text(entry.name);
        let is_named = name.read(raw_name).is_some();
        // What is no name may be a secret in the wrong place, so no fault shows it.
        let pair_key = if is_named { format!("{key}.{}", entry.name) } else { key.to_owned() };
        if !is_named {
            let (expected, came) = (name.expected(), name.came(raw_name));
            self.fault(entry, Problem::Value { key: pair_key.clone(), expected, came });
        }
        let text = read_value(text, &pair_key, entry.value).map_err(|problem| self.fault(entry, problem)).ok()?;
        let text = text.as_str().expect("the second kind of pairs is a text").to_owned();
        is_named.then(|| Pair { name: entry.name.to_owned(), text, place: self.lines.place(entry.line) })
    }

    fn fault(&mut self, entry: &Entry<'_>, problem: Problem) {
        self.faults.push((entry.line, problem));
    }
}

fn read_value(kind: Kind, key: &str, value: &DeValue<'_>) -> Result<Value, Problem> {
    let raw = Raw::Toml(value);
    let fault = || Problem::Value { key: key.to_owned(), expected: kind.expected(), came: kind.came(raw) };
    kind.read(raw).ok_or_else(fault)
}

/// One key of a table with its value.
struct Entry<'a> {
    line: usize,
    name: &'a str,
    value: &'a DeValue<'a>,
}

/// Returns what a table holds in the file's order, without what stands on lines that are not TOML.
fn in_order<'a>(table: &'a DeTable<'a>, lines: &Lines<'_>) -> Vec<Entry<'a>> {
    // The parser's own order is that of the names.
    let mut entries: Vec<_> = table.iter().map(|(name, value)| (name.span().start, name, value)).collect();
    entries.sort_by_key(|(offset, ..)| *offset);
    let entries = entries.into_iter().filter_map(|(offset, name, value)| {
        let line = lines.sound_line(offset)?;
        Some(Entry { line, name: name.get_ref(), value: value.get_ref() })
    });
    entries.collect()
}

fn is_name(name: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        && !NAMES_TAKEN.contains(&name)
}

fn section_key(name: &str) -> String {
    format!("{KEY}.{}", on_one_line(name))
}
