//! Descriptors that one step passes to another through a socket in a cache that both have: what they mean is a layer by the
//! time they are used.

use std::time::{Duration, Instant};

use rbuild_testkit::image::Files;
use rbuild_testkit::machine;

use crate::e2e::hostile::canary::{Rung, Site};
use crate::e2e::rows::program_in_context;

/// Two stages that meet in a cache; a third that is built on the first lets the second know that its layer is in use.
const DOCKERFILE: &str = "FROM busybox AS tools
COPY passing /bin/
RUN echo one >/etc/read
FROM tools AS first
RUN --mount=type=cache,target=/k,id=met echo one >/given && echo one >/mapped && echo one >/etc/kept && passing give /k/s SECONDS
FROM tools AS second
RUN --mount=type=cache,target=/k,id=met passing take /k/s /k/done SECONDS >/took
FROM first AS third
RUN --mount=type=cache,target=/k,id=met cp /given /seen && touch /k/done
FROM third AS fourth
COPY --from=first /etc /copied/1/
COPY --from=first /etc /copied/2/
COPY --from=first /given /etc/kept /copied/3/
RUN sleep 0.5
COPY --from=first /etc /copied/4/
FROM first AS last
COPY --from=third /seen /seen
COPY --from=fourth /copied /copied
COPY --from=second /took /took
";

/// What the layer of the first stage is, whatever the second did.
#[track_caller]
fn assert_unchanged(files: &Files, about: &str) {
    for name in ["given", "mapped", "etc/kept", "etc/read"] {
        assert_eq!(files.text(name), Some("one\n"), "{about}: {name}");
    }
    for name in ["planted", "etc/planted"] {
        assert!(files.get(name).is_none(), "{about}: {name}");
    }
}

/// Builds the stages with `snapshotter`. The second stage got descriptors, or nobody was there at the same time.
fn pass(rung: Rung, snapshotter: &[String]) {
    let about = format!("{rung:?} {snapshotter:?}");
    let seconds = if rung == Rung::Chroot { "2" } else { "30" };
    let site = Site::on(rung, &DOCKERFILE.replace("SECONDS", seconds));
    if program_in_context(&site.fixture, "passing").is_none() {
        return;
    }
    let files = site.works(snapshotter);
    let took = files.text("took").unwrap_or_default().to_owned();
    if rung == Rung::Chroot {
        assert_eq!(took, "nobody gave\n", "{about}: one at a time has the cache");
    } else {
        assert!(
            took.starts_with("took\nwrite: DONE\nmap: DONE\n"),
            "{about}: the twin, it did get them\n{took}"
        );
    }
    assert_eq!(files.text("seen"), Some("one\n"), "{about}");
    assert_unchanged(&files, &about);
    // And in the layer that was kept.
    let kept = site.works(&[snapshotter, &["--target=first".to_owned()]].concat());
    assert_unchanged(&kept, &about);
}

#[test]
fn row09_descriptors_passed_through_a_socket_of_a_cache_do_not_reach_a_finished_layer() {
    for rung in Rung::here() {
        pass(rung, &[]);
    }
}

#[test]
fn row09_where_layers_are_copies_passed_descriptors_do_not_reach_one_either() {
    for rung in Rung::with_mounts() {
        pass(rung, &["--snapshotter=native".to_owned()]);
    }
    if machine::program("fuse-overlayfs").is_some() && std::path::Path::new("/dev/fuse").exists() {
        pass(Rung::Root, &["--snapshotter=fuse-overlayfs".to_owned()]);
    }
}

