//! The ladder: the same image from every rung, the choice told once, and what `rbuild doctor` says of them.

use rbuild_testkit::command::TestHome;
use rbuild_testkit::image::{Image, OciLayout};

use crate::e2e::fixture::{Fixture, ordinary_user};

/// A number that no account has and that no range of ids was given to.
pub(crate) const WITHOUT_RANGES: u32 = 3_999_999_777;

/// What a rung may get wrong: owners, modes, links, pipes, users, set-id programs, times of directories.
const CORPUS: &[(&str, &str)] = &[
    (
        "owners of everything that a step can own",
        "FROM busybox
RUN touch /f && chown 33:44 /f && mkdir /d && chown 5:6 /d && ln -s f /l && chown -h 7:8 /l && mkfifo /p && chown 9:10 /p && ln /f /g
RUN chown 0:0 /f && mv /d /e && cp -a /l /k && rm /p
",
    ),
    (
        "users that make things",
        "FROM busybox
USER daemon
RUN id > /tmp/id; mkdir /tmp/d; ln -s a /tmp/l; mkfifo /tmp/p; umask 027; touch /tmp/u; chmod 4750 /tmp/u
USER 1234:5678
WORKDIR /made/by/1234
RUN id >> /tmp/i; touch here; chown :5678 here
",
    ),
    (
        "set-id bits and set-group directories",
        "FROM busybox
RUN mkdir -m 2775 /s && chown 0:50 /s && touch /s/f && mkdir /s/d && cp /bin/true /x && chmod 6755 /x && chown 12 /x && chmod 4711 /x
",
    ),
    (
        "copies that change owners, and those that keep them",
        "FROM busybox AS a
RUN mkdir /t && touch /t/f && chown -R 21:22 /t && ln -s f /t/l && chown -h 23:24 /t/l
FROM busybox
COPY --from=a /t /kept
COPY --from=a --chown=31:32 --chmod=640 /t /given
COPY --link --chown=daemon Dockerfile /link/
ADD --chown=41 Dockerfile /added
RUN stat -c '%u:%g %a %n' /kept /kept/* /given /given/* /link/* /added > /seen
",
    ),
    (
        "names that go and come",
        "FROM busybox
RUN mkdir -p /a/b && touch /a/b/c && chown -R 5:5 /a
RUN rm -r /a && mkdir /a && chown 6:6 /a && rm /bin/vi
",
    ),
];

/// Builds on a rung; nothing if this machine has no such user.
fn build(rung: &str, dockerfile: &str) -> Option<Image> {
    let user = ordinary_user()?;
    let home = match rung {
        "root" => TestHome::new(),
        "subids" => TestHome::for_user(user.uid, user.gid),
        _ => TestHome::for_user(WITHOUT_RANGES, WITHOUT_RANGES),
    };
    let fixture = Fixture::with_home(home, dockerfile);
    fixture.context.settle();
    let archive = fixture.archive();
    fixture
        .build()
        .arg(format!("--rung={rung}"))
        .arg("--build-arg=SOURCE_DATE_EPOCH=1704067200")
        .arg(format!(
            "--output=type=oci,rewrite-timestamp=true,dest={}",
            archive.display()
        ))
        .ok();
    Some(
        OciLayout::open(&archive)
            .expect("an archive")
            .image()
            .expect("one image"),
    )
}

#[test]
fn rootless_every_rung_makes_the_same_layers_digest_for_digest() {
    for (about, dockerfile) in CORPUS {
        let Some(root) = build("root", dockerfile) else {
            return;
        };
        for rung in ["subids", "one-id"] {
            let other = build(rung, dockerfile).expect("the user that was there a moment ago");
            let tables = (root.files().unwrap().table(), other.files().unwrap().table());
            assert_eq!(tables.0, tables.1, "{about}: files on {rung}");
            assert_eq!(root.config, other.config, "{about}: config and layers on {rung}");
        }
    }
}

#[test]
fn rootless_the_choice_is_told_once_with_its_reason() {
    if ordinary_user().is_none() {
        return;
    }
    let home = TestHome::for_user(WITHOUT_RANGES, WITHOUT_RANGES);
    let fixture = Fixture::with_home(home, "FROM busybox\nRUN id -u\n");
    let ran = fixture.build().ok();
    let told: Vec<&str> = ran
        .stderr
        .lines()
        .filter(|line| line.contains("building on rung"))
        .collect();
    assert_eq!(told.len(), 1, "{ran}");
    assert!(
        told[0].contains("rung 3 (one-id)") && told[0].contains("not subids: /etc/subuid"),
        "{}",
        told[0]
    );
    let refused = fixture.build().arg("--rung=subids").fails();
    assert!(refused.stderr.contains("usermod --add-subuids"), "{refused}");
}

fn doctor(home: &TestHome, args: &[&str]) -> (i32, serde_json::Value) {
    let ran = home
        .command(crate::e2e::RBUILD)
        .args(["doctor", "--json"])
        .args(args)
        .run();
    let report: Result<serde_json::Value, _> = serde_json::from_slice(&ran.stdout);
    assert!(report.is_ok(), "{ran}");
    (ran.status.code().unwrap_or(-1), report.unwrap_or_default())
}

#[test]
fn rootless_doctor_tries_each_rung_and_says_what_to_change() {
    if ordinary_user().is_none() {
        return;
    }
    let home = TestHome::for_user(WITHOUT_RANGES, WITHOUT_RANGES);
    let (code, report) = doctor(&home, &[]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["chosen"], "one-id", "{report:#}");
    let rungs = report["rungs"].as_array().unwrap();
    assert_eq!(rungs.len(), 3);
    assert_eq!(rungs[1]["works"], false);
    let advice = rungs[1]["checks"][0]["advice"][0].as_str().unwrap();
    assert!(advice.contains("usermod --add-subuids 100000-165535"), "{advice}");
    let names: Vec<_> = rungs[2]["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["namespaces and ids", "records of owners", "overlay", "step"]
    );
    let (code, report) = doctor(&home, &["--rung=subids"]);
    assert_eq!((code, &report["chosen"]), (1, &serde_json::Value::Null));
    let left: Vec<_> = std::fs::read_dir(home.work())
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains("doctor"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
