use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::query::query_folder;
use super::queue::{Batch, Waiting};
use super::*;
use crate::protocol::timestamp;
use crate::random;

/// 2026-11-22T17:29:15Z.
const NOW: u64 = 1_795_368_555_000_000;
const DAY: u64 = 86_400_000_000;
const MINUTE: u64 = 60_000_000;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        Folder(std::env::temp_dir().join(format!("bennu-audit-{:016x}", u64::from_be_bytes(random::bytes()))))
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(&self.0)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).expect("a file")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Not every test makes it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Masks what stands under `password`, at any depth.
fn redact(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), if key == "password" { json!("[REDACTED]") } else { redact(value) }))
            .collect(),
        Value::Array(values) => values.iter().map(redact).collect(),
        value => value.clone(),
    }
}

fn of(user: &str, operation: &str) -> NewEntry {
    NewEntry { user_id: Some(user.into()), operation: Some(operation.into()), ..NewEntry::new(EntryType::Operation) }
}

fn silent() -> Publish {
    Box::new(|_, _, _| {})
}

type Heard = Arc<Mutex<Vec<(String, String, Value)>>>;

fn listening() -> (Heard, Publish) {
    let heard = Heard::default();
    let publish = {
        let heard = Arc::clone(&heard);
        move |topic: &str, event: &str, json: Bytes| {
            let json = serde_json::from_slice(&json).expect("JSON");
            heard.lock().push((topic.to_owned(), event.to_owned(), json));
        }
    };
    (heard, Box::new(publish))
}

/// The thread's machine, with a time that the test says.
struct Machine(Writer, Arc<Shared>);

impl Machine {
    fn new(folder: &Folder, file_bytes_max: u64, retention_days: u64) -> Self {
        Self::publishing(folder, file_bytes_max, retention_days, silent())
    }

    fn publishing(folder: &Folder, file_bytes_max: u64, retention_days: u64, publish: Publish) -> Self {
        let ring = Ring { entries: VecDeque::new(), entries_max: 10, bytes: 0 };
        let shared = Arc::new(Shared { stats: Mutex::default(), ring: Mutex::new(ring) });
        let files = Appender::new(folder.0.clone(), file_bytes_max, retention_days);
        Machine(Writer::new(redact, publish, Some(files), Arc::clone(&shared)), shared)
    }

    fn record(&mut self, entry: NewEntry, unix_micros: u64) {
        self.record_all([(entry, unix_micros)]);
    }

    fn record_all(&mut self, entries: impl IntoIterator<Item = (NewEntry, u64)>) {
        let entries: Vec<_> = entries.into_iter().map(|(entry, unix_micros)| Waiting { entry, unix_micros }).collect();
        let now = entries.last().map_or(NOW, |last| last.unix_micros);
        self.0.take(Batch { entries, ..Batch::default() }, now);
    }

    fn stats(&self) -> AuditStats {
        self.1.stats.lock().clone()
    }
}

fn found(folder: &Path, filter: &Filter) -> Vec<String> {
    let found = query_folder(folder, filter).expect("read");
    found.entries.into_iter().map(|entry| entry.operation.unwrap_or_default()).collect()
}

fn all(folder: &Folder) -> Vec<String> {
    found(&folder.0, &Filter::default())
}

