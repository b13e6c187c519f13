//! `rbuild run`: what was built is tried without an engine; and `context`, `info`.

use serde_json::Value;

use crate::e2e::fixture::{Fixture, RBUILD};

fn built(dockerfile: &str) -> Fixture {
    let fixture = Fixture::new(dockerfile);
    fixture.build().args(["-t", "app"]).ok();
    fixture
}

#[test]
fn an_image_is_run_with_its_command_and_leaves_nothing() {
    let fixture = built(
        "FROM busybox\nENV GREETING=hello\nWORKDIR /work\nUSER 7\nENTRYPOINT [\"sh\", \"-c\"]\nCMD [\"echo $GREETING $(id -u) $PWD\"]\n",
    );
    let before = fixture.residue();
    let ran = fixture.rbuild(["run", "--rm", "app"]).ok();
    assert_eq!(ran.stdout_text(), "hello 7 /work");
    let run = |args: &[&str]| fixture.rbuild(["run", "--rm"]).args(args.iter().copied());
    assert_eq!(
        run(&["-e", "GREETING=bye", "-u", "0", "-w", "/", "app"])
            .ok()
            .stdout_text(),
        "bye 0 /"
    );
    assert_eq!(
        run(&["--env", "HERE", "app", "echo $HERE"])
            .env("HERE", "now")
            .ok()
            .stdout_text(),
        "now"
    );
    let file = fixture.home.work().join("vars");
    std::fs::write(&file, "# no\n\nGREETING=of a file\n").unwrap();
    let path = file.display().to_string();
    assert_eq!(
        run(&["--env-file", &path, "app", "echo $GREETING"])
            .ok()
            .stdout_text(),
        "of a file"
    );
    assert_eq!(
        run(&["--entrypoint", "cat", "-i", "app", "-"])
            .stdin("typed\n")
            .ok()
            .stdout_text(),
        "typed"
    );
    // What it wrote is gone.
    run(&["-u", "0", "app", "echo x > /left"]).ok();
    run(&["app", "test ! -e /left"]).ok();
    run(&["--read-only", "-u", "0", "app", "! echo x > /left"]).ok();
    // Names of the sandbox.
    run(&[
        "--add-host",
        "there:10.0.0.9",
        "app",
        "grep -q '10.0.0.9.*there' /etc/hosts",
    ])
    .ok();
    assert_eq!(
        run(&["--hostname", "mine", "app", "hostname"]).ok().stdout_text(),
        "mine"
    );
    assert_eq!(
        run(&["--network=none", "app", "ls /sys/class/net"])
            .ok()
            .stdout_text(),
        "lo"
    );
    fixture.assert_clean_since(&before);
}

#[test]
fn the_exit_code_is_the_programs_and_125_where_nothing_ran() {
    let fixture = built("FROM busybox\nCMD [\"true\"]\n");
    let code = |args: &[&str]| {
        let ran = fixture.rbuild(["run", "--rm"]).args(args.iter().copied()).run();
        ran.status.code()
    };
    assert_eq!(code(&["app"]), Some(0));
    assert_eq!(code(&["app", "sh", "-c", "exit 3"]), Some(3));
    assert_eq!(
        code(&["app", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]),
        Some(137)
    );
    assert_eq!(code(&["app", "/no/such/program"]), Some(127));
    assert_eq!(code(&["app", "no-such-program"]), Some(127));
    assert_eq!(code(&["app", "/etc"]), Some(126), "a directory is no program");
    assert_eq!(code(&["--pull=never", "nothing"]), Some(125));
    assert_eq!(code(&["--publish=80:80", "app"]), Some(125));
    fixture
        .rbuild(["run", "-d", "app"])
        .fails()
        .says("not supported: --detach");
    // An image without a name, by what the build printed.
    let id = fixture
        .build()
        .args(["-q", "--progress=quiet"])
        .ok()
        .stdout_text();
    assert_eq!(code(&[&id]), Some(0));
    let empty = built("FROM scratch\nLABEL a=b\n");
    empty.rbuild(["run", "app"]).fails().says("no command specified");
}

