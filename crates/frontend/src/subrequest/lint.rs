//! What lint finds (BuildKit `frontend/subrequests/lint`, `dockerfile2llb.DockerfileLint`).

use rbuild_dockerfile::Span;
use rbuild_oci::go_json::Json;
use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use crate::lint::LintWarning;
use crate::options::FrontendOptions;
use crate::subrequest::Location;
use crate::subrequest::bounded::{Bounded, FormError, base64};
use crate::subrequest::excerpt::Lines;
use crate::subrequest::location::Locations;

/// Warnings, and why the Dockerfile cannot be built, if it cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LintResults {
    /// In the order in which they were found.
    pub warnings: Vec<LintWarning>,
    /// Name of the Dockerfile.
    pub filename: String,
    /// Its text.
    pub source: Vec<u8>,
    /// The definition it was loaded with, as the JSON form has it.
    pub definition: Json,
    /// Why it cannot be built.
    pub failure: Option<LintFailure>,
}

/// Why a Dockerfile cannot be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LintFailure {
    /// In one line.
    pub message: String,
    /// Lines it is about, as far as that is known.
    pub spans: Vec<Span>,
}

impl LintResults {
    /// Results about `options.dockerfile`, which `definition` loaded.
    #[must_use]
    pub fn new(
        options: &FrontendOptions,
        definition: Json,
        warnings: Vec<LintWarning>,
        failure: Option<LintFailure>,
    ) -> Self {
        Self {
            warnings,
            filename: options.filename.clone(),
            source: options.dockerfile.clone(),
            definition,
            failure,
        }
    }

    /// Nothing was found.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.warnings.is_empty() && self.failure.is_none()
    }

    /// The warnings for people, by line, the Dockerfile shown as `filename`.
    ///
    /// # Errors
    /// [`FormError`].
    pub fn text(&self, filename: &str) -> Result<Vec<u8>, FormError> {
        let lines = Lines::new(filename, &self.source);
        let mut warnings: Vec<&LintWarning> = self.warnings.iter().collect();
        warnings.sort_by_key(|warning| warning.span.start);
        let mut out = Bounded::default();
        for warning in warnings {
            out.push(format!("\nWARNING: {}", warning.rule.name()).as_bytes())?;
            if !warning.url.is_empty() {
                out.push(format!(" - {}", warning.url).as_bytes())?;
            }
            out.push(format!("\n{}\n", warning.message).as_bytes())?;
            lines.excerpt(warning.span, &mut out)?;
        }
        Ok(out.into_bytes())
    }
}

impl Serialize for LintResults {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        // A list without elements is nil in BuildKit, which Go writes as null.
        let warnings = (!self.warnings.is_empty()).then_some(Warnings(&self.warnings));
        let failure = self.failure.as_ref().map(|failure| Failure {
            message: &failure.message,
            location: Locations(&failure.spans),
        });
        let source = [Source {
            filename: &self.filename,
            data: &self.source,
            definition: &self.definition,
            language: "Dockerfile",
        }];
        let mut results = to.serialize_struct("LintResults", 2 + usize::from(failure.is_some()))?;
        results.serialize_field("warnings", &warnings)?;
        results.serialize_field("sources", &source)?;
        if let Some(failure) = failure {
            results.serialize_field("buildError", &failure)?;
        }
        results.end()
    }
}

struct Warnings<'a>(&'a [LintWarning]);

impl Serialize for Warnings<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(|warning| Warning {
            rule_name: warning.rule.name(),
            description: warning.description,
            url: warning.url,
            detail: &warning.message,
            location: Location(warning.span),
        }))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Warning<'a> {
    rule_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    url: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
    location: Location,
}

#[derive(Serialize)]
struct Source<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    filename: &'a str,
    #[serde(serialize_with = "base64", skip_serializing_if = "<[u8]>::is_empty")]
    data: &'a [u8],
    #[serde(skip_serializing_if = "Json::is_absent")]
    definition: &'a Json,
    language: &'a str,
}

#[derive(Serialize)]
struct Failure<'a> {
    message: &'a str,
    location: Locations<'a>,
}
