//! A recorded conversation as its file holds it: the steps to play and what Phoenix answered.

use std::path::PathBuf;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

/// One file of `tests/transcripts/phoenix`. An unknown field is an error: nothing of a recording is passed over by accident.
pub struct Case {
    /// The file's name without `.json`.
    pub name: String,
    /// Which part of the protocol the case shows.
    pub group: String,
    /// What it shows, in a sentence.
    pub description: String,
    /// Played in order.
    pub steps: Vec<Step>,
    /// What was recorded from Phoenix.
    pub observed: Observed,
    /// Shows an accident of Phoenix's making; our own behaviour is held by a test in `artefacts.rs`.
    pub artefact: bool,
    /// Milliseconds to wait after the last step for what comes unasked.
    pub settle_ms: u64,
    /// What varies in Phoenix itself.
    pub racy: Racy,
    /// Replacements made in both texts before they are compared.
    pub rewrites: Vec<Rewrite>,
    /// The steps talk to a long-poll path: its tokens are volatile.
    pub uses_longpoll: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    name: String,
    group: String,
    description: String,
    steps: Box<RawValue>,
    observed: Observed,
    #[serde(default)]
    artefact: bool,
    #[serde(default = "default_settle_ms")]
    settle: u64,
    #[serde(default)]
    racy: Racy,
    #[serde(default)]
    normalize: Vec<Rewrite>,
    /// A list for the reader; `normalize` and the placeholders are what counts.
    #[serde(rename = "volatile")]
    _volatile: IgnoredAny,
    /// Key order never counts here.
    #[serde(default, rename = "key_order_unspecified")]
    _key_order_unspecified: bool,
}

fn default_settle_ms() -> u64 {
    60
}

impl Case {
    /// Parses a file's text.
    ///
    /// # Errors
    /// serde's, where the text isn't a recording of the shape this runner knows.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let record: Record = serde_json::from_str(text)?;
        Ok(Self {
            name: record.name,
            group: record.group,
            description: record.description,
            steps: serde_json::from_str(record.steps.get())?,
            observed: record.observed,
            artefact: record.artefact,
            settle_ms: record.settle,
            racy: record.racy,
            rewrites: record.normalize,
            uses_longpoll: record.steps.get().contains("longpoll"),
        })
    }

    /// Reads every recording, in the order of their names.
    ///
    /// # Panics
    /// If a file can't be read or parsed, or its `name` isn't that of the file.
    pub fn all() -> Vec<Self> {
        Self::all_as(|text| {
            Self::parse(text).unwrap_or_else(|error| panic!("{error}: {}", &text[..text.len().min(200)]))
        })
    }

    /// The same, with each text made a case by `parse`.
    ///
    /// # Panics
    /// As [`Case::all`].
    pub fn all_as(parse: impl Fn(&str) -> Self) -> Vec<Self> {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transcripts/phoenix"));
        let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.expect("the folder can be listed").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .collect();
        paths.sort();
        paths
            .iter()
            .map(|path| {
                let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                let case = parse(&text);
                assert_eq!(path.file_stem().and_then(|stem| stem.to_str()), Some(case.name.as_str()));
                case
            })
            .collect()
    }

    /// Reads the recording called `name`.
    pub fn named(name: &str) -> Self {
        Self::all().into_iter().find(|case| case.name == name).unwrap_or_else(|| panic!("no recording called {name}"))
    }
}

/// One thing a client does. Texts may hold `${name}`, a value saved from an earlier HTTP answer.
#[derive(Clone, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    Connect {
        client: String,
        path: String,
        #[serde(default)]
        qs: String,
        #[serde(default)]
        headers: Ordered<String>,
        subprotocols: Option<Vec<String>>,
        method: Option<String>,
        #[serde(default)]
        omit: Vec<String>,
        host: Option<String>,
        #[serde(default)]
        extra_frames: Vec<String>,
        #[serde(default)]
        no_close_echo: bool,
        timeout: Option<u64>,
    },
    /// Raw bytes on a new connection where `connect` sends a handshake.
    Tcp {
        client: String,
        send: String,
        timeout: Option<u64>,
    },
    Send {
        client: String,
        text: String,
    },
    SendRepeat {
        client: String,
        prefix: String,
        repeat: (String, usize),
        suffix: String,
    },
    /// Text frames in one write.
    SendMany {
        client: String,
        texts: Vec<String>,
    },
    SendBinary {
        client: String,
        base64: String,
    },
    Frame {
        client: String,
        opcode: u8,
        base64: Option<String>,
        text: Option<String>,
        fin: Option<bool>,
        mask: Option<bool>,
        #[serde(default)]
        rsv: u8,
    },
    RawBytes {
        client: String,
        base64: String,
    },
    Close {
        client: String,
        code: Option<u16>,
        #[serde(default)]
        reason: String,
    },
    TcpDestroy {
        client: String,
    },
    Recv {
        client: String,
        n: usize,
        timeout: Option<u64>,
        #[serde(default)]
        unordered: bool,
    },
    AwaitClosed {
        client: String,
        timeout: Option<u64>,
    },
    Wait {
        ms: u64,
    },
    Http(HttpStep),
    HttpAwait {
        id: String,
    },
    /// `server_shutdown` is played by `shutdown.rs`, not by the runner.
    #[serde(rename = "described in shutdown.mjs")]
    Described,
    Sigterm,
}

