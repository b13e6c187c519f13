//! Questions about a Dockerfile that build nothing (BuildKit `frontend/subrequests`): what can be asked, what lint
//! finds, which parameters a target has, which targets there are, which operations are made of it.
//!
//! Each answer has the two forms BuildKit gives it, JSON and text, byte for byte. Every byte of both comes from a
//! client, and both repeat lines of the Dockerfile once for each thing that is said of them, so a form that grows
//! beyond [`FORM_BYTES_MAX`] is refused.

mod bounded;
mod describe;
mod excerpt;
mod given;
mod lint;
mod location;
mod outline;
mod tabs;
mod targets;

use std::collections::BTreeMap;

use rbuild_oci::go_json::Json;

pub use crate::subrequest::bounded::{FORM_BYTES_MAX, FormError};
pub use crate::subrequest::given::{GivenAnswer, GivenLint};
pub use crate::subrequest::lint::{LintFailure, LintResults};
pub use crate::subrequest::location::Location;
pub use crate::subrequest::outline::{Outline, OutlineArg, OutlineNeed};
pub use crate::subrequest::targets::{Target, TargetList};

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subrequest {
    /// What can be asked.
    Describe,
    /// The parameters of the target.
    Outline,
    /// The targets.
    Targets,
    /// What lint finds.
    Lint,
    /// The operations that a build would run.
    ConvertLlb,
}

impl Subrequest {
    /// The question of that id (attribute `requestid`), if it is one that is answered.
    #[must_use]
    pub fn from_id(id: &str) -> Option<Self> {
        [
            Self::Describe,
            Self::Outline,
            Self::Targets,
            Self::Lint,
            Self::ConvertLlb,
        ]
        .into_iter()
        .find(|known| known.id() == id)
    }

    /// Its id.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::Describe => "frontend.subrequests.describe",
            Self::Outline => "frontend.outline",
            Self::Targets => "frontend.targets",
            Self::Lint => "frontend.lint",
            Self::ConvertLlb => "frontend.convertllb",
        }
    }

    /// Version of the answer's form.
    #[must_use]
    pub const fn version(self) -> &'static str {
        match self {
            Self::Describe | Self::Outline | Self::Targets | Self::Lint => "1.0.0",
            Self::ConvertLlb => "0.1.0",
        }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubrequestAnswer {
    /// To [`Subrequest::Describe`].
    Describe,
    /// To [`Subrequest::Outline`].
    Outline(Outline),
    /// To [`Subrequest::Targets`].
    Targets(TargetList),
    /// To [`Subrequest::Lint`].
    Lint(LintResults),
    /// To [`Subrequest::ConvertLlb`]: the definition, as whoever knows LLB writes it.
    ConvertLlb(Json),
    /// To any of them, by another front end.
    Given(GivenAnswer),
}

impl SubrequestAnswer {
    /// What was asked.
    #[must_use]
    pub const fn subrequest(&self) -> Subrequest {
        match self {
            Self::Describe => Subrequest::Describe,
            Self::Outline(_) => Subrequest::Outline,
            Self::Targets(_) => Subrequest::Targets,
            Self::Lint(_) => Subrequest::Lint,
            Self::ConvertLlb(_) => Subrequest::ConvertLlb,
            Self::Given(given) => given.subrequest(),
        }
    }

    /// The answer as Go's `json.MarshalIndent` writes it (`result.json`).
    ///
    /// # Errors
    /// [`FormError`].
    pub fn json(&self) -> Result<Vec<u8>, FormError> {
        match self {
            Self::Describe => bounded::json(&describe::requests()),
            Self::Outline(outline) => bounded::json(outline),
            Self::Targets(list) => bounded::json(list),
            Self::Lint(results) => bounded::json(results),
            Self::ConvertLlb(definition) => bounded::json(definition),
            Self::Given(given) => given.form(given::JSON).map(<[u8]>::to_vec),
        }
    }

    /// The answer for people (`result.txt`); JSON where BuildKit has no form for them. Not made safe for a terminal.
    ///
    /// # Errors
    /// [`FormError`].
    pub fn text(&self) -> Result<Vec<u8>, FormError> {
        match self {
            Self::Describe => describe::text(),
            Self::Outline(outline) => outline.text(),
            Self::Targets(list) => list.text(),
            Self::Lint(results) => results.text(&results.filename),
            Self::ConvertLlb(definition) => bounded::json(definition),
            Self::Given(given) => given.form(given::TEXT).map(<[u8]>::to_vec),
        }
    }

    /// Exit status of a program that asks only this (`result.statuscode`); absent where an answer is no judgement.
    #[must_use]
    pub fn status_code(&self) -> Option<u8> {
        match self {
            Self::Lint(results) => Some(u8::from(!results.is_clean())),
            Self::Given(given) => given.status_code(),
            Self::Describe | Self::Outline(_) | Self::Targets(_) | Self::ConvertLlb(_) => None,
        }
    }

    /// Everything of it, as the metadata of a result.
    ///
    /// # Errors
    /// [`FormError`].
    pub fn metadata(&self) -> Result<BTreeMap<String, Vec<u8>>, FormError> {
        if let Self::Given(given) = self {
            return given.metadata();
        }
        let version = self.subrequest().version().as_bytes().to_vec();
        let mut metadata = BTreeMap::from([
            ("result.json".to_owned(), self.json()?),
            ("version".to_owned(), version),
        ]);
        if !matches!(self, Self::ConvertLlb(_)) {
            metadata.insert("result.txt".to_owned(), self.text()?);
        }
        if let Some(code) = self.status_code() {
            metadata.insert("result.statuscode".to_owned(), code.to_string().into_bytes());
        }
        Ok(metadata)
    }
}
