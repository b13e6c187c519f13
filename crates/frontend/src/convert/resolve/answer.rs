//! What the answers about base images and named contexts make of the stages that waited for them: a vertex as their base,
//! its config, and the arguments that a base brings.

use std::collections::BTreeMap;

use rbuild_dockerfile::ignore::read_patterns;
use rbuild_graph::{Op, SourceOp};
use rbuild_oci::{ImageConfig, Platform, Reference};

use super::{Answer, IGNORE_FILE, Job};
use crate::context::{ContextSource, NamedContext};
use crate::env::Env;
use crate::error::{FrontendError, FrontendErrorKind};
use crate::lowering::{Lowering, NewVertex, json};
use crate::options::ImageResolveMode;
use crate::origins::Made;
use crate::remote::{self, redact_credentials};
use crate::resolver::ResolvedImage;
use crate::stage::{StageIndex, shown_platform};
use crate::{image, validate};

/// Gives a stage its base.
pub(super) fn apply(
    lowering: &mut Lowering<'_>,
    job: Job,
    answer: Option<Answer>,
) -> Result<(), FrontendError> {
    let index = job.stage;
    let (root, config) = match (&job.context, answer) {
        (Some(context), answer) => context_base(lowering, context, &job.platform, answer)?,
        (None, Some(Answer::Image(found))) => return image_base(lowering, job, &found),
        (None, _) => unreachable!("an image was asked for, and the answer to that is an image"),
    };
    let stage = &mut lowering.stages.list[index];
    stage.state.root = root;
    stage.platform = Some(job.platform.clone());
    if let Some(config) = config {
        if job.replaces_stage && !config.architecture.is_empty() && !config.os.is_empty() {
            stage.platform = Some(config.platform());
        }
        // BuildKit takes the time from the config of a context before it is the base of anything.
        stage.image = ImageConfig {
            created: None,
            ..config
        };
        stage.base_image = Some(stage.image.clone()).filter(|_| !job.replaces_stage);
    } else if job.replaces_stage {
        // As BuildKit leaves it: no image can be made of it or on it unless its platform is asked for.
        stage.image = ImageConfig::default();
        stage.base_image = None;
    } else {
        stage.image = image::empty(&job.platform);
        stage.base_image = Some(stage.image.clone());
    }
    if job.replaces_stage {
        take_settings(lowering, index);
    }
    let stage = &mut lowering.stages.list[index];
    stage.dispatched = job.replaces_stage || stage.unregistered;
    Ok(())
}

/// A context in a stage's place gives its variables, directory and user to what is built on it.
fn take_settings(lowering: &mut Lowering<'_>, index: StageIndex) {
    let stage = &mut lowering.stages.list[index];
    for entry in &stage.image.config.env {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        stage.state.env.set(name, value);
    }
    if !stage.image.config.working_dir.is_empty() {
        stage.state.dir.clone_from(&stage.image.config.working_dir);
    }
    stage.state.user.clone_from(&stage.image.config.user);
}

fn context_base(
    lowering: &mut Lowering<'_>,
    context: &NamedContext,
    platform: &Platform,
    answer: Option<Answer>,
) -> Result<(Option<Made>, Option<ImageConfig>), FrontendError> {
    let name = &context.name;
    let mut vertex = NewVertex::default();
    let op = match (&context.source, answer) {
        (ContextSource::Image(image), Some(Answer::Image(found))) => {
            vertex.name = format!("[context {name}] {image}");
            vertex.platform = Some(platform.clone());
            let config = parse_config(image, &found.config)?;
            let op = image_source(&found, ImageResolveMode::Default)?;
            return Ok((Some(lowering.add(Op::Source(op), vertex)), Some(config)));
        }
        (ContextSource::Layout { directory, .. }, Some(Answer::Image(found))) => {
            vertex.name = format!("[context {name}] OCI load from client");
            vertex.platform = Some(platform.clone());
            let config = parse_config(directory, &found.config)?;
            let op = SourceOp {
                identifier: format!("oci-layout://{name}@{}", found.digest),
                attrs: BTreeMap::from([("oci.store".to_owned(), directory.clone())]),
            };
            return Ok((Some(lowering.add(Op::Source(op), vertex)), Some(config)));
        }
        (ContextSource::Directory(_), Some(Answer::IgnoreFile(ignore))) => {
            vertex.name = format!("[context {name}] load from client");
            let attrs = local_attrs(name, "", ignore.as_deref())?;
            let identifier = format!("local://context:{name}");
            let made = lowering.add(Op::Source(SourceOp { identifier, attrs }), vertex);
            lowering.local_paths.watch(&made.edge, false);
            return Ok((Some(made), None));
        }
        (
            ContextSource::Local {
                name: local,
                session,
                shared_key,
            },
            Some(Answer::IgnoreFile(ignore)),
        ) => {
            vertex.name = format!("[context {name}] load from client");
            let mut attrs = local_attrs(name, shared_key, ignore.as_deref())?;
            attrs.insert("local.session".to_owned(), session.clone());
            let identifier = format!("local://{local}");
            let made = lowering.add(Op::Source(SourceOp { identifier, attrs }), vertex);
            lowering.local_paths.watch(&made.edge, true);
            return Ok((Some(made), None));
        }
        (
            ContextSource::Store {
                session,
                store,
                reference,
                ..
            },
            Some(Answer::Image(found)),
        ) => {
            vertex.name = format!("[context {name}] OCI load from client");
            vertex.platform = Some(platform.clone());
            let config = parse_config(store, &found.config)?;
            let op = SourceOp {
                identifier: format!("oci-layout://{reference}"),
                attrs: BTreeMap::from([
                    ("oci.session".to_owned(), session.clone()),
                    ("oci.store".to_owned(), store.clone()),
                ]),
            };
            return Ok((Some(lowering.add(Op::Source(op), vertex)), Some(config)));
        }
        (ContextSource::Input(input), _) => {
            let config = input.config.as_ref().map(|bytes| parse_config(name, bytes));
            return Ok((lowering.add_input(input)?, config.transpose()?));
        }
        (ContextSource::Git { url, text }, _) => {
            vertex.name = remote::git_name(text);
            url.to_source()
        }
        (ContextSource::Http(url), _) => {
            vertex.name = format!("[context {name}] {}", redact_credentials(url));
            remote::context_file(url)
        }
        (ContextSource::Scratch, _) => return Ok((None, None)),
        _ => unreachable!("each kind of context gets the answer to its own question"),
    };
    Ok((Some(lowering.add(Op::Source(op), vertex)), None))
}

