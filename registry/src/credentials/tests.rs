//! Credential files and helpers: whose entry is used, and which files and helpers are not believed.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use super::*;
use base64::Engine as _;

/// A home directory with a Docker config, and a directory of helpers as the whole PATH.
struct Home {
    dir: tempfile::TempDir,
    env: BTreeMap<String, String>,
}

impl Home {
    fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for sub in [".docker", "bin", "canary"] {
            std::fs::create_dir(dir.path().join(sub)).expect("a directory");
        }
        std::fs::write(dir.path().join(".docker/config.json"), config).expect("a file");
        let env = BTreeMap::from([
            ("HOME".to_owned(), dir.path().display().to_string()),
            ("PATH".to_owned(), dir.path().join("bin").display().to_string()),
        ]);
        Self { dir, env }
    }

    fn helper(&self, name: &str, script: &str) {
        let path = self
            .dir
            .path()
            .join("bin")
            .join(format!("docker-credential-{name}"));
        std::fs::write(&path, format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("mode");
    }

    fn load(&self) -> Credentials {
        Credentials::load(&CredentialSources {
            env: self.env.clone(),
            helper_timeout: Duration::from_secs(3),
        })
    }

    fn find(&self, host: &str) -> Found {
        self.load().find_blocking(&canonical_host(host), "a/b", true)
    }

    fn user(&self, host: &str) -> Option<String> {
        user(&self.find(host))
    }
}

fn user(found: &Found) -> Option<String> {
    match &found.credential {
        Some(Credential::Basic { username, .. }) => Some(username.clone()),
        Some(other) => Some(format!("{other:?}")),
        None => None,
    }
}

fn auth(user: &str) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:pw"));
    format!(r#"{{"auth":"{encoded}"}}"#)
}

#[test]
fn row35_an_entry_is_for_its_exact_host_and_port() {
    let home = Home::new(&format!(
        r#"{{"auths":{{"reg.example":{},"reg.example:444":{},"https://tls.example/v1/":{},"https://index.docker.io/v1/":{}}}}}"#,
        auth("plain"),
        auth("port"),
        auth("url"),
        auth("hub")
    ));
    for (host, expected) in [
        ("reg.example", Some("plain")),
        ("REG.example:443", Some("plain")),
        ("reg.example:444", Some("port")),
        ("reg.example:445", None),
        ("reg.example.evil.net", None),
        ("xreg.example", None),
        ("example", None),
        ("tls.example", Some("url")),
        ("docker.io", Some("hub")),
        ("registry-1.docker.io", Some("hub")),
        ("index.docker.io", Some("hub")),
        ("auth.docker.io", None),
    ] {
        assert_eq!(home.user(host).as_deref(), expected, "{host}");
    }
    let plain_http = home.load().find_blocking("tls.example", "a", false);
    assert_eq!(plain_http.credential, None, "a key with https:// is for TLS only");
}

#[test]
fn entries_of_repositories_win_over_the_host() {
    let home = Home::new(&format!(
        r#"{{"auths":{{"q.example":{},"q.example/team":{},"q.example/team/app":{}}}}}"#,
        auth("host"),
        auth("team"),
        auth("app")
    ));
    let credentials = home.load();
    for (repository, expected) in [
        ("team/app", "app"),
        ("team/app/x", "app"),
        ("team/application", "team"),
        ("teams/app", "host"),
        ("x", "host"),
    ] {
        let found = credentials.find_blocking("q.example", repository, true);
        assert_eq!(user(&found).as_deref(), Some(expected), "{repository}");
    }
}

#[test]
fn every_kind_of_entry_is_read() {
    let home = Home::new(
        r#"{"auths":{"a":{"identitytoken":"idt"},"b":{"registrytoken":"rt"},"c":{"username":"u","password":"p"},
            "d":{},"e":{"auth":"!"},"f":{"auth":"bm8tY29sb24="}}}"#,
    );
    assert!(matches!(home.find("a").credential, Some(Credential::Identity(s)) if s.reveal() == "idt"));
    assert!(matches!(home.find("b").credential, Some(Credential::Bearer(s)) if s.reveal() == "rt"));
    assert_eq!(home.user("c").as_deref(), Some("u"));
    for host in ["d", "e", "f"] {
        assert_eq!(home.find(host).credential, None, "{host}");
    }
    assert!(home.find("e").tried.contains("not base64"));
}

