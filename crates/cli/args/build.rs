//! The flags of `rbuild build`: all those of `docker buildx build`, and three of its own. Those that are not served
//! yet are here too: they are refused by name, never ignored.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use super::go_bool;
use super::step_rules::StepFlags;

const IMAGE: &str = "Image";
const STEPS: &str = "Steps";
const CACHE: &str = "Cache";
const OUTPUT: &str = "Output";

// Flags as they were written.
#[derive(Debug, Args, Default)]
pub(crate) struct LowBuild {
    /// Directory with the files to build from; URL of a git repository, of a tar archive or of a Dockerfile; or - for
    /// one of the latter two on standard input
    #[arg(value_name = "PATH | URL | -")]
    pub(crate) context: String,

    /// Dockerfile, or - for standard input [default: PATH/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<String>,
    /// Stage to build [default: the last one]
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Set a build argument; a name alone takes its value from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// Additional context, e.g. "base=docker-image://alpine", "src=../src"
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) build_context: Vec<String>,
    /// Platforms to build for, e.g. "linux/amd64,linux/arm64" [env: DOCKER_DEFAULT_PLATFORM]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Vec<String>,
    /// Ask the registry for base images even if the store has them
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL")]
    pub(crate) pull: Option<bool>,

    /// Name of the image
    #[arg(short, long, value_name = "NAME[:TAG]", help_heading = IMAGE)]
    pub(crate) tag: Vec<String>,
    /// Label of the image
    #[arg(long, value_name = "KEY=VALUE", help_heading = IMAGE)]
    pub(crate) label: Vec<String>,
    /// Annotation of the manifest
    #[arg(long, value_name = "KEY=VALUE", help_heading = IMAGE)]
    pub(crate) annotation: Vec<String>,

    /// Where the result goes: a directory, - for a tar on standard output, or e.g. "type=oci,dest=image.tar"
    #[arg(short, long, value_name = "DEST", help_heading = OUTPUT)]
    pub(crate) output: Vec<String>,
    /// Push the image: --output=type=registry
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL", help_heading = OUTPUT)]
    pub(crate) push: Option<bool>,
    /// Put the image into the store (the default without --output); with a name or address, into that engine too: docker,
    /// podman, containerd, unix://SOCKET
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = load_to,
        value_name = "BOOL|ENGINE", help_heading = OUTPUT)]
    pub(crate) load: Option<LoadTo>,
    /// Write the image id to a file
    #[arg(long, value_name = "FILE", value_parser = path(), help_heading = OUTPUT)]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write digests and names to a file, as JSON
    #[arg(long, value_name = "FILE", value_parser = path(), help_heading = OUTPUT)]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Show nothing but the image id
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = go_bool, value_name = "BOOL", help_heading = OUTPUT)]
    pub(crate) quiet: Option<bool>,
    /// How progress is shown: auto, plain, tty, rawjson, quiet, none [env: BUILDKIT_PROGRESS]
    #[arg(long, value_name = "MODE", default_value = "auto", hide_default_value = true, help_heading = OUTPUT)]
    pub(crate) progress: String,

    /// Network of steps: default, none, host, sandbox for one of the build's own (needs pasta), or proxy for
    /// HTTP and HTTPS that are logged and judged by source policies
    #[arg(long, value_name = "MODE", default_value = "default", hide_default_value = true, help_heading = STEPS)]
    pub(crate) network: String,
    /// Secret for steps, e.g. "id=token,src=token.txt", "id=token,env=TOKEN"
    #[arg(long, value_name = "SECRET", help_heading = STEPS)]
    pub(crate) secret: Vec<String>,
    /// SSH agent or keys for steps and git, e.g. "default", "id=/path/agent.sock", "id=KEY,KEY"
    #[arg(long, value_name = "AGENT", help_heading = STEPS)]
    pub(crate) ssh: Vec<String>,
    /// Line of /etc/hosts
    #[arg(long, value_name = "HOST:IP", help_heading = STEPS)]
    pub(crate) add_host: Vec<String>,
    /// Permission that steps may use: network.host, security.insecure
    #[arg(long, value_name = "NAME", help_heading = STEPS)]
    pub(crate) allow: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "SIZE", help_heading = STEPS)]
    pub(crate) shm_size: Option<String>,
    /// Limit of a step, e.g. "nofile=1024:2048"
    #[arg(long, value_name = "NAME=SOFT[:HARD]", help_heading = STEPS)]
    pub(crate) ulimit: Vec<String>,
    /// Parent cgroup of steps
    #[arg(long, value_name = "PATH", help_heading = STEPS)]
    pub(crate) cgroup_parent: Option<String>,
    /// Steps see the certificate authorities of this machine; no layer does
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL", help_heading = STEPS)]
    pub(crate) host_ca: Option<bool>,
    /// Most steps at once [default: the number of processors]
    #[arg(short, long, value_name = "N", value_parser = positive, help_heading = STEPS)]
    pub(crate) jobs: Option<usize>,

    /// Take no step from the cache
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL", help_heading = CACHE)]
    pub(crate) no_cache: Option<bool>,
    /// Take no step of these stages from the cache
    #[arg(long, value_name = "STAGE", help_heading = CACHE)]
    pub(crate) no_cache_filter: Vec<String>,

    /// Where the cache is taken from: a reference, or e.g. "type=local,src=dir"
    #[arg(long, value_name = "SOURCE", help_heading = CACHE)]
    pub(crate) cache_from: Vec<String>,
    /// Where the cache goes, e.g. "type=registry,ref=example.com/cache,mode=max"
    #[arg(long, value_name = "DEST", help_heading = CACHE)]
    pub(crate) cache_to: Vec<String>,

    /// Show a table of the steps at the end: time, cached, bytes
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL", help_heading = OUTPUT)]
    pub(crate) steps: Option<bool>,
    /// Ask about the Dockerfile instead of building: check, outline, targets, e.g. "outline,format=json"
    #[arg(long, value_name = "METHOD", alias = "print", help_heading = OUTPUT)]
    pub(crate) call: Option<String>,
    /// Lint the Dockerfile: --call=check
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL", help_heading = OUTPUT)]
    pub(crate) check: Option<bool>,
    /// Lint by rbuild's own rules too, also in a build; see docs/rules
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL", help_heading = OUTPUT)]
    pub(crate) advice: Option<bool>,

    /// Attestation parameters, repeatable: type=provenance[,mode=min|max] or type=sbom[,generator=IMAGE]
    #[arg(long, value_name = "CSV", help_heading = OUTPUT)]
    pub(crate) attest: Vec<String>,
    /// Attest how the image was made: a bool, or what follows type=provenance
    #[arg(long, value_name = "BOOL|CSV", help_heading = OUTPUT)]
    pub(crate) provenance: Option<String>,
    /// Attest what packages the image has: a bool, or what follows type=sbom
    #[arg(long, value_name = "BOOL|CSV", help_heading = OUTPUT)]
    pub(crate) sbom: Option<String>,

    /// Attestations as attributes of BuildKit's API have them, by key: `buildctl --opt attest:KIND=CSV`. They hold.
    #[arg(skip)]
    pub(crate) attest_attributes: Vec<(String, String)>,
    /// A definition to build instead of a Dockerfile; `buildctl build` sets it.
    #[arg(skip)]
    pub(crate) definition: Option<Vec<u8>>,
    /// The Dockerfile itself; `bake` sets it.
    #[arg(skip)]
    pub(crate) dockerfile_text: Option<String>,
    /// Directories that it knows by name.
    #[arg(skip)]
    pub(crate) locals: BTreeMap<String, PathBuf>,
    /// File with rules for sources, instead of the one that a variable names.
    #[arg(skip)]
    pub(crate) source_policy: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) step_rules: StepFlags,
    #[command(flatten)]
    pub(crate) unserved: Unserved,
    #[command(flatten)]
    pub(crate) legacy: Legacy,
}

