//! `RUN --mount=type=ssh`: a real agent with a real key, and what a step may ask of it.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rbuild_testkit::command::RbuildCommand;
use rbuild_testkit::machine;

use crate::e2e::fixture::Fixture;

/// OpenSSH's agent with one key in it.
pub(crate) struct Agent {
    child: Child,
    dir: tempfile::TempDir,
    pub(crate) public: String,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Agent {
    /// An agent of the user that the tests run as.
    #[track_caller]
    fn start() -> Self {
        let me = (rustix::process::geteuid(), rustix::process::getegid());
        Self::start_as(me.0.as_raw(), me.1.as_raw())
    }

    /// An agent of this user: it talks to nobody else but root.
    #[track_caller]
    pub(crate) fn start_as(uid: u32, gid: u32) -> Self {
        use std::os::unix::fs::chown;
        use std::os::unix::process::CommandExt as _;
        let tool = |name| machine::required(name, "openssh-client").expect("a tool of the tests");
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        RbuildCommand::new(tool("ssh-keygen"))
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "c4n4ry-key", "-f"])
            .arg(&key)
            .ok();
        let socket = dir.path().join("agent");
        chown(dir.path(), Some(uid), Some(gid)).unwrap();
        let child = Command::new(tool("ssh-agent"))
            .uid(uid)
            .gid(gid)
            .arg("-D")
            .arg("-a")
            .arg(&socket)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Its socket has a name before somebody listens there.
        let started = Instant::now();
        while UnixStream::connect(&socket).is_err() && started.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(5));
        }
        RbuildCommand::new(tool("ssh-add"))
            .env("SSH_AUTH_SOCK", &socket)
            .arg("-q")
            .arg(&key)
            .ok();
        let public = fs::read_to_string(dir.path().join("key.pub")).unwrap();
        Self { child, dir, public }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("agent")
    }

    /// How many keys it holds.
    pub(crate) fn keys(&self) -> usize {
        let ran = RbuildCommand::new(machine::required("ssh-add", "openssh-client").unwrap())
            .env("SSH_AUTH_SOCK", self.socket())
            .arg("-L")
            .ok();
        ran.stdout_text().lines().count()
    }
}

/// Copies the machine's `ssh-add` into the context.
#[track_caller]
pub(crate) fn give_ssh_add(fixture: &Fixture) {
    give(fixture, "ssh-add");
}

/// Copies a program of the machine with the libraries it needs into the context, below `tool`.
#[track_caller]
fn give(fixture: &Fixture, name: &'static str) {
    let tool = machine::required(name, "openssh-client").unwrap();
    let needed = RbuildCommand::new("ldd").arg(&tool).ok().stdout_text();
    let libraries = needed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from);
    for path in libraries.chain([tool]) {
        let inside = format!("tool{}", path.display());
        fixture.context.file(&inside, fs::read(&path).unwrap());
        fixture.context.mode(&inside, 0o755);
    }
}

#[test]
fn row43_a_step_reaches_the_agent_and_can_only_list_and_sign() {
    let agent = Agent::start();
    let fixture = Fixture::new(
        "FROM busybox\nCOPY tool /\n\
         RUN --mount=type=ssh,required=true,mode=0640,gid=7 stat -c '%F %a %u %g' $SSH_AUTH_SOCK > /stat; \
         echo $SSH_AUTH_SOCK > /where; ssh-add -L > /keys; \
         if ssh-add -D 2> /refused; then echo yes; else echo no; fi > /removed; ssh-add -L | cmp - /keys\n\
         RUN test ! -S /run/buildkit/ssh_agent.0\n\
         USER 1000\nRUN --mount=type=ssh,required=true if ssh-add -L > /tmp/none 2> /tmp/other; then echo yes; else echo no; fi > /tmp/allowed\n\
         RUN --mount=type=ssh,required=true,uid=1000 ssh-add -L > /tmp/own\n",
    );
    give_ssh_add(&fixture);
    let socket = agent.socket().display().to_string();
    let (_, image) = fixture.image_with(&["--ssh=default"], &[("SSH_AUTH_SOCK", &socket)]);
    let files = image.files().unwrap();
    assert_eq!(files.text("stat"), Some("socket 640 0 7\n"));
    assert_eq!(files.text("where"), Some("/run/buildkit/ssh_agent.0\n"));
    assert_eq!(files.text("keys"), Some(agent.public.as_str()));
    assert_eq!(files.text("removed"), Some("no\n"));
    assert_eq!(
        files.text("tmp/allowed"),
        Some("no\n"),
        "another user of the step"
    );
    assert!(
        files.text("tmp/other").unwrap().contains("Permission denied"),
        "{:?}",
        files.text("tmp/other")
    );
    assert_eq!(
        files.text("tmp/own"),
        Some(agent.public.as_str()),
        "the user it is for"
    );
    assert!(
        files.get("run/buildkit/ssh_agent.0").is_none(),
        "the socket is no part of the image"
    );
    assert_eq!(agent.keys(), 1);
}

