//! What a build asks of the front end. Data only; the environment has been read, files have been read.

use std::collections::BTreeMap;

use rbuild_graph::{HostIp, LinuxResources, NetMode, Ulimit};
use rbuild_oci::Platform;

use crate::input::{ContextOrigin, InputGraph};
use crate::remote::RemoteContext;

/// Everything the front end needs to know besides image configs.
#[derive(Debug, Clone)]
pub struct FrontendOptions {
    /// The Dockerfile.
    pub dockerfile: Vec<u8>,
    /// The definition that it was loaded with, encoded, if there is one.
    pub definition: Option<Vec<u8>>,
    /// Its name, for spans.
    pub filename: String,
    /// Stage to build; the last one if absent.
    pub target: Option<String>,
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// `--label`; these beat the Dockerfile's.
    pub labels: BTreeMap<String, String>,
    /// Platform to build for, if one was asked for.
    pub target_platform: Option<Platform>,
    /// Platform of the machine that builds.
    pub build_platform: Platform,
    /// The result is one of several, so step names begin with the platform.
    pub multi_platform: bool,
    /// Main context, if it is not directory `context` of the client.
    pub main_context: Option<InputGraph>,
    /// Where the files of the main context come from, if not from the client (`local://context`).
    pub remote_context: Option<RemoteContext>,
    /// `--build-context`, values as written.
    pub build_contexts: BTreeMap<String, String>,
    /// Who gave them: what the values mean depends on it.
    pub context_origin: ContextOrigin,
    /// What is not taken from the cache.
    pub no_cache: NoCache,
    /// `--add-host`.
    pub extra_hosts: Vec<HostIp>,
    /// Host name of steps; empty for the sandbox's own.
    pub hostname: String,
    /// Network of steps that ask for none.
    pub network: NetMode,
    /// Size of `/dev/shm`, bytes; 0 for the sandbox's own.
    pub shm_size_bytes: u64,
    /// Limits of steps.
    pub ulimits: Vec<Ulimit>,
    /// Parent cgroup of steps.
    pub cgroup_parent: String,
    /// What a step may use; no part of its key.
    pub linux_resources: Option<LinuxResources>,
    /// Patterns of the main context's ignore file.
    pub ignore_patterns: Vec<String>,
    /// File and line of the one that cannot be used, if that is known; for messages.
    pub ignore_place: String,
    /// Where base images may come from.
    pub image_resolve_mode: ImageResolveMode,
    /// Prefix of cache mount ids (`BUILDKIT_CACHE_MOUNT_NS`).
    pub cache_id_namespace: String,
    /// Lower every stage, not only those the target needs: for lint.
    pub all_stages: bool,
    /// Ask for the rules that BuildKit does not have.
    pub own_checks: bool,
    /// Note the parameters of the target.
    pub outline: bool,
    /// It is not the first platform of several. Warnings are those of the first, and so are those that are errors
    /// (`frontend/dockerfile/builder/build.go`).
    pub later_platform: bool,
}

impl Default for FrontendOptions {
    fn default() -> Self {
        Self {
            dockerfile: Vec::new(),
            definition: None,
            filename: "Dockerfile".to_owned(),
            target: None,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            target_platform: None,
            build_platform: Platform::host(),
            multi_platform: false,
            main_context: None,
            remote_context: None,
            build_contexts: BTreeMap::new(),
            context_origin: ContextOrigin::Host,
            no_cache: NoCache::Off,
            extra_hosts: Vec::new(),
            hostname: String::new(),
            network: NetMode::Unset,
            shm_size_bytes: 0,
            ulimits: Vec::new(),
            cgroup_parent: String::new(),
            linux_resources: None,
            ignore_patterns: Vec::new(),
            ignore_place: String::new(),
            image_resolve_mode: ImageResolveMode::Default,
            cache_id_namespace: String::new(),
            all_stages: false,
            own_checks: false,
            outline: false,
            later_platform: false,
        }
    }
}

/// What is not taken from the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NoCache {
    /// The cache is used.
    #[default]
    Off,
    /// No step is taken from the cache.
    All,
    /// The steps of these stages are not, names compared ignoring case.
    Stages(Vec<String>),
}

impl NoCache {
    pub(crate) fn holds_for(&self, stage: &str) -> bool {
        match self {
            Self::Off => false,
            Self::All => true,
            Self::Stages(names) => names.iter().any(|name| name.eq_ignore_ascii_case(stage)),
        }
    }
}

/// Where base images may come from (`image.resolvemode` of BuildKit).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ImageResolveMode {
    /// The local store if it has the image, else the registry.
    #[default]
    Default,
    /// Always ask the registry.
    ForcePull,
    /// The local store whenever possible.
    PreferLocal,
}

impl ImageResolveMode {
    /// The word BuildKit uses for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::ForcePull => "pull",
            Self::PreferLocal => "local",
        }
    }
}
