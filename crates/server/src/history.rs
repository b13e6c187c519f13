//! Builds that ran: what `buildctl debug histories` and `buildx history` list (`solver/llbsolver/history`).
//!
//! Builds that run are known here, those that ran are read from the store each time: they outlive the server, and a
//! second server of the same store sees them. Bounded in number and bytes; the oldest that is not pinned goes first.

mod filter;
mod logs;
mod record;
mod trace;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::BufReader;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest, SolveRequest,
    StatusResponse, UpdateBuildHistoryRequest,
};
use futures_util::{Stream, StreamExt as _};
use prost::Message as _;
use rbuild_builder::error::chain_text;
use rbuild_builder::ops::blocking;
use rbuild_llb::errors::sentence;
use rbuild_llb::progress::{system_time, timestamp};
use rbuild_oci::Digest;
use rbuild_store::{DiskError, HistoryBlob, Store};
use tokio::sync::broadcast;
use tonic::Status;

use crate::events::EventLog;
pub use filter::HistoryFilterError;
use filter::Wanted;
pub use record::{Attestation, Exported};

/// Changes that a slow listener may be behind.
const CHANGES_MAX: usize = 256;
/// Most listeners of single builds at once.
const WATCHES_MAX: usize = 4096;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Builds that are kept however old they are.
    pub entries: usize,
    /// Builds that are younger are kept too, as long as there is room.
    pub age: Duration,
    /// Most builds.
    pub entries_max: usize,
    /// Most bytes of all of them.
    pub bytes_max: u64,
}

impl Default for Limits {
    /// BuildKit's `maxEntries` and `maxAge`, and bounds that it does not have.
    fn default() -> Self {
        Self {
            entries: 50,
            age: Duration::from_secs(48 * 3600),
            entries_max: 1000,
            bytes_max: 1 << 30,
        }
    }
}

type Events = Pin<Box<dyn Stream<Item = BuildHistoryEvent> + Send>>;

/// Builds that ran.
#[derive(Debug, Clone)]
pub struct History(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    limits: Limits,
    state: Mutex<State>,
    /// Held while records are read to be changed.
    changing: Mutex<()>,
    changes: broadcast::Sender<BuildHistoryEvent>,
}

#[derive(Debug, Default)]
struct State {
    /// Builds that run.
    active: HashMap<String, BuildHistoryRecord>,
    /// Listeners of single builds.
    watched: HashMap<String, usize>,
    /// What goes once nobody listens to it any more.
    deleted: HashSet<String>,
}

impl History {
    /// What `store` has kept.
    #[must_use]
    pub fn new(store: Store, limits: Limits) -> Self {
        Self(Arc::new(Inner {
            store,
            limits,
            state: Mutex::default(),
            changing: Mutex::default(),
            changes: broadcast::Sender::new(CHANGES_MAX),
        }))
    }

