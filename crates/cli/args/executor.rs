//! The program under the name `executor`: the flags of kaniko's. Those that ask for what always holds here are accepted
//! ([`ExecutorMoot`]); those that are not served are there too, to be refused by name.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser};

use super::go_bool;

const PUSH: &str = "Destinations";
const REGISTRY: &str = "Registries";

/// Builds an image from a Dockerfile and pushes it, as kaniko's executor does.
#[derive(Debug, Parser)]
#[command(
    name = "executor",
    version,
    args_override_self = true,
    after_help = "\
Accepted, since it always holds or has nothing to act on here: --cache-copy-layers, --cache-run-layers, --cleanup, \
--compressed-caching, --force, --ignore-path, --ignore-var-run, --image-download-retry, --image-fs-extract-retry, \
--kaniko-dir, --log-format, --log-timestamp, --materialize, --pre-cleanup, --preserve-context, --push-retry, --skip-push-permission-check, --skip-unused-stages, \
--snapshot-mode, --use-new-run. Accepted with a warning: --cache-dir, --cache-ttl, --force-build-metadata, \
--single-snapshot."
)]
pub(crate) struct Executor {
    /// What is built: a directory, dir://DIR, tar://FILE, tar://stdin, git://URL or https://URL
    #[arg(short, long, value_name = "PLACE", default_value = "/workspace/")]
    pub(crate) context: String,
    /// Directory of the context that is taken for all of it
    #[arg(long, value_name = "DIR")]
    pub(crate) context_sub_path: Option<PathBuf>,
    /// Dockerfile, of this machine or of the context
    #[arg(short = 'f', long, value_name = "FILE", default_value = "Dockerfile")]
    pub(crate) dockerfile: String,
    /// Stage to build
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Set a build argument; a name alone takes its value from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// Label of the image
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// Annotation of the manifest
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) annotation: Vec<String>,
    /// Platform to build for
    #[arg(long, alias = "customPlatform", value_name = "PLATFORM")]
    pub(crate) custom_platform: Option<String>,
    /// Secret for steps, e.g. "id=token,src=token.txt"
    #[arg(long, value_name = "SECRET")]
    pub(crate) secret: Vec<String>,
    /// Times of the image and of its new files are those of 1970
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL")]
    pub(crate) reproducible: Option<bool>,
    /// How much is shown: panic, fatal, error, warn, info, debug, trace
    #[arg(short, long, value_name = "LEVEL", default_value = "info",
        value_parser = ["panic", "fatal", "error", "warn", "info", "debug", "trace"], hide_possible_values = true)]
    pub(crate) verbosity: String,

    /// Name the image is pushed as
    #[arg(short, long, value_name = "NAME[:TAG]", help_heading = PUSH)]
    pub(crate) destination: Vec<String>,
    /// Do not push
    #[arg(long, alias = "no-push-image", env = "KANIKO_NO_PUSH", hide_env = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = go_bool, value_name = "BOOL", help_heading = PUSH)]
    pub(crate) no_push: Option<bool>,
    /// Write an archive for `docker load`
    #[arg(long, alias = "tarPath", value_name = "FILE", help_heading = PUSH)]
    pub(crate) tar_path: Option<PathBuf>,
    /// Write an OCI layout
    #[arg(long, value_name = "DIR", help_heading = PUSH)]
    pub(crate) oci_layout_path: Option<PathBuf>,
    /// Write the digest of the manifest
    #[arg(long, value_name = "FILE", help_heading = PUSH)]
    pub(crate) digest_file: Option<PathBuf>,
    /// Write names with digests, a line each
    #[arg(long, value_name = "FILE", help_heading = PUSH)]
    pub(crate) image_name_with_digest_file: Option<PathBuf>,
    /// Write names with tags and digests, a line each
    #[arg(long, value_name = "FILE", help_heading = PUSH)]
    pub(crate) image_name_tag_with_digest_file: Option<PathBuf>,
    /// Compression of new layers: gzip, zstd
    #[arg(long, value_name = "NAME", value_parser = ["gzip", "zstd"], help_heading = PUSH)]
    pub(crate) compression: Option<String>,
    /// Media types of the image: oci, docker
    #[arg(long, value_name = "NAME", value_parser = ["oci", "docker"], ignore_case = true, help_heading = PUSH)]
    pub(crate) image_format: Option<String>,
    /// Its level
    #[arg(long, value_name = "N", allow_hyphen_values = true, help_heading = PUSH)]
    pub(crate) compression_level: Option<i32>,

    /// Use a cache in a registry
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL")]
    pub(crate) cache: Option<bool>,
    /// Where that is [default: the first destination's repository, with /cache]
    #[arg(long, value_name = "REPOSITORY")]
    pub(crate) cache_repo: Option<String>,
    /// Use the cache and leave it as it is
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL")]
    pub(crate) no_push_cache: Option<bool>,

    /// Push without TLS
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL", help_heading = REGISTRY)]
    pub(crate) insecure: Option<bool>,
    /// Push without asking who vouches for the registry
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool,
        value_name = "BOOL", help_heading = REGISTRY)]
    pub(crate) skip_tls_verify: Option<bool>,
    /// Registry that may be talked to without TLS
    #[arg(long, value_name = "HOST", help_heading = REGISTRY)]
    pub(crate) insecure_registry: Vec<String>,
    /// Registry nobody needs to vouch for
    #[arg(long, value_name = "HOST", help_heading = REGISTRY)]
    pub(crate) skip_tls_verify_registry: Vec<String>,
    /// Mirror of Docker Hub
    #[arg(long, value_name = "HOST", env = "KANIKO_REGISTRY_MIRROR", value_delimiter = ',', hide_env = true,
        help_heading = REGISTRY)]
    pub(crate) registry_mirror: Vec<String>,
    /// Mirrors of a registry, e.g. "quay.io=mirror.example"
    #[arg(long, value_name = "HOST=MIRROR", env = "KANIKO_REGISTRY_MAP", value_delimiter = ';', hide_env = true,
        help_heading = REGISTRY)]
    pub(crate) registry_map: Vec<String>,
    /// Authority that vouches for a registry, e.g. "my.registry=/path/ca.crt"
    #[arg(long, value_name = "HOST=FILE", help_heading = REGISTRY)]
    pub(crate) registry_certificate: Vec<String>,
    /// Certificate and key shown to a registry, e.g. "my.registry=/path/client.crt,/path/client.key"
    #[arg(long, value_name = "HOST=FILE,FILE", help_heading = REGISTRY)]
    pub(crate) registry_client_cert: Vec<String>,

    #[command(flatten)]
    pub(crate) moot: ExecutorMoot,
    #[command(flatten)]
    pub(crate) unserved: ExecutorUnserved,
}

