//! What is offered for a line, without a store.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::*;
use crate::engine::Names;
use crate::env::testing::env;

/// What is offered for the last word of `line`, and the directive.
fn offered(line: &str) -> (Vec<String>, u8) {
    let mut command = Cli::command();
    command.build();
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let (env, _, _) = env(&[("RBUILD_ROOT", "/store")], b"");
    let names = |root: Option<PathBuf>| {
        assert_eq!(root.as_deref(), Some(Path::new("/store")), "{line}");
        Names {
            images: vec!["app:1".to_owned(), "h:5000/app:2".to_owned()],
            containers: vec!["box".to_owned()],
        }
    };
    let answer = answer(&command, &words, &env, &names);
    let texts = answer.candidates.into_iter().map(|one| one.text);
    (texts.collect(), answer.directive.0)
}

fn texts(line: &str) -> Vec<String> {
    offered(line).0
}

#[test]
fn commands_flags_and_values_are_offered_where_they_may_stand() {
    assert_eq!(texts("imaget"), ["imagetools"]);
    assert_eq!(texts("manifest annot"), ["annotate"]);
    assert_eq!(texts("buil"), ["build", "buildx", "builder"]);
    assert_eq!(texts("buildx bu"), ["build"]);
    assert!(texts("").contains(&"build".to_owned()) && !texts("").contains(&"buildx".to_owned()));
    assert_eq!(texts("build --metad"), ["--metadata-file"]);
    assert_eq!(texts("build --prog"), ["--progress"]);
    assert_eq!(texts("build --progress pl"), ["plain"]);
    assert_eq!(texts("build --progress=pl"), ["--progress=plain"]);
    assert_eq!(texts("--offline build --progress ra"), ["rawjson"]);
    assert_eq!(texts("-D buildx build -t a --progress ra"), ["rawjson"]);
    assert_eq!(texts("build -ta --progress ra"), ["rawjson"]);
    assert_eq!(texts("build -t a --load=pod"), ["--load=podman"]);
    assert_eq!(texts("build --builder "), ["default"]);
    assert_eq!(texts("buildx use "), ["default"]);
    assert_eq!(texts("build --platform linux/s"), ["linux/s390x"]);
    assert_eq!(
        texts("build --platform=linux/amd64,linux/s"),
        ["--platform=linux/amd64,linux/s390x"]
    );
    assert_eq!(texts("build -o type=o"), ["type=oci"]);
    assert_eq!(texts("build --output type=oci,de"), ["type=oci,dest="]);
    assert_eq!(
        texts("build --cache-to type=registry,mode="),
        ["type=registry,mode=max", "type=registry,mode=min"]
    );
    assert_eq!(
        texts("build --rung "),
        ["root", "subids", "one-id", "chroot", "files"]
    );
    assert_eq!(texts("completion z"), ["zsh"]);
    assert_eq!(texts("du --format p"), ["pretty"]);
}

#[test]
fn what_is_another_programs_is_left_to_the_shell() {
    assert_eq!(offered("run app ls -"), (Vec::new(), Directive::FILES.0));
    assert_eq!(offered("build -f "), (Vec::new(), Directive::FILES.0));
    assert_eq!(offered("build "), (Vec::new(), Directive::DIRECTORIES.0));
    assert_eq!(offered("build -- -"), (Vec::new(), Directive::DIRECTORIES.0));
    assert_eq!(offered("none ''"), (Vec::new(), Directive::NO_FILES.0));
    assert_eq!(offered("build --nothing --pro").0, ["--progress", "--provenance"]);
}

#[test]
fn names_that_a_shell_would_run_are_not_offered() {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("Dockerfile");
    let text = "ARG a$(touch${IFS}x)=1\nARG good=1\nFROM scratch AS one\nARG `id`\nFROM one AS two.3-x_y\n";
    std::fs::write(&path, text).unwrap();
    let shown = |line: &str| {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (mut env, stdout, stderr) = env(&[], b"");
        let hostile = |_| Names {
            images: ["a:1\x1b[2J", "$(id):1", "`id`", "a\nb:1", "a:1"]
                .map(str::to_owned)
                .into(),
            containers: Vec::new(),
        };
        complete(&words, &mut env, &hostile).unwrap();
        assert_eq!(stderr.text(), "");
        stdout.text()
    };
    let dir = room.path().display();
    assert_eq!(
        shown(&format!("build {dir} --target ")),
        "one\t\ntwo.3-x_y\t\n:4\n"
    );
    assert_eq!(
        shown(&format!("build -f {} --target=t", path.display())),
        "--target=two.3-x_y\t\n:4\n"
    );
    assert_eq!(
        shown(&format!("build --build-arg= {dir} --build-arg ")),
        "good=\t\n:6\n"
    );
    rustix::fs::mkfifoat(rustix::fs::CWD, room.path().join("pipe"), rustix::fs::Mode::RWXU).unwrap();
    assert_eq!(shown(&format!("build -f {dir}/pipe --target ")), ":4\n");
    assert_eq!(shown("rmi "), "a:1\t\n:4\n");
    let bake = "target \"$(id)\" {}\ntarget \"a\" {\n description = \"x\\u001b[2J\\n:0\"\n}\n";
    std::fs::write(room.path().join("bake.hcl"), bake).unwrap();
    assert_eq!(
        shown(&format!("bake -f {dir}/bake.hcl ")),
        ":4\n",
        "a name that cannot be one makes the file none"
    );
    let bake = bake.split_once('\n').unwrap().1;
    std::fs::write(room.path().join("bake.hcl"), bake).unwrap();
    let offered = shown(&format!("bake -f {dir}/bake.hcl "));
    assert_eq!(offered.lines().count(), 2, "{offered:?}");
    assert!(
        offered.starts_with("a\tx") && !offered.contains('\x1b'),
        "{offered:?}"
    );
}

