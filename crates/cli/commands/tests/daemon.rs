//! The program as BuildKit's daemon: its flags and its configuration.

use super::*;

/// Runs the program as BuildKit's daemon.
fn buildkitd_with(line: &[&str]) -> (Result<(), CommandError>, Vec<String>) {
    let fake = Fake::default();
    let asked = Rc::clone(&fake.asked);
    let fake = Rc::new(RefCell::new(fake));
    let args = Buildkitd::try_parse_from(std::iter::once(&"buildkitd").chain(line)).unwrap();
    let open = move |options: EngineOptions| -> Result<Box<dyn Engine>, EngineError> {
        fake.borrow().ask(format!("root {:?}", options.root));
        Ok(Box::new(Rc::clone(&fake)))
    };
    let (mut env, _, _) = env(&[("HOME", "/home/u")], b"");
    let done = buildkitd(&args, &mut env, &open);
    let asked = asked.borrow().clone();
    (done, asked)
}

#[test]
fn buildkitd_takes_the_flags_of_buildkits_tests() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("buildkitd.toml");
    std::fs::write(&config, "insecure-entitlements = [\"network.host\"]\n").unwrap();
    let config = format!("--config={}", config.display());
    let (done, asked) = buildkitd_with(&[
        "--oci-worker=true",
        "--containerd-worker=false",
        "--oci-worker-gc=false",
        "--oci-worker-labels=a.b=true,c=d",
        &config,
        "--root",
        "/r",
        "--addr",
        "unix:///r/s.sock",
        "--debug",
    ]);
    done.unwrap();
    assert_eq!(asked[0], "root Some(\"/r/rbuild\")");
    assert_eq!(asked[1], "serve [\"unix:///r/s.sock\"] None None [NetworkHost]");
    for label in ["\"a.b\": \"true\"", "\"c\": \"d\""] {
        assert!(asked[2].contains(label), "{asked:?}");
    }
}

#[test]
fn a_daemon_that_cannot_be_is_refused_by_name() {
    for (line, words) in [
        (&["--oci-worker=false"][..], "--oci-worker=false"),
        (&["--containerd-worker=true"], "containerd"),
        (&["--idle-timeout=soon"], "soon"),
        (&["--allow-insecure-entitlement=everything"], "everything"),
        (&["--oci-worker-labels=alone"], "alone"),
        (&["--group=no such group"], "no such group"),
        (&["--tlscert=/c", "--tlskey=/k"], "--tlscacert"),
        (&["--tlscacert=/a"], "--tlscert"),
        (&["--oci-worker-selinux"], "SELinux"),
        (&["--oci-worker-apparmor-profile=p"], "AppArmor"),
        (&["--oci-worker-gc-keepstorage=much"], "much"),
        (&["--log-level=loud"], "loud"),
    ] {
        let (done, asked) = buildkitd_with(line);
        let Err(CommandError::Failed(diagnostic)) = done else {
            panic!("{line:?} was taken: {asked:?}");
        };
        assert!(
            diagnostic.message.contains(words),
            "{line:?}: {}",
            diagnostic.message
        );
    }
    let (done, asked) = buildkitd_with(&["--idle-timeout=5m", "--addr=unix:///a"]);
    done.unwrap();
    assert!(asked[1].contains("Some(300s)"), "{asked:?}");
}

#[test]
fn buildkitd_takes_what_drivers_of_buildx_pass() {
    let (done, asked) = buildkitd_with(&[
        "--allow-insecure-entitlement=network.host",
        "--oci-worker-no-process-sandbox",
        "--tlscacert=/a",
        "--tlscert=/c",
        "--tlskey=/k",
        "--oci-worker-gc-keepstorage=10,20,30",
        "--addr=tcp://0.0.0.0:1234",
        "--addr=fd://",
    ]);
    done.unwrap();
    assert!(
        asked[1].contains("[\"tcp://0.0.0.0:1234\", \"fd://\"]"),
        "{asked:?}"
    );
    assert!(asked[1].contains("[NetworkHost]"), "{asked:?}");
    assert_eq!(
        asked[3],
        "tls Some(ServerFiles { ca: \"/a\", own: Pair { cert: \"/c\", key: \"/k\" } })"
    );
    assert_eq!(
        asked[4],
        "gc Standard(Some(Limits { reserved: Bytes(10000000), max_used: Bytes(30000000), min_free: Bytes(20000000) }))"
    );
}

