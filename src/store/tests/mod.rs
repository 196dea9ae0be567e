//! One suite for both stores, and what is special of a file: strangers, a second handle. Below: disks that fail, files that go
//! or are exchanged, images that crashes leave, formats, copies.

mod copies;
mod disk;
mod faults;
mod files;
mod formats;
mod images;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;

const A: Table = Table("a");
const B: Table = Table("b");

/// A folder of the test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        let name = format!("bennu-store-{}-{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).expect("a new name in the folder for such");
        Folder(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("store.redb")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn new_file(path: &Path) -> std::io::Result<std::fs::File> {
    std::fs::File::options().read(true).write(true).create_new(true).open(path)
}

/// Runs a statement about stores on each kind.
async fn on_each(check: impl AsyncFn(&str, Store)) {
    let folder = Folder::new();
    check("in memory", Store::in_memory()).await;
    check("in a file", Store::open(folder.file()).await.expect("a new file")).await;
}

async fn put(store: &Store, table: Table, key: &str, value: &str) -> Result<(), StoreError> {
    let (key, value) = (key.to_owned(), value.to_owned());
    store.change(move |change| change.put(table, key, value)).await
}

async fn get(store: &Store, table: Table, key: &str) -> Option<String> {
    let value = store.get(table, key).await.expect("a store that can be read");
    value.map(|value| String::from_utf8(value).expect("a text was put"))
}

async fn keys(store: &Store, keys: Keys, limit: usize) -> Vec<String> {
    let entries = store.range(A, keys, limit).await.expect("a store that can be read");
    entries.into_iter().map(|(key, _)| String::from_utf8(key).expect("a text was put")).collect()
}

#[tokio::test]
async fn what_was_put_is_there_until_it_is_deleted() {
    on_each(async |kind, store| {
        assert_eq!(get(&store, A, "k").await, None, "{kind}");
        put(&store, A, "k", "1").await.expect("put");
        put(&store, B, "k", "2").await.expect("put");
        put(&store, A, "k", "3").await.expect("put");
        put(&store, A, "", "").await.expect("an empty key is a key");

        assert_eq!(get(&store, A, "k").await.as_deref(), Some("3"), "{kind}");
        assert_eq!(get(&store, B, "k").await.as_deref(), Some("2"), "{kind}");
        assert_eq!(get(&store, A, "").await.as_deref(), Some(""), "{kind}");
        let deleted: Result<(), StoreError> = store
            .change(|change| {
                change.delete(A, "k");
                change.delete(A, "never there");
                Ok(())
            })
            .await;
        assert_eq!((deleted, get(&store, A, "k").await), (Ok(()), None), "{kind}");
        assert_eq!(get(&store, B, "k").await.as_deref(), Some("2"), "{kind}");
    })
    .await;
}

#[tokio::test]
async fn ranges_are_in_the_order_of_bytes_and_no_longer_than_asked_for() {
    on_each(async |kind, store| {
        for key in ["b", "aa", "a", "c", "ab", "b\u{10ffff}"] {
            put(&store, A, key, "").await.expect("put");
        }

        let all = ["a", "aa", "ab", "b", "b\u{10ffff}", "c"];
        assert_eq!(keys(&store, Keys::beginning_with(""), 100).await, all, "{kind}");
        assert_eq!(keys(&store, Keys::beginning_with(""), 2).await, all[..2], "{kind}");
        assert_eq!(keys(&store, Keys::beginning_with(""), 0).await, [""; 0], "{kind}");
        assert_eq!(keys(&store, Keys::beginning_with("a"), 100).await, all[..3], "{kind}");
        assert_eq!(keys(&store, Keys::beginning_with("b"), 100).await, all[3..5], "{kind}");
        assert_eq!(keys(&store, Keys::beginning_with("d"), 100).await, [""; 0], "{kind}");
        let backwards = Keys { from: b"c".to_vec(), to: Some(b"a".to_vec()) };
        assert_eq!(keys(&store, backwards, 100).await, [""; 0], "{kind}");
        let missing = store.range(Table("missing"), Keys::beginning_with(""), 9).await;
        assert_eq!(missing, Ok(Vec::new()), "{kind}");
    })
    .await;
}

#[test]
fn a_prefix_ends_where_the_next_begins() {
    assert_eq!(Keys::beginning_with("ab").to, Some(b"ac".to_vec()));
    assert_eq!(Keys::beginning_with([1, 255, 255]).to, Some(vec![2]));
    assert_eq!(Keys::beginning_with([255]).to, None);
    assert_eq!(Keys::beginning_with("").to, None);
}

#[tokio::test]
async fn a_change_sees_what_it_changed_itself() {
    on_each(async |kind, store| {
        for key in ["a", "b", "c"] {
            put(&store, A, key, "old").await.expect("put");
        }

        let seen = store.change(|change| {
            change.put(A, "bb", "new")?;
            change.put(A, "c", "new")?;
            change.delete(A, "a");
            let entries = change.range(A, &Keys::beginning_with(""), 2)?;
            Ok::<_, StoreError>((entries, change.get(A, b"c")?, change.get(A, b"a")?))
        });

        let (entries, c, a) = seen.await.expect("changed");
        assert_eq!(entries, [(b"b".to_vec(), b"old".to_vec()), (b"bb".to_vec(), b"new".to_vec())], "{kind}");
        assert_eq!((c.as_deref(), a), (Some(&b"new"[..]), None), "{kind}");
        assert_eq!(keys(&store, Keys::beginning_with(""), 9).await, ["b", "bb", "c"], "{kind}");
    })
    .await;
}

#[tokio::test]
async fn a_change_that_fails_changes_nothing() {
    #[derive(Debug, PartialEq)]
    enum Refused {
        Store(StoreError),
        Other,
    }

    impl From<StoreError> for Refused {
        fn from(error: StoreError) -> Self {
            Refused::Store(error)
        }
    }

    on_each(async |kind, store| {
        let refused: Result<(), _> = store
            .change(|change| {
                change.put(A, "k", "1")?;
                Err(Refused::Other)
            })
            .await;
        assert_eq!((refused, get(&store, A, "k").await), (Err(Refused::Other), None), "{kind}");

        let panicking = store.clone();
        let panicked = tokio::spawn(async move {
            let work = |change: &mut Transaction<'_>| -> Result<(), StoreError> {
                change.put(A, "k", "1")?;
                panic!("planted")
            };
            panicking.change(work).await
        });
        let panic = panicked.await.expect_err("the panic goes on").into_panic();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"planted"), "{kind}");
        assert_eq!(get(&store, A, "k").await, None, "{kind}");
        put(&store, A, "k", "2").await.expect("others go on");
    })
    .await;
}

