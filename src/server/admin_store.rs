//! The operator's way to a backup: the store's content at one moment, as a file, while the server runs.
//!
//! ```text
//! GET    /admin/api/store/backup       admin:store      a store's file; 404 where the store is in memory
//! ```
//!
//! The copy is made beside the store's file, without a name, so that it ends with the answer or the process. There has to be
//! room for it and for what the store itself needs meanwhile, else the answer is 507. One at a time, until it has been sent or
//! given up: who comes meanwhile is told so, with 409. In memory it takes redb's cache and some MiB.

use std::io::{self, Read, Seek};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use warp::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use warp::path::FullPath;
use warp::reply::{Reply, Response};
use warp::{Filter, Rejection};

use super::admin::{Fault, Request, authorize, refuse, uncached};
use crate::security::Security;
use crate::store::{Store, StoreError, nameless_beside, room_beside};
use crate::transport::Peer;

/// Where it is.
const PATH: &str = "/admin/api/store/backup";
/// What it takes to ask.
const CAPABILITY: &str = "admin:store";
/// Bytes that are read from the copy at once.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that are read ahead of whoever takes them.
const CHUNKS_AHEAD: usize = 2;
/// How long the sending may take: a client that takes no more would keep the copy, and others from theirs. As long as
/// `bennu store backup` waits.
const SENDING_TIME_MAX: Duration = Duration::from_secs(3_600);
/// Bytes that have to be free beside the store besides those of the copy, for the store itself.
const ROOM_BYTES_MIN: u64 = 32 << 20;

/// Serves it. Other paths are rejected, so that further filters can have them.
pub(super) fn admin_store(
    security: Arc<Security>,
    store: Store,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone + Send + Sync + 'static {
    let one = Arc::new(Semaphore::new(1));
    let here = warp::path::full().and_then(|path: FullPath| async move {
        if path.as_str() == PATH { Ok(path.as_str().to_owned()) } else { Err(warp::reject::not_found()) }
    });
    here.and(warp::method()).and(warp::header::headers_cloned()).and(warp::ext::optional::<Peer>()).then(
        move |path: String, method: Method, headers: HeaderMap, peer: Option<Peer>| {
            let (security, store, one) = (Arc::clone(&security), store.clone(), Arc::clone(&one));
            async move {
                let request = Request { method, path, query: String::new(), headers, peer };
                uncached(answer(&security, &store, one, &request).await.unwrap_or_else(refuse))
            }
        },
    )
}

async fn answer(security: &Security, store: &Store, one: Arc<Semaphore>, request: &Request) -> Result<Response, Fault> {
    if request.method != Method::GET {
        return Err(Fault::new(StatusCode::METHOD_NOT_ALLOWED, "this path has no such method"));
    }
    let operator = authorize(security, request, CAPABILITY).await?;
    let Some(path) = store.path() else {
        return Err(Fault::new(StatusCode::NOT_FOUND, "the store is in memory: there is no file to copy (store.path)"));
    };
    let Ok(permit) = one.try_acquire_owned() else {
        return Err(Fault::new(StatusCode::CONFLICT, "another backup is being made"));
    };
    security.administered(&operator, "store/backup", "");
    // Who may have the whole store may hear of its disk as well.
    let length = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    if let Some(why) = too_little_room(room_beside(path), length) {
        tracing::error!(why, "a backup could not be made");
        return Err(Fault::new(StatusCode::INSUFFICIENT_STORAGE, why));
    }
    // A copy that is begun is made to its end, also where the client goes and this future with it: so it has the permit, and a
    // task of its own that ends with it.
    let (copying, path) = (store.clone(), path.to_owned());
    let made = tokio::spawn(async move { (copied(&copying, &path).await, permit) }).await;
    let (copy, permit) = made.map_err(|error| Fault::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let (copy, bytes) = copy.map_err(|error| {
        tracing::error!(%error, "a backup could not be made");
        Fault::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    })?;
    tracing::info!(bytes, "a backup of the store was made");
    let mut response = warp::reply::stream(chunks(copy, permit)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"bennu.redb\""));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    Ok(response)
}

/// A copy, at its beginning, and how many bytes it has.
async fn copied(store: &Store, path: &Path) -> Result<(std::fs::File, u64), StoreError> {
    let failed = |error: io::Error| StoreError::Failed {
        path: path.to_owned(),
        why: format!("making a copy beside it: {error}"),
    };
    let mut copy = nameless_beside(path).map_err(failed)?;
    let to = copy.try_clone().map_err(failed)?;
    let named = path.with_extension("copy");
    let bytes = store.copy_to(to, named).await?.expect("it has a path, so it has a file");
    copy.rewind().map_err(failed)?;
    Ok((copy, bytes))
}

