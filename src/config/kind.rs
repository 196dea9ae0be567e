//! What a setting may hold: reads the words of a file, the environment or a flag, and says what it expects.

use std::net::SocketAddr;

use toml::Value;
use toml::de::{DeInteger, DeValue};

use super::settings::CREDENTIALS;
use super::shapes::{
    LOG_LEVELS, is_cost, is_header_name, is_header_value, is_host, is_host_port, is_ip_pattern, is_log_level,
    is_origin, is_route, is_topic, is_topic_credentials, is_url, is_variable,
};

/// The longest piece of a faulty value that a fault repeats, in characters.
const SHOWN_CHARS_MAX: usize = 80;

/// The words of `socket.check_origin` that are not origins.
const ORIGIN_WORDS: [&str; 3] = ["host", "off", "conn"];

/// What values a setting takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number of `unit`, both bounds included.
    Count { unit: &'static str, min: u64, max: u64 },
    /// `true` or `false`.
    Switch,
    /// An IP address with a port.
    Address,
    /// A host name or address without scheme and port.
    Host,
    /// The same with a port or without.
    HostPort,
    /// Log levels: one for all, or `target=level` for a part of the program.
    LogLevels,
    /// The path of a URL.
    Route,
    /// `host`, `off`, `conn`, or the origins allowed.
    Origins,
    /// Text that is never shown, at least this many bytes long.
    Secret { bytes_min: usize },
    /// The path of a file.
    File,
    /// The path of a folder.
    Folder,
    /// Text with something in it.
    Text,
    /// Any text, which is never shown.
    Hidden,
    /// The name of an environment variable. Not shown where it is faulty, as it may be a value in the wrong place.
    Variable,
    /// The name of an HTTP header; the same holds.
    HeaderName,
    /// The value of an HTTP header, which is never shown.
    HeaderValue,
    /// A URL of http or https.
    Url,
    /// Addresses: one, a range, or with stars.
    IpPattern,
    /// A topic, or a pattern that ends with a star.
    Topic,
    /// A method with its cost.
    Cost,
    /// An MCP topic with the credentials that it takes.
    TopicCredentials,
    /// Any number of these.
    List(&'static Kind),
    /// Names with texts. Whoever has their places reads them one by one.
    Pairs { name: &'static Kind, text: &'static Kind },
}

/// A value as it was found: in the environment and in flags everything is text.
#[derive(Clone, Copy)]
pub(super) enum Raw<'a> {
    Text(&'a str),
    Toml(&'a DeValue<'a>),
}

impl Kind {
    /// Reads a value, or returns `None` where it is not one that this kind takes.
    pub(super) fn read(self, raw: Raw<'_>) -> Option<Value> {
        match self {
            Kind::Count { min, max, .. } => {
                let count = raw.count().filter(|count| (min..=max).contains(count))?;
                i64::try_from(count).ok().map(Value::Integer)
            }
            Kind::Switch => raw.switch().map(Value::Boolean),
            Kind::Origins => read_origins(raw),
            Kind::List(of) => read_list(*of, raw),
            Kind::Pairs { .. } => None,
            _ => raw.text().filter(|text| self.takes(text)).map(|text| Value::String(text.to_owned())),
        }
    }

    /// Whether a kind that is written as one text takes this text.
    fn takes(self, text: &str) -> bool {
        match self {
            Kind::Choice(words) => words.contains(&text),
            Kind::Address => text.parse::<SocketAddr>().is_ok(),
            Kind::Host => is_host(text),
            Kind::HostPort => is_host_port(text),
            Kind::LogLevels => text.split(',').all(is_log_level),
            Kind::Route => is_route(text),
            Kind::Secret { bytes_min } => text.len() >= bytes_min,
            Kind::File | Kind::Folder | Kind::Text => !text.is_empty() && !text.contains('\0'),
            Kind::Hidden => !text.contains('\0'),
            Kind::Variable => is_variable(text),
            Kind::HeaderName => is_header_name(text),
            Kind::HeaderValue => is_header_value(text),
            Kind::Url => is_url(text),
            Kind::IpPattern => is_ip_pattern(text),
            Kind::Topic => is_topic(text),
            Kind::Cost => is_cost(text),
            Kind::TopicCredentials => is_topic_credentials(text),
            Kind::Count { .. } | Kind::Switch | Kind::Origins | Kind::List(_) | Kind::Pairs { .. } => false,
        }
    }

    /// Says what this kind takes, to be read after "expected".
    pub(super) fn expected(self) -> String {
        match self {
            Kind::Choice(words) => one_of(words),
            Kind::Count { unit, min, max } => {
                format!("a whole number of {unit} from {} to {}", grouped(min), grouped(max))
            }
            Kind::Switch => "true or false".to_owned(),
            Kind::Address => "an IP address and a port such as \"127.0.0.1:4000\" or \"[::1]:4000\"".to_owned(),
            Kind::Host => "a host name or address without scheme and port such as \"chat.example.com\"".to_owned(),
            Kind::HostPort => {
                "a host name or address with a port or without such as \"api.example.com\" or \"10.0.0.1:8080\""
                    .to_owned()
            }
            Kind::LogLevels => {
                format!("{}, or several as in \"info,bennu::transport=debug\"", one_of(&LOG_LEVELS))
            }
            Kind::Route => "the path of a URL such as \"/socket\", without a slash at its end".to_owned(),
            Kind::Origins => format!(
                "{}, or origins such as \"https://example.com\", \"//example.com:8080\" or \"//*.example.com\"",
                one_of(&ORIGIN_WORDS)
            ),
            Kind::Secret { bytes_min } => format!("a text of at least {bytes_min} bytes"),
            Kind::File => "the path of a file".to_owned(),
            Kind::Folder => "the path of a folder".to_owned(),
            Kind::Text => "a text that is not empty".to_owned(),
            Kind::Hidden => "a text".to_owned(),
            Kind::Variable => "the name of an environment variable".to_owned(),
            Kind::HeaderName => "the name of an HTTP header".to_owned(),
            Kind::HeaderValue => "a text of visible ASCII characters, with spaces only between them".to_owned(),
            Kind::Url => "a URL such as \"https://example.com/mcp\", of http or https, without user, password and \
                          fragment"
                .to_owned(),
            Kind::IpPattern => {
                "an address such as \"10.0.0.7\", \"10.0.0.0/8\", \"10.0.*.*\" or \"2001:db8::/32\"".to_owned()
            }
            Kind::Topic => {
                "a topic such as \"room:lobby\", or a pattern such as \"room:*\"; none of the server's own, such as those of mcp:".to_owned()
            }
            Kind::TopicCredentials => format!(
                "an MCP topic and what it takes such as \"mcp:server:files=jwt+api_key\", of {}",
                one_of(CREDENTIALS)
            ),
            Kind::Cost => "a method and its cost such as \"tools/call=5\"".to_owned(),
            Kind::List(of) => format!("a list, each item {}", of.expected()),
            Kind::Pairs { name, text } => {
                format!("a table, each key {} and each value {}", name.expected(), text.expected())
            }
        }
    }

    /// Describes a value that this kind does not take; of what may be a secret it tells the type and the length alone.
    pub(super) fn came(self, raw: Raw<'_>) -> String {
        match (self, raw.text()) {
            (Kind::List(of), None) => came_in_list(*of, raw),
            (Kind::List(_) | Kind::Pairs { .. }, _) => raw.type_name().to_owned(),
            (_, Some(text)) if self.hides(text) => format!("one of {} bytes", text.len()),
            // A program's arguments may stand in the place of its name.
            (Kind::Text | Kind::Url, None) => raw.type_name().to_owned(),
            (_, None) if self.hides("") => raw.type_name().to_owned(),
            (_, Some(text)) => shown(text),
            (_, None) => raw.shown(),
        }
    }

    /// Whether a fault may not repeat this text.
    fn hides(self, text: &str) -> bool {
        match self {
            Kind::Secret { .. } | Kind::Hidden | Kind::Variable | Kind::HeaderName | Kind::HeaderValue => true,
            // A password stands before an `@`, a token in the query.
            Kind::Url => text.contains(['@', '?']),
            _ => false,
        }
    }
}

impl<'a> Raw<'a> {
    fn text(self) -> Option<&'a str> {
        match self {
            Raw::Text(text) => Some(text),
            Raw::Toml(value) => value.as_str(),
        }
    }

    fn count(self) -> Option<u64> {
        match self {
            Raw::Text(text) => count_from_text(text),
            Raw::Toml(value) => value.as_integer().and_then(count_from_integer),
        }
    }

    fn switch(self) -> Option<bool> {
        match self {
            Raw::Text(text) => text.parse().ok(),
            Raw::Toml(value) => value.as_bool(),
        }
    }

    /// The type of a value that is not text, with its article.
    pub(super) fn type_name(self) -> &'static str {
        match self {
            Raw::Text(_) | Raw::Toml(DeValue::String(_)) => "a text",
            Raw::Toml(DeValue::Integer(_)) => "a whole number",
            Raw::Toml(DeValue::Float(_)) => "a number with a fraction",
            Raw::Toml(DeValue::Boolean(_)) => "a truth value",
            Raw::Toml(DeValue::Datetime(_)) => "a date or time",
            Raw::Toml(DeValue::Array(_)) => "a list",
            Raw::Toml(DeValue::Table(_)) => "a table",
        }
    }

    fn shown(self) -> String {
        match self {
            Raw::Text(text) => shown(text),
            Raw::Toml(DeValue::Integer(integer)) if integer.radix() == 10 => cut(integer.as_str()),
            Raw::Toml(DeValue::Float(float)) => cut(float.as_str()),
            Raw::Toml(DeValue::Boolean(truth)) => truth.to_string(),
            Raw::Toml(DeValue::Array(list)) => {
                let items: Vec<String> = list.iter().map(|item| Raw::Toml(item.get_ref()).shown()).collect();
                cut(&format!("[{}]", items.join(", ")))
            }
            Raw::Toml(DeValue::String(text)) => shown(text),
            Raw::Toml(_) => self.type_name().to_owned(),
        }
    }
}