#[test]
fn what_the_configuration_says_is_served_and_flags_win() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("buildkitd.toml");
    let text = "root = \"/kept\"\ninsecure-entitlements = [\"network.host\"]\n[grpc]\naddress = [\"unix:///a\"]\n\
                [grpc.tls]\nca = \"/a\"\ncert = \"/c\"\nkey = \"/k\"\n[worker.oci]\n[[worker.oci.gcpolicy]]\nkeepBytes = 5\n";
    std::fs::write(&path, text).unwrap();
    let config = format!("--config={}", path.display());
    let (done, asked) = buildkitd_with(&[&config]);
    done.unwrap();
    assert_eq!(asked[0], "root Some(\"/kept/rbuild\")");
    assert_eq!(asked[1], "serve [\"unix:///a\"] None None [NetworkHost]");
    assert!(asked[3].contains("\"/c\""), "{asked:?}");
    assert!(
        asked[4].starts_with("gc Listed([") && asked[4].contains("reserved: Bytes(5)"),
        "{asked:?}"
    );
    let (done, asked) = buildkitd_with(&[
        &config,
        "--allow-insecure-entitlement=security.insecure",
        "--addr=unix:///b",
        "--oci-worker-gc=false",
    ]);
    done.unwrap();
    assert_eq!(asked[1], "serve [\"unix:///b\"] None None [SecurityInsecure]");
    assert_eq!(asked[4], "gc Off");
}

#[test]
fn devices_are_described_where_the_configuration_says_and_can_be_switched_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("buildkitd.toml");
    let cdi = |text: &str, flags: &[&str]| {
        std::fs::write(&path, text).unwrap();
        let config = format!("--config={}", path.display());
        let flags: Vec<&str> = [config.as_str(), "--addr=unix:///a"]
            .into_iter()
            .chain(flags.iter().copied())
            .collect();
        let (done, asked) = buildkitd_with(&flags);
        done.unwrap();
        asked[5].clone()
    };
    let usual = cdi("", &[]);
    assert!(
        usual.contains(r#"["/etc/cdi", "/var/run/cdi", "/etc/buildkit/cdi"]"#),
        "{usual}"
    );
    let set = "[cdi]\nspecDirs = [\"/s\"]\nautoAllowed = [\"v.com/c\"]\n";
    let own = cdi(set, &[]);
    assert!(
        own.contains(r#"dirs: ["/s"], auto_allowed: ["v.com/c"]"#),
        "{own}"
    );
    let flag = cdi(set, &["--cdi-spec-dir=/f"]);
    assert!(
        flag.contains(r#"dirs: ["/f"], auto_allowed: ["v.com/c"]"#),
        "{flag}"
    );
    assert_eq!(cdi(set, &["--cdi-disabled"]), "cdi None");
    assert_eq!(cdi("[cdi]\ndisabled = true\n", &[]), "cdi None");
    assert_ne!(
        cdi("[cdi]\ndisabled = true\n", &["--cdi-disabled=false"]),
        "cdi None"
    );
}

#[test]
fn a_daemon_keeps_its_store_where_buildkitd_does() {
    let (done, asked) = buildkitd_with(&["--addr=unix:///a"]);
    done.unwrap();
    let expected = if rustix::process::geteuid().is_root() {
        "/var/lib/buildkit/rbuild"
    } else {
        "/home/u/.local/share/buildkit/rbuild"
    };
    assert_eq!(asked[0], format!("root Some({expected:?})"));
}

#[test]
fn drivers_of_buildx_find_the_version_at_its_place() {
    let shown = Buildkitd::command().render_version();
    let words: Vec<&str> = shown.split_whitespace().collect();
    assert_eq!(words.len(), 4, "{shown}");
    assert!(words[2].starts_with('v'), "{shown}");
}
