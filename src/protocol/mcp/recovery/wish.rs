//! What a client that joins says of recovery.

use serde::Serialize;
use serde_json::value::RawValue;

use super::Position;
use crate::protocol::jsonrpc::Object;

/// Key of a join's params, and of replies: the token.
const RECOVERY_TOKEN: &str = "recoveryToken";
/// Key of a join's params and of a heartbeat: the last position that the client has.
const LAST_MESSAGE_ID: &str = "lastMessageId";

/// A client that wants recovery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The token of the session that it comes back to; none where it begins one.
    pub token: Option<String>,
    /// The last message that it has seen, if it says so.
    pub position: Option<Position>,
}

impl Wish {
    /// Reads a join's params; none where they say nothing of recovery. What is no token wishes for a session.
    pub fn read(params: &Object<'_>) -> Option<Self> {
        params
            .has(RECOVERY_TOKEN)
            .then(|| Wish { token: params.string(RECOVERY_TOKEN), position: last_message_id(params) })
            .filter(|_| params.raw(RECOVERY_TOKEN).map(RawValue::get) != Some("false"))
    }
}

/// What the reply to such a join says.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    /// By which the client may come back.
    pub recovery_token: String,
    /// For how many whole seconds after its connection is lost.
    pub recovery_window: u64,
    /// Whether it has come back to its session.
    pub resumed: bool,
    /// What it has from here on.
    pub last_message_id: Position,
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Offer(…, {}, {})", self.resumed, self.last_message_id)
    }
}

/// The last position that a client says it has.
pub(super) fn last_message_id(fields: &Object<'_>) -> Option<Position> {
    fields.raw(LAST_MESSAGE_ID).and_then(Position::read)
}

impl Position {
    /// What a heartbeat acknowledges.
    pub fn acknowledged(heartbeat: &[u8]) -> Option<Self> {
        last_message_id(&Object::parse(heartbeat)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(params: &str) -> Option<(Option<String>, Option<u64>)> {
        let wish = Wish::read(&Object::parse(params.as_bytes()).expect("an object"))?;
        Some((wish.token, wish.position.map(|position| position.0)))
    }

    #[test]
    fn who_names_the_token_wants_recovery_and_nobody_else() {
        let token = |text: &str| Some(text.to_owned());
        assert_eq!(read("{}"), None);
        assert_eq!(read(r#"{"lastMessageId":"@1"}"#), None);
        assert_eq!(read(r#"{"recoveryToken":false}"#), None);
        assert_eq!(read(r#"{"recoveryToken":null}"#), Some((None, None)));
        assert_eq!(read(r#"{"recoveryToken":true,"lastMessageId":3}"#), Some((None, Some(3))));
        assert_eq!(read(r#"{"recoveryToken":"t","lastMessageId":"@3"}"#), Some((token("t"), Some(3))));
        assert_eq!(read(r#"{"recoveryToken":"","lastMessageId":{}}"#), Some((token(""), None)));
        assert_eq!(read(r#"{"recoveryToken":[1]}"#), Some((None, None)));
    }

    #[test]
    fn a_heartbeat_may_acknowledge() {
        assert_eq!(Position::acknowledged(br#"{"lastMessageId":"@9"}"#), Some(Position(9)));
        for nothing in [&b"{}"[..], b"[]", b"null", br#"{"lastMessageId":null}"#] {
            assert_eq!(Position::acknowledged(nothing), None);
        }
    }
}
