//! `dockerfile.v0`: the client's Dockerfile, lowered here (`frontend/dockerui`, `frontend/dockerfile/builder`).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rbuild_builder::attestation::sbom::{Scanned, Scanner};
use rbuild_builder::build::lower;
use rbuild_builder::entry_point;
use rbuild_builder::error::{BuildError, chain_text};
use rbuild_builder::front_ends::{SYNTAX_ARG, Syntax};
use rbuild_builder::ops::blocking;
use rbuild_builder::resolve::Resolver;
use rbuild_builder::solve::Reporter;
use rbuild_fileops::SourceTree;
use rbuild_frontend::{ContextOrigin, FrontendOptions, ImageResolveMode, LintWarning, Lowered, NoCache};
use rbuild_graph::{SourceLocation, SourceOp};
use rbuild_llb::attrs::{DockerfileAttrs, NoCacheAttr, ResolveMode};
use rbuild_oci::Platform;
use serde::Serialize;
use tonic::Status;

use super::contexts::{self, Contexts};
use super::{Asked, gateway, subrequest};
use crate::answer::{Answer, BASE_CONFIG, BuildRef, CONFIG, EPOCH, PLATFORMS, Refs};
use crate::attest;
use crate::core::Core;
use crate::errors::{self, build_status};
use crate::forwarder::Forwarder;
use crate::running::Running;
use crate::scope::Scope;

/// Largest Dockerfile or ignore file.
const TEXT_BYTES_MAX: u64 = 16 << 20;

/// Lowers the client's Dockerfile, for every platform asked for.
///
/// # Errors
/// Those of reading and lowering it.
pub(super) async fn answer(
    core: &Arc<Core>,
    running: &Arc<Running>,
    (caller, scope): (&Arc<Forwarder>, &Scope),
    asked: Asked,
) -> Result<Answer, Status> {
    let mut attrs = DockerfileAttrs::parse(&asked.attrs).map_err(|error| subrequest::attrs_status(&error))?;
    let contexts = Contexts::open(running, scope, &mut attrs, &asked.inputs).await?;
    let files = Files::load(running, scope, &attrs, &contexts).await?;
    // Whoever has a command line was forwarded to already.
    if attrs.forward.cmdline.is_none()
        && let Some(syntax) = Syntax::foreign(attrs.forward.syntax.as_deref(), &files.dockerfile)
    {
        let answered = gateway::forward(core, running, caller, asked, &syntax).await;
        return answered.map_err(|status| explained(&status, &syntax, &attrs.filename, &files.dockerfile));
    }
    if let Some(missing) = &attrs.forward.missing_cap {
        return Err(subrequest::missing_cap(missing));
    }
    if let Some(id) = &attrs.request_id {
        let warn = |warnings: &[LintWarning]| files.warn(&attrs.filename, warnings);
        return subrequest::answer(running, options(&attrs, &files, &contexts), id, &warn).await;
    }
    let mut platforms: Vec<Option<Platform>> = attrs.platforms.iter().cloned().map(Some).collect();
    if platforms.is_empty() {
        platforms.push(None);
    }
    let several = platforms.len() > 1 || attrs.multi_platform;
    let mut lowered = Vec::with_capacity(platforms.len());
    let resolver = Resolver::new(&running.job, &running.cancel);
    for (number, platform) in platforms.into_iter().enumerate() {
        let options = FrontendOptions {
            target_platform: platform.clone(),
            multi_platform: several,
            later_platform: number > 0,
            ..options(&attrs, &files, &contexts)
        };
        let done = lower(&resolver, &options, &running.cancel).await;
        if number == 0 {
            // The same file has the same faults for every platform.
            files.warn(&attrs.filename, warnings(&done));
        }
        let done = done.map_err(|error| build_status(&error))?;
        lowered.push((platform.unwrap_or_else(Platform::host), done));
    }
    let scanner = match &attrs.attestations.sbom {
        Some(sbom) => {
            let mode = resolve_mode(attrs.image_resolve_mode);
            Some(attest::find_scanner(&resolver, sbom, mode).await?)
        }
        None => None,
    };
    scope.add_images(resolver.looked_at());
    combine(lowered, several, scanner.as_ref())
}

/// An error of another front end, with where it was asked for.
fn explained(status: &Status, syntax: &Syntax, filename: &str, dockerfile: &[u8]) -> Status {
    match syntax.place {
        Some(line) => errors::at_line(status, filename, dockerfile, line),
        None => {
            let text = format!("failed with build-arg:{SYNTAX_ARG} = {}", syntax.line);
            errors::prefixed(status, &text)
        }
    }
}

