//! Behaviours of docs/behaviours.md that take more than one build, or flags that a conformance case has no word for.

use std::os::unix::fs::symlink;

use rbuild_testkit::base;
use rbuild_testkit::image::{Image, OciLayout};
use rbuild_testkit::machine;

use crate::e2e::fixture::{Fixture, busybox_argument, is_root};

/// The argument that gives the busybox image another name.
fn renamed(name: &str) -> String {
    busybox_argument("busybox").replace("=busybox=", &format!("={name}="))
}

#[test]
fn item14_a_proxy_argument_reruns_nothing_unless_it_is_declared() {
    let fixture = Fixture::new("FROM busybox\nRUN echo \"$http_proxy\" > /seen\n");
    let (_, first) = fixture.image(&["--build-arg=http_proxy=http://one.invalid"]);
    assert_eq!(first.files().unwrap().text("seen"), Some("http://one.invalid\n"));
    let (ran, second) = fixture.image(&["--build-arg=http_proxy=http://two.invalid"]);
    assert!(ran.executed().is_empty(), "{ran}");
    assert_eq!(second.manifest_digest, first.manifest_digest);
    fixture
        .context
        .dockerfile("FROM busybox\nARG http_proxy\nRUN echo \"$http_proxy\" > /seen\n");
    fixture.image(&["--build-arg=http_proxy=http://one.invalid"]);
    let (_, declared) = fixture.image(&["--build-arg=http_proxy=http://two.invalid"]);
    assert_eq!(
        declared.files().unwrap().text("seen"),
        Some("http://two.invalid\n")
    );
}

#[test]
fn item31_an_owner_that_is_not_known_is_warned_of() {
    let fixture = Fixture::new("FROM busybox\nCOPY --chown=nosuchuser:mail f /f\n");
    fixture.context.file("f", "x");
    let (ran, image) = fixture.image(&[]);
    let files = image.files().unwrap();
    let file = files.get("f").expect("the file");
    assert_eq!((file.uid, file.gid), (0, 8));
    assert!(
        ran.stderr.contains("no user \"nosuchuser\" in /etc/passwd"),
        "{ran}"
    );
    fixture
        .context
        .dockerfile("FROM busybox\nCOPY --chown=daemon:mail f /f\n");
    let (ran, _) = fixture.image(&[]);
    assert!(!ran.stderr.contains("/etc/passwd"), "{ran}");
}

#[test]
fn item46_the_dockerfile_may_be_in_lower_case_or_behind_a_link() {
    let fixture = Fixture::new("FROM busybox\nRUN echo lower > /name\n");
    let dir = fixture.context.dir();
    std::fs::rename(dir.join("Dockerfile"), dir.join("dockerfile")).unwrap();
    let (_, image) = fixture.image(&[]);
    assert_eq!(image.files().unwrap().text("name"), Some("lower\n"));
    fixture
        .context
        .file("deep/real", "FROM busybox\nRUN echo linked > /name\n");
    symlink("deep/real", dir.join("Dockerfile")).unwrap();
    let (_, image) = fixture.image(&[]);
    assert_eq!(image.files().unwrap().text("name"), Some("linked\n"));
}

/// The kernel follows 40 links; BuildKit was asked with 255 and with 256, and with two that lead to each other.
#[test]
fn item46_the_dockerfile_may_be_behind_as_many_links_as_in_buildkit() {
    let fixture = Fixture::new("FROM scratch\nLABEL a=b\n");
    let dir = fixture.context.dir();
    std::fs::rename(dir.join("Dockerfile"), dir.join("real")).unwrap();
    let mut target = "real".to_owned();
    for number in 1..=256 {
        let name = format!("l{number}");
        symlink(&target, dir.join(&name)).unwrap();
        target = name;
    }
    let build = |name: &str| {
        fixture
            .build()
            .arg(format!("--file={}", dir.join(name).display()))
    };
    symlink("l254", dir.join("Dockerfile")).unwrap();
    let (_, image) = fixture.image(&[]);
    assert_eq!(image.config["config"]["Labels"]["a"], "b");
    build("l255").ok();
    let refused = "failed to read dockerfile: too many links";
    assert!(build("l256").fails().stderr.contains(refused));
    std::fs::remove_file(dir.join("Dockerfile")).unwrap();
    symlink("other", dir.join("Dockerfile")).unwrap();
    symlink("Dockerfile", dir.join("other")).unwrap();
    fixture.build().fails().says(refused);
}

