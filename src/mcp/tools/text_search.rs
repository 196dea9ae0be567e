//! `text_search`: finds lines that contain a text, in one folder that the operator names.
//!
//! What it can't reach: anything outside the folder. Symbolic links are never followed, wherever they point; names that
//! begin with a dot and, on Unix, files with a second hard link are left out, since the second may lie outside. The folder is the operator's: someone who may write into it *while* it is
//! searched could swap a folder for a link between two steps, and is trusted not to.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use super::{Arguments, ToolHandler, ToolOutput, Work};
use crate::mcp::{CallContext, CallError};
use crate::protocol::mcp::RESULT_BYTES_MAX;
use crate::protocol::mcp::content::Content;
use crate::protocol::mcp::tool::{ResourceLimits, ToolCapabilities, ToolMetadata, ToolSpec, object_schema};

const EXECUTION_MS_MAX: u64 = 30_000;
const QUERY_BYTES_MAX: usize = 1_000;
const PATH_BYTES_MAX: usize = 1_000;
const MATCHES_MAX: u64 = 1_000;
const MATCHES_DEFAULT: u64 = 100;
/// Characters of a matching line that are shown; the match lies among them.
const LINE_CHARS_MAX: usize = 200;
/// Characters shown before the match where a line is longer.
const LINE_CHARS_BEFORE: usize = 60;

/// What one search may read and show.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Folders deep.
    depth: usize,
    /// Names looked at, of files and of folders.
    names: usize,
    /// Files read.
    files: usize,
    /// Bytes of one file; a larger one is left out.
    file_bytes: u64,
    /// Bytes of all files.
    bytes: u64,
    /// Bytes of all matches, as they stand in the result.
    match_bytes: usize,
}

/// Bytes of a result that are left for what is no match.
const FRAME_BYTES: usize = 4_096;

const BOUNDS: Bounds = Bounds {
    depth: 32,
    names: 100_000,
    files: 10_000,
    file_bytes: 4 << 20,
    bytes: 256 << 20,
    match_bytes: RESULT_BYTES_MAX - FRAME_BYTES,
};

/// Searches a folder; without one it says so to whoever calls it.
#[derive(Clone, Debug)]
pub struct TextSearch {
    root: Option<PathBuf>,
}

impl TextSearch {
    /// A search of `root`, the setting `mcp.search_root`.
    pub fn new(root: Option<PathBuf>) -> Self {
        TextSearch { root }
    }
}

impl ToolHandler for TextSearch {
    fn spec(&self) -> ToolSpec {
        let properties = json!({
            "query": {
                "type": "string", "description": "The text to find, as it is",
                "minLength": 1, "maxLength": QUERY_BYTES_MAX
            },
            "path": {
                "type": "string", "description": "A folder or file below the searched folder; all of it by default",
                "minLength": 1, "maxLength": PATH_BYTES_MAX
            },
            "case_sensitive": {"type": "boolean", "description": "Whether a and A differ", "default": true},
            "max_matches": {
                "type": "integer", "description": "Lines to return at most",
                "minimum": 1, "maximum": MATCHES_MAX, "default": MATCHES_DEFAULT
            }
        });
        let Value::Object(properties) = properties else { unreachable!("written above as an object") };
        ToolSpec {
            description: "Finds the lines that contain a text, in the folder that the operator of this server has \
                          named. Links, hidden files and binary files are left out."
                .to_owned(),
            input_schema: object_schema(properties, &["query"]),
            capabilities: ToolCapabilities {
                supports_streaming: true,
                max_execution_time: EXECUTION_MS_MAX,
                resource_limits: ResourceLimits { max_file_size: Some(BOUNDS.file_bytes), ..ResourceLimits::default() },
                ..ToolCapabilities::default()
            },
            metadata: ToolMetadata::new("files", &["search", "progress"], EXECUTION_MS_MAX),
            ..ToolSpec::new("text_search")
        }
    }

