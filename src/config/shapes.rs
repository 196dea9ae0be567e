//! The shapes of texts that settings take: log levels, hosts, origins, URLs and their paths, headers, names.

use std::net::Ipv6Addr;

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
