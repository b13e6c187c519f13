//! `rbuild manifest`: lists of images that are put together on this machine, one file each beside docker's configuration,
//! and pushed as an index. What is pushed is made by the same code as `imagetools create`.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use rbuild_builder::imagetools::{self, Combination, Found, Source};
use rbuild_oci::{Descriptor, Digest, Document, Index, Platform, Reference, media_type};
use rbuild_ui::documents::{self, Form};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::imagetools::publish;
use super::{CommandError, Open};
use crate::args::{
    AnnotateArgs, CreateListArgs, InspectListArgs, ManifestCommand, PushListArgs, RemoveListArgs,
};
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
/// Directory of the lists, in docker's.
const LISTS: &str = "manifests";
/// Largest list read, bytes.
const LIST_BYTES_MAX: u64 = 4 << 20;

/// Why a list of this machine could not be had or kept.
#[derive(Debug, thiserror::Error)]
enum ListError {
    /// Nobody says where it would be.
    #[error("lists of manifests are kept beside docker's config.json: neither DOCKER_CONFIG nor HOME is set")]
    NoPlace,
    /// There is none of this name.
    #[error("no such manifest list: {0}: begin it with `manifest create`")]
    Unknown(Reference),
    /// It is there already.
    #[error("refusing to amend an existing manifest list with no --amend flag: {0}")]
    Exists(Reference),
    /// It has no such image.
    #[error("manifest for image {image} does not exist in {list}")]
    NotInList {
        /// The image.
        image: Reference,
        /// The list.
        list: Reference,
    },
    /// A list was given where an image is expected.
    #[error("cannot use manifest list {0} as an image of a manifest list")]
    IsList(Reference),
    /// The file.
    #[error("{verb} {}: {error}", path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The file is not one of ours.
    #[error("{} is not a list of manifests: {error}", path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// Why.
        error: serde_json::Error,
    },
}

impl From<ListError> for CommandError {
    fn from(error: ListError) -> Self {
        Self::failed(&error)
    }
}

/// A list as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct List {
    name: String,
    entries: Vec<ListEntry>,
}

/// One image of it.
#[derive(Debug, Serialize, Deserialize)]
struct ListEntry {
    reference: String,
    descriptor: Descriptor,
}

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
        ManifestCommand::Annotate(args) => annotate(args, env),
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
    imagetools::parse(text).map_err(|error| CommandError::failed(&rbuild_builder::error::chain_text(&error)))
}

/// A list that is here: its file, and what it has.
fn known(name: &Reference, env: &Env) -> Result<(PathBuf, List), ListError> {
    let path = place(name, env)?;
    let list = read(&path)?.ok_or_else(|| ListError::Unknown(name.clone()))?;
    Ok((path, list))
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
        let found = engine.find_remote(text)?;
        if matches!(found.document, Document::Index(_)) {
            return Err(ListError::IsList(found.reference).into());
        }
        let mut descriptor = found.descriptor.clone();
        let configs = engine.remote_configs(&found)?;
        descriptor.platform = configs.first().map(|(_, config)| config.platform());
        let entry = ListEntry {
            reference: found.reference.to_string(),
            descriptor,
        };
        list.entries.retain(|known| known.reference != entry.reference);
        list.entries.push(entry);
    }
    // docker keeps a file for each, and reads them in the order of their names.
    list.entries
        .sort_by_key(|entry| entry.reference.replace(':', "-").replace('/', "_"));
    write(&path, &list)?;
    writeln!(env.stdout, "Created manifest list {name}")?;
    Ok(env.stdout.flush()?)
}

fn annotate(args: &AnnotateArgs, env: &mut Env) -> Result<(), CommandError> {
    let (name, image) = (parse(&args.list)?, parse(&args.manifest)?);
    let (path, mut list) = known(&name, env)?;
    let wanted = image.to_string();
    let entry = list.entries.iter_mut().find(|entry| entry.reference == wanted);
    let entry = entry.ok_or(ListError::NotInList { image, list: name })?;
    let platform = entry.descriptor.platform.get_or_insert_with(Platform::default);
    if let Some(arch) = &args.arch {
        platform.architecture.clone_from(arch);
    }
    if let Some(os) = &args.os {
        platform.os.clone_from(os);
    }
    if !args.os_features.is_empty() {
        platform.os_features.clone_from(&args.os_features);
    }
    if args.os_version.is_some() {
        platform.os_version.clone_from(&args.os_version);
    }
    if args.variant.is_some() {
        platform.variant.clone_from(&args.variant);
    }
    Ok(write(&path, &list)?)
}

