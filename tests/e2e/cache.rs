//! What runs again and what does not: second builds, edited sources, identical rebuilds, `--no-cache`.

use crate::e2e::fixture::Fixture;

const TWO_STAGES: &str = "FROM busybox AS build
COPY src /src
RUN cat /src/a /src/b > /out
FROM busybox
COPY config /etc/app
COPY --from=build /out /out
RUN wc -c < /out > /size
";

fn two_stages() -> Fixture {
    let fixture = Fixture::new(TWO_STAGES);
    fixture
        .context
        .file("src/a", "aaaa\n")
        .file("src/b", "bbbb\n")
        .file("config", "c\n");
    fixture
}

/// Names of the steps without their number, so that a test reads well.
fn steps(names: &[String]) -> Vec<String> {
    let mut steps: Vec<String> = names
        .iter()
        .filter_map(|name| name.split_once("] "))
        .map(|(_, step)| step.to_owned())
        .collect();
    steps.sort();
    steps
}

#[test]
fn a_second_build_runs_nothing_and_says_cached_for_every_step() {
    let fixture = two_stages();
    let (first, image) = fixture.image(&[]);
    assert!(
        steps(&first.executed()).contains(&"RUN wc -c < /out > /size".to_owned()),
        "{first}"
    );
    let (second, again) = fixture.image(&[]);
    let cached = steps(&second.cached());
    for step in [
        "COPY --from=build /out /out",
        "COPY config /etc/app",
        "COPY src /src",
        "RUN cat /src/a /src/b > /out",
        "RUN wc -c < /out > /size",
    ] {
        assert!(
            cached.contains(&step.to_owned()),
            "{step} is not CACHED\n{second}"
        );
    }
    assert_eq!(
        again.manifest_digest, image.manifest_digest,
        "the same build gives the same image\n{second}"
    );
}

#[test]
fn an_edited_file_reruns_only_what_read_it() {
    let fixture = two_stages();
    fixture.image(&[]);
    fixture.context.file("config", "changed\n");
    let (ran, image) = fixture.image(&[]);
    assert!(
        steps(&ran.cached()).contains(&"RUN cat /src/a /src/b > /out".to_owned()),
        "{ran}"
    );
    assert!(
        steps(&ran.executed()).contains(&"COPY config /etc/app".to_owned()),
        "{ran}"
    );
    assert_eq!(image.files().unwrap().text("etc/app"), Some("changed\n"));
}

#[test]
fn a_rebuilt_stage_with_the_same_output_reruns_nothing_after_it() {
    let fixture = two_stages();
    fixture.image(&[]);
    // The build stage runs again, and its /out has the same bytes as before.
    fixture.context.file("src/a", "aaaa\nbb").file("src/b", "bb\n");
    let (ran, _) = fixture.image(&[]);
    assert!(
        steps(&ran.executed()).contains(&"RUN cat /src/a /src/b > /out".to_owned()),
        "{ran}"
    );
    assert!(
        steps(&ran.cached()).contains(&"COPY --from=build /out /out".to_owned()),
        "{ran}"
    );
    assert!(
        steps(&ran.cached()).contains(&"RUN wc -c < /out > /size".to_owned()),
        "{ran}"
    );
}

#[test]
fn a_changed_time_alone_is_no_change_and_a_changed_mode_is() {
    let fixture = two_stages();
    fixture.image(&[]);
    let file = std::fs::File::open(fixture.context.dir().join("config")).unwrap();
    file.set_modified(std::time::SystemTime::now()).unwrap();
    let (touched, _) = fixture.image(&[]);
    assert!(
        steps(&touched.cached()).contains(&"COPY config /etc/app".to_owned()),
        "{touched}"
    );
    fixture.context.mode("config", 0o600);
    let (changed, image) = fixture.image(&[]);
    assert!(
        steps(&changed.executed()).contains(&"COPY config /etc/app".to_owned()),
        "{changed}"
    );
    assert_eq!(image.files().unwrap().get("etc/app").unwrap().mode, 0o600);
}

