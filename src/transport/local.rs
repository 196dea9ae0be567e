//! The development setting's guard: only this machine's own pages and tools come in.

use std::net::IpAddr;

use warp::http::{HeaderMap, Method, Version, header};
use warp::path::FullPath;
use warp::{Filter, Rejection};

use super::arrival::{Peer, authority, peer, split_host};

/// Hosts by which a page on this machine may reach a server in the development setting.
pub const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Lets through only requests for a local host that no page of another site made. Such a page can't reach the server by
/// its own origin, nor by a name that it makes resolve to this machine, nor without an origin.
pub fn local_only() -> impl Filter<Extract = (), Error = Rejection> + Clone + Send + Sync + 'static {
    warp::method()
        .and(warp::path::full())
        .and(warp::header::headers_cloned())
        .and(peer())
        .and_then(|method: Method, path: FullPath, headers: HeaderMap, peer: Peer| async move {
            if is_local(&peer, &method, path.as_str(), &headers) { Ok(()) } else { Err(warp::reject::custom(NotLocal)) }
        })
        .untuple_one()
}

/// Whether a request is for a local host and no page of another site made it.
pub(super) fn is_local(peer: &Peer, method: &Method, path: &str, headers: &HeaderMap) -> bool {
    is_to_local_host(peer, headers) && is_from_local_page(method, path, headers)
}

/// A request that does not come from this machine's own pages.
#[derive(Debug)]
pub struct NotLocal;

impl warp::reject::Reject for NotLocal {}

/// One host is named, and is local. HTTP/1.1 demands the header even where the target names the host; HTTP/1.0 demands
/// neither.
fn is_to_local_host(peer: &Peer, headers: &HeaderMap) -> bool {
    if !headers.contains_key(header::HOST) {
        let names = peer.authority.as_deref();
        return peer.version == Version::HTTP_10 && names.is_none_or(is_local_authority);
    }
    authority(peer, headers).is_some_and(is_local_authority)
}

/// By the origin where there is one, otherwise by `Sec-Fetch-Site`: browsers leave the origin out of a page's plain GET,
/// and pages can change neither. Whoever follows a link to the page at `/` comes in.
fn is_from_local_page(method: &Method, path: &str, headers: &HeaderMap) -> bool {
    let texts = |name| headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?"));
    if headers.contains_key(header::ORIGIN) {
        return texts(header::ORIGIN.as_str())
            .all(|origin| origin.split_once("://").is_some_and(|(_, authority)| is_local_authority(authority)));
    }
    let is_foreign = texts("sec-fetch-site").any(|site| !["same-origin", "same-site", "none"].contains(&site));
    let is_navigation =
        texts("sec-fetch-mode").eq(["navigate"]) && texts("sec-fetch-dest").all(|dest| dest == "document");
    !is_foreign || *method == Method::GET && path == "/" && is_navigation
}

fn is_local_authority(authority: &str) -> bool {
    let Some((host, _)) = split_host(authority) else { return false };
    LOCAL_HOSTS.contains(&host.to_ascii_lowercase().as_str()) || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(path: &str, pairs: &[(&str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap());
        }
        is_from_local_page(&Method::GET, path, &headers)
    }

    #[test]
    fn hosts_of_this_machine_are_local() {
        for host in ["localhost:4000", "127.0.0.1:4000", "[::1]:4000", "LOCALHOST", "127.8.8.8"] {
            assert!(is_local_authority(host), "{host}");
        }
        for host in ["evil.example", "[::1].evil.example", "localhost.evil.example", "localhost@evil.example", ""] {
            assert!(!is_local_authority(host), "{host}");
        }
    }

    #[test]
    fn an_origin_decides_where_there_is_one() {
        assert!(page("/", &[]));
        assert!(page("/x", &[("origin", "http://localhost:4000")]));
        assert!(
            page("/x", &[("origin", "http://127.0.0.1:9"), ("sec-fetch-site", "cross-site")]),
            "another local name"
        );

        for origin in ["https://evil.example", "null", "http://localhost.evil.example", "http://localhost@evil.example"]
        {
            assert!(!page("/", &[("origin", origin), ("sec-fetch-site", "same-origin")]), "{origin}");
        }
    }

    #[test]
    fn a_request_without_an_origin_is_foreign_by_its_site_unless_someone_follows_a_link_to_the_page() {
        for site in ["same-origin", "same-site", "none"] {
            assert!(page("/socket/longpoll", &[("sec-fetch-site", site)]), "{site}");
        }
        let foreign = |path, mode, dest| {
            page(path, &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest)])
        };
        assert!(!foreign("/", "no-cors", "image"));
        assert!(!foreign("/socket/longpoll", "no-cors", "script"));
        assert!(!foreign("/socket/longpoll", "navigate", "document"));
        assert!(!foreign("/", "navigate", "iframe"));
        assert!(foreign("/", "navigate", "document"));
        assert!(!page("/", &[("sec-fetch-site", "unheard-of")]));
    }
}
