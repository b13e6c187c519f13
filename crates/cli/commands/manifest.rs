//! `rbuild manifest`: lists of images that are put together on this machine, one file each beside docker's configuration,
//! and pushed as an index. What is pushed is made by the same code as `imagetools create`.

mod annotate;
mod list;

use std::io;

use base64::Engine as _;
use rbuild_builder::error::chain_text;
use rbuild_builder::imagetools::{self, Combination, Found, Source};
use rbuild_oci::{Descriptor, Document, Index, Reference, media_type};
use rbuild_ui::documents::{self, Form};
use serde_json::{Value, json};

use self::list::{List, ListEntry, ListError, forget, known, place, read, write};
use super::imagetools::publish;
use super::{CommandError, Open};
use crate::args::{CreateListArgs, InspectListArgs, ManifestCommand, PushListArgs, RemoveListArgs};
use crate::engine::{Engine, EngineOptions};
use crate::env::Env;

/// How docker prints a list, and everything else (`cli/command/manifest/inspect.go`).
const LIST: Form = Form {
    indent: "   ",
    size_first: true,
};
const IMAGE: Form = Form {
    indent: "\t",
    size_first: false,
};

/// Runs the command.
pub(super) fn run(
    command: &ManifestCommand,
    mut options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    match command {
        ManifestCommand::Create(args) => {
            let names = args.manifests.iter().chain([&args.list]);
            allow_insecure(args.insecure, names, &mut options)?;
            create(args, options, env, open)
        }
        ManifestCommand::Annotate(args) => annotate::run(args, env),
        ManifestCommand::Inspect(args) => {
            allow_insecure(args.insecure, args.names.iter(), &mut options)?;
            inspect(args, options, env, open)
        }
        ManifestCommand::Push(args) => {
            allow_insecure(args.insecure, [&args.list].into_iter(), &mut options)?;
            push(args, options, env, open)
        }
        ManifestCommand::Rm(args) => remove(args, env),
    }
}

fn allow_insecure<'a>(
    insecure: bool,
    names: impl Iterator<Item = &'a String>,
    options: &mut EngineOptions,
) -> Result<(), CommandError> {
    if insecure {
        for name in names {
            options.registries.insecure.push(parse(name)?.host().to_owned());
        }
    }
    Ok(())
}

fn parse(text: &str) -> Result<Reference, CommandError> {
    imagetools::parse(text).map_err(|error| CommandError::failed(&chain_text(&error)))
}

fn create(
    args: &CreateListArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    let name = parse(&args.list)?;
    let path = place(&name, env)?;
    let mut list = match read(&path)? {
        Some(_) if !args.amend => return Err(ListError::Exists(name).into()),
        Some(list) => list,
        None => List {
            name: name.to_string(),
            entries: Vec::new(),
        },
    };
    let engine = open(options)?;
    for text in &args.manifests {
        // What is in the list stays as it was annotated, as with docker (`getManifest` of `cli/command/manifest/util.go`).
        let wanted = parse(text)?.to_string();
        if !list.entries.iter().any(|entry| entry.reference == wanted) {
            list.entries.push(entry(engine.as_ref(), text)?);
        }
    }
    // docker keeps a file for each, and reads them in the order of their names.
    list.entries
        .sort_by_key(|entry| entry.reference.replace(':', "-").replace('/', "_"));
    write(&path, &list)?;
    writeln!(env.stdout, "Created manifest list {name}")?;
    Ok(env.stdout.flush()?)
}

/// An image of a registry, with what its config says it runs on.
fn entry(engine: &dyn Engine, text: &str) -> Result<ListEntry, CommandError> {
    let found = engine.find_remote(text)?;
    if matches!(found.document, Document::Index(_)) {
        return Err(ListError::IsList(found.reference).into());
    }
    let mut descriptor = found.descriptor.clone();
    let configs = engine.remote_configs(&found)?;
    descriptor.platform = configs.first().map(|(_, config)| config.platform());
    Ok(ListEntry {
        reference: found.reference.to_string(),
        descriptor,
    })
}

fn push(
    args: &PushListArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    let name = parse(&args.list)?;
    let (path, list) = known(&name, env)?;
    let is_said = |entry: &&ListEntry| {
        let platform = entry.descriptor.platform.as_ref();
        platform.is_some_and(|platform| !platform.os.is_empty() && !platform.architecture.is_empty())
    };
    if let Some(entry) = list.entries.iter().find(|entry| !is_said(entry)) {
        return Err(ListError::NoPlatform(entry.reference.clone()).into());
    }
    let sources = list.entries.iter().map(|entry| {
        Ok(Source {
            reference: Some(parse(&entry.reference)?),
            digest: Some(entry.descriptor.digest.clone()),
            platform: entry.descriptor.platform.clone(),
            ..Source::default()
        })
    });
    let asked = Combination {
        sources: sources.collect::<Result<_, CommandError>>()?,
        targets: vec![name.clone()],
        prefer_index: true,
        ..Combination::default()
    };
    let engine = open(options)?;
    let pushed = publish(engine.as_ref(), &asked, "auto", false, env)?;
    if args.purge {
        forget(&path)?;
    }
    // docker tells of each image that was not in the repository before.
    for entry in &list.entries {
        let digest = &entry.descriptor.digest;
        if parse(&entry.reference)?.repository() != name.repository() {
            let pushed = name.repository().with_digest(digest.clone());
            writeln!(env.stdout, "Pushed ref {pushed} with digest: {digest}")?;
        }
    }
    writeln!(env.stdout, "{}", pushed.descriptor.digest)?;
    Ok(env.stdout.flush()?)
}