#[test]
fn no_cache_runs_everything_and_a_stage_list_only_those_stages() {
    let fixture = Fixture::new(
        "FROM busybox AS one\nRUN echo one > /one\nFROM busybox AS two\nRUN echo two > /two\nFROM busybox\nCOPY --from=one /one /\nCOPY --from=two /two /\n",
    );
    fixture.image(&[]);
    let (all, _) = fixture.image(&["--no-cache"]);
    assert_eq!(
        steps(&all.executed())
            .iter()
            .filter(|step| step.starts_with("RUN"))
            .count(),
        2,
        "{all}"
    );
    let (some, _) = fixture.image(&["--no-cache-filter=TWO"]);
    assert!(
        steps(&some.cached()).contains(&"RUN echo one > /one".to_owned()),
        "{some}"
    );
    assert!(
        steps(&some.executed()).contains(&"RUN echo two > /two".to_owned()),
        "{some}"
    );
}

#[test]
fn a_changed_argument_reruns_only_what_follows_its_line() {
    let fixture = Fixture::new("FROM busybox\nRUN echo before\nARG V=1\nRUN echo after\nRUN echo $V > /v\n");
    fixture.image(&[]);
    let (ran, image) = fixture.image(&["--build-arg=V=2"]);
    assert_eq!(steps(&ran.cached()), ["RUN echo before"], "{ran}");
    assert_eq!(image.files().unwrap().text("v"), Some("2\n"));
}

#[test]
fn a_new_base_image_is_noticed_by_its_digest() {
    let fixture = Fixture::new("FROM base\nRUN echo x > /tmp/x\n");
    let other = |name: &str| {
        crate::e2e::fixture::busybox_argument(name)
            .replace("=busybox=", "=base=")
            .replace(&format!("--build-context={name}="), "--build-context=base=")
    };
    let first = fixture.build().arg(other("busybox")).ok();
    assert_eq!(steps(&first.executed()), ["RUN echo x > /tmp/x"], "{first}");
    let same = fixture.build().arg(other("busybox")).ok();
    assert_eq!(steps(&same.cached()), ["RUN echo x > /tmp/x"], "{same}");
    let changed = fixture.build().arg(other("rich")).ok();
    assert_eq!(steps(&changed.executed()), ["RUN echo x > /tmp/x"], "{changed}");
}

#[test]
fn a_cache_mount_keeps_its_files_between_builds_and_is_in_no_layer() {
    let fixture = Fixture::new(
        "FROM busybox\nARG N\nRUN --mount=type=cache,target=/c echo $N >> /c/log; wc -l < /c/log > /count\n",
    );
    let (_, first) = fixture.image(&["--build-arg=N=1"]);
    assert_eq!(first.files().unwrap().text("count"), Some("1\n"));
    let (_, second) = fixture.image(&["--build-arg=N=2"]);
    let files = second.files().unwrap();
    assert_eq!(files.text("count"), Some("2\n"));
    assert!(files.get("c/log").is_none());
}

#[test]
fn a_damaged_blob_is_a_miss_and_not_a_failure() {
    let fixture = two_stages();
    let (_, image) = fixture.image(&[]);
    let blobs = fixture.home.store().join("blobs/sha256");
    let mut damaged = 0;
    for entry in std::fs::read_dir(&blobs).expect("the store's blobs") {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::write(&path, b"damaged").unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 0, "nothing to damage in {}", blobs.display());
    let (_, again) = fixture.image(&[]);
    assert_eq!(again.files().unwrap().table(), image.files().unwrap().table());
}

#[test]
fn independent_steps_run_at_once() {
    let stages: String = (0..4)
        .map(|n| format!("FROM busybox AS s{n}\nRUN sleep 1; echo {n} > /{n}\n"))
        .collect();
    let copies: String = (0..4).map(|n| format!("COPY --from=s{n} /{n} /\n")).collect();
    let fixture = Fixture::new(&format!("{stages}FROM busybox\n{copies}"));
    let ran = fixture.build().ok();
    assert!(
        ran.elapsed < std::time::Duration::from_secs(3),
        "four sleeps of 1 s, one after the other\n{ran}"
    );
}
