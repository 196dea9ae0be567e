//! An issuer on loopback that serves a JWK set, or does not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What the server does with a request.
#[derive(Clone)]
pub enum Answer {
    Ok(String),
    /// The same, after a while.
    Late(Duration, String),
    Status(u16),
    Redirect(String),
    /// The same, without a length ahead.
    Unsized(String),
    /// One byte at a time, for ever.
    Drip,
    Silence,
}

pub struct Issuer {
    pub address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    /// The paths that were asked for.
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Issuer {
    pub async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let answer = Arc::new(Mutex::new(answer));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answers, paths) = (Arc::clone(&answer), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                tokio::spawn(serve(stream, Arc::clone(&answers), Arc::clone(&paths)));
            }
        });
        Issuer { address, answer, asked, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    pub fn set(&self, answer: Answer) {
        *self.answer.lock() = answer;
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }

    pub fn times(&self) -> usize {
        self.asked.lock().len()
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, answer: Arc<Mutex<Answer>>, asked: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).expect("text");
    asked.lock().push(head.split(' ').nth(1).expect("a path").to_owned());
    let answer = answer.lock().clone();
    let close = "connection: close\r\n";
    let text = match answer {
        Answer::Ok(body) => format!("HTTP/1.1 200 OK\r\n{close}content-length: {}\r\n\r\n{body}", body.len()),
        Answer::Late(wait, body) => {
            tokio::time::sleep(wait).await;
            format!("HTTP/1.1 200 OK\r\n{close}content-length: {}\r\n\r\n{body}", body.len())
        }
        Answer::Status(status) => format!("HTTP/1.1 {status} No\r\n{close}content-length: 0\r\n\r\n"),
        Answer::Redirect(to) => format!("HTTP/1.1 302 Found\r\n{close}location: {to}\r\ncontent-length: 0\r\n\r\n"),
        Answer::Unsized(body) => format!("HTTP/1.1 200 OK\r\n{close}\r\n{body}"),
        Answer::Drip => {
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{close}\r\n").as_bytes()).await;
            while stream.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            return;
        }
        Answer::Silence => return std::future::pending().await,
    };
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}
