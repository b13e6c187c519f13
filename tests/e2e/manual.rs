//! Completions and manual pages, read by the programs they are for, and the documents on exit codes and variables.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rbuild_testkit::command::RbuildCommand;
use rbuild_testkit::machine;

use crate::e2e::fixture::Fixture;

#[test]
fn bash_completes_commands_flags_and_what_they_take() {
    let fixture = Fixture::new("FROM scratch\n");
    let script = fixture.rbuild(["completion", "bash"]).ok().stdout_text();
    let path = fixture.home.work().join("completion");
    fs::write(&path, script).unwrap();
    let complete = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let code = format!(
            "source {}; COMP_WORDS=({line}); COMP_CWORD={}; _rbuild rbuild '{}' ''; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            path.display(),
            words.len() - 1,
            words[words.len() - 1],
        );
        let bash = machine::required("bash", "bash").unwrap();
        RbuildCommand::new(bash).args(["-c", &code]).ok().stdout_text()
    };
    assert_eq!(complete("rbuild imaget"), "imagetools");
    assert_eq!(complete("rbuild build --metad"), "--metadata-file");
    assert!(complete("rbuild manifest a").contains("annotate"));
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let script = fixture.rbuild(["completion", shell]).ok().stdout_text();
        assert!(script.contains("metadata-file"), "{shell}");
    }
    let docker = fixture.rbuild(["completion", "--name", "docker", "bash"]).ok();
    assert!(docker.stdout_text().contains("-F _docker"), "{docker}");
    fixture.rbuild(["completion", "--name", "a;b", "bash"]).fails();
    fixture.rbuild(["completion", "csh"]).fails().says("csh");
}

/// Asks an interactive zsh, which has a terminal of its own here: what a line is once it was completed is written to a file.
const ZSH: &str = r#"
zmodload zsh/zpty zsh/zselect
dir=$1; shift
zpty -b shell zsh -f -i
zpty -w shell "fpath=($dir \$fpath); autoload -Uz compinit; compinit -u -d $dir/dump
show() { print -r -- \"\$BUFFER\" >> $dir/got }; zle -N show; bindkey '^T' show; : > $dir/got"
until [[ -e $dir/got ]]; do zpty -r -t shell out; zselect -t 5; done
count=0
for line; do
    zpty -w -n shell "$line"$'\t\x14\x15'
    (( count += 1 ))
    until (( $(wc -l < $dir/got) >= count )); do zpty -r -t shell out; zselect -t 5; done
done
zpty -d shell
"#;

#[test]
fn zsh_and_fish_load_their_scripts_and_complete() {
    let fixture = Fixture::new("FROM scratch\n");
    let dir = fixture.home.work().join("shells");
    fs::create_dir(&dir).unwrap();
    for (shell, name) in [("zsh", "_rbuild"), ("fish", "rbuild.fish")] {
        let script = fixture.rbuild(["completion", shell]).ok();
        fs::write(dir.join(name), script.stdout).unwrap();
    }
    let lines = [
        ("rbuild imaget", "imagetools"),
        ("rbuild build --metad", "--metadata-file"),
        ("rbuild manifest annot", "annotate"),
    ];
    let zsh = machine::required("zsh", "zsh").unwrap();
    let asked = fixture.home.command(zsh).args(["-f", "-c", ZSH, "zsh"]).arg(&dir);
    asked.args(lines.map(|(line, _)| line)).ok();
    let got = fs::read_to_string(dir.join("got")).unwrap();
    let fish = machine::required("fish", "fish").unwrap();
    assert_eq!(got.lines().count(), lines.len(), "{got}");
    for ((line, expected), completed) in lines.into_iter().zip(got.lines()) {
        let last = completed
            .split(' ')
            .find(|word| *word == expected || word.starts_with(&format!("{expected}=")));
        assert!(last.is_some(), "{line}: {completed:?}");
        let code = format!("source {}/rbuild.fish; complete -C '{line}'", dir.display());
        let found = fixture.home.command(&fish).args(["-c", &code]).ok().stdout_text();
        let words: Vec<&str> = found.lines().filter_map(|line| line.split('\t').next()).collect();
        assert_eq!(words, [expected], "{line}");
    }
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
