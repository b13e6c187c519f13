//! The files of a commit, as they become a layer. Nothing is followed out of the checkout (security row 38), and nothing
//! of this machine's paths stays in it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rbuild_store::Lease;
use rbuild_sys::{RootFd, TreeEntry, TreeError, walk_tree};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};

use super::identifier::{Identifier, is_commit};
use super::repository::{Repository, arrange, borrowing, failed, format_option, shallow};
use super::{GitSourceError, Resolved};
use crate::git::Git;

/// Writes the files into `upper`, an empty directory.
pub(super) fn write(
    lease: &Lease,
    git: &Git<'_>,
    id: &Identifier,
    resolved: &Resolved,
    repository: &Repository,
    upper: &Path,
) -> Result<(), GitSourceError> {
    if id.keep_git_dir && id.subdirectory.is_empty() {
        with_repository(git, id, resolved, repository, upper)?;
    } else if id.subdirectory.is_empty() {
        files(lease, git, id, resolved, repository, upper)?;
    } else {
        let whole = lease.new_dir("checkout")?;
        files(lease, git, id, resolved, repository, &whole)?;
        lift(id, &whole, upper)?;
    }
    if id.commit_times {
        let format = git.on(repository.dir()).text(&[
            "log",
            "-1",
            "--format=%ct",
            &format!("{}^{{commit}}", resolved.object),
        ]);
        let seconds = format.map_err(failed(id, "failed to get commit time for"))?;
        set_times(upper, seconds.parse().unwrap_or_default())?;
    }
    Ok(())
}

/// The files alone. Index and submodules are in a repository that is gone afterwards: what one commit set up for its
/// submodules is not there for another.
fn files(
    lease: &Lease,
    git: &Git<'_>,
    id: &Identifier,
    resolved: &Resolved,
    repository: &Repository,
    to: &Path,
) -> Result<(), GitSourceError> {
    let wrong = failed(id, "failed to checkout remote");
    let own = borrowing(lease, git, (id, resolved), repository, "git-index", &wrong)?;
    let git = git.on(&own).with_work_tree(to);
    // Submodules are named relative to it.
    git.run(&["config", "--", "remote.origin.url", &id.remote.url()])
        .map_err(&wrong)?;
    git.run(&["checkout", "--no-overlay", &resolved.object, "--", "."])
        .map_err(&wrong)?;
    if submodules(&git, id, to)? {
        remove_links(to)?;
    }
    Ok(())
}

/// The files with a repository of their own that holds the one commit.
fn with_repository(
    git: &Git<'_>,
    id: &Identifier,
    resolved: &Resolved,
    repository: &Repository,
    upper: &Path,
) -> Result<(), GitSourceError> {
    let wrong = failed(id, "failed to checkout remote");
    let shared = git.on(repository.dir());
    let dir = upper.join(".git");
    let own = git.on(&dir).with_work_tree(upper);
    own.run(&["init", "-q", format_option(&resolved.object)])
        .map_err(&wrong)?;
    let from = repository.dir().to_string_lossy().into_owned();
    own.run(&["remote", "add", "origin", &from]).map_err(&wrong)?;
    let name = &resolved.name;
    let is_tag = shared
        .text(&["cat-file", "-t", &resolved.object])
        .map_err(&wrong)?
        == "tag";
    let refspec = if is_tag && !is_commit(name) {
        let tag = name.strip_prefix("refs/tags/").unwrap_or(name);
        format!("{name}:refs/tags/{tag}")
    } else if id.fetch_by_commit && !is_commit(name) {
        format!("{}:{name}", resolved.object)
    } else if is_commit(name) {
        // Only what has a ref can be fetched.
        let reference = format!("refs/rbuild/{name}");
        shared
            .run(&["update-ref", "--", &reference, name])
            .map_err(&wrong)?;
        reference
    } else {
        format!("{name}:{name}")
    };
    own.clone()
        .of_files()
        .run(&["fetch", "-u", "--depth=1", "--", "origin", &refspec])
        .map_err(&wrong)?;
    own.run(&["checkout", "FETCH_HEAD"]).map_err(&wrong)?;
    own.run(&["remote", "set-url", "origin", &id.remote.url()])
        .map_err(&wrong)?;
    submodules(&own, id, upper)?;
    own.run(&["remote", "set-url", "origin", &id.remote.shown()])
        .map_err(&wrong)?;
    own.run(&["reflog", "expire", "--all", "--expire=now"])
        .map_err(&wrong)?;
    match fs::remove_file(dir.join("FETCH_HEAD")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(arrange(id)(error)),
        _ => Ok(()),
    }
}

