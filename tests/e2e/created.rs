//! `create`, `cp`, `export`, `ps` and `rm`: files are taken out of an image without running anything; and what `run` is
//! shown of this machine.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;

use rbuild_testkit::command::{Ran, RbuildCommand};

use crate::e2e::fixture::Fixture;

const DOCKERFILE: &str = "FROM busybox\nRUN mkdir -p /out/sub && echo app > /out/app && chmod 750 /out/app && \
    echo deep > /out/sub/deep && ln -s app /out/link && ln -s /etc /out/sub/away && chown -R 7:8 /out\n";

fn built(fixture: Fixture) -> Fixture {
    fixture.build().args(["-t", "app"]).ok();
    fixture
}

fn create(fixture: &Fixture, args: &[&str]) -> String {
    let mut line = vec!["create"];
    line.extend(args);
    let id = fixture.rbuild(line).ok().stdout_text();
    assert!(
        id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{id:?}"
    );
    id
}

fn copy(fixture: &Fixture, source: &str, dest: &str) -> RbuildCommand {
    fixture.rbuild(["cp", source, dest])
}

fn place(fixture: &Fixture) -> PathBuf {
    let dir = fixture.home.work().join("got");
    fs::create_dir_all(&dir).unwrap();
    fixture.home.hand_over();
    dir
}

fn names(tar: &Ran) -> Vec<String> {
    let mut archive = tar::Archive::new(tar.stdout.as_slice());
    let entries = archive.entries().unwrap();
    let name = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let entry = entry.unwrap();
        entry.path().unwrap().display().to_string()
    };
    entries.map(name).collect()
}

#[test]
fn files_are_taken_out_of_what_was_created() {
    let fixture = built(Fixture::new(DOCKERFILE));
    let before = fixture.residue();
    let dir = place(&fixture);
    let at = |name: &str| dir.join(name).display().to_string();
    let id = create(&fixture, &["app"]);
    // A file into a directory, under a name, and by the start of an id.
    copy(&fixture, &format!("{id}:/out/app"), &at("")).ok();
    copy(&fixture, &format!("{}:out/app", &id[..12]), &at("renamed")).ok();
    for name in ["app", "renamed"] {
        let meta = fs::metadata(dir.join(name)).unwrap();
        assert_eq!(fs::read_to_string(dir.join(name)).unwrap(), "app\n");
        assert_eq!(meta.permissions().mode() & 0o777, 0o750);
        let own = fs::metadata(&dir).unwrap();
        assert_eq!(
            (meta.uid(), meta.gid()),
            (own.uid(), own.gid()),
            "it is whoever's asked"
        );
    }
    // A directory, what is in it, a link, and what that leads to.
    copy(&fixture, &format!("{id}:/out"), &at("")).ok();
    assert_eq!(fs::read_to_string(dir.join("out/sub/deep")).unwrap(), "deep\n");
    copy(&fixture, &format!("{id}:/out/."), &at("new")).ok();
    assert_eq!(fs::read_to_string(dir.join("new/sub/deep")).unwrap(), "deep\n");
    copy(&fixture, &format!("{id}:/out/link"), &at("")).ok();
    assert_eq!(fs::read_link(dir.join("link")).unwrap(), PathBuf::from("app"));
    fixture
        .rbuild(["cp", "-L", &format!("{id}:/out/link"), &at("followed")])
        .ok();
    assert_eq!(fs::read_to_string(dir.join("followed")).unwrap(), "app\n");
    // Tars: of a directory, of a file, of everything.
    let tree = names(&copy(&fixture, &format!("{id}:/out/sub"), "-").ok());
    assert_eq!(tree, ["sub/", "sub/away", "sub/deep"]);
    let file = copy(&fixture, &format!("{id}:/out/app"), "-").ok();
    assert_eq!(names(&file), ["app"]);
    let all = names(&fixture.rbuild(["export", &id]).ok());
    assert!(all.iter().any(|name| name == "out/sub/deep"), "{all:?}");
    let exported = at("all.tar");
    fixture.rbuild(["export", "-o", &exported, &id]).ok();
    assert!(fs::metadata(&exported).unwrap().len() > 10_000);
    assert_eq!(fixture.rbuild(["rm", &id]).ok().stdout_text(), id);
    copy(&fixture, &format!("{id}:/out/app"), &at(""))
        .fails()
        .says("no such container");
    fixture.assert_clean_since(&before);
}

