//! `buildctl build` of this program through a server of this program, each in its own process.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;

use rbuild_testkit::leak::holders;

use crate::e2e::daemon::Daemon;

/// A server, and a context for it.
struct Through {
    daemon: Daemon,
}

impl Through {
    fn start(dockerfile: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("SKIP: the server runs as root here");
            return None;
        }
        let daemon = Daemon::start(&[]);
        daemon.asked(&["--wait", "--timeout=20", "debug", "workers"]);
        let this = Self { daemon };
        fs::create_dir(this.context()).unwrap();
        this.file("Dockerfile", dockerfile);
        Some(this)
    }

    fn context(&self) -> PathBuf {
        self.daemon.dir.path().join("context")
    }

    fn at(&self, name: &str) -> PathBuf {
        self.daemon.dir.path().join(name)
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.context().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn run(&self, more: &[&str]) -> Output {
        let context = self.context().display().to_string();
        let locals = [
            format!("--local=context={context}"),
            format!("--local=dockerfile={context}"),
        ];
        let mut command = self
            .daemon
            .buildctl(&["build", "--progress=plain", "--frontend=dockerfile.v0"]);
        command.args(locals).args(more).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, more: &[&str]) -> Output {
        let output = self.run(more);
        assert!(output.status.success(), "{more:?}: {}", text(&output.stderr));
        output
    }
}

