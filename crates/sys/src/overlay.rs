//! Detached overlay mounts through the new mount API: layer directories in, one descriptor out.
//!
//! Nothing is attached to a path here, so a killed process leaves no mount behind. Layer paths never reach an
//! option string: each directory is opened first and handed over as `/proc/self/fd/N`, because a `fsconfig(2)`
//! string holds at most 255 bytes and a joined option would have to escape `:`, `,` and `\`.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, OpenTreeFlags, UnmountFlags,
};

use crate::mount_attr::MountAttr;

/// How overlay metadata (whiteouts, opaque marks) is kept in layer directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// `trusted.overlay.*`: real root only.
    Trusted,
    /// `user.overlay.*`: the `userxattr` mount option (Linux 5.11), usable in a user namespace.
    User,
}

impl Form {
    /// The start of the names of overlay's own extended attributes.
    #[must_use]
    pub const fn xattr_prefix(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.",
            Self::User => "user.overlay.",
        }
    }
}

/// What to stack.
#[derive(Clone, Debug)]
pub struct OverlaySpec {
    /// Which attributes carry the metadata; must be the same for all layers.
    pub form: Form,
    /// Read-only layer directories, top first.
    pub lowers: Vec<PathBuf>,
    /// The directory that takes the writes, and an empty directory on the same file system for the kernel's use.
    /// `None` makes a read-only mount.
    pub upper_work: Option<(PathBuf, PathBuf)>,
    /// Skip every sync to the upper file system (Linux 5.10). After a crash of the machine the upper is not to be
    /// trusted, and the kernel then refuses the same work directory.
    pub volatile: bool,
}

