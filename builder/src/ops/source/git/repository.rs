//! What a remote has, and the bare repository of the store with what was fetched of it. One build at a time uses the
//! repository of a remote; one that a killed build left is begun anew.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rbuild_oci::Digest;
use rbuild_store::{CacheMountGuard, Lease, MountOwner, MountRequest, MountSharing, Store};
use tokio_util::sync::CancellationToken;

use super::identifier::{Identifier, check_ref, is_commit};
use super::{GitMeta, GitSourceError, Resolved};
use crate::git::{Git, GitError};

/// Lies in a repository that is in use. Found by the next user, it says that the last one was killed.
const BUSY: &str = "rbuild-busy";

/// Most of a remote's answer that is shown, in characters.
const LISTED_CHARS_MAX: usize = 200;

/// Asks what the ref of `id` is at `url`, its remote or what is taken for it.
pub(super) fn resolve(git: &Git<'_>, id: &Identifier, url: &str) -> Result<Resolved, GitSourceError> {
    let name = if id.reference.is_empty() {
        default_branch(git, id, url)?
    } else {
        id.reference.clone()
    };
    let peeled = format!("{name}^{{}}");
    let listed = git
        .text(&["ls-remote", "--", url, &name, &peeled])
        .map_err(failed(id, "failed to fetch remote"))?;
    let find = |reference: &str| {
        listed.lines().find_map(|line| {
            let (object, listed) = line.split_once('\t')?;
            (listed == reference).then(|| object.to_owned())
        })
    };
    let below = |kind: &str| format!("{kind}{}", name.strip_prefix(kind).unwrap_or(&name));
    let (full, branch, tag) = (below("refs/"), below("refs/heads/"), below("refs/tags/"));
    // git prefers branches where a name is both.
    let is_other = full != branch && full != tag;
    let found = find(&full)
        .filter(|_| is_other)
        .map(|object| (full, object, None))
        .or_else(|| find(&branch).map(|object| (branch, object, None)))
        .or_else(|| {
            let object = find(&tag)?;
            let commit = find(&format!("{tag}^{{}}"));
            Some((tag, object, commit))
        });
    let Some((reference, object, commit)) = found else {
        let listed = listed.chars().take(LISTED_CHARS_MAX).collect();
        return Err(GitSourceError::NoRef {
            reference: name,
            listed,
        });
    };
    for object in std::iter::once(&object).chain(&commit) {
        if !is_commit(object) {
            return Err(GitSourceError::NoCommit(object.chars().take(100).collect()));
        }
    }
    Ok(Resolved {
        name,
        reference,
        object,
        commit,
    })
}

fn default_branch(git: &Git<'_>, id: &Identifier, url: &str) -> Result<String, GitSourceError> {
    let listed = git
        .text(&["ls-remote", "--symref", "--", url, "HEAD"])
        .map_err(failed(id, "error fetching default branch for repository"))?;
    let branch = listed
        .lines()
        .find_map(|line| line.strip_prefix("ref: refs/heads/")?.split_whitespace().next())
        .ok_or_else(|| GitSourceError::NoDefaultBranch(id.remote.shown()))?;
    check_ref(branch)?;
    Ok(branch.to_owned())
}

/// What turns a failure of git into one of this source.
pub(super) fn failed(id: &Identifier, what: &'static str) -> impl Fn(GitError) -> GitSourceError + use<> {
    let remote = id.remote.shown();
    move |source| GitSourceError::Git {
        what,
        remote: remote.clone(),
        source,
    }
}

/// A bare repository, in use.
#[derive(Debug)]
pub(super) struct Repository {
    dir: PathBuf,
    /// Held for that of a remote; that of a bundle is the build's own.
    _guard: Option<CacheMountGuard>,
    cancel: CancellationToken,
}

