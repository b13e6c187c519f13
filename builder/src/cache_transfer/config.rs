//! The cache config document (`cache/remotecache/v1/types/spec.go`): layers with their parents, records with their
//! inputs and results. Refuses what leads out of the document or back to itself, however deep, and more of anything
//! than a cache can need; the tree is walked without recursion, since its depth is the sender's choice.

use rbuild_oci::{Digest, Timestamp};
use serde::{Deserialize, Serialize};

/// Media type of the document.
pub const MEDIA_TYPE: &str = "application/vnd.buildkit.cacheconfig.v0";
/// Most records of a config.
const RECORDS_MAX: usize = 100_000;
/// Most links of all its records.
const LINKS_MAX: usize = 1_000_000;
/// Most layers below one another; what overlay mounts can hold is far less.
const DEPTH_MAX: usize = 4096;

/// A cache config.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheConfig {
    /// The layers that results are made of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<CacheLayer>,
    /// The keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<CacheRecord>,
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheLayer {
    /// Digest of its blob; the descriptor is in the manifest.
    pub blob: Digest,
    /// Index of the layer below; -1 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub parent: i64,
    /// What a manifest would say of it, where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<LayerAnnotations>,
}

/// A layer's descriptor, in a config that no manifest stands beside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerAnnotations {
    /// Media type of the blob.
    #[serde(rename = "mediaType", default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// Digest of the uncompressed tar.
    #[serde(rename = "diffID", default, skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<Digest>,
    /// Bytes of the blob.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size: i64,
    /// When the layer was made; Go's zero time if that is not known.
    #[serde(rename = "createdAt", default)]
    pub created_at: Option<Timestamp>,
}

/// One key, what it is made of, and what it made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheRecord {
    /// Results that are a layer with all layers below it.
    #[serde(rename = "layers", default, skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<CacheResult>,
    /// Results that are a list of layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chains: Vec<ChainedResult>,
    /// The key.
    pub digest: Digest,
    /// For each input the records it may be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Vec<CacheInput>>,
}

/// A result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheResult {
    /// Index of its topmost layer.
    pub layer: i64,
    /// When it was made.
    #[serde(rename = "createdAt", default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
}

/// A result whose layers do not stand on one another in this config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainedResult {
    /// Indexes of its layers, bottom first.
    #[serde(default)]
    pub layers: Vec<i64>,
    /// When it was made.
    #[serde(rename = "createdAt", default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
}

/// A link to the record of an input.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CacheInput {
    /// What of it is used.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// Index of the record.
    pub link: i64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(parent: &i64) -> bool {
    *parent == 0
}

/// Why a cache config is not believed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFault {
    /// Not the JSON it should be.
    #[error("invalid cache config")]
    Json(#[from] serde_json::Error),
    /// A layer refers to one there is not.
    #[error("invalid layer index {0}")]
    LayerIndex(i64),
    /// A link leads to a record there is not.
    #[error("invalid record ID: {0}")]
    RecordIndex(i64),
    /// Layers stand on each other in a circle.
    #[error("invalid looping layer")]
    LoopingLayer,
    /// Records depend on each other in a circle.
    #[error("invalid looping record")]
    LoopingRecord,
    /// An input that is nothing.
    #[error("invalid empty input for record {0}")]
    EmptyInput(usize),
    /// More than a cache can need.
    #[error("cache config has {found} {what}, at most {max} are read")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        found: usize,
        /// How many are read.
        max: usize,
    },
}

