//! The engine of this program: the only place where commands meet the crates that do the work.

mod builds;
mod containers;
mod exit_code;
mod images;
pub(crate) mod login;
mod run;
mod rung;
mod shown;
mod threads;
mod usage;

use std::convert::Infallible;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rbuild_builder::engine::{self as core, default_root};
use rbuild_builder::engine_load::{self, EngineTarget, Given};
use rbuild_builder::error::{BuildError, Place, chain_text};
use rbuild_builder::image_files::CopyRules;
use rbuild_builder::imagetools::attestations::{Kind, Predicates};
use rbuild_builder::imagetools::{self, Combination, Combined, Found};
use rbuild_builder::load::Loaded;
use rbuild_builder::request::{BuildOutcome, BuildRequest};
use rbuild_builder::run::RunRequest;
use rbuild_builder::{save, stored, transfer};
use rbuild_frontend::subrequest::{Subrequest, SubrequestAnswer};
use rbuild_graph::progress::Sink;
use rbuild_graph::{SourcePosition, SourceText};
use rbuild_oci::{Descriptor, Digest, ImageConfig, Platform};
use rbuild_registry::{Client, ConfigSources, CredentialSources, Credentials, RegistryConfig, USER_AGENT};
use rbuild_server::core::{Core, Settings};
use rbuild_server::front_end::local::LocalDefinition;
use rbuild_server::listen::{Access, listen};
use rbuild_store::{Exposed, OpenOptions, Store, exposed};
use rbuild_sys::userns::{self, Rung};
use rbuild_ui::diagnostic::{Diagnostic, Source};

use crate::engine::{
    ContainerRow, CreateRequest, Engine, EngineError, EngineOptions, FilesTo, ImageDetails, ImageRow, Info,
    Names, OpenOutput, Planned, PruneRequest, Registries, Removed, ServeRequest, UsageFilter, UsageRow,
};
use crate::serve_log::Level;
pub(crate) use rung::{confinement, sandbox};
use rung::{form_name, keeps_owners, standing};
use shown::{Shown, Surroundings};
use threads::Threads;

