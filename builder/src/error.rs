//! A failed build as data: what went wrong, where in the Dockerfile, and what may help. Wording for people is the
//! command line's; the words here are what it prints.

use std::error::Error;

use rbuild_fileops::MissingSource;
use rbuild_frontend::FrontendError;
use rbuild_graph::{Graph, SourceLocation, SourceRange, SourceText, VertexDigest};
pub use rbuild_registry::chain_text;
use rbuild_store::{DiskError, IndexError, StoreError};
use rbuild_sys::RootFdError;

mod class;

pub use class::class_of;

use crate::build::AttestError;
use crate::cache_transfer::export::CacheExportError;
use crate::cache_transfer::import::CacheImportError;
use crate::cdi::CdiError;
use crate::context::OpenContextError;
use crate::export::ExportError;
use crate::failed::FailedVertex;
use crate::front_ends::{FrontEndFailed, GivenDockerfileError};
use crate::images::layout::LayoutReadError;
use crate::ops::OpError;
use crate::ops::exec::foreign;

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The context or the Dockerfile could not be opened.
    #[error(transparent)]
    Context(#[from] OpenContextError),
    /// The Dockerfile does not become a graph.
    #[error("{error}")]
    Frontend {
        /// What is wrong.
        #[source]
        error: FrontendError,
        /// The Dockerfile.
        source_text: SourceText,
    },
    /// A front end that is an image failed.
    #[error("front end {image}")]
    ForeignFrontEnd {
        /// Its image.
        image: String,
        /// What it says.
        #[source]
        source: FrontEndFailed,
        /// The line that asks for it.
        place: Option<Place>,
    },
    /// The Dockerfile could not be put where front ends look for it.
    #[error(transparent)]
    GivenDockerfile(#[from] GivenDockerfileError),
    /// An OCI layout for a front end has no such image.
    #[error(transparent)]
    Layout(#[from] LayoutReadError),
    /// A step failed.
    #[error("{error}")]
    Step {
        /// What went wrong.
        #[source]
        error: Box<OpError>,
        /// Which step.
        vertex: Option<VertexDigest>,
        /// The lines it comes from.
        place: Option<Place>,
        /// What it left, in builds that keep that.
        failed: Option<Box<FailedVertex>>,
    },
    /// The result could not be exported.
    #[error(transparent)]
    Export(Box<ExportError>),
    /// A cache was to be read over the network, which may not be used.
    #[error("{0}")]
    CacheImport(#[source] Box<CacheImportError>),
    /// The cache could not be exported.
    #[error(transparent)]
    CacheExport(Box<CacheExportError>),
    /// The request asks for what is not there.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The host's certificates.
    #[error(transparent)]
    HostCa(#[from] crate::ops::host_ca::HostCaError),
    /// Nothing can be said of the result.
    #[error(transparent)]
    Attest(Box<AttestError>),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is built cannot be told in LLB.
    #[error(transparent)]
    Encode(#[from] rbuild_llb::EncodeError),
    /// Any of these, of which something was kept to be looked at.
    #[error("{error}")]
    Left {
        /// What went wrong.
        #[source]
        error: Box<BuildError>,
        /// What there is to look at, or why there is nothing.
        note: String,
    },
    /// The user stopped it.
    #[error("context canceled")]
    Canceled,
}

impl From<ExportError> for BuildError {
    fn from(error: ExportError) -> Self {
        Self::Export(Box::new(error))
    }
}

impl From<AttestError> for BuildError {
    fn from(error: AttestError) -> Self {
        Self::Attest(Box::new(error))
    }
}

impl From<CacheImportError> for BuildError {
    fn from(error: CacheImportError) -> Self {
        Self::CacheImport(Box::new(error))
    }
}

impl From<CacheExportError> for BuildError {
    fn from(error: CacheExportError) -> Self {
        Self::CacheExport(Box::new(error))
    }
}

/// What a request cannot ask for.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Not a platform.
    #[error("invalid platform {text:?}")]
    Platform {
        /// As written.
        text: String,
        /// Why.
        #[source]
        source: rbuild_oci::PlatformError,
    },
    /// A tag that is no reference.
    #[error("invalid tag {text:?}")]
    Tag {
        /// As written.
        text: String,
        /// Why.
        #[source]
        source: rbuild_oci::ReferenceError,
    },
    /// A push without a name.
    #[error("tag is needed when pushing to registry")]
    PushWithoutName,
    /// A time of an output, seconds since 1970, that no document of an image can hold (RFC 3339).
    #[error("source-date-epoch {0} is not in the years 0 to 9999")]
    Epoch(i64),
    /// A build argument that the front end reads.
    #[error(transparent)]
    Attribute(#[from] rbuild_llb::attrs::AttrError),
}

/// Lines of a Dockerfile.
#[derive(Debug, Clone)]
pub struct Place {
    /// The file.
    pub source: SourceText,
    /// First and last line, 1-based.
    pub lines: (u32, u32),
    /// All that is known of it: texts, and the places in each, in the order in which they were given. Empty for a place
    /// that is lines of one text and nothing else.
    pub all: Vec<(SourceText, Vec<SourceRange>)>,
}

impl Place {
    /// Where a vertex of `graph` comes from.
    #[must_use]
    pub fn of(graph: &Graph, vertex: &VertexDigest) -> Option<Self> {
        let span = graph.get(vertex)?.meta.span()?;
        let source = graph.sources.get(span.source)?.clone();
        let locations = &graph.get(vertex)?.meta.locations;
        let all = locations.iter().filter_map(|location| {
            let text = graph.sources.get(location.source)?.clone();
            Some((text, location.ranges.clone()))
        });
        Some(Self {
            source,
            lines: (span.start, span.end),
            all: all.collect(),
        })
    }
}

impl From<DiskError> for BuildError {
    fn from(error: DiskError) -> Self {
        Self::Store(error.into())
    }
}

impl From<IndexError> for BuildError {
    fn from(error: IndexError) -> Self {
        Self::Store(error.into())
    }
}

impl BuildError {
    /// The whole failure in one line, cause behind cause, as BuildKit's clients print it.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Step { error, vertex, .. } => {
                let text = chain_text(&**error);
                let OpError::Hash(hash) = error.itself() else {
                    return format!("failed to build: failed to solve: {text}");
                };
                // BuildKit names the snapshot it looked into; the vertex says as much.
                let place = vertex.as_ref().map_or("", |vertex| &vertex.0.hex()[..12]);
                let tried = text
                    .split_once("failed to calculate checksum")
                    .map_or("", |(words, _)| words);
                format!(
                    "failed to build: failed to solve: {tried}failed to compute cache key: \
                     failed to calculate checksum of ref {place}: {}",
                    chain_text(hash)
                )
            }
            Self::Frontend { error, .. } => {
                let text = chain_text(&*error.kind);
                // What may have been meant stands behind all causes.
                let hint = error.suggestion.as_ref();
                let hint = hint
                    .map(|name| format!(" (did you mean {name}?)"))
                    .unwrap_or_default();
                format!("failed to build: failed to solve: {text}{hint}")
            }
            Self::ForeignFrontEnd { source, .. } => format!("failed to build: failed to solve: {source}"),
            Self::Left { error, .. } => error.message(),
            Self::Canceled => "failed to build: failed to solve: context canceled".to_owned(),
            // What BuildKit's clients find before they ask for a solve.
            Self::Request(_) | Self::HostCa(_) | Self::Encode(_) => {
                format!("failed to build: {}", chain_text(self))
            }
            Self::Context(error) if !error.is_of_the_dockerfile() => {
                format!("failed to build: {}", chain_text(self))
            }
            other => format!("failed to build: failed to solve: {}", chain_text(other)),
        }
    }

    /// The lines of the Dockerfile it comes from.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        match self {
            Self::Step { place, .. } | Self::ForeignFrontEnd { place, .. } => place.clone(),
            Self::Frontend { error, source_text } => {
                let span = error.span()?;
                let lines =
                    |span: &rbuild_dockerfile::Span| SourceLocation::lines(0, span.start, span.end).ranges;
                let all = error.spans.iter().map(|span| (source_text.clone(), lines(span)));
                Some(Place {
                    source: source_text.clone(),
                    lines: (span.start, span.end),
                    all: all.collect(),
                })
            }
            Self::Left { error, .. } => error.place(),
            _ => None,
        }
    }

    /// What may help, a line each.
    #[must_use]
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Context(OpenContextError::NoDockerfile { hint, .. }) => vec![hint.clone()],
            Self::Step { error, .. } => step_hints(error),
            Self::Frontend { error, .. } => error.hint().into_iter().collect(),
            Self::Left { error, note } => {
                let mut hints = error.hints();
                hints.push(note.clone());
                hints
            }
            Self::Context(OpenContextError::Dockerfile {
                source: RootFdError::NotRegular(_),
                ..
            }) => {
                vec!["it is a directory or a device; name a file with -f".to_owned()]
            }
            Self::Export(error) if error.is_of_output() => is_disk_full(self)
                .then(|| "the file system that the output goes to is full".to_owned())
                .into_iter()
                .collect(),
            other => store_hints(other),
        }
    }

    /// Whether the user stopped the build.
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        matches!(self, Self::Canceled)
            || matches!(self, Self::Step { error, .. } if matches!(**error, OpError::Canceled))
    }
}

