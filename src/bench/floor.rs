//! `bench floor` and `bench floor-server`: what does the same traffic cost on plain TCP, on this machine, in this hour?
//!
//! The server reads into one buffer for all connections and writes at once, as a good WebSocket server would: what lies between
//! its figures and a Phoenix server's is the protocol, not the way of reading sockets.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

use super::echo::{EchoShape, OPENING_AT_ONCE, request_bytes};
use super::exchange::Exchange;
use super::idle::{Holding, measure_opening};
use super::join::churn;
use super::options::{ClientOptions, LoadOptions, OutputOptions, seconds};
use super::report::{Heading, Report, publish};
use super::stage::{current_thread_runtime, each, run as run_stages};
use super::target::Target;
use super::wire::Wire;

/// Connections the kernel may hold until they are accepted: the default of `net.core.somaxconn`.
const BACKLOG: u32 = 4096;

/// Bytes the server reads at once.
const READ_BYTES: usize = 64 * 1024;

/// Arguments of `bennu bench floor`.
#[derive(Args, Clone, Debug, Serialize)]
pub struct FloorArgs {
    /// The TCP echo server
    #[arg(long, default_value = "127.0.0.1:4900")]
    address: String,
    #[command(flatten)]
    #[serde(flatten)]
    shape: EchoShape,
    /// Open and reset connections, as many at a time as --connections says, instead of echoing
    #[arg(long, conflicts_with_all = ["depth", "rate", "idle"])]
    connects: bool,
    /// Open all connections and hold them, instead of echoing
    #[arg(long, conflicts_with_all = ["depth", "rate"])]
    idle: bool,
    /// Seconds between the last connection and the reading of memory, with --idle
    #[arg(long, default_value_t = 10.0)]
    settle: f64,
    #[command(flatten)]
    #[serde(flatten)]
    client: ClientOptions,
    #[command(flatten)]
    #[serde(flatten)]
    load: LoadOptions,
    #[command(flatten)]
    #[serde(flatten)]
    output: OutputOptions,
}

/// Arguments of `bennu bench floor-server`.
#[derive(Args, Clone, Copy, Debug)]
pub struct FloorServerArgs {
    /// Port on 127.0.0.1
    #[arg(long, default_value_t = 4900)]
    port: u16,
}

/// Runs the mode.
///
/// # Errors
/// As [`super::run`].
pub fn run(args: &FloorArgs) -> Result<()> {
    let load = args.shape.load()?;
    let process = args.output.process()?;
    let target = Arc::new(Target::tcp(&args.address, &args.client.sources)?);
    let limit = args.client.limit()?;
    let heading = |mode, unit| -> Result<Heading<'static>> {
        Ok(Heading { mode, unit, parameters: serde_json::to_value(args)? })
    };

    if args.idle {
        let settle = seconds("settle", args.settle, 0.0)?;
        let connections = args.shape.connections;
        let opened = current_thread_runtime()?.block_on(measure_opening(process, settle, async {
            let open = |_| {
                let target = target.clone();
                async move { Wire::connect(&target, limit).await }
            };
            let wires = each(connections, OPENING_AT_ONCE, open).await?;
            Ok(Holding { wires, units: connections, heartbeat: false })
        }))?;
        let report = opened.report(heading("floor idle", "connect")?, &args.output);
        return publish(&[report], &args.output, None);
    }

    let plan = args.load.plan(process)?;
    if args.connects {
        let outcome = run_stages(&plan, async |part| {
            let target = target.clone();
            let once = move |_| {
                let target = target.clone();
                async move { Wire::connect(&target, limit).await.map(drop) }
            };
            churn(part.share(args.shape.connections), part, limit, once).await
        })?;
        let report = Report::of_load(heading("floor connects", "connect")?, &args.output, &outcome);
        return publish(&[report], &args.output, None);
    }

    let message_bytes = request_bytes(args.shape.payload);
    let outcome = run_stages(&plan, async |part| {
        let connections = part.share(args.shape.connections);
        let connect = |index: usize| {
            let target = target.clone();
            let exchange = RawEcho {
                message: vec![b'x'; message_bytes],
                came_bytes: 0,
                next: load.first(index),
                stride: load.stride(connections),
            };
            async move { Ok((Wire::connect(&target, limit).await?, exchange)) }
        };
        let connections = each(connections, OPENING_AT_ONCE, connect).await?;
        load.run(connections, part, limit).await
    })?;
    let report = Report::of_load(heading("floor echo", "message")?, &args.output, &outcome);
    publish(&[report], &args.output, outcome.recorder.first_fault.as_deref())
}

