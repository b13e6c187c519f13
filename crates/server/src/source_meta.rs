//! What a client's front end wants to know of a source (`ResolveSourceMeta`): the policies' say, then the digest and
//! config of an image, the commit of a repository, or the digest and time of a file behind a URL.

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    ResolveSourceGitResponse, ResolveSourceHttpResponse, ResolveSourceImageResponse,
    ResolveSourceMetaRequest, ResolveSourceMetaResponse,
};
use bollard_buildkit_proto::pb;
use rbuild_builder::error::chain_text;
use rbuild_builder::source_meta::{GitMeta, HttpMeta, SourceMeta, ask};
use rbuild_builder::source_policy::PolicyError;
use rbuild_frontend::{ResolvedImage, redact_credentials};
use rbuild_graph::SourceOp;
use tonic::Status;

use crate::running::Running;
use crate::{meta, policy};

/// Finds out what is asked. The answer names the source that it is about: the policies may have replaced it.
///
/// # Errors
/// `invalid_argument` for no source, `unimplemented` for digests that only policies ask for; policies that deny it; those
/// of its kind.
pub async fn answer(
    running: &Running,
    request: ResolveSourceMetaRequest,
) -> Result<ResolveSourceMetaResponse, Status> {
    let missing = || Status::invalid_argument("source is required");
    let asked = request.source.ok_or_else(missing)?;
    if request.http.is_some_and(|http| http.checksum_request.is_some()) {
        return Err(Status::unimplemented(
            "digests of another kind are not supported yet",
        ));
    }
    let asked = SourceOp {
        identifier: asked.identifier,
        attrs: asked.attrs.into_iter().collect(),
    };
    let denied = |error: PolicyError| {
        let text = format!("could not resolve image due to policy: {}", chain_text(&error));
        Status::unknown(text)
    };
    let own = policy::read(request.source_policies)?;
    let source = own.apply(&asked).map_err(denied)?.unwrap_or(asked);
    let policies = &running.job.settings.policies;
    let source = policies.apply(&source).map_err(denied)?.unwrap_or(source);
    let mut answer = ResolveSourceMetaResponse {
        source: Some(to_proto(&source)),
        ..ResolveSourceMetaResponse::default()
    };
    if let Some(reference) = source.identifier.strip_prefix("docker-image://") {
        let asked = meta::Image {
            reference: reference.to_owned(),
            platform: request.platform,
            resolve_mode: request.resolve_mode,
            log_name: request.log_name,
        };
        answer.image = Some(of_image(meta::image(running, asked).await?));
        return Ok(answer);
    }
    if source.identifier.starts_with("oci-layout://") {
        let found = meta::layout(running, &source, request.platform, request.log_name).await?;
        answer.image = Some(of_image(found));
        return Ok(answer);
    }
    let title = if request.log_name.is_empty() {
        let shown = redact_credentials(&source.identifier);
        format!("resolve image config for {shown}")
    } else {
        request.log_name
    };
    let objects = request.git.is_some_and(|git| git.return_object);
    let found = tokio::select! {
        found = ask(&running.job, &source, objects, &title) => found,
        () = running.cancel.cancelled() => return Err(Status::cancelled("the build was stopped")),
    };
    match found.map_err(|error| Status::unknown(chain_text(&error)))? {
        SourceMeta::Git(found) => answer.git = Some(of_git(found)),
        SourceMeta::Http(found) => answer.http = Some(of_http(found)),
        SourceMeta::Other => {}
    }
    Ok(answer)
}

fn to_proto(source: &SourceOp) -> pb::SourceOp {
    pb::SourceOp {
        identifier: source.identifier.clone(),
        attrs: source.attrs.clone().into_iter().collect(),
    }
}

fn of_image(found: ResolvedImage) -> ResolveSourceImageResponse {
    ResolveSourceImageResponse {
        digest: found.digest.to_string(),
        config: found.config,
        attestation_chain: None,
    }
}

fn of_git(found: GitMeta) -> ResolveSourceGitResponse {
    ResolveSourceGitResponse {
        checksum: found.checksum,
        r#ref: found.reference,
        commit_checksum: found.commit_checksum.unwrap_or_default(),
        commit_object: found.commit_object,
        tag_object: found.tag_object.unwrap_or_default(),
    }
}

fn of_http(found: HttpMeta) -> ResolveSourceHttpResponse {
    ResolveSourceHttpResponse {
        checksum: found.digest.to_string(),
        filename: found.name,
        last_modified: found.modified.map(|seconds| Timestamp { seconds, nanos: 0 }),
        checksum_response: None,
    }
}
