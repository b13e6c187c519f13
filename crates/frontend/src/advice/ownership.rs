//! `CopiedTreeChanged`: a step that gives every file of a copied tree another owner or mode, and so stores it again.

use std::collections::BTreeMap;

use crate::advice::commands::{operands, program};

/// A tree that is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    program: &'static str,
    /// Absolute, clean.
    dir: String,
}

/// Directories of one step that are looked at.
const CHANGES_MAX: usize = 16;

/// The trees that the commands change; `resolve` makes a word an absolute path, if it can be one.
pub(super) fn changes(commands: &[Vec<String>], resolve: &dyn Fn(&str) -> Option<String>) -> Vec<Change> {
    let mut found = Vec::new();
    for command in commands {
        let (name, arguments) = program(command);
        let known = |name: &str| {
            ["chown", "chmod", "chgrp"]
                .into_iter()
                .find(|known| name == *known)
        };
        let recursive = || {
            arguments.iter().any(|word| {
                word == "--recursive"
                    || (word.starts_with('-') && !word.starts_with("--") && word.contains('R'))
            })
        };
        if let Some(program) = known(name).filter(|_| recursive()) {
            // The owner or mode comes first, unless another file gives it.
            let skip = usize::from(!arguments.iter().any(|word| word.starts_with("--reference")));
            let dirs = operands(arguments).skip(skip);
            let dirs = dirs.filter_map(|dir| resolve(dir.trim_end_matches('*')));
            found.extend(dirs.take(CHANGES_MAX).map(|dir| Change { program, dir }));
        } else if name == "find" {
            let run = arguments
                .windows(2)
                .find(|pair| pair[0].starts_with("-exec"))
                .and_then(|pair| known(&pair[1]));
            let Some(program) = run else { continue };
            let dirs = arguments.iter().take_while(|word| !word.starts_with('-'));
            let dirs = dirs.filter_map(|dir| resolve(dir));
            found.extend(dirs.take(CHANGES_MAX).map(|dir| Change { program, dir }));
        }
        if found.len() >= CHANGES_MAX {
            break;
        }
    }
    found
}

/// Where COPY and ADD have put files so far, with their lines.
#[derive(Debug, Default)]
pub(super) struct Copies(BTreeMap<String, u32>);

impl Copies {
    pub(super) fn add(&mut self, destination: &str, line: u32) {
        self.0.insert(destination.to_owned(), line);
    }

    /// What is wrong with `change`, if a copied tree is at or below its directory. One above is no sign: the
    /// directory may be one that no COPY brought.
    pub(super) fn message(&self, change: &Change) -> Option<String> {
        let Change { program, dir } = change;
        let line = self.0.get(dir).or_else(|| self.below(dir))?;
        let flag = if *program == "chmod" { "chmod" } else { "chown" };
        Some(format!(
            "{program} of {dir} stores what line {line} copied a second time: give that instruction --{flag} instead"
        ))
    }

    fn below(&self, dir: &str) -> Option<&u32> {
        let prefix = if dir == "/" {
            "/".to_owned()
        } else {
            format!("{dir}/")
        };
        let (path, line) = self.0.range(prefix.clone()..).next()?;
        path.starts_with(&prefix).then_some(line)
    }
}
