//! API keys: secrets that programs come with, kept as hashes.
//!
//! A key's text is `bennu_` and 32 random bytes as unpadded base64url. Those of the Elixir deployment (`rubberduck_`
//! and 43 characters of standard base64) verify all the same once their hashes are imported: a key is known by the
//! SHA-256 of its whole text, whatever the text looks like. The text is shown once, when the key is created, and kept
//! nowhere.
//!
//! There is no back door for development here: every key that is accepted was created or imported.
//!
//! Source: the Elixir deployment's `api_keys` table and `api_keys:manage` channel.

mod import;
mod record;
mod snapshot;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use import::{IMPORT_BYTES_MAX, ImportFault, Imported};
use record::{Hash, draw, hash, hint};
pub use record::{
    KEY_TEXT_BYTES_MAX, KeyRecord, NAME_BYTES_MAX, NewKey, PREFIX_BYTES_MAX, ROLES_MAX, SCOPE_BYTES_MAX, SCOPES_MAX,
};
use snapshot::Snapshot;

use crate::store::{Keys, Store, StoreError, Table};

/// What new keys begin with where nothing else is set.
pub const PREFIX_DEFAULT: &str = "bennu_";
/// What keys of the Elixir deployment begin with.
pub const PREFIX_DEPLOYMENT: &str = "rubberduck_";
/// Keys at all, revoked and expired ones too until they are forgotten: all of them are in memory.
pub const KEYS_MAX: usize = 100_000;

/// By hash; each value is a [`KeyRecord`] as JSON.
const KEYS: Table = Table("api_keys");
/// By hash; each value is when the key was last used: milliseconds since 1970 as 8 bytes, big endian.
const USES: Table = Table("api_key_uses");
/// Keys that are read at once when a store is opened.
const READ_AT_ONCE: usize = 5_000;
/// Uses or keys that one transaction changes: far below the bytes that it may have.
const CHANGED_AT_ONCE: usize = 5_000;
/// Bytes of records that one transaction of an import puts.
const IMPORTED_BYTES_AT_ONCE: usize = 1 << 20;

/// The API keys of a store. Clones are the same ones; a store has one `ApiKeys` at a time, since others would not hear
/// what it changes.
#[derive(Clone)]
pub struct ApiKeys(Arc<Inner>);

struct Inner {
    store: Store,
    prefix: String,
    snapshot: Arc<Snapshot>,
}

/// Why a key does not count. To whoever came with it, all of these are one: the text is the same, and except for texts
/// that are too long, so is the work. Which it was is for the audit log alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefused {
    /// Longer than [`KEY_TEXT_BYTES_MAX`]; it was not even hashed.
    #[error("Invalid API key")]
    TooLong,
    /// No such key.
    #[error("Invalid API key")]
    Unknown,
    /// It was revoked.
    #[error("Invalid API key")]
    Revoked {
        /// The key's id.
        id: Arc<str>,
    },
    /// Its time is over.
    #[error("Invalid API key")]
    Expired {
        /// The key's id.
        id: Arc<str>,
    },
}

