//! The pages of BuildKit's lint rules in docs/rules: each is there, in the list, and its examples are true.

use std::collections::BTreeSet;
use std::path::Path;

use rbuild_frontend::{Origin, Rule};

use crate::fake::{ALPINE, Fake, lower_with, options};

/// Name of a rule's page: words in small letters, a run of capitals being one word.
fn page_of(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut page = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).map(|at| letters[at]);
        let after = letters.get(at + 1);
        let begins = letter.is_uppercase()
            && before.is_some_and(|before| {
                before.is_lowercase() || after.is_some_and(|after| after.is_lowercase())
            });
        if begins {
            page.push('-');
        }
        page.push(letter.to_ascii_lowercase());
    }
    page + ".md"
}

/// Names of the rules that warn, by the pages' circumstances: an ignore file with `*.tmp`, and `TAG` given.
fn warned_by(dockerfile: &str) -> Vec<&'static str> {
    let mut options = options(dockerfile);
    options.ignore_patterns = vec!["*.tmp".to_owned()];
    options.build_args.insert("TAG".to_owned(), "3".to_owned());
    let lowered = lower_with(&options, &Fake::new().every_image(ALPINE))
        .unwrap_or_else(|error| panic!("{error}: {dockerfile}"));
    lowered
        .warnings
        .iter()
        .map(|warning| warning.rule.name())
        .collect()
}

#[test]
fn every_rule_of_buildkit_has_a_page_whose_examples_are_true() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/rules");
    let read = |file: &str| {
        std::fs::read_to_string(rules.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    };
    let list = read("README.md");
    for rule in Rule::BUILDKIT {
        assert_ne!(rule.origin(), Origin::Own);
        let file = page_of(rule.name());
        let page = read(&file);
        assert!(page.starts_with(&format!("# {}\n", rule.name())), "{file}");
        assert!(
            list.contains(&format!("[{}]({file})", rule.name())),
            "{file} is not in the list"
        );
        if !rule.url().is_empty() {
            let known = file.trim_end_matches(".md");
            assert!(rule.url().ends_with(&format!("/{known}/")), "{}", rule.url());
        }
        let examples: Vec<&str> = page
            .split("```dockerfile\n")
            .skip(1)
            .filter_map(|rest| rest.split("```").next())
            .collect();
        let [bad, good] = examples[..] else {
            panic!("{file} has {} examples", examples.len())
        };
        assert_eq!(warned_by(bad), [rule.name()], "{file}");
        assert!(warned_by(good).is_empty(), "{file}: {:?}", warned_by(good));
    }
    let pages = std::fs::read_dir(&rules).unwrap();
    let pages: BTreeSet<String> = pages
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let known = Rule::BUILDKIT.iter().map(|rule| page_of(rule.name()));
    let own = Rule::OWN
        .iter()
        .map(|rule| rule.url().replacen("docs/rules/", "", 1));
    let known: BTreeSet<String> = known.chain(own).chain(["README.md".to_owned()]).collect();
    assert_eq!(pages, known);
}
