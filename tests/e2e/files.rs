//! The rung of files alone: what an ordinary user builds where no step can be run, that it is what root builds, and what a
//! Dockerfile with steps is told. In a plain container it is where everybody but root ends up.

use std::path::Path;

use rbuild_testkit::command::{Ran, TestHome};
use rbuild_testkit::image::OciLayout;
use rbuild_testkit::layout::{Attributes, ImageBuilder, LayerBuilder};
use rbuild_testkit::machine;
use serde_json::{Value, json};

use crate::e2e::chroot::{Container, Work};
use crate::e2e::fixture::{Fixture, is_root};
use crate::e2e::ladder::WITHOUT_RANGES;

const FILES: &str = "--rung=files";

/// An image whose modes keep its owner out, with owners, set-id bits, a device, a pipe, names of one file and whiteouts.
fn odd(fixture: &Fixture) -> String {
    let of = |mode, uid, gid| Attributes::mode(mode).owner(uid, gid);
    let below = LayerBuilder::new()
        .dir("ro", of(0o555, 9, 9))
        .file("ro/f", of(0o444, 0, 0), b"a\n")
        .dir("ro/sub", of(0o111, 0, 3))
        .file("ro/sub/none", of(0, 33, 44), b"b\n")
        .dir("no", of(0, 0, 0))
        .file("no/z", of(0o200, 1000, 1000), b"z\n")
        .file("s", of(0o6755, 3, 4), b"s\n")
        .hard_link("ro/again", "s")
        .dir("group", of(0o2775, 0, 50))
        .symlink("l", "ro/sub")
        .char_device("device", 0o666, (1, 3))
        .file("gone", of(0o400, 0, 0), b"")
        .dir("hidden", of(0o500, 0, 0))
        .file("hidden/f", of(0o400, 0, 0), b"");
    let above = LayerBuilder::new()
        .dir("ro", of(0o510, 9, 8))
        .file("ro/f", of(0o440, 1, 1), b"changed\n")
        .whiteout("gone")
        .whiteout("hidden");
    let dir = fixture.home.work().join("odd");
    ImageBuilder::new(json!({"Env": ["PATH=/bin"]}))
        .layer(below.finish(), "below")
        .layer(above.finish(), "above")
        .write(&dir, "odd")
        .unwrap();
    format!("--build-context=odd=oci-layout://{}:odd", dir.display())
}

