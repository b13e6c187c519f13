//! Between what a build knows of its keys and a cache config: pure, both ways.
//!
//! BuildKit's record has one digest, one output and inputs. Three things more are said by the selector of a record's
//! only input, which links to the record it belongs to: that the record's digest is another name of that key (a
//! definition whose content was found to lead there), that it stands for its result in the keys of what follows (a step
//! that was forced to run), and that it is a further output of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rbuild_oci::{Descriptor, DiffId, Digest, Timestamp};

use super::config::{
    CacheConfig, CacheInput, CacheLayer, CacheRecord, CacheResult, ChainedResult, ConfigFault,
};
use crate::export::image::{TOC_DIGEST, TOC_TAR_SIZE};

const ALIAS: &str = "rbuild.alias";
const IDENTITY: &str = "rbuild.identity";
const OUTPUT: &str = "rbuild.output.";
/// Annotation of a layer with the digest of its uncompressed tar.
pub(crate) const UNCOMPRESSED: &str = "containerd.io/uncompressed";
/// Annotation of a layer with the time it was made.
pub(crate) const CREATED_AT: &str = "buildkit/createdat";
/// Most outputs of one record.
const OUTPUTS_MAX: usize = 1024;

/// A layer that can be had.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerBlob {
    /// Its blob, without annotations.
    pub descriptor: Descriptor,
    /// Digest of its uncompressed tar.
    pub diff_id: DiffId,
    /// When it was made.
    pub created: Option<Timestamp>,
}

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known<L> {
    /// Stands for the result in the keys of what follows, if that is not the key.
    pub identity: Option<Digest>,
    /// The layers of each output, bottom first; `None` for an output that cannot be had.
    pub outputs: Vec<Option<Vec<L>>>,
    /// When it was made.
    pub created: Option<Timestamp>,
}

/// What a key has of one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MadeFrom {
    /// The input's result, by what stands for it.
    Result(Digest),
    /// What the operation reads of the input's result.
    ContentOf(Digest),
    /// What the operation reads of something that no key stands for.
    Content,
}

/// Keys, what they made, what they were made from, and their other names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys<L> {
    /// By key.
    pub records: BTreeMap<Digest, Known<L>>,
    /// Inputs of each key. No key is made from one that was made from it.
    pub made: BTreeMap<Digest, Vec<MadeFrom>>,
    /// Key of each other name.
    pub aliases: BTreeMap<Digest, Digest>,
}

impl<L> Default for Keys<L> {
    fn default() -> Self {
        Self {
            records: BTreeMap::new(),
            made: BTreeMap::new(),
            aliases: BTreeMap::new(),
        }
    }
}

/// How results name their layers in a config.
pub trait PlaceLayers<L> {
    /// Adds a result of these layers (bottom first, not none) to `record`.
    fn place(&mut self, layers: &[L], created: Option<Timestamp>, record: &mut CacheRecord);
}

/// The config's layers for layers that stand on one another, each pair of blob and parent once.
#[derive(Debug, Default)]
pub struct Stacks {
    layers: Vec<(LayerBlob, i64)>,
    by_place: BTreeMap<(Digest, i64), i64>,
}

impl PlaceLayers<LayerBlob> for Stacks {
    fn place(&mut self, layers: &[LayerBlob], created: Option<Timestamp>, record: &mut CacheRecord) {
        let mut below = -1;
        for layer in layers {
            let next = i64::try_from(self.layers.len()).unwrap_or(i64::MAX);
            let place = self.by_place.entry((layer.descriptor.digest.clone(), below));
            let at = *place.or_insert(next);
            if at == next {
                self.layers.push((layer.clone(), below));
            }
            below = at;
        }
        record.results.push(CacheResult {
            layer: below,
            created_at: created,
        });
    }
}

