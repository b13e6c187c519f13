//! ARG and ENV.

use rbuild_dockerfile::shell::Variables as _;
use rbuild_dockerfile::{ArgDefinition, KeyValue};

use crate::dispatch::{NOT_IN_ENVIRONMENT, Site};
use crate::error::FrontendError;
use crate::image;
use crate::lint::Rule;
use crate::lowering::Lowering;
use crate::validate;

pub(super) fn env(
    lowering: &mut Lowering<'_>,
    site: Site<'_>,
    pairs: &[KeyValue],
) -> Result<(), FrontendError> {
    // All values are expanded before the first one is set: `ENV a=1 b=$a` sees the old `a`.
    let expanded = lowering.expand_pairs(site, pairs)?;
    lowering.lint_legacy(site, pairs);
    let mut created_by = "ENV".to_owned();
    for (name, value) in &expanded {
        lint_secret(lowering, site, "ENV", name);
        created_by += &format!(" {name}={value}");
        let stage = &mut lowering.stages.list[site.stage];
        stage.state.env.set(name, value);
        image::set_env(&mut stage.image.config.env, name, value);
    }
    lowering.commit(site.stage, created_by, false);
    Ok(())
}

pub(super) fn arg(
    lowering: &mut Lowering<'_>,
    site: Site<'_>,
    definitions: &[ArgDefinition],
) -> Result<(), FrontendError> {
    let mut shown = Vec::with_capacity(definitions.len());
    for definition in definitions {
        let name = &definition.key;
        lint_secret(lowering, site, "ARG", name);
        // One after the other: `ARG a=1 b=$a` sees the new `a`.
        let value = match (lowering.build_args.get(name), &definition.value) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(default)) => Some(lowering.expand(site, default)?),
            (None, None) => lowering.global_args.get(name).map(str::to_owned),
        };
        shown.push(match &value {
            Some(value) => format!("{name}={value}"),
            None => name.clone(),
        });
        lowering.note_arg(site.stage, definition, value.as_deref(), site.span());
        let stage = &mut lowering.stages.list[site.stage];
        if let Some(value) = value
            .as_ref()
            .filter(|_| !NOT_IN_ENVIRONMENT.contains(&name.as_str()))
        {
            stage.state.env.set(name, value);
        }
        stage.build_args.push((name.clone(), value));
    }
    lowering.commit(site.stage, format!("ARG {}", shown.join(" ")), false);
    Ok(())
}

fn lint_secret(lowering: &mut Lowering<'_>, site: Site<'_>, instruction: &str, name: &str) {
    if validate::sounds_secret(name) {
        let message =
            format!("Do not use ARG or ENV instructions for sensitive data ({instruction} \"{name}\")");
        lowering
            .lint
            .warn(Rule::SecretsUsedInArgOrEnv, message, site.span(), site.comments());
    }
}
