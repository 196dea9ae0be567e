//! A JWK set by URL: fetched when a token needs it, held, and fetched anew as keys rotate.
//!
//! ```text
//! age of what is held   a token comes
//! fresh                 its keys count
//! refresh_ms            its keys count; the set is fetched meanwhile
//! 2 * refresh_ms        the set is fetched first; if that fails its keys count, as before from then on
//! JWKS_STALE_MS_MAX     the set is fetched first; if that fails the token is refused
//! ```
//!
//! Besides, a token that names a key which is not held has the set fetched at once and waits for it. Whatever tokens
//! come, the network is asked once in [`JWKS_INTERVAL_MS`], and there is one request at a time, for which all wait that
//! need it. Nothing is fetched while no token comes.
//!
//! Source: RFC 7517 section 5; OpenID Connect Core 1.0, section 10.1.1 (rotation).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::header::ACCEPT;
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::JwtSetupError;
use super::key::{Keys, Signed};
use crate::protocol::Time;

/// Milliseconds after which a JWK set is fetched again, unless it is said otherwise.
pub const JWKS_REFRESH_MS: u64 = 5 * 60 * 1_000;
/// Milliseconds between the beginnings of two requests for one JWK set, whatever tokens come.
pub const JWKS_INTERVAL_MS: u64 = 10_000;
/// Milliseconds for which keys are used whose JWK set can't be fetched any more: an issuer that is down for a day stops
/// all, so that keys which it has withdrawn are not good for ever.
pub const JWKS_STALE_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// Bytes of a JWK set. Those of the large providers have less than 20 KiB.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;
/// In which a JWK set has to be there, from the look-up of the name to its last byte.
pub const JWKS_TIMEOUT: Duration = Duration::from_secs(5);
/// Redirects of one request, each to the same scheme, host and port.
pub const JWKS_REDIRECTS_MAX: usize = 3;

/// The keys of a URL.
pub(super) struct Remote {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    url: Url,
    timeout: Duration,
    state: Mutex<State>,
}

struct State {
    schedule: Schedule,
    keys: Arc<Keys>,
    flight: Option<Flight>,
}

/// A request under way, or the last one.
struct Flight {
    /// Closed when it has ended, however it did.
    ended: watch::Receiver<()>,
    task: AbortHandle,
}

impl Flight {
    fn is_under_way(&self) -> bool {
        self.ended.has_changed().is_ok()
    }
}

/// When to ask the network.
#[derive(Debug)]
struct Schedule {
    refresh_ms: u64,
    /// When the request began that brought what is held.
    fetched: Option<Time>,
    /// When the last request began.
    asked: Option<Time>,
    /// Whether a request has failed since one brought what is held.
    has_failed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    Fresh,
    Old,
    VeryOld,
    /// Or never fetched: not to be used.
    Stale,
}

impl Schedule {
    fn age(&self, now: Time) -> Age {
        match self.fetched.map(|fetched| now.since(fetched)) {
            None => Age::Stale,
            Some(ms) if ms >= JWKS_STALE_MS_MAX => Age::Stale,
            // A server that saw no token for long would take the first one with keys that may be withdrawn since. Where
            // the issuer is down nobody is to wait for it again and again.
            Some(ms) if ms >= self.refresh_ms.saturating_mul(2) && !self.has_failed => Age::VeryOld,
            Some(ms) if ms >= self.refresh_ms => Age::Old,
            Some(_) => Age::Fresh,
        }
    }

    fn may_ask(&self, now: Time) -> bool {
        self.asked.is_none_or(|asked| now.since(asked) >= JWKS_INTERVAL_MS)
    }
}

impl Remote {
    /// Prepares requests.
    ///
    /// # Errors
    /// [`JwtSetupError::Url`] and [`JwtSetupError::Client`].
    pub(super) fn open(url: &str, refresh_ms: u64, use_proxy: bool, timeout: Duration) -> Result<Self, JwtSetupError> {
        // What is wrong with it stays out of the text: it may hold what is secret.
        let url = Url::parse(url).map_err(|_| JwtSetupError::Url("expected a URL"))?;
        let is_safe = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
        if !is_safe {
            return Err(JwtSetupError::Url("expected https, or http on a loopback address"));
        }
        // One that the program has chosen before stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = Client::builder().redirect(redirects()).timeout(timeout);
        if !use_proxy {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|error| JwtSetupError::Client(error.to_string()))?;
        let refresh_ms = refresh_ms.max(JWKS_INTERVAL_MS);
        let schedule = Schedule { refresh_ms, fetched: None, asked: None, has_failed: false };
        let state = Mutex::new(State { schedule, keys: Arc::default(), flight: None });
        Ok(Remote { inner: Arc::new(Inner { client, url, timeout, state }) })
    }

    /// Whether one of the keys has made the signature. Cancel-safe: a request goes on for whoever comes next.
    pub(super) async fn verify(&self, signed: &Signed<'_>, now: Time) -> bool {
        let age = self.inner.state.lock().schedule.age(now);
        let flight = if age == Age::Fresh { None } else { self.ask(now) };
        if let Some(flight) = flight
            && age != Age::Old
        {
            until_ended(flight).await;
        }
        let keys = self.keys(now);
        if keys.verify(signed) {
            return true;
        }
        // A key that is held and did not make the signature will not have made it after a fetch either.
        if keys.holds(signed.kid) {
            return false;
        }
        let Some(flight) = self.ask(now) else { return false };
        until_ended(flight).await;
        self.keys(now).verify(signed)
    }

