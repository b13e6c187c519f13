//! `rbuild imagetools create` and `inspect`: indexes of images that are in registries, as buildx prints and makes them
//! (`commands/imagetools`). Nothing of them is kept in the store.

use std::collections::BTreeMap;
use std::io::{self, Write};

use rbuild_builder::imagetools::attestations::{Kind, Predicates};
use rbuild_builder::imagetools::{Combination, Combined, Found, Source};
use rbuild_oci::{Descriptor, Document, ImageConfig, Platform, Reference};
use rbuild_ui::progress::Mode;
use rbuild_ui::table::Table;
use rbuild_ui::text::{lines, one_line};
use rbuild_ui::units::human_size;
use rbuild_ui::values::key_value::{AnnotationType, annotations};
use serde_json::{Value, json};

use super::{CommandError, Open};
use crate::args::{CreateIndexArgs, ImagetoolsCommand, InspectRemoteArgs};
use crate::engine::{Engine, EngineOptions};
use crate::env::Env;
use crate::{request, result_files, view};

/// Largest file with a source, bytes.
const SOURCE_BYTES_MAX: u64 = 1 << 20;

/// Runs the command.
pub(super) fn run(
    command: &ImagetoolsCommand,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    match command {
        ImagetoolsCommand::Create(args) => create(args, options, env, open),
        ImagetoolsCommand::Inspect(args) => inspect(args, options, env, open),
    }
}

fn create(
    args: &CreateIndexArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    let is_dry = args.dry_run == Some(true);
    if args.sources.is_empty() && args.file.is_empty() {
        return Err(CommandError::failed(&"no sources specified"));
    }
    if !is_dry && args.tag.is_empty() {
        return Err(CommandError::failed(
            &"can't push with no tags specified, please set --tag or --dry-run",
        ));
    }
    let asked = combination(args)?;
    let engine = open(options)?;
    let combined = publish(engine.as_ref(), &asked, &args.progress, is_dry, env)?;
    if is_dry {
        env.stdout.write_all(&combined.bytes)?;
        writeln!(env.stdout)?;
        return Ok(env.stdout.flush()?);
    }
    if let Some(path) = &args.metadata_file {
        let mut names: Vec<String> = asked.targets.iter().map(Reference::name).collect();
        names.sort();
        names.dedup();
        let metadata = BTreeMap::from([
            ("containerimage.descriptor".to_owned(), json!(combined.descriptor)),
            ("image.name".to_owned(), json!(names.join(","))),
        ]);
        result_files::write_metadata(path, &metadata).map_err(|error| CommandError::failed(&error))?;
    }
    Ok(())
}

/// Makes an index and, unless it is only wanted to be seen, pushes it, showing how.
pub(super) fn publish(
    engine: &dyn Engine,
    asked: &Combination,
    progress: &str,
    is_dry: bool,
    env: &mut Env,
) -> Result<Combined, CommandError> {
    let mode = Mode::parse(progress)
        .ok_or_else(|| CommandError::failed(&request::UsageError::Progress(progress.to_owned())))?;
    let mode = request::shown_mode(mode, env).map_err(|error| CommandError::failed(&error))?;
    let view = view::start(if is_dry { Mode::Quiet } else { mode }, "Pushing", None, env)
        .map_err(|error| CommandError::failed(&format!("cannot show progress: {error}")))?;
    let done = engine.combine(asked, !is_dry, view.sink());
    drop(view.finish());
    Ok(done?)
}

