//! Disks that are full, fail or may not be written: what was answered stays, and when the disk works again, so does the store.

use super::disk::{Disk, EIO, Fault, Operation};
use super::*;

const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

async fn put_nth(store: &Store, n: usize) -> Result<(), StoreError> {
    store
        .change(move |change| {
            change.put(A, n.to_be_bytes(), vec![u8::try_from(n % 251).expect("it is below"); 3_000])?;
            change.put(B, n.to_be_bytes(), vec![u8::try_from(n % 251).expect("it is below"); 30])
        })
        .await
}

/// Which numbers are there; each is, in both tables and with its value, or is not at all.
async fn numbers(store: &Store) -> Vec<usize> {
    let a = store.range(A, Keys::beginning_with(""), 10_000).await.expect("a store that can be read");
    let b = store.range(B, Keys::beginning_with(""), 10_000).await.expect("a store that can be read");
    let of = |entries: Vec<Entry>, length: usize| -> Vec<usize> {
        let number = |(key, value): (Vec<u8>, Vec<u8>)| {
            let n = usize::from_be_bytes(key.try_into().expect("a number"));
            assert_eq!(value, vec![u8::try_from(n % 251).expect("it is below"); length]);
            n
        };
        entries.into_iter().map(number).collect()
    };
    let a = of(a, 3_000);
    assert_eq!(a, of(b, 30));
    a
}

/// Fails after so many operations; gives how many changes were answered before.
async fn fails_and_heals(fault: Fault, expected: impl Fn(&StoreError) -> bool) -> usize {
    let disk = Disk::default();
    let store = disk.open().await.expect("a new disk");
    put_nth(&store, 0).await.expect("it works");
    disk.fail(fault);

    let mut answered = vec![0];
    let mut error = None;
    for n in 1..200 {
        match put_nth(&store, n).await {
            Ok(()) => answered.push(n),
            Err(failed) => {
                error = Some((n, failed));
                break;
            }
        }
    }
    let (unclear, error) = error.expect("200 changes need more operations than that");
    assert!(expected(&error), "{fault:?}: {error:?}");
    match store.get(A, 0_usize.to_be_bytes()).await {
        Ok(value) => assert_eq!(value, Some(vec![0; 3_000]), "{fault:?}"),
        Err(error) => assert!(expected(&error), "{fault:?}: {error:?}"),
    }
    // Another operation than what failed may be what this one begins with.
    let further = put_nth(&store, 1_000).await;
    if further.is_ok() {
        answered.push(1_000);
    }
    disk.heal();

    put_nth(&store, 2_000).await.unwrap_or_else(|error| panic!("{fault:?}: it works again, but {error:?}"));
    answered.push(2_000);
    let check = |numbers: Vec<usize>| {
        let others: Vec<_> =
            numbers.into_iter().filter(|n| *n != unclear && (further.is_ok() || *n != 1_000)).collect();
        assert_eq!(others, answered, "{fault:?}");
    };
    check(numbers(&store).await);
    store.close().await;
    let store = disk.open().await.expect("closed");
    check(numbers(&store).await);
    store.close().await;
    answered.len()
}

#[tokio::test]
async fn a_failed_write_is_an_error_and_passes_when_the_disk_does() {
    let mut answered = 0;
    for operations in
        [&[Operation::Write][..], &[Operation::Sync], &[Operation::Write, Operation::SetLen, Operation::Sync]]
    {
        for (n, errno) in [ENOSPC, EIO, EROFS, ENOSPC, EIO, EROFS, ENOSPC].into_iter().enumerate() {
            let fault = Fault { operations, after: n * n, errno: Some(errno) };
            let text = std::io::Error::from_raw_os_error(errno).to_string();
            answered +=
                fails_and_heals(fault, |error| matches!(error, StoreError::Failed { why, .. } if *why == text)).await;
        }
    }
    assert!(answered > 2 * 21, "some fail after the first change: {answered}");
}

#[tokio::test]
async fn a_disk_that_can_be_written_but_not_read_is_read_again_when_it_can() {
    for after in [0, 1, 3] {
        let disk = Disk::default();
        let store = disk.open().await.expect("a new disk");
        for n in 0..20 {
            put_nth(&store, n).await.expect("it works");
        }
        store.close().await;
        let store = disk.open().await.expect("closed");
        disk.fail(Fault { operations: &[Operation::Read], after, errno: Some(EIO) });

        let mut failed = 0;
        for n in 0..20_usize {
            match store.get(A, n.to_be_bytes()).await {
                Ok(value) => assert!(value.is_some_and(|value| value.len() == 3_000)),
                Err(StoreError::Failed { why, .. }) => {
                    assert!(why.starts_with("Input/output error"), "{why}");
                    failed += 1;
                }
                Err(other) => panic!("{other:?}"),
            }
            if failed > 1 {
                break;
            }
        }
        disk.heal();

        assert!(failed > 0);
        assert_eq!(numbers(&store).await, (0..20).collect::<Vec<_>>());
        put_nth(&store, 20).await.expect("it works");
    }
}