#[test]
fn names_are_offered_to_every_command_that_takes_one() {
    let images = ["app:1", "h:5000/app:2"];
    for line in [
        "tag ",
        "tag app:1 ",
        "rmi ",
        "rmi app:1 ",
        "image rm ",
        "push ",
        "image push ",
        "pull ",
        "save ",
        "save -o x.tar app:1 ",
        "image save ",
        "run ",
        "run --rm -e A=b ",
        "container run ",
        "create ",
        "history ",
        "image history ",
        "inspect ",
        "image inspect ",
        "images ",
        "imagetools inspect ",
    ] {
        assert_eq!(
            offered(line),
            (images.map(str::to_owned).into(), Directive::NO_FILES.0),
            "{line}"
        );
    }
    assert_eq!(texts("rmi h:5"), ["h:5000/app:2"]);
    for line in ["rm ", "export ", "container rm "] {
        assert_eq!(texts(line), ["box"], "{line}");
    }
    assert_eq!(texts("cp "), ["box:"]);
    for line in [
        "build --builder ",
        "bake --builder ",
        "--context ",
        "context use ",
        "buildx use ",
        "buildx rm ",
        "buildx inspect ",
        "builder use ",
    ] {
        assert_eq!(texts(line), ["default"], "{line}");
    }
}

#[test]
fn targets_of_bake_files_are_offered() {
    let room = tempfile::tempdir().unwrap();
    let dir = room.path().display();
    let write = |name: &str, text: &str| std::fs::write(room.path().join(name), text).unwrap();
    write(
        "a.hcl",
        "variable \"OS\" { default = \"linux\" }\ngroup \"default\" { targets = [\"app\"] }\n\
         target \"app\" { description = \"the service\" }\n\
         target \"of\" {\n  name = \"on-${x}\"\n  matrix = { x = [OS, \"bsd\"] }\n}\n",
    );
    write(
        "b.yaml",
        "services:\n  web:\n    build: .\n  db:\n    image: pg\n",
    );
    let all = ["app", "default", "of", "on-bsd", "on-linux"];
    assert_eq!(
        offered(&format!("bake -f {dir}/a.hcl ")),
        (all.map(str::to_owned).into(), Directive::NO_FILES.0)
    );
    assert_eq!(
        texts(&format!("buildx bake --file={dir}/a.hcl app on-b")),
        ["on-bsd"]
    );
    assert_eq!(
        texts(&format!("bake --var OS=plan9 -f {dir}/a.hcl on-p")),
        ["on-plan9"]
    );
    assert_eq!(texts(&format!("bake -f {dir}/b.yaml w")), ["web"]);
    assert_eq!(
        texts(&format!("bake -f {dir}/a.hcl -f cwd://{dir}/b.yaml --print we")),
        ["web"]
    );
    assert_eq!(
        offered(&format!("bake -f {dir}/a.hcl --set ap")),
        (vec!["app.".to_owned()], 6)
    );

    // Whatever else is there: nobody waits, nothing is said.
    write("broken.hcl", "target \"a\" {");
    write("large.hcl", &"# comment\n".repeat(1 << 19));
    write(
        "waits.yaml",
        &format!("include:\n  - {dir}/pipe\nservices: {{}}\n"),
    );
    rustix::fs::mkfifoat(rustix::fs::CWD, room.path().join("pipe"), rustix::fs::Mode::RWXU).unwrap();
    let start = Instant::now();
    for file in [
        "broken.hcl",
        "large.hcl",
        "waits.yaml",
        "pipe",
        "absent",
        "-",
        ".",
    ] {
        assert_eq!(
            offered(&format!("bake -f {dir}/{file} ")),
            (Vec::new(), Directive::NO_FILES.0),
            "{file}"
        );
    }
    assert_eq!(texts("bake -f - "), [""; 0]);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}
