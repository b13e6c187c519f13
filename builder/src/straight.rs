//! A final stage's last copies go straight into the layer's blob: nothing of the build reads the files again, so they
//! are never made (`rbuild_fileops::pack_copies`). The layer is then known by its blob, as one of a base image is that was
//! not unpacked, and becomes a directory when a later build goes on from it.
//!
//! Owns when that is done (every output is an image with layers of one form) and how such layers are kept in records.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_fileops::{SourceTree, StraightCopy, StraightError, pack_copies};
use rbuild_graph::{FileActionKind, VertexDigest};
use rbuild_layer::{LayerFormat, PackError};
use rbuild_oci::{Descriptor, ImageConfig, Timestamp};
use rbuild_snapshotter::{BlobInfo, PackLayerError, Snapshotter};
use rbuild_store::{LayerEntry, LayerId, Lease};

use crate::export::Export;
use crate::export::image::layer_format;
use crate::images::{Origin, RemoteLayer};
use crate::job::Job;
use crate::ops::file::known_owner;
use crate::request::{Attestations, BuildRequest, OnError, OutputKind};
use crate::solve::{Reporter, SharedVertex};
use crate::start_check;
use crate::time::{from_ms, now_ms};

/// In a record's descriptor: when the layer was packed straight from what was copied.
const PACKED_AT: &str = "rbuild.packed-at";

/// The form that all outputs of `request` want layers in, if nothing but these layers is wanted of its results.
#[must_use]
pub(crate) fn form_of(request: &BuildRequest, exports: &[Export]) -> Option<LayerFormat> {
    let is_image = |kind: &OutputKind| {
        matches!(
            kind,
            OutputKind::Image { .. } | OutputKind::Oci(_) | OutputKind::Docker(_)
        )
    };
    let mut forms = exports.iter().map(|export| {
        let output = &export.output;
        let is_plain = is_image(&output.kind) && !output.rewrite_timestamp;
        is_plain.then(|| layer_format(output))
    });
    let first = forms.next()??;
    let is_alone = request.cache_to.is_empty()
        && request.attestations == Attestations::default()
        && request.rules.on_error == OnError::Fail
        && forms.all(|form| form == Some(first));
    // With a table of contents the layer's own tar is not what the blob is known by.
    let has_toc = matches!(first, LayerFormat::EStargz(_));
    (is_alone && !has_toc).then_some(first)
}

/// What is wanted of a vertex whose result is only exported.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    form: LayerFormat,
    /// Where the image's program may be: a layer that has it is looked into (`crate::start_check`).
    programs: Vec<PathBuf>,
}

impl Wanted {
    /// A layer in `form`, of an image with this config.
    pub(crate) fn new(form: LayerFormat, config: &ImageConfig) -> Self {
        Self {
            form,
            programs: start_check::programs(&config.to_bytes()),
        }
    }
}

/// The vertices of a build whose results are only exported.
#[derive(Debug, Default)]
pub(crate) struct Finals(Mutex<HashMap<VertexDigest, Wanted>>);

impl Finals {
    pub(crate) fn note(&self, vertex: VertexDigest, wanted: Wanted) {
        let mut finals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        finals.insert(vertex, wanted);
    }

    pub(crate) fn of(&self, vertex: &VertexDigest) -> Option<Wanted> {
        let finals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        finals.get(vertex).cloned()
    }
}

