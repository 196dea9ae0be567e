//! The upgrade request: what its headers must say, and the key that answers it.
//!
//! Pure: the transport hands in header values, and checks the method, the HTTP version, the host and the origin itself.
//! Source: RFC 6455 section 4.2.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// What RFC 6455 section 1.3 appends to the client's key before hashing it.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The value of `Sec-WebSocket-Accept` for a request's `Sec-WebSocket-Key`, whatever that is.
pub fn accept_key(sec_websocket_key: &str) -> String {
    STANDARD.encode(Sha1::new().chain_update(sec_websocket_key).chain_update(GUID).finalize())
}

/// Checks the headers of an upgrade request; the first fault in Bandit's order is the error.
///
/// Each argument is a header's value, several of one name joined by `", "`, or `None` where the header is absent.
/// `connection` has to contain `upgrade` and `upgrade` to contain `websocket`, as items of a list and in any case.
/// `key` only has to be there: Bandit takes any value, even an empty one.
///
/// # Errors
/// Answer 400 with the error's text.
pub fn check_upgrade(
    connection: Option<&str>,
    upgrade: Option<&str>,
    version: Option<&str>,
    key: Option<&str>,
) -> Result<(), UpgradeError> {
    if !contains(connection, "upgrade") {
        return Err(UpgradeError::Connection(Got::of(connection)));
    }
    if !contains(upgrade, "websocket") {
        return Err(UpgradeError::Upgrade(Got::of(upgrade)));
    }
    if key.is_none() {
        return Err(UpgradeError::NoKey);
    }
    if version != Some("13") {
        return Err(UpgradeError::Version(Got::of(version)));
    }
    Ok(())
}

fn contains(list: Option<&str>, item: &str) -> bool {
    list.is_some_and(|list| list.split(',').any(|each| each.trim().eq_ignore_ascii_case(item)))
}

/// Why a request is no WebSocket upgrade, in Bandit's words.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum UpgradeError {
    /// `Connection` lacks `upgrade`.
    #[error("'connection' header must contain 'upgrade', got {0}")]
    Connection(Got),
    /// `Upgrade` lacks `websocket`.
    #[error("'upgrade' header must contain 'websocket', got {0}")]
    Upgrade(Got),
    /// There is no `Sec-WebSocket-Key`.
    #[error("'sec-websocket-key' header is absent")]
    NoKey,
    /// `Sec-WebSocket-Version` isn't 13.
    #[error("'sec-websocket-version' header must equal '13', got {0}")]
    Version(Got),
}

/// The value a header had, printed as the list Bandit prints: `[]` or `["keep-alive"]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Got(Option<String>);

impl Got {
    fn of(value: Option<&str>) -> Self {
        Self(value.map(str::to_owned))
    }
}

impl fmt::Display for Got {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        connection: Option<&str>,
        upgrade: Option<&str>,
        version: Option<&str>,
        key: Option<&str>,
    ) -> Result<(), String> {
        check_upgrade(connection, upgrade, version, key).map_err(|error| error.to_string())
    }

    fn refused(text: &str) -> Result<(), String> {
        Err(text.to_owned())
    }

    #[test]
    fn the_accept_key_hashes_whatever_the_client_sent() {
        // RFC 6455 section 1.3, then the recorded answers to a short and to an empty key.
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(accept_key("short"), "JQHdhQRrQ3pd0VAHx7vMGlEiL+4=");
        assert_eq!(accept_key(""), "Kfh9QIsMVZcl6xEPYxPHzW8SZ8w=");
    }

    #[test]
    fn an_absent_header_is_named() {
        let (connection, upgrade, version, key) = (Some("Upgrade"), Some("websocket"), Some("13"), Some("k"));

        assert_eq!(check(None, upgrade, version, key), refused("'connection' header must contain 'upgrade', got []"));
        assert_eq!(check(connection, None, version, key), refused("'upgrade' header must contain 'websocket', got []"));
        assert_eq!(check(connection, upgrade, version, None), refused("'sec-websocket-key' header is absent"));
        assert_eq!(
            check(connection, upgrade, None, key),
            refused("'sec-websocket-version' header must equal '13', got []")
        );
    }

    #[test]
    fn a_wrong_header_is_quoted() {
        let (connection, upgrade, version, key) = (Some("Upgrade"), Some("websocket"), Some("13"), Some("k"));

        assert_eq!(
            check(Some("keep-alive"), upgrade, version, key),
            refused(r#"'connection' header must contain 'upgrade', got ["keep-alive"]"#)
        );
        assert_eq!(
            check(connection, Some("h2c"), version, key),
            refused(r#"'upgrade' header must contain 'websocket', got ["h2c"]"#)
        );
        assert_eq!(
            check(connection, upgrade, Some("8"), key),
            refused(r#"'sec-websocket-version' header must equal '13', got ["8"]"#)
        );
        assert!(check(connection, upgrade, Some("13, 13"), key).is_err());
        assert!(check(Some("upgraded"), upgrade, version, key).is_err());
    }

    #[test]
    fn lists_and_cases_do_not_matter_nor_does_the_key() {
        assert_eq!(check(Some("keep-alive, Upgrade"), Some("WebSocket"), Some("13"), Some("short")), Ok(()));
        assert_eq!(check(Some("UPGRADE"), Some("h2c,websocket"), Some("13"), Some("")), Ok(()));
    }
}
