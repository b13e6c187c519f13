//! Finds the directory an entry goes into, and makes what is missing of it. Links are resolved inside the root.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{Applier, ApplyError, failed, is_whiteout, set_opaque};
use crate::entry::Time;
use crate::reader::printable;

/// Links followed in one path: the kernel's own limit (`MAXSYMLINKS`).
const LINKS_MAX: usize = 40;
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

impl Applier {
    /// The directory `parts`, made where it is missing: mode 0755, owned by root, as containerd's `mkparent` and
    /// Docker's `createImpliedDirectories` have it.
    pub(super) fn directory(&mut self, parts: &[&[u8]], entry: &[u8]) -> Result<Arc<OwnedFd>, ApplyError> {
        if let Some(dir) = self.quick(parts) {
            return Ok(dir);
        }
        let dir = Arc::new(self.walk(parts, Some(entry))?);
        self.cached = Some((parts.join(&b'/'), Arc::clone(&dir)));
        Ok(dir)
    }

    /// The directory `parts`, if it is there.
    pub(super) fn existing_directory(&mut self, parts: &[&[u8]]) -> Result<Arc<OwnedFd>, Errno> {
        if let Some(dir) = self.quick(parts) {
            return Ok(dir);
        }
        match self.walk(parts, None) {
            Ok(dir) => Ok(Arc::new(dir)),
            Err(ApplyError::Io { source, .. }) => Err(Errno::from_io_error(&source).unwrap_or(Errno::IO)),
            Err(_) => Err(Errno::IO),
        }
    }

    /// The directory when it was the last one used, or when no link leads to it.
    fn quick(&mut self, parts: &[&[u8]]) -> Option<Arc<OwnedFd>> {
        let path = parts.join(&b'/');
        if let Some((cached, dir)) = &self.cached
            && *cached == path
        {
            return Some(Arc::clone(dir));
        }
        let dir = Arc::new(open_plain(&self.root, &path).ok()?);
        self.cached = Some((path, Arc::clone(&dir)));
        Some(dir)
    }

    /// Goes down component by component. Makes what is missing when it is for an entry, but for where a link of an archive's
    /// directory leads to nothing: Docker's unpacking, which has no whiteouts, fails there (`pkg/archive`, `createTarFile`).
    fn walk(&mut self, parts: &[&[u8]], entry: Option<&[u8]>) -> Result<OwnedFd, ApplyError> {
        let shown = entry.map_or_else(|| parts.join(&b'/'), <[u8]>::to_vec);
        let mut pending: Vec<Vec<u8>> = parts.iter().rev().map(|part| part.to_vec()).collect();
        let mut walked: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        // How much of the path stands behind the outermost link that is followed.
        let mut behind_link = None;
        let mut dir = self.reopen(&walked).map_err(|e| failed("open", &shown, e))?;
        while let Some(part) = pending.pop() {
            behind_link = behind_link.filter(|behind| pending.len() >= *behind);
            if part == b".." {
                walked.pop();
                dir = self.reopen(&walked).map_err(|e| failed("open", &shown, e))?;
                continue;
            }
            let opened = rustix::fs::openat(&dir, part.as_slice(), DIRECTORY, Mode::empty());
            let next = match (opened, entry) {
                (Ok(next), _) => next,
                (Err(Errno::NOENT), Some(entry)) => {
                    match behind_link {
                        _ if self.policy.whiteouts.is_some() => {}
                        Some(0) => return Err(failed("open parent", &shown, Errno::NOENT)),
                        // It is there when the rest of the path is to be made below it.
                        Some(_) => return Err(failed("make parent", &shown, Errno::EXIST)),
                        None => {}
                    }
                    walked.push(part);
                    dir = self.make_implied(&dir, &walked, entry)?;
                    continue;
                }
                (Err(Errno::LOOP | Errno::NOTDIR), _) => {
                    let stat = rustix::fs::statat(&dir, part.as_slice(), AtFlags::SYMLINK_NOFOLLOW)
                        .map_err(|e| failed("stat", &shown, e))?;
                    match (
                        FileType::from_raw_mode(stat.st_mode),
                        self.policy.whiteouts,
                        entry,
                    ) {
                        (FileType::Symlink, ..) => {
                            links += 1;
                            if links > LINKS_MAX {
                                return Err(failed("follow links", &shown, Errno::LOOP));
                            }
                            let target = rbuild_sys::owner::read_link(&dir, part.as_slice())
                                .map_err(|e| failed("read link", &shown, e))?;
                            let target = target.as_bytes();
                            behind_link = behind_link.or(Some(pending.len()));
                            pending.extend(link_parts(target).rev().map(<[u8]>::to_vec));
                            if target.starts_with(b"/") {
                                walked.clear();
                                dir = self.reopen(&walked).map_err(|e| failed("open", &shown, e))?;
                            }
                            continue;
                        }
                        // `.wh.a` and then `a/b`: the new `a` hides the lower one.
                        (_, Some(form), Some(entry)) if is_whiteout(&stat) => {
                            rustix::fs::unlinkat(&dir, part.as_slice(), AtFlags::empty())
                                .map_err(|e| failed("remove whiteout", &shown, e))?;
                            walked.push(part);
                            dir = self.make_implied(&dir, &walked, entry)?;
                            set_opaque(dir.as_fd(), form, entry)?;
                            continue;
                        }
                        _ => return Err(failed("open parent", &shown, Errno::NOTDIR)),
                    }
                }
                (Err(e), _) => return Err(failed("open parent", &shown, e)),
            };
            walked.push(part);
            dir = next;
        }
        Ok(dir)
    }

    fn make_implied(
        &mut self,
        parent: &OwnedFd,
        walked: &[Vec<u8>],
        entry: &[u8],
    ) -> Result<OwnedFd, ApplyError> {
        let Some(name) = walked.last() else {
            return Err(failed("make parent", entry, Errno::INVAL));
        };
        if self.outcome.implied.len() >= self.policy.max_implied {
            return Err(ApplyError::TooManyImplied {
                path: printable(entry),
                max: self.policy.max_implied,
            });
        }
        let path = walked.join(&b'/');
        self.keep(&path, entry)?;
        let fail = |e| failed("make parent", entry, e);
        let mode = Mode::from_raw_mode(0o755);
        rustix::fs::mkdirat(parent, name.as_slice(), mode).map_err(fail)?;
        let dir = rustix::fs::openat(parent, name.as_slice(), DIRECTORY, Mode::empty()).map_err(fail)?;
        // A parent with the set-group-id bit would have given its group, and the umask may have taken bits.
        rbuild_sys::owner::chown(&dir, Some(rustix::fs::Uid::ROOT), Some(rustix::fs::Gid::ROOT))
            .map_err(fail)?;
        rbuild_sys::owner::chmod(&dir, mode).map_err(fail)?;
        if self.policy.whiteouts.is_some() {
            // No clock: one archive always gives one directory.
            self.times.entry(path.clone()).or_insert(Time::EPOCH);
        }
        self.outcome
            .implied
            .push(PathBuf::from(std::ffi::OsString::from_vec(path)));
        Ok(dir)
    }

    fn reopen(&self, walked: &[Vec<u8>]) -> Result<OwnedFd, Errno> {
        open_plain(&self.root, &walked.join(&b'/'))
    }
}

fn link_parts(target: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    target
        .split(|byte| *byte == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
}

/// Opens a directory below `root` that no link leads to, in one call (Linux 5.6).
fn open_plain(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(root, path, DIRECTORY, Mode::empty(), resolve) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