#[test]
fn what_cannot_be_copied_is_told() {
    let fixture = built(Fixture::new(DOCKERFILE));
    let dir = place(&fixture);
    let at = |name: &str| dir.join(name).display().to_string();
    fs::write(dir.join("file"), "kept").unwrap();
    create(&fixture, &["--name", "made", "app"]);
    for (args, says) in [
        (["made:/none", &at("")], "could not find the file \"/none\""),
        (["made:/out/app/", &at("")], "could not find the file"),
        (["made:/out", &at("file")], "it is a file"),
        (["made:/out/app", &at("none/")], "no such directory"),
        (["made:/out/app", &at("none/x")], "none"),
        (["other:/out/app", &at("")], "no such container: other"),
        ([&at("file"), "made:/x"], "copying into a container"),
        (["made:/x", "made:/y"], "between containers"),
        (["./a", "./b"], "at least one container"),
    ] {
        copy(&fixture, args[0], args[1]).fails().says(says);
    }
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "kept");
}

#[test]
fn a_container_keeps_its_image_and_its_name() {
    let fixture = built(Fixture::new(DOCKERFILE));
    let id = create(&fixture, &["--name", "made", "-e", "A=b", "-it", "app", "sh"]);
    fixture
        .rbuild(["create", "--name", "made", "app"])
        .fails()
        .says("already in use");
    fixture
        .rbuild(["create", "--name", "a b", "app"])
        .fails()
        .says("invalid container name");
    fixture
        .rbuild(["create", "--pull=never", "nothing"])
        .fails()
        .says("No such image");
    let listed = fixture.rbuild(["ps", "-a"]).ok().stdout_text();
    assert!(
        listed.contains(&id[..12]) && listed.contains("app:latest") && listed.contains("made"),
        "{listed}"
    );
    assert_eq!(
        fixture.rbuild(["ps", "-q"]).ok().stdout_text(),
        "",
        "nothing runs"
    );
    let filtered = ["ps", "-aq", "--no-trunc", "--filter", "name=made"];
    assert_eq!(fixture.rbuild(filtered).ok().stdout_text(), id);
    assert_eq!(
        fixture
            .rbuild(["ps", "-aq", "--filter=name=x"])
            .ok()
            .stdout_text(),
        ""
    );
    let format = ["ps", "-a", "--format", "{{.Names}} {{.Image}} {{.State}}"];
    assert_eq!(
        fixture.rbuild(format).ok().stdout_text(),
        "made app:latest created"
    );
    fixture
        .rbuild(["ps", "--filter=colour=red"])
        .fails()
        .says("invalid filter");
    // It is no image, and its image stays.
    assert_eq!(
        fixture
            .rbuild(["images", "-aq"])
            .ok()
            .stdout_text()
            .lines()
            .count(),
        1
    );
    fixture
        .rbuild(["rmi", "app"])
        .fails()
        .says("container made is of this image");
    fixture.rbuild(["rmi", "-f", "app"]).ok();
    fixture.rbuild(["prune", "-af"]).ok();
    let dir = place(&fixture);
    copy(&fixture, "made:/out/app", &dir.display().to_string()).ok();
    assert_eq!(fs::read_to_string(dir.join("app")).unwrap(), "app\n");
    // Nothing is left of it, and that there is none is no error where that is said.
    assert_eq!(
        fixture.rbuild(["rm", "-f", "made", "other"]).ok().stdout_text(),
        "made"
    );
    fixture
        .rbuild(["rm", "made"])
        .fails()
        .says("no such container: made");
    assert_eq!(fixture.rbuild(["ps", "-aq"]).ok().stdout_text(), "");
    let file = fixture.home.work().join("cid").display().to_string();
    fixture.build().args(["-t", "app"]).ok();
    let id = create(&fixture, &["--cidfile", &file, "app"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), id);
    fixture
        .rbuild(["create", "--cidfile", &file, "app"])
        .fails()
        .says("container ID file found");
    let pruned = fixture.rbuild(["container", "prune", "-f"]).ok().stdout_text();
    assert!(pruned.contains(&id), "{pruned}");
}