#[test]
fn item53_the_hosts_network_and_insecure_steps_are_refused_until_they_are_allowed() {
    let fixture = Fixture::new("FROM busybox\nRUN --network=host true\n");
    let ran = fixture.build().fails();
    assert!(ran.stderr.contains("network.host is not allowed"), "{ran}");
    fixture.build().arg("--allow=network.host").ok();
    fixture
        .context
        .dockerfile("FROM busybox\nRUN --security=insecure true\n");
    let ran = fixture.build().fails();
    assert!(ran.stderr.contains("security.insecure is not allowed"), "{ran}");
}

#[test]
fn item53_what_was_allowed_is_what_the_step_gets() {
    if !is_root("a network and rights that are the host's") {
        return;
    }
    let fixture = Fixture::new(
        "FROM busybox\nRUN --network=host readlink /proc/self/ns/net > /host\nRUN --network=none readlink /proc/self/ns/net > \
         /none\nRUN grep CapEff /proc/self/status > /usual\nRUN --security=insecure grep CapEff /proc/self/status > /insecure\n",
    );
    let (_, image) = fixture.image(&["--allow=network.host", "--allow=security.insecure"]);
    let files = image.files().unwrap();
    let text = |name: &str| files.text(name).expect("a line").trim().to_owned();
    let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(text("host"), ours.display().to_string());
    assert_ne!(text("none"), text("host"));
    let rights = |line: &str| u64::from_str_radix(line.trim_start_matches("CapEff:").trim(), 16).unwrap();
    let (usual, insecure) = (rights(&text("usual")), rights(&text("insecure")));
    assert!(
        usual & insecure == usual && usual != insecure,
        "{usual:x} {insecure:x}"
    );
}

/// Counts the builds that found the cache directory as it was left.
fn counting(options: &str) -> Fixture {
    Fixture::new(&format!(
        "FROM busybox\nARG N\nRUN --mount=type=cache,target=/c{options} echo $N >> /c/log; wc -l < /c/log > /count\n"
    ))
}

#[track_caller]
fn count(fixture: &Fixture, args: &[&str]) -> String {
    let (_, image) = fixture.image(args);
    image
        .files()
        .unwrap()
        .text("count")
        .unwrap_or("none")
        .trim()
        .to_owned()
}

#[test]
fn item57_cache_mounts_are_known_by_id_or_target_within_their_name_space() {
    let fixture = counting("");
    assert_eq!(count(&fixture, &["--build-arg=N=1"]), "1");
    assert_eq!(count(&fixture, &["--build-arg=N=2"]), "2");
    let other = "--build-arg=BUILDKIT_CACHE_MOUNT_NS=other";
    assert_eq!(count(&fixture, &["--build-arg=N=3", other]), "1");
    fixture.context.dockerfile(
        "FROM busybox\nRUN --mount=type=cache,target=/elsewhere,id=/c wc -l < /elsewhere/log > /count\n",
    );
    assert_eq!(
        count(&fixture, &[]),
        "2",
        "the target, cleaned, is the id of a mount that has none"
    );
    fixture
        .context
        .dockerfile("FROM busybox\nRUN --mount=type=cache,target=/x/../c wc -l < /c/log > /count\n");
    assert_eq!(count(&fixture, &[]), "2");
}

#[test]
fn item57_a_locked_cache_is_for_one_step_at_a_time_and_a_private_one_for_one_step() {
    // Two stages that have nothing to do with each other run at once.
    let both = |sharing: &str, command: &str| {
        let stage = |name: &str| {
            format!(
                "FROM busybox AS {name}\nRUN --mount=type=cache,target=/c,id={sharing},sharing={sharing} {command} && echo {name} > /{name}\n"
            )
        };
        let fixture = Fixture::new(&format!(
            "{}{}FROM busybox\nCOPY --from=one /one /\nCOPY --from=two /two /\n",
            stage("one"),
            stage("two")
        ));
        fixture.build().run()
    };
    both("locked", "mkdir /c/busy && sleep 1 && rmdir /c/busy").succeeded();
    both("private", "mkdir /c/mine && sleep 1 && test -d /c/mine").succeeded();
    // The same of a cache that both have at once: one of them is disturbed.
    both("shared", "mkdir /c/busy && sleep 1 && rmdir /c/busy").failed();
}