#[test]
fn a_report_says_what_is_sent_and_which_rule_decided() {
    let fixture = Fixture::new("FROM scratch\n");
    for (name, text) in [
        ("src/a", "12345"),
        ("node_modules/x/y", "0123456789"),
        ("node_modules/keep", "1"),
        (".dockerignore", "node_modules\n!node_modules/keep\nnever\n"),
    ] {
        fixture.context.file(name, text);
    }
    let shown = fixture
        .rbuild(["context", "--files"])
        .arg(fixture.context.dir())
        .ok();
    for line in [
        "0B     0       10B        1       node_modules/x",
        ".dockerignore:1 node_modules",
        ".dockerignore:3 never",
    ] {
        assert!(shown.stdout_text().contains(line), "{line}: {shown}");
    }
    let json = fixture
        .rbuild(["context", "--files", "--format=json"])
        .arg(fixture.context.dir())
        .ok();
    let report: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(report["Total"]["LeftOut"]["Bytes"], 10);
    let file = |path: &str| {
        let files = report["Files"].as_array().unwrap();
        files.iter().find(|file| file["Path"] == path).cloned().unwrap()
    };
    assert_eq!(file("node_modules/keep")["Sent"], true);
    assert_eq!(file("node_modules/keep")["Line"], 2);
    assert_eq!(file("node_modules/x/y")["Pattern"], "node_modules");
    assert_eq!(file("src/a")["Pattern"], Value::Null);
    // The report is what a build sees.
    std::fs::write(
        fixture.context.dir().join("Dockerfile"),
        "FROM scratch\nCOPY . /\n",
    )
    .unwrap();
    let (_, image) = fixture.image(&[]);
    let files = image.files().unwrap();
    assert!(files.text("node_modules/keep").is_some());
    assert!(files.text("node_modules/x/y").is_none());
    fixture.rbuild(["context", "/nowhere"]).fails().says("/nowhere");
}

#[test]
fn info_says_where_everything_is() {
    let fixture = Fixture::new("FROM scratch\n");
    let store = fixture.home.store().display().to_string();
    let shown = fixture.rbuild(["info"]).ok().stdout_text();
    assert!(shown.contains(&store), "{shown}");
    let root = fixture
        .rbuild(["system", "info", "-f", "{{.DockerRootDir}}"])
        .ok();
    assert_eq!(root.stdout_text(), store);
    let json = fixture.rbuild(["info", "-f", "json"]).ok();
    let said: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(said["OSType"], "linux");
    assert_eq!(said["Images"], 0);
}

#[test]
fn a_terminal_is_given_to_the_program() {
    let fixture = built("FROM busybox\n");
    fixture
        .rbuild(["run", "-it", "app", "true"])
        .fails()
        .says("the input device is not a TTY");
    let line = format!(
        "stty cols 77 rows 33; {RBUILD} run --rm -it app sh -c 'stty size; tty; exit 4'; echo code $?"
    );
    let ran = fixture.at_a_terminal(&line).ok();
    let text = ran.stdout_text();
    assert!(text.contains("/dev/"), "{text}");
    assert!(text.contains("33 77"), "{text}");
    assert!(text.contains("code 4"), "{text}");
}

#[test]
fn rootless_programs_of_an_image_run_too() {
    let Some(fixture) = Fixture::rootless("FROM busybox\nCMD [\"id\", \"-u\"]\n") else {
        return;
    };
    fixture.build().args(["-t", "app"]).ok();
    assert_eq!(fixture.rbuild(["run", "--rm", "app"]).ok().stdout_text(), "0");
    let user = fixture.rbuild(["run", "--rm", "-u", "7", "app"]).ok();
    assert_eq!(user.stdout_text(), "7");
    let info = fixture.rbuild(["info", "-f", "{{.Rootless}}"]).ok();
    assert_eq!(info.stdout_text(), "true");
}
