//! What is kept of a build once it is over: the record, and beside it what it said, how it failed, its spans, and the
//! documents of what it made (`solver/llbsolver/history.go`). Layers are not kept: they are the cache's.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io::Read as _;
use std::time::SystemTime;

use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::moby::buildkit::v1::{BuildHistoryRecord, BuildResultInfo, Descriptor};
use prost::Message as _;
use rbuild_graph::progress::Event;
use rbuild_llb::progress::{system_time, timestamp};
use rbuild_oci::Digest;
use rbuild_oci::attestation::PREDICATE_TYPE;
use rbuild_oci::media_type::IN_TOTO;
use rbuild_store::Store;
use serde::Deserialize;
use tonic::Status;

use super::{logs, trace};
use crate::events::EventLog;

/// Type of the blob that says how a build failed; BuildKit misspells it too.
const ERROR_TYPE: &str = "application/vnd.googeapis.google.rpc.status+proto";
/// Largest document of an image that is kept.
const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// Most documents that are kept of one build.
const DOCUMENTS_MAX: usize = 256;
/// Values of attributes that are kept when the record would be too large with all of them.
const SHORT_VALUE_BYTES: usize = 1024;
/// Room for a record, below what the store takes.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// What a build that worked leaves.
#[derive(Debug, Clone, Default)]
pub struct Exported {
    /// What the client is told.
    pub response: HashMap<String, String>,
    /// What exporters made, by their number.
    pub results: BTreeMap<i64, rbuild_oci::Descriptor>,
    /// What can be said of how it was made.
    pub attestations: Vec<Attestation>,
}

/// A statement about one of a build's results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    /// Which: the platform's id, empty if there is only one.
    pub result: String,
    /// What it says.
    pub predicate_type: String,
    /// The bare predicate, JSON.
    pub predicate: Vec<u8>,
}

/// Blobs beside a record, each once.
#[derive(Debug, Default)]
pub(super) struct Blobs {
    pub(super) list: Vec<(Digest, Vec<u8>)>,
    names: HashSet<Digest>,
}

impl Blobs {
    fn add(&mut self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let digest = Digest::sha256(&bytes);
        let descriptor = Descriptor {
            media_type: media_type.to_owned(),
            digest: digest.to_string(),
            size: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
            annotations: HashMap::new(),
        };
        self.keep(digest, bytes);
        descriptor
    }

    fn keep(&mut self, digest: Digest, bytes: Vec<u8>) {
        if self.names.insert(digest.clone()) {
            self.list.push((digest, bytes));
        }
    }
}

/// Completes the record of a build that is over.
pub(super) fn complete(
    record: &mut BuildHistoryRecord,
    outcome: Result<&Exported, &Status>,
    log: &EventLog,
    store: &Store,
) -> Blobs {
    let mut blobs = Blobs::default();
    let now = SystemTime::now();
    record.completed_at = Some(timestamp(now));
    let events = log.all();
    Counts::of(&events).note(record);
    record.logs = Some(blobs.add(logs::MEDIA_TYPE, logs::encode(log)));
    match outcome {
        Ok(exported) => {
            record.exporter_response.clone_from(&exported.response);
            results(record, exported, store, &mut blobs);
        }
        Err(status) => failure(record, status, &mut blobs),
    }
    let started = record.created_at.as_ref().and_then(system_time).unwrap_or(now);
    let error = record.error.as_ref().map(|error| error.message.as_str());
    let spans = trace::encode(&record.r#ref, error, (started, now), &events);
    record.trace = Some(blobs.add(trace::MEDIA_TYPE, spans));
    shorten(record);
    blobs
}

fn failure(record: &mut BuildHistoryRecord, status: &Status, blobs: &mut Blobs) {
    let plain = rpc::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: Vec::new(),
    };
    let full = match status.details() {
        [] => plain.encode_to_vec(),
        details => details.to_vec(),
    };
    record.external_error = Some(blobs.add(ERROR_TYPE, full));
    record.error = Some(plain);
}

