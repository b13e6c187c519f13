//! Any word with any variables: no panic, and no more text than the limit allows.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use rbuild_dockerfile::shell::{Lexer, MAX_GROWTH_BYTES, Variables};

struct Map(BTreeMap<String, String>);

impl Variables for Map {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

fuzz_target!(|input: (&str, BTreeMap<String, String>, bool)| {
    let (word, variables, backtick) = input;
    let variables = Map(variables);
    let lexer = Lexer::new(if backtick { '`' } else { '\\' });
    if let Ok(found) = lexer.expand(word, &variables) {
        assert!(found.text.len() <= word.len() + MAX_GROWTH_BYTES);
    }
    let _words = lexer.split(word, &variables);
});