#[tokio::test]
async fn an_entry_is_written_without_secrets_and_without_nulls() {
    let folder = Folder::new();
    let (heard, publish) = listening();
    let options = AuditOptions { folder: Some(folder.0.clone()), ..AuditOptions::default() };
    let audit = Audit::start(options, redact, publish).expect("started");
    let entry = NewEntry {
        params: Some(json!({"name": "x", "deep": [{"password": "hunter2"}]})),
        result: Some(Value::Null),
        metadata: Metadata { ip_address: Some("::1".into()), duration_ms: Some(3), ..Metadata::default() },
        ..of("ann", "tools/call")
    };

    assert!(!format!("{entry:?}").contains("hunter2"));
    audit.record(entry);
    audit.flush().await;

    let names = folder.names();
    let text = folder.text(&names[0]);
    let mut line: Value = serde_json::from_str(text.strip_suffix('\n').expect("a line")).expect("JSON");
    let (id, timestamp) = (line["id"].take(), line["timestamp"].take());
    assert_eq!(id.as_str().map(str::len), Some(32));
    assert!(timestamp.as_str().and_then(timestamp::unix_micros).is_some_and(|at| at > NOW));
    assert_eq!(names, [format!("audit_{}.log", &timestamp.as_str().expect("a text")[..10])]);
    let expected = json!({
        "id": null, "timestamp": null, "type": "operation", "user_id": "ann", "operation": "tools/call",
        "params": {"name": "x", "deep": [{"password": "[REDACTED]"}]},
        "metadata": {"ip_address": "::1", "duration_ms": 3},
    });
    assert_eq!(line, expected);
    let heard = heard.lock();
    assert_eq!((heard[0].0.as_str(), heard[0].1.as_str()), (AUDIT_TOPIC, "audit_log"));
    assert_eq!(heard[0].2, serde_json::from_str::<Value>(&text).expect("JSON"));
}

#[tokio::test]
async fn without_a_folder_the_newest_entries_are_in_memory() {
    let options = AuditOptions { memory_entries_max: 3, ..AuditOptions::default() };
    let audit = Audit::start(options, redact, silent()).expect("started");

    for n in 0..5 {
        audit.record(of("ann", &n.to_string()));
    }

    let found = audit.query(Filter { limit: 2, ..Filter::default() }).await.expect("read");
    let operations: Vec<_> = found.entries.iter().filter_map(|entry| entry.operation.as_deref()).collect();
    assert_eq!((operations, found.is_cut), (vec!["4", "3"], true));
    let stats = audit.stats().await.expect("read");
    assert_eq!((stats.total_entries, stats.total_logged, stats.by_type[&EntryType::Operation]), (Some(3), 5, 5));
    assert_eq!(stats.newest_entry.as_ref(), Some(&found.entries[0].timestamp));
    assert!(stats.oldest_entry <= stats.newest_entry);
}

#[test]
fn a_full_file_is_followed_by_another() {
    let folder = Folder::new();
    let mut machine = Machine::new(&folder, 500, 90);

    for n in 0..10 {
        machine.record(of("ann", &n.to_string()), NOW + n);
    }
    machine.record_all((10..14).map(|n| (of("ann", &n.to_string()), NOW + n)));

    let names = folder.names();
    assert!(names.len() > 3 && names[1] == "audit_2026-11-22.log.1", "{names:?}");
    assert!(names.iter().all(|name| folder.text(name).len() <= 500));
    let expected: Vec<_> = (0..14).rev().map(|n| n.to_string()).collect();
    assert_eq!(all(&folder), expected);
    assert_eq!(machine.stats().files_rotated, names.len() as u64 - 1);
}

#[test]
fn a_line_above_the_limit_of_a_file_has_one_for_itself() {
    let folder = Folder::new();
    let mut machine = Machine::new(&folder, 10, 90);

    machine.record_all((0..3).map(|n| (of("ann", &n.to_string()), NOW)));

    assert_eq!(folder.names().len(), 3);
    assert_eq!(all(&folder), ["2", "1", "0"]);
}

#[test]
fn each_day_has_its_file_and_old_ones_are_deleted() {
    let folder = Folder::new();
    let mut machine = Machine::new(&folder, 1_000_000, 2);

    machine.record_all((0..3).map(|n| (of("ann", &n.to_string()), NOW + n * DAY)));
    assert_eq!(folder.names(), ["audit_2026-11-22.log", "audit_2026-11-23.log", "audit_2026-11-24.log"]);
    fs::write(folder.0.join("audit_2020-01-01.log.txt"), "another's").expect("written");
    machine.0.take(Batch::default(), NOW + 3 * DAY);

    assert_eq!(folder.names(), ["audit_2020-01-01.log.txt", "audit_2026-11-23.log", "audit_2026-11-24.log"]);
    assert_eq!(all(&folder), ["2", "1"]);
}

