//! Builds that ran, newest last: what `buildctl debug histories` and `buildx history` list. Kept in memory: a new
//! server begins with none.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest, SolveRequest,
    UpdateBuildHistoryRequest,
};
use futures_util::{Stream, StreamExt as _};
use rbuild_graph::progress::Event;
use tokio::sync::broadcast;
use tonic::Status;

use crate::events::EventLog;

/// Records kept; the oldest that is not pinned goes first (BuildKit's default `maxEntries`).
const RECORDS_MAX: usize = 50;
/// Changes that a slow listener may be behind.
const CHANGES_MAX: usize = 256;

/// Builds that ran.
#[derive(Debug)]
pub struct History {
    entries: Mutex<VecDeque<Entry>>,
    changes: broadcast::Sender<BuildHistoryEvent>,
}

#[derive(Debug)]
struct Entry {
    record: BuildHistoryRecord,
    /// What it said, once it is over.
    events: Option<Arc<EventLog>>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
            changes: broadcast::Sender::new(CHANGES_MAX),
        }
    }
}

impl History {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, kind: BuildHistoryEventType, record: BuildHistoryRecord) {
        // Nobody listens most of the time.
        self.changes
            .send(BuildHistoryEvent {
                r#type: kind.into(),
                record: Some(record),
            })
            .ok();
    }

    /// A build began.
    pub fn begin(&self, request: &SolveRequest) {
        let record = BuildHistoryRecord {
            r#ref: request.r#ref.clone(),
            frontend: request.frontend.clone(),
            frontend_attrs: request.frontend_attrs.clone(),
            exporters: request.exporters.clone(),
            created_at: Some(now()),
            ..BuildHistoryRecord::default()
        };
        {
            let mut entries = self.lock();
            entries.retain(|entry| entry.record.r#ref != record.r#ref);
            entries.push_back(Entry {
                record: record.clone(),
                events: None,
            });
            while entries.len() > RECORDS_MAX {
                let old = entries
                    .iter()
                    .position(|entry| !entry.record.pinned && entry.events.is_some());
                let Some(old) = old else { break };
                entries.remove(old);
            }
        }
        self.tell(BuildHistoryEventType::Started, record);
    }

    /// A build is over.
    pub fn end(
        &self,
        id: &str,
        outcome: Result<&std::collections::HashMap<String, String>, &Status>,
        events: &Arc<EventLog>,
    ) {
        let counts = Counts::of(&events.all());
        let record = {
            let mut entries = self.lock();
            let Some(entry) = entries.iter_mut().find(|entry| entry.record.r#ref == id) else {
                return;
            };
            let record = &mut entry.record;
            record.completed_at = Some(now());
            record.num_total_steps = counts.total;
            record.num_completed_steps = counts.completed;
            record.num_cached_steps = counts.cached;
            record.num_warnings = counts.warnings;
            match outcome {
                Ok(response) => record.exporter_response.clone_from(response),
                Err(status) => {
                    record.error = Some(rpc::Status {
                        code: status.code().into(),
                        message: status.message().to_owned(),
                        details: Vec::new(),
                    });
                }
            }
            entry.events = Some(Arc::clone(events));
            record.clone()
        };
        self.tell(BuildHistoryEventType::Complete, record);
    }

    /// What a build said, if it is over.
    #[must_use]
    pub fn events(&self, id: &str) -> Option<Arc<EventLog>> {
        let entries = self.lock();
        let entry = entries.iter().find(|entry| entry.record.r#ref == id)?;
        entry.events.clone()
    }

    /// The records a client asks for, and, unless it wants to leave early, what changes afterwards.
    ///
    /// # Errors
    /// `unimplemented` for filters.
    pub fn listen(
        &self,
        request: BuildHistoryRequest,
    ) -> Result<Pin<Box<dyn Stream<Item = BuildHistoryEvent> + Send>>, Status> {
        if !request.filter.is_empty() {
            return Err(Status::unimplemented("the history does not take filters yet"));
        }
        let changes = self.changes.subscribe();
        let wanted = move |event: &BuildHistoryEvent| {
            let record = event.record.as_ref();
            let named =
                request.r#ref.is_empty() || record.is_some_and(|record| record.r#ref == request.r#ref);
            let active = record.is_some_and(|record| record.completed_at.is_none());
            named && (active || !request.active_only)
        };
        let mut known: Vec<BuildHistoryEvent> = self
            .lock()
            .iter()
            .map(|entry| BuildHistoryEvent {
                r#type: match entry.record.completed_at {
                    Some(_) => BuildHistoryEventType::Complete.into(),
                    None => BuildHistoryEventType::Started.into(),
                },
                record: Some(entry.record.clone()),
            })
            .filter(&wanted)
            .collect();
        if let Ok(limit @ 1..) = usize::try_from(request.limit) {
            known.drain(..known.len().saturating_sub(limit));
        }
        let known = futures_util::stream::iter(known);
        if request.early_exit {
            return Ok(Box::pin(known));
        }
        let later = futures_util::stream::unfold(changes, |mut changes| async move {
            loop {
                match changes.recv().await {
                    Ok(change) => return Some((change, changes)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        let later = later.filter(move |event| std::future::ready(wanted(event)));
        Ok(Box::pin(known.chain(later)))
    }

    /// Pins, unpins or deletes a record.
    ///
    /// # Errors
    /// `not_found`.
    pub fn update(&self, request: &UpdateBuildHistoryRequest) -> Result<(), Status> {
        let mut entries = self.lock();
        let found = entries
            .iter()
            .position(|entry| entry.record.r#ref == request.r#ref);
        let Some(found) = found else {
            return Err(Status::not_found(format!(
                "failed to retrieve build history record {}: not found",
                request.r#ref
            )));
        };
        if request.delete {
            let removed = entries.remove(found);
            drop(entries);
            if let Some(entry) = removed {
                self.tell(BuildHistoryEventType::Deleted, entry.record);
            }
        } else if !request.finalize {
            entries[found].record.pinned = request.pinned;
        }
        Ok(())
    }
}

fn now() -> Timestamp {
    let ms = rbuild_builder::time::now_ms();
    Timestamp {
        seconds: ms.div_euclid(1000),
        nanos: i32::try_from(ms.rem_euclid(1000) * 1_000_000).unwrap_or(0),
    }
}

/// What a build did, in numbers.
#[derive(Debug, Default)]
struct Counts {
    total: i32,
    completed: i32,
    cached: i32,
    warnings: i32,
}

impl Counts {
    fn of(events: &[Event]) -> Self {
        let mut last = std::collections::BTreeMap::new();
        let mut counts = Self::default();
        for event in events {
            match event {
                Event::Vertex(vertex) => {
                    last.insert(&vertex.digest, vertex);
                }
                Event::Warning(_) => counts.warnings += 1,
                Event::Status(_) | Event::Log(_) => {}
            }
        }
        for vertex in last.values() {
            counts.total += 1;
            counts.completed += i32::from(vertex.completed.is_some());
            counts.cached += i32::from(vertex.cached);
        }
        counts
    }
}
