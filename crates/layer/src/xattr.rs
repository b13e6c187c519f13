//! Extended attributes of held descriptors, of any length the kernel allows.

use std::os::fd::AsFd;

use rustix::io::Errno;

/// Most values are shorter; longer ones take one call more.
const USUAL_BYTES: usize = 256;

/// The value of an attribute; nothing when it is not set, or the file system has none.
pub(crate) fn get_xattr(fd: impl AsFd, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let mut buffer = vec![0; USUAL_BYTES];
    loop {
        match rustix::fs::fgetxattr(&fd, name, buffer.as_mut_slice()) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(Some(buffer));
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(Errno::RANGE) => buffer.resize(rustix::fs::fgetxattr_query(&fd, name)?.max(1), 0),
            Err(e) => return Err(e),
        }
    }
}

/// Whether a short attribute has just this value. One call, no allocation: it is asked of every directory.
pub(crate) fn xattr_is(fd: impl AsFd, name: &str, value: &[u8]) -> Result<bool, Errno> {
    let mut buffer = [0_u8; 16];
    match rustix::fs::fgetxattr(&fd, name, buffer.as_mut_slice()) {
        Ok(length) => Ok(&buffer[..length] == value),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(e) => Err(e),
    }
}

/// The names of all attributes that can be seen, sorted.
pub(crate) fn list_xattrs(fd: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut buffer = vec![0; USUAL_BYTES];
    let length = loop {
        match rustix::fs::flistxattr(&fd, buffer.as_mut_slice()) {
            Ok(length) => break length,
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(Errno::RANGE) => buffer.resize(rustix::fs::flistxattr_query(&fd)?.max(1), 0),
            Err(e) => return Err(e),
        }
    };
    let mut names = names_of(&buffer[..length]);
    names.sort();
    Ok(names)
}

/// The names in a list as the kernel gives it.
pub(crate) fn names_of(list: &[u8]) -> Vec<Vec<u8>> {
    let names = list.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(<[u8]>::to_vec).collect()
}
