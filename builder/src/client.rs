//! What a running build asks of whoever started it: directories and secrets. The command line answers from this
//! machine ([`HostClient`]); a server answers through its client's session.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use rbuild_fileops::{IgnoreRules, IgnoreRulesError, LocalContext, SourceTree};
use rbuild_graph::{FileTime, SourceOp};
use rbuild_oci::{Descriptor, Digest, Platform};
use rbuild_sys::{RootFd, RootFdError};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::front_ends::layouts::LayoutStores;
use crate::secrets::{SecretError, SecretValue, Secrets};
use crate::solve::Reporter;
use crate::source_meta::{MetaQuestion, SourceMeta};
use crate::ssh::{Agents, SshAgents};

/// Why a local directory could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The build was not given one of this name.
    #[error("no local directory {0:?} was given to this build")]
    Unknown(String),
    /// A front end wants a part of it by patterns, which only clients can apply.
    #[error("a part of local directory {0:?} by include patterns is not supported on the command line")]
    Include(String),
    /// A directory given as a named context cannot be opened.
    #[error("build context {name:?}")]
    Open {
        /// Name of the context.
        name: String,
        /// Why.
        #[source]
        source: RootFdError,
    },
    /// The ignore patterns of a named context are malformed.
    #[error("build context {name:?}")]
    Rules {
        /// Name of the context.
        name: String,
        /// Why.
        #[source]
        source: IgnoreRulesError,
    },
    /// The client has no directories at all (`session/filesync/filesync.go`).
    #[error("no local sources enabled")]
    NoneGiven,
    /// The client could not, or would not, send it.
    #[error("{words}")]
    Client {
        /// What is told in front of the cause; the cause too, if that is the client's own answer.
        words: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why an output could not be given to the client.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Nobody takes it: outputs of this machine are files.
    #[error("exporter {0} has no client to send to")]
    NoClient(u32),
    /// There is no content store: the build runs on this machine.
    #[error("there is no content store {0:?}")]
    NoStore(String),
    /// The client went away.
    #[error("send to client")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The client refused it.
    #[error("{words}")]
    Refused {
        /// Its answer as BuildKit shows it.
        words: String,
        /// It.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A stream to the client. What was written counts only after [`ClientStream::finish`].
pub trait ClientStream: std::io::Write + Send {
    /// Ends the stream and waits until the client has taken all of it.
    ///
    /// # Errors
    /// The client's.
    fn finish(self: Box<Self>) -> Result<(), OutputError>;
}

/// A tree for the client.
#[derive(Debug)]
pub struct ClientTree {
    /// The directory it is put into there, such as `linux_amd64`.
    pub prefix: Option<String>,
    /// Its root.
    pub root: RootFd,
}

/// Bytes of a client as they come, not verified. Errors of the client come out as those of reading.
pub type ClientBytes = Pin<Box<dyn AsyncRead + Send>>;

/// A content store of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentPlace {
    /// Session that has it; the build's own if empty.
    pub session: String,
    /// Its id there: `oci:` or `local:` and a name (`session/content/attachable.go`, `client/solve.go`).
    pub store: String,
}

/// Why something of a client could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ClientReadError {
    /// Whoever asked for the build has no such thing: it runs on this machine.
    #[error("this build has no client")]
    NoClient,
    /// The client has no such blob.
    #[error("{0}: not found")]
    Missing(Digest),
    /// The client could not, or would not, send it.
    #[error(transparent)]
    Client(Box<dyn std::error::Error + Send + Sync>),
}

/// A source that the client is to decide on.
#[derive(Debug, Clone, Copy)]
pub struct SourceQuestion<'a> {
    /// It.
    pub source: &'a SourceOp,
    /// What it is for.
    pub platform: Option<&'a Platform>,
    /// What the client asked for before it would decide.
    pub known: Option<&'a SourceMeta>,
}

/// What a client decides on a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceAnswer {
    /// It may be used.
    Allow,
    /// It may not.
    Deny {
        /// The client's word for it.
        action: String,
        /// Why, for people.
        messages: Vec<String>,
    },
    /// Another one is to be used, if that may be.
    Convert(SourceOp),
    /// It wants to know more first.
    Ask(MetaQuestion),
}