impl CacheConfig {
    /// Reads and checks a config.
    ///
    /// # Errors
    /// [`ConfigFault`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigFault> {
        let config: Self = serde_json::from_slice(bytes)?;
        config.check()?;
        Ok(config)
    }

    /// Checks every index, and that nothing leads back to itself.
    ///
    /// # Errors
    /// [`ConfigFault`].
    pub fn check(&self) -> Result<(), ConfigFault> {
        limit("layers", self.layers.len(), RECORDS_MAX)?;
        limit("records", self.records.len(), RECORDS_MAX)?;
        let links = self.records.iter().flat_map(|record| &record.inputs);
        limit("links", links.map(Vec::len).sum(), LINKS_MAX)?;
        let chained = self.records.iter().flat_map(|record| &record.chains);
        limit(
            "layers of results",
            chained.map(|chain| chain.layers.len()).sum(),
            LINKS_MAX,
        )?;
        self.check_layers()?;
        self.check_results()?;
        self.check_records()
    }

    /// The layer at `index`.
    ///
    /// # Errors
    /// [`ConfigFault::LayerIndex`].
    pub fn layer(&self, index: i64) -> Result<&CacheLayer, ConfigFault> {
        let found = usize::try_from(index).ok().and_then(|at| self.layers.get(at));
        found.ok_or(ConfigFault::LayerIndex(index))
    }

    fn check_layers(&self) -> Result<(), ConfigFault> {
        // Depth of each layer once it is known; a chain is followed down to the first known one.
        let mut depths: Vec<Option<usize>> = vec![None; self.layers.len()];
        for start in 0..self.layers.len() {
            let mut path = Vec::new();
            let mut at = start;
            let below = loop {
                if let Some(depth) = depths[at] {
                    break depth;
                }
                path.push(at);
                if path.len() > self.layers.len() {
                    return Err(ConfigFault::LoopingLayer);
                }
                let parent = self.layers[at].parent;
                if parent == -1 {
                    break 0;
                }
                self.layer(parent)?;
                at = usize::try_from(parent).map_err(|_| ConfigFault::LayerIndex(parent))?;
            };
            for (number, layer) in path.into_iter().rev().enumerate() {
                let depth = below + number + 1;
                limit("layers below one another", depth, DEPTH_MAX)?;
                depths[layer] = Some(depth);
            }
        }
        Ok(())
    }

    fn check_results(&self) -> Result<(), ConfigFault> {
        for record in &self.records {
            for result in &record.results {
                self.layer(result.layer)?;
            }
            for chain in &record.chains {
                limit("layers of a result", chain.layers.len(), DEPTH_MAX)?;
                for index in &chain.layers {
                    self.layer(*index)?;
                }
            }
        }
        Ok(())
    }

    /// Takes records away whose inputs are all taken away; what is left in the end is a circle (Kahn's algorithm).
    fn check_records(&self) -> Result<(), ConfigFault> {
        let count = self.records.len();
        let mut waiting = vec![0_usize; count];
        let mut users: Vec<Vec<usize>> = vec![Vec::new(); count];
        for (number, record) in self.records.iter().enumerate() {
            for input in &record.inputs {
                if input.is_empty() {
                    return Err(ConfigFault::EmptyInput(number));
                }
                for link in input {
                    let target = usize::try_from(link.link).ok().filter(|at| *at < count);
                    users[target.ok_or(ConfigFault::RecordIndex(link.link))?].push(number);
                    waiting[number] += 1;
                }
            }
        }
        let mut free: Vec<usize> = (0..count).filter(|at| waiting[*at] == 0).collect();
        let mut taken = 0;
        while let Some(at) = free.pop() {
            taken += 1;
            for user in std::mem::take(&mut users[at]) {
                waiting[user] -= 1;
                if waiting[user] == 0 {
                    free.push(user);
                }
            }
        }
        if taken == count {
            Ok(())
        } else {
            Err(ConfigFault::LoopingRecord)
        }
    }
}

