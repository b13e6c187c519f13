//! `check=skip=A,B;experimental=all,rbuild;error=true`: which rules are on.

use rbuild_dockerfile::csv;
use rbuild_dockerfile::directive::{DirectiveName, DirectiveParser};
use rbuild_dockerfile::quote::quote;

use crate::lint::{Origin, Rule};

/// What stands for all rules of our own in `experimental=`. BuildKit passes over names it does not know.
const OWN_RULES: &str = "rbuild";

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
    #[error("failed to parse check option {}: strconv.ParseBool: parsing {}: invalid syntax", quote(.option), quote(.value))]
    Boolean {
        /// The option, as written.
        option: String,
        /// What stands behind `=`.
        value: String,
    },
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
                    options.error = csv::boolean(value).ok_or_else(|| CheckError::Boolean {
                        option: part.to_owned(),
                        value: value.to_owned(),
                    })?;
                }
                (key, _) => return Err(CheckError::Option(key.to_owned())),
            }
        }
        Ok(options)
    }

    /// Asks for every rule of our own.
    pub(crate) fn ask_own(&mut self) {
        self.experimental.push(OWN_RULES.to_owned());
    }

    /// Whether a rule that is off by itself is asked for.
    pub(super) fn asks(&self, rule: Rule) -> bool {
        let named = |name: &str| self.experimental.iter().any(|asked| asked == name);
        match rule.origin() {
            Origin::BuildKit => false,
            Origin::BuildKitExperimental => self.experimental_all || named(rule.name()),
            // `all` means BuildKit's, or the same file would be told different things here and there.
            Origin::Own => named(OWN_RULES) || named(rule.name()),
        }
    }

    /// Whether a rule is turned off.
    pub(super) fn skips(&self, rule: Rule) -> bool {
        self.skip_all || self.skip.iter().any(|skipped| skipped == rule.name())
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
