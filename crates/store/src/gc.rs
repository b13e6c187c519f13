//! Garbage collection: what goes first, and what never goes. Owns the order; refuses what a live lease holds and what
//! an image name needs.
//!
//! A layer was used when it, or any record that has it, was used: so what stands on top of it is never older in this
//! count than it is, and with the deeper one first among equals, layers go leaf first.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rbuild_oci::Digest;

use crate::error::{IndexError, StoreError};
use crate::holding::Kind;
use crate::index::Tables;
use crate::lock::Sharing;
use crate::name::{FormName, LayerId};
use crate::record::{LayerEntry, forget_record};
use crate::store::Store;
use crate::usage::UsageKind;

/// Removals in one transaction; others wait that long for a write.
const BATCH: usize = 64;

/// What to remove. Without `max_bytes` and `min_free_bytes`, everything that may go; with one of them, the least
/// recently used until the bound holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GcPolicy {
    /// Most bytes the store shall take.
    pub max_bytes: Option<u64>,
    /// Least bytes the file system shall have free.
    pub min_free_bytes: Option<u64>,
    /// Only what was not used for this long.
    pub unused_for: Option<Duration>,
    /// Only these kinds; `Blob`, `Layer` and `CacheMount` are collected.
    pub kinds: Option<Vec<UsageKind>>,
    /// Least bytes that are left, whatever the bounds say.
    pub reserved_bytes: Option<u64>,
    /// Only these parts, by their names.
    pub only: Option<HashSet<String>>,
    /// Also the unpacked layers of named images, which can be unpacked again from their blobs, and kept values.
    pub all: bool,
    /// Only say what would go.
    pub dry_run: bool,
}

/// What was removed, first removed first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collected {
    /// The parts: kind, name as in [`crate::UsageEntry`], bytes of its blocks.
    pub parts: Vec<(UsageKind, String, u64)>,
    /// Sum of their bytes.
    pub bytes: u64,
}

/// Kind, name and bytes.
type Part = (UsageKind, String, u64);

struct Candidate {
    kind: UsageKind,
    name: String,
    bytes: u64,
    used: i64,
    depth: usize,
}

impl Candidate {
    /// Of no depth, and not measured yet.
    const fn new(kind: UsageKind, name: String, used: i64) -> Self {
        Self {
            kind,
            name,
            bytes: 0,
            used,
            depth: 0,
        }
    }
}