impl Repository {
    /// One that nobody else uses.
    pub(super) fn own(dir: PathBuf, cancel: &CancellationToken) -> Self {
        Self {
            dir,
            _guard: None,
            cancel: cancel.clone(),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn mark(&self) -> PathBuf {
        self.dir().join(BUSY)
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        // git is killed when a build is stopped, in the middle of whatever it does.
        if !self.cancel.is_cancelled() {
            fs::remove_file(self.mark()).ok();
        }
    }
}

/// Makes sure that the repository of the store has the commit.
pub(super) fn fetch(
    store: &Store,
    lease: &Lease,
    git: &Git<'_>,
    id: &Identifier,
    resolved: &Resolved,
    cancel: &CancellationToken,
) -> Result<Repository, GitSourceError> {
    let attempt = |fresh| {
        let repository = take(store, lease, git, id, resolved, fresh, cancel)?;
        fetch_into(&git.on(repository.dir()), &repository, id, resolved)?;
        Ok(repository)
    };
    match attempt(false) {
        Err(GitSourceError::Git { source, .. }) if wants_a_new_repository(&source) => attempt(true),
        done => done,
    }
}

/// A tag that moved, a branch that became a directory of branches, a lock that a killed git left.
fn wants_a_new_repository(error: &GitError) -> bool {
    error.says("would clobber existing tag")
        || (error.says("some local refs could not be updated")
            && (error.says("unable to update local ref") || error.says("refname conflict")))
        || (error.says("Unable to create") && error.says(".lock"))
}

fn take(
    store: &Store,
    lease: &Lease,
    git: &Git<'_>,
    id: &Identifier,
    resolved: &Resolved,
    fresh: bool,
    cancel: &CancellationToken,
) -> Result<Repository, GitSourceError> {
    // By the URL as it was given: what one user was shown is not another's.
    let name = format!(
        "git repository {} {} {}",
        id.remote.shown(),
        format_name(&resolved.object),
        &Digest::sha256(id.remote.as_given().as_bytes()).hex()[..16],
    );
    let request = |fresh| MountRequest {
        id: &name,
        owner: MountOwner::Builder,
        sharing: MountSharing::Locked,
        fresh,
    };
    let mut init = |dir: &Path| init_bare(git, &resolved.object, dir).map_err(io::Error::other);
    let mut mount = |fresh| store.cache_mount(lease, request(fresh), &|| cancel.is_cancelled(), &mut init);
    let mut guard = mount(fresh)?;
    if guard.path().join(BUSY).exists() {
        drop(guard);
        guard = mount(true)?;
    }
    let repository = Repository {
        dir: guard.path().to_owned(),
        _guard: Some(guard),
        cancel: cancel.clone(),
    };
    fs::write(repository.mark(), "").map_err(|source| GitSourceError::Arrange {
        remote: id.remote.shown(),
        source,
    })?;
    Ok(repository)
}

/// Makes a bare repository for objects such as `object`.
pub(super) fn init_bare(git: &Git<'_>, object: &str, dir: &Path) -> Result<(), GitError> {
    let path = dir.to_string_lossy();
    let made = git.run(&["init", "-q", "--bare", format_option(object), "--", &path]);
    made.map(drop)
}

/// Makes a bare repository of the build's own in the scratch directory `name`, which has the objects of `repository`
/// without a copy of them, and none of its refs, settings and index.
pub(super) fn borrowing(
    lease: &Lease,
    git: &Git<'_>,
    (id, resolved): (&Identifier, &Resolved),
    repository: &Repository,
    name: &'static str,
    wrong: impl Fn(GitError) -> GitSourceError,
) -> Result<PathBuf, GitSourceError> {
    let own = lease.new_dir(name)?;
    init_bare(git, &resolved.object, &own).map_err(wrong)?;
    let objects = format!("{}\n", repository.dir().join("objects").display());
    fs::create_dir_all(own.join("objects/info"))
        .and_then(|()| fs::write(own.join("objects/info/alternates"), objects))
        .map_err(arrange(id))?;
    Ok(own)
}

/// A failure to lay files out for git, or as they are wanted.
pub(super) fn arrange(id: &Identifier) -> impl Fn(io::Error) -> GitSourceError + use<> {
    let remote = id.remote.shown();
    move |source| GitSourceError::Arrange {
        remote: remote.clone(),
        source,
    }
}

/// The option that makes a repository for such objects.
pub(super) const fn format_option(object: &str) -> &'static str {
    if object.len() == 64 {
        "--object-format=sha256"
    } else {
        "--object-format=sha1"
    }
}

const fn format_name(object: &str) -> &'static str {
    if object.len() == 64 { "sha256" } else { "sha1" }
}

fn fetch_into(
    git: &Git<'_>,
    repository: &Repository,
    id: &Identifier,
    resolved: &Resolved,
) -> Result<(), GitSourceError> {
    let wrong = failed(id, "failed to fetch remote");
    let wanted = if id.fetch_by_commit {
        &resolved.object
    } else {
        &resolved.name
    };
    // A bundle has all that led to the commit.
    let is_shallow = repository.dir().join("shallow").symlink_metadata().is_ok();
    if !is_commit(wanted) || !has(git, wanted) || (id.checkout_bundle && is_shallow) {
        // A ref of our own keeps it, and is offered to the remote the next time. A tag, so that git puts no branch's
        // history below it.
        let target = if resolved.name.starts_with("refs/tags/") {
            resolved.name.clone()
        } else {
            format!("tags/{}", resolved.name)
        };
        let url = id.remote.url();
        let by_name = format!("{wanted}:{target}");
        if is_commit(wanted) && !id.fetch_by_commit {
            fetch_commit(git, repository, &url, wanted)
        } else {
            let (force, what): (&[&str], &str) = if is_commit(&resolved.name) {
                (&[], wanted)
            } else {
                (&["--force"], &by_name)
            };
            let depth: &[&str] = match (id.checkout_bundle, is_shallow) {
                (false, _) => &["--depth=1"],
                (true, true) => &["--unshallow"],
                (true, false) => &[],
            };
            let args = [&["fetch", "--no-tags"], depth, force, &["--", &url, what]];
            shallow(git, &args.concat())
        }
        .map_err(&wrong)?;
        let found = git
            .text(&["rev-parse", "--verify", "--end-of-options", wanted])
            .map_err(&wrong)?;
        if found != resolved.object {
            put_back(git, repository, id, resolved, &target)?;
        }
    }
    if !has(git, &resolved.object) {
        return Err(GitSourceError::NoRef {
            reference: resolved.object.clone(),
            listed: String::new(),
        });
    }
    check(git, id, resolved)
}

