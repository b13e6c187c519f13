//! An image as it is compared: what two builds of the same thing have in common.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::image::Image;

/// An image without what differs between any two builds of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedImage {
    /// The config document without times, diff ids and history.
    pub config: Value,
    /// History without times.
    pub history: Vec<Value>,
    /// Number of layers that came from the base.
    pub base_layers: usize,
    /// Each further layer's entries: path and facts, hard links and whiteouts as they stand in the archive.
    pub layers: Vec<BTreeMap<String, String>>,
}

impl ObservedImage {
    /// Looks at an image; the layers of the base are the longest common prefix with any of `bases`.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub fn of(image: &Image, bases: &[Image]) -> Result<Self> {
        let mut config = image.config.clone();
        let members = config.as_object_mut().context("the config is no object")?;
        members.remove("created");
        let history = members.remove("history").unwrap_or_default();
        let rootfs = members.remove("rootfs").unwrap_or_default();
        let base_layers = bases
            .iter()
            .map(|base| common_layers(&rootfs, &base.config["rootfs"]))
            .max()
            .unwrap_or(0);
        let mut entries = history.as_array().cloned().unwrap_or_default();
        for entry in &mut entries {
            if let Some(entry) = entry.as_object_mut() {
                entry.remove("created");
            }
        }
        let mut layers = Vec::new();
        for index in base_layers..image.layer_count() {
            let mut table = BTreeMap::new();
            for (path, facts) in image.layer_entries(index)? {
                let whiteout = path
                    .rsplit('/')
                    .next()
                    .is_some_and(|name| name.starts_with(".wh."));
                let line = if whiteout {
                    "whiteout".to_owned()
                } else {
                    facts.to_string()
                };
                let old = table.insert(path.clone(), line);
                ensure!(old.is_none(), "layer {index} has {path} twice");
            }
            layers.push(table);
        }
        Ok(Self {
            config,
            history: entries,
            base_layers,
            layers,
        })
    }

    /// What the layers above the base add up to, whiteouts kept. Archive order and empty layers make no difference here.
    #[must_use]
    pub fn files(&self) -> BTreeMap<String, String> {
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        for layer in &self.layers {
            for (path, line) in layer {
                let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
                if let Some(hidden) = name.strip_prefix(".wh.") {
                    let hidden = if parent.is_empty() {
                        hidden.to_owned()
                    } else {
                        format!("{parent}/{hidden}")
                    };
                    files.retain(|key, _| *key != hidden && !key.starts_with(&format!("{hidden}/")));
                } else if !line.starts_with('d') {
                    files.retain(|key, _| !key.starts_with(&format!("{path}/")));
                }
                files.insert(path.clone(), line.clone());
            }
        }
        files
    }
}

fn common_layers(ours: &Value, base: &Value) -> usize {
    let list = |rootfs: &Value| rootfs["diff_ids"].as_array().cloned().unwrap_or_default();
    let (ours, base) = (list(ours), list(base));
    if ours.starts_with(&base) { base.len() } else { 0 }
}

/// Sentences about what is different, empty if nothing that counts is.
#[must_use]
pub fn differences(
    expected: &ObservedImage,
    actual: &ObservedImage,
    excused: &BTreeMap<String, String>,
) -> Vec<String> {
    let mut found = Vec::new();
    compare_values("config", &expected.config, &actual.config, &mut found);
    let count = expected.history.len().max(actual.history.len());
    for index in 0..count {
        let (want, have) = (expected.history.get(index), actual.history.get(index));
        if want != have {
            found.push(format!(
                "history {index}:\n    want {}\n    have {}",
                shown(want),
                shown(have)
            ));
        }
    }
    if expected.base_layers != actual.base_layers {
        found.push(format!(
            "{} layers are the base's, {} should be",
            actual.base_layers, expected.base_layers
        ));
    }
    if expected.layers.len() == actual.layers.len() {
        for (index, (want, have)) in expected.layers.iter().zip(&actual.layers).enumerate() {
            compare_tables(&format!("layer {index}"), want, have, &mut found);
        }
    } else {
        found.push(format!(
            "{} new layers, {} should be",
            actual.layers.len(),
            expected.layers.len()
        ));
        compare_tables("files", &expected.files(), &actual.files(), &mut found);
    }
    found.retain(|sentence| !excused.keys().any(|part| sentence.contains(part.as_str())));
    found
}

