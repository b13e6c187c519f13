//! Attributes of the Dockerfile front end: `FrontendAttrs` of a solve, `Opts` of a gateway client
//! (`frontend/dockerui/config.go`, `context.go`; `frontend/dockerfile/builder`).
//!
//! Every value is read in the order and with the sentences of BuildKit. What is asked for but means nothing here is
//! kept in [`DockerfileAttrs::other`], as BuildKit keeps it.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild_graph::{HostIp, LinuxResources, NetMode, Ulimit};
use rbuild_oci::{Platform, PlatformError};

use crate::cache_options::CacheOption;
use crate::go::{self, ValueError};

pub mod attestations;
mod values;

pub use attestations::{AttestationError, Attestations, Provenance, Sbom, SlsaVersion};
pub use values::{HostsError, ResourceError, UlimitError};

/// The build argument that wants an index, be it of one image.
pub const MULTI_PLATFORM: &str = "BUILDKIT_MULTI_PLATFORM";
/// The build argument that wanted files to be copied by containers.
pub const DISABLE_FILE_OP: &str = "BUILDKIT_DISABLE_FILEOP";

/// What a client asks of the Dockerfile front end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerfileAttrs {
    /// Path of the Dockerfile, `Dockerfile` if not given. Clients give it; it is no path of this machine.
    pub filename: String,
    /// Stage to build; the last if empty.
    pub target: String,
    /// Platforms to build for, in normal form; the worker's if empty.
    pub platforms: Vec<Platform>,
    /// The result is an index, even for one platform.
    pub multi_platform: bool,
    /// `build-arg:`, those that the front end itself reads included.
    pub build_args: BTreeMap<String, String>,
    /// `label:`.
    pub labels: BTreeMap<String, String>,
    /// What is not taken from the cache.
    pub no_cache: NoCacheAttr,
    /// Main context.
    pub context: ContextAttrs,
    /// `context:NAME` and `context:NAME::PLATFORM`: where a named context comes from, as written.
    pub named_contexts: BTreeMap<String, String>,
    /// `input-metadata:NAME`, as written; see [`input_metadata`].
    pub input_metadata: BTreeMap<String, String>,
    /// `local-sessionid:NAME`: session that has a local directory; the own if absent.
    pub local_session_ids: BTreeMap<String, String>,
    /// `sharedkey:localdir:NAME`: hint which transfers share files.
    pub shared_keys: BTreeMap<String, String>,
    /// `add-hosts`, in lower case.
    pub extra_hosts: Vec<HostIp>,
    /// Host name of steps; empty for the sandbox's own.
    pub hostname: String,
    /// `force-network-mode`.
    pub network: NetMode,
    /// Parent cgroup of steps.
    pub cgroup_parent: String,
    /// Size of `/dev/shm`, bytes; 0 for the sandbox's own. BuildKit accepts negative numbers and mounts the default.
    pub shm_size_bytes: i64,
    /// Limits of steps.
    pub ulimits: Vec<Ulimit>,
    /// Limits of the steps' cgroups.
    pub linux_resources: Option<LinuxResources>,
    /// Where base images may come from.
    pub image_resolve_mode: ResolveMode,
    /// Caches to import: `cache-imports`, then `cache-from`.
    pub cache_imports: Vec<CacheOption>,
    /// `build-arg:BUILDKIT_CACHE_MOUNT_NS`: prefix of cache mount ids.
    pub cache_id_namespace: String,
    /// Attestations to make.
    pub attestations: Attestations,
    /// `requestid`: a subrequest such as `frontend.outline` instead of a build.
    pub request_id: Option<String>,
    /// What speaks for another front end.
    pub forward: ForwardAttrs,
    /// `vcs:…` without the prefix, for provenance.
    pub vcs: BTreeMap<String, String>,
    /// Attributes that the front end does not know.
    pub other: BTreeMap<String, String>,
}

/// Where the main context and the Dockerfile come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextAttrs {
    /// Git or HTTP address, if the context is remote. The attribute is called what `contextkey` says.
    pub remote: Option<String>,
    /// Directory of a remote context.
    pub subdir: Option<String>,
    /// Name of the local directory with the Dockerfile, `dockerfile` if not given.
    pub dockerfile_local: String,
    /// The Dockerfile is in that directory even if the context is remote.
    pub force_local_dockerfile: bool,
    /// `build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR`, if it is a truth value.
    pub keep_git_dir: Option<bool>,
}