fn options(attrs: &DockerfileAttrs, files: &Files, contexts: &Contexts) -> FrontendOptions {
    FrontendOptions {
        dockerfile: files.dockerfile.clone(),
        definition: files.definition.clone(),
        filename: attrs.filename.clone(),
        target: Some(attrs.target.clone()).filter(|target| !target.is_empty()),
        build_args: attrs.build_args.clone(),
        labels: attrs.labels.clone(),
        main_context: contexts.main.clone(),
        build_contexts: attrs.named_contexts.clone(),
        context_origin: ContextOrigin::Client(Box::new(contexts.clients.clone())),
        no_cache: match &attrs.no_cache {
            NoCacheAttr::Off => NoCache::Off,
            NoCacheAttr::All => NoCache::All,
            NoCacheAttr::Stages(stages) => NoCache::Stages(stages.clone()),
        },
        extra_hosts: attrs.extra_hosts.clone(),
        hostname: attrs.hostname.clone(),
        network: attrs.network,
        shm_size_bytes: u64::try_from(attrs.shm_size_bytes).unwrap_or(0),
        ulimits: attrs.ulimits.clone(),
        cgroup_parent: attrs.cgroup_parent.clone(),
        linux_resources: attrs.linux_resources.clone(),
        ignore_patterns: files.ignore_patterns.clone(),
        image_resolve_mode: resolve_mode(attrs.image_resolve_mode),
        cache_id_namespace: attrs.cache_id_namespace.clone(),
        ..FrontendOptions::default()
    }
}

const fn resolve_mode(asked: ResolveMode) -> ImageResolveMode {
    match asked {
        ResolveMode::Default => ImageResolveMode::Default,
        ResolveMode::ForcePull => ImageResolveMode::ForcePull,
        ResolveMode::PreferLocal => ImageResolveMode::PreferLocal,
    }
}

/// What lint found, also where the file cannot be lowered.
fn warnings(done: &Result<Lowered, BuildError>) -> &[LintWarning] {
    match done {
        Ok(lowered) => &lowered.warnings,
        Err(BuildError::Frontend { error, .. }) => &error.warnings,
        Err(_) => &[],
    }
}

/// The platforms of an answer, as exporters read them (`exptypes.Platforms`).
#[derive(Serialize)]
struct Platforms {
    #[serde(rename = "Platforms")]
    list: Vec<PlatformEntry>,
}

#[derive(Serialize)]
struct PlatformEntry {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Platform")]
    platform: Platform,
}

/// `lowered` with the platforms asked for: a stage may be of another one. `scanner` looks at each.
fn combine(
    lowered: Vec<(Platform, Lowered)>,
    several: bool,
    scanner: Option<&Scanner>,
) -> Result<Answer, Status> {
    let mut attestations = BTreeMap::new();
    let mut metadata = BTreeMap::new();
    let mut refs = BTreeMap::new();
    let mut list = Vec::with_capacity(lowered.len());
    for (platform, part) in lowered {
        let id = platform.to_string();
        let suffix = if several { format!("/{id}") } else { String::new() };
        if let Some(epoch) = part.epoch {
            let seconds = epoch.unix_seconds().to_string();
            metadata.insert(format!("{EPOCH}{suffix}"), seconds.into_bytes());
        }
        metadata.insert(format!("{CONFIG}{suffix}"), part.image.to_bytes());
        if let Some(base) = &part.base_image {
            metadata.insert(format!("{BASE_CONFIG}{suffix}"), base.to_bytes());
        }
        list.push(PlatformEntry {
            id: id.clone(),
            platform,
        });
        let definition = part
            .result
            .as_ref()
            .and_then(|target| rbuild_llb::encode(&part.graph, target).ok());
        if let Some(scanner) = scanner {
            let scanned = Scanned {
                name: &id,
                graph: &part.graph,
                core: part.result.as_ref(),
                extras: &part.scan_targets,
                ignore_cache: part.ignore_cache,
            };
            attestations.insert(id.clone(), vec![attest::scanned(scanner, &scanned)?]);
        }
        let graph = Arc::new(part.graph);
        let found = part
            .result
            .map(|target| Arc::new(BuildRef::new(graph, Some(target), definition)));
        refs.insert(id, found);
    }
    let platforms = serde_json::to_vec(&Platforms { list });
    metadata.insert(PLATFORMS.to_owned(), platforms.unwrap_or_default());
    let refs = match refs.pop_first() {
        Some((_, only)) if !several => Refs::One(only),
        Some((id, first)) => {
            refs.insert(id, first);
            Refs::Many(refs)
        }
        None => Refs::One(None),
    };
    Ok(Answer {
        refs,
        metadata,
        attestations,
    })
}

/// The texts a build begins with.
struct Files {
    dockerfile: Vec<u8>,
    ignore_patterns: Vec<String>,
    /// The vertex that loaded the Dockerfile: warnings about it belong there.
    load: Reporter,
    /// The graph that the Dockerfile is from, encoded.
    definition: Option<Vec<u8>>,
}

