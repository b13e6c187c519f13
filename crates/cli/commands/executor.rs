//! The program under the name `executor`: what kaniko's flags come to as a build of this program, and the files with
//! digests that only kaniko writes. Refuses by name what it does not serve.

use std::fs;
use std::path::{Path, PathBuf};

use rbuild_builder::request::BuildOutcome;
use rbuild_oci::Reference;
use rbuild_ui::values::csv;

use super::{CommandError, Open, build};
use crate::args::{Executor, ExecutorUnserved, LowBuild};
use crate::engine::{EngineOptions, Registries};
use crate::env::Env;

/// The registry whose mirrors `--registry-mirror` names.
const HUB: &str = "docker.io";

/// Builds, pushes and writes what was asked for.
pub(super) fn run(args: &Executor, env: &mut Env, open: Open<'_>) -> Result<(), CommandError> {
    unserved(&args.unserved)?;
    for warning in moot(args) {
        // A warning that cannot be written cannot be told either.
        let _unwritten = writeln!(env.stderr, "WARNING: {warning}");
    }
    let low = low(args, env)?;
    let options = EngineOptions {
        registries: registries(args)?,
        ..EngineOptions::default()
    };
    if let Some(outcome) = build::build(low, false, options, env, open)? {
        write_files(args, &outcome)?;
    }
    Ok(())
}

fn unserved(flags: &ExecutorUnserved) -> Result<(), CommandError> {
    let said = [
        (
            "--bucket",
            flags.bucket.is_some(),
            "give the context as a directory, an archive or a git repository",
        ),
        (
            "--dryrun",
            flags.dryrun == Some(true),
            "`rbuild build --check` judges a Dockerfile without building it",
        ),
        (
            "--credential-helpers",
            flags.credential_helpers.iter().any(|name| !name.is_empty()),
            "name them in docker's config.json (credHelpers, credsStore)",
        ),
        (
            "--git",
            flags.git.is_some(),
            "give the context as https://URL.git#REF:DIR",
        ),
        (
            "--insecure-pull",
            flags.insecure_pull,
            "name the registries with --insecure-registry",
        ),
        (
            "--skip-tls-verify-pull",
            flags.skip_tls_verify_pull,
            "name the registries with --skip-tls-verify-registry",
        ),
        (
            "--skip-default-registry-fallback",
            flags.skip_default_registry_fallback,
            "mirrors without their registry are set in registries.conf",
        ),
        (
            "--push-ignore-immutable-tag-errors",
            flags.push_ignore_immutable_tag_errors,
            "what a registry refuses is an error",
        ),
    ];
    match said.iter().find(|(_, given, _)| *given) {
        Some((name, _, instead)) => Err(CommandError::failed(&format!("not supported: {name}: {instead}"))),
        None => Ok(()),
    }
}

/// What is accepted and does not do what it does in kaniko.
fn moot(args: &Executor) -> Vec<&'static str> {
    let flags = &args.moot;
    let said = [
        (
            flags.cache_dir.is_some(),
            "--cache-dir has no effect: base images are kept in the store, see --root of rbuild",
        ),
        (
            flags.cache_ttl.is_some(),
            "--cache-ttl has no effect: how long a cache is kept is the registry's",
        ),
        (
            flags.single_snapshot == Some(true),
            "--single-snapshot has no effect: every step is a layer",
        ),
        (
            flags.force_build_metadata == Some(true),
            "--force-build-metadata has no effect: a step that changes metadata only is no layer",
        ),
    ];
    said.iter()
        .filter(|(given, _)| *given)
        .map(|(_, text)| *text)
        .collect()
}

