//! Who made which graphs, across builds: a graph that one front end's answer had and that is given to another as an input
//! brings its request along (`solver/llbsolver/provenance_store.go`). Only of builds that still run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bollard_buildkit_proto::pb;
use rbuild_builder::provenance::request::Record;

use crate::scope::head;

/// Most records of all builds: those that come later are not known as inputs.
const RECORDS_MAX: usize = 100_000;

/// Requests by the digest of what they made.
#[derive(Debug, Default)]
pub struct Producers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    by_head: HashMap<String, Vec<(u64, Record)>>,
    count: usize,
    next: u64,
}

/// A record that is known until this is dropped.
#[derive(Debug)]
pub struct Registration {
    producers: Arc<Producers>,
    head: String,
    number: u64,
}

impl Producers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that `record` made `definition`.
    #[must_use]
    pub fn register(self: &Arc<Self>, definition: &pb::Definition, record: Record) -> Option<Registration> {
        let head = head(definition)?;
        let mut state = self.lock();
        if state.count >= RECORDS_MAX {
            return None;
        }
        state.count += 1;
        state.next += 1;
        let number = state.next;
        state
            .by_head
            .entry(head.clone())
            .or_default()
            .push((number, record));
        Some(Registration {
            producers: Arc::clone(self),
            head,
            number,
        })
    }

    /// The request that made `definition`, without the client's above it; nothing if nobody did, or several did by
    /// different requests.
    #[must_use]
    pub fn find(&self, definition: &pb::Definition) -> Option<Record> {
        let state = self.lock();
        let mut records = state.by_head.get(&head(definition)?)?.iter().map(|(_, record)| {
            let mut record = record.clone();
            record.request.root = None;
            record
        });
        let first = records.next()?;
        records.all(|record| record == first).then_some(first)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.producers.lock();
        if let Some(records) = state.by_head.get_mut(&self.head) {
            records.retain(|(number, _)| *number != self.number);
            if records.is_empty() {
                state.by_head.remove(&self.head);
            }
            state.count -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use rbuild_builder::provenance::capture::Capture;
    use rbuild_builder::provenance::request::Request;

    fn definition(target: &str) -> pb::Definition {
        let op = pb::Op {
            inputs: vec![pb::Input {
                digest: target.to_owned(),
                index: 0,
            }],
            ..pb::Op::default()
        };
        pb::Definition {
            def: vec![op.encode_to_vec()],
            ..pb::Definition::default()
        }
    }

    fn record(frontend: &str) -> Record {
        Request::new(frontend, &std::collections::BTreeMap::new()).located(&Capture::default())
    }

    #[test]
    fn a_graph_is_known_for_as_long_as_its_build_runs() {
        let producers = Arc::new(Producers::default());
        let kept = producers.register(&definition("a"), record("f"));
        assert_eq!(producers.find(&definition("a")), Some(record("f")));
        assert_eq!(producers.find(&definition("b")), None);
        let other = producers.register(&definition("a"), record("g"));
        assert_eq!(
            producers.find(&definition("a")),
            None,
            "which of them is not known"
        );
        drop(other);
        assert_eq!(producers.find(&definition("a")), Some(record("f")));
        drop(kept);
        assert_eq!(producers.find(&definition("a")), None);
        assert_eq!(producers.lock().count, 0);
    }

    #[test]
    fn row48_a_definition_that_is_none_has_no_producer() {
        let producers = Arc::new(Producers::default());
        let broken = pb::Definition {
            def: vec![b"\xff".to_vec()],
            ..pb::Definition::default()
        };
        assert!(producers.register(&broken, record("f")).is_none());
        assert_eq!(producers.find(&pb::Definition::default()), None);
    }
}
