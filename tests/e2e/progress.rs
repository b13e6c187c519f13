//! How progress is shown: JSON in buildx's shape, nothing but the id in quiet mode, and a live view that has the colours, the lines
//! of output and the width that it is told, and new ones when the terminal changes.

use std::collections::{BTreeMap, BTreeSet};

use rbuild_testkit::command::Ran;
use rbuild_testkit::machine;
use serde_json::Value;

use crate::e2e::fixture::{Fixture, RBUILD, busybox_argument};
use crate::e2e::real_buildkit::RealBuildkit;

const DOCKERFILE: &str =
    "FROM scratch AS one\nCOPY Dockerfile /d\nFROM scratch\nLABEL a=b\nCOPY --from=one /d /e\n";

/// Members that a client knows (`client/graph.go`, `SolveStatus`), by the list they are in; the first are always there. `missCause`
/// is rbuild's own.
const MEMBERS: [(&str, &[&str], &[&str]); 4] = [
    (
        "vertexes",
        &["digest", "name"],
        &[
            "inputs",
            "started",
            "completed",
            "cached",
            "error",
            "progressGroup",
            "missCause",
        ],
    ),
    (
        "statuses",
        &["id", "vertex", "timestamp"],
        &["name", "total", "current", "started", "completed"],
    ),
    ("logs", &["vertex", "timestamp", "data"], &["stream"]),
    (
        "warnings",
        &["vertex"],
        &["level", "short", "detail", "url", "sourceInfo", "range"],
    ),
];

/// Names of what was done, from lines of JSON whose shape is checked.
fn names(tool: &str, text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with('{')) {
        let status: BTreeMap<String, Vec<Value>> =
            serde_json::from_str(line).unwrap_or_else(|error| unreadable(tool, line, &error));
        for (list, entries) in status {
            let known = MEMBERS.iter().find(|(name, ..)| *name == list);
            let (_, always, sometimes) = known.expect("a list that clients know");
            for entry in &entries {
                let entry = entry.as_object().expect("an object");
                for key in *always {
                    // What is 0 is left out by none of these.
                    assert!(entry.contains_key(*key), "{tool}: {list} without {key}: {line}");
                }
                let stray = entry
                    .keys()
                    .find(|key| !always.contains(&key.as_str()) && !sometimes.contains(&key.as_str()));
                assert_eq!(stray, None, "{tool}: {line}");
                if list == "vertexes" {
                    names.insert(entry["name"].as_str().expect("a name").to_owned());
                }
            }
        }
    }
    names
}

#[track_caller]
fn unreadable(tool: &str, line: &str, error: &serde_json::Error) -> BTreeMap<String, Vec<Value>> {
    assert!(line.is_empty(), "{tool}: {error}: {line}");
    BTreeMap::new()
}

/// Steps of plain progress.
fn steps(text: &str) -> BTreeSet<String> {
    let of_step = |line: &str| {
        let (_, rest) = line.strip_prefix('#')?.split_once(' ')?;
        rest.starts_with('[').then(|| rest.to_owned())
    };
    text.lines().filter_map(of_step).collect()
}

#[test]
fn steps_have_the_names_and_json_the_shape_of_buildx() {
    let fixture = Fixture::new(DOCKERFILE);
    let out = |dir: &str| {
        format!(
            "--output=type=local,dest={}",
            fixture.home.work().join(dir).display()
        )
    };
    let build = |mode: &str| {
        let build = fixture.rbuild(["build", "--no-cache", mode, &out("ours")]);
        build.arg(fixture.context.dir()).ok()
    };
    let expected: BTreeSet<String> = [
        "[internal] load build definition from Dockerfile",
        "[internal] load .dockerignore",
        "[internal] load build context",
        "[one 1/1] COPY Dockerfile /d",
        "[stage-1 1/1] COPY --from=one /d /e",
    ]
    .map(str::to_owned)
    .into();
    let ours = names("rbuild", &build("--progress=rawjson").stderr);
    assert!(expected.is_subset(&ours), "{ours:?}");
    assert_eq!(steps(&build("--progress=plain").stderr), expected);
    let quiet = fixture
        .rbuild(["build", "--progress=quiet"])
        .arg(fixture.context.dir())
        .ok();
    assert_eq!(quiet.stderr, "");
    let id = quiet.stdout_text();
    assert!(
        id.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64),
        "{id}"
    );
    let none = fixture
        .rbuild(["build", "--progress=none"])
        .arg(fixture.context.dir())
        .ok();
    assert_eq!(none.stdout_text() + &none.stderr, "");

    let Some(server) = RealBuildkit::start() else {
        return;
    };
    let theirs = |mode: &str| -> Ran {
        let build = server.build().args(["--no-cache", mode, &out("theirs")]);
        build.arg(fixture.context.dir()).ok()
    };
    let json = names("buildx", &theirs("--progress=rawjson").stderr);
    assert!(expected.is_subset(&json), "{json:?}");
    assert_eq!(steps(&theirs("--progress=plain").stderr), expected);
    let of_exports =
        |names: &BTreeSet<String>| -> BTreeSet<String> { names.difference(&expected).cloned().collect() };
    assert_eq!(of_exports(&ours), of_exports(&json));
}

