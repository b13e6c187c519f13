//! Programs of 32 bits, whose calls no seccomp program can read, on each rung.
#![cfg(target_arch = "x86_64")]

use std::net::TcpListener;

use rbuild_testkit::image::OciLayout;

use crate::e2e::chroot::{Work, profile};
use crate::e2e::fixture::Fixture;
use crate::e2e::hostile::canary::{Rung, Site};
use crate::e2e::rows::{compiled, program_in_context_with};

/// Without a library: few machines have one for i386.
pub(crate) const FLAGS: [&str; 7] = [
    "-m32",
    "-static",
    "-nostdlib",
    "-ffreestanding",
    "-fno-stack-protector",
    "-fno-pie",
    "-no-pie",
];

/// A build of `steps` on that rung, with the program at `/bin/narrow`.
fn site(rung: Rung, steps: &str) -> Option<Site> {
    let site = Site::on(rung, &format!("FROM busybox\nCOPY narrow /bin/\n{steps}"));
    program_in_context_with(&site.fixture, "narrow", &FLAGS)?;
    Some(site)
}

#[test]
fn row28_sockets_behind_a_pointer_are_judged_like_others_on_each_rung() {
    for rung in Rung::here() {
        let steps = "RUN narrow > /tmp/root\nUSER 1000\nRUN narrow > /tmp/user\n";
        let Some(site) = site(rung, steps) else { return };
        let files = site.works(&[]);
        for said in ["root", "user"] {
            let text = files.text(&format!("tmp/{said}")).unwrap_or_default();
            let closed = "connector: error 001\n\
                 kernel's ciphers: error 001\n\
                 the machine's host: error 001\n\
                 a family that is none: error 097\n\
                 arguments nowhere: error 014\n\
                 raw packets of a user: error 001\n\
                 whose a user's is: DONE\n\
                 exchanged arguments: error 011\n\
                 network: DONE\n";
            assert_eq!(text, closed, "{rung:?} {said}");
        }
    }
}

#[test]
fn row28_a_socket_behind_a_pointer_is_one_of_the_step_s_own_network_on_each_rung() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for rung in Rung::here() {
        let steps =
            format!("RUN --network=none narrow to {port} > /tmp/none\nRUN narrow to {port} > /tmp/host\n");
        let Some(site) = site(rung, &steps) else { return };
        let files = site.works(&[]);
        let said = |name| files.text(&format!("tmp/{name}")).unwrap_or_default();
        assert_eq!(said("host"), "connected: DONE\n", "{rung:?}: the legal twin");
        let none = said("none");
        // With a network of its own nobody listens there; where there is none, or it cannot be entered, there is no socket.
        let expected = match rung {
            Rung::Root | Rung::Subids => "connected: error 111\n",
            _ => "connected: error 001\n",
        };
        assert_eq!(none, expected, "{rung:?}");
    }
}

#[test]
fn row28_legal_twin_an_insecure_step_makes_sockets_of_every_family() {
    for rung in Rung::with_mounts() {
        let Some(site) = site(rung, "RUN --security=insecure narrow > /tmp/said\n") else {
            return;
        };
        let files = site.works(&["--allow=security.insecure".to_owned()]);
        let said = files.text("tmp/said").unwrap_or_default();
        // What is exchanged meanwhile is the step's own affair then, and whether there are ciphers the kernel's.
        for line in [
            "connector: DONE\n",
            "raw packets of a user: error 001\n",
            "network: DONE\n",
        ] {
            assert!(said.contains(line), "{rung:?}: {line}: {said}");
        }
    }
}

/// In a container without `CAP_SYS_PTRACE` a step's other users cannot be looked into. They have the sockets that the container's own
/// profile gives, or programs of 32 bits would have no network there; its root's are judged.
#[test]
fn privileged_row28_where_nobody_may_look_the_container_s_own_profile_judges() {
    let steps = "FROM busybox\nCOPY narrow /bin/\nRUN narrow >/root-s\nUSER 1000\nRUN narrow >/tmp/users\n";
    let Some(work) = Work::of(steps) else { return };
    let home = Fixture::new("");
    let Some(program) = compiled(&home, "narrow.c", "narrow", &FLAGS) else {
        return;
    };
    std::fs::copy(program, work.archive("context/narrow")).unwrap();
    // Calls of i386 pass there, as docker's own profile lets them.
    let mut profile = profile();
    profile["architectures"] = serde_json::json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]);
    let inside = work.archive("inside.tar");
    let args = work.args(Some("--rung=chroot"), &inside);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    work.container.rbuild_under(&profile, 0, &args).ok();
    let image = OciLayout::open(&inside).unwrap().image().unwrap();
    let files = image.files().unwrap();
    let said = |name| files.text(name).unwrap_or_default().to_owned();
    assert!(
        said("root-s").contains("kernel's ciphers: error 001\n"),
        "{}",
        said("root-s")
    );
    for name in ["root-s", "tmp/users"] {
        assert!(said(name).ends_with("network: DONE\n"), "{name}: {}", said(name));
    }
}