/// Row 48: a path of an image is a path of that image.
#[test]
fn row48_links_of_an_image_do_not_lead_out_of_it() {
    let fixture = built(Fixture::new(
        "FROM busybox\nRUN ln -s /../../../../../etc/hostname /out && ln -s / /root-link && mkdir /etc2 && echo own > /etc/hostname\n",
    ));
    let dir = place(&fixture);
    create(&fixture, &["--name", "made", "app"]);
    let to = dir.join("copied").display().to_string();
    fixture.rbuild(["cp", "-L", "made:/out", &to]).ok();
    assert_eq!(
        fs::read_to_string(&to).unwrap(),
        "own\n",
        "the image's, not this machine's"
    );
    fixture
        .rbuild([
            "cp",
            "made:/root-link/../../../../etc/hostname",
            &dir.display().to_string(),
        ])
        .ok();
    assert_eq!(fs::read_to_string(dir.join("hostname")).unwrap(), "own\n");
}

/// Its legal twin, and where links of the destination lead: to what the user meant.
#[test]
fn row48_legal_twin_a_destination_that_is_a_link_is_written_through() {
    let fixture = built(Fixture::new(DOCKERFILE));
    let dir = place(&fixture);
    fs::create_dir(dir.join("real")).unwrap();
    symlink("real", dir.join("linked")).unwrap();
    create(&fixture, &["--name", "made", "app"]);
    copy(
        &fixture,
        "made:/out/app",
        &dir.join("linked").display().to_string(),
    )
    .ok();
    assert_eq!(fs::read_to_string(dir.join("real/app")).unwrap(), "app\n");
}

#[test]
fn rootless_files_taken_out_belong_to_the_user() {
    let Some(fixture) = Fixture::rootless(DOCKERFILE) else {
        return;
    };
    let fixture = built(fixture);
    let dir = place(&fixture);
    create(&fixture, &["--name", "made", "app"]);
    copy(&fixture, "made:/out/.", &dir.join("out").display().to_string()).ok();
    let own = fs::metadata(&dir).unwrap().uid();
    assert_ne!(own, 0);
    for name in ["out", "out/app", "out/sub/deep"] {
        assert_eq!(fs::metadata(dir.join(name)).unwrap().uid(), own, "{name}");
    }
    let shown = format!("{}:/shown", dir.display());
    fixture
        .rbuild([
            "run",
            "--rm",
            "-v",
            &shown,
            "app",
            "sh",
            "-c",
            "echo w > /shown/written",
        ])
        .ok();
    assert_eq!(fs::metadata(dir.join("written")).unwrap().uid(), own);
}

#[test]
fn a_program_is_shown_directories_of_this_machine_and_memory() {
    let fixture = built(Fixture::new("FROM busybox\nWORKDIR /src\n"));
    let dir = place(&fixture);
    fs::write(dir.join("in"), "given\n").unwrap();
    let at = dir.display().to_string();
    let run = |args: &[&str], script: &str| {
        let mut line = vec!["run", "--rm"];
        line.extend(args);
        line.extend(["app", "sh", "-ec", script]);
        fixture.rbuild(line)
    };
    run(&["-v", &format!("{at}:/src")], "cat in > out").ok();
    assert_eq!(fs::read_to_string(dir.join("out")).unwrap(), "given\n");
    let one = format!("type=bind,src={at}/in,dst=/one,readonly");
    assert_eq!(run(&["--mount", &one], "cat /one").ok().stdout_text(), "given");
    run(&["--mount", &one], "echo x > /one").fails();
    run(&["-v", &format!("{at}:/src:ro")], "echo x > no").fails();
    assert!(!dir.join("no").exists());
    let memory = "touch /mem/x && grep -q ' /mem tmpfs ' /proc/mounts";
    run(&["--tmpfs", "/mem:size=1m"], memory).ok();
    run(
        &["--tmpfs", "/mem:size=1m"],
        "dd if=/dev/zero of=/mem/x bs=1k count=2000",
    )
    .fails()
    .says("No space left");
    for (args, says) in [
        (["-v", "data:/x"], "volume \"data\""),
        (["--mount", "type=bind,src=/none,dst=/x"], "does not exist"),
    ] {
        let ran = run(&args, "true").fails();
        assert!(ran.stderr.contains(says), "{ran}");
        assert_eq!(ran.status.code(), Some(125));
    }
    // Nothing of it is in the image.
    assert_eq!(run(&[], "ls -A /src").ok().stdout_text(), "");
}