/// The commit that a short checksum asks for, seen in the repository itself.
fn check(git: &Git<'_>, id: &Identifier, resolved: &Resolved) -> Result<(), GitSourceError> {
    if resolved.object.starts_with(&id.checksum) {
        return Ok(());
    }
    let commit = git
        .text(&["rev-parse", "--verify", &format!("{}^{{}}", resolved.object)])
        .map_err(failed(id, "failed to rev-parse"))?;
    if commit.starts_with(&id.checksum) {
        return Ok(());
    }
    Err(GitSourceError::Checksum {
        expected: id.checksum.clone(),
        found: resolved.object.clone(),
    })
}

/// `meta` with the commit and the tag themselves. A ref that is an id may be either's.
pub(super) fn objects(git: &Git<'_>, id: &Identifier, mut meta: GitMeta) -> Result<GitMeta, GitSourceError> {
    let wrong = failed(id, "failed to read objects of");
    let cat = |kind: &str, object: &str| git.run(&["cat-file", kind, object]).map_err(&wrong);
    let is_tag = match git
        .text(&["cat-file", "-t", &meta.checksum])
        .map_err(&wrong)?
        .as_str()
    {
        "tag" => true,
        "commit" => false,
        _ => return Err(GitSourceError::NoCommit(meta.checksum)),
    };
    meta.commit_checksum = match meta.commit_checksum.take() {
        _ if !is_tag => None,
        Some(known) => Some(known),
        None => {
            let commit = format!("{}^{{commit}}", meta.checksum);
            Some(git.text(&["rev-parse", "--verify", &commit]).map_err(&wrong)?)
        }
    };
    if is_tag {
        meta.tag_object = cat("tag", &meta.checksum)?;
    }
    let commit = meta.commit_checksum.as_ref().unwrap_or(&meta.checksum);
    meta.commit_object = cat("commit", commit)?;
    Ok(meta)
}

/// The ref is something else now: what it was when the key was made is looked for.
fn put_back(
    git: &Git<'_>,
    repository: &Repository,
    id: &Identifier,
    resolved: &Resolved,
    target: &str,
) -> Result<(), GitSourceError> {
    let wrong = failed(id, "failed to fetch remote");
    if !has_object(git, &resolved.object) {
        fetch_commit(git, repository, &id.remote.url(), &resolved.object).map_err(&wrong)?;
    }
    if !has_object(git, &resolved.object) {
        return Err(GitSourceError::Moved {
            reference: resolved.name.clone(),
            commit: resolved.object.clone(),
        });
    }
    let full = if target.starts_with("refs/") {
        target.to_owned()
    } else {
        format!("refs/{target}")
    };
    git.run(&["update-ref", "--no-deref", "--", &full, &resolved.object])
        .map_err(wrong)?;
    Ok(())
}

fn has(git: &Git<'_>, object: &str) -> bool {
    has_object(git, &format!("{object}^{{commit}}"))
}

fn has_object(git: &Git<'_>, object: &str) -> bool {
    git.run(&["cat-file", "-e", object]).is_ok()
}

/// Fetches with a depth, and without where the remote knows no depth.
pub(super) fn shallow(git: &Git<'_>, args: &[&str]) -> Result<(), GitError> {
    match git.run(args) {
        Err(error) if error.says("--depth") || error.says("shallow") => {
            let whole: Vec<&str> = args.iter().copied().filter(|arg| *arg != "--depth=1").collect();
            git.run(&whole).map(drop)
        }
        done => done.map(drop),
    }
}

/// Fetches by id; where the remote gives only what it has a ref for, everything.
fn fetch_commit(git: &Git<'_>, repository: &Repository, url: &str, commit: &str) -> Result<(), GitError> {
    let mut args = vec!["fetch", "--tags"];
    if repository.dir().join("shallow").symlink_metadata().is_ok() {
        args.push("--unshallow");
    }
    args.extend(["--", url]);
    let with = |last: &'static str| -> Vec<String> {
        args.iter().copied().chain([last]).map(str::to_owned).collect()
    };
    let everything = with("+refs/heads/*:refs/remotes/origin/*");
    args.push(commit);
    match git.run(&args) {
        Err(error) if error.says("not our ref") || error.says("unadvertised object") => {
            let everything: Vec<&str> = everything.iter().map(String::as_str).collect();
            git.run(&everything).map(drop)
        }
        done => done.map(drop),
    }
}
