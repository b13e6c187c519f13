//! Whether a list is one of a tree: every path clean, every name once and after those before it, every parent a
//! directory of the list (`fsutil/validator.go`). Names are compared as bytes, part by part.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use crate::sync::error::{PathFault, SyncError};

/// Most bytes of a path; the kernel's `PATH_MAX`, beyond which the client could not have opened it either.
const PATH_BYTES_MAX: usize = 4095;

/// Where in the list we are: the directories above the last entry.
#[derive(Debug)]
pub(crate) struct Order {
    open: Vec<Dir>,
}

#[derive(Debug)]
struct Dir {
    path: Arc<[u8]>,
    last: Vec<u8>,
}

impl Order {
    pub(crate) fn new() -> Self {
        Self {
            open: vec![Dir {
                path: Arc::from([]),
                last: Vec::new(),
            }],
        }
    }

    /// Takes the next path; gives its parent's path and its name.
    pub(crate) fn take<'p>(
        &mut self,
        path: &'p [u8],
        is_dir: bool,
    ) -> Result<(Arc<[u8]>, &'p [u8]), SyncError> {
        check(path)?;
        let (parent, name) = split(path);
        let depth = self.open.iter().rposition(|dir| *dir.path == *parent);
        let Some(depth) = depth else {
            let last = self.open.last().map(Dir::last_path).unwrap_or_default();
            return Err(out_of_order(path, last));
        };
        self.open.truncate(depth + 1);
        let dir = &mut self.open[depth];
        if dir.last.as_slice() >= name {
            return Err(out_of_order(path, dir.last_path()));
        }
        dir.last = name.to_vec();
        let parent = Arc::clone(&dir.path);
        if is_dir {
            self.open.push(Dir {
                path: Arc::from(path),
                last: Vec::new(),
            });
        }
        Ok((parent, name))
    }
}

impl Dir {
    fn last_path(&self) -> PathBuf {
        as_path(&self.path).join(OsStr::from_bytes(&self.last))
    }
}

/// Refuses a path that no list of a tree can hold.
pub(crate) fn check(path: &[u8]) -> Result<(), SyncError> {
    let fault = if path.starts_with(b"/") {
        PathFault::Absolute
    } else if path.len() > PATH_BYTES_MAX {
        PathFault::TooLong
    } else if path.contains(&0) {
        PathFault::Nul
    } else if path.split(|b| *b == b'/').any(|part| part == b"..") {
        PathFault::Escapes
    } else if path
        .split(|b| *b == b'/')
        .any(|part| part.is_empty() || part == b".")
    {
        PathFault::Unclean
    } else {
        return Ok(());
    };
    Err(SyncError::Path {
        path: as_path(&path[..path.len().min(PATH_BYTES_MAX)]),
        fault,
    })
}

/// The order of the list.
pub(crate) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    a.split(|c| *c == b'/').cmp(b.split(|c| *c == b'/'))
}

pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

pub(crate) fn as_path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

fn out_of_order(path: &[u8], last: PathBuf) -> SyncError {
    SyncError::OutOfOrder {
        path: as_path(path),
        last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(paths: &[(&str, bool)]) -> Result<(), SyncError> {
        let mut order = Order::new();
        for (path, is_dir) in paths {
            order.take(path.as_bytes(), *is_dir)?;
        }
        Ok(())
    }

    #[test]
    fn lists_of_trees_are_taken() {
        takes(&[
            ("a", true),
            ("a/b", true),
            ("a/b/c", false),
            ("a/b-", false),
            ("a-", false),
            ("a.b", true),
            ("a.b/..c", false),
            ("b", false),
        ])
        .unwrap();
    }

    #[test]
    fn row48_lists_of_no_tree_are_refused() {
        for (why, paths) in [
            ("twice", &[("a", false), ("a", false)][..]),
            ("backwards", &[("b", false), ("a", false)]),
            ("no such parent", &[("a/b", false)]),
            ("in a file", &[("a", false), ("a/b", false)]),
            (
                "back into a directory",
                &[("a", true), ("b", true), ("a/c", false)],
            ),
            ("twice inside", &[("a", true), ("a/b", false), ("a/b", true)]),
        ] {
            let refused = takes(paths);
            assert!(
                matches!(refused, Err(SyncError::OutOfOrder { .. })),
                "{why}: {refused:?}"
            );
        }
    }

    #[test]
    fn row48_paths_that_lead_out_are_refused() {
        let long = "x/".repeat(3000);
        for (path, fault) in [
            ("..", PathFault::Escapes),
            ("../a", PathFault::Escapes),
            ("a/../../b", PathFault::Escapes),
            ("/a", PathFault::Absolute),
            ("", PathFault::Unclean),
            (".", PathFault::Unclean),
            ("a//b", PathFault::Unclean),
            ("a/", PathFault::Unclean),
            ("./a", PathFault::Unclean),
            ("a\0b", PathFault::Nul),
            (long.as_str(), PathFault::TooLong),
        ] {
            match check(path.as_bytes()) {
                Err(SyncError::Path { fault: found, .. }) => assert_eq!(found, fault, "{path:?}"),
                other => panic!("{path:?}: {other:?}"),
            }
        }
        check("..a/b..".as_bytes()).unwrap();
    }

    #[test]
    fn a_slash_sorts_before_every_other_byte() {
        assert_eq!(compare(b"a/b", b"a-"), Ordering::Less);
        assert_eq!(compare(b"a", b"a/b"), Ordering::Less);
        assert_eq!(compare(b"b", b"a/b"), Ordering::Greater);
    }
}