/// No core dumps and no tracing: the memory of this process may hold credentials and secrets.
pub(crate) fn harden() {
    let none = rustix::process::Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // Failing here means the limit is already lower, or that a policy forbids even this: nothing to tell anyone.
    let _already_low = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    let _not_supported =
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// The engine, with the runtime it lives on.
#[derive(Debug)]
pub(crate) struct Native {
    core: Arc<core::Engine>,
    standing: String,
    exposed: Option<Exposed>,
    threads: Threads,
    root: PathBuf,
    said: Registries,
    rung: Rung,
}

/// There is no default where there is no home.
pub(crate) const NO_PLACE: &str =
    "no place for the store: HOME is not set; name one with --root or RBUILD_ROOT";
const ELSEWHERE: &str = "; name another place with --root or RBUILD_ROOT";

/// Whether it failed because this user may not write there.
fn is_closed(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind;
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && matches!(
                error.kind(),
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
            )
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// Where the store is if nobody says.
pub(crate) fn store_root() -> Option<PathBuf> {
    default_root(
        |name| std::env::var_os(name),
        rustix::process::geteuid().is_root(),
    )
}

/// The names of the store at `root`, or at the usual place: no namespace is entered, no thread started, no file written.
pub(crate) fn names(root: Option<PathBuf>) -> Names {
    let root = root.or_else(store_root);
    root.map(|root| stored::names_at(&root)).unwrap_or_default()
}

impl Native {
    /// Enters the namespaces, then starts the threads: a process with threads cannot change its user namespace.
    pub(crate) fn open(options: EngineOptions) -> Result<Box<dyn Engine>, EngineError> {
        let root = options
            .root
            .or_else(store_root)
            .ok_or_else(|| EngineError::failed(NO_PLACE))?;
        let root = std::path::absolute(&root).unwrap_or(root);
        let surroundings = Surroundings::of_process();
        let exposed = exposed(&root);
        let entered = userns::enter(options.rung).map_err(|error| EngineError::failed(chain_text(&error)))?;
        let rung = entered.rung;
        let form_name = form_name(rung).map_err(|error| EngineError::failed(chain_text(&error)))?;
        let sandbox = sandbox(rung).map_err(|error| EngineError::failed(chain_text(&error)))?;
        let sandbox = sandbox.without_steps(entered.without_steps());
        let store = Store::open(&root, &OpenOptions::default()).map_err(|error| {
            let elsewhere = if is_closed(&error) { ELSEWHERE } else { "" };
            EngineError::failed(format!(
                "store {}: {}{elsewhere}",
                root.display(),
                chain_text(&error)
            ))
        })?;
        if rung == Rung::OneId || rung == Rung::Files {
            keeps_owners(&root)?;
        }
        let shown = Shown::choose(options.snapshotter, &store, &root, rung, &surroundings)?;
        let mut config = RegistryConfig::load(&ConfigSources::from_process())
            .map_err(|error| EngineError::failed(chain_text(&error)))?;
        say_of_registries(&mut config, &options.registries);
        let credentials = Credentials::load(&credential_sources(options.docker_config.as_deref()));
        let client = Client::new(config, credentials, USER_AGENT);
        let workers = options
            .jobs
            .unwrap_or(usize::MAX)
            .min(rbuild_sys::process::processors())
            .max(1);
        let threads = Threads::start(workers)?;
        let core = core::Engine::new(store, client, sandbox, rung.form(), form_name)
            .with_means(shown.means)
            .with_confinement(confinement(rung));
        let core = Arc::new(core);
        Ok(Box::new(Self {
            core,
            standing: standing(&entered, &shown),
            exposed,
            threads,
            root,
            said: options.registries,
            rung,
        }))
    }

    /// Runs `work`; a signal ends the wait for it.
    fn wait<T>(
        &self,
        work: impl Future<Output = Result<T, impl std::error::Error + 'static>>,
    ) -> Result<T, EngineError> {
        self.threads.wait(work)
    }

    /// Runs a build on a thread of the runtime: the future is large, and the main thread has nothing else to do than to
    /// wait.
    fn run<T: Send + 'static>(
        &self,
        build: impl Future<Output = Result<T, BuildError>> + Send + 'static,
    ) -> Result<T, EngineError> {
        self.threads.finish(self.threads.spawn(build))
    }
}

/// Where credentials are looked for, docker's file being in `docker_config` if that is given.
pub(crate) fn credential_sources(docker_config: Option<&Path>) -> CredentialSources {
    let mut sources = CredentialSources::from_process();
    if let Some(directory) = docker_config.and_then(Path::to_str) {
        sources
            .env
            .insert("DOCKER_CONFIG".to_owned(), directory.to_owned());
    }
    sources
}

/// Adds what the command line says to what the files say.
fn say_of_registries(config: &mut RegistryConfig, said: &Registries) {
    for host in &said.insecure {
        config.set_insecure(host);
    }
    for (host, mirror) in &said.mirrors {
        config.add_mirror(host, mirror);
    }
    for (host, file) in &said.authorities {
        config.add_authority(host, file.clone());
    }
    for (host, (cert, key)) in &said.own {
        config.add_own_certificate(host, cert.clone(), key.clone());
    }
    if said.offline {
        config.set_offline();
    }
}

fn parse_platform(text: Option<&str>) -> Result<Platform, EngineError> {
    match text {
        None => Ok(Platform::host()),
        Some(text) => Ok(Platform::parse(text).map_err(failed)?.normalized()),
    }
}

fn failed(error: impl std::error::Error + 'static) -> EngineError {
    EngineError::Failed(Box::new(Diagnostic {
        exit_code: exit_code::of(&error),
        ..Diagnostic::new(chain_text(&error))
    }))
}

fn from_ms(milliseconds: i64) -> Option<SystemTime> {
    let since = u64::try_from(milliseconds).ok().filter(|ms| *ms > 0)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(since))
}

/// All places of a failure, each once and the last first: so do BuildKit's clients show what a server tells them.
fn sources(place: Place) -> Vec<Source> {
    let of = |text: SourceText, spans| Source {
        filename: text.filename,
        text: text.text,
        spans,
    };
    let line = |position: SourcePosition| u32::try_from(position.line).unwrap_or(0);
    let mut found: Vec<Source> = Vec::new();
    for (text, ranges) in place.all.into_iter().rev() {
        let spans = ranges.iter().map(|range| (line(range.start), line(range.end)));
        let source = of(text, spans.collect());
        if !found.contains(&source) {
            found.push(source);
        }
    }
    if found.is_empty() {
        found.push(of(place.source, vec![place.lines]));
    }
    found
}