fn step_hints(error: &OpError) -> Vec<String> {
    if let Some(missing) = error.missing_source() {
        return missing_hints(missing);
    }
    match error {
        OpError::Process { hint, .. } => hint.iter().cloned().collect(),
        OpError::Sandbox { .. } => foreign::machine_of(error)
            .and_then(foreign::hint)
            .into_iter()
            .collect(),
        OpError::Entitlement(name, _) => vec![format!("allow it with --allow {name}")],
        OpError::Device(CdiError::NotAllowed(names)) => {
            let allow = |name: &String| format!("--allow device={name}");
            let options: Vec<String> = names.iter().map(allow).collect();
            vec![format!("allow it with {}", options.join(" "))]
        }
        OpError::NotRun { why, .. } => vec![why.clone()],
        OpError::Mount { dest, source } => {
            let place = format!("this is about the mount at {dest:?}");
            std::iter::once(place).chain(step_hints(source)).collect()
        }
        OpError::During { source, .. } => step_hints(source),
        OpError::Secret(crate::secrets::SecretError::NotFound(id)) => {
            vec![format!(
                "give it with --secret id={id},src=FILE or --secret id={id},env=NAME"
            )]
        }
        other => store_hints(other),
    }
}

/// What helps where the store cannot be written.
fn store_hints(error: &(dyn Error + 'static)) -> Vec<String> {
    let hint = if is_disk_full(error) {
        "the store's file system is full; `rbuild prune` frees what no image needs"
    } else if is_caused(error, says_read_only) {
        "the store's file system cannot be written; name another place with --root or RBUILD_ROOT"
    } else {
        return Vec::new();
    };
    vec![hint.to_owned()]
}

/// Where a missing source was looked for; its own text names the ignore rule and the nearest name.
fn missing_hints(missing: &MissingSource) -> Vec<String> {
    let place = match &missing.context {
        Some(context) => format!("looked for {:?} in the build context {:?}", missing.path, context),
        None => format!(
            "looked for {:?} in the file system of the stage or image copied from",
            missing.path
        ),
    };
    let rule = missing.ignored.as_ref().map(|rule| {
        format!(
            "{} leaves it out in line {}: {}",
            rule.file, rule.line, rule.pattern
        )
    });
    std::iter::once(place).chain(rule).collect()
}

/// Whether one of the causes is that there is no space.
fn is_disk_full(error: &(dyn Error + 'static)) -> bool {
    is_caused(error, rbuild_store::says_full)
}

fn says_read_only(cause: &(dyn Error + 'static)) -> bool {
    cause
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::ReadOnlyFilesystem)
}

/// Whether an error or one of its causes says so.
fn is_caused(error: &(dyn Error + 'static), says: impl Fn(&(dyn Error + 'static)) -> bool) -> bool {
    let mut cause = Some(error);
    while let Some(found) = cause {
        if says(found) {
            return true;
        }
        cause = found.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_recognised_below_other_errors() {
        #[derive(Debug, thiserror::Error)]
        #[error("write")]
        struct Write(#[source] std::io::Error);
        assert!(is_disk_full(&Write(std::io::ErrorKind::StorageFull.into())));
        assert!(!is_disk_full(&Write(std::io::ErrorKind::NotFound.into())));
        // Errors that are passed on as they are show no type of those below.
        let full = DiskError::Full {
            path: "/store".into(),
            needed_bytes: None,
            free_bytes: 0,
            source: std::io::ErrorKind::StorageFull.into(),
        };
        let error = OpError::Store(full.into());
        assert!(is_disk_full(&error));
        assert_eq!(step_hints(&error).len(), 1);
    }
}
