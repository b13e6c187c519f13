//! Rows 16, 17, 20, 21 and 23 on whole builds: what a mount shows, where its target ends, what is cleaned up after it, and what of
//! the builder a step finds.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::symlink;

use rbuild_testkit::facts::Kind;
use rbuild_testkit::layout::{Attributes, LayerBuilder};
use serde_json::json;

use crate::e2e::hostile::canary::{BYTES, Rung, Site};

/// A stage whose links lead to the canary, and which has a directory of its own in the same place.
fn evil_stage(site: &Site) -> String {
    format!(
        "FROM busybox AS evil\nRUN mkdir -p {dir} && echo own > {dir}/inner && ln -s {dir} /abs && ln -s {up} /rel && ln -s / /root-link && ln -s {dir}/nowhere /none\n",
        dir = site.canary.absolute(),
        up = site.canary.climbing(),
    )
}

#[test]
fn row16_a_mount_through_links_of_its_stage_shows_that_stage() {
    for rung in Rung::here() {
        let site = Site::on(rung, "");
        let dir = site.canary.absolute();
        for (source, inner) in [
            ("/abs", "inner".to_owned()),
            ("/rel", "inner".to_owned()),
            ("/root-link", format!("{dir}/inner")),
            ("../..", format!("{dir}/inner")),
            ("/root-link/../root-link", format!("{dir}/inner")),
        ] {
            site.fixture.context.dockerfile(&format!(
                "{}FROM busybox\nRUN --mount=from=evil,source={source},target=/m,rw cat /m/{inner} > /seen; ls /m > /names; touch /m/pwned\n\
                 COPY --from=evil {dir} /after\n",
                evil_stage(&site)
            ));
            let files = site.works(&[]);
            assert_eq!(files.text("seen"), Some("own\n"), "{rung:?} {source}");
            let names = files.text("names").unwrap();
            assert!(
                !names.contains("secret") && !names.contains("victim"),
                "{rung:?} {source}: {names}"
            );
            let after: Vec<&str> = files.paths().filter(|path| path.starts_with("after")).collect();
            assert_eq!(
                after,
                ["after", "after/inner"],
                "{rung:?}: nothing is written back to the stage"
            );
        }
        for source in ["/none", "/proc/self/root"] {
            site.fixture.context.dockerfile(&format!(
                "{}FROM busybox\nRUN --mount=from=evil,source={source},target=/m ls /m\n",
                evil_stage(&site)
            ));
            site.refused(&[], source.trim_start_matches('/'));
        }
    }
}

#[test]
fn row16_a_cache_mount_over_a_stage_shows_that_stage() {
    for rung in Rung::here() {
        let site = Site::on(rung, "");
        site.fixture.context.dockerfile(&format!(
            "{}FROM busybox\nRUN --mount=type=cache,from=evil,source=/abs,target=/m cat /m/inner > /seen; touch /m/pwned\n\
             COPY --from=evil {} /after\n",
            evil_stage(&site),
            site.canary.absolute(),
        ));
        let files = site.works(&[]);
        assert_eq!(files.text("seen"), Some("own\n"), "{rung:?}");
        let after: Vec<&str> = files.paths().filter(|path| path.starts_with("after")).collect();
        assert_eq!(after, ["after", "after/inner"], "{rung:?}");
    }
}

#[test]
fn row16_links_of_the_context_and_of_named_contexts_do_not_lead_a_mount_outside() {
    for rung in Rung::here() {
        let site = Site::on(rung, "");
        let named = site.fixture.home.work().join("named");
        fs::create_dir(&named).unwrap();
        for dir in [site.fixture.context.dir(), &named] {
            symlink(&site.canary.dir, dir.join("abs")).unwrap();
            symlink("../canary", dir.join("rel")).unwrap();
        }
        let argument = format!("--build-context=named={}", named.display());
        for from in ["", "from=named,"] {
            for source in ["abs", "rel"] {
                site.fixture.context.dockerfile(&format!(
                    "FROM busybox\nRUN --mount={from}source={source},target=/m ls /m; cat /m/secret\n"
                ));
                site.refused(std::slice::from_ref(&argument), source);
            }
        }
        // The legal twin: the same mount of a link that stays inside.
        fs::create_dir(site.fixture.context.dir().join("real")).unwrap();
        symlink("real", site.fixture.context.dir().join("legal")).unwrap();
        site.fixture
            .context
            .file("real/f", "inside\n")
            .dockerfile("FROM busybox\nRUN --mount=source=legal,target=/m cat /m/f > /seen\n");
        assert_eq!(site.works(&[]).text("seen"), Some("inside\n"), "{rung:?}");
    }
}

