//! The targets of a Dockerfile (BuildKit `frontend/subrequests/targets`, `dockerfile2llb.ListTargets`). Nothing is
//! expanded and no image is asked for.

use rbuild_dockerfile::ParseErrorKind;
use serde::{Serialize, Serializer};

use crate::error::{FrontendError, FrontendErrorKind};
use crate::options::FrontendOptions;
use crate::subrequest::bounded::{Bounded, FormError, base64_list};
use crate::subrequest::{Location, tabs};

/// Every stage, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TargetList {
    /// The stages.
    #[serde(serialize_with = "list_or_null")]
    pub targets: Vec<Target>,
    /// The Dockerfile.
    #[serde(rename = "sources", serialize_with = "base64_list")]
    pub source: Vec<u8>,
}

/// A stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Name; empty if it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// It is built when no target is named.
    #[serde(rename = "default", skip_serializing_if = "std::ops::Not::not")]
    pub is_default: bool,
    /// What the comment above says of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Base, as written.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub base: String,
    /// `--platform`, as written.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// Where FROM stands.
    pub location: Location,
}

/// A list without elements is nil in BuildKit, which Go writes as null.
fn list_or_null<S: Serializer>(targets: &[Target], to: S) -> Result<S::Ok, S::Error> {
    (!targets.is_empty()).then_some(targets).serialize(to)
}

impl TargetList {
    /// The targets of `options.dockerfile`.
    ///
    /// # Errors
    /// [`FrontendErrorKind::Parse`], and [`FrontendErrorKind::CheckArgument`]: options of lint are read first.
    pub fn of(options: &FrontendOptions) -> Result<Self, FrontendError> {
        crate::convert::check_argument(options)?;
        let (dockerfile, mut errors) = rbuild_dockerfile::parse(&options.dockerfile);
        if let Some(first) = errors.first_mut()
            && matches!(first.kind, ParseErrorKind::Empty)
        {
            // An empty file is only told as such where it is built.
            first.kind = ParseErrorKind::NoInstructions;
        }
        if let Some(first) = errors.first() {
            // A file without stages can be asked: it has no targets.
            if !matches!(first.kind, ParseErrorKind::NoStage) {
                let span = first.span;
                return Err(FrontendError::at(FrontendErrorKind::Parse(errors), span));
            }
        }
        let last = dockerfile.stages.len().saturating_sub(1);
        let target = |(index, stage): (usize, rbuild_dockerfile::Stage)| Target {
            name: stage.name,
            is_default: index == last,
            description: stage.doc_comment,
            base: stage.base_name,
            platform: stage.platform,
            location: Location(stage.span),
        };
        Ok(Self {
            targets: dockerfile.stages.into_iter().enumerate().map(target).collect(),
            source: options.dockerfile.clone(),
        })
    }

    pub(super) fn text(&self) -> Result<Vec<u8>, FormError> {
        let mut table = "TARGET\tDESCRIPTION\n".to_owned();
        for target in &self.targets {
            table += &match (target.name.as_str(), target.is_default) {
                ("", true) => "(default)".to_owned(),
                (name, true) => format!("{name} (default)"),
                (name, false) => name.to_owned(),
            };
            table += &format!("\t{}\n", target.description);
        }
        let mut out = Bounded::default();
        tabs::write(&mut out, 1, &table)?;
        Ok(out.into_bytes())
    }
}
