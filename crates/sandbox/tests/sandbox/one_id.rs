//! The same steps by an ordinary user without subordinate ids: owners, devices and credentials are shown to the step, and
//! recorded in the layer. Needs root to become that user.

use std::path::Path;
use std::process::{Command, Output};

use rbuild_sandbox::{Ids, MountKind, MountPlan, Plan, Source};

use crate::fixture::Fixture;
use crate::rootless::{own, user_plan, users_fixture};

/// A number that no account has and no range was given to.
const UID: u32 = 1_599_998;

struct OneId {
    fixture: Fixture,
}

impl OneId {
    fn new() -> Option<Self> {
        Some(Self {
            fixture: users_fixture(UID)?,
        })
    }

    fn plan(&self, script: &str) -> Plan {
        user_plan(&self.fixture, script)
    }

    fn probe(&self, mode: &str, plan: &Plan) -> Output {
        let path = self.fixture.path("plan.json");
        std::fs::write(&path, serde_json::to_vec(plan).unwrap()).unwrap();
        let id = UID.to_string();
        Command::new("/usr/bin/setpriv")
            .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
            .arg(self.fixture.path("probe"))
            .arg(mode)
            .arg(path)
            .env_clear()
            .output()
            .unwrap()
    }

    #[track_caller]
    fn text_of(output: Output) -> String {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{stderr}{stdout}");
        assert!(stderr.contains("OneId"), "{stderr}");
        stdout.into_owned()
    }

    #[track_caller]
    fn ok(&self, script: &str) -> String {
        Self::text_of(self.probe("run", &self.plan(script)))
    }

    /// The record of a file of the layer.
    fn record(&self, path: &str) -> Option<String> {
        record(&self.fixture.path("upper").join(path))
    }
}

fn record(path: &Path) -> Option<String> {
    let mut value = [0_u8; 64];
    let len = rustix::fs::lgetxattr(path, "user.rbuild.owner", &mut value).ok()?;
    Some(String::from_utf8_lossy(&value[..len]).into_owned())
}

fn user(uid: u32, gid: u32, groups: &[u32]) -> Ids {
    Ids {
        uid,
        gid,
        groups: groups.to_vec(),
    }
}

