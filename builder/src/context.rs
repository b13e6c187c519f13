//! What the user gives to a build: the context and the Dockerfile, opened once, with the ignore rules that count.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_fileops::{
    ContextError, DockerfileAt, IgnoreRules, IgnoreRulesError, LocalContext, SourceTree, TarContextError,
    ignore_rules, spool_tar,
};
use rbuild_frontend::RemoteContext;
use rbuild_graph::progress::Sink;
use rbuild_layer::DevicePolicy;
use rbuild_registry::FetchError;
use rbuild_store::{DiskError, Lease};
use rbuild_sys::overlay::Form;
use rbuild_sys::{RootFd, RootFdError};

use crate::request::{ContextSource, DockerfileSource};
use crate::solve::Reporter;

/// Largest Dockerfile read, bytes.
pub(crate) const DOCKERFILE_BYTES_MAX: u64 = 16 << 20;

/// Why the context or the Dockerfile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenContextError {
    /// The Dockerfile's URL.
    #[error("failed to fetch Dockerfile {url}")]
    FetchDockerfile {
        /// As it may be shown.
        url: String,
        /// Why.
        #[source]
        source: FetchError,
    },
    /// The context directory.
    #[error("unable to prepare context: path {path:?}")]
    Context {
        /// As given.
        path: PathBuf,
        /// Why.
        #[source]
        source: RootFdError,
    },
    /// The Dockerfile is not there.
    #[error("failed to read dockerfile: open {name}: no such file or directory")]
    NoDockerfile {
        /// As given.
        name: String,
        /// What helps.
        hint: String,
    },
    /// Links lead from one to the next.
    #[error("failed to read dockerfile: too many links")]
    DockerfileLinks,
    /// The Dockerfile cannot be read.
    #[error("failed to read dockerfile {name}")]
    Dockerfile {
        /// As given.
        name: String,
        /// Why.
        #[source]
        source: RootFdError,
    },
    /// The ignore file.
    #[error("failed to read ignore file")]
    Ignore(#[from] ContextError),
    /// The URL of a repository, with options there are not.
    #[error("invalid remote context")]
    Remote(#[source] rbuild_frontend::GitUrlError),
    /// Neither a repository nor a URL.
    #[error("unable to prepare context: {0} is no remote context")]
    NoRemote(String),
    /// The archive given as context.
    #[error("unable to prepare context")]
    Archive(#[from] TarContextError),
    /// The spooled archive.
    #[error("read the context archive")]
    Spool(#[source] std::io::Error),
    /// The store has no room for it.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl OpenContextError {
    /// Whether it is what a front end would have found, not who asks it.
    pub(crate) const fn is_of_the_dockerfile(&self) -> bool {
        matches!(
            self,
            Self::NoDockerfile { .. } | Self::DockerfileLinks | Self::Dockerfile { .. } | Self::Ignore(_)
        )
    }
}

/// An open context with its Dockerfile.
#[derive(Debug)]
pub struct Opened {
    /// The context's files, if they are of this machine.
    pub context: Option<Arc<SourceTree>>,
    /// Where they come from otherwise.
    pub remote: Option<RemoteContext>,
    /// The Dockerfile's text.
    pub dockerfile: Vec<u8>,
    /// Its name, for messages.
    pub filename: String,
    /// The ignore patterns, in order.
    pub ignore_patterns: Vec<String>,
    /// File and line of the only one, which cannot be used: the front end refuses it once it has read the Dockerfile.
    pub ignore_place: String,
    /// The vertex that loaded the Dockerfile: warnings about it belong there.
    pub load: Reporter,
}

/// Opens what `context` and `dockerfile` name.
///
/// # Errors
/// [`OpenContextError`].
pub fn open(
    lease: &Lease,
    form: Form,
    context: &ContextSource,
    dockerfile: &DockerfileSource,
    sink: &Arc<dyn Sink>,
) -> Result<Opened, OpenContextError> {
    let path = directory(lease, form, context)?;
    let root = RootFd::open(&path).map_err(|source| OpenContextError::Context {
        path: path.clone(),
        source,
    })?;
    let filename = name(dockerfile);
    let mut load = Reporter::internal(sink, &format!("[internal] load build definition from {filename}"));
    load.start(None);
    let read = read_dockerfile(&root, &path, dockerfile);
    let (text, beside) = match read {
        Ok(found) => found,
        Err(error) => {
            load.failed(error.to_string());
            return Err(error);
        }
    };
    load.status(
        "transferring dockerfile:",
        text.len() as u64,
        0,
        std::time::SystemTime::now(),
        true,
    );
    load.done();
    let mut ignore = Reporter::internal(sink, "[internal] load .dockerignore");
    ignore.start(None);
    let at = match (&beside, dockerfile) {
        (Beside::InContext(name), _) => DockerfileAt::InContext(name),
        (Beside::Dir(dir), _) => DockerfileAt::Beside(dir, &filename),
        (Beside::Nowhere, _) => DockerfileAt::Nowhere,
    };
    // As in BuildKit, whose ignore file is of a directory: an archive is taken whole (`frontend/dockerui/config.go`).
    let rules = match context {
        ContextSource::Tar(_) => Ok(None),
        _ => ignore_rules(&root, at),
    };
    let (rules, ignore_patterns, ignore_place) = match rules {
        Ok(rules) => {
            let patterns = rules.iter().flat_map(IgnoreRules::patterns).map(str::to_owned);
            let patterns = patterns.collect();
            (rules, patterns, String::new())
        }
        Err(ContextError::Rules(IgnoreRulesError::Pattern { name, line, source })) => (
            None,
            vec![source.pattern().to_owned()],
            format!("{name}, line {line}"),
        ),
        Err(error) => {
            ignore.failed(error.to_string());
            return Err(error.into());
        }
    };
    ignore.done();
    let context = Arc::new(SourceTree::Context(LocalContext::new(root, path, rules)));
    Ok(Opened {
        context: Some(context),
        remote: None,
        dockerfile: text,
        filename,
        ignore_patterns,
        ignore_place,
        load,
    })
}

fn directory(lease: &Lease, form: Form, context: &ContextSource) -> Result<PathBuf, OpenContextError> {
    match context {
        // One of the network is opened elsewhere; here there is nothing of it.
        ContextSource::Empty | ContextSource::Remote(_) => Ok(lease.new_dir("empty-context")?),
        ContextSource::Dir(path) => Ok(std::path::absolute(path).unwrap_or_else(|_| path.clone())),
        ContextSource::Tar(spooled) => {
            let dir = lease.new_dir("tar-context")?;
            let file = File::open(spooled).map_err(OpenContextError::Spool)?;
            spool_tar(file, &dir, DevicePolicy::for_form(form))?;
            Ok(dir)
        }
    }
}

/// Where the Dockerfile's own ignore file is looked for.
pub(crate) enum Beside {
    InContext(String),
    Dir(RootFd),
    Nowhere,
}

/// Reads the Dockerfile, from `root` if it is in the context; `context` is what that is called.
pub(crate) fn read_dockerfile(
    root: &RootFd,
    context: &Path,
    dockerfile: &DockerfileSource,
) -> Result<(Vec<u8>, Beside), OpenContextError> {
    match dockerfile {
        DockerfileSource::Text(text) => Ok((text.clone(), Beside::Nowhere)),
        DockerfileSource::Url(url) => Err(no_dockerfile(&url.shown().to_string(), context)),
        DockerfileSource::InContext(name) => {
            let text = read_in(root, name, context)?;
            Ok((text, Beside::InContext(name.clone())))
        }
        DockerfileSource::File(path) => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            let shown = path.display().to_string();
            let fail = |source| OpenContextError::Dockerfile {
                name: shown.clone(),
                source,
            };
            let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
            else {
                return Err(no_dockerfile(&shown, context));
            };
            let beside = match RootFd::open(dir) {
                Ok(beside) => beside,
                Err(error) if error.is_not_found() => return Err(no_dockerfile(&shown, dir)),
                Err(error) => return Err(fail(error)),
            };
            let text = match File::open(&path) {
                Ok(file) => read_limited(file, &path).map_err(fail)?,
                Err(_) => read_in(&beside, name, dir)?,
            };
            Ok((text, Beside::Dir(beside)))
        }
    }
}

/// Reads `name`, or its lower-case twin where that is what is there (`frontend/dockerui/config.go`).
fn read_in(root: &RootFd, name: &str, shown: &Path) -> Result<Vec<u8>, OpenContextError> {
    let twin = name
        .strip_suffix("Dockerfile")
        .map(|start| format!("{start}dockerfile"));
    for candidate in std::iter::once(name.to_owned()).chain(twin) {
        // `..` takes a name away, be it one that is there or not (`client.ReadRequest`).
        let place = rbuild_dockerfile::path::join(&["/", &candidate]);
        match root.read_file(Path::new(&place), DOCKERFILE_BYTES_MAX) {
            Ok(text) => return Ok(text),
            Err(error) if error.is_not_found() => {}
            Err(RootFdError::Links(_)) => return Err(OpenContextError::DockerfileLinks),
            Err(source) => {
                return Err(OpenContextError::Dockerfile {
                    name: candidate,
                    source,
                });
            }
        }
    }
    Err(no_dockerfile(name, shown))
}

fn no_dockerfile(name: &str, dir: &Path) -> OpenContextError {
    let near = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .take(10_000)
        .find_map(|entry| {
            let found = entry.file_name().into_string().ok()?;
            found.to_ascii_lowercase().contains("dockerfile").then_some(found)
        });
    let hint = match near {
        Some(found) => format!("{} has {found}; name it with -f", dir.display()),
        None if name != "Dockerfile" => format!(
            "{} is not there; give another with -f, or leave -f out where the context has a Dockerfile",
            dir.join(name).display()
        ),
        None => format!(
            "{} has no Dockerfile; name one with -f, or give another directory",
            dir.display()
        ),
    };
    OpenContextError::NoDockerfile {
        name: name.to_owned(),
        hint,
    }
}

fn read_limited(file: File, path: &Path) -> Result<Vec<u8>, RootFdError> {
    let fail = |source| RootFdError::Io {
        verb: "read",
        path: path.to_owned(),
        source,
    };
    let metadata = file.metadata().map_err(fail)?;
    if metadata.is_dir() {
        return Err(RootFdError::NotRegular(path.to_owned()));
    }
    let mut text = Vec::new();
    // Not only regular files: `-f <(generate)` is a pipe.
    file.take(DOCKERFILE_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .map_err(fail)?;
    if text.len() as u64 > DOCKERFILE_BYTES_MAX {
        return Err(RootFdError::TooLarge {
            path: path.to_owned(),
            max_bytes: DOCKERFILE_BYTES_MAX,
        });
    }
    Ok(text)
}

/// What the Dockerfile is called.
pub(crate) fn name(dockerfile: &DockerfileSource) -> String {
    match dockerfile {
        DockerfileSource::Text(_) | DockerfileSource::Url(_) => "Dockerfile".to_owned(),
        DockerfileSource::InContext(name) => name.clone(),
        DockerfileSource::File(path) => path.file_name().map_or_else(
            || "Dockerfile".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        ),
    }
}
