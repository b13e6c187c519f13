//! `buildctl build` of this program through a server of this program, each in its own process.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;

use rbuild_testkit::command::RbuildCommand;
use rbuild_testkit::leak::holders;
use rbuild_testkit::machine;

use crate::e2e::daemon::Daemon;

/// A server, and a context for it.
pub(crate) struct Through {
    daemon: Daemon,
}

impl Through {
    pub(crate) fn start(dockerfile: &str) -> Option<Self> {
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

    pub(crate) fn context(&self) -> PathBuf {
        self.daemon.dir.path().join("context")
    }

    fn at(&self, name: &str) -> PathBuf {
        self.daemon.dir.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, text: &str) {
        let path = self.context().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn run(&self, more: &[&str]) -> Output {
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
pub(crate) fn give_busybox(through: &Through, names: &[&str]) {
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
fn privileged_a_client_that_asks_for_estargz_gets_it() {
    let Some(through) = Through::start("FROM scratch\nCOPY a /a\n") else {
        return;
    };
    through.file("a", "text");
    let dest = through.at("image.tar");
    let build = |more: &str| {
        let output = format!(
            "--output=type=oci,dest={},compression=estargz{more}",
            dest.display()
        );
        through.run(&[&output])
    };
    let done = build("");
    assert!(done.status.success(), "{}", text(&done.stderr));
    let layout = rbuild_testkit::image::OciLayout::open(&dest).unwrap();
    crate::e2e::estargz::assert_estargz(&layout, &layout.image().unwrap(), 0);
    let refused = build(",oci-mediatypes=false");
    assert!(
        text(&refused.stderr).contains("\"compression=estargz\" conflicts with \"oci-mediatypes=false\""),
        "{}",
        text(&refused.stderr)
    );
}

#[test]
fn privileged_questions_have_their_answers_on_standard_output() {
    let Some(through) = Through::start("# one builds it\nFROM scratch AS one\nFROM one AS two\n") else {
        return;
    };
    let ask = |id: &str| through.run(&[&format!("--opt=requestid=frontend.{id}")]);
    let targets = ask("targets");
    assert!(targets.status.success(), "{}", text(&targets.stderr));
    assert_eq!(
        text(&targets.stdout),
        "TARGET        DESCRIPTION\none           builds it\ntwo (default) \n"
    );
    // Of this one there is no text for people.
    let operations = text(&ask("convertllb").stdout);
    let (name, json) = operations
        .split_once('\n')
        .expect("a name, and what is behind it");
    assert_eq!(name, "result.json");
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    assert!(json.is_object(), "{json}");
    let refused = ask("nothing");
    assert!(!refused.status.success());
    assert_eq!(text(&refused.stdout), "");
    let said = text(&refused.stderr);
    assert!(said.contains("frontend.nothing"), "{said}");
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
    let refused = through.run(&["--proxy-network"]);
    assert!(text(&refused.stderr).contains("not supported through a server: --proxy-network"));
}

#[test]
fn privileged_layouts_and_caches_of_this_machine_are_written_and_read() {
    let dockerfile = "FROM scratch\nCOPY bin /bin\nRUN echo made > /made\n";
    let with_busybox = |through: &Through| give_busybox(through, &["sh"]);
    let Some(first) = Through::start(dockerfile) else {
        return;
    };
    with_busybox(&first);
    let (cache, layout) = (first.at("cache"), first.at("layout"));
    let export = format!(
        "--export-cache=type=local,dest={},mode=max,tag=t",
        cache.display()
    );
    let output = format!(
        "--output=type=oci,tar=false,dest={},name=example.org/a:1",
        layout.display()
    );
    first.ok(&[&export, &output]);
    assert!(cache.join("oci-layout").exists());
    let index = |dir: &Path| -> serde_json::Value {
        serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap()
    };
    let entry = &index(&layout)["manifests"][0];
    assert_eq!(
        entry["annotations"]["io.containerd.image.name"],
        "example.org/a:1"
    );
    assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "1");
    let skopeo = machine::required("skopeo", "skopeo").unwrap();
    let inspected = RbuildCommand::new(skopeo)
        .args(["inspect", &format!("oci:{}:1", layout.display())])
        .ok();
    assert!(inspected.stdout_text().contains("\"Layers\""), "{inspected}");
    // The same again writes nothing twice, and what nothing names any more goes when that is asked for.
    let stray = cache.join("blobs/sha256").join("0".repeat(64));
    fs::write(&stray, "x").unwrap();
    first.ok(&[&export]);
    assert!(stray.exists());
    first.ok(&[&format!("{export},reset=true")]);
    assert!(!stray.exists());
    assert_eq!(index(&cache)["manifests"].as_array().unwrap().len(), 1);

    // A server that has nothing takes the step from the cache.
    let second = Through::start(dockerfile).unwrap();
    with_busybox(&second);
    let import = format!("--import-cache=type=local,src={},tag=t", cache.display());
    let shown = text(&second.ok(&[&import]).stderr);
    assert!(shown.contains("importing cache manifest from local:"), "{shown}");
    let step = shown.lines().find(|line| line.contains("RUN echo made")).unwrap();
    let number = step.split(' ').next().unwrap();
    assert!(shown.contains(&format!("{number} CACHED")), "{shown}");
    let missing = second.ok(&["--import-cache=type=local,src=/no/such"]);
    assert!(text(&missing.stderr).contains("local cache import at /no/such skipped"));

    // A layout is a context by the name it was given.
    second.file("Dockerfile", "FROM base\nCOPY Dockerfile /here\n");
    let layout_flag = format!("--oci-layout=some={}", layout.display());
    let digest = entry["digest"].as_str().unwrap();
    let context = format!("--opt=context:base=oci-layout://some@{digest}");
    let out = second.at("out");
    let dest = format!("--output=type=local,dest={}", out.display());
    second.ok(&[&layout_flag, &context, &dest]);
    assert_eq!(fs::read_to_string(out.join("made")).unwrap(), "made\n");
    assert!(out.join("here").exists());
    let refused = second.run(&[&context]);
    assert!(!refused.status.success(), "nothing is read that was not given");

    // A mirror has what the result has, and nothing else.
    fs::write(out.join("other"), "x").unwrap();
    second.ok(&[&layout_flag, &context, &dest]);
    assert!(out.join("other").exists());
    second.ok(&[&layout_flag, &context, &format!("{dest},mode=delete")]);
    assert!(!out.join("other").exists() && out.join("here").exists());
}

#[test]
fn privileged_a_policy_of_a_file_goes_to_the_server() {
    let Some(through) = Through::start("FROM scratch\nADD http://127.0.0.1:1/x /\n") else {
        return;
    };
    let policy = through.at("policy.json");
    let rule = r#"{"rules":[{"action":"DENY","selector":{"identifier":"http://127.0.0.1:1/x"}}]}"#;
    fs::write(&policy, rule).unwrap();
    let flag = format!("--source-policy-file={}", policy.display());
    let denied = text(&through.run(&[&flag]).stderr);
    assert!(denied.contains("denied by policy"), "{denied}");
    fs::write(&policy, "[]").unwrap();
    let said = text(&through.run(&[&flag]).stderr);
    assert!(said.contains("policy.json"), "{said}");
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
