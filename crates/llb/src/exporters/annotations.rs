//! `annotation[-KIND][[PLATFORM]].KEY=VALUE` (`exporter/containerimage/annotations.go`).

use std::collections::BTreeMap;

use rbuild_oci::Platform;

use super::ExporterError;

/// Annotations by platform; `None` is every platform.
pub type Annotations = BTreeMap<Option<Platform>, AnnotationSet>;

/// Annotations of the documents of one image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnnotationSet {
    /// Of the index.
    pub index: BTreeMap<String, String>,
    /// Of the descriptor that names the index.
    pub index_descriptor: BTreeMap<String, String>,
    /// Of the manifest.
    pub manifest: BTreeMap<String, String>,
    /// Of the descriptor that names the manifest.
    pub manifest_descriptor: BTreeMap<String, String>,
}

/// What holds for an image of `platform`. Indexes belong to no platform, so all of theirs hold.
#[must_use]
pub fn for_platform(annotations: &Annotations, platform: Option<&Platform>) -> AnnotationSet {
    let mut found = AnnotationSet::default();
    let platform = platform.map(ToString::to_string);
    for (of, set) in annotations {
        let copy = |to: &mut BTreeMap<String, String>, from: &BTreeMap<String, String>| {
            to.extend(from.iter().map(|(key, value)| (key.clone(), value.clone())));
        };
        copy(&mut found.index, &set.index);
        copy(&mut found.index_descriptor, &set.index_descriptor);
        if of.is_none() || of.as_ref().map(ToString::to_string) == platform {
            copy(&mut found.manifest, &set.manifest);
            copy(&mut found.manifest_descriptor, &set.manifest_descriptor);
        }
    }
    found
}

/// Takes the attribute if it is an annotation; says whether it was.
///
/// # Errors
/// [`ExporterError`] for kinds there are none of and platforms that are none.
pub fn annotation(
    annotations: &mut Annotations,
    attribute: &str,
    value: &str,
) -> Result<bool, ExporterError> {
    let Some((kind, platform, key)) = parts(attribute) else {
        return Ok(false);
    };
    if !matches!(
        kind,
        "" | "index" | "index-descriptor" | "manifest" | "manifest-descriptor"
    ) {
        return Err(ExporterError::AnnotationKind(kind.to_owned()));
    }
    let platform = platform.map(Platform::parse).transpose()?;
    let set = annotations.entry(platform).or_default();
    let map = match kind {
        "index" => &mut set.index,
        "index-descriptor" => &mut set.index_descriptor,
        "manifest-descriptor" => &mut set.manifest_descriptor,
        _ => &mut set.manifest,
    };
    map.insert(key.to_owned(), value.to_owned());
    Ok(true)
}

/// Kind, platform and key. What does not have this form is no annotation, however it begins.
fn parts(attribute: &str) -> Option<(&str, Option<&str>, &str)> {
    let mut rest = attribute.strip_prefix("annotation")?;
    let mut kind = "";
    if let Some(after) = rest.strip_prefix('-') {
        let end = after
            .find(|c: char| !(c.is_ascii_lowercase() || c == '-'))
            .unwrap_or(after.len());
        (kind, rest) = after.split_at(end);
        if kind.is_empty() {
            return None;
        }
    }
    let mut platform = None;
    if let Some(after) = rest.strip_prefix('[') {
        let (inside, after) = after.split_once(']')?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '/' | '-');
        if inside.is_empty() || !inside.chars().all(allowed) {
            return None;
        }
        (platform, rest) = (Some(inside), after);
    }
    let key = rest.strip_prefix('.')?;
    let spaced = key.contains(['\t', '\n', '\u{c}', '\r', ' ']);
    (!key.is_empty() && !spaced).then_some((kind, platform, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_has_a_form() {
        for (attribute, expected) in [
            ("annotation.a.b", Some(("", None, "a.b"))),
            ("annotation-index.k", Some(("index", None, "k"))),
            (
                "annotation-manifest-descriptor[linux/arm64].k[x].y",
                Some(("manifest-descriptor", Some("linux/arm64"), "k[x].y")),
            ),
            ("annotation[linux/amd64].k", Some(("", Some("linux/amd64"), "k"))),
            ("annotation-x.k", Some(("x", None, "k"))),
            ("annotation.", None),
            ("annotation", None),
            ("annotations.k", None),
            ("annotation-.k", None),
            ("annotation-Index.k", None),
            ("annotation[].k", None),
            ("annotation[linux(1)].k", None),
            ("annotation[linux/amd64]k", None),
            ("annotation.a b", None),
        ] {
            assert_eq!(parts(attribute), expected, "{attribute}");
        }
    }

    #[test]
    fn a_platform_has_its_own_and_everyones() {
        let mut all = Annotations::new();
        for (attribute, value) in [
            ("annotation.a", "all"),
            ("annotation[linux/arm64].a", "arm"),
            ("annotation-manifest-descriptor[linux/amd64].d", "amd"),
            ("annotation-index[linux/arm64].i", "index"),
        ] {
            assert_eq!(annotation(&mut all, attribute, value), Ok(true));
        }
        let arm = for_platform(&all, Some(&Platform::new("linux", "arm64")));
        assert_eq!(arm.manifest["a"], "arm");
        assert_eq!(arm.index["i"], "index");
        let amd = for_platform(&all, Some(&Platform::new("linux", "amd64")));
        assert_eq!(
            (amd.manifest["a"].as_str(), amd.manifest_descriptor["d"].as_str()),
            ("all", "amd")
        );
        assert_eq!(amd.index["i"], "index");
        assert_eq!(for_platform(&all, None).manifest_descriptor, BTreeMap::new());
    }
}