    /// A build began.
    pub fn begin(&self, request: &SolveRequest) {
        let record = BuildHistoryRecord {
            r#ref: request.r#ref.clone(),
            frontend: request.frontend.clone(),
            frontend_attrs: crate::cache::without_secrets(&request.frontend_attrs),
            exporters: request.exporters.clone(),
            created_at: Some(timestamp(SystemTime::now())),
            ..BuildHistoryRecord::default()
        };
        let mut state = self.0.lock();
        state.deleted.remove(&record.r#ref);
        state.active.insert(record.r#ref.clone(), record.clone());
        drop(state);
        self.0.tell(BuildHistoryEventType::Started, record);
    }

    /// A build is over: it is kept before this returns.
    ///
    /// # Errors
    /// `internal` if it cannot be kept.
    pub async fn end(
        &self,
        id: &str,
        outcome: Result<&Exported, &Status>,
        events: &Arc<EventLog>,
    ) -> Result<(), Status> {
        let record = self.0.lock().active.get(id).cloned();
        let Some(mut record) = record else { return Ok(()) };
        let (inner, events, id) = (Arc::clone(&self.0), Arc::clone(events), id.to_owned());
        // What the exporters left is small; it is read where it may block.
        let outcome = match outcome {
            Ok(exported) => Ok(exported.clone()),
            Err(status) => Err(status.clone()),
        };
        let kept = blocking(move || {
            let blobs = record::complete(&mut record, outcome.as_ref(), &events, &inner.store);
            let lease = inner.store.lease("history")?;
            let bytes = record.encode_to_vec();
            let kept = inner
                .store
                .put_history(&lease, &record.r#ref, &bytes, &blobs.list);
            inner.lock().active.remove(&record.r#ref);
            kept?;
            inner.tell(BuildHistoryEventType::Complete, record);
            inner.trim()
        })
        .await;
        self.0.lock().active.remove(&id);
        kept.map_err(|error| disk_status(&error))
    }

    /// What a build said that is over; `None` if there is none of that id.
    ///
    /// # Errors
    /// `unknown` if it cannot be read.
    pub async fn logs(
        &self,
        id: &str,
    ) -> Result<Option<impl Stream<Item = Result<StatusResponse, Status>> + Send + use<>>, Status> {
        if self.0.lock().active.contains_key(id) {
            return Ok(None);
        }
        let (inner, id) = (Arc::clone(&self.0), id.to_owned());
        let opened = blocking(move || {
            let Some(record) = inner.record(&id)? else {
                return Ok(None);
            };
            let digest = record.logs.and_then(|logs| Digest::parse(&logs.digest).ok());
            let opened = match digest {
                Some(digest) => inner.store.open_history_blob(Some(&id), &digest)?,
                None => None,
            };
            Ok(Some(opened))
        });
        let Some(opened) = opened.await.map_err(|error| disk_status(&error))? else {
            return Ok(None);
        };
        let reader = opened.map(|(file, _)| BufReader::new(file));
        // One message at a time: a reader that waits holds no thread.
        Ok(Some(futures_util::stream::unfold(reader, |reader| async move {
            let mut reader = reader?;
            let read = blocking(move || (logs::next(&mut reader), reader)).await;
            match read {
                (Ok(None), _) => None,
                (Ok(Some(message)), reader) => Some((Ok(message), Some(reader))),
                (Err(error), _) => Some((Err(Status::data_loss(error.to_string())), None)),
            }
        })))
    }

    /// Every blob that is kept beside a record.
    ///
    /// # Errors
    /// `internal` if they cannot be listed.
    pub async fn blobs(&self) -> Result<Vec<HistoryBlob>, Status> {
        let inner = Arc::clone(&self.0);
        let listed = blocking(move || inner.store.history_blobs()).await;
        listed.map_err(|error| disk_status(&error))
    }

    /// A blob that is kept beside a record.
    ///
    /// # Errors
    /// `internal` if it cannot be opened.
    pub async fn blob(&self, digest: Digest) -> Result<Option<(File, HistoryBlob)>, Status> {
        let inner = Arc::clone(&self.0);
        let opened = blocking(move || inner.store.open_history_blob(None, &digest)).await;
        opened.map_err(|error| disk_status(&error))
    }

    /// The records a client asks for, and, unless it wants to leave early, what changes afterwards.
    ///
    /// # Errors
    /// `invalid_argument` for filters that are none, `resource_exhausted` for too many listeners.
    pub async fn listen(&self, request: BuildHistoryRequest) -> Result<Events, Status> {
        let refuse = |error: HistoryFilterError| Status::invalid_argument(sentence(&error));
        let wanted = Wanted::parse(&request.filter, SystemTime::now()).map_err(refuse)?;
        let limit = usize::try_from(request.limit)
            .map_err(|_negative| refuse(HistoryFilterError::Limit(request.limit)))?;
        let changes = self.0.changes.subscribe();
        let watch = self.watch(&request.r#ref)?;
        let active = self.0.active(&request.r#ref);
        let mut known: Vec<BuildHistoryEvent> = active
            .into_iter()
            .map(|record| event(BuildHistoryEventType::Started, record))
            .collect();
        if !request.active_only {
            let (inner, id) = (Arc::clone(&self.0), request.r#ref.clone());
            let kept = blocking(move || inner.kept(&id)).await;
            let mut kept = kept.map_err(|error| disk_status(&error))?;
            kept.retain(|record| wanted.matches(record));
            if limit > 0 {
                kept.sort_by_key(|record| {
                    std::cmp::Reverse(record.created_at.as_ref().and_then(system_time))
                });
                kept.truncate(limit);
            }
            let kept = kept.into_iter();
            known.extend(kept.map(|record| event(BuildHistoryEventType::Complete, record)));
        }
        let known = futures_util::stream::iter(known);
        if request.early_exit {
            return Ok(Box::pin(known));
        }
        let later = futures_util::stream::unfold((changes, watch), |(mut changes, watch)| async move {
            loop {
                match changes.recv().await {
                    Ok(change) => return Some((change, (changes, watch))),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        let id = request.r#ref;
        let later = later.filter(move |event| {
            let of = event.record.as_ref().map(|record| record.r#ref.as_str());
            std::future::ready(id.is_empty() || of == Some(id.as_str()))
        });
        Ok(Box::pin(known.chain(later)))
    }

    /// Pins, unpins or deletes a record. There is nothing to finalize: a record is final when it is made.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn update(&self, request: UpdateBuildHistoryRequest) -> Result<(), Status> {
        if request.finalize && !request.delete {
            return Ok(());
        }
        let inner = Arc::clone(&self.0);
        let id = request.r#ref.clone();
        let found = blocking(move || {
            if request.delete {
                inner.delete(&request.r#ref)
            } else {
                inner.pin(&request.r#ref, request.pinned)
            }
        });
        match found.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Status::not_found(format!(
                "failed to retrieve build history record {id}: not found"
            ))),
            Err(error) => Err(disk_status(&error)),
        }
    }

    fn watch(&self, id: &str) -> Result<Option<Watch>, Status> {
        if id.is_empty() {
            return Ok(None);
        }
        let mut state = self.0.lock();
        if state.deleted.contains(id) {
            return Err(Status::not_found(format!("ref {id} is deleted")));
        }
        if state.watched.len() >= WATCHES_MAX {
            return Err(Status::resource_exhausted("too many listeners of the history"));
        }
        *state.watched.entry(id.to_owned()).or_default() += 1;
        Ok(Some(Watch {
            inner: Arc::clone(&self.0),
            id: id.to_owned(),
        }))
    }
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, kind: BuildHistoryEventType, record: BuildHistoryRecord) {
        // Nobody listens most of the time.
        self.changes.send(event(kind, record)).ok();
    }

    fn active(&self, id: &str) -> Vec<BuildHistoryRecord> {
        let state = self.lock();
        let records = state.active.values();
        let named = records.filter(|record| id.is_empty() || record.r#ref == id);
        named.cloned().collect()
    }

    /// The record of a build that is over and was not deleted.
    fn record(&self, id: &str) -> Result<Option<BuildHistoryRecord>, DiskError> {
        if self.lock().deleted.contains(id) {
            return Ok(None);
        }
        Ok(self.store.history_record(id)?.and_then(|bytes| decode(&bytes)))
    }

    /// The records of builds that are over; of one if `id` is said.
    fn kept(&self, id: &str) -> Result<Vec<BuildHistoryRecord>, DiskError> {
        if !id.is_empty() {
            return Ok(self.record(id)?.into_iter().collect());
        }
        let kept = self.store.history()?;
        let mut records: Vec<_> = kept.iter().filter_map(|entry| decode(&entry.record)).collect();
        let state = self.lock();
        records.retain(|record| !state.deleted.contains(&record.r#ref));
        Ok(records)
    }

    fn pin(&self, id: &str, pinned: bool) -> Result<bool, DiskError> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut record) = self.record(id)? else {
            return Ok(false);
        };
        record.pinned = pinned;
        record.generation += 1;
        let changed = self.store.change_history(id, &record.encode_to_vec())?;
        if changed {
            self.tell(BuildHistoryEventType::Complete, record);
        }
        Ok(changed)
    }

    /// Deletes a record, or hides it as long as somebody listens to it: what they were told of can still be read.
    fn delete(&self, id: &str) -> Result<bool, DiskError> {
        {
            let mut state = self.lock();
            if state.watched.contains_key(id) {
                state.deleted.insert(id.to_owned());
                return Ok(true);
            }
        }
        self.remove(id)
    }

    fn remove(&self, id: &str) -> Result<bool, DiskError> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let removed = self.store.remove_history(id)?;
        if removed {
            let record = BuildHistoryRecord {
                r#ref: id.to_owned(),
                ..BuildHistoryRecord::default()
            };
            self.tell(BuildHistoryEventType::Deleted, record);
        }
        Ok(removed)
    }

    /// Removes what is too much, the oldest first.
    fn trim(&self) -> Result<(), DiskError> {
        let kept = self.store.history()?;
        let (mut count, mut bytes) = (kept.len(), kept.iter().map(|entry| entry.bytes).sum::<u64>());
        let mut records: Vec<(SystemTime, String, u64)> = Vec::new();
        for entry in kept {
            match decode(&entry.record) {
                Some(record) if record.pinned => {}
                Some(record) => {
                    let completed = record.completed_at.as_ref().and_then(system_time);
                    records.push((
                        completed.unwrap_or(SystemTime::UNIX_EPOCH),
                        record.r#ref,
                        entry.bytes,
                    ));
                }
                // Of another version, or damaged: it cannot be listed, so it cannot be asked to go.
                None => {}
            }
        }
        records.sort();
        let limits = self.limits;
        let old = SystemTime::now().checked_sub(limits.age);
        let mut unpinned = records.len();
        for (completed, id, size) in records {
            let aged = unpinned > limits.entries && old.is_some_and(|old| completed < old);
            if !aged && count <= limits.entries_max && bytes <= limits.bytes_max {
                break;
            }
            self.delete(&id)?;
            unpinned -= 1;
            count -= 1;
            bytes = bytes.saturating_sub(size);
        }
        Ok(())
    }
}

/// Somebody listens to one build.
#[derive(Debug)]
struct Watch {
    inner: Arc<Inner>,
    id: String,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = self.inner.lock();
        if let Some(count) = state.watched.get_mut(&self.id) {
            *count -= 1;
            if *count > 0 {
                return;
            }
        }
        state.watched.remove(&self.id);
        if !state.deleted.contains(&self.id) {
            return;
        }
        drop(state);
        // Without a runtime the server is gone; the record is listed again by the next one.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (inner, id) = (Arc::clone(&self.inner), std::mem::take(&mut self.id));
            runtime.spawn_blocking(move || {
                // One that cannot be removed stays hidden.
                if inner.remove(&id).is_ok() {
                    inner.lock().deleted.remove(&id);
                }
            });
        }
    }
}

fn event(kind: BuildHistoryEventType, record: BuildHistoryRecord) -> BuildHistoryEvent {
    BuildHistoryEvent {
        r#type: kind.into(),
        record: Some(record),
    }
}

fn decode(bytes: &[u8]) -> Option<BuildHistoryRecord> {
    BuildHistoryRecord::decode(bytes).ok()
}

fn disk_status(error: &DiskError) -> Status {
    Status::internal(chain_text(error))
}

#[cfg(test)]
mod tests;
