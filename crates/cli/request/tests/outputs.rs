//! `--output` and its short forms.

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
        "type=image,push=false,unpack=true,store=1,mode=copy,buildinfo=true,buildinfo-attrs=1,tpyo=1",
        ".",
    ]);
    assert_eq!(
        odd.warnings,
        ["unknown attribute \"tpyo\" of output type \"image\" has no effect"]
    );
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
            vec!["-o", "type=image,compression=estargz", "."],
            "not supported yet: output attribute compression=estargz",
        ),
        (
            vec!["-o", "type=local,dest=d,mode=delete", "."],
            "not supported yet: output attribute mode=delete",
        ),
        (
            vec!["-o", "type=image,store=false", "."],
            "not supported yet: output attribute store=false",
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