#[test]
fn a_restarted_process_appends_and_a_half_written_line_harms_no_other() {
    let folder = Folder::new();
    Machine::new(&folder, 1_000_000, 90).record(of("ann", "first"), NOW);
    let path = folder.0.join("audit_2026-11-22.log");
    let mut text = fs::read_to_string(&path).expect("a file");
    let half = text[..text.len() / 2].to_owned();
    text.push_str(&half);
    fs::write(&path, text).expect("written");

    Machine::new(&folder, 1_000_000, 90).record(of("ann", "second"), NOW + 1);

    let found = query_folder(&folder.0, &Filter::default()).expect("read");
    assert_eq!(all(&folder), ["second", "first"]);
    assert_eq!((found.damaged_lines, found.is_cut), (1, false));
}

#[test]
fn damaged_lines_are_passed_over_however_long_they_are() {
    let folder = Folder::new();
    let mut machine = Machine::new(&folder, 1_000_000, 90);
    machine.record(of("ann", "first"), NOW);
    let path = folder.0.join("audit_2026-11-22.log");
    let text = fs::read_to_string(&path).expect("a file");
    let long = "x".repeat(3 * LINE_BYTES_MAX);
    let odd = text.replace("operation\":\"first", "operation\":7,\"x\":\"");
    fs::write(&path, [text.as_bytes(), long.as_bytes(), b"\n\n\xff\xfe\0\n", odd.as_bytes(), text.as_bytes()].concat())
        .expect("written");

    let found = query_folder(&folder.0, &Filter::default()).expect("read");

    assert_eq!((found.entries.len(), found.damaged_lines), (2, 3));
}

#[test]
fn queries_find_what_a_plain_filter_over_all_entries_finds() {
    let folder = Folder::new();
    let mut machine = Machine::new(&folder, 4_000, 90);
    let word = |n: u64, of: u64| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % of;
    let mut entries = Vec::new();
    for n in 0..600_u64 {
        let entry_type = EntryType::ALL[usize::try_from(word(n, 6)).expect("small")];
        let entry = NewEntry {
            entry_type,
            client_id: (word(n, 5) > 1).then(|| format!("c{}", word(n + 1, 3))),
            ..of(&format!("u{}", word(n + 2, 3)), &format!("o{}", word(n + 3, 2)))
        };
        entries.push((entry, NOW + n * DAY / 200 + word(n, 1_000)));
    }
    for part in entries.chunks(7) {
        machine.record_all(part.to_vec());
    }
    let mut everything = Vec::new();
    for name in files::list(&folder.0).expect("read") {
        let text = fs::read_to_string(name.within(&folder.0)).expect("a file");
        everything.extend(text.lines().map(|line| serde_json::from_str::<Entry>(line).expect("an entry")));
    }
    assert_eq!(everything.len(), 600);
    everything.reverse();

    for n in 0..200_u64 {
        let some = |of, what: &str| (word(n + 11, 3) == of).then(|| format!("{what}{}", word(n + 12, 3)));
        let filter = Filter {
            from_unix_micros: (word(n, 2) == 0).then(|| NOW + word(n + 5, 4) * DAY / 2),
            to_unix_micros: (word(n + 1, 2) == 0).then(|| NOW + word(n + 6, 700) * DAY / 200),
            types: EntryType::ALL.into_iter().filter(|one| word(n + *one as u64, 3) == 0).collect(),
            user_id: some(0, "u"),
            client_id: some(1, "c"),
            operation: some(2, "o"),
            limit: [0, 1, 5, 1_000][usize::try_from(word(n + 7, 4)).expect("small")],
        };
        let micros = |entry: &Entry| timestamp::unix_micros(&entry.timestamp).expect("a moment");
        let matches = |entry: &&Entry| {
            filter.from_unix_micros.is_none_or(|from| from <= micros(entry))
                && filter.to_unix_micros.is_none_or(|to| micros(entry) < to)
                && (filter.types.is_empty() || filter.types.contains(&entry.entry_type))
                && (filter.user_id.is_none() || filter.user_id == entry.user_id)
                && (filter.client_id.is_none() || filter.client_id == entry.client_id)
                && (filter.operation.is_none() || filter.operation == entry.operation)
        };
        let matching: Vec<_> = everything.iter().filter(matches).cloned().collect();

        let found = query_folder(&folder.0, &filter).expect("read");

        assert_eq!(found.is_cut, matching.len() > filter.limit, "{filter:?}");
        assert_eq!(found.entries, matching[..matching.len().min(filter.limit)], "{filter:?}");
    }
}

