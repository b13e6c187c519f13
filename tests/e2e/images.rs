//! Images after the build: saved, loaded, shown, and found by the id that the build printed.

use std::fs;

use rbuild_testkit::command::RbuildCommand;
use rbuild_testkit::machine;
use serde_json::Value;

use crate::e2e::docker_engine::DockerEngine;
use crate::e2e::fixture::{Fixture, is_root};

const APP: &str = "FROM busybox
RUN echo one > /one
ENV WHO=world
LABEL org.x=y
COPY two /two
CMD [\"cat\", \"/one\"]
";

fn app() -> Fixture {
    let fixture = Fixture::new(APP);
    fixture.context.file("two", "2");
    fixture
}

fn skopeo() -> RbuildCommand {
    RbuildCommand::new(machine::required("skopeo", "skopeo").expect("a tool of the tests"))
}

/// Builds as `name` and gives the id that was printed.
#[track_caller]
fn id_of(fixture: &Fixture, name: &str) -> String {
    fixture
        .build()
        .args(["--progress=quiet", "-t", name])
        .ok()
        .stdout_text()
}

#[track_caller]
fn inspected(fixture: &Fixture, image: &str) -> Value {
    let shown = fixture.rbuild(["inspect", image]).ok();
    let mut all: Vec<Value> = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert_eq!(all.len(), 1);
    all.remove(0)
}

#[test]
fn an_image_without_a_name_is_found_by_the_id_the_build_printed() {
    let fixture = app();
    let id = fixture.build().arg("--progress=quiet").ok().stdout_text();
    let rows = fixture
        .rbuild(["images", "--quiet", "--no-trunc"])
        .ok()
        .stdout_text();
    assert_eq!(rows, "", "without a name it is shown by --all only");
    let rows = fixture
        .rbuild(["images", "-a", "-q", "--no-trunc"])
        .ok()
        .stdout_text();
    assert_eq!(rows, id);
    fixture.rbuild(["tag", &id, "named:1"]).ok();
    assert_eq!(inspected(&fixture, "named:1")["Id"], id.as_str());
    let rows = fixture
        .rbuild(["images", "-a", "-q", "--no-trunc"])
        .ok()
        .stdout_text();
    assert_eq!(rows, id, "the image that got a name is not there a second time");
    let removed = fixture.rbuild(["rmi", &id[7..19]]).ok().stdout_text();
    assert!(
        removed.starts_with("Untagged: named:1\nDeleted: sha256:"),
        "{removed}"
    );
    fixture.rbuild(["inspect", &id]).fails().says("No such image");
}

#[test]
fn an_unnamed_image_goes_with_the_build_cache_and_a_named_one_stays() {
    let fixture = app();
    id_of(&fixture, "kept:1");
    fixture.context.file("two", "other");
    let unnamed = fixture.build().arg("--progress=quiet").ok().stdout_text();
    fixture.rbuild(["prune", "--force"]).ok();
    fixture
        .rbuild(["inspect", &unnamed])
        .fails()
        .says("No such image");
    fixture
        .rbuild(["save", "kept:1", "-o"])
        .arg(fixture.archive())
        .ok();
}

#[test]
fn what_is_saved_is_loaded_as_the_same_image_by_us_and_by_skopeo() {
    let fixture = app();
    let id = id_of(&fixture, "app:1");
    fixture.rbuild(["tag", "app:1", "example.invalid/app:2"]).ok();
    let archive = fixture.archive();
    fixture
        .rbuild(["save", "app:1", "example.invalid/app:2", "--output"])
        .arg(&archive)
        .ok();
    let other = Fixture::new("FROM scratch\n");
    let said = other.rbuild(["load", "-i"]).arg(&archive).ok().stdout_text();
    assert_eq!(said, "Loaded image: app:1\nLoaded image: example.invalid/app:2");
    assert_eq!(inspected(&other, "app:1")["Id"], id.as_str());
    let (ours, theirs) = (inspected(&fixture, "app:1"), inspected(&other, "app:1"));
    assert_eq!(ours["Descriptor"], theirs["Descriptor"]);
    let through_pipe = fixture.rbuild(["save", &id]).ok().stdout;
    let third = Fixture::new("FROM scratch\n");
    let said = third.rbuild(["load"]).stdin(through_pipe).ok().stdout_text();
    assert_eq!(
        said,
        format!("Loaded image ID: {id}"),
        "by id it is saved without a name"
    );
    let config = skopeo()
        .args(["inspect", "--config", "--raw"])
        .arg(format!("docker-archive:{}:app:1", archive.display()))
        .ok();
    let digest = rbuild_testkit::facts::sha256_hex(&config.stdout);
    assert_eq!(format!("sha256:{digest}"), id);
}

/// skopeo writes Docker's older form: no layout, layers as plain tars, the rest as it likes.
#[test]
fn dockers_older_archives_are_loaded() {
    let fixture = app();
    let (_, image) = fixture.image(&[]);
    let old = fixture.home.work().join("old.tar");
    skopeo()
        .args(["--insecure-policy", "copy", "-q"])
        .arg(format!("oci-archive:{}", fixture.archive().display()))
        .arg(format!("docker-archive:{}:example.invalid/old:7", old.display()))
        .ok();
    let said = fixture.rbuild(["load", "-i"]).arg(&old).ok().stdout_text();
    assert_eq!(said, "Loaded image: example.invalid/old:7");
    let shown = inspected(&fixture, "example.invalid/old:7");
    let layers = shown["RootFS"]["Layers"].as_array().unwrap();
    assert_eq!(layers.len(), image.layer_count());
    // What was loaded is a base like any other.
    fixture
        .context
        .dockerfile("FROM example.invalid/old:7\nRUN cat /one /two > /both\n");
    let (_, built) = fixture.image(&[]);
    assert_eq!(built.files().unwrap().text("both"), Some("one\n2"));
}

#[test]
fn privileged_what_docker_saves_is_loaded_and_what_we_save_docker_loads() {
    if !is_root("dockerd") {
        return;
    }
    let fixture = app();
    let id = id_of(&fixture, "example.invalid/app:1");
    let room = fixture.home.work().join("engine");
    fs::create_dir(&room).unwrap();
    let (ours, theirs) = (room.join("ours.tar"), room.join("theirs.tar"));
    fixture
        .rbuild(["save", "example.invalid/app:1", "-o"])
        .arg(&ours)
        .ok();
    let engine = DockerEngine::start(&room);
    engine.docker(["load", "-i"]).arg(&ours).ok();
    let known = engine
        .docker([
            "inspect",
            "-f",
            "{{.Id}} {{json .Config.Env}} {{index .Config.Labels \"org.x\"}}",
        ])
        .arg("example.invalid/app:1")
        .ok();
    engine
        .docker(["save", "example.invalid/app:1", "-o"])
        .arg(&theirs)
        .ok();
    engine.stop();
    let other = Fixture::new("FROM scratch\n");
    other.rbuild(["load", "-q", "-i"]).arg(&theirs).ok();
    let shown = other
        .rbuild([
            "inspect",
            "-f",
            "{{.Id}} {{json .Config.Env}} {{index .Config.Labels \"org.x\"}}",
        ])
        .arg("example.invalid/app:1")
        .ok();
    assert_eq!(shown.stdout_text(), known.stdout_text());
    assert!(shown.stdout_text().starts_with(&id));
}

#[test]
fn history_shows_each_instruction_with_the_size_of_its_layer() {
    let fixture = app();
    let id = id_of(&fixture, "app:1");
    let rows = fixture
        .rbuild([
            "history",
            "--no-trunc",
            "--format",
            "{{.ID}}|{{.Size}}|{{.CreatedBy}}",
            "app:1",
        ])
        .ok()
        .stdout_text();
    let rows: Vec<&str> = rows.lines().collect();
    assert_eq!(rows[0], format!("{id}|0B|CMD [\"cat\" \"/one\"]"));
    let copy = rows[1].strip_prefix("<missing>|").expect("a step without an id");
    assert!(
        copy.ends_with("|COPY two /two # buildkit") && !copy.starts_with("0B|"),
        "{copy}"
    );
    assert_eq!(rows[2], "<missing>|0B|LABEL org.x=y");
    assert!(rows[4].contains("RUN /bin/sh -c echo one > /one # buildkit"));
    let table = fixture.rbuild(["history", "app:1"]).ok().stdout_text();
    assert!(table.starts_with("IMAGE          CREATED"), "{table}");
}

#[test]
fn a_file_that_cannot_be_saved_whole_does_not_appear() {
    let fixture = app();
    id_of(&fixture, "app:1");
    let archive = fixture.archive();
    fixture
        .rbuild(["save", "app:1", "nothing:1", "-o"])
        .arg(&archive)
        .fails()
        .says("No such image: nothing:1");
    assert!(!archive.exists());
    let beside = fs::read_dir(fixture.home.work()).unwrap().count();
    fixture.rbuild(["save", "app:1", "-o"]).arg(&archive).ok();
    assert_eq!(fs::read_dir(fixture.home.work()).unwrap().count(), beside + 1);
}
