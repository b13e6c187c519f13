//! Rows 44, 46, 49 and 50 on whole builds, on each rung: text that steers a terminal, keys that forget a field, rights that nobody
//! gave, and a Dockerfile that does not end.

use std::time::{Duration, Instant};

use rbuild_testkit::command::Ran;

use crate::e2e::cache_keys::{Pair, compared_on};
use crate::e2e::fixture::{RBUILD, busybox_argument, is_root};
use crate::e2e::hostile::canary::{Rung, Site};

/// What a step prints: a title, the clipboard, an erased screen, another screen, C1, a direction mark, a line of another step, words
/// to services of CI.
pub(super) const PRINTED: &str = r"\033]0;pwn\007\033]52;c;cHdu\007\033[2J\033[?1049h\033P1\033\\\033[31mred\033[0m\302\233A\342\200\256over\r#9 DONE 0.0s\n::set-output name=x::y\n##vso[task.setvariable]\n";

/// Control characters of a text but line feeds and tabs, without those that colour.
pub(super) fn steering(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest
        .find(|c: char| c.is_control() && c != '\n' && c != '\t' || ('\u{202a}'..='\u{202e}').contains(&c))
    {
        let here = &rest[at..];
        let end = here.strip_prefix("\u{1b}[").and_then(|after| {
            let letter = after.find(|c: char| !c.is_ascii_digit() && c != ';')?;
            after[letter..].starts_with('m').then_some(at + 2 + letter + 1)
        });
        match end {
            Some(end) => rest = &rest[end..],
            None => {
                found.push(here.chars().take(12).collect());
                rest = &here[here.chars().next().map_or(1, char::len_utf8)..];
            }
        }
    }
    found
}

#[track_caller]
fn assert_steers_nothing(rung: Rung, ran: &Ran) {
    assert_eq!(steering(&ran.stderr), [""; 0], "{rung:?}: {ran}");
    for line in ran.stderr.lines() {
        for start in ["::", "##vso", "#9 DONE"] {
            assert!(
                !line.starts_with(start),
                "{rung:?}: a line was forged: {line:?}\n{ran}"
            );
        }
    }
}

#[test]
fn row44_what_a_step_prints_steers_nothing_on_any_rung() {
    assert_eq!(
        steering("a\u{1b}[2Jb\u{1b}[31mc\u{9b}").len(),
        2,
        "what is looked for is found"
    );
    for rung in Rung::here() {
        let site = Site::on(
            rung,
            &format!(
                "FROM busybox\nRUN printf '{PRINTED}'; printf '{PRINTED}' >&2; echo visible\nRUN printf '{PRINTED}'; exit 3\n"
            ),
        );
        let build = |progress: &str| {
            let build = site.fixture.rbuild(["build", progress]).args(rung.argument());
            let base = busybox_argument("busybox");
            build
                .args([&base, "--no-cache"])
                .arg(site.fixture.context.dir())
                .fails()
        };
        let ran = build("--progress=plain");
        assert_steers_nothing(rung, &ran);
        assert!(
            ran.stderr.contains("visible") && ran.stderr.contains("red"),
            "{rung:?}: the twin\n{ran}"
        );
        let raw = build("--progress=rawjson");
        let mut told = 0;
        for line in raw.stderr.lines().filter(|line| line.starts_with('{')) {
            let status = serde_json::from_str::<serde_json::Value>(line)
                .unwrap_or_else(|error| panic!("{rung:?}: {error}: {line}"));
            told += status["vertexes"].as_array().map_or(0, Vec::len);
        }
        assert!(told > 3, "{rung:?}: {raw}");
        site.canary.assert_untouched();
    }
}

#[test]
fn row44_names_of_files_and_images_steer_nothing_on_any_rung() {
    let name = "no\u{1b}]0;such\u{7}\u{9b}file";
    // As JSON has such characters.
    let written = "no\\u001b]0;such\\u0007\\u009bfile";
    for rung in Rung::unpacking() {
        let site = Site::on(rung, "");
        for lines in [
            format!("FROM busybox\nCOPY [\"{written}\", \"/\"]\n"),
            format!("FROM busybox AS a\nCOPY --from=a [\"{written}\", \"/\"]\n"),
            format!("FROM busybox\nLABEL \"{name}\"=\"{name}\"\nCOPY absent /{name}\n"),
            "FROM no\u{1b}[2Jimage\n".to_owned(),
        ] {
            site.fixture.context.dockerfile(&lines);
            let told = site
                .build(&[])
                .map(|files| files.table())
                .expect_err("it was built");
            assert_eq!(steering(&told), [""; 0], "{rung:?}: {told}");
        }
        // The legal twin: such a name is one.
        site.fixture
            .context
            .file(name, "named")
            .dockerfile(&format!("FROM busybox\nCOPY [\"{written}\", \"/d/\"]\n"));
        assert_eq!(
            site.works(&[]).text(&format!("d/{name}")),
            Some("named"),
            "{rung:?}"
        );
    }
}

/// A few of the pairs, those that a rung could change: owners, modes, mounts, ids, networks.
const PAIRS: &[Pair] = &[
    ("USER @\nRUN id > /tmp/o", "1", "2"),
    ("RUN @", "echo a > /o", "echo b > /o"),
    ("COPY --chown=@ one /o", "1:2", "2:1"),
    ("COPY --chmod=@ one /o", "600", "640"),
    (
        "RUN --mount=from=@,target=/m test -e /m/a && echo yes > /o || echo no > /o",
        "stage",
        "busybox",
    ),
    (
        "RUN --mount=from=stage,target=/m,source=@ cat /m/f > /o",
        "/a",
        "/b",
    ),
    ("ADD --chown=@ archive.tar /o/", "1", "2"),
];

