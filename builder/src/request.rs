//! What a build is asked to do and what comes of it: the types between every caller (command line, API) and the
//! engine. Data only.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use rbuild_frontend::NoCache;
use rbuild_graph::{HostIp, LinuxResources, NetMode, Ulimit};
pub use rbuild_llb::attrs::{Attestations, ResourceError, attestations, linux_resources};
pub use rbuild_llb::exporters::{AnnotationSet, Annotations, Epoch, annotation};
use rbuild_oci::Digest;
pub use rbuild_registry::{UrlError, UrlRequest};

pub use crate::cache_transfer::{CacheExport, CacheForm, CacheSource, CacheTarget};
use crate::cdi::DeviceGrants;
use crate::client::ContentPlace;
use crate::source_policy::SourcePolicies;
use crate::ssh::Keyring;

/// Everything one build needs to know, with the environment already read.
#[derive(Debug, Clone, Default)]
pub struct BuildRequest {
    /// Where the files of COPY come from.
    pub context: ContextSource,
    /// Where the Dockerfile comes from.
    pub dockerfile: DockerfileSource,
    /// Stage to build; the last one if absent.
    pub target: Option<String>,
    /// `--build-arg`, later ones win.
    pub build_args: BTreeMap<String, String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--build-context name=value`, values as written.
    pub build_contexts: BTreeMap<String, String>,
    /// `--tag`, as written.
    pub tags: Vec<String>,
    /// Outputs besides the tags in the local store.
    pub outputs: Vec<Output>,
    /// `--platform`, as written; the own one if empty.
    pub platforms: Vec<String>,
    /// `--no-cache` and `--no-cache-filter`.
    pub no_cache: NoCache,
    /// `--pull`: ask the registry even if the store has the image.
    pub pull: bool,
    /// `--network`.
    pub network: Option<NetMode>,
    /// `--secret`.
    pub secrets: Vec<SecretSpec>,
    /// `--ssh`.
    pub ssh: Vec<SshSpec>,
    /// `--add-host`.
    pub extra_hosts: Vec<HostIp>,
    /// `--shm-size`, bytes.
    pub shm_size_bytes: Option<u64>,
    /// `--ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// `--cgroup-parent`.
    pub cgroup_parent: Option<String>,
    /// `--resource`, `--memory` and their like.
    pub linux_resources: Option<LinuxResources>,
    /// `--run-timeout`, `--run-retries`, `--strict-limits`.
    pub rules: StepRules,
    /// `--allow`.
    pub entitlements: Vec<Entitlement>,
    /// `--allow device`.
    pub devices: DeviceGrants,
    /// `--host-ca`: steps see the host's CA bundle, no layer does.
    pub host_ca: bool,
    /// `--advice`: lint rules that BuildKit does not have.
    pub own_checks: bool,
    /// Most steps at once; the number of processors if absent.
    pub jobs: Option<usize>,
    /// `--cache-to`.
    pub cache_to: Vec<CacheExport>,
    /// `--cache-from`.
    pub cache_from: Vec<CacheSource>,
    /// `--attest`, `--provenance`, `--sbom`.
    pub attestations: Attestations,
    /// Directories of this machine that a definition knows by name.
    pub locals: BTreeMap<String, PathBuf>,
    /// Rules for the sources of the build.
    pub policies: Arc<SourcePolicies>,
}

/// What becomes of steps that fail, hang, or do not get the limits they were to have, and where they reach the network. No part of a key,
/// but what is said to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepRules {
    /// A step that takes longer is ended, and has failed.
    pub timeout: Option<Duration>,
    /// How often a step that failed is run again.
    pub retries: u32,
    /// What is done about the step that fails the build.
    pub on_error: OnError,
    /// A limit that cannot be had is an error, not a warning.
    pub strict_limits: bool,
    /// Steps that ask for no network in particular have one of the build's own, not the host's.
    pub private_network: bool,
    /// Steps reach the network through a proxy that sees what they fetch, and not otherwise. This one is part of keys.
    pub proxy_network: bool,
}

