//! Where the load goes: the URL, its parameters, and the addresses that it comes from.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, anyhow, bail};
use tokio::net::TcpSocket;

use super::tls::{Stream, Tls};

/// The `Sec-WebSocket-Key` that every upgrade sends: the one of RFC 6455 section 1.3. Nothing here needs an unguessable one.
const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The only right `Sec-WebSocket-Accept` to `WEBSOCKET_KEY`, from the same section.
pub const WEBSOCKET_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A server's address, the addresses to connect from, and the request that upgrades a connection.
#[derive(Debug)]
pub struct Target {
    address: SocketAddr,
    sources: Vec<IpAddr>,
    next_source: AtomicUsize,
    /// The whole upgrade request; empty where the target is plain TCP.
    upgrade: Vec<u8>,
    tls: Option<Tls>,
}

/// What each HTTP request to a server says of it.
#[derive(Debug)]
pub struct Origin {
    /// The value of `Host`.
    pub authority: String,
    /// The path and the query.
    pub path: String,
    /// The header lines given, each with its line end.
    pub headers: String,
}

/// How a URL is extended before it is asked for.
#[derive(Debug, Default)]
pub struct Request<'a> {
    /// Query parameters in their order, not yet encoded.
    pub params: Vec<(&'a str, &'a str)>,
    /// Header lines `Name: value`.
    pub headers: &'a [String],
}

impl Target {
    /// Resolves a `ws://host:port/path?query`, or a `wss://` one of a server that the certificates of `trusted` vouch for, and prepares the upgrade request; `vsn=2.0.0` is added unless the URL has a `vsn`.
    ///
    /// # Errors
    /// If the URL is no such one, if `trusted` is missing or holds no certificate, if a header is not `Name: value`, or if the host can't be resolved.
    pub fn websocket(url: &str, request: &Request<'_>, sources: &[IpAddr], trusted: Option<&Path>) -> Result<Self> {
        let secure = url.starts_with("wss:");
        let url = Url::parse(if secure { "wss" } else { "ws" }, url)?;
        let upgrade = url.upgrade_request(request)?.into_bytes();
        let mut target = Self::new(url.authority, sources, upgrade)?;
        if secure {
            let trusted =
                trusted.context("a wss:// url needs --trusted FILE, the certificates that vouch for the server")?;
            let (host, _) = url.authority.rsplit_once(':').context("the url has a port")?;
            target.tls = Some(Tls::new(host, trusted)?);
        }
        Ok(target)
    }

    /// Resolves an `http://host:port/path?query` for plain TCP connections, and returns what requests to it say of it.
    ///
    /// # Errors
    /// As [`Target::websocket`], with `http://`.
    pub fn http(url: &str, headers: &[String], sources: &[IpAddr]) -> Result<(Self, Origin)> {
        let url = Url::parse("http", url)?;
        let origin = Origin { authority: url.authority.to_owned(), path: url.path(), headers: header_lines(headers)? };
        Ok((Self::new(url.authority, sources, Vec::new())?, origin))
    }

    /// Resolves `host:port` for plain TCP connections.
    ///
    /// # Errors
    /// If the host can't be resolved.
    pub fn tcp(authority: &str, sources: &[IpAddr]) -> Result<Self> {
        Self::new(authority, sources, Vec::new())
    }

    fn new(authority: &str, sources: &[IpAddr], upgrade: Vec<u8>) -> Result<Self> {
        let mut addresses = authority
            .to_socket_addrs()
            .with_context(|| format!("{authority:?} is no host:port that can be resolved"))?;
        let address = addresses.next().with_context(|| format!("{authority:?} has no address"))?;
        if let Some(source) = sources.iter().find(|source| source.is_ipv4() != address.is_ipv4()) {
            bail!("source address {source} can't reach {address}: expected the same IP version");
        }
        Ok(Self { address, sources: sources.to_vec(), next_source: AtomicUsize::new(0), upgrade, tls: None })
    }

    /// The request that turns a connection into a WebSocket.
    pub fn upgrade(&self) -> &[u8] {
        &self.upgrade
    }

    /// Opens a connection from the next source address. Its close is a reset: no port is left in TIME_WAIT.
    ///
    /// # Errors
    /// If the server refuses, if no local port is left, or if a TLS handshake fails.
    pub async fn connect(&self) -> Result<Stream> {
        let socket = if self.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
            .context("no socket could be opened")?;
        socket.set_nodelay(true)?;
        socket.set_zero_linger()?;
        if !self.sources.is_empty() {
            let index = self.next_source.fetch_add(1, Ordering::Relaxed) % self.sources.len();
            let source = self.sources[index];
            socket.bind(SocketAddr::new(source, 0)).with_context(|| {
                format!("source address {source} has no free port, or isn't an address of this machine")
            })?;
        }
        let stream = socket.connect(self.address).await.map_err(|error| self.connect_error(&error))?;
        match &self.tls {
            None => Ok(Stream::Tcp(stream)),
            Some(tls) => tls.connect(stream).await,
        }
    }

    fn connect_error(&self, error: &std::io::Error) -> anyhow::Error {
        let hint = match error.kind() {
            std::io::ErrorKind::ConnectionRefused => ": is the server running there?",
            std::io::ErrorKind::AddrNotAvailable => ": no local port is left, give more addresses with --source",
            _ => "",
        };
        anyhow!("connecting to {} failed: {error}{hint}", self.address)
    }
}

