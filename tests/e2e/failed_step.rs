//! What can be seen of a step that failed: its files, or a shell in it.

use rbuild_testkit::command::Ran;

use crate::e2e::fixture::{Fixture, RBUILD, busybox_argument, is_root};

const FAILS: &str = "FROM busybox
ENV A=b
WORKDIR /w
RUN --mount=type=tmpfs,target=/t echo half > half; rm -f /bin/nothing; exit 7
";

/// The build at a terminal, at which `typed` is typed.
fn at_a_terminal(fixture: &Fixture, typed: &str) -> Ran {
    at_a_terminal_with(fixture, "", typed)
}

/// The same with more arguments.
fn at_a_terminal_with(fixture: &Fixture, args: &str, typed: &str) -> Ran {
    let line = format!(
        "{RBUILD} build {args} {} --on-error=shell {}",
        busybox_argument("busybox"),
        fixture.context.dir().display()
    );
    fixture.at_a_terminal(&line).stdin(typed).fails()
}

#[test]
fn the_files_of_a_failed_step_are_kept() {
    let fixture = Fixture::new(FAILS);
    let dir = fixture.home.work().join("kept");
    let flag = format!("--on-error=keep={}", dir.display());
    let build = || fixture.build_of().arg(&flag).arg(fixture.context.dir());
    let before = fixture.residue();
    build()
        .fails()
        .says("exit code: 7")
        .says("Dockerfile:4")
        .says(&format!(
            "hint: the files of the failed step are in {}",
            dir.display()
        ));
    assert_eq!(std::fs::read_to_string(dir.join("w/half")).unwrap(), "half\n");
    assert!(dir.join("bin/busybox").exists(), "with those of the image");
    fixture.assert_clean_since(&before);
    build()
        .fails()
        .says("exit code: 7")
        .says("could not be kept")
        .says("is there already");
    fixture.context.dockerfile("FROM busybox\nRUN true\n");
    let other = fixture.home.work().join("other");
    let fine = fixture
        .build_of()
        .arg(format!("--on-error=keep={}", other.display()));
    fine.arg(fixture.context.dir()).ok();
    assert!(!other.exists(), "nothing failed");
}

#[test]
fn rootless_the_files_of_a_failed_step_belong_to_the_user() {
    let Some(fixture) = Fixture::rootless(FAILS) else {
        return;
    };
    let dir = fixture.home.work().join("kept");
    let build = fixture
        .build_of()
        .arg(format!("--on-error=keep={}", dir.display()));
    build
        .arg(fixture.context.dir())
        .fails()
        .says("the files of the failed step are in");
    assert_eq!(std::fs::read_to_string(dir.join("w/half")).unwrap(), "half\n");
    use std::os::unix::fs::MetadataExt as _;
    let owner = |path: &std::path::Path| std::fs::metadata(path).unwrap().uid();
    assert_eq!(owner(&dir.join("w/half")), owner(&fixture.home.work()));
}

#[test]
fn a_shell_is_among_the_failed_step_s_files_and_mounts() {
    let fixture = Fixture::new(FAILS);
    let before = fixture.residue();
    let typed = "echo got-$A-$(cat half)-$(pwd)-$(grep -c ' /t tmpfs' /proc/mounts); tty; exit 3\n";
    let ran = at_a_terminal(&fixture, typed);
    let shown = ran.stdout_text();
    for part in ["You are in /w,", "got-b-half-/w-1", "/dev/pts/", "exit code: 7"] {
        assert!(shown.contains(part), "{part}: {ran}");
    }
    fixture.assert_clean_since(&before);
}

#[test]
fn an_image_without_a_shell_is_lent_one() {
    let busybox = std::fs::read("/bin/busybox").unwrap_or_default();
    let needs_loader = busybox.windows(8).any(|part| part == b"/ld-linu");
    if busybox.is_empty() || needs_loader {
        println!("SKIP: /bin/busybox is missing or not static (apt-get install busybox-static)");
        return;
    }
    let fixture = Fixture::new("FROM scratch\nCOPY app note /\nRUN [\"/app\"]\n");
    fixture
        .context
        .file("app", "no program")
        .file("note", "remember\n");
    let app = fixture.context.dir().join("app");
    std::fs::write(&app, busybox).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&app, std::fs::Permissions::from_mode(0o755)).unwrap();
    let ran = at_a_terminal(&fixture, "echo got-$(cat /note)-; ls /.rbuild; exit\n");
    let shown = ran.stdout_text();
    assert!(
        shown.contains("The image has no shell: this one is busybox"),
        "{ran}"
    );
    assert!(shown.contains("got-remember-"), "{ran}");
}

#[test]
fn privileged_without_namespaces_a_shell_is_among_the_failed_step_s_files_too() {
    if !is_root("the rung without namespaces") {
        return;
    }
    let fixture = Fixture::new("FROM busybox\nENV A=b\nWORKDIR /w\nRUN echo half > half; exit 7\n");
    let before = fixture.residue();
    let typed = "echo got-$A-$(cat half)-$(pwd)-$(test -t 0 && echo terminal); exit 3\n";
    let ran = at_a_terminal_with(&fixture, "--rung=chroot", typed);
    let shown = ran.stdout_text();
    for part in ["You are in /w,", "got-b-half-/w-terminal", "exit code: 7"] {
        assert!(shown.contains(part), "{part}: {ran}");
    }
    fixture.assert_clean_since(&before);
}

#[test]
fn privileged_without_namespaces_a_program_of_an_image_is_run_and_the_host_s_files_are_not_shown() {
    if !is_root("the rung without namespaces") {
        return;
    }
    let fixture = Fixture::new("FROM busybox\nRUN echo kept > /f && chown 3:4 /f\n");
    fixture.build().args(["--rung=chroot", "--tag=t:1"]).ok();
    let before = fixture.residue();
    let look = "cat /f; stat -c %u:%g /f; ls /proc | wc -l; echo changed > /f";
    for _ in 0..2 {
        let ran = fixture
            .rbuild(["--rung=chroot", "run", "--rm", "t:1", "sh", "-c", look])
            .ok();
        assert_eq!(ran.stdout_text(), "kept\n3:4\n0", "{ran}");
    }
    let here = format!("{}:/x", fixture.context.dir().display());
    let shown = fixture.rbuild(["--rung=chroot", "run", "--rm", "-v", &here, "t:1", "true"]);
    shown
        .fails()
        .says("files of this machine cannot be shown to a container without namespaces");
    assert!(
        fixture.context.dir().join("Dockerfile").exists(),
        "it stays where it is"
    );
    fixture.assert_clean_since(&before);
}