/// What is done about the step that fails a build, before what it left is taken away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum OnError {
    /// Nothing.
    #[default]
    Fail,
    /// Its files go to a directory, which is made.
    Keep(PathBuf),
    /// The user gets a shell in it.
    Shell,
}

/// Main context.
#[derive(Clone, Default)]
pub enum ContextSource {
    /// No files (`-` with a Dockerfile on standard input).
    #[default]
    Empty,
    /// A directory of this machine.
    Dir(PathBuf),
    /// A tar archive (any compression), already spooled into a file.
    Tar(PathBuf),
    /// A git repository, or the URL of an archive or of a Dockerfile; as written, with whatever credentials are in it.
    Remote(String),
}

impl std::fmt::Debug for ContextSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Dir(path) => f.debug_tuple("Dir").field(path).finish(),
            Self::Tar(path) => f.debug_tuple("Tar").field(path).finish(),
            Self::Remote(url) => {
                let url = rbuild_frontend::redact_credentials(url);
                f.debug_tuple("Remote").field(&url).finish()
            }
        }
    }
}

/// Where the Dockerfile is.
#[derive(Debug, Clone)]
pub enum DockerfileSource {
    /// A file of this machine; its `.dockerignore` sibling is looked for beside it.
    File(PathBuf),
    /// The text itself (standard input).
    Text(Vec<u8>),
    /// A path inside the context (needed when the context is a tar).
    InContext(String),
    /// Behind a URL of http or https.
    Url(UrlRequest),
}

impl Default for DockerfileSource {
    fn default() -> Self {
        Self::InContext("Dockerfile".to_owned())
    }
}

/// Permissions that a step needs to leave the default sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entitlement {
    /// `network.host`.
    NetworkHost,
    /// `security.insecure`.
    SecurityInsecure,
}

/// One `--secret`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretSpec {
    /// Id the Dockerfile uses.
    pub id: String,
    /// Where its value is.
    pub source: SecretSource,
}

impl std::fmt::Debug for SecretSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretSpec")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Where a secret's value is; read when a step needs it, never kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Env(String),
}

/// One `--ssh`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSpec {
    /// Id the Dockerfile uses.
    pub id: String,
    /// What signs for it.
    pub keys: SshKeys,
}

/// What signs for an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SshKeys {
    /// An agent, by its socket.
    Agent(PathBuf),
    /// Keys that were read from files.
    Held(Keyring),
}

/// Compression of new layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LayerCompression {
    /// None.
    Uncompressed,
    /// gzip, BuildKit's default.
    #[default]
    Gzip,
    /// gzip that can be read in parts, with a table of contents.
    EStargz,
    /// zstd.
    Zstd,
}

/// Where a stream goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file, replaced whole when the build succeeded.
    File(PathBuf),
    /// The client, which knows its exporters by number and does with the stream what it wants.
    Client(u32),
}

/// Where a tree goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeDestination {
    /// A directory of this machine, made if it is missing.
    Dir(PathBuf),
    /// The client, which knows its exporters by number.
    Client(u32),
}

/// One `--output`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// What and where.
    pub kind: OutputKind,
    /// Names for this output (`name=`); the tags if empty.
    pub names: Vec<String>,
    /// Compression of new layers.
    pub compression: LayerCompression,
    /// Level, the codec's default if absent.
    pub compression_level: Option<i32>,
    /// Convert layers that exist too.
    pub force_compression: bool,
    /// Layers of a base that are had elsewhere keep their URLs, and are not sent (`prefer-nondist-layers`).
    pub prefer_nondist_layers: bool,
    /// OCI media types (BuildKit's default) instead of Docker's.
    pub oci_mediatypes: bool,
    /// Clamp file times of new layers to `SOURCE_DATE_EPOCH`.
    pub rewrite_timestamp: bool,
    /// `local` and `tar`: a directory for each platform; only where there are several if absent.
    pub platform_split: Option<bool>,
    /// `local`: what the directory holds and the result does not is removed (`mode=delete`).
    pub delete_extra: bool,
    /// Annotations of images and indexes, by platform.
    pub annotations: Annotations,
    /// Attestations are artifacts that refer to their image; only with OCI media types.
    pub oci_artifact: bool,
    /// Attestations that are only for exporters of images are exported too.
    pub inline_attestations: bool,
    /// `local` and `tar`: what names of attestations begin with.
    pub attestation_prefix: String,
    /// `image`: kept in the store under its names (`store`).
    pub is_stored: bool,
    /// `image`: kept as `name@digest` too (`name-canonical`).
    pub name_canonical: bool,
    /// What the image is kept as in the store besides its names; not at all if absent.
    pub dangling: Option<Dangling>,
    /// No time of this output is later, whatever the build says (`source-date-epoch`).
    pub epoch: Epoch,
    /// What is not done as it was asked for, told where the output is shown.
    pub warnings: Vec<String>,
}

