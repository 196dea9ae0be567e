//! All keys in memory, so that verifying one touches no disk: a flood of bad keys costs a hash each.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use subtle::ConstantTimeEq;

use super::KEYS_MAX;
use super::record::{Hash, KeyRecord};

/// How much later a use has to be than the one known, to be noted. Milliseconds.
pub(super) const USE_NOTED_EVERY_MS: u64 = 60_000;

#[derive(Default)]
pub(super) struct Snapshot(RwLock<Keys>);

#[derive(Default)]
struct Keys {
    by_hash: HashMap<Hash, Kept>,
    hash_by_id: HashMap<Arc<str>, Hash>,
}

struct Kept {
    record: Arc<KeyRecord>,
    /// Milliseconds since 1970, 0 for never.
    used: AtomicU64,
    /// The same, as it was last stored.
    stored_used: AtomicU64,
}

impl Snapshot {
    /// The key with this hash.
    ///
    /// The time of the lookup depends on the SHA-256 of what came, which nobody can steer towards the hash of a key
    /// that they don't have: it tells nothing useful. The comparison takes the same time whatever differs, and happens
    /// in any case.
    pub(super) fn find(&self, hash: &Hash) -> Option<Arc<KeyRecord>> {
        let keys = self.0.read();
        let found = keys.by_hash.get_key_value(hash);
        let expected = found.map_or(&[0; 32], |(hash, _)| hash);
        let is_equal = bool::from(expected.ct_eq(hash));
        found.filter(|_| is_equal).map(|(_, kept)| Arc::clone(&kept.record))
    }

    /// Notes that a key was used, in memory alone.
    pub(super) fn note_use(&self, hash: &Hash, now_unix_ms: u64) {
        let keys = self.0.read();
        let Some(kept) = keys.by_hash.get(hash) else { return };
        if now_unix_ms >= kept.used.load(Ordering::Relaxed).saturating_add(USE_NOTED_EVERY_MS) {
            kept.used.fetch_max(now_unix_ms, Ordering::Relaxed);
        }
    }

    /// Puts a key in. False if there is no room for it.
    pub(super) fn insert(&self, hash: Hash, record: Arc<KeyRecord>, used: u64) -> bool {
        let mut keys = self.0.write();
        if keys.by_hash.len() >= KEYS_MAX && !keys.by_hash.contains_key(&hash) {
            return false;
        }
        keys.hash_by_id.insert(Arc::clone(&record.id), hash);
        let kept = Kept { record, used: AtomicU64::new(used), stored_used: AtomicU64::new(used) };
        if let Some(before) = keys.by_hash.insert(hash, kept) {
            let id = &before.record.id;
            if keys.by_hash[&hash].record.id != *id {
                keys.hash_by_id.remove(id);
            }
        }
        true
    }

    pub(super) fn contains(&self, hash: &Hash) -> bool {
        self.0.read().by_hash.contains_key(hash)
    }

    pub(super) fn remove(&self, hash: &Hash) {
        let mut keys = self.0.write();
        if let Some(kept) = keys.by_hash.remove(hash) {
            keys.hash_by_id.remove(&kept.record.id);
        }
    }

    /// Marks a key as revoked, unless it already is. Its hash and its record afterwards.
    pub(super) fn revoke(&self, id: &str, now_unix_ms: u64) -> Option<(Hash, Arc<KeyRecord>)> {
        let mut keys = self.0.write();
        let hash = *keys.hash_by_id.get(id)?;
        let kept = keys.by_hash.get_mut(&hash)?;
        if kept.record.revoked_unix_ms.is_none() {
            let revoked = KeyRecord { revoked_unix_ms: Some(now_unix_ms), ..KeyRecord::clone(&kept.record) };
            kept.record = Arc::new(revoked);
        }
        Some((hash, Arc::clone(&kept.record)))
    }

    /// All records with their last use, the oldest first.
    pub(super) fn list(&self) -> Vec<KeyRecord> {
        let keys = self.0.read();
        let mut records: Vec<_> = keys.by_hash.values().map(Kept::shown).collect();
        drop(keys);
        records.sort_unstable_by(|a, b| (a.created_unix_ms, &a.id).cmp(&(b.created_unix_ms, &b.id)));
        records
    }

    pub(super) fn len(&self) -> usize {
        self.0.read().by_hash.len()
    }

    /// The hashes of the keys for which `is_wanted` holds.
    pub(super) fn hashes(&self, is_wanted: impl Fn(&KeyRecord) -> bool) -> Vec<Hash> {
        let keys = self.0.read();
        keys.by_hash.iter().filter(|(_, kept)| is_wanted(&kept.record)).map(|(hash, _)| *hash).collect()
    }

    /// The uses that have not been stored.
    pub(super) fn unstored_uses(&self) -> Vec<(Hash, u64)> {
        let keys = self.0.read();
        let uses = keys.by_hash.iter().filter_map(|(hash, kept)| {
            let used = kept.used.load(Ordering::Relaxed);
            (used != kept.stored_used.load(Ordering::Relaxed)).then_some((*hash, used))
        });
        uses.collect()
    }

    pub(super) fn uses_are_stored(&self, uses: &[(Hash, u64)]) {
        let keys = self.0.read();
        for (hash, used) in uses {
            if let Some(kept) = keys.by_hash.get(hash) {
                kept.stored_used.store(*used, Ordering::Relaxed);
            }
        }
    }
}

impl Kept {
    fn shown(&self) -> KeyRecord {
        let used = self.used.load(Ordering::Relaxed);
        KeyRecord { last_used_unix_ms: (used > 0).then_some(used), ..KeyRecord::clone(&self.record) }
    }
}
