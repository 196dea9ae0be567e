//! The development setting: pages of this machine come in, pages of other sites do not, whatever they ask for.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use bennu::channel::LongPollOptions;
use bennu::protocol::origin::OriginPolicy;

use crate::lab::{DEADLINE, Lab};
use crate::transcripts::client::{Client, Handshake};
use crate::transcripts::http;

const PATHS: [&str; 5] = ["/", "/livez", "/readyz", "/socket/longpoll?vsn=2.0.0", "/socket/websocket?vsn=2.0.0"];

/// Hosts and origins that are this machine's.
const LOCAL: [(&str, Option<&str>); 6] = [
    ("localhost:4000", None),
    ("127.0.0.1:4000", None),
    ("[::1]:4000", None),
    ("localhost:4000", Some("http://localhost:4000")),
    ("localhost:4000", Some("http://127.0.0.1:5173")),
    ("127.0.0.1:4000", Some("http://[::1]:4000")),
];

/// Those of other sites: a page that sends a form or opens a socket, and a name that was made to resolve to 127.0.0.1.
const FOREIGN: [(&str, Option<&str>); 6] = [
    ("evil.example", None),
    ("evil.example:4000", Some("http://evil.example:4000")),
    ("localhost:4000", Some("https://evil.example")),
    ("localhost:4000", Some("http://localhost.evil.example")),
    ("localhost:4000", Some("null")),
    ("localhost.evil.example:4000", None),
];

/// The status of a request. To the WebSocket path it is a handshake.
fn status(server: SocketAddr, target: &str, host: &str, origin: Option<&str>) -> u16 {
    let (path, qs) = target.split_once('?').unwrap_or((target, ""));
    let mut headers: Vec<_> = origin.map(|origin| ("Origin".to_owned(), origin.to_owned())).into_iter().collect();
    if path.ends_with("/websocket") {
        let handshake = Handshake { path, qs, headers: &headers, host: Some(host), ..Handshake::default() };
        let mut client = Client::connect(server, &handshake, &[], true);
        assert!(client.await_answer(DEADLINE));
        return client.answer().status.expect("an answer has a status");
    }
    headers.push(("Host".to_owned(), host.to_owned()));
    let request = http::Request { method: "GET", path, qs: Some(qs), headers: &headers, body: None, timeout: DEADLINE };
    http::send(server, &request).expect("an answer").status
}

fn check_guard(server: SocketAddr) {
    for target in PATHS {
        let served = if target.starts_with("/socket/websocket") { 101 } else { 200 };
        for (host, origin) in LOCAL {
            assert_eq!(status(server, target, host, origin), served, "{target} for {host} from {origin:?}");
        }
        for (host, origin) in FOREIGN {
            assert_eq!(status(server, target, host, origin), 403, "{target} for {host} from {origin:?}");
        }
    }
}

#[test]
fn other_sites_pages_get_nothing_in_the_development_setting() {
    let lab = Lab::with(
        |options| options.local_only = true,
        |options| {
            options.check_origin = OriginPolicy::Off;
            options.longpoll = Some(LongPollOptions::default());
        },
    );

    check_guard(lab.address());
}

/// The first line of the answer to a request with this head.
fn answer(server: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(server).expect("the kernel accepts");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout above zero is allowed");
    stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).expect("the server reads");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("an answer");
    line.trim_end().to_owned()
}

#[test]
fn a_foreign_pages_request_without_an_origin_gets_nothing_but_the_page_that_a_link_leads_to() {
    let lab =
        Lab::with(|options| options.local_only = true, |options| options.longpoll = Some(LongPollOptions::default()));
    let get = |target: &str, site: &str, mode: &str| {
        let headers = [("Host", "localhost:4000"), ("Sec-Fetch-Site", site), ("Sec-Fetch-Mode", mode)];
        lab.http("GET", target, &headers, None).0
    };

    for target in ["/socket/longpoll?vsn=2.0.0", "/livez", "/"] {
        assert_eq!(get(target, "cross-site", "no-cors"), 403, "{target}");
        for site in ["same-origin", "same-site", "none"] {
            assert_eq!(get(target, site, "no-cors"), 200, "{target} from {site}");
        }
    }
    assert_eq!(get("/socket/longpoll?vsn=2.0.0", "cross-site", "navigate"), 403);
    assert_eq!(get("/", "cross-site", "navigate"), 200);
}

#[test]
fn a_request_has_to_name_one_local_host_in_its_target_too() {
    let lab = Lab::with(|options| options.local_only = true, |_| {});
    let refused = "HTTP/1.1 403 Forbidden";

    for head in [
        "GET /livez HTTP/1.1",
        "GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: localhost",
        "GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: evil.example",
        "GET /livez HTTP/1.1\r\nHost: [::1].evil.example",
        "GET http://evil.example/livez HTTP/1.1\r\nHost: localhost",
    ] {
        assert_eq!(answer(lab.address(), head), refused, "{head}");
    }
    let served = "HTTP/1.1 200 OK";
    assert_eq!(answer(lab.address(), "GET http://127.0.0.1:1/livez HTTP/1.1\r\nHost: localhost"), served);
    assert_eq!(answer(lab.address(), "GET /livez HTTP/1.1\r\nHost: localhost"), served);
}

#[test]
fn without_the_development_setting_the_host_does_not_matter() {
    let lab = Lab::with_socket(|options| options.check_origin = OriginPolicy::Off);

    assert_eq!(status(lab.address(), "/livez", "bennu.example", None), 200);
    assert_eq!(status(lab.address(), "/socket/websocket?vsn=2.0.0", "bennu.example", Some("https://a.example")), 101);
}

/// The program itself, ended when dropped.
pub struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the program with these flags on a free port. Its output is kept to the end: a program that can't say more would
/// end.
pub fn start(flags: &[&str]) -> (Program, SocketAddr, impl Iterator<Item = String> + use<>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bennu"));
    command.args(["serve", "--server-listen", "127.0.0.1:0"]).args(flags).stdin(Stdio::null());
    let mut program =
        Program(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program starts"));
    let stdout = program.0.stdout.take().expect("stdout is piped above");
    let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
    let address = lines.find_map(|line| line.strip_prefix("listening on ").map(str::to_owned));
    let address = address.expect("it says where it listens").parse().expect("an address");
    (program, address, lines)
}

#[test]
fn the_program_starts_in_the_development_setting_and_guards_itself() {
    let (_program, address, _lines) = start(&[]);

    assert!(address.ip().is_loopback());
    check_guard(address);
}

#[test]
fn the_page_names_the_socket_of_the_settings_and_head_asks_without_getting_it() {
    let (_program, address, _lines) = start(&["--socket-path", "/talk/here"]);
    let request = |method, path| {
        let headers = [("Host".to_owned(), "localhost".to_owned())];
        let request = http::Request { method, path, qs: None, headers: &headers, body: None, timeout: DEADLINE };
        http::send(address, &request).expect("an answer")
    };

    let page = String::from_utf8(request("GET", "/").body).expect("a text");
    assert!(page.contains(r#"<meta name="bennu-socket" content="/talk/here">"#), "{page}");
    let script = String::from_utf8(request("GET", "/assets/app.js").body).expect("a text");
    assert!(script.contains("bennu-socket"), "the script reads it");
    assert_eq!(status(address, "/talk/here/websocket?vsn=2.0.0", "localhost", None), 101);
    for path in ["/", "/assets/app.js", "/assets/phoenix.js", "/livez", "/readyz"] {
        let head = request("HEAD", path);
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
    }
    assert_eq!(request("HEAD", "/nowhere").status, 404);
}