/// A context with a shell and these programs of busybox in `/bin`.
fn give_busybox(through: &Through, names: &[&str]) {
    let bin = through.context().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
    for name in names {
        symlink("busybox", bin.join(name)).unwrap();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn names(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap().map(Result::unwrap);
    entries
        .map(|entry| entry.path().unwrap().display().to_string())
        .collect()
}

#[test]
fn privileged_directories_are_sent_and_results_come_back() {
    let Some(through) = Through::start("FROM scratch AS some\nCOPY a /a\nFROM scratch\nCOPY . /all/\n")
    else {
        return;
    };
    through.file("a", "text");
    through.file("b/kept", "k");
    through.file("b/left.out", "l");
    through.file(".dockerignore", "**/*.out\nDockerfile\n");
    symlink("kept", through.context().join("b/link")).unwrap();
    let out = through.at("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("other"), "stays").unwrap();
    let dest = format!("--output=type=local,dest={}", out.display());
    let shown = text(&through.ok(&[&dest]).stderr);
    assert!(
        shown.contains("COPY . /all/") && shown.contains("DONE"),
        "{shown}"
    );
    assert_eq!(fs::read_to_string(out.join("all/a")).unwrap(), "text");
    assert_eq!(fs::read_link(out.join("all/b/link")).unwrap(), Path::new("kept"));
    assert!(!out.join("all/b/left.out").exists() && !out.join("all/Dockerfile").exists());
    assert_eq!(fs::read_to_string(out.join("other")).unwrap(), "stays");

    let file = through.at("out.tar");
    let (to_file, metadata) = (
        format!("--output=type=tar,dest={}", file.display()),
        through.at("metadata"),
    );
    through.ok(&[&to_file, "--opt=target=some"]);
    assert_eq!(names(&fs::read(&file).unwrap()), ["a"]);
    let told = format!("--metadata-file={}", metadata.display());
    let archive = through.ok(&["--output=type=oci", &told]).stdout;
    assert!(names(&archive).contains(&"index.json".to_owned()));
    let told: serde_json::Value = serde_json::from_slice(&fs::read(&metadata).unwrap()).unwrap();
    assert!(
        told["containerimage.digest"]
            .as_str()
            .unwrap()
            .starts_with("sha256:"),
        "{told}"
    );
    assert!(told["containerimage.descriptor"]["size"].is_u64(), "{told}");
    let again = text(&through.ok(&[]).stderr);
    assert!(again.contains("CACHED"), "{again}");
}

#[test]
fn privileged_secrets_are_served_and_failures_told() {
    let run = "RUN --mount=type=secret,id=file --mount=type=secret,id=variable,env=V \
               cat /run/secrets/file > /got && echo $V >> /got\n";
    let Some(through) = Through::start(&format!("FROM scratch\nCOPY bin /bin\n{run}RUN test ! -e /got\n"))
    else {
        return;
    };
    give_busybox(&through, &["sh", "cat", "test"]);
    let secret = through.at("secret");
    fs::write(&secret, "of a file\n").unwrap();
    let file = format!("--secret=id=file,src={}", secret.display());
    let secrets = [&*file, "--secret=id=variable,env=PATH"];
    let failed = through.run(&secrets);
    let said = text(&failed.stderr);
    assert!(
        !failed.status.success() && said.contains("failed to solve") && said.contains("exit code: 1"),
        "{said}"
    );
    through.file("Dockerfile", &format!("FROM scratch\nCOPY bin /bin\n{run}"));
    let out = through.at("out");
    let dest = format!("--output=type=local,dest={}", out.display());
    through.ok(&[&secrets[..], &[&dest]].concat());
    let got = fs::read_to_string(out.join("got")).unwrap();
    assert_eq!(got, format!("of a file\n{}\n", std::env::var("PATH").unwrap()));
    // What this client has no part in is told before anything is asked.
    let refused = through.run(&["--export-cache=type=local,dest=/nonexistent"]);
    assert!(text(&refused.stderr).contains("not supported through a server: --export-cache type=local"));
}

#[test]
fn privileged_row42_a_secret_of_a_client_is_in_nothing_that_a_server_keeps() {
    const VALUE: &str = "s3cr3t-0f-a-cl1ent-0f-the-API";
    let mount = "RUN --mount=type=secret,id=file --mount=type=secret,id=variable,env=V";
    let used =
        "md5sum /run/secrets/file > /sum && test -n \"$V\" && cp /run/secrets/file /tmp-x && rm /tmp-x";
    let Some(through) = Through::start(&format!(
        "FROM scratch AS some\nCOPY bin /bin\n{mount} {used}\nFROM some AS fails\n{mount} {used} && exit 3\n"
    )) else {
        return;
    };
    give_busybox(&through, &["sh", "md5sum", "test", "cp", "rm"]);
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("value");
    fs::write(&secret, VALUE).unwrap();
    let file = format!("--secret=id=file,src={}", secret.display());
    let variable = format!("--secret=id=variable,src={}", secret.display());
    let metadata = format!("--metadata-file={}", through.at("metadata").display());
    let archive = format!("--output=type=oci,dest={}", through.at("out.tar").display());
    let ok = through.ok(&[
        &*file,
        &variable,
        &metadata,
        &archive,
        "--opt=target=some",
        "--opt=attest:provenance=mode=max",
    ]);
    let failed = through.run(&[&*file, &variable, "--opt=target=fails"]);
    assert!(
        text(&failed.stderr).contains("exit code: 3"),
        "{}",
        text(&failed.stderr)
    );
    for output in [&ok, &failed] {
        for said in [&output.stdout, &output.stderr] {
            assert!(!text(said).contains(VALUE), "{}", text(said));
        }
    }
    let told = through.daemon.asked(&["debug", "histories"]);
    assert!(!told.is_empty() && !told.contains(VALUE), "{told}");
    // Store, history, archive with provenance, metadata, sockets' directory.
    assert_eq!(holders(through.daemon.dir.path(), VALUE), [""; 0]);

    // The legal twin: what a step keeps is found, and another value runs nothing anew.
    fs::write(&secret, "another value").unwrap();
    let again = text(&through.ok(&[&*file, &variable, "--opt=target=some"]).stderr);
    assert!(again.contains("CACHED"), "{again}");
    fs::write(&secret, VALUE).unwrap();
    through.file(
        "Dockerfile",
        &format!("FROM scratch\nCOPY bin /bin\n{mount} cp /run/secrets/file /kept\n"),
    );
    through.ok(&[&*file, &variable]);
    assert!(!holders(through.daemon.dir.path(), VALUE).is_empty());
}