fn registries(args: &Executor) -> Result<Registries, CommandError> {
    let pair = |flag: &str, text: &str| {
        let cut = text
            .split_once('=')
            .filter(|(host, rest)| !host.is_empty() && !rest.is_empty());
        cut.map(|(host, rest)| (host.to_owned(), rest.to_owned()))
            .ok_or_else(|| CommandError::failed(&format!("{flag} {text:?} is not HOST=VALUE")))
    };
    let mut settings = Registries {
        insecure: args
            .insecure_registry
            .iter()
            .chain(&args.skip_tls_verify_registry)
            .cloned()
            .collect(),
        mirrors: args
            .registry_mirror
            .iter()
            .filter(|mirror| !mirror.is_empty())
            .map(|mirror| (HUB.to_owned(), mirror.clone()))
            .collect(),
        ..Registries::default()
    };
    for text in args.registry_map.iter().filter(|text| !text.is_empty()) {
        settings.mirrors.push(pair("--registry-map", text)?);
    }
    for text in &args.registry_certificate {
        let (host, file) = pair("--registry-certificate", text)?;
        settings.authorities.push((host, file.into()));
    }
    for text in &args.registry_client_cert {
        let (host, files) = pair("--registry-client-cert", text)?;
        let (cert, key) = files.split_once(',').ok_or_else(|| {
            CommandError::failed(&format!(
                "--registry-client-cert {text:?} does not name two files"
            ))
        })?;
        settings.own.push((host, (cert.into(), key.into())));
    }
    Ok(settings)
}

/// The flags of `rbuild build` that mean the same.
fn low(args: &Executor, env: &mut Env) -> Result<LowBuild, CommandError> {
    let pushes = args.no_push != Some(true);
    if args.destination.is_empty() && (pushes || args.tar_path.is_some() || args.oci_layout_path.is_some()) {
        return Err(CommandError::failed(
            &"you must provide --destination, or use --no-push without --tar-path and --oci-layout-path",
        ));
    }
    let (context, file) = inputs(args, env)?;
    let mut low = LowBuild {
        context,
        file,
        target: args.target.clone(),
        build_arg: args.build_arg.clone(),
        label: args.label.clone(),
        annotation: args.annotation.clone(),
        platform: args.custom_platform.iter().cloned().collect(),
        secret: args.secret.clone(),
        tag: args.destination.clone(),
        progress: match args.verbosity.as_str() {
            "panic" | "fatal" | "error" | "warn" => "none",
            _ => "plain",
        }
        .to_owned(),
        output: outputs(args, pushes),
        ..LowBuild::default()
    };
    if args.reproducible == Some(true) {
        low.build_arg.push("SOURCE_DATE_EPOCH=0".to_owned());
    }
    if args.cache == Some(true) {
        let repository = cache_repository(args)?;
        let place = format!("type=registry,{}", csv::field(&format!("ref={repository}")));
        if args.no_push_cache != Some(true) {
            low.cache_to.push(format!("{place},mode=max"));
        }
        low.cache_from.push(place);
    }
    Ok(low)
}

fn outputs(args: &Executor, pushes: bool) -> Vec<String> {
    let mut attributes = String::new();
    if let Some(name) = &args.compression {
        attributes.push_str(&format!(",compression={name}"));
    }
    if let Some(level) = args.compression_level.filter(|&level| level >= 0) {
        attributes.push_str(&format!(",compression-level={level}"));
    }
    if let Some(format) = &args.image_format {
        let is_oci = format.eq_ignore_ascii_case("oci");
        attributes.push_str(&format!(",oci-mediatypes={is_oci}"));
    }
    if args.reproducible == Some(true) {
        attributes.push_str(",rewrite-timestamp=true");
    }
    let to = |path: &Path| csv::field(&format!("dest={}", path.display()));
    let mut outputs = Vec::new();
    if let Some(path) = &args.tar_path {
        outputs.push(format!("type=docker,{}{attributes}", to(path)));
    }
    if let Some(path) = &args.oci_layout_path {
        outputs.push(format!("type=oci,tar=false,{}{attributes}", to(path)));
    }
    if pushes {
        let insecure = args.insecure == Some(true) || args.skip_tls_verify == Some(true);
        outputs.push(format!(
            "type=image,push=true,registry.insecure={insecure}{attributes}"
        ));
    } else if outputs.is_empty() {
        outputs.push(format!("type=image{attributes}"));
    }
    outputs
}

