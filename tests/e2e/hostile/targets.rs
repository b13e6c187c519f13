//! Where mounts of whole builds go when links that an earlier step made stand on the way: to the files of the kernel, above the
//! root, and under another mount, with each kind of mount, on each rung that mounts.

use std::os::unix::fs::MetadataExt as _;

use crate::e2e::hostile::canary::{Rung, Site};
use crate::e2e::remote::ssh::{Agent, give_ssh_add};

/// Links of a step: to the kernel's files, above the root, and around.
const LINKS: &str = "RUN ln -s /proc /p && ln -s sys /s && ln -s ../../../.. /up && ln -s /proc/self/root /self && ln -s /dev/fd /fd\n";

#[test]
fn row27_links_of_a_step_lead_no_mount_to_the_files_of_the_kernel() {
    for rung in Rung::with_mounts() {
        let site = Site::on(rung, "");
        let secret = site.fixture.home.work().join("s");
        std::fs::write(&secret, "of-a-secret").unwrap();
        let secret = format!("--secret=id=s,src={}", secret.display());
        for kind in ["tmpfs", "cache", "bind", "secret,id=s"] {
            for target in [
                "/p/b",
                "/p/sys/kernel",
                "/p/self/fd",
                "/s/kernel",
                "/up/proc/1",
                "/p/uptime",
            ] {
                site.fixture.context.dockerfile(&format!(
                    "FROM busybox\n{LINKS}RUN --mount=type={kind},target={target} echo ran > /ran\n"
                ));
                let told = site
                    .build(std::slice::from_ref(&secret))
                    .map(|files| files.table());
                let told = told.expect_err(&format!("{rung:?}: {kind} at {target} was mounted"));
                // Of the place itself, or that it is not there to be mounted on.
                let why = ["nothing is mounted inside /proc and /sys", "mountpoint"];
                assert!(
                    why.iter().any(|why| told.contains(why)),
                    "{rung:?}: {kind} at {target}: {told}"
                );
            }
        }
        // The legal twins: links that lead above the root end in it, and a loop through the step's own root in `/proc` does too.
        for kind in ["tmpfs", "cache"] {
            site.fixture.context.dockerfile(&format!(
                "FROM busybox\n{LINKS}RUN --mount=type={kind},target=/up/made/here echo x > /made/here/f && grep -c ' /made/here ' /proc/mounts > /seen\n\
                 RUN ls -d /made/here 2>/dev/null | wc -l > /after\n"
            ));
            let files = site.works(&[]);
            assert_eq!(files.text("seen"), Some("1\n"), "{rung:?}: {kind}");
            assert_eq!(
                files.text("after"),
                Some("0\n"),
                "{rung:?}: {kind}: nothing stays"
            );
        }
    }
}

#[test]
fn row19_secrets_and_agents_behind_links_of_a_step_are_in_its_root_alone() {
    for rung in Rung::with_mounts() {
        let site = Site::on(rung, "");
        let secret = site.fixture.home.work().join("s");
        std::fs::write(&secret, "of-a-secret").unwrap();
        give_ssh_add(&site.fixture);
        let owner = site.fixture.home.work().metadata().unwrap();
        let agent = Agent::start_as(owner.uid(), owner.gid());
        let (absolute, climbing) = (site.canary.absolute(), site.canary.climbing());
        // The place of the last name is a link too, to a file of the host that is there.
        site.fixture.context.dockerfile(&format!(
            "FROM busybox\nCOPY tool /\n\
             RUN ln -s {absolute} /abs && ln -s {climbing} /up && ln -s {absolute}/victim /file && ln -s /abs /chain\n\
             RUN --mount=type=secret,id=s,target=/abs/secret --mount=type=secret,id=s,target=/up/dir/inner \\\n \
             --mount=type=secret,id=s,target=/file --mount=type=secret,id=s,target=/chain/new/s \\\n \
             cat /abs/secret /up/dir/inner {absolute}/victim {absolute}/new/s | tr a-z b-za > /shifted\n\
             RUN --mount=type=ssh,target=/abs/sock --mount=type=ssh,id=default,target=/up/dir/sock \\\n \
             SSH_AUTH_SOCK={absolute}/sock ssh-add -L > /keys; SSH_AUTH_SOCK={absolute}/dir/sock ssh-add -L | cmp - /keys\n\
             RUN find {absolute} | wc -l > /left; true\n"
        ));
        let files = site.works(&[
            format!("--secret=id=s,src={}", secret.display()),
            format!("--ssh=default={}", agent.socket().display()),
        ]);
        let shifted = "pg-b-tfdsfu".repeat(4);
        assert_eq!(files.text("shifted"), Some(shifted.as_str()), "{rung:?}");
        assert_eq!(files.text("keys"), Some(agent.public.as_str()), "{rung:?}");
        assert_eq!(
            files.text("left"),
            Some("0\n"),
            "{rung:?}: nothing of the mounts stays"
        );
        let secrets = rbuild_testkit::leak::holders(&site.fixture.home.store(), "of-a-secret");
        assert_eq!(secrets, [""; 0], "{rung:?}: the store has it");
    }
}

#[test]
fn beyond_a_link_behind_a_link_leads_a_mount_where_the_kernel_says_on_each_rung() {
    for rung in Rung::here() {
        let site = Site::on(
            rung,
            "FROM busybox
RUN mkdir -p /a/b /a/c /c && ln -s /a/b /x && ln -s ../c /a/b/l && ln -s /x/l /chain && ln -s .. /a/b/up && ln -s /x/up/b/../c/new /made
RUN --mount=type=tmpfs,target=/x/l touch /x/l/f && ls /a/c > /seen; ls /c >> /seen
RUN --mount=type=cache,target=/chain touch /chain/g && ls /a/c >> /seen; ls /c >> /seen
RUN --mount=type=tmpfs,target=/made touch /made/h && ls /a/c/new >> /seen
RUN find /a/c /c >> /seen
",
        );
        let files = site.works(&[]);
        assert_eq!(files.text("seen"), Some("f\ng\nh\n/a/c\n/c\n"), "{rung:?}");
    }
}