const fn limit(what: &'static str, found: usize, max: usize) -> Result<(), ConfigFault> {
    if found > max {
        return Err(ConfigFault::TooMany { what, found, max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn digest(n: usize) -> Digest {
        Digest::sha256(&n.to_le_bytes())
    }

    fn parse(value: &Value) -> Result<CacheConfig, ConfigFault> {
        CacheConfig::parse(value.to_string().as_bytes())
    }

    fn refusal(value: &Value) -> String {
        parse(value).unwrap_err().to_string()
    }

    #[test]
    fn a_config_as_buildkit_writes_it_is_read_and_written_alike() {
        let text = format!(
            r#"{{"layers":[{{"blob":"{0}","parent":-1}},{{"blob":"{1}"}}],"records":[{{"layers":[{{"layer":1,"createdAt":"2024-01-02T03:04:05.123456789Z"}}],"digest":"{2}"}},{{"digest":"{3}","inputs":[[{{"selector":"sha256:x","link":0}}],[{{"link":0}}]]}}]}}"#,
            digest(1),
            digest(2),
            digest(3),
            digest(4),
        );
        let config = CacheConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.layers[1].parent, 0, "an absent parent is the first layer");
        assert_eq!(config.records[1].inputs[0][0].selector, "sha256:x");
        assert_eq!(serde_json::to_string(&config).unwrap(), text);
    }

    #[test]
    fn row46_what_leads_out_of_the_document_is_refused() {
        let layer = |parent: i64| json!({"layers": [{"blob": digest(1), "parent": parent}]});
        assert!(parse(&layer(-1)).is_ok());
        for parent in [-2, 1, i64::MAX, i64::MIN] {
            assert_eq!(refusal(&layer(parent)), format!("invalid layer index {parent}"));
        }
        let result = |index: i64| {
            json!({"layers": [{"blob": digest(1), "parent": -1}],
                   "records": [{"digest": digest(2), "layers": [{"layer": index}], "chains": [{"layers": [index]}]}]})
        };
        assert!(parse(&result(0)).is_ok());
        assert_eq!(refusal(&result(1)), "invalid layer index 1");
        assert_eq!(refusal(&result(-1)), "invalid layer index -1");
        let link = |index: i64| json!({"records": [{"digest": digest(1)}, {"digest": digest(2), "inputs": [[{"link": index}]]}]});
        assert!(parse(&link(0)).is_ok());
        assert_eq!(refusal(&link(2)), "invalid record ID: 2");
        assert_eq!(refusal(&link(-1)), "invalid record ID: -1");
        let empty = json!({"records": [{"digest": digest(1), "inputs": [[]]}]});
        assert_eq!(refusal(&empty), "invalid empty input for record 0");
    }

    #[test]
    fn row46_circles_are_refused() {
        let own = json!({"layers": [{"blob": digest(1), "parent": 0}]});
        assert_eq!(refusal(&own), "invalid looping layer");
        let layers = json!({"layers": [{"blob": digest(1), "parent": 1}, {"blob": digest(2), "parent": 0}]});
        assert_eq!(refusal(&layers), "invalid looping layer");
        let own = json!({"records": [{"digest": digest(1), "inputs": [[{"link": 0}]]}]});
        assert_eq!(refusal(&own), "invalid looping record");
        let records = json!({"records": [
            {"digest": digest(0)},
            {"digest": digest(1), "inputs": [[{"link": 2}, {"link": 0}]]},
            {"digest": digest(2), "inputs": [[{"link": 1}]]},
        ]});
        assert_eq!(refusal(&records), "invalid looping record");
    }

    #[test]
    fn row46_a_very_deep_config_neither_overflows_the_stack_nor_is_taken() {
        let deep = |count: usize| CacheConfig {
            layers: (0..count)
                .map(|n| CacheLayer {
                    blob: digest(n),
                    parent: i64::try_from(n).unwrap() - 1,
                    annotations: None,
                })
                .collect(),
            records: Vec::new(),
        };
        assert!(deep(DEPTH_MAX).check().is_ok());
        assert!(matches!(
            deep(DEPTH_MAX + 1).check(),
            Err(ConfigFault::TooMany { .. })
        ));
        let records = |count: usize| CacheConfig {
            layers: Vec::new(),
            records: (0..count)
                .map(|n| CacheRecord {
                    results: Vec::new(),
                    chains: Vec::new(),
                    digest: digest(n),
                    inputs: (n > 0)
                        .then(|| CacheInput {
                            selector: String::new(),
                            link: i64::try_from(n).unwrap() - 1,
                        })
                        .map(|input| vec![vec![input]])
                        .unwrap_or_default(),
                })
                .collect(),
        };
        assert!(records(RECORDS_MAX).check().is_ok(), "records may be deep");
        assert!(matches!(
            records(RECORDS_MAX + 1).check(),
            Err(ConfigFault::TooMany { .. })
        ));
    }

    #[test]
    fn row31_a_digest_that_is_none_is_refused() {
        for text in ["sha256:../../x", "md5:aa", "", "sha256:AA"] {
            let value = json!({"records": [{"digest": text}]});
            assert!(matches!(parse(&value), Err(ConfigFault::Json(_))), "{text}");
        }
    }
}
