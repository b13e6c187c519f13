//! What is not a step's, tried by calls, by the kernel's files and by sockets that lie among the files it is given, on each rung.

use std::os::unix::net::UnixListener;

use crate::e2e::hostile::canary::{Rung, Site};
use crate::e2e::rows::program_in_context;

#[test]
fn beyond_forty_ways_to_others_lead_nowhere() {
    for rung in Rung::here() {
        let site = Site::on(
            rung,
            "FROM busybox
COPY reach /bin/
RUN reach $PPID > /says; head -n 24 /says > /root-1; tail -n +25 /says > /root-2
USER 1000
RUN reach $PPID > /tmp/says; head -n 24 /tmp/says > /tmp/user-1; tail -n +25 /tmp/says > /tmp/user-2
",
        );
        if program_in_context(&site.fixture, "reach").is_none() {
            return;
        }
        // That the build goes on shows that nobody of its own was hit.
        let files = site.works(&[]);
        for said in ["root", "tmp/user"] {
            let half = |number| files.text(&format!("{said}-{number}")).unwrap_or_default();
            let text = format!("{}{}", half(1), half(2));
            let (rest, last) = text.trim_end().rsplit_once('\n').unwrap_or_default();
            assert_eq!(
                last, "own child by descriptor: DONE",
                "{rung:?} {said}: the twin\n{text}"
            );
            assert_eq!(rest.lines().count(), 44, "{rung:?} {said}: {text}");
            for line in rest.lines() {
                assert!(!line.ends_with(": DONE"), "{rung:?} {said}: {line}");
            }
        }
    }
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
