//! Networks of steps: the host's, none, and one of the build's own through pasta.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use rbuild_testkit::command::RbuildCommand;
use rbuild_testkit::debian::DebianBase;
use rbuild_testkit::image::{Files, entries};
use rbuild_testkit::machine;
use rbuild_testkit::web::{Page, WebServer};

use rbuild_tls::authority::Authority;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::e2e::fixture::{Fixture, RBUILD, busybox_argument};
use crate::e2e::hostile::canary::{Rung, Site};

/// Whether a network of the build's own can be had.
fn has_pasta() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = std::env::split_paths(&path).any(|dir| dir.join("pasta").exists());
    let has = has && std::path::Path::new("/dev/net/tun").exists();
    if !has {
        println!("SKIP: pasta or /dev/net/tun is missing (apt-get install passt)");
    }
    has
}

/// A service of the host on its loopback that says `hello` to whoever comes.
fn service() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A visitor that is gone is no failure of the test.
            stream.and_then(|mut stream| stream.write_all(b"hello\n")).ok();
        }
    });
    port
}

#[test]
fn privileged_a_network_of_the_build_s_own_does_not_reach_the_host_s_loopback() {
    if !has_pasta() {
        return;
    }
    let port = service();
    let fixture = Fixture::new(&format!(
        "FROM busybox\n\
         RUN busybox ls /sys/class/net > /net; grep nameserver /etc/resolv.conf > /dns; tail -n +2 /proc/net/route | wc -l > /routes\n\
         RUN busybox nc 127.0.0.1 {port} < /dev/null > /said 2>&1; true\n\
         RUN --network=none busybox ls /sys/class/net > /none\n"
    ));
    let before = fixture.residue();
    let (_, image) = fixture.image(&["--network=sandbox"]);
    let files = image.files().unwrap();
    let said = files.text("said").unwrap();
    assert!(!said.contains("hello"), "{said}");
    let interfaces: Vec<&str> = files.text("net").unwrap().lines().collect();
    assert!(
        interfaces.contains(&"lo") && interfaces.len() == 2,
        "{interfaces:?}"
    );
    assert_eq!(files.text("dns"), Some("nameserver 169.254.1.1\n"));
    assert_ne!(files.text("routes"), Some("0\n"));
    assert_eq!(files.text("none"), Some("lo\n"));
    fixture.assert_clean_since(&before);

    let (ran, image) = fixture.image(&["--network=host", "--no-cache"]);
    let files = image.files().unwrap();
    assert_eq!(
        files.text("said"),
        Some("hello\n"),
        "the legal twin: the host's network {ran}"
    );
    // Which of the two a step gets that asks for none in particular is no part of its key.
    let (ran, _) = fixture.image(&[]);
    assert!(
        ran.cached().iter().any(|name| name.contains("RUN busybox nc")),
        "{ran}"
    );
}

#[test]
fn rootless_a_network_of_the_build_s_own_is_there_for_ordinary_users_too() {
    if !has_pasta() {
        return;
    }
    // The device as udev makes it, for everybody: not every machine of the tests has udev.
    const SCRIPT: &str = "mknod -m 666 \"$TMPDIR/tun\" c 10 200; mount --bind \"$TMPDIR/tun\" /dev/net/tun; rm -f \"$TMPDIR/tun\" 2>/dev/null || true; \
        exec setpriv --reuid=\"$0\" --regid=\"$0\" --clear-groups \"$@\"";
    let port = service();
    for rung in Rung::with_mounts() {
        let site = Site::on(
            rung,
            &format!(
                "FROM busybox\nRUN ls /sys/class/net > /net; nc 127.0.0.1 {port} < /dev/null > /said 2>&1; true\n\
                 RUN tail -n +2 /proc/net/route | wc -l > /routes\n"
            ),
        );
        let archive = site.fixture.home.work().join("tree.tar");
        let built = |network: &str| {
            let dest = format!("--output=type=tar,dest={}", archive.display());
            let user = rung.user().to_string();
            let home = &site.fixture.home;
            home.hand_over();
            let command = RbuildCommand::new("unshare").args(["--mount", "sh", "-ec", SCRIPT, &user, RBUILD]);
            let command = command
                .args(["build", "--progress=plain", "--no-cache", network, &dest])
                .args(rung.argument());
            let command = command
                .arg(busybox_argument("busybox"))
                .arg(site.fixture.context.dir());
            let command = command
                .env("HOME", home.home())
                .env("RBUILD_ROOT", home.store())
                .env("TMPDIR", home.tmp());
            drop(command.ok());
            let mut files = Files::default();
            files
                .apply(entries(&fs::read(&archive).unwrap()).unwrap())
                .unwrap();
            files
        };
        let files = built("--network=sandbox");
        let interfaces = files.text("net").unwrap_or_default();
        assert_eq!(interfaces.lines().count(), 2, "{rung:?}: {interfaces}");
        assert_ne!(files.text("routes"), Some("0\n"), "{rung:?}");
        assert!(
            !files.text("said").unwrap_or_default().contains("hello"),
            "{rung:?}"
        );
        let files = built("--network=host");
        assert_eq!(files.text("said"), Some("hello\n"), "{rung:?}: the twin");
    }
}

#[test]
fn without_pasta_there_is_a_sentence() {
    let fixture = Fixture::new("FROM busybox\nRUN true\n");
    let build = fixture
        .build_of()
        .env("PATH", "/nonexistent")
        .arg("--network=sandbox");
    let ran = build.arg(fixture.context.dir()).fails();
    ran.says("a network of the build's own needs pasta (package passt), which is not in PATH")
        .says("Dockerfile:2");
}