/// Answers a build.
pub trait Client: Send + Sync + std::fmt::Debug {
    /// The directory behind `local://name`. `attrs` are those of the source operation (`solver/pb/attr.go`): which of
    /// its files matter is up to them. Whoever has to fetch it shows that by `reporter`.
    fn local<'a>(
        &'a self,
        name: &'a str,
        attrs: &'a BTreeMap<String, String>,
        reporter: &'a mut Reporter,
    ) -> BoxFuture<'a, Result<Arc<SourceTree>, LocalError>>;

    /// The value of a secret; `None` if there is none of this id and `optional` allows that.
    fn secret<'a>(
        &'a self,
        id: &'a str,
        optional: bool,
    ) -> BoxFuture<'a, Result<Option<SecretValue>, SecretError>>;

    /// How many bytes a blob of a content store has, as the client says.
    fn blob_size<'a>(
        &'a self,
        _place: &'a ContentPlace,
        _digest: &'a Digest,
    ) -> BoxFuture<'a, Result<u64, ClientReadError>> {
        Box::pin(async { Err(ClientReadError::NoClient) })
    }

    /// The first `bytes` of a blob of a content store; not more, whatever the client sends.
    fn blob<'a>(
        &'a self,
        _place: &'a ContentPlace,
        _digest: &'a Digest,
        _bytes: u64,
    ) -> BoxFuture<'a, Result<ClientBytes, ClientReadError>> {
        Box::pin(async { Err(ClientReadError::NoClient) })
    }

    /// Puts the content of `file` into a content store, unless it is there.
    fn put_blob<'a>(
        &'a self,
        place: &'a ContentPlace,
        _descriptor: &'a Descriptor,
        _file: std::fs::File,
    ) -> BoxFuture<'a, Result<(), OutputError>> {
        Box::pin(async { Err(OutputError::NoStore(place.store.clone())) })
    }

    /// The file that the client offers as `http://buildkit-session/path`, `bytes_max` at most. Given once.
    fn upload<'a>(
        &'a self,
        _path: &'a str,
        _bytes_max: u64,
    ) -> BoxFuture<'a, Result<ClientBytes, ClientReadError>> {
        Box::pin(async { Err(ClientReadError::NoClient) })
    }

    /// Whether it wants to decide on every source that is used.
    fn checks_sources(&self) -> bool {
        false
    }

    /// Decides on a source; asked only if [`Client::checks_sources`].
    fn check_source<'a>(
        &'a self,
        _question: SourceQuestion<'a>,
    ) -> BoxFuture<'a, Result<SourceAnswer, ClientReadError>> {
        Box::pin(async { Err(ClientReadError::NoClient) })
    }

    /// The ssh agents it lets steps use.
    fn agents(&self) -> Arc<dyn Agents>;

    /// Opens the stream of an exporter. `metadata` is the exporter's response (`containerimage.digest` and so on).
    fn stream<'a>(
        &'a self,
        exporter: u32,
        metadata: &'a BTreeMap<String, String>,
    ) -> BoxFuture<'a, Result<Box<dyn ClientStream>, OutputError>>;

    /// Gives the client trees. With `time`, every entry has it.
    fn trees<'a>(
        &'a self,
        exporter: u32,
        trees: Vec<ClientTree>,
        time: Option<FileTime>,
    ) -> BoxFuture<'a, Result<(), OutputError>>;
}

/// Answers from this machine.
#[derive(Debug)]
pub struct HostClient {
    /// The main context, as it was opened, if it is of this machine.
    pub context: Option<Arc<SourceTree>>,
    /// The Dockerfile, for a front end that asks for it.
    pub dockerfile: Option<Arc<SourceTree>>,
    /// `--build-context` by name, values as written.
    pub directories: BTreeMap<String, String>,
    /// Directories that a definition knows by name.
    pub locals: BTreeMap<String, PathBuf>,
    /// `--build-context` that are OCI layouts, for a front end that asks for them.
    pub layouts: LayoutStores,
    /// The secrets of the request.
    pub secrets: Secrets,
    /// The ssh agents of the request.
    pub ssh: Arc<SshAgents>,
}

