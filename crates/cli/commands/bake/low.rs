//! A target as the flags of `rbuild build`.

use std::collections::BTreeMap;
use std::path::Path;

use rbuild_bake::{Entry, Target, paths};

use crate::args::{BakeArgs, LowBuild};
use crate::commands::CommandError;
use crate::env::Env;
use crate::request;

/// What else a target is built with.
pub(super) struct Extra<'a> {
    /// Where it goes for those that are built from it.
    pub(super) layout: Option<&'a Path>,
    /// What is asked instead, with its options.
    pub(super) call: Option<&'a str>,
}

fn entries<E: Entry>(entries: Option<&Vec<E>>) -> Vec<String> {
    entries.into_iter().flatten().map(Entry::to_text).collect()
}

fn pairs(fields: &BTreeMap<String, String>) -> Vec<String> {
    fields
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

/// What buildx asks for even of what is only printed: secrets that can be read, agents and keys that are there.
pub(super) fn check(target: &Target, env: &Env) -> Result<(), CommandError> {
    let low = LowBuild {
        secret: entries(target.secrets.as_ref()),
        ssh: entries(target.ssh.as_ref()),
        ..LowBuild::default()
    };
    let checked = request::secrets(&low, env).and_then(|_| request::ssh(&low, env));
    checked.map(drop).map_err(|error| CommandError::failed(&error))
}

/// The flags that build `target`.
pub(super) fn of(target: &Target, args: &BakeArgs, extra: &Extra<'_>) -> LowBuild {
    let context = target.context.clone().unwrap_or_else(|| ".".to_owned());
    let dockerfile = target
        .dockerfile
        .clone()
        .unwrap_or_else(|| "Dockerfile".to_owned());
    let dockerfile = match dockerfile.strip_prefix("cwd://") {
        Some(path) => {
            let path = Path::new(path);
            std::path::absolute(path)
                .unwrap_or_else(|_| path.to_owned())
                .display()
                .to_string()
        }
        None if paths::is_remote(&context) || dockerfile.starts_with('/') => dockerfile,
        None => paths::clean(&format!("{context}/{dockerfile}")),
    };
    let contexts = target.contexts.iter().map(|(name, value)| {
        let value = value
            .strip_prefix("cwd://")
            .map_or_else(|| value.clone(), paths::clean);
        format!("{name}={value}")
    });
    let mut output = entries(target.outputs.as_ref());
    output.retain(|text| text != "type=cacheonly");
    let is_asked = extra.call.is_some() || target.call.is_some();
    if let Some(dir) = extra.layout.filter(|_| !is_asked) {
        if output.is_empty() && !target.is_linked {
            output.push("type=image".to_owned());
        }
        output.push(format!("type=oci,tar=false,dest={}", dir.display()));
    }
    let mut low = LowBuild {
        context,
        file: Some(dockerfile),
        dockerfile_text: target.dockerfile_inline.clone().filter(|text| !text.is_empty()),
        target: target.target.clone(),
        build_arg: pairs(&target.args),
        build_context: contexts.collect(),
        platform: target.platforms.clone().unwrap_or_default(),
        pull: target.pull,
        // Empty ones count for none in a bake file only (`buildx/bake/bake.go`, `removeDupesStr`).
        tag: target
            .tags
            .iter()
            .flatten()
            .filter(|tag| !tag.is_empty())
            .cloned()
            .collect(),
        label: pairs(&target.labels),
        annotation: target.annotations.clone().unwrap_or_default(),
        output,
        progress: args.progress.clone(),
        network: target.network.clone().unwrap_or_else(|| "default".to_owned()),
        secret: entries(target.secrets.as_ref()),
        ssh: entries(target.ssh.as_ref()),
        add_host: pairs(&target.extra_hosts),
        allow: target.entitlements.clone().unwrap_or_default(),
        shm_size: target.shm_size.clone(),
        ulimit: target.ulimits.clone().unwrap_or_default(),
        no_cache: target.no_cache,
        no_cache_filter: target.no_cache_filter.clone().unwrap_or_default(),
        cache_from: entries(target.cache_from.as_ref()),
        cache_to: entries(target.cache_to.as_ref()),
        call: extra.call.map(str::to_owned).or_else(|| target.call.clone()),
        attest: if target.is_linked {
            Vec::new()
        } else {
            entries(target.attest.as_ref())
        },
        ..LowBuild::default()
    };
    let resources = target.resources.iter().flat_map(|resources| pairs(&resources.0));
    low.step_rules.resource = resources.collect();
    low.unserved.policy.clone_from(&args.policy);
    low
}