impl Files {
    fn warn(&self, filename: &str, warnings: &[LintWarning]) {
        for warning in warnings {
            let lines = SourceLocation::lines(0, warning.span.start, warning.span.end);
            self.load.warn(
                warning.short(),
                vec![warning.description.to_owned()],
                warning.url.to_owned(),
                Some((filename.to_owned(), lines.line_numbers())),
            );
        }
    }

    async fn load(
        running: &Running,
        scope: &Scope,
        attrs: &DockerfileAttrs,
        contexts: &Contexts,
    ) -> Result<Self, Status> {
        let filename = attrs.filename.as_str();
        let own_ignore = format!("{filename}.dockerignore");
        let lower_case = Path::new(filename)
            .with_file_name("dockerfile")
            .display()
            .to_string();
        let title = format!("[internal] load build definition from {filename}");
        let mut load = Reporter::internal(&running.job.sink, &title);
        let (tree, definition) = match &contexts.dockerfile {
            Some(built) => {
                load = contexts::reporter(running, built).unwrap_or(load);
                let tree = contexts::tree(running, scope, built).await;
                let tree = tree.map_err(|error| errors::prefixed(&error, "failed to read dockerfile"))?;
                let target = built.target.as_ref();
                (
                    tree,
                    target.and_then(|target| entry_point::encoded(&built.graph, target)),
                )
            }
            None => {
                let wanted = [filename, own_ignore.as_str(), lower_case.as_str()];
                let local = &attrs.context.dockerfile_local;
                let source = local_text(contexts, local, &wanted);
                let tree = fetch(running, scope, local, &source, &mut load).await;
                let tree = tree.map_err(|error| errors::prefixed(&error, "failed to read dockerfile"))?;
                let session = contexts.clients.session_of(local);
                (tree, entry_point::of_local(local, filename, Some(session)))
            }
        };
        let names = vec![filename.to_owned(), lower_case];
        let dockerfile = read(&tree, names).await?.ok_or_else(|| {
            Status::unknown(format!(
                "failed to read dockerfile: open {filename}: no such file or directory"
            ))
        })?;
        let mut ignore = read(&tree, vec![own_ignore]).await?;
        if contexts.main.is_some() {
            // What is built is taken as it is.
            ignore = None;
        } else if ignore.is_none() {
            let mut reporter = Reporter::internal(&running.job.sink, "[internal] load .dockerignore");
            let source = local_text(contexts, "context", &[".dockerignore"]);
            let tree = fetch(running, scope, "context", &source, &mut reporter).await;
            // A build that needs no context need not have one; one that does says so later.
            if let Ok(tree) = tree {
                ignore = read(&tree, vec![".dockerignore".to_owned()]).await?;
            }
        }
        let patterns = rbuild_dockerfile::ignore::read_patterns(ignore.as_deref().unwrap_or_default())
            .map_err(|error| Status::unknown(format!("failed parsing .dockerignore: {error}")))?;
        Ok(Self {
            dockerfile,
            ignore_patterns: patterns,
            load,
            definition,
        })
    }
}

/// A few files of a directory of the client.
fn local_text(contexts: &Contexts, name: &str, paths: &[&str]) -> SourceOp {
    let paths = serde_json::to_string(paths).unwrap_or_default();
    let attrs = BTreeMap::from([
        ("local.followpaths".to_owned(), paths),
        ("local.sharedkeyhint".to_owned(), format!("{name} texts")),
        ("local.differ".to_owned(), "none".to_owned()),
        (
            "local.session".to_owned(),
            contexts.clients.session_of(name).to_owned(),
        ),
    ]);
    SourceOp {
        identifier: format!("local://{name}"),
        attrs,
    }
}

async fn fetch(
    running: &Running,
    scope: &Scope,
    name: &str,
    source: &SourceOp,
    reporter: &mut Reporter,
) -> Result<Arc<SourceTree>, Status> {
    let tree = running.job.client.local(name, &source.attrs, reporter).await;
    let tree = tree.map_err(|error| errors::local_status(&error))?;
    scope.add_local(name);
    Ok(tree)
}

/// The first of `names` that is there.
async fn read(tree: &Arc<SourceTree>, names: Vec<String>) -> Result<Option<Vec<u8>>, Status> {
    let tree = Arc::clone(tree);
    blocking(move || {
        let root = tree.root();
        for name in names {
            match root.read_file(Path::new(&name), TEXT_BYTES_MAX) {
                Ok(text) => return Ok(Some(text)),
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    let text = chain_text(&error);
                    return Err(Status::unknown(format!("failed to read dockerfile: {text}")));
                }
            }
        }
        Ok(None)
    })
    .await
}
