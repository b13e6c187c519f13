//! What differs between a step and runc's container, by how its line begins, and why; and the table of it in docs/security.md,
//! which `RBUILD_UPDATE_DOCS=1` writes anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::e2e::hostile::canary::Rung;

/// On which side (`+` a step of ours, `-` runc's container), how the line begins, and why.
const DIFFERENCES: &[(&str, &str, &str)] = &[
    (
        "+",
        "mount /sys/fs/cgroup",
        "runc was not asked for one here; BuildKit asks, and it is read-only in both",
    ),
    (
        "+",
        "mount /etc/",
        "the network files, which BuildKit's worker binds too",
    ),
    (
        "+-",
        "mount / ",
        "the root is `nodev`: a step has `CAP_MKNOD` and no control group for devices",
    ),
    (
        "+",
        "mount /dev",
        "each device is a mount of its own, and so are the places above; nothing else there opens",
    ),
    (
        "-",
        "mount /dev",
        "runc makes nodes, which the control group for devices opens, and binds them in a user namespace",
    ),
    (
        "+-",
        "mount /proc",
        "masks are mounts of a null device and one empty directory; options differ",
    ),
    ("+-", "mount /sys", "masks"),
    (
        "+-",
        "asked file system ",
        "`nodev` as above; without namespaces nothing is mounted: all of it is the root directory",
    ),
    (
        "+-",
        "limit core file size",
        "dumps would be in the layer, with the secrets of the step",
    ),
    ("+-", "asked limit of core", "the same limit"),
    (
        "+-",
        "limit file locks",
        "which user a process is said to be is kept in this limit, which the kernel does not use",
    ),
    ("+-", "asked limit of locks", "the same limit"),
    (
        "+-",
        "status Groups",
        "a step has the groups of its image; runc gives none where it is not root",
    ),
    ("+-", "asked groups", "the same groups"),
    (
        "+-",
        "asked bounding",
        "without `CAP_SYS_CHROOT` and `CAP_MKNOD`, by which a root directory is left and devices are made",
    ),
    ("+-", "asked effective", "the same sets"),
    ("+-", "asked permitted", "the same sets"),
    (
        "+-",
        "asked no_new_privs",
        "set-id programs would give them back, and Landlock wants it",
    ),
    (
        "+-",
        "asked host",
        "the host name is that of the container rbuild runs in",
    ),
    ("+-", "dev /dev/core", "a link to what is masked"),
    ("-", "dev /dev/ptmx", "terminals have no names there"),
];

/// The lines of both sides that are not the same, by rung.
#[derive(Debug, Default)]
pub(super) struct Found {
    lines: BTreeMap<String, BTreeSet<&'static str>>,
}

impl Found {
    pub(super) fn compare(&mut self, rung: Rung, ours: &BTreeSet<String>, theirs: &BTreeSet<String>) {
        let name = rung
            .argument()
            .and_then(|argument| argument.strip_prefix("--rung="))
            .unwrap_or("root");
        let ours_alone = ours.difference(theirs).map(|line| format!("+ {line}"));
        let theirs_alone = theirs.difference(ours).map(|line| format!("- {line}"));
        for line in ours_alone.chain(theirs_alone) {
            self.lines.entry(line).or_default().insert(name);
        }
    }

    /// Everything found has a reason, and where every rung was looked at everything listed was found and the page says so.
    #[track_caller]
    pub(super) fn assert_listed(&self, all: bool) {
        let listed = |line: &str| {
            let (sign, rest) = line.split_once(' ')?;
            let mut all = DIFFERENCES.iter();
            all.position(|(signs, begins, _)| signs.contains(sign) && rest.starts_with(begins))
        };
        let mut rungs: BTreeMap<usize, BTreeSet<&str>> = BTreeMap::new();
        let mut unlisted = Vec::new();
        for (line, names) in &self.lines {
            match listed(line) {
                Some(at) => rungs.entry(at).or_default().extend(names),
                None => unlisted.push(format!("{line} {names:?}")),
            }
        }
        assert!(unlisted.is_empty(), "{unlisted:#?}");
        if !all {
            return;
        }
        let order = ["root", "subids", "one-id", "chroot"];
        let mut table = String::new();
        for (at, (signs, begins, why)) in DIFFERENCES.iter().enumerate() {
            let names = rungs.get(&at);
            assert!(names.is_some(), "{begins:?} differs on no rung any more");
            let names: Vec<&str> = order
                .into_iter()
                .filter(|name| names.is_some_and(|names| names.contains(name)))
                .collect();
            let signs: Vec<String> = signs.chars().map(|sign| format!("`{sign}`")).collect();
            let begins = begins.trim_end();
            table += &format!(
                "| {} `{begins}` | {} | {why} |\n",
                signs.join(" "),
                names.join(", ")
            );
        }
        assert_page_says(&table);
    }
}

#[track_caller]
fn assert_page_says(table: &str) {
    const HEAD: &str = "\n| differs | on | why |\n|---|---|---|\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let start = page.find(HEAD).expect("the table beside runc") + HEAD.len();
    let end = start + page[start..].find("\n\n").expect("its end") + 1;
    if std::env::var_os("RBUILD_UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{}{table}{}", &page[..start], &page[end..])).unwrap();
        return;
    }
    assert_eq!(
        &page[start..end],
        table,
        "docs/security.md; RBUILD_UPDATE_DOCS=1 writes it anew"
    );
}
