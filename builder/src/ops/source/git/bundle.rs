//! Bundles: a repository as one file, taken in from a blob instead of from the remote, and made in place of files
//! (`source/git/bundle.go`). What is taken in is in a bare repository of the build's own, beside those of the remotes.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};

use rbuild_store::Lease;

use super::identifier::{Identifier, is_commit};
use super::repository::{Repository, arrange, borrowing, failed, init_bare};
use super::{GitSourceError, Resolved};
use crate::git::Git;
use crate::job::Job;
use crate::ops::source::blob;
use crate::solve::Reporter;

/// The ref in a bundle of a commit that was asked for by its id.
const NAMELESS: &str = "refs/heads/main";
/// Name of the file that is a result.
const RESULT: &str = "bundle";
/// The part of a bundle that is looked through for the kind of its objects (`gitformat-bundle(5)`), bytes.
const HEAD_BYTES: u64 = 4096;

/// The file of the bundle that `id` names, if it names one.
pub(super) async fn open(
    job: &Job,
    id: &Identifier,
    reporter: &Reporter,
) -> Result<Option<File>, GitSourceError> {
    let Some(source) = &id.bundle else { return Ok(None) };
    let opened = blob::open(job, source, reporter).await;
    opened
        .map(Some)
        .map_err(|source| GitSourceError::Bundle(Box::new(source)))
}

/// Takes in the bundle `file`: a bare repository with its refs.
pub(super) fn take_in(
    lease: &Lease,
    git: &Git<'_>,
    id: &Identifier,
    mut file: File,
) -> Result<PathBuf, GitSourceError> {
    let wrong = failed(id, "failed to import git bundle for");
    let dir = lease.new_dir("git-bundle")?;
    let (pack, repository) = (dir.join("bundle.pack"), dir.join("repository"));
    let is_sha256 = copy(&mut file, &pack).map_err(arrange(id))?;
    // Only the length of an object's name counts.
    let object = "0".repeat(if is_sha256 { 64 } else { 40 });
    init_bare(git, &object, &repository).map_err(&wrong)?;
    let own = git.on(&repository).of_files();
    let path = pack.to_string_lossy();
    own.run(&["fetch", "-q", "--", &path, "+refs/*:refs/*"])
        .map_err(&wrong)?;
    let commit = format!("{}^{{commit}}", id.checksum);
    if own.run(&["cat-file", "-e", &commit]).is_err() {
        return Err(GitSourceError::NotInBundle(id.checksum.clone()));
    }
    Ok(repository)
}

/// Copies the bundle to `to`, and says whether its objects are named by SHA-256.
fn copy(file: &mut File, to: &Path) -> io::Result<bool> {
    let mut head = Vec::new();
    file.by_ref().take(HEAD_BYTES).read_to_end(&mut head)?;
    file.rewind()?;
    io::copy(file, &mut File::create_new(to)?)?;
    let mut lines = head.split(|byte| *byte == b'\n');
    Ok(lines.any(|line| line == b"@object-format=sha256"))
}

/// Makes the bundle of the commit in `upper`.
pub(super) fn write(
    lease: &Lease,
    git: &Git<'_>,
    id: &Identifier,
    resolved: &Resolved,
    repository: &Repository,
    upper: &Path,
) -> Result<(), GitSourceError> {
    let wrong = failed(id, "failed to create git bundle of");
    let own = borrowing(lease, git, (id, resolved), repository, "git-bundle", &wrong)?;
    let git = git.on(&own);
    let name = ref_in_bundle(&id.reference);
    git.run(&["update-ref", "--", &name, &resolved.object])
        .map_err(&wrong)?;
    let made = own.join(RESULT);
    git.run(&["bundle", "create", "-q", &made.to_string_lossy(), &name])
        .map_err(&wrong)?;
    // Both are in the store, on one file system or not.
    let target = upper.join(RESULT);
    fs::copy(&made, &target).map(drop).map_err(arrange(id))?;
    fs::remove_file(&made).map_err(arrange(id))
}

/// The name that the commit has in a bundle: that of the tag or branch it was asked for by.
pub(super) fn ref_in_bundle(reference: &str) -> String {
    if reference.is_empty() || is_commit(reference) {
        return NAMELESS.to_owned();
    }
    if reference.starts_with("refs/tags/") {
        return reference.to_owned();
    }
    let name = reference.strip_prefix("refs/").unwrap_or(reference);
    format!("refs/heads/{}", name.strip_prefix("heads/").unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_has_the_name_that_was_asked_for() {
        for (reference, expected) in [
            ("", "refs/heads/main"),
            (&"a".repeat(40), "refs/heads/main"),
            ("master", "refs/heads/master"),
            ("heads/x", "refs/heads/x"),
            ("refs/heads/a/b", "refs/heads/a/b"),
            ("refs/tags/v1", "refs/tags/v1"),
            ("v1", "refs/heads/v1"),
        ] {
            assert_eq!(ref_in_bundle(reference), expected);
        }
    }
}