#[test]
fn rootless_one_id_owners_are_shown_and_recorded() {
    let Some(one) = OneId::new() else { return };
    let seen = one.ok("id -u; id -G
        touch /f; chown 33:44 /f; stat -c %u:%g /f; chmod 6755 /f; chown 34 /f; stat -c %u:%g:%a /f
        ln -s f /l; chown -h 5:6 /l; stat -c %u:%g /l; stat -L -c %u:%g /l
        mkfifo /p; chown 7:8 /p; stat -c '%u:%g %F' /p
        mkdir /d; chown :9 /d; chmod 2755 /d; touch /d/in; mkdir /d/sub; stat -c %u:%g:%a /d/in /d/sub
        mv /f /g; ln /g /h; stat -c %u:%g /h; cp -p /g /i; stat -c %u:%g /i
        chown 0:0 /g; stat -c %u:%g /h; find / -xdev -user 5");
    assert_eq!(
        seen,
        "0\n0\n33:44\n34:44:755\n5:6\n34:44\n7:8 fifo\n0:9:644\n0:9:2755\n34:44\n34:44\n0:0\n/l\n"
    );
    assert_eq!(one.record("i").as_deref(), Some("34 44"));
    assert_eq!(one.record("d/sub").as_deref(), Some("0 9"));
    assert_eq!(one.record("g"), None, "root's own files have no record");
    let seen = one.ok("stat -c %u:%g /i /l /p /d");
    assert_eq!(seen, "34:44\n5:6\n7:8\n0:9\n", "a later step sees them too");
}

#[test]
fn rootless_one_id_devices_are_shown_and_recorded() {
    let Some(one) = OneId::new() else { return };
    let seen = one.ok("mknod -m 640 /x c 1 3; chown 0:6 /x; stat -c '%F %t:%T %u:%g %a' /x; mknod /b b 8 300; stat -c '%F %t:%T' /b
        cp -a /x /y; stat -c '%F %t:%T %g' /y; [ -c /x ] && [ -b /b ] && echo types; mknod /w c 0 0 2>/dev/null || echo whiteout refused
        su bob -c 'mknod /tmp/n c 1 3 2>/dev/null || echo only root; mkfifo /tmp/q; stat -c %u:%g /tmp/q'");
    assert_eq!(
        seen,
        "character special file 1:3 0:6 640\nblock special file 8:12c\ncharacter special file 1:3 6\ntypes\n\
         whiteout refused\nonly root\n1000:1000\n"
    );
    let meta = std::fs::metadata(one.fixture.path("upper/x")).unwrap();
    assert!(
        meta.is_file() && meta.len() == 0,
        "no device is made on the machine"
    );
}

#[test]
fn rootless_one_id_users_are_who_they_say() {
    let Some(one) = OneId::new() else { return };
    let seen = one.ok("su bob -c 'id -u; id -g; touch /tmp/m; mkdir /tmp/md; ln -s x /tmp/ml; echo a > /tmp/e; echo b >> /tmp/e
          stat -c %u:%g /tmp/m /tmp/md /tmp/ml /tmp/e; chown 0 /tmp/m 2>/dev/null || echo refused; umask 077; touch /tmp/u; stat -c %a /tmp/u'
        id -u; setuidgid bob id -u 2>/dev/null || true");
    assert!(
        seen.starts_with("1000\n1000\n1000:1000\n1000:1000\n1000:1000\n1000:1000\nrefused\n600\n0\n"),
        "{seen}"
    );
    let mut plan = one.plan(
        "id -u; id -g; id -G; touch /tmp/f; stat -c %u:%g /tmp/f; chown :60 /tmp/f; stat -c %g /tmp/f; pwd",
    );
    plan.process.ids = user(1000, 50, &[50, 60]);
    plan.process.cwd = "/made/here".into();
    assert_eq!(
        OneId::text_of(one.probe("run", &plan)),
        "1000\n50\n50 60\n1000:50\n60\n/made/here\n"
    );
    assert_eq!(one.record("made/here").as_deref(), Some("1000 50"));
}

#[test]
fn rootless_one_id_set_id_programs_give_their_recorded_owner() {
    let Some(one) = OneId::new() else { return };
    assert_eq!(one.ok("mkdir /m"), "");
    // Busybox gives such rights up by itself; the machine's own program does not.
    let machines = |script| {
        let mut plan = one.plan(script);
        plan.mounts = ["/usr", "/lib", "/lib64"]
            .into_iter()
            .filter(|path| Path::new(path).exists())
            .map(|path| MountPlan {
                dest: path.into(),
                kind: MountKind::Bind {
                    source: Source::Path(path.into()),
                    selector: "/".into(),
                    readonly: true,
                },
            })
            .collect();
        plan
    };
    let plan = machines(
        "cp /usr/bin/id /m/id; chown 12:13 /m/id; chmod 6755 /m/id; printf '#!/bin/id\\n' > /m/s; chmod 4755 /m/s",
    );
    assert_eq!(OneId::text_of(one.probe("run", &plan)), "");
    let mut plan = machines("/m/id -u; /m/id -ru; /m/id -g; id -u");
    plan.process.ids = user(1000, 50, &[50]);
    assert_eq!(OneId::text_of(one.probe("run", &plan)), "12\n1000\n13\n1000\n");
}

#[test]
fn rootless_one_id_a_process_that_joins_is_itself() {
    let Some(one) = OneId::new() else { return };
    let mut plan = one.plan("id -u; touch /tmp/j; stat -c %u:%g /tmp/j; cat /proc/1/cmdline | tr '\\0' ' '");
    plan.process.ids = user(77, 78, &[78]);
    assert_eq!(OneId::text_of(one.probe("join", &plan)), "77\n77:78\nsleep 600 ");
}

#[test]
fn rootless_one_id_mounted_files_have_their_owner() {
    let Some(one) = OneId::new() else { return };
    let mut plan = one.plan("stat -c %u:%g:%a /run/s; cat /run/s");
    plan.mounts = vec![MountPlan {
        dest: "/run/s".into(),
        kind: MountKind::File {
            content: b"secret\n".to_vec(),
            uid: 1000,
            gid: 50,
            mode: 0o400,
        },
    }];
    assert_eq!(OneId::text_of(one.probe("run", &plan)), "1000:50:400\nsecret\n");
}

#[test]
fn rootless_row09_one_id_paths_end_in_the_root_that_the_caller_has() {
    let Some(one) = OneId::new() else { return };
    let canary = one.fixture.path("canary");
    own(&canary, UID);
    let host = canary.display();
    let seen = one.ok(&format!(
        "ln -s {host} /e; chown 5:6 /e/dir {host}/dir /../../..{host}/secret /proc/1/root{host}/secret 2>/dev/null || echo nowhere
         su bob -c 'ln -s {host}/new /tmp/dangling; mkdir /tmp/dangling 2>/dev/null; echo x > /e/pwn' 2>/dev/null; true
         mkdir -p /j/bin; cp /bin/busybox /j/bin; touch /both /j/both; chroot /j /bin/busybox chown 5:6 /both; stat -c %u:%g /both /j/both
         cd /j; chown 7:8 ../both; stat -c %u:%g /both; chown 1:2 /proc/self/cwd/both; stat -c %u:%g /proc/self/cwd/both /j/both"
    ));
    assert_eq!(seen, "nowhere\n0:0\n5:6\n7:8\n1:2\n1:2\n");
    for name in ["dir", "secret", "empty", "emptyd"] {
        assert_eq!(record(&canary.join(name)), None, "{name}");
    }
    assert!(!canary.join("new").exists() && !canary.join("pwn").exists());
}

#[test]
fn rootless_row09_one_id_a_race_of_names_stays_inside_and_ends() {
    let Some(one) = OneId::new() else { return };
    let canary = one.fixture.path("canary");
    own(&canary, UID);
    let host = canary.display();
    // One keeps exchanging a directory for a link that means the machine's, the others change owners and make files.
    let seen = one.ok(&format!(
        "mkdir /r /r/a; ln -s {host} /r/b
         (while [ ! -e /stop ]; do mv -T /r/a /r/c 2>/dev/null; mv -T /r/b /r/a 2>/dev/null; mv -T /r/a /r/b 2>/dev/null; mv -T /r/c /r/a 2>/dev/null; done) &
         for n in 1 2; do (su bob -c 'i=0; while [ $i -lt 150 ]; do chown 1000 /r/a/secret; chown -h 3:4 /r/a; (echo x > /r/a/pwn$i); mkdir /r/a/d$i; i=$((i+1)); done' 2>/dev/null) & done
         wait %2 %3; touch /stop; wait; echo done"
    ));
    assert!(seen.ends_with("done\n"), "{seen}");
    let left: Vec<_> = std::fs::read_dir(&canary)
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(left.len(), 4, "{left:?}");
    assert_eq!(std::fs::read(canary.join("secret")).unwrap(), b"host-secret");
    for name in ["dir", "secret", "empty", "emptyd"] {
        assert_eq!(record(&canary.join(name)), None, "{name}");
    }
}

#[test]
fn rootless_one_id_many_processes_at_once_are_not_mixed_up() {
    let Some(one) = OneId::new() else { return };
    let seen = one.ok("chmod 1777 /tmp; i=1; while [ $i -le 40 ]; do (echo u$i:x:$((2000+i)):$((3000+i))::/:/bin/sh >> /etc/passwd; touch /tmp/$i; chown $i:$i /tmp/$i; \
          [ \"$(stat -c %u:%g /tmp/$i)\" = $i:$i ] || echo wrong $i) & i=$((i+1)); done; wait
        i=1; while [ $i -le 40 ]; do (su u$i -c \"touch /tmp/s$i; [ \\$(id -u) = $((2000+i)) ] || echo wrong id\") & i=$((i+1)); done; wait
        i=1; while [ $i -le 40 ]; do [ $(stat -c %u:%g /tmp/s$i) = $((2000+i)):$((3000+i)) ] || echo wrong s$i; i=$((i+1)); done");
    assert_eq!(seen, "");
}

#[test]
fn rootless_one_id_the_mark_of_a_process_is_not_the_step_s_to_change() {
    let Some(one) = OneId::new() else { return };
    // Shells without `ulimit -x` say so, and that is as good.
    let seen = one.ok("su bob -c '(ulimit -x 0) 2>/dev/null; id -u'; (ulimit -x 1) 2>/dev/null; id -u");
    assert_eq!(seen, "1000\n0\n");
}