    fn prepare(&self, arguments: Arguments<'_>) -> Result<Work, CallError> {
        let query = arguments.required_string("query", QUERY_BYTES_MAX)?;
        let needle = Needle::new(&query, arguments.flag("case_sensitive", true)?);
        let matches_max = arguments.integer("max_matches", 1..=MATCHES_MAX, Some(MATCHES_DEFAULT))?;
        let matches_max = usize::try_from(matches_max).expect("at most MATCHES_MAX");
        let below = arguments.string("path", PATH_BYTES_MAX)?.as_deref().map(relative).transpose()?.unwrap_or_default();
        let root = self.root.clone();
        Ok(Work::new(move |context| async move {
            let root = root.ok_or_else(|| {
                CallError::Failed(
                    "no folder to search: the operator of this server names one with mcp.search_root".to_owned(),
                )
            })?;
            let search = Search { root, below, needle, matches_max, bounds: BOUNDS };
            let found = context.on_thread(move |context| search.run(context)).await?;
            Ok(found.into_output())
        }))
    }
}

/// A path of plain names only.
fn relative(path: &str) -> Result<PathBuf, CallError> {
    let plain = Path::new(path).components().all(|part| match part {
        Component::Normal(name) => !is_hidden(&name.to_string_lossy()),
        Component::CurDir => true,
        Component::Prefix(_) | Component::RootDir | Component::ParentDir => false,
    });
    if plain {
        return Ok(PathBuf::from(path));
    }
    Err(CallError::InvalidArguments(format!(
        "path: expected a relative path without .. and hidden names, came {path:?}"
    )))
}

fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
}

/// The text to find.
#[derive(Clone, Debug)]
struct Needle {
    text: String,
    case_sensitive: bool,
}

impl Needle {
    fn new(query: &str, case_sensitive: bool) -> Self {
        let text = if case_sensitive { query.to_owned() } else { query.to_lowercase() };
        Needle { text, case_sensitive }
    }

    /// The matching line as it is shown, if it matches.
    fn excerpt(&self, line: &str) -> Option<String> {
        let folded = if self.case_sensitive { None } else { Some(line.to_lowercase()) };
        let haystack = folded.as_deref().unwrap_or(line);
        let at = haystack.find(&self.text)?;
        if line.chars().nth(LINE_CHARS_MAX).is_none() {
            return Some(line.to_owned());
        }
        // Lower case may have another number of characters: then the window is off by that much.
        let skip = haystack[..at].chars().count().saturating_sub(LINE_CHARS_BEFORE);
        Some(line.chars().skip(skip).take(LINE_CHARS_MAX).collect())
    }
}

#[derive(Debug)]
struct Search {
    root: PathBuf,
    below: PathBuf,
    needle: Needle,
    matches_max: usize,
    bounds: Bounds,
}

/// What a search has found and done.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    matches: Vec<Match>,
    files_scanned: u64,
    files_skipped: u64,
    bytes_read: u64,
    #[serde(skip)]
    match_bytes: usize,
    /// The bound that ended the search early; `bytes` is read or shown ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped_at: Option<&'static str>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Match {
    /// Below the searched folder, with `/`.
    file: String,
    /// From 1.
    line: u64,
    text: String,
}

impl Match {
    /// Bytes in the result: pretty JSON, and that again as a JSON string.
    fn bytes(&self) -> usize {
        /// A match stands deeper in the result than by itself: five lines, four blanks each, and a comma with its line.
        const NESTING: usize = 5 * 4 + 3;
        let pretty = serde_json::to_string_pretty(self).expect("strings and numbers always serialize");
        serde_json::to_string(&pretty).expect("a string always serializes").len() + NESTING
    }
}

impl Found {
    fn into_output(self) -> ToolOutput {
        let usage = BTreeMap::from([("filesScanned", self.files_scanned), ("bytesRead", self.bytes_read)]);
        let value = serde_json::to_value(&self).expect("strings and numbers always serialize");
        ToolOutput { content: vec![Content::json(&value)], usage, ..ToolOutput::default() }
    }
}