/// The records of a config for `keys`, their layers placed by `layers`: those of which an output can be had, all that
/// they were made from, and what names them. The same keys always make the same records.
pub fn write<L>(keys: &Keys<L>, layers: &mut impl PlaceLayers<L>) -> Vec<CacheRecord> {
    let usable = |known: &Known<L>| known.outputs.iter().any(Option::is_some);
    let kept: BTreeMap<&Digest, &Known<L>> = keys.records.iter().filter(|(_, known)| usable(known)).collect();
    let aliases: Vec<(&Digest, &Digest)> = keys
        .aliases
        .iter()
        .filter(|(alias, key)| kept.contains_key(key) && alias != key)
        .collect();
    let digests = digests(keys, &kept, &aliases);
    let mut records: BTreeMap<Digest, CacheRecord> = digests
        .iter()
        .map(|digest| (digest.clone(), empty_record(digest)))
        .collect();
    let index: HashMap<&Digest, i64> = digests.iter().zip(0..).collect();
    let link = |selector: &str, to: &Digest| CacheInput {
        selector: selector.to_owned(),
        link: index.get(to).copied().unwrap_or(-1),
    };
    for (key, made) in &keys.made {
        let Some(record) = records.get_mut(key) else {
            continue;
        };
        let content = content_digest(key);
        let inputs = made.iter().map(|input| match input {
            MadeFrom::Result(input) => vec![link("", input)],
            MadeFrom::ContentOf(input) => vec![link("", input), link("", &content)],
            MadeFrom::Content => vec![link("", &content)],
        });
        record.inputs = inputs.collect();
    }
    for (key, known) in &kept {
        for (number, output) in known.outputs.iter().enumerate() {
            let further = (number > 0).then(|| output_digest(key, number));
            let Some(record) = records.get_mut(further.as_ref().unwrap_or(key)) else {
                continue;
            };
            if further.is_some() {
                record.inputs = vec![vec![link(&format!("{OUTPUT}{number}"), key)]];
            }
            match output.as_deref() {
                None => {}
                Some([]) => record.chains.push(ChainedResult {
                    layers: Vec::new(),
                    created_at: known.created,
                }),
                Some(stack) => layers.place(stack, known.created, record),
            }
        }
        if let Some(record) = known
            .identity
            .as_ref()
            .and_then(|identity| records.get_mut(identity))
        {
            record.inputs = vec![vec![link(IDENTITY, key)]];
        }
    }
    for (alias, key) in aliases {
        let is_key = kept.contains_key(alias) || keys.made.contains_key(alias);
        if let Some(record) = records.get_mut(alias).filter(|_| !is_key) {
            record.inputs = vec![vec![link(ALIAS, key)]];
        }
    }
    records.into_values().collect()
}

/// Every digest that will be a record, so that links can be numbers.
fn digests<L>(
    keys: &Keys<L>,
    kept: &BTreeMap<&Digest, &Known<L>>,
    aliases: &[(&Digest, &Digest)],
) -> BTreeSet<Digest> {
    let mut digests = BTreeSet::new();
    let mut waiting: Vec<Digest> = kept.keys().copied().cloned().collect();
    // What stands for a result leads to what made it, which a cache needs to give the result of what follows.
    let made_by: HashMap<&Digest, &Digest> = keys
        .records
        .iter()
        .filter_map(|(key, known)| Some((known.identity.as_ref()?, key)))
        .collect();
    while let Some(digest) = waiting.pop() {
        if !digests.insert(digest.clone()) {
            continue;
        }
        waiting.extend(made_by.get(&digest).copied().cloned());
        for input in keys.made.get(&digest).into_iter().flatten() {
            match input {
                MadeFrom::Result(input) => waiting.push(input.clone()),
                MadeFrom::ContentOf(input) => {
                    waiting.push(input.clone());
                    digests.insert(content_digest(&digest));
                }
                MadeFrom::Content => drop(digests.insert(content_digest(&digest))),
            }
        }
    }
    for (key, known) in kept {
        digests.extend(known.identity.clone());
        let further = known.outputs.iter().enumerate().skip(1);
        let further = further.filter(|(_, output)| output.is_some());
        digests.extend(further.map(|(number, _)| output_digest(key, number)));
    }
    digests.extend(aliases.iter().map(|(alias, _)| (*alias).clone()));
    digests
}

/// A whole config, and the layers in its order. Layers are sorted as BuildKit sorts them.
#[must_use]
pub(crate) fn write_config(keys: &Keys<LayerBlob>) -> (CacheConfig, Vec<LayerBlob>) {
    let mut stacks = Stacks::default();
    let mut records = write(keys, &mut stacks);
    let mut order: Vec<usize> = (0..stacks.layers.len()).collect();
    order.sort_by(|a, b| {
        let key = |at: &usize| (&stacks.layers[*at].0.descriptor.digest, stacks.layers[*at].1);
        key(a).cmp(&key(b))
    });
    let mut moved = vec![0_i64; order.len()];
    for (new, old) in (0..).zip(&order) {
        moved[*old] = new;
    }
    let to_new = |old: i64| {
        usize::try_from(old)
            .ok()
            .and_then(|old| moved.get(old))
            .copied()
            .unwrap_or(-1)
    };
    for result in records.iter_mut().flat_map(|record| &mut record.results) {
        result.layer = to_new(result.layer);
    }
    let layers = order.iter().map(|old| CacheLayer {
        blob: stacks.layers[*old].0.descriptor.digest.clone(),
        parent: to_new(stacks.layers[*old].1),
        annotations: None,
    });
    let config = CacheConfig {
        layers: layers.collect(),
        records,
    };
    let blobs = order.iter().map(|old| stacks.layers[*old].0.clone()).collect();
    (config, blobs)
}

fn empty_record(digest: &Digest) -> CacheRecord {
    CacheRecord {
        results: Vec::new(),
        chains: Vec::new(),
        digest: digest.clone(),
        inputs: Vec::new(),
    }
}

fn output_digest(key: &Digest, output: usize) -> Digest {
    Digest::sha256(format!("{key}@{output}").as_bytes())
}

/// The record of what the operation of `key` read. It is named by the key, of which that content is a part: a key that
/// was found by its definition is known before its content is.
fn content_digest(key: &Digest) -> Digest {
    Digest::sha256(format!("content of {key}").as_bytes())
}

