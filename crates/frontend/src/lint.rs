//! Lint: rules, what switches them off, and the warnings found (BuildKit `frontend/dockerfile/linter`).

mod check;
mod rule;

use std::collections::BTreeSet;

use rbuild_dockerfile::Span;

pub use crate::lint::check::CheckError;
pub(crate) use crate::lint::check::CheckOptions;
pub use crate::lint::rule::{Origin, Rule};

/// A warning about a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LintWarning {
    /// The rule.
    pub rule: Rule,
    /// What was found.
    pub message: String,
    /// What the rule is about.
    pub description: &'static str,
    /// Where to read more; empty if nowhere.
    pub url: &'static str,
    /// Where it was found.
    pub span: Span,
}

impl LintWarning {
    /// One line: `Rule: message (line n)`.
    #[must_use]
    pub fn short(&self) -> String {
        format!(
            "{}: {} (line {})",
            self.rule.name(),
            self.message,
            self.span.start
        )
    }
}

/// Collects warnings of the rules that are on.
#[derive(Debug, Default)]
pub(crate) struct Linter {
    options: CheckOptions,
    pub(crate) warnings: Vec<LintWarning>,
}

impl Linter {
    pub(crate) fn new(options: CheckOptions) -> Self {
        Self {
            options,
            warnings: Vec::new(),
        }
    }

    /// Warns, unless the rule is off for the file or by a `check=` comment above the instruction.
    pub(crate) fn warn(&mut self, rule: Rule, message: String, span: Span, comments: &[String]) {
        let local = check::from_comments(comments);
        let either =
            |says: &dyn Fn(&CheckOptions) -> bool| says(&self.options) || local.as_ref().is_some_and(says);
        let asked = either(&|options| options.asks(rule));
        let skipped = either(&|options| options.skips(rule));
        let on = match rule.origin() {
            Origin::BuildKit => !skipped,
            // Skipping does nothing to these, as in BuildKit.
            Origin::BuildKitExperimental => asked,
            Origin::Own => asked && !skipped,
        };
        if on {
            let (description, url) = (rule.description(), rule.url());
            self.warnings.push(LintWarning {
                rule,
                message,
                description,
                url,
                span,
            });
        }
    }

    /// Whether some rule of our own is asked for, by the file or by these comments.
    pub(crate) fn asks_own(&self, comments: &[String]) -> bool {
        let asks = |options: &CheckOptions| Rule::OWN.iter().any(|rule| options.asks(*rule));
        asks(&self.options) || check::from_comments(comments).is_some_and(|options| asks(&options))
    }

    /// The rules that make the build fail, if the Dockerfile asks for that.
    pub(crate) fn failures(&self) -> Option<Vec<&'static str>> {
        let rules: BTreeSet<&'static str> = self.warnings.iter().map(|warning| warning.rule.name()).collect();
        (self.options.error && !rules.is_empty()).then(|| rules.into_iter().collect())
    }
}

#[cfg(test)]
mod tests;
