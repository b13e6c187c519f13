//! Completions and manual pages, read by the programs they are for, and the documents on exit codes and variables.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rbuild_testkit::command::RbuildCommand;
use rbuild_testkit::machine;

use crate::e2e::fixture::{Fixture, RBUILD};

/// Asks shells at terminals of their own, which zsh makes: what a line is once it was completed is written to a file.
const ASK: &str = r#"
zmodload zsh/zpty zsh/zselect
dir=$1 shell=$2; shift 2
case $shell in
bash)
    zpty -b shell bash --norc --noprofile -i
    zpty -w shell "source $dir/rbuild.bash; show() { printf '%s\n' \"\$READLINE_LINE\" >> $dir/got; READLINE_LINE=; }
bind 'set bell-style none'; bind -x '\"\C-t\": show'; : > $dir/got" ;;
zsh)
    zpty -b shell zsh -f -i
    zpty -w shell "fpath=($dir \$fpath); autoload -Uz compinit; compinit -u -d $dir/dump
show() { print -r -- \"\$BUFFER\" >> $dir/got }; zle -N show; bindkey '^T' show; : > $dir/got" ;;
esac
until [[ -e $dir/got ]]; do zpty -r -t shell out; zselect -t 5; done
count=0
for line; do
    zpty -w -n shell "$line"$'\t\x14\x15'
    (( count += 1 ))
    until (( $(wc -l < $dir/got) >= count )); do zpty -r -t shell out; zselect -t 5; done
done
zpty -d shell
"#;

/// A line of a command, and what its last word becomes; a blank behind it if it is whole.
const COMPLETED: [(&str, &str); 18] = [
    ("rbuild imaget", "imagetools "),
    ("rbuild manifest annot", "annotate "),
    ("rbuild build --metad", "--metadata-file "),
    ("rbuild build --progress pl", "plain "),
    ("rbuild build --progress=pl", "--progress=plain "),
    ("rbuild build --output type=o", "type=oci"),
    ("rbuild build --output type=oci,de", "type=oci,dest="),
    ("rbuild build --output=type=oci,de", "--output=type=oci,dest="),
    (
        "rbuild build --platform linux/amd64,linux/s",
        "linux/amd64,linux/s390x ",
    ),
    ("rbuild build --target fin", "final "),
    ("rbuild build --build-arg VER", "VERSION="),
    ("rbuild rmi exa", "example.test:5000/team/app:1.2 "),
    (
        "rbuild rmi example.test:5000/team/app:1",
        "example.test:5000/team/app:1.2 ",
    ),
    ("rbuild run --rm exa", "example.test:5000/team/app:1.2 "),
    ("rbuild build -f Dockerf", "Dockerfile "),
    ("rbuild bake serv", "service "),
    ("rbuild buildx bake --print other-", "other-arm64 "),
    ("rbuild bake -f docker-bake.hcl --set serv", "service."),
];

#[test]
fn shells_complete_commands_flags_and_what_they_take() {
    let fixture = Fixture::new("ARG VERSION\nFROM scratch AS first\nFROM first AS final\nLABEL a=b\n");
    let tag = ["-t", "example.test:5000/team/app:1.2"];
    fixture.build().args(tag).ok();
    fixture.context.file(
        "docker-bake.hcl",
        "target \"service\" { description = \"it's $(id): `id`; \\\"q\\\"\" }\n\
         target \"other\" {\n  name = \"other-${a}\"\n  matrix = { a = [\"arm64\"] }\n}\n",
    );
    let dir = fixture.home.work().join("shells");
    fs::create_dir(&dir).unwrap();
    symlink(RBUILD, dir.join("rbuild")).unwrap();
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    let command = |program: &Path| {
        let command = fixture.home.command(program).env("PATH", &path);
        command.current_dir(fixture.context.dir())
    };
    for (shell, name) in [
        ("bash", "rbuild.bash"),
        ("zsh", "_rbuild"),
        ("fish", "rbuild.fish"),
    ] {
        let script = fixture.rbuild(["completion", shell]).ok();
        fs::write(dir.join(name), script.stdout).unwrap();
    }
    let zsh = machine::required("zsh", "zsh").unwrap();
    for shell in ["bash", "zsh"] {
        let asked = command(&zsh).args(["-f", "-c", ASK, "zsh"]).arg(&dir).arg(shell);
        asked.args(COMPLETED.map(|(line, _)| line)).ok();
        let got = fs::read_to_string(dir.join("got")).unwrap();
        fs::remove_file(dir.join("got")).unwrap();
        assert_eq!(got.lines().count(), COMPLETED.len(), "{shell}: {got}");
        for ((line, last), got) in COMPLETED.into_iter().zip(got.lines()) {
            let before = line.rsplit_once(' ').unwrap().0;
            assert_eq!(got, format!("{before} {last}"), "{shell}: {line}");
        }
    }
    let fish = machine::required("fish", "fish").unwrap();
    for (line, last) in COMPLETED {
        let code = format!("source {}/rbuild.fish; complete -C '{line}'", dir.display());
        let found = command(&fish).args(["-c", &code]).ok().stdout_text();
        let words: Vec<&str> = found.lines().filter_map(|line| line.split('\t').next()).collect();
        assert_eq!(words, [last.trim_end()], "fish: {line}");
    }
}

#[test]
fn scripts_are_for_the_name_that_is_asked_for() {
    let fixture = Fixture::new("FROM scratch\n");
    for shell in ["elvish", "powershell"] {
        let script = fixture.rbuild(["completion", shell]).ok().stdout_text();
        assert!(script.contains("metadata-file"), "{shell}");
    }
    let docker = fixture.rbuild(["completion", "--name", "docker", "bash"]).ok();
    assert!(docker.stdout_text().contains("-F _docker docker"), "{docker}");
    for name in ["a;b", "", "-a", "a b", "$(id)"] {
        let name = format!("--name={name}");
        fixture.rbuild(["completion", &name, "bash"]).fails();
    }
    fixture.rbuild(["completion", "csh"]).fails().says("csh");
    // Docker's own script asks in the same words, and no store is made by a question.
    let none = fixture.home.work().join("none");
    let empty = fixture.home.work().join("empty");
    fs::create_dir(&empty).unwrap();
    for place in [&none, &empty] {
        let root = place.display().to_string();
        let words = ["__complete", "--root", &root, "rmi", ""];
        let asked = fixture.home.command(RBUILD).args(words).ok();
        assert_eq!(
            (asked.stdout_text(), asked.stderr.as_str()),
            (":4".to_owned(), "")
        );
    }
    assert!(!none.exists());
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
}

#[test]
fn every_command_has_a_page_that_man_reads() {
    let fixture = Fixture::new("FROM scratch\n");
    let dir = fixture.home.work().join("man");
    let path = dir.display().to_string();
    fixture.rbuild(["man", &path]).ok();
    let pages: BTreeSet<String> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for page in [
        "rbuild.1",
        "rbuild-build.1",
        "rbuild-imagetools-create.1",
        "rbuild-run.1",
    ] {
        assert!(pages.contains(page), "{page}: {pages:?}");
    }
    assert!(!pages.contains("rbuild-buildx.1"), "other spellings have no page");
    let text = fs::read_to_string(dir.join("rbuild-build.1")).unwrap();
    assert!(text.contains("metadata\\-file"), "{text}");
    let text = fs::read_to_string(dir.join("rbuild.1")).unwrap();
    assert!(text.contains("EXIT STATUS"), "{text}");
    let mandoc = machine::required("mandoc", "mandoc").unwrap();
    for page in &pages {
        let lint = ["-T", "lint", "-W", "warning"];
        let ran = RbuildCommand::new(&mandoc).args(lint).arg(dir.join(page)).run();
        let said = ran.stdout_text() + &ran.stderr;
        assert!(ran.status.success(), "{page}: {said}");
    }
}

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    fs::read_to_string(path).unwrap()
}

