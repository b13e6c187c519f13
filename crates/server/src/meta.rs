//! What a client's front end wants to know of images, and what it wants to have said.

use bollard_buildkit_proto::moby::buildkit::v1::frontend::WarnRequest;
use bollard_buildkit_proto::pb;
use rbuild_builder::error::chain_text;
use rbuild_builder::resolve::Resolver;
use rbuild_frontend::{
    ImageRequest, ImageResolveMode, LayoutPlace, LayoutRequest, MetaResolver as _, ResolvedImage,
};
use rbuild_graph::SourceOp;
use rbuild_graph::progress::{Event, Sink as _, Warning};
use rbuild_oci::{Digest, Platform, Reference};
use tonic::Status;

use crate::running::Running;

/// A question for an image.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its name.
    pub reference: String,
    /// For which platform; the host's if absent.
    pub platform: Option<pb::Platform>,
    /// `pull`, `local`, `default`.
    pub resolve_mode: String,
    /// What is shown meanwhile.
    pub log_name: String,
}

/// Finds an image.
///
/// # Errors
/// `invalid_argument` for a name that is none, `not_found` and others as the registry says.
pub async fn image(running: &Running, asked: Image) -> Result<ResolvedImage, Status> {
    let reference = Reference::parse(&asked.reference)
        .map(Reference::or_latest)
        .map_err(|error| {
            Status::invalid_argument(format!("could not parse reference {}: {error}", asked.reference))
        })?;
    let platform = asked
        .platform
        .map_or_else(Platform::host, |found| own_platform(&found));
    let log_name = if asked.log_name.is_empty() {
        format!("resolve image config for {reference}")
    } else {
        asked.log_name
    };
    let resolver = Resolver::new(&running.job, &running.cancel);
    let request = ImageRequest {
        reference: reference.to_string(),
        platform,
        mode: if asked.resolve_mode == "pull" {
            ImageResolveMode::ForcePull
        } else {
            ImageResolveMode::Default
        },
        log_name,
    };
    let found = resolver.image_config(&request).await;
    found.map_err(|error| Status::unknown(chain_text(&error)))
}

/// Finds an image of a client's content store, which `source` names.
///
/// # Errors
/// `invalid_argument` for a name without digest, others as the client says.
pub async fn layout(
    running: &Running,
    source: &SourceOp,
    platform: Option<pb::Platform>,
    log_name: String,
) -> Result<ResolvedImage, Status> {
    let name = source.identifier.split_once("://").map_or("", |(_, name)| name);
    let digest = name.rsplit_once('@').map_or("", |(_, digest)| digest);
    let digest = Digest::parse(digest).map_err(|error| {
        Status::invalid_argument(format!("could not parse oci-layout reference {name:?}: {error}"))
    })?;
    let attr = |name: &str| source.attrs.get(name).cloned().unwrap_or_default();
    let request = LayoutRequest {
        name: name.to_owned(),
        place: LayoutPlace::Store {
            session: attr("oci.session"),
            store: attr("oci.store"),
            digest,
        },
        platform: platform.map_or_else(Platform::host, |found| own_platform(&found)),
        log_name: if log_name.is_empty() {
            format!("resolve image config for {name}")
        } else {
            log_name
        },
    };
    let resolver = Resolver::new(&running.job, &running.cancel);
    let found = resolver.layout_config(&request).await;
    found.map_err(|error| Status::unknown(chain_text(&error)))
}

/// A platform of the API.
#[must_use]
pub fn own_platform(found: &pb::Platform) -> Platform {
    let set = |text: &String| (!text.is_empty()).then(|| text.clone());
    Platform {
        os: found.os.clone(),
        architecture: found.architecture.clone(),
        variant: set(&found.variant),
        os_version: set(&found.os_version),
        os_features: found.os_features.clone(),
    }
    .normalized()
}

/// Shows a warning of the client's front end.
///
/// # Errors
/// `invalid_argument` for a digest that is none.
pub fn warn(running: &Running, request: WarnRequest) -> Result<(), Status> {
    let vertex = Digest::parse(&request.digest)
        .map_err(|error| Status::invalid_argument(format!("{:?}: {error}", request.digest)))?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let line = |position: Option<pb::Position>| {
        position.map_or(0, |position| u32::try_from(position.line).unwrap_or(0))
    };
    let ranges: Vec<(u32, u32)> = request
        .ranges
        .iter()
        .map(|range| (line(range.start), line(range.end)))
        .collect();
    running.events.send(Event::Warning(Warning {
        vertex,
        level: u32::try_from(request.level).unwrap_or(0),
        short: text(request.short),
        detail: request.detail.into_iter().map(text).collect(),
        url: request.url,
        location: request.info.map(|info| (info.filename, ranges)),
    }));
    Ok(())
}
