//! Source policies: rules by which a build's sources are refused or replaced (BuildKit's `sourcepolicy`). Rules are the
//! client's; patterns are compiled with a bound, and replacing ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use rbuild_graph::{Edge, Graph, GraphError, Op, SourceOp, VertexDigest};
use rbuild_oci::{Platform, Reference};
use regex::{Regex, RegexBuilder};

use crate::client::{ClientReadError, SourceAnswer, SourceQuestion};
use crate::job::Job;
use crate::ops::OpError;
use crate::source_meta;

/// Most replacements of one source.
const REPLACED_MAX: usize = 20;
/// Most questions that a client is asked about one source, and asks back.
const QUESTIONS_MAX: usize = 10;
/// Largest compiled pattern, bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// What a rule does with the sources it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// They may be used, whatever rules before it say.
    Allow,
    /// They may not.
    Deny,
    /// They are replaced.
    Convert {
        /// By what; `$1` and `${1}` are what the pattern's groups matched. The selector's own if empty.
        identifier: String,
        /// Attributes set then.
        attrs: BTreeMap<String, String>,
    },
}

/// How a rule's identifier is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MatchKind {
    /// `*` matches anything.
    #[default]
    Wildcard,
    /// As it is.
    Exact,
    /// A regular expression.
    Regex,
}

/// What an attribute must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// This.
    Equal(String),
    /// Not this.
    NotEqual(String),
    /// Matched by this regular expression.
    Matches(String),
}

/// One rule as a client writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What is done.
    pub action: Action,
    /// Which sources: identifier.
    pub identifier: String,
    /// How that is read.
    pub match_kind: MatchKind,
    /// Attributes that the sources have.
    pub constraints: Vec<(String, Condition)>,
}

/// Why a source may not be used, or a policy not be followed.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A rule says no.
    #[error("source {0:?} denied by policy: source denied by policy")]
    Denied(String),
    /// Rules replace what rules made.
    #[error("too many mutations on a single source: {0:?}")]
    Endless(String),
    /// A wildcard that is none.
    #[error("invalid wildcard {0:?}: \"**\"")]
    Wildcard(String),
    /// A regular expression that is none, or too large.
    #[error("invalid regex {pattern:?}")]
    Regex {
        /// As written.
        pattern: String,
        /// Why.
        #[source]
        source: regex::Error,
    },
    /// The client says no.
    #[error("source {source_name:?} not allowed by policy: action {action}")]
    Refused {
        /// The source.
        source_name: String,
        /// What the client answered.
        action: String,
        /// Why, for people.
        messages: Vec<String>,
    },
    /// The client always answers with something to do first.
    #[error("too many policy requests")]
    TooMany,
    /// The client could not be asked, or answered with an error.
    #[error(transparent)]
    Client(ClientReadError),
    /// What the client wants to know of a source could not be found out.
    #[error("error resolving source metadata from policy request")]
    Meta(#[source] Box<OpError>),
    /// The graph lacks a part of itself.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

#[derive(Debug)]
struct Compiled {
    rule: Rule,
    /// `None` for identifiers that are compared.
    pattern: Option<Regex>,
    /// Patterns of the constraints that have one.
    constraints: Vec<Option<Regex>>,
}

/// The policies of a build, in their order.
#[derive(Debug, Clone, Default)]
pub struct SourcePolicies(Vec<Arc<Vec<Compiled>>>);

impl SourcePolicies {
    /// Compiles policies, each a list of rules.
    ///
    /// # Errors
    /// [`PolicyError::Wildcard`], [`PolicyError::Regex`].
    pub fn new(policies: Vec<Vec<Rule>>) -> Result<Self, PolicyError> {
        let compile = |rules: Vec<Rule>| {
            let compiled = rules.into_iter().map(Compiled::new);
            compiled.collect::<Result<_, _>>().map(Arc::new)
        };
        let compiled = policies.into_iter().map(compile);
        Ok(Self(compiled.collect::<Result<_, _>>()?))
    }

    /// These, and then those of `later`.
    #[must_use]
    pub fn before(mut self, later: &Self) -> Self {
        self.0.extend(later.0.iter().cloned());
        self
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|rules| rules.is_empty())
    }

    /// What is to be used for `source`; `None` if it is to be used as it is.
    ///
    /// # Errors
    /// [`PolicyError::Denied`], [`PolicyError::Endless`].
    pub fn apply(&self, source: &SourceOp) -> Result<Option<SourceOp>, PolicyError> {
        if self.is_empty() {
            return Ok(None);
        }
        let mut current = normalized(source);
        let mut replaced = false;
        for _ in 0..=REPLACED_MAX {
            match self.once(&current)? {
                Some(next) => (current, replaced) = (next, true),
                None => return Ok(replaced.then_some(current)),
            }
        }
        Err(PolicyError::Endless(source.identifier.clone()))
    }

    fn once(&self, source: &SourceOp) -> Result<Option<SourceOp>, PolicyError> {
        for policy in &self.0 {
            let mut denied = false;
            for rule in policy.iter().filter(|rule| rule.matches(source)) {
                match &rule.rule.action {
                    Action::Allow => denied = false,
                    Action::Deny => denied = true,
                    Action::Convert { identifier, attrs } => {
                        let converted = rule.convert(source, identifier, attrs);
                        if converted != *source {
                            return Ok(Some(converted));
                        }
                    }
                }
            }
            if denied {
                return Err(PolicyError::Denied(source.identifier.clone()));
            }
        }
        Ok(None)
    }
}

