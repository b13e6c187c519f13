//! Bake files and compose files of others: what `bake --print` and `--list` say of each, beside buildx. `RBUILD_OUTSIDE_BAKE`
//! names a directory with one checkout for each project; nothing of theirs is kept here. Results are in `benches/results`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rbuild_testkit::command::{Ran, RbuildCommand};
use rbuild_testkit::machine;
use serde_json::Value;

use crate::e2e::fixture::Fixture;

/// Where the checkouts are.
const DIR: &str = "RBUILD_OUTSIDE_BAKE";
/// What is set of all targets; each is asked of all of them at once.
const ASKED: &[&[&str]] = &[
    &[],
    &["--set", "*.platform=linux/arm64,linux/amd64"],
    &[
        "--set",
        "*.args.EXTRA=1",
        "--set",
        "*.tags=x:y",
        "--set",
        "*.output=type=registry",
    ],
    &["--push"],
    &["--load"],
    &["--no-cache", "--pull", "--provenance=mode=max", "--sbom=true"],
];
/// Variables that such files take from their surroundings.
const VARIABLES: &[(&str, &str)] = &[
    ("TAG", "v9"),
    ("VERSION", "9.9"),
    ("REGISTRY", "registry.example"),
    ("GITHUB_REF", "refs/tags/v9"),
    ("GO_VERSION", "1.99"),
    ("DESTDIR", "/out"),
    ("SOURCE_DATE_EPOCH", "1700000000"),
];
fn is_bake_file(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_yaml = name.ends_with(".yml") || name.ends_with(".yaml");
    name.ends_with(".hcl")
        || (name.contains("bake") && (name.ends_with(".json") || is_yaml))
        || ((name.starts_with("compose") || name.starts_with("docker-compose")) && is_yaml)
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() && !path.is_symlink() && !path.ends_with("vendor") && !path.ends_with(".git") {
            files(&path, found);
        } else if path.is_file() && is_bake_file(&path) {
            found.push(path);
        }
    }
}

/// Times are those of the call.
fn without_times(text: &str) -> String {
    let words = text.split_inclusive(['"', '=']);
    let is_time =
        |word: &str| word.len() > 20 && word.starts_with("20") && word.as_bytes().get(10) == Some(&b'T');
    words
        .map(|word| if is_time(word) { "TIME" } else { word })
        .collect()
}

struct Both<'a> {
    fixture: &'a Fixture,
    buildx: &'a Path,
    told: Vec<String>,
    asked: usize,
}

impl Both<'_> {
    /// Asks both; gives what buildx said.
    fn ask(&mut self, file: &Path, args: &[&str], is_set: bool) -> Ran {
        let run = |command: RbuildCommand| {
            let mut command = command
                .args(["-f".as_ref(), file.file_name().unwrap()])
                .args(args);
            for (name, value) in VARIABLES.iter().filter(|_| is_set) {
                command = command.env(name, value);
            }
            command.current_dir(file.parent().unwrap()).run()
        };
        let theirs = run(self.fixture.home.command(self.buildx).args(["bake"]));
        let own = run(self.fixture.rbuild(["buildx", "bake"]));
        self.asked += 1;
        let is_same = own.status.code() == theirs.status.code()
            && (!own.status.success()
                || without_times(&own.stdout_text()) == without_times(&theirs.stdout_text()));
        if !is_same {
            self.told
                .push(format!("{} {args:?}:\n{own}\n{theirs}", file.display()));
        }
        theirs
    }

    fn file(&mut self, file: &Path) {
        self.ask(file, &["--print"], false);
        let list = self.ask(file, &["--list=type=targets,format=json"], false);
        let Ok(Value::Array(targets)) = serde_json::from_str(&list.stdout_text()) else {
            return;
        };
        self.ask(file, &["--list=type=variables,format=json"], false);
        let names: Vec<&str> = targets
            .iter()
            .filter_map(|target| target["name"].as_str())
            .collect();
        for name in &names {
            self.ask(file, &["--print", name], false);
        }
        for asked in ASKED {
            let args: Vec<&str> = ["--print"].iter().chain(*asked).chain(&names).copied().collect();
            self.ask(file, &args, false);
            self.ask(file, &args, true);
        }
    }
}

#[test]
#[ignore = "needs checkouts of other projects, in RBUILD_OUTSIDE_BAKE, and minutes"]
fn outside_bake_files_come_to_what_buildx_makes_of_them() {
    let root = PathBuf::from(std::env::var_os(DIR).expect("the directory of checkouts"));
    let buildx = machine::required("docker-buildx", "docker-buildx").unwrap();
    let fixture = Fixture::new("FROM scratch\n");
    let mut both = Both {
        fixture: &fixture,
        buildx: &buildx,
        told: Vec::new(),
        asked: 0,
    };
    let mut counts = BTreeMap::new();
    for project in std::fs::read_dir(&root).unwrap() {
        let project = project.unwrap().path();
        let mut found = Vec::new();
        files(&project, &mut found);
        let before = both.asked;
        for file in &found {
            both.file(file);
        }
        counts.insert(project, (found.len(), both.asked - before));
    }
    for (project, (files, asked)) in &counts {
        println!("{}: {files} files, {asked} questions", project.display());
    }
    assert!(both.asked > 100, "{} asked", both.asked);
    assert!(
        both.told.is_empty(),
        "{} differ:\n{}",
        both.told.len(),
        both.told.join("\n")
    );
}