#[test]
fn row16_a_copy_through_links_of_its_stage_copies_from_that_stage() {
    for rung in Rung::here() {
        let site = Site::on(rung, "");
        for source in ["/abs", "/rel"] {
            site.fixture.context.dockerfile(&format!(
                "{}FROM scratch\nCOPY --from=evil {source} /stolen\n",
                evil_stage(&site)
            ));
            let files = site.works(&[]);
            let copied: Vec<&str> = files.paths().collect();
            assert_eq!(copied, ["stolen", "stolen/inner"], "{rung:?} {source}");
            assert_eq!(files.text("stolen/inner"), Some("own\n"));
        }
        site.fixture.context.dockerfile(&format!(
            "{}FROM scratch\nCOPY --from=evil /none /stolen\n",
            evil_stage(&site)
        ));
        site.refused(&[], "none");
    }
}

#[test]
fn row20_places_of_the_system_that_lead_outside_are_not_prepared_there() {
    // What stands in the image where the link leads, and what the step then meets.
    let cases = [
        ("dev", "", Ok("1:3\n")),
        ("run", "", Ok("1:3\n")),
        ("etc", "", Ok("1:3\n")),
        ("etc/resolv.conf", "/nowhere", Ok("1:3\n")),
        ("etc/hosts", "/nowhere", Ok("1:3\n")),
        (
            "etc/resolv.conf",
            "",
            Err("mount on \"/etc/resolv.conf\": is a directory"),
        ),
        ("etc/hosts", "", Err("mount on \"/etc/hosts\": is a directory")),
        ("proc", "", Err("/proc")),
        ("sys", "", Err("/sys")),
    ];
    for rung in Rung::here() {
        for (name, below, expected) in cases {
            let site = Site::on(
                rung,
                "FROM evil\nRUN stat -c %t:%T /dev/null > /seen && test -s /etc/hosts\n",
            );
            let target = format!("{}{below}", site.canary.absolute());
            let layer = LayerBuilder::new().whiteout(name).symlink(name, &target);
            // The same directory inside the image, so that what is prepared has somewhere to go.
            let place = LayerBuilder::new().dir(&site.canary.inside(), Attributes::mode(0o755));
            let evil = site.evil(json!({"Env": ["PATH=/bin"]}), vec![place, layer]);
            match expected {
                Ok(seen) => {
                    let files = site.works(&[evil]);
                    assert_eq!(files.text("seen"), Some(seen), "{rung:?} {name}");
                    let link = files.get(name).map(|facts| facts.kind.clone());
                    assert_eq!(link, Some(Kind::Symlink(target)), "{rung:?}: {name} survives");
                    let made: Vec<&str> = files
                        .paths()
                        .filter(|path| path.starts_with(&site.canary.inside()))
                        .collect();
                    assert_eq!(made, [site.canary.inside()], "{rung:?} {name}: no stub stays");
                }
                // Without mounts what was there is put aside, wherever it led; the canary is looked at all the same.
                Err(_) if rung == Rung::Chroot => drop(site.build(&[evil])),
                Err(told) => site.refused(&[evil], told),
            }
        }
    }
}

#[test]
fn row21_mount_points_are_not_cleaned_up_on_the_host() {
    for rung in Rung::with_mounts() {
        let site = Site::on(rung, "");
        let canary = site.canary.absolute();
        let mounts = [
            ("type=bind,source=f,target=/w/empty", "empty"),
            ("type=bind,source=d,target=/w/emptyd", "emptyd"),
            ("type=tmpfs,target=/w/emptyd", "emptyd"),
            ("type=secret,id=s,target=/w/empty", "empty"),
            ("type=cache,target=/w/emptyd", "emptyd"),
        ];
        let secret = site.fixture.home.work().join("s");
        fs::write(&secret, "s\n").unwrap();
        let argument = format!("--secret=id=s,src={}", secret.display());
        site.fixture.context.file("f", "f\n").file("d/g", "g\n");
        for (mount, stub) in mounts {
            site.fixture.context.dockerfile(&format!(
                "FROM busybox\nRUN --mount={mount} mv /w /w2 && ln -s {canary} /w\n"
            ));
            let files = site.works(std::slice::from_ref(&argument));
            assert_eq!(
                files.get("w").unwrap().kind,
                Kind::Symlink(canary.clone()),
                "{rung:?} {mount}"
            );
            assert!(
                files.get(&format!("w2/{stub}")).is_none(),
                "{rung:?} {mount}: the stub was found where it had been moved"
            );
        }
        // The legal twin: what the step put beside the stub, or in its place, stays.
        site.fixture.context.dockerfile(
            "FROM busybox\nRUN --mount=type=bind,source=f,target=/w/empty echo beside > /w/beside\nRUN --mount=type=tmpfs,target=/x/t true\n",
        );
        let files = site.works(&[]);
        assert_eq!(files.text("w/beside"), Some("beside\n"), "{rung:?}");
        assert!(
            files.get("w/empty").is_none() && files.get("x").is_none(),
            "{rung:?}"
        );
    }
}