/// Where the cache is: as kaniko infers it, beside the first destination.
fn cache_repository(args: &Executor) -> Result<String, CommandError> {
    if let Some(repository) = args.cache_repo.as_ref().filter(|text| !text.is_empty()) {
        return Ok(repository.clone());
    }
    let first = args
        .destination
        .first()
        .ok_or_else(|| CommandError::failed(&"--cache without a --destination needs --cache-repo"))?;
    let reference = Reference::parse(first)
        .map_err(|error| CommandError::failed(&format!("invalid --destination {first:?}: {error}")))?;
    Ok(format!("{}/cache", reference.repository()))
}

/// The context, and the Dockerfile: the one of this machine if there is one, else the context's.
fn inputs(args: &Executor, env: &mut Env) -> Result<(String, Option<String>), CommandError> {
    let unserved = ["s3://", "gs://", "azblob://"];
    let context = args.context.as_str();
    if unserved.iter().any(|scheme| context.starts_with(scheme))
        || (context.starts_with("https://") && context.contains(".blob.core.windows.net/"))
    {
        return Err(CommandError::failed(&format!(
            "not supported: --context {context:?}: a directory, an archive or a git repository is needed"
        )));
    }
    let is_archive = context.starts_with("tar://");
    if args.context_sub_path.is_some() && (is_archive || is_remote(context)) {
        return Err(CommandError::failed(
            &"not supported: --context-sub-path of an archive or a URL; for git, end the context with #REF:DIR",
        ));
    }
    if let Some(archive) = context.strip_prefix("tar://") {
        if archive != "stdin" {
            let file = fs::File::open(archive)
                .map_err(|error| CommandError::failed(&format!("cannot open {archive}: {error}")))?;
            env.stdin = Box::new(file);
        }
        return Ok(("-".to_owned(), Some(args.dockerfile.clone())));
    }
    if let Some(rest) = context.strip_prefix("git://") {
        let scheme = match env.filled("GIT_PULL_METHOD").as_deref() {
            Some("http") => "http",
            _ => "https",
        };
        return Ok((format!("{scheme}://{rest}"), Some(args.dockerfile.clone())));
    }
    if is_remote(context) {
        return Ok((context.to_owned(), Some(args.dockerfile.clone())));
    }
    let mut dir = PathBuf::from(context.strip_prefix("dir://").unwrap_or(context));
    if let Some(below) = &args.context_sub_path {
        dir.push(below);
    }
    let here = Path::new(&args.dockerfile);
    let file = if here.is_file() {
        here.to_owned()
    } else {
        dir.join(here)
    };
    Ok((dir.display().to_string(), Some(file.display().to_string())))
}

fn is_remote(context: &str) -> bool {
    ["https://", "http://", "git://", "git@", "ssh://"]
        .iter()
        .any(|scheme| context.starts_with(scheme))
}

/// The files with digests, each written whole after the build.
fn write_files(args: &Executor, outcome: &BuildOutcome) -> Result<(), CommandError> {
    let Some(digest) = &outcome.manifest_digest else {
        return Ok(());
    };
    let mut with_tags = String::new();
    let mut without = String::new();
    for name in &outcome.names {
        with_tags.push_str(&format!("{name}@{digest}\n"));
        let repository =
            Reference::parse(name).map_or_else(|_| name.clone(), |parsed| parsed.repository().to_string());
        without.push_str(&format!("{repository}@{digest}\n"));
    }
    for (path, text) in [
        (&args.digest_file, digest.as_str()),
        (&args.image_name_with_digest_file, &without),
        (&args.image_name_tag_with_digest_file, &with_tags),
    ] {
        if let Some(path) = path {
            fs::write(path, text)
                .map_err(|error| CommandError::failed(&format!("writing {}: {error}", path.display())))?;
        }
    }
    Ok(())
}