#[test]
fn item58_without_cache_cache_mounts_start_anew_whether_they_have_a_mode_or_not() {
    for options in ["", ",mode=0750,uid=7"] {
        let fixture = counting(options);
        assert_eq!(count(&fixture, &["--build-arg=N=1"]), "1", "{options}");
        assert_eq!(count(&fixture, &["--build-arg=N=2"]), "2", "{options}");
        assert_eq!(
            count(&fixture, &["--build-arg=N=2", "--no-cache"]),
            "1",
            "{options}"
        );
        assert_eq!(
            count(&fixture, &["--build-arg=N=3"]),
            "2",
            "{options}: and goes on from there"
        );
    }
}

#[test]
fn item59_nested_cache_mounts_in_stages_that_run_at_once() {
    let stage = |name: &str| {
        format!(
            "FROM busybox AS {name}\nRUN --mount=type=cache,target=/c --mount=type=cache,target=/c/inner echo {name} > /c/inner/{name} && echo {name} > /c/{name} && echo done > /{name}\n"
        )
    };
    let fixture = Fixture::new(&format!(
        "{}{}FROM busybox\nCOPY --from=one /one /\nCOPY --from=two /two /\nRUN --mount=type=cache,target=/c/inner ls /c/inner > /list\n",
        stage("one"),
        stage("two")
    ));
    let (_, image) = fixture.image(&[]);
    let files = image.files().unwrap();
    assert_eq!(files.text("list"), Some("one\ntwo\n"));
    assert!(files.get("c").is_none(), "{:?}", files.table());
}

#[test]
fn item60_two_mounts_of_one_context_see_all_that_either_needs() {
    let fixture = Fixture::new(
        "FROM busybox\nRUN --mount=source=a,target=/one --mount=source=b/c,target=/two cat /one/f /two/g > /both\nRUN --mount=target=/all ls /all/b > /list\n",
    );
    fixture
        .context
        .file("a/f", "f\n")
        .file("b/c/g", "g\n")
        .file("b/other", "x");
    let (_, image) = fixture.image(&[]);
    let files = image.files().unwrap();
    assert_eq!(files.text("both"), Some("f\ng\n"));
    assert_eq!(files.text("list"), Some("c\nother\n"));
    // What neither of the first two names is no ingredient of theirs.
    fixture.context.file("unrelated", "changed");
    let (ran, _) = fixture.image(&[]);
    assert!(
        ran.cached().iter().any(|step| step.contains("cat /one/f")),
        "{ran}"
    );
}

/// Entries of the layer with that number: path and time.
fn times(image: &Image, layer: usize) -> Vec<(String, u64)> {
    let entries = image.layer_entries(layer).unwrap();
    entries
        .into_iter()
        .map(|(path, facts)| (path, facts.mtime))
        .collect()
}

/// The image of the fast tier that is called busybox.
fn busybox() -> Image {
    let bases = OciLayout::open(&base::layout().unwrap())
        .and_then(|layout| layout.images())
        .unwrap();
    let is_it =
        |base: &Image| base.descriptor["annotations"]["org.opencontainers.image.ref.name"] == "busybox";
    bases.into_iter().find(is_it).expect("the busybox base")
}

#[test]
fn item71_the_root_of_a_step_follows_no_redirects() {
    let fixture =
        Fixture::new("FROM busybox\nRUN awk '$2 == \"/\" {print $3, $4}' /proc/self/mounts > /root-mount\n");
    let (_, image) = fixture.image(&[]);
    let files = image.files().unwrap();
    let root = files.text("root-mount").expect("a line");
    if !root.starts_with("overlay ") {
        machine::skip("the roots of steps are no overlays on this machine");
        return;
    }
    assert!(
        root.contains("redirect_dir=nofollow") && !root.contains("metacopy=on"),
        "{root}"
    );
}

