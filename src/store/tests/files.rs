//! Files that go, are emptied or exchanged under an open store; empty ones, links, and what a killed process leaves.

use std::io;
use std::ops::Bound;
use std::sync::atomic::AtomicBool;

use redb::{BackendError, StorageBackend};

use super::*;
use crate::store::disk::{self, Backing};
use crate::store::file::File;

/// A file whose writes fail while its disk is down.
#[derive(Debug)]
struct Failing {
    inner: Box<dyn StorageBackend>,
    is_down: Arc<AtomicBool>,
}

impl Failing {
    fn works(&self) -> io::Result<()> {
        if self.is_down.load(Ordering::SeqCst) { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }
}

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.works()?;
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.works()?;
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.works()?;
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

/// Has a disk fail under an open store, of which an entry was answered, while `harm` is done to its file; then the disk works
/// again and a change is tried, and read. `mend` puts the file right, and all is there.
async fn fails_until_mended(
    harm: impl FnOnce(&Folder),
    is_told: impl Fn(&StoreError) -> bool,
    mend: impl FnOnce(&Folder),
) {
    let folder = Folder::new();
    let is_down = Arc::new(AtomicBool::new(false));
    let (file, down) = (disk::backing(folder.file()), Arc::clone(&is_down));
    let backing: Backing = Box::new(move |after_failure| {
        Ok(Box::new(Failing { inner: file(after_failure)?, is_down: Arc::clone(&down) }))
    });
    let file = File::open_on(folder.file(), backing).await.expect("a new file");
    let store = Store(Arc::new(Kept::File(file)));
    put(&store, A, "k", "answered").await.expect("put");

    is_down.store(true, Ordering::SeqCst);
    harm(&folder);
    put(&store, A, "k", "lost").await.expect_err("the disk is down");
    is_down.store(false, Ordering::SeqCst);

    let changed = put(&store, A, "l", "v").await.expect_err("it is not the file that was open");
    assert!(is_told(&changed), "{changed:?}");
    let read = store.get(A, "k").await.expect_err("it is not the file that was open");
    assert!(is_told(&read), "{read:?}");
    mend(&folder);
    put(&store, A, "l", "v").await.expect("the file is there again");
    assert_eq!(get(&store, A, "k").await.as_deref(), Some("answered"));
}

#[tokio::test]
async fn after_a_failed_write_a_file_that_is_missing_is_not_made_anew() {
    let aside = |folder: &Folder| folder.0.join("aside");

    fails_until_mended(
        |folder| std::fs::rename(folder.file(), aside(folder)).expect("renamed"),
        |error| matches!(error, StoreError::Failed { why, .. } if why.contains("No such file")),
        |folder| {
            assert!(!folder.file().exists(), "it was made anew");
            std::fs::rename(aside(folder), folder.file()).expect("renamed");
        },
    )
    .await;
}

#[tokio::test]
async fn after_a_failed_write_an_emptied_file_is_no_new_store() {
    let mut bytes = Vec::new();
    let content = std::cell::RefCell::new(&mut bytes);

    fails_until_mended(
        |folder| {
            **content.borrow_mut() = std::fs::read(folder.file()).expect("a file");
            std::fs::OpenOptions::new().write(true).truncate(true).open(folder.file()).expect("emptied");
        },
        |error| matches!(error, StoreError::Damaged { why, .. } if why.contains("it is empty")),
        |folder| {
            assert_eq!(std::fs::metadata(folder.file()).expect("a file").len(), 0, "it is left as it was");
            std::fs::write(folder.file(), &**content.borrow()).expect("written");
        },
    )
    .await;
}

#[tokio::test]
async fn after_a_failed_write_another_store_in_the_place_of_the_file_is_not_used() {
    let other = Folder::new();
    let store = Store::open(other.file()).await.expect("a new file");
    put(&store, A, "k", "of another").await.expect("put");
    store.close().await;
    let before = std::fs::read(other.file()).expect("a file");
    let aside = |folder: &Folder| folder.0.join("aside");

    fails_until_mended(
        |folder| {
            std::fs::rename(folder.file(), aside(folder)).expect("renamed");
            std::fs::copy(other.file(), folder.file()).expect("copied");
        },
        |error| matches!(error, StoreError::Failed { why, .. } if why.starts_with("another file is in the place")),
        |folder| {
            assert!(std::fs::read(folder.file()).expect("a file") == before, "it is left as it was");
            std::fs::rename(aside(folder), folder.file()).expect("renamed");
        },
    )
    .await;
}

#[tokio::test]
async fn an_empty_file_is_no_store_and_stays_empty() {
    let folder = Folder::new();
    std::fs::write(folder.file(), "").expect("written");

    let opened = Store::open(folder.file()).await.expect_err("empty");
    let verified = verify(&folder.file()).await.expect_err("empty");
    let to = folder.0.join("copy");
    let copied = copy_file(&folder.file(), new_file(&to).expect("new"), &to).await.expect_err("empty");

    for refused in [opened, verified, copied] {
        let is_told = matches!(&refused, StoreError::Damaged { path, .. } if *path == folder.file());
        assert!(is_told && refused.to_string().contains("it is empty"), "{refused:?}");
    }
    assert_eq!(std::fs::metadata(folder.file()).expect("a file").len(), 0);
}

#[tokio::test]
async fn what_a_killed_start_left_beside_does_not_stop_the_next() {
    let folder = Folder::new();
    let left = ["store.redb.new-0", "store.redb.new-1"].map(|name| folder.0.join(name));
    for name in &left {
        std::fs::write(name, "half of a store").expect("written");
    }

    let store = Store::open(folder.file()).await.expect("a new file");

    put(&store, A, "k", "v").await.expect("put");
    for name in &left {
        assert_eq!(std::fs::read_to_string(name).expect("still there"), "half of a store");
    }
    assert_eq!(std::fs::read_dir(&folder.0).expect("a folder").count(), 3);
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_that_leads_nowhere_yet_leads_to_the_new_store() {
    let folder = Folder::new();
    let disk = folder.0.join("disk");
    std::fs::create_dir(&disk).expect("a new folder");
    std::os::unix::fs::symlink("second", folder.file()).expect("a link");
    std::os::unix::fs::symlink(disk.join("real.redb"), folder.0.join("second")).expect("a link");

    let store = Store::open(folder.file()).await.expect("a new file");
    put(&store, A, "k", "v").await.expect("put");
    store.close().await;

    assert!(folder.file().is_symlink());
    let store = Store::open(disk.join("real.redb")).await.expect("it is where the link leads");
    assert_eq!(get(&store, A, "k").await.as_deref(), Some("v"));
    assert_eq!(std::fs::read_dir(&disk).expect("a folder").count(), 1);
}

#[test]
fn a_file_is_given_a_name_that_nobody_has_or_none() {
    let folder = Folder::new();
    let (taken, free) = (folder.0.join("taken"), folder.0.join("free"));
    std::fs::write(&taken, "of another").expect("written");
    let (_, unfinished) = new_beside(&taken).expect("a new file");

    let refused = name_file(&unfinished, &taken).expect_err("it is taken");
    name_file(&unfinished, &free).expect("nobody has it");

    assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read_to_string(&taken).expect("a file"), "of another");
    assert!(free.exists() && !unfinished.exists());
}
