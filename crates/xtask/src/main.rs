//! Developer tasks, each one file: `ci`, `bases`, `demo`, `bench`, `chart`, `record-conformance`,
//! `differences`, `generated`, `buildah`, `outside`.
//!
//! `.ci/run` and the README call these and nothing else, so that what is promised is what is run.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool speaks by printing"
)]

mod bases;
mod bench;
mod buildah;
mod chart;
mod ci;
mod demo;
mod differences;
mod generated;
mod outside;
mod packages;
mod record;
mod shell;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask <task>
  ci [--tier fast|real|all]       everything a change must pass; `.ci/run` is `--tier all`
  bases [NAME...]                 make the slow tier's base images from Debian packages (needs root)
  demo [--install DIR] [--rbuild PATH]
                                  build rbuild (or take that one), build a multi-stage image with it, show both sizes
  dist                            build the static program that is given to others: small, links for minutes
  bench [--case NAME] [--runs N] [--without TOOL,…] [--rbuild PATH]
                                  measure against buildah, buildkitd and dockerd, write benches/results/
  chart                           draw benches/chart.svg from the latest results
  bench --micro [--check]         count the instructions of the parts of a build; or fail where they are notably more
  bench --scale                   measure how time grows with stages, steps, layers, files and records
  record-conformance --buildctl PATH --addr ADDR [--only PART]
                                  run the conformance cases under a real BuildKit and write expect.json
  differences --rbuild PATH [--buildctl PATH --addr ADDR]
                                  run the conformance cases and write docs/differences.md; a BuildKit must say what it said
  generated --rbuild PATH --buildctl PATH --addr ADDR [--seed N] [--count N]
                                  build Dockerfiles out of a grammar with both and compare what each makes of them
  buildah [--only PART]           run the conformance cases under buildah and write docs/differences-buildah.md
  outside --mirrors DIR           read, lint and lower Dockerfiles of public projects out of clones below DIR
  outside --mirrors DIR --build --rbuild PATH [--buildctl PATH --addr ADDR] [--only PART]
                                  build projects on the slow tier's base images, and compare with what a BuildKit makes
  outside --mirrors DIR --make --rbuild PATH [--only PART]
                                  run Makefiles and CI lines of projects with rbuild as docker, against a registry of this machine";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((task, rest)) = args.split_first() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if task == "help" || args.iter().any(|arg| arg == "-h" || arg == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    if let Some(flag) = unknown_flag(rest) {
        eprintln!("xtask {task}: no flag {flag:?}\n{USAGE}");
        return ExitCode::from(2);
    }
    let done = match task.as_str() {
        "ci" => ci::run(rest),
        "bases" => bases::run(rest),
        "demo" => demo::run(rest),
        "dist" => ci::dist(),
        "bench" => bench::run(rest),
        "chart" => chart::run(),
        "record-conformance" => record::run(rest),
        "differences" => differences::run(rest),
        "generated" => generated::run(rest),
        "buildah" => buildah::run(rest),
        "outside" => outside::run(rest),
        other => {
            eprintln!("no task {other:?}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {task}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The first of `args` that looks like a flag and is none: a measurement of an hour is not what `--help` asks for.
fn unknown_flag(args: &[String]) -> Option<&str> {
    let known = |flag: &str| {
        USAGE
            .split(|c: char| c.is_whitespace() || "[]".contains(c))
            .any(|word| word == flag)
    };
    args.iter()
        .filter_map(|arg| arg.split('=').next())
        .find(|flag| flag.starts_with('-') && !known(flag))
}

#[cfg(test)]
mod tests {
    use super::unknown_flag;

    #[test]
    fn flags_are_those_of_the_usage() {
        let args = |words: &[&str]| -> Vec<String> { words.iter().map(|&word| word.to_owned()).collect() };
        assert_eq!(
            unknown_flag(&args(&["--case", "cold", "--runs=3", "--without", "a,b"])),
            None
        );
        assert_eq!(unknown_flag(&args(&["--tier", "fast"])), None);
        assert_eq!(unknown_flag(&args(&["--micro", "--check"])), None);
        assert_eq!(unknown_flag(&args(&["--case", "cold", "--help"])), Some("--help"));
        assert_eq!(unknown_flag(&args(&["--run=3"])), Some("--run"));
    }
}
