//! `rbuild bake`: targets of files, built. What files come to is compared with buildx in `crates/bake/tests`.

use std::fs;

use crate::e2e::fixture::{Fixture, busybox_argument};

/// A fixture whose directory has a bake file; `base` is the busybox base.
fn fixture(bake: &str, dockerfile: &str) -> Fixture {
    let fixture = Fixture::new(dockerfile);
    let base = busybox_argument("busybox");
    let base = base
        .split_once('=')
        .and_then(|(_, rest)| rest.split_once('='))
        .expect("a context")
        .1;
    fs::write(
        fixture.context.dir().join("docker-bake.hcl"),
        bake.replace("BASE", base),
    )
    .unwrap();
    fixture
}

fn bake(fixture: &Fixture, args: &[&str]) -> rbuild_testkit::command::RbuildCommand {
    let command = fixture.rbuild(["buildx", "bake", "--progress=plain", "--allow=fs=*"]);
    command.args(args).current_dir(fixture.context.dir())
}

const LINKED: &str = r#"
group "default" { targets = ["one", "two"] }
target "_busybox" {
  contexts = { busybox = "BASE" }
}
target "base" {
  inherits = ["_busybox"]
  dockerfile-inline = <<EOT
FROM busybox
ENV ORIGIN=yes
RUN echo base > /base
EOT
}
target "one" {
  contexts = { base = "target:base" }
  dockerfile-inline = <<EOT
FROM base
RUN test $ORIGIN = yes && cp /base /one
EOT
  tags = ["one:1"]
}
target "two" {
  contexts = { base = "target:base" }
  dockerfile-inline = <<EOT
FROM scratch
COPY --from=base /base /two
EOT
  output = ["type=local,dest=out"]
}
"#;

#[test]
fn targets_are_built_from_each_other() {
    let fixture = fixture(LINKED, "FROM scratch\n");
    let residue = fixture.residue();
    let metadata = fixture.home.work().join("metadata.json");
    let ran = bake(&fixture, &["--metadata-file"]).arg(&metadata).ok();
    // Each step is told with the name of its target, and the one that both need runs once.
    assert_eq!(ran.stderr.matches("[base 1/2] RUN echo base").count(), 1, "{ran}");
    assert!(ran.stderr.contains("[one 1/2] RUN test"), "{ran}");
    assert_eq!(
        fs::read_to_string(fixture.context.dir().join("out/two")).unwrap(),
        "base\n"
    );
    let shown = fixture
        .rbuild(["run", "--rm", "one:1", "cat", "/one"])
        .ok()
        .stdout_text();
    assert_eq!(shown, "base");
    let told: serde_json::Value = serde_json::from_str(&fs::read_to_string(&metadata).unwrap()).unwrap();
    let digest = told["one"]["containerimage.digest"].as_str().unwrap();
    assert!(digest.starts_with("sha256:"), "{told}");
    assert!(told["two"].is_object(), "{told}");
    fixture.assert_clean_since(&residue);
}

#[test]
fn the_first_target_that_fails_stops_the_others_and_is_named() {
    let text = r#"
group "default" { targets = ["bad", "slow"] }
target "_busybox" { contexts = { busybox = "BASE" } }
target "bad" {
  inherits = ["_busybox"]
  dockerfile-inline = "FROM busybox\nRUN exit 7\n"
}
target "slow" {
  inherits = ["_busybox"]
  dockerfile-inline = "FROM busybox\nRUN sleep 300\n"
}
"#;
    let fixture = fixture(text, "FROM scratch\n");
    let begun = std::time::Instant::now();
    let ran = bake(&fixture, &[]).fails();
    assert!(begun.elapsed().as_secs() < 200, "{ran}");
    ran.says("target bad: ").says("exit code: 7");
}

#[test]
fn flags_of_bake_print_what_would_be_built() {
    let text = "target \"default\" {\n  tags = [\"x\"]\n}\n";
    let fixture = fixture(text, "FROM scratch\n");
    let printed = bake(
        &fixture,
        &["--print", "--push", "--no-cache", "--set", "*.args.A=1"],
    )
    .ok()
    .stdout_text();
    let printed: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let target = &printed["target"]["default"];
    assert_eq!(
        target["output"],
        serde_json::json!([{ "push": "true", "type": "image" }])
    );
    assert_eq!(target["no-cache"], true);
    assert_eq!(target["args"]["A"], "1");
    let listed = bake(&fixture, &["--list=targets"]).ok().stdout_text();
    assert!(
        listed.starts_with("TARGET") && listed.contains("default"),
        "{listed}"
    );
    let fixture = self::fixture("target \"default\" {\n  tags = [missing]\n}\n", "");
    let ran = bake(&fixture, &["--print"]).fails();
    ran.says("docker-bake.hcl:2")
        .says("There is no variable named \"missing\"");
}

