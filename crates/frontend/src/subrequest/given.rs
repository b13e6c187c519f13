//! The answer of another front end, as it gave it: its forms are shown and not made anew. What it says is as little
//! trusted as the front end: every form has the limit of our own, and what is no answer is told as such.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild_dockerfile::Span;
use serde::Deserialize;

use crate::subrequest::bounded::{FORM_BYTES_MAX, FormError};
use crate::subrequest::{LintFailure, Subrequest};

/// Metadata of an answer: the form for programs.
pub(super) const JSON: &str = "result.json";
/// The form for people.
pub(super) const TEXT: &str = "result.txt";
/// What a program that asks only this exits with.
pub(super) const STATUS: &str = "result.statuscode";
/// Places of a failure that are kept: more than one Dockerfile has in a circle.
const PLACES_MAX: usize = 1000;

/// What another front end answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenAnswer {
    subrequest: Subrequest,
    metadata: BTreeMap<String, Vec<u8>>,
}

/// What another front end's lint found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenLint {
    /// Number of warnings.
    pub warnings: usize,
    /// Why the file cannot be built.
    pub failure: Option<LintFailure>,
    /// The text that `failure` is about.
    pub source: Vec<u8>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Found {
    warnings: Option<Vec<serde::de::IgnoredAny>>,
    sources: Option<Vec<Source>>,
    #[serde(rename = "buildError")]
    failure: Option<Failure>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Source {
    data: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Failure {
    message: String,
    location: Location,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Location {
    #[serde(alias = "source_index", rename = "sourceIndex")]
    source: usize,
    ranges: Vec<Range>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Position {
    line: u32,
}

impl GivenAnswer {
    /// The answer to `subrequest` that is in the metadata of a front end's result.
    #[must_use]
    pub fn new(subrequest: Subrequest, mut metadata: BTreeMap<String, Vec<u8>>) -> Self {
        metadata.retain(|key, _| key == "version" || key.starts_with("result."));
        Self { subrequest, metadata }
    }

    /// What was asked.
    #[must_use]
    pub const fn subrequest(&self) -> Subrequest {
        self.subrequest
    }

    /// What lint found.
    ///
    /// # Errors
    /// [`FormError::Malformed`] if that is not told.
    pub fn lint(&self) -> Result<GivenLint, FormError> {
        let malformed = |_| FormError::Malformed(JSON);
        let found: Found = serde_json::from_slice(self.form(JSON)?).map_err(malformed)?;
        let place = found
            .failure
            .as_ref()
            .map_or(0, |failure| failure.location.source);
        let source = found.sources.unwrap_or_default().into_iter().nth(place);
        Ok(GivenLint {
            warnings: found.warnings.map_or(0, |list| list.len()),
            failure: found.failure.map(|failure| LintFailure {
                spans: spans(&failure.location),
                message: failure.message,
            }),
            source: source
                .and_then(|source| STANDARD.decode(source.data).ok())
                .unwrap_or_default(),
        })
    }

    /// Everything that was answered.
    pub(super) fn metadata(&self) -> Result<BTreeMap<String, Vec<u8>>, FormError> {
        for key in self.metadata.keys() {
            self.form(key)?;
        }
        Ok(self.metadata.clone())
    }

    /// One form.
    pub(super) fn form(&self, key: &str) -> Result<&[u8], FormError> {
        match self.metadata.get(key) {
            Some(form) if form.len() > FORM_BYTES_MAX => Err(FormError::TooLong),
            Some(form) => Ok(form),
            None => Err(FormError::Missing(if key == JSON { JSON } else { TEXT })),
        }
    }

    /// What a program exits with that asks only this.
    pub(super) fn status_code(&self) -> Option<u8> {
        let text = std::str::from_utf8(self.metadata.get(STATUS)?).ok()?;
        let code: i64 = text.parse().ok()?;
        Some(u8::try_from(code).unwrap_or(1))
    }
}

/// All lines a failure is about.
fn spans(location: &Location) -> Vec<Span> {
    let named = location.ranges.iter().filter(|range| range.start.line > 0);
    let span = |range: &Range| Span {
        start: range.start.line,
        end: range.end.line.max(range.start.line),
    };
    named.take(PLACES_MAX).map(span).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(json: &str, status: &str) -> GivenAnswer {
        let metadata = [(JSON, json), (TEXT, "words"), (STATUS, status), ("other", "x")];
        let metadata = metadata.map(|(key, text)| (key.to_owned(), text.as_bytes().to_vec()));
        GivenAnswer::new(Subrequest::Lint, BTreeMap::from(metadata))
    }

    #[test]
    fn what_another_lint_found_is_read_from_its_json() {
        let json = r#"{"warnings":[{"ruleName":"Other"},{}],"sources":[{"filename":"x"},{"data":"YQo="}],
            "buildError":{"message":"no","location":{"sourceIndex":1,"ranges":[{"start":{"line":3},"end":{"line":4}},{"start":{"line":2},"end":{}},
            {"start":{},"end":{"line":9}}]}}}"#;
        let found = given(json, "1").lint().unwrap();
        assert_eq!((found.warnings, found.source.as_slice()), (2, &b"a\n"[..]));
        let failure = found.failure.unwrap();
        assert_eq!(
            (failure.message.as_str(), failure.spans.as_slice()),
            (
                "no",
                [Span { start: 3, end: 4 }, Span { start: 2, end: 2 }].as_slice()
            )
        );
        let clean = given(r#"{"warnings":null,"sources":null}"#, "0").lint().unwrap();
        assert_eq!((clean.warnings, clean.failure), (0, None));
    }

    #[test]
    fn row48_what_is_no_answer_is_refused() {
        assert_eq!(given("[", "").lint(), Err(FormError::Malformed(JSON)));
        let empty = GivenAnswer::new(Subrequest::Targets, BTreeMap::new());
        assert_eq!(empty.form(JSON), Err(FormError::Missing(JSON)));
        let long = BTreeMap::from([(TEXT.to_owned(), vec![b'x'; FORM_BYTES_MAX + 1])]);
        let long = GivenAnswer::new(Subrequest::Targets, long);
        assert_eq!(long.form(TEXT), Err(FormError::TooLong));
        assert_eq!(long.metadata(), Err(FormError::TooLong));
        assert_eq!(given("{}", "300").status_code(), Some(1));
        assert_eq!(given("{}", "0").status_code(), Some(0));
        assert_eq!(given("{}", "x").status_code(), None);
        assert_eq!(
            given("{}", "0").metadata().unwrap().len(),
            3,
            "what is no answer is not kept"
        );
    }
}
