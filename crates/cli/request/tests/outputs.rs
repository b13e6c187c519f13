//! `--output` and its short forms.

use rbuild_builder::request::{Dangling, Epoch};

use super::*;

#[test]
fn outputs() {
    let file = |path: &str| Destination::File(PathBuf::from(path));
    for (line, expected) in [
        (
            &["-o", "out", "."][..],
            vec![OutputKind::Local(TreeDestination::Dir(PathBuf::from("out")))],
        ),
        (&["-o", "-", "."], vec![OutputKind::Tar(Destination::Stdout)]),
        (
            &["-o", "type=tar", "."],
            vec![OutputKind::Tar(Destination::Stdout)],
        ),
        (
            &["-o", "type=oci", "."],
            vec![OutputKind::Oci(LayoutDestination::Tar(Destination::Stdout))],
        ),
        (
            &["-o", "type=oci,dest=x.tar", "."],
            vec![OutputKind::Oci(LayoutDestination::Tar(file("x.tar")))],
        ),
        (
            &["-o", "type=oci,tar=false,dest=d", "."],
            vec![OutputKind::Oci(LayoutDestination::Dir(PathBuf::from("d")))],
        ),
        (
            &["-o", "type=docker,dest=x.tar", "."],
            vec![OutputKind::Docker(LayoutDestination::Tar(file("x.tar")))],
        ),
        (&["-o", "type=docker", "."], vec![STORE]),
        (&["-o", "type=image", "."], vec![STORE]),
        (&["-t", "a", "-o", "type=registry", "."], vec![PUSH]),
        (&["-t", "a", "--push", "."], vec![PUSH]),
        (&["-t", "a", "--push", "-o", "type=image", "."], vec![PUSH]),
        (
            &["-t", "a", "--push", "-o", "out", "."],
            vec![
                OutputKind::Local(TreeDestination::Dir(PathBuf::from("out"))),
                PUSH,
            ],
        ),
        (&["--load", "."], vec![STORE]),
        (
            &["--load", "-o", "out", "."],
            vec![
                OutputKind::Local(TreeDestination::Dir(PathBuf::from("out"))),
                STORE,
            ],
        ),
        (&["-o", "type=cacheonly", "."], vec![OutputKind::CacheOnly]),
        (
            &["-o", "type=cacheonly", "-o", "out", "."],
            vec![OutputKind::Local(TreeDestination::Dir(PathBuf::from("out")))],
        ),
        (&["-o", "", "."], vec![STORE]),
    ] {
        assert_eq!(kinds(line), expected, "{line:?}");
    }
}

