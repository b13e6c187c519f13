//! Row 42: a secret is where it was asked for and nowhere else: not in the image, not in the store, not on the screen.

use std::fs;
use std::path::PathBuf;

use rbuild_testkit::image::Files;
use rbuild_testkit::leak::holders;
use rbuild_testkit::residue::{own_sleep, wait_for_process};
use rustix::process::Signal;

use crate::e2e::fixture::Fixture;
use crate::e2e::hostile::canary::{Rung, Site};

const VALUE: &str = "s3cr3t-Va1ue-that-must-not-be-kept";

/// Files of the fixture that hold the value in any coding, compressed ones looked into.
fn kept(fixture: &Fixture, value: &str) -> Vec<String> {
    let home = &fixture.home;
    [home.store(), home.tmp(), home.work(), home.home()]
        .iter()
        .flat_map(|dir| holders(dir, value))
        .collect()
}

/// A file outside of what is searched, with the `--secret` argument that gives it as `id`; anybody may read it.
fn secret_file(id: &str, value: &str) -> (tempfile::TempDir, String) {
    use std::os::unix::fs::PermissionsExt as _;
    let outside = tempfile::tempdir().unwrap();
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let file = outside.path().join("value");
    fs::write(&file, value).unwrap();
    let argument = format!("--secret=id={id},src={}", file.display());
    (outside, argument)
}

/// The mount in that line of `/proc/self/mountinfo` has no way to a disk, not to that of the swap space either.
#[track_caller]
fn assert_in_memory(files: &Files, line: &str, rung: Rung) {
    let mount = files.text(line).unwrap_or_default();
    let never_swapped = |options: &str| options.trim_end().split(',').any(|option| option == "noswap");
    let kept = match mount.split_once(" - ") {
        Some((_, kind)) => kind.starts_with("ramfs ") || kind.starts_with("tmpfs ") && never_swapped(kind),
        None => false,
    };
    assert!(kept, "{rung:?}: {mount}");
}

#[test]
fn row42_a_secret_file_reaches_the_step_and_nothing_else() {
    let (_outside, argument) = secret_file("token", VALUE);
    for rung in Rung::with_mounts() {
        let site = Site::on(
            rung,
            "FROM busybox\nRUN --mount=type=secret,id=token md5sum /run/secrets/token | cut -c1-8 > /sum; \
             stat -c '%a %u %g' /run/secrets/token > /stat; grep ' /run/secrets/token ' /proc/self/mountinfo > /mount; \
             cp /run/secrets/token /tmp/x && rm /tmp/x\n\
             RUN ls /run/secrets > /next 2>&1; true\n",
        );
        let files = site.works(std::slice::from_ref(&argument));
        assert_eq!(files.text("sum").map(str::len), Some(9));
        assert_eq!(files.text("stat"), Some("400 0 0\n"), "{rung:?}");
        assert_in_memory(&files, "mount", rung);
        assert!(
            files.text("next").unwrap().contains("No such file"),
            "{rung:?}: the mount is of one step"
        );
        assert!(
            files.get("run/secrets").is_none(),
            "{rung:?}: the mount point stayed"
        );
        assert_eq!(kept(&site.fixture, VALUE), [""; 0], "{rung:?}");
    }
}

#[test]
fn row42_a_secret_below_directories_that_were_made_for_it_leaves_none() {
    let (_outside, argument) = secret_file("token", VALUE);
    for rung in Rung::with_mounts() {
        let site = Site::on(
            rung,
            "FROM busybox AS a\nRUN --mount=type=secret,id=token,target=/etc/app/deep/s,mode=0440,uid=1000,gid=7 \
             stat -c '%a %u %g' /etc/app/deep/s > /stat; grep ' /etc/app/deep/s ' /proc/self/mountinfo > /mount; \
             md5sum /etc/app/deep/s > /dev/null\n\
             FROM scratch\nCOPY --from=a / /all/\n",
        );
        let files = site.works(std::slice::from_ref(&argument));
        assert_eq!(files.text("all/stat"), Some("440 1000 7\n"), "{rung:?}");
        if rung == Rung::OneId {
            // The owner is recorded in an attribute, which of file systems in memory a tmpfs alone keeps.
            let mount = files.text("all/mount").unwrap_or_default();
            assert!(mount.contains(" - tmpfs "), "{rung:?}: {mount}");
        } else {
            assert_in_memory(&files, "all/mount", rung);
        }
        assert!(
            files.get("all/etc").is_some() && files.get("all/etc/app").is_none(),
            "{rung:?}"
        );
        assert_eq!(
            kept(&site.fixture, VALUE),
            [""; 0],
            "{rung:?}: copied from the stage that had it"
        );
    }
}

#[test]
fn row42_the_search_finds_a_secret_that_a_step_keeps() {
    let (_outside, argument) = secret_file("token", VALUE);
    let fixture =
        Fixture::new("FROM busybox\nRUN --mount=type=secret,id=token cp /run/secrets/token /kept\n");
    fixture.image(&[&argument]);
    assert!(!holders(&fixture.home.store(), VALUE).is_empty());
    assert!(!holders(&fixture.home.work(), VALUE).is_empty());
}

