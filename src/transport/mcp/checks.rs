//! What a request has to be before its message is looked at.

use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use tokio_stream::StreamExt;
use warp::Buf;
use warp::http::{StatusCode, header};

use super::refusal::Refusal;
use super::{Arrival, McpHttpOptions};
use crate::protocol::json;
use crate::protocol::mcp::session::Credential;
use crate::protocol::origin::{self, RequestOrigin};
use crate::transport::arrival::{authority, split_host};

/// The request names this server by a host it knows, and comes from no page but those that may.
pub(super) fn host_and_origin(options: &McpHttpOptions, arrival: &Arrival) -> Result<(), Refusal> {
    let named = authority(&arrival.peer, &arrival.headers).and_then(split_host);
    let Some((host, port)) = named else {
        return Err(Refusal::forbidden("expected one host, with or without a port"));
    };
    let is_known = |known: &String| known == "*" || known.eq_ignore_ascii_case(host);
    if !options.hosts.iter().any(is_known) {
        return Err(Refusal::forbidden("the Host header names a host that is not served"));
    }
    let peer = &arrival.peer;
    let target = RequestOrigin { scheme: peer.scheme(), host, port: port.unwrap_or(peer.default_port()) };
    let mut origins = arrival.headers.get_all(header::ORIGIN).iter();
    // What is no text is no origin that a rule could name.
    let is_allowed = |value: &warp::http::HeaderValue| {
        value.to_str().is_ok_and(|origin| origin::check(&options.origins, Some(origin), &target))
    };
    if !origins.all(is_allowed) {
        return Err(Refusal::forbidden("pages of this origin are not served"));
    }
    Ok(())
}

/// The body is said to be JSON.
pub(super) fn content_type(arrival: &Arrival) -> Result<(), Refusal> {
    let values = arrival.headers.get_all(header::CONTENT_TYPE);
    let is_json = |value: &warp::http::HeaderValue| {
        value.to_str().is_ok_and(|value| essence(value).eq_ignore_ascii_case("application/json"))
    };
    let mut values = values.iter();
    if values.next().is_some_and(is_json) && values.next().is_none() {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Type: expected application/json"))
}

/// The client takes answers of all these media types; one that does not say so takes any.
pub(super) fn accept(arrival: &Arrival, wanted: &[&str]) -> Result<(), Refusal> {
    let accepted: Vec<_> =
        arrival.headers.get_all(header::ACCEPT).iter().map(|value| value.to_str().unwrap_or_default()).collect();
    let admits = |wanted: &str| {
        let ranges = || accepted.iter().flat_map(|value| value.split(','));
        ranges().any(|range| is_of(wanted, range))
    };
    if accepted.is_empty() || wanted.iter().all(|wanted| admits(wanted)) {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, format!("Accept: expected {}", wanted.join(", "))))
}

fn is_of(wanted: &str, range: &str) -> bool {
    let kind = essence(range);
    let is_refused = range.split(';').skip(1).any(|parameter| {
        let parameter = parameter.trim();
        let quality = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
        quality.and_then(|quality| quality.parse::<f64>().ok()) == Some(0.0)
    });
    let family = || wanted.split('/').next().unwrap_or_default();
    let fits = kind.eq_ignore_ascii_case(wanted)
        || kind == "*/*"
        || kind.strip_suffix("/*").is_some_and(|kind| kind.eq_ignore_ascii_case(family()));
    fits && !is_refused
}

fn essence(value: &str) -> &str {
    value.split(';').next().unwrap_or_default().trim()
}

/// The values of a header, joined by commas; none where there is none. Bytes that are no text are replaced.
pub(super) fn joined(arrival: &Arrival, name: &str) -> Option<String> {
    let values = arrival.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let values: Vec<_> = values.collect();
    (!values.is_empty()).then(|| values.join(","))
}

/// The bearer token, if one came.
pub(super) fn credential(arrival: &Arrival) -> Option<Credential> {
    let value = arrival.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Credential::Token(token.trim().to_owned()))
}