#[test]
fn compose_files_of_standard_input_are_built() {
    let fixture = Fixture::new("FROM scratch\nCOPY a /a\nARG V\nLABEL v=$V\n");
    fs::write(fixture.context.dir().join("a"), "a").unwrap();
    let compose = "services:\n  web:\n    image: web:1\n    build:\n      context: .\n      args: [V=7]\n";
    let command = fixture.rbuild(["bake", "--progress=plain", "-f", "-"]);
    command
        .current_dir(fixture.context.dir())
        .stdin(compose.as_bytes())
        .ok();
    let shown = fixture
        .rbuild(["inspect", "--format={{json .Config.Labels}}", "web:1"])
        .ok()
        .stdout_text();
    assert_eq!(shown, "{\"v\":\"7\"}");
}

#[test]
fn check_asks_about_every_dockerfile() {
    let text = "group \"default\" { targets = [\"a\", \"b\"] }\ntarget \"a\" {}\ntarget \"b\" { dockerfile = \"b.Dockerfile\" }\n";
    let fixture = fixture(text, "FROM scratch\nCOPY a /a\n");
    fs::write(
        fixture.context.dir().join("b.Dockerfile"),
        "from scratch\nCOPY a /a\n",
    )
    .unwrap();
    let ran = bake(&fixture, &["--check"]).fails();
    let shown = ran.stdout_text();
    assert!(shown.contains("a\n\nCheck complete, no warnings found."), "{ran}");
    assert!(
        shown.contains("b\n\nCheck complete, 1 warning has been found!"),
        "{ran}"
    );
}

#[test]
fn what_is_printed_has_secrets_and_agents_that_are_there() {
    let text =
        "target \"default\" { secret = [\"id=a,src=secret\"] }\ntarget \"agent\" { ssh = [\"default\"] }\n";
    let fixture = fixture(text, "FROM scratch\n");
    bake(&fixture, &["--print"]).fails().says("failed to stat secret");
    bake(&fixture, &["--print", "agent"])
        .fails()
        .says("SSH_AUTH_SOCK");
    fixture.context.file("secret", "x");
    bake(&fixture, &["--print"]).ok();
    // A list of nothing is Go's.
    fixture.context.file("empty.hcl", "");
    fixture.context.file("compose.yml", "services: {a: {image: b}}\n");
    for (file, what, printed) in [
        ("empty.hcl", "targets", "null"),
        ("empty.hcl", "variables", "[]"),
        ("compose.yml", "variables", "null"),
    ] {
        let list = format!("--list=type={what},format=json");
        let ran = bake(&fixture, &["-f", file, &list]).ok();
        assert_eq!(ran.stdout_text(), printed, "{ran}");
    }
}

/// What a target wants beyond its directory.
const WANTING: [(&str, &str); 4] = [
    ("network = \"host\"", "network.host"),
    ("entitlements = [\"security.insecure\"]", "security.insecure"),
    ("contexts = { out = \"..\" }", "fs.read="),
    ("output = [\"type=local,dest=../out\"]", "fs.write="),
];

#[test]
fn a_policy_of_a_target_is_refused_unless_it_is_disabled() {
    let definition = "target \"default\" {\n  output = [\"type=cacheonly\"]\n}\n";
    let fixture = fixture(definition, "FROM scratch\nLABEL a=b\n");
    bake(&fixture, &["--policy=strict=true"]).ok();
    fixture.context.file("Dockerfile.rego", "package docker\n");
    bake(&fixture, &["--policy=disabled=true"]).ok();
    for (flag, says) in [
        ("--progress=plain", "`--policy disabled=true` builds without it"),
        ("--policy=strict=true", "no Rego is evaluated"),
        ("--policy=filename=x", "--policy does not accept filename"),
        ("--policy=reset=true", "--policy does not accept reset"),
        ("--policy=disabled=true,strict=true", "cannot be combined"),
        ("--policy=nope=1", "nope"),
    ] {
        bake(&fixture, &[flag]).fails().says(says);
    }
}

#[test]
fn row48_what_a_bake_file_wants_has_to_be_allowed() {
    for (attribute, permission) in WANTING {
        let fixture = fixture(
            &format!("target \"default\" {{\n  {attribute}\n}}\n"),
            "FROM scratch\n",
        );
        let refused = fixture
            .rbuild(["bake", "--progress=plain"])
            .current_dir(fixture.context.dir())
            .fails();
        refused
            .says(&format!("--allow={permission}"))
            .says("additional privileges requested");
    }
}

#[test]
fn row48_what_is_allowed_is_built() {
    for (attribute, permission) in WANTING {
        let fixture = fixture(
            &format!("target \"default\" {{\n  {attribute}\n}}\n"),
            "FROM scratch\nCOPY Dockerfile /\n",
        );
        let allowed = if permission.starts_with("fs") {
            format!("{permission}..")
        } else {
            permission.to_owned()
        };
        let command = fixture.rbuild(["bake", "--progress=plain", "--allow", &allowed]);
        command.current_dir(fixture.context.dir()).ok();
    }
}
