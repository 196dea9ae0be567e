//! Holds the documents against the source: the import table of ARCHITECTURE.md, and what protocol.md and its siblings name.
//!
//! Reads text only. The checks are plain functions over a [`Tree`], so that the last tests can plant a violation in one
//! and see it found.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;

/// The heading above the table that this test enforces.
const TABLE_HEADING: &str = "## Modules and what they may import";

/// The heading above one entry a recording in which Phoenix behaves by accident.
const DIFFERENCES_HEADING: &str = "## Where Bennu differs from the recorded server";

/// Modules that know warp and hyper.
const HTTP_MODULES: [&str; 2] = ["server", "transport"];

/// The documents whose names of files, constants and settings have to exist.
const DOCUMENTS: [&str; 10] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "protocol.md",
    "docs/migrating.md",
    "docs/clients.md",
    "docs/queues.md",
    "docs/security.md",
    "fuzz/README.md",
];

/// A source tree: path below `src/` to text.
type Tree = BTreeMap<String, String>;

/// Module to the modules it may import.
type Table = BTreeMap<String, BTreeSet<String>>;

// ── what the source says ────────────────────────────────────────────────────────────────────────────────────────────

/// Rust text without comments, and with the insides of its literals left out. Line breaks stay.
fn code_of(text: &str) -> String {
    static SKIPPED: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(concat!(
            r#"(?s)//[^\n]*"#,
            r#"|/\*.*?\*/"#,
            r##"|\bb?c?r#".*?"#"##,
            r#"|\bb?c?r"[^"]*""#,
            r#"|"(?:[^"\\]|\\.)*""#,
            r#"|'(?:[^'\\\n]|\\[^\n]{1,9}?)'"#,
        ))
        .expect("the pattern is well formed")
    });
    SKIPPED
        .replace_all(text, |skipped: &regex::Captures<'_>| "\n".repeat(skipped[0].matches('\n').count()))
        .into_owned()
}

/// The module path of a file: `["mcp", "tools"]` for `mcp/tools/mod.rs`, none for the crate's roots.
fn module_of(path: &str) -> Vec<&str> {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" || path == "main" {
        return Vec::new();
    }
    path.split('/').collect()
}

/// The row of the table that a file belongs to.
fn row_of(path: &str) -> &str {
    let first = path.split('/').next().unwrap_or(path);
    first.strip_suffix(".rs").unwrap_or(first)
}

/// One use of a top-level module, and where.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Import {
    to: String,
    line: usize,
}

/// The top-level modules that a file names by `crate::X`, `crate::{X, Y}`, a chain of `super` that leaves its own
/// module, or, in the program, `bennu::X`.
fn imports(path: &str, text: &str) -> Vec<Import> {
    static TOKENS: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\b(?P<root>crate|bennu)\s*::\s*(?P<rest>\w+|\{)|(?P<up>(?:\bsuper\s*::\s*)+)(?P<name>\w+)|\bmod\s+\w+\s*(?P<open>\{)|(?P<brace>[{}])")
            .expect("the pattern is well formed")
    });
    let code = code_of(text);
    let is_program = path == "main.rs";
    let depth = module_of(path).len();
    // For each open brace, whether it is that of an inline module.
    let mut open: Vec<bool> = Vec::new();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(token) = TOKENS.captures_at(&code, at) {
        let whole = token.get(0).expect("group 0 always matches");
        at = whole.end();
        let line = 1 + code[..whole.start()].matches('\n').count();
        let mut push = |to: &str| found.push(Import { to: to.to_owned(), line });
        if let (Some(root), Some(rest)) = (token.name("root"), token.name("rest")) {
            if root.as_str() == "bennu" && !is_program {
                continue;
            }
            if rest.as_str() == "{" {
                let group = &code[rest.start()..];
                heads(group).for_each(&mut push);
                at = rest.end() - 1;
            } else {
                push(rest.as_str());
            }
        } else if let (Some(up), Some(name)) = (token.name("up"), token.name("name")) {
            let inline = open.iter().filter(|is_module| **is_module).count();
            if up.as_str().matches("super").count() >= depth + inline {
                push(name.as_str());
            }
        } else if token.name("open").is_some() {
            open.push(true);
        } else if whole.as_str() == "{" {
            open.push(false);
        } else {
            open.pop();
        }
    }
    found
}

