//! `check=skip=A,B;experimental=all;error=true`: which rules are on.

use rbuild_dockerfile::csv;
use rbuild_dockerfile::directive::{DirectiveName, DirectiveParser};
use rbuild_dockerfile::quote::quote;

use crate::lint::Rule;

/// Options of the `check` directive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CheckOptions {
    skip_all: bool,
    skip: Vec<String>,
    experimental_all: bool,
    experimental: Vec<String>,
    /// Warnings make the build fail.
    pub(crate) error: bool,
}

/// Options that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// An option there is not, or one without a value.
    #[error("invalid check option {}", quote(.0))]
    Option(String),
    /// `error=` with something else than a boolean.
    #[error("failed to parse check option {}", quote(.0))]
    Boolean(String),
}

impl CheckOptions {
    /// Reads the options.
    pub(crate) fn parse(text: &str) -> Result<Self, CheckError> {
        let mut options = Self::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(options);
        }
        for part in text.splitn(3, ';') {
            let Some((key, value)) = part.split_once('=') else {
                return Err(CheckError::Option(part.to_owned()));
            };
            let list = || value.split(',').map(|rule| rule.trim().to_owned()).collect();
            match (key.trim(), value.trim()) {
                ("skip", "all") => options.skip_all = true,
                ("skip", _) => options.skip = list(),
                ("experimental", "all") => options.experimental_all = true,
                ("experimental", _) => options.experimental = list(),
                ("error", value) => {
                    options.error =
                        csv::boolean(value).ok_or_else(|| CheckError::Boolean(part.to_owned()))?;
                }
                (key, _) => return Err(CheckError::Option(key.to_owned())),
            }
        }
        Ok(options)
    }

    /// Whether the options turn this rule to what it is not by itself.
    pub(super) fn switches(&self, rule: Rule) -> bool {
        let named = |list: &[String]| list.iter().any(|name| name == rule.name());
        if rule.is_experimental() {
            self.experimental_all || named(&self.experimental)
        } else {
            self.skip_all || named(&self.skip)
        }
    }
}

/// Options in a comment right above an instruction; ones that cannot be read count for nothing.
pub(super) fn from_comments(comments: &[String]) -> Option<CheckOptions> {
    comments.iter().find_map(|comment| {
        let directive = DirectiveParser::new("", 0).line(comment).ok()??;
        let value = directive.value.split(' ').next().unwrap_or_default();
        (directive.name == DirectiveName::Check).then(|| CheckOptions::parse(value).unwrap_or_default())
    })
}
