//! Files of older and newer versions.

use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableDefinition};

use super::disk::{Disk, Fault, Operation};
use super::*;
use crate::store::format::{self, FORMAT};

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("bennu");

/// Two of the tables of bennu 0.4 to 0.7.
const OLD: [Table; 2] = [Table("api_keys"), Table("workflows")];

/// Entries of two tables as bennu 0.4 to 0.7 wrote them: redb's tables of bytes and nothing else.
fn of_format_1(database: &Database, entries: usize) {
    let transaction = database.begin_write().expect("begun");
    for Table(name) in OLD {
        let mut table = transaction.open_table(TableDefinition::<&[u8], &[u8]>::new(name)).expect("opened");
        for n in 0..entries {
            table.insert(&n.to_be_bytes()[..], format!("{name}{n}").as_bytes()).expect("inserted");
        }
    }
    transaction.commit().expect("committed");
}

async fn check(store: &Store, entries: usize) {
    for table in OLD {
        let name = table.0;
        let found = store.range(table, Keys::beginning_with(""), usize::MAX).await.expect("read");
        let expected: Vec<Entry> =
            (0..entries).map(|n| (n.to_be_bytes().to_vec(), format!("{name}{n}").into_bytes())).collect();
        assert!(found == expected, "{} entries of {name}", found.len());
    }
}

#[tokio::test]
async fn a_file_of_format_1_becomes_the_current_one_when_it_is_opened() {
    let folder = Folder::new();
    of_format_1(&Database::create(folder.file()).expect("a new file"), 5_000);
    let before = verify(&folder.file()).await.expect("whole");

    let store = Store::open(folder.file()).await.expect("an older file");
    check(&store, 5_000).await;
    put(&store, OLD[0], "new", "value").await.expect("put");
    store.close().await;

    let after = verify(&folder.file()).await.expect("whole");
    assert_eq!((before.format, before.version), (1, None));
    assert_eq!((after.format, after.version.as_deref()), (FORMAT, Some(env!("CARGO_PKG_VERSION"))));
    let counts = |verified: &[verify::VerifiedTable]| -> Vec<_> {
        verified.iter().map(|table| (table.name.clone(), table.entries)).collect()
    };
    assert_eq!(counts(&before.tables), [("api_keys".to_owned(), 5_000), ("workflows".to_owned(), 5_000)]);
    assert_eq!(counts(&after.tables), [("api_keys".to_owned(), 5_001), ("workflows".to_owned(), 5_000)]);
}

#[tokio::test]
async fn a_program_that_knows_format_1_alone_is_refused_the_tables() {
    let folder = Folder::new();
    let store = Store::open(folder.file()).await.expect("a new file");
    put(&store, A, "k", "v").await.expect("put");
    store.close().await;

    let database = Database::open(folder.file()).expect("a redb database");
    let transaction = database.begin_read().expect("begun");
    let refused = transaction.open_table(TableDefinition::<&[u8], &[u8]>::new("a")).expect_err("another type");

    assert!(matches!(refused, redb::TableError::TableTypeMismatch { .. }), "{refused}");
}

#[tokio::test]
async fn a_migration_that_is_broken_off_is_gone_on_with() {
    let mut broken_off = 0;
    for after in (0..).step_by(23) {
        let bytes = {
            let folder = Folder::new();
            of_format_1(&Database::create(folder.file()).expect("a new file"), 6_000);
            std::fs::read(folder.file()).expect("a file")
        };
        let disk = Disk::of(bytes);
        disk.fail(Fault { operations: &[Operation::Write], after, errno: Some(5) });
        let first = disk.open().await;
        disk.heal();
        refused_or_whole_to_format_1(&disk, 6_000);
        let is_done = first.is_ok();
        match first {
            Ok(store) => store.close().await,
            Err(error) => assert!(matches!(error, StoreError::Failed { .. }), "{error:?}"),
        }

        let store = disk.open().await.unwrap_or_else(|error| panic!("after {after} writes: {error:?}"));
        check(&store, 6_000).await;
        store.close().await;
        if is_done {
            break;
        }
        broken_off += 1;
    }
    assert!(broken_off > 3, "{broken_off}");
}

/// What a program makes of it that knows format 1 alone, as after a rollback: each table is refused or has all its entries.
fn refused_or_whole_to_format_1(disk: &Disk, entries: u64) {
    let bytes = disk.bytes();
    let backend = redb::backends::InMemoryBackend::new();
    redb::StorageBackend::set_len(&backend, bytes.len() as u64).expect("memory");
    redb::StorageBackend::write(&backend, 0, &bytes).expect("memory");
    let database = redb::Builder::new().create_with_backend(backend).expect("a redb database");
    let transaction = database.begin_read().expect("begun");
    for Table(name) in OLD {
        match transaction.open_table(TableDefinition::<&[u8], &[u8]>::new(name)) {
            Ok(table) => assert_eq!(table.len().expect("read"), entries, "{name}: the others would be lost"),
            Err(error) => assert!(matches!(error, redb::TableError::TableTypeMismatch { .. }), "{error}"),
        }
    }
}

