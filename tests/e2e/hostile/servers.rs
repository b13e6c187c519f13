//! Row 48 where it stands on a rung: a server there, what others and its own steps reach of it, and bytes that are no requests.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rbuild_testkit::command::{RbuildCommand, Running};
use rbuild_testkit::image::{Files, entries};

use crate::e2e::RBUILD;
use crate::e2e::daemon::PREFACE;
use crate::e2e::hostile::canary::{OTHER, Rung, Site};
use crate::e2e::rows::program_in_context;

/// A server of the site's user on its rung.
struct Served {
    site: Site,
    dir: PathBuf,
    server: Running,
}

impl Served {
    fn on(rung: Rung) -> Self {
        let site = Site::on(rung, "");
        let dir = site.fixture.home.work().join("served");
        fs::create_dir(&dir).unwrap();
        for name in ["buildkitd", "buildctl"] {
            symlink(RBUILD, dir.join(name)).unwrap();
        }
        site.fixture.home.hand_over();
        let name = rung
            .argument()
            .and_then(|argument| argument.strip_prefix("--rung="));
        let server = site.fixture.home.command(dir.join("buildkitd"));
        let server = server
            .env("RBUILD_RUNG", name.unwrap_or_default())
            .arg(format!("--root={}", dir.join("root").display()))
            .arg(format!("--addr=unix://{}", dir.join("s.sock").display()))
            .spawn();
        let this = Self { site, dir, server };
        let client = this.site.fixture.home.command(this.dir.join("buildctl"));
        this.asks(client, &["--wait", "--timeout=20", "debug", "workers"])
            .ok();
        this
    }

    fn asks(&self, client: RbuildCommand, words: &[&str]) -> RbuildCommand {
        let address = format!("--addr=unix://{}", self.dir.join("s.sock").display());
        client.arg(address).args(words)
    }

    fn client(&self, words: &[&str]) -> RbuildCommand {
        self.site.fixture.home.hand_over();
        self.asks(self.site.fixture.home.command(self.dir.join("buildctl")), words)
    }

    /// Says `bytes` to the server; it ends the connection, or goes on to listen, in its own time.
    fn hears(&self, bytes: &[u8]) {
        let mut stream = UnixStream::connect(self.dir.join("s.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        // It may have had enough of it before the end.
        stream.write_all(bytes).ok();
        stream.read_to_end(&mut Vec::new()).ok();
    }

    /// What a build of the context gives through the server.
    #[track_caller]
    fn built(&self) -> Files {
        let context = self.site.fixture.context.dir().display().to_string();
        let tar = self.site.fixture.home.work().join("served.tar");
        self.client(&["build", "--progress=plain", "--frontend=dockerfile.v0"])
            .arg(format!("--local=context={context}"))
            .arg(format!("--local=dockerfile={context}"))
            .arg(format!("--output=type=tar,dest={}", tar.display()))
            .ok();
        let mut files = Files::default();
        files.apply(entries(&fs::read(&tar).unwrap()).unwrap()).unwrap();
        files
    }
}

/// Bytes that are no requests: noise, a browser's words, frames that lie about their length, of streams that are not there, and
/// ten thousand that are begun and given up.
fn noises() -> Vec<Vec<u8>> {
    let noise: Vec<u8> = (0..100_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let browser = b"POST /moby.buildkit.v1.Control/Solve HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\n\r\n";
    let preface = |frame: &[u8]| [PREFACE, frame].concat();
    let mut storm = PREFACE.to_vec();
    for number in 0..10_000_u32 {
        let stream = (number * 2 + 1).to_be_bytes();
        // HEADERS with `:method: GET` alone, then RST_STREAM (RFC 9113, 6.2 and 6.4).
        storm.extend([&[0, 0, 1, 1, 4][..], &stream, &[0x82]].concat());
        storm.extend([&[0, 0, 4, 3, 0][..], &stream, &[0, 0, 0, 8]].concat());
    }
    vec![
        noise,
        browser.to_vec(),
        preface(&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]),
        preface(&[0, 0, 0, 9, 4, 0, 0, 0, 7]),
        PREFACE[..20].to_vec(),
        storm,
    ]
}

#[test]
fn row48_a_server_is_its_user_s_and_goes_on_whatever_it_is_told_on_each_rung() {
    for rung in Rung::here() {
        let served = Served::on(rung);
        let context = &served.site.fixture.context;
        if program_in_context(&served.site.fixture, "passing").is_none() {
            return;
        }
        let before = served.site.fixture.residue();
        // Another user of the machine finds the socket and is not let in; its own user is, below.
        let other = RbuildCommand::new(served.dir.join("buildctl")).user(OTHER, OTHER);
        let told = served.asks(other, &["debug", "workers"]).fails();
        assert!(
            told.stderr.to_lowercase().contains("permission denied"),
            "{rung:?}: {told}"
        );
        let start = Instant::now();
        for noise in noises() {
            served.hears(&noise);
        }
        for definition in [
            &b"no definition"[..],
            &[0xff; 64],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f],
            b"",
        ] {
            let ran = served.client(&["build"]).stdin(definition).fails();
            ran.never_says("panicked");
        }
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{rung:?}: {:?}",
            start.elapsed()
        );
        // The legal twin: a build, whose steps find no way to the server.
        let busybox = fs::read("/bin/busybox").expect("busybox-static");
        context.file("bin/busybox", busybox).mode("bin/busybox", 0o755).dockerfile(&format!(
            "FROM scratch\nCOPY bin/busybox /bin/sh\nCOPY passing /bin/\nSHELL [\"/bin/sh\", \"-c\"]\n\
             RUN passing give {socket} 1 > /said; test -e {socket} && echo there > /there; echo built > /twin\n",
            socket = served.dir.join("s.sock").display(),
        ));
        let files = served.built();
        assert_eq!(files.text("twin"), Some("built\n"), "{rung:?}");
        assert_eq!(files.text("said"), Some("nobody took\n"), "{rung:?}");
        assert!(files.get("there").is_none(), "{rung:?}");
        served.site.canary.assert_untouched();
        served.server.signal(rustix::process::Signal::TERM);
        let ran = served.server.wait().succeeded();
        ran.never_says("panicked");
        assert!(
            !served.dir.join("s.sock").exists(),
            "{rung:?}: the socket goes with its server"
        );
        served.site.fixture.assert_clean_since(&before);
    }
}
