//! Exporters: what is made of a solved result. One file for each place an image or a tree can go.

pub(crate) mod archive_out;
mod attest;
pub mod attested_tree;
pub mod config;
pub mod destination;
pub mod image;
pub mod layout;
pub mod layout_reset;
pub mod push;
pub mod store;
pub mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use rbuild_oci::{Descriptor, ImageConfig, Reference, Timestamp};
use rbuild_registry::RegistryError;
use rbuild_store::{ImageError as StoreImageError, ImageRecord, Store};
use serde_json::Value as Json;

pub use image::{BuildResult, PlatformSubject, Subject};

use crate::error::RequestError;
use crate::job::Job;
use crate::ops::blocking;
use crate::request::{BuildOutcome, BuildRequest, Dangling, Epoch, LayoutDestination, Output, OutputKind};
use crate::solve::Reporter;
use crate::stored;
use crate::time::{now_ms, to_ms};
use destination::{DestinationError, Writer};
use image::{ImageExportError, assemble};
use layout::{Flavor, LayoutError, Product};
use tree::TreeExportError;

/// Why a result could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The image could not be made.
    #[error(transparent)]
    Image(#[from] ImageExportError),
    /// The layout could not be written.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The layout directory could not be written.
    #[error(transparent)]
    LayoutDir(#[from] layout::LayoutDirError),
    /// The file could not be written.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// The client's content store did not take it.
    #[error(transparent)]
    Store(#[from] store::StoreExportError),
    /// The tree could not be written.
    #[error(transparent)]
    Tree(#[from] TreeExportError),
    /// A name could not be taken away.
    #[error(transparent)]
    Unname(#[from] rbuild_store::StoreError),
    /// The name could not be kept.
    #[error("name image {name}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: StoreImageError,
    },
    /// `docker load` of old engines knows no indexes.
    #[error("docker exporter does not currently support exporting manifest lists")]
    DockerIndex,
    /// A push failed.
    #[error("failed to push {name}")]
    Push {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: RegistryError,
    },
    /// A blob of the image is not in the store.
    #[error("failed to push {name}: blob {digest} is gone")]
    Blob {
        /// The name.
        name: String,
        /// The blob.
        digest: rbuild_oci::Digest,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl ExportError {
    /// Whether what failed was to write where the output goes, and not into the store.
    pub(crate) const fn is_of_output(&self) -> bool {
        matches!(
            self,
            Self::Layout(_)
                | Self::LayoutDir(_)
                | Self::Destination(_)
                | Self::Tree(
                    TreeExportError::TakeOut(_)
                        | TreeExportError::Open { .. }
                        | TreeExportError::Destination(_)
                )
        )
    }
}

/// One export, checked before anything is built.
#[derive(Debug)]
pub struct Export {
    pub(crate) output: Output,
    pub(crate) names: Vec<Reference>,
}

/// What a request exports: its outputs, and its tags into the store where no image output has names of its own.
///
/// # Errors
/// [`RequestError`] for names that are none and pushes without one.
pub fn plan(request: &BuildRequest) -> Result<Vec<Export>, RequestError> {
    let tags = references(&request.tags)?;
    let mut exports = Vec::new();
    for output in &request.outputs {
        exports.push(plan_output(output, &tags)?);
    }
    if request.outputs.is_empty() {
        exports.push(Export {
            output: store_output(),
            names: tags,
        });
    }
    Ok(exports)
}

/// One output, which has `tags` if it has no names of its own.
///
/// # Errors
/// [`RequestError`] for names that are none, pushes without one, and a time that cannot be written.
pub fn plan_output(output: &Output, tags: &[Reference]) -> Result<Export, RequestError> {
    let own = references(&output.names)?;
    let names = if own.is_empty() { tags.to_vec() } else { own };
    if names.is_empty() && matches!(output.kind, OutputKind::Image { push: true, .. }) {
        return Err(RequestError::PushWithoutName);
    }
    if let Epoch::At(seconds) = output.epoch {
        Timestamp::from_unix(seconds, 0).ok_or(RequestError::Epoch(seconds))?;
    }
    Ok(Export {
        output: output.clone(),
        names,
    })
}

fn references(names: &[String]) -> Result<Vec<Reference>, RequestError> {
    let parse = |text: &String| {
        let parsed = Reference::parse(text).map(Reference::or_latest);
        parsed.map_err(|source| RequestError::Tag {
            text: text.clone(),
            source,
        })
    };
    names.iter().map(parse).collect()
}

fn store_output() -> Output {
    let mut output = Output::new(OutputKind::Image {
        push: false,
        push_by_digest: false,
        insecure: false,
    });
    output.dangling = Some(Dangling::unnamed());
    output
}

/// Runs every export in order and notes what was made.
///
/// # Errors
/// [`ExportError`] of the first that fails.
pub fn all<'a>(
    job: &'a Arc<Job>,
    result: &'a BuildResult,
    exports: Vec<Export>,
    outcome: &'a mut BuildOutcome,
) -> BoxFuture<'a, Result<(), ExportError>> {
    Box::pin(all_unboxed(job, result, exports, outcome))
}

async fn all_unboxed(
    job: &Arc<Job>,
    result: &BuildResult,
    exports: Vec<Export>,
    outcome: &mut BuildOutcome,
) -> Result<(), ExportError> {
    for export in exports {
        let title = match &export.output.kind {
            OutputKind::Image { .. } => "exporting to image",
            OutputKind::Oci(_) => "exporting to oci image format",
            OutputKind::Docker(_) => "exporting to docker image format",
            OutputKind::Local(_) => "exporting to client directory",
            OutputKind::Tar(_) => "exporting to client tarball",
            OutputKind::CacheOnly => continue,
        };
        let mut reporter = Reporter::internal(&job.sink, title);
        reporter.start(None);
        for warning in &export.output.warnings {
            reporter.warn(warning.clone(), Vec::new(), String::new(), None);
        }
        let own = with_epoch(result, export.output.epoch);
        match one(job, own.as_ref().unwrap_or(result), &export, &reporter, outcome).await {
            Ok(()) => reporter.done(),
            Err(error) => {
                reporter.failed(crate::error::chain_text(&error));
                return Err(error);
            }
        }
    }
    Ok(())
}

/// `result` with the time that an exporter asks for instead of the build's; nothing if it asks for none.
fn with_epoch(result: &BuildResult, epoch: Epoch) -> Option<BuildResult> {
    let epoch = match epoch {
        Epoch::Unset => return None,
        Epoch::At(seconds) => Timestamp::from_unix(seconds, 0),
        Epoch::Off => None,
    };
    let mut result = result.clone();
    for part in &mut result.subjects {
        part.subject.epoch = epoch;
    }
    Some(result)
}

async fn one(
    job: &Arc<Job>,
    result: &BuildResult,
    export: &Export,
    reporter: &Reporter,
    outcome: &mut BuildOutcome,
) -> Result<(), ExportError> {
    match &export.output.kind {
        OutputKind::Image {
            push,
            push_by_digest,
            insecure,
        } => {
            let image = assemble(job, result, export, reporter).await?;
            note(&image, &export.names, outcome);
            if export.output.is_stored {
                name_in_store(job, &image, export, reporter)?;
            }
            if *push {
                let how = push::How {
                    by_digest: *push_by_digest,
                    insecure: *insecure,
                };
                push::image(job, &image, &export.names, how, reporter).await?;
            }
            Ok(())
        }
        OutputKind::Oci(to) => layout_out(job, result, export, Flavor::Oci, to, reporter, outcome).await,
        OutputKind::Docker(to) => {
            layout_out(job, result, export, Flavor::Docker, to, reporter, outcome).await
        }
        OutputKind::Local(destination) => {
            let _step = reporter.step("copying files");
            Ok(tree::to_place(job, result, destination, &export.output).await?)
        }
        OutputKind::Tar(destination) => {
            let _step = reporter.step("sending tarball");
            Ok(tree::to_tar(job, result, destination, &export.output).await?)
        }
        OutputKind::CacheOnly => Ok(()),
    }
}

async fn layout_out(
    job: &Arc<Job>,
    result: &BuildResult,
    export: &Export,
    flavor: Flavor,
    to: &LayoutDestination,
    reporter: &Reporter,
    outcome: &mut BuildOutcome,
) -> Result<(), ExportError> {
    if flavor == Flavor::Docker && image::needs_index(result, &export.output) {
        return Err(ExportError::DockerIndex);
    }
    let mut image = assemble(job, result, export, reporter).await?;
    let created = created(result);
    image
        .top
        .annotations
        .entry(layout::CREATED.to_owned())
        .or_insert_with(|| created.clone());
    if let [only] = result.subjects.as_slice() {
        image.top.platform = only.platform.clone().filter(|_| image.index_bytes.is_none());
    }
    note(&image, &export.names, outcome);
    if let LayoutDestination::Store(place) = to {
        let _step = reporter.step("sending blobs");
        return Ok(store::write(job, &image, place).await?);
    }
    let _step = reporter.step("sending tarball");
    let (open, names) = (opener(&job.engine.store), export.names.clone());
    match to.clone() {
        LayoutDestination::Dir(dir) => {
            blocking(move || Ok(layout::write_dir(&image, &names, &created, open, &dir)?)).await
        }
        LayoutDestination::Store(_) => Ok(()),
        LayoutDestination::Tar(destination) => {
            let mut writer = Writer::to(&*job.client, &destination, &stream_metadata(outcome)).await?;
            blocking(move || {
                let named = layout::Named {
                    product: &image,
                    names: &names,
                };
                layout::write_tar(&[named], flavor, &created, &BTreeSet::new(), open, &mut writer)?;
                Ok(writer.commit()?)
            })
            .await
        }
    }
}

/// When the image was made, to the second.
fn created(result: &BuildResult) -> String {
    let epoch = result.subjects.iter().find_map(|part| part.subject.epoch);
    let created = epoch.or_else(|| crate::time::from_ms(now_ms() / 1000 * 1000));
    created.map(|time| time.to_string()).unwrap_or_default()
}

/// Opens blobs of the store.
pub(crate) fn opener(
    store: &Store,
) -> impl Fn(&rbuild_oci::Digest) -> std::io::Result<std::fs::File> + Send + 'static {
    let store = store.clone();
    move |digest| {
        let file = store.open_blob(digest).map_err(std::io::Error::other)?;
        file.ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }
}

/// What a client is told of the image it gets: texts as they are, everything else as JSON.
fn stream_metadata(outcome: &BuildOutcome) -> BTreeMap<String, String> {
    let text = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let entries = outcome.metadata.iter();
    entries.map(|(key, value)| (key.clone(), text(value))).collect()
}

/// Names the image in the store. One without a name has to be found by its digest: the id that is printed must mean
/// something to `tag`, `push`, `save` and `run`.
fn name_in_store(
    job: &Job,
    product: &Product,
    export: &Export,
    reporter: &Reporter,
) -> Result<(), ExportError> {
    let created = product.images.first().and_then(|image| {
        let config = ImageConfig::parse(&image.config_bytes).ok()?;
        config.created
    });
    let record = ImageRecord {
        digest: product.top.digest.clone(),
        media_type: product.top.media_type.clone(),
        manifest_size: product.top.size,
        config: config_of(product).map(|config| config.digest.clone()),
        size: product.size_bytes(),
        created_ms: created.map_or(0, to_ms),
        tagged_ms: now_ms(),
    };
    let store = &job.engine.store;
    let set = |name: String| {
        let set = store.set_image(&name, &record);
        set.map_err(|source| ExportError::Name { name, source })
    };
    for name in &export.names {
        let _step = reporter.step(&format!("naming to {name}"));
        set(name.to_string())?;
        if export.output.name_canonical {
            set(format!("{name}@{}", record.digest))?;
        }
    }
    let unnamed = stored::dangling_name(&record.digest);
    if !export.names.is_empty() {
        store.remove_image(&unnamed)?;
    }
    match &export.output.dangling {
        Some(dangling) if export.names.is_empty() || !dangling.empty_only => {
            set(format!("{}@{}", dangling.prefix, record.digest))
        }
        _ => Ok(()),
    }
}

/// The config, of a single image.
fn config_of(product: &Product) -> Option<&Descriptor> {
    match (&product.index_bytes, product.images.as_slice()) {
        (None, [image]) => Some(&image.config),
        _ => None,
    }
}

/// Notes an image for the caller, under the keys of `--metadata-file`.
fn note(product: &Product, names: &[Reference], outcome: &mut BuildOutcome) {
    outcome.manifest_digest = Some(product.top.digest.clone());
    outcome.config_digest = config_of(product).map(|config| config.digest.clone());
    outcome.image_size_bytes = product.size_bytes();
    outcome.names = names.iter().map(ToString::to_string).collect();
    let mut put = |key: &str, value: Json| outcome.metadata.insert(key.to_owned(), value);
    put("containerimage.digest", product.top.digest.as_str().into());
    put(
        "containerimage.descriptor",
        serde_json::to_value(&product.top).unwrap_or(Json::Null),
    );
    if !names.is_empty() {
        put("image.name", outcome.names.join(",").into());
    }
    let config = "containerimage.config.digest";
    match config_of(product) {
        Some(found) => put(config, found.digest.as_str().into()),
        // What an output before this one noted is no part of this image.
        None => outcome.metadata.remove(config),
    };
}