/// Reads decimal digits, which may be grouped by single underscores as in TOML: `8_000_000`.
fn count_from_text(text: &str) -> Option<u64> {
    let grouped_well =
        text.split('_').all(|group| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit()));
    if !grouped_well {
        return None;
    }
    text.replace('_', "").parse().ok()
}

fn count_from_integer(integer: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn read_list(of: Kind, raw: Raw<'_>) -> Option<Value> {
    match raw {
        // A list that is empty by default.
        Raw::Text("") => Some(Vec::new()),
        Raw::Text(text) => text.split(',').map(|item| of.read(Raw::Text(item))).collect::<Option<_>>(),
        Raw::Toml(DeValue::Array(list)) => list.iter().map(|item| of.read(Raw::Toml(item.get_ref()))).collect(),
        Raw::Toml(_) => None,
    }
    .map(Value::Array)
}

/// Describes the first item of a list that is faulty, or what came instead of a list.
fn came_in_list(of: Kind, raw: Raw<'_>) -> String {
    let Raw::Toml(DeValue::Array(list)) = raw else {
        return raw.type_name().to_owned();
    };
    let mut items = list.iter().map(|item| Raw::Toml(item.get_ref())).enumerate();
    let faulty = items.find(|(_, item)| of.read(*item).is_none());
    faulty.map_or("none".to_owned(), |(index, item)| format!("one whose item {} is {}", index + 1, of.came(item)))
}

fn read_origins(raw: Raw<'_>) -> Option<Value> {
    if let Some(text) = raw.text() {
        if ORIGIN_WORDS.contains(&text) {
            return Some(Value::String(text.to_owned()));
        }
        return text.split(',').map(str::trim).map(read_origin).collect::<Option<_>>().map(Value::Array);
    }
    let Raw::Toml(DeValue::Array(list)) = raw else {
        return None;
    };
    let origins: Option<Vec<Value>> = list.iter().map(|item| item.get_ref().as_str().and_then(read_origin)).collect();
    origins.filter(|origins| !origins.is_empty()).map(Value::Array)
}

fn read_origin(text: &str) -> Option<Value> {
    is_origin(text).then(|| Value::String(text.to_owned()))
}

fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, first)) if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => quoted.concat(),
    }
}