/// The first names of a group `{a::b, c::{d, e}}`: `a` and `c`.
fn heads(group: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    let mut end = group.len();
    let mut starts = Vec::new();
    for (at, char) in group.char_indices() {
        match char {
            '{' => {
                depth += 1;
                if depth == 1 {
                    starts.push(at + 1);
                }
            }
            '}' => {
                depth -= 1;
                if depth == 0 {
                    end = at;
                    break;
                }
            }
            ',' if depth == 1 => starts.push(at + 1),
            _ => {}
        }
    }
    let group = &group[..end];
    starts.into_iter().filter_map(move |start| {
        let head = group.get(start..)?.trim_start();
        let length = head.find(|char: char| !char.is_alphanumeric() && char != '_').unwrap_or(head.len());
        (length > 0).then(|| &head[..length])
    })
}

/// The modules that `lib.rs` declares, and the program.
fn declared(tree: &Tree) -> BTreeSet<String> {
    static DECLARATION: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?m)^\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*;").expect("well formed"));
    let lib = code_of(tree.get("lib.rs").map_or("", String::as_str));
    let mut modules: BTreeSet<String> = DECLARATION.captures_iter(&lib).map(|found| found[1].to_owned()).collect();
    modules.insert("main".to_owned());
    modules
}

// ── what the documents say ──────────────────────────────────────────────────────────────────────────────────────────

/// The part of a document from a heading to the next one of its level or above.
fn section<'a>(document: &'a str, heading: &str) -> &'a str {
    let start =
        document.find(&format!("{heading}\n")).unwrap_or_else(|| panic!("a document has the heading {heading:?}"));
    let body = &document[start + heading.len()..];
    let level = heading.split(' ').next().expect("a heading starts with its marks");
    let end = (1..=level.len()).filter_map(|marks| body.find(&format!("\n{} ", "#".repeat(marks)))).min();
    &body[..end.unwrap_or(body.len())]
}

/// Reads the rows `| module | purpose | may import |`.
fn table_of(architecture: &str) -> Table {
    let rows = section(architecture, TABLE_HEADING).lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [module, _purpose, imports] = cells[..] else { panic!("a row of the table has three cells, got {row:?}") };
        let imports = match imports {
            "nothing" => BTreeSet::new(),
            list => list.split(',').map(|name| name.trim().to_owned()).collect(),
        };
        (module.to_owned(), imports)
    })
    .collect()
}

/// What stands in backticks, code blocks aside.
fn quoted(document: &str) -> impl Iterator<Item = &str> {
    static QUOTED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"`([^`\n]+)`").expect("well formed"));
    let prose = document.split("```").step_by(2);
    prose.flat_map(|prose| QUOTED.captures_iter(prose).map(|found| found.get(1).expect("the pattern has it").as_str()))
}

// ── the checks ──────────────────────────────────────────────────────────────────────────────────────────────────────

/// Every way in which a tree breaks its table, one line each.
fn violations(tree: &Tree, table: &Table) -> Vec<String> {
    let mut found = Vec::new();
    let declared = declared(tree);
    for module in declared.iter().filter(|module| !table.contains_key(*module)) {
        found.push(format!("module {module} has no row in the table of ARCHITECTURE.md"));
    }
    for module in table.keys().filter(|module| !declared.contains(*module)) {
        found.push(format!("the table of ARCHITECTURE.md has a row {module}, src/lib.rs declares no such module"));
    }
    for (module, allowed) in table {
        for to in allowed.iter().filter(|to| !table.contains_key(*to)) {
            found.push(format!("the table lets {module} import {to}, which has no row"));
        }
    }
    if table.get("protocol").is_some_and(|allowed| !allowed.is_empty()) {
        found.push("protocol may import nothing, whatever the table says".to_owned());
    }
    if let Some(cycle) = cycle(table) {
        found.push(format!("the table has a cycle: {}", cycle.join(" → ")));
    }

    for (path, text) in tree {
        let from = row_of(path);
        if from == "lib" {
            continue;
        }
        let Some(allowed) = table.get(from) else { continue };
        for Import { to, line } in imports(path, text) {
            if !declared.contains(&to) {
                found.push(format!("src/{path}:{line} names {to} of the crate, which is no module of it"));
            } else if to != from && !allowed.contains(&to) {
                let may = if allowed.is_empty() {
                    "nothing".to_owned()
                } else {
                    allowed.iter().cloned().collect::<Vec<_>>().join(", ")
                };
                found.push(format!("src/{path}:{line} imports {to}; {from} may import {may} (ARCHITECTURE.md)"));
            }
        }
        if !HTTP_MODULES.contains(&from) {
            found.extend(http_mentions(path, text));
        }
        if from == "protocol" {
            found.extend(impure_mentions(path, text));
        }
    }
    found
}

