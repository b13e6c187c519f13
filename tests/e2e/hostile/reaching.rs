//! What is not a step's, tried by calls, by the kernel's files and by sockets that lie among the files it is given, on each rung.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use rbuild_testkit::machine;

use crate::e2e::hostile::canary::{Rung, Site};
use crate::e2e::rows::program_in_context;

/// Runs the program `name` of `tests/e2e/rows` as root and as a user of a step, on each rung: it says of `count` ways that they are
/// closed, and of the last, the legal twin, that it is open. That the build goes on shows that nobody of its own was hit.
#[track_caller]
fn assert_all_closed(name: &str, count: usize, twin: &str) {
    const PART: usize = 20;
    let parts = count / PART + 1;
    for rung in Rung::here() {
        // In parts, each short enough to be looked at whole.
        let split = |said: &str| -> String {
            let part = |at: usize| {
                format!(
                    "; sed -n {},{}p /tmp/says > /tmp/{said}-{at}",
                    at * PART + 1,
                    (at + 1) * PART
                )
            };
            (0..parts).map(part).collect()
        };
        let site = Site::on(
            rung,
            &format!(
                "FROM busybox\nCOPY {name} /bin/\nRUN {name} $PPID > /tmp/says{}; rm /tmp/says\nUSER 1000\nRUN {name} $PPID > /tmp/says{}\n",
                split("root"),
                split("user")
            ),
        );
        if program_in_context(&site.fixture, name).is_none() {
            return;
        }
        let files = site.works(&[]);
        for said in ["root", "user"] {
            let part = |at: usize| files.text(&format!("tmp/{said}-{at}")).unwrap_or_default();
            let text: String = (0..parts).map(part).collect();
            let (rest, last) = text.trim_end().rsplit_once('\n').unwrap_or_default();
            assert_eq!(last, format!("{twin}: DONE"), "{rung:?} {said}: the twin\n{text}");
            assert_eq!(rest.lines().count(), count, "{rung:?} {said}: {text}");
            for line in rest.lines() {
                assert!(!line.ends_with(": DONE"), "{rung:?} {said}: {line}");
            }
        }
    }
}

#[test]
fn beyond_calls_that_led_out_of_containers_answer_no_in_a_real_step() {
    assert_all_closed("calls", 31, "getppid");
}

#[test]
fn beyond_forty_ways_to_others_lead_nowhere() {
    assert_all_closed("reach", 44, "own child by descriptor");
}

#[test]
fn beyond_handles_mounts_events_and_devices_are_closed_to_a_step() {
    assert_all_closed("tried", 42, "own memory");
}

#[test]
fn beyond_a_socket_of_the_host_in_a_context_answers_no_step() {
    for rung in Rung::here() {
        let site = Site::on(
            rung,
            "FROM busybox
COPY passing /bin/
RUN --mount=type=bind,target=/ctx ls /ctx /ctx/in > /seen; passing give /ctx/in/s 1 > /said; passing give /ctx/s 1 >> /said
COPY in /in
RUN ls /in >> /seen; passing give /in/s 1 >> /said
",
        );
        if program_in_context(&site.fixture, "passing").is_none() {
            return;
        }
        let context = &site.fixture.context;
        context.file("in/beside", "x");
        let sockets = ["s", "in/s"].map(|name| UnixListener::bind(context.dir().join(name)).unwrap());
        for socket in &sockets {
            socket.set_nonblocking(true).unwrap();
        }
        let files = site.works(&[]);
        assert_eq!(
            files.text("said"),
            Some("nobody took\nnobody took\nnobody took\n"),
            "{rung:?}"
        );
        assert!(
            files.text("seen").is_some_and(|seen| seen.contains("beside")),
            "{rung:?}: the twin, its neighbour was there"
        );
        for socket in &sockets {
            assert!(socket.accept().is_err(), "{rung:?}: somebody came");
        }
    }
}

#[test]
fn row29_abstract_sockets_of_the_host_are_out_of_reach_on_its_network_on_each_rung() {
    if !rbuild_sys::landlock::has_scopes() {
        machine::skip("this kernel has no Landlock scopes (Linux 6.12)");
        return;
    }
    let name = format!("rbuild-of-the-host-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    for rung in Rung::here() {
        let reaching =
            |flags: &str| format!("FROM busybox\nCOPY abstract /bin/\nRUN {flags} abstract {name} > /said\n");
        let site = Site::on(rung, &reaching("--network=host"));
        if program_in_context(&site.fixture, "abstract").is_none() {
            return;
        }
        let allowed = ["network.host", "security.insecure"].map(|right| format!("--allow={right}"));
        let files = site.works(&allowed);
        let said = files.text("said");
        assert_eq!(said, Some("reached\nOperation not permitted\n"), "{rung:?}");
        if rung != Rung::Chroot {
            let twin = reaching("--network=host --security=insecure");
            site.fixture.context.dockerfile(&twin);
            let files = site.works(&allowed);
            assert_eq!(
                files.text("said"),
                Some("reached\nreached\n"),
                "{rung:?}: the twin"
            );
        }
    }
}