fn combination(args: &CreateIndexArgs) -> Result<Combination, CommandError> {
    let fail = |error: rbuild_builder::imagetools::ImagetoolsError| {
        CommandError::failed(&rbuild_builder::error::chain_text(&error))
    };
    let mut texts = Vec::new();
    if args.append == Some(true) {
        texts.extend(args.tag.first().cloned());
    }
    for file in &args.file {
        texts.push(read(file)?);
    }
    texts.extend(args.sources.iter().cloned());
    let mut asked = Combination {
        sources: texts
            .iter()
            .map(|text| Source::parse(text))
            .collect::<Result<_, _>>()
            .map_err(fail)?,
        targets: args
            .tag
            .iter()
            .map(|text| rbuild_builder::imagetools::parse(text))
            .collect::<Result<_, _>>()
            .map_err(fail)?,
        prefer_index: args.prefer_index.unwrap_or(true),
        with_attestations: true,
        platforms: args
            .platform
            .iter()
            .map(|text| platform(text))
            .collect::<Result<_, _>>()?,
        ..Combination::default()
    };
    for text in args.annotation.iter().filter(|text| !text.is_empty()) {
        // What has no type is of the index here, there being no manifest to put it on.
        let is_typed = text.split('=').next().is_some_and(|key| key.contains(':'));
        let typed = if is_typed {
            text.clone()
        } else {
            format!("index:{text}")
        };
        for one in annotations(&typed).map_err(|error| CommandError::failed(&error))? {
            match one.kind {
                AnnotationType::Index => {
                    asked.annotations.insert(one.key, one.value);
                }
                AnnotationType::ManifestDescriptor => {
                    let wanted = one.platform.as_deref().map(platform).transpose()?;
                    asked.descriptor_annotations.push((wanted, one.key, one.value));
                }
                AnnotationType::Manifest | AnnotationType::IndexDescriptor => {
                    return Err(fail(rbuild_builder::imagetools::ImagetoolsError::Annotation(
                        text.clone(),
                    )));
                }
            }
        }
    }
    Ok(asked)
}

fn platform(text: &str) -> Result<Platform, CommandError> {
    let parsed = Platform::parse(text).map(|platform| platform.normalized());
    parsed.map_err(|error| CommandError::failed(&format!("invalid platform {text:?}: {error}")))
}