#[tokio::test]
async fn keys_values_and_changes_are_bounded() {
    on_each(async |kind, store| {
        let put_of = async |key: usize, value: usize| {
            store.change(move |change| change.put(A, vec![1; key], vec![1; value])).await
        };
        let too_large = |what, limit: usize| Err(StoreError::TooLarge { what, came: limit + 1, limit });

        assert_eq!(put_of(KEY_BYTES_MAX, VALUE_BYTES_MAX).await, Ok(()), "{kind}");
        assert_eq!(put_of(KEY_BYTES_MAX + 1, 0).await, too_large("a key", KEY_BYTES_MAX), "{kind}");
        assert_eq!(put_of(1, VALUE_BYTES_MAX + 1).await, too_large("a value", VALUE_BYTES_MAX), "{kind}");
        let many: Result<(), StoreError> = store
            .change(|change| {
                (0..=CHANGE_BYTES_MAX / VALUE_BYTES_MAX).try_for_each(|_| change.put(A, "k", vec![1; VALUE_BYTES_MAX]))
            })
            .await;
        assert!(matches!(many, Err(StoreError::TooLarge { what: "a transaction", .. })), "{kind}: {many:?}");
        assert_eq!(get(&store, A, "k").await, None, "{kind}");
    })
    .await;
}

#[tokio::test]
async fn changes_at_once_happen_one_after_another() {
    on_each(async |kind, store| {
        let count = |change: &mut Transaction<'_>| -> Result<(), StoreError> {
            let before = change.get(A, b"n")?.map_or(0, |value| value[0]);
            change.put(A, "n", [before + 1])
        };

        let all = futures::future::join_all((0..200).map(|_| store.change(count))).await;

        assert!(all.into_iter().all(|counted| counted.is_ok()), "{kind}");
        assert_eq!(store.get(A, "n").await, Ok(Some(vec![200])), "{kind}");
    })
    .await;
}

