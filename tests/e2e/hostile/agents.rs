//! Row 43 on each rung: what a step may ask of a forwarded agent there, and that the socket is nobody's afterwards.

use std::os::unix::fs::MetadataExt as _;

use crate::e2e::hostile::canary::{Rung, Site};
use crate::e2e::remote::ssh::{Agent, give_ssh_add};

#[test]
fn row43_an_agent_can_be_asked_to_list_and_sign_by_its_step_alone() {
    for rung in Rung::here() {
        let site = Site::on(
            rung,
            "FROM busybox
COPY tool /
RUN --mount=type=ssh,required=true,mode=0640,gid=7 stat -c '%F %a %u %g' $SSH_AUTH_SOCK > /stat; ssh-add -L > /keys; \\
 if ssh-add -D 2> /refused; then echo yes; else echo no; fi > /removed; ssh-add -L | cmp - /keys
RUN test ! -e /run/buildkit/ssh_agent.0 && ! ssh-add -L 2> /none
USER 1000
RUN --mount=type=ssh,required=true if ssh-add -L > /tmp/none 2> /tmp/other; then echo yes; else echo no; fi > /tmp/allowed
RUN --mount=type=ssh,required=true,uid=1000 ssh-add -L > /tmp/own
",
        );
        give_ssh_add(&site.fixture);
        let owner = site.fixture.home.work().metadata().unwrap();
        let agent = Agent::start_as(owner.uid(), owner.gid());
        let files = site.works(&[format!("--ssh=default={}", agent.socket().display())]);
        assert_eq!(files.text("stat"), Some("socket 640 0 7\n"), "{rung:?}");
        assert_eq!(files.text("keys"), Some(agent.public.as_str()), "{rung:?}");
        assert_eq!(files.text("removed"), Some("no\n"), "{rung:?}");
        assert_eq!(agent.keys(), 1, "{rung:?}: the key is still there");
        // With one id no owner keeps anybody out (docs/rootless.md).
        let allowed = if rung == Rung::OneId { "yes\n" } else { "no\n" };
        assert_eq!(
            files.text("tmp/allowed"),
            Some(allowed),
            "{rung:?}: another user of the step"
        );
        assert_eq!(
            files.text("tmp/own"),
            Some(agent.public.as_str()),
            "{rung:?}: the user it is for"
        );
        assert!(files.get("run/buildkit/ssh_agent.0").is_none(), "{rung:?}");
    }
}