#[test]
fn bounds_of_time_may_be_any_number() {
    let folder = Folder::new();
    Machine::new(&folder, 1_000, 90).record(of("ann", "first"), NOW);

    let filter = Filter { from_unix_micros: Some(0), to_unix_micros: Some(u64::MAX), ..Filter::default() };
    assert_eq!(found(&folder.0, &filter), ["first"]);
    let filter = Filter { from_unix_micros: Some(u64::MAX), ..Filter::default() };
    assert!(found(&folder.0, &filter).is_empty());
    assert!(found(&folder.0.join("nowhere"), &Filter::default()).is_empty());
}

#[test]
fn alerts_are_published_once_a_window() {
    let folder = Folder::new();
    let (heard, publish) = listening();
    let mut machine = Machine::publishing(&folder, 1_000_000, 90, publish);
    let alerts = |heard: &Heard| {
        let mut heard = heard.lock();
        let taken: Vec<_> = heard.drain(..).filter(|(topic, ..)| topic == ALERTS_TOPIC).collect();
        taken
            .into_iter()
            .map(|(_, event, json)| (event, json["metric"].clone(), json["count"].clone()))
            .collect::<Vec<_>>()
    };
    let alert = |metric: &str, count: u64| ("security_alert".to_owned(), json!(metric), json!(count));

    machine.record_all((0..9).map(|n| (NewEntry::authentication(false), NOW + n)));
    machine.record_all((0..9).map(|n| (NewEntry::authentication(true), NOW + n)));
    assert_eq!(alerts(&heard), []);
    machine.record_all((0..30).map(|n| (NewEntry::authentication(false), NOW + MINUTE - 30 + n)));
    assert_eq!(alerts(&heard), [alert("auth_failures", 10)]);
    machine.record_all((0..10).map(|n| (NewEntry::authentication(false), NOW + MINUTE + n)));
    machine.record_all((0..51).map(|n| (NewEntry::new(EntryType::RateLimit), NOW + n)));
    machine.record_all((0..6).map(|n| (NewEntry::new(EntryType::SecurityEvent), NOW + n)));
    let expected = [alert("auth_failures", 10), alert("rate_limits", 50), alert("security_events", 5)];
    assert_eq!(alerts(&heard), expected);
    machine.record_all((0..5).map(|n| (NewEntry::new(EntryType::SecurityEvent), NOW - 20 * MINUTE + n)));
    assert_eq!(alerts(&heard), [alert("security_events", 5)]);
    assert_eq!(machine.stats().alerts_triggered, 5);
}

#[tokio::test]
async fn writers_of_many_threads_lose_nothing() {
    let folder = Folder::new();
    let options = AuditOptions { folder: Some(folder.0.clone()), file_bytes_max: 20_000, ..AuditOptions::default() };
    let audit = Audit::start(options.clone(), redact, silent()).expect("started");
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let audit = audit.clone();
            std::thread::spawn(move || (0..500).for_each(|n| audit.record(of(&thread.to_string(), &n.to_string()))))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("ended"));
    audit.close().await;

    let again = Audit::start(options, redact, silent()).expect("started");
    for thread in 0..4 {
        let filter = Filter { user_id: Some(thread.to_string()), ..Filter::default() };
        let found = again.query(filter).await.expect("read");
        let operations: Vec<_> = found.entries.into_iter().filter_map(|entry| entry.operation).collect();
        assert_eq!(operations, (0..500).rev().map(|n| n.to_string()).collect::<Vec<_>>());
    }
    let everything = again.query(Filter { limit: 9_999, ..Filter::default() }).await.expect("read").entries;
    assert_eq!(everything.len(), 2_000);
    assert!(everything.is_sorted_by(|a, b| a.timestamp >= b.timestamp));
}

