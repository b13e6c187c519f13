//! `rbuild build --call`: the answer to a question about the Dockerfile, on standard output
//! (`buildx/commands/build.go`, `printResult`).

use std::collections::BTreeMap;
use std::io::Write as _;

use rbuild_frontend::subrequest::{FormError, LintFailure, Subrequest, SubrequestAnswer};
use rbuild_ui::diagnostic::{Diagnostic, ExitCode, Source};
use rbuild_ui::text;
use serde_json::Value;

use super::CommandError;
use crate::env::Env;
use crate::request::Call;

/// Prints the answer, and fails where it is a judgement that something is wrong.
pub(super) fn print(call: &Call, answer: &SubrequestAnswer, env: &mut Env) -> Result<(), CommandError> {
    let found = lint_of(call, answer)?;
    if let (Some(found), false) = (&found, call.as_json) {
        lint(found, env)?;
    } else if call.as_json {
        // JSON escapes what a terminal would obey, but for what is not ASCII.
        let json = answer.json().map_err(|error| no_answer(&error))?;
        writeln!(env.stdout, "{}", shown(&json))?;
    } else {
        let table = answer.text().map_err(|error| no_answer(&error))?;
        write!(env.stdout, "{}", shown(&table))?;
    }
    env.stdout.flush()?;
    if let Some(found) = found
        && let Some(failure) = found.failure
    {
        let source = Source {
            filename: call.dockerfile.clone(),
            text: found.source,
            spans: failure.spans.iter().map(|span| (span.start, span.end)).collect(),
        };
        return Err(CommandError::Failed(Box::new(Diagnostic {
            sources: vec![source],
            source_is_below: true,
            ..Diagnostic::new(failure.message)
        })));
    }
    match answer.status_code() {
        Some(code) if code != 0 && !call.ignore_status => Err(CommandError::Judged(ExitCode::Failure)),
        _ => Ok(()),
    }
}

/// What lint found, whoever looked.
struct Lint {
    warnings: usize,
    text: Vec<u8>,
    failure: Option<LintFailure>,
    source: Vec<u8>,
}

/// The findings in an answer about them.
fn lint_of(call: &Call, answer: &SubrequestAnswer) -> Result<Option<Lint>, CommandError> {
    let found = match answer {
        SubrequestAnswer::Lint(results) => Lint {
            warnings: results.warnings.len(),
            text: results
                .text(&call.dockerfile)
                .map_err(|error| no_answer(&error))?,
            failure: results.failure.clone(),
            source: results.source.clone(),
        },
        SubrequestAnswer::Given(given) if given.subrequest() == Subrequest::Lint => {
            let found = given.lint().map_err(|error| no_answer(&error))?;
            Lint {
                warnings: found.warnings,
                text: answer.text().map_err(|error| no_answer(&error))?,
                failure: found.failure,
                source: found.source,
            }
        }
        _ => return Ok(None),
    };
    Ok(Some(found))
}

fn lint(found: &Lint, env: &mut Env) -> Result<(), CommandError> {
    match found.warnings {
        0 => {}
        1 => writeln!(env.stdout, "Check complete, 1 warning has been found!")?,
        many => writeln!(env.stdout, "Check complete, {many} warnings have been found!")?,
    }
    write!(env.stdout, "{}", shown(&found.text))?;
    match (found.failure.is_some(), found.warnings == 0) {
        (true, false) => writeln!(env.stdout)?,
        (false, true) => writeln!(env.stdout, "Check complete, no warnings found.")?,
        (true, true) | (false, false) => {}
    }
    Ok(())
}

/// The answer as the metadata file has it.
pub(super) fn metadata(answer: &SubrequestAnswer) -> Result<BTreeMap<String, Value>, CommandError> {
    let all = answer.metadata().map_err(|error| no_answer(&error))?;
    let value = |key: &str, bytes: &[u8]| {
        let json = (key == "result.json").then(|| serde_json::from_slice(bytes).ok());
        json.flatten()
            .unwrap_or_else(|| Value::from(String::from_utf8_lossy(bytes)))
    };
    Ok(all
        .iter()
        .map(|(key, bytes)| (key.clone(), value(key, bytes)))
        .collect())
}

fn shown(bytes: &[u8]) -> String {
    text::lines(&String::from_utf8_lossy(bytes))
}

fn no_answer(error: &FormError) -> CommandError {
    CommandError::failed(error)
}