impl Output {
    /// An output with BuildKit's defaults.
    #[must_use]
    pub fn new(kind: OutputKind) -> Self {
        Self {
            inline_attestations: matches!(kind, OutputKind::Image { .. }),
            kind,
            names: Vec::new(),
            compression: LayerCompression::default(),
            compression_level: None,
            force_compression: false,
            prefer_nondist_layers: false,
            oci_mediatypes: true,
            rewrite_timestamp: false,
            platform_split: None,
            delete_extra: false,
            annotations: Annotations::new(),
            oci_artifact: true,
            attestation_prefix: String::new(),
            is_stored: true,
            name_canonical: false,
            dangling: None,
            epoch: Epoch::Unset,
            warnings: Vec::new(),
        }
    }
}

/// A name in the store that says nothing but the digest: `prefix@digest` (`dangling-name-prefix`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dangling {
    /// What stands before the digest.
    pub prefix: String,
    /// Only for an image that has no other name (`danging-name-empty-only`).
    pub empty_only: bool,
}

impl Dangling {
    /// The name that this program shows as no name at all: [`crate::stored::is_dangling`].
    #[must_use]
    pub fn unnamed() -> Self {
        Self {
            prefix: crate::stored::DANGLING.to_owned(),
            empty_only: true,
        }
    }
}

/// Kinds of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputKind {
    /// The local store; with `push`, the registries the names say.
    Image {
        /// Push every name.
        push: bool,
        /// Push by digest only.
        push_by_digest: bool,
        /// Allow plain HTTP.
        insecure: bool,
    },
    /// An OCI layout, as a tar or (`tar=false`) as a directory.
    Oci(LayoutDestination),
    /// A `docker load` archive.
    Docker(LayoutDestination),
    /// The root file system as a directory.
    Local(TreeDestination),
    /// The root file system as a tar.
    Tar(Destination),
    /// Nothing but the cache.
    CacheOnly,
}

/// Where an image layout goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayoutDestination {
    /// One tar.
    Tar(Destination),
    /// A directory.
    Dir(PathBuf),
    /// Blobs into a content store of the client, which is told what they are and names it.
    Store(ContentPlace),
}

/// What a successful build made.
#[derive(Debug, Clone, Default)]
pub struct BuildOutcome {
    /// Manifest digest (absent for `local` and `tar` only builds).
    pub manifest_digest: Option<Digest>,
    /// Config digest.
    pub config_digest: Option<Digest>,
    /// Names given, in full.
    pub names: Vec<String>,
    /// Keys and values of `--metadata-file`.
    pub metadata: BTreeMap<String, serde_json::Value>,
    /// Compressed size of all layers, bytes.
    pub image_size_bytes: u64,
    /// Warnings of the front end, for the summary at the end.
    pub warnings: Vec<String>,
}

impl BuildOutcome {
    /// Notes a cache that was written, as BuildKit does: its descriptor as JSON in a text.
    pub fn note_cache(&mut self, written: &rbuild_oci::Descriptor) {
        let text = serde_json::to_string(written).unwrap_or_default();
        let key = crate::cache_transfer::export::RESPONSE_KEY.to_owned();
        self.metadata.insert(key, text.into());
    }
}