/// What is to be used for `source`, by the rules and by what the client decides; `None` if it is to be used as it is.
///
/// # Errors
/// [`PolicyError`].
pub fn judge<'a>(
    job: &'a Job,
    rules: &'a SourcePolicies,
    source: &'a SourceOp,
    platform: Option<&'a Platform>,
) -> BoxFuture<'a, Result<Option<SourceOp>, PolicyError>> {
    Box::pin(judged(job, rules, source, platform))
}

async fn judged(
    job: &Job,
    rules: &SourcePolicies,
    source: &SourceOp,
    platform: Option<&Platform>,
) -> Result<Option<SourceOp>, PolicyError> {
    let mut current = normalized(source);
    let mut replaced = false;
    let mut left = QUESTIONS_MAX;
    'replaced: loop {
        if let Some(next) = rules.apply(&current)? {
            (current, replaced) = (next, true);
        }
        let mut known = None;
        loop {
            let question = SourceQuestion {
                source: &current,
                platform,
                known: known.as_ref(),
            };
            if !job.client.checks_sources() {
                return Ok(replaced.then_some(current));
            }
            left = left.checked_sub(1).ok_or(PolicyError::TooMany)?;
            let answer = job.client.check_source(question).await;
            match answer.map_err(PolicyError::Client)? {
                SourceAnswer::Allow => return Ok(replaced.then_some(current)),
                SourceAnswer::Deny { action, messages } => {
                    return Err(PolicyError::Refused {
                        source_name: current.identifier,
                        action,
                        messages,
                    });
                }
                SourceAnswer::Convert(next) => {
                    (current, replaced) = (normalized(&next), true);
                    continue 'replaced;
                }
                SourceAnswer::Ask(question) => {
                    let found = source_meta::resolve(job, &current, &question).await;
                    known = Some(found.map_err(|error| PolicyError::Meta(Box::new(error)))?);
                }
            }
        }
    }
}

/// The graph of what `target` needs with the policies followed, and `target` in it; `None` if they change nothing.
///
/// # Errors
/// [`PolicyError`].
pub async fn rewrite(
    job: &Job,
    rules: &SourcePolicies,
    graph: &Graph,
    target: &Edge,
) -> Result<Option<(Graph, Edge)>, PolicyError> {
    if rules.is_empty() && !job.client.checks_sources() {
        return Ok(None);
    }
    let needed = graph.reachable(std::slice::from_ref(&target.vertex))?;
    let sources = needed.into_iter().filter_map(|digest| {
        let vertex = graph.get(&digest)?;
        match &vertex.op {
            Op::Source(source) => Some((digest, source, vertex.platform.as_ref())),
            _ => None,
        }
    });
    let judged = sources.map(|(digest, source, platform)| async move {
        let other = judge(job, rules, source, platform).await?;
        Ok::<_, PolicyError>(other.map(|other| (digest, other)))
    });
    let judged = futures_util::future::try_join_all(judged).await?;
    let mut replaced: BTreeMap<VertexDigest, SourceOp> = judged.into_iter().flatten().collect();
    if replaced.is_empty() {
        return Ok(None);
    }
    let rewritten = graph.rewritten(target, |digest, op| {
        if let Some(source) = replaced.remove(digest) {
            *op = Op::Source(source);
        }
    })?;
    Ok(Some(rewritten))
}