impl Search {
    fn run(&self, context: &CallContext) -> Result<Found, CallError> {
        // The operator's own links in the path to the folder count; those inside it don't.
        let root = self.root.canonicalize().map_err(|error| unreadable("the searched folder", &error))?;
        let start = self.start(&root)?;
        let mut found = Found::default();
        let files = self.list(&root, &start, &mut found, context)?;
        let total = files.len();
        for (index, file) in files.iter().enumerate() {
            context.check()?;
            if found.stopped_at.is_some_and(|bound| bound != "files" && bound != "names") {
                break;
            }
            self.scan(&root, file, &mut found);
            let message = format!("{} matches", found.matches.len());
            context.progress(as_f64(index + 1), Some(as_f64(total)), Some(message));
        }
        Ok(found)
    }

    /// Where the search begins: below the root, no link on the way.
    fn start(&self, root: &Path) -> Result<PathBuf, CallError> {
        let start = root.join(&self.below);
        let real = start.canonicalize().map_err(|error| unreadable("path", &error))?;
        // Without links the real path is the one asked for. Comparing components drops `.`.
        if real.components().eq(start.components()) {
            return Ok(real);
        }
        Err(CallError::InvalidArguments("path: expected a path without links, came one with".to_owned()))
    }

    /// The files to read, folder by folder in the order of their names.
    fn list(
        &self,
        root: &Path,
        start: &Path,
        found: &mut Found,
        context: &CallContext,
    ) -> Result<Vec<PathBuf>, CallError> {
        let kind = fs::symlink_metadata(start).map_err(|error| unreadable("path", &error))?.file_type();
        if kind.is_file() {
            return Ok(vec![start.to_owned()]);
        }
        let mut files = Vec::new();
        let mut names_seen = 0;
        let mut folders = vec![(start.to_owned(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            context.check()?;
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if folder == start => return Err(unreadable("path", &error)),
                Err(error) => {
                    let below = folder.strip_prefix(root).unwrap_or(&folder);
                    tracing::debug!(folder = %below.display(), %error, "unreadable");
                    found.files_skipped += 1;
                    continue;
                }
            };
            let (mut plain, mut inner) = (Vec::new(), Vec::new());
            for entry in entries.flatten() {
                names_seen += 1;
                if names_seen > self.bounds.names {
                    found.stopped_at = Some("names");
                    break;
                }
                if is_hidden(&entry.file_name().to_string_lossy()) {
                    continue;
                }
                // `file_type` does not follow links: a link is neither a file nor a folder.
                match entry.file_type() {
                    Ok(kind) if kind.is_file() => plain.push(entry.path()),
                    Ok(kind) if kind.is_dir() && depth < self.bounds.depth => inner.push((entry.path(), depth + 1)),
                    _ => found.files_skipped += 1,
                }
            }
            plain.sort();
            inner.sort();
            let room = self.bounds.files - files.len();
            if plain.len() > room {
                found.stopped_at = Some("files");
            }
            files.extend(plain.into_iter().take(room));
            if found.stopped_at.is_some() {
                break;
            }
            folders.extend(inner.into_iter().rev());
        }
        Ok(files)
    }

    fn scan(&self, root: &Path, path: &Path, found: &mut Found) {
        let text = match self.read(path, found) {
            Ok(Some(text)) => text,
            Ok(None) | Err(_) => {
                found.files_skipped += 1;
                return;
            }
        };
        found.files_scanned += 1;
        for (line, number) in text.lines().zip(1..) {
            let Some(text) = self.needle.excerpt(line) else {
                continue;
            };
            if found.matches.len() == self.matches_max {
                found.stopped_at = Some("matches");
                return;
            }
            let below = path.strip_prefix(root).unwrap_or(path);
            let shown = Match { file: below.to_string_lossy().into_owned(), line: number, text };
            found.match_bytes += shown.bytes();
            if found.match_bytes > self.bounds.match_bytes {
                found.stopped_at = Some("bytes");
                return;
            }
            found.matches.push(shown);
        }
    }

    /// The text of a file; `None` if it is too large, binary, linked from elsewhere, or not a file any more.
    fn read(&self, path: &Path, found: &mut Found) -> io::Result<Option<String>> {
        let file = File::open(path)?;
        let opened = file.metadata()?;
        if !opened.is_file() || opened.len() > self.bounds.file_bytes || !is_the_only_name(&opened, path)? {
            return Ok(None);
        }
        if found.bytes_read + opened.len() > self.bounds.bytes {
            found.stopped_at = Some("bytes");
            return Ok(None);
        }
        let mut content = Vec::new();
        // The file may have grown meanwhile.
        file.take(self.bounds.file_bytes).read_to_end(&mut content)?;
        found.bytes_read += content.len() as u64;
        let is_binary = content.iter().take(8_192).any(|byte| *byte == 0);
        Ok((!is_binary).then(|| String::from_utf8_lossy(&content).into_owned()))
    }
}

/// Whether what was opened is what stands at the path, no link, and under no second name.
#[cfg(unix)]
fn is_the_only_name(opened: &fs::Metadata, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;

    let named = fs::symlink_metadata(path)?;
    Ok(opened.nlink() == 1 && (named.dev(), named.ino()) == (opened.dev(), opened.ino()))
}

/// Whether the path is no link.
#[cfg(not(unix))]
fn is_the_only_name(_opened: &fs::Metadata, path: &Path) -> io::Result<bool> {
    Ok(fs::symlink_metadata(path)?.is_file())
}

/// Names what could not be read and the kind of failure, not where it lies on the server.
fn unreadable(what: &str, error: &io::Error) -> CallError {
    tracing::debug!(what, %error, "text_search can't read");
    CallError::Failed(format!("{what} can't be read: {}", error.kind()))
}

fn as_f64(value: usize) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::testing::{call, context, context_cancelled_after};
    use super::*;

