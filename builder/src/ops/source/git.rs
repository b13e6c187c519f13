//! Git repositories, as BuildKit's `source/git/source.go` has them: the files of one commit, or of a directory of it,
//! with or without `.git`.
//!
//! The key is the commit: a branch or tag is looked up in every build, once, and what is behind it is fetched when
//! something needs it. What was fetched of a remote stays in a bare repository in the store, which one build uses at a
//! time.

mod bundle;
mod checkout;
mod identifier;
mod remote;
mod repository;

use std::sync::Arc;

use rbuild_graph::SourceOp;
use rbuild_oci::Digest;
use rbuild_registry::RegistryError;
use rbuild_store::{DiskError, MountError};
use rbuild_sys::{RootFdError, TreeError};
use tokio_util::sync::CancellationToken;

use self::identifier::{Identifier, IdentifierError};
use self::repository::Repository;
use crate::git::{Git, GitError, Ssh};
use crate::job::Job;
use crate::ops::{OpError, blocking};
use crate::secrets::SecretError;
use crate::solve::{Definition, Ingredient, Reporter};
use crate::source_meta::GitMeta;
use crate::ssh::{AgentSocket, SocketOwner, SshError};
use crate::value::{Chain, Value};

/// Why there are no files of a repository.
#[derive(Debug, thiserror::Error)]
pub enum GitSourceError {
    /// It is not named in a way that is served.
    #[error(transparent)]
    Identifier(#[from] IdentifierError),
    /// The host is one that nothing is fetched from.
    #[error("{0}")]
    Host(#[from] Box<RegistryError>),
    /// There is no agent for its ssh.
    #[error("no SSH key {0:?} forwarded from the client")]
    NoAgent(String),
    /// The agent that its ssh needs.
    #[error("no SSH key {id:?} forwarded from the client")]
    Agent {
        /// The agent's id.
        id: String,
        /// Why.
        #[source]
        source: SshError,
    },
    /// A secret could not be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// git failed.
    #[error("{what} {remote}")]
    Git {
        /// What was tried, such as `failed to fetch remote`.
        what: &'static str,
        /// The remote, without credentials.
        remote: String,
        /// Why.
        #[source]
        source: GitError,
    },
    /// The remote has no default branch.
    #[error("could not find default branch for repository: {0}")]
    NoDefaultBranch(String),
    /// The remote has no such ref.
    #[error("repository does not contain ref {reference}, output: {listed:?}")]
    NoRef {
        /// The ref.
        reference: String,
        /// What the remote has of that name.
        listed: String,
    },
    /// What a remote says is no commit.
    #[error("invalid commit sha {0:?}")]
    NoCommit(String),
    /// Another commit than the one asked for.
    #[error("expected checksum to match {expected}, got {found}")]
    Checksum {
        /// As asked for, possibly only its beginning.
        expected: String,
        /// What the ref is.
        found: String,
    },
    /// A ref moved and what it was is gone.
    #[error(
        "fetched ref {reference} does not match expected commit {commit} and commit can not be found in the repository"
    )]
    Moved {
        /// The ref.
        reference: String,
        /// The commit.
        commit: String,
    },
    /// A directory of the repository is none.
    #[error("invalid subdir {subdir}: git subpath {subdir:?} contains non-directory {component:?}")]
    Subdirectory {
        /// As asked for.
        subdir: String,
        /// The path to the first part of it that is no directory.
        component: String,
    },
    /// A directory is not in the repository.
    #[error(
        "invalid subdir {subdir}: failed to lstat {component:?}: statat {component}: no such file or directory"
    )]
    NoSubdirectory {
        /// As asked for.
        subdir: String,
        /// The path to the first part of it that is not there.
        component: String,
    },
    /// Files of the checkout.
    #[error("arrange the files of {remote}")]
    Arrange {
        /// The remote, without credentials.
        remote: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A tree that could not be visited.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A directory that could not be opened.
    #[error(transparent)]
    Root(#[from] RootFdError),
    /// The blob of a bundle.
    #[error("failed to fetch git bundle")]
    Bundle(#[source] Box<super::blob::BlobError>),
    /// A bundle of something else.
    #[error("commit {0} not found in bundle")]
    NotInBundle(String),
    /// The bare repository of the store.
    #[error(transparent)]
    Repository(#[from] MountError),
    /// The store's disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// What a ref of a remote is in this build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolved {
    /// The name it was asked for by; the default branch's where none was given.
    name: String,
    /// The ref in full.
    reference: String,
    /// The commit, or the annotated tag.
    object: String,
    /// The commit that an annotated tag names.
    commit: Option<String>,
}

/// The key of a source.
pub(super) async fn define(
    job: &Job,
    source: &SourceOp,
    reporter: &mut Reporter,
) -> Result<Definition<Value>, OpError> {
    let id = Arc::new(Identifier::of(source).map_err(GitSourceError::from)?);
    let resolved = asked(job, &id, reporter).await?;
    Ok(Definition {
        ingredients: id.ingredients(&resolved),
        content: Vec::new(),
        values: None,
        volatile: false,
    })
}

/// What the ref of `id` is: the remote is asked once in a build, if it has to be.
async fn asked(job: &Job, id: &Arc<Identifier>, reporter: &mut Reporter) -> Result<Resolved, OpError> {
    if let Some(pinned) = id.pinned().map_err(GitSourceError::from)? {
        return Ok(pinned);
    }
    let cell = job.sources.git(&id.question());
    let found = cell.get_or_try_init(|| ask(job, id, reporter)).await?.clone();
    id.check(&found)?;
    Ok(found)
}

/// What is known of the repository; with `objects`, also the commit and the tag themselves, for which it is fetched.
pub(crate) async fn meta(
    job: &Job,
    source: &SourceOp,
    objects: bool,
    reporter: &mut Reporter,
) -> Result<GitMeta, OpError> {
    let id = Arc::new(Identifier::of(source).map_err(GitSourceError::from)?);
    let resolved = asked(job, &id, reporter).await?;
    let meta = GitMeta {
        reference: resolved.reference.clone(),
        checksum: resolved.object.clone(),
        commit_checksum: resolved.commit.clone(),
        ..GitMeta::default()
    };
    if !objects {
        return Ok(meta);
    }
    // As in `ask`: git is told by the guard that nobody waits any more.
    let cancel = CancellationToken::new();
    let _guard = cancel.clone().drop_guard();
    let remote = Arc::clone(&id);
    with_fetched(job, id, resolved, reporter, &cancel, move |git, repository| {
        Ok(repository::objects(&git.on(repository.dir()), &remote, meta)?)
    })
    .await
}

/// The commit that `source` was in this build.
pub(super) fn found(job: &Job, source: &SourceOp) -> Option<String> {
    let id = Identifier::of(source).ok()?;
    let asked = || job.sources.git(&id.question()).get().cloned();
    let resolved = id.pinned().ok()?.or_else(asked)?;
    Some(resolved.commit.unwrap_or(resolved.object))
}

/// Fetches the commit and makes a layer of its files.
pub(super) async fn run(
    job: &Job,
    source: &SourceOp,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<Chain, OpError> {
    let id = Arc::new(Identifier::of(source).map_err(GitSourceError::from)?);
    let resolved = asked(job, &id, &mut reporter.clone()).await?;
    let (engine, lease) = (Arc::clone(&job.engine), Arc::clone(&job.lease));
    let (from, of) = (Arc::clone(&id), resolved.clone());
    let committed = with_fetched(job, id, resolved, reporter, cancel, move |git, repository| {
        let workspace = engine.snapshotter.workspace(&lease, &[])?;
        if from.checkout_bundle {
            bundle::write(&lease, git, &from, &of, &repository, workspace.upper())?;
        } else {
            checkout::write(&lease, git, &from, &of, &repository, workspace.upper())?;
        }
        drop(repository);
        Ok(workspace.commit()?)
    })
    .await?;
    Ok(Chain::new(vec![committed.id]))
}

/// Fetches the commit, and does `work` with the repository that has it.
async fn with_fetched<T: Send + 'static>(
    job: &Job,
    id: Arc<Identifier>,
    resolved: Resolved,
    reporter: &Reporter,
    cancel: &CancellationToken,
    work: impl FnOnce(&Git<'_>, Repository) -> Result<T, OpError> + Send + 'static,
) -> Result<T, OpError> {
    let access = Access::of(job, &id).await?;
    let given = bundle::open(job, &id, reporter).await?;
    let (engine, lease) = (Arc::clone(&job.engine), Arc::clone(&job.lease));
    let (reporter, cancel) = (reporter.clone(), cancel.clone());
    blocking(move || {
        let git = access.git(&engine.sandbox, &reporter, &cancel)?;
        let repository = match given {
            Some(file) => Repository::own(bundle::take_in(&lease, &git, &id, file)?, &cancel),
            None => repository::fetch(&engine.store, &lease, &git, &id, &resolved, &cancel)?,
        };
        work(&git, repository)
    })
    .await
    .map_err(canceled)
}

/// A command that was stopped is no failure of git's.
fn canceled(error: OpError) -> OpError {
    match &error {
        OpError::Git(inner)
            if matches!(
                **inner,
                GitSourceError::Git {
                    source: GitError::Canceled,
                    ..
                }
            ) =>
        {
            OpError::Canceled
        }
        _ => error,
    }
}

/// Asks the remote what a ref is.
async fn ask(job: &Job, id: &Arc<Identifier>, reporter: &mut Reporter) -> Result<Resolved, OpError> {
    reporter.start(None);
    let access = Access::of(job, id).await?;
    let given = bundle::open(job, id, reporter).await?;
    let (engine, shown, id) = (Arc::clone(&job.engine), reporter.clone(), Arc::clone(id));
    let lease = Arc::clone(&job.lease);
    // The solver stops waiting when the build is stopped; git is told by the guard then.
    let cancel = CancellationToken::new();
    let _guard = cancel.clone().drop_guard();
    let found = blocking(move || {
        let git = access.git(&engine.sandbox, &shown, &cancel)?;
        let found = match given {
            Some(file) => {
                let taken = bundle::take_in(&lease, &git, &id, file)?;
                repository::resolve(&git.of_files(), &id, &taken.to_string_lossy())
            }
            None => repository::resolve(&git, &id, &id.remote.url()),
        };
        Ok::<_, OpError>(found?)
    })
    .await
    .map_err(canceled)?;
    reporter.done();
    Ok(found)
}

/// What git needs to be let in.
struct Access {
    home: std::path::PathBuf,
    ssh: Ssh,
    secrets: Vec<(String, String)>,
    /// Held while git runs.
    _agent: Option<AgentSocket>,
}

impl Access {
    async fn of(job: &Job, id: &Identifier) -> Result<Self, OpError> {
        let client = job.engine.images.client();
        let online = client.config().check_online(&id.remote.shown());
        online
            .and_then(|()| client.check_host(id.remote.host()))
            .map_err(|error| GitSourceError::from(Box::new(error)))?;
        let home = job.lease.new_dir("git").map_err(GitSourceError::from)?;
        let mut ssh = Ssh::default();
        if id.remote.is_ssh() && !id.known_hosts.is_empty() {
            let file = home.join("known_hosts");
            std::fs::write(&file, &id.known_hosts).map_err(|source| GitSourceError::Arrange {
                remote: id.remote.shown(),
                source,
            })?;
            ssh.known_hosts = Some(file);
        }
        let agent = match id.ssh_agent.as_str() {
            "" => None,
            agent => Some(listen(job, agent).await?),
        };
        ssh.agent = agent.as_ref().map(|socket| socket.path().to_owned());
        Ok(Self {
            home,
            ssh,
            secrets: secrets(job, id).await?,
            _agent: agent,
        })
    }

    fn git<'a>(
        &self,
        sandbox: &'a rbuild_sandbox::Sandbox,
        reporter: &'a Reporter,
        cancel: &'a CancellationToken,
    ) -> Result<Git<'a>, GitSourceError> {
        let git =
            Git::new(sandbox, self.home.clone(), reporter, cancel).map_err(|source| GitSourceError::Git {
                what: "prepare git for",
                remote: String::new(),
                source,
            })?;
        let git = git.with_ssh(self.ssh.clone());
        Ok(self.secrets.iter().fold(git, |git, (name, value)| {
            git.with_secret(name.clone(), value.clone())
        }))
    }
}

/// A socket to the agent `id`, for this process's own user.
async fn listen(job: &Job, id: &str) -> Result<AgentSocket, GitSourceError> {
    let dir = job.lease.new_dir("ssh")?;
    let owner = SocketOwner {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mode: 0o600,
    };
    let socket = AgentSocket::listen(&job.client.agents(), id, &dir, owner).await;
    socket.map_err(|source| match source {
        SshError::NotFound(id) | SshError::NoneGiven(id) => GitSourceError::NoAgent(id),
        source => GitSourceError::Agent {
            id: id.to_owned(),
            source,
        },
    })
}

/// Settings with what the remote is to be shown: a secret of the build, or the user and password of its URL.
async fn secrets(job: &Job, id: &Identifier) -> Result<Vec<(String, String)>, OpError> {
    let mut header = None;
    for secret in id.secret_names() {
        let Some(value) = job
            .client
            .secret(&secret.id, true)
            .await
            .map_err(GitSourceError::from)?
        else {
            continue;
        };
        let text = String::from_utf8_lossy(value.expose());
        let text = text.trim_end_matches(['\r', '\n']);
        header = Some(if secret.is_token {
            basic("x-access-token", text)
        } else {
            text.to_owned()
        });
        break;
    }
    let mut settings = Vec::new();
    if let Some(value) = header {
        let name = format!("http.{}.extraheader", id.remote.token_scope());
        settings.push((name, format!("Authorization: {value}")));
    } else if let Some((user, password)) = id.remote.credentials() {
        let name = format!("http.{}.extraheader", id.remote.origin());
        settings.push((name, format!("Authorization: {}", basic(&user, &password))));
    }
    if !settings.is_empty() {
        // git would send the header to wherever it is redirected (security row 33).
        settings.push(("http.followRedirects".to_owned(), "false".to_owned()));
    }
    Ok(settings)
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    let pair = format!("{user}:{password}");
    format!("basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

impl Identifier {
    /// Names the question that [`ask`] answers.
    fn question(&self) -> Digest {
        let bundle = self.bundle.as_ref().map_or("", |blob| &blob.identifier);
        let question = format!("{}#{} {bundle}", self.remote.as_given(), self.reference);
        Digest::sha256(question.as_bytes())
    }

    /// What a key is made of (`shaToCacheKey`): the same commit is the same wherever it comes from.
    fn ingredients(&self, resolved: &Resolved) -> Vec<Ingredient> {
        let commit = match &resolved.commit {
            // A tag object is of no interest without `.git`.
            Some(commit) if !self.keep_git_dir => commit,
            _ => &resolved.object,
        };
        let mut parts = vec![("kind", "git"), ("commit", commit)];
        if self.keep_git_dir {
            parts.push(("git directory of", &resolved.reference));
        }
        if !self.subdirectory.is_empty() {
            parts.push(("subdirectory", &self.subdirectory));
        }
        if self.skip_submodules {
            parts.push(("submodules", "none"));
        }
        if self.commit_times {
            parts.push(("times", "commit"));
        }
        let bundled_as = bundle::ref_in_bundle(&self.reference);
        if self.checkout_bundle {
            parts.push(("bundle with", &bundled_as));
        }
        let part = |(name, value): (&str, &str)| Ingredient {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        parts.into_iter().map(part).collect()
    }

    /// Whether `resolved` is the commit that was asked for.
    fn check(&self, resolved: &Resolved) -> Result<(), GitSourceError> {
        let commit = resolved.commit.as_deref();
        if resolved.object.starts_with(&self.checksum)
            || commit.is_some_and(|commit| commit.starts_with(&self.checksum))
        {
            return Ok(());
        }
        Err(GitSourceError::Checksum {
            expected: self.checksum.clone(),
            found: match commit {
                Some(commit) => format!("{} or {commit}", resolved.object),
                None => resolved.object.clone(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(identifier: &str, attrs: &[(&str, &str)]) -> Identifier {
        Identifier::of(&SourceOp {
            identifier: identifier.into(),
            attrs: attrs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        })
        .unwrap()
    }

    fn tag() -> Resolved {
        Resolved {
            name: "v1".into(),
            reference: "refs/tags/v1".into(),
            object: "a".repeat(40),
            commit: Some("b".repeat(40)),
        }
    }

    #[test]
    fn row46_a_key_is_the_commit_and_what_is_taken_of_it() {
        let key = |identifier, attrs: &[_]| id(identifier, attrs).ingredients(&tag());
        let plain = key("git://h/a#v1", &[]);
        assert_eq!(plain[1].value, "b".repeat(40), "the commit behind the tag");
        assert_eq!(plain, key("git://elsewhere/b#v1", &[]));
        for (identifier, attrs) in [
            ("git://h/a#v1:dir", vec![]),
            ("git://h/a#v1", vec![("git.keepgitdir", "true")]),
            ("git://h/a#v1", vec![("git.skipsubmodules", "true")]),
            ("git://h/a#v1", vec![("git.mtime", "commit")]),
        ] {
            assert_ne!(key(identifier, &attrs), plain, "{identifier} {attrs:?}");
        }
        let kept = key("git://h/a#v1", &[("git.keepgitdir", "true")]);
        assert_eq!(kept[1].value, "a".repeat(40), "the tag itself is in .git");
    }

    #[test]
    fn a_checksum_is_the_beginning_of_the_tag_or_of_its_commit() {
        for (checksum, fits) in [("", true), ("aaaa", true), ("bbbb", true), ("abab", false)] {
            let checked = id("git://h/a#v1", &[("git.checksum", checksum)]).check(&tag());
            assert_eq!(checked.is_ok(), fits, "{checksum}");
        }
        let error = id("git://h/a#v1", &[("git.checksum", "abab")]).check(&tag());
        assert!(
            error
                .unwrap_err()
                .to_string()
                .starts_with("expected checksum to match abab, got aaa")
        );
    }
}