#[test]
fn row46_fields_that_a_rung_could_forget_are_in_its_keys() {
    for rung in Rung::here() {
        let site = Site::on(rung, "");
        compared_on(&site.fixture, rung.argument(), PAIRS);
        site.canary.assert_untouched();
    }
}

#[test]
fn row49_rights_that_nobody_gave_are_refused_by_name_on_each_rung() {
    for rung in Rung::here() {
        let site = Site::on(rung, "");
        for (flag, right) in [
            ("--security=insecure", "security.insecure"),
            ("--network=host", "network.host"),
            ("--device=vendor.test/class=all,required", "device"),
        ] {
            let step = format!("RUN {flag} echo ran > /ran\n");
            site.fixture.context.dockerfile(&format!("FROM busybox\n{step}"));
            site.refused(&[], right);
            // Nor by a trigger of an image, a comment, or an argument of the build.
            site.fixture.context.dockerfile(&format!(
                "# syntax-allow={right}\nFROM busybox AS a\nONBUILD {step}FROM a\n"
            ));
            site.refused(&[format!("--build-arg=BUILDKIT_ALLOW={right}")], right);
        }
        // The legal twins: what nobody has to allow, and the network that was allowed.
        site.fixture
            .context
            .dockerfile("FROM busybox\nRUN --security=sandbox --network=default echo ran > /ran\n");
        assert_eq!(site.works(&[]).text("ran"), Some("ran\n"), "{rung:?}");
        site.fixture
            .context
            .dockerfile("FROM busybox\nRUN --network=host echo ran > /ran\n");
        let files = site.works(&["--allow=network.host".to_owned()]);
        assert_eq!(files.text("ran"), Some("ran\n"), "{rung:?}");
    }
}

/// A device that this machine has, in a mount namespace in which it is described.
#[test]
fn privileged_row49_a_device_that_is_there_is_for_who_was_allowed_it() {
    const SCRIPT: &str = r#"mount -t tmpfs none /run && mkdir /run/cdi && printf %s "$SPEC" > /run/cdi/vendor.json && exec "$@""#;
    let spec = serde_json::json!({
        "cdiVersion": "0.6.0",
        "kind": "vendor.test/class",
        "devices": [{"name": "one", "containerEdits": {"env": ["GIVEN=yes"]}}],
    });
    if !is_root("a mount namespace") {
        return;
    }
    let site = Site::on(
        Rung::Root,
        "FROM busybox\nRUN --device=vendor.test/class=one echo \"given $GIVEN\" > /said\n",
    );
    let build = |allowed: &[&str]| {
        site.fixture.home.hand_over();
        let build = site.fixture.home.command("unshare");
        let build = build.args([
            "--mount",
            "sh",
            "-ec",
            SCRIPT,
            "sh",
            RBUILD,
            "build",
            "--progress=plain",
        ]);
        build
            .env("SPEC", spec.to_string())
            .arg(busybox_argument("busybox"))
            .args(allowed)
            .arg(format!(
                "--output={}",
                site.fixture.home.work().join("tree").display()
            ))
            .arg(site.fixture.context.dir())
    };
    let refused = build(&[]).fails();
    assert!(
        refused
            .stderr
            .contains("is requested by the build but not allowed"),
        "{refused}"
    );
    build(&["--allow=device=vendor.test/class=other"]).fails();
    build(&["--allow=device=vendor.test/class=one"]).ok();
    let said = std::fs::read_to_string(site.fixture.home.work().join("tree/said"));
    assert_eq!(said.unwrap(), "given yes\n", "the legal twin");
}

#[test]
fn row50_text_that_grows_without_end_is_refused_by_its_line_on_each_rung() {
    let doubling = format!("FROM busybox\nENV A=xxxxxxxx\n{}", "ENV A=$A$A\n".repeat(60));
    let relative = format!("FROM busybox\n{}", "WORKDIR abcdefgh\n".repeat(20_000));
    let stars = format!(
        "FROM busybox\nARG A={}b\nENV B=${{A%%{}c}}\n",
        "a".repeat(60_000),
        "*a".repeat(64)
    );
    for rung in Rung::unpacking() {
        let start = Instant::now();
        let site = Site::on(rung, &doubling);
        site.refused(&[], "Dockerfile:20");
        site.fixture.context.dockerfile(&relative);
        site.refused(&[], "in all");
        // The legal twins: patterns by the hundred thousand, a star that could back-track, a variable that doubles a few times.
        let patterns: String = (0..100_000)
            .map(|number| format!("no{number}/**/*x*\n"))
            .collect();
        let globs = format!("{}x\n", "**/".repeat(500));
        site.fixture
            .context
            .file(".dockerignore", format!("{patterns}{globs}!kept\n"))
            .file("kept", "kept\n")
            .file("a/b/c/d/deep", "deep\n")
            .dockerfile(&format!(
                "FROM busybox\nENV A=ab\n{}COPY . /c/\nENV B=$A\n",
                "ENV A=$A$A\n".repeat(4)
            ));
        let files = site.works(&[]);
        assert_eq!(files.text("c/kept"), Some("kept\n"), "{rung:?}");
        assert_eq!(files.text("c/a/b/c/d/deep"), Some("deep\n"), "{rung:?}");
        site.fixture.context.dockerfile(&stars);
        site.works(&[]);
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{rung:?}: {:?}",
            start.elapsed()
        );
    }
}