    /// A folder that goes with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(files: &[(&str, &str)]) -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!("bennu-text-search-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let folder = Folder(std::env::temp_dir().join(name));
            fs::create_dir_all(&folder.0).expect("the temporary folder is writable");
            for (name, text) in files {
                let path = folder.0.join(name);
                fs::create_dir_all(path.parent().expect("below the folder")).expect("writable");
                fs::write(path, text).expect("writable");
            }
            folder
        }

        async fn search(&self, arguments: Value) -> Result<Value, CallError> {
            let output = call(TextSearch::new(Some(self.0.clone())), arguments, context().0).await?;
            let content = serde_json::to_value(&output.content[0]).expect("serializes");
            Ok(serde_json::from_str(content["text"].as_str().expect("a text")).expect("JSON"))
        }

        fn found(&self, needle: &str, bounds: Bounds) -> Found {
            let needle = Needle::new(needle, true);
            let search = Search { root: self.0.clone(), below: PathBuf::new(), needle, matches_max: 3, bounds };
            search.run(&context().0).expect("searches")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            // Left behind in the temporary folder if it fails; nothing depends on it.
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[tokio::test]
    async fn matching_lines_come_in_the_order_of_their_files() {
        let folder = Folder::new(&[
            ("b.txt", "one\nneedle two\n"),
            ("a/x.txt", "needle"),
            ("a.txt", "x needle"),
            ("c", "Needle"),
        ]);

        let found = folder.search(json!({"query": "needle"})).await.expect("searches");

        let expected = json!([
            {"file": "a.txt", "line": 1, "text": "x needle"},
            {"file": "b.txt", "line": 2, "text": "needle two"},
            {"file": "a/x.txt", "line": 1, "text": "needle"}
        ]);
        assert_eq!(found["matches"], expected);
        assert_eq!((&found["filesScanned"], &found["bytesRead"]), (&json!(4), &json!(15 + 6 + 8 + 6)));
        assert_eq!(found.get("stoppedAt"), None);
    }

    #[tokio::test]
    async fn a_path_narrows_the_search_and_case_can_be_ignored() {
        let folder = Folder::new(&[("a/x.txt", "ÄPFEL"), ("b/y.txt", "äpfel")]);

        let below = folder.search(json!({"query": "äpfel", "path": "./a", "case_sensitive": false})).await;
        let file = folder.search(json!({"query": "äpfel", "path": "b/y.txt"})).await;

        assert_eq!(below.expect("searches")["matches"], json!([{"file": "a/x.txt", "line": 1, "text": "ÄPFEL"}]));
        assert_eq!(file.expect("searches")["matches"], json!([{"file": "b/y.txt", "line": 1, "text": "äpfel"}]));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn no_link_leads_out_of_the_folder() {
        let outside = Folder::new(&[("secret.txt", "needle"), ("inner/secret.txt", "needle")]);
        let folder = Folder::new(&[("plain.txt", "needle")]);
        std::os::unix::fs::symlink(outside.0.join("secret.txt"), folder.0.join("file")).expect("links");
        std::os::unix::fs::symlink(outside.0.join("inner"), folder.0.join("folder")).expect("links");

        let found = folder.search(json!({"query": "needle"})).await.expect("searches");

        assert_eq!(found["matches"], json!([{"file": "plain.txt", "line": 1, "text": "needle"}]));
        for path in ["file", "folder", "folder/secret.txt", "..", "../x", "/etc", "plain.txt/..", ".git", "a/.b"] {
            let outcome = folder.search(json!({"query": "needle", "path": path})).await;
            assert!(outcome.is_err(), "{path}: {outcome:?}");
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_file_with_a_second_hard_link_is_left_out() {
        let outside = Folder::new(&[("secret.txt", "needle")]);
        let folder = Folder::new(&[("plain.txt", "needle")]);
        fs::hard_link(outside.0.join("secret.txt"), folder.0.join("also.txt")).expect("links");

        let all = folder.search(json!({"query": "needle"})).await.expect("searches");
        let alone = folder.search(json!({"query": "needle", "path": "also.txt"})).await.expect("searches");

        assert_eq!(all["matches"], json!([{"file": "plain.txt", "line": 1, "text": "needle"}]));
        assert_eq!((&all["filesSkipped"], &alone["matches"]), (&json!(1), &json!([])));
    }

    #[tokio::test]
    async fn a_result_stays_within_its_bound_however_much_its_text_is_escaped() {
        for (line, fits) in [("needle".to_owned(), true), (format!("needle{}", "\u{1}".repeat(190)), false)] {
            let folder = Folder::new(&[("a", &format!("{line}\n").repeat(1_000))]);
            let tool = TextSearch::new(Some(folder.0.clone()));

            let arguments = json!({"query": "needle", "max_matches": MATCHES_MAX});
            let output = call(tool, arguments, context().0).await.expect("searches");

            let encoded = serde_json::to_value(&output.content[0]).expect("serializes");
            let found: Value = serde_json::from_str(encoded["text"].as_str().expect("a text")).expect("JSON");
            let bytes = encoded.to_string().len();
            assert!(bytes <= RESULT_BYTES_MAX, "{bytes}");
            match fits {
                true => {
                    assert_eq!((found["matches"].as_array().map(Vec::len), found.get("stoppedAt")), (Some(1_000), None))
                }
                false => assert!(found["stoppedAt"] == "bytes" && bytes > RESULT_BYTES_MAX * 9 / 10, "{bytes}"),
            }
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn the_operators_own_link_to_the_folder_counts() {
        let folder = Folder::new(&[("real/a.txt", "needle")]);
        std::os::unix::fs::symlink(folder.0.join("real"), folder.0.join("link")).expect("links");

        let output = call(TextSearch::new(Some(folder.0.join("link"))), json!({"query": "needle"}), context().0).await;

        assert_eq!(output.expect("searches").usage["filesScanned"], 1);
    }

    #[tokio::test]
    async fn hidden_and_binary_files_are_left_out() {
        let folder =
            Folder::new(&[(".env", "needle"), (".git/config", "needle"), ("data.bin", "needle\0"), ("a", "needle")]);

        let found = folder.search(json!({"query": "needle"})).await.expect("searches");

        assert_eq!(found["matches"], json!([{"file": "a", "line": 1, "text": "needle"}]));
        assert_eq!(found["filesSkipped"], 1);
    }

    #[test]
    fn every_bound_ends_the_search_and_is_named() {
        let folder =
            Folder::new(&[("a", "needle\n"), ("b", "needle\n"), ("c", "needle\nneedle\n"), ("d/e", "needle\n")]);

        let all = folder.found("needle", BOUNDS);
        assert_eq!((all.matches.len(), all.stopped_at), (3, Some("matches")));

        let files = folder.found("needle", Bounds { files: 2, ..BOUNDS });
        assert_eq!((files.files_scanned, files.stopped_at), (2, Some("files")));

        let bytes = folder.found("needle", Bounds { bytes: 15, ..BOUNDS });
        assert_eq!((bytes.files_scanned, bytes.stopped_at), (2, Some("bytes")));

        let names = folder.found("needle", Bounds { names: 1, ..BOUNDS });
        assert_eq!(names.stopped_at, Some("names"));

        let large = folder.found("needle", Bounds { file_bytes: 7, ..BOUNDS });
        assert_eq!((large.files_scanned, large.files_skipped), (3, 1));

        let deep = folder.found("needle", Bounds { depth: 0, ..BOUNDS });
        assert_eq!((deep.files_scanned, deep.files_skipped), (3, 1));
    }

    #[test]
    fn of_a_long_line_the_part_around_the_match_is_shown() {
        let line = format!("{}needle{}", "ä".repeat(500), "b".repeat(500));

        let shown = Needle::new("needle", true).excerpt(&line).expect("matches");

        assert_eq!(shown.chars().count(), LINE_CHARS_MAX);
        assert_eq!(shown.chars().position(|c| c == 'n'), Some(LINE_CHARS_BEFORE));
    }

    #[tokio::test]
    async fn each_file_is_reported_and_a_cancelled_search_stops() {
        let folder = Folder::new(&[("a", "needle"), ("b", ""), ("c", "")]);
        let tool = || TextSearch::new(Some(folder.0.clone()));
        let (whole, told) = context();
        let (cut, told_until_cut) = context_cancelled_after(2);

        call(tool(), json!({"query": "needle"}), whole).await.expect("searches");
        let outcome = call(tool(), json!({"query": "needle"}), cut).await;

        let steps: Vec<_> = told.all().iter().map(|r| (r.progress, r.total)).collect();
        assert_eq!(steps, [(1.0, Some(3.0)), (2.0, Some(3.0)), (3.0, Some(3.0))]);
        assert_eq!((outcome, told_until_cut.all().len()), (Err(CallError::Cancelled), 2));
    }

    #[tokio::test]
    async fn without_a_folder_it_says_which_setting_is_missing() {
        let outcome = call(TextSearch::new(None), json!({"query": "x"}), context().0).await;

        assert!(matches!(&outcome, Err(CallError::Failed(text)) if text.contains("mcp.search_root")), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_folder_that_is_gone_is_named_without_its_place() {
        let tool = TextSearch::new(Some(PathBuf::from("/nowhere/at/all")));

        let error = call(tool, json!({"query": "x"}), context().0).await.expect_err("nothing there").to_string();

        assert!(error.contains("can't be read") && !error.contains("nowhere"), "{error}");
    }
}
