//! What a scanner could not know of the files it lists: in which layer they are (`supplementSBOM`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rbuild_oci::Digest;
use rbuild_sys::RootFd;
use rustix::fs::FileType;
use serde_json::{Value as Json, json};

use super::{SPDX, Told};

const CREATOR: &str = concat!("Tool: rbuild-", env!("CARGO_PKG_VERSION"));

/// The layers of an image.
#[derive(Debug)]
pub struct LayerFiles {
    layers: Vec<(PathBuf, Digest)>,
    known: BTreeMap<String, Option<Digest>>,
}

impl LayerFiles {
    /// The layers of these directories and blobs, bottom first.
    #[must_use]
    pub const fn new(layers: Vec<(PathBuf, Digest)>) -> Self {
        Self {
            layers,
            known: BTreeMap::new(),
        }
    }

    /// The topmost layer that has the file `name`; a layer that only takes it away does not have it.
    fn of(&mut self, name: &str) -> Option<Digest> {
        if let Some(known) = self.known.get(name) {
            return known.clone();
        }
        let has = |dir: &Path| {
            let root = RootFd::open(dir).ok()?;
            let stat = root.lstat(&Path::new("/").join(name)).ok()?;
            let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
            // Overlayfs: a device 0:0 stands for a file that was removed.
            (!is_device || stat.st_rdev != 0).then_some(())
        };
        let mut from_top = self.layers.iter().rev();
        let found = from_top.find(|(dir, _)| has(dir).is_some());
        let found = found.map(|(_, digest)| digest.clone());
        self.known.insert(name.to_owned(), found.clone());
        found
    }
}

/// Adds to the result's own list of packages in which layer each file is. Other attestations stay as they are, and so do
/// documents that are no SPDX 2.
pub(crate) fn supplement(told: &mut Told, layers: &mut LayerFiles) {
    if told.predicate_type != SPDX || !told.is_core() {
        return;
    }
    let version = told.predicate.get("spdxVersion").and_then(Json::as_str);
    if !version.is_some_and(|version| version.starts_with("SPDX-2.")) {
        return;
    }
    for file in told
        .predicate
        .get_mut("files")
        .and_then(Json::as_array_mut)
        .into_iter()
        .flatten()
    {
        let commented = file
            .get("comment")
            .and_then(Json::as_str)
            .is_some_and(|text| !text.is_empty());
        let name = file.get("fileName").and_then(Json::as_str);
        if let (false, Some(name), true) = (commented, name, file.is_object())
            && let Some(layer) = layers.of(name)
        {
            file["comment"] = format!("layerID: {layer}").into();
        }
    }
    let info = &mut told.predicate["creationInfo"];
    if !info.is_object() {
        *info = json!({});
    }
    match info.get_mut("creators").and_then(Json::as_array_mut) {
        Some(creators) => creators.push(CREATOR.into()),
        None => info["creators"] = json!([CREATOR]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(predicate: Json) -> Told {
        Told {
            path: "/out/sbom.spdx.json".to_owned(),
            predicate_type: SPDX.to_owned(),
            subjects: vec![],
            sbom_core: Some("sbom".to_owned()),
            predicate,
        }
    }

    #[test]
    fn files_are_told_with_their_topmost_layer() {
        let (low, top) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (dir, names) in [(&low, &["a", "b"][..]), (&top, &["b"])] {
            for name in names {
                std::fs::write(dir.path().join(name), "").unwrap();
            }
        }
        let (one, two) = (Digest::sha256(b"1"), Digest::sha256(b"2"));
        let layers = vec![
            (low.path().to_owned(), one.clone()),
            (top.path().to_owned(), two.clone()),
        ];
        let mut layers = LayerFiles::new(layers);
        let files = json!([
            {"fileName": "/a"}, {"fileName": "b"}, {"fileName": "/gone"},
            {"fileName": "/a", "comment": "mine"}, {"fileName": "../../etc/passwd"}, "odd",
        ]);
        let mut document = told(json!({"spdxVersion": "SPDX-2.3", "files": files}));
        supplement(&mut document, &mut layers);
        let comment = |at: usize| document.predicate["files"][at]["comment"].as_str();
        assert_eq!(comment(0), Some(format!("layerID: {one}").as_str()));
        assert_eq!(comment(1), Some(format!("layerID: {two}").as_str()));
        assert_eq!((comment(2), comment(3), comment(4)), (None, Some("mine"), None));
        assert_eq!(document.predicate["creationInfo"]["creators"], json!([CREATOR]));
    }

    #[test]
    fn documents_that_are_no_spdx_stay_as_they_are() {
        let mut layers = LayerFiles::new(vec![]);
        for predicate in [json!({"name": "x"}), json!(null), json!({"spdxVersion": 3})] {
            let mut document = told(predicate.clone());
            supplement(&mut document, &mut layers);
            assert_eq!(document.predicate, predicate);
        }
        let mut extra = told(json!({"spdxVersion": "SPDX-2.3"}));
        extra.path = "/out/sbom-context.spdx.json".to_owned();
        supplement(&mut extra, &mut layers);
        assert!(extra.predicate.get("creationInfo").is_none());
    }
}
