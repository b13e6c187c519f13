//! Containers that were created and never run: `create` gives an image's files an id, `cp` and `export` take them out,
//! `rm` forgets it. Makefiles do this where they do not know `build --output`.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rbuild_builder::image_files::CopyRules;
use rbuild_ui::progress::Mode;
use rbuild_ui::text::one_line;
use rbuild_ui::units::{go_time, human_duration};
use serde::Serialize;

use super::listing::{Column, Listing};
use super::prune::{deleted, is_confirmed, reclaimed};
use super::{CommandError, Open, run as program, save};
use crate::args::{
    ContainerCommand, CpArgs, CreateContainerArgs, ExportArgs, PruneContainersArgs, PsArgs, RmArgs,
};
use crate::engine::{ContainerRow, CreateRequest, Engine, EngineOptions, FilesTo};
use crate::env::Env;
use crate::view;

/// Digits of a short id.
const SHORT_ID: usize = 12;

/// Carries one of them out.
pub(super) fn run(
    command: &ContainerCommand,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    match command {
        ContainerCommand::Run(args) => program::run(args, options, env, open),
        ContainerCommand::Create(args) => create(args, options, env, open),
        ContainerCommand::Cp(args) => copy(args, options, env, open),
        ContainerCommand::Export(args) => export(args, options, env, open),
        ContainerCommand::Ls(args) => list(args, options, env, open),
        ContainerCommand::Rm(args) => remove(args, options, env, open),
        ContainerCommand::Prune(args) => prune(args, options, env, open),
        ContainerCommand::Unserved(_) => unreachable!("flatten() leaves no other spelling"),
    }
}

fn create(
    args: &CreateContainerArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    let args = &args.run;
    let request = CreateRequest {
        image: args.image().to_owned(),
        name: args.name.clone(),
        platform: args.platform.clone(),
        pull: program::pull_policy(&args.pull)?,
    };
    let file = args.cidfile.as_deref().map(Path::new);
    if let Some(path) = file.filter(|path| path.exists()) {
        return Err(CommandError::failed(&format!(
            "container ID file found, make sure the other container isn't running or delete {}",
            path.display()
        )));
    }
    let engine = open(options)?;
    let mode = if args.quiet { Mode::Quiet } else { Mode::Plain };
    let view = view::start(mode, "Creating", None, env)
        .map_err(|error| CommandError::failed(&format!("cannot show progress: {error}")))?;
    let created = engine.create_container(&request, view.sink());
    drop(view.finish());
    let id = created?;
    if let Some(path) = file {
        let mut options = OpenOptions::new();
        let written = options
            .write(true)
            .create_new(true)
            .open(path)
            .and_then(|mut file| file.write_all(id.as_bytes()));
        written
            .map_err(|error| CommandError::failed(&format!("cannot write {}: {error}", path.display())))?;
    }
    writeln!(env.stdout, "{id}")?;
    Ok(env.stdout.flush()?)
}

/// A side of `cp`: a path of a container, or of this machine. A path that could be one of this machine is: those with a
/// colon are written `./a:b`, as for docker.
fn side(text: &str) -> (Option<&str>, &str) {
    match text.split_once(':') {
        Some((container, path)) if !text.starts_with(['.', '/']) => (Some(container), path),
        _ => (None, text),
    }
}

fn copy(args: &CpArgs, options: EngineOptions, env: &mut Env, open: Open<'_>) -> Result<(), CommandError> {
    let (container, path) = match (side(&args.source), side(&args.dest)) {
        ((Some(_), _), (Some(_), _)) => {
            return Err(CommandError::failed(
                &"copying between containers is not supported",
            ));
        }
        ((Some(container), path), (None, _)) => (container, path),
        ((None, _), (Some(_), _)) => {
            return Err(CommandError::failed(
                &"not supported: copying into a container: its files are those of its image; COPY them in a build",
            ));
        }
        ((None, _), (None, _)) => {
            return Err(CommandError::failed(
                &"must specify at least one container source",
            ));
        }
    };
    let rules = CopyRules {
        follow_link: args.follow_link,
        keep_owners: args.archive,
    };
    if args.dest == "-" {
        let mut take = save::standard_output(env, "write a tar to a terminal. Redirect it")?;
        let to = FilesTo::Tar(&mut take);
        return Ok(open(options)?.take_files(container, Some((path, rules)), to)?);
    }
    let dest = PathBuf::from(&args.dest);
    Ok(open(options)?.take_files(container, Some((path, rules)), FilesTo::Path(&dest))?)
}

fn export(
    args: &ExportArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    let Some(path) = &args.output else {
        let mut take = save::standard_output(env, "export to a terminal. Use the -o flag or redirect")?;
        return Ok(open(options)?.take_files(&args.container, None, FilesTo::Tar(&mut take))?);
    };
    let engine = open(options)?;
    save::to_file(path, |create| {
        engine.take_files(&args.container, None, FilesTo::Tar(create))
    })
}

