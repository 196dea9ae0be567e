//! The shapes of texts that settings take: log levels, hosts, origins, URLs and their paths, headers, names.

use std::net::{IpAddr, Ipv6Addr};

use super::settings::CREDENTIALS;
use crate::protocol::topic::RESERVED;

/// The longest topic of `topics.patterns`, in bytes.
const TOPIC_BYTES_MAX: usize = 255;

/// The words of `server.log` that name a level.
pub(super) const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Whether this is `scheme://host[:port]`, or `//host[:port]` for any scheme; a host may begin with `*.`.
///
/// Source: Phoenix.Socket, option `:check_origin`.
pub(super) fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("//") else {
        return false;
    };
    let scheme_is_fine = scheme.is_empty()
        || scheme.strip_suffix(':').is_some_and(|name| {
            name.starts_with(|first: char| first.is_ascii_alphabetic())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        });
    scheme_is_fine && host_of(authority).is_some_and(|host| is_host(host.strip_prefix("*.").unwrap_or(host)))
}

/// Whether this is a URL of http or https without user, password and fragment.
pub(super) fn is_url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return false;
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    // RFC 3986, section 2, without the `#` that begins a fragment.
    let is_of_urls = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=%".contains(&byte);
    is_host_port(authority) && path.bytes().all(is_of_urls)
}

/// Whether this names addresses: one, a range as CIDR, or an IPv4 address with stars for its last parts.
pub(super) fn is_ip_pattern(text: &str) -> bool {
    if text.contains('*') {
        let parts: Vec<_> = text.split('.').collect();
        let numbers = parts.iter().take_while(|part| **part != "*");
        let are_numbers = numbers.clone().all(|part| part.parse::<u8>().is_ok());
        return parts.len() == 4 && are_numbers && parts[numbers.count()..].iter().all(|part| *part == "*");
    }
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    let bits_max = if address.is_ipv4() { 32 } else { 128 };
    bits.is_none_or(|bits| bits.parse::<u8>().is_ok_and(|bits| bits <= bits_max))
}

/// Whether this is a topic, or a pattern with a star at its end, that takes in none of the server's own.
pub(super) fn is_topic(text: &str) -> bool {
    let (prefix, is_pattern) = text.strip_suffix('*').map_or((text, false), |prefix| (prefix, true));
    let mut own = RESERVED.iter().copied().chain(["mcp:", "status:", "phoenix"]);
    let is_own = own.any(|own| prefix.starts_with(own) || is_pattern && own.starts_with(prefix));
    !text.is_empty() && text.len() <= TOPIC_BYTES_MAX && !is_own && !prefix.contains('*')
}

/// Whether this is an MCP topic, or a pattern of some, with kinds of credentials: `mcp:server:files=jwt+api_key`.
pub(super) fn is_topic_credentials(text: &str) -> bool {
    text.split_once('=').is_some_and(|(topic, kinds)| {
        topic.starts_with("mcp:")
            && topic.find('*').is_none_or(|star| star + 1 == topic.len())
            && kinds.split('+').all(|kind| CREDENTIALS.contains(&kind))
    })
}

/// Whether this is a method with its cost: `tools/call=5`.
pub(super) fn is_cost(text: &str) -> bool {
    text.split_once('=').is_some_and(|(method, cost)| !method.is_empty() && cost.parse::<u32>().is_ok())
}

/// Returns what stands before the port of `host[:port]`, unless the port is none.
fn host_of(authority: &str) -> Option<&str> {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => port.parse::<u16>().is_ok_and(|port| port > 0).then_some(host),
        _ => Some(authority),
    }
}

/// Whether this is `host[:port]`.
pub(super) fn is_host_port(text: &str) -> bool {
    host_of(text).is_some_and(is_host)
}

pub(super) fn is_host(text: &str) -> bool {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let bytes_max = 253; // RFC 1035, section 2.3.4, without the final dot.
    (1..=bytes_max).contains(&text.len())
        && text.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        })
}

pub(super) fn is_route(text: &str) -> bool {
    text.strip_prefix('/').is_some_and(|rest| {
        rest.split('/').all(|segment| {
            !segment.is_empty()
                && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte))
                && segment.bytes().any(|byte| byte != b'.')
        })
    })
}

/// A bare word has to be a level: a misspelt level would otherwise be taken for the name of a target.
pub(super) fn is_log_level(directive: &str) -> bool {
    let (target, level) = directive.rsplit_once('=').unwrap_or(("all", directive));
    let target_is_fine =
        !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-:".contains(&byte));
    target_is_fine && LOG_LEVELS.contains(&level)
}

/// Source: RFC 9110, section 5.6.2, `token`.
pub(super) fn is_header_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Source: RFC 9110, section 5.5, without what it calls obsolete; an empty value is most likely a mistake.
pub(super) fn is_header_value(text: &str) -> bool {
    !text.is_empty()
        && text.trim_matches([' ', '\t']).len() == text.len()
        && text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
}

/// Whether an environment variable can have this name; shells take fewer names than systems do.
pub(super) fn is_variable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'=')
}
