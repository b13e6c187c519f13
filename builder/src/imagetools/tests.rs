//! What an index is made of, without a registry.

use super::*;

fn entry(name: &str, media_type: &str, platform: Option<&str>) -> Entry {
    let mut descriptor = Descriptor::of(media_type, name.as_bytes());
    descriptor.platform = platform.map(|text| Platform::parse(text).unwrap());
    Entry {
        descriptor,
        from: Reference::parse("h:1/a").unwrap(),
    }
}

#[test]
fn sources_are_references_digests_and_descriptors() {
    let digest = Digest::sha256(b"x");
    let source = Source::parse("busybox").unwrap();
    assert_eq!(
        source.reference.unwrap().to_string(),
        "docker.io/library/busybox:latest"
    );
    assert_eq!(
        Source::parse(digest.as_str()).unwrap().digest,
        Some(digest.clone())
    );
    let text = format!(
        "{{\"digest\":\"{digest}\",\"size\":3,\"platform\":{{\"os\":\"linux\",\"architecture\":\"arm64\"}}}}"
    );
    let read = Source::parse(&text).unwrap();
    assert_eq!((read.digest, read.size), (Some(digest.clone()), Some(3)));
    assert_eq!(read.platform.unwrap().short(), "linux/arm64");
    for refused in [
        "UPPER",
        "{",
        "{}",
        &format!("{{\"schemaVersion\":2,\"digest\":\"{digest}\"}}"),
    ] {
        assert!(Source::parse(refused).is_err(), "{refused}");
    }
}

#[test]
fn a_digest_alone_is_of_the_one_repository_there_is() {
    let digest = Digest::sha256(b"x");
    let lone = Source {
        digest: Some(digest.clone()),
        ..Source::default()
    };
    let named = |name: &str| Source {
        reference: Some(Reference::parse(name).unwrap()),
        ..Source::default()
    };
    let found = |sources: Vec<Source>, targets: &[&str]| {
        let asked = Combination {
            sources,
            targets: targets
                .iter()
                .map(|name| Reference::parse(name).unwrap())
                .collect(),
            ..Combination::default()
        };
        place(&lone, &asked).map(|reference| reference.to_string())
    };
    let of = format!("h:1/a@{digest}");
    assert_eq!(found(vec![named("h:1/a:1")], &["h:1/a:2"]).unwrap(), of);
    assert_eq!(found(vec![], &["h:1/a:2"]).unwrap(), of);
    assert!(matches!(found(vec![], &[]), Err(ImagetoolsError::NoRepository)));
    assert!(matches!(
        found(vec![named("h:1/b:1")], &["h:1/a:2"]),
        Err(ImagetoolsError::WhoseDigest(_))
    ));
}

#[test]
fn a_list_is_dockers_only_where_everything_is() {
    let docker = || entry("a", media_type::DOCKER_MANIFEST, None);
    let oci = || entry("b", media_type::OCI_MANIFEST, None);
    let made =
        |entries, annotations: BTreeMap<String, String>| index_of(entries, annotations).descriptor.media_type;
    assert_eq!(made(vec![docker()], BTreeMap::new()), media_type::DOCKER_INDEX);
    assert_eq!(
        made(vec![docker(), oci()], BTreeMap::new()),
        media_type::OCI_INDEX
    );
    let annotations = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
    assert_eq!(made(vec![docker()], annotations), media_type::OCI_INDEX);
}

#[test]
fn platforms_are_kept_with_their_attestations() {
    let amd64 = entry("amd64", media_type::OCI_MANIFEST, Some("linux/amd64"));
    let arm64 = entry("arm64", media_type::OCI_MANIFEST, Some("linux/arm64"));
    let about = |name: &str, image: &Entry| {
        let mut entry = entry(name, media_type::OCI_MANIFEST, Some("unknown/unknown"));
        let digest = image.descriptor.digest.to_string();
        entry.descriptor.annotations = BTreeMap::from([
            (
                "vnd.docker.reference.type".to_owned(),
                "attestation-manifest".to_owned(),
            ),
            ("vnd.docker.reference.digest".to_owned(), digest),
        ]);
        entry
    };
    let mut entries = vec![
        amd64.clone(),
        arm64.clone(),
        about("of amd64", &amd64),
        about("of arm64", &arm64),
    ];
    let wanted = [Platform::parse("linux/arm64").unwrap().normalized()];
    keep_platforms(&mut entries, &wanted).unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0].descriptor.digest, arm64.descriptor.digest);
    let missing = [Platform::parse("linux/s390x").unwrap()];
    assert!(matches!(
        keep_platforms(&mut entries, &missing),
        Err(ImagetoolsError::NoPlatform(_))
    ));
}

#[test]
fn a_descriptor_of_another_size_is_refused() {
    let found = Descriptor::of(media_type::OCI_MANIFEST, b"abc");
    let says = |size| Source {
        size: Some(size),
        ..Source::default()
    };
    assert!(described(found.clone(), &says(3)).is_ok());
    assert!(matches!(
        described(found, &says(4)),
        Err(ImagetoolsError::Size {
            said: 4,
            found: 3,
            ..
        })
    ));
}