/// The parts of a `ws://` or `http://` URL.
#[derive(Debug, PartialEq, Eq)]
struct Url<'a> {
    authority: &'a str,
    path_and_query: &'a str,
}

impl<'a> Url<'a> {
    fn parse(scheme: &str, url: &'a str) -> Result<Self> {
        let rest = url
            .strip_prefix(scheme)
            .and_then(|rest| rest.strip_prefix("://"))
            .with_context(|| format!("url is {url:?}, expected {scheme}://host:port/path"))?;
        let (authority, path_and_query) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if !authority.rsplit(':').next().is_some_and(is_port) || !authority.contains(':') {
            bail!("url is {url:?}, expected a port: {scheme}://host:port/path");
        }
        if path_and_query.bytes().any(|byte| byte <= b' ') {
            bail!("url is {url:?}, expected no space or control character");
        }
        Ok(Self { authority, path_and_query })
    }

    fn path(&self) -> String {
        match self.path_and_query {
            "" => "/".to_owned(),
            given => given.to_owned(),
        }
    }

    fn upgrade_request(&self, request: &Request<'_>) -> Result<String> {
        let mut target = self.path();
        let has_version = target.contains("?vsn=") || target.contains("&vsn=");
        let version = (!has_version).then_some(("vsn", "2.0.0"));
        for (name, value) in request.params.iter().copied().chain(version) {
            target.push(if target.contains('?') { '&' } else { '?' });
            target.push_str(&percent_encoded(name));
            target.push('=');
            target.push_str(&percent_encoded(value));
        }
        let headers = header_lines(request.headers)?;
        Ok(format!(
            "GET {target} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {WEBSOCKET_KEY}\r\n{headers}\r\n",
            self.authority
        ))
    }
}

fn header_lines(headers: &[String]) -> Result<String> {
    let mut lines = String::new();
    for header in headers {
        let plain = !header.contains(['\r', '\n']);
        let (name, value) = header
            .split_once(':')
            .filter(|(name, _)| plain && !name.is_empty())
            .with_context(|| format!("header is {header:?}, expected \"Name: value\""))?;
        lines.push_str(&format!("{name}: {}\r\n", value.trim()));
    }
    Ok(lines)
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request_line(url: &str, params: &[(&str, &str)]) -> String {
        let request = Request { params: params.to_vec(), headers: &[] };
        let text = Url::parse("ws", url).and_then(|url| url.upgrade_request(&request)).expect("a valid url");
        text.lines().next().expect("a request line").to_owned()
    }

    #[test]
    fn the_version_and_the_parameters_are_added_to_any_query() {
        let plain = "ws://127.0.0.1:4000/socket/websocket";
        assert_eq!(request_line(plain, &[]), "GET /socket/websocket?vsn=2.0.0 HTTP/1.1");
        assert_eq!(
            request_line(plain, &[("token", "a b&c"), ("user_id", "7")]),
            "GET /socket/websocket?token=a%20b%26c&user_id=7&vsn=2.0.0 HTTP/1.1"
        );
        assert_eq!(request_line("ws://h:1/s?vsn=2.1.0", &[("k", "v")]), "GET /s?vsn=2.1.0&k=v HTTP/1.1");
        assert_eq!(request_line("ws://[::1]:4000", &[]), "GET /?vsn=2.0.0 HTTP/1.1");
    }

    #[test]
    fn a_url_of_another_kind_is_refused_with_what_was_expected() {
        for wrong in ["http://a:1/", "wss://a:1/", "ws://a/socket", "ws://a:b/", "ws://a:1/x y", ""] {
            let error = Url::parse("ws", wrong).expect_err(wrong).to_string();
            assert!(error.contains("expected"), "{error}");
        }
    }

    #[test]
    fn an_http_url_gives_the_path_and_the_host_of_its_requests() {
        let origin = |url: &str| Target::http(url, &["A:b".to_owned()], &[]).map(|(_, origin)| origin);
        let parts = |url: &str| {
            let origin = origin(url).expect("a valid url");
            (origin.authority, origin.path, origin.headers)
        };
        let owned = |parts: [&str; 3]| parts.map(str::to_owned).into();
        assert_eq!(parts("http://127.0.0.1:4000/mcp?a=b"), owned(["127.0.0.1:4000", "/mcp?a=b", "A: b\r\n"]));
        assert_eq!(parts("http://[::1]:80"), owned(["[::1]:80", "/", "A: b\r\n"]));
        for wrong in ["ws://127.0.0.1:1/", "https://127.0.0.1:1/", "http://127.0.0.1/mcp"] {
            let error = origin(wrong).expect_err(wrong).to_string();
            assert!(error.contains("expected") && error.contains("http://host:port/path"), "{error}");
        }
    }

    #[test]
    fn headers_are_sent_and_none_can_smuggle_a_line() {
        let url = Url::parse("ws", "ws://a:1/").expect("a valid url");
        let build = |header: &str| {
            let headers = [header.to_owned()];
            let request = Request { params: Vec::new(), headers: &headers };
            url.upgrade_request(&request)
        };
        let text = build("Origin:  http://localhost").expect("a valid header");
        assert!(text.ends_with("\r\nOrigin: http://localhost\r\n\r\n"), "{text}");
        assert!(build("no colon").is_err());
        assert!(build("A: b\r\nC: d").is_err());
    }
}