/// A config that was read: results stay indexes until somebody asks for one, so that a small document cannot become
/// many layers.
#[derive(Debug, Default)]
pub struct ReadCache {
    config: CacheConfig,
    layers: Vec<Option<LayerBlob>>,
    outputs: HashMap<Digest, BTreeMap<usize, usize>>,
    identities: HashMap<Digest, Digest>,
    aliases: HashMap<Digest, Digest>,
}

impl ReadCache {
    /// Takes a config in. `blobs` are the layers its manifest has, by digest.
    ///
    /// # Errors
    /// [`ConfigFault`].
    pub fn new(config: CacheConfig, blobs: &HashMap<Digest, LayerBlob>) -> Result<Self, ConfigFault> {
        config.check()?;
        let mut read = Self {
            layers: config
                .layers
                .iter()
                .map(|layer| blobs.get(&layer.blob).cloned())
                .collect(),
            ..Self::default()
        };
        for (number, record) in config.records.iter().enumerate() {
            let special = match record.inputs.as_slice() {
                [only] => only.first().filter(|link| link.selector.starts_with("rbuild.")),
                _ => None,
            };
            let Some(link) = special else {
                read.outputs
                    .entry(record.digest.clone())
                    .or_default()
                    .insert(0, number);
                continue;
            };
            let target = usize::try_from(link.link)
                .ok()
                .and_then(|at| config.records.get(at));
            let key = &target.ok_or(ConfigFault::RecordIndex(link.link))?.digest;
            if link.selector == ALIAS {
                read.aliases.insert(record.digest.clone(), key.clone());
            } else if link.selector == IDENTITY {
                read.identities.insert(key.clone(), record.digest.clone());
            } else if let Some(output) = link
                .selector
                .strip_prefix(OUTPUT)
                .and_then(|text| text.parse().ok())
                && output < OUTPUTS_MAX
            {
                read.outputs
                    .entry(key.clone())
                    .or_default()
                    .insert(output, number);
            }
        }
        read.config = config;
        Ok(read)
    }

    /// The key that another name stands for.
    #[must_use]
    pub fn alias(&self, name: &Digest) -> Option<&Digest> {
        self.aliases.get(name)
    }

    /// What `key` made, of `outputs` outputs, if the wanted ones are among it and all of their layers can be had.
    #[must_use]
    pub fn find(&self, key: &Digest, outputs: usize, wanted: &BTreeSet<u32>) -> Option<Known<LayerBlob>> {
        let numbers = self.outputs.get(key)?;
        let record = |output: &usize| Some(&self.config.records[*numbers.get(output)?]);
        let mut found = Vec::with_capacity(outputs.min(OUTPUTS_MAX));
        for output in 0..outputs {
            let stack = record(&output).and_then(|record| self.stack(record));
            let is_wanted = u32::try_from(output).is_ok_and(|output| wanted.contains(&output));
            if is_wanted && stack.is_none() {
                return None;
            }
            found.push(stack);
        }
        if !found.iter().any(Option::is_some) {
            return None;
        }
        let created = (0..outputs)
            .filter_map(|output| record(&output))
            .find_map(|record| {
                let whole = record.results.first().map(|result| result.created_at);
                whole.or_else(|| record.chains.first().map(|chain| chain.created_at))
            });
        Some(Known {
            identity: self.identities.get(key).cloned(),
            outputs: found,
            created: created.flatten(),
        })
    }

    /// The layers of the first result of `record` that can be had, bottom first.
    fn stack(&self, record: &CacheRecord) -> Option<Vec<LayerBlob>> {
        let layer = |index: i64| self.layers.get(usize::try_from(index).ok()?)?.clone();
        let below = |top: i64| -> Option<Vec<LayerBlob>> {
            let mut stack = Vec::new();
            let mut at = top;
            while at != -1 {
                stack.push(layer(at)?);
                at = self.config.layer(at).ok()?.parent;
            }
            stack.reverse();
            Some(stack)
        };
        let whole = record.results.iter().find_map(|result| below(result.layer));
        let list = |chain: &ChainedResult| chain.layers.iter().map(|index| layer(*index)).collect();
        whole.or_else(|| record.chains.iter().find_map(list))
    }
}

/// A layer of a manifest as a cache uses it; `None` without the digest of its uncompressed tar, which it could not be
/// named by. Places of its own to fetch it from are not taken over.
#[must_use]
pub(crate) fn layer_blob(descriptor: &Descriptor) -> Option<LayerBlob> {
    let diff_id = Digest::parse(descriptor.annotations.get(UNCOMPRESSED)?).ok()?;
    let created = descriptor.annotations.get(CREATED_AT);
    let mut blob = Descriptor::new(&descriptor.media_type, descriptor.digest.clone(), descriptor.size);
    for key in [TOC_DIGEST, TOC_TAR_SIZE] {
        if let Some(value) = descriptor.annotations.get(key) {
            blob.annotations.insert(key.to_owned(), value.clone());
        }
    }
    Some(LayerBlob {
        descriptor: blob,
        diff_id: DiffId(diff_id),
        created: created.and_then(|text| Timestamp::parse(text).ok()),
    })
}

#[cfg(test)]
mod tests;
