//! Compressed pieces of layers that are in the store already, inside the blobs of other layers: where each is. A layer of
//! which one file changed is not compressed again but for the piece with that file.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_layer::Members;
use rbuild_oci::Digest;
use rbuild_store::{IndexError, Store};

/// Space of the store's values: where the member of a content is, and what made it. Another version of the library could make
/// other bytes of the same content, and then the same build would have two results.
const SPACE: &str = "gzip-member libdeflate-1.26";
/// Members that are known at most: those of some 60 GiB.
const KEPT_MAX: usize = 60_000;
/// Longest member that is read; pieces are shorter.
const MEMBER_BYTES_MAX: u64 = 4 << 20;

/// A part of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    blob: Digest,
    offset: u64,
    size: u64,
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or(());
        Ok(Self {
            blob: Digest::parse(word()?).map_err(drop)?,
            offset: word()?.parse().map_err(drop)?,
            size: word()?.parse().map_err(drop)?,
        })
    }
}

impl Place {
    fn text(&self) -> String {
        format!("{} {} {}", self.blob, self.offset, self.size)
    }
}

/// The members that the store's blobs are made of, for one layer that is packed.
#[derive(Debug)]
pub(crate) struct StoredMembers {
    store: Arc<Store>,
    /// The blob that was read last: a changed layer takes nearly all it takes from one.
    open: Mutex<Option<(Digest, Arc<File>)>>,
    /// Name, offset and size of what the layer is made of.
    placed: Mutex<Vec<(String, u64, u64)>>,
}

impl StoredMembers {
    pub(crate) const fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            open: Mutex::new(None),
            placed: Mutex::new(Vec::new()),
        }
    }

    /// Notes where the members of the layer are, now that it is a blob.
    pub(crate) fn keep(&self, blob: &Digest) -> Result<(), IndexError> {
        let placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        if placed.is_empty() {
            return Ok(());
        }
        let place = |(_, offset, size): &(String, u64, u64)| Place {
            blob: blob.clone(),
            offset: *offset,
            size: *size,
        };
        let texts: Vec<String> = placed.iter().map(|one| place(one).text()).collect();
        let names = placed.iter().map(|(name, ..)| name.as_str());
        let values: Vec<(&str, &[u8])> = names.zip(texts.iter().map(String::as_bytes)).collect();
        self.store.keep_kvs(SPACE, &values, KEPT_MAX)
    }

    fn blob(&self, digest: &Digest) -> Option<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, file)) = open.as_ref().filter(|(last, _)| last == digest) {
            return Some(Arc::clone(file));
        }
        let file = Arc::new(self.store.open_blob(digest).ok()??);
        *open = Some((digest.clone(), Arc::clone(&file)));
        Some(file)
    }
}

impl Members for StoredMembers {
    /// Whatever fails is a member that is not known: then it is made.
    fn find(&self, content: &Digest, level: u32) -> Option<Vec<u8>> {
        let text = self.store.kv(SPACE, &name(content, level)).ok()??;
        let place = Place::from_str(std::str::from_utf8(&text).ok()?).ok()?;
        if place.size > MEMBER_BYTES_MAX {
            return None;
        }
        let mut member = vec![0; usize::try_from(place.size).ok()?];
        let blob = self.blob(&place.blob)?;
        blob.read_exact_at(&mut member, place.offset).ok()?;
        Some(member)
    }

    fn placed(&self, content: Digest, level: u32, offset: u64, size: u64) {
        let mut placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        placed.push((name(&content, level), offset, size));
    }
}

fn name(content: &Digest, level: u32) -> String {
    format!("{content} {level}")
}
