//! What errors are called here, and which differences in them have a reason.

use std::collections::BTreeSet;

use rbuild_testkit::conformance::Expectation;

use crate::record::Failed;

/// Parts of reasons that hold for every Dockerfile, not for the case alone that has them.
pub(super) const EXCUSED: [&str; 6] = [
    "did you mean",
    "left out by",
    "invalid pattern",
    "illegal exclusion pattern",
    "uids and gids must be in range",
    "make mountpoint",
];

/// Whether the warnings are the same in another order. BuildKit sorts them by line in a way that leaves the order of those of one
/// line open (`frontend/subrequests/lint/lint.go`, `sort.Slice`), and finds the undefined variables of a line in the order of a map.
/// Arguments of an outline that stand in one line come out of a map there.
pub(super) fn are_same_but_for_order(expected: &Expectation, have: &str) -> bool {
    let sorted = |text: &str| -> Vec<String> {
        let mut warnings: Vec<String> = text
            .split("\nWARNING: ")
            .map(|text| text.trim().to_owned())
            .collect();
        warnings.sort();
        warnings
    };
    let want = expected.answer.as_deref().unwrap_or_default();
    if want.contains("BUILD ARG") {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        return lines(want) == lines(have);
    }
    sorted(&format!("\n{want}")) == sorted(&format!("\n{have}"))
}

/// Whether BuildKit shows no lines where the line is known, or tells what its client answered that was asked for a pattern that is
/// none: as `copy/bad_pattern`, `from/variable_in_from_flag` and `from/copy_number_too_large` of the conformance cases.
pub(super) fn is_without_a_line(expected: &Expectation, sentence: &str) -> bool {
    const WITHOUT: [&str; 3] = [
        "rpc error: code = Unknown desc = invalid includepatterns: ",
        "variable expansion is not supported for --from",
        "invalid stage index",
    ];
    let error = expected.error.as_deref().unwrap_or_default();
    if !WITHOUT.iter().any(|part| error.contains(part)) {
        return false;
    }
    sentence.starts_with("excerpt ") || sentence.contains("]: syntax error in pattern`")
}

/// Whether it is of the places that both were given: which registry was asked, and what a client calls its directories.
pub(super) fn is_of_the_place(expected: &Expectation, sentence: &str) -> bool {
    let error = expected.error.as_deref().unwrap_or_default();
    error.contains("failed to resolve source metadata for docker.io/")
        || sentence.contains("local source for named-")
}

/// Whether of several sources of one line that are not there another is told, as `copy/several_missing` of the conformance cases.
pub(super) fn is_another_source(expected: &Expectation, have: &Failed, sentence: &str) -> bool {
    let is_missing =
        |error: &str| error.contains("failed to calculate checksum of ref") && error.contains("not found");
    let both = expected.error.as_deref().is_some_and(is_missing) && is_missing(&have.line);
    let (theirs, ours) = (expected.excerpt.as_deref(), have.excerpt.as_deref());
    both && last_line(theirs).is_some()
        && last_line(theirs) == last_line(ours)
        && sentence.contains("not found")
}

/// The last line of the Dockerfile that an excerpt marks.
pub(super) fn last_line(excerpt: Option<&str>) -> Option<usize> {
    let line = excerpt?.lines().rfind(|line| line.contains("| >>>"))?;
    line.split_once('|')?.0.trim().parse().ok()
}

/// The words of an error without what is of one Dockerfile alone: names in quotes, numbers, paths.
pub(super) fn kind(error: &str) -> String {
    let text = error
        .trim_start_matches("error: ")
        .trim_start_matches("failed to solve: ");
    let mut kind = String::new();
    let mut quoted = false;
    for c in text.chars().take(400) {
        match c {
            '"' => {
                quoted = !quoted;
                if quoted {
                    kind.push('…');
                }
            }
            _ if quoted => {}
            '0'..='9' if kind.ends_with('N') => {}
            '0'..='9' => kind.push('N'),
            '\n' => break,
            _ => kind.push(c),
        }
    }
    let words: Vec<&str> = kind.split(' ').take(9).collect();
    words.join(" ")
}