/// Why copies were not packed: they are made as files then, which tells what is wrong if something is.
#[derive(Debug, thiserror::Error)]
enum NotPacked {
    #[error(transparent)]
    Copies(#[from] StraightError),
    #[error(transparent)]
    Layer(#[from] PackLayerError),
}

impl From<PackError> for NotPacked {
    fn from(error: PackError) -> Self {
        Self::Layer(error.into())
    }
}

/// A copy and what it reads, with the database of its owner if that is not the file system it changes.
pub(crate) type CopyParts<'a> = (
    &'a FileActionKind,
    &'a Option<Arc<SourceTree>>,
    &'a Option<Arc<SourceTree>>,
);

/// Packs the layer that `actions` make on top of `below`; `None` if they are to be made as files.
pub(crate) fn pack<'a>(
    snapshotter: &Snapshotter,
    lease: &Lease,
    below: &[LayerId],
    actions: impl Iterator<Item = CopyParts<'a>>,
    wanted: &Wanted,
) -> Option<BlobInfo> {
    let view = snapshotter.view(lease, below).ok()?;
    let copies = actions.map(|(kind, source, database)| {
        let users = match database.as_deref() {
            None | Some(SourceTree::Context(_)) => view.root(),
            Some(SourceTree::Snapshot(other)) => other,
        };
        let FileActionKind::Copy(action) = kind else {
            return None;
        };
        Some(StraightCopy {
            action,
            source: source.as_deref()?,
            owner: known_owner(kind, users)?,
        })
    });
    let copies: Vec<StraightCopy<'_>> = copies.collect::<Option<_>>()?;
    let packed = snapshotter.pack_written(lease, wanted.form, rbuild_sys::process::processors(), |out| {
        let written = pack_copies(&copies, view.root(), &wanted.programs, out)?;
        Ok::<_, NotPacked>(written.entries)
    });
    packed.ok()
}

/// Notes that the layer of `blob` on top of `below` can be had from it, and gives its id.
pub(crate) fn note(job: &Job, blob: &BlobInfo, below: &[LayerId]) -> LayerId {
    let descriptor = Descriptor::new(&blob.media_type, blob.digest.clone(), blob.size);
    let created = from_ms(now_ms());
    let id = LayerId::of_diff_id(&blob.diff_id);
    insert(job, &id, descriptor, below, created);
    id
}

/// The descriptor of such a layer as a record has it.
pub(crate) fn recorded(remote: &RemoteLayer) -> Descriptor {
    let mut descriptor = remote.descriptor.clone();
    if let Some(created) = remote.created.filter(|_| remote.is_own) {
        descriptor
            .annotations
            .insert(PACKED_AT.to_owned(), created.to_string());
    }
    descriptor
}

/// Notes where a layer of a record can be had, on top of `below`, if it is such a layer.
pub(crate) fn note_recorded(job: &Job, entry: &LayerEntry, below: &[LayerId]) {
    let Some(text) = entry
        .descriptor
        .as_deref()
        .filter(|text| text.contains(PACKED_AT))
    else {
        return;
    };
    let Ok(mut descriptor) = serde_json::from_str::<Descriptor>(text) else {
        return;
    };
    let Some(created) = descriptor.annotations.remove(PACKED_AT) else {
        return;
    };
    // What neither has a directory nor a blob is a miss.
    let is_here = |id: &LayerId| {
        let held = job
            .lease
            .hold_layers(&job.engine.form_name, std::slice::from_ref(id));
        held.is_ok_and(|held| held.iter().all(Option::is_some))
    };
    if job.lease.hold_blob(&descriptor.digest).unwrap_or(false) || is_here(&entry.id) {
        insert(job, &entry.id, descriptor, below, created.parse().ok());
    }
}

fn insert(job: &Job, id: &LayerId, descriptor: Descriptor, below: &[LayerId], created: Option<Timestamp>) {
    let Some(diff_id) = id.diff_id() else {
        return;
    };
    let shown = Reporter::internal(&job.sink, "[internal] unpack what was copied");
    let remote = RemoteLayer {
        descriptor,
        diff_id,
        below: below.to_vec(),
        created,
        origin: Origin::Store,
        is_own: true,
        vertex: Arc::new(SharedVertex::new(shown)),
    };
    let mut remotes = job.remotes.lock().unwrap_or_else(PoisonError::into_inner);
    remotes.entry(id.clone()).or_insert_with(|| Arc::new(remote));
}