#[test]
fn attributes_of_outputs() {
    let output = |text: &str| high(&["-o", text, "."]).request.outputs.remove(0);
    let zstd = output(
        "type=image,\"name=a,b\",compression=zstd,compression-level=19,force-compression=true,oci-mediatypes=false,rewrite-timestamp=true,annotation.k=v",
    );
    assert_eq!(zstd.names, ["a", "b"]);
    assert_eq!(
        (zstd.compression, zstd.compression_level),
        (LayerCompression::Zstd, Some(19))
    );
    assert!(zstd.force_compression && zstd.rewrite_timestamp && !zstd.oci_mediatypes);
    assert_eq!(zstd.annotations[&None].manifest["k"], "v");
    let tagged = high(&["-t", "tag", "-o", "type=image,name=ignored", "."]);
    assert_eq!(
        tagged.request.outputs[0].names,
        Vec::<String>::new(),
        "tags take the place of names"
    );
    let odd = high(&[
        "-o",
        "type=image,push=false,unpack=true,store=1,buildinfo=true,buildinfo-attrs=1,tpyo=1",
        ".",
    ]);
    assert_eq!(
        odd.warnings,
        ["unknown attribute \"tpyo\" of output type \"image\" has no effect"]
    );
    let kept =
        output("type=image,name=a,dangling-name-prefix=old,store=false,name-canonical=,source-date-epoch=7");
    assert_eq!(
        (kept.is_stored, kept.name_canonical, kept.epoch),
        (false, true, Epoch::At(7))
    );
    assert_eq!(
        kept.dangling,
        Some(Dangling {
            prefix: "old".to_owned(),
            empty_only: false
        })
    );
    assert_eq!(output("type=tar,source-date-epoch=").epoch, Epoch::Off);
    let insecure = output("type=image,name=a,push=,push-by-digest=1,registry.insecure=true");
    assert_eq!(
        insecure.kind,
        OutputKind::Image {
            push: true,
            push_by_digest: true,
            insecure: true
        }
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table of cases")]
fn outputs_that_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (dir, file) = (dir.path().display(), file.display());
    for (line, expected) in [
        (
            vec!["-o", "type=image,push=true", "."],
            "tag is needed when pushing to registry",
        ),
        (vec!["--push", "."], "tag is needed when pushing to registry"),
        (
            vec!["-o", "-", "-o", "type=oci", "."],
            "multiple outputs configured to write to stdout",
        ),
        (
            vec!["--iidfile=i", "-o", "out", "."],
            "local and tar exporters are incompatible with image ID file",
        ),
        (
            vec!["--iidfile=i", "-o", "-", "."],
            "local and tar exporters are incompatible with image ID file",
        ),
        (
            vec!["-o", "type=local", "."],
            "dest is required for local exporter",
        ),
        (
            vec!["-o", "type=local,dest=-", "."],
            "dest cannot be stdout for local exporter",
        ),
        (
            vec!["-o", "type=oci,tar=false", "."],
            "dest is required for oci exporter",
        ),
        (
            vec!["-o", "type=oci,tar=false,dest=-", "."],
            "dest cannot be stdout for oci exporter",
        ),
        (
            vec!["-o", &format!("{file}"), "."],
            &format!("destination directory {file} is a file"),
        ),
        (
            vec!["-o", &format!("type=tar,dest={dir}"), "."],
            &format!("destination file {dir} is a directory"),
        ),
        (vec!["-o", "type=ftp", "."], "exporter \"ftp\" could not be found"),
        (
            vec!["-o", "type=image,compression=lz4", "."],
            "invalid compression=lz4 of output",
        ),
        (
            vec!["-o", "type=image,compression-level=10", "."],
            "invalid compression-level=10 of output",
        ),
        (
            vec!["-o", "type=image,compression=estargz,oci-mediatypes=false", "."],
            "exporter option \"compression=estargz\" conflicts with \"oci-mediatypes=false\"",
        ),
        (
            vec!["-o", "type=local,dest=d,mode=mirror", "."],
            "invalid local exporter mode \"mirror\"",
        ),
        (
            vec!["-o", "type=local,dest=/d,mode=delete", "."],
            "local output mode=delete for destination \"/d\" requires --allow=buildx.local.delete",
        ),
        (
            vec!["-o", "type=local,dest=.,mode=delete", "."],
            "local output mode=delete for destination \".\" requires --allow=buildx.local.delete",
        ),
        (
            vec!["-o", "type=local,dest=d/../../x,mode=delete", "."],
            "local output mode=delete for destination \"d/../../x\" requires --allow=buildx.local.delete",
        ),
        (
            vec!["-o", "type=image,prefer-nondist-layers=maybe", "."],
            "invalid value \"maybe\" for output attribute prefer-nondist-layers: not a bool",
        ),
        (
            vec!["-o", "type=image,source-date-epoch=today", "."],
            "invalid source-date-epoch: \"today\" is no number of seconds",
        ),
        (
            vec!["-o", "type=docker,dest=x,context=y", "."],
            "not supported yet: output attribute context=y",
        ),
        (
            vec![
                "-o",
                "type=docker,dest=x",
                "--platform=linux/amd64,linux/arm64",
                ".",
            ],
            "docker exporter does not support exporting manifest lists, use the oci exporter instead",
        ),
    ] {
        assert_eq!(refused(&line), expected, "{line:?}");
    }
}

#[test]
fn archives_are_not_written_to_a_terminal() {
    for (text, kind) in [
        ("-", "tar"),
        ("type=oci", "oci"),
        ("type=docker,dest=-", "docker"),
    ] {
        let mut env = env(&[], b"").0;
        env.stdout_is_terminal = true;
        let error = to_request(low(&["-o", text, "."]), &mut env)
            .expect_err(text)
            .to_string();
        assert_eq!(
            error,
            format!("dest file is required for {kind} exporter. refusing to write to console")
        );
    }
}

#[test]
fn what_has_no_effect_on_an_output_is_told() {
    for (line, told) in [
        (
            &["-o", "type=tar,compression=zstd", "."][..],
            "attribute \"compression\" has no effect on output type \"tar\"",
        ),
        (
            &["-o", "type=local,dest=out,name=a", "."],
            "attribute \"name\" has no effect on output type \"local\"",
        ),
        (
            &["-o", "type=oci,platform-split=false", "."],
            "attribute \"platform-split\" has no effect on output type \"oci\"",
        ),
        (
            &["-o", "type=tar,annotation.a=b", "."],
            "attribute \"annotation.a\" has no effect on output type \"tar\"",
        ),
        (
            &["-o", "type=tar", "--annotation", "a=b", "."],
            "--annotation has no effect: no output is an image",
        ),
        (
            &["-o", "type=oci,push=true", "."],
            "unknown attribute \"push\" of output type \"oci\" has no effect",
        ),
        (
            &["-o", "type=oci,compresion=zstd", "."],
            "unknown attribute \"compresion\" of output type \"oci\" has no effect; did you mean \"compression\"?",
        ),
        (
            &["--cache-to", "type=inline,ref=x", "."],
            "attribute \"ref\" has no effect on --cache-to type=inline",
        ),
        (
            &["--cache-to", "type=local,dest=d,compresion=zstd", "."],
            "attribute \"compresion\" has no effect on --cache-to type=local; did you mean \"compression\"?",
        ),
        (
            &["--cache-from", "type=registry,ref=a,mode=max", "."],
            "attribute \"mode\" has no effect on --cache-from type=registry",
        ),
        (
            &["--cache-to", "type=s3,bucket=b,region=r,usepathstyle=1", "."],
            "attribute \"usepathstyle\" has no effect on --cache-to type=s3; did you mean \"use_path_style\"?",
        ),
    ] {
        assert_eq!(high(line).warnings, [told], "{line:?}");
    }
    // All that has an effect is told of nowhere.
    for line in [
        &[
            "-o",
            "type=image,name=a,unpack=true,store=false,annotation-manifest.a=b,source-date-epoch=1",
            ".",
        ][..],
        &[
            "-o",
            "type=tar,platform-split=false,attestation-prefix=x,mode=copy,source-date-epoch=1",
            ".",
        ],
        &[
            "--cache-to",
            "type=registry,ref=a,mode=max,ignore-error=true,oci-mediatypes=true,image-manifest=true,compression=zstd,compression-level=3,force-compression=1,registry.insecure=0",
            ".",
        ],
        &[
            "--cache-to",
            "type=local,dest=d,tag=t,reset=true",
            "--cache-from",
            "type=local,src=d,tag=t",
            ".",
        ],
        &[
            "--cache-to",
            "type=s3,bucket=b,region=r,name=n,use_path_style=1,endpoint_url=http://127.0.0.1:1",
            ".",
        ],
    ] {
        assert_eq!(high(line).warnings, Vec::<String>::new(), "{line:?}");
    }
}
