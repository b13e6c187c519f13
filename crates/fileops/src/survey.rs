//! Everything in a context, with what the ignore rules say of it: the answer to "what is sent, and why". Walks what is left
//! out too, which no build does. Goes down by held descriptors, follows no link, and reads no file.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_dockerfile::ignore::MatchState;
use rustix::fs::{AtFlags, FileType, Mode, Stat};
use rustix::io::Errno;

use crate::dirstack::{DIR_FLAGS, DirId, DirStack, Lost};
use crate::missing::IgnoredBy;
use crate::source::{IgnoreRules, LocalContext};
use crate::walk::{Listed, WalkError, list};

/// One thing in a context that is no directory.
#[derive(Debug)]
pub struct Surveyed<'a> {
    /// Its path in the context.
    pub path: &'a Path,
    /// Its size in bytes; 0 for what is no regular file.
    pub bytes: u64,
    /// Whether builds see it.
    pub sent: bool,
    /// The rule that had the last word, if any rule is about it.
    pub rule: Option<IgnoredBy>,
}

struct Level {
    names: Vec<Listed>,
    path_len: usize,
    state: MatchState,
}

/// Shows `visit` everything in `context` but directories, in order of bytes of the names. What goes away meanwhile is left
/// out, as by a build; so is what may not be read, if it would not be sent.
///
/// # Errors
/// [`WalkError`].
pub fn survey(context: &LocalContext, visit: &mut dyn FnMut(&Surveyed<'_>)) -> Result<(), WalkError> {
    let root = context
        .root()
        .open_in(Path::new("/"), DIR_FLAGS, Mode::empty())
        .map_err(|error| WalkError::Io {
            verb: "open",
            path: PathBuf::from("/"),
            source: error.errno().unwrap_or(Errno::IO).into(),
        })?;
    let mut survey = Survey {
        rules: context.rules(),
        path: Vec::new(),
        stack: DirStack::new(),
        visit,
    };
    survey.push(CString::default(), root, MatchState::default())?;
    survey.run()
}

struct Survey<'a> {
    rules: Option<&'a IgnoreRules>,
    path: Vec<u8>,
    stack: DirStack<Level>,
    visit: &'a mut dyn FnMut(&Surveyed<'_>),
}

impl Survey<'_> {
    fn run(&mut self) -> Result<(), WalkError> {
        while let Some((dir, level)) = self.stack.top() {
            self.path.truncate(level.path_len);
            let Some(listed) = level.names.pop() else {
                self.stack.pop().map_err(|lost| self.lost(lost))?;
                continue;
            };
            let dir = Arc::clone(dir);
            if level.path_len > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(listed.name.as_bytes());
            self.step(&dir, listed)?;
        }
        Ok(())
    }

    fn step(&mut self, dir: &OwnedFd, listed: Listed) -> Result<(), WalkError> {
        let stat = match rustix::fs::statat(dir, &listed.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(self.io("stat", error)),
        };
        let state = match (self.rules, self.stack.top()) {
            (Some(rules), Some((_, level))) => {
                let path = String::from_utf8_lossy(&self.path);
                rules.matcher().match_child(&path, &level.state)
            }
            _ => MatchState::default(),
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return match rustix::fs::openat(dir, &listed.name, DIR_FLAGS, Mode::empty()) {
                Ok(fd) => self.push(listed.name, fd, state),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
                Err(Errno::ACCESS) if state.is_match() => Ok(()),
                Err(error) => Err(self.io("open", error)),
            };
        }
        (self.visit)(&Surveyed {
            path: Path::new(std::ffi::OsStr::from_bytes(&self.path)),
            bytes: size(&stat),
            sent: !state.is_match(),
            rule: self.rules.and_then(|rules| rules.blame(&state)),
        });
        Ok(())
    }

    fn push(&mut self, name: CString, fd: OwnedFd, state: MatchState) -> Result<(), WalkError> {
        let opened = rustix::fs::fstat(&fd).and_then(|stat| Ok((stat, list(&fd, usize::MAX)?)));
        let (stat, mut names) = opened.map_err(|error| self.io("list", error))?;
        names.reverse();
        let level = Level {
            names,
            path_len: self.path.len(),
            state,
        };
        self.stack.push(name, Arc::new(fd), DirId::of(&stat), level);
        Ok(())
    }

    fn lost(&self, lost: Lost) -> WalkError {
        match lost {
            Lost::Errno(errno) => self.io("open", errno),
            Lost::Moved => WalkError::Changed(self.here()),
        }
    }

    fn io(&self, verb: &'static str, errno: Errno) -> WalkError {
        WalkError::Io {
            verb,
            path: self.here(),
            source: errno.into(),
        }
    }

    fn here(&self) -> PathBuf {
        PathBuf::from(std::ffi::OsStr::from_bytes(&self.path))
    }
}

fn size(stat: &Stat) -> u64 {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => u64::try_from(stat.st_size).unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use rbuild_sys::RootFd;

    use crate::context::{DockerfileAt, ignore_rules};

    #[test]
    fn everything_is_seen_with_the_rule_that_decided() {
        let room = tempfile::tempdir().unwrap();
        let at = |name: &str| room.path().join(name);
        for dir in ["out/deep", "src"] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        for (name, bytes) in [("a", 1), ("out/b", 20), ("out/deep/c", 300), ("src/d", 4)] {
            fs::write(at(name), vec![b'x'; bytes]).unwrap();
        }
        symlink("/", at("src/link")).unwrap();
        fs::write(at(".dockerignore"), "# first\nout\n!out/deep/c\n").unwrap();
        let context = {
            let root = RootFd::open(room.path()).unwrap();
            let rules = ignore_rules(&root, DockerfileAt::Nowhere).unwrap();
            LocalContext::new(root, room.path().to_owned(), rules)
        };
        let mut seen = Vec::new();
        survey(&context, &mut |found| {
            let rule = found
                .rule
                .as_ref()
                .map(|rule| format!("{}:{} {}", rule.file, rule.line, rule.pattern));
            seen.push((
                found.path.display().to_string(),
                found.bytes,
                found.sent,
                rule.unwrap_or_default(),
            ));
        })
        .unwrap();
        let seen: Vec<(&str, u64, bool, &str)> = seen
            .iter()
            .map(|(path, bytes, sent, rule)| (path.as_str(), *bytes, *sent, rule.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                (".dockerignore", 24, true, ""),
                ("a", 1, true, ""),
                ("out/b", 20, false, ".dockerignore:2 out"),
                ("out/deep/c", 300, true, ".dockerignore:3 !out/deep/c"),
                ("src/d", 4, true, ""),
                ("src/link", 0, true, ""),
            ]
        );
    }
}