const WITHOUT_STEPS: &str = "FROM odd AS o
COPY f /ro/sub/new
COPY --chown=77:88 --chmod=0400 d /no/d/
COPY --from=busybox /bin /newbin
WORKDIR /ro/wd
ADD --chown=5:6 f /group/
FROM o AS all
COPY --from=o / /all/
COPY --from=o --chown=5:5 /ro /given
COPY --link --chmod=6711 f /linked/f
ENV A=b
FROM scratch
COPY --from=all /all /a
COPY --from=all --exclude=wd /ro /r
COPY --from=all /no /linked /
USER 77
CMD [\"/f\"]
";

fn built(fixture: &Fixture, args: &[&str]) -> (Ran, Value) {
    let archive = fixture.archive();
    let ran = fixture
        .build()
        .args(args)
        .arg(odd(fixture))
        .arg("--build-arg=SOURCE_DATE_EPOCH=1704067200")
        .arg(format!(
            "--output=type=oci,rewrite-timestamp=true,dest={}",
            archive.display()
        ))
        .ok();
    (ran, OciLayout::open(&archive).unwrap().image().unwrap().config)
}

#[test]
fn rootless_without_steps_an_ordinary_user_builds_what_root_builds() {
    if !is_root("becoming an ordinary user") {
        return;
    }
    let user = Fixture::with_home(TestHome::for_user(WITHOUT_RANGES, WITHOUT_RANGES), WITHOUT_STEPS);
    let root = Fixture::new(WITHOUT_STEPS);
    for fixture in [&user, &root] {
        fixture
            .context
            .file("f", "f\n")
            .file("d/y", "y\n")
            .mode("d", 0o750);
        fixture.context.settle();
    }
    for target in ["o", "all", ""] {
        let target = if target.is_empty() {
            vec![]
        } else {
            vec!["--target", target]
        };
        let before = user.residue();
        let (ran, ours) = built(&user, &[&[FILES][..], &target].concat());
        assert!(ran.stderr.contains("building on rung 5 (files)"), "{ran}");
        user.assert_clean_since(&before);
        let (_, theirs) = built(&root, &target);
        assert_eq!(ours, theirs, "{target:?}");
    }
    let (again, _) = built(&user, &[FILES]);
    assert!(again.executed().is_empty(), "everything was kept: {again}");

    // Nothing that only others could remove is left to the user.
    let store = user.home.store();
    user.rbuild([FILES, "builder", "prune", "--all", "--force"]).ok();
    let rm = user.home.command(machine::program("rm").unwrap());
    rm.arg("-rf").arg(&store).ok();
    assert!(!store.exists());
}

#[test]
fn rootless_without_steps_a_run_is_refused_with_what_was_tried() {
    if !is_root("becoming an ordinary user") {
        return;
    }
    let home = TestHome::for_user(WITHOUT_RANGES, WITHOUT_RANGES);
    let user = Fixture::with_home(
        home,
        "FROM busybox AS steps\nRUN echo ran\nFROM busybox\nCOPY Dockerfile /\n",
    );
    // What is not needed is not run: the legal twin.
    drop(user.build().arg(FILES).ok());
    let refused = user.build().args([FILES, "--target=steps"]).fails();
    assert!(
        refused
            .stderr
            .contains("no way to run steps here; rung files was asked for"),
        "{refused}"
    );
    assert!(!refused.stderr.contains("echo ran\nran"), "it was run: {refused}");
    let namespaces = user.build().arg("--rung=namespaces").ok();
    assert!(!namespaces.stderr.contains("(files)"), "{namespaces}");
}

#[test]
fn rootless_without_steps_an_owner_that_cannot_be_kept_is_refused_and_not_lost() {
    if !is_root("becoming an ordinary user") {
        return;
    }
    let home = TestHome::for_user(WITHOUT_RANGES, WITHOUT_RANGES);
    let user = Fixture::with_home(home, "FROM scratch\nCOPY --chown=7:8 d /d/\nCOPY d/f /d/\n");
    user.context.file("d/f", "f\n");
    let pipe = user.context.dir().join("d/l");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let refused = user.build().arg(FILES).fails();
    assert!(refused.stderr.contains("change owner"), "{refused}");
    // The legal twins: the same pipe as root's, and the same owner of what is no link.
    user.context
        .dockerfile("FROM scratch\nCOPY d /d/\nCOPY --chown=7:8 d/f /f\n");
    let (_, image) = user.image(&[FILES]);
    let files = image.files().unwrap();
    let owner = |path| files.get(path).map(|facts| (facts.uid, facts.gid));
    assert_eq!(
        (owner("d/l"), owner("f")),
        (Some((0, 0)), Some((7, 8))),
        "{:?}",
        files.table()
    );
}

#[test]
fn rootless_without_steps_links_have_the_owners_they_have_with_one_id() {
    if !is_root("becoming an ordinary user") {
        return;
    }
    let user = Fixture::with_home(TestHome::for_user(WITHOUT_RANGES, WITHOUT_RANGES), "");
    let archive = LayerBuilder::new()
        .raw(
            "in/l",
            tar::EntryType::Symlink,
            Attributes::mode(0o777).owner(65_534, 4_000_000_000),
            "../f",
            &[],
            (0, 0),
            &[],
        )
        .file("f", Attributes::mode(0o644), b"of the archive");
    // A text that looks like a record, in the context and in an archive, is a text.
    let odd = "./////./////./////x";
    let other = LayerBuilder::new().symlink("odd", odd);
    user.context
        .file("d/sub/f", "f\n")
        .file("a.tar", archive.finish())
        .file("odd.tar", other.finish())
        .dockerfile(
            "FROM scratch AS one
COPY --chown=1000:1001 d /app/
ADD a.tar /a/
ADD --chown=7 odd.tar /b/
FROM scratch
COPY --from=one /app /again/
COPY --from=one --chown=0 /app /root/
COPY --from=one /a /a/
COPY --from=one /b /b/
# Through links that have owners: to a directory, and to a file.
COPY a.tar /again/to-sub/through
COPY --from=one /a/in/l /followed
COPY --link --chown=9 d /linked/
",
        );
    let dir = user.context.dir().join("d");
    for (name, target) in [
        ("to-sub", "sub"),
        ("to-f", "sub/f"),
        ("abs", "/app/sub/f"),
        ("nowhere", "../../x"),
        ("odd", odd),
    ] {
        std::os::unix::fs::symlink(target, dir.join(name)).unwrap();
    }
    let built = |rung: &str, dockerfile_args: &[&str]| {
        let args = [
            &[rung, "--build-arg=SOURCE_DATE_EPOCH=1704067200"],
            dockerfile_args,
        ]
        .concat();
        user.image(&args).1.files().unwrap().table()
    };
    // Straight into the layer, and by way of a tree that later copies work on.
    let table = built(FILES, &[]);
    assert_eq!(table, built("--rung=one-id", &[]));
    for (path, expected) in [
        ("again/to-f", "l 1000:1001 -> sub/f"),
        ("root/to-f", "l 0:0 -> sub/f"),
        ("a/in/l", "l 65534:4000000000 -> ../f"),
        ("b/odd", &format!("l 7:7 -> {odd}")),
        ("again/odd", &format!("l 1000:1001 -> {odd}")),
        ("linked/nowhere", "l 9:9 -> ../../x"),
    ] {
        assert_eq!(table.get(path).map(String::as_str), Some(expected), "{path}");
    }
    assert!(
        table.contains_key("again/sub/through") && table.contains_key("followed"),
        "{table:?}"
    );
    // For people the text is the one that is meant.
    let out = user.home.work().join("out");
    let dest = format!("--output=type=local,dest={}", out.display());
    drop(user.build().args([FILES, &dest]).ok());
    for (name, target) in [
        ("again/to-f", "sub/f"),
        ("a/in/l", "../f"),
        ("b/odd", odd),
        ("again/abs", "/app/sub/f"),
    ] {
        assert_eq!(
            std::fs::read_link(out.join(name)).unwrap(),
            Path::new(target),
            "{name}"
        );
    }
}

#[test]
fn rootless_without_steps_files_for_people_have_their_modes_and_no_records() {
    use std::os::unix::fs::{MetadataExt as _, symlink};
    if !is_root("becoming an ordinary user") {
        return;
    }
    let home = TestHome::for_user(WITHOUT_RANGES, WITHOUT_RANGES);
    let user = Fixture::with_home(
        home,
        "FROM scratch\nCOPY --chmod=0444 --chown=5:6 f /f\nCOPY --chmod=0500 f /d/f\nCOPY --chmod=0555 d /r/\n",
    );
    user.context.file("f", "f\n").file("d/deep/f", "f\n");
    symlink("f", user.context.dir().join("d/l")).unwrap();
    let [files, one] = ["files", "one-id"].map(|rung| user.home.work().join(format!("out-{rung}")));
    for (rung, out) in [("files", &files), ("one-id", &one)] {
        std::fs::create_dir(out).unwrap();
        std::fs::write(out.join("was-there"), "").unwrap();
        let dest = format!("--output=type=local,dest={}", out.display());
        drop(user.build().arg(format!("--rung={rung}")).arg(dest).ok());
    }
    for name in ["", "f", "d", "d/f", "r", "r/deep", "r/deep/f", "r/l", "was-there"] {
        let facts = |dir: &Path| {
            let found = dir.join(name).symlink_metadata().unwrap();
            (format!("{:o}", found.mode()), found.uid(), found.gid())
        };
        assert_eq!(facts(&files), facts(&one), "{name}");
    }
    for name in ["f", "d", "r/deep/f"] {
        let mut names = [0_u8; 1024];
        let length = rustix::fs::listxattr(files.join(name), names.as_mut_slice()).unwrap();
        let names = String::from_utf8_lossy(&names[..length]);
        assert!(!names.contains("rbuild"), "{name}: {names}");
    }
}

#[test]
fn privileged_an_ordinary_user_of_a_plain_container_builds_what_needs_no_step() {
    let Some(work) = Work::of(
        "FROM busybox AS one\nCOPY --chown=5:6 --chmod=600 Dockerfile /srv/d\nFROM busybox\nCOPY --from=one /srv /out\nWORKDIR /w\n",
    ) else {
        return;
    };
    give(&work.container, 1000);
    let inside = work.archive("inside.tar");
    let run = |args: &[String]| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        work.container.rbuild(1000, &args).run()
    };
    let ran = run(&work.args(None, &inside)).succeeded();
    assert!(ran.stderr.contains("building on rung 5 (files)"), "{ran}");
    for missed in ["not subids: ", "not one-id: "] {
        assert!(ran.stderr.contains(missed), "{ran}");
    }
    work.assert_same(&inside);

    let doctor = run(&["doctor".to_owned(), "--json".to_owned()]).failed();
    let report: Value = serde_json::from_slice(&doctor.stdout).unwrap_or_default();
    assert_eq!(
        (report["chosen"].as_str(), report["has_steps"].as_bool()),
        (Some("files"), Some(false)),
        "{doctor}"
    );
    let told = run(&["doctor".to_owned()]).failed();
    assert!(
        told.stdout_text().contains("No rung that runs steps works here"),
        "{told}"
    );

    let dockerfile = work.archive("context").join("Dockerfile");
    std::fs::write(dockerfile, "FROM busybox\nRUN echo ran\n").unwrap();
    let refused = run(&work.args(None, &inside)).failed();
    for said in [
        "no way to run steps here; subids",
        "; one-id",
        "what needs none can be built",
        "least change: user namespaces, by the lines that `rbuild doctor` prints, or root of the container",
    ] {
        assert!(refused.stderr.contains(said), "{said}: {refused}");
    }
}

/// Hands the container's home to a user.
fn give(container: &Container, id: u32) {
    let chown = std::process::Command::new("chown")
        .args(["-R", &format!("{id}:{id}")])
        .arg(container.home.work())
        .status();
    assert!(chown.unwrap().success());
    let mut way: &Path = &container.home.work();
    while let Some(parent) = way.parent() {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(parent).unwrap().permissions().mode();
        if mode & 0o111 != 0o111 {
            std::fs::set_permissions(parent, std::fs::Permissions::from_mode(mode | 0o111)).unwrap();
        }
        way = parent;
    }
}
