//! Bundles: a directory of in-toto statements (`exporter/attestation/unbundle.go`). Hostile: a step made it.

use std::path::Path;

use rbuild_oci::Digest;
use rbuild_sys::RootFd;
use rustix::fs::{Dir, Mode, OFlags};
use serde::Deserialize;
use serde_json::Value as Json;

use super::{Attestation, AttestationError, FILE_BYTES_MAX, PROVENANCE, Subject, Told};

/// Most statements of one bundle.
const ENTRIES_MAX: usize = 1000;

#[derive(Deserialize)]
struct Bundled {
    #[serde(rename = "predicateType", default)]
    predicate_type: String,
    #[serde(default)]
    subject: Option<Vec<BundledSubject>>,
    #[serde(default)]
    predicate: Json,
}

#[derive(Deserialize)]
struct BundledSubject {
    #[serde(default)]
    name: String,
    #[serde(default)]
    digest: std::collections::BTreeMap<String, String>,
}

/// The statements of `bundle`, whose directory is below `root`, sorted by their files' names.
pub(super) fn open(root: &RootFd, bundle: &Attestation) -> Result<Vec<Told>, AttestationError> {
    let directory = Path::new("/").join(&bundle.path);
    let mut told = Vec::new();
    for name in names(root, &directory)? {
        let path = directory.join(&name);
        let bytes = root.read_file(&path, FILE_BYTES_MAX)?;
        let fail = |source| AttestationError::Statement {
            path: path.display().to_string(),
            source,
        };
        let statement: Bundled = serde_json::from_slice(&bytes).map_err(fail)?;
        let required = &bundle.predicate_type;
        if !required.is_empty() && statement.predicate_type != *required {
            return Err(AttestationError::PredicateType {
                found: statement.predicate_type,
                required: required.clone(),
            });
        }
        if statement.predicate_type.starts_with(PROVENANCE) {
            return Err(AttestationError::BundledProvenance);
        }
        let subjects = statement.subject.unwrap_or_default();
        told.push(Told {
            path: path.display().to_string(),
            predicate_type: statement.predicate_type,
            subjects: subjects.into_iter().map(subject).collect(),
            sbom_core: bundle.sbom_core.clone(),
            predicate: statement.predicate,
        });
    }
    Ok(told)
}

fn names(root: &RootFd, directory: &Path) -> Result<Vec<String>, AttestationError> {
    let fail = |source: rustix::io::Errno| AttestationError::List {
        path: directory.display().to_string(),
        source: source.into(),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = root.open_in(directory, flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::read_from(opened).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "." || name == ".." {
            continue;
        }
        if names.len() == ENTRIES_MAX {
            return Err(AttestationError::TooMany(ENTRIES_MAX));
        }
        names.push(name);
    }
    names.sort();
    Ok(names)
}

fn subject(subject: BundledSubject) -> Subject {
    let digests = subject.digest.into_iter();
    Subject::Other {
        name: subject.name,
        digests: digests
            .filter_map(|(algorithm, hex)| Digest::parse(&format!("{algorithm}:{hex}")).ok())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attestation::Content;
    use crate::value::Chain;

    fn bundle(path: &str, predicate_type: &str) -> Attestation {
        Attestation {
            content: Content::Bundle(Chain::default()),
            path: path.to_owned(),
            predicate_type: predicate_type.to_owned(),
            subjects: vec![],
            sbom_core: None,
            inline_only: false,
        }
    }

    #[test]
    fn row48_a_bundle_is_files_below_its_root_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let root = RootFd::open(dir.path()).unwrap();
        let at = |name: &str| dir.path().join("b").join(name);
        std::fs::create_dir(dir.path().join("b")).unwrap();
        std::fs::write(at("z.json"), r#"{"predicateType":"t","predicate":{"a":1}}"#).unwrap();
        let subject = format!(r#"[{{"name":"n","digest":{{"sha256":"{}"}}}}]"#, "a".repeat(64));
        let text = format!(r#"{{"predicateType":"t","subject":{subject},"predicate":null}}"#);
        std::fs::write(at("a.json"), text).unwrap();
        let found = open(&root, &bundle("/b", "t")).unwrap();
        assert_eq!((found[0].file_name(), found[1].file_name()), ("a.json", "z.json"));
        assert!(
            matches!(&found[0].subjects[..], [Subject::Other { name, digests }] if name == "n" && digests.len() == 1)
        );
        assert_eq!(found[1].predicate["a"], 1);
        assert!(matches!(
            open(&root, &bundle("b", "other")),
            Err(AttestationError::PredicateType { .. })
        ));
        // A link leads nowhere but below the root.
        std::os::unix::fs::symlink("/etc/passwd", at("link.json")).unwrap();
        assert!(matches!(
            open(&root, &bundle("b", "")),
            Err(AttestationError::Read(_))
        ));
        std::fs::remove_file(at("link.json")).unwrap();
        std::fs::write(
            at("p.json"),
            r#"{"predicateType":"https://slsa.dev/provenance/v1"}"#,
        )
        .unwrap();
        let refused = open(&root, &bundle("b", "")).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "frontend may not bundle provenance attestations"
        );
    }
}