#[tokio::test]
async fn a_change_is_made_where_nobody_waits_for_it() {
    let folder = Folder::new();
    let store = Store::open(folder.file()).await.expect("a new file");
    let (begun, beginning) = std::sync::mpsc::channel();
    let (go, going) = std::sync::mpsc::channel::<()>();
    let slow = store.change(move |change| {
        begun.send(()).expect("the test waits");
        going.recv().expect("the test goes on");
        change.put(A, "k", "1")
    });

    let abandoned = tokio::time::timeout(std::time::Duration::from_millis(1), slow).await;
    beginning.recv().expect("it begins");
    go.send(()).expect("it waits");

    assert!(abandoned.is_err());
    put(&store, A, "after", "").await.expect("put");
    assert_eq!(get(&store, A, "k").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_full_memory_takes_what_makes_it_smaller() {
    let store = Store::in_memory();
    let large =
        |n: usize| store.change(move |change| change.put(A, [u8::try_from(n).expect("few")], vec![0; VALUE_BYTES_MAX]));
    let mut n = 0;
    while large(n).await.is_ok() {
        n += 1;
    }

    assert_eq!(n, MEMORY_BYTES_MAX / VALUE_BYTES_MAX - 1, "keys count as well");
    assert_eq!(large(n).await, Err(StoreError::Full { limit: MEMORY_BYTES_MAX }));
    assert_eq!(large(0).await, Ok(()), "the same again");
    let fewer: Result<(), StoreError> = store
        .change(|change| {
            change.delete(A, [0]);
            Ok(())
        })
        .await;
    assert_eq!((fewer, large(n).await), (Ok(()), Ok(())));
}

#[tokio::test]
async fn what_was_stored_is_there_when_the_file_is_opened_again() {
    let folder = Folder::new();
    let store = Store::open(folder.file()).await.expect("a new file");
    put(&store, A, "k", "1").await.expect("put");
    store.close().await;
    assert_eq!(put(&store, A, "k", "2").await, Err(StoreError::Closed));
    assert_eq!(store.get(A, "k").await, Err(StoreError::Closed));

    let store = Store::open(folder.file()).await.expect("closed by the first");
    assert_eq!(get(&store, A, "k").await.as_deref(), Some("1"));
    put(&store, A, "k", "3").await.expect("put");
    drop(store);

    // The thread of the dropped one ends in its own time.
    let store = loop {
        match Store::open(folder.file()).await {
            Err(StoreError::InUse { .. }) => tokio::task::yield_now().await,
            opened => break opened.expect("closed by the second"),
        }
    };
    assert_eq!(get(&store, A, "k").await.as_deref(), Some("3"));
}

/// The file as a crash at this moment leaves it.
fn crash(file: &Path, image: &Path) {
    std::fs::copy(file, image).expect("the file can be read");
}

#[tokio::test]
async fn after_a_crash_everything_is_there_that_was_stored_and_no_half_of_a_change() {
    let folder = Folder::new();
    let store = Store::open(folder.file()).await.expect("a new file");
    let stored = Arc::new(AtomicUsize::new(0));
    let (writer, counter) = (store.clone(), Arc::clone(&stored));
    let writing = tokio::spawn(async move {
        for n in 0..200_usize {
            let pair: Result<(), StoreError> = writer
                .change(move |change| {
                    change.put(A, n.to_be_bytes(), vec![1; 3_000])?;
                    change.put(B, n.to_be_bytes(), vec![2; 3_000])
                })
                .await;
            pair.expect("stored");
            counter.store(n + 1, Ordering::SeqCst);
        }
    });

    let mut images = 0;
    while !writing.is_finished() {
        let least = stored.load(Ordering::SeqCst);
        let image = folder.0.join(format!("image{images}"));
        let (from, to) = (folder.file(), image.clone());
        // A copy is of no one moment, unlike a crash: it is taken where nothing is written meanwhile.
        let copied = store.change(move |_| {
            crash(&from, &to);
            Ok::<_, StoreError>(())
        });
        copied.await.expect("copied");
        let after = Store::open(image).await.expect("an image of a crash is opened");
        let (a, b) = (
            after.range(A, Keys::beginning_with(""), 1_000).await.expect("read"),
            after.range(B, Keys::beginning_with(""), 1_000).await.expect("read"),
        );
        assert!(a.len() >= least, "{} of {least}", a.len());
        assert_eq!(a.iter().map(|(key, _)| key).collect::<Vec<_>>(), b.iter().map(|(key, _)| key).collect::<Vec<_>>());
        images += 1;
    }

    writing.await.expect("written");
    assert!(images > 0);
}

#[tokio::test]
async fn a_file_that_is_no_store_is_left_as_it_is() {
    let folder = Folder::new();
    for content in ["x", "[server]\nmode = \"development\"\n", &"a long text ".repeat(10_000)] {
        std::fs::write(folder.file(), content).expect("written");

        let refused = Store::open(folder.file()).await.expect_err("no store");

        assert_eq!(refused, StoreError::Foreign { path: folder.file() });
        assert!(refused.to_string().contains("store.redb is no store"), "{refused}");
        assert_eq!(std::fs::read_to_string(folder.file()).expect("still there"), content);
    }
}

#[tokio::test]
async fn a_damaged_store_is_said_to_be_so() {
    let folder = Folder::new();
    let store = Store::open(folder.file()).await.expect("a new file");
    put(&store, A, "k", &"v".repeat(100_000)).await.expect("put");
    store.close().await;
    let whole = std::fs::read(folder.file()).expect("a file");
    let mut overwritten = whole.clone();
    overwritten[64..4_096].fill(0xff);
    let shorter = [10, 320, 4_096, whole.len() / 2, whole.len() - 1].map(|length| whole[..length].to_vec());

    for bytes in shorter.into_iter().chain([overwritten]) {
        std::fs::write(folder.file(), &bytes).expect("written");

        let refused = Store::open(folder.file()).await.expect_err("damaged");

        assert!(matches!(refused, StoreError::Damaged { .. }), "of {} bytes: {refused:?}", bytes.len());
        assert!(refused.to_string().contains("store.redb"), "{refused}");
    }
}

#[tokio::test]
async fn a_file_is_one_handles() {
    let folder = Folder::new();
    let first = Store::open(folder.file()).await.expect("a new file");
    put(&first, A, "k", "1").await.expect("put");

    let second = Store::open(folder.file()).await.expect_err("in use");

    assert_eq!(second, StoreError::InUse { path: folder.file() });
    assert!(second.to_string().ends_with("is in use: another process has it open"), "{second}");
    assert_eq!(get(&first, A, "k").await.as_deref(), Some("1"), "the first goes on");
}

#[tokio::test]
async fn a_place_where_no_file_can_be_is_named() {
    let folder = Folder::new();

    let missing = Store::open(folder.0.join("no/store")).await.expect_err("no such folder");
    let is_folder = Store::open(folder.0.clone()).await.expect_err("a folder");

    assert!(missing.to_string().contains("no/store: No such file or directory"), "{missing}");
    assert!(is_folder.to_string().contains("directory"), "{is_folder}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_new_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;

    let folder = Folder::new();
    let _store = Store::open(folder.file()).await.expect("a new file");

    let mode = std::fs::metadata(folder.file()).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// One change of the property below: keys of a small set to a value, or to none.
type Step = Vec<(u8, Option<u8>)>;

fn steps() -> impl Strategy<Value = Vec<(Step, bool)>> {
    let step = proptest::collection::vec((0..12_u8, proptest::option::of(any::<u8>())), 0..6);
    proptest::collection::vec((step, any::<bool>()), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Changes, some of which fail, against a plain map; and the same after the file is opened again.
    #[test]
    fn a_store_holds_what_a_map_would(steps in steps(), prefix in 0..3_u8, limit in 0..8_usize) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        runtime.block_on(async {
            let folder = Folder::new();
            for in_memory in [true, false] {
                let mut model = BTreeMap::new();
                let mut store =
                    if in_memory { Store::in_memory() } else { Store::open(folder.file()).await.expect("a file") };
                let key = |n: u8| vec![n / 4, n % 4];
                let expect = |model: &BTreeMap<Vec<u8>, Vec<u8>>| -> Vec<Entry> {
                    let within = model.iter().filter(|(key, _)| key[0] == prefix);
                    within.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect()
                };
                for (step, counts) in steps.clone() {
                    let mut changed = model.clone();
                    for (n, value) in &step {
                        match value {
                            Some(value) => changed.insert(key(*n), vec![*value]),
                            None => changed.remove(&key(*n)),
                        };
                    }
                    let seen = store.change(move |change| {
                        for (n, value) in step {
                            match value {
                                Some(value) => change.put(A, key(n), [value])?,
                                None => change.delete(A, key(n)),
                            }
                        }
                        let seen = change.range(A, &Keys::beginning_with([prefix]), limit)?;
                        if counts { Ok(seen) } else { Err(StoreError::Closed) }
                    }).await;
                    if counts {
                        assert_eq!(seen, Ok(expect(&changed)));
                        model = changed;
                    }
                }
                if !in_memory {
                    store.close().await;
                    store = Store::open(folder.file()).await.expect("closed");
                }
                assert_eq!(store.range(A, Keys::beginning_with([prefix]), limit).await, Ok(expect(&model)));
                store.close().await;
            }
        });
    }
}
