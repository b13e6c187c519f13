//! Row 46, generated: for every field that changes a result, two builds that differ in it alone, the second on the cache of
//! the first and once without any. A field that is missing in a key would give the second the first's result.

use rbuild_testkit::image::Image;
use serde_json::Value;

use crate::e2e::fixture::Fixture;

/// A step whose result tells what it saw, below a stage with something to mount and to copy.
const STAGE: &str = "FROM busybox AS stage\nRUN mkdir -p /a /b && echo a > /a/f && echo b > /b/f && chown 3:4 /b/f\nFROM busybox AS other\nRUN mkdir /a && echo other > /a/f\n";

/// Two texts in place of `@` that must not meet, and the instruction around them.
pub(crate) type Pair = (&'static str, &'static str, &'static str);

/// The config's fields and the order and framing of words.
const CONFIG: &[Pair] = &[
    ("HEALTHCHECK --interval=@ CMD true", "5s", "6s"),
    ("HEALTHCHECK @", "CMD true", "CMD [\"true\"]"),
    ("ONBUILD RUN @", "true", "false"),
    ("STOPSIGNAL @", "SIGTERM", "SIGKILL"),
    (
        "SHELL @\nRUN echo x",
        "[\"/bin/sh\",\"-c\"]",
        "[\"/bin/sh\",\"-ec\"]",
    ),
    ("USER @\nRUN id > /tmp/o", "1", "2"),
    ("WORKDIR @\nRUN pwd > /o", "/a", "/b"),
    ("ENV @\nRUN env > /o", "A=1 B=2", "B=2 A=1"),
    ("ENV @\nRUN env | grep ^A > /o", "A=b AC=", "A=bAC="),
    ("ENV @\nRUN env | grep ^A > /o; true", "A=", "B="),
    ("VOLUME @", "/a /b", "[\"/a /b\"]"),
    ("EXPOSE @", "80", "80/udp"),
    ("ENTRYPOINT @", "[\"a\",\"b\"]", "[\"a b\"]"),
    ("CMD @", "a b", "[\"a\",\"b\"]"),
    ("LABEL @", "a=bc", "ab=c"),
    ("ARG X=@\nRUN echo $X > /o", "1", "2"),
];

/// What a step runs and what it is given. The id of a cache mount is none of these: as in BuildKit it says where a step gets
/// something from, and two steps that differ in it alone are one (`checkShouldClearCacheOpts`).
const RUN: &[Pair] = &[
    ("RUN @", "echo a > /o", "echo b > /o"),
    ("RUN @", "[\"touch\",\"a\",\"b\"]", "[\"touch\",\"a b\"]"),
    ("RUN <<EOF\n@\nEOF", "echo a > /o", "echo  b > /o"),
    ("COPY <<@ /o\n$HOME\nEOF", "EOF", "'EOF'"),
    ("COPY <<f /@\nx\nf", "a", "b"),
    (
        "RUN --network=@ ls /sys/class/net | wc -l > /o",
        "default",
        "none",
    ),
    (
        "RUN --mount=from=stage,target=/m,source=@ cat /m/f > /o",
        "/a",
        "/b",
    ),
    (
        "RUN --mount=from=@,target=/m test -e /m/a && echo yes > /o || echo no > /o",
        "stage",
        "busybox",
    ),
    (
        "RUN --mount=from=stage,target=@ test -e /m/a && echo yes > /o || echo no > /o",
        "/m",
        "/n",
    ),
    (
        "RUN --mount=from=stage,target=/m@ touch /m/x 2>/dev/null && echo yes > /o || echo no > /o",
        ",rw",
        ",ro",
    ),
    (
        "RUN --mount=type=@,target=/m stat -f -c %T /m > /o",
        "tmpfs",
        "cache",
    ),
    (
        "RUN --mount=type=tmpfs,target=/m,size=@ df -k /m | tail -n1 | awk '{print $2}' > /o",
        "1048576",
        "2097152",
    ),
    (
        "RUN --mount=type=cache,id=keys,target=/m,mode=@ stat -c %a /m > /o",
        "0700,id=k1",
        "0750,id=k2",
    ),
    (
        "RUN --mount=type=cache,target=/m,@ stat -c %u:%g /m > /o",
        "id=u1,uid=5",
        "id=u2,gid=5",
    ),
    (
        "RUN --mount=type=cache,target=/m,id=s,sharing=@ echo x > /o",
        "shared",
        "locked",
    ),
    (
        "RUN --mount=type=cache,target=/m,id=seed,from=stage,source=@ cat /m/f > /o",
        "/a",
        "/b",
    ),
    (
        "RUN --mount=type=secret,@ ls /run/secrets > /o 2>/dev/null; env | grep ^S >> /o; true",
        "id=s",
        "id=t",
    ),
    (
        "RUN --mount=type=secret,id=s,@ ls /run/secrets > /o 2>/dev/null; env | grep ^S= | wc -c >> /o; true",
        "env=S",
        "env=S,target=/run/secrets/s",
    ),
    (
        "RUN --mount=type=secret,id=s,@ stat -c '%a %u %g' /run/secrets/s > /o",
        "mode=0440",
        "uid=7",
    ),
    (
        "RUN --mount=type=secret,id=s,target=@ test -e /x && echo yes > /o || echo no > /o",
        "/x",
        "/y",
    ),
    (
        "RUN --mount=type=ssh,target=@ echo $SSH_AUTH_SOCK > /o",
        "/x",
        "/y",
    ),
];

/// What a copy takes and how it leaves it.
const COPY: &[Pair] = &[
    ("COPY @ /o", "one", "two"),
    ("COPY one @", "/o", "/p"),
    ("COPY one @", "/o", "/o/"),
    ("COPY @ /o/", "one two", "two"),
    ("COPY @one /o", "", "--chown=1 "),
    ("COPY --chown=@ one /o", "1:2", "12"),
    ("COPY --chown=@ one /o", "1:2", "2:1"),
    ("COPY --chmod=@ one /o", "600", "640"),
    ("COPY @dir/sub/f /o/", "", "--parents "),
    ("COPY --exclude=@ dir /o/", "*.x", "*.y"),
    ("COPY @ dir /o/", "--exclude=*.x", "--exclude=*.x --exclude=*.y"),
    ("COPY --from=@ /a /o", "stage", "other"),
    ("COPY --from=stage @ /o", "/a/f", "/b/f"),
    ("RUN ln -s /tmp /l\nCOPY @--from=stage /b/f /l/", "", "--link "),
    ("ADD @ /o/", "one", "archive.tar"),
    ("ADD @archive.tar /o/", "--unpack=true ", "--unpack=false "),
    ("ADD --chown=@ archive.tar /o/", "1", "2"),
    ("ADD --chmod=@ one /o", "600", "640"),
    ("WORKDIR @", "/a/new", "/b/new"),
];

/// What an image holds, apart from times.
fn facts(image: &Image) -> (Value, Vec<(String, String)>) {
    let mut config = image.config.clone();
    for member in ["created", "history", "rootfs"] {
        config.as_object_mut().expect("a document").remove(member);
    }
    (
        config,
        image
            .files()
            .expect("readable layers")
            .table()
            .into_iter()
            .collect(),
    )
}

fn compared(pairs: &[Pair]) {
    compared_on(&Fixture::new(""), None, pairs);
}

/// Builds each text of each pair on one store, then again without its cache: the same files, config and layers.
#[track_caller]
pub(crate) fn compared_on(fixture: &Fixture, rung: Option<&str>, pairs: &[Pair]) {
    let archive = rbuild_testkit::layout::LayerBuilder::new().file(
        "inside",
        rbuild_testkit::layout::Attributes::mode(0o644),
        b"of an archive",
    );
    fixture
        .context
        .file("one", "1\n")
        .file("two", "2\n")
        .file("dir/a.x", "x\n")
        .file("dir/a.y", "y\n")
        .file("dir/sub/f", "f\n")
        .file("archive.tar", archive.finish());
    let secret = fixture.home.work().join("secret");
    std::fs::write(&secret, "va1ue\n").unwrap();
    let secrets = ["s", "t"].map(|id| format!("--secret=id={id},src={}", secret.display()));
    let epoch = "--build-arg=SOURCE_DATE_EPOCH=1704067200";
    let mut wrong = Vec::new();
    for (around, one, two) in pairs {
        let dockerfile = |text: &str| format!("{STAGE}FROM busybox\n{}\n", around.replace('@', text));
        let build = |text: &str, more: &[&str]| {
            fixture.context.dockerfile(&dockerfile(text));
            fixture.context.settle();
            let args: Vec<&str> = [epoch, &secrets[0], &secrets[1]]
                .into_iter()
                .chain(rung)
                .chain(more.iter().copied())
                .collect();
            facts(&fixture.image(&args).1)
        };
        let first = build(one, &[]);
        let cached = build(two, &[]);
        let fresh = build(two, &["--no-cache"]);
        if cached != fresh {
            wrong.push(format!(
                "{around:?}: {two:?} after {one:?} is not what it is by itself"
            ));
        }
        // Who may use a cache at the same time shows in no result.
        if first == fresh && !around.contains("sharing=@") {
            wrong.push(format!(
                "{around:?}: {one:?} and {two:?} give one result: nothing was compared"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn row46_every_field_of_the_config_gives_what_it_gives_without_a_cache() {
    compared(CONFIG);
}

#[test]
fn row46_every_field_of_a_step_gives_what_it_gives_without_a_cache() {
    compared(RUN);
}

#[test]
fn row46_every_field_of_a_copy_gives_what_it_gives_without_a_cache() {
    compared(COPY);
}

#[test]
fn row46_what_a_file_is_counts_and_not_its_time_alone() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    type Change = fn(&std::path::Path);
    let changes: [(&str, Change); 6] = [
        ("content of the same length", |dir| {
            std::fs::write(dir.join("f"), "y").unwrap();
        }),
        ("name", |dir| {
            std::fs::rename(dir.join("f"), dir.join("g")).unwrap();
        }),
        ("mode", |dir| {
            std::fs::set_permissions(dir.join("f"), std::fs::Permissions::from_mode(0o755)).unwrap();
        }),
        ("target of a link", |dir| {
            std::fs::remove_file(dir.join("l")).unwrap();
            symlink("two", dir.join("l")).unwrap();
        }),
        ("an empty directory", |dir| {
            std::fs::create_dir(dir.join("empty")).unwrap();
        }),
        ("type", |dir| {
            std::fs::remove_file(dir.join("l")).unwrap();
            std::fs::write(dir.join("l"), "one").unwrap();
        }),
    ];
    for (what, change) in changes {
        let fixture = Fixture::new("FROM scratch\nCOPY d /d/\n");
        fixture.context.file("d/f", "x");
        let dir = fixture.context.dir().join("d");
        symlink("one", dir.join("l")).unwrap();
        let first = facts(&fixture.image(&[]).1);
        change(&dir);
        let cached = facts(&fixture.image(&[]).1);
        let fresh = facts(&fixture.image(&["--no-cache"]).1);
        assert_eq!(cached, fresh, "{what}");
        assert_ne!(first, fresh, "{what}");
    }
}

#[test]
fn row46_legal_twin_a_time_alone_is_no_difference() {
    let fixture = Fixture::new("FROM busybox\nCOPY f /f\nRUN cat /f > /o\n");
    fixture.context.file("f", "x");
    fixture.build().ok();
    let later = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000);
    let file = std::fs::File::options()
        .write(true)
        .open(fixture.context.dir().join("f"))
        .unwrap();
    file.set_modified(later).unwrap();
    let again = fixture.build().ok();
    assert!(
        again.executed().iter().all(|step| !step.contains("RUN")),
        "{again}"
    );
}
