//! Faults at the edge, over WebSocket and long poll. Each test says what the offender gets, by which limit, and that the
//! others are served meanwhile. What is left behind, in bytes, tasks and descriptors, is counted in `tests/churn`.

mod dribble;
mod floods;
mod half_open;
mod loris;
mod never_reads;
mod orphans;
mod overload;

use std::net::TcpStream;

use crate::lab::{Lab, Peer};

/// A connection on which nothing has been said.
fn raw(lab: &Lab) -> Peer {
    Peer::raw(TcpStream::connect(lab.address()).expect("the kernel accepts"))
}

/// The head of a POST, up to where its body is described.
fn post_head(target: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n")
}

/// Text that hardly compresses, the same each time.
fn noise(bytes: usize) -> String {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut letter = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[(state >> 58) as usize])
    };
    (0..bytes).map(|_| letter()).collect()
}
