//! The roles of the settings file: the section `[roles]`, whose names the file chooses.

use toml::de::DeValue;

use super::fault::Problem;
use super::kind::{Raw, on_one_line, shown};
use crate::protocol::policy::Capability;

/// What the keys of roles begin with.
pub(super) const ROLES: &str = "roles.";

/// The longest name of a role, in characters.
const NAME_CHARS_MAX: usize = 64;

/// Reads a role: a list of capabilities.
pub(super) fn read(name: &str, value: Option<&DeValue<'_>>) -> Result<(String, Vec<String>), Problem> {
    let key = format!("{ROLES}{}", on_one_line(name));
    let is_of_names = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(is_of_names) {
        let expected = format!("a name of 1 to {NAME_CHARS_MAX} ASCII letters, digits, _ and -");
        return Err(Problem::Value { key: "roles".to_owned(), expected, came: shown(name) });
    }
    let expected = || {
        "a list of capabilities such as [\"tools:*\", \"topics:join:room:*\", \"!tools:call:api_caller\"]".to_owned()
    };
    let Some(DeValue::Array(list)) = value else {
        let came = value.map_or("nothing", |value| Raw::Toml(value).type_name()).to_owned();
        return Err(Problem::Value { key, expected: expected(), came });
    };
    let mut capabilities = Vec::new();
    for item in list {
        let Some(text) = item.get_ref().as_str() else {
            let came = format!("one with {}", Raw::Toml(item.get_ref()).type_name());
            return Err(Problem::Value { key, expected: expected(), came });
        };
        if let Err(fault) = Capability::parse(text) {
            return Err(Problem::Value {
                key,
                expected: expected(),
                came: format!("one with {}: {fault}", shown(text)),
            });
        }
        capabilities.push(text.to_owned());
    }
    Ok((name.to_owned(), capabilities))
}
