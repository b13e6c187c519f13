//! Real input: `tests/real/<shape>/` holds a small project of each shape that people write, as a multi-stage `Dockerfile`
//! and its single-stage twin `Dockerfile.single`. Each is built, run under runc, and must answer over HTTP.
//!
//! What belongs here: a shape of Dockerfile seen in the wild, with real tools and at least one real dependency. The base
//! images are those of `cargo xtask bases`. Steps download from the package registries with this machine's own settings;
//! `--host-ca` lets them trust what this machine trusts.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rbuild_testkit::base;
use rbuild_testkit::command::{Ran, RbuildCommand, TestHome};
use rbuild_testkit::debian::DebianBase;
use rbuild_testkit::facts::Kind;
use rbuild_testkit::image::{Image, OciLayout};
use rbuild_testkit::machine;
use rbuild_testkit::run::Bundle;
use rbuild_testkit::validate;
use rustix::process::Signal;

use crate::e2e::{RBUILD, ordinary_user};

/// What a build may take here, downloads included.
const BUILD_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a program may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A certificate that signs nothing, of "rbuild test authority".
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBmDCCAT2gAwIBAgIUUTI1wo6AeQrOdlqdKSl6/XCjsQgwCgYIKoZIzj0EAwIw\n\
IDEeMBwGA1UEAwwVcmJ1aWxkIHRlc3QgYXV0aG9yaXR5MCAXDTI2MTEyMjA1NDcw\n\
NFoYDzIxMjYxMDI5MDU0NzA0WjAgMR4wHAYDVQQDDBVyYnVpbGQgdGVzdCBhdXRo\n\
b3JpdHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATPtjEYqBTJKqs6qXy1X0Y+\n\
S5+BUnwmFiVJWm+jZMaRvmwf5nyTvNp884gWZ9ex87M2dE670kIOxW00tmCrzC+f\n\
o1MwUTAdBgNVHQ4EFgQUJlXbAtDOYd7kNK9gUhQZ73vaIJ4wHwYDVR0jBBgwFoAU\n\
JlXbAtDOYd7kNK9gUhQZ73vaIJ4wDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQD\n\
AgNJADBGAiEAr9U1smHOo4aWm4ZxlMuOgYzogmho+ETG59InfDSCaE8CIQC8hz/z\n\
WZINP4T65b7c2NyoLViXmfRhPeOCpWs/tovG9g==\n\
-----END CERTIFICATE-----\n";
/// Settings of package clients that a machine may need, given to the stages that declare them.
const REGISTRY_SETTINGS: [&str; 3] = ["PIP_INDEX_URL", "PIP_TRUSTED_HOST", "npm_config_registry"];

/// One project and its builds.
struct Project {
    dir: PathBuf,
    home: TestHome,
    bases: Vec<String>,
}

impl Project {
    /// The project of that shape, or nothing (and a `SKIP:` line) where its base images were not made.
    fn open(shape: &str, bases: &[DebianBase], home: TestHome) -> Option<Self> {
        let mut arguments = Vec::new();
        for base in bases {
            match base.layout() {
                Ok(dir) => arguments.push(argument(base.name(), &dir)),
                Err(error) => {
                    machine::skip(&format!("{shape}: {error:#}"));
                    return None;
                }
            }
        }
        let small = base::layout().expect("the fast tier's base images");
        arguments.extend(["noshell", "otherlibc"].map(|name| argument(name, &small)));
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/real")
            .join(shape);
        Some(Self {
            dir,
            home,
            bases: arguments,
        })
    }

    fn build(&self, file: &str, output: &str) -> RbuildCommand {
        self.home
            .command(RBUILD)
            .with_network_of_this_machine()
            .args(["build", "--progress=plain", "--host-ca", "-f"])
            .arg(self.dir.join(file))
            .args(&self.bases)
            .args(registry_settings())
            .arg(format!("--output={output}"))
            .arg(&self.dir)
            .timeout(BUILD_TIMEOUT)
    }

    /// Builds one file into a layout that was checked.
    #[track_caller]
    fn image(&self, file: &str, args: &[&str]) -> (Ran, OciLayout, Image) {
        let archive = self.home.work().join(format!("{file}.tar"));
        let ran = self
            .build(file, &format!("type=oci,dest={}", archive.display()))
            .args(args)
            .ok();
        let layout = OciLayout::open(&archive).unwrap();
        validate::assert_valid(&layout);
        let image = layout.image().unwrap();
        (ran, layout, image)
    }