fn diagnostic(error: &BuildError) -> EngineError {
    if error.is_canceled() {
        return EngineError::Cancelled;
    }
    EngineError::Failed(Box::new(Diagnostic {
        message: error.message(),
        sources: error.place().map(sources).unwrap_or_default(),
        hints: error.hints(),
        exit_code: exit_code::of(error),
        ..Diagnostic::default()
    }))
}

impl Engine for Native {
    fn standing(&self) -> Option<String> {
        Some(self.standing.clone())
    }

    fn warnings(&self) -> Vec<String> {
        self.exposed.iter().map(ToString::to_string).collect()
    }

    fn build(&self, request: BuildRequest, sink: Arc<dyn Sink>) -> Result<BuildOutcome, EngineError> {
        self.run(self.planned(request, sink, self.threads.cancel.clone()))
    }

    fn build_all(&self, builds: Vec<Planned>) -> Vec<Result<BuildOutcome, EngineError>> {
        self.build_several(builds)
    }

    fn build_definition(
        &self,
        request: BuildRequest,
        definition: &[u8],
        sink: Arc<dyn Sink>,
    ) -> Result<BuildOutcome, EngineError> {
        let server = Arc::new(Core::new(Arc::clone(&self.core), Settings::default()));
        let definition = Arc::new(LocalDefinition::read(server, definition).map_err(failed)?);
        let engine = Arc::clone(&self.core);
        self.run(rbuild_builder::build::build_definition(
            engine,
            request,
            sink,
            self.threads.cancel.clone(),
            definition,
        ))
    }

    fn call(
        &self,
        request: BuildRequest,
        subrequest: Subrequest,
        sink: Arc<dyn Sink>,
    ) -> Result<SubrequestAnswer, EngineError> {
        let core = Arc::clone(&self.core);
        let cancel = self.threads.cancel.clone();
        let front_ends = self.front_ends();
        self.run(async move {
            rbuild_builder::subrequest::call(core, request, subrequest, sink, cancel, &front_ends).await
        })
    }

    fn push(&self, names: &[String], sink: Arc<dyn Sink>) -> Result<Vec<(String, Digest)>, EngineError> {
        let mut pushed = Vec::new();
        for name in names {
            let (reference, digest) = self.wait(transfer::push(&self.core, name, &sink))?;
            pushed.push((reference.to_string(), digest));
        }
        Ok(pushed)
    }

    fn pull(
        &self,
        names: &[String],
        platform: Option<&str>,
        sink: Arc<dyn Sink>,
    ) -> Result<Vec<(String, Digest)>, EngineError> {
        let platform = parse_platform(platform)?;
        let mut pulled = Vec::new();
        for name in names {
            let (reference, digest) = self.wait(transfer::pull(&self.core, name, &platform, &sink))?;
            pulled.push((reference.to_string(), digest));
        }
        Ok(pulled)
    }

    fn find_remote(&self, name: &str) -> Result<Found, EngineError> {
        self.wait(imagetools::find(self.core.images.client(), name))
    }

    fn remote_configs(&self, found: &Found) -> Result<Vec<(Descriptor, ImageConfig)>, EngineError> {
        self.wait(imagetools::configs(self.core.images.client(), found))
    }

    fn predicates(&self, found: &Found, kind: Kind) -> Result<Predicates, EngineError> {
        let client = self.core.images.client();
        self.wait(imagetools::attestations::predicates(client, found, kind))
    }

    fn referrers(&self, found: &Found) -> Result<Vec<Descriptor>, EngineError> {
        let client = self.core.images.client();
        self.wait(client.referrers(&found.reference, &found.descriptor.digest))
    }

    fn combine(
        &self,
        asked: &Combination,
        publish: bool,
        sink: Arc<dyn Sink>,
    ) -> Result<Combined, EngineError> {
        self.wait(async {
            let combined = imagetools::combine(self.core.images.client(), asked).await?;
            if publish {
                imagetools::publish(&self.core, &combined, &asked.targets, &sink).await?;
            }
            Ok::<_, imagetools::ImagetoolsError>(combined)
        })
    }

    fn give(&self, names: &[String], to: &EngineTarget) -> Result<Given, EngineError> {
        let saved = save::find(&self.core.store, names).map_err(failed)?;
        let given = self.wait(async { Ok::<_, Infallible>(engine_load::give(saved, to).await) })?;
        given.map_err(|error| {
            EngineError::Failed(Box::new(Diagnostic {
                hints: error.hints(),
                ..Diagnostic::new(chain_text(&error))
            }))
        })
    }

