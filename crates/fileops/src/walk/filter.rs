//! What include, exclude and ignore patterns say about one name of a tree. Owns how the three combine; knows no file.

use std::borrow::Cow;

use rbuild_dockerfile::ignore::{MatchState, PatternMatcher};

use crate::source::{IgnoreRules, SourceTree};

/// The patterns of one copy.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    pub(crate) include: Option<PatternMatcher>,
    pub(crate) exclude: Option<PatternMatcher>,
}

/// What the patterns say about one name.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) ignored: bool,
    /// Ignored, but something below may not be.
    pub(super) ignore_descend: bool,
    pub(super) selected: bool,
    /// If it is a directory, something below may take part.
    pub(super) descend: bool,
    pub(super) unfiltered: bool,
    pub(super) states: [MatchState; 3],
}

impl Judged {
    pub(super) fn everything() -> Self {
        Self {
            ignored: false,
            ignore_descend: false,
            selected: true,
            descend: true,
            unfiltered: true,
            states: Default::default(),
        }
    }
}

pub(super) fn judge(
    tree: &SourceTree,
    filter: &Filter,
    ignore_prefix: &str,
    path: &[u8],
    [ignore, include, exclude]: [&MatchState; 3],
) -> Judged {
    let text = String::from_utf8_lossy(path);
    let ask = |matcher: Option<&PatternMatcher>, text: &str, parent: &MatchState| {
        matcher
            .map(|matcher| matcher.match_child(text, parent))
            .unwrap_or_default()
    };
    let rules = tree.rules().map(IgnoreRules::matcher);
    let in_context = match (&rules, ignore_prefix) {
        (None, _) | (_, "") => Cow::Borrowed(&*text),
        (Some(_), prefix) => Cow::Owned(format!("{prefix}{text}")),
    };
    let ignore = ask(rules, &in_context, ignore);
    let include_state = ask(filter.include.as_ref(), &text, include);
    let exclude_state = ask(filter.exclude.as_ref(), &text, exclude);
    let included = filter.include.is_none() || include_state.is_match();
    let excluded = exclude_state.is_match();
    let below_included = included || filter.include.as_ref().is_some_and(|m| m.may_match_below(&text));
    let below_excluded = excluded
        && !filter
            .exclude
            .as_ref()
            .is_some_and(|m| m.may_exclude_below(&text));
    Judged {
        ignored: ignore.is_match(),
        ignore_descend: ignore.is_match() && rules.is_some_and(|m| m.may_exclude_below(&in_context)),
        selected: included && !excluded,
        descend: below_included && !below_excluded,
        unfiltered: false,
        states: [ignore, include_state, exclude_state],
    }
}