    /// Builds one file into a layout directory of which only manifest and config are looked at.
    #[track_caller]
    fn manifest(&self, file: &str) -> (Ran, Image) {
        let dir = self.home.work().join(format!("{file}.layout"));
        let ran = self
            .build(file, &format!("type=oci,tar=false,dest={}", dir.display()))
            .ok();
        (ran, OciLayout::open(&dir).unwrap().image().unwrap())
    }

    /// Builds the multi-stage file and runs it, builds it again from the cache, and compares it with its twin's size.
    #[track_caller]
    fn answers(&self, answer: &str) -> Image {
        let (_, layout, image) = self.image("Dockerfile", &[]);
        serves(&layout, answer);
        let (again, same) = self.manifest("Dockerfile");
        let ran: Vec<String> = again
            .executed()
            .into_iter()
            .filter(|step| step.contains("RUN"))
            .collect();
        assert!(ran.is_empty(), "not from the cache: {ran:?}\n{again}");
        assert_eq!(same.manifest_digest, image.manifest_digest);
        no_trace_of_this_machine(&image);
        let (_, twin) = self.manifest("Dockerfile.single");
        let (small, large) = (image.size_bytes(), twin.size_bytes());
        println!(
            "SIZES {}: {small} bytes multi-stage, {large} bytes single-stage",
            self.dir.display()
        );
        assert!(
            small < large,
            "{small} bytes multi-stage, {large} bytes single-stage"
        );
        image
    }
}

/// `--build-arg` of what this machine sets; its values stay out of every file here.
fn registry_settings() -> impl Iterator<Item = String> {
    let set = REGISTRY_SETTINGS
        .iter()
        .filter_map(|name| Some((name, std::env::var(name).ok()?)));
    set.map(|(name, value)| format!("--build-arg={name}={value}"))
}

fn argument(name: &str, layout: &Path) -> String {
    format!("--build-context={name}=oci-layout://{}:{name}", layout.display())
}