/// Messages of one size on plain TCP: answered in order, told apart by counting bytes.
struct RawEcho {
    message: Vec<u8>,
    came_bytes: usize,
    next: u64,
    stride: u64,
}

impl Exchange for RawEcho {
    fn write(&mut self, out: &mut Vec<u8>, _number: u64) {
        out.extend_from_slice(&self.message);
    }

    fn read(&mut self, bytes: &[u8], _out: &mut Vec<u8>, done: &mut Vec<u64>) -> Result<usize> {
        self.came_bytes += bytes.len();
        while self.came_bytes >= self.message.len() {
            self.came_bytes -= self.message.len();
            done.push(self.next);
            self.next += self.stride;
        }
        Ok(bytes.len())
    }
}

/// Serves TCP echo on 127.0.0.1 with one thread, until the process is ended.
///
/// # Errors
/// If the port can't be listened on.
pub fn serve(args: &FloorServerArgs) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    current_thread_runtime()?.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        // Accepted sockets inherit it on Linux.
        socket.set_nodelay(true)?;
        socket.bind(address).with_context(|| format!("{address} can't be listened on"))?;
        let listener = socket.listen(BACKLOG)?;
        println!("tcp echo on {}", listener.local_addr()?);
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    // Lives as long as its connection; the process owns it, and its end is the process's.
                    tokio::spawn(echo_all(stream));
                }
                // A connection that was reset before it was accepted, or no descriptor left.
                Err(error) => {
                    eprintln!("accept: {error}");
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
            }
        }
    })
}

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// Echoes until the peer closes. Errors end the connection, which is all that there is to do about them.
async fn echo_all(mut stream: TcpStream) {
    let mut unsent = Vec::new();
    let _ = poll_fn(|cx| -> Poll<Result<()>> {
        loop {
            while !unsent.is_empty() {
                let sent = ready!(Pin::new(&mut stream).poll_write(cx, &unsent))?;
                unsent.drain(..sent);
            }
            unsent = Vec::new();
            ready!(READ_BUFFER.with_borrow_mut(|buffer| {
                let mut read = ReadBuf::new(buffer);
                ready!(Pin::new(&mut stream).poll_read(cx, &mut read))?;
                let bytes = read.filled();
                if bytes.is_empty() {
                    return Poll::Ready(Err(anyhow!("closed by the peer")));
                }
                let sent = match Pin::new(&mut stream).poll_write(cx, bytes) {
                    Poll::Ready(sent) => sent?,
                    Poll::Pending => 0,
                };
                unsent.extend_from_slice(&bytes[sent..]);
                Poll::Ready(Ok::<(), anyhow::Error>(()))
            }))?;
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_across_reads_that_cut_them() {
        let mut echo = RawEcho { message: vec![b'x'; 10], came_bytes: 0, next: 2, stride: 3 };
        let mut done = Vec::new();
        for bytes in [9, 1, 25, 5] {
            echo.read(&vec![b'x'; bytes], &mut Vec::new(), &mut done).expect("bytes are bytes");
        }
        assert_eq!(done, [2, 5, 8, 11]);
    }

    #[test]
    fn a_floor_message_is_as_long_as_the_frame_it_stands_for() {
        // 2 header bytes, 4 of mask, and the text below with 64 bytes of payload.
        let text = r#"["1","1000000000","bench:echo-0-0","echo",{"p":""}]"#;
        assert_eq!(request_bytes(64), 6 + text.len() + 64);
    }
}
