//! The shell for a failed step: one of the image's, else a static busybox of this machine, shown to the step read-only.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use rbuild_graph::ExecMeta;
use rbuild_sandbox::{MountKind, MountPlan, Source};
use rbuild_sys::RootFd;
use rustix::fs::FileType;

/// Shells that images have, the better ones first.
const OF_IMAGES: [&str; 5] = ["/bin/bash", "/usr/bin/bash", "/bin/sh", "/bin/ash", "/busybox/sh"];
/// Where a lent one is shown: it is what it is called.
const LENT: &str = "/.rbuild/busybox";
/// The program that is lent.
const BUSYBOX: &str = "busybox";
/// First bytes of a program that are read to find out whether it needs a loader.
const HEADER_MAX: u64 = 4096;

/// What to start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shell {
    pub(crate) args: Vec<String>,
    /// It is this machine's.
    pub(crate) is_lent: bool,
}

impl Shell {
    /// One of the root's own: the one that ran the command, if it was one.
    pub(crate) fn of_image(root: &RootFd, meta: &ExecMeta) -> Option<Self> {
        let ran = meta.args.first().map(String::as_str);
        let ran = ran.filter(|program| program.starts_with('/') && program.ends_with("sh"));
        let is_program = |path: &&str| {
            let found = root.stat(Path::new(path));
            found.is_ok_and(|stat| {
                FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_mode & 0o111 != 0
            })
        };
        let path = ran.into_iter().chain(OF_IMAGES).find(is_program)?;
        Some(Self {
            args: vec![path.to_owned()],
            is_lent: false,
        })
    }

    /// One of this machine's, with the mount that shows it.
    pub(crate) fn lent(path: &std::ffi::OsStr) -> Option<(Self, MountPlan)> {
        let program = static_busybox(path)?;
        let shell = Self {
            args: vec![LENT.to_owned(), "sh".to_owned()],
            is_lent: true,
        };
        let mount = MountPlan {
            dest: LENT.into(),
            kind: MountKind::Bind {
                source: Source::Path(program),
                selector: PathBuf::new(),
                readonly: true,
            },
        };
        Some((shell, mount))
    }
}

fn static_busybox(path: &std::ffi::OsStr) -> Option<PathBuf> {
    let usual = [PathBuf::from("/bin"), PathBuf::from("/usr/bin")];
    let places = std::env::split_paths(path).chain(usual);
    let found = places
        .map(|dir| dir.join(BUSYBOX))
        .find(|program| is_static(program))?;
    // A link would be followed inside the step.
    std::fs::canonicalize(found).ok()
}

fn is_static(program: &Path) -> bool {
    let mut header = Vec::new();
    let read = std::fs::File::open(program).and_then(|file| file.take(HEADER_MAX).read_to_end(&mut header));
    read.is_ok() && needs_no_loader(&header) == Some(true)
}

/// Whether a 64-bit program has no interpreter among its headers (elf(5)); `None` for what is none.
fn needs_no_loader(header: &[u8]) -> Option<bool> {
    const INTERPRETER: u32 = 3;
    let number = |at: usize| {
        Some(usize::from(u16::from_le_bytes(
            header.get(at..at + 2)?.try_into().ok()?,
        )))
    };
    if header.get(..5)? != b"\x7fELF\x02" {
        return None;
    }
    let table = usize::try_from(u64::from_le_bytes(header.get(32..40)?.try_into().ok()?)).ok()?;
    let (size, count) = (number(54)?, number(56)?);
    for index in 0..count {
        let at = table.checked_add(index.checked_mul(size)?)?;
        let kind = u32::from_le_bytes(header.get(at..at.checked_add(4)?)?.try_into().ok()?);
        if kind == INTERPRETER {
            return Some(false);
        }
    }
    Some(count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_shell_of_the_image_is_preferred_and_must_be_a_program() {
        let dir = tempfile::tempdir().unwrap();
        let root = RootFd::open(dir.path()).unwrap();
        let meta = |program: &str| ExecMeta {
            args: vec![program.to_owned(), "-c".to_owned(), "x".to_owned()],
            ..ExecMeta::default()
        };
        let found = |program: &str| Shell::of_image(&root, &meta(program)).map(|shell| shell.args[0].clone());
        assert_eq!(found("/bin/sh"), None);
        std::fs::create_dir_all(dir.path().join("bin")).unwrap();
        std::fs::create_dir_all(dir.path().join("opt")).unwrap();
        let program = |path: &str, mode: u32| {
            std::fs::write(dir.path().join(path), "").unwrap();
            std::fs::set_permissions(dir.path().join(path), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        program("bin/sh", 0o644);
        assert_eq!(found("/bin/sh"), None);
        program("bin/sh", 0o755);
        program("opt/fish", 0o755);
        assert_eq!(found("/opt/fish").as_deref(), Some("/opt/fish"));
        assert_eq!(found("/app").as_deref(), Some("/bin/sh"));
        program("bin/bash", 0o755);
        assert_eq!(
            found("/bin/sh").as_deref(),
            Some("/bin/sh"),
            "what ran the command"
        );
        assert_eq!(found("/app").as_deref(), Some("/bin/bash"));
    }

    #[test]
    fn only_programs_without_a_loader_can_be_lent() {
        let program = |kinds: &[u32]| {
            let mut bytes = vec![0; 64];
            bytes[..5].copy_from_slice(b"\x7fELF\x02");
            bytes[32] = 64;
            bytes[54] = 56;
            bytes[56] = u8::try_from(kinds.len()).unwrap();
            for kind in kinds {
                bytes.extend(kind.to_le_bytes());
                bytes.extend([0; 52]);
            }
            bytes
        };
        assert_eq!(needs_no_loader(&program(&[6, 1, 1])), Some(true));
        assert_eq!(needs_no_loader(&program(&[6, 3, 1])), Some(false));
        assert_eq!(needs_no_loader(&program(&[])), Some(false));
        assert_eq!(needs_no_loader(&program(&[6, 1])[..100]), None);
        assert_eq!(needs_no_loader(b"#!/bin/sh\n"), None);
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert!(needs_no_loader(&own[..4096]).is_some());
    }
}