impl Store {
    /// Collects garbage. Builds may run meanwhile; what they hold stays.
    ///
    /// # Errors
    /// The file system's and the index's.
    pub fn gc(&self, policy: &GcPolicy) -> Result<Collected, StoreError> {
        self.flush_used();
        self.collect_dead_leases(usize::MAX)?;
        if !policy.dry_run {
            self.empty_trash(None)?;
        }
        let usage = self.du()?;
        let total = usage.total_bytes();
        let mut excess = match (policy.max_bytes, policy.min_free_bytes) {
            (None, None) => u64::MAX,
            (max, free) => {
                let over = max.map_or(0, |max| total.saturating_sub(max));
                over.max(free.map_or(0, |free| free.saturating_sub(self.free_bytes())))
            }
        };
        if let Some(reserved) = policy.reserved_bytes.filter(|_| excess != u64::MAX) {
            excess = excess.min(total.saturating_sub(reserved));
        }
        let sizes = usage
            .entries
            .into_iter()
            .map(|entry| ((entry.kind, entry.name), entry.bytes))
            .collect();
        let mut collected = Collected::default();
        let mut tried = HashSet::new();
        'again: loop {
            let (mut candidates, images) = self.candidates(policy, &sizes)?;
            candidates.retain(|candidate| !tried.contains(&(candidate.kind, candidate.name.clone())));
            for batch in candidates.chunks(BATCH) {
                if excess == 0 {
                    break;
                }
                let Some(gone) = self.collect(batch, &images, excess, policy.dry_run)? else {
                    continue 'again;
                };
                tried.extend(
                    batch
                        .iter()
                        .map(|candidate| (candidate.kind, candidate.name.clone())),
                );
                for (kind, name, bytes) in gone {
                    if excess != u64::MAX {
                        excess = excess.saturating_sub(bytes);
                    }
                    collected.bytes += bytes;
                    collected.parts.push((kind, name, bytes));
                }
            }
            break;
        }
        if !policy.dry_run {
            self.collect_rows(policy)?;
            self.empty_trash(None)?;
        }
        Ok(collected)
    }

    /// What may go, in the order in which it goes; and the images that were heeded.
    fn candidates(
        &self,
        policy: &GcPolicy,
        sizes: &HashMap<(UsageKind, String), u64>,
    ) -> Result<(Vec<Candidate>, HashSet<String>), StoreError> {
        let images = self.index().read("list images", image_digests)?;
        let (mut blobs_kept, mut diff_ids_kept) = (HashSet::new(), HashSet::new());
        for digest in images.iter().filter_map(|digest| Digest::parse(digest).ok()) {
            self.image_reaches(&digest, &mut blobs_kept, &mut diff_ids_kept);
        }
        if policy.all {
            diff_ids_kept.clear();
        }
        let wants = |kind| policy.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind));
        let mut found = Vec::new();
        self.index().read("list candidates", |tables| {
            let uses = Uses::read(tables)?;
            if wants(UsageKind::Blob) {
                found.extend(blob_candidates(tables, &uses, &blobs_kept)?);
            }
            if wants(UsageKind::Layer) {
                found.extend(layer_candidates(tables, &uses, &diff_ids_kept)?);
            }
            if wants(UsageKind::CacheMount) {
                let mounts = named_uses(tables, "SELECT dir, used FROM mount")?.into_iter();
                found.extend(mounts.map(|(name, used)| Candidate::new(UsageKind::CacheMount, name, used)));
            }
            Ok(())
        })?;
        for candidate in &mut found {
            let part = (candidate.kind, candidate.name.clone());
            candidate.bytes = sizes.get(&part).copied().unwrap_or(0);
        }
        let limit = cutoff(self.now(), policy.unused_for);
        found.retain(|candidate| {
            let named = policy
                .only
                .as_ref()
                .is_none_or(|only| only.contains(&candidate.name));
            named && candidate.used <= limit
        });
        found.sort_by(|a, b| {
            a.used
                .cmp(&b.used)
                .then(b.depth.cmp(&a.depth))
                .then_with(|| a.name.cmp(&b.name))
        });
        Ok((found, images))
    }

    /// Removes candidates until `excess` bytes are gone; a lease that took one meanwhile keeps it. `None`, and nothing is
    /// removed, if there is an image by now that `images` has not: its build may have ended its lease since.
    fn collect(
        &self,
        batch: &[Candidate],
        images: &HashSet<String>,
        mut excess: u64,
        dry_run: bool,
    ) -> Result<Option<Vec<Part>>, StoreError> {
        let mut gone = Vec::new();
        let mut mounts = Vec::new();
        let lock = self.lock_holdings(Sharing::Exclusive)?;
        let holdings = self.holdings()?;
        let is_held = |kind, name: &str| holdings.contains(&(kind, name.to_owned()));
        let current = self.index().write("collect", |tables| {
            if !image_digests(tables)?.is_subset(images) {
                return Ok(false);
            }
            for candidate in batch {
                if excess == 0 {
                    break;
                }
                let held = match candidate.kind {
                    UsageKind::Blob => is_held(Kind::Blob, &candidate.name),
                    UsageKind::Layer => is_held(Kind::Layer, &candidate.name),
                    _ => !self.mount_is_idle(&candidate.name)?,
                };
                if held {
                    continue;
                }
                match candidate.kind {
                    _ if dry_run => {}
                    UsageKind::Blob => self.drop_blob(tables, &candidate.name)?,
                    UsageKind::Layer => self.drop_layer(tables, &candidate.name)?,
                    _ => mounts.push(candidate.name.clone()),
                }
                crate::fault::point("gc removed one");
                excess = excess.saturating_sub(candidate.bytes);
                gone.push((candidate.kind, candidate.name.clone(), candidate.bytes));
            }
            Ok::<_, StoreError>(true)
        })?;
        drop(lock);
        if !current {
            return Ok(None);
        }
        for dir in mounts {
            if !self.remove_idle_mount(&dir)? {
                gone.retain(|(kind, name, _)| *kind != UsageKind::CacheMount || *name != dir);
            }
        }
        Ok(Some(gone))
    }

    fn drop_blob(&self, tables: &Tables<'_>, name: &str) -> Result<(), StoreError> {
        if let Ok(digest) = Digest::parse(name) {
            self.discard(&self.layout().blob(&digest))?;
        }
        tables.run("DELETE FROM blob WHERE digest = ?1", [name])?;
        tables.run("DELETE FROM diff_blob WHERE digest = ?1", [name])?;
        Ok(())
    }

    fn drop_layer(&self, tables: &Tables<'_>, name: &str) -> Result<(), StoreError> {
        let Some((form, id)) = name.rsplit_once('/') else {
            return Ok(());
        };
        if let (Ok(form), Ok(id)) = (FormName::parse(form), LayerId::parse(id)) {
            self.discard(&self.layout().layer(&form, &id))?;
        }
        tables.run("DELETE FROM layer WHERE form = ?1 AND id = ?2", (form, id))?;
        for key in records_without(tables, id)? {
            forget_record(tables, &key)?;
        }
        Ok(())
    }

    /// Removes rows that mean nothing any more.
    fn collect_rows(&self, policy: &GcPolicy) -> Result<(), IndexError> {
        let limit = cutoff(self.now(), policy.unused_for);
        let everything = policy.max_bytes.is_none()
            && policy.min_free_bytes.is_none()
            && policy.kinds.is_none()
            && policy.only.is_none();
        self.index().write("collect rows", |tables| {
            if everything {
                let sql = "SELECT key FROM record WHERE layers = '[]' AND used <= ?1";
                for key in tables.all(sql, [limit], |row| row.get::<_, String>(0))? {
                    forget_record(tables, &key)?;
                }
                if policy.all || policy.unused_for.is_some() {
                    tables.run("DELETE FROM kv WHERE used <= ?1", [limit])?;
                }
            }
            tables.run("DELETE FROM alias WHERE key NOT IN (SELECT key FROM record)", [])?;
            Ok(())
        })
    }
}

