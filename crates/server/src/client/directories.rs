//! Directories of a client, kept between its builds so that only what changed comes again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use rbuild_builder::client::LocalError;
use rbuild_builder::ops::blocking;
use rbuild_builder::solve::Reporter;
use rbuild_dockerfile::ignore::{PatternError, PatternMatcher};
use rbuild_fileops::{LocalContext, SourceTree};
use rbuild_oci::Digest;
use rbuild_session::{CallError, Differ, GetError, MetadataOnly, SyncError, SyncRequest};
use rbuild_store::{CacheMountGuard, MountError, MountOwner, MountRequest, MountSharing};
use rbuild_sys::{RootFd, RootFdError};

use super::{SessionClient, client_answer};

/// Why a directory of the client is not here.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The client has no session.
    #[error(transparent)]
    Session(#[from] GetError),
    /// There is no place to keep it.
    #[error("make room for the files")]
    Room(#[from] MountError),
    /// The place could not be opened.
    #[error(transparent)]
    Open(#[from] RootFdError),
    /// The transfer failed.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// An attribute of the source is no list of texts.
    #[error("invalid value for {key}")]
    List {
        /// Its name.
        key: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Neither true nor false.
    #[error("invalid value for local.metadatatransfer {0:?}")]
    MetadataTransfer(String),
    /// What is to be fetched although only the list was asked for.
    #[error("patterns of local.metadatatransferexclude")]
    Patterns(#[from] PatternError),
}

/// A directory of the client, kept until the build is over.
#[derive(Debug)]
pub(super) struct Fetched {
    tree: Arc<SourceTree>,
    /// Nobody else writes to it.
    _guard: CacheMountGuard,
}

impl SessionClient {
    /// The directory `name` of the client as `attrs` want it, fetched once for each such question.
    pub(super) async fn fetch(
        &self,
        name: &str,
        attrs: &BTreeMap<String, String>,
        reporter: &mut Reporter,
    ) -> Result<Arc<SourceTree>, TransferError> {
        let asked = Digest::sha256(format!("{name}\0{attrs:?}").as_bytes());
        let cell = {
            let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(fetched.entry(asked).or_default())
        };
        let was_here = cell.initialized();
        reporter.start(None);
        let fetched = cell
            .get_or_try_init(|| self.transfer(name, attrs, reporter))
            .await;
        match &fetched {
            Ok(_) if was_here => reporter.cached(),
            Ok(_) => reporter.done(),
            Err(error) => reporter.failed(error.to_string()),
        }
        Ok(Arc::clone(&fetched?.tree))
    }

    async fn transfer(
        &self,
        name: &str,
        attrs: &BTreeMap<String, String>,
        reporter: &Reporter,
    ) -> Result<Fetched, TransferError> {
        let id = attrs.get("local.session").map_or("", String::as_str);
        let session = self.session_or_own(id).await?;
        let hint = attrs.get("local.sharedkeyhint").map_or("", String::as_str);
        let request = request(name, attrs)?;
        // One directory for each of a client's directories, so that the next build fetches only what changed.
        let kind = request.metadata_only.as_ref().map_or("", |_| ":metadata");
        let place = format!("local {name}:{hint}:{}{kind}", session.shared_key());
        let (store, lease, cancel) = (self.store.clone(), Arc::clone(&self.lease), self.cancel.clone());
        let guard = blocking(move || {
            let mount = MountRequest {
                id: &place,
                sharing: MountSharing::Private,
                owner: MountOwner::Builder,
                fresh: false,
            };
            store.cache_mount(&lease, mount, &|| cancel.is_cancelled(), &mut |_: &Path| Ok(()))
        })
        .await?;
        let path = guard.path().to_owned();
        let root = RootFd::open(&path)?;
        let started = SystemTime::now();
        let id = format!("transferring {name}:");
        // All that came, the list of files too: a directory that has not changed was looked at all the same.
        let came = AtomicU64::new(0);
        let progress = |bytes| {
            came.store(bytes, Ordering::Relaxed);
            reporter.status(&id, bytes, 0, started, false);
        };
        session
            .sync(&request, RootFd::open(&path)?, progress, &self.cancel)
            .await?;
        reporter.status(&id, came.load(Ordering::Relaxed), 0, started, true);
        Ok(Fetched {
            tree: Arc::new(SourceTree::Context(
                LocalContext::new(root, path, None).own_copy(),
            )),
            _guard: guard,
        })
    }
}

/// What to ask the client for (`source/local/source.go`).
fn request(name: &str, attrs: &BTreeMap<String, String>) -> Result<SyncRequest, TransferError> {
    let list = |key: &'static str| -> Result<Vec<String>, TransferError> {
        let text = attrs.get(key).map_or("[]", String::as_str);
        serde_json::from_str(text).map_err(|source| TransferError::List { key, source })
    };
    let metadata_only = match attrs.get("local.metadatatransfer") {
        Some(text) => rbuild_dockerfile::csv::boolean(text)
            .ok_or_else(|| TransferError::MetadataTransfer(text.clone()))?,
        None => false,
    };
    let metadata_only = match metadata_only {
        true => {
            let wanted = PatternMatcher::new(&list("local.metadatatransferexclude")?)?;
            Some(MetadataOnly::except(move |path| {
                path.to_str()
                    .is_some_and(|path| wanted.matches_or_parent_matches(path))
            }))
        }
        false => None,
    };
    Ok(SyncRequest {
        include_patterns: list("local.includepattern")?,
        exclude_patterns: list("local.excludepatterns")?,
        follow_paths: list("local.followpaths")?,
        differ: match attrs.get("local.differ").map(String::as_str) {
            Some("none") => Differ::None,
            _ => Differ::Metadata,
        },
        metadata_only,
        ..SyncRequest::new(name)
    })
}

/// Why directory `name` did not come, in the words of the client where it answered.
pub(super) fn not_sent(name: &str, error: TransferError) -> LocalError {
    let call = client_answer(&error);
    if matches!(call, Some(CallError::Unsupported { .. })) {
        return LocalError::NoneGiven;
    }
    let words = call.and_then(CallError::in_go_words);
    LocalError::Client {
        words: words.unwrap_or_else(|| format!("failed to load local source {name:?}")),
        source: Box::new(error),
    }
}
