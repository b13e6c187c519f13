//! Shell patterns for one name, as Go's `filepath.Match` on Unix: `*`, `?`, `[a-z]`, `[^a]`, `\` quotes. Knows no
//! directories and no `**`; [`crate::ignore`] does.

pub use crate::wildcard::BadPattern;
use crate::wildcard::{Globstar, Wildcard};

/// Whether `pattern` matches all of `name`. `*` and `?` do not match a slash.
///
/// # Errors
/// [`BadPattern`] if the pattern is malformed, whether or not the name gets that far.
pub fn is_match(pattern: &str, name: &str) -> Result<bool, BadPattern> {
    Ok(Wildcard::new(pattern, Globstar::Plain)?.is_match(name))
}

/// A pattern compiled once for many names.
#[derive(Debug, Clone)]
pub struct Glob(Wildcard);

impl Glob {
    /// Compiles `pattern`.
    ///
    /// # Errors
    /// [`BadPattern`] if it is malformed.
    pub fn new(pattern: &str) -> Result<Self, BadPattern> {
        Wildcard::new(pattern, Globstar::Plain).map(Self)
    }

    /// Whether the pattern matches all of `name`.
    #[must_use]
    pub fn is_match(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

/// Whether a COPY source is to be taken as a pattern: it holds `*`, `?` or `[` that no backslash quotes
/// (`tonistiigi/fsutil/copy.containsWildcards`).
#[must_use]
pub fn has_wildcards(name: &str) -> bool {
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn matches_as_go_filepath_match() {
        for (pattern, name, expected) in [
            ("abc", "abc", Ok(true)),
            ("*", "abc", Ok(true)),
            ("*c", "abc", Ok(true)),
            ("a*", "a", Ok(true)),
            ("a*", "ab/c", Ok(false)),
            ("a*/b", "abc/b", Ok(true)),
            ("a*/b", "a/c/b", Ok(false)),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", Ok(true)),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", Ok(true)),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", Ok(false)),
            ("a*b?c*x", "abxbbxdbxebxczzx", Ok(true)),
            ("a*b?c*x", "abxbbxdbxebxczzy", Ok(false)),
            ("**", "abc", Ok(true)),
            ("**", "a/c", Ok(false)),
            ("ab[c]", "abc", Ok(true)),
            ("ab[b-d]", "abc", Ok(true)),
            ("ab[e-g]", "abc", Ok(false)),
            ("ab[^c]", "abc", Ok(false)),
            ("ab[^b-d]", "abc", Ok(false)),
            ("ab[^e-g]", "abc", Ok(true)),
            ("a\\*b", "a*b", Ok(true)),
            ("a\\*b", "ab", Ok(false)),
            ("a?b", "a☺b", Ok(true)),
            ("a[^a]b", "a☺b", Ok(true)),
            ("a???b", "a☺b", Ok(false)),
            ("[a-ζ]*", "α", Ok(true)),
            ("*[a-ζ]", "A", Ok(false)),
            ("a?b", "a/b", Ok(false)),
            ("a*b", "a/b", Ok(false)),
            ("a[^x]b", "a/b", Ok(true)),
            ("[\\]a]", "]", Ok(true)),
            ("[\\-]", "-", Ok(true)),
            ("[x\\-]", "x", Ok(true)),
            ("[x\\-]", "z", Ok(false)),
            ("[\\-x]", "a", Ok(false)),
            ("[]a]", "]", Err(BadPattern)),
            ("[-]", "-", Err(BadPattern)),
            ("[x-]", "x", Err(BadPattern)),
            ("[-x]", "x", Err(BadPattern)),
            ("\\", "a", Err(BadPattern)),
            ("[a-b-c]", "a", Err(BadPattern)),
            ("[", "a", Err(BadPattern)),
            ("[^", "a", Err(BadPattern)),
            ("[^bc", "a", Err(BadPattern)),
            ("a[", "a", Err(BadPattern)),
            ("a[", "ab", Err(BadPattern)),
            ("*x", "xxx", Ok(true)),
            ("", "", Ok(true)),
            ("", "a", Ok(false)),
            ("]", "]", Ok(true)),
            ("[[]x", "[x", Ok(true)),
        ] {
            assert_eq!(is_match(pattern, name), expected, "{pattern:?} on {name:?}");
        }
    }

    #[test]
    fn quoted_wildcards_are_none() {
        assert!(has_wildcards("a*"));
        assert!(has_wildcards("[x"));
        assert!(has_wildcards("a\\\\*"));
        assert!(!has_wildcards("a\\*b\\?\\["));
        assert!(!has_wildcards("plain/path\\"));
    }

    #[test]
    fn row50_nested_stars_do_not_backtrack() {
        let pattern = format!("{}[b]", "*a".repeat(1000));
        let name = "a".repeat(2000);
        let start = Instant::now();
        assert_eq!(is_match(&pattern, &name), Ok(false));
        assert_eq!(is_match(&pattern, &format!("{name}b")), Ok(true));
        assert!(start.elapsed().as_secs() < 5, "took {:?}", start.elapsed());
    }

    /// The obvious recursive matcher, as a model.
    fn model(pattern: &[char], name: &[char]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some(('*', rest)) => (0..=name.len())
                .take_while(|&i| i == 0 || name[i - 1] != '/')
                .any(|i| model(rest, &name[i..])),
            Some(('?', rest)) => name.first().is_some_and(|c| *c != '/') && model(rest, &name[1..]),
            Some((c, rest)) => name.first() == Some(c) && model(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn equals_the_recursive_model(pattern in "[ab/*?]{0,8}", name in "[ab/]{0,8}") {
            let p: Vec<char> = pattern.chars().collect();
            let n: Vec<char> = name.chars().collect();
            prop_assert_eq!(is_match(&pattern, &name), Ok(model(&p, &n)));
        }

        #[test]
        fn never_panics(pattern in any::<String>(), name in any::<String>()) {
            prop_assert!(is_match(&pattern, &name).is_ok() || Glob::new(&pattern).is_err());
        }
    }
}