#[test]
fn item74_the_types_of_a_base_become_those_of_the_image_and_its_bytes_stay() {
    const OCI: &str = "application/vnd.oci.image.";
    const DOCKER: &str = "application/vnd.docker.";
    let fixture = Fixture::new("FROM busybox\nRUN echo x > /x\n");
    let base = busybox();
    let mut bytes_of_base = Vec::new();
    for (attributes, family, config, layer) in [
        ("", OCI, "config.v1+json", "layer.v1.tar"),
        (
            ",oci-mediatypes=false",
            DOCKER,
            "container.image.v1+json",
            "image.rootfs.diff.tar",
        ),
    ] {
        let archive = fixture.archive();
        let output = format!("--output=type=oci,dest={}{attributes}", archive.display());
        fixture.build().arg(output).ok();
        let image = OciLayout::open(&archive)
            .and_then(|layout| layout.image())
            .unwrap();
        let kind = |value: &serde_json::Value| value["mediaType"].as_str().unwrap_or("none").to_owned();
        let starts = |value: String, with: String| assert!(value.starts_with(&with), "{value}, not {with}");
        starts(
            kind(&image.manifest),
            format!(
                "{family}{}",
                if family == OCI {
                    "manifest.v1"
                } else {
                    "distribution.manifest.v2"
                }
            ),
        );
        starts(kind(&image.manifest["config"]), format!("{family}{config}"));
        let layers = image.manifest["layers"].as_array().unwrap();
        assert_eq!(layers.len(), base.layer_count() + 1);
        for each in layers {
            starts(kind(each), format!("{family}{layer}"));
        }
        bytes_of_base.push(layers[0]["digest"].clone());
    }
    assert_eq!(bytes_of_base[0], base.manifest["layers"][0]["digest"]);
    assert_eq!(bytes_of_base[1], bytes_of_base[0], "another type, the same bytes");
}

#[test]
fn item75_rewritten_times_leave_the_layers_of_the_base_as_they_are() {
    let fixture = Fixture::new("FROM busybox\nCOPY --link f /f\nRUN touch /g\n");
    fixture.context.file("f", "x");
    let archive = fixture.archive();
    fixture
        .build()
        .env("SOURCE_DATE_EPOCH", "1")
        .arg(format!(
            "--output=type=oci,dest={},rewrite-timestamp=true",
            archive.display()
        ))
        .ok();
    let image = OciLayout::open(&archive)
        .and_then(|layout| layout.image())
        .unwrap();
    let base = busybox();
    let below = base.layer_count();
    let layers = |image: &Image| image.manifest["layers"].as_array().unwrap().clone();
    let (own, of_base) = (layers(&image), layers(&base));
    assert_eq!(own.len(), below + 2);
    for (own, of_base) in own.iter().zip(&of_base) {
        assert_eq!(own["digest"], of_base["digest"], "byte for byte");
    }
    assert_eq!(times(&image, below), [("f".to_owned(), 1)]);
    let of_step = times(&image, below + 1);
    assert!(
        of_step.contains(&("g".to_owned(), 1)) && of_step.iter().all(|(_, time)| *time <= 1),
        "{of_step:?}"
    );
}

#[test]
fn item78_an_argument_that_changed_reruns_what_follows_it_unless_a_constant_env_hides_it() {
    let fixture = Fixture::new("FROM busybox\nARG V\nENV V=constant\nRUN echo $V > /v\n");
    let (_, first) = fixture.image(&["--build-arg=V=1"]);
    let (ran, second) = fixture.image(&["--build-arg=V=2"]);
    assert!(ran.executed().is_empty(), "{ran}");
    assert_eq!(first.files().unwrap().text("v"), Some("constant\n"));
    assert_eq!(second.files().unwrap().text("v"), Some("constant\n"));
    fixture
        .context
        .dockerfile("FROM busybox\nARG V\nRUN echo constant > /v\n");
    fixture.image(&["--build-arg=V=1"]);
    let (ran, _) = fixture.image(&["--build-arg=V=2"]);
    assert_eq!(
        ran.executed().len(),
        1,
        "used or not, it is in the environment of the step\n{ran}"
    );
}

#[test]
fn item79_the_same_image_under_another_name_is_a_hit() {
    let fixture = Fixture::new("ARG B=one\nFROM $B\nRUN echo x > /x\n");
    fixture.build().arg(renamed("one")).ok();
    let again = fixture
        .build()
        .args(["--build-arg=B=two"])
        .arg(renamed("two"))
        .ok();
    assert!(
        again.executed().iter().all(|step| !step.contains("RUN")),
        "{again}"
    );
    assert!(
        again.cached().iter().any(|step| step.contains("RUN echo x")),
        "{again}"
    );
}