/// Whether there were any.
fn submodules(git: &Git<'_>, id: &Identifier, to: &Path) -> Result<bool, GitSourceError> {
    if id.skip_submodules || to.join(".gitmodules").symlink_metadata().is_err() {
        return Ok(false);
    }
    shallow(
        git,
        &["submodule", "update", "--init", "--recursive", "--depth=1"],
    )
    .map_err(failed(id, "failed to update submodules for"))?;
    Ok(true)
}

/// Removes the files by which submodules name their repository, a directory of this machine. git lets no commit have an
/// entry of that name, so all of them are its own.
fn remove_links(top: &Path) -> Result<(), GitSourceError> {
    visit(top, |entry| {
        let is_file = FileType::from_raw_mode(entry.stat.st_mode) == FileType::RegularFile;
        if is_file && entry.name == OsStr::new(".git") {
            rustix::fs::unlinkat(entry.dir, entry.name, AtFlags::empty())?;
        }
        Ok(())
    })
}

fn set_times(top: &Path, seconds: i64) -> Result<(), GitSourceError> {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    let set = |dir: BorrowedFd<'_>, name: &OsStr| {
        rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)
    };
    visit(top, |entry| set(entry.dir, entry.name))?;
    let root = open(top)?;
    set(root.as_fd(), OsStr::new(".")).map_err(|error| TreeError::Io {
        verb: "set times of",
        name: ".".into(),
        depth: 0,
        source: error.into(),
    })?;
    Ok(())
}

fn visit(
    top: &Path,
    mut work: impl FnMut(&TreeEntry<'_>) -> Result<(), rustix::io::Errno>,
) -> Result<(), GitSourceError> {
    let root = open(top)?;
    walk_tree(root.as_fd(), (), |(), entry| {
        work(entry).map_err(|error| {
            GitSourceError::from(TreeError::Io {
                verb: "arrange",
                name: entry.name.to_owned(),
                depth: 0,
                source: error.into(),
            })
        })
    })
}

fn open(path: &Path) -> Result<OwnedFd, GitSourceError> {
    Ok(RootFd::open(path)?.open_in(
        Path::new("/"),
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Moves what is in the subdirectory to `upper`. Each part of its path must be a directory: a link may lead anywhere.
fn lift(id: &Identifier, whole: &Path, upper: &Path) -> Result<(), GitSourceError> {
    let root = RootFd::open(whole)?;
    let mut path = PathBuf::from("/");
    for part in id.subdirectory.split('/') {
        path.push(part);
        let component = || path.strip_prefix("/").unwrap_or(&path).display().to_string();
        let stat = match root.lstat(&path) {
            Ok(stat) => stat,
            Err(error) if error.is_not_found() => {
                return Err(GitSourceError::NoSubdirectory {
                    subdir: id.subdirectory.clone(),
                    component: component(),
                });
            }
            Err(error) => return Err(error.into()),
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Err(GitSourceError::Subdirectory {
                subdir: id.subdirectory.clone(),
                component: component(),
            });
        }
    }
    let from = root.open_in(
        &path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let to = open(upper)?;
    let wrong = |error: rustix::io::Errno| arrange(id)(error.into());
    for entry in rustix::fs::Dir::read_from(&from).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        rustix::fs::renameat(&from, entry.file_name(), &to, entry.file_name()).map_err(wrong)?;
    }
    Ok(())
}