/// Rust sources of the program and of the libraries below it.
fn sources() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    let mut todo: Vec<_> = [
        "crates/cli",
        "crates/ui",
        "crates/tls",
        "builder",
        "registry",
        "crates/remotecache",
        "crates/server",
    ]
    .map(|dir| root.join(dir))
    .into();
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
    text
}

#[test]
fn variables_that_are_documented_are_read_somewhere() {
    let text = document("environment.md");
    let sources = sources();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let names: Vec<&str> = rows
        .flat_map(|row| row.split(" | ").next().unwrap_or_default().split(','))
        .map(|name| name.trim_matches(['`', ' ']))
        .collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        let lower = name.to_lowercase();
        assert!(
            sources.contains(&format!("\"{name}\"")) || sources.contains(&format!("\"{lower}\"")),
            "nobody reads {name}"
        );
    }
}

#[test]
fn variables_that_are_read_are_documented() {
    let text = document("environment.md");
    let sources = sources();
    for (at, _) in sources.match_indices("env = \"") {
        let name = sources[at + 7..].split('"').next().unwrap();
        assert!(text.contains(&format!("`{name}`")), "{name} is not documented");
    }
    for call in ["filled(\"", "env.var(\""] {
        for (at, _) in sources.match_indices(call) {
            let name = sources[at + call.len()..].split('"').next().unwrap();
            let is_name = name.chars().all(|c| c.is_ascii_uppercase() || c == '_') && !name.is_empty();
            assert!(
                !is_name || text.contains(&format!("`{name}`")),
                "{name} is not documented"
            );
        }
    }
}

#[test]
fn exit_codes_are_documented_where_they_are_shown() {
    let text = document("exit-codes.md");
    for code in [0, 1, 3, 4, 5, 6, 7, 125, 130] {
        assert!(text.contains(&format!("| {code} |")), "{code}");
    }
}
