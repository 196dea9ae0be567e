//! JSON web tokens that were revoked by their `jti`, until they would have ended anyway.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::store::{Keys, Store, StoreError, Table};

/// Tokens that are remembered. Whoever revokes more at once revokes their issuer's key instead.
pub(super) const REVOKED_MAX: usize = 100_000;
/// How long one is remembered: longer than tokens live.
const REMEMBERED_MS: u64 = 30 * 86_400_000;

/// By credential; each value is until when it is remembered, in milliseconds since 1970, 8 bytes big endian.
const TABLE: Table = Table("revoked_credentials");

/// The revoked tokens of a store. Clones are the same.
#[derive(Clone)]
pub(super) struct RevokedTokens {
    store: Store,
    until: Arc<RwLock<HashMap<Arc<str>, u64>>>,
}

impl RevokedTokens {
    /// Reads those of a store.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn open(store: Store) -> Result<Self, StoreError> {
        let stored = store.range(TABLE, Keys::beginning_with([]), REVOKED_MAX).await?;
        let read = stored.into_iter().filter_map(|(credential, until)| {
            let until = u64::from_be_bytes(until.try_into().ok()?);
            Some((String::from_utf8(credential).ok()?.into(), until))
        });
        Ok(RevokedTokens { until: Arc::new(RwLock::new(read.collect())), store })
    }

    /// Whether a credential was revoked.
    pub(super) fn contains(&self, credential: &str, now_unix_ms: u64) -> bool {
        self.until.read().get(credential).is_some_and(|until| *until > now_unix_ms)
    }

    /// Revokes a credential. Where there are too many, those go first that would have ended soonest.
    ///
    /// # Errors
    /// [`StoreError`]: it holds in this process all the same.
    pub(super) async fn add(&self, credential: &str, now_unix_ms: u64) -> Result<(), StoreError> {
        let until = now_unix_ms.saturating_add(REMEMBERED_MS);
        let gone: Vec<Arc<str>> = {
            let mut held = self.until.write();
            held.insert(credential.into(), until);
            let mut gone: Vec<_> = held.extract_if(|_, until| *until <= now_unix_ms).map(|(gone, _)| gone).collect();
            if held.len() > REVOKED_MAX
                && let Some(soonest) =
                    held.iter().min_by_key(|(_, until)| **until).map(|(soonest, _)| Arc::clone(soonest))
            {
                held.remove(&soonest);
                gone.push(soonest);
            }
            gone
        };
        let credential = credential.as_bytes().to_vec();
        let change = self.store.change(move |change| {
            for gone in gone {
                change.delete(TABLE, gone.as_bytes());
            }
            change.put(TABLE, credential, until.to_be_bytes())
        });
        change.await
    }
}
