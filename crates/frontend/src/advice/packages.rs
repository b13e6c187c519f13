//! `PackageCacheInLayer`: a package manager's lists or archives that stay in the layer of the step.

use crate::advice::commands::program;

/// What a package manager leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leaves {
    manager: &'static str,
    what: &'static str,
    remedy: &'static str,
}

impl Leaves {
    pub(super) fn message(self) -> String {
        let Self {
            manager,
            what,
            remedy,
        } = self;
        format!("{manager} leaves {what} in the layer: {remedy} in the same RUN, or mount a cache there")
    }
}

/// A package manager: its programs, what makes it leave something, what removes that, and where it lies.
struct Manager {
    programs: &'static [&'static str],
    fetches: fn(&[String]) -> bool,
    cleans: fn(&[String]) -> bool,
    dirs: &'static [&'static str],
    leaves: Leaves,
}

const MANAGERS: [Manager; 5] = [
    Manager {
        programs: &["apt-get", "apt", "aptitude"],
        fetches: |arguments| has(arguments, &["update"]),
        cleans: |arguments| has(arguments, &["dist-clean", "distclean"]),
        dirs: &["/var/lib/apt/lists", "/var/lib/apt"],
        leaves: Leaves {
            manager: "apt-get update",
            what: "its package lists",
            remedy: "remove /var/lib/apt/lists/*",
        },
    },
    Manager {
        programs: &["apk"],
        fetches: |arguments| {
            has(arguments, &["add", "update"]) && !has(arguments, &["--no-cache", "--no-network"])
        },
        cleans: |arguments| has(arguments, &["cache"]) && has(arguments, &["clean", "purge"]),
        dirs: &["/var/cache/apk", "/etc/apk/cache"],
        leaves: Leaves {
            manager: "apk",
            what: "its package index",
            remedy: "give --no-cache or remove /var/cache/apk/*",
        },
    },
    Manager {
        programs: &["dnf", "yum", "microdnf", "tdnf", "dnf5"],
        fetches: |arguments| {
            has(
                arguments,
                &["install", "update", "upgrade", "groupinstall", "reinstall"],
            )
        },
        cleans: |arguments| has(arguments, &["clean"]),
        dirs: &[
            "/var/cache/dnf",
            "/var/cache/yum",
            "/var/cache/libdnf5",
            "/var/cache/tdnf",
        ],
        leaves: Leaves {
            manager: "dnf",
            what: "its metadata and packages",
            remedy: "run 'clean all'",
        },
    },
    Manager {
        programs: &["zypper"],
        fetches: |arguments| has(arguments, &["install", "in", "update", "up", "refresh", "ref"]),
        cleans: |arguments| has(arguments, &["clean", "cc"]),
        dirs: &["/var/cache/zypp"],
        leaves: Leaves {
            manager: "zypper",
            what: "its metadata and packages",
            remedy: "run 'zypper clean --all'",
        },
    },
    Manager {
        programs: &["pacman"],
        fetches: |arguments| {
            arguments
                .iter()
                .any(|word| word.starts_with("-S") && !word.contains('c'))
        },
        cleans: |arguments| {
            arguments
                .iter()
                .any(|word| word.starts_with("-S") && word.contains('c'))
        },
        dirs: &["/var/cache/pacman"],
        leaves: Leaves {
            manager: "pacman",
            what: "its packages",
            remedy: "run 'pacman -Scc'",
        },
    },
];

fn has(arguments: &[String], words: &[&str]) -> bool {
    arguments.iter().any(|word| words.contains(&word.as_str()))
}

/// What the commands leave in the layer; nothing that is written below `mounted` is in it.
pub(super) fn left(commands: &[Vec<String>], mounted: &[&str]) -> Vec<Leaves> {
    let leaves = |manager: &&Manager| {
        let mut fetched = false;
        for command in commands {
            let (program, arguments) = program(command);
            if manager.programs.contains(&program) {
                // Cleaning counts for what was fetched before it.
                fetched = (fetched || (manager.fetches)(arguments)) && !(manager.cleans)(arguments);
            } else if matches!(program, "rm" | "find") && arguments.iter().any(|word| names(manager, word)) {
                fetched = false;
            }
        }
        let kept_out = |dir: &&str| mounted.iter().any(|mount| is_below(dir, mount));
        fetched && !manager.dirs.iter().any(kept_out)
    };
    MANAGERS
        .iter()
        .filter(leaves)
        .map(|manager| manager.leaves)
        .collect()
}

/// Whether removing `word` removes what the manager keeps: its directory, what is in it, or a directory above.
fn names(manager: &Manager, word: &str) -> bool {
    // `/var/{lib/apt,cache}` and the like: the whole group is taken to be meant.
    if word.contains('{') {
        let name = |dir: &&str| dir.split('/').nth(3).is_some_and(|name| word.contains(name));
        return word.starts_with("/var") && manager.dirs.iter().any(name);
    }
    let word = word.trim_end_matches(['*', '/']);
    !word.is_empty()
        && manager
            .dirs
            .iter()
            .any(|dir| is_below(dir, word) || is_below(word, dir))
}

fn is_below(path: &str, dir: &str) -> bool {
    let dir = dir.trim_end_matches('/');
    path.strip_prefix(dir)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