#[test]
fn sources_are_asked_in_order() {
    let mut home = Home::new(&format!(r#"{{"auths":{{"r":{}}}}}"#, auth("docker")));
    let podman = home.dir.path().join("podman.json");
    std::fs::write(
        &podman,
        format!(r#"{{"auths":{{"r":{},"p":{}}}}}"#, auth("podman"), auth("podman")),
    )
    .expect("file");
    home.env
        .insert("REGISTRY_AUTH_FILE".to_owned(), podman.display().to_string());
    assert_eq!(home.user("r").as_deref(), Some("docker"));
    assert_eq!(home.user("p").as_deref(), Some("podman"));
    home.env.insert(
        "DOCKER_AUTH_CONFIG".to_owned(),
        format!(r#"{{"auths":{{"r":{}}}}}"#, auth("inline")),
    );
    assert_eq!(home.user("r").as_deref(), Some("inline"));
    let none = home.find("other");
    assert!(
        none.tried.contains("DOCKER_AUTH_CONFIG") && none.tried.contains("podman.json"),
        "{}",
        none.tried
    );
}

#[test]
fn row35_helpers_with_unsafe_names_are_not_run() {
    for name in ["../../tmp/evil", "a b;touch canary/x", "", "a/b", "$(x)", "a\nb"] {
        let config = serde_json::json!({"credHelpers": {"reg": name}, "auths": {"other": {"auth": "YTpi"}}});
        let home = Home::new(&config.to_string());
        let found = home.find("reg");
        assert_eq!(found.credential, None, "{name}");
        assert!(found.tried.contains("name is not allowed"), "{}", found.tried);
        assert!(!found.tried.contains('\n'));
        assert_eq!(
            std::fs::read_dir(home.dir.path().join("canary"))
                .expect("dir")
                .count(),
            0
        );
    }
}

#[test]
fn row35_a_helper_below_the_directory_of_the_build_is_not_run() {
    let mut home = Home::new(r#"{"credHelpers":{"reg":"own"}}"#);
    home.helper("own", "printf '{\"Username\":\"u\",\"Secret\":\"s\"}'");
    assert_eq!(home.user("reg").as_deref(), Some("u"));
    // The same directory, as it is found from here.
    let here = std::env::current_dir().expect("a directory");
    let up = "../".repeat(here.components().count());
    let relative = format!("{up}{}", &home.env["PATH"][1..]);
    assert!(Path::new(&relative).join("docker-credential-own").exists());
    home.env.insert("PATH".to_owned(), format!(":{relative}"));
    let found = home.find("reg");
    assert_eq!(found.credential, None);
    assert!(
        found.tried.contains("docker-credential-own is not in PATH"),
        "{}",
        found.tried
    );
}

#[test]
fn row35_a_helper_that_has_none_for_its_host_means_anonymous() {
    let entry = auth("other");
    let config = format!(
        r#"{{"credHelpers":{{"reg":"empty"}},"credsStore":"empty","auths":{{"reg":{entry},"old":{entry}}}}}"#
    );
    let home = Home::new(&config);
    home.helper("empty", "echo credentials not found in native keychain; exit 1");
    let found = home.find("reg");
    assert_eq!(found.credential, None, "{}", found.tried);
    // What is left of a time before there was a store counts, as with docker.
    assert_eq!(home.user("old").as_deref(), Some("other"));
}

#[test]
fn row35_a_failing_helper_means_anonymous() {
    let hub = auth("hub");
    let config =
        format!(r#"{{"credsStore":"missing","auths":{{"https://index.docker.io/v1/":{hub},"reg":{hub}}}}}"#);
    let home = Home::new(&config);
    let found = home.find("reg");
    assert_eq!(
        found.credential, None,
        "an auths entry does not replace the store that failed"
    );
    assert!(
        found.tried.contains("docker-credential-missing is not in PATH"),
        "{}",
        found.tried
    );

    let home =
        Home::new(r#"{"credHelpers":{"reg":"bad","none":"none","lie":"lie","flood":"flood","junk":"junk"}}"#);
    home.helper("bad", "printf 'no \\033[31m keyring' >&2; exit 1");
    home.helper("none", "echo 'credentials not found in native keychain'; exit 1");
    home.helper(
        "lie",
        r#"echo '{"ServerURL":"other.example","Username":"u","Secret":"s"}'"#,
    );
    home.helper("flood", "yes");
    home.helper("junk", "echo nonsense");
    let found = home.find("reg");
    assert!(
        found.credential.is_none() && found.tried.contains("no \\u{1b}[31m keyring"),
        "{}",
        found.tried
    );
    assert!(home.find("none").tried.contains("has none for none"));
    for (host, why) in [
        ("lie", "answered for other.example"),
        ("flood", "more than"),
        ("junk", "malformed"),
    ] {
        let found = home.find(host);
        assert!(
            found.credential.is_none() && found.tried.contains(why),
            "{host}: {}",
            found.tried
        );
    }
}

#[test]
fn row35_a_hanging_helper_is_ended() {
    let home = Home::new(r#"{"credHelpers":{"reg":"hang"}}"#);
    home.helper("hang", r#"sleep 60 & echo $! >"${0%/*}/started"; sleep 60"#);
    let started = Instant::now();
    let found = home.find("reg");
    assert!(started.elapsed() < Duration::from_secs(20));
    assert!(
        found.credential.is_none() && found.tried.contains("did not finish within 3 s"),
        "{}",
        found.tried
    );
    // What it started has gone with it.
    let started = std::fs::read_to_string(home.dir.path().join("bin/started")).expect("a process id");
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", started.trim()));
    let is_gone = || state().map_or(true, |stat| stat.contains(") Z "));
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_gone() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(
        is_gone(),
        "process {} of the helper is still there",
        started.trim()
    );
}

#[test]
fn row35_a_helper_that_does_not_read_what_it_is_given_is_ended() {
    let home = Home::new("{}");
    home.helper("deaf", "sleep 60");
    home.helper("slow", r#"sleep 0.2; wc -c >"${0%/*}/read""#);
    // More than a pipe holds.
    let secret = Secret::new("s".repeat(200 << 10));
    let store = |name: &str| {
        let helper = Helper::find(name, &home.env["PATH"]).expect("a helper");
        helper.store("reg", "u", &secret, Duration::from_secs(3))
    };
    let started = Instant::now();
    let error = store("deaf").expect_err("it does not read");
    assert!(matches!(error, HelperError::Timeout { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(20));
    store("slow").expect("the twin reads all of it, if late");
    let read = std::fs::read_to_string(home.dir.path().join("bin/read")).expect("what it read");
    assert!(
        read.trim().parse::<usize>().expect("a number") > 200 << 10,
        "{read}"
    );
}

#[test]
fn row35_legal_twin_helpers_give_their_hosts_credential() {
    let home = Home::new(r#"{"credsStore":"store","credHelpers":{"reg:5000":"one.two-3_x"}}"#);
    home.helper(
        "one.two-3_x",
        r#"read -r url; echo "{\"ServerURL\":\"$url\",\"Username\":\"at $url\",\"Secret\":\"s\"}""#,
    );
    home.helper(
        "store",
        r#"read -r url; echo "$url" >>"${0%/*}/asked"; echo '{"Username":"<token>","Secret":"refresh"}'"#,
    );
    assert_eq!(home.user("reg:5000").as_deref(), Some("at reg:5000"));
    assert!(
        !home.dir.path().join("bin/asked").exists(),
        "only the helper of the host in use is run"
    );
    assert!(
        matches!(home.find("docker.io").credential, Some(Credential::Identity(s)) if s.reveal() == "refresh")
    );
    let asked = std::fs::read_to_string(home.dir.path().join("bin/asked")).expect("asked");
    assert_eq!(asked.trim(), HUB_ADDRESS);
}

#[test]
fn row35_odd_files_are_not_read() {
    let home = Home::new("{}");
    let path = home.dir.path().join(".docker/config.json");
    std::fs::remove_file(&path).expect("removed");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .expect("a FIFO");
    assert!(home.find("reg").tried.contains("is not a regular file"));
    std::fs::remove_file(&path).expect("removed");
    std::fs::write(&path, vec![b' '; 2 << 20]).expect("a file");
    assert!(home.find("reg").tried.contains("is larger than"));
    std::fs::write(&path, "{\"auths\": [").expect("a file");
    assert!(home.find("reg").tried.contains("is malformed"));
    // The legal twin: a link to a regular file, as dotfile managers make.
    let real = home.dir.path().join("real.json");
    std::fs::write(&real, format!(r#"{{"auths":{{"reg":{}}}}}"#, auth("linked"))).expect("a file");
    std::fs::remove_file(&path).expect("removed");
    std::os::unix::fs::symlink(&real, &path).expect("a link");
    assert_eq!(home.user("reg").as_deref(), Some("linked"));
}

#[test]
fn privileged_row35_a_file_that_anyone_could_have_written_is_not_used() {
    let home = Home::new(&format!(r#"{{"auths":{{"reg":{}}}}}"#, auth("planted")));
    let path = home.dir.path().join(".docker/config.json");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("mode");
    assert_eq!(
        home.user("reg").as_deref(),
        Some("planted"),
        "our own file, however careless"
    );
    if let Err(error) = std::os::unix::fs::chown(&path, Some(12345), None) {
        println!("SKIP: cannot give the file to another user: {error}");
        return;
    }
    let found = home.find("reg");
    assert!(
        found.credential.is_none() && found.tried.contains("writable by everyone"),
        "{}",
        found.tried
    );
}

#[test]
fn secrets_are_not_printed() {
    let home = Home::new(r#"{"auths":{"r":{"username":"u","password":"hunter2"}}}"#);
    let shown = format!("{:?} {:?}", home.load(), home.find("r"));
    assert!(!shown.contains("hunter2"), "{shown}");
}