const COLUMNS: [Column; 11] = [
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("RunningFor", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Status", "STATUS"),
    ("State", "STATE"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
    ("Labels", "LABELS"),
    ("Size", "SIZE"),
];

/// One container, under docker's names.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    command: &'static str,
    created_at: String,
    running_for: String,
    #[serde(rename = "ID")]
    id: String,
    image: String,
    labels: &'static str,
    names: String,
    ports: &'static str,
    size: &'static str,
    state: &'static str,
    status: &'static str,
}

fn list(args: &PsArgs, options: EngineOptions, env: &mut Env, open: Open<'_>) -> Result<(), CommandError> {
    let mut shown = vec!["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"];
    if args.size {
        shown.push("Size");
    }
    let listing = Listing::parse(&args.format, &COLUMNS, &shown)?;
    let filters = filters(&args.filter)?;
    // Nothing runs: without --all there is nothing to list but what is asked for by its state.
    let last = args
        .last
        .and_then(|last| usize::try_from(last).ok())
        .filter(|last| *last > 0);
    let last = last.or_else(|| args.latest.then_some(1));
    let all = args.all || last.is_some() || filters.iter().any(|(key, _)| *key == "status");
    let engine = open(options)?;
    let mut found = engine.containers()?;
    found.retain(|container| all && filters.iter().all(|filter| matches(container, *filter)));
    let now = SystemTime::now();
    let rows = found
        .into_iter()
        .take(last.unwrap_or(usize::MAX))
        .map(|container| row(container, args.no_trunc, now));
    if args.quiet {
        for row in rows {
            writeln!(env.stdout, "{}", row.id)?;
        }
        return Ok(env.stdout.flush()?);
    }
    let rows: Result<Vec<serde_json::Value>, _> = rows.map(serde_json::to_value).collect();
    listing.write(&rows.map_err(io::Error::from)?, env)
}

fn filters(texts: &[String]) -> Result<Vec<(&str, &str)>, CommandError> {
    texts
        .iter()
        .map(|text| match text.split_once('=') {
            Some((key @ ("name" | "id" | "ancestor" | "status" | "label"), value)) => Ok((key, value)),
            _ => Err(CommandError::failed(&format!(
                "invalid filter {text:?}: there are name, id, ancestor, status and label"
            ))),
        })
        .collect()
}

fn matches(container: &ContainerRow, (key, value): (&str, &str)) -> bool {
    match key {
        "name" => container
            .name
            .as_deref()
            .is_some_and(|name| name.contains(value.trim_matches(['^', '/', '$']))),
        "id" => container.id.starts_with(value),
        "ancestor" => {
            let tagless = container.image.rsplit_once(':').map(|(name, _)| name);
            container.image == value || tagless == Some(value) || container.image_id.hex().starts_with(value)
        }
        "status" => value == "created",
        // A container has no labels of its own here.
        _ => false,
    }
}

fn row(container: ContainerRow, whole: bool, now: SystemTime) -> Row {
    let age = container.created.and_then(|time| now.duration_since(time).ok());
    let short = container.id.get(..SHORT_ID).unwrap_or(&container.id).to_owned();
    Row {
        command: "",
        created_at: container.created.map_or_else(String::new, go_time),
        running_for: age.map_or_else(|| "N/A".to_owned(), |age| format!("{} ago", human_duration(age))),
        names: container.name.unwrap_or_else(|| short.clone()),
        id: if whole { container.id } else { short },
        image: container.image,
        labels: "",
        ports: "",
        size: "0B",
        state: "created",
        status: "Created",
    }
}

fn remove(args: &RmArgs, options: EngineOptions, env: &mut Env, open: Open<'_>) -> Result<(), CommandError> {
    let engine = open(options)?;
    let mut failure = None;
    for container in &args.containers {
        match engine.remove_container(container, args.force) {
            Ok(true) => writeln!(env.stdout, "{}", one_line(container))?,
            Ok(false) => {}
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    env.stdout.flush()?;
    failure.map_or(Ok(()), |error| Err(error.into()))
}

/// Removes every container, and says so as docker does.
pub(super) fn remove_all(engine: &dyn Engine, env: &mut Env) -> Result<(), CommandError> {
    let all = engine.containers()?;
    for container in &all {
        engine.remove_container(&container.id, true)?;
    }
    deleted("Containers", all.into_iter().map(|container| container.id), env)
}

fn prune(
    args: &PruneContainersArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    if !args.force && !is_confirmed("all stopped containers", env)? {
        return Ok(());
    }
    let engine = open(options)?;
    remove_all(engine.as_ref(), env)?;
    reclaimed(0, env)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_of_a_copy_are_told_apart_as_docker_does() {
        assert_eq!(side("c:/a/b:c"), (Some("c"), "/a/b:c"));
        assert_eq!(side("c:a"), (Some("c"), "a"));
        for own in [".", "-", "a/b", "/a:b", "./a:b", "../a:b"] {
            assert_eq!(side(own), (None, own));
        }
    }
}
