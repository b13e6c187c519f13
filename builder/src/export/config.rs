//! The image config as BuildKit writes it: root file system, history and times patched into what the front end made
//! (`exporter/containerimage/writer.go`: `patchImageConfig`, `normalizeLayersAndHistory`). Fields this program does
//! not know are kept.

use rbuild_oci::{DiffId, History, ImageConfig, RootFs, Timestamp};

/// What the exporter knows of one layer, bottom first.
#[derive(Debug, Clone)]
pub struct LayerFacts {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Name of the step that made it.
    pub description: String,
}

/// A config that no image can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid image config for export: missing {0}")]
pub struct MissingField(&'static str);

/// Patches `config` for `layers`. `epoch` clamps every time that does not come from the base image, whose history is
/// the first `base_history` entries.
///
/// # Errors
/// [`MissingField`] when the config does not say what it runs on.
pub(crate) fn patch(
    mut config: ImageConfig,
    layers: &[LayerFacts],
    epoch: Option<Timestamp>,
    base_history: usize,
) -> Result<ImageConfig, MissingField> {
    for (name, value) in [("os", &config.os), ("architecture", &config.architecture)] {
        if value.is_empty() {
            return Err(MissingField(name));
        }
    }
    complete_history(&mut config.history, layers);
    if let Some(epoch) = epoch {
        let base = base_history.min(config.history.len());
        for entry in &mut config.history[base..] {
            entry.created = Some(entry.created.map_or(epoch, |created| created.min(epoch)));
        }
        config.created = config.created.map(|created| created.min(epoch));
    }
    config.created = config
        .created
        .or_else(|| config.history.iter().rev().find_map(|entry| entry.created));
    config.rootfs = RootFs {
        diff_ids: layers.iter().map(|layer| layer.diff_id.clone()).collect(),
        ..RootFs::default()
    };
    Ok(config)
}

/// How many layers have an entry in `history`; the others get one that tells what made them.
pub(super) fn layers_told(history: &[History]) -> usize {
    history.iter().filter(|entry| !entry.empty_layer).count()
}

/// Makes the entries and the layers agree in number, and gives every entry a time.
fn complete_history(history: &mut Vec<History>, layers: &[LayerFacts]) {
    let mut with_layer = 0;
    for entry in history.iter_mut() {
        if with_layer == layers.len() {
            entry.empty_layer = true;
        }
        with_layer += usize::from(!entry.empty_layer);
    }
    history.extend(layers[with_layer..].iter().map(|layer| History {
        created: layer.created,
        created_by: layer.description.clone(),
        comment: "buildkit.exporter.image.v0".to_owned(),
        ..History::default()
    }));
    for (entry, layer) in history.iter_mut().filter(|entry| !entry.empty_layer).zip(layers) {
        entry.created = entry.created.or(layer.created);
    }
    fill_times(history);
}

/// An entry without a time takes that of the first new layer, or of the layer before it.
fn fill_times(history: &mut [History]) {
    let first_gap = history
        .iter()
        .position(|entry| entry.created.is_none())
        .unwrap_or(history.len());
    let (before, from_gap) = history.split_at(first_gap);
    let after_gap = from_gap.iter().find_map(|entry| entry.created);
    let mut created = after_gap.or_else(|| before.last().and_then(|entry| entry.created));
    for entry in &mut history[first_gap..] {
        match entry.created {
            Some(found) => created = Some(found),
            None => entry.created = created,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_oci::Digest;
    use serde_json::{Value, json};

    fn time(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn layers(times: &[&str]) -> Vec<LayerFacts> {
        times
            .iter()
            .map(|text| LayerFacts {
                diff_id: DiffId(Digest::sha256(text.as_bytes())),
                created: Some(time(text)),
                description: format!("step at {text}"),
            })
            .collect()
    }

    fn patched(config: &Value, layers: &[LayerFacts], epoch: Option<&str>, base: usize) -> Value {
        let config = ImageConfig::parse(config.to_string().as_bytes()).unwrap();
        let patched = patch(config, layers, epoch.map(time), base).unwrap();
        serde_json::from_slice(&patched.to_bytes()).unwrap()
    }

    fn created(config: &Value) -> Vec<&str> {
        config["history"]
            .as_array()
            .unwrap()
            .iter()
            .map(|h| h["created"].as_str().unwrap_or("none"))
            .collect()
    }

    #[test]
    fn keys_are_sorted_and_unknown_ones_kept() {
        let config = br#"{"os":"linux","x.unknown":{"b":1},"architecture":"amd64"}"#;
        let patched = patch(ImageConfig::parse(config).unwrap(), &[], None, 0).unwrap();
        assert_eq!(
            String::from_utf8(patched.to_bytes()).unwrap(),
            r#"{"architecture":"amd64","config":{},"os":"linux","rootfs":{"type":"layers","diff_ids":[]},"x.unknown":{"b":1}}"#
        );
    }

    #[test]
    fn a_config_without_platform_is_refused() {
        for (config, missing) in [
            (r#"{"os":"linux"}"#, "architecture"),
            (r#"{"architecture":"amd64"}"#, "os"),
        ] {
            let config = ImageConfig::parse(config.as_bytes()).unwrap();
            assert_eq!(patch(config, &[], None, 0).unwrap_err(), MissingField(missing));
        }
    }

    #[test]
    fn times_come_from_layers_and_fill_their_neighbours() {
        let config = json!({"os": "linux", "architecture": "amd64", "history": [
            {"created_by": "ENV a=1", "empty_layer": true},
            {"created_by": "RUN one"},
            {"created_by": "ENV b=1", "empty_layer": true},
            {"created_by": "RUN two"},
            {"created_by": "CMD", "empty_layer": true},
        ]});
        let one = "2026-01-01T00:00:00Z";
        let two = "2026-01-02T00:00:00Z";
        let out = patched(&config, &layers(&[one, two]), None, 0);
        assert_eq!(created(&out), [one, one, one, two, two]);
        assert_eq!(out["created"], two);
    }

    #[test]
    fn layers_without_history_get_an_entry_and_surplus_entries_become_empty() {
        let config = json!({"os": "linux", "architecture": "amd64", "history": [{"created_by": "RUN one"}]});
        let out = patched(
            &config,
            &layers(&["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]),
            None,
            0,
        );
        assert_eq!(out["history"][1]["created_by"], "step at 2026-01-02T00:00:00Z");
        assert_eq!(out["history"][1]["comment"], "buildkit.exporter.image.v0");
        let config = json!({"os": "linux", "architecture": "amd64",
            "history": [{"created_by": "RUN one"}, {"created_by": "RUN two"}]});
        let out = patched(&config, &layers(&["2026-01-01T00:00:00Z"]), None, 0);
        assert_eq!(out["history"][1]["empty_layer"], true);
    }

    #[test]
    fn an_epoch_clamps_new_times_and_leaves_the_base_alone() {
        let config = json!({"os": "linux", "architecture": "amd64", "created": "2026-05-01T00:00:00Z", "history": [
            {"created": "2025-01-01T00:00:00Z", "created_by": "base"},
            {"created_by": "RUN one"},
        ]});
        let facts = layers(&["2025-01-01T00:00:00Z", "2026-05-01T00:00:00.5Z"]);
        let out = patched(&config, &facts, Some("1970-01-01T00:00:10Z"), 1);
        assert_eq!(created(&out), ["2025-01-01T00:00:00Z", "1970-01-01T00:00:10Z"]);
        assert_eq!(out["created"], "1970-01-01T00:00:10Z");
    }
}
