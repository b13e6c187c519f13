//! Questions (`--call`, `--check`) by the real `docker buildx`: what it prints of a server of ours is what the program prints
//! by itself, of every conformance case that is a question and of some that cannot be built. A real BuildKit is asked beside
//! it where `RBUILD_BUILDKIT` has its address.
//!
//! Left out of the comparison: `sources[].definition`, in which a server's JSON says how it came to the Dockerfile; lines of
//! help, which only the program by itself prints; and empty lines of errors.

use std::path::Path;

use rbuild_testkit::base;
use rbuild_testkit::command::TestHome;
use rbuild_testkit::conformance::Case;
use serde_json::Value;

use crate::e2e::RBUILD;
use crate::e2e::buildx::Buildx;

/// Has the address of a BuildKit.
const BUILDKIT: &str = "RBUILD_BUILDKIT";
/// All that is asked of a case.
const CALLS: [&str; 6] = [
    "check",
    "outline",
    "targets",
    "check,format=json",
    "outline,format=json",
    "targets,format=json",
];
/// Cases that are asked though they are no questions: what is wrong is told in many ways.
const CANNOT_BE_BUILT: [&str; 8] = [
    "copy/circular",
    "env/unclosed_brace",
    "from/bad_platform",
    "from/bad_reference",
    "from/target_missing",
    "mount/unknown_key",
    "parse/flag_near",
    "parse/unknown_instruction",
];

/// Cases of which rbuild tells the line and BuildKit does not, so their JSON differs (docs/differences.md).
const TELLS_MORE: [&str; 1] = ["check/cannot_be_built"];

/// What a client printed, as far as it is compared.
#[derive(Debug, PartialEq)]
struct Told {
    status: Option<i32>,
    answer: String,
    error: Vec<String>,
}

impl Told {
    /// As far as BuildKit says the same each time, and names a place: what it keeps in maps of Go comes in any order, and a
    /// failure of a question other than `check` has no excerpt.
    fn loosely(&self) -> (Option<i32>, Vec<String>, Vec<String>) {
        let words = |line: &str| {
            let mut words: Vec<&str> = line
                .split([' ', ',', '"'])
                .filter(|word| !word.is_empty())
                .collect();
            words.sort_unstable();
            words.join(" ")
        };
        let mut answer: Vec<String> = self.answer.lines().map(words).collect();
        answer.sort_unstable();
        let error = self.error.iter().filter(|line| line.starts_with("ERROR: "));
        (self.status, answer, error.map(|line| words(line)).collect())
    }

    /// Whether this is what the program said: of our own server word for word, and each excerpt once.
    fn is_that_of(&self, own: &Self, builder: &str) -> bool {
        match builder {
            "ours" => {
                let once = |told: &Self| {
                    let mut excerpts: Vec<String> = Vec::new();
                    for line in &told.error {
                        match excerpts.last_mut() {
                            Some(open) if !line.contains("Dockerfile:") && !line.starts_with("ERROR: ") => {
                                *open += line;
                            }
                            _ => excerpts.push(line.clone()),
                        }
                    }
                    excerpts.dedup();
                    excerpts
                };
                (self.status, &self.answer, once(self)) == (own.status, &own.answer, once(own))
            }
            _ => self.loosely() == own.loosely(),
        }
    }

    fn of(status: Option<i32>, stdout: &[u8], stderr: &[u8]) -> Self {
        let stderr = String::from_utf8_lossy(stderr);
        let error = stderr
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with("hint: "));
        Self {
            status,
            answer: without_definitions(&String::from_utf8_lossy(stdout)),
            error: error.map(str::to_owned).collect(),
        }
    }
}

/// An answer in JSON without the definitions of its sources, or any other as it is.
fn without_definitions(answer: &str) -> String {
    let Ok(mut value) = serde_json::from_str::<Value>(answer) else {
        return answer.to_owned();
    };
    let sources = value.get_mut("sources").and_then(Value::as_array_mut);
    for source in sources.into_iter().flatten().filter_map(Value::as_object_mut) {
        source.remove("definition");
    }
    format!("{value:#}")
}

fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    let all = Case::all(&root).expect("the cases");
    let known: Vec<&str> = all.iter().map(|case| case.name.as_str()).collect();
    for name in CANNOT_BE_BUILT {
        assert!(known.contains(&name), "there is no case {name}");
    }
    let asked = |case: &Case| case.recipe.call.is_some() || CANNOT_BE_BUILT.contains(&case.name.as_str());
    all.into_iter().filter(asked).collect()
}

#[test]
fn privileged_buildx_is_told_what_the_program_says() {
    let Some(buildx) = Buildx::start() else { return };
    let mut builders = vec!["ours"];
    if let Ok(address) = std::env::var(BUILDKIT) {
        buildx.add_builder("theirs", &address);
        builders.push("theirs");
    }
    let bases = base::layout().expect("the base images");
    let home = TestHome::new();
    let mut different = Vec::new();
    let mut asked = 0;
    for case in cases() {
        let room = buildx.dir().join(case.name.replace('/', "-"));
        case.lay_out(&room).expect("a case is laid out");
        for call in CALLS {
            // Of a question, what it asks; of what cannot be built, everything.
            if case.recipe.call.is_some_and(|own| !call.starts_with(own.flag())) {
                continue;
            }
            let mut args = case.rbuild_args(&room, &bases);
            args.retain(|arg| !arg.starts_with("--call") && !arg.starts_with("--progress"));
            args.extend(["--progress=quiet".to_owned(), format!("--call={call}")]);
            let ran = home.command(RBUILD).args(&args).run();
            let own = Told::of(ran.status.code(), &ran.stdout, ran.stderr.as_bytes());
            for builder in &builders {
                let output = buildx.run_on(builder, &args);
                let told = Told::of(output.status.code(), &output.stdout, &output.stderr);
                asked += 1;
                let tells_more = *builder != "ours" && TELLS_MORE.contains(&case.name.as_str());
                if !tells_more && !told.is_that_of(&own, builder) {
                    different.push(format!(
                        "{} --call={call}: {builder} by buildx\n{told:#?}\nand the program\n{own:#?}",
                        case.name
                    ));
                }
            }
        }
    }
    assert!(
        different.is_empty(),
        "{} of {asked} answers differ:\n\n{}",
        different.len(),
        different.join("\n\n")
    );
    println!("{asked} answers of {builders:?} are those of the program");
}
