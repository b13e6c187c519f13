//! What refers to a manifest: by the API where there is one, else by a tag.

use rbuild_oci::media_type::{OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};
use rbuild_oci::{Descriptor, Digest, Document, Index, Manifest, parse_document};
use rbuild_registry::RegistryError;
use rbuild_testkit::registry::{Fault, TestRegistry};

use super::setup::{client, quiet, reference};

/// A manifest that refers to `subject`.
fn artifact(subject: &Descriptor, name: &str) -> Vec<u8> {
    let mut manifest = Manifest::new(OCI_MANIFEST, Descriptor::of(OCI_CONFIG, b"{}"), Vec::new());
    manifest.artifact_type = Some("application/x.test".to_owned());
    manifest.subject = Some(subject.clone());
    manifest.annotations.insert("name".to_owned(), name.to_owned());
    serde_json::to_vec(&manifest).expect("JSON")
}

fn subject() -> Descriptor {
    Descriptor::of(OCI_MANIFEST, b"subject")
}

fn page(entries: &[Descriptor]) -> String {
    let bytes = Index::new(OCI_INDEX, entries.to_vec()).to_bytes();
    String::from_utf8(bytes).expect("text")
}

#[tokio::test]
async fn referrers_are_noted_under_a_tag_where_the_registry_has_no_list() {
    let registry = TestRegistry::start();
    let (client, subject) = (client(), subject());
    let reference = reference(&registry, "a/b:1");
    client
        .push_blob(
            &reference,
            &Descriptor::of(OCI_CONFIG, b"{}"),
            &(std::sync::Arc::new(b"{}".to_vec()) as _),
            &Default::default(),
            &quiet(),
        )
        .await
        .expect("pushed");
    assert_eq!(
        client.referrers(&reference, &subject.digest).await.expect("none"),
        []
    );
    let mut pushed = Vec::new();
    for name in ["first", "second", "first"] {
        let bytes = artifact(&subject, name);
        let by_digest = reference.repository().with_digest(Digest::sha256(&bytes));
        pushed.push(
            client
                .push_manifest(&by_digest, OCI_MANIFEST, &bytes)
                .await
                .expect("pushed"),
        );
    }
    let found = client.referrers(&reference, &subject.digest).await.expect("two");
    let digests: Vec<&Digest> = found.iter().map(|one| &one.digest).collect();
    assert_eq!(digests, [&pushed[0].digest, &pushed[1].digest], "each once");
    assert_eq!(found[0].artifact_type.as_deref(), Some("application/x.test"));
    assert_eq!(found[1].annotations["name"], "second");
    let tag = subject.digest.to_string().replace(':', "-");
    let (_, bytes) = registry.manifest("a/b", &tag).expect("a tag");
    let document = parse_document(&bytes, Some(OCI_INDEX)).expect("a document");
    assert!(matches!(document, Document::Index(index) if index.manifests.len() == 2));
}

#[tokio::test]
async fn a_registry_that_knows_subjects_is_told_once() {
    let registry = TestRegistry::start();
    let subject = subject();
    registry.fault(Fault::status(
        "PUT",
        "/manifests/",
        201,
        ("oci-subject", subject.digest.as_str()),
        "",
    ));
    let bytes = artifact(&subject, "x");
    let by_digest = reference(&registry, "a/b:1")
        .repository()
        .with_digest(Digest::sha256(&bytes));
    client()
        .push_manifest(&by_digest, OCI_MANIFEST, &bytes)
        .await
        .expect("pushed");
    assert_eq!(registry.count("PUT", "/manifests/"), 1);
}

#[tokio::test]
async fn a_list_goes_on_from_page_to_page_and_has_an_end() {
    let registry = TestRegistry::start();
    let (client, subject) = (client(), subject());
    let reference = reference(&registry, "a/b:1");
    let entry = |name: &str| Descriptor::of(OCI_MANIFEST, name.as_bytes());
    let next = ("link", "</v2/a/b/referrers/more?last=x>; rel=\"next\"");
    let path = format!("/referrers/{}", subject.digest);
    registry.fault(Fault::status("GET", &path, 200, next, &page(&[entry("1")])));
    let last = ("content-type", OCI_INDEX);
    registry.fault(Fault::status(
        "GET",
        "/referrers/more",
        200,
        last,
        &page(&[entry("2"), entry("3")]),
    ));
    let found = client
        .referrers(&reference, &subject.digest)
        .await
        .expect("three");
    assert_eq!(found, [entry("1"), entry("2"), entry("3")]);
}

/// Row 36: a list may not lead elsewhere, be endless, or be something else.
#[tokio::test]
async fn row36_a_list_of_referrers_that_leads_astray_is_refused() {
    let subject = subject();
    let elsewhere = "<http://192.0.2.1/v2/a/b/referrers/x>; rel=\"next\"";
    let entry = Descriptor::of(OCI_MANIFEST, b"1");
    let manifest = String::from_utf8(artifact(&subject, "x")).expect("text");
    for (header, body, says) in [
        (
            ("link", elsewhere),
            page(std::slice::from_ref(&entry)),
            "another place",
        ),
        (("x", "y"), manifest, ""),
        (("x", "y"), "[]".to_owned(), ""),
    ] {
        let registry = TestRegistry::start();
        registry.fault(Fault::status("GET", "/referrers/", 200, header, &body));
        let reference = reference(&registry, "a/b:1");
        let refused = client().referrers(&reference, &subject.digest).await;
        let text = refused.expect_err("refused").to_string();
        assert!(text.contains(says), "{text}");
    }
    let registry = TestRegistry::start();
    let again = format!("</v2/a/b/referrers/{}>; rel=next", subject.digest);
    let endless = Fault::status("GET", "/referrers/", 200, ("link", &again), &page(&[entry]));
    registry.fault(endless);
    let reference = reference(&registry, "a/b:1");
    let endless = client().referrers(&reference, &subject.digest).await;
    assert!(
        matches!(endless, Err(RegistryError::Protocol { .. })),
        "{endless:?}"
    );
}
