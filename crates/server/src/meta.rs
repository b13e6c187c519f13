//! What a client's front end wants to know of images, and what it wants to have said.

use std::collections::BTreeMap;

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    ResolveSourceGitResponse, ResolveSourceHttpResponse, ResolveSourceImageResponse,
    ResolveSourceMetaRequest, ResolveSourceMetaResponse, WarnRequest,
};
use bollard_buildkit_proto::pb;
use rbuild_builder::ops::OpError;
use rbuild_builder::provenance::capture::ImageSource;
use rbuild_builder::provenance::purl::Kind;
use rbuild_builder::source_meta::{self, MetaQuestion, SourceMeta};
use rbuild_builder::source_policy::{self, SourcePolicies};
use rbuild_frontend::NotAnImage;
use rbuild_graph::progress::{Event, Warning};
use rbuild_graph::{SourceOp, SourceText};
use rbuild_llb::decode_platform;
use rbuild_oci::{Digest, Platform, Reference};
use tonic::Status;

use crate::attestation_chain;
use crate::errors::{op_status, refused};
use crate::running::Running;
use crate::scope::Scope;

/// Scheme of images.
const IMAGE: &str = "docker-image://";

/// A question for a source.
#[derive(Debug)]
pub struct Asked {
    /// Which.
    pub source: SourceOp,
    /// What of it.
    pub question: MetaQuestion,
    /// Rules for it, beside those of the build.
    pub policies: SourcePolicies,
}

impl Asked {
    /// Reads a question.
    ///
    /// # Errors
    /// `invalid_argument` without a source, `unimplemented` for what is not found out here.
    pub fn of(request: ResolveSourceMetaRequest) -> Result<Self, Status> {
        let policies = crate::policy::read(request.source_policies.clone())?;
        let source = request.source.clone();
        let source = source.ok_or_else(|| Status::invalid_argument("source is required"))?;
        Ok(Self {
            source: own_source(source),
            question: question(&request)?,
            policies,
        })
    }
}

/// What a client wants to know.
///
/// # Errors
/// `unimplemented` for what is not found out here.
pub fn question(request: &ResolveSourceMetaRequest) -> Result<MetaQuestion, Status> {
    let missing = |what: &str| Status::unimplemented(format!("{what} of sources is not supported yet"));
    let image = request.image.clone().unwrap_or_default();
    if request
        .http
        .as_ref()
        .is_some_and(|http| http.checksum_request.is_some())
    {
        return Err(missing("a checksum with a suffix"));
    }
    Ok(MetaQuestion {
        platform: request.platform.as_ref().map(decode_platform),
        pull: request.resolve_mode == "pull",
        no_config: image.no_config,
        attestations: (image.attestation_chain || !image.resolve_attestations.is_empty())
            .then_some(image.resolve_attestations),
        git_objects: request.git.as_ref().is_some_and(|git| git.return_object),
        log_name: request.log_name.clone(),
    })
}

/// An image as a source.
///
/// # Errors
/// A refusal for a name that is none.
pub fn image_source(reference: &str) -> Result<SourceOp, Status> {
    let parsed = Reference::parse(reference).map(Reference::or_latest);
    let parsed = parsed.map_err(|error| {
        let reason = error.in_docker_words();
        refused(format!("invalid context name {reference}: {reason}"))
    })?;
    Ok(SourceOp {
        identifier: format!("{IMAGE}{parsed}"),
        attrs: BTreeMap::new(),
    })
}

/// The reference of a source that is an image.
#[must_use]
pub fn reference(source: &SourceOp) -> &str {
    source
        .identifier
        .strip_prefix(IMAGE)
        .unwrap_or(&source.identifier)
}

/// An image that a policy made something else.
#[must_use]
pub(crate) fn not_an_image(reference: &str, updated: &SourceOp) -> Status {
    let error = NotAnImage {
        reference: reference.to_owned(),
        updated: updated.identifier.clone(),
    };
    Status::unknown(error.to_string())
}

/// Finds out what is asked, of the source that the policies make of the one that is named.
///
/// # Errors
/// Those of the policies and of the source.
pub async fn resolve(
    running: &Running,
    scope: &Scope,
    asked: Asked,
) -> Result<(SourceOp, SourceMeta), Status> {
    let job = &running.job;
    let policies = asked.policies.before(&job.settings.policies);
    let platform = asked.question.platform.as_ref();
    let found = async {
        let judged = source_policy::judge(job, &policies, &asked.source, platform).await;
        let source = judged.map_err(OpError::PolicyOfMeta)?.unwrap_or(asked.source);
        let meta = source_meta::resolve(job, &source, &asked.question).await?;
        if let Some(image) = &meta.image {
            scope.add_images(looked_at(&source, platform, image.digest.clone()));
        }
        Ok((source, meta))
    };
    tokio::select! {
        found = found => found.map_err(op_status),
        () = running.cancel.cancelled() => Err(Status::cancelled("context canceled")),
    }
}

/// An image that was looked at, as provenance lists it.
fn looked_at(source: &SourceOp, platform: Option<&Platform>, digest: Digest) -> Option<ImageSource> {
    let (kind, name) = match source.identifier.split_once("://")? {
        ("docker-image", name) => (Kind::Docker, name),
        (_, name) => (Kind::Oci, name),
    };
    let host = Platform::host();
    ImageSource::of(kind, name, Some(platform.unwrap_or(&host)), Some(digest))
}

/// What was found out, for the client.
#[must_use]
pub fn response(source: &SourceOp, meta: SourceMeta) -> ResolveSourceMetaResponse {
    let time = |seconds: i64| Timestamp { seconds, nanos: 0 };
    ResolveSourceMetaResponse {
        source: Some(pb::SourceOp {
            identifier: source.identifier.clone(),
            attrs: source.attrs.clone().into_iter().collect(),
        }),
        image: meta.image.map(|image| ResolveSourceImageResponse {
            digest: image.digest.to_string(),
            config: image.config,
            attestation_chain: image.attestations.map(attestation_chain::to_proto),
        }),
        git: meta.git.map(|git| ResolveSourceGitResponse {
            checksum: git.checksum,
            r#ref: git.reference,
            commit_checksum: git.commit_checksum.unwrap_or_default(),
            commit_object: git.commit_object,
            tag_object: git.tag_object,
        }),
        http: meta.http.map(|http| ResolveSourceHttpResponse {
            checksum: http.digest.to_string(),
            filename: http.filename,
            last_modified: http.modified.map(time),
            checksum_response: None,
        }),
    }
}

/// A source of the API.
#[must_use]
pub(crate) fn own_source(source: pb::SourceOp) -> SourceOp {
    SourceOp {
        identifier: source.identifier,
        attrs: source.attrs.into_iter().collect(),
    }
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
    if let Some(info) = &request.info {
        running.events.add_source(&SourceText {
            filename: info.filename.clone(),
            text: info.data.clone(),
            language: info.language.clone(),
            definition: None,
        });
    }
    let ranges: Vec<(u32, u32)> = request
        .ranges
        .iter()
        .map(|range| (line(range.start), line(range.end)))
        .collect();
    running.job.sink.send(Event::Warning(Warning {
        vertex,
        level: u32::try_from(request.level).unwrap_or(0),
        short: text(request.short),
        detail: request.detail.into_iter().map(text).collect(),
        url: request.url,
        location: request.info.map(|info| (info.filename, ranges)),
    }));
    Ok(())
}