/// Found while this suite was written: an old root that stays stacked on the new one is not reachable by `/`, but it is
/// by `/..`, because walking up from a root crosses what is mounted on it.
#[test]
fn row23_nothing_of_the_host_is_above_the_root_or_among_the_mounts() {
    for rung in Rung::with_mounts() {
        let site = Site::on(
            rung,
            "FROM busybox\nRUN ls / > /down; ls /.. > /up; ls /../.. > /upper; cd / && ls .. > /beside\nRUN awk '{print $5}' /proc/self/mountinfo | sort | uniq -d > /twice; awk '$5 == \"/\" {print $9}' /proc/self/mountinfo | wc -l > /roots\n",
        );
        let files = site.works(&[]);
        let down = files.text("down").unwrap();
        assert!(down.lines().any(|line| line == "bin"), "{rung:?}: {down}");
        // Each listing was made into a file that the next one shows.
        for (name, more) in [
            ("up", &["up"][..]),
            ("upper", &["up", "upper"]),
            ("beside", &["up", "upper", "beside"]),
        ] {
            let seen: Vec<&str> = files
                .text(name)
                .unwrap()
                .lines()
                .filter(|line| !more.contains(line))
                .collect();
            assert_eq!(
                seen,
                down.lines().collect::<Vec<_>>(),
                "{rung:?}: {name} is the root itself"
            );
        }
        assert_eq!(files.text("roots"), Some("1\n"), "more than one mount on /");
        // In a user namespace /sys is the machine's, which may not be shown without what is mounted on it.
        let twice = if rung == Rung::Root {
            ""
        } else {
            "/sys/fs/cgroup\n"
        };
        assert_eq!(
            files.text("twice"),
            Some(twice),
            "{rung:?}: mounts stacked on each other"
        );
    }
}

#[test]
fn row23_no_descriptor_of_the_builder_reaches_a_step() {
    for rung in Rung::with_mounts() {
        let site = Site::on(rung, "");
        let mounted = "FROM busybox\nRUN ls /proc/self/fd > /fds; for n in $(seq 3 64); do ls /proc/self/fd/$n/ > /dev/null 2>&1 && echo $n; done > /open; cat /proc/[0-9]*/fd/*/secret > /stolen 2>/dev/null; true\n";
        site.fixture.context.dockerfile(mounted);
        // Descriptors of the caller that are open on the canary and are not closed by exec, as a careless shell leaves them.
        let held = fs::File::open(&site.canary.dir).unwrap();
        rustix::io::fcntl_setfd(&held, rustix::io::FdFlags::empty()).unwrap();
        let files = site.works(&[]);
        let listed: Vec<&str> = files.text("fds").unwrap().lines().collect();
        // The fourth is the directory that `ls` itself reads.
        assert_eq!(listed, ["0", "1", "2", "3"], "{rung:?}");
        assert_eq!(files.text("open"), Some(""), "{rung:?}");
        assert_eq!(files.text("stolen"), Some(""), "{rung:?}");
        let number = held.as_raw_fd();
        for line in [
            format!(
                "WORKDIR /proc/self/fd/{number}\nRUN cat secret ../secret ../../../..{}/secret\n",
                site.canary.absolute()
            ),
            format!("COPY f /proc/self/fd/{number}/\nRUN true\n"),
        ] {
            site.fixture
                .context
                .file("f", "f\n")
                .dockerfile(&format!("FROM busybox\n{line}"));
            let ended = site.build(&[]);
            assert!(
                ended.err().is_none_or(|told| !told.contains(BYTES)),
                "{rung:?} {line}"
            );
        }
    }
}
