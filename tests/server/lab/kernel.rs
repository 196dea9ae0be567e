//! What the kernel knows of a test's connections, and what a test can only do through it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{DEADLINE, until};

/// Waits until the server has read everything that was written to a connection so far.
///
/// Source: proc_net_tcp.rst of the kernel, `rx_queue`.
#[track_caller]
pub fn until_read(stream: &TcpStream) {
    let port = |address: std::io::Result<std::net::SocketAddr>| address.expect("it is connected").port();
    let ours = format!(":{:04X} ", port(stream.local_addr()));
    let servers = format!(":{:04X} ", port(stream.peer_addr()));
    until("the server reads what was sent", || {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("proc_net_tcp(5)");
        // `sl local remote state tx_queue:rx_queue`, numbers in hexadecimal; a connection that is gone has no row.
        table.lines().all(|line| {
            let Some((_, row)) = line.split_once(": ") else { return true };
            let (Some(local), Some(remote)) = (row.get(8..14), row.get(22..28)) else { return true };
            let unread = row.split_whitespace().nth(3).and_then(|queues| queues.split(':').nth(1));
            local != servers || remote != ours || unread == Some("00000000")
        })
    });
}

/// Makes the end of a connection a reset: no FIN, and what was not sent or read is dropped.
pub fn reset_at_end(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).expect("a reset can be asked for");
}

/// How a server bore a client that takes its time.
pub struct Borne {
    /// Until the connection ended, or [`DEADLINE`].
    pub took: Duration,
    /// What the server said.
    pub heard: Vec<u8>,
}

/// Says `first` on a connection, then a byte of `trickle` at a time.
pub fn trickle(mut stream: &TcpStream, first: &[u8], trickle: &[u8]) -> Borne {
    // The wait for an answer is the pace of the trickle.
    stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout above zero is allowed");
    let begun = Instant::now();
    let mut trickle = trickle.iter();
    let (mut chunk, mut heard) = ([0; 1024], Vec::new());
    let mut write = stream.write_all(first);
    while begun.elapsed() < DEADLINE && write.is_ok() {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => heard.extend(&chunk[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                write = trickle.next().map_or(Ok(()), |byte| stream.write_all(&[*byte]));
            }
            Err(_) => break,
        }
    }
    Borne { took: begun.elapsed(), heard }
}

/// How long a write has to make no progress to show that nobody reads at the other end.
const STUCK: Duration = Duration::from_millis(400);

/// Writes everything; sets `stuck` once no byte was taken for a while.
///
/// # Errors
/// The connection's.
pub fn write_all(
    mut stream: &TcpStream,
    mut bytes: &[u8],
    stuck: &std::sync::atomic::AtomicBool,
) -> std::io::Result<()> {
    stream.set_write_timeout(Some(STUCK))?;
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                stuck.store(true, std::sync::atomic::Ordering::Release);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