/// A stage exchanges a part of a cache with a link, and another mounts that part again and again. In the cache is a directory of
/// the canary's path too: the link means that one, and the canary's never. `/told` grows with the exchanges.
const EXCHANGED: &str = r#"FROM busybox AS tools
COPY passing /bin/
RUN --mount=type=cache,target=/k,id=part rm -rf /k/* && mkdir -p /k/sub /kCANARY && echo own >/k/sub/own && echo own >/kCANARY/own && ln -s CANARY /k/l
FROM tools AS exchanging
RUN --mount=type=cache,target=/k,id=part passing exchange /k sub l END /k/told LEAST 60 >/exchanged
FROM tools AS mounting
MOUNTS
FROM mounting
COPY --from=exchanging /exchanged /exchanged
"#;

/// One mount of that part; what is in it is told.
const MOUNT: &str =
    "--mount=type=cache,source=sub,target=/m,id=part cat /m/own /m/secret >>/seen 2>/dev/null";

/// Exchanges that a race is made of.
const EXCHANGES: u32 = 500;
/// Times that one build mounts the part.
const TIMES: usize = 12;

/// The site, and the stages with `mounts`, which has to be written for it.
fn exchanged(rung: Rung, mounts: &str, end: &str, least: u32) -> Option<Site> {
    let site = Site::on(rung, "");
    program_in_context(&site.fixture, "passing")?;
    let dockerfile = EXCHANGED
        .replace("CANARY", &site.canary.absolute())
        .replace("MOUNTS\n", mounts)
        .replace("END", end)
        .replace("LEAST", &least.to_string());
    site.fixture.context.dockerfile(&dockerfile);
    Some(site)
}

/// While names are exchanged: builds until there was a race, however slow the machine is. A mount counts if names were exchanged
/// between the end of the mount before and its own.
fn mounts_while_exchanged(rung: Rung) {
    let told = "stat -c %s /k/told >>/counts";
    let begins = "for n in $(seq 600); do test -s /k/told && break; sleep 0.1; done";
    let other = "--mount=type=cache,target=/k,id=part";
    let mounts = format!(
        "RUN {other} {begins}; {told}\n{}RUN {other} touch /k/end\n",
        format!("RUN {other} {MOUNT}; {told}\n").repeat(TIMES),
    );
    let Some(site) = exchanged(rung, &mounts, "/k/end", 0) else {
        return;
    };
    let until = Instant::now() + Duration::from_secs(240);
    let (mut exchanges, mut raced) = (0, 0);
    while exchanges < EXCHANGES || raced < TIMES {
        assert!(
            Instant::now() < until,
            "{rung:?}: no race: {exchanges} exchanges during {raced} mounts"
        );
        let files = site.works(&["--no-cache".to_owned()]);
        assert_eq!(files.text("seen"), Some(&*"own\n".repeat(TIMES)), "{rung:?}");
        let counts = files.text("counts").unwrap().lines();
        let counts: Vec<u32> = counts.map(|line| line.parse().unwrap()).collect();
        assert_eq!(counts.len(), TIMES + 1, "{rung:?}: {counts:?}");
        let windows = counts.windows(2).map(|pair| pair[1] - pair[0]);
        exchanges += windows.clone().sum::<u32>();
        raced += windows.filter(|window| *window > 0).count();
    }
}

/// Where one step at a time has the cache: names are exchanged as often, and then once more, before the part is mounted.
fn mounts_after_exchanges(rung: Rung) {
    for least in [EXCHANGES, EXCHANGES + 1] {
        let mounts = format!("COPY --from=exchanging /exchanged /exchanged\nRUN {MOUNT}; true\n");
        let Some(site) = exchanged(rung, &mounts, "/", least) else {
            return;
        };
        let files = site.works(&[]);
        let times = files.text("exchanged").map(str::trim);
        assert_eq!(times, Some(&*least.to_string()), "{rung:?}");
        assert_eq!(files.text("seen"), Some("own\n"), "{rung:?}: {least}");
    }
}

#[test]
fn row17_a_part_of_a_cache_that_another_stage_exchanges_is_the_caches_own() {
    for rung in Rung::here() {
        match rung {
            Rung::Chroot => mounts_after_exchanges(rung),
            _ => mounts_while_exchanged(rung),
        }
    }
}
