//! The cache inside an image's config (`cache/remotecache/inline`): the records of a cache config whose layers are those
//! of the image, counted from its bottom.

use std::collections::HashMap;

use base64::Engine as _;
use rbuild_oci::{DiffId, Digest, ImageConfig, Manifest, Timestamp};
use rbuild_store::LayerId;
use serde_json::Value as Json;

use super::chains::{Keys, LayerBlob, PlaceLayers, ReadCache, write};
use super::config::{CacheConfig, CacheLayer, CacheRecord, CacheResult, ChainedResult, ConfigFault};

/// Key of an image's config.
pub(crate) const CONFIG_KEY: &str = "moby.buildkit.cache.v0";

/// Results as numbers of an image's layers: the topmost one where they are its lowest layers, a list otherwise.
struct ImageLayers;

impl PlaceLayers<usize> for ImageLayers {
    fn place(&mut self, layers: &[usize], created: Option<Timestamp>, record: &mut CacheRecord) {
        let numbers: Vec<i64> = layers
            .iter()
            .filter_map(|number| i64::try_from(*number).ok())
            .collect();
        if layers.iter().copied().eq(0..layers.len()) {
            let layer = numbers.last().copied().unwrap_or(-1);
            record.results.push(CacheResult {
                layer,
                created_at: created,
            });
        } else {
            record.chains.push(ChainedResult {
                layers: numbers,
                created_at: created,
            });
        }
    }
}

/// The value of `CONFIG_KEY` for an image of these layers, bottom first; nothing if no key made any of them.
#[must_use]
pub fn value(keys: &Keys<LayerId>, layers: &[LayerId]) -> Option<String> {
    let numbers: HashMap<&LayerId, usize> = layers.iter().zip(0..).collect();
    let of_image = keys.map(|stack| {
        let found: Option<Vec<usize>> = stack.iter().map(|layer| numbers.get(layer).copied()).collect();
        found.filter(|stack| !stack.is_empty())
    });
    let records = write(&of_image, &mut ImageLayers);
    if records.is_empty() {
        return None;
    }
    let text = rbuild_oci::go_json::to_vec(&records).ok()?;
    Some(base64::engine::general_purpose::STANDARD.encode(text))
}

