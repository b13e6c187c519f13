//! Row 45 on whole builds: what an image says of itself is data. It steers no store, no mount, no user and no right.

use std::time::Duration;

use rbuild_testkit::layout::LayerBuilder;
use serde_json::{Map, Value, json};

use crate::e2e::hostile::canary::{Rung, Site};

/// What a base image does not say and a step has anyway.
const USUAL: [&str; 4] = [
    "HOME=/root",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PWD=/",
    "SHLVL=1",
];

const LOOKS: &str = "RUN /bin/pwd > /pwd; /bin/id -u > /id; /bin/env | /bin/sort > /env\n";

/// A build FROM an image with this `config` member.
fn site(rung: Rung, config: Value, steps: &str) -> (Site, String) {
    let site = Site::on(rung, "");
    let text = format!("FROM evil\n{steps}");
    site.fixture.context.file("f", "f\n").dockerfile(&text);
    let evil = site.evil(config, vec![LayerBuilder::new()]);
    (site, evil)
}

fn environment(more: &[&str]) -> String {
    let mut lines: Vec<&str> = USUAL.iter().chain(more).copied().collect();
    lines.sort_unstable();
    lines.join("\n") + "\n"
}

#[test]
fn row45_labels_volumes_and_other_names_of_an_image_steer_nothing() {
    let labels = json!({
        "rbuild.store": "/", "buildkit.cache": "x", "containerd.io/gc.ref.content.0": "sha256:0", "io.containers.capabilities": "all",
        "a=b": "c", "new\nline": "::set-output name=x::y", "": "empty",
    });
    let cases = [
        json!({"Labels": labels}),
        json!({"Volumes": {"/../../canary": {}, "": {}, "relative": {}, "/bin": {}, "/v\n": {}}}),
        json!({"ExposedPorts": {"99999999/tcp": {}, "../x": {}}}),
        json!({"StopSignal": "NO SIGNAL\n"}),
        json!({"Healthcheck": {"Test": ["CMD", "x"], "Interval": -1, "Retries": 99_999_999_999_999_i64}}),
        json!({"Env": null, "Cmd": null, "Entrypoint": null, "Labels": null, "Volumes": null, "OnBuild": null,
            "ExposedPorts": null, "Shell": null}),
        json!({"Shell": [], "Entrypoint": ["/nowhere"], "Cmd": []}),
        json!({"Unknown": {"devices": ["/dev/sda"], "Privileged": true}, "Privileged": true, "Binds": ["/:/host"]}),
    ];
    for rung in Rung::here() {
        for config in &cases {
            let (site, evil) = site(rung, config.clone(), LOOKS);
            let files = site.works(std::slice::from_ref(&evil));
            assert_eq!(files.text("env"), Some(environment(&[]).as_str()), "{config}");
            assert_eq!(
                (files.text("pwd"), files.text("id")),
                (Some("/\n"), Some("0\n")),
                "{config}"
            );
            let top: Vec<&str> = files.paths().filter(|path| !path.contains('/')).collect();
            assert!(
                ["canary", "relative", "host", "v\n"]
                    .iter()
                    .all(|name| !top.contains(name)),
                "{config}: {top:?}"
            );
            // What was said is handed on as it was said.
            let (_, image) = site.fixture.image(&[&evil]);
            for member in ["Labels", "Volumes"] {
                if config[member].is_object() {
                    assert_eq!(image.run_config()[member], config[member]);
                }
            }
        }
    }
}

#[test]
fn row45_a_hundred_thousand_labels_and_one_of_ten_megabytes_are_only_data() {
    let many: Map<String, Value> = (0..100_000).map(|n| (format!("label.{n}"), json!("x"))).collect();
    for labels in [Value::Object(many), json!({"big": "x".repeat(10 << 20)})] {
        let (site, evil) = site(Rung::Root, json!({"Labels": labels}), "LABEL own=1\n");
        let (ran, image) = site.fixture.image(&[&evil]);
        assert!(ran.elapsed < Duration::from_secs(60), "{:?}", ran.elapsed);
        let kept = image.run_config()["Labels"].as_object().unwrap();
        assert_eq!(kept.len(), labels.as_object().unwrap().len() + 1);
    }
}

#[test]
fn row45_a_working_directory_that_climbs_is_one_of_the_image() {
    for rung in Rung::here() {
        for (told, made) in [
            ("../../canary", "/canary/sub"),
            ("/../../../canary/./x", "/canary/x/sub"),
        ] {
            let (site, evil) = site(
                rung,
                json!({"WorkingDir": told}),
                &format!("WORKDIR sub\nCOPY f here\n{LOOKS}"),
            );
            let files = site.works(&[evil]);
            assert_eq!(files.text("pwd"), Some(format!("{made}\n").as_str()));
            assert_eq!(files.text(&format!("{}/here", &made[1..])), Some("f\n"));
        }
    }
}

#[test]
fn row45_variables_of_an_image_are_the_steps_and_odd_ones_are_dropped() {
    for rung in Rung::here() {
        for (env, seen) in [
            (json!([""]), environment(&[])),
            (json!(["=x"]), environment(&[])),
            (json!(["A"]), environment(&["A="])),
            (
                json!([
                    "RBUILD_ROOT=/canary",
                    "LD_PRELOAD=/x.so",
                    "DOCKER_CONFIG=/canary",
                    "REGISTRY_AUTH_FILE=/x"
                ]),
                environment(&[
                    "RBUILD_ROOT=/canary",
                    "LD_PRELOAD=/x.so",
                    "DOCKER_CONFIG=/canary",
                    "REGISTRY_AUTH_FILE=/x",
                ]),
            ),
        ] {
            let (site, evil) = site(rung, json!({"Env": env}), LOOKS);
            let files = site.works(&[evil]);
            assert_eq!(files.text("env"), Some(seen.as_str()), "{env}");
        }
    }
}

