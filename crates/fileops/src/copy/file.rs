//! Copying one entry that is no directory: content, owner, mode, attributes and times, in the order in which the
//! kernel keeps them all (capabilities after the owner). Everything is done on descriptors, so a name that is
//! exchanged meanwhile changes nothing elsewhere.

use std::ffi::{CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use crate::copy::CopyError;
use crate::copy::engine::Engine;
use crate::copy::tree::parent_of;
use crate::dest::{open_path, set_owner, set_times};
use crate::remove::remove_tree;
use crate::walk::WalkError;
use crate::xattr;
use rbuild_sys::data::DataError;

/// Times a name that keeps coming back is removed before a new file.
const CLEAR_TRIES: usize = 8;

/// One entry on its way. `dir` is the relative path of the directory it is in, for messages.
struct Job<'a> {
    from: &'a OwnedFd,
    name: &'a CString,
    stat: &'a Stat,
    to: &'a OwnedFd,
    to_name: &'a CString,
    dir: &'a Path,
}

impl Job<'_> {
    fn relative(&self) -> Vec<u8> {
        self.dir
            .join(OsStr::from_bytes(self.name.as_bytes()))
            .into_os_string()
            .into_encoded_bytes()
    }
}

/// Opens a regular file and says what it is; `None` if the name is another kind of thing by now.
pub(crate) fn open_regular(dir: &OwnedFd, name: &CString) -> Result<Option<(OwnedFd, Stat)>, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::LOOP | Errno::NXIO) => return Ok(None),
        Err(e) => return Err(e),
    };
    let stat = rbuild_sys::owner::fstat(&file)?;
    let is_regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    Ok(is_regular.then_some((file, stat)))
}