fn results(record: &mut BuildHistoryRecord, exported: &Exported, store: &Store, blobs: &mut Blobs) {
    let mut info = BuildResultInfo::default();
    for (number, descriptor) in &exported.results {
        let found = Descriptor {
            media_type: descriptor.media_type.clone(),
            digest: descriptor.digest.to_string(),
            size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
            annotations: descriptor.annotations.clone().into_iter().collect(),
        };
        // Clients that are older than several exporters read the first one here.
        info.result_deprecated.get_or_insert_with(|| found.clone());
        info.results.insert(*number, found);
        documents(store, descriptor.digest.clone(), blobs);
    }
    for attestation in &exported.attestations {
        let mut descriptor = blobs.add(IN_TOTO, attestation.predicate.clone());
        descriptor
            .annotations
            .insert(PREDICATE_TYPE.to_owned(), attestation.predicate_type.clone());
        let place = match attestation.result.as_str() {
            "" => &mut info,
            platform => record.results.entry(platform.to_owned()).or_default(),
        };
        place.attestations.push(descriptor);
    }
    // Clients read it without looking whether it is there.
    record.result = Some(info);
}

/// A document as far as it names others.
#[derive(Debug, Default, Deserialize)]
struct Document {
    #[serde(default)]
    manifests: Vec<Named>,
    config: Option<Named>,
    #[serde(default)]
    layers: Vec<Named>,
}

#[derive(Debug, Deserialize)]
struct Named {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: Digest,
}

/// Keeps an image's index, manifests, configs and attestations.
fn documents(store: &Store, top: Digest, blobs: &mut Blobs) {
    let mut wanted = VecDeque::from([(top, true)]);
    while let Some((digest, names_others)) = wanted.pop_front() {
        if blobs.list.len() >= DOCUMENTS_MAX {
            return;
        }
        // A build may name in its manifest what it did not make: that is not kept.
        let Ok(Some(file)) = store.open_blob(&digest) else {
            continue;
        };
        let mut bytes = Vec::new();
        let read = file.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes);
        if read.is_err() || bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            continue;
        }
        if names_others {
            let document: Document = serde_json::from_slice(&bytes).unwrap_or_default();
            wanted.extend(document.manifests.into_iter().map(|named| (named.digest, true)));
            wanted.extend(document.config.map(|named| (named.digest, false)));
            let statements = document.layers.into_iter();
            let statements = statements.filter(|named| named.media_type == IN_TOTO);
            wanted.extend(statements.map(|named| (named.digest, false)));
        }
        blobs.keep(digest, bytes);
    }
}