impl HostClient {
    fn open(&self, name: &str, attrs: &BTreeMap<String, String>) -> Result<Arc<SourceTree>, LocalError> {
        if attrs.get("local.includepattern").is_some_and(|list| list != "[]") {
            return Err(LocalError::Include(name.to_owned()));
        }
        let paths = attrs.get("local.followpaths").map_or("[]", String::as_str);
        let paths: Vec<String> = serde_json::from_str(paths).unwrap_or_default();
        if name == "context"
            && let Some(context) = &self.context
        {
            return asked_for(context, &paths).map_err(|source| LocalError::Open {
                name: name.to_owned(),
                source,
            });
        }
        if name == "dockerfile"
            && let Some(dockerfile) = &self.dockerfile
        {
            return Ok(Arc::clone(dockerfile));
        }
        let named = name.strip_prefix("context:");
        let named = named.and_then(|name| Some((name.to_owned(), Path::new(self.directories.get(name)?))));
        let found = named.or_else(|| Some((name.to_owned(), self.locals.get(name)?.as_path())));
        let (name, path) = found.ok_or_else(|| LocalError::Unknown(name.to_owned()))?;
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let root = RootFd::open(&path).map_err(|source| LocalError::Open {
            name: name.clone(),
            source,
        })?;
        let patterns = attrs.get("local.excludepatterns").map_or("[]", String::as_str);
        let patterns: Vec<String> = serde_json::from_str(patterns).unwrap_or_default();
        let rules = (!patterns.is_empty())
            .then(|| IgnoreRules::from_patterns(".dockerignore", &patterns))
            .transpose()
            .map_err(|source| LocalError::Rules {
                name: name.clone(),
                source,
            })?;
        let context = Arc::new(SourceTree::Context(LocalContext::new(root, path, rules)));
        asked_for(&context, &paths).map_err(|source| LocalError::Open { name, source })
    }
}

/// The context where it is asked for these paths only; all of it if for none.
fn asked_for(context: &Arc<SourceTree>, paths: &[String]) -> Result<Arc<SourceTree>, RootFdError> {
    Ok(match &**context {
        SourceTree::Context(local) if !paths.is_empty() => {
            Arc::new(SourceTree::Context(local.asked_for(paths)?))
        }
        _ => Arc::clone(context),
    })
}

impl Client for HostClient {
    fn local<'a>(
        &'a self,
        name: &'a str,
        attrs: &'a BTreeMap<String, String>,
        _: &'a mut Reporter,
    ) -> BoxFuture<'a, Result<Arc<SourceTree>, LocalError>> {
        Box::pin(async move { self.open(name, attrs) })
    }

    fn secret<'a>(
        &'a self,
        id: &'a str,
        optional: bool,
    ) -> BoxFuture<'a, Result<Option<SecretValue>, SecretError>> {
        Box::pin(async move { self.secrets.get(id, optional) })
    }

    fn blob_size<'a>(
        &'a self,
        place: &'a ContentPlace,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<u64, ClientReadError>> {
        Box::pin(async move { self.layouts.open(place, digest).await.map(|(_, size)| size) })
    }

    fn blob<'a>(
        &'a self,
        place: &'a ContentPlace,
        digest: &'a Digest,
        bytes: u64,
    ) -> BoxFuture<'a, Result<ClientBytes, ClientReadError>> {
        Box::pin(async move {
            let (found, _) = self.layouts.open(place, digest).await?;
            Ok(Box::pin(found.take(bytes)) as ClientBytes)
        })
    }

    fn agents(&self) -> Arc<dyn Agents> {
        Arc::clone(&self.ssh) as Arc<dyn Agents>
    }

    fn stream<'a>(
        &'a self,
        exporter: u32,
        _: &'a BTreeMap<String, String>,
    ) -> BoxFuture<'a, Result<Box<dyn ClientStream>, OutputError>> {
        Box::pin(async move { Err(OutputError::NoClient(exporter)) })
    }

    fn trees<'a>(
        &'a self,
        exporter: u32,
        _: Vec<ClientTree>,
        _: Option<FileTime>,
    ) -> BoxFuture<'a, Result<(), OutputError>> {
        Box::pin(async move { Err(OutputError::NoClient(exporter)) })
    }
}
