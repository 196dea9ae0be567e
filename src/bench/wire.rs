//! One connection of the load tool: bytes in and out with no buffer of its own while it is idle, the upgrade, and the join.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use super::clock::now_ns;
use super::frame::{self, Opcode, ServerFrame};
use super::message::{self, Envelope};
use super::target::{Target, WEBSOCKET_ACCEPT};
use super::tls::Stream;

/// Bytes read at once; the buffer is the thread's, so that ten thousand idle connections cost none.
const READ_BYTES: usize = 64 * 1024;

/// Bytes of an answer to the upgrade beyond which it is no answer that a WebSocket server gives.
const UPGRADE_ANSWER_BYTES_MAX: usize = 16 * 1024;

/// Unsent bytes of one connection beyond which the run is given up: the server takes less than it is sent.
const UNSENT_BYTES_MAX: usize = 64 << 20;

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// A connection and the bytes that are on their way.
#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    /// Bytes to be sent by the next [`Wire::turn`].
    pub out: Vec<u8>,
    sent: usize,
    /// The start of a frame whose end hasn't come yet.
    partial: Vec<u8>,
}

impl Wire {
    /// Connects without any protocol.
    ///
    /// # Errors
    /// If the connection isn't made within `limit`.
    pub async fn connect(target: &Target, limit: Duration) -> Result<Self> {
        let stream = timeout(limit, target.connect())
            .await
            .map_err(|_| anyhow!("connecting took longer than {} s", limit.as_secs_f64()))??;
        Ok(Self { stream, out: Vec::new(), sent: 0, partial: Vec::new() })
    }

    /// Connects and upgrades to a WebSocket.
    ///
    /// # Errors
    /// If the server refuses, answers another status than 101, or accepts with a wrong key, or not within `limit`.
    pub async fn open(target: &Target, limit: Duration) -> Result<Self> {
        let mut wire = Self::connect(target, limit).await?;
        wire.out.extend_from_slice(target.upgrade());
        timeout(limit, wire.read_upgrade_answer())
            .await
            .map_err(|_| anyhow!("expected an answer to the upgrade, none came within {} s", limit.as_secs_f64()))??;
        Ok(wire)
    }

