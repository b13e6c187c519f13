//! The first rung: the caller is root, and stays who it is in a mount namespace of its own.

use rustix::thread::UnshareFlags;

use super::{UsernsError, ask_first, kernel, probe};
use crate::namespace::unshare;
use crate::process::become_user;

/// Enters it.
pub(super) fn enter() -> Result<(), UsernsError> {
    if !rustix::process::geteuid().is_root() {
        return Err(UsernsError::NotRoot);
    }
    let map = std::fs::read_to_string(MAP).map_err(|source| UsernsError::Read {
        path: MAP.into(),
        source,
    })?;
    if !has_all(&map) && !can_become_others(&map)? {
        return Err(UsernsError::OneId);
    }
    ask_first(UnshareFlags::NEWNS)?;
    unshare(UnshareFlags::NEWNS).map_err(|e| kernel("unshare mounts", e))
}

const MAP: &str = "/proc/self/uid_map";

/// Lengths of the ranges of a map (user_namespaces(7)).
fn lengths(map: &str) -> impl Iterator<Item = u64> {
    map.lines()
        .filter_map(|line| line.split_whitespace().nth(2)?.parse().ok())
}

/// As where no user namespace was made: nothing can be missing, and nothing has to be tried.
fn has_all(map: &str) -> bool {
    lengths(map).eq([u64::from(u32::MAX)])
}

/// Whether every id of the machine has its own number in this process's user namespace.
///
/// # Errors
/// `/proc` is not there.
pub fn has_all_ids() -> std::io::Result<bool> {
    Ok(has_all(&std::fs::read_to_string(MAP)?))
}

/// Tried and not read: in a step of the rung with one id these calls are answered, and work.
fn can_become_others(map: &str) -> Result<bool, UsernsError> {
    let other = u32::from(lengths(map).eq([1]));
    let ended = probe(|| i32::from(become_user(other, other, &[other]).is_err()))?;
    Ok(ended == Some(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_told_apart_by_their_lengths() {
        for (map, all, one) in [
            ("         0          0 4294967295\n", true, false),
            ("         0       1000          1\n", false, true),
            ("0 1000 1\n1 100000 65536\n", false, false),
            ("", false, false),
        ] {
            assert_eq!(has_all(map), all, "{map:?}");
            assert_eq!(lengths(map).eq([1]), one, "{map:?}");
        }
    }
}