    /// The keys, unless they are stale.
    fn keys(&self, now: Time) -> Arc<Keys> {
        let state = self.inner.state.lock();
        if state.schedule.age(now) == Age::Stale { Arc::default() } else { Arc::clone(&state.keys) }
    }

    /// The request under way, or a new one if it is time for one.
    fn ask(&self, now: Time) -> Option<watch::Receiver<()>> {
        let mut state = self.inner.state.lock();
        if let Some(flight) = state.flight.as_ref().filter(|flight| flight.is_under_way()) {
            return Some(flight.ended.clone());
        }
        if !state.schedule.may_ask(now) {
            return None;
        }
        state.schedule.asked = Some(now);
        let (ends, ended) = watch::channel(());
        let inner = Arc::clone(&self.inner);
        let task = tokio::spawn(async move {
            inner.refresh(now).await;
            drop(ends);
        });
        state.flight = Some(Flight { ended: ended.clone(), task: task.abort_handle() });
        Some(ended)
    }
}

#[cfg(test)]
impl Remote {
    pub(super) fn is_asking(&self) -> bool {
        self.inner.state.lock().flight.as_ref().is_some_and(Flight::is_under_way)
    }

    pub(super) fn task(&self) -> Option<AbortHandle> {
        self.inner.state.lock().flight.as_ref().map(|flight| flight.task.clone())
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("schedule", &self.inner.state.lock().schedule).finish_non_exhaustive()
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if let Some(flight) = &self.inner.state.lock().flight {
            flight.task.abort();
        }
    }
}

async fn until_ended(mut flight: watch::Receiver<()>) {
    // Nothing is ever sent: it returns when the sender is gone.
    let _ = flight.changed().await;
}

impl Inner {
    async fn refresh(&self, asked: Time) {
        // The client's own limit leaves out what comes before a request is sent.
        let fetched =
            tokio::time::timeout(self.timeout, self.fetch()).await.unwrap_or_else(|_| Err("timed out".into()));
        match fetched {
            Ok(keys) => {
                tracing::debug!(keys = keys.len(), "a JWK set was fetched");
                let mut state = self.state.lock();
                state.schedule.fetched = Some(asked);
                state.schedule.has_failed = false;
                state.keys = Arc::new(keys);
            }
            Err(why) => {
                self.state.lock().schedule.has_failed = true;
                tracing::warn!(why, "a JWK set can't be fetched");
            }
        }
    }

    async fn fetch(&self) -> Result<Keys, String> {
        let request = self.client.get(self.url.clone()).header(ACCEPT, "application/jwk-set+json, application/json");
        let mut response = request.send().await.map_err(|error| why(&error).to_owned())?;
        if !response.status().is_success() {
            return Err(format!("HTTP status {}", response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| why(&error).to_owned())? {
            if body.len() + chunk.len() > JWKS_BYTES_MAX {
                return Err(format!("it is longer than {JWKS_BYTES_MAX} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        // An issuer that names no keys has withdrawn them all.
        Keys::fetched(&body).map_err(str::to_owned)
    }
}

/// Follows where the operator's URL leads on the same server, and nowhere else.
fn redirects() -> Policy {
    Policy::custom(|attempt| {
        let stays = attempt.previous().first().is_some_and(|first| first.origin() == attempt.url().origin());
        if stays && attempt.previous().len() <= JWKS_REDIRECTS_MAX { attempt.follow() } else { attempt.stop() }
    })
}

fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Why a request failed, without its URL, which may hold what is secret.
fn why(error: &reqwest::Error) -> &'static str {
    match error {
        error if error.is_timeout() => "timed out",
        error if error.is_connect() => "no connection",
        _ => "the connection broke",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_https_or_on_loopback() {
        let open = |url: &str| Remote::open(url, 0, false, JWKS_TIMEOUT).map(|_| ());

        for good in ["https://id.example.com/keys", "http://localhost:1/", "http://127.0.0.2:1/", "http://[::1]:1/"] {
            assert_eq!(open(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "keys",
            "http://id.example.com/",
            "http://127.0.0.1.example.com/",
            "file:///etc/passwd",
            "http://10.0.0.1/",
        ] {
            assert!(matches!(open(bad), Err(JwtSetupError::Url(_))), "{bad}");
        }
    }

    #[test]
    fn keys_age() {
        let at = Some(Time(1_000));
        let schedule = Schedule { refresh_ms: 60_000, fetched: at, asked: at, has_failed: false };
        let age = |ms| schedule.age(Time(1_000 + ms));

        assert_eq!([age(0), age(59_999)], [Age::Fresh; 2]);
        assert_eq!([age(60_000), age(119_999)], [Age::Old; 2]);
        assert_eq!([age(120_000), age(JWKS_STALE_MS_MAX - 1)], [Age::VeryOld; 2]);
        assert_eq!(age(JWKS_STALE_MS_MAX), Age::Stale);
        assert_eq!(schedule.age(Time(0)), Age::Fresh);
        assert_eq!([schedule.may_ask(Time(10_999)), schedule.may_ask(Time(11_000))], [false, true]);
        assert_eq!(Schedule { has_failed: true, ..schedule }.age(Time(121_000)), Age::Old);
    }
}
