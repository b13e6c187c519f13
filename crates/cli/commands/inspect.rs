//! `rbuild inspect`: an image in docker's JSON, or as a template says.

use std::collections::BTreeMap;

use rbuild_oci::{ContainerConfig, Descriptor, DiffId, Digest, go_json};
use rbuild_ui::text::lines;
use rbuild_ui::units::rfc3339;
use serde::Serialize;
use serde_json::{Value, json};

use super::{CommandError, Open};
use crate::args::InspectArgs;
use crate::engine::{EngineOptions, ImageDetails};
use crate::env::Env;

/// Docker's names and order (moby `api/types/image`, `InspectResponse`).
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ImageJson<'a> {
    id: &'a Digest,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    comment: &'a str,
    created: String,
    author: &'a str,
    config: &'a ContainerConfig,
    architecture: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    variant: &'a str,
    os: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    os_version: &'a str,
    size: u64,
    #[serde(rename = "RootFS")]
    root_fs: RootFs<'a>,
    metadata: BTreeMap<&'static str, String>,
    descriptor: &'a Descriptor,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RootFs<'a> {
    r#type: &'static str,
    layers: &'a [DiffId],
}

impl<'a> ImageJson<'a> {
    fn of(image: &'a ImageDetails) -> Self {
        let config = &image.config;
        let mut digests: Vec<String> = image
            .names
            .iter()
            .map(|name| {
                name.repository()
                    .with_digest(image.descriptor.digest.clone())
                    .familiar()
            })
            .collect();
        digests.dedup();
        Self {
            id: &image.id,
            repo_tags: image.names.iter().map(rbuild_oci::Reference::familiar).collect(),
            repo_digests: digests,
            comment: config.history.last().map_or("", |step| step.comment.as_str()),
            created: config.created.map(|time| time.to_string()).unwrap_or_default(),
            author: &config.author,
            config: &config.config,
            architecture: &config.architecture,
            variant: &config.variant,
            os: &config.os,
            os_version: &config.os_version,
            size: image.size_bytes,
            root_fs: RootFs {
                r#type: "layers",
                layers: &config.rootfs.diff_ids,
            },
            metadata: image
                .tagged
                .map(|time| ("LastTagTime", rfc3339(time)))
                .into_iter()
                .collect(),
            descriptor: &image.descriptor,
        }
    }
}

/// The same for templates, which may ask for any field that docker has or had: what is empty is there too.
fn with_all_fields(mut image: Value) -> Value {
    let config = json!({
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false, "AttachStderr": false,
        "ExposedPorts": null, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null, "Cmd": null,
        "Healthcheck": null, "ArgsEscaped": false, "Image": "", "Volumes": null, "WorkingDir": "", "Entrypoint": null,
        "NetworkDisabled": false, "MacAddress": "", "OnBuild": null, "Labels": null, "StopSignal": "",
        "StopTimeout": null, "Shell": null,
    });
    let former = json!({
        "Parent": "", "Container": "", "ContainerConfig": config.clone(), "DockerVersion": "", "Variant": "", "OsVersion": "",
        "VirtualSize": image["Size"], "GraphDriver": { "Name": "", "Data": null },
    });
    fill(&mut image["Config"], config);
    fill(&mut image, former);
    image
}

/// Gives `value` the fields of `other` that it has not.
fn fill(value: &mut Value, other: Value) {
    if let (Value::Object(fields), Value::Object(others)) = (value, other) {
        for (name, other) in others {
            fields.entry(name).or_insert(other);
        }
    }
}

/// Inspects images. Those that are there are shown even when another is not.
pub(super) fn run(
    args: &InspectArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    let template = super::template(args.format.as_deref(), &["", "json"])?;
    let engine = open(options)?;
    let mut failure = None;
    let mut found = Vec::new();
    for image in &args.images {
        match engine.image(image, args.platform.as_deref()) {
            Ok(details) => found.push(details),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    let found: Vec<ImageJson<'_>> = found.iter().map(ImageJson::of).collect();
    match template {
        Some(template) => {
            for image in &found {
                let data = with_all_fields(serde_json::to_value(image).map_err(std::io::Error::from)?);
                let text = template
                    .render(&data)
                    .map_err(|error| CommandError::failed(&error))?;
                writeln!(env.stdout, "{}", lines(&text))?;
            }
        }
        None if args.format.as_deref() == Some("json") => {
            env.stdout
                .write_all(&go_json::to_vec(&found).map_err(std::io::Error::from)?)?;
            writeln!(env.stdout)?;
        }
        None => {
            env.stdout
                .write_all(&go_json::to_vec_indented_by(&found, "    ").map_err(std::io::Error::from)?)?;
            writeln!(env.stdout)?;
        }
    }
    env.stdout.flush()?;
    failure.map_or(Ok(()), |error| Err(error.into()))
}