#[test]
fn rootless_row43_steps_reach_the_agent_too() {
    let Some(fixture) = Fixture::rootless(
        "FROM busybox\nCOPY tool /\nRUN --mount=type=ssh,id=mine,required=true,target=/agent ssh-add -L > /keys\n",
    ) else {
        return;
    };
    give_ssh_add(&fixture);
    let user = machine::ordinary_user().unwrap();
    let agent = Agent::start_as(user.uid, user.gid);
    let (_, image) = fixture.image(&[&format!("--ssh=mine={}", agent.socket().display())]);
    assert!(
        image
            .files()
            .unwrap()
            .text("keys")
            .unwrap()
            .contains("ssh-ed25519")
    );
}

/// Keys in memory sign for a step, are written nowhere, and go with the build.
#[test]
fn keys_of_files_sign_for_steps_without_an_agent() {
    let tool = |name| machine::required(name, "openssh-client").expect("a tool of the tests");
    let dir = tempfile::tempdir().unwrap();
    let mut flags = Vec::new();
    for (id, kind) in [("default", "rsa"), ("mine", "ecdsa"), ("mine", "ed25519")] {
        let key = dir.path().join(kind);
        let made = RbuildCommand::new(tool("ssh-keygen"));
        made.args(["-q", "-t", kind, "-N", "", "-f"]).arg(&key).ok();
        match flags
            .iter_mut()
            .find(|flag: &&mut String| flag.starts_with(&format!("--ssh={id}=")))
        {
            Some(flag) => *flag = format!("{flag},{}", key.display()),
            None => flags.push(format!("--ssh={id}={}", key.display())),
        }
    }
    let fixture = Fixture::new(
        "FROM busybox\nCOPY tool /\nCOPY *.pub /\n\
         RUN --mount=type=ssh,required=true ssh-add -L > /default; echo text > /text; \
         ssh-keygen -q -Y sign -f /rsa.pub -n file /text && ssh-keygen -Y check-novalidate -n file -s /text.sig < /text > /checked\n\
         RUN --mount=type=ssh,id=mine,required=true ssh-add -L > /mine; \
         ssh-add -T /ecdsa.pub && ssh-add -T /ed25519.pub && if ssh-add -D 2> /dev/null; then echo yes; else echo no; fi > /removed\n",
    );
    give_ssh_add(&fixture);
    give(&fixture, "ssh-keygen");
    for kind in ["rsa", "ecdsa", "ed25519"] {
        let name = format!("{kind}.pub");
        fixture
            .context
            .file(&name, fs::read(dir.path().join(&name)).unwrap());
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let (_, image) = fixture.image(&flags);
    let files = image.files().unwrap();
    let kinds = |name: &str| -> Vec<String> {
        let text = files.text(name).unwrap();
        text.lines()
            .filter_map(|line| line.split(' ').next().map(str::to_owned))
            .collect()
    };
    assert_eq!(kinds("default"), ["ssh-rsa"]);
    assert!(
        files
            .text("checked")
            .unwrap()
            .starts_with("Good \"file\" signature with RSA key")
    );
    assert_eq!(kinds("mine"), ["ecdsa-sha2-nistp256", "ssh-ed25519"]);
    assert_eq!(files.text("removed"), Some("no\n"));
}

#[test]
fn row43_an_id_that_was_not_given_is_an_error_only_where_it_is_required() {
    let fixture =
        Fixture::new("FROM busybox\nRUN --mount=type=ssh test -z \"$(ls /run/buildkit 2>/dev/null)\"\n");
    fixture.build().ok();
    let fixture = Fixture::new("FROM busybox\nRUN --mount=type=ssh,id=other,required=true true\n");
    let ran = fixture
        .build()
        .fails()
        .says("no SSH key \"other\" forwarded from the client");
    assert!(ran.stderr.contains("Dockerfile:2"), "{ran}");
}

#[test]
fn git_over_ssh_needs_an_agent() {
    let fixture = Fixture::new("FROM busybox\nADD git@127.0.0.1:r.git /r\n");
    fixture
        .build()
        .fails()
        .says("no SSH key \"default\" forwarded from the client");
}

#[test]
fn row43_a_key_behind_a_passphrase_is_refused_by_name() {
    let tool = machine::required("ssh-keygen", "openssh-client").expect("a tool of the tests");
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let made = RbuildCommand::new(tool);
    made.args(["-q", "-t", "ed25519", "-N", "c4n4ry-words", "-f"])
        .arg(&key)
        .ok();
    let fixture = Fixture::new("FROM busybox\nRUN --mount=type=ssh true\n");
    fixture
        .build()
        .arg(format!("--ssh=default={}", key.display()))
        .fails()
        .says("passphrase protected; add it to an ssh-agent");
}
