//! What one build knows of its keys: those that were loaded or made, for export, and those that imported caches have.
//!
//! Whatever is built once an imported record was used is kept in the store under a key that has the names of the imported
//! caches in it. Only builds that name the same caches find it, so a cache that lied spoils no build that did not ask
//! for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_oci::{Digest, Timestamp};
use rbuild_store::LayerId;
use sha2::{Digest as _, Sha256};

use super::chains::{Keys, Known, LayerBlob, MadeFrom, ReadCache};
use crate::images::Origin;
use crate::solve::SharedVertex;

/// Keys of the store that are not those of this program's own results.
const SPACE: &[u8] = b"rbuild built on imported caches 1\0";

/// A cache of this build, as it was read.
#[derive(Debug)]
pub struct ImportedCache {
    /// What the user calls it.
    pub name: String,
    /// Where its blobs are.
    pub origin: Origin,
    /// Its records.
    pub cache: ReadCache,
    /// Shows that its layers are fetched.
    pub vertex: Arc<SharedVertex>,
}

/// What an imported cache knows of a key.
#[derive(Debug)]
pub struct Found {
    /// The cache.
    pub cache: Arc<ImportedCache>,
    /// What it knows.
    pub known: Known<LayerBlob>,
}

/// What a build knows of its keys.
#[derive(Debug, Default)]
pub struct Book {
    keys: Mutex<Keys<LayerId>>,
    imported: Mutex<Vec<Arc<ImportedCache>>>,
    /// Names of the caches that were asked for, whether they could be read or not.
    named: Mutex<BTreeSet<String>>,
    used: AtomicBool,
}

impl Book {
    /// Whether a cache of this name is asked for the first time.
    pub fn name_cache(&self, name: &str) -> bool {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        named.insert(name.to_owned())
    }

    /// Adds a cache that was read.
    pub fn add(&self, cache: ImportedCache) {
        let mut imported = self.imported.lock().unwrap_or_else(PoisonError::into_inner);
        imported.push(Arc::new(cache));
    }

    fn imported(&self) -> Vec<Arc<ImportedCache>> {
        self.imported
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What the imported caches know of `key`, which has so many outputs; the first that knows the wanted ones wins.
    #[must_use]
    pub fn find(&self, key: &Digest, outputs: usize, wanted: &BTreeSet<u32>) -> Option<Found> {
        let mut caches = self.imported().into_iter();
        caches.find_map(|cache| {
            let known = cache.cache.find(key, outputs, wanted)?;
            Some(Found { cache, known })
        })
    }

    /// The key that an imported cache knows another name for.
    #[must_use]
    pub(crate) fn find_alias(&self, name: &Digest) -> Option<Digest> {
        self.imported()
            .iter()
            .find_map(|cache| cache.cache.alias(name).cloned())
    }

    /// From now on, results may come from imported caches.
    pub(crate) fn mark_used(&self) {
        self.used.store(true, Ordering::Release);
    }

    /// The key of the store under which a result of `key` is kept.
    #[must_use]
    pub(crate) fn stored_key(&self, key: &Digest) -> Digest {
        if self.used.load(Ordering::Acquire) {
            self.imported_key(key).unwrap_or_else(|| key.clone())
        } else {
            key.clone()
        }
    }

    /// The key of the store under which builds that used the same imported caches keep a result of `key`.
    #[must_use]
    pub(crate) fn imported_key(&self, key: &Digest) -> Option<Digest> {
        let named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.is_empty() {
            return None;
        }
        let mut hasher = Sha256::new();
        hasher.update(SPACE);
        for part in named.iter().map(String::as_str).chain([key.as_str()]) {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Some(Digest::from_sha256(hasher.finalize().into()))
    }

    /// Notes what `key` made: the layers of each output that is known.
    pub fn note(
        &self,
        key: &Digest,
        identity: &Digest,
        outputs: Vec<Option<Vec<LayerId>>>,
        created: Option<Timestamp>,
    ) {
        let known = Known {
            identity: (identity != key).then(|| identity.clone()),
            outputs,
            created,
        };
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.records.insert(key.clone(), known);
    }

    /// Notes what `key` was made from, unless that is known: two operations can have one key, and what the first was
    /// made from was there before the key, so that no key is ever made from itself.
    pub(crate) fn note_made(&self, key: &Digest, inputs: Vec<MadeFrom>) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.made.entry(key.clone()).or_insert(inputs);
    }

    /// Notes another name of `key`.
    pub(crate) fn note_alias(&self, name: &Digest, key: &Digest) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.aliases.insert(name.clone(), key.clone());
    }

    /// All that was noted.
    #[must_use]
    pub fn keys(&self) -> Keys<LayerId> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<L> Keys<L> {
    /// The same keys with their layers turned into others; a result of which a layer is nothing is gone.
    pub fn map<M>(&self, layer: impl Fn(&[L]) -> Option<Vec<M>>) -> Keys<M> {
        let records = self.records.iter().map(|(key, known)| {
            let outputs = known.outputs.iter().map(|output| layer(output.as_deref()?));
            let mapped = Known {
                identity: known.identity.clone(),
                outputs: outputs.collect(),
                created: known.created,
            };
            (key.clone(), mapped)
        });
        Keys {
            records: records.collect::<BTreeMap<_, _>>(),
            made: self.made.clone(),
            aliases: self.aliases.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row46_results_on_imported_caches_are_found_by_builds_that_name_the_same_ones_only() {
        let key = Digest::sha256(b"key");
        let plain = Book::default();
        assert_eq!(plain.stored_key(&key), key);
        assert_eq!(plain.imported_key(&key), None);
        plain.mark_used();
        assert_eq!(
            plain.stored_key(&key),
            key,
            "nothing was imported, so nothing was used"
        );
        let of = |names: &[&str]| {
            let book = Book::default();
            assert!(names.iter().all(|name| book.name_cache(name)));
            book
        };
        let one = of(&["a", "b"]);
        assert_eq!(one.stored_key(&key), key, "no record was used yet");
        one.mark_used();
        assert_ne!(one.stored_key(&key), key);
        assert_eq!(Some(one.stored_key(&key)), of(&["b", "a"]).imported_key(&key));
        for other in [&["a"][..], &["b"], &["ab"], &["a", "b", "c"]] {
            assert_ne!(
                Some(one.stored_key(&key)),
                of(other).imported_key(&key),
                "{other:?}"
            );
        }
        assert!(!one.name_cache("a"), "a cache is asked for once");
    }

    #[test]
    fn what_a_key_was_first_made_from_stays() {
        let book = Book::default();
        let (key, other) = (Digest::sha256(b"key"), Digest::sha256(b"other"));
        let from = |input: &Digest| vec![MadeFrom::Result(input.clone())];
        book.note_made(&key, from(&other));
        book.note_made(&key, from(&key));
        assert_eq!(book.keys().made[&key], from(&other));
    }
}