#[test]
fn row42_a_secret_variable_is_for_one_step_and_not_part_of_its_cache_key() {
    let fixture = Fixture::new(
        "FROM busybox\nRUN --mount=type=secret,id=token,env=TOKEN test -n \"$TOKEN\"\nRUN echo \"[$TOKEN]\" > /after\n",
    );
    let build = |value: &str| {
        fixture
            .build()
            .env("TOKEN_SOURCE", value)
            .arg("--secret=id=token,env=TOKEN_SOURCE")
            .ok()
            .never_says(VALUE)
    };
    build(VALUE);
    let second = build("another value");
    assert!(
        second.executed().iter().all(|step| !step.contains("RUN")),
        "a secret's value is in a cache key\n{second}"
    );
    let (_, image) = fixture.image(&[]);
    assert_eq!(image.files().unwrap().text("after"), Some("[]\n"));
    assert_eq!(kept(&fixture, VALUE), [""; 0]);
}

#[test]
fn row42_a_kill_in_the_middle_leaves_no_secret_behind() {
    let (_outside, argument) = secret_file("token", VALUE);
    for (seed, rung) in (0..).zip(Rung::with_mounts()) {
        let sleep = own_sleep(60, seed);
        let site = Site::on(
            rung,
            &format!(
                "FROM busybox\nRUN --mount=type=secret,id=token --mount=type=secret,id=token,env=TOKEN,target=/also \
                 --mount=type=cache,target=/c md5sum /run/secrets/token > /sum && test -n \"$TOKEN\" && sleep {sleep}\n"
            ),
        );
        let before = site.fixture.residue();
        let running = site.fixture.build().args(rung.argument()).arg(&argument).spawn();
        let _step = wait_for_process(&format!("sleep {sleep}"));
        running.signal(Signal::KILL);
        drop(running.wait());
        assert_eq!(kept(&site.fixture, VALUE), [""; 0], "{rung:?}");
        site.fixture.assert_clean_since(&before);
        // The next build finds the mount point nowhere, and its own secret where it asked for it.
        site.fixture.context.dockerfile(
            "FROM busybox\nRUN ls /run/secrets > /names 2>&1; true\nRUN --mount=type=secret,id=token test -s /run/secrets/token && echo there > /seen\n",
        );
        let files = site.works(std::slice::from_ref(&argument));
        assert!(files.text("names").unwrap().contains("No such file"), "{rung:?}");
        assert_eq!(files.text("seen"), Some("there\n"), "{rung:?}");
    }
}

#[test]
fn row42_two_builds_with_one_id_at_once_see_their_own_value_each() {
    let values = ["first-va1ue-of-the-secret", "second-va1ue-of-the-secret"];
    let fixture = Fixture::new("");
    let builds: Vec<(PathBuf, _, _)> = values
        .iter()
        .enumerate()
        .map(|(number, value)| {
            let (outside, argument) = secret_file("token", value);
            let dir = fixture.home.work().join(format!("context{number}"));
            fs::create_dir(&dir).unwrap();
            // Not the same text, or they would be one step.
            fs::write(
                dir.join("Dockerfile"),
                format!(
                    "FROM busybox\nRUN --mount=type=secret,id=token,env=TOKEN --mount=type=secret,id=token \
                     cut -c1-6 /run/secrets/token > /seen; sleep 1; echo $TOKEN | cut -c1-6 >> /seen; \
                     cut -c1-6 /run/secrets/token >> /seen; echo {number} >> /seen\n"
                ),
            )
            .unwrap();
            let tree = fixture.home.work().join(format!("tree{number}"));
            let output = format!("--output=type=local,dest={}", tree.display());
            let running = fixture.build_of().arg(&dir).args([&argument, &output]).spawn();
            (tree, outside, running)
        })
        .collect();
    for (number, (tree, _outside, running)) in builds.into_iter().enumerate() {
        running.wait().succeeded();
        let part = &values[number][..6];
        let seen = fs::read_to_string(tree.join("seen")).unwrap();
        assert_eq!(seen, format!("{part}\n{part}\n{part}\n{number}\n"));
        assert_eq!(kept(&fixture, values[number]), [""; 0]);
    }
}

#[test]
fn host_ca_is_seen_by_steps_and_leaves_no_trace() {
    let dockerfile = "FROM busybox\nRUN test -s \"$SSL_CERT_FILE\" && grep -c BEGIN \"$SSL_CERT_FILE\" > /dev/null && env | grep -c CERT > /count; ls /etc/ssl /usr/local/share/ca-certificates 2>/dev/null; true\nRUN true\n";
    let fixture = Fixture::new(dockerfile);
    let (_, with) = fixture.image(&["--host-ca"]);
    let files = with.files().unwrap();
    assert!(files.get("count").is_some(), "the step saw no bundle");
    assert!(
        files
            .paths()
            .all(|path| !path.starts_with("etc/ssl") && !path.contains("ca-cert")),
        "{:?}",
        files.table()
    );
    assert!(
        !with.run_config().to_string().to_lowercase().contains("cert"),
        "{}",
        with.config["config"]
    );
    let again = fixture.build().ok();
    assert!(
        again.executed().iter().all(|step| !step.contains("RUN")),
        "the bundle is in a cache key\n{again}"
    );
}