/// A shell line in a terminal, with `vars`.
fn in_terminal(fixture: &Fixture, line: &str, vars: &[(&str, &str)]) -> String {
    let script = machine::required("script", "bsdutils").unwrap();
    let command = fixture.home.command(script).args(["-qec", line, "/dev/null"]);
    let ran = vars
        .iter()
        .fold(command, |command, (key, value)| command.env(key, value));
    ran.ok().stdout_text()
}

/// What codes of colour there are in a text.
fn colours(text: &str) -> BTreeSet<&str> {
    let codes = text.split("\x1b[").skip(1);
    codes
        .filter_map(|rest| rest.split_once('m'))
        .map(|(code, _)| code)
        .filter(|code| code.bytes().all(|b| b.is_ascii_digit() || b == b';'))
        .collect()
}

#[test]
fn colours_and_lines_of_output_are_those_that_variables_ask_for() {
    let lines = "FROM busybox\nRUN for i in 1 2 3 4 5 6 7 8; do echo line-$i; done; sleep 0.6; false\n";
    let fixture = Fixture::new(lines);
    let base = busybox_argument("busybox");
    let line = format!(
        "stty cols 90 rows 30; {RBUILD} build --no-cache --progress=tty {base} {}; true",
        fixture.context.dir().display()
    );
    let usual = in_terminal(&fixture, &line, &[]);
    assert!(
        colours(&usual).contains("34") && colours(&usual).contains("31"),
        "{:?}",
        colours(&usual)
    );
    let plain = in_terminal(&fixture, &line, &[("NO_COLOR", "1")]);
    assert!(
        colours(&plain).iter().all(|code| matches!(*code, "0" | "")),
        "{:?}",
        colours(&plain)
    );
    let chosen = in_terminal(&fixture, &line, &[("BUILDKIT_COLORS", "run=green:error=1,2,3")]);
    let (green, rgb) = ("32", "38;5;16");
    assert!(
        colours(&chosen).contains(green) && colours(&chosen).contains(rgb),
        "{:?}",
        colours(&chosen)
    );
    let wrong = in_terminal(&fixture, &line, &[("BUILDKIT_COLORS", "nope")]);
    assert!(!wrong.contains("panicked"), "{wrong}");
    // Before the end, where the whole log is told: the view shows the last lines of it.
    let view = |text: &str| text.split("------").next().unwrap_or_default().to_owned();
    assert!(view(&usual).contains("line-3"), "{usual}");
    let short = view(&in_terminal(&fixture, &line, &[("BUILDKIT_TTY_LOG_LINES", "2")]));
    assert!(short.contains("line-8") && !short.contains("line-6"), "{short}");
}

#[test]
fn a_terminal_that_becomes_narrow_is_not_written_beyond_its_edge() {
    let fixture = Fixture::new(
        "FROM busybox\nRUN echo a line that is longer than thirty columns are wide; sleep 1.5\n",
    );
    let line = format!(
        "stty cols 100 rows 30; (sleep 0.7; stty cols 30 < /dev/tty; echo NARROW) & \
         {RBUILD} build --no-cache --progress=tty {} {} 2>&1; wait",
        busybox_argument("busybox"),
        fixture.context.dir().display()
    );
    let text = in_terminal(&fixture, &line, &[]);
    let (wide, narrow) = text.split_once("NARROW").expect("the terminal was changed");
    assert!(widest(wide) > 60, "{text}");
    // What was on its way is as wide as it was before.
    let later = narrow.splitn(4, "[+]").last().unwrap_or_default();
    assert!(later.contains("RUN"), "{text}");
    assert!(widest(later) <= 30, "{}: {later}", widest(later));
}

/// Characters of the widest line that a terminal was sent.
pub(crate) fn widest(text: &str) -> usize {
    let shown = text.split(['\r', '\n']).map(|line| visible(line).chars().count());
    shown.max().unwrap_or_default()
}

/// A line without its control sequences.
fn visible(line: &str) -> String {
    let mut parts = line.split('\x1b');
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part
            .find(|c: char| c.is_ascii_alphabetic())
            .map_or(part.len(), |at| at + 1);
        shown.push_str(&part[end..]);
    }
    shown
}
