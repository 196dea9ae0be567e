//! How a connection with an upstream opens: in the era of the client it is for, or else in the other.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use serde_json::value::RawValue;

use super::SpokenEra;
use super::instance::{Hello, Instance, result_of};
use super::learned::Learned;
use crate::protocol::jsonrpc::{Object, bare_notification};
use crate::protocol::mcp::client::{META_CAPABILITIES, META_CLIENT_INFO, META_VERSION};
use crate::protocol::mcp::version::Version;
use crate::protocol::mcp::{DISCOVER, INITIALIZE, INITIALIZED};

/// How long an upstream may take to say that it does not know the stateless era, where the other may be tried.
const DISCOVER_TIMEOUT: Duration = Duration::from_secs(5);

/// The request with which the stateless era opens.
pub(super) fn discover(id: u64) -> String {
    let meta = json!({
        META_VERSION: Version::V2026_07_28, META_CAPABILITIES: {}, META_CLIENT_INFO: own_info(),
    });
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{DISCOVER}","params":{{"_meta":{meta}}}}}"#)
}

/// Who asks where no client of ours does.
pub(super) fn own_info() -> serde_json::Value {
    json!({"name": "bennu", "version": env!("CARGO_PKG_VERSION")})
}

/// How to open.
pub(super) struct Opening<'a> {
    /// The params of `initialize`.
    pub(super) introduction: &'a RawValue,
    /// Whether the stateless era is tried first.
    pub(super) is_modern_first: bool,
    pub(super) era: SpokenEra,
    pub(super) learned: &'a Learned,
    /// Whether the client says itself when it is ready.
    pub(super) leaves_initialized: bool,
}

/// Shakes hands.
///
/// # Errors
/// Why the upstream is of no use.
pub(super) async fn shake(instance: &Arc<Instance>, opening: &Opening<'_>) -> Result<(), String> {
    let hello = match (opening.era, opening.is_modern_first) {
        (SpokenEra::Legacy, _) => initialize(instance, opening).await?,
        (SpokenEra::Stateless, _) => open_modern(instance).await?,
        (SpokenEra::Auto, true) if !opening.learned.fears_discover() => {
            match Opened::of(tokio::time::timeout(DISCOVER_TIMEOUT, open_modern(instance)), opening.learned).await {
                Ok(Ok(hello)) => hello,
                Ok(Err(why)) if !instance.is_up() => return Err(why),
                _ => initialize(instance, opening).await?,
            }
        }
        (SpokenEra::Auto, _) => match initialize(instance, opening).await {
            Ok(hello) => hello,
            Err(why) if !instance.is_up() => return Err(why),
            Err(why) => match tokio::time::timeout(DISCOVER_TIMEOUT, open_modern(instance)).await {
                Ok(Ok(hello)) => hello,
                _ => return Err(why),
            },
        },
    };
    opening.learned.note_era(opening.is_modern_first, hello.is_modern());
    instance.set_hello(hello);
    Ok(())
}

/// `server/discover` to an upstream that may not bear it: some end, or say nothing, before `initialize`.
struct Opened<'a> {
    learned: &'a Learned,
    has_answered: bool,
}

impl Opened<'_> {
    async fn of<T, E>(
        opening: impl Future<Output = Result<Result<T, String>, E>>,
        learned: &Learned,
    ) -> Result<Result<T, String>, E> {
        // Where the upstream ends, this is dropped without an answer.
        let mut opened = Opened { learned, has_answered: false };
        let said = opening.await;
        opened.has_answered = said.is_ok();
        said
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        if !self.has_answered {
            self.learned.note_fear_of_discover();
        }
    }
}

async fn open_modern(instance: &Arc<Instance>) -> Result<Hello, String> {
    let mut ticket = instance.request(None, DISCOVER, discover).map_err(|lost| lost.why)?;
    let text = ticket.answer().await.map_err(|lost| lost.why)?;
    let result = result_of(&text).map_err(|why| format!("{DISCOVER}: {why}"))?;
    let versions =
        Object::parse(result.get().as_bytes()).and_then(|result| result.get::<Vec<String>>("supportedVersions"));
    let versions = versions.unwrap_or_default();
    if !versions.iter().any(|version| version == Version::V2026_07_28.as_str()) {
        return Err(format!("{DISCOVER}: expected revision {} among {versions:?}", Version::V2026_07_28));
    }
    Ok(Hello { version: Version::V2026_07_28, result, text })
}

async fn initialize(instance: &Arc<Instance>, opening: &Opening<'_>) -> Result<Hello, String> {
    let params = opening.introduction.get();
    let request = instance.request(None, INITIALIZE, |id| {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{INITIALIZE}","params":{params}}}"#)
    });
    let text = request.map_err(|lost| lost.why)?.answer().await.map_err(|lost| lost.why)?;
    let result = result_of(&text).map_err(|why| format!("{INITIALIZE}: {why}"))?;
    let named = Object::parse(result.get().as_bytes()).and_then(|result| result.string("protocolVersion"));
    let named = named.unwrap_or_default();
    let version = Version::parse(&named).filter(|version| !version.is_modern());
    let version = version.ok_or_else(|| format!("{INITIALIZE}: expected a revision with it, came {named:?}"))?;
    if !opening.leaves_initialized {
        instance.tell(bare_notification(INITIALIZED));
    }
    Ok(Hello { version, result, text })
}