/// Flags that ask for what always holds, or for what has nothing to act on.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = None)]
pub(crate) struct ExecutorMoot {
    #[arg(long, hide = true)]
    pub(crate) cache_dir: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) cache_ttl: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    pub(crate) single_snapshot: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    pub(crate) force_build_metadata: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    _cache_copy_layers: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    _cache_run_layers: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    _cleanup: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    _compressed_caching: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    _force: Option<bool>,
    #[arg(long, hide = true)]
    _ignore_path: Vec<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    _ignore_var_run: Option<bool>,
    #[arg(long, hide = true)]
    _image_download_retry: Option<u32>,
    #[arg(long, hide = true)]
    _image_fs_extract_retry: Option<u32>,
    #[arg(long, hide = true)]
    _kaniko_dir: Option<PathBuf>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    _materialize: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    _pre_cleanup: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    _preserve_context: Option<bool>,
    #[arg(long, hide = true)]
    _log_format: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    _log_timestamp: Option<bool>,
    #[arg(long, hide = true)]
    _push_retry: Option<u32>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    _skip_push_permission_check: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    _skip_unused_stages: Option<bool>,
    #[arg(long, alias = "snapshotMode", hide = true, value_parser = ["full", "redo", "time"])]
    _snapshot_mode: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    _use_new_run: Option<bool>,
}

/// Flags of kaniko that are not served.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = None)]
pub(crate) struct ExecutorUnserved {
    #[arg(short, long, hide = true)]
    pub(crate) bucket: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    pub(crate) dryrun: Option<bool>,
    #[arg(long, hide = true)]
    pub(crate) credential_helpers: Vec<String>,
    #[arg(long, hide = true)]
    pub(crate) git: Option<String>,
    #[arg(long, hide = true, action = ArgAction::SetTrue)]
    pub(crate) insecure_pull: bool,
    #[arg(long, hide = true, action = ArgAction::SetTrue)]
    pub(crate) skip_tls_verify_pull: bool,
    #[arg(long, hide = true, action = ArgAction::SetTrue)]
    pub(crate) skip_default_registry_fallback: bool,
    #[arg(long, hide = true, action = ArgAction::SetTrue)]
    pub(crate) push_ignore_immutable_tag_errors: bool,
}