/// The cache in an image; nothing if it has none, or is not whole (as BuildKit passes over it).
///
/// # Errors
/// [`ConfigFault`] for a cache that is not believed.
pub fn read(manifest: &Manifest, config: &ImageConfig) -> Result<Option<ReadCache>, ConfigFault> {
    let diff_ids = &config.rootfs.diff_ids;
    let Some(Json::String(text)) = config.extra.get(CONFIG_KEY) else {
        return Ok(None);
    };
    let Ok(text) = base64::engine::general_purpose::STANDARD.decode(text) else {
        return Ok(None);
    };
    if diff_ids.len() != manifest.layers.len() {
        return Ok(None);
    }
    let records: Vec<CacheRecord> = serde_json::from_slice(&text)?;
    let times = config
        .history
        .iter()
        .filter(|entry| !entry.empty_layer)
        .map(|entry| entry.created);
    let times: Vec<Option<Timestamp>> = times.collect();
    let blobs = manifest.layers.iter().zip(diff_ids).enumerate();
    let blobs: HashMap<Digest, LayerBlob> = blobs
        .map(|(number, (layer, diff_id))| {
            let blob = LayerBlob {
                descriptor: rbuild_oci::Descriptor::new(&layer.media_type, layer.digest.clone(), layer.size),
                diff_id: DiffId(diff_id.0.clone()),
                created: times.get(number).copied().flatten(),
            };
            (layer.digest.clone(), blob)
        })
        .collect();
    let layers = (-1..).zip(&manifest.layers).map(|(parent, layer)| CacheLayer {
        blob: layer.digest.clone(),
        parent,
        annotations: None,
    });
    let config = CacheConfig {
        layers: layers.collect(),
        records,
    };
    ReadCache::new(config, &blobs).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache_transfer::chains::Known;
    use rbuild_oci::{Descriptor, RootFs};
    use std::collections::BTreeSet;

    fn digest(text: &str) -> Digest {
        Digest::sha256(text.as_bytes())
    }

    fn layer(text: &str) -> LayerId {
        LayerId::of_diff_id(&DiffId(digest(text)))
    }

    fn image(layers: &[&str], cache: Option<String>) -> (Manifest, ImageConfig) {
        let blobs = layers
            .iter()
            .map(|text| Descriptor::of("application/vnd.oci.image.layer.v1.tar", text.as_bytes()));
        let manifest = Manifest::new(
            rbuild_oci::media_type::OCI_MANIFEST,
            Descriptor::of("c", b"c"),
            blobs.collect(),
        );
        let mut config = ImageConfig {
            rootfs: RootFs {
                diff_ids: layers.iter().map(|text| DiffId(digest(text))).collect(),
                ..RootFs::default()
            },
            ..ImageConfig::default()
        };
        config
            .extra
            .extend(cache.map(|text| (CONFIG_KEY.to_owned(), Json::String(text))));
        (manifest, config)
    }

    fn keys() -> Keys<LayerId> {
        let known = |stack: &[&str]| Known {
            identity: None,
            outputs: vec![Some(stack.iter().map(|text| layer(text)).collect())],
            created: Timestamp::from_unix(5, 0),
        };
        let mut keys = Keys::default();
        keys.records.insert(digest("one"), known(&["a", "b"]));
        keys.records.insert(digest("link"), known(&["c"]));
        keys.records.insert(digest("other stage"), known(&["a", "z"]));
        keys.aliases.insert(digest("name"), digest("one"));
        keys.aliases.insert(digest("lost"), digest("other stage"));
        keys
    }

    #[test]
    fn what_an_image_holds_is_found_in_it() {
        let value = value(&keys(), &[layer("a"), layer("b"), layer("c")]);
        let (manifest, config) = image(&["a", "b", "c"], value);
        let cache = read(&manifest, &config).unwrap().unwrap();
        let stack = |key: &str| -> Option<Vec<DiffId>> {
            let found = cache.find(&digest(key), 1, &BTreeSet::from([0]))?;
            Some(
                found.outputs[0]
                    .as_ref()?
                    .iter()
                    .map(|layer| layer.diff_id.clone())
                    .collect(),
            )
        };
        assert_eq!(stack("one").unwrap(), [DiffId(digest("a")), DiffId(digest("b"))]);
        assert_eq!(
            stack("link").unwrap(),
            [DiffId(digest("c"))],
            "not at the bottom: a list"
        );
        assert_eq!(stack("other stage"), None);
        assert_eq!(cache.alias(&digest("name")), Some(&digest("one")));
        assert_eq!(cache.alias(&digest("lost")), None);
    }

    #[test]
    fn an_image_without_a_cache_or_without_all_its_layers_has_none() {
        let text = value(&keys(), &[layer("a"), layer("b")]);
        let (manifest, config) = image(&["a", "b"], None);
        assert!(read(&manifest, &config).unwrap().is_none());
        let (_, config) = image(&["a"], text);
        assert!(
            read(&manifest, &config).unwrap().is_none(),
            "two layers, one diff id"
        );
        assert_eq!(value(&keys(), &[layer("x")]), None, "nothing made these layers");
    }

    #[test]
    fn row46_an_image_cache_that_names_layers_the_image_does_not_have_is_refused() {
        let text = value(&keys(), &[layer("a"), layer("b"), layer("c")]);
        let (manifest, config) = image(&["a", "b"], text);
        assert!(matches!(
            read(&manifest, &config),
            Err(ConfigFault::LayerIndex(2))
        ));
        let circle = format!(r#"[{{"digest":"{}","inputs":[[{{"link":0}}]]}}]"#, digest("x"));
        let circle = base64::engine::general_purpose::STANDARD.encode(circle);
        let (manifest, config) = image(&["a"], Some(circle));
        assert!(matches!(
            read(&manifest, &config),
            Err(ConfigFault::LoopingRecord)
        ));
    }
}
