//! Any wildcard against any name: no panic, a name without wildcards and quotes matches itself, and both ways of asking agree.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rbuild_dockerfile::glob::{Glob, has_wildcards, is_match};

fuzz_target!(|input: (&str, &str)| {
    let (pattern, name) = input;
    match (Glob::new(pattern), is_match(pattern, name)) {
        (Ok(glob), Ok(matched)) => assert_eq!(glob.is_match(name), matched),
        (Err(_), Ok(matched)) => panic!("{pattern:?} is refused, and gives {matched} for {name:?}"),
        _ => {}
    }
    if !has_wildcards(pattern) && !pattern.contains('\\') {
        assert!(
            is_match(pattern, pattern).unwrap_or(false),
            "{pattern:?} is not itself"
        );
    }
});
