//! What manifests name is used: by the program and the libraries, or only by their tests.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{metadata, none, root, tracked};

/// Dependencies that no source names, and why there are.
const UNNAMED: [(&str, &str, &str); 2] = [
    ("rbuild", "log", "its feature leaves out what libraries log"),
    ("rbuild", "tracing", "its feature leaves out what libraries trace"),
];

/// Directories of the sources of a package's targets of these kinds.
fn directories(package: &Value, is_wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let targets = package["targets"].as_array().unwrap();
    let wanted = targets.iter().filter(|target| {
        target["kind"]
            .as_array()
            .unwrap()
            .iter()
            .any(|kind| is_wanted(kind.as_str().unwrap()))
    });
    let directory = |target: &Value| {
        let path = Path::new(target["src_path"].as_str().unwrap());
        path.parent().unwrap().strip_prefix(root()).unwrap().to_owned()
    };
    wanted.map(directory).collect()
}

/// Whether one of the texts names `crate_name` as a crate.
fn is_named(crate_name: &str, texts: &[String]) -> bool {
    let ways = [
        format!("{crate_name}::"),
        format!("use {crate_name};"),
        format!("use {crate_name} as "),
    ];
    let is_word = |text: &str, at: usize| {
        let before = text[..at].chars().next_back();
        before.is_none_or(|before| !before.is_alphanumeric() && before != '_')
    };
    texts.iter().any(|text| {
        let mut found = ways.iter().flat_map(|way| text.match_indices(way.as_str()));
        found.any(|(at, _)| is_word(text, at))
    })
}

#[test]
fn what_manifests_name_is_used() {
    let files: Vec<PathBuf> = tracked();
    let texts = |directories: &[PathBuf]| -> Vec<String> {
        let is_below = |path: &&PathBuf| directories.iter().any(|directory| path.starts_with(directory));
        let rust = files
            .iter()
            .filter(|path| path.extension().is_some_and(|end| end == "rs"));
        rust.filter(is_below)
            .map(|path| fs::read_to_string(root().join(path)).expect("sources are UTF-8"))
            .collect()
    };
    let is_product = |kind: &str| ["lib", "bin", "custom-build"].contains(&kind);
    let (mut unused, mut count) = (Vec::new(), 0);
    for package in metadata()["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let mut product = directories(package, is_product);
        if product.is_empty() {
            product = directories(package, |_| true);
        }
        let (product, all) = (texts(&product), texts(&directories(package, |_| true)));
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            let is_for_tests = dependency["kind"] == "dev";
            let is_known = UNNAMED
                .iter()
                .any(|(known, other, _)| (*known, *other) == (name, on));
            count += 1;
            let texts = if is_for_tests { &all } else { &product };
            let called = dependency["rename"].as_str().unwrap_or(on);
            if is_named(&called.replace('-', "_"), texts) == is_known {
                let kind = if is_for_tests {
                    "dev-dependency"
                } else {
                    "dependency"
                };
                unused.push(format!("{name}: {kind} {on}"));
            }
        }
    }
    assert!(count > 200, "only {count} dependencies");
    none("named in a manifest, and in no source", &unused);
}