/// Writes a number from 10 000 up with an underscore every three digits, as TOML reads it.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    if digits.len() < 5 {
        return digits;
    }
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

pub(super) fn shown(text: &str) -> String {
    format!("{:?}", cut(text))
}

/// Writes a name that the file chose; it may not break the line.
pub(super) fn on_one_line(name: &str) -> String {
    cut(name).escape_debug().to_string()
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: Kind, taken: &[&str], refused: &[&str]) {
        for text in taken {
            assert!(kind.read(Raw::Text(text)).is_some(), "{kind:?} refuses {text:?}");
        }
        for text in refused {
            assert!(kind.read(Raw::Text(text)).is_none(), "{kind:?} takes {text:?}");
        }
    }

    #[test]
    fn counts_are_whole_decimal_and_within_their_bounds() {
        let kind = Kind::Count { unit: "bytes", min: 2, max: 1_000_000 };

        check(kind, &["2", "1000000", "1_000_000"], &["1", "1000001", "-2", "+2", "2.0", "2k", "", "_2", "2_", "1__0"]);
        check(kind, &[], &[" 2", "99999999999999999999999999", "0x10"]);
    }

    #[test]
    fn a_switch_takes_two_words_alone() {
        check(Kind::Switch, &["true", "false"], &["yes", "1", "TRUE", ""]);
    }

    #[test]
    fn an_address_is_an_ip_address_with_a_port() {
        check(Kind::Address, &["127.0.0.1:4000", "[::1]:0"], &["localhost:4000", "127.0.0.1", ":4000", "::1:4000x"]);
    }

    #[test]
    fn a_host_has_neither_scheme_nor_port() {
        check(
            Kind::Host,
            &["localhost", "chat.example.com", "127.0.0.1", "[::1]"],
            &["", "http://a", "a:80", "a b", "a..b", "[x]"],
        );
    }

    #[test]
    fn a_host_may_have_a_port_where_it_is_asked_for() {
        check(
            Kind::HostPort,
            &["localhost", "api.example.com:8080", "127.0.0.1:1", "[::1]", "[::1]:65535"],
            &["", "http://a", "a:0", "a:65536", "a:b", "a:", ":80", "a b:1", "::1", "a/b"],
        );
    }

    #[test]
    fn a_log_word_that_is_no_level_is_refused() {
        check(
            Kind::LogLevels,
            &["info", "warn,bennu::transport=debug"],
            &["inof", "", "info,", "bennu=loud", "=info", "INFO"],
        );
    }

    #[test]
    fn a_route_begins_with_a_slash_and_ends_without() {
        check(Kind::Route, &["/socket", "/a/b"], &["socket", "/", "/socket/", "//", "/a b", "/a?b", "/../a"]);
    }

    #[test]
    fn origins_are_words_or_origins_as_phoenix_writes_them() {
        check(
            Kind::Origins,
            &["host", "off", "conn", "https://a.example", "//a.example:8080, //*.b.example", "http://[::1]:4000"],
            &["", "true", "a.example", "https://a.example/", "https://a.example:0", "https://", "host,off", "1://a"],
        );
    }

    #[test]
    fn a_url_is_of_http_and_has_neither_user_nor_fragment() {
        check(
            Kind::Url,
            &["https://a.example/mcp", "http://127.0.0.1:4001", "http://[::1]:1/a?b=c", "https://a.example/@scope/mcp"],
            &["", "a.example/mcp", "ftp://a.example", "https://", "https:///mcp", "https://user:hush@a.example/"],
        );
        check(
            Kind::Url,
            &[],
            &["https://a.example/#part", "https://a.example/a b", "https://a.example:0", "HTTPS://a"],
        );
    }

    #[test]
    fn headers_are_tokens_with_ascii_texts() {
        check(Kind::HeaderName, &["X-Key", "authorization", "a!"], &["", "X Key", "X-Key:", "Ü", "a/b"]);
        check(Kind::HeaderValue, &["Bearer abc", "a"], &["", " a", "a\n", "a\r\nb: c", "ü", "a\0"]);
    }

    #[test]
    fn a_variables_name_has_neither_spaces_nor_an_equals_sign() {
        check(Kind::Variable, &["PATH", "npm_config_@a:registry"], &["", "A=B", "A B", "Ü", "A\0"]);
    }

    #[test]
    fn a_list_is_split_at_commas_where_it_is_a_text() {
        let kind = Kind::List(&Kind::Variable);

        let value = kind.read(Raw::Text("HOME,PATH"));

        assert_eq!(value, Some(Value::Array(vec!["HOME".into(), "PATH".into()])));
        check(kind, &[], &["HOME,", "HOME, PATH"]);
    }

    #[test]
    fn a_url_that_may_hold_a_secret_is_not_repeated() {
        let came = |text| Kind::Url.came(Raw::Text(text));

        assert_eq!(came("ftp://a.example"), "\"ftp://a.example\"");
        assert_eq!(came("https://user:hush@a.example"), "one of 27 bytes");
        assert_eq!(came("https//a.example?token=hush"), "one of 27 bytes");
    }

    #[test]
    fn a_long_value_is_cut_where_it_is_repeated() {
        let long = "x".repeat(1_000);

        let came = Kind::Switch.came(Raw::Text(&long));

        assert_eq!(came, format!("\"{}...\"", "x".repeat(SHOWN_CHARS_MAX)));
    }

    #[test]
    fn numbers_are_grouped_from_ten_thousand_up() {
        assert_eq!([9_999, 10_000, 1_048_576].map(grouped), ["9999", "10_000", "1_048_576"]);
    }
}
