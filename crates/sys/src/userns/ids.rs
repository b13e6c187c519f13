//! Which subordinate ids a caller has: `/etc/subuid`, `/etc/subgid` (subuid(5)) and, where these say nothing,
//! `getsubids`, which asks the configured source.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::UsernsError;

/// Consecutive ids of the outer namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first.
    pub start: u32,
    /// How many.
    pub count: u32,
}

/// Users or groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdFile {
    /// `/etc/subuid`.
    Uid,
    /// `/etc/subgid`.
    Gid,
}

/// Longest system file read; a site with a million users has 40 MB.
const FILE_MAX_BYTES: u64 = 64 << 20;
/// Ranges given to the kernel: a map has at most 340 lines, one is our own id.
const RANGES_MAX: usize = 339;

impl IdFile {
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Uid => "/etc/subuid",
            Self::Gid => "/etc/subgid",
        }
    }

    pub(super) const fn kind(self) -> &'static str {
        match self {
            Self::Uid => "uid",
            Self::Gid => "gid",
        }
    }

    /// The ranges of one user.
    ///
    /// # Errors
    /// The file exists and cannot be read.
    pub fn ranges(self, name: Option<&str>, uid: u32) -> Result<Vec<IdRange>, UsernsError> {
        let found = parse(&read(Path::new(self.path()))?, name, uid);
        if found.is_empty() {
            Ok(self.ask(name, uid))
        } else {
            Ok(found)
        }
    }

    /// Asks `getsubids`, if it is there: its lines are `0: user start count`.
    fn ask(self, name: Option<&str>, uid: u32) -> Vec<IdRange> {
        let number = uid.to_string();
        let mut command = Command::new("/usr/bin/getsubids");
        if self == Self::Gid {
            command.arg("-g");
        }
        let output = command
            .arg(name.unwrap_or(&number))
            .env_clear()
            .stdin(Stdio::null())
            .output();
        let text = output
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default();
        let range = |line: &str| {
            let mut fields = line.split_whitespace().rev();
            let count = fields.next()?.parse().ok()?;
            Some(IdRange {
                count,
                start: fields.next()?.parse().ok()?,
            })
        };
        text.lines()
            .filter_map(range)
            .filter(|range| range.count > 0)
            .take(RANGES_MAX)
            .collect()
    }
}

/// Lines `name:start:count`, where the name may be a number; what does not parse is skipped, as shadow does.
fn parse(text: &str, name: Option<&str>, uid: u32) -> Vec<IdRange> {
    let number = uid.to_string();
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        if Some(owner) != name && owner != number {
            return None;
        }
        let start: u32 = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        (count > 0 && start.checked_add(count - 1).is_some()).then_some(IdRange { start, count })
    };
    text.lines().filter_map(range).take(RANGES_MAX).collect()
}

/// Our own id becomes 0, the ranges follow from 1 on: the arguments of newuidmap(1) after the pid.
pub(super) fn map_arguments(own: u32, ranges: &[IdRange]) -> Vec<String> {
    let mut args = vec!["0".to_owned(), own.to_string(), "1".to_owned()];
    let mut next: u32 = 1;
    for range in ranges {
        let count = range.count.min(u32::MAX - 1 - next);
        args.extend([next.to_string(), range.start.to_string(), count.to_string()]);
        next += count;
    }
    args
}

/// The name of a user in `/etc/passwd`; users of other sources are found by number.
pub(super) fn user_name(uid: u32) -> Result<Option<String>, UsernsError> {
    let number = uid.to_string();
    let text = read(Path::new("/etc/passwd"))?;
    let name = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number && !name.is_empty()).then(|| name.to_owned())
    };
    Ok(text.lines().find_map(name))
}

/// A missing file is an empty one.
fn read(path: &Path) -> Result<String, UsernsError> {
    let fail = |source| UsernsError::Read {
        path: path.to_owned(),
        source,
    };
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        done => done.map_err(fail)?,
    };
    let mut bytes = Vec::new();
    file.take(FILE_MAX_BYTES).read_to_end(&mut bytes).map_err(fail)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text = "root:1:1\nann:100000:65536\n1000:300000:10\nann:x:5\nann:9\nannika:5:5\nann:4294967290:10\nann:7:0\n";
        let found = parse(text, Some("ann"), 1000);
        let expected = [
            IdRange {
                start: 100_000,
                count: 65536,
            },
            IdRange {
                start: 300_000,
                count: 10,
            },
        ];
        assert_eq!(found, expected);
        assert!(parse(text, None, 1001).is_empty());
    }

    #[test]
    fn maps_start_with_the_caller_and_have_no_gaps() {
        let ranges = [
            IdRange {
                start: 100_000,
                count: 10,
            },
            IdRange { start: 5, count: 3 },
        ];
        assert_eq!(
            map_arguments(1000, &ranges).join(" "),
            "0 1000 1 1 100000 10 11 5 3"
        );
        let whole = map_arguments(
            1,
            &[IdRange {
                start: 2,
                count: u32::MAX - 2,
            }; 2],
        );
        assert_eq!(
            whole.last().map(String::as_str),
            Some("0"),
            "no map runs past the last id: {whole:?}"
        );
    }
}