fn http_mentions(path: &str, text: &str) -> Vec<String> {
    static HTTP: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b(warp|hyper|hyper_util)\b").expect("well formed"));
    let code = code_of(text);
    let mention = |(at, line)| HTTP.find(line).map(|name| (at, name.as_str()));
    let mentions = code.lines().enumerate().filter_map(mention);
    mentions
        .map(|(at, name)| format!("src/{path}:{} names {name}; only {} may", at + 1, HTTP_MODULES.join(" and ")))
        .collect()
}

/// What the world is in std, by the names that code needs to reach it: files, threads, sockets, the environment, clocks, and
/// maps whose order is random.
fn impure_mentions(path: &str, text: &str) -> Vec<String> {
    static IMPURE: LazyLock<Regex> = LazyLock::new(|| {
        let modules = r"std\s*::\s*(?:fs|thread|net|env|process|io)\b";
        let grouped = r"\buse\s+std\s*::\s*\{[^;]*?\b(?:fs|thread|net|env|process|io)\b";
        let types = r"\b(?:Instant|SystemTime|HashMap|HashSet|RandomState|DefaultHasher|thread_local)\b";
        Regex::new(&format!("{modules}|{grouped}|{types}")).expect("well formed")
    });
    let code = code_of(text);
    let mentions = IMPURE.find_iter(&code).map(|name| (code[..name.start()].matches('\n').count() + 1, name.as_str()));
    mentions.map(|(line, name)| format!("src/{path}:{line} names {name}; protocol is pure")).collect()
}

/// A cycle of the table, if it has one.
fn cycle(table: &Table) -> Option<Vec<String>> {
    fn visit(table: &Table, module: &str, path: &mut Vec<String>, done: &mut BTreeSet<String>) -> bool {
        if let Some(at) = path.iter().position(|passed| passed == module) {
            path.drain(..at);
            path.push(module.to_owned());
            return true;
        }
        if done.contains(module) {
            return false;
        }
        path.push(module.to_owned());
        for to in table.get(module).into_iter().flatten() {
            if visit(table, to, path, done) {
                return true;
            }
        }
        path.pop();
        done.insert(module.to_owned());
        false
    }

    let (mut path, mut done) = (Vec::new(), BTreeSet::new());
    let has_one = table.keys().any(|module| visit(table, module, &mut path, &mut done));
    has_one.then_some(path)
}

// ── this project ────────────────────────────────────────────────────────────────────────────────────────────────────

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The Rust files below a folder of the project, by their path below it.
fn rust_files(folder: &str) -> Tree {
    fn gather(root: &Path, folder: &Path, tree: &mut Tree) {
        for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("the folder can be listed").path();
            if path.is_dir() {
                gather(root, &path, tree);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).expect("it lies below").to_str().expect("names are UTF-8");
                tree.insert(name.to_owned(), fs::read_to_string(&path).expect("sources are UTF-8"));
            }
        }
    }

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut tree = Tree::new();
    gather(&root, &root, &mut tree);
    tree
}

/// The names of the recordings, and of those in which Phoenix behaves by accident.
fn recordings() -> (Vec<String>, Vec<String>) {
    static ARTEFACT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#""artefact"\s*:\s*true"#).expect("well formed"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts/phoenix");
    let (mut all, mut artefacts) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).expect("the recordings are there") {
        let path = entry.expect("the folder can be listed").path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("names are UTF-8").to_owned();
        if ARTEFACT.is_match(&fs::read_to_string(&path).expect("recordings are UTF-8")) {
            artefacts.push(name.clone());
        }
        all.push(name);
    }
    all.sort();
    artefacts.sort();
    (all, artefacts)
}

