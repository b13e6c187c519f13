//! The seam between the commands and the engine: everything a command asks for is a method of [`Engine`], and
//! [`crate::native::Native`] is the only place that calls the other crates. Commands are tested against an engine of their own.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rbuild_builder::cdi::CdiConfig;
use rbuild_builder::engine_load::{EngineTarget, Given};
use rbuild_builder::image_files::CopyRules;
use rbuild_builder::imagetools::attestations::{Kind, Predicates};
use rbuild_builder::imagetools::{Combination, Combined, Found};
use rbuild_builder::job::Dns;
use rbuild_builder::load::Loaded;
use rbuild_builder::local_image::PullPolicy;
use rbuild_builder::request::{BuildOutcome, BuildRequest, Entitlement};
use rbuild_builder::run::RunRequest;
pub(crate) use rbuild_builder::stored::Names;
use rbuild_frontend::subrequest::{Subrequest, SubrequestAnswer};
use rbuild_graph::progress::Sink;
use rbuild_oci::{Descriptor, Digest, ImageConfig, Reference};
use rbuild_server::core::FrontEnds;
use rbuild_server::gc::Rules;
use rbuild_server::history;
use rbuild_snapshotter::Means;
use rbuild_sys::userns::Choice;
use rbuild_tls::ServerFiles;
use rbuild_ui::diagnostic::Diagnostic;

use crate::serve_log::ServeLog;

/// Why the engine did not do what it was asked.
#[derive(Debug)]
pub(crate) enum EngineError {
    /// It was stopped.
    Cancelled,
    /// It failed; this is what the user is told.
    Failed(Box<Diagnostic>),
}

impl EngineError {
    /// A failure without place or hint.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed(Box::new(Diagnostic::new(message)))
    }
}

/// What every command may set.
#[derive(Debug, Clone, Default)]
pub(crate) struct EngineOptions {
    /// Store to use instead of the default one.
    pub(crate) root: Option<PathBuf>,
    /// Most steps, and threads, at once.
    pub(crate) jobs: Option<usize>,
    /// The rungs of the ladder that may be stood on.
    pub(crate) rung: Choice,
    /// How layers become file systems, instead of the first way that works.
    pub(crate) snapshotter: Option<Means>,
    /// Directory of docker's `config.json`, if it is not the usual one.
    pub(crate) docker_config: Option<PathBuf>,
    /// What is said of registries besides their files.
    pub(crate) registries: Registries,
}

/// What a command line says of registries, each by its host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Registries {
    /// Plain HTTP, or nobody who vouches, is enough.
    pub(crate) insecure: Vec<String>,
    /// Host, and where its images are looked for first.
    pub(crate) mirrors: Vec<(String, String)>,
    /// Host, and a file with who vouches for it.
    pub(crate) authorities: Vec<(String, PathBuf)>,
    /// Host, and the certificate and key it is shown.
    pub(crate) own: Vec<(String, (PathBuf, PathBuf))>,
    /// None of them may be asked.
    pub(crate) offline: bool,
}

/// One name of an image in the store, or an image without a name.
#[derive(Debug, Clone)]
pub(crate) struct ImageRow {
    /// Repository in its short form; absent for an image without a name.
    pub(crate) repository: Option<String>,
    /// Tag.
    pub(crate) tag: Option<String>,
    /// Digest of the manifest or index.
    pub(crate) digest: Digest,
    /// Image id: the config's digest, or the index's.
    pub(crate) id: Digest,
    /// When it was made, as its config says.
    pub(crate) created: Option<SystemTime>,
    /// Compressed size of all its blobs.
    pub(crate) size_bytes: u64,
}

/// All there is to say of an image.
#[derive(Debug, Clone)]
pub(crate) struct ImageDetails {
    /// Image id: the config's digest, or the index's.
    pub(crate) id: Digest,
    /// Names it has in the store.
    pub(crate) names: Vec<Reference>,
    /// What the names stand for.
    pub(crate) descriptor: Descriptor,
    /// The config; of an index that of the platform asked for.
    pub(crate) config: ImageConfig,
    /// Its layers, compressed, bottom first.
    pub(crate) layers: Vec<Descriptor>,
    /// Compressed size of all its blobs.
    pub(crate) size_bytes: u64,
    /// When it was named last.
    pub(crate) tagged: Option<SystemTime>,
}

/// Opens where an archive goes, once there is one to write.
pub(crate) type OpenOutput<'a> = &'a mut dyn FnMut() -> io::Result<Box<dyn Write>>;

/// A container to be created.
#[derive(Debug, Clone, Default)]
pub(crate) struct CreateRequest {
    /// Name or id of its image.
    pub(crate) image: String,
    /// Its own name.
    pub(crate) name: Option<String>,
    /// Platform of an image that has several.
    pub(crate) platform: Option<String>,
    /// When the registry is asked for the image.
    pub(crate) pull: PullPolicy,
}