    fn run(&self, request: RunRequest, sink: Arc<dyn Sink>) -> Result<u8, EngineError> {
        self.run_image(&request, sink)
    }

    fn info(&self) -> Result<Info, EngineError> {
        let rows = images::rows(&self.core.store)?;
        let usage = self.core.store.du().map_err(failed)?;
        Ok(Info {
            root: self.root.clone(),
            form: self.core.form_name.as_str().to_owned(),
            rootless: self.rung != Rung::RootNamespaces,
            images: rows.iter().filter(|row| row.repository.is_some()).count(),
            containers: self.containers()?.len(),
            used_bytes: usage.entries.iter().map(|entry| entry.bytes).sum(),
            registry_files: self
                .core
                .images
                .client()
                .config()
                .files()
                .map(Path::to_owned)
                .collect(),
        })
    }

    fn images(&self) -> Result<Vec<ImageRow>, EngineError> {
        images::rows(&self.core.store)
    }

    fn image(&self, text: &str, platform: Option<&str>) -> Result<ImageDetails, EngineError> {
        images::details(&self.core.store, text, &parse_platform(platform)?)
    }

    fn tag(&self, source: &str, target: &str) -> Result<(), EngineError> {
        images::tag(&self.core.store, source, target)
    }

    fn remove_image(&self, name: &str, force: bool) -> Result<Removed, EngineError> {
        images::remove(&self.core.store, name, force)
    }

    fn create_container(&self, request: &CreateRequest, sink: Arc<dyn Sink>) -> Result<String, EngineError> {
        self.create(request, sink)
    }

    fn containers(&self) -> Result<Vec<ContainerRow>, EngineError> {
        containers::rows(&self.core.store)
    }

    fn remove_container(&self, text: &str, force: bool) -> Result<bool, EngineError> {
        containers::remove(&self.core.store, text, force)
    }

    fn take_files(
        &self,
        container: &str,
        path: Option<(&str, CopyRules)>,
        to: FilesTo<'_>,
    ) -> Result<(), EngineError> {
        self.take(container, path, to)
    }

    fn save(&self, names: &[String], open: OpenOutput<'_>) -> Result<(), EngineError> {
        images::save(&self.core.store, names, open)
    }

    fn load(
        &self,
        input: &mut (dyn Read + Send),
        platform: Option<&str>,
    ) -> Result<Vec<Loaded>, EngineError> {
        rbuild_builder::load::load(&self.core.store, input, &parse_platform(platform)?).map_err(failed)
    }

    fn serve(&self, request: ServeRequest) -> Result<(), EngineError> {
        let mut sources = ConfigSources::from_process();
        if let Some(config) = &request.config {
            let path = config.display().to_string();
            sources.env.insert("BUILDKITD_CONFIG".to_owned(), path);
        }
        let access = Access {
            uid: request.uid,
            gid: request.gid,
            tls: request
                .tls
                .map(|files| files.load())
                .transpose()
                .map_err(failed)?,
        };
        let mut registries = RegistryConfig::load(&sources).map_err(failed)?;
        say_of_registries(&mut registries, &self.said);
        let settings = Settings {
            labels: request.labels,
            entitlements: request.entitlements,
            provenance_keys: request.provenance_keys,
            registries,
            gc: request.gc,
            steps_max: request.steps_max,
            dns: request.dns,
            history: request.history,
            front_ends: request.front_ends,
            proxy_network: request.proxy_network,
            cdi: request.cdi,
        };
        let server = Arc::new(Core::new(Arc::clone(&self.core), settings));
        self.threads.block_on(async {
            let mut listening = Vec::new();
            for address in &request.addresses {
                listening.extend(listen(address, &access).map_err(failed)?);
            }
            for one in &listening {
                let line = format!("running server on {}", one.address());
                request.log.write(&mut std::io::stderr(), Level::Info, &line);
            }
            let served =
                rbuild_server::serve::serve(server, listening, request.idle, self.threads.cancel.clone())
                    .await;
            served.map_err(failed)
        })
    }

    fn usage(&self, filter: &UsageFilter) -> Result<Vec<UsageRow>, EngineError> {
        usage::rows(&self.core.store, filter)
    }

    fn prune(&self, request: &PruneRequest) -> Result<Vec<UsageRow>, EngineError> {
        usage::prune(&self.core.store, request)
    }
}
