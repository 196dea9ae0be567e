//! One HTTP request, as the sockets look at it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use warp::Filter;
use warp::http::{HeaderMap, Method, Version, header};

use super::admission::Permit;
use crate::channel::RequestUri;

/// What is known of a connection. Our accept loop puts it among the extensions of each request; under a listener of
/// somebody else's there is less to know.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's address.
    pub address: SocketAddr,
    /// The HTTP version of the request.
    pub version: Version,
    /// The host and port of its target, if that is a whole URL.
    pub authority: Option<String>,
    /// Whether it is TLS, here and not at a proxy.
    pub tls: bool,
    /// The connection's place in the count of open connections; none under a listener of somebody else's.
    pub permit: Option<Arc<Permit>>,
}

impl Peer {
    /// The scheme of the URLs that its requests are for.
    pub(super) fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// The port of a URL of that scheme that names none.
    pub(super) fn default_port(&self) -> u16 {
        if self.tls { 443 } else { 80 }
    }
}

/// The peer of a request, whoever accepted its connection. An address that is not known is 0.0.0.0:0.
pub(super) fn peer() -> impl Filter<Extract = (Peer,), Error = Infallible> + Clone + Send + Sync + 'static {
    warp::ext::optional::<Peer>().and(warp::addr::remote()).map(|peer: Option<Peer>, remote: Option<SocketAddr>| {
        peer.unwrap_or_else(|| Peer {
            address: remote.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0))),
            version: Version::HTTP_11,
            authority: None,
            tls: false,
            permit: None,
        })
    })
}

/// A request for one of the sockets.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) peer: Peer,
    pub(super) upgrade: Option<OnUpgrade>,
}

impl Arrival {
    /// All values of a header, joined by commas; none if it is absent. Bytes that are no text are shown as `?`.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let mut values = self.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        let first = values.next()?.into_owned();
        Some(values.fold(first, |joined, value| joined + ", " + &value))
    }

    /// Where the request went, by its target where that names a host, otherwise by its one `Host` header. None without one
    /// that can be read.
    pub(super) fn uri(&self) -> Option<RequestUri> {
        let (host, port) = split_host(authority(&self.peer, &self.headers)?)?;
        Some(RequestUri {
            scheme: self.peer.scheme().to_owned(),
            host: host.to_owned(),
            port: port.unwrap_or(self.peer.default_port()),
            path: self.path.clone(),
            query: self.query.clone(),
        })
    }
}

/// The host that a request names, perhaps with a port. None if two headers name one, or nothing does.
///
/// Source: RFC 9112, sections 3.2 and 3.2.2.
pub(super) fn authority<'a>(peer: &'a Peer, headers: &'a HeaderMap) -> Option<&'a str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return None;
    }
    match &peer.authority {
        Some(authority) => Some(authority),
        None => host?.to_str().ok(),
    }
}

/// Host and port of a `Host` header; an IPv6 address keeps its brackets off. None if it has no such form.
pub(super) fn split_host(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    match rest.strip_prefix(':') {
        None => rest.is_empty().then_some((host, None)),
        Some("") => Some((host, None)),
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => Some((host, Some(port.parse().ok()?))),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_may_have_a_port_and_nothing_else() {
        assert_eq!(split_host("localhost"), Some(("localhost", None)));
        assert_eq!(split_host("localhost:"), Some(("localhost", None)));
        assert_eq!(split_host("a.example:8080"), Some(("a.example", Some(8080))));
        assert_eq!(split_host("[::1]"), Some(("::1", None)));
        assert_eq!(split_host("[::1]:4000"), Some(("::1", Some(4000))));

        for wrong in ["[::1].evil.example", "[::1]:4000.evil.example", "[::1", "::1", "a:b", "a:+1", "a:65536", "a:1:2"]
        {
            assert_eq!(split_host(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_request_over_tls_is_for_https_and_its_port() {
        let uri = |tls, host: &str| {
            let address = SocketAddr::from(([127, 0, 0, 1], 1));
            let peer = Peer { address, version: Version::HTTP_11, authority: None, tls, permit: None };
            let headers = HeaderMap::from_iter([(header::HOST, host.parse().expect("a value"))]);
            let (path, query) = ("/socket/websocket".to_owned(), String::new());
            let uri = Arrival { method: Method::GET, path, query, headers, peer, upgrade: None }.uri().expect("a host");
            (uri.scheme, uri.port)
        };

        assert_eq!(uri(false, "a.example"), ("http".to_owned(), 80));
        assert_eq!(uri(true, "a.example"), ("https".to_owned(), 443));
        assert_eq!(uri(true, "a.example:4000"), ("https".to_owned(), 4000));
    }
}