/// Why an overlay could not be mounted.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// A layer, upper or work directory could not be opened.
    #[error("open overlay directory {path:?}")]
    Open {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// There is no lower directory. (An image without layers still has one empty directory.)
    #[error("an overlay needs at least one lower directory")]
    NoLower,
    /// More layers than the kernel stacks (`OVL_MAX_STACK`), or than the joined option of an old kernel holds.
    #[error("{found} layers cannot be stacked: this kernel takes {max}")]
    TooManyLayers {
        /// Layers asked for.
        found: usize,
        /// Layers possible.
        max: usize,
    },
    /// The kernel refused one step of the mount.
    #[error("mount overlay: {step}{}", log_suffix(.log))]
    Mount {
        /// The step that failed, an option name or a syscall.
        step: &'static str,
        /// What the kernel wrote into the file system context's log, one message per line.
        log: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// `OVL_MAX_STACK` of fs/overlayfs.
pub const LOWERS_MAX: usize = 500;
/// `fsconfig(2)` copies at most this many bytes of a string value, its NUL included.
const FSCONFIG_STRING_MAX: usize = 256;
/// Bytes of options `mount(2)` takes: one page, the smallest there is.
const MOUNT_DATA_MAX: usize = 4096;
/// Messages of a context log that are kept (the kernel's ring holds 8).
const LOG_MESSAGES_MAX: usize = 16;

/// How layers are told to the kernel, newest way first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// `lowerdir+`, one layer at a time (Linux 6.7).
    Append,
    /// One joined `lowerdir` through `fsconfig`.
    Joined,
    /// One joined `lowerdir` through `mount(2)` in a mount namespace of a short-lived thread, then cloned off.
    Page,
}

impl OverlaySpec {
    /// Mounts the stack, attached nowhere.
    ///
    /// One lower without an upper needs no overlay and becomes a read-only clone of that directory; overlay marks
    /// in it (whiteouts of nothing) then stay visible. Give an empty directory as second lower to hide them.
    ///
    /// # Errors
    /// A directory that cannot be opened, too many layers, or the kernel's refusal with its log.
    pub fn mount(&self) -> Result<OwnedFd, OverlayError> {
        match (self.lowers.as_slice(), &self.upper_work) {
            ([], _) => Err(OverlayError::NoLower),
            ([only], None) => clone_read_only(only),
            (lowers, _) if lowers.len() > LOWERS_MAX => Err(OverlayError::TooManyLayers {
                found: lowers.len(),
                max: LOWERS_MAX,
            }),
            _ => match self.mount_by(Way::Append) {
                // Before Linux 6.5 nothing is looked at before the end.
                Err(OverlayError::Mount {
                    step: "lowerdir+" | "create",
                    source,
                    ..
                }) if source.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => self.mount_joined(),
                done => done,
            },
        }
    }

    fn mount_joined(&self) -> Result<OwnedFd, OverlayError> {
        match self.mount_by(Way::Joined) {
            Err(OverlayError::TooManyLayers { .. }) => self.mount_by(Way::Page),
            done => done,
        }
    }

    fn mount_by(&self, way: Way) -> Result<OwnedFd, OverlayError> {
        if way == Way::Page {
            let spec = self.clone();
            let thread = std::thread::Builder::new().name("overlay".to_owned());
            let handle = thread
                .spawn(move || spec.mount_in_private_namespace())
                .map_err(|source| OverlayError::Mount {
                    step: "start a thread",
                    log: String::new(),
                    source,
                })?;
            return handle
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        let context =
            rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| plain("fsopen", e))?;
        let set = |key: &'static str, value: &str| {
            rustix::mount::fsconfig_set_string(&context, key, value)
                .map_err(|e| logged(key, e, context.as_fd()))
        };
        // Open to the end: before Linux 6.5 the names are only looked up then.
        let mut held = Vec::new();
        if way == Way::Append {
            for lower in &self.lowers {
                let lower = open_dir(lower)?;
                set("lowerdir+", &magic(&lower))?;
                held.push(lower);
            }
        } else {
            for lower in &self.lowers {
                held.push(open_dir(lower)?);
            }
            set("lowerdir", &join(&held, FSCONFIG_STRING_MAX - 1)?)?;
        }
        if let Some((upper, work)) = &self.upper_work {
            for (key, dir) in [("upperdir", upper), ("workdir", work)] {
                let dir = open_dir(dir)?;
                set(key, &magic(&dir))?;
                held.push(dir);
            }
        }
        for (key, value) in FIXED_OPTIONS {
            set(key, value)?;
        }
        for flag in self.flags() {
            rustix::mount::fsconfig_set_flag(&context, flag).map_err(|e| logged(flag, e, context.as_fd()))?;
        }
        rustix::mount::fsconfig_create(&context).map_err(|e| logged("create", e, context.as_fd()))?;
        drop(held);
        let attributes = match self.upper_work {
            Some(_) => MountAttrFlags::empty(),
            None => MountAttrFlags::MOUNT_ATTR_RDONLY,
        };
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(|e| logged("fsmount", e, context.as_fd()))
    }

    fn flags(&self) -> impl Iterator<Item = &'static str> {
        let userxattr = (self.form == Form::User).then_some("userxattr");
        let volatile = (self.volatile && self.upper_work.is_some()).then_some("volatile");
        userxattr.into_iter().chain(volatile)
    }

    /// Runs on its own thread: the thread's mount namespace is gone when it ends, the clone stays.
    fn mount_in_private_namespace(&self) -> Result<OwnedFd, OverlayError> {
        crate::namespace::unshare_mounts_of_this_thread().map_err(|e| plain("unshare", e))?;
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .map_err(|e| plain("make private", e))?;
        // Opened here and not before: the kernel stacks only directories of the caller's own mount namespace.
        let fds = self
            .lowers
            .iter()
            .map(|l| open_dir(l))
            .collect::<Result<Vec<_>, _>>()?;
        let mut data = String::new();
        for (key, value) in FIXED_OPTIONS {
            data = data + key + "=" + value + ",";
        }
        for flag in self.flags() {
            data = data + flag + ",";
        }
        let upper = match &self.upper_work {
            Some((upper, work)) => Some((open_dir(upper)?, open_dir(work)?)),
            None => None,
        };
        if let Some((upper, work)) = &upper {
            data = data + "upperdir=" + &magic(upper) + ",workdir=" + &magic(work) + ",";
        }
        data.push_str("lowerdir=");
        data.push_str(&join(&fds, MOUNT_DATA_MAX - 1 - data.len())?);
        let data = std::ffi::CString::new(data).map_err(|_| plain("mount", Errno::INVAL))?;
        let flags = if upper.is_some() {
            MountFlags::empty()
        } else {
            MountFlags::RDONLY
        };
        let target = &self.lowers[0];
        rustix::mount::mount("overlay", target, "overlay", flags, &*data).map_err(|e| plain("mount", e))?;
        let cloned = clone_tree(CWD, target).map_err(|e| plain("open_tree", e))?;
        rustix::mount::unmount(target, UnmountFlags::DETACH).map_err(|e| plain("umount", e))?;
        Ok(cloned)
    }
}