/// Why keys could not be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// A part of a new key outside its bounds.
    #[error("{what}: expected {min} to {max}, came {came}")]
    Invalid {
        /// What was counted.
        what: &'static str,
        /// How many there were.
        came: usize,
        /// How many there have to be.
        min: usize,
        /// How many there may be.
        max: usize,
    },
    /// A prefix that is too long, or has other characters than letters, digits, `_` and `-`.
    #[error("prefix of new API keys: expected 1 to {PREFIX_BYTES_MAX} letters, digits, `_` or `-`, came {came:?}")]
    Prefix {
        /// The prefix.
        came: String,
    },
    /// There are as many keys as may be.
    #[error("there are {KEYS_MAX} API keys, the limit; forget revoked and expired ones")]
    Full,
    /// A line of an import is faulty. Nothing was imported.
    #[error(transparent)]
    Import(#[from] ImportFault),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ApiKeys {
    /// Reads the keys of a store. `prefix` is what new keys begin with, usually [`PREFIX_DEFAULT`].
    ///
    /// A key that this version can't read is logged and left out: it does not verify.
    ///
    /// # Errors
    /// [`KeysError::Prefix`], [`KeysError::Full`] if the store has more than [`KEYS_MAX`], [`KeysError::Store`].
    pub(crate) async fn open(store: Store, prefix: &str) -> Result<Self, KeysError> {
        let is_plain = prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if !is_plain || !(1..=PREFIX_BYTES_MAX).contains(&prefix.len()) {
            let came = prefix.chars().take(2 * PREFIX_BYTES_MAX).collect();
            return Err(KeysError::Prefix { came });
        }
        let snapshot = load(&store).await?;
        Ok(ApiKeys(Arc::new(Inner { store, prefix: prefix.to_owned(), snapshot: Arc::new(snapshot) })))
    }

    /// Creates a key. Its text is the second of what comes back; it can't be had again.
    ///
    /// # Errors
    /// [`KeysError::Invalid`], [`KeysError::Full`], [`KeysError::Store`]: there is no such key then.
    pub async fn create(&self, key: NewKey, now_unix_ms: u64) -> Result<(KeyRecord, String), KeysError> {
        key.check()?;
        let text = draw(&self.0.prefix);
        let hash = hash(&text);
        let record = Arc::new(KeyRecord::new(key, hint(&self.0.prefix, &text), now_unix_ms));
        let (snapshot, created) = (Arc::clone(&self.0.snapshot), Arc::clone(&record));
        // Within the change, which is done even where nobody waits for this any more: what is stored is always known
        // here.
        let change = self.0.store.change(move |change| {
            change.put(KEYS, hash, encode(&created))?;
            if snapshot.insert(hash, created, 0) { Ok(()) } else { Err(KeysError::Full) }
        });
        if let Err(error) = change.await {
            self.0.snapshot.remove(&hash);
            return Err(error);
        }
        Ok((KeyRecord::clone(&record), text))
    }

    /// Verifies a key's text. It costs a hash and a lookup in memory, whether the key is good, bad, revoked or expired.
    ///
    /// # Errors
    /// [`KeyRefused`].
    pub fn verify(&self, text: &str, now_unix_ms: u64) -> Result<Arc<KeyRecord>, KeyRefused> {
        if text.len() > KEY_TEXT_BYTES_MAX {
            return Err(KeyRefused::TooLong);
        }
        let hash = hash(text);
        let record = self.0.snapshot.find(&hash).ok_or(KeyRefused::Unknown)?;
        if record.revoked_unix_ms.is_some() {
            return Err(KeyRefused::Revoked { id: Arc::clone(&record.id) });
        }
        if record.is_expired(now_unix_ms) {
            return Err(KeyRefused::Expired { id: Arc::clone(&record.id) });
        }
        self.0.snapshot.note_use(&hash, now_unix_ms);
        Ok(record)
    }

    /// All keys, the oldest first; revoked and expired ones too.
    pub fn list(&self) -> Vec<KeyRecord> {
        self.0.snapshot.list()
    }

    /// How many keys there are, revoked and expired ones too.
    pub fn count(&self) -> usize {
        self.0.snapshot.len()
    }

    /// Revokes a key; gives its record, or none if there is no such id. One that was revoked before stays as it is.
    ///
    /// It does not verify from this call on, even where storing that takes long or fails. Closing what is connected
    /// with it is the caller's.
    ///
    /// # Errors
    /// [`KeysError::Store`]: the key is refused until the process ends, and may count again after that.
    pub async fn revoke(&self, id: &str, now_unix_ms: u64) -> Result<Option<Arc<KeyRecord>>, KeysError> {
        let Some((hash, record)) = self.0.snapshot.revoke(id, now_unix_ms) else { return Ok(None) };
        let value = encode(&record);
        self.0.store.change(move |change| change.put(KEYS, hash, value)).await?;
        Ok(Some(record))
    }

    /// Imports keys of the Elixir deployment, as JSON lines or CSV of the columns `api_key_hash`, `user_id` and
    /// `expires_at` of its table; gives how many came to be. Each gets these roles and scopes, since the table has
    /// none.
    ///
    /// The hash is hex digits, base64, or `\x` and hex digits as Postgres writes `bytea`; `expires_at` is ISO 8601, as
    /// UTC if it has no offset. A column `name` is read where there is one, others are passed over. Hashes that are
    /// already known stay as they are, so that an import can be repeated, and what has expired is left out.
    ///
    /// # Errors
    /// [`KeysError::Import`] names the line: nothing was imported. [`KeysError::Invalid`], [`KeysError::Full`]: nothing
    /// either. [`KeysError::Store`]: a part may have been; repeat it.
    pub async fn import(
        &self,
        text: &str,
        roles: &[String],
        scopes: &[String],
        now_unix_ms: u64,
    ) -> Result<Imported, KeysError> {
        let rows = import::parse(text)?;
        let mut imported = Imported { new: 0, known: 0, expired: 0 };
        let mut fresh: Vec<(Hash, Arc<KeyRecord>)> = Vec::new();
        for row in rows {
            let key = NewKey {
                name: row.name,
                user: row.user,
                roles: roles.to_vec(),
                scopes: scopes.to_vec(),
                expires_unix_ms: Some(row.expires_unix_ms),
            };
            key.check()?;
            if self.0.snapshot.contains(&row.hash) {
                imported.known += 1;
            } else if row.expires_unix_ms <= now_unix_ms {
                imported.expired += 1;
            } else {
                let record = KeyRecord::new(key, PREFIX_DEPLOYMENT.to_owned(), now_unix_ms);
                fresh.push((row.hash, Arc::new(record)));
            }
        }
        if fresh.len() + self.count() > KEYS_MAX {
            return Err(KeysError::Full);
        }
        imported.new = fresh.len();
        let mut fresh = fresh.into_iter().peekable();
        while fresh.peek().is_some() {
            let mut bytes = 0;
            let mut part = Vec::new();
            while let Some((hash, record)) = fresh.next_if(|_| bytes < IMPORTED_BYTES_AT_ONCE) {
                let value = encode(&record);
                bytes += value.len();
                part.push((hash, record, value));
            }
            self.import_part(part).await?;
        }
        Ok(imported)
    }

    async fn import_part(&self, part: Vec<(Hash, Arc<KeyRecord>, Vec<u8>)>) -> Result<(), KeysError> {
        let hashes: Vec<_> = part.iter().map(|(hash, ..)| *hash).collect();
        let snapshot = Arc::clone(&self.0.snapshot);
        let change = self.0.store.change(move |change| {
            for (hash, record, value) in part {
                change.put(KEYS, hash, value)?;
                if !snapshot.insert(hash, record, 0) {
                    return Err(KeysError::Full);
                }
            }
            Ok(())
        });
        let outcome = change.await;
        if outcome.is_err() {
            hashes.iter().for_each(|hash| self.0.snapshot.remove(hash));
        }
        outcome
    }

    /// Stores when keys were last used, as far as that is not stored. To be called about once a minute: verifying notes
    /// uses in memory alone, each key's at most once a minute.
    ///
    /// # Errors
    /// [`KeysError::Store`]: the rest is stored by a later call.
    pub async fn store_uses(&self) -> Result<(), KeysError> {
        for uses in self.0.snapshot.unstored_uses().chunks(CHANGED_AT_ONCE) {
            let stored = uses.to_vec();
            let change = self.0.store.change(move |change| {
                for (hash, used) in stored {
                    // It may have been forgotten since.
                    if change.get(KEYS, &hash)?.is_some() {
                        change.put(USES, hash, used.to_be_bytes())?;
                    }
                }
                Ok::<_, StoreError>(())
            });
            change.await?;
            self.0.snapshot.uses_are_stored(uses);
        }
        Ok(())
    }

    /// Forgets keys that were revoked or expired before a moment, so that they take no room; gives how many.
    ///
    /// # Errors
    /// [`KeysError::Store`]: the rest stays.
    pub async fn forget_ended(&self, before_unix_ms: u64, now_unix_ms: u64) -> Result<usize, KeysError> {
        let is_ended =
            move |record: &KeyRecord| record.ended_unix_ms(now_unix_ms).is_some_and(|ended| ended < before_unix_ms);
        let ended = self.0.snapshot.hashes(is_ended);
        for hashes in ended.chunks(CHANGED_AT_ONCE) {
            let deleted = hashes.to_vec();
            let snapshot = Arc::clone(&self.0.snapshot);
            let change = self.0.store.change(move |change| {
                for hash in deleted {
                    change.delete(KEYS, hash);
                    change.delete(USES, hash);
                    snapshot.remove(&hash);
                }
                Ok::<_, StoreError>(())
            });
            change.await?;
        }
        Ok(ended.len())
    }
}

impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKeys({})", self.count())
    }
}

async fn load(store: &Store) -> Result<Snapshot, KeysError> {
    let snapshot = Snapshot::default();
    let mut from = Vec::new();
    loop {
        let part = Keys::between(from.as_slice(), AFTER_HASHES);
        let records = store.range(KEYS, part.clone(), READ_AT_ONCE).await?;
        let Some((last, _)) = records.last() else { return Ok(snapshot) };
        // The smallest key that comes after it.
        let mut next = last.clone();
        next.push(0);
        // Uses may be of fewer keys, never of others: those of this part are among as many.
        let uses = store.range(USES, Keys::between(from, next.as_slice()), READ_AT_ONCE).await?;
        let used = |key: &[u8]| {
            let found = uses.binary_search_by(|(hash, _)| hash.as_slice().cmp(key)).ok()?;
            uses[found].1.as_slice().try_into().ok().map(u64::from_be_bytes)
        };
        for (key, value) in &records {
            let record = serde_json::from_slice(value);
            let record = record.inspect_err(
                |error| tracing::error!(%error, "an API key is stored in a form that this version does not read"),
            );
            let Ok(hash) = Hash::try_from(key.as_slice()) else { continue };
            let Ok(record) = record else { continue };
            if !snapshot.insert(hash, Arc::new(record), used(key).unwrap_or(0)) {
                return Err(KeysError::Full);
            }
        }
        from = next;
    }
}

/// Comes after all hashes, which are 32 bytes.
const AFTER_HASHES: [u8; 33] = [u8::MAX; 33];

fn encode(record: &KeyRecord) -> Vec<u8> {
    serde_json::to_vec(record).expect("a record has string keys")
}