/// Leaves out long values that a client may fill at will, if the record is too large with them.
fn shorten(record: &mut BuildHistoryRecord) {
    if record.encoded_len() <= RECORD_BYTES_MAX {
        return;
    }
    let short = |_: &String, value: &mut String| value.len() <= SHORT_VALUE_BYTES;
    record.frontend_attrs.retain(short);
    record.exporter_response.retain(short);
    for exporter in &mut record.exporters {
        exporter.attrs.retain(short);
    }
    if let Some(error) = &mut record.error {
        let end = error.message.floor_char_boundary(SHORT_VALUE_BYTES);
        error.message.truncate(end);
    }
    if record.encoded_len() > RECORD_BYTES_MAX {
        record.frontend_attrs.clear();
        record.exporters.clear();
        record.exporter_response.clear();
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
        let mut states: BTreeMap<_, (bool, bool)> = BTreeMap::new();
        let mut counts = Self::default();
        for event in events {
            match event {
                Event::Vertex(vertex) => {
                    let (completed, cached) = states.entry(&vertex.digest).or_default();
                    *completed |= vertex.completed.is_some();
                    *cached |= vertex.cached;
                }
                Event::Warning(_) => counts.warnings += 1,
                Event::Status(_) | Event::Log(_) => {}
            }
        }
        for (completed, cached) in states.values() {
            counts.total += 1;
            counts.completed += i32::from(*completed);
            counts.cached += i32::from(*cached);
        }
        counts
    }

    fn note(&self, record: &mut BuildHistoryRecord) {
        record.num_total_steps = self.total;
        record.num_completed_steps = self.completed;
        record.num_cached_steps = self.cached;
        record.num_warnings = self.warnings;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_store::OpenOptions;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store"), &OpenOptions::default()).unwrap();
        (dir, store)
    }

    #[test]
    fn an_image_leaves_its_documents_and_no_layer() {
        let (_dir, store) = store();
        let lease = store.lease("test").unwrap();
        let put = |text: &str| store.put_blob(&lease, text.as_bytes()).unwrap().digest;
        let (layer, config, statement) = (put("layer"), put("{}"), put("{\"predicate\":1}"));
        let manifest = put(&format!(
            r#"{{"config":{{"digest":"{config}"}},"layers":[{{"mediaType":"x.tar","digest":"{layer}"}},{{"mediaType":"{IN_TOTO}","digest":"{statement}"}}]}}"#
        ));
        let index = put(&format!(r#"{{"manifests":[{{"digest":"{manifest}"}}]}}"#));
        let mut exported = Exported::default();
        exported
            .results
            .insert(1, rbuild_oci::Descriptor::new("index", index.clone(), 9));
        let mut record = BuildHistoryRecord::default();
        let blobs = complete(&mut record, Ok(&exported), &EventLog::default(), &store);
        let info = record.result.unwrap();
        assert_eq!(info.results[&1].digest, index.to_string());
        assert_eq!(info.result_deprecated.as_ref(), Some(&info.results[&1]));
        for kept in [&index, &manifest, &config, &statement] {
            assert!(blobs.names.contains(kept));
        }
        assert!(!blobs.names.contains(&layer));
        let logs = record.logs.unwrap();
        assert_eq!((logs.media_type.as_str(), logs.size), (logs::MEDIA_TYPE, 0));
    }

    #[test]
    fn a_failure_is_kept_with_its_details_beside_the_record() {
        let (_dir, store) = store();
        let full = rpc::Status {
            code: 2,
            message: "bad".to_owned(),
            details: vec![bollard_buildkit_proto::google::protobuf::Any::default()],
        };
        let status = Status::with_details(tonic::Code::Unknown, "bad", full.encode_to_vec().into());
        let mut record = BuildHistoryRecord::default();
        let blobs = complete(&mut record, Err(&status), &EventLog::default(), &store);
        let error = record.error.unwrap();
        assert_eq!((error.message.as_str(), error.details.len()), ("bad", 0));
        let external = record.external_error.unwrap();
        let (_, bytes) = blobs
            .list
            .iter()
            .find(|(digest, _)| digest.to_string() == external.digest)
            .unwrap();
        assert_eq!(rpc::Status::decode(&bytes[..]).unwrap(), full);
        assert!(record.result.is_none());
    }

    #[test]
    fn row48_a_record_is_small_whatever_the_client_says_of_its_build() {
        let (_dir, store) = store();
        let mut record = BuildHistoryRecord::default();
        record
            .frontend_attrs
            .insert("long".to_owned(), "x".repeat(8 << 20));
        record
            .frontend_attrs
            .insert("target".to_owned(), "app".to_owned());
        complete(
            &mut record,
            Ok(&Exported::default()),
            &EventLog::default(),
            &store,
        );
        assert!(record.encoded_len() < RECORD_BYTES_MAX);
        assert_eq!(record.frontend_attrs["target"], "app", "what is short stays");
        for number in 0..100_000 {
            record
                .frontend_attrs
                .insert(format!("key {number}"), "value".to_owned());
        }
        shorten(&mut record);
        assert!(record.encoded_len() < RECORD_BYTES_MAX);
    }
}