// Flags of buildx that rbuild does not serve yet.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = None)]
pub(crate) struct Unserved {
    #[arg(long, hide = true)]
    pub(crate) policy: Vec<String>,
    #[arg(long, hide = true)]
    pub(crate) builder: Option<String>,
}

// Flags of the classic builder: accepted and without effect, the last three with a warning, as in buildx.
#[derive(Debug, Args, Default)]
pub(crate) struct Legacy {
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = go_bool)]
    pub(crate) compress: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = go_bool)]
    pub(crate) rm: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = go_bool)]
    pub(crate) force_rm: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = go_bool)]
    _disable_content_trust: Option<bool>,
    #[arg(long, hide = true)]
    pub(crate) isolation: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) security_opt: Vec<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = go_bool)]
    pub(crate) squash: Option<bool>,
}

/// Where `--load` puts an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LoadTo {
    /// Nowhere.
    Nowhere,
    /// Into the store.
    Store,
    /// Into the engine that the environment or the usual place says is docker's.
    Docker,
    /// The same of podman's.
    Podman,
    /// Into containerd.
    Containerd,
    /// Into the engine behind a unix socket.
    Socket(PathBuf),
}

fn load_to(text: &str) -> Result<LoadTo, String> {
    if let Ok(value) = go_bool(text) {
        return Ok(if value { LoadTo::Store } else { LoadTo::Nowhere });
    }
    if let Some(path) = text.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
        return Ok(LoadTo::Socket(path.into()));
    }
    match text {
        "docker" => Ok(LoadTo::Docker),
        "podman" => Ok(LoadTo::Podman),
        "containerd" => Ok(LoadTo::Containerd),
        _ => Err("there are a bool, docker, podman, containerd and unix:///SOCKET".to_owned()),
    }
}

/// A path, also an empty one.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|&number| number > 0)
        .ok_or_else(|| format!("{text:?} is not a number from 1 up"))
}