/// Why a copy of a store of so many bytes is not begun where so many are free; None where it may be.
fn too_little_room(free: Option<u64>, length: u64) -> Option<String> {
    let wanted = length.saturating_add(ROOM_BYTES_MIN);
    let free = free.filter(|free| *free < wanted)?;
    Some(format!("a copy beside the store needs {wanted} bytes with those left to the store, and {free} are free"))
}

/// What a file holds from where it stands on. The permit is given back at the end, when nobody takes more, or when it has taken
/// [`SENDING_TIME_MAX`]: then it breaks off, which whoever counts the bytes sees.
fn chunks(file: std::fs::File, permit: OwnedSemaphorePermit) -> ReceiverStream<io::Result<Bytes>> {
    let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
    // It ends by itself: with the file, with its receiver or with the time.
    tokio::spawn(async move {
        let _permit = permit;
        if tokio::time::timeout(SENDING_TIME_MAX, send(file, sender)).await.is_err() {
            tracing::warn!("a backup was not taken in time");
        }
    });
    ReceiverStream::new(chunks)
}

async fn send(mut file: std::fs::File, sender: mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let reading = tokio::task::spawn_blocking(move || {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            let read = (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut chunk);
            (read.map(|_| Bytes::from(chunk)), file)
        });
        let chunk = match reading.await {
            Ok((Ok(chunk), _)) if chunk.is_empty() => return,
            Ok((chunk, rest)) => {
                file = rest;
                chunk
            }
            Err(_) => return,
        };
        let is_last = chunk.is_err();
        if sender.send(chunk).await.is_err() || is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use futures::StreamExt;

    use super::*;

    /// A nameless file of so many bytes, at its beginning.
    fn file_of(bytes: usize) -> std::fs::File {
        let beside = std::env::temp_dir().join(format!("bennu-backup-{}", std::process::id()));
        let mut file = nameless_beside(&beside).expect("the folder for such takes it");
        file.write_all(&vec![7; bytes]).expect("written");
        file.rewind().expect("a file");
        file
    }

    #[tokio::test]
    async fn all_of_a_file_is_sent_and_then_another_may_be_made() {
        let one = Arc::new(Semaphore::new(1));
        let bytes = 3 * CHUNK_BYTES + 5;

        let chunks = chunks(file_of(bytes), Arc::clone(&one).try_acquire_owned().expect("the first"));
        let sent: Vec<u8> = chunks.map(|chunk| chunk.expect("read")).collect::<Vec<_>>().await.concat();

        assert!(sent == vec![7; bytes], "{} bytes", sent.len());
        drop(one.acquire().await.expect("it is given back"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_no_more_keeps_others_from_a_backup_for_a_time_only() {
        let one = Arc::new(Semaphore::new(1));
        let bytes = 20 * CHUNK_BYTES;
        let chunks = chunks(file_of(bytes), Arc::clone(&one).try_acquire_owned().expect("the first"));

        let free = tokio::time::timeout(SENDING_TIME_MAX * 2, one.acquire()).await;

        assert!(free.is_ok(), "it is still taken");
        let sent: Vec<_> = chunks.collect().await;
        assert!(sent.len() <= CHUNKS_AHEAD, "it breaks off: {} chunks", sent.len());
    }

    #[tokio::test]
    async fn a_client_that_goes_lets_others_have_a_backup() {
        let one = Arc::new(Semaphore::new(1));
        let chunks = chunks(file_of(20 * CHUNK_BYTES), Arc::clone(&one).try_acquire_owned().expect("the first"));

        drop(chunks);

        drop(one.acquire().await.expect("it is given back"));
    }

    #[test]
    fn a_copy_has_to_leave_room_for_the_store() {
        assert_eq!(too_little_room(Some(ROOM_BYTES_MIN + 100), 100), None);
        assert_eq!(too_little_room(None, 100), None, "who can't tell tries");
        let why = too_little_room(Some(ROOM_BYTES_MIN + 99), 100).expect("a byte is missing");
        assert!(why.contains(&format!("{} are free", ROOM_BYTES_MIN + 99)), "{why}");
        let here = room_beside(&std::env::temp_dir().join("file")).expect("Unix tells");
        assert!(here > 0, "the other tests write there");
    }
}