#[tokio::test]
async fn a_half_moved_file_tells_all_its_entries() {
    let folder = Folder::new();
    let database = Database::create(folder.file()).expect("a new file");
    of_format_1(&database, 10);
    let transaction = database.begin_write().expect("begun");
    let plain = TableDefinition::<&[u8], &[u8]>::new("api_keys");
    transaction.rename_table(plain, TableDefinition::<&[u8], &[u8]>::new("bennu:1:api_keys")).expect("renamed");
    {
        let mut moved = transaction.open_table(format::Definition::new("api_keys")).expect("opened");
        moved.insert(&b"moved"[..], &*format::seal("api_keys", b"moved", b"value".to_vec())).expect("inserted");
    }
    transaction.commit().expect("committed");
    drop(database);

    let verified = verify(&folder.file()).await.expect("whole");
    let store = Store::open(folder.file()).await.expect("an older file");

    let counts: Vec<_> = verified.tables.iter().map(|table| (&*table.name, table.entries)).collect();
    assert_eq!((verified.format, &*counts), (1, &[("api_keys", 11), ("workflows", 10)][..]));
    assert_eq!(store.range(OLD[0], Keys::beginning_with(""), 100).await.expect("read").len(), 11);
    assert_eq!(get(&store, OLD[0], "moved").await.as_deref(), Some("value"));
}

#[tokio::test]
async fn a_database_of_another_program_is_left_as_it_is() {
    type Make = fn(&redb::WriteTransaction);
    let others: [Make; 4] = [
        |transaction| {
            let things = TableDefinition::<&[u8], &[u8]>::new("things");
            drop(transaction.open_table(things).expect("a new table"));
        },
        |transaction| {
            let keys = TableDefinition::<&str, u64>::new("api_keys");
            drop(transaction.open_table(keys).expect("a new table"));
        },
        |transaction| {
            let meta = TableDefinition::<u64, u64>::new("bennu");
            drop(transaction.open_table(meta).expect("a new table"));
        },
        |transaction| {
            let many = redb::MultimapTableDefinition::<&str, &str>::new("api_keys");
            drop(transaction.open_multimap_table(many).expect("a new table"));
        },
    ];
    for (n, make) in others.into_iter().enumerate() {
        let folder = Folder::new();
        let database = Database::create(folder.file()).expect("a new file");
        let transaction = database.begin_write().expect("begun");
        make(&transaction);
        transaction.commit().expect("committed");
        drop(database);
        let before = std::fs::read(folder.file()).expect("a file");

        let refused = Store::open(folder.file()).await.expect_err("of another program");

        assert_eq!(refused, StoreError::Foreign { path: folder.file() }, "{n}");
        assert!(std::fs::read(folder.file()).expect("a file") == before, "{n}: it is left as it was");
    }
}

#[tokio::test]
async fn a_newer_file_is_refused_and_left_as_it_is() {
    let folder = Folder::new();
    let store = Store::open(folder.file()).await.expect("a new file");
    put(&store, A, "k", "v").await.expect("put");
    store.close().await;
    let database = Database::open(folder.file()).expect("closed");
    let transaction = database.begin_write().expect("begun");
    {
        let mut meta = transaction.open_table(META).expect("opened");
        meta.insert("format", &(FORMAT + 1).to_be_bytes()[..]).expect("inserted");
        meta.insert("version", &b"9.9.9"[..]).expect("inserted");
    }
    transaction.commit().expect("committed");
    drop(database);
    // As a crash leaves it as well: its recovery would write.
    let clean = std::fs::read(folder.file()).expect("a file");
    let mut crashed = clean.clone();
    crashed[9] |= 2;

    for bytes in [clean, crashed] {
        std::fs::write(folder.file(), &bytes).expect("written");

        let refused = Store::open(folder.file()).await.expect_err("newer");
        let verified = verify(&folder.file()).await.expect_err("newer");

        let newer =
            StoreError::Newer { path: folder.file(), found: FORMAT + 1, known: FORMAT, writer: "9.9.9".to_owned() };
        assert_eq!((&refused, &verified), (&newer, &newer));
        let text = refused.to_string();
        assert!(text.contains("format 3, written by bennu 9.9.9") && text.contains("knows formats up to 2"), "{text}");
        assert!(std::fs::read(folder.file()).expect("a file") == bytes, "it is left as it was");
    }
}

#[tokio::test]
async fn a_database_without_tables_becomes_a_store() {
    let folder = Folder::new();
    // As bennu 0.4 to 0.7 left it before anything was put.
    drop(Database::create(folder.file()).expect("a new file"));

    let store = Store::open(folder.file()).await.expect("empty");
    put(&store, A, "k", "v").await.expect("put");
    store.close().await;

    let verified = verify(&folder.file()).await.expect("whole");
    assert_eq!((verified.format, verified.tables.len()), (FORMAT, 1));
}

#[test]
fn a_checksum_holds_a_value_to_its_place() {
    let sealed = format::seal("a", b"key", b"value".to_vec());

    assert_eq!(format::unseal("a", b"key", &sealed), Some(&b"value"[..]));
    assert_eq!(format::unseal("b", b"key", &sealed), None);
    assert_eq!(format::unseal("a", b"kez", &sealed), None);
    assert_eq!(format::unseal("ak", b"ey", &sealed), None);
    assert_eq!(format::unseal("a", b"key", &sealed[..sealed.len() - 1]), None);
    assert_eq!(format::unseal("a", b"key", b"abc"), None);
    for bit in 0..sealed.len() * 8 {
        let mut flipped = sealed.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(format::unseal("a", b"key", &flipped), None, "bit {bit}");
    }
}
