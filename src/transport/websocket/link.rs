//! What a connection's task reads from, and writes to where the outbox does not.
//!
//! A plain connection writes through its `Conn`, whoever has something to send. One that compresses or is encrypted has a
//! queued sink: everybody appends plain frames, the task takes them, encodes them and writes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio_rustls::server::TlsStream;

use super::deflate::Deflate;
use crate::outbox::{Conn, Status};

/// Bytes that are taken out of an outbox at a time to be encrypted; those no longer count as waiting there.
const TAKEN_BYTES_MAX: usize = 256 * 1024;

/// A connection's stream. Two words, as it is a part of every connection.
pub(super) enum Link {
    /// Plain TCP, whose other half the outbox has.
    Direct(OwnedReadHalf),
    /// Plain TCP that is written compressed.
    Deflating(Box<Queued<TcpStream>>),
    /// TLS.
    Tls(Box<Queued<TlsStream<TcpStream>>>),
    /// None is left.
    Gone,
}

impl Link {
    /// Reads. Nothing read is the end of what the client sends, be it that TLS was not told of it: frames end by themselves.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = match self {
            Link::Direct(stream) => Pin::new(stream).poll_read(cx, buffer),
            Link::Deflating(queued) => Pin::new(&mut queued.stream).poll_read(cx, buffer),
            Link::Tls(queued) => Pin::new(&mut queued.stream).poll_read(cx, buffer),
            Link::Gone => Poll::Ready(Ok(())),
        };
        match read {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            read => read,
        }
    }

    /// Writes what waits. Ready when nothing does, or the connection is no longer open.
    pub(super) fn poll_flush(&mut self, conn: &Conn, cx: &mut Context<'_>) -> Poll<Status> {
        match self {
            Link::Direct(_) => conn.poll_flush(cx),
            Link::Deflating(queued) => queued.poll_flush(conn, cx),
            Link::Tls(queued) => queued.poll_flush(conn, cx),
            Link::Gone => Poll::Ready(Status::Closed),
        }
    }

    /// Ends our side of a stream on which everything is written; what the kernel holds still goes out. Of a direct one the
    /// outbox has the half that does so.
    pub(super) fn poll_shut(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Link::Direct(_) | Link::Gone => Poll::Ready(Ok(())),
            Link::Deflating(queued) => Pin::new(&mut queued.stream).poll_shutdown(cx),
            Link::Tls(queued) => Pin::new(&mut queued.stream).poll_shutdown(cx),
        }
    }

    /// Writes no more: closes the stream, or of a direct one what is left of it with the task.
    pub(super) fn cut(&mut self) {
        if !matches!(self, Link::Direct(_)) {
            *self = Link::Gone;
        }
    }
}

/// A stream that only the connection's task writes to.
pub(super) struct Queued<S> {
    stream: S,
    deflate: Option<Deflate>,
    /// What was taken out of the outbox, as it is sent.
    sending: Vec<u8>,
    /// How many bytes of it the stream has.
    sent: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Queued<S> {
    pub(super) fn new(stream: S, deflate: Option<Deflate>) -> Box<Self> {
        Box::new(Queued { stream, deflate, sending: Vec::new(), sent: 0 })
    }

    fn poll_flush(&mut self, conn: &Conn, cx: &mut Context<'_>) -> Poll<Status> {
        loop {
            if self.sent == self.sending.len() {
                let status = self.take(conn);
                if status != Status::Open {
                    return Poll::Ready(status);
                }
                if self.sending.is_empty() {
                    // A stream that encrypts may hold bytes back that it has taken.
                    let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
                    if flushed.is_ok() {
                        conn.handed_over();
                    }
                    return Poll::Ready(if flushed.is_ok() { Status::Open } else { Status::Closed });
                }
            }
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.sending[self.sent..])) {
                Ok(0) | Err(_) => return Poll::Ready(Status::Closed),
                Ok(written) => self.sent += written,
            }
        }
    }

    /// Takes what comes next, and gives the memory of the last back.
    fn take(&mut self, conn: &Conn) -> Status {
        (self.sending, self.sent) = (Vec::new(), 0);
        let Some(deflate) = &self.deflate else {
            let (plain, status) = conn.take_pending_at_most(TAKEN_BYTES_MAX);
            self.sending = plain;
            return status;
        };
        // Whole frames are compressed, so all that waits is taken.
        let (plain, status) = conn.take_pending();
        if status == Status::Open {
            deflate.compress(&plain, &mut self.sending);
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_costs_plain_connections_nothing() {
        // As much as a reading half and a place for what a few connections need.
        assert_eq!(size_of::<Link>(), size_of::<OwnedReadHalf>() + size_of::<Option<Box<()>>>());
    }
}