/// Sentences about what is different in what an image is, whatever the builder that made it writes down: its config, and
/// what its layers add up to. Directories on the way to an entry, which some builders put into layers and others do not,
/// count only where one that both name differs.
#[must_use]
pub fn content_differences(expected: &ObservedImage, actual: &ObservedImage) -> Vec<String> {
    let mut found = Vec::new();
    compare_values("config", &expected.config, &actual.config, &mut found);
    let (mut want, mut have) = (expected.files(), actual.files());
    let only_way = |path: &String,
                    line: &String,
                    table: &BTreeMap<String, String>,
                    other: &BTreeMap<String, String>| {
        let below = format!("{path}/");
        line.starts_with('d') && !other.contains_key(path) && table.keys().any(|key| key.starts_with(&below))
    };
    let (all_want, all_have) = (want.clone(), have.clone());
    want.retain(|path, line| !only_way(path, line, &all_want, &all_have));
    have.retain(|path, line| !only_way(path, line, &all_have, &all_want));
    compare_tables("files", &want, &have, &mut found);
    found
}

fn compare_values(at: &str, want: &Value, have: &Value, found: &mut Vec<String>) {
    if let (Value::Object(wanted), Value::Object(had)) = (want, have) {
        let keys: std::collections::BTreeSet<&String> = wanted.keys().chain(had.keys()).collect();
        for key in keys {
            let null = Value::Null;
            let (want, have) = (wanted.get(key).unwrap_or(&null), had.get(key).unwrap_or(&null));
            compare_values(&format!("{at}.{key}"), want, have, found);
        }
    } else if want != have {
        found.push(format!("{at}:\n    want {want}\n    have {have}"));
    }
}

fn compare_tables(
    at: &str,
    want: &BTreeMap<String, String>,
    have: &BTreeMap<String, String>,
    found: &mut Vec<String>,
) {
    let paths: std::collections::BTreeSet<&String> = want.keys().chain(have.keys()).collect();
    for path in paths {
        let (wanted, had) = (want.get(path), have.get(path));
        if wanted != had {
            let line = |side: Option<&String>| side.map_or("nothing", String::as_str).to_owned();
            found.push(format!(
                "{at} /{path}:\n    want {}\n    have {}",
                line(wanted),
                line(had)
            ));
        }
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), Value::to_string)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn observed(layer: &[(&str, &str)]) -> ObservedImage {
        let table = layer
            .iter()
            .map(|(path, line)| ((*path).to_owned(), (*line).to_owned()))
            .collect();
        ObservedImage {
            config: serde_json::json!({"config": {"Env": ["A=1"]}}),
            history: vec![serde_json::json!({"created_by": "x"})],
            base_layers: 1,
            layers: vec![table],
        }
    }

    #[test]
    fn every_kind_of_difference_is_told() {
        let want = observed(&[("a", "f 0644 0:0 \"1\""), ("b", "d 0755 0:0")]);
        let mut have = observed(&[("a", "f 0600 0:0 \"1\""), ("c", "d 0755 0:0")]);
        have.config = serde_json::json!({"config": {"Env": ["A=2"], "User": "x"}});
        have.history.clear();
        let found = differences(&want, &have, &BTreeMap::new());
        assert_eq!(found.len(), 6, "{found:#?}");
        assert!(differences(&want, &want.clone(), &BTreeMap::new()).is_empty());
    }

    #[test]
    fn an_excuse_hides_only_what_it_names() {
        let want = observed(&[("a", "f 0644 0:0 \"1\""), ("b", "d 0755 0:0")]);
        let have = observed(&[]);
        let excused = BTreeMap::from([("/a:".to_owned(), "reason".to_owned())]);
        assert_eq!(differences(&want, &have, &excused).len(), 1);
    }
}
