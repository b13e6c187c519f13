//! Names that overlayfs keeps its own state under. Owns the two forms; mounts nothing.

/// Which extended attributes overlayfs keeps its state in (kernel documentation, filesystems/overlayfs.rst).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Real root: `trusted.overlay.*`.
    Trusted,
    /// In a user namespace, with the mount option `userxattr` (Linux 5.11): `user.overlay.*`.
    User,
}

impl Form {
    /// The start of every attribute name of this form.
    #[must_use]
    pub const fn xattr_prefix(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.",
            Self::User => "user.overlay.",
        }
    }
}