#[track_caller]
fn expect_none(found: &[String]) {
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn imports_are_those_of_the_table() {
    let tree = rust_files("src");
    let table = table_of(&read("ARCHITECTURE.md"));

    assert!(tree.len() > 50 && table.len() > 10, "{} files, {} rows", tree.len(), table.len());
    expect_none(&violations(&tree, &table));
}

#[test]
fn the_table_allows_no_more_than_the_source_uses() {
    let table = table_of(&read("ARCHITECTURE.md"));
    let mut used: Table = table.keys().map(|module| (module.clone(), BTreeSet::new())).collect();
    for (path, text) in rust_files("src") {
        let from = row_of(&path);
        let imports = imports(&path, &text).into_iter().map(|import| import.to).filter(|to| to != from);
        used.entry(from.to_owned()).or_default().extend(imports);
    }

    let unused = table.iter().flat_map(|(module, allowed)| {
        let unused = allowed.difference(&used[module]);
        unused.map(move |to| format!("the table lets {module} import {to}, which it does not: take it out"))
    });
    expect_none(&unused.collect::<Vec<_>>());
}

#[test]
fn every_recording_is_named_in_protocol_md() {
    let protocol = read("protocol.md");
    let named: BTreeSet<&str> = quoted(&protocol).collect();

    let (all, _) = recordings();
    assert!(all.len() > 200, "{} recordings", all.len());
    let missing = all.iter().filter(|name| !named.contains(name.as_str()));
    expect_none(
        &missing.map(|name| format!("no chapter of protocol.md names the recording {name}")).collect::<Vec<_>>(),
    );
}

#[test]
fn every_difference_from_phoenix_is_described_and_has_its_test() {
    let protocol = read("protocol.md");
    let chapter = section(&protocol, DIFFERENCES_HEADING);
    let tests = read("tests/server/artefacts.rs");

    let (_, artefacts) = recordings();
    assert!(artefacts.len() > 10, "{} recordings", artefacts.len());
    let mut missing = Vec::new();
    for name in &artefacts {
        if !chapter.contains(&format!("`{name}`")) {
            missing.push(format!("{DIFFERENCES_HEADING:?} of protocol.md has no entry `{name}`"));
        }
        if !tests.contains(&format!("\nfn {name}()")) {
            missing.push(format!("tests/server/artefacts.rs has no test {name}"));
        }
    }
    expect_none(&missing);
}

#[test]
fn what_the_documents_name_exists() {
    static FILE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^(?:src|tests|docs|examples|scripts|benches|js-client|fuzz|\.ci)/[\w./-]*$|^[\w-]+\.(?:md|toml)$")
            .expect("well formed")
    });
    static LINK: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)").expect("well formed"));
    static CONSTANT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^[A-Z]+(?:_[A-Z0-9]+)+$").expect("well formed"));
    static SETTING: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^(server|auth|socket|longpoll|mcp)\.([a-z_]+)$").expect("well formed"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = rust_files("src").into_values().collect::<String>();
    let settings = read("docs/settings.md");

    let mut documents: Vec<String> = DOCUMENTS.map(str::to_owned).into();
    for entry in fs::read_dir(root.join("docs/adr")).expect("decisions are in docs/adr") {
        let name = entry.expect("the folder can be listed").file_name();
        documents.push(format!("docs/adr/{}", name.to_str().expect("names are UTF-8")));
    }

    let mut missing = Vec::new();
    let architecture = read("ARCHITECTURE.md");
    for decision in documents.iter().filter(|name| name.starts_with("docs/adr/")) {
        if !architecture.contains(&format!("({decision})")) {
            missing.push(format!("ARCHITECTURE.md lists no decision {decision}"));
        }
    }
    for name in &documents {
        let text = read(name);
        let folder = root.join(name).parent().expect("a document lies in a folder").to_owned();
        for link in LINK.captures_iter(&text) {
            if !folder.join(&link[1]).exists() {
                missing.push(format!("{name} links to {}, which is not there", &link[1]));
            }
        }
        for word in quoted(&text) {
            let is_there = if FILE.is_match(word) {
                // The settings file is the operator's, not ours.
                word == "bennu.toml" || root.join(word).exists()
            } else if CONSTANT.is_match(word) {
                word.starts_with("BENNU_") || sources.contains(&format!("const {word}:"))
            } else if let Some(setting) = SETTING.captures(word) {
                section(&settings, &format!("## [{}]", &setting[1])).contains(&format!("| `{}` |", &setting[2]))
                    || root.join(word).exists()
            } else {
                true
            };
            if !is_there {
                missing.push(format!("{name} names `{word}`, which is not there"));
            }
        }
    }
    expect_none(&missing);
}

// ── planted violations ──────────────────────────────────────────────────────────────────────────────────────────────

const PLANTED_TABLE: &str = "
## Modules and what they may import