/// No redirect and no metadata-only copy is ever followed or written: a layer then means what its tar said, and
/// forged marks in an image lead nowhere. `off` would follow on kernels built with `REDIRECT_ALWAYS_FOLLOW`.
const FIXED_OPTIONS: [(&str, &str); 4] = [
    ("redirect_dir", "nofollow"),
    ("metacopy", "off"),
    ("index", "off"),
    ("xino", "off"),
];

/// A detached read-only clone of one directory tree, without the mounts below it.
///
/// # Errors
/// The directory cannot be opened, or the kernel refuses the clone.
pub(crate) fn clone_read_only(path: &Path) -> Result<OwnedFd, OverlayError> {
    let dir = open_dir(path)?;
    let tree = clone_tree(dir.as_fd(), Path::new("")).map_err(|e| plain("open_tree", e))?;
    MountAttr::READ_ONLY
        .apply(tree.as_fd(), false)
        .map_err(|source| OverlayError::Mount {
            step: "mount_setattr",
            log: String::new(),
            source,
        })?;
    Ok(tree)
}

fn clone_tree(dir: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(dir, path, flags)
}

fn open_dir(path: &Path) -> Result<OwnedFd, OverlayError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|e| OverlayError::Open {
        path: path.to_owned(),
        source: e.into(),
    })
}

fn magic(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn join(fds: &[OwnedFd], bytes_max: usize) -> Result<String, OverlayError> {
    let joined = fds.iter().map(magic).collect::<Vec<_>>().join(":");
    if joined.len() > bytes_max {
        let max = bytes_max / (joined.len() / fds.len() + 1);
        return Err(OverlayError::TooManyLayers {
            found: fds.len(),
            max,
        });
    }
    Ok(joined)
}

fn plain(step: &'static str, errno: Errno) -> OverlayError {
    OverlayError::Mount {
        step,
        log: String::new(),
        source: errno.into(),
    }
}

fn logged(step: &'static str, errno: Errno, context: BorrowedFd<'_>) -> OverlayError {
    OverlayError::Mount {
        step,
        log: context_log(context),
        source: errno.into(),
    }
}

/// The kernel's messages in a file system context: `e `, `w ` or `i ` and the text, one per read.
#[must_use]
pub fn context_log(context: BorrowedFd<'_>) -> String {
    let mut messages = Vec::new();
    let mut buffer = [0_u8; 1024];
    while messages.len() < LOG_MESSAGES_MAX {
        match rustix::io::read(context, &mut buffer) {
            Ok(len) if len > 0 => {
                let text = String::from_utf8_lossy(&buffer[..len]);
                let text = text.trim_end();
                messages.push(text.get(2..).unwrap_or(text).to_owned());
            }
            _ => break,
        }
    }
    messages.join("\n")
}

fn log_suffix(log: &str) -> String {
    if log.is_empty() {
        String::new()
    } else {
        format!(" ({})", log.replace('\n', "; "))
    }
}

#[cfg(test)]
mod tests;