impl Default for ContextAttrs {
    fn default() -> Self {
        Self {
            remote: None,
            subdir: None,
            dockerfile_local: "dockerfile".to_owned(),
            force_local_dockerfile: false,
            keep_git_dir: None,
        }
    }
}

/// What speaks for another front end than the one built in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForwardAttrs {
    /// `source`: image of the front end.
    pub source: Option<String>,
    /// `cmdline`: image and arguments that were forwarded to already; no `# syntax=` is followed then.
    pub cmdline: Option<String>,
    /// `build-arg:BUILDKIT_SYNTAX`: image and arguments to forward to.
    pub syntax: Option<String>,
    /// A capability of `frontend.caps` that is missing here, and that a front end forwarded to may have.
    pub missing_cap: Option<String>,
}

/// What is not taken from the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NoCacheAttr {
    /// The cache is used.
    #[default]
    Off,
    /// No step is taken from it.
    All,
    /// The steps of these stages are not, names compared ignoring case.
    Stages(Vec<String>),
}

/// Where base images may come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ResolveMode {
    /// The local store if it has the image, else the registry.
    #[default]
    Default,
    /// Always ask the registry.
    ForcePull,
    /// The local store whenever possible.
    PreferLocal,
}

/// Why attributes are refused. With its sources it is BuildKit's sentence.
#[derive(Debug, thiserror::Error)]
pub enum AttrError {
    /// An attribute of the past.
    #[error("support for {0} was removed in BuildKit 0.11")]
    Removed(&'static str),
    /// No platform.
    #[error("failed to parse target platform {text}")]
    Platform {
        /// As written.
        text: String,
        /// Why.
        #[source]
        source: PlatformError,
    },
    /// No mode.
    #[error("invalid image-resolve-mode: {0}")]
    ResolveMode(String),
    /// `add-hosts`.
    #[error("failed to parse additional hosts")]
    Hosts(#[source] HostsError),
    /// `shm-size`.
    #[error("failed to parse shm size")]
    ShmSize(#[source] ValueError),
    /// `ulimit`.
    #[error("failed to parse ulimit")]
    Ulimit(#[source] UlimitError),
    /// `memory` and its kin.
    #[error("failed to parse resource limits")]
    Resources(#[source] ResourceError),
    /// `force-network-mode`.
    #[error("invalid netmode {0}")]
    Network(String),
    /// `multi-platform`.
    #[error("invalid boolean value for multi-platform: {0}")]
    MultiPlatform(String),
    /// Many platforms, and no index for them.
    #[error("conflicting config: returning multiple target platforms is not allowed")]
    MultiPlatformConflict,
    /// `cache-imports`.
    #[error("failed to unmarshal cache-imports")]
    CacheImports {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// `attest:`.
    #[error(transparent)]
    Attestations(#[from] AttestationError),
    /// `frontend.caps` asks for what is not here. Clients get it as [`crate::errors::Detail::FrontendCap`] with
    /// [`crate::errors::Code::Unimplemented`].
    #[error("unsupported frontend capability {0}")]
    FrontendCap(String),
    /// `input-metadata:`.
    #[error("failed to parse input metadata {text}")]
    InputMetadata {
        /// As written.
        text: String,
        /// Why.
        #[source]
        source: MetadataError,
    },
}

/// Why metadata of an input are none.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// No JSON object of texts.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A value is not base64.
    #[error(transparent)]
    Base64(#[from] base64::DecodeError),
}

/// Capabilities of the front end that a client may ask for.
const FRONTEND_CAPS: [&str; 4] = [
    "moby.buildkit.frontend.contexts",
    "moby.buildkit.frontend.gitquerystring",
    "moby.buildkit.frontend.inputs",
    crate::SUBREQUESTS_CAP,
];

/// Reads the limits among `attrs`.
///
/// # Errors
/// [`ResourceError`] for the first that is wrong.
pub fn linux_resources(attrs: &BTreeMap<String, String>) -> Result<Option<LinuxResources>, ResourceError> {
    values::resources(&mut Opts::new(attrs))
}

impl DockerfileAttrs {
    /// Reads all attributes.
    ///
    /// # Errors
    /// [`AttrError`] for the first that is wrong, in BuildKit's order.
    pub fn parse(attrs: &BTreeMap<String, String>) -> Result<Self, AttrError> {
        let mut opts = Opts::new(attrs);
        removed(&mut opts)?;
        let platforms = values::platforms(opts.text("platform"))?;
        let image_resolve_mode = values::resolve_mode(opts.text("image-resolve-mode"))?;
        let extra_hosts = values::hosts(opts.text("add-hosts")).map_err(AttrError::Hosts)?;
        let shm_size_bytes = match opts.text("shm-size") {
            "" => 0,
            text => go::int(text).map_err(AttrError::ShmSize)?,
        };
        let ulimits = values::ulimits(opts.text("ulimit")).map_err(AttrError::Ulimit)?;
        let linux_resources = values::resources(&mut opts).map_err(AttrError::Resources)?;
        let network = values::network(opts.text("force-network-mode"))?;
        let no_cache = match opts.get("no-cache") {
            None => NoCacheAttr::Off,
            Some("") => NoCacheAttr::All,
            Some(stages) => NoCacheAttr::Stages(stages.split(',').map(str::to_owned).collect()),
        };
        let multi_platform = {
            let given = opts.text("multi-platform");
            multi_platform(given, opts.build_arg(MULTI_PLATFORM), platforms.len() > 1)?
        };
        let cache_imports = read_cache_imports(&mut opts)?;
        let attestations = attestations::parse(attrs)?;
        opts.take_prefix("attest:");
        let missing_cap = frontend_caps(opts.text("frontend.caps"))?;
        let hostname = match opts.build_arg("BUILDKIT_SANDBOX_HOSTNAME") {
            None | Some("") => opts.text("hostname"),
            Some(name) => {
                opts.text("hostname");
                name
            }
        };
        Ok(Self {
            filename: opts.get("filename").unwrap_or("Dockerfile").to_owned(),
            target: opts.text("target").to_owned(),
            platforms,
            multi_platform,
            no_cache,
            context: context(&mut opts),
            named_contexts: opts.take_prefix("context:"),
            input_metadata: opts.take_prefix("input-metadata:"),
            local_session_ids: opts.take_prefix("local-sessionid:"),
            shared_keys: opts.take_prefix("sharedkey:localdir:"),
            extra_hosts,
            hostname: hostname.to_owned(),
            network,
            cgroup_parent: opts.text("cgroup-parent").to_owned(),
            shm_size_bytes,
            ulimits,
            linux_resources,
            image_resolve_mode,
            cache_imports,
            cache_id_namespace: opts
                .build_arg("BUILDKIT_CACHE_MOUNT_NS")
                .unwrap_or_default()
                .to_owned(),
            attestations,
            request_id: opts.get("requestid").map(str::to_owned),
            forward: ForwardAttrs {
                source: opts.get("source").map(str::to_owned),
                cmdline: opts.get("cmdline").map(str::to_owned),
                syntax: opts.build_arg("BUILDKIT_SYNTAX").map(str::to_owned),
                missing_cap,
            },
            vcs: opts.take_prefix("vcs:"),
            labels: opts.take_prefix("label:"),
            build_args: opts.take_prefix("build-arg:"),
            other: opts.rest(),
        })
    }
}

/// The attributes, and which of them nobody has asked for.
struct Opts<'a> {
    all: &'a BTreeMap<String, String>,
    left: BTreeSet<&'a str>,
}

impl<'a> Opts<'a> {
    fn new(all: &'a BTreeMap<String, String>) -> Self {
        Self {
            all,
            left: all.keys().map(String::as_str).collect(),
        }
    }

    fn get(&mut self, key: &str) -> Option<&'a str> {
        self.left.remove(key);
        self.all.get(key).map(String::as_str)
    }

    /// As BuildKit's maps do, nothing for what is not there.
    fn text(&mut self, key: &str) -> &'a str {
        self.get(key).unwrap_or_default()
    }

    /// A build argument that the front end reads; it stays one.
    fn build_arg(&self, name: &str) -> Option<&'a str> {
        self.all.get(&format!("build-arg:{name}")).map(String::as_str)
    }

    fn take_prefix(&mut self, prefix: &str) -> BTreeMap<String, String> {
        let mut taken = BTreeMap::new();
        for (key, value) in self.all.range(prefix.to_owned()..) {
            let Some(name) = key.strip_prefix(prefix) else {
                break;
            };
            self.left.remove(key.as_str());
            taken.insert(name.to_owned(), value.clone());
        }
        taken
    }

    fn rest(self) -> BTreeMap<String, String> {
        let pair = |key: &str| Some((key.to_owned(), self.all.get(key)?.clone()));
        self.left.iter().filter_map(|key| pair(key)).collect()
    }
}

fn removed(opts: &mut Opts<'_>) -> Result<(), AttrError> {
    if !opts.text("override-copy-image").is_empty() {
        return Err(AttrError::Removed("\"override-copy-image\""));
    }
    check_disable_file_op(opts.build_arg(DISABLE_FILE_OP))
}

/// Whether a build argument asks for what BuildKit had before its file operations.
///
/// # Errors
/// [`AttrError::Removed`].
pub fn check_disable_file_op(argument: Option<&str>) -> Result<(), AttrError> {
    if argument.map(go::boolean) == Some(Ok(true)) {
        return Err(AttrError::Removed("\"BUILDKIT_DISABLE_FILEOP\" build-arg"));
    }
    Ok(())
}

/// Whether the result is an index, given the attribute `multi-platform`, the build argument [`MULTI_PLATFORM`], and
/// whether there are `many` platforms (`frontend/dockerui/config.go`).
///
/// # Errors
/// A value that is none, or that there is no index for many.
pub fn multi_platform(given: &str, argument: Option<&str>, many: bool) -> Result<bool, AttrError> {
    let text = match argument {
        None | Some("") => given,
        Some(text) => text,
    };
    if text.is_empty() {
        return Ok(many);
    }
    let asked = go::boolean(text).map_err(|_| AttrError::MultiPlatform(text.to_owned()))?;
    if many && !asked {
        return Err(AttrError::MultiPlatformConflict);
    }
    Ok(asked)
}

/// The caches that options name, whatever the front end: `cache-imports`, then `cache-from`.
///
/// # Errors
/// [`AttrError::CacheImports`].
pub fn cache_imports(attrs: &BTreeMap<String, String>) -> Result<Vec<CacheOption>, AttrError> {
    read_cache_imports(&mut Opts::new(attrs))
}

fn read_cache_imports(opts: &mut Opts<'_>) -> Result<Vec<CacheOption>, AttrError> {
    let mut imports = match opts.text("cache-imports") {
        "" => Vec::new(),
        text => CacheOption::list_from_json(text).map_err(|source| {
            // The text may hold keys and tokens of caches, so it is not shown as BuildKit shows it.
            AttrError::CacheImports { source }
        })?,
    };
    let references = opts.text("cache-from");
    if !references.is_empty() {
        imports.extend(references.split(',').map(CacheOption::registry));
    }
    Ok(imports)
}

/// The first missing capability, if what is asked for may be forwarded to a front end that has it.
fn frontend_caps(asked: &str) -> Result<Option<String>, AttrError> {
    let mut missing = None;
    for one in asked.split(',').filter(|_| !asked.is_empty()) {
        let name = one.split_once('+').map_or(one, |(name, _)| name);
        if FRONTEND_CAPS.contains(&name) {
            continue;
        }
        if !one.contains("+forward") {
            return Err(AttrError::FrontendCap(name.to_owned()));
        }
        missing = Some(name.to_owned());
    }
    Ok(missing)
}

fn context(opts: &mut Opts<'_>) -> ContextAttrs {
    let key = opts.get("contextkey").unwrap_or("context");
    let remote = opts.get(key).filter(|address| !address.is_empty());
    let dockerfile = opts.get("dockerfilekey");
    ContextAttrs {
        remote: remote.map(str::to_owned),
        subdir: opts.get("contextsubdir").map(str::to_owned),
        dockerfile_local: dockerfile.unwrap_or("dockerfile").to_owned(),
        force_local_dockerfile: dockerfile.is_some(),
        keep_git_dir: opts
            .build_arg("BUILDKIT_CONTEXT_KEEP_GIT_DIR")
            .and_then(|text| go::boolean(text).ok()),
    }
}

/// Reads the metadata of an input (`containerimage.config` and the like): JSON with base64 values. BuildKit reads
/// them when the input is used.
///
/// # Errors
/// [`AttrError::InputMetadata`].
pub fn input_metadata(text: &str) -> Result<BTreeMap<String, Vec<u8>>, AttrError> {
    let read = || -> Result<_, MetadataError> {
        let texts: BTreeMap<String, Option<String>> = serde_json::from_str(text)?;
        let mut values = BTreeMap::new();
        for (key, value) in texts {
            values.insert(key, STANDARD.decode(value.unwrap_or_default())?);
        }
        Ok(values)
    };
    read().map_err(|source| AttrError::InputMetadata {
        text: text.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
