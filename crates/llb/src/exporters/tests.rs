//! Exporters as clients name them, right and wrong.

use super::*;
use crate::sentence;
use rbuild_oci::Platform;

fn parse(kind: &str, attrs: &[(&str, &str)]) -> Result<ExporterSpec, String> {
    let exporter = api::Exporter {
        r#type: kind.into(),
        attrs: attrs
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect(),
    };
    ExporterSpec::parse(&exporter).map_err(|error| sentence(&error))
}

fn image(attrs: &[(&str, &str)]) -> ImageExporter {
    match parse("image", attrs) {
        Ok(ExporterSpec::Image(image)) => image,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_image_has_defaults() {
    let plain = image(&[]);
    assert!(plain.store && plain.image.inline_attestations);
    assert!(!(plain.push || plain.unpack || plain.insecure || plain.push_by_digest));
    assert_eq!(plain.image.compression, Compression::default());
    assert_eq!(
        (plain.image.oci_mediatypes, plain.image.epoch),
        (None, Epoch::Unset)
    );
    assert_eq!(plain.image.names().count(), 0);
}

#[test]
fn every_attribute_of_an_image_is_read() {
    let read = image(&[
        ("name", "a/b:1,c"),
        ("push", ""),
        ("push-by-digest", "true"),
        ("registry.insecure", "1"),
        ("unpack", "t"),
        ("store", "false"),
        ("name-canonical", ""),
        ("dangling-name-prefix", "p"),
        ("danging-name-empty-only", "1"),
        ("oci-mediatypes", "true"),
        ("oci-artifact", "false"),
        ("attestation-inline", "0"),
        ("prefer-nondist-layers", "1"),
        ("source-date-epoch", "-5"),
        ("rewrite-timestamp", "true"),
        ("compression", "zstd"),
        ("compression-level", "22"),
        ("force-compression", ""),
        ("annotation-manifest[linux/amd64].k", "v"),
        ("containerimage.extra", "kept"),
    ]);
    assert_eq!(read.image.names().collect::<Vec<_>>(), ["a/b:1", "c"]);
    assert!(read.push && read.push_by_digest && read.insecure && read.unpack && read.name_canonical);
    assert!(!read.store && read.dangling_empty_only && !read.image.inline_attestations);
    assert_eq!(read.dangling_prefix.as_deref(), Some("p"));
    assert_eq!(
        (read.image.oci_mediatypes, read.image.oci_artifact),
        (Some(true), Some(false))
    );
    assert!(read.image.prefer_nondist_layers && read.image.rewrite_timestamp);
    assert_eq!(read.image.epoch, Epoch::At(-5));
    let compression = Compression {
        kind: CompressionKind::Zstd,
        force: true,
        level: Some(22),
    };
    assert_eq!(read.image.compression, compression);
    let platform = Some(Platform::new("linux", "amd64"));
    assert_eq!(read.image.annotations[&platform].manifest["k"], "v");
    let metadata: Vec<&str> = read.image.metadata.keys().map(String::as_str).collect();
    assert_eq!(metadata, ["containerimage.extra"]);
}

#[test]
fn a_star_is_no_name() {
    assert_eq!(image(&[("name", "*")]).image.names().count(), 0);
}

#[test]
fn archives_and_files_are_read() {
    let Ok(ExporterSpec::Archive(oci)) = parse("oci", &[("tar", "false"), ("dest", "kept")]) else {
        panic!();
    };
    assert!(!oci.docker && !oci.tar && !oci.image.inline_attestations);
    assert_eq!(oci.image.metadata["dest"], "kept");
    let docker = parse("docker", &[("tar", "")]);
    assert!(matches!(
        docker,
        Ok(ExporterSpec::Archive(ArchiveExporter {
            docker: true,
            tar: true,
            ..
        }))
    ));
    let read = parse(
        "local",
        &[
            ("platform-split", "0"),
            ("attestation-prefix", "p"),
            ("source-date-epoch", ""),
            ("mode", " Delete"),
            ("dropped", "x"),
        ],
    );
    let expected = FilesExporter {
        tar: false,
        epoch: Epoch::Off,
        attestation_prefix: "p".into(),
        platform_split: Some(false),
        delete_extra: true,
    };
    assert_eq!(read, Ok(ExporterSpec::Files(expected)));
    let tar = FilesExporter {
        tar: true,
        ..FilesExporter::default()
    };
    assert_eq!(parse("tar", &[]), Ok(ExporterSpec::Files(tar)));
}

#[test]
fn errors_are_buildkits_sentences() {
    for (kind, attrs, sentence) in [
        ("x", &[][..], "exporter \"x\" could not be found"),
        (
            "image",
            &[("push", "maybe")],
            "non-bool value specified for push: strconv.ParseBool: parsing \"maybe\": invalid syntax",
        ),
        (
            "image",
            &[("oci-mediatypes", "")],
            "non-bool value specified for oci-mediatypes: strconv.ParseBool: parsing \"\": invalid syntax",
        ),
        (
            "oci",
            &[("tar", "2")],
            "non-bool value specified for tar: strconv.ParseBool: parsing \"2\": invalid syntax",
        ),
        (
            "image",
            &[("compression", "lz4")],
            "unsupported compression type lz4",
        ),
        (
            "image",
            &[("force-compression", "x")],
            "non-bool value x specified for force-compression: strconv.ParseBool: parsing \"x\": invalid syntax",
        ),
        (
            "image",
            &[("compression-level", "x")],
            "non-integer value x specified for compression-level: strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (
            "image",
            &[("compression", "estargz"), ("oci-mediatypes", "0")],
            "exporter option \"compression=estargz\" conflicts with \"oci-mediatypes=false\"",
        ),
        (
            "oci",
            &[("oci-artifact", "1"), ("oci-mediatypes", "0")],
            "exporter option \"oci-artifact=true\" conflicts with \"oci-mediatypes=false\"",
        ),
        (
            "image",
            &[("annotation-x.k", "v")],
            "unrecognized annotation type x",
        ),
        (
            "local",
            &[("platform-split", "x")],
            "non-bool value for platform-split: x: strconv.ParseBool: parsing \"x\": invalid syntax",
        ),
        (
            "local",
            &[("mode", "move")],
            "invalid local exporter mode \"move\"",
        ),
        (
            "tar",
            &[("source-date-epoch", "x")],
            "invalid source-date-epoch: strconv.ParseInt: parsing \"x\": invalid syntax: \
             strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
    ] {
        assert_eq!(parse(kind, attrs), Err(sentence.to_owned()));
    }
}
