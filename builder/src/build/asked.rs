//! What a request asks of the front end: platforms, the form of the result, options.

use rbuild_frontend::{FrontendOptions, ImageResolveMode};
use rbuild_graph::NetMode;
use rbuild_llb::attrs;
use rbuild_oci::Platform;

use crate::context::Opened;
use crate::entry_point;
use crate::error::RequestError;
use crate::request::BuildRequest;

/// The platforms asked for; `None` is the own one.
pub(super) fn platforms(request: &BuildRequest) -> Result<Vec<Option<Platform>>, RequestError> {
    let parse = |text: &String| {
        if text == "local" {
            return Ok(Some(Platform::host()));
        }
        let parsed = Platform::parse(text).map_err(|source| RequestError::Platform {
            text: text.clone(),
            source,
        })?;
        Ok(Some(parsed.normalized()))
    };
    if request.platforms.is_empty() {
        return Ok(vec![None]);
    }
    request.platforms.iter().map(parse).collect()
}

/// Whether the result is an index, be it of one image; what build arguments ask of the front end besides is looked at too.
pub(super) fn is_index(request: &BuildRequest, many: bool) -> Result<bool, RequestError> {
    let argument = |name: &str| request.build_args.get(name).map(String::as_str);
    attrs::check_disable_file_op(argument(attrs::DISABLE_FILE_OP))?;
    Ok(attrs::multi_platform("", argument(attrs::MULTI_PLATFORM), many)?)
}

/// What the front end is to know of `request` for one platform.
pub(super) fn options(
    request: &BuildRequest,
    opened: &Opened,
    target_platform: Option<Platform>,
) -> FrontendOptions {
    FrontendOptions {
        dockerfile: opened.dockerfile.clone(),
        definition: entry_point::of_request(request, opened),
        filename: opened.filename.clone(),
        target: request.target.clone(),
        build_args: request.build_args.clone(),
        labels: request.labels.clone(),
        target_platform,
        remote_context: opened.remote.clone(),
        build_contexts: request.build_contexts.clone(),
        no_cache: request.no_cache.clone(),
        extra_hosts: request.extra_hosts.clone(),
        hostname: request
            .build_args
            .get("BUILDKIT_SANDBOX_HOSTNAME")
            .cloned()
            .unwrap_or_default(),
        network: request.network.unwrap_or(NetMode::Unset),
        shm_size_bytes: request.shm_size_bytes.unwrap_or(0),
        ulimits: request.ulimits.clone(),
        cgroup_parent: request.cgroup_parent.clone().unwrap_or_default(),
        linux_resources: request.linux_resources.clone(),
        ignore_patterns: opened.ignore_patterns.clone(),
        ignore_place: opened.ignore_place.clone(),
        image_resolve_mode: if request.pull {
            ImageResolveMode::ForcePull
        } else {
            ImageResolveMode::Default
        },
        cache_id_namespace: request
            .build_args
            .get("BUILDKIT_CACHE_MOUNT_NS")
            .cloned()
            .unwrap_or_default(),
        own_checks: request.own_checks,
        ..FrontendOptions::default()
    }
}