impl Engine<'_> {
    /// Copies `name` of `from` to `to_name` in `to`.
    pub(super) fn copy_leaf(
        &self,
        from: &OwnedFd,
        name: &CString,
        stat: &Stat,
        to: &OwnedFd,
        to_name: &CString,
        dir: &Path,
    ) -> Result<(), CopyError> {
        let job = Job {
            from,
            name,
            stat,
            to,
            to_name,
            dir,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.copy_regular(&job),
            FileType::Symlink => self.copy_link(&job),
            // A socket means nothing without its process: an empty file stands for it (`fsutil` `copyDevice`).
            FileType::Socket => {
                let target = self.create(&job)?;
                let mut stat = *job.stat;
                stat.st_mode &= !0o170_000;
                stat.st_mode |= 0o100_000;
                let path = open_path(job.from, OsStr::from_bytes(job.name.as_bytes()));
                let xattrs = path.map(|fd| xattr::read_path_fd(&fd, self.source.origin()));
                self.finish(&job, &target, &stat, &xattrs.unwrap_or_default())
            }
            kind => self.copy_special(&job, kind),
        }?;
        self.files.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn copy_regular(&self, job: &Job<'_>) -> Result<(), CopyError> {
        let read = |verb| move |e| self.read_error(verb, &job.relative(), e);
        let opened = open_regular(job.from, job.name).map_err(read("open"))?;
        let Some((source, stat)) = opened else {
            return Err(self.changed(job));
        };
        let stat = self.source.seen(stat, false);
        let xattrs = xattr::read(&source, self.source.origin());
        let target = self.create(job)?;
        let copied = self
            .data
            .copy(&source, &stat, &target)
            .map_err(|error| match error {
                DataError::Read(e) => read("read")(e),
                DataError::Write(e) => self.write_error("write", &job.relative(), e),
            })?;
        self.bytes.fetch_add(copied, Ordering::Relaxed);
        self.finish(job, &target, &stat, &xattrs)
    }

    fn finish(
        &self,
        job: &Job<'_>,
        target: &OwnedFd,
        stat: &Stat,
        xattrs: &xattr::Xattrs,
    ) -> Result<(), CopyError> {
        let write = |verb| move |e| self.write_error(verb, &job.relative(), e);
        let now = rbuild_sys::owner::fstat(target).map_err(write("stat"))?;
        set_owner(target, self.owner_of(stat), &now).map_err(write("change owner"))?;
        let mode = self.mode_of(stat);
        if Mode::from_raw_mode(now.st_mode & 0o7777) != mode {
            rbuild_sys::owner::chmod(target, mode).map_err(write("change mode"))?;
        }
        xattr::write(target, xattrs);
        set_times(target, &self.times_of(stat)).map_err(write("set times"))
    }

    fn copy_link(&self, job: &Job<'_>) -> Result<(), CopyError> {
        let read = |e| self.read_error("read link", &job.relative(), e);
        let link = open_path(job.from, OsStr::from_bytes(job.name.as_bytes())).map_err(read)?;
        let text = match xattr::link_text(&link, self.source.origin()) {
            Ok(text) => text,
            Err(Errno::INVAL | Errno::NOENT) => return Err(self.changed(job)),
            Err(e) => return Err(read(e)),
        };
        let write = |verb| move |e| self.write_error(verb, &job.relative(), e);
        self.make(job, || {
            rbuild_sys::owner::make_link(text.as_bytes(), job.to, job.to_name)
        })?;
        let made = open_path(job.to, OsStr::from_bytes(job.to_name.as_bytes())).map_err(write("open"))?;
        self.dress_path(job, &made, FileType::Symlink)?;
        xattr::write_path_fd(&made, &xattr::read_path_fd(&link, self.source.origin()));
        let times = self.times_of(job.stat);
        rustix::fs::utimensat(job.to, job.to_name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(write("set times"))
    }

    fn copy_special(&self, job: &Job<'_>, kind: FileType) -> Result<(), CopyError> {
        let write = |verb| move |e| self.write_error(verb, &job.relative(), e);
        let mode = Mode::from_raw_mode(0o600);
        self.make(job, || {
            rustix::fs::mknodat(job.to, job.to_name, kind, mode, job.stat.st_rdev)
        })?;
        let made = open_path(job.to, OsStr::from_bytes(job.to_name.as_bytes())).map_err(write("open"))?;
        self.dress_path(job, &made, kind)?;
        // Neither fchmod nor fchmodat works without opening the device; the magic link names exactly this inode.
        let path = xattr::proc_path(&made);
        rustix::fs::chmodat(rustix::fs::CWD, &path, self.mode_of(job.stat), AtFlags::empty())
            .map_err(write("change mode"))?;
        if let Ok(from) = open_path(job.from, OsStr::from_bytes(job.name.as_bytes())) {
            xattr::write_path_fd(&made, &xattr::read_path_fd(&from, self.source.origin()));
        }
        let times = self.times_of(job.stat);
        rustix::fs::utimensat(job.to, job.to_name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(write("set times"))
    }

    /// Sets the owner of something held by an `O_PATH` descriptor, if it still is what was made.
    fn dress_path(&self, job: &Job<'_>, made: &OwnedFd, kind: FileType) -> Result<(), CopyError> {
        let write = |verb| move |e| self.write_error(verb, &job.relative(), e);
        let now = rbuild_sys::owner::fstat(made).map_err(write("stat"))?;
        if FileType::from_raw_mode(now.st_mode) != kind {
            let name = OsStr::from_bytes(job.to_name.as_bytes());
            return Err(CopyError::DestMoved(self.target_path(job.dir).join(name)));
        }
        let owner = self.owner_of(job.stat);
        if (now.st_uid, now.st_gid) == (owner.uid, owner.gid) {
            return Ok(());
        }
        let (uid, gid) = (Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)));
        let given = match kind {
            FileType::Symlink => rbuild_sys::owner::chown_at(job.to, job.to_name, uid, gid).map(drop),
            _ => rbuild_sys::owner::chown(made, uid, gid),
        };
        given.map_err(write("change owner"))
    }

    /// Makes a new empty file, readable by nobody else until it is finished.
    fn create(&self, job: &Job<'_>) -> Result<OwnedFd, CopyError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.make(job, || {
            rustix::fs::openat(job.to, job.to_name, flags, Mode::from_raw_mode(0o600))
        })
    }

    /// Calls `make` for a name that must be new; what has the name is removed first.
    fn make<T>(&self, job: &Job<'_>, mut make: impl FnMut() -> Result<T, Errno>) -> Result<T, CopyError> {
        let mut tries = 0;
        loop {
            match make() {
                Ok(made) => return Ok(made),
                Err(Errno::EXIST) if tries < CLEAR_TRIES => {
                    tries += 1;
                    self.clear(job.to, job.to_name, &job.relative())?;
                }
                Err(e) => return Err(self.write_error("create", &job.relative(), e)),
            }
        }
    }

    /// Removes what has the name, unless it is a directory that must stay.
    pub(super) fn clear(&self, to: &OwnedFd, name: &CString, relative: &[u8]) -> Result<(), CopyError> {
        match rbuild_sys::owner::statat(to, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            Err(e) => return Err(self.write_error("stat", relative, e)),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                if !self.replace {
                    let name = OsStr::from_bytes(name.as_bytes());
                    return Err(CopyError::FileOverDir(
                        self.target_path(parent_of(relative)).join(name),
                    ));
                }
                return remove_tree(to, OsStr::from_bytes(name.as_bytes()))
                    .map_err(|e| self.write_error("remove", relative, e));
            }
            Ok(_) => {}
        }
        match rustix::fs::unlinkat(to, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(self.write_error("remove", relative, e)),
        }
    }

    fn changed(&self, job: &Job<'_>) -> CopyError {
        WalkError::Changed(self.path(&job.relative())).into()
    }
}
