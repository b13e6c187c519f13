//! The same as an ordinary user with subordinate ids: the main promises, and that the answer is byte for byte root's.
//! Every conformance case runs rootless too, in `conformance`.

use rbuild_testkit::residue::{own_sleep, wait_for_process, wait_until_gone};
use rbuild_testkit::stopwatch::Stopwatch;
use rustix::process::Signal;

use crate::e2e::fixture::{Fixture, ordinary_user};
use crate::e2e::killed::assert_ended_at_once;

const MAIN: &str = "FROM busybox AS build
WORKDIR /src
COPY . .
RUN sort words > sorted && chown 1234:5678 sorted && chmod 4755 sorted
FROM busybox
COPY --from=build --chown=daemon /src/sorted /srv/
COPY --from=build /src/sorted /kept
RUN rm /bin/vi && mkdir -m 1777 /drop && ln /kept /again && id > /id
USER daemon
RUN id > /drop/id; touch /drop/mine
";

#[test]
fn rootless_the_layers_are_those_of_root() {
    let Some(user) = Fixture::rootless(MAIN) else {
        return;
    };
    let root = Fixture::new(MAIN);
    for fixture in [&user, &root] {
        fixture.context.file("words", "b\na\n");
    }
    // Times of what steps write differ between two builds; what is compared is everything else.
    let (_, ours) = user.image(&[]);
    let (_, theirs) = root.image(&[]);
    assert_eq!(ours.files().unwrap().table(), theirs.files().unwrap().table());
    assert_eq!(
        ours.files().unwrap().hard_links(),
        theirs.files().unwrap().hard_links()
    );
    let diff_ids = |image: &rbuild_testkit::image::Image| image.config["rootfs"]["diff_ids"].clone();
    assert_eq!(diff_ids(&ours)[0], diff_ids(&theirs)[0]);
    let (again, _) = user.image(&[]);
    assert!(
        again.executed().iter().all(|step| !step.contains("RUN")),
        "{again}"
    );
}

#[test]
fn rootless_files_copied_from_a_context_give_the_same_layer_digest_as_root() {
    let dockerfile = "FROM scratch\nCOPY --chown=12:34 . /data\n";
    let Some(user) = Fixture::rootless(dockerfile) else {
        return;
    };
    let root = Fixture::new(dockerfile);
    for fixture in [&user, &root] {
        fixture.context.file("a/b", "x\n").file("c", "y\n");
        fixture.context.mode("a", 0o750);
        fixture.context.settle();
    }
    let epoch = "--build-arg=SOURCE_DATE_EPOCH=1704067200";
    let diff_ids = |fixture: &Fixture| fixture.image(&[epoch]).1.config["rootfs"]["diff_ids"].clone();
    assert_eq!(diff_ids(&user), diff_ids(&root));
}

#[test]
fn rootless_ctrl_c_ends_the_step_within_two_seconds_and_leaves_nothing() {
    let sleep = own_sleep(60, 9);
    let Some(fixture) = Fixture::rootless(&format!(
        "FROM busybox\nRUN trap '' INT; sleep {sleep} & sleep {sleep}\n"
    )) else {
        return;
    };
    let before = fixture.residue();
    let running = fixture.build().spawn();
    let _step = wait_for_process(&format!("sleep {sleep}"));
    let watch = Stopwatch::start();
    running.signal_group(Signal::INT);
    let ran = running.wait();
    assert_ended_at_once(&watch, &ran.to_string());
    wait_until_gone(&format!("sleep {sleep}"));
    fixture.assert_clean_since(&before);
}

#[test]
fn rootless_a_secret_and_a_cache_mount_work() {
    let Some(fixture) = Fixture::rootless(
        "FROM busybox\nUSER daemon\nRUN --mount=type=secret,id=s,uid=1 --mount=type=cache,target=/c,uid=1 wc -c < /run/secrets/s > /c/n && cp /c/n /tmp/n\n",
    ) else {
        return;
    };
    let (_, image) = fixture.image_with(&["--secret=id=s,env=VALUE"], &[("VALUE", "12345")]);
    assert_eq!(image.files().unwrap().text("tmp/n"), Some("5\n"));
}

#[test]
fn rootless_a_user_without_subordinate_ids_is_told_what_to_do() {
    if ordinary_user().is_none() {
        return;
    }
    // A number that no account has and that no range was given to.
    let nobody = 3_999_999_777;
    let ran = rbuild_testkit::command::TestHome::for_user(nobody, nobody);
    let context = rbuild_testkit::context::BuildContext::create(ran.work().join("context")).unwrap();
    context.dockerfile("FROM busybox\nRUN true\n");
    let ran = ran
        .command(crate::e2e::RBUILD)
        .args(["build", "--progress=plain"])
        .arg(crate::e2e::fixture::busybox_argument("busybox"))
        .arg(context.dir())
        .run();
    assert!(!ran.stderr.contains("panicked at"), "{ran}");
    if !ran.status.success() {
        let told = ["/etc/subuid", "subuid", "newuidmap"]
            .iter()
            .any(|word| ran.stderr.contains(word));
        assert!(told, "what is missing, and what to do?\n{ran}");
    }
}

#[test]
fn rootless_files_of_the_store_belong_to_the_user_and_can_be_removed_by_rbuild() {
    let Some(fixture) = Fixture::rootless(MAIN) else {
        return;
    };
    fixture.context.file("words", "b\na\n");
    fixture.build().ok();
    fixture.rbuild(["prune", "--all", "--force"]).ok();
    let left = std::fs::read_dir(fixture.home.store().join("layers")).map(|forms| {
        forms
            .flatten()
            .flat_map(|form| std::fs::read_dir(form.path()).into_iter().flatten().flatten())
            .count()
    });
    assert_eq!(
        left.unwrap_or(0),
        0,
        "layer directories that the user's own prune could not remove"
    );
}