/// A container that was created.
#[derive(Debug, Clone)]
pub(crate) struct ContainerRow {
    /// 64 hexadecimal digits.
    pub(crate) id: String,
    /// Its name, if it was given one.
    pub(crate) name: Option<String>,
    /// A name of its image, or the start of its id.
    pub(crate) image: String,
    /// Id of its image.
    pub(crate) image_id: Digest,
    /// When it was created.
    pub(crate) created: Option<SystemTime>,
}

/// One of several builds.
pub(crate) struct Planned {
    pub(crate) request: BuildRequest,
    /// Where it says what it does.
    pub(crate) sink: Arc<dyn Sink>,
    /// Positions of those that have to be done first: all before its own.
    pub(crate) after: Vec<usize>,
}

/// Where files of a container go.
pub(crate) enum FilesTo<'a> {
    /// A path of this machine.
    Path(&'a Path),
    /// A tar.
    Tar(OpenOutput<'a>),
}

/// One thing that takes room in the store.
#[derive(Debug, Clone)]
pub(crate) struct UsageRow {
    pub(crate) id: String,
    pub(crate) parents: Vec<String>,
    pub(crate) created: SystemTime,
    pub(crate) mutable: bool,
    pub(crate) in_use: bool,
    pub(crate) shared: bool,
    pub(crate) size_bytes: u64,
    pub(crate) description: String,
    pub(crate) usage_count: u64,
    pub(crate) last_used: Option<SystemTime>,
    /// `regular`, `source.local`, `exec.cachemount`, …
    pub(crate) kind: String,
}

/// Records a command is about: those that match every one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct UsageFilter {
    /// Not used for at least this long.
    pub(crate) unused_for: Option<Duration>,
    /// `key=value`, with BuildKit's keys (`id`, `parents`, `description`, `type`, `inuse`, `mutable`, `shared`,
    /// `private`).
    pub(crate) fields: Vec<(String, String)>,
}

/// What `prune` removes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PruneRequest {
    /// Records of internal use too.
    pub(crate) all: bool,
    /// Which.
    pub(crate) filter: UsageFilter,
    /// This much is always kept.
    pub(crate) reserved_bytes: Option<u64>,
    /// No more than this is kept.
    pub(crate) max_used_bytes: Option<u64>,
    /// This much of the disk shall be free.
    pub(crate) min_free_bytes: Option<u64>,
}

/// What removing an image did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Removed {
    /// Names that are gone.
    pub(crate) untagged: Vec<String>,
    /// Manifests that nothing names any more.
    pub(crate) deleted: Vec<Digest>,
    /// There was no such image, and that was no failure: it was to be forced.
    pub(crate) missing: bool,
}

/// What is served, and to whom.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServeRequest {
    /// Addresses to listen on.
    pub(crate) addresses: Vec<String>,
    /// Owner of the unix sockets.
    pub(crate) uid: Option<u32>,
    /// Group that may use the sockets.
    pub(crate) gid: Option<u32>,
    /// What clients on TCP see and must show; nothing listens there without.
    pub(crate) tls: Option<ServerFiles>,
    /// When to end by itself.
    pub(crate) idle: Option<Duration>,
    /// What builds may be given.
    pub(crate) entitlements: Vec<Entitlement>,
    /// Labels of the worker.
    pub(crate) labels: HashMap<String, String>,
    /// Configuration file, for what it says of registries.
    pub(crate) config: Option<PathBuf>,
    /// What is collected by itself.
    pub(crate) gc: Rules,
    /// Most steps at once, of all builds together.
    pub(crate) steps_max: Option<usize>,
    /// What steps are told of name servers.
    pub(crate) dns: Dns,
    /// How much of the history is kept.
    pub(crate) history: history::Limits,
    /// Front ends that may not be used.
    pub(crate) front_ends: FrontEnds,
    /// Where the server says what it does.
    pub(crate) log: ServeLog,
    /// Steps reach the network through proxies only.
    pub(crate) proxy_network: bool,
    /// Where the devices of the host are described.
    pub(crate) cdi: Option<CdiConfig>,
    /// What provenance says of this machine.
    pub(crate) provenance_keys: serde_json::Map<String, serde_json::Value>,
}

/// What `info` says of the engine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Info {
    /// Directory of the store.
    pub(crate) root: PathBuf,
    /// How it keeps layers, and whose.
    pub(crate) form: String,
    /// Whether it has no rights beyond its user's.
    pub(crate) rootless: bool,
    /// Images with a name.
    pub(crate) images: usize,
    /// Containers that were created.
    pub(crate) containers: usize,
    /// What the store takes, bytes.
    pub(crate) used_bytes: u64,
    /// Files that say something of registries.
    pub(crate) registry_files: Vec<PathBuf>,
}

