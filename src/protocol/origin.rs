//! Which web pages may connect: Phoenix's `check_origin`.
//!
//! Browsers send `Origin` with every WebSocket handshake and cross-origin request, other clients usually don't. What has no
//! such header is let through; tokens are what keeps strangers out.
//!
//! Source: `Phoenix.Socket.Transport.check_origin/5`, `URI.parse/1`; transcripts, group origin.

#[cfg(test)]
mod tests;

/// What the `Origin` header of a request must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginPolicy {
    /// Anything.
    Off,
    /// Its host must be this one, the endpoint's. Scheme and port don't matter, case does. Phoenix's default.
    Host(String),
    /// One of the rules must match.
    List(Vec<OriginRule>),
    /// Its scheme, host and port must be those of the request.
    Conn,
}

/// What the request was sent to, as the server sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestOrigin<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The host, without a port.
    pub host: &'a str,
    /// The port.
    pub port: u16,
}

/// An allowed origin. What it leaves out is not compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginRule {
    scheme: Option<String>,
    host: HostRule,
    port: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostRule {
    Exact(String),
    /// `*.example.org`: the domain and everything below it.
    Below(String),
}

/// An origin rule without a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "origin rule {0:?} has no host, expected a form such as https://example.com, //example.com:8080 or //*.example.com"
)]
pub struct OriginRuleError(pub String);

impl OriginRule {
    /// Reads `https://example.com` (port 443 then), `//example.com:888` or `//*.example.org`.
    ///
    /// # Errors
    /// [`OriginRuleError`] if no host can be found.
    pub fn parse(rule: &str) -> Result<Self, OriginRuleError> {
        let uri = Uri::parse(rule);
        let host = uri.host.ok_or_else(|| OriginRuleError(rule.to_owned()))?;
        Ok(OriginRule {
            scheme: uri.scheme,
            host: match host.strip_prefix("*.") {
                Some(domain) => HostRule::Below(domain.to_owned()),
                None => HostRule::Exact(host.to_owned()),
            },
            port: uri.port,
        })
    }

    fn allows(&self, origin: &Uri<'_>) -> bool {
        (self.scheme.is_none() || self.scheme == origin.scheme)
            && (self.port.is_none() || self.port == origin.port)
            && origin.host.is_some_and(|host| self.host.allows(host))
    }
}

impl HostRule {
    fn allows(&self, host: &str) -> bool {
        match self {
            HostRule::Exact(exact) => host == exact,
            HostRule::Below(domain) => {
                host.strip_suffix(domain.as_str()).is_some_and(|below| below.is_empty() || below.ends_with('.'))
            }
        }
    }
}

/// Whether a request with this `Origin` header may connect. Without the header it may.
pub fn check(policy: &OriginPolicy, origin: Option<&str>, request: &RequestOrigin<'_>) -> bool {
    let Some(origin) = origin else {
        return true;
    };
    let origin = Uri::parse(origin);
    match policy {
        OriginPolicy::Off => true,
        OriginPolicy::Host(host) => origin.host == Some(host),
        OriginPolicy::List(rules) => rules.iter().any(|rule| rule.allows(&origin)),
        OriginPolicy::Conn => {
            origin.scheme.as_deref() == Some(request.scheme)
                && origin.host == Some(request.host)
                && origin.port == Some(u64::from(request.port))
        }
    }
}

/// The parts of a URI that origins are compared by.
#[derive(Debug, PartialEq, Eq)]
struct Uri<'a> {
    /// In lower case.
    scheme: Option<String>,
    /// As written, without user and brackets.
    host: Option<&'a str>,
    /// As written, else the scheme's default. Too large a number is kept as one that no port equals.
    port: Option<u64>,
}

impl<'a> Uri<'a> {
    /// Splits any text; like Elixir's `URI.parse/1` it refuses nothing.
    fn parse(text: &'a str) -> Self {
        let (scheme, rest) = split_scheme(text);
        let authority = rest.strip_prefix("//").map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
        let (host, port) = authority.map_or((None, None), split_authority);
        let scheme = scheme.map(str::to_lowercase);
        let port = port.or_else(|| scheme.as_deref().and_then(default_port));
        Uri { scheme, host, port }
    }
}

fn split_scheme(text: &str) -> (Option<&str>, &str) {
    match text.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => (Some(scheme), rest),
        _ => (None, text),
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// Splits `user@host:port`; a host in brackets may have colons in it.
fn split_authority(authority: &str) -> (Option<&str>, Option<u64>) {
    let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
    let bracketed = address.find(']').filter(|&end| {
        address.starts_with('[')
            && address[1..end].bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'.'))
    });
    let end = bracketed.map_or_else(|| address.find(':').unwrap_or(address.len()), |bracket| bracket + 1);
    let (host, rest) = address.split_at(end);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let digits = rest.strip_prefix(':').unwrap_or_default();
    let digits = &digits[..digits.find(|char: char| !char.is_ascii_digit()).unwrap_or(digits.len())];
    let port = (!digits.is_empty()).then(|| digits.parse().unwrap_or(u64::MAX));
    ((!host.is_empty()).then_some(host), port)
}

/// Source: Elixir's `URI.default_port/1`.
fn default_port(scheme: &str) -> Option<u64> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        "ftp" => Some(21),
        "sftp" => Some(22),
        "tftp" => Some(69),
        "ldap" => Some(389),
        _ => None,
    }
}