fn push(
    args: &PushListArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    let name = parse(&args.list)?;
    let (path, list) = known(&name, env)?;
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
        targets: vec![name],
        prefer_index: true,
        ..Combination::default()
    };
    let engine = open(options)?;
    let pushed = publish(engine.as_ref(), &asked, "auto", false, env)?;
    if args.purge {
        forget(&path)?;
    }
    writeln!(env.stdout, "{}", pushed.descriptor.digest)?;
    Ok(env.stdout.flush()?)
}

fn remove(args: &RemoveListArgs, env: &mut Env) -> Result<(), CommandError> {
    for text in &args.lists {
        let (path, _) = known(&parse(text)?, env)?;
        forget(&path)?;
    }
    Ok(env.stdout.flush()?)
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

/// The file of a list. Its name says nothing: names of images may be longer than those of files.
fn place(name: &Reference, env: &Env) -> Result<PathBuf, ListError> {
    let directory = match (env.filled("DOCKER_CONFIG"), env.filled("HOME")) {
        (Some(directory), _) => PathBuf::from(directory),
        (None, Some(home)) => PathBuf::from(home).join(".docker"),
        (None, None) => return Err(ListError::NoPlace),
    };
    let digest = Digest::sha256(name.to_string().as_bytes());
    let file = format!("rbuild-{}.json", &digest.hex()[..32]);
    Ok(directory.join(LISTS).join(file))
}

fn read(path: &Path) -> Result<Option<List>, ListError> {
    let fail = |error| ListError::File {
        verb: "cannot read",
        path: path.to_owned(),
        error,
    };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    let mut text = Vec::new();
    file.take(LIST_BYTES_MAX).read_to_end(&mut text).map_err(fail)?;
    let list = serde_json::from_slice(&text);
    list.map(Some).map_err(|error| ListError::Format {
        path: path.to_owned(),
        error,
    })
}

/// Replaces the file whole.
fn write(path: &Path, list: &List) -> Result<(), ListError> {
    let fail = |error| ListError::File {
        verb: "cannot write",
        path: path.to_owned(),
        error,
    };
    let text = serde_json::to_vec_pretty(list).map_err(|error| fail(error.into()))?;
    let new = path.with_extension(format!("{}.new", std::process::id()));
    let written = || -> io::Result<()> {
        if let Some(directory) = path.parent() {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(directory)?;
        }
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&text)?;
        fs::rename(&new, path)
    };
    written().map_err(|error| {
        // What is left of a write that failed; it may not even have begun.
        let _gone = fs::remove_file(&new);
        fail(error)
    })
}

fn forget(path: &Path) -> Result<(), ListError> {
    fs::remove_file(path).map_err(|error| ListError::File {
        verb: "cannot remove",
        path: path.to_owned(),
        error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::testing::env;

    #[test]
    fn a_list_is_kept_beside_dockers_configuration() {
        let room = tempfile::tempdir().unwrap();
        let home = room.path().display().to_string();
        let (surroundings, _, _) = env(&[("HOME", &home)], b"");
        let name = Reference::parse("example.com/a:1").unwrap();
        let path = place(&name, &surroundings).unwrap();
        assert!(path.starts_with(room.path().join(".docker/manifests")));
        assert!(read(&path).unwrap().is_none());
        let list = List {
            name: name.to_string(),
            entries: Vec::new(),
        };
        write(&path, &list).unwrap();
        assert_eq!(read(&path).unwrap().unwrap().name, "example.com/a:1");
        fs::write(&path, "[]").unwrap();
        assert!(matches!(read(&path), Err(ListError::Format { .. })));
        forget(&path).unwrap();
        assert!(matches!(forget(&path), Err(ListError::File { .. })));
        let (nowhere, _, _) = env(&[], b"");
        assert!(matches!(place(&name, &nowhere), Err(ListError::NoPlace)));
    }
}
