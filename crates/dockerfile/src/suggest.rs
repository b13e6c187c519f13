//! The nearest known name to a misspelt one (BuildKit `util/suggest`).

/// The option nearest to `word`, if it is at most two edits away. Nothing when `word` is itself an option: the error
/// was not its spelling then. Without `case_sensitive` the answer is in the case of `word`.
#[must_use]
pub fn nearest<'a>(
    word: &str,
    options: impl IntoIterator<Item = &'a str>,
    case_sensitive: bool,
) -> Option<String> {
    let fold = |text: &str| {
        if case_sensitive {
            text.to_owned()
        } else {
            text.to_lowercase()
        }
    };
    let wanted = fold(word);
    let mut best: Option<(usize, String)> = None;
    for option in options {
        let option = fold(option);
        if option == wanted {
            return None;
        }
        let limit = best.as_ref().map_or(MAX_EDITS, |(edits, _)| edits - 1);
        if let Some(edits) = distance_within(&wanted, &option, limit) {
            best = Some((edits, option));
        }
    }
    best.map(|(_, option)| {
        if case_sensitive {
            option
        } else {
            in_case_of(word, &option)
        }
    })
}

/// ` (did you mean x?)`, or nothing.
#[must_use]
pub fn hint(suggestion: &Option<String>) -> String {
    suggestion
        .as_ref()
        .map(|name| format!(" (did you mean {name}?)"))
        .unwrap_or_default()
}

const MAX_EDITS: usize = 2;

fn in_case_of(word: &str, option: &str) -> String {
    if word == word.to_lowercase() {
        option.to_lowercase()
    } else if word == word.to_uppercase() {
        option.to_uppercase()
    } else {
        option.to_owned()
    }
}

/// Insertions, removals and replacements from `a` to `b`, if they are at most `limit`.
fn distance_within(a: &str, b: &str, limit: usize) -> Option<usize> {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    if a.len().abs_diff(b.len()) > limit {
        return None;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
        if row.iter().min().is_none_or(|least| *least > limit) {
            return None;
        }
    }
    row.last().copied().filter(|edits| *edits <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_edits_at_most_and_in_the_same_case() {
        let names = ["ADD", "COPY", "RUN", "FROM"];
        assert_eq!(nearest("FORM", names, false).as_deref(), Some("FROM"));
        assert_eq!(nearest("cpoy", names, false).as_deref(), Some("copy"));
        assert_eq!(nearest("Copyy", names, false).as_deref(), Some("copy"));
        assert_eq!(nearest("NOTHING", names, false), None);
        assert_eq!(nearest("run", names, false), None);
        assert_eq!(
            nearest("chwon", ["chown", "chmod"], true).as_deref(),
            Some("chown")
        );
        assert_eq!(nearest("CHOWN", ["chown"], true), None);
        assert_eq!(nearest("", ["ab"], true).as_deref(), Some("ab"));
    }
}