/// What the commands need.
pub(crate) trait Engine {
    /// How steps run here, in a line.
    fn standing(&self) -> Option<String> {
        None
    }
    /// What is wrong with where it works, though it works.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
    /// Builds.
    fn build(&self, request: BuildRequest, sink: Arc<dyn Sink>) -> Result<BuildOutcome, EngineError>;
    /// Builds several at once, each when those that it needs are done. The first that fails stops the others.
    fn build_all(&self, builds: Vec<Planned>) -> Vec<Result<BuildOutcome, EngineError>> {
        let mut done = Vec::with_capacity(builds.len());
        for build in builds {
            done.push(self.build(build.request, build.sink));
            if done.iter().any(Result::is_err) {
                break;
            }
        }
        done
    }
    /// Builds a definition (LLB) with what `request` says of outputs, caches and directories.
    fn build_definition(
        &self,
        request: BuildRequest,
        definition: &[u8],
        sink: Arc<dyn Sink>,
    ) -> Result<BuildOutcome, EngineError>;
    /// Answers a question about the Dockerfile of `request`.
    fn call(
        &self,
        request: BuildRequest,
        subrequest: Subrequest,
        sink: Arc<dyn Sink>,
    ) -> Result<SubrequestAnswer, EngineError>;
    /// Pushes images of the store; returns name and manifest digest of each.
    fn push(&self, names: &[String], sink: Arc<dyn Sink>) -> Result<Vec<(String, Digest)>, EngineError>;
    /// Pulls images into the store; returns name and manifest digest of each.
    fn pull(
        &self,
        names: &[String],
        platform: Option<&str>,
        sink: Arc<dyn Sink>,
    ) -> Result<Vec<(String, Digest)>, EngineError>;
    /// What a registry has under a name.
    fn find_remote(&self, name: &str) -> Result<Found, EngineError>;
    /// The images that it leads to, with their configs.
    fn remote_configs(&self, found: &Found) -> Result<Vec<(Descriptor, ImageConfig)>, EngineError>;
    /// What the attestations in it say, of one kind.
    fn predicates(&self, found: &Found, kind: Kind) -> Result<Predicates, EngineError>;
    /// What refers to it in its repository.
    fn referrers(&self, found: &Found) -> Result<Vec<Descriptor>, EngineError>;
    /// Makes an index of images that registries have, and names it there if `publish`.
    fn combine(
        &self,
        asked: &Combination,
        publish: bool,
        sink: Arc<dyn Sink>,
    ) -> Result<Combined, EngineError>;
    /// Gives images of the store to another engine.
    fn give(&self, names: &[String], to: &EngineTarget) -> Result<Given, EngineError>;
    /// Runs a program of an image on the standard streams of this process; gives its exit code.
    fn run(&self, request: RunRequest, sink: Arc<dyn Sink>) -> Result<u8, EngineError>;
    /// What the engine is.
    fn info(&self) -> Result<Info, EngineError>;
    /// Every image.
    fn images(&self) -> Result<Vec<ImageRow>, EngineError>;
    /// Gives the image `source` the name `target` too.
    fn tag(&self, source: &str, target: &str) -> Result<(), EngineError>;
    /// Takes a name, or an image with all its names (`force`), out of the store.
    fn remove_image(&self, name: &str, force: bool) -> Result<Removed, EngineError>;
    /// All there is to say of an image, of an index of its image for `platform`.
    fn image(&self, text: &str, platform: Option<&str>) -> Result<ImageDetails, EngineError>;
    /// Creates a container; gives its id.
    fn create_container(&self, request: &CreateRequest, sink: Arc<dyn Sink>) -> Result<String, EngineError>;
    /// Every container, the newest first.
    fn containers(&self) -> Result<Vec<ContainerRow>, EngineError>;
    /// Removes a container; `false` if there is none and that is no error (`force`).
    fn remove_container(&self, text: &str, force: bool) -> Result<bool, EngineError>;
    /// Takes files out of a container: those at a path, or all.
    fn take_files(
        &self,
        container: &str,
        path: Option<(&str, CopyRules)>,
        to: FilesTo<'_>,
    ) -> Result<(), EngineError>;
    /// Writes images as one archive.
    fn save(&self, names: &[String], open: OpenOutput<'_>) -> Result<(), EngineError>;
    /// Takes the images of an archive.
    fn load(&self, input: &mut (dyn Read + Send), platform: Option<&str>)
    -> Result<Vec<Loaded>, EngineError>;
    /// What takes room.
    fn usage(&self, filter: &UsageFilter) -> Result<Vec<UsageRow>, EngineError>;
    /// Serves BuildKit's API until it is told to stop.
    fn serve(&self, request: ServeRequest) -> Result<(), EngineError>;
    /// Removes records; returns those that are gone.
    fn prune(&self, request: &PruneRequest) -> Result<Vec<UsageRow>, EngineError>;
}