#[test]
fn row45_what_cannot_be_meant_is_refused_by_what_it_is() {
    let cases = [
        (
            json!({"User": "a\u{0}b"}),
            "unable to find user a\\x00b: no matching entries in passwd file",
        ),
        (
            json!({"User": "0\u{0}:0"}),
            "unable to find user 0\\x00: no matching",
        ),
        (
            json!({"User": "root\n::set-output name=x::y"}),
            "unable to find user root",
        ),
        (
            json!({"User": "4294967296"}),
            "uids and gids must be in range 0-2147483647",
        ),
        (json!({"User": 0}), "image config is malformed"),
        (json!({"WorkingDir": "/a\u{0}b"}), "working directory \"/a\\0b\""),
        (
            json!({"Env": ["A=a\u{0}B=b"]}),
            "a NUL byte in argument or environment",
        ),
        (json!({"Env": [1]}), "image config is malformed"),
        (json!({"Healthcheck": "text"}), "image config is malformed"),
        (
            json!({"Healthcheck": {"Interval": "soon"}}),
            "image config is malformed",
        ),
        (
            json!({"Shell": ["/nowhere", "-c"]}),
            "run \"/nowhere\": No such file or directory",
        ),
        (json!({"OnBuild": [1]}), "image config is malformed"),
    ];
    for rung in Rung::here() {
        for (config, because) in &cases {
            let (site, evil) = site(rung, config.clone(), LOOKS);
            let told = site.build(&[evil]).expect_err("it was built");
            assert!(told.contains(because), "{config}: {told}");
            assert!(
                told.lines().all(|line| !line.trim_start().starts_with("::")),
                "a line of the image's own: {told}"
            );
        }
    }
}

#[test]
fn row45_triggers_of_an_image_have_no_right_that_the_build_was_not_given() {
    let cases = [
        ("FROM scratch", "FROM isn't allowed as an ONBUILD trigger"),
        (
            "RUN true\nFROM scratch",
            "onbuild trigger should be a single expression",
        ),
        ("NOTHING \u{1b}[31m", "unknown instruction: NOTHING"),
        ("", "the Dockerfile cannot be empty"),
        ("RUN --security=insecure true", "security.insecure is not allowed"),
        ("RUN --network=host true", "network.host is not allowed"),
        (
            "RUN --mount=type=secret,id=s,required=true cat /run/secrets/s",
            "secret s: not found",
        ),
        (
            "RUN --mount=type=ssh,required=true true",
            "no SSH key \"\" forwarded from the client",
        ),
        ("COPY ../canary/secret /stolen", "\"/canary/secret\": not found"),
        ("RUN --mount=source=../canary,target=/m cat /m/secret", "canary"),
        ("ADD http://169.254.169.254/x /stolen", "it is link-local"),
    ];
    for rung in Rung::here() {
        for (trigger, because) in cases {
            let (site, evil) = site(rung, json!({"OnBuild": [trigger]}), "");
            site.refused(&[evil], because);
        }
        // Where a mount is not required there is nothing in its place.
        for trigger in [
            "RUN --mount=type=secret,id=s test ! -e /run/secrets/s && echo none > /seen",
            "RUN --mount=type=ssh test ! -e /run/buildkit && echo none > /seen",
        ] {
            let (site, evil) = site(rung, json!({"OnBuild": [trigger]}), "");
            assert_eq!(
                site.works(&[evil]).text("seen"),
                Some("none\n"),
                "{rung:?} {trigger}"
            );
        }
    }
}

#[test]
fn row45_legal_twin_triggers_see_what_the_build_gives_them() {
    for rung in Rung::with_mounts() {
        let triggers = json!([
            "COPY f /copied",
            "RUN --mount=type=secret,id=s cut -c1-3 /run/secrets/s > /seen",
            "RUN --network=host echo yes > /network",
        ]);
        let (site, evil) = site(rung, json!({"OnBuild": triggers}), "");
        let secret = site.fixture.home.work().join("s");
        std::fs::write(&secret, "abcdef\n").unwrap();
        let files = site.works(&[
            evil,
            format!("--secret=id=s,src={}", secret.display()),
            "--allow=network.host".to_owned(),
        ]);
        let texts = ["copied", "seen", "network"].map(|name| files.text(name));
        assert_eq!(texts, [Some("f\n"), Some("abc\n"), Some("yes\n")], "{rung:?}");
    }
}

#[test]
fn row45_names_in_a_layout_are_not_given_to_images_of_the_store() {
    let (site, evil) = site(
        Rung::Root,
        json!({"Labels": {"org.opencontainers.image.ref.name": "busybox:latest"}}),
        LOOKS,
    );
    let index = site.fixture.home.work().join("evil/index.json");
    let mut document: Value = serde_json::from_slice(&std::fs::read(&index).unwrap()).unwrap();
    let annotations = document["manifests"][0]["annotations"].as_object_mut().unwrap();
    for (key, value) in [
        ("io.containerd.image.name", "docker.io/library/busybox:latest"),
        ("rbuild.name", "../../x"),
    ] {
        annotations.insert(key.to_owned(), json!(value));
    }
    std::fs::write(&index, document.to_string()).unwrap();
    let images = |site: &Site| {
        site.fixture
            .rbuild(["images", "--format={{.Repository}}:{{.Tag}}"])
            .ok()
            .stdout_text()
    };
    site.fixture.build().arg(&evil).args(["-t", "own:1"]).ok();
    assert_eq!(images(&site), "own:1", "a name comes from `-t` alone");
}
