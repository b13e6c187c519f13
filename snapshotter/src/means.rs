//! The ways to show a stack of layers as one file system, and which of them work here.

use std::fmt;
use std::path::{Path, PathBuf};

use rbuild_sys::overlay::{Form, OverlaySpec};

use crate::fuse;
use crate::stack::StackError;

/// A way to show a stack of layers. All keep layers in the same form, so a store can be used with each of them in turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Means {
    /// The kernel's overlay file system.
    #[default]
    Overlayfs,
    /// The program `fuse-overlayfs`.
    FuseOverlayfs,
    /// Copies, which share blocks with the layers where the file system can do that.
    Native,
}

impl Means {
    /// All, the one that is tried first first. Copies work everywhere, so what is behind them is for those who ask for it: of
    /// files that have several names below, fuse-overlayfs 1.10 loses changes.
    pub const ALL: [Self; 3] = [Self::Overlayfs, Self::Native, Self::FuseOverlayfs];

    /// Its name in options and output (BuildKit's, `cmd/buildkitd/main_oci_worker.go`).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Overlayfs => "overlayfs",
            Self::FuseOverlayfs => "fuse-overlayfs",
            Self::Native => "native",
        }
    }

    /// What it is, in a few words.
    #[must_use]
    pub const fn summary(self) -> &'static str {
        match self {
            Self::Overlayfs => "the kernel's overlay",
            Self::FuseOverlayfs => "overlay by a program of its own",
            Self::Native => "copies of files",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|means| means.name() == text)
    }

    /// Tries it, for layers of `form`, in a new directory below `place`, of which nothing stays.
    ///
    /// # Errors
    /// Why it does not work there.
    pub fn probe(self, place: &Path, form: Form) -> Result<(), StackError> {
        if self == Self::Native {
            return Ok(());
        }
        let dir = place.join(format!(".rbuild-means-{}", std::process::id()));
        let fail = |source| StackError::Io {
            verb: "make directory",
            path: dir.clone(),
            source,
        };
        let make = |path: &Path| std::fs::create_dir(path).map_err(fail);
        make(&dir)?;
        let tried = (|| {
            let [lower, empty, upper, work, at] =
                ["lower", "empty", "upper", "work", "at"].map(|name| dir.join(name));
            for path in [&lower, &empty, &upper, &work, &at] {
                make(path)?;
            }
            let spec = OverlaySpec {
                form,
                lowers: vec![lower, empty],
                upper_work: Some((upper, work)),
                volatile: true,
            };
            match self {
                Self::Overlayfs => spec.mount().map(drop).map_err(StackError::from),
                Self::FuseOverlayfs => fuse::Mounted::new(&spec, &at).map(drop),
                Self::Native => Ok(()),
            }
        })();
        // What cannot be removed is an empty trial.
        drop(std::fs::remove_dir_all(&dir));
        tried
    }
}

impl fmt::Display for Means {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// A stack of layers, ready for whoever uses it.
#[derive(Debug, Clone)]
pub enum Tree {
    /// To be mounted, once.
    Overlay(OverlaySpec),
    /// There already.
    Directory(PathBuf),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_named_as_buildkit_names_it_and_by_nothing_else() {
        for means in Means::ALL {
            assert_eq!(Means::parse(means.name()), Some(means));
        }
        for text in ["", "auto", "Native", "overlay", "stargz"] {
            assert_eq!(Means::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn copies_work_wherever_files_do() {
        Means::Native.probe(Path::new("/nowhere"), Form::User).unwrap();
        assert!(Means::Overlayfs.probe(Path::new("/nowhere"), Form::User).is_err());
    }
}
