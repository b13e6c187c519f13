//! What a result was made of, as in-toto lists it (`slsaMaterials`).

use serde_json::{Map, Value as Json};

use super::capture::Capture;
use super::purl;
use super::request::{commit_digest, digest_pair};

/// Images, then blobs, then repositories, then files; each sorted.
pub(super) fn materials(capture: &Capture) -> Vec<Json> {
    let images = capture.images.iter().filter_map(|image| {
        let uri = purl::of_text(image.kind, &image.reference, image.platform.as_deref())?;
        Some(material(uri, image.digest.as_ref().map(digest_pair)))
    });
    let blobs = capture.blobs.iter().filter_map(|(kind, name, digest)| {
        let uri = purl::of_text(*kind, name, None)?;
        // Qualifiers are sorted, and a blob is always named by its digest.
        Some(material(
            format!("{uri}&ref_type=blob"),
            Some(digest_pair(digest)),
        ))
    });
    let git = capture.git.iter();
    let git = git.map(|(url, commit)| material(url.clone(), Some(commit_digest(commit))));
    let bundles = capture
        .bundles
        .iter()
        .filter_map(|(kind, name, digest, repository)| {
            let uri = purl::of_text(*kind, name, None)?;
            let mark = if uri.contains('?') { '&' } else { '?' };
            let repository = purl::qualifier(repository);
            let uri = format!("{uri}{mark}ref_type=bundle&vcs_url={repository}");
            Some(material(uri, Some(digest_pair(digest))))
        });
    let http = capture.http.iter();
    let http = http.map(|(url, digest)| material(url.clone(), Some(digest_pair(digest))));
    images
        .chain(blobs)
        .chain(git)
        .chain(bundles)
        .chain(http)
        .collect()
}

fn material(uri: String, digest: Option<(String, String)>) -> Json {
    let mut fields = Map::new();
    fields.insert("uri".to_owned(), uri.into());
    if let Some((algorithm, hex)) = digest {
        let digest: Map<String, Json> = [(algorithm, hex.into())].into_iter().collect();
        fields.insert("digest".to_owned(), digest.into());
    }
    fields.into()
}
