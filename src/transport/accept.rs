//! The accept loop: our own, because warp's offers no limit on connections, no header timeout and no `TCP_NODELAY`.
//!
//! hyper speaks HTTP/1.1 here and hands over the stream of an upgraded request.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper::{Request, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use warp::Filter;
use warp::filters::BoxedFilter;

use super::admission::{Admission, Permit};
use super::arrival::Peer;
use super::tls::Tls;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4_096;
/// How long the loop waits when the process has no descriptor left.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// The least buffer that hyper takes for a request's head.
const HEADER_BYTES_MIN: usize = 8_192;

/// Settings of the accept loop.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct HttpOptions {
    /// Milliseconds in which a request's head has to arrive; a TLS handshake before it has as many.
    pub handshake_timeout_ms: u64,
    /// Bytes of a request's head.
    pub header_bytes_max: usize,
    /// Milliseconds that a client may leave what was sent to it unacknowledged, or its receive window shut.
    pub write_timeout_ms: u64,
}

/// Binds a listener. Its connections have `TCP_NODELAY` and `TCP_USER_TIMEOUT`, which accepted sockets inherit on Linux:
/// the kernel resets a connection whose client has vanished, or does not read, WebSockets among them.
///
/// # Errors
/// What the operating system says: the address is in use, or not ours.
pub fn bind(address: SocketAddr, options: HttpOptions) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(Duration::from_millis(options.write_timeout_ms)))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts and serves until `stop` turns true: then listening ends, and connections finish the request they are at.
///
/// With `tls` every connection begins with a handshake in its own task, which counts as open from the start.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    routes: BoxedFilter<(warp::reply::Response,)>,
    options: HttpOptions,
    admission: Arc<Admission>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        // Both arms are cancel-safe: an accept that is cancelled has taken nothing.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => return,
        };
        match accepted {
            Ok((stream, address)) => {
                if let Some(permit) = admission.admit(address.ip()) {
                    let connection = Connection { address, permit: Arc::new(permit), tls: tls.is_some(), options };
                    let (routes, stop) = (routes.clone(), stop.clone());
                    match &tls {
                        None => tokio::spawn(connection.serve(stream, routes, stop)),
                        Some(tls) => tokio::spawn(connection.serve_tls(stream, tls.config(), routes, stop)),
                    };
                }
            }
            Err(error) if is_of_the_connection(&error) => tracing::debug!(%error, "a connection ended in the backlog"),
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Whether `accept` tells of the connection that it took off the backlog, and the next one may be fine: clients that
/// reset theirs do not slow the others down. Anything else is the server's own lack, such as of descriptors.
///
/// Source: accept(2), "Error handling".
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable
    )
}

struct Connection {
    address: SocketAddr,
    permit: Arc<Permit>,
    tls: bool,
    options: HttpOptions,
}

impl Connection {
    async fn serve_tls(
        self,
        stream: TcpStream,
        config: Arc<ServerConfig>,
        routes: BoxedFilter<(warp::reply::Response,)>,
        mut stop: watch::Receiver<bool>,
    ) {
        let address = self.address;
        let limit = Duration::from_millis(self.options.handshake_timeout_ms);
        let handshake = tokio::time::timeout(limit, TlsAcceptor::from(config).accept(stream));
        let shaken = tokio::select! {
            shaken = handshake => shaken,
            () = stopped(&mut stop) => return,
        };
        match shaken {
            Ok(Ok(stream)) => self.serve(stream, routes, stop).await,
            Ok(Err(error)) => tracing::debug!(%address, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%address, "TLS handshake took too long"),
        }
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        self,
        stream: S,
        routes: BoxedFilter<(warp::reply::Response,)>,
        mut stop: watch::Receiver<bool>,
    ) {
        let Connection { address, permit, tls, options } = self;
        let warp = TowerToHyperService::new(warp::service(routes));
        let service = service_fn(move |mut request: Request<Incoming>| {
            let authority = request.uri().authority().map(ToString::to_string);
            let permit = Some(Arc::clone(&permit));
            let peer = Peer { address, version: request.version(), authority, tls, permit };
            request.extensions_mut().insert(peer);
            warp.call(request)
        });
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_millis(options.handshake_timeout_ms))
            .max_buf_size(options.header_bytes_max.max(HEADER_BYTES_MIN));
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());

        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = stopped(&mut stop) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(%address, %error, "connection ended");
        }
    }
}

/// Waits until the server stops; a server whose handle is gone has stopped.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    while !*stop.borrow_and_update() {
        if stop.changed().await.is_err() {
            return;
        }
    }
}

/// Boxes a filter, so that the accept loop has one type of routes.
pub fn boxed<F, R>(filter: F) -> BoxedFilter<(warp::reply::Response,)>
where
    F: Filter<Extract = (R,)> + Clone + Send + Sync + 'static,
    F::Error: Into<warp::Rejection>,
    R: warp::Reply + 'static,
{
    filter.map(warp::Reply::into_response).boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_resets_its_connection_does_not_stop_the_accept_loop() {
        for (errno, of_the_connection) in [(103, true), (104, true), (113, true), (24, false), (23, false), (12, false)]
        {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(is_of_the_connection(&error), of_the_connection, "{error}");
        }
    }
}
