//! Tables of patterns and paths, limits, and comparison with the plain loop over all patterns.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn matcher(patterns: &[&str]) -> PatternMatcher {
    PatternMatcher::new(patterns).unwrap()
}

/// Asks as a walker does: parents first, each with its parent's state.
fn walk(matcher: &PatternMatcher, path: &str) -> MatchState {
    let mut state = MatchState {
        matched: Some([].into()),
        ..MatchState::default()
    };
    for end in ancestor_ends(path) {
        state = matcher.match_child(&path[..end], &state);
    }
    state
}

#[test]
fn one_pattern() {
    for (pattern, path, expected) in [
        ("**", "file", true),
        ("**", "dir/file", true),
        ("**/", "dir/file", true),
        ("**/**", "dir/file", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir/dir2/file", true),
        ("dir/**", "dir", false),
        ("**/dir", "dir", true),
        ("**/dir", "dir/file", true),
        ("**/dir2/*", "dir/dir2/file", true),
        ("**/dir2/*", "dir/dir2/dir2/file", true),
        ("**/dir2/**", "dir/dir2/dir2/file", true),
        ("**file", "file", true),
        ("**file", "dir/file", true),
        ("**file", "dir/dirfile", true),
        ("**/file", "dir/dirfile", false),
        ("**/file", "dir/file", true),
        ("**/file*", "dir/dir/file.txt", true),
        ("**/file*txt", "dir/dir/file.txt", true),
        ("**/file*.txt*", "dir/dir/file.txt", true),
        ("**/**/*.txt", "dir/dir/file.txt", true),
        ("**/**/*.txt2", "dir/dir/file.txt", false),
        ("**/*.txt", "file.txt", true),
        ("a**/*.txt", "a/file.txt", true),
        ("a**/*.txt", "a/dir/file.txt", true),
        ("a**/*.txt", "a/dir/dir/file.txt", true),
        ("a/*.txt", "a/dir/file.txt", false),
        ("a/*.txt", "a/file.txt", true),
        ("a[b-d]e", "ae", false),
        ("a[b-d]e", "ace", true),
        ("a[^b-d]e", "ace", false),
        ("a[^b-d]e", "afe", true),
        (".*", ".foo", true),
        (".*", "foo", false),
        ("abc.def", "abcdef", false),
        ("abc.def", "abc.def", true),
        ("abc?def", "abcZdef", true),
        ("abc?def", "abcdef", false),
        ("a\\\\", "a\\", true),
        ("**/foo/bar", "foo/bar", true),
        ("**/foo/bar", "dir/dir2/foo/bar", true),
        ("abc/**", "abc/def/ghi", true),
        ("**/.foo", ".foo", true),
        ("**/.foo", "bar.foo", false),
        ("a(b)c/def", "a(b)c/def", true),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
        (
            "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
            "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
            true,
        ),
        (
            "dist/*.whl",
            "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
            true,
        ),
        ("docs", "docs/README.md", true),
        ("docs/", "docs/README.md", true),
        ("/docs", "docs/README.md", false),
        ("[[]x", "[x", true),
        ("a/**/b", "a/b", true),
        ("a/**/b", "a/x/y/b", true),
        ("a/**/b", "axb", false),
        ("*/b", "a/b/c/d", true),
    ] {
        let matcher = matcher(&[pattern]);
        assert_eq!(
            matcher.matches_or_parent_matches(path),
            expected,
            "{pattern:?} on {path:?}"
        );
        assert_eq!(
            walk(&matcher, path).is_match(),
            expected,
            "{pattern:?} walking to {path:?}"
        );
        assert_eq!(
            matcher.match_child(path, &MatchState::default()).is_match(),
            expected,
            "{pattern:?} on {path:?} without a parent's state"
        );
    }
}

#[test]
fn the_last_pattern_that_matches_decides() {
    for (patterns, path, expected) in [
        (&["docs", "!docs/README.md"][..], "docs/README.md", false),
        (&["docs", "!docs/README.md"], "docs/other", true),
        (&["*", "!docs/README.md"], "docs/README.md", false),
        (&["!docs/README.md", "docs"], "docs/README.md", true),
        (
            &["**/*.go", "!**/fileutils.go", "fileutils.go"],
            "pkg/fileutils.go",
            false,
        ),
        (
            &["**/*.go", "!**/fileutils.go", "fileutils.go"],
            "fileutils.go",
            true,
        ),
        (
            &["util/docker/web", "!util/docker/web/foo"],
            "util/docker/web/foo",
            false,
        ),
        (
            &["util/docker/web", "!util/docker/web/foo", "util/docker/web/foo"],
            "util/docker/web/foo",
            true,
        ),
        (&["a", "!a/b", "a/b/c"], "a/b/c", true),
        (&["a", "!a/b", "a/b/c"], "a/b/d", false),
        (&[" a ", "", "  ", "!a/b"], "a/b", false),
    ] {
        let matcher = matcher(patterns);
        assert_eq!(
            matcher.matches_or_parent_matches(path),
            expected,
            "{patterns:?} on {path:?}"
        );
        assert_eq!(
            walk(&matcher, path).is_match(),
            expected,
            "{patterns:?} walking to {path:?}"
        );
    }
}

#[test]
fn a_walk_forgets_what_could_not_change_the_directory() {
    let matcher = matcher(&["a", "!a/b", "a"]);
    assert!(matcher.matches_or_parent_matches("a/b"));
    assert!(!walk(&matcher, "a/b").is_match());
    assert!(walk(&matcher, "a/c").is_match());
}

#[test]
fn the_deciding_pattern_is_named() {
    let matcher = matcher(&["*.log", "", "docs", "!docs/a"]);
    let pattern = matcher.deciding_pattern("docs/x").unwrap();
    assert_eq!(
        (pattern.text(), pattern.exclusion, pattern.given_index()),
        ("docs", false, 2)
    );
    let pattern = matcher.deciding_pattern("docs/a/x").unwrap();
    assert_eq!(
        (pattern.text(), pattern.exclusion, pattern.given_index()),
        ("docs/a", true, 3)
    );
    assert!(matcher.deciding_pattern("other").is_none());
    assert_eq!(walk(&matcher, "docs/x").pattern(), Some(1));
    assert_eq!(matcher.exclusions().count(), 1);
    assert!(matcher.has_exclusions());
}

#[test]
fn a_walker_knows_where_to_look() {
    let all = matcher(&["*", "!src/lib", "!docs/*.md"]);
    for (dir, expected) in [
        ("src", true),
        ("src/lib", false),
        ("src/other", false),
        ("docs", true),
        ("tests", false),
    ] {
        assert_eq!(all.may_exclude_below(dir), expected, "{dir}");
    }
    assert!(matcher(&["*", "!**/keep"]).may_exclude_below("any/where"));
    assert!(!matcher(&["*"]).may_exclude_below("any"));
    let wanted = matcher(&["src/*.c", "include"]);
    assert!(wanted.may_match_below("src"));
    assert!(!wanted.may_match_below("docs"));
    assert!(!wanted.may_match_below("sr"));
}

#[test]
fn malformed_patterns_are_refused() {
    assert_eq!(
        PatternMatcher::new(&["a", "!"]).unwrap_err(),
        PatternError::LoneExclusion { index: 1 }
    );
    assert_eq!(
        PatternMatcher::new(&["!"]).unwrap_err().to_string(),
        "illegal exclusion pattern: \"!\""
    );
    for pattern in ["[", "[a-", "[^]", "a\\", "!a["] {
        let error = PatternMatcher::new(&[pattern]).unwrap_err();
        assert_eq!(
            error,
            PatternError::Bad {
                index: 0,
                pattern: pattern.to_owned(),
                source: BadPattern
            },
            "{pattern:?}"
        );
    }
    assert!(!matcher(&["a\0b"]).matches_or_parent_matches("ab"));
}

#[test]
fn ignore_file_lines() {
    let text = b"\xEF\xBB\xBF# comment\n/a\n  /b/c/  \n\n!/d\n! e/../f\n #no comment\n#comment\r\ng\r\n/\n!\n./h//i\n..\n! j\n";
    let lines = read_lines(text).unwrap();
    let expected = [
        (2, "a"),
        (3, "b/c"),
        (5, "!d"),
        (6, "!f"),
        (7, "#no comment"),
        (9, "g"),
        (10, "/"),
        (11, "!"),
        (12, "h/i"),
        (13, ".."),
        (14, "!j"),
    ];
    let found: Vec<(u32, &str)> = lines.iter().map(|l| (l.line, l.pattern.as_str())).collect();
    assert_eq!(found, expected);
    assert_eq!(read_patterns(b"").unwrap(), Vec::<String>::new());
    assert_eq!(read_patterns(b"\xff*\n").unwrap(), ["\u{fffd}*"]);
}

#[test]
fn row50_a_line_has_a_limit() {
    let mut text = vec![b'x'; file::MAX_LINE_BYTES];
    assert_eq!(read_patterns(&text).unwrap().len(), 1);
    text.push(b'\n');
    assert_eq!(read_patterns(&text).unwrap().len(), 1);
    text.splice(0..0, b"a\nx".iter().copied());
    assert_eq!(read_patterns(&text), Err(IgnoreError::LineTooLong { line: 2 }));
}

#[test]
fn row50_odd_lines_are_patterns_or_errors_with_their_line_and_never_more() {
    for (line, good) in [
        ("[", false),
        ("[a-", false),
        ("[^]", false),
        ("[]a]", false),
        ("a\\", false),
        ("!", false),
        ("!!", true),
        ("**", true),
        ("a\0b", true),
        ("[a]", true),
        ("\\[", true),
        ("\u{feff}x", true),
    ] {
        let text = format!("first\n{line}\nlast\n");
        let patterns = read_patterns(text.as_bytes()).unwrap();
        assert_eq!(patterns.len(), 3, "{line:?}");
        match PatternMatcher::new(&patterns) {
            Ok(matcher) => {
                assert!(good, "{line:?} is taken");
                assert!(matcher.matches_or_parent_matches("last/x"), "{line:?}");
            }
            Err(_) => assert!(!good, "{line:?} is refused"),
        }
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

#[test]
fn row50_500_globstars_on_a_long_path() {
    let path = "a/".repeat(2000) + "y";
    let elapsed = timed(|| {
        let simple = PatternMatcher::new(&[format!("{}x", "**/".repeat(500))]).unwrap();
        assert!(!simple.matches_or_parent_matches(&path));
        assert!(simple.matches_or_parent_matches("x"));
        assert!(simple.matches_or_parent_matches("b/c/x"));
        let hard = PatternMatcher::new(&[format!("{}[x]", "**/a/".repeat(300))]).unwrap();
        assert!(!hard.match_child(&path, &walk(&hard, "q")).is_match());
    });
    assert!(elapsed < Duration::from_secs(10), "took {elapsed:?}");
}

#[test]
fn row50_100_000_patterns_do_not_slow_every_file() {
    let patterns: Vec<String> = (0..100_000).map(|i| format!("dir{i}/file{i}.*")).collect();
    let matcher = PatternMatcher::new(&patterns).unwrap();
    let elapsed = timed(|| {
        let root = MatchState {
            matched: Some([].into()),
            ..MatchState::default()
        };
        for i in 0..100_000 {
            let dir = matcher.match_child(&format!("dir{i}"), &root);
            assert!(!dir.is_match());
            assert_eq!(
                matcher.match_child(&format!("dir{i}/file{i}.o"), &dir).pattern(),
                Some(i)
            );
        }
    });
    assert!(elapsed < Duration::from_secs(20), "took {elapsed:?}");
}

/// MatchesOrParentMatches as documented: patterns in order, each looked at only if it can change the answer.
fn model(matcher: &PatternMatcher, path: &str) -> bool {
    let mut matched = false;
    for pattern in matcher.patterns() {
        if pattern.exclusion == matched && pattern.matches_path_or_parent(path) {
            matched = !matched;
        }
    }
    matched
}

proptest! {
    #[test]
    fn index_and_order_equal_the_plain_loop(
        patterns in prop::collection::vec("!?[ab*?]{1,3}(/[ab*]{1,2}){0,2}", 0..6),
        path in "[ab]{1,2}(/[ab]{1,2}){0,3}",
    ) {
        let matcher = PatternMatcher::new(&patterns).unwrap();
        prop_assert_eq!(matcher.matches_or_parent_matches(&path), model(&matcher, &path));
        prop_assert_eq!(matcher.match_child(&path, &MatchState::default()).is_match(), model(&matcher, &path));
    }

    #[test]
    fn a_walk_equals_the_plain_loop_without_exclusions(
        patterns in prop::collection::vec("[ab*?]{1,3}(/[ab*]{1,2}){0,2}", 0..6),
        path in "[ab]{1,2}(/[ab]{1,2}){0,3}",
    ) {
        let matcher = PatternMatcher::new(&patterns).unwrap();
        prop_assert_eq!(walk(&matcher, &path).is_match(), model(&matcher, &path));
    }

    #[test]
    fn what_matches_below_is_never_denied(
        pattern in "[ab*?]{1,3}(/[ab*]{1,2}){0,2}",
        path in "[ab]{1,2}(/[ab]{1,2}){0,3}",
    ) {
        let matcher = PatternMatcher::new(std::slice::from_ref(&pattern)).unwrap();
        if matcher.patterns()[0].is_match(&path) {
            for end in ancestor_ends(&path).filter(|end| *end < path.len()) {
                prop_assert!(matcher.may_match_below(&path[..end]), "{} below {}", pattern, &path[..end]);
            }
        }
    }

    #[test]
    fn never_panics(text in prop::collection::vec(any::<u8>(), 0..200), path in any::<String>()) {
        let patterns = read_patterns(&text).unwrap();
        if let Ok(matcher) = PatternMatcher::new(&patterns) {
            prop_assert_eq!(matcher.matches_or_parent_matches(&path), model(&matcher, &path));
        }
    }
}
