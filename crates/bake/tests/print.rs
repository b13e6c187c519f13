//! What targets come to, compared byte for byte with what `docker buildx bake --print` printed (buildx 461836ba). Each directory
//! of `print` has the files, a `command` of variables and arguments in two lines, and the recorded `expected.json`. The files
//! are our own; their shapes are those of public projects. With `RBUILD_BAKE_DIR` the directories of another place are read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rbuild_bake::{BakeError, File, Surroundings, read};
use rbuild_dockerfile::csv::boolean;

/// Names that are looked for where `-f` names none.
const USUAL: [&str; 4] = [
    "docker-compose.yml",
    "docker-bake.json",
    "docker-bake.hcl",
    "docker-bake.override.hcl",
];

/// Arguments of one case.
#[derive(Default)]
struct Asked {
    files: Vec<String>,
    set: Vec<String>,
    vars: BTreeMap<String, String>,
    targets: Vec<String>,
}

fn asked(line: &str) -> Asked {
    let mut asked = Asked::default();
    let mut words = line.split_whitespace().map(str::to_owned);
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("a value");
        match word.as_str() {
            "-f" => asked.files.push(value()),
            "--set" => asked.set.push(value()),
            "--var" => {
                let value = value();
                let (name, value) = value.split_once('=').expect("a variable");
                asked.vars.insert(name.to_owned(), value.to_owned());
            }
            _ => asked.targets.push(word),
        }
    }
    asked
}

fn printed(dir: &Path) -> Result<String, BakeError> {
    let command = std::fs::read_to_string(dir.join("command")).expect("a command");
    let (env, line) = command.split_once('\n').expect("two lines");
    let mut asked = asked(line);
    let pairs = env.split_whitespace().filter_map(|pair| pair.split_once('='));
    let mut env: BTreeMap<String, String> = pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let epoch = env.get("SOURCE_DATE_EPOCH").cloned();
    if env
        .get("BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP")
        .and_then(|text| boolean(text))
        == Some(true)
    {
        env.clear();
    }
    if asked.files.is_empty() {
        let there = USUAL.iter().filter(|name| dir.join(name).exists());
        asked.files.extend(there.map(|name| (*name).to_owned()));
    }
    if asked.targets.is_empty() {
        asked.targets.push("default".to_owned());
    }
    let file = |name: &String| File {
        name: name.clone(),
        bytes: std::fs::read(dir.join(name)).expect("a file"),
    };
    let files: Vec<File> = asked.files.iter().map(file).collect();
    let variable = |name: &str| asked.vars.get(name).or_else(|| env.get(name)).cloned();
    let surroundings = Surroundings {
        variable: &variable,
        dotenv: String::new(),
        file: &|name| std::fs::read_to_string(dir.join(name)),
        builtins: BTreeMap::from([
            ("BAKE_CMD_CONTEXT".to_owned(), "cwd://".to_owned()),
            ("BAKE_LOCAL_PLATFORM".to_owned(), "linux/amd64".to_owned()),
        ]),
        now: 1_700_000_000,
        home: "/home/user".to_owned(),
    };
    let mut chosen = read(&files, &surroundings)?.choose(&asked.targets, &asked.set, &variable)?;
    chosen.prepare(epoch.as_deref())?;
    Ok(chosen.to_json().to_text() + "\n")
}

/// What is no list of values is refused in buildx's words (but for a hyphen of older Go in them).
#[test]
fn values_that_are_no_fields_are_refused() {
    let of = |kind: &str, value: &str| {
        let text = format!(
            "variable \"V\" {{\n type = {kind}\n}}\ntarget \"default\" {{ tags = [jsonencode(V)] }}\n"
        );
        refused(&text, Some(value))
    };
    for (kind, value, says) in [
        (
            "list(string)",
            "a\"b",
            "failed to parse a\"b as CSV: parse error on line 1, column 2: bare \" in non-quoted field",
        ),
        (
            "list(string)",
            "\"a",
            "failed to parse \"a as CSV: parse error on line 1, column 2: extraneous or missing \" in quoted-field",
        ),
        ("list(string)", "", "failed to parse  as CSV: EOF"),
        (
            "map(string)",
            "a",
            "expected one k/v pair but got 1 pieces from a",
        ),
        (
            "map(string)",
            "a:b:c",
            "expected one k/v pair but got 3 pieces from a:b:c",
        ),
        (
            "map(string)",
            "\"a:b\"\"c\"",
            "failed to parse a:b\"c as k/v for variable V: parse error on line 1, column 4: bare \" in non-quoted field",
        ),
        (
            "tuple([string, bool])",
            "a",
            "tuple expects 2 elements but only 1 provided",
        ),
        (
            "set(number)",
            "x",
            "failed to parse element of type set of number: failed to parse V as number: strconv.ParseFloat: parsing \"x\"",
        ),
    ] {
        let told = of(kind, value);
        let says = format!("failed to convert variable V from CSV: {says}");
        assert!(told.contains(&says), "{kind} {value}: {told}");
    }
    for (attribute, value, says) in [
        ("output", "type=local,dest=\"a\"", "column 17: bare"),
        ("output", "a\"b", "column 2: bare"),
        ("cache-from", "\"type=local", "column 2: extraneous"),
        ("cache-to", "type=local,\"dest=a\"b", "column 19: extraneous"),
        ("secret", "id=\"a\"", "column 4: bare"),
        ("attest", "type=sbom,a=\"b\"", "column 13: bare"),
    ] {
        let text = format!("target \"default\" {{ {attribute} = [{value:?}] }}\n");
        let told = refused(&text, None);
        let says = format!("parse error on line 1, {says}");
        assert!(told.contains(&says), "{attribute} {value}: {told}");
    }
}

/// What is said of a file that cannot be used, `V` having this value.
fn refused(text: &str, value: Option<&str>) -> String {
    let files = [File {
        name: "docker-bake.hcl".to_owned(),
        bytes: text.as_bytes().to_vec(),
    }];
    let variable = |name: &str| value.filter(|_| name == "V").map(str::to_owned);
    let surroundings = Surroundings {
        variable: &variable,
        dotenv: String::new(),
        file: &|_| Err(std::io::ErrorKind::NotFound.into()),
        builtins: BTreeMap::new(),
        now: 0,
        home: String::new(),
    };
    let read = read(&files, &surroundings);
    let chosen = read.and_then(|read| read.choose(&["default".to_owned()], &[], &variable));
    chosen.expect_err(text).to_string()
}

#[test]
fn targets_are_those_that_buildx_prints() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/print");
    let root = std::env::var_os("RBUILD_BAKE_DIR").map_or(own, PathBuf::from);
    let mut dirs: Vec<PathBuf> = std::fs::read_dir(root)
        .expect("cases")
        .map(|entry| entry.expect("a case").path())
        .collect();
    dirs.sort();
    assert!(dirs.len() >= 8, "{dirs:?}");
    let mut told = Vec::new();
    for dir in &dirs {
        let expected = std::fs::read_to_string(dir.join("expected.json")).expect("what buildx printed");
        match printed(dir) {
            Ok(text) if text == expected => {}
            Ok(text) => {
                let lines = text
                    .lines()
                    .zip(expected.lines())
                    .find(|(own, theirs)| own != theirs);
                told.push(format!("{}: {lines:?}", dir.display()));
            }
            Err(error) => told.push(format!("{}: {error}", dir.display())),
        }
    }
    assert!(
        told.is_empty(),
        "{} of {}:\n{}",
        told.len(),
        dirs.len(),
        told.join("\n")
    );
}