    async fn read_upgrade_answer(&mut self) -> Result<()> {
        let mut upgraded = false;
        while !upgraded {
            self.turn(|_, bytes, _| {
                let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
                    if bytes.len() > UPGRADE_ANSWER_BYTES_MAX {
                        bail!("expected an answer to the upgrade, came {} bytes without its end", bytes.len());
                    }
                    return Ok(0);
                };
                check_upgrade_answer(&bytes[..end], &bytes[end + 4..])?;
                upgraded = true;
                Ok(end + 4)
            })
            .await
            .context("upgrading to a websocket")?;
        }
        Ok(())
    }

    /// Joins a topic and waits until the server has answered ok; other messages that come meanwhile are dropped.
    ///
    /// # Errors
    /// If the reply has another status, or if none comes within `limit`.
    pub async fn join(&mut self, join: &Join<'_>, limit: Duration) -> Result<()> {
        self.join_all(std::slice::from_ref(join), limit).await
    }

    /// Joins several topics with one write and waits for all replies.
    ///
    /// # Errors
    /// As [`Wire::join`].
    pub async fn join_all(&mut self, joins: &[Join<'_>], limit: Duration) -> Result<()> {
        for join in joins {
            let text = message::text(join.reference, join.reference, join.topic, "phx_join", join.payload);
            frame::write_frame(&mut self.out, Opcode::Text, text.as_bytes());
        }
        let mut joined = 0;
        let replies = async {
            while joined < joins.len() {
                self.turn(|out, bytes, _| {
                    each_message(bytes, out, |came, _| {
                        if came.event == "phx_reply" {
                            joined += usize::from(check_join_reply(joins, came)?);
                        }
                        Ok(())
                    })
                })
                .await?;
            }
            Ok::<(), anyhow::Error>(())
        };
        timeout(limit, replies).await.map_err(|_| {
            anyhow!(
                "expected a reply to the join of {:?}, none came within {} s",
                joins.first().map_or("", |join| join.topic),
                limit.as_secs_f64()
            )
        })?
    }

    /// Sends what is in `out`, waits until bytes come, and hands all of them to `on_bytes` with the time they were read at.
    ///
    /// `on_bytes` gets the buffer to answer into, the unread bytes and the time, and returns how many bytes it took; the rest
    /// comes again with the next bytes. Its answers are sent with one write before the turn ends, as far as the socket takes them.
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// Those of `on_bytes`, of the socket, and if the server has closed the connection.
    pub async fn turn<F>(&mut self, mut on_bytes: F) -> Result<()>
    where
        F: FnMut(&mut Vec<u8>, &[u8], u64) -> Result<usize>,
    {
        poll_fn(|cx| {
            self.poll_send(cx)?;
            ready!(self.poll_receive(cx, &mut on_bytes))?;
            self.poll_send(cx)?;
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Sends what is in `out` and doesn't wait for anything to come.
    ///
    /// # Errors
    /// If the socket is closed.
    pub async fn flush(&mut self) -> Result<()> {
        poll_fn(|cx| {
            self.poll_send(cx)?;
            if self.out.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await
    }

    fn poll_send(&mut self, cx: &mut TaskContext<'_>) -> Result<()> {
        while self.sent < self.out.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.out[self.sent..]) {
                Poll::Ready(Ok(bytes)) => self.sent += bytes,
                Poll::Ready(Err(error)) => return Err(closed(&error)),
                Poll::Pending => {
                    let unsent = self.out.len() - self.sent;
                    if unsent > UNSENT_BYTES_MAX {
                        bail!(
                            "{unsent} bytes wait for one connection, the limit is {UNSENT_BYTES_MAX}: the server is too slow for this rate"
                        );
                    }
                    return Ok(());
                }
            }
        }
        self.out.clear();
        self.sent = 0;
        // TLS may hold back what it has taken; it goes out when the stream takes more.
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(Err(error)) => Err(closed(&error)),
            _ => Ok(()),
        }
    }

    fn poll_receive<F>(&mut self, cx: &mut TaskContext<'_>, on_bytes: &mut F) -> Poll<Result<()>>
    where
        F: FnMut(&mut Vec<u8>, &[u8], u64) -> Result<usize>,
    {
        READ_BUFFER.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read)).map_err(|error| closed(&error))?;
            let bytes = read.filled();
            let now = now_ns();
            if bytes.is_empty() {
                return Poll::Ready(Err(anyhow!("the server closed the connection")));
            }
            if self.partial.is_empty() {
                let taken = on_bytes(&mut self.out, bytes, now)?;
                self.partial.extend_from_slice(&bytes[taken..]);
            } else {
                self.partial.extend_from_slice(bytes);
                let taken = on_bytes(&mut self.out, &self.partial, now)?;
                self.partial.drain(..taken);
            }
            if self.partial.is_empty() {
                self.partial = Vec::new();
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Sends a close frame and waits until the server has closed too.
    ///
    /// # Errors
    /// If it doesn't within `limit`.
    pub async fn close(mut self, limit: Duration) -> Result<()> {
        frame::write_frame(&mut self.out, Opcode::Close, &1000_u16.to_be_bytes());
        let closed = async {
            // The close frame and the end of the connection both end the turns with an error, and are what is waited for.
            while self.turn(|out, bytes, _| each_message(bytes, out, |_, _| Ok(()))).await.is_ok() {}
        };
        timeout(limit, closed)
            .await
            .map_err(|_| anyhow!("expected the server to close too, it did not within {} s", limit.as_secs_f64()))
    }

    /// Lets go of the buffers that opening and joining have left behind.
    pub fn shrink(&mut self) {
        self.out.shrink_to_fit();
        self.partial.shrink_to_fit();
    }

    /// Reads what lies ready without waiting, and drops the messages.
    ///
    /// # Errors
    /// If the server has closed the connection or one of its channels.
    pub async fn check_open(&mut self) -> Result<()> {
        let look = self.turn(|out, bytes, _| {
            each_message(bytes, out, |came, _| match came.event {
                "phx_close" | "phx_error" => bail!("the server closed topic {:?} with {:?}", came.topic, came.event),
                _ => Ok(()),
            })
        });
        // Polled once: what isn't there yet is no sign of a close.
        let mut look = std::pin::pin!(look);
        match poll_fn(|cx| Poll::Ready(look.as_mut().poll(cx))).await {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }
}

/// What a `phx_join` says.
#[derive(Clone, Debug)]
pub struct Join<'a> {
    /// The topic.
    pub topic: &'a str,
    /// Its ref, which is also the join_ref of the channel.
    pub reference: &'a str,
    /// The join's payload as JSON.
    pub payload: &'a str,
}

/// Returns whether the reply belongs to one of the joins.
fn check_join_reply(joins: &[Join<'_>], came: &Envelope<'_>) -> Result<bool> {
    let Some(join) = joins.iter().find(|join| came.reference == Some(join.reference)) else {
        return Ok(false);
    };
    if !message::reply_is_ok(came.payload) {
        bail!(
            "join of {:?} failed: expected a reply with status ok, came {}",
            join.topic,
            message::excerpt(came.payload)
        );
    }
    Ok(true)
}

/// Hands each whole message in `bytes` to `on_message` together with its topic's reply buffer, and returns how many bytes it took.
///
/// Pings are answered.
///
/// # Errors
/// Those of `on_message`; a frame or text that isn't what a Phoenix server sends; a close frame; a `phx_error` or `phx_close` is a
/// message like others here.
pub fn each_message<F>(bytes: &[u8], out: &mut Vec<u8>, mut on_message: F) -> Result<usize>
where
    F: FnMut(&Envelope<'_>, &mut Vec<u8>) -> Result<()>,
{
    let mut taken = 0;
    while let Some((frame, frame_bytes)) = frame::next_frame(&bytes[taken..])? {
        taken += frame_bytes;
        let ServerFrame { opcode, payload } = frame;
        match opcode {
            Opcode::Text => on_message(&message::scan(payload)?, out)?,
            Opcode::Ping => frame::write_frame(out, Opcode::Pong, payload),
            Opcode::Pong => {}
            Opcode::Close => bail!("the server closed with {}", close_reason(payload)),
            Opcode::Binary => bail!("expected text, came a binary frame of {} bytes", payload.len()),
        }
    }
    Ok(taken)
}

fn close_reason(payload: &[u8]) -> String {
    match payload {
        [high, low, reason @ ..] => {
            format!("code {} {:?}", u16::from_be_bytes([*high, *low]), String::from_utf8_lossy(reason))
        }
        _ => "no code".to_owned(),
    }
}

fn closed(error: &std::io::Error) -> anyhow::Error {
    anyhow!("the connection failed: {error}")
}

fn check_upgrade_answer(head: &[u8], body: &[u8]) -> Result<()> {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let status_line = lines.next().unwrap_or_default();
    if status_line.split(' ').nth(1) != Some("101") {
        bail!(
            "expected status 101, came {status_line:?} with body {:?}",
            message::excerpt(&String::from_utf8_lossy(body))
        );
    }
    let accept = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-accept"))
        .map(|(_, value)| value.trim());
    if accept != Some(WEBSOCKET_ACCEPT) {
        bail!("expected sec-websocket-accept {WEBSOCKET_ACCEPT:?}, came {accept:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOINS: [Join<'static>; 1] = [Join { topic: "bench:a", reference: "7", payload: "{}" }];

    fn reply(reference: &str, payload: &str) -> String {
        format!(r#"["7","{reference}","bench:a","phx_reply",{payload}]"#)
    }

    #[test]
    fn only_an_ok_reply_with_the_ref_is_a_join() {
        let ok = reply("7", r#"{"status":"ok","response":{}}"#);
        let other = reply("8", r#"{"status":"ok","response":{}}"#);
        let refused = reply("7", r#"{"status":"error","response":{"reason":"no"}}"#);
        let check = |text: &str| check_join_reply(&JOINS, &message::scan(text.as_bytes()).expect("a message"));

        assert!(check(&ok).expect("ok"));
        assert!(!check(&other).expect("another's"));
        let error = check(&refused).expect_err("refused").to_string();
        assert!(error.contains(r#"{"reason":"no"}"#), "{error}");
    }

    #[test]
    fn only_a_101_with_the_right_key_is_an_upgrade() {
        let good = format!("HTTP/1.1 101 X\r\nSEC-WebSocket-accept: {WEBSOCKET_ACCEPT}");
        assert!(check_upgrade_answer(good.as_bytes(), b"").is_ok());

        let refused = check_upgrade_answer(b"HTTP/1.1 403 Forbidden", b"no").expect_err("403");
        assert!(refused.to_string().contains("403 Forbidden"), "{refused}");
        assert!(check_upgrade_answer(b"HTTP/1.1 101 X\r\nSec-WebSocket-Accept: x", b"").is_err());
        assert!(check_upgrade_answer(b"HTTP/1.1 101 X", b"").is_err());
    }

    #[test]
    fn messages_are_taken_whole_and_pings_answered() {
        let text = reply("7", "{}");
        let mut bytes = vec![0x89, 2, b'h', b'i', 0x81, text.len() as u8];
        bytes.extend_from_slice(text.as_bytes());
        let whole = bytes.len();
        bytes.extend_from_slice(&[0x81, 5, b'[']);
        let mut out = Vec::new();
        let mut refs = Vec::new();

        let taken = each_message(&bytes, &mut out, |came, _| {
            refs.push(came.reference.map(str::to_owned));
            Ok(())
        })
        .expect("valid frames");

        let mut pong = Vec::new();
        frame::write_frame(&mut pong, Opcode::Pong, b"hi");
        assert_eq!((taken, out), (whole, pong));
        assert_eq!(refs, [Some("7".to_owned())]);
    }

    #[test]
    fn a_close_frame_is_an_error_with_its_code() {
        let bytes = [0x88, 4, 0x03, 0xf4, b'n', b'o'];
        let error = each_message(&bytes, &mut Vec::new(), |_, _| Ok(())).expect_err("closed");
        assert_eq!(error.to_string(), r#"the server closed with code 1012 "no""#);
    }
}