#[test]
fn privileged_row49_a_proxied_step_reaches_http_that_is_seen_and_nothing_else() {
    let web = WebServer::start();
    web.put("/file", Page::of("through the proxy\n"))
        .put("/moved", Page::redirect(302, "/file"))
        .put("/absent", Page::of("no").status(404));
    let port = service();
    let fixture = Fixture::new(&format!(
        "FROM busybox\n\
         RUN mkdir -p /etc/ssl/certs && echo own > /etc/ssl/certs/ca-certificates.crt\n\
         RUN unset no_proxy NO_PROXY; wget -q -O /got {file} && wget -q -O /moved {moved}; wget -q -O /no {absent}; \
         wget -q -O /no http://name.invalid/; cp /etc/ssl/certs/ca-certificates.crt /seen; true\n\
         RUN busybox nc 127.0.0.1 {port} < /dev/null > /said 2>&1; busybox ls /sys/class/net > /net; \
         tail -n +2 /proc/net/route | wc -l > /routes; true\n\
         RUN --network=none env > /env\n",
        file = web.url("/file"),
        moved = web.url("/moved"),
        absent = web.url("/absent"),
    ));
    let before = fixture.residue();
    let (ran, image) = fixture.image(&["--network=proxy"]);
    let files = image.files().unwrap();
    for line in [
        "proxy network requests:",
        &format!("- GET {} -> 200", web.url("/file")),
        &format!("- GET {} -> 302", web.url("/moved")),
        &format!("- GET {} -> 404", web.url("/absent")),
        "- GET http://name.invalid/ -> 502",
    ] {
        assert!(ran.to_string().contains(line), "{line} {ran}");
    }
    assert_eq!(files.text("got"), Some("through the proxy\n"));
    assert_eq!(files.text("moved"), Some("through the proxy\n"));
    assert!(!files.text("said").unwrap().contains("hello"));
    assert_eq!(
        (files.text("net"), files.text("routes")),
        (Some("lo\n"), Some("0\n"))
    );
    assert!(!files.text("env").unwrap().to_lowercase().contains("http_proxy"));
    // The step trusts who answers for https, the image does not.
    let seen = files.text("seen").unwrap();
    assert!(
        seen.starts_with("own\n") && seen.contains("buildkit proxy CA begin"),
        "{seen}"
    );
    assert_eq!(files.text("etc/ssl/certs/ca-certificates.crt"), Some("own\n"));
    fixture.assert_clean_since(&before);
    // What was made behind a proxy is not what is made without.
    let (ran, _) = fixture.image(&[]);
    assert!(
        ran.executed().iter().any(|name| name.contains("RUN busybox nc")),
        "{ran}"
    );
}

/// A server of https that says `over TLS` to every request, and the authority that vouches for it.
fn secure_service() -> (u16, Authority) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let authority = Authority::new().unwrap();
    let config = authority.server("127.0.0.1").unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let config = Arc::clone(&config);
            // A visitor that does not trust the server is no failure of the test.
            std::thread::spawn(move || stream.and_then(|stream| answer(stream, config)).ok());
        }
    });
    (port, authority)
}

fn answer(stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<()> {
    let session = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(session, stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nover TLS")?;
    stream.conn.send_close_notify();
    stream.flush()
}

#[test]
fn slow_privileged_row49_https_through_the_proxy_is_trusted_by_the_step_and_seen() {
    let python = match DebianBase::PythonSlim.layout() {
        Ok(dir) => dir,
        Err(error) => return machine::skip(&format!("https: {error:#}")),
    };
    let base = format!(
        "--build-context=python=oci-layout://{}:{}",
        python.display(),
        DebianBase::PythonSlim.name()
    );
    let (port, authority) = secure_service();
    let url = format!("https://127.0.0.1:{port}/file");
    // The step believes only what the bundle vouches for, and in the end says what it got.
    let fixture = Fixture::new(&format!(
        "FROM python AS step\n\
         COPY get.py /\n\
         RUN unset no_proxy NO_PROXY; python3 /get.py {url} > /got\n\
         FROM scratch\n\
         COPY --from=step /got /\n"
    ));
    fixture.context.file(
        "get.py",
        "import ssl, sys, urllib.error, urllib.request\n\
         bundle = ssl.create_default_context(cafile='/etc/ssl/certs/ca-certificates.crt')\n\
         try:\n    print(urllib.request.urlopen(sys.argv[1], context=bundle).read().decode())\n\
         except urllib.error.HTTPError as error:\n    print('refused', error.code)\n",
    );
    let trusted = fixture.home.work().join("trusted.pem");
    fs::write(&trusted, authority.pem()).unwrap();
    let build = |output: &str| {
        let build = fixture.build().args([&*base, "--network=proxy", "--no-cache"]);
        build.arg(format!("--output={output}"))
    };
    let out = fixture.home.work().join("out");
    let dest = format!("type=local,dest={}", out.display());
    let got = || fs::read_to_string(out.join("got")).unwrap();
    let ran = build(&dest).env("SSL_CERT_FILE", &trusted).ok();
    assert_eq!(got(), "over TLS\n");
    assert!(ran.to_string().contains(&format!("- GET {url} -> 200")), "{ran}");
    // The proxy believes servers no more than the host does.
    let ran = build(&dest).ok();
    assert_eq!(got(), "refused 502\n");
    assert!(ran.to_string().contains(&format!("- GET {url} -> 502")), "{ran}");
}
