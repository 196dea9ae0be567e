//! Which addresses are let in, and which address a client behind proxies has.
//!
//! Source: the contract of the Elixir deployment, section 11.2, and T13.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};

/// Patterns of one list. Each is compared at each connect.
pub const PATTERNS_MAX: usize = 4_096;
/// Bytes of a pattern: more than the longest network of IPv6.
pub const PATTERN_BYTES_MAX: usize = 64;
/// Addresses of `X-Forwarded-For` that are looked at, from the last on: more proxies than anyone has in a row.
pub const FORWARDED_MAX: usize = 32;

/// Bits of the networks that write addresses of IPv4 as IPv6.
const MAPPED_BITS: u8 = 96;

/// Some addresses: `192.0.2.1`, `2001:db8::1`, `10.0.0.0/8`, `2001:db8::/32`, or as the deployment wrote them,
/// `10.0.*.*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpPattern(Form);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Network(IpNet),
    /// Octets; none for any.
    Wildcard([Option<u8>; 4]),
}

/// A text is no pattern of addresses, or a list has too many: the operator's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IpPatternError {
    /// It has none of the forms.
    #[error("Invalid IP pattern: expected a form such as 192.0.2.1, 2001:db8::/32 or 10.0.*.*, came {0:?}")]
    Form(String),
    /// A list is too long.
    #[error("expected at most {PATTERNS_MAX} IP patterns in a list, came {0}")]
    TooMany(usize),
}

impl IpPattern {
    /// Reads a pattern. Bits of a network's address behind its prefix don't matter.
    ///
    /// # Errors
    /// [`IpPatternError::Form`].
    pub fn parse(text: &str) -> Result<Self, IpPatternError> {
        let form = match parse_network(text) {
            Ok(network) => Some(Form::Network(network)),
            Err(_) => wildcard(text).map(Form::Wildcard),
        };
        form.map(IpPattern).ok_or_else(|| no_pattern(text))
    }

    /// Whether an address is among them. One of IPv4 that is written as IPv6 is one of IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.0, ip.to_canonical()) {
            (Form::Network(network), ip) => network.contains(&ip),
            (Form::Wildcard(octets), IpAddr::V4(ip)) => {
                octets.iter().zip(ip.octets()).all(|(octet, of_ip)| octet.is_none_or(|octet| octet == of_ip))
            }
            (Form::Wildcard(_), IpAddr::V6(_)) => false,
        }
    }
}

impl fmt::Display for IpPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Form::Network(network) if network.prefix_len() == network.max_prefix_len() => network.addr().fmt(f),
            Form::Network(network) => network.fmt(f),
            Form::Wildcard(octets) => {
                let octets = octets.map(|octet| octet.map_or_else(|| "*".to_owned(), |octet| octet.to_string()));
                f.write_str(&octets.join("."))
            }
        }
    }
}

/// Reads a network or one address. Networks of IPv4 that are written as IPv6 become
/// what they are.
///
/// # Errors
/// [`IpPatternError::Form`].
fn parse_network(text: &str) -> Result<IpNet, IpPatternError> {
    let network = match text.split_once('/') {
        _ if text.len() > PATTERN_BYTES_MAX => None,
        // A sign or zeros before the bits are another's idea of a number.
        Some((_, bits)) if bits.starts_with(['+', '0']) && bits != "0" => None,
        Some(_) => text.parse::<IpNet>().ok(),
        None => text.parse::<IpAddr>().ok().map(IpNet::from),
    };
    let network = network.ok_or_else(|| no_pattern(text))?.trunc();
    if let IpNet::V6(mapped) = network
        && let Some(ip) = mapped.addr().to_ipv4_mapped()
        && mapped.prefix_len() >= MAPPED_BITS
    {
        let bits = mapped.prefix_len() - MAPPED_BITS;
        return Ok(IpNet::V4(Ipv4Net::new(ip, bits).expect("128 bits less 96 are at most 32")));
    }
    Ok(network)
}

fn no_pattern(text: &str) -> IpPatternError {
    IpPatternError::Form(text.chars().take(PATTERN_BYTES_MAX).collect())
}