#[test]
fn a_full_queue_loses_entries_and_the_log_says_how_many() {
    let folder = Folder::new();
    let mut machine = Machine::new(&folder, 1_000_000, 90);
    let queue = Queue::new(3);

    for n in 0..10 {
        queue.push(of("ann", &n.to_string()), || NOW);
    }
    machine.0.take(queue.take(Duration::ZERO), NOW);
    queue.push(of("ann", "later"), || NOW);
    machine.0.take(queue.take(Duration::ZERO), NOW);

    assert_eq!(all(&folder), ["later", "audit.lost", "2", "1", "0"]);
    let lost = Filter { operation: Some("audit.lost".into()), ..Filter::default() };
    let lost = query_folder(&folder.0, &lost).expect("read").entries;
    assert_eq!(lost[0].result, Some(json!({"dropped": 7, "unwritten": 0})));
    assert_eq!(machine.stats().dropped, 7);
}

#[test]
fn the_queue_is_bounded_in_bytes_as_well() {
    let queue = Queue::new(1_000_000);
    let large = || NewEntry { params: Some(json!(["x".repeat(VALUE_BYTES_MAX - 100)])), ..of("ann", "large") };

    for _ in 0..3_000 {
        queue.push(large(), || NOW);
    }

    let batch = queue.take(Duration::ZERO);
    assert!((1_500..2_100).contains(&batch.entries.len()), "{}", batch.entries.len());
    assert_eq!(batch.entries.len() as u64 + batch.lost, 3_000);
    queue.push(large(), || NOW);
    assert_eq!(queue.take(Duration::ZERO).entries.len(), 1);
}