/// Reads the body.
pub(super) async fn body<B: Buf>(
    options: &McpHttpOptions,
    arrival: &Arrival,
    body: impl Stream<Item = Result<B, warp::Error>> + Send,
) -> Result<Bytes, Refusal> {
    let bytes_max = options.body_bytes_max;
    let too_large = || {
        let text = format!("the body is too large: expected at most {bytes_max} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    };
    let length = arrival.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > bytes_max) {
        return Err(too_large());
    }
    let mut body = pin!(body);
    let reading = async {
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(chunk) = body.next().await {
            let mut chunk = chunk.map_err(|_| Refusal::invalid("the body breaks off"))?;
            if first.len().max(rest.len()) + chunk.remaining() > bytes_max {
                return Err(too_large());
            }
            // One chunk, the usual case, is not copied.
            let bytes = chunk.copy_to_bytes(chunk.remaining());
            if first.is_empty() && rest.is_empty() {
                first = bytes;
            } else {
                rest.extend_from_slice(&std::mem::take(&mut first));
                rest.extend_from_slice(&bytes);
            }
        }
        Ok(if rest.is_empty() { first } else { rest.freeze() })
    };
    match tokio::time::timeout(Duration::from_millis(options.body_timeout_ms), reading).await {
        Ok(read) => read,
        Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
    }
}

/// The body as the text of one JSON value, without whitespace around it.
pub(super) fn json(body: &[u8]) -> Result<&[u8], Refusal> {
    let text = std::str::from_utf8(body).map_err(|_| Refusal::parse("the body is not UTF-8"))?;
    json::validate(text).map_err(Refusal::parse)?;
    Ok(text.trim_matches([' ', '\t', '\r', '\n']).as_bytes())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use warp::http::{HeaderMap, Method, Version};

    use super::*;
    use crate::transport::arrival::Peer;

    fn arrival(pairs: &[(&str, &str)]) -> Arrival {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<header::HeaderName>().expect("a name"), value.parse().expect("a value"));
        }
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let peer = Peer { address, version: Version::HTTP_11, authority: None, tls: false, permit: None };
        Arrival { method: Method::POST, headers, peer }
    }

    #[test]
    fn this_machine_is_named_by_its_own_names_alone() {
        let passes = |pairs: &[(&str, &str)]| host_and_origin(&McpHttpOptions::default(), &arrival(pairs)).is_ok();

        for host in ["localhost", "LOCALHOST:4000", "127.0.0.1:1", "[::1]:80"] {
            assert!(passes(&[("host", host)]), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "", "a:b", "[::1", "localhost@x"] {
            assert!(!passes(&[("host", host)]), "{host}");
        }
        assert!(!passes(&[]) && !passes(&[("host", "localhost"), ("host", "localhost")]));
        let with = |origin| passes(&[("host", "localhost"), ("origin", origin)]);
        assert!(with("http://localhost:3000") && with("https://127.0.0.1") && with("http://[::1]:5"));
        assert!(!with("http://evil.example") && !with("null") && !with("http://localhost.evil.example") && !with(""));
    }

    #[test]
    fn the_servers_own_pages_are_those_of_the_scheme_it_is_reached_by() {
        let options = McpHttpOptions { origins: OriginPolicy::Conn, ..McpHttpOptions::default() };
        let passes = |tls, origin| {
            let mut arrival = arrival(&[("host", "localhost"), ("origin", origin)]);
            arrival.peer.tls = tls;
            host_and_origin(&options, &arrival).is_ok()
        };

        assert!(passes(false, "http://localhost") && passes(true, "https://localhost"));
        assert!(!passes(true, "http://localhost") && !passes(false, "https://localhost"));
        assert!(!passes(true, "https://localhost:80") && passes(true, "https://localhost:443"));
    }

    #[test]
    fn other_hosts_and_pages_come_in_where_they_are_named() {
        let rule = OriginRule::parse("https://*.example.com").expect("a rule");
        let options = McpHttpOptions {
            hosts: vec!["mcp.example.com".to_owned()],
            origins: OriginPolicy::List(vec![rule]),
            ..McpHttpOptions::default()
        };
        let passes = |host, origin| host_and_origin(&options, &arrival(&[("host", host), ("origin", origin)])).is_ok();

        assert!(passes("mcp.example.com:443", "https://app.example.com"));
        assert!(
            !passes("localhost", "https://app.example.com") && !passes("mcp.example.com", "http://app.example.com")
        );
    }

    use crate::protocol::origin::{OriginPolicy, OriginRule};

    #[test]
    fn answers_are_taken_where_nothing_says_otherwise() {
        let both = ["application/json", "text/event-stream"];
        let takes = |values: &[&str]| {
            let pairs: Vec<_> = values.iter().map(|value| ("accept", *value)).collect();
            accept(&arrival(&pairs), &both).is_ok()
        };

        assert!(takes(&[]) && takes(&["*/*"]) && takes(&["Application/JSON;q=0.5, text/event-stream"]));
        assert!(takes(&["application/*", "text/*"]) && takes(&["text/event-stream,application/json; charset=utf-8"]));
        assert!(!takes(&["application/json"]) && !takes(&["text/html"]) && !takes(&[""]));
        assert!(
            !takes(&["application/json, text/event-stream;q=0"]) && !takes(&["application/jsonx, text/event-stream"])
        );
    }

    #[test]
    fn json_is_the_only_type_of_a_body() {
        let is_json = |value| content_type(&arrival(&[("content-type", value)])).is_ok();

        assert!(is_json("application/json") && is_json("Application/Json; charset=utf-8"));
        assert!(!is_json("text/plain") && !is_json("application/jsonp") && !is_json("text/plain; application/json"));
        assert!(content_type(&arrival(&[])).is_err());
    }

    #[test]
    fn a_bearer_token_is_the_credential() {
        let token = |value| credential(&arrival(&[("authorization", value)]));

        assert_eq!(token("Bearer abc"), Some(Credential::Token("abc".to_owned())));
        assert_eq!(token("bearer  abc"), Some(Credential::Token("abc".to_owned())));
        assert_eq!((token("Basic abc"), token("Bearer"), credential(&arrival(&[]))), (None, None, None));
    }
}