/// Forgets all that can be; what cannot is told at the end, together.
fn remove(args: &RemoveListArgs, env: &Env) -> Result<(), CommandError> {
    let forgotten = |text: &String| -> Result<(), String> {
        let name = imagetools::parse(text).map_err(|error| chain_text(&error))?;
        let (path, _) = known(&name, env).map_err(|error| error.to_string())?;
        forget(&path).map_err(|error| error.to_string())
    };
    let failed: Vec<String> = args
        .lists
        .iter()
        .filter_map(|text| forgotten(text).err())
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(CommandError::failed(&failed.join("\n")))
}

fn inspect(
    args: &InspectListArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    let (list, image) = match args.names.as_slice() {
        [list, image] => (Some(parse(list)?), parse(image)?),
        [image] => (None, parse(image)?),
        _ => {
            return Err(CommandError::failed(
                &"one name, or a list and an image in it, is needed",
            ));
        }
    };
    let local = list.as_ref().unwrap_or(&image);
    // Without a place for lists there is none of this machine.
    let kept = match place(local, env) {
        Ok(path) => read(&path)?,
        Err(_) => None,
    };
    let shown = match (kept, &list) {
        (None, Some(list)) => return Err(ListError::Unknown(list.clone()).into()),
        (Some(kept), Some(list)) => {
            let wanted = image.to_string();
            let entry = kept.entries.iter().find(|entry| entry.reference == wanted);
            let entry = entry.ok_or_else(|| ListError::NotInList {
                image: image.clone(),
                list: list.clone(),
            })?;
            let found = open(options)?.find_remote(&entry.reference)?;
            shown(&found, &entry.descriptor, args.verbose)?
        }
        (Some(kept), None) if args.verbose => {
            let engine = open(options)?;
            let all = kept.entries.iter().map(|entry| {
                let found = engine.find_remote(&entry.reference)?;
                shown(&found, &entry.descriptor, true)
            });
            Value::Array(all.collect::<Result<_, _>>()?)
        }
        (Some(kept), None) => {
            let manifests: Vec<Descriptor> = kept.entries.into_iter().map(|entry| entry.descriptor).collect();
            let is_docker = |entry: &Descriptor| {
                media_type::Family::of(&entry.media_type) == Some(media_type::Family::Docker)
            };
            let kind = if manifests.iter().all(is_docker) {
                media_type::DOCKER_INDEX
            } else {
                media_type::OCI_INDEX
            };
            json!(Index::new(kind, manifests))
        }
        (None, None) => {
            let engine = open(options)?;
            let found = engine.find_remote(&image.to_string())?;
            remote(engine.as_ref(), &found, args.verbose)?
        }
    };
    let form = if shown.get("manifests").is_some() {
        LIST
    } else {
        IMAGE
    };
    writeln!(env.stdout, "{}", documents::text(&shown, form))?;
    Ok(env.stdout.flush()?)
}

/// What a registry has; in full, of an index every image.
fn remote(engine: &dyn Engine, found: &Found, is_verbose: bool) -> Result<Value, CommandError> {
    match &found.document {
        Document::Index(index) if is_verbose => {
            let all = index.manifests.iter().map(|entry| {
                let one = found.reference.repository().with_digest(entry.digest.clone());
                let found = engine.find_remote(&one.to_string())?;
                shown(&found, entry, true)
            });
            Ok(Value::Array(all.collect::<Result<_, _>>()?))
        }
        _ if is_verbose => {
            let configs = engine.remote_configs(found)?;
            let mut descriptor = found.descriptor.clone();
            descriptor.platform = configs.first().map(|(_, config)| config.platform());
            shown(found, &descriptor, true)
        }
        _ => shown(found, &found.descriptor, false),
    }
}

/// A document alone, or with its name and descriptor (docker CLI, `cli/manifest/types`).
fn shown(found: &Found, descriptor: &Descriptor, is_verbose: bool) -> Result<Value, CommandError> {
    let document: Value = serde_json::from_slice(&found.bytes).map_err(io::Error::from)?;
    if !is_verbose {
        return Ok(document);
    }
    let key = match media_type::Family::of(&found.descriptor.media_type) {
        Some(media_type::Family::Docker) => "SchemaV2Manifest",
        _ => "OCIManifest",
    };
    let raw = base64::engine::general_purpose::STANDARD.encode(&found.bytes);
    Ok(json!({ "Ref": found.reference.to_string(), "Descriptor": descriptor, "Raw": raw, key: document }))
}
