//! Copies of a store, and looking one over.

use super::*;

#[tokio::test]
async fn a_copy_has_what_was_stored_at_one_moment_while_changes_go_on() {
    let folder = Folder::new();
    let store = Store::open(folder.file()).await.expect("a new file");
    let pair = |n: usize| {
        store.change(move |change| {
            change.put(A, n.to_be_bytes(), vec![1; 40_000])?;
            change.put(B, n.to_be_bytes(), vec![2; 10])
        })
    };
    for n in 0..150 {
        pair(n).await.expect("stored");
    }

    let at = folder.0.join("copy.redb");
    let copying = store.copy_to(new_file(&at).expect("a new file"), at.clone());
    let changing = async {
        for n in 150..200 {
            pair(n).await.expect("stored");
        }
    };
    let (copied, ()) = futures::join!(copying, changing);

    let bytes = copied.expect("copied").expect("it has a file");
    let verified = verify(&at).await.expect("whole");
    assert_eq!((verified.bytes, std::fs::metadata(&at).expect("a file").len()), (bytes, bytes));
    let copy = Store::open(&at).await.expect("a store");
    let a = copy.range(A, Keys::beginning_with(""), 1_000).await.expect("read");
    let b = copy.range(B, Keys::beginning_with(""), 1_000).await.expect("read");
    assert!(a.len() >= 150, "{}", a.len());
    assert_eq!(a.iter().map(|(key, _)| key).collect::<Vec<_>>(), b.iter().map(|(key, _)| key).collect::<Vec<_>>());
    assert!(a.iter().all(|(_, value)| *value == vec![1; 40_000]) && b.iter().all(|(_, value)| *value == vec![2; 10]));
}

#[tokio::test]
async fn a_copy_that_cannot_be_written_harms_neither_the_store_nor_its_readers() {
    let folder = Folder::new();
    let store = Store::open(folder.file()).await.expect("a new file");
    put(&store, A, "k", "v").await.expect("put");
    // Opened for reading alone, it takes nothing.
    let at = folder.0.join("copy.redb");
    std::fs::write(&at, "").expect("written");
    let unwritable = std::fs::File::open(&at).expect("opened");

    let failed = store.copy_to(unwritable, at.clone()).await.expect_err("it can't be written");

    assert!(failed.to_string().contains("copy.redb"), "{failed}");
    assert_eq!(get(&store, A, "k").await.as_deref(), Some("v"));
    put(&store, A, "k", "w").await.expect("put");
    assert_eq!(Store::in_memory().copy_to(new_file(&folder.0.join("x")).expect("new"), at).await, Ok(None));
}

#[tokio::test]
async fn a_file_that_nobody_has_open_is_copied_and_stays_as_it_is() {
    let folder = Folder::new();
    let store = Store::open(folder.file()).await.expect("a new file");
    put(&store, A, "k", "v").await.expect("put");
    let crashed = folder.0.join("crashed.redb");
    std::fs::copy(folder.file(), &crashed).expect("copied");
    let before = std::fs::read(&crashed).expect("a file");

    let at = folder.0.join("copy.redb");
    copy_file(&crashed, new_file(&at).expect("new"), &at).await.expect("copied");
    let in_use = copy_file(&folder.file(), new_file(&folder.0.join("x")).expect("new"), &at).await;

    assert_eq!(in_use, Err(StoreError::InUse { path: folder.file() }));
    assert!(std::fs::read(&crashed).expect("a file") == before, "it is left as it was");
    let copy = Store::open(&at).await.expect("a store");
    assert_eq!(get(&copy, A, "k").await.as_deref(), Some("v"));
}

#[tokio::test]
async fn a_store_is_looked_over_without_a_change_to_it() {
    let folder = Folder::new();
    let store = Store::open(folder.file()).await.expect("a new file");
    put(&store, A, "k", "value").await.expect("put");
    put(&store, A, "l", "value").await.expect("put");
    put(&store, B, "key", "").await.expect("put");
    assert_eq!(verify(&folder.file()).await, Err(StoreError::InUse { path: folder.file() }));
    let crashed = folder.0.join("crashed.redb");
    std::fs::copy(folder.file(), &crashed).expect("copied");
    store.close().await;

    for file in [folder.file(), crashed] {
        let before = std::fs::read(&file).expect("a file");
        let verified = verify(&file).await.expect("whole");

        assert!(std::fs::read(&file).expect("a file") == before, "it is left as it was");
        let text = verified.to_string();
        let expected = format!(
            "store {}: whole, format 2 by bennu {}, {} bytes, 3 entries: a 2 (12 bytes), b 1 (3 bytes)",
            file.display(),
            env!("CARGO_PKG_VERSION"),
            before.len()
        );
        assert_eq!(text, expected);
    }
    let foreign = folder.0.join("foreign");
    std::fs::write(&foreign, "a text").expect("written");
    assert_eq!(verify(&foreign).await, Err(StoreError::Foreign { path: foreign }));
    assert!(matches!(verify(&folder.0.join("missing")).await, Err(StoreError::Failed { .. })));
}

#[tokio::test]
async fn entries_that_are_damaged_are_counted_by_table_and_not_copied() {
    let folder = Folder::new();
    let store = Store::open(folder.file()).await.expect("a new file");
    for key in ["k", "l", "m"] {
        put(&store, A, key, "value").await.expect("put");
        put(&store, B, key, "value").await.expect("put");
    }
    store.close().await;
    // As redb writes a page anew of which a bit was flipped meanwhile: its own checksums are right.
    let database = redb::Database::open(folder.file()).expect("closed");
    let transaction = database.begin_write().expect("begun");
    for (table, keys) in [("a", &["k", "m"][..]), ("b", &["l"])] {
        let mut table = transaction.open_table(format::Definition::new(table)).expect("opened");
        for key in keys {
            table.insert(key.as_bytes(), &b"valuf and its checksum"[..]).expect("inserted");
        }
    }
    transaction.commit().expect("committed");
    drop(database);

    let refused = verify(&folder.file()).await.expect_err("damaged");
    let to = folder.0.join("copy");
    let copied = copy_file(&folder.file(), new_file(&to).expect("new"), &to).await.expect_err("damaged");

    let why = "entries are not what was written: 2 of the table a, 1 of the table b".to_owned();
    assert_eq!(refused, StoreError::Damaged { path: folder.file(), why });
    assert!(matches!(copied, StoreError::Damaged { .. }), "{copied:?}");
}

#[tokio::test]
async fn a_store_that_two_make_at_once_is_one() {
    for _ in 0..20 {
        let folder = Folder::new();
        let opened = futures::future::join_all((0..4).map(|_| Store::open(folder.file()))).await;

        let mut stores = Vec::new();
        for outcome in opened {
            match outcome {
                Ok(store) => stores.push(store),
                Err(error) => assert_eq!(error, StoreError::InUse { path: folder.file() }),
            }
        }
        assert_eq!(stores.len(), 1, "one has it");
        put(&stores[0], A, "k", "v").await.expect("put");
        let files: Vec<_> =
            std::fs::read_dir(&folder.0).expect("a folder").map(|file| file.expect("a file").file_name()).collect();
        assert_eq!(files, ["store.redb"]);
    }
}