/// Attributes of the source that brings a context's ignore file alone.
pub(super) fn ignore_file_attrs(name: &str, session: &str) -> BTreeMap<String, String> {
    let attrs = [
        ("local.followpaths", json(&[IGNORE_FILE.to_owned()])),
        ("local.sharedkeyhint", format!("context:{name}-{IGNORE_FILE}")),
        ("local.session", session.to_owned()),
        ("local.differ", "none".to_owned()),
    ];
    attrs
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect()
}

fn local_attrs(
    name: &str,
    shared_key: &str,
    ignore: Option<&[u8]>,
) -> Result<BTreeMap<String, String>, FrontendError> {
    let hint = format!("context:{name}-{shared_key}");
    let mut attrs = BTreeMap::from([("local.sharedkeyhint".to_owned(), hint)]);
    let patterns =
        read_patterns(ignore.unwrap_or_default()).map_err(|source| FrontendErrorKind::ContextIgnoreFile {
            name: name.to_owned(),
            source,
        })?;
    if !patterns.is_empty() {
        attrs.insert("local.excludepatterns".to_owned(), json(&patterns));
    }
    Ok(attrs)
}

fn image_base(lowering: &mut Lowering<'_>, job: Job, found: &ResolvedImage) -> Result<(), FrontendError> {
    let index = job.stage;
    let config = parse_config(&job.written, &found.config)?;
    let op = image_source(found, lowering.options.image_resolve_mode)?;
    let mut platform = job.platform;
    let stage = &lowering.stages.list[index];
    if stage.platform.is_none() && lowering.implicit_target {
        let build = &lowering.options.build_platform;
        let is = |p: &Platform| p.os == config.os && p.architecture == config.architecture;
        if !is(&platform) && is(build) {
            platform = build.clone();
        }
    }
    let is_empty = config.rootfs.diff_ids.is_empty() && config.history.iter().all(|entry| entry.empty_layer);
    let root = if is_empty {
        None
    } else {
        let text = format!("FROM {}", op.identifier.trim_start_matches("docker-image://"));
        let shown = shown(lowering, &platform, &Env::default());
        let stage = &mut lowering.stages.list[index];
        let name = stage.numbered(&text, false, &shown);
        let (span, comments, written) = (stage.span, stage.comments.clone(), stage.source.clone());
        validate::base_platform(
            &mut lowering.lint,
            &job.written,
            &platform,
            &config,
            span,
            &comments,
        );
        let platform = Some(platform.clone());
        Some(lowering.add(
            Op::Source(op),
            NewVertex {
                platform,
                name,
                span: Some(span),
                command: Some(written),
                ..NewVertex::default()
            },
        ))
    };
    let stage = &mut lowering.stages.list[index];
    stage.state.root = root;
    stage.platform = Some(platform);
    stage.base_image = Some(config.clone());
    stage.image = ImageConfig {
        created: None,
        ..config
    };
    stage.dispatched = stage.unregistered;
    Ok(())
}

/// The platform in step names; empty unless the result is one of several.
pub(crate) fn shown(lowering: &Lowering<'_>, platform: &Platform, env: &Env) -> String {
    if lowering.options.multi_platform {
        shown_platform(platform, env)
    } else {
        String::new()
    }
}

fn image_source(found: &ResolvedImage, mode: ImageResolveMode) -> Result<SourceOp, FrontendError> {
    let reference =
        Reference::parse(&found.canonical_reference).map_err(|source| FrontendErrorKind::BaseReference {
            name: found.canonical_reference.clone(),
            reason: source,
        })?;
    let mut attrs = BTreeMap::new();
    if mode != ImageResolveMode::Default {
        attrs.insert("image.resolvemode".to_owned(), mode.as_str().to_owned());
    }
    let pinned = reference.or_latest().with_digest(found.digest.clone());
    Ok(SourceOp {
        identifier: format!("docker-image://{pinned}"),
        attrs,
    })
}

fn parse_config(name: &str, bytes: &[u8]) -> Result<ImageConfig, FrontendError> {
    let mut config = ImageConfig::parse(bytes).map_err(|source| FrontendErrorKind::Config {
        name: name.to_owned(),
        source,
    })?;
    // BuildKit's front end reads the config into structs, so what it does not know is gone.
    config.drop_unknown();
    Ok(config)
}