impl Compiled {
    fn new(rule: Rule) -> Result<Self, PolicyError> {
        let pattern = match rule.match_kind {
            MatchKind::Exact => None,
            MatchKind::Regex => Some(compile(&rule.identifier)?),
            MatchKind::Wildcard if rule.identifier.contains("**") => {
                return Err(PolicyError::Wildcard(rule.identifier));
            }
            MatchKind::Wildcard => {
                let quoted: Vec<String> = rule.identifier.split('*').map(regex::escape).collect();
                Some(compile(&format!("^{}$", quoted.join("(.*)")))?)
            }
        };
        let constraints = rule.constraints.iter().map(|(_, condition)| match condition {
            Condition::Matches(pattern) => compile(pattern).map(Some),
            Condition::Equal(_) | Condition::NotEqual(_) => Ok(None),
        });
        Ok(Self {
            constraints: constraints.collect::<Result<_, _>>()?,
            rule,
            pattern,
        })
    }

    fn matches(&self, source: &SourceOp) -> bool {
        let value = |key: &str| source.attrs.get(key).map_or("", String::as_str);
        let constraints = self.rule.constraints.iter().zip(&self.constraints);
        let holds = constraints.into_iter().all(|((key, condition), pattern)| {
            let value = value(key);
            match condition {
                Condition::Equal(wanted) => value == wanted,
                Condition::NotEqual(unwanted) => value != unwanted,
                Condition::Matches(_) => pattern.as_ref().is_some_and(|pattern| pattern.is_match(value)),
            }
        });
        let same = self.rule.identifier == source.identifier;
        let matched = || {
            self.pattern
                .as_ref()
                .is_some_and(|pattern| pattern.is_match(&source.identifier))
        };
        holds && (same || matched())
    }

    fn convert(&self, source: &SourceOp, to: &str, attrs: &BTreeMap<String, String>) -> SourceOp {
        let to = if to.is_empty() { &self.rule.identifier } else { to };
        let identifier = match &self.pattern {
            None => to.to_owned(),
            Some(pattern) => pattern.replace_all(&source.identifier, to).into_owned(),
        };
        let mut converted = source.clone();
        if !identifier.is_empty() {
            converted.identifier = identifier;
        }
        converted.attrs.extend(attrs.clone());
        converted
    }
}

fn compile(pattern: &str) -> Result<Regex, PolicyError> {
    let built = RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build();
    built.map_err(|source| PolicyError::Regex {
        pattern: pattern.to_owned(),
        source,
    })
}

/// Policies are written for full references.
fn normalized(source: &SourceOp) -> SourceOp {
    let mut source = source.clone();
    let reference = source
        .identifier
        .strip_prefix("docker-image://")
        .and_then(|text| Reference::parse(text).ok());
    if let Some(reference) = reference {
        source.identifier = format!("docker-image://{}", reference.or_latest());
    }
    if source.identifier.starts_with("git://") {
        source.identifier = with_clean_subdir(&source.identifier);
    }
    source
}