#[tokio::test]
async fn a_group_whose_write_fails_is_there_whole_or_not_at_all() {
    let mut failed = Vec::new();
    for after in 0..12 {
        let disk = Disk::default();
        let store = disk.open().await.expect("a new disk");
        put_nth(&store, 0).await.expect("it works");
        let (begun, beginning) = std::sync::mpsc::channel();
        let (go, going) = std::sync::mpsc::channel::<()>();
        // While this one is made the others come to wait.
        let first = store.change(move |_| {
            begun.send(()).expect("the test waits");
            going.recv().expect("the test goes on");
            Ok::<_, StoreError>(())
        });
        let group = async {
            tokio::task::spawn_blocking(move || beginning.recv()).await.expect("no panic").expect("it begins");
            let mut all = std::pin::pin!(futures::future::join_all((1..=20).map(|n| put_nth(&store, n))));
            assert!(futures::poll!(&mut all).is_pending(), "all of them wait");
            disk.fail(Fault { operations: &[Operation::Write, Operation::Sync], after, errno: Some(ENOSPC) });
            go.send(()).expect("it waits");
            all.await
        };
        let (first, group) = futures::join!(first, group);
        disk.heal();

        assert_eq!(first, Ok(()));
        let there = numbers(&store).await.len() - 1;
        match group.iter().filter(|stored| stored.is_ok()).count() {
            20 => assert_eq!(there, 20),
            0 => failed.push(there),
            some => panic!("after {after}: {some} of one group are stored"),
        }
        put_nth(&store, 100).await.expect("it works again");
    }
    assert!(failed.iter().all(|there| [0, 20].contains(there)) && failed.contains(&0), "{failed:?}");
}

#[tokio::test]
async fn a_panic_below_reaches_nobody_and_the_store_goes_on() {
    for operations in [&[Operation::Write][..], &[Operation::Sync]] {
        for after in [0, 1, 2, 5] {
            let fault = Fault { operations, after, errno: None };
            fails_and_heals(fault, |error| {
                matches!(error, StoreError::Damaged { why, .. } if why.contains("planted"))
                    || matches!(error, StoreError::Failed { .. })
            })
            .await;
        }
    }
}

#[tokio::test]
async fn nothing_of_a_group_is_stored_in_which_redb_panicked() {
    let disk = Disk::default();
    let store = disk.open().await.expect("a new disk");
    for n in 0..20 {
        put_nth(&store, n).await.expect("it works");
    }
    store.close().await;
    let store = disk.open().await.expect("closed");
    let (begun, beginning) = std::sync::mpsc::channel();
    let (go, going) = std::sync::mpsc::channel::<()>();
    // While this one is made the others come to wait.
    let first = store.change(move |_| {
        begun.send(()).expect("the test waits");
        going.recv().expect("the test goes on");
        Ok::<_, StoreError>(())
    });
    let failing = disk.clone();
    let reading = store.change(move |change| {
        failing.fail(Fault { operations: &[Operation::Read], after: 0, errno: None });
        let read = change.range(A, &Keys::beginning_with(""), 100);
        failing.heal();
        read
    });
    let group = async {
        tokio::task::spawn_blocking(move || beginning.recv()).await.expect("no panic").expect("it begins");
        let mut all = std::pin::pin!(async {
            futures::join!(put(&store, B, "before", ""), reading, put(&store, B, "after", ""))
        });
        assert!(futures::poll!(&mut all).is_pending(), "all of them wait");
        go.send(()).expect("it waits");
        all.await
    };

    let (_, (before, read, after)) = futures::join!(first, group);

    let is_told = |error: &StoreError| matches!(error, StoreError::Damaged { why, .. } if why.contains("planted"));
    assert!(read.as_ref().is_err_and(is_told), "redb reads the disk for it: {:?}", read.map(|entries| entries.len()));
    assert!(before.as_ref().is_err_and(is_told), "{before:?}");
    assert_eq!(after, Ok(()), "it is of the next group");
    assert_eq!(get(&store, B, "before").await, None);
    assert_eq!(get(&store, B, "after").await.as_deref(), Some(""));
}

#[tokio::test]
async fn while_the_disk_is_down_each_change_tries_it_once() {
    let disk = Disk::default();
    let store = disk.open().await.expect("a new disk");
    put_nth(&store, 0).await.expect("it works");
    let before = disk.openings();
    let operations = &[Operation::Read, Operation::Write, Operation::SetLen, Operation::Sync];
    disk.fail(Fault { operations, after: 0, errno: Some(EIO) });

    for n in 1..=4 {
        let failed = put_nth(&store, n).await.expect_err("the disk is down");
        assert!(matches!(failed, StoreError::Failed { .. }), "{failed:?}");
    }
    // After the first change, whose write failed, and before each of the others, which are answered with that.
    assert_eq!(disk.openings() - before, 4);
    disk.heal();

    put_nth(&store, 5).await.expect("it works again");
    assert_eq!(numbers(&store).await, [0, 5]);
}
