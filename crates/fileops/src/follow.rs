//! Which patterns a client's directory is sent by when it is asked for paths (`fsutil`, followlinks.go): the paths, what links in them
//! lead to, and where a wildcard matches a link all that it matches. Reads names and links below a held root.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rbuild_dockerfile::glob::{Glob, has_wildcards};
use rbuild_sys::{RootFd, clean};
use rustix::fs::{Mode, OFlags};

use crate::dirstack::DIR_FLAGS;
use crate::walk::list;

/// Most paths that are looked at: links may lead to links.
const PATHS_MAX: usize = 4096;

/// The patterns for `paths`, relative to the root.
pub(crate) fn patterns(root: &RootFd, paths: &[String]) -> Vec<String> {
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut waiting: VecDeque<PathBuf> = paths.iter().map(PathBuf::from).collect();
    while let Some(path) = waiting.pop_front() {
        let path = clean(&path);
        if seen.len() == PATHS_MAX || !seen.insert(path.clone()) {
            continue;
        }
        let mut at = PathBuf::from("/");
        let mut rest = path.components();
        let mut targets = Vec::new();
        for component in rest.by_ref() {
            if let Component::Normal(name) = component {
                at.push(name);
                targets = links(root, &at);
                if !targets.is_empty() {
                    break;
                }
            }
        }
        waiting.extend(targets.into_iter().map(|target| target.join(rest.as_path())));
        let pattern = at.strip_prefix("/").unwrap_or(&at);
        if pattern.as_os_str().is_empty() {
            return vec!["**".to_owned()];
        }
        found.insert(pattern.to_string_lossy().into_owned());
    }
    found.into_iter().collect()
}

/// What the link at `path` leads to, or those that a wildcard at its end matches. Nothing if there is none.
fn links(root: &RootFd, path: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().map(|name| name.to_string_lossy())) else {
        return Vec::new();
    };
    let glob = match has_wildcards(&name) {
        true => Glob::new(&name),
        false => return target(root, path).into_iter().collect(),
    };
    let opened = root.open_in(dir, DIR_FLAGS | OFlags::NOFOLLOW, Mode::empty());
    let (Ok(glob), Ok(fd)) = (glob, opened) else {
        return Vec::new();
    };
    let names = list(&fd, usize::MAX).unwrap_or_default();
    let names = names.iter().map(|listed| listed.name.to_string_lossy());
    names
        .filter(|name| glob.is_match(name))
        .filter_map(|name| target(root, &dir.join(&*name)))
        .collect()
}

/// What the link at `path` leads to, absolute below the root.
fn target(root: &RootFd, path: &Path) -> Option<PathBuf> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = root.open_in(path, flags, Mode::empty()).ok()?;
    let target = rbuild_sys::owner::read_link(&fd, c"").ok()?;
    let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
    Some(clean(&path.parent()?.join(target)))
}