/// Four octets, some of them stars.
fn wildcard(text: &str) -> Option<[Option<u8>; 4]> {
    let mut octets = [None; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = match parts.next()? {
            "*" => None,
            part => Some(parse_octet(part)?),
        };
    }
    parts.next().is_none().then_some(octets)
}

/// A number without zeros or a sign before it.
fn parse_octet(text: &str) -> Option<u8> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

/// Addresses that are denied, those that are allowed, and what becomes of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpRules {
    allowed: Vec<IpPattern>,
    denied: Vec<IpPattern>,
    allows_others: bool,
}

/// All are let in. Source: the deployment's `allow_by_default`.
impl Default for IpRules {
    fn default() -> Self {
        IpRules { allowed: Vec::new(), denied: Vec::new(), allows_others: true }
    }
}

/// Why an address is not let in: for the log, not for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IpDenied {
    /// It is denied.
    #[error("IP blacklisted")]
    Denied,
    /// It has failed too often.
    #[error("IP temporarily blocked")]
    Locked,
    /// It is not allowed, where others aren't either.
    #[error("No whitelist entry found")]
    NotAllowed,
}

impl IpRules {
    /// Reads both lists. Addresses in neither are let in if `allows_others`.
    ///
    /// # Errors
    /// [`IpPatternError`] of the first pattern that is none, or a list that is too long.
    pub fn parse<T: AsRef<str>>(allowed: &[T], denied: &[T], allows_others: bool) -> Result<Self, IpPatternError> {
        let read = |list: &[T]| {
            if list.len() > PATTERNS_MAX {
                return Err(IpPatternError::TooMany(list.len()));
            }
            list.iter().map(|text| IpPattern::parse(text.as_ref())).collect::<Result<Vec<_>, _>>()
        };
        Ok(IpRules { allowed: read(allowed)?, denied: read(denied)?, allows_others })
    }

    /// Asks whether an address is let in; `is_locked` says that it has failed too often. A denial and a lock beat
    /// what is allowed (T13).
    ///
    /// # Errors
    /// Why it is not.
    pub fn check(&self, ip: IpAddr, is_locked: bool) -> Result<(), IpDenied> {
        let is_in = |list: &[IpPattern]| list.iter().any(|pattern| pattern.contains(ip));
        if is_in(&self.denied) {
            Err(IpDenied::Denied)
        } else if is_locked {
            Err(IpDenied::Locked)
        } else if self.allows_others || is_in(&self.allowed) {
            Ok(())
        } else {
            Err(IpDenied::NotAllowed)
        }
    }
}

/// The address of the client behind `peer`, by what trusted proxies say of it.
///
/// `forwarded_for` are the values of `X-Forwarded-For` in the order of their lines. Each proxy appends the address
/// that it was asked from, so the last one that no trusted proxy has is the client's; what stands before it the
/// client may have written itself. Where the peer is not trusted nothing of it counts. An entry that is no address
/// ends the search with the proxy that wrote it, as do more than [`FORWARDED_MAX`]. An address of IPv4 that is
/// written as IPv6 becomes what it is.
pub fn client_ip<'a, I>(peer: IpAddr, forwarded_for: I, trusted: &[IpPattern]) -> IpAddr
where
    I: IntoIterator<Item = &'a str, IntoIter: DoubleEndedIterator>,
{
    let is_trusted = |ip: IpAddr| trusted.iter().any(|pattern| pattern.contains(ip));
    let mut ip = peer.to_canonical();
    let entries = forwarded_for.into_iter().rev().flat_map(|line| line.rsplit(','));
    for entry in entries.take(FORWARDED_MAX) {
        if !is_trusted(ip) {
            break;
        }
        let Some(before) = forwarded(entry.trim_matches([' ', '\t'])) else { break };
        ip = before.to_canonical();
    }
    ip
}

/// An address as proxies write it: alone, with a port, and with brackets around one of IPv6.
fn forwarded(text: &str) -> Option<IpAddr> {
    let alone = || text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    alone().or_else(with_port).or_else(bracketed)
}

#[cfg(test)]
mod tests;
