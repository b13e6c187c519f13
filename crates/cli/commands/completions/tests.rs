//! What is offered for a line, without a store.

use super::*;
use crate::engine::EngineError;
use crate::env::testing::env;

/// What is offered for the last word of `line`, and the directive.
fn offered(line: &str) -> (Vec<String>, u8) {
    let mut command = Cli::command();
    command.build();
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let (env, _, _) = env(&[("RBUILD_ROOT", "/nonexistent")], b"");
    let open = |_| Err(EngineError::failed("no engine is asked"));
    let answer = answer(&command, &words, &env, &open);
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
    assert_eq!(offered("rmi "), (Vec::new(), Directive::NO_FILES.0));
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
        let (mut env, stdout, _) = env(&[], b"");
        complete(&words, &mut env, &|_| Err(EngineError::failed("none"))).unwrap();
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
}
