//! The last copies of a build that only makes an image become its layer without becoming files: the image is the one that
//! a build through files makes, and what goes on from it finds the files.

use std::fs;

use crate::e2e::fixture::Fixture;
use rbuild_testkit::image::Image;

const COPIES: &str = "FROM busybox\nCOPY tree /opt/app/\nCOPY extra /opt/app/extra\n";

fn fixture(dockerfile: &str) -> Fixture {
    let fixture = Fixture::new(dockerfile);
    let context = &fixture.context;
    context
        .file("tree/a", "one")
        .file("tree/sub/b", "two")
        .file("extra", "three");
    context.mode("tree/sub/b", 0o755);
    context.settle();
    fixture
}

/// Directories of layers in the fixture's store.
fn layer_dirs(fixture: &Fixture) -> usize {
    let forms = fs::read_dir(fixture.home.store().join("layers"));
    let forms = forms.map_or_else(|_| Vec::new(), |forms| forms.flatten().collect());
    let layers = |form: &fs::DirEntry| fs::read_dir(form.path()).map_or(0, Iterator::count);
    forms.iter().map(layers).sum()
}

fn diff_ids(image: &Image) -> Vec<String> {
    let ids = image.config["rootfs"]["diff_ids"].as_array().expect("diff ids");
    ids.iter()
        .map(|id| id.as_str().expect("a digest").to_owned())
        .collect()
}

/// Times as archives have them are those of the making, where BuildKit's are: so the file's own times decide.
fn created(image: &Image) -> Vec<String> {
    let history = image.config["history"].as_array().expect("history");
    history.iter().map(|entry| entry["created"].to_string()).collect()
}

#[test]
fn the_layer_of_the_last_copy_is_never_a_directory_and_the_same() {
    let fixture = fixture("FROM scratch\nCOPY tree /\nCOPY extra /\n");
    let (_, packed) = fixture.image(&[]);
    let before = layer_dirs(&fixture);
    // A directory as another output makes all of it files.
    let tree = format!(
        "--output=type=local,dest={}",
        fixture.home.work().join("tree").display()
    );
    let (ran, through_files) = fixture.image(&["--no-cache", &tree]);
    assert!(ran.cached().is_empty(), "{}", ran.stderr);
    assert_eq!(diff_ids(&packed), diff_ids(&through_files));
    let layers = |image: &Image| image.manifest["layers"].clone();
    assert_eq!(layers(&packed), layers(&through_files));
    assert_eq!(before, 1, "the layer of the first copy alone");
    assert_eq!(layer_dirs(&fixture), 3, "and of both");
}

#[test]
fn what_was_packed_is_found_again_and_built_upon() {
    let fixture = fixture(COPIES);
    let (_, first) = fixture.image(&[]);
    let dirs = layer_dirs(&fixture);
    let (ran, again) = fixture.image(&[]);
    assert!(ran.executed().is_empty(), "{}", ran.stderr);
    assert_eq!(first.manifest, again.manifest);
    assert_eq!(created(&first), created(&again));
    assert_eq!(layer_dirs(&fixture), dirs, "nothing had to be unpacked");

    let more = format!("{COPIES}RUN test -x /opt/app/sub/b && cat /opt/app/a /opt/app/extra > /all\n");
    fixture.context.dockerfile(&more);
    let (ran, longer) = fixture.image(&[]);
    assert_eq!(ran.executed().len(), 1, "only the new step ran\n{}", ran.stderr);
    assert_eq!(longer.files().expect("files").text("all"), Some("onethree"));
    assert_eq!(diff_ids(&longer)[..diff_ids(&first).len()], diff_ids(&first));
    assert_eq!(created(&longer)[..created(&first).len()], created(&first));
    // Unpacked or not, it is exported as it was.
    fixture.context.dockerfile(COPIES);
    let (ran, back) = fixture.image(&[]);
    assert!(ran.executed().is_empty(), "{}", ran.stderr);
    assert_eq!(back.manifest, first.manifest);
}

#[test]
fn other_forms_of_the_layer_are_made_from_its_blob() {
    let fixture = fixture(COPIES);
    let (_, gzip) = fixture.image(&[]);
    let form = |output: &str| {
        let archive = fixture.home.work().join("other.tar");
        let output = format!("--output=type=oci,dest={},{output}", archive.display());
        fixture.build().arg(output).ok();
        let layout = rbuild_testkit::image::OciLayout::open(&archive).expect("an archive");
        layout.image().expect("an image")
    };
    let last_type = |image: &Image| {
        let layers = image.manifest["layers"].as_array().expect("layers");
        layers.last().expect("a layer")["mediaType"]
            .as_str()
            .expect("a type")
            .to_owned()
    };
    let dirs = layer_dirs(&fixture);
    for (output, ending) in [
        ("compression=zstd", "tar+zstd"),
        ("compression=uncompressed", "tar"),
    ] {
        let image = form(output);
        assert!(
            last_type(&image).ends_with(ending),
            "{output}: {}",
            last_type(&image)
        );
        assert_eq!(diff_ids(&image), diff_ids(&gzip), "{output}");
    }
    assert_eq!(layer_dirs(&fixture), dirs, "without a directory");
    let clamped = fixture.home.work().join("clamped.tar");
    let output = format!(
        "--output=type=oci,dest={},rewrite-timestamp=true",
        clamped.display()
    );
    fixture
        .build()
        .arg(output)
        .arg("--build-arg=SOURCE_DATE_EPOCH=1000")
        .ok();
    let layout = rbuild_testkit::image::OciLayout::open(&clamped).expect("an archive");
    let image = layout.image().expect("an image");
    let at = image.layer_count() - 1;
    let entries = image.layer_entries(at).expect("entries");
    let extra = entries
        .iter()
        .find(|(path, _)| path.ends_with("extra"))
        .expect("the file");
    assert_eq!(extra.1.mtime, 1000);
}

#[test]
fn a_lost_blob_is_a_miss_and_not_an_error() {
    let fixture = fixture(COPIES);
    let (_, first) = fixture.image(&[]);
    let layers = first.manifest["layers"].as_array().expect("layers");
    let digest = layers.last().expect("a layer")["digest"]
        .as_str()
        .expect("a digest");
    let hex = digest.strip_prefix("sha256:").expect("a digest");
    fs::remove_file(fixture.home.store().join("blobs/sha256").join(hex)).expect("the blob");
    let (ran, again) = fixture.image(&[]);
    assert_eq!(ran.executed().len(), 1, "{}", ran.stderr);
    // Not the digests: a directory that something is put in takes the time of that.
    assert_eq!(again.files().expect("files").text("opt/app/extra"), Some("three"));
}

#[test]
fn a_program_that_is_missing_is_told_all_the_same() {
    for (base, command, told) in [
        ("scratch", "/nothing", true),
        ("busybox", "/nothing", true),
        ("busybox", "/bin/busybox", false),
        ("busybox", "/opt/app/a", false),
    ] {
        let fixture = fixture(&format!("FROM {base}\nCOPY tree /opt/app\nCMD [\"{command}\"]\n"));
        let (ran, _) = fixture.image(&[]);
        let says = ran.stderr.contains("is started by this image, but is not in it");
        assert_eq!(says, told, "{base} {command}: {}", ran.stderr);
    }
}
