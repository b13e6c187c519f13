//! Flags of kaniko's executor.

use super::Here::{Refused, Warned, Works};
use super::Row;

const PUSHES: &str = "kanikos_executor_pushes_and_writes_digests";
const READS: &str = "kanikos_executor_reads_archives_and_refuses_by_name";
const ACCEPTED: &str = "kanikos_flags_that_have_nothing_to_act_on_are_accepted";
const REGISTRIES: &str = "kanikos_flags_for_registries_are_obeyed";

pub(super) const ROWS: &[Row] = &[
    ("--annotation", Works("", ACCEPTED)),
    (
        "-b, --bucket",
        Refused(
            &["--no-push", "--bucket=x", "-c=."],
            "not supported: --bucket: give the context as a directory",
        ),
    ),
    ("--build-arg", Works("", PUSHES)),
    ("--cache", Works("", PUSHES)),
    (
        "--cache-copy-layers, --cache-run-layers, --compressed-caching",
        Works("always so", ACCEPTED),
    ),
    (
        "--cache-dir",
        Warned(
            &["--no-push", "--cache-dir=/x", "-c=CONTEXT"],
            "--cache-dir has no effect: base images are kept in the store",
        ),
    ),
    ("--cache-repo", Works("", REGISTRIES)),
    (
        "--cache-ttl",
        Warned(
            &["--no-push", "--cache-ttl=1h", "-c=CONTEXT"],
            "--cache-ttl has no effect: how long a cache is kept is the registry's",
        ),
    ),
    (
        "--cleanup, --pre-cleanup, --preserve-context, --materialize, --force",
        Works("nothing to do: nothing of this machine is changed", ACCEPTED),
    ),
    ("--compression, --compression-level", Works("", ACCEPTED)),
    ("-c, --context DIR, dir://, tar://", Works("", READS)),
    (
        "-c, --context git://, https://",
        Works("", "a_repository_is_a_context_with_its_dockerfile"),
    ),
    (
        "--context s3://, gs://, azure",
        Refused(
            &["--no-push", "-c=s3://b/c"],
            "a directory, an archive or a git repository is needed",
        ),
    ),
    ("--context-sub-path", Works("of a directory", ACCEPTED)),
    (
        "--credential-helpers",
        Refused(
            &["--no-push", "--credential-helpers=gcr", "-c=."],
            "not supported: --credential-helpers: name them in docker's config.json",
        ),
    ),
    ("--custom-platform", Works("", ACCEPTED)),
    ("-d, --destination", Works("", PUSHES)),
    (
        "--digest-file, --image-name-with-digest-file, --image-name-tag-with-digest-file",
        Works("", PUSHES),
    ),
    ("-f, --dockerfile", Works("", PUSHES)),
    (
        "--dryrun",
        Refused(
            &["--no-push", "--dryrun", "-c=."],
            "`rbuild build --check` judges a Dockerfile",
        ),
    ),
    (
        "--force-build-metadata",
        Warned(
            &["--no-push", "--force-build-metadata", "-c=CONTEXT"],
            "--force-build-metadata has no effect",
        ),
    ),
    (
        "--git",
        Refused(
            &["--no-push", "--git=branch=x", "-c=."],
            "give the context as https://URL.git#REF:DIR",
        ),
    ),
    (
        "--ignore-path, --ignore-var-run",
        Works(
            "nothing to do: the file system of this machine is not looked at",
            ACCEPTED,
        ),
    ),
    ("--image-format", Works("", ACCEPTED)),
    (
        "--image-download-retry, --image-fs-extract-retry, --push-retry",
        Works("as often as is useful", ACCEPTED),
    ),
    ("--insecure, --skip-tls-verify", Works("", REGISTRIES)),
    (
        "--insecure-registry, --skip-tls-verify-registry",
        Works("", REGISTRIES),
    ),
    (
        "--insecure-pull",
        Refused(
            &["--no-push", "--insecure-pull", "-c=."],
            "not supported: --insecure-pull: name the registries with --insecure-registry",
        ),
    ),
    (
        "--skip-tls-verify-pull",
        Refused(
            &["--no-push", "--skip-tls-verify-pull", "-c=."],
            "name the registries with --skip-tls-verify-registry",
        ),
    ),
    (
        "--kaniko-dir",
        Works("nothing to do: there is no such directory", ACCEPTED),
    ),
    ("--label", Works("", ACCEPTED)),
    (
        "--log-format, --log-timestamp",
        Works("accepted; progress is BuildKit's plain one", ACCEPTED),
    ),
    ("--no-push", Works("", PUSHES)),
    ("--no-push-cache", Works("", REGISTRIES)),
    ("--oci-layout-path, --tar-path", Works("", PUSHES)),
    (
        "--push-ignore-immutable-tag-errors",
        Refused(
            &["--no-push", "--push-ignore-immutable-tag-errors", "-c=."],
            "what a registry refuses is an error",
        ),
    ),
    (
        "--registry-certificate, --registry-client-cert",
        Works("", REGISTRIES),
    ),
    ("--registry-map, --registry-mirror", Works("", REGISTRIES)),
    ("--reproducible", Works("times of 1970", ACCEPTED)),
    ("--secret", Works("", ACCEPTED)),
    (
        "--single-snapshot",
        Warned(
            &["--no-push", "--single-snapshot", "-c=CONTEXT"],
            "--single-snapshot has no effect: every step is a layer",
        ),
    ),
    (
        "--skip-default-registry-fallback",
        Refused(
            &["--no-push", "--skip-default-registry-fallback", "-c=."],
            "mirrors without their registry are set in registries.conf",
        ),
    ),
    (
        "--skip-push-permission-check, --skip-unused-stages, --snapshot-mode, --use-new-run",
        Works("nothing to do", ACCEPTED),
    ),
    ("--target", Works("", ACCEPTED)),
    ("-v, --verbosity", Works("", ACCEPTED)),
];
