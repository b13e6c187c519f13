//! Any bytes as an ignore file, and any paths against it: no panic, and a walk denies nothing that the rules allow.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rbuild_dockerfile::ignore::{PatternMatcher, read_patterns};

fuzz_target!(|input: (&[u8], Vec<String>)| {
    let (file, paths) = input;
    let Ok(patterns) = read_patterns(file) else { return };
    let Ok(matcher) = PatternMatcher::new(&patterns) else {
        return;
    };
    for path in paths {
        // A walk asks for relative paths below its root.
        let path = rbuild_dockerfile::path::clean(&format!("/{path}"));
        let path = path.trim_start_matches('/');
        let matched = matcher.matches_or_parent_matches(path);
        if let Some((dir, _)) = path.rsplit_once('/')
            && matched
            && !matcher.matches_or_parent_matches(dir)
        {
            assert!(
                matcher.may_match_below(dir),
                "{path} matches, and nothing could below {dir}"
            );
        }
    }
});
