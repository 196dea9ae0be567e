//! Connect parameters: a query string as Phoenix hands it to `connect/3`.
//!
//! Source: `Plug.Conn.Query.decode/4` of Plug 1.16; transcripts `connect_params`, `query_invalid_percent`,
//! `query_invalid_utf8`, `vsn_twice`.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

/// Pairs in one query string. Plug bounds the string alone; a thousand is far above what a client's `params` hold.
pub const QUERY_PAIRS_MAX: usize = 1000;

/// Brackets in one key. Plug has no bound; this one keeps the work for a key linear in its length.
pub const QUERY_DEPTH_MAX: usize = 32;

/// The decoded parameters, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Params(pub BTreeMap<String, Param>);

/// One parameter's value.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub enum Param {
    /// `a=1`; empty for `a=` and for `a`.
    Str(String),
    /// `a[]=1&a[]=2`, in the order of the query.
    List(Vec<Param>),
    /// `a[b]=1&a[c]=2`.
    Map(BTreeMap<String, Param>),
}

/// Why a query string is refused; the answer to such a request is 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// A key or a value that is no UTF-8 once its percent escapes are decoded.
    #[error("query part {0:?} is not utf-8 when decoded")]
    NotUtf8(String),
    /// More than [`QUERY_PAIRS_MAX`] pairs.
    #[error("query has {0} pairs, the limit is {max}", max = QUERY_PAIRS_MAX)]
    TooManyPairs(usize),
    /// A key with more than [`QUERY_DEPTH_MAX`] brackets.
    #[error("query key has {0} brackets, the limit is {max}", max = QUERY_DEPTH_MAX)]
    TooDeep(usize),
}

impl Params {
    /// The parameter, if it is a string: neither absent nor a list or a map.
    pub fn get_str(&self, key: &str) -> Option<&str> {
        match self.0.get(key) {
            Some(Param::Str(value)) => Some(value),
            _ => None,
        }
    }

    /// Whether the parameter is there, whatever its shape.
    pub fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }
}

/// Decodes a query string without its question mark.
///
/// The last of repeated keys wins. A percent sign that no two hex digits follow stands for itself. Where the same key is used
/// in two shapes the last use decides, at the top between a string and a container, inside a container between list and map.
///
/// # Errors
/// [`QueryError`] if a part is no UTF-8 when decoded, or the query exceeds a bound.
pub fn decode(query: &str) -> Result<Params, QueryError> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let count = pairs.clone().count();
    if count > QUERY_PAIRS_MAX {
        return Err(QueryError::TooManyPairs(count));
    }
    let mut levels = Levels::default();
    for pair in pairs {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        levels.insert(&decode_www_form(key)?, decode_www_form(value)?)?;
    }
    let mut root = BTreeMap::new();
    for (key, entry) in std::mem::take(&mut levels.root) {
        if let Some(key) = key {
            root.insert(key, entry);
        }
    }
    Ok(Params(root.into_iter().map(|(key, entry)| (key, levels.resolve(entry))).collect()))
}

/// Source: Elixir's `URI.decode_www_form/1`.
fn decode_www_form(part: &str) -> Result<String, QueryError> {
    let mut decoded = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        match (byte, after) {
            (b'+', _) => decoded.push(b' '),
            (b'%', [high, low, tail @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                decoded.push(hex_digit(*high) << 4 | hex_digit(*low));
                rest = tail;
            }
            _ => decoded.push(*byte),
        }
    }
    String::from_utf8(decoded).map_err(|_| QueryError::NotUtf8(part.to_owned()))
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// Every container met so far, by the raw prefix of the keys that fill it (`a`, `a[b]`), as Plug keeps them.
///
/// A container is noted in its parent when it is first met and not again, so what comes later under the same name in the
/// parent replaces it.
#[derive(Default)]
struct Levels {
    root: Vec<Member>,
    nested: BTreeMap<String, Vec<Member>>,
}

/// A member of a container: its key, none for a list's item, and its value.
type Member = (Option<String>, Entry);

enum Entry {
    Value(String),
    /// The container of this prefix.
    Container(String),
}

impl Levels {
    fn insert(&mut self, key: &str, value: String) -> Result<(), QueryError> {
        let (name, prefixes) = split_key(key);
        if prefixes.len() > QUERY_DEPTH_MAX {
            return Err(QueryError::TooDeep(prefixes.len()));
        }
        let mut entry = Entry::Value(value);
        for (prefix, segment) in prefixes.into_iter().rev() {
            let segment = (!segment.is_empty()).then(|| segment.to_owned());
            if let Some(members) = self.nested.get_mut(prefix) {
                members.push((segment, entry));
                return Ok(());
            }
            self.nested.insert(prefix.to_owned(), vec![(segment, entry)]);
            entry = Entry::Container(prefix.to_owned());
        }
        self.root.push((Some(name.to_owned()), entry));
        Ok(())
    }

    /// Takes the entry's value out. The last member of a container says whether it is a list or a map; members of the other
    /// shape are dropped.
    fn resolve(&mut self, entry: Entry) -> Param {
        let prefix = match entry {
            Entry::Value(value) => return Param::Str(value),
            Entry::Container(prefix) => prefix,
        };
        let members = self.nested.remove(&prefix).unwrap_or_default();
        if members.last().is_some_and(|(key, _)| key.is_none()) {
            let items = members.into_iter().filter(|(key, _)| key.is_none());
            return Param::List(items.map(|(_, item)| self.resolve(item)).collect());
        }
        let mut named = BTreeMap::new();
        for (key, entry) in members {
            if let Some(key) = key {
                named.insert(key, entry);
            }
        }
        Param::Map(named.into_iter().map(|(key, entry)| (key, self.resolve(entry))).collect())
    }
}

/// Splits `a[b][]` into `a` and, outermost first, the prefix of each container with the segment inside it: `a` with `b`,
/// `a[b]` with the empty segment. A key in any other form is a plain name.
fn split_key(key: &str) -> (&str, Vec<(&str, &str)>) {
    let Some(inside) = key.strip_suffix(']') else {
        return (key, Vec::new());
    };
    let open = match inside.find('[') {
        None | Some(0) => return (key, Vec::new()),
        Some(open) => open,
    };
    let mut prefixes = Vec::new();
    let mut prefix = &key[..open];
    let mut start = open + 1;
    for segment in inside[start..].split("][") {
        prefixes.push((prefix, segment));
        start += segment.len();
        prefix = key.get(..start + 1).unwrap_or(key);
        start += 2;
    }
    (&key[..open], prefixes)
}