/// Runs the image as its config says, on a free port, and asks it.
#[track_caller]
fn serves(layout: &OciLayout, answer: &str) {
    let bundle = Bundle::unpack(layout).expect("umoci unpacks it");
    let port = machine::free_port().unwrap();
    let running = bundle
        .command(&[], &[("PORT", &port.to_string())])
        .expect("runc")
        .timeout(ANSWER_TIMEOUT)
        .spawn();
    let deadline = Instant::now() + ANSWER_TIMEOUT / 2;
    let heard = loop {
        match ask(port) {
            Ok(text) if !text.is_empty() => break text,
            _ if Instant::now() > deadline => break String::new(),
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    running.signal(Signal::TERM);
    // Process 1 of a pid namespace ignores a TERM that it has no handler for; the bundle's end kills it.
    drop(bundle);
    let ran = running.wait();
    assert!(
        heard.ends_with(answer),
        "answered {heard:?} and not {answer:?}\n{ran}"
    );
}

fn ask(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// `--host-ca` and the proxies of this machine are no part of an image.
#[track_caller]
fn no_trace_of_this_machine(image: &Image) {
    let text = image.config.to_string();
    for name in [
        "http_proxy",
        "https_proxy",
        "HTTPS_PROXY",
        "PIP_INDEX_URL",
        "npm_config_registry",
    ] {
        if let Some(value) = std::env::var(name).ok().filter(|value| value.len() > 4) {
            assert!(!text.contains(&value), "the value of {name} is in the config");
        }
    }
    for part in ["CERT_FILE", "host-ca", "JAVA_TOOL_OPTIONS=-Djavax"] {
        assert!(!text.contains(part), "{part} is in the config: {text}");
    }
}

fn root_home(what: &str) -> Option<TestHome> {
    if !machine::is_root() {
        machine::skip(&format!("{what}: umoci and runc need root here"));
        return None;
    }
    Some(TestHome::new())
}

#[test]
fn slow_privileged_python_with_a_requirements_stage() {
    let Some(home) = root_home("python") else { return };
    let bases = [DebianBase::Python, DebianBase::PythonSlim];
    let Some(project) = Project::open("python", &bases, home) else {
        return;
    };
    let image = project.answers("python answers with bottle 0.13.2\n");
    assert_eq!(image.run_config()["User"], "app");
    let files = image.files().unwrap();
    assert!(
        files.get("root/.cache/pip").is_none(),
        "the cache mount is in the image"
    );
    assert_eq!(files.get("app/app.py").map(|facts| facts.uid), Some(10001));
}

#[test]
fn slow_privileged_go_on_scratch_with_certificates_and_time_zones() {
    let Some(home) = root_home("go") else { return };
    let Some(project) = Project::open("go", &[DebianBase::Go], home) else {
        return;
    };
    let image = project.answers("go answers at 14:00 CEST\n");
    assert_eq!(image.layer_count(), 3);
    let files = image.files().unwrap();
    let top: Vec<&str> = files.paths().filter(|path| !path.contains('/')).collect();
    assert_eq!(top, ["etc", "service", "usr"]);
}

#[test]
fn slow_privileged_node_with_build_and_runtime_stages() {
    let Some(home) = root_home("node") else { return };
    let Some(project) = Project::open("node", &[DebianBase::Node, DebianBase::NodeSlim], home) else {
        return;
    };
    let image = project.answers("node answers, built, 172800000 ms\n");
    assert!(
        image.files().unwrap().get("app/src").is_none(),
        "sources are in the runtime image"
    );
}

#[test]
fn slow_privileged_rust_on_debian_slim() {
    let Some(home) = root_home("rust") else { return };
    let Some(project) = Project::open("rust", &[DebianBase::Rust, DebianBase::Slim], home) else {
        return;
    };
    let image = project.answers("rust answers 42\n");
    let files = image.files().unwrap();
    assert!(files.get("usr/bin/tini").is_some());
    assert!(
        files.paths().all(|path| !path.starts_with("var/lib/apt/lists/")),
        "package lists are in the image"
    );
}

#[test]
fn slow_privileged_rust_on_another_libc_does_not_start_and_we_say_why() {
    let Some(home) = root_home("rust") else { return };
    let Some(project) = Project::open("rust", &[DebianBase::Rust, DebianBase::Slim], home) else {
        return;
    };
    let (ran, layout, _) = project.image("Dockerfile", &["--target=other-libc"]);
    let loader = "ld-linux";
    assert!(
        ran.stderr.contains(loader) && ran.stderr.contains("/service"),
        "no warning about the loader\n{ran}"
    );
    let bundle = Bundle::unpack(&layout).expect("umoci unpacks it");
    let started = bundle.command(&[], &[]).expect("runc").run();
    assert!(
        !started.status.success(),
        "it starts after all; the warning would be wrong\n{started}"
    );
}

#[test]
fn slow_privileged_java_in_seven_stages() {
    let Some(home) = root_home("java") else { return };
    let Some(project) = Project::open("java", &[DebianBase::Java, DebianBase::Jre], home) else {
        return;
    };
    let answer = "{\"answers\":\"java\"}\n";
    let image = project.answers(answer);
    assert_eq!(image.run_config()["User"], "appuser");
    let (_, layout, development) = project.image("Dockerfile", &["--target=development"]);
    serves(&layout, answer);
    assert_eq!(
        development.env().get("JAVA_TOOL_OPTIONS").map(String::as_str),
        Some("-Xshare:auto")
    );
    let (tested, ..) = project.image("Dockerfile", &["--target=test"]);
    assert!(tested.stderr.contains("1 test passed"), "{tested}");
    let (_, _, other) = project.image("Dockerfile", &["--build-arg=UID=20002"]);
    assert_eq!(
        other
            .files()
            .unwrap()
            .table()
            .keys()
            .filter(|path| path.as_str() == "app.jar")
            .count(),
        1
    );
}

#[test]
fn slow_privileged_java_trusts_what_the_host_trusts_and_keeps_no_trace() {
    let Some(home) = root_home("java") else { return };
    let Some(project) = Project::open("java", &[DebianBase::Java], home) else {
        return;
    };
    let (bundle, file) = (
        project.home.work().join("bundle.pem"),
        project.home.work().join("Dockerfile"),
    );
    std::fs::write(&bundle, CERTIFICATE).unwrap();
    std::fs::write(&file, TRUST).unwrap();
    let archive = project.home.work().join("trust.tar");
    let ran = project
        .build(
            &file.display().to_string(),
            &format!("type=oci,dest={}", archive.display()),
        )
        .env("SSL_CERT_FILE", &bundle)
        .ok();
    assert!(
        ran.stderr.contains("trusts [CN=rbuild test authority]"),
        "not the host's certificates and nothing else\n{ran}"
    );
    let image = OciLayout::open(&archive).unwrap().image().unwrap();
    let files = image.files().unwrap();
    assert!(files.get("Trust.java").is_some());
    assert!(files.paths().all(|path| !path.contains("host-ca")), "a trace");
    assert!(!image.config.to_string().contains("trustStore"), "a trace");
}

/// Shows whom Java trusts when nobody says so.
const TRUST: &str = r#"FROM jdk
COPY <<EOF /Trust.java
import java.security.KeyStore;
import java.util.ArrayList;
import javax.net.ssl.*;

public class Trust {
    public static void main(String[] args) throws Exception {
        var factory = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        factory.init((KeyStore) null);
        var names = new ArrayList<String>();
        for (var issuer : ((X509TrustManager) factory.getTrustManagers()[0]).getAcceptedIssuers()) {
            names.add(issuer.getSubjectX500Principal().getName());
        }
        System.out.println("trusts " + names);
    }
}
EOF
RUN java /Trust.java
"#;

#[test]
fn slow_privileged_static_program_where_there_is_no_shell() {
    let Some(home) = root_home("distroless") else {
        return;
    };
    let Some(project) = Project::open("distroless", &[DebianBase::Rust], home) else {
        return;
    };
    let image = project.answers("static answers as 65532\n");
    assert_eq!(image.run_config()["User"], "65532");
    assert!(image.size_bytes() < 4 << 20, "{} bytes", image.size_bytes());
}

#[test]
fn slow_rootless_go_and_rust_build_for_an_ordinary_user() {
    let Some(user) = ordinary_user() else { return };
    for (shape, bases, answer) in [
        ("go", &[DebianBase::Go][..], "go answers at 14:00 CEST\n"),
        ("rust", &[DebianBase::Rust, DebianBase::Slim], "rust answers 42\n"),
    ] {
        let home = TestHome::for_user(user.uid, user.gid);
        let Some(project) = Project::open(shape, bases, home) else {
            return;
        };
        let (_, layout, _) = project.image("Dockerfile", &[]);
        serves(&layout, answer);
    }
}

/// `docs/deploy/Dockerfile`: what takes the place of `moby/buildkit` in buildx's drivers.
#[test]
fn slow_privileged_the_image_of_a_daemon_is_built_by_this_program() {
    let Some(home) = root_home("deploy") else { return };
    let base = match DebianBase::Slim.layout() {
        Ok(dir) => format!(
            "--build-context=debian:12-slim=oci-layout://{}:{}",
            dir.display(),
            DebianBase::Slim.name()
        ),
        Err(error) => return machine::skip(&format!("deploy: {error:#}")),
    };
    let context = home.work().join("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::copy(RBUILD, context.join("rbuild")).unwrap();
    let dockerfile = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/deploy/Dockerfile");
    let build = |output: &str| {
        home.command(RBUILD)
            .args([
                "build",
                "--progress=plain",
                "--build-arg=PACKAGES=",
                "-t",
                "deploy:test",
                &base,
                output,
                "-f",
            ])
            .arg(&dockerfile)
            .arg(&context)
            .timeout(BUILD_TIMEOUT)
            .ok()
    };
    let archive = home.work().join("deploy.tar");
    build(&format!(
        "--output=type=oci,compression=uncompressed,dest={}",
        archive.display()
    ));
    build("--output=type=image");
    let layout = OciLayout::open(&archive).unwrap();
    validate::assert_valid(&layout);
    let image = layout.image().unwrap();
    let config = image.run_config();
    assert_eq!(config["Entrypoint"], serde_json::json!(["buildkitd"]));
    assert!(config["Volumes"].get("/var/lib/buildkit").is_some(), "{config}");
    let files = image.files().unwrap();
    for name in ["usr/bin/buildkitd", "usr/bin/buildctl"] {
        let kind = files.get(name).map(|facts| &facts.kind);
        assert!(
            matches!(kind, Some(Kind::Symlink(target)) if target == "rbuild"),
            "{name}: {kind:?}"
        );
    }
    // Both run in it, by the names that drivers call.
    for (program, expected) in [("buildkitd", "buildkitd "), ("buildctl", "buildctl ")] {
        let ran = home
            .command(RBUILD)
            .args(["run", "--rm", "--entrypoint", program, "deploy:test", "--version"])
            .ok();
        assert!(ran.stdout_text().starts_with(expected), "{ran}");
    }
}