#[test]
fn what_is_too_large_is_left_out_before_it_waits() {
    let folder = Folder::new();
    let mut machine = Machine::new(&folder, 100_000_000, 90);
    let nested = |depth| (0..depth).fold(json!(1), |inner, _| json!([inner]));
    let (deepest, deep) = (nested(VALUE_DEPTH_MAX), nested(VALUE_DEPTH_MAX + 1));
    let omitted = json!({"omitted": "too large"});
    // Each character becomes six, so that both values together are longer than a line may be.
    let escaped = json!("\u{1}".repeat(VALUE_BYTES_MAX - 100));
    for (value, expected) in [
        (json!("x".repeat(VALUE_BYTES_MAX)), (Some(omitted.clone()), Some(omitted.clone()))),
        (json!(vec![0; VALUE_BYTES_MAX]), (Some(omitted.clone()), Some(omitted.clone()))),
        (json!({"k".repeat(VALUE_BYTES_MAX): 1}), (Some(omitted.clone()), Some(omitted.clone()))),
        (deepest.clone(), (Some(deepest.clone()), Some(deepest))),
        (deep, (Some(omitted.clone()), Some(omitted.clone()))),
        (escaped, (Some(omitted.clone()), None)),
    ] {
        let mut entry =
            NewEntry { params: Some(value.clone()), result: Some(value), ..of(&"ü".repeat(FIELD_BYTES_MAX), "large") };
        assert!(entry.bound() < 3 * VALUE_BYTES_MAX);
        machine.record(entry, NOW);

        let found = query_folder(&folder.0, &Filter { limit: 1, ..Filter::default() }).expect("read");
        assert_eq!((found.entries[0].params.clone(), found.entries[0].result.clone()), expected);
        assert_eq!(found.entries[0].user_id.as_ref().map(String::len), Some(FIELD_BYTES_MAX));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_counted_and_told_once_there_is_room() {
    let folder = Folder::new();
    fs::create_dir(&folder.0).expect("made");
    let path = folder.0.join("audit_2026-11-22.log");
    std::os::unix::fs::symlink("/dev/full", &path).expect("linked");
    let mut machine = Machine::new(&folder, 1_000_000, 90);

    machine.record_all((0..3).map(|n| (of("ann", &n.to_string()), NOW + n)));
    machine.record(of("ann", "3"), NOW + 4);
    assert_eq!(machine.stats().unwritten, 4 + 2, "the entries, and the two that would have told of them");
    fs::remove_file(&path).expect("removed");
    machine.record(of("ann", "4"), NOW + 5);
    machine.record(of("ann", "5"), NOW + 6);

    assert_eq!(all(&folder), ["5", "audit.lost", "4"]);
    let text = folder.text("audit_2026-11-22.log");
    assert!(text.contains(r#""result":{"dropped":0,"unwritten":4}"#), "{text}");
}

#[test]
fn a_folder_that_can_not_be_is_no_crash_and_one_that_went_is_made_again() {
    let folder = Folder::new();
    fs::write(&folder.0, "a file").expect("written");
    let mut machine = Machine::new(&folder, 1_000_000, 90);

    machine.record(of("ann", "0"), NOW);
    fs::remove_file(&folder.0).expect("removed");
    machine.record(of("ann", "1"), NOW);
    assert_eq!(all(&folder), ["audit.lost", "1"]);
}

#[tokio::test]
async fn functions_that_panic_do_not_end_the_log() {
    fn panics(value: &Value) -> Value {
        assert!(value.get("bad").is_none(), "bad");
        value.clone()
    }
    let publish = Box::new(|_: &str, _: &str, _: Bytes| panic!("nobody there"));
    let audit = Audit::start(AuditOptions::default(), panics, publish).expect("started");

    audit.record(NewEntry { params: Some(json!({"bad": 1})), ..of("ann", "bad") });
    audit.record(of("ann", "good"));

    let found = audit.query(Filter::default()).await.expect("read");
    assert_eq!(found.entries.len(), 1);
    assert_eq!(audit.stats().await.expect("read").dropped, 1);
}

#[tokio::test]
async fn a_closed_log_still_answers() {
    let audit = Audit::start(AuditOptions::default(), redact, silent()).expect("started");
    audit.record(of("ann", "first"));

    audit.close().await;
    audit.close().await;
    audit.record(of("ann", "second"));

    assert_eq!(audit.query(Filter::default()).await.expect("read").entries.len(), 1);
}

#[test]
fn entries_are_exported_as_lines_or_as_columns() {
    let folder = Folder::new();
    let mut machine = Machine::new(&folder, 1_000_000, 90);
    machine.record(
        NewEntry {
            client_id: Some("c,1".into()),
            result: Some(json!({"a": "b"})),
            metadata: Metadata { ip_address: Some("10.0.0.1".into()), ..Metadata::default() },
            ..of("=cmd|' /C calc'!A0", "tools/call")
        },
        NOW,
    );
    machine.record(NewEntry::authentication(false), NOW + 1);

    let exported = |format| {
        let mut export = Export::begin(Vec::new(), format).expect("written");
        let visited = each_in_folder(&folder.0, &Filter::default(), |entry, _| {
            export.write(&entry).expect("written");
            std::ops::ControlFlow::Continue(())
        });
        assert_eq!(visited.expect("read"), Visited { entries: 2, damaged_lines: 0, is_cut: false });
        String::from_utf8(export.end()).expect("UTF-8")
    };

    let expected = concat!(
        "timestamp,type,user_id,client_id,operation,result,ip_address\r\n",
        "2026-11-22T17:29:15.000001Z,authentication,,,,failure,\r\n",
        "2026-11-22T17:29:15.000000Z,operation,\"'=cmd|' /C calc'!A0\",\"c,1\",tools/call,\"{\"\"a\"\":\"\"b\"\"}\",10.0.0.1\r\n",
    );
    assert_eq!(exported(Format::Csv), expected);
    let lines = exported(Format::JsonLines);
    let mut lines: Vec<_> = lines.lines().collect();
    lines.reverse();
    assert_eq!(lines, folder.text("audit_2026-11-22.log").lines().collect::<Vec<_>>());
}
