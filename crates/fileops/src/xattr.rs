//! Extended attributes that take part in copies and hashes: `security.capability`, and everything outside
//! `security.` and `system.` (`cache/contenthash/tarsum.go`). What is not in the hash is not copied either, so that
//! an equal hash means an equal result. The overlay's own attributes are never read or written here.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// Name of the file capabilities attribute.
pub(crate) const CAPABILITY: &[u8] = b"security.capability";
/// Most bytes of one value; the kernel's `XATTR_SIZE_MAX`.
const VALUE_MAX_BYTES: usize = 64 << 10;
/// Most bytes of the list of names; the kernel's `XATTR_LIST_MAX`.
const LIST_MAX_BYTES: usize = 64 << 10;

/// Attributes by name, sorted.
pub(crate) type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Where the attributes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A snapshot: capabilities count.
    Snapshot,
    /// The user's own directory: BuildKit's sync sets attributes before it sets the owner and writes the data, so
    /// the kernel drops capabilities on the way (`fsutil` `rewriteMetadata`); Finder's attributes are not sent.
    Context,
}

/// The text of a held link. What a user's own directory has is never a record.
pub(crate) fn link_text(link: impl AsFd, origin: Origin) -> Result<CString, Errno> {
    match origin {
        Origin::Snapshot => rbuild_sys::owner::read_link(link, c""),
        Origin::Context => rustix::fs::readlinkat(link, c"", Vec::new()),
    }
}

fn counts(name: &[u8], origin: Origin) -> bool {
    if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
        return false;
    }
    // Owner and mode are part of a file's status, whichever way they are kept.
    let kept = [rbuild_sys::owner::OWNER_XATTR, rbuild_sys::owner::MODE_XATTR];
    if kept.iter().any(|kept| name == kept.as_bytes()) {
        return false;
    }
    // A device that a snapshot holds is copied as one; a context has no devices to give.
    if name == CAPABILITY || name == rbuild_sys::owner::DEVICE_XATTR.as_bytes() {
        return origin == Origin::Snapshot;
    }
    let finders = name.starts_with(b"com.apple.") || name.starts_with(b"user.com.apple.");
    if origin == Origin::Context && finders {
        return false;
    }
    !name.starts_with(b"security.") && !name.starts_with(b"system.")
}

/// Reads the attributes of an open file or directory. A file system without attributes has none; one that cannot be
/// read is left out, as BuildKit does.
pub(crate) fn read(fd: &OwnedFd, origin: Origin) -> Xattrs {
    let mut probe = [0_u8; 256];
    let names = match rustix::fs::flistxattr(fd, &mut probe[..]) {
        Ok(0) => return Xattrs::new(),
        Ok(len) => probe[..len].to_vec(),
        Err(Errno::RANGE) => {
            let mut names = vec![0; LIST_MAX_BYTES];
            match rustix::fs::flistxattr(fd, &mut names[..]) {
                Ok(len) => names.truncate(len),
                Err(_) => return Xattrs::new(),
            }
            names
        }
        Err(_) => return Xattrs::new(),
    };
    let mut found = Xattrs::new();
    let mut value = Vec::new();
    for name in names
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty() && counts(name, origin))
    {
        value.resize(VALUE_MAX_BYTES, 0);
        if let Ok(len) = rustix::fs::fgetxattr(fd, name, &mut value[..]) {
            found.insert(name.to_vec(), value[..len].to_vec());
        }
    }
    found
}

/// Reads the attributes of something that is only held by an `O_PATH` descriptor (a link or a special file).
pub(crate) fn read_path_fd(fd: &OwnedFd, origin: Origin) -> Xattrs {
    let path = proc_path(fd);
    let mut names = vec![0; LIST_MAX_BYTES];
    let Ok(len) = rustix::fs::listxattr(&path, &mut names[..]) else {
        return Xattrs::new();
    };
    let mut found = Xattrs::new();
    for name in names[..len]
        .split(|b| *b == 0)
        // Capabilities mean nothing on what cannot be executed; owners may be recorded there.
        .filter(|name| !name.is_empty() && *name != CAPABILITY && counts(name, origin))
    {
        let mut value = vec![0; VALUE_MAX_BYTES];
        if let Ok(len) = rustix::fs::getxattr(&path, name, &mut value[..]) {
            value.truncate(len);
            found.insert(name.to_vec(), value);
        }
    }
    found
}

/// Sets attributes on an open file or directory, capabilities last. What the target does not take is left out
/// (best effort, as in BuildKit). Returns how many were set.
pub(crate) fn write(fd: &OwnedFd, xattrs: &Xattrs) -> usize {
    let (last, first): (Vec<_>, Vec<_>) = xattrs.iter().partition(|(name, _)| name.as_slice() == CAPABILITY);
    let set = |(name, value): &(&Vec<u8>, &Vec<u8>)| {
        rustix::fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()).is_ok()
    };
    first.iter().chain(&last).filter(|entry| set(entry)).count()
}

/// As [`write`], for an `O_PATH` descriptor.
pub(crate) fn write_path_fd(fd: &OwnedFd, xattrs: &Xattrs) -> usize {
    if xattrs.is_empty() {
        return 0;
    }
    let path = proc_path(fd);
    let set = |(name, value): &(&Vec<u8>, &Vec<u8>)| {
        rustix::fs::setxattr(&path, name.as_slice(), value, XattrFlags::empty()).is_ok()
    };
    xattrs.iter().filter(set).count()
}

/// The magic link of a held descriptor: names exactly that inode, so nothing can be exchanged on the way.
pub(crate) fn proc_path(fd: impl AsFd) -> CString {
    let text = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    CString::new(text).unwrap_or_default()
}

/// Attributes as one byte string, framed so that no two sets are equal.
pub(crate) fn encode(xattrs: &Xattrs, out: &mut Vec<u8>) {
    for (name, value) in xattrs {
        for part in [name, value] {
            out.extend_from_slice(&(part.len() as u64).to_le_bytes());
            out.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn item76_only_capabilities_and_foreign_names_count() {
        for (name, snapshot, context) in [
            ("security.capability", true, false),
            ("security.selinux", false, false),
            ("system.posix_acl_access", false, false),
            ("user.note", true, true),
            ("user.rbuild.owner", false, false),
            ("user.rbuild.device", true, false),
            ("trusted.note", true, true),
            ("user.overlay.opaque", false, false),
            ("trusted.overlay.opaque", false, false),
            ("com.apple.quarantine", true, false),
        ] {
            assert_eq!(counts(name.as_bytes(), Origin::Snapshot), snapshot, "{name}");
            assert_eq!(counts(name.as_bytes(), Origin::Context), context, "{name}");
        }
    }

    #[test]
    fn encoding_is_injective() {
        let set = |pairs: &[(&str, &str)]| {
            let map: Xattrs = pairs
                .iter()
                .map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec()))
                .collect();
            let mut out = Vec::new();
            encode(&map, &mut out);
            out
        };
        assert_ne!(set(&[("a", "bc")]), set(&[("ab", "c")]));
        assert_ne!(set(&[("a", ""), ("b", "")]), set(&[("a", "b")]));
    }
}