fn read(file: &std::path::Path) -> Result<String, CommandError> {
    use std::io::Read as _;
    let mut text = String::new();
    let read =
        std::fs::File::open(file).and_then(|opened| opened.take(SOURCE_BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(error) => Err(CommandError::failed(&format!(
            "cannot read {}: {error}",
            file.display()
        ))),
    }
}

fn inspect(
    args: &InspectRemoteArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    let is_raw = args.raw == Some(true);
    if is_raw && args.format.as_deref().is_some_and(|text| !text.is_empty()) {
        return Err(CommandError::failed(&"format and raw cannot be used together"));
    }
    let whole = |text: &str| text.replace(char::is_whitespace, "") == "{{.Manifest}}";
    let format = args.format.as_deref().filter(|text| !whole(text));
    let template = super::template(format, &[""])?;
    let engine = open(options)?;
    let found = engine.find_remote(&args.name)?;
    if is_raw {
        // No newline: the digest is of these bytes.
        env.stdout.write_all(&found.bytes)?;
        return Ok(env.stdout.flush()?);
    }
    if args.referrers {
        return referrers(&engine.referrers(&found)?, env);
    }
    match template {
        None => print(&found, env)?,
        Some(template) => {
            let configs = engine.remote_configs(&found)?;
            let mut data = json!({
                "name": args.name,
                "manifest": manifest_json(&found),
                "image": image_json(&configs),
                "SBOM": {},
                "Provenance": {},
            });
            let said = args.format.as_deref().unwrap_or_default();
            for (name, kind) in [("SBOM", Kind::Sbom), ("Provenance", Kind::Provenance)] {
                if said.contains(name) {
                    data[name] = predicates_json(engine.predicates(&found, kind)?, kind, configs.len() > 1);
                }
            }
            let text = template
                .render_document(&data)
                .map_err(|error| CommandError::failed(&error))?;
            write!(env.stdout, "{}", lines(&text))?;
        }
    }
    Ok(env.stdout.flush()?)
}

fn referrers(all: &[Descriptor], env: &mut Env) -> Result<(), CommandError> {
    let mut table = Table::new(&["DIGEST", "TYPE", "SIZE"]);
    for one in all {
        let kind = one.artifact_type.as_deref().unwrap_or(&one.media_type);
        table.row([
            one.digest.to_string(),
            one_line(kind).into_owned(),
            human_size(one.size),
        ]);
    }
    table.write(&mut env.stdout)?;
    Ok(env.stdout.flush()?)
}

/// What templates know as `.Manifest`: a descriptor, or the index with its digest and size.
fn manifest_json(found: &Found) -> Value {
    match &found.document {
        Document::Manifest(_) => json!(found.descriptor),
        Document::Index(index) => {
            let mut all = json!({
                "schemaVersion": index.schema_version,
                "mediaType": index.media_type,
                "digest": found.descriptor.digest,
                "size": found.descriptor.size,
                "manifests": index.manifests,
            });
            if !index.annotations.is_empty() {
                all["annotations"] = json!(index.annotations);
            }
            all
        }
    }
}

/// Of one image its own, of several all by their platforms (`util/imagetools/loader.go`, `sbomStub`, `provenanceStub`).
fn predicates_json(all: Predicates, kind: Kind, are_several: bool) -> Value {
    let stub = |said: Vec<Value>| {
        let mut said = said.into_iter();
        let first = said.next().filter(|value| !value.is_null());
        let (key, more) = match kind {
            Kind::Provenance => ("SLSA", Vec::new()),
            Kind::Sbom => ("SPDX", said.collect()),
        };
        let mut fields: serde_json::Map<_, _> =
            first.map(|first| (key.to_owned(), first)).into_iter().collect();
        if !more.is_empty() {
            fields.insert("AdditionalSPDXs".to_owned(), more.into());
        }
        Value::from(fields)
    };
    let mut named = all.into_iter().map(|(platform, said)| (platform, stub(said)));
    if are_several {
        return named.collect::<serde_json::Map<_, _>>().into();
    }
    named.next().map_or_else(|| json!({}), |(_, said)| said)
}

/// What templates know as `.Image`: a config, or several by their platforms.
fn image_json(configs: &[(Descriptor, ImageConfig)]) -> Value {
    match configs {
        [(_, only)] => json!(only),
        several => several
            .iter()
            .map(|(_, config)| (config.platform().short(), json!(config)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

fn print(found: &Found, env: &mut Env) -> Result<(), CommandError> {
    let out = &mut env.stdout;
    let descriptor = &found.descriptor;
    writeln!(out, "Name:      {}", one_line(&found.reference.to_string()))?;
    writeln!(out, "MediaType: {}", one_line(&descriptor.media_type))?;
    writeln!(out, "Digest:    {}", descriptor.digest)?;
    let Document::Index(index) = &found.document else {
        return Ok(());
    };
    writeln!(out, "           \nManifests: ")?;
    let mut lines = Aligned::default();
    for (at, entry) in index.manifests.iter().enumerate() {
        if at > 0 {
            lines.add("", "");
        }
        let name = found.reference.with_digest(entry.digest.clone());
        lines.add("  Name:", &name.to_string());
        lines.add("  MediaType:", &entry.media_type);
        let Some(platform) = &entry.platform else {
            continue;
        };
        lines.add("  Platform:", &platform.short());
        if let Some(version) = &platform.os_version {
            lines.add("  OSVersion:", version);
        }
        if !platform.os_features.is_empty() {
            lines.add("  OSFeatures:", &platform.os_features.join(", "));
        }
        if !entry.urls.is_empty() {
            lines.add("  URLs:", &entry.urls.join(", "));
        }
        if !entry.annotations.is_empty() {
            lines.add("  Annotations:", "");
            lines.write(out)?;
            for (key, value) in &entry.annotations {
                lines.add(&format!("    {}:", one_line(key)), value);
            }
            lines.write(out)?;
        }
    }
    Ok(lines.write(out)?)
}

/// Lines of two columns, the second of which begins where the widest of the first has ended (Go's `text/tabwriter`).
#[derive(Debug, Default)]
struct Aligned(Vec<(String, String)>);

impl Aligned {
    fn add(&mut self, title: &str, value: &str) {
        self.0.push((title.to_owned(), one_line(value).into_owned()));
    }

    /// Writes them, and begins again.
    fn write(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let width = self
            .0
            .iter()
            .map(|(title, _)| title.chars().count())
            .max()
            .unwrap_or(0)
            + 1;
        for (title, value) in self.0.drain(..) {
            writeln!(out, "{title:width$}{value}")?;
        }
        Ok(())
    }
}