/// When layers and blobs were used through records, and how deep layers stand.
#[derive(Default)]
struct Uses {
    layers: HashMap<String, (i64, usize)>,
    blobs: HashMap<String, i64>,
}

impl Uses {
    fn read(tables: &Tables<'_>) -> Result<Self, IndexError> {
        let mut uses = Self::default();
        let rows = tables.all("SELECT used, layers FROM record", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        })?;
        for (used, layers) in rows {
            let layers: Vec<LayerEntry> = serde_json::from_str(&layers).unwrap_or_default();
            for (depth, layer) in layers.iter().enumerate() {
                let entry = uses
                    .layers
                    .entry(layer.id.as_str().to_owned())
                    .or_insert((used, depth));
                *entry = (entry.0.max(used), entry.1.max(depth));
            }
        }
        let sql = "SELECT b.digest, max(r.used) FROM record_blob b JOIN record r ON r.key = b.key GROUP BY b.digest";
        uses.blobs.extend(named_uses(tables, sql)?);
        Ok(uses)
    }
}

/// The blobs that are not among `kept`.
fn blob_candidates(
    tables: &Tables<'_>,
    uses: &Uses,
    kept: &HashSet<Digest>,
) -> Result<Vec<Candidate>, IndexError> {
    let mut found = named_uses(tables, "SELECT digest, used FROM blob")?;
    found.retain(|(name, _)| Digest::parse(name).is_ok_and(|digest| !kept.contains(&digest)));
    let candidate = |(name, used): (String, i64)| {
        let used = used.max(uses.blobs.get(&name).copied().unwrap_or(i64::MIN));
        Candidate::new(UsageKind::Blob, name, used)
    };
    Ok(found.into_iter().map(candidate).collect())
}

/// The layers whose diff ids are not among `kept`.
fn layer_candidates(
    tables: &Tables<'_>,
    uses: &Uses,
    kept: &HashSet<Digest>,
) -> Result<Vec<Candidate>, IndexError> {
    let sql = "SELECT form, id, used, coalesce(diff_id, '') FROM layer";
    let rows = tables.all(sql, [], |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, String>(1)?,
            row.get(2)?,
            row.get::<_, String>(3)?,
        ))
    })?;
    let mut found = Vec::new();
    for (form, id, used, diff_id) in rows {
        if Digest::parse(&diff_id).is_ok_and(|diff_id| kept.contains(&diff_id)) {
            continue;
        }
        let (by_record, depth) = uses.layers.get(&id).copied().unwrap_or((i64::MIN, 0));
        found.push(Candidate {
            depth,
            ..Candidate::new(UsageKind::Layer, format!("{form}/{id}"), by_record.max(used))
        });
    }
    Ok(found)
}

fn image_digests(tables: &Tables<'_>) -> Result<HashSet<String>, IndexError> {
    Ok(tables
        .all("SELECT DISTINCT digest FROM image", [], |row| row.get(0))?
        .into_iter()
        .collect())
}

fn named_uses(tables: &Tables<'_>, sql: &str) -> Result<Vec<(String, i64)>, IndexError> {
    tables.all(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// Keys of the records that have the layer `id` and cannot get it again: no form has it, and no blob is named.
pub(crate) fn records_without(tables: &Tables<'_>, id: &str) -> Result<Vec<String>, IndexError> {
    if tables
        .one("SELECT 1 FROM layer WHERE id = ?1 LIMIT 1", [id], |_| Ok(()))?
        .is_some()
    {
        return Ok(Vec::new());
    }
    let sql = "SELECT r.key, r.layers FROM record_layer l JOIN record r ON r.key = l.key WHERE l.layer = ?1";
    let mut rows = tables.all(sql, [id], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    rows.retain(|(_, layers)| {
        let layers: Vec<LayerEntry> = serde_json::from_str(layers).unwrap_or_default();
        !layers
            .iter()
            .any(|layer| layer.id.as_str() == id && layer.descriptor.is_some())
    });
    Ok(rows.into_iter().map(|(key, _)| key).collect())
}

fn cutoff(now: i64, unused_for: Option<Duration>) -> i64 {
    unused_for.map_or(i64::MAX, |d| {
        now.saturating_sub(i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
    })
}

#[cfg(test)]
mod tests;