/// The address of a repository with the directory in it as it is looked for: a rule for that is one for all that lead to
/// it (`util/gitutil`, `parseOpts`).
fn with_clean_subdir(identifier: &str) -> String {
    let Some((remote, fragment)) = identifier.split_once('#') else {
        return identifier.to_owned();
    };
    let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
    let subdir = rbuild_dockerfile::path::join(&["/", subdir]);
    match (reference, subdir.trim_start_matches('/')) {
        ("", "") => remote.to_owned(),
        (reference, "") => format!("{remote}#{reference}"),
        (reference, subdir) => format!("{remote}#{reference}:{subdir}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(action: Action, identifier: &str, match_kind: MatchKind) -> Rule {
        Rule {
            action,
            identifier: identifier.to_owned(),
            match_kind,
            constraints: Vec::new(),
        }
    }

    fn convert(to: &str) -> Action {
        Action::Convert {
            identifier: to.to_owned(),
            attrs: BTreeMap::new(),
        }
    }

    fn source(identifier: &str) -> SourceOp {
        SourceOp {
            identifier: identifier.to_owned(),
            attrs: BTreeMap::new(),
        }
    }

    fn apply(rules: Vec<Rule>, identifier: &str) -> Result<Option<String>, PolicyError> {
        let policies = SourcePolicies::new(vec![rules])?;
        let found = policies.apply(&source(identifier))?;
        Ok(found.map(|source| source.identifier))
    }

    #[test]
    fn row49_no_other_way_leads_to_a_denied_directory() {
        let denied = |identifier: &str| {
            let rules = vec![rule(
                Action::Deny,
                "git://host.test/r.git#main:a/b",
                MatchKind::Exact,
            )];
            apply(rules, identifier).is_err()
        };
        for other in ["a/b", "/a/b", "../a/b", "a/./x/../b/"] {
            assert!(denied(&format!("git://host.test/r.git#main:{other}")), "{other}");
        }
        assert!(!denied("git://host.test/r.git#main:a"));
        assert!(!denied("git://host.test/r.git#main"));
    }

    #[test]
    fn sources_are_replaced_by_each_kind_of_pattern() {
        let alpine = "docker-image://docker.io/library/alpine:latest";
        let exact = rule(convert("local://test"), alpine, MatchKind::Exact);
        assert_eq!(
            apply(vec![exact.clone()], "docker-image://alpine")
                .unwrap()
                .unwrap(),
            "local://test"
        );
        assert_eq!(apply(vec![exact], "docker-image://busybox").unwrap(), None);
        let golang = rule(
            convert("docker-image://docker.io/library/golang:${1}-alpine3"),
            "docker-image://docker.io/library/golang:*.19",
            MatchKind::Wildcard,
        );
        let found = apply(vec![golang], "docker-image://golang:1.19").unwrap();
        assert_eq!(
            found.unwrap(),
            "docker-image://docker.io/library/golang:1-alpine3"
        );
        let moved = rule(
            convert("https://b.example/$1"),
            "^https://a\\.example/(.*)$",
            MatchKind::Regex,
        );
        let found = apply(vec![moved], "https://a.example/x?y").unwrap();
        assert_eq!(found.unwrap(), "https://b.example/x?y");
    }

    #[test]
    fn the_last_word_on_a_source_counts() {
        let any = |action| rule(action, "docker-image://*", MatchKind::Wildcard);
        let text = apply(vec![any(Action::Deny)], "docker-image://a")
            .unwrap_err()
            .to_string();
        assert_eq!(
            text,
            r#"source "docker-image://docker.io/library/a:latest" denied by policy: source denied by policy"#
        );
        assert_eq!(
            apply(vec![any(Action::Deny), any(Action::Allow)], "docker-image://a").unwrap(),
            None
        );
        assert!(apply(vec![any(Action::Allow), any(Action::Deny)], "docker-image://a").is_err());
        assert_eq!(apply(vec![any(Action::Deny)], "local://a").unwrap(), None);
    }

    #[test]
    fn constraints_are_about_attributes() {
        let with = |condition| {
            let mut denied = rule(Action::Deny, "local://*", MatchKind::Wildcard);
            denied.constraints = vec![("a".to_owned(), condition)];
            let policies = SourcePolicies::new(vec![vec![denied]]).unwrap();
            let mut local = source("local://x");
            local.attrs.insert("a".to_owned(), "value".to_owned());
            policies.apply(&local).is_err()
        };
        assert!(with(Condition::Equal("value".to_owned())));
        assert!(!with(Condition::Equal("other".to_owned())));
        assert!(with(Condition::NotEqual("other".to_owned())));
        assert!(with(Condition::Matches("^v.*e$".to_owned())));
        assert!(!with(Condition::Matches("^w".to_owned())));
    }

    #[test]
    fn row48_rules_without_end_and_huge_patterns_are_refused() {
        let there = rule(convert("local://b"), "local://a", MatchKind::Exact);
        let back = rule(convert("local://a"), "local://b", MatchKind::Exact);
        let error = apply(vec![there.clone(), back], "local://a").unwrap_err();
        assert!(matches!(error, PolicyError::Endless(_)), "{error:?}");
        assert_eq!(apply(vec![there], "local://a").unwrap().unwrap(), "local://b");
        let huge = rule(Action::Deny, "(a{1000}){1000}", MatchKind::Regex);
        assert!(matches!(apply(vec![huge], "x"), Err(PolicyError::Regex { .. })));
        let stars = rule(Action::Deny, "a**", MatchKind::Wildcard);
        assert!(matches!(apply(vec![stars], "x"), Err(PolicyError::Wildcard(_))));
    }
}