| module | purpose | may import |
|---|---|---|
| protocol | pure | nothing |
| pubsub | fan-out | protocol |
| server | all | protocol, pubsub |
| main | runs it | server |

## Next
";

fn planted(files: &[(&str, &str)]) -> Vec<String> {
    let lib = ("lib.rs", "pub mod protocol;\npub mod pubsub;\n#[cfg(x)]\npub mod server;\n");
    let tree = [&[lib], files].concat().into_iter().map(|(path, text)| (path.to_owned(), text.to_owned()));
    violations(&tree.collect(), &table_of(PLANTED_TABLE))
}

#[test]
fn a_tree_that_keeps_to_its_table_passes() {
    let found = planted(&[
        (
            "protocol/mod.rs",
            "// crate::server in a comment\nconst A: &str = \"crate::server // warp\"; use crate::protocol::x;",
        ),
        ("pubsub/mod.rs", "use super::protocol; fn f<'a>(x: &'a str) { crate::protocol::g('\"', '\\'') }"),
        (
            "server/app.rs",
            "use crate::{protocol::{a, b}, pubsub, server::x}; use super::super::protocol; use warp::Filter;",
        ),
        (
            "server/mod.rs",
            "mod tests { use super::*; use super::super::pubsub; mod deep { use super::super::inner; } }",
        ),
        ("main.rs", "fn main() { bennu::server::run() }"),
    ]);

    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn an_import_upwards_is_found_however_it_is_written() {
    for text in [
        "use crate::server::x;",
        "use crate::{\n    protocol,\n    server,\n};",
        "fn f() { crate :: server::x() }",
        "mod tests { use super::super::server; }",
        "use super::server::x;",
        "fn f() {} mod tests { fn g() { if a { b } super::super::server::x() } }",
    ] {
        let found = planted(&[("pubsub/mod.rs", text)]);

        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].contains("imports server; pubsub may import protocol"), "{found:?}");
    }
    assert_eq!(
        planted(&[("protocol/a/b.rs", "\n\nuse super::super::super::pubsub;")]),
        ["src/protocol/a/b.rs:3 imports pubsub; protocol may import nothing (ARCHITECTURE.md)"]
    );
}

#[test]
fn warp_below_the_edges_is_found() {
    assert_eq!(
        planted(&[("pubsub/shard.rs", "use a;\nuse hyper_util::rt::TokioIo;")]),
        ["src/pubsub/shard.rs:2 names hyper_util; only server and transport may"]
    );
}

#[test]
fn a_protocol_that_reaches_for_the_world_is_found() {
    for (text, name) in [
        ("use std::fs;", "std::fs"),
        ("fn f() { std::thread::spawn(g) }", "std::thread"),
        ("use std::{fmt, net::TcpStream};", "use std::{fmt, net"),
        ("fn f() { let now = Instant::now(); }", "Instant"),
        ("use std::collections::HashMap;", "HashMap"),
    ] {
        assert_eq!(
            planted(&[("protocol/a.rs", text), ("pubsub/b.rs", text)]),
            [format!("src/protocol/a.rs:1 names {name}; protocol is pure")]
        );
    }
    assert!(planted(&[("protocol/a.rs", "use std::{fmt, io_lib}; // std::fs\nstruct Instantly;")]).is_empty());
}

#[test]
fn a_table_that_differs_from_the_modules_is_found() {
    let lib = "pub mod protocol;\nmod server;\nmod extra;";
    let tree: Tree = [("lib.rs", lib)].map(|(path, text)| (path.to_owned(), text.to_owned())).into();

    let found = violations(&tree, &table_of(PLANTED_TABLE));

    assert_eq!(
        found,
        [
            "module extra has no row in the table of ARCHITECTURE.md",
            "the table of ARCHITECTURE.md has a row pubsub, src/lib.rs declares no such module"
        ]
    );
}

#[test]
fn a_cycle_and_a_protocol_that_imports_are_found() {
    let table = table_of(&PLANTED_TABLE.replace("| pure | nothing |", "| pure | pubsub |"));
    let tree: Tree = [("lib.rs", "mod protocol; mod pubsub; mod server;")]
        .map(|(path, text)| (path.to_owned(), text.replace("; ", ";\n")))
        .into();

    let found = violations(&tree, &table);

    assert_eq!(
        found,
        ["protocol may import nothing, whatever the table says", "the table has a cycle: protocol → pubsub → protocol"]
    );
}
