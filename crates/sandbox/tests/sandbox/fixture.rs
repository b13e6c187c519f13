//! A root with busybox as lowest layer, plans over it, and what came of them.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rbuild_sandbox::{
    Exit, ExitStatus, Network, OverlayPlan, Plan, RootPlan, Running, Sandbox, Source, WaitError,
};
use rbuild_sys::overlay::Form;

pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) struct Done {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) exit: Result<Exit, WaitError>,
}

/// The static busybox of the machine, or none with the reason printed; a machine that promised one must have it.
pub(crate) fn busybox() -> Option<PathBuf> {
    let path = PathBuf::from("/bin/busybox");
    let is_static = std::fs::read(&path).is_ok_and(|bytes| {
        !bytes
            .windows(12)
            .any(|w| w == b"/ld-linux-x8" || w == b"/ld-musl-x86")
    });
    if is_static {
        return Some(path);
    }
    assert!(
        std::env::var_os("RBUILD_REQUIRE_PEERS").is_none(),
        "RBUILD_REQUIRE_PEERS is set and /bin/busybox is not static"
    );
    println!("SKIP: /bin/busybox is missing or not static (apt-get install busybox-static)");
    None
}

impl Fixture {
    pub(crate) fn new() -> Option<Self> {
        let busybox = busybox()?;
        let dir = tempfile::tempdir().unwrap();
        // Other users run the same plans.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let this = Self { dir };
        for name in ["lower", "upper", "work", "canary", "canary/dir", "canary/emptyd"] {
            std::fs::create_dir(this.path(name)).unwrap();
        }
        for name in ["bin", "dev", "etc", "home", "proc", "root", "sys", "tmp"] {
            std::fs::create_dir(this.path("lower").join(name)).unwrap();
        }
        // A copy: steps and tests change owners and modes of what is here.
        std::fs::copy(&busybox, this.path("lower/bin/busybox")).unwrap();
        for name in APPLETS {
            symlink("busybox", this.path("lower/bin").join(name)).unwrap();
        }
        std::fs::write(
            this.path("lower/etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nbob:x:1000:1000::/:/bin/sh\n",
        )
        .unwrap();
        std::fs::write(this.path("canary/secret"), "host-secret").unwrap();
        std::fs::write(this.path("canary/empty"), "").unwrap();
        Some(this)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `sh -c script` on the fixture's overlay.
    pub(crate) fn plan(&self, script: &str) -> Plan {
        let overlay = OverlayPlan {
            form: Form::Trusted,
            lowers: vec![self.path("lower")],
            upper: Some(self.path("upper")),
            work: Some(self.path("work")),
            volatile: false,
        };
        let root = RootPlan {
            source: Source::Overlay(overlay),
            readonly: false,
        };
        let mut plan = Plan::new(root, ["sh", "-c", script].map(OsString::from).to_vec());
        plan.process.env = vec!["PATH=/bin".into()];
        plan
    }

    pub(crate) fn run(&self, script: &str) -> Done {
        run(&self.plan(script))
    }

    /// All paths of the upper directory, as the layer would have them.
    pub(crate) fn layer(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut pending = vec![self.path("upper")];
        while let Some(dir) = pending.pop() {
            for entry in std::fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.is_symlink() {
                    pending.push(path.clone());
                }
                found.push(path.strip_prefix(self.path("upper")).unwrap().to_owned());
            }
        }
        found.sort();
        found
    }

    /// Panics if anything of the canary changed.
    pub(crate) fn check_canary(&self) {
        let mut names: Vec<_> = std::fs::read_dir(self.path("canary"))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["dir", "empty", "emptyd", "secret"]);
        assert_eq!(
            std::fs::read_to_string(self.path("canary/secret")).unwrap(),
            "host-secret"
        );
        for dir in ["canary/dir", "canary/emptyd"] {
            assert_eq!(std::fs::read_dir(self.path(dir)).unwrap().count(), 0, "{dir}");
        }
    }
}

pub(crate) fn probe() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_sandbox-probe"))
}

pub(crate) fn sandbox() -> Sandbox {
    Sandbox::with_program(probe()).unwrap()
}

pub(crate) fn run(plan: &Plan) -> Done {
    finish(&sandbox().spawn(plan, &[]).unwrap())
}

pub(crate) fn finish(running: &Running) -> Done {
    let read = |pipe: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.map(|mut pipe| pipe.read_to_end(&mut bytes).unwrap());
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = read(running.take_stdout().map(|p| Box::new(p) as _));
    let stderr = read(running.take_stderr().map(|p| Box::new(p) as _));
    let exit = running.wait();
    Done {
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
        exit,
    }
}

impl Done {
    /// The output of a step that must have succeeded.
    pub(crate) fn ok(self) -> String {
        match &self.exit {
            Ok(Exit {
                status: ExitStatus::Code(0),
                ..
            }) => self.stdout,
            other => panic!("{}: {}{}", explain(other), self.stdout, self.stderr),
        }
    }

    pub(crate) fn code(&self) -> i32 {
        match &self.exit {
            Ok(Exit {
                status: ExitStatus::Code(code),
                ..
            }) => *code,
            other => panic!("{}: {}{}", explain(other), self.stdout, self.stderr),
        }
    }

    /// The text of the error of a step that must not have run.
    pub(crate) fn error(self) -> String {
        match &self.exit {
            Err(_) => explain(&self.exit),
            Ok(exit) => panic!("it ran: {exit:?} {}{}", self.stdout, self.stderr),
        }
    }
}

fn explain(exit: &Result<Exit, WaitError>) -> String {
    match exit {
        Ok(exit) => format!("{exit:?}"),
        Err(error) => {
            let source = std::error::Error::source(error)
                .map(|s| format!(": {s}"))
                .unwrap_or_default();
            format!("{error}{source}")
        }
    }
}

pub(crate) const fn host_network(mut plan: Plan) -> Plan {
    plan.network = Network::Host;
    plan
}

const APPLETS: &[&str] = &[
    "sh", "cat", "ls", "id", "mkdir", "rm", "mv", "ln", "echo", "true", "false", "stat", "mount", "umount",
    "mknod", "dd", "sleep", "env", "grep", "touch", "hostname", "pwd", "readlink", "chmod", "chown", "kill",
    "unshare", "cp", "find", "ps", "head", "tail", "wc", "sort", "seq", "test", "df", "chroot", "ip", "nc",
    "rmdir", "su", "mkfifo", "printf", "tr",
];