/// One HTTP request; with `async` the next steps don't wait for its answer.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpStep {
    pub id: Option<String>,
    pub method: String,
    pub path: String,
    pub qs: Option<String>,
    #[serde(default)]
    pub headers: Ordered<String>,
    pub body: Option<String>,
    pub body_base64: Option<String>,
    #[serde(default)]
    pub body_prefix: String,
    pub body_repeat: Option<(String, usize)>,
    #[serde(default)]
    pub body_suffix: String,
    /// Milliseconds without a byte before the request is given up.
    pub timeout: Option<u64>,
    /// Which fields of the JSON answer are kept, by the name they get.
    #[serde(default)]
    pub save: Ordered<String>,
    #[serde(default, rename = "async")]
    pub is_async: bool,
    /// Milliseconds between an `async` request and the next step.
    pub settle: Option<u64>,
}

/// What varies in Phoenix itself and how the comparison allows for it.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Racy {
    /// Frames that come or don't.
    #[serde(default)]
    pub optional: Vec<Optional>,
    /// Placeholders lose their numbers.
    #[serde(default)]
    pub renumber: bool,
    /// How messages are spread over polls: HTTP bodies and headers don't count.
    #[serde(default)]
    pub http_body: bool,
    #[serde(rename = "note")]
    _note: Option<IgnoredAny>,
}

/// A text frame of one client that may be missing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optional {
    pub client: String,
    /// Part of the frame's text.
    #[serde(rename = "match")]
    pub part: String,
}

/// A replacement of every match of a regular expression.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rewrite {
    pub re: String,
    pub to: String,
}

/// What the clients of one play saw.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observed {
    /// By client, in the order of their connecting.
    pub clients: Ordered<Vec<Event>>,
    /// In the order of the requests.
    pub http: Vec<HttpAnswer>,
    /// Of `server_shutdown` alone, whose test says what it expects: what its long-poll session saw, and when Phoenix ended.
    #[serde(default, rename = "longpoll_before")]
    _longpoll_before: IgnoredAny,
    #[serde(default, rename = "longpoll_waiting_poll")]
    _longpoll_waiting_poll: IgnoredAny,
    #[serde(default, rename = "process_gone_ms")]
    _process_gone_ms: IgnoredAny,
}

impl Observed {
    /// What was seen in one play.
    pub fn new(clients: Vec<(String, Vec<Event>)>, http: Vec<HttpAnswer>) -> Self {
        Self {
            clients: Ordered(clients),
            http,
            _longpoll_before: IgnoredAny,
            _longpoll_waiting_poll: IgnoredAny,
            _process_gone_ms: IgnoredAny,
        }
    }
}

/// One thing a client received.
///
/// `kind` is `open` (status, headers), `http_response` (status, headers, body: a refused handshake), `text` (raw),
/// `binary`, `ping`, `pong`, `continuation` or `opcode_N` (base64), `close` (code, reason), `protocol_violation` (what)
/// or `tcp_closed`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Event {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: Option<u16>,
    pub headers: Option<Vec<(String, String)>>,
    pub body: Option<String>,
    pub raw: Option<String>,
    /// The text isn't JSON.
    #[serde(default)]
    pub json_error: bool,
    pub base64: Option<String>,
    pub code: Option<u16>,
    pub reason: Option<String>,
    /// `Some(false)` on a fragment that isn't the last.
    pub fin: Option<bool>,
    /// The reserved bits, where one is set.
    pub rsv: Option<u8>,
    pub what: Option<String>,
    /// The `recv` step that consumed the frame.
    pub recv: Option<usize>,
    /// The text with placeholders for what is volatile; filled in by the comparison.
    #[serde(skip)]
    pub norm: Option<String>,
}

impl Event {
    /// An event of this kind with nothing else in it.
    pub fn of_kind(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), ..Self::default() }
    }

    /// The first header of this name, which is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(self.headers.as_deref().unwrap_or_default(), name)
    }
}

/// The answer to one HTTP request.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct HttpAnswer {
    pub step: usize,
    pub id: String,
    pub status: Option<u16>,
    pub headers: Option<Vec<(String, String)>>,
    pub body: Option<String>,
    /// Why there was no answer.
    pub error: Option<String>,
    /// As in [`Event::norm`].
    #[serde(skip)]
    pub norm: Option<String>,
}

/// The first of the headers of this name, which is given in lower case.
pub fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// A JSON object as pairs in the order of the text: headers are sent, and placeholders numbered, in that order.
#[derive(Clone, Debug)]
pub struct Ordered<V>(pub Vec<(String, V)>);

impl<V> Default for Ordered<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Ordered<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<V>(std::marker::PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for Pairs<V> {
            type Value = Ordered<V>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Ordered(pairs))
            }
        }

        deserializer.deserialize_map(Pairs(std::marker::PhantomData))
    }
}
