//! Flags of `buildah build`. rbuild does not take buildah's command line: a row says what to write instead.

use super::Here::{Instead, Refused};
use super::Row;

const ARRIVES: &str = "every_served_flag_arrives";

pub(super) const ROWS: &[Row] = &[
    ("buildah build, bud", Instead("`rbuild build`", "a_plain_build")),
    (
        "buildah from, run, copy, config, commit",
        Instead(
            "a Dockerfile: what these do is an instruction of one",
            "a_plain_build",
        ),
    ),
    (
        "buildah push, pull, images, rmi, tag, login",
        Instead("the same", "transfers_print_digests"),
    ),
    (
        "buildah manifest create, push",
        Instead(
            "`rbuild manifest`, or several `--platform` in one build",
            "a_manifest_list_is_begun_annotated_shown_and_pushed",
        ),
    ),
    (
        "--add-host, --build-arg, --build-context, --label, --annotation, --target, --tag, --secret, --ssh, --platform",
        Instead("the same", ARRIVES),
    ),
    (
        "--all-platforms",
        Instead(
            "`--platform` with a list",
            "an_archive_of_two_platforms_is_an_index_that_others_read",
        ),
    ),
    (
        "--arch, --os, --variant",
        Instead("`--platform=OS/ARCH/VARIANT`", ARRIVES),
    ),
    (
        "--authfile",
        Instead(
            "`REGISTRY_AUTH_FILE`, or `--config` with docker's directory",
            "a_directory_of_configuration_is_named_by_a_flag",
        ),
    ),
    (
        "--build-arg-file",
        Refused(
            &["build", "--build-arg-file=x", "CONTEXT"],
            "unexpected argument '--build-arg-file'",
        ),
    ),
    (
        "--cache-from, --cache-to REPOSITORY",
        Instead(
            "`type=registry,ref=REPOSITORY`",
            "a_cache_goes_on_through_builds_that_import_and_export_it",
        ),
    ),
    (
        "--cap-add, --device, --security-opt",
        Refused(
            &["build", "--cap-add=x", "CONTEXT"],
            "unexpected argument '--cap-add'",
        ),
    ),
    (
        "--cert-dir, --tls-verify=false",
        Instead(
            "`certs.d`, `registries.conf` or `daemon.json`, which buildah reads too",
            "a_certificate_of_certs_d_is_believed_for_its_host",
        ),
    ),
    (
        "--creds",
        Instead(
            "`rbuild login`",
            "only_what_the_registry_takes_is_stored_and_logout_removes_it",
        ),
    ),
    (
        "--cgroup-parent, --shm-size, --ulimit",
        Instead("the same", ARRIVES),
    ),
    (
        "--dns, --userns, --pid, --ipc, --uts",
        Refused(
            &["build", "--dns=1.1.1.1", "CONTEXT"],
            "unexpected argument '--dns'",
        ),
    ),
    (
        "--env, --unsetenv",
        Refused(&["build", "--env=a=b", "CONTEXT"], "unexpected argument '--env'"),
    ),
    (
        "--file",
        Instead(
            "the same; a second one is not taken",
            "the_last_of_a_flag_wins_and_lists_add_up",
        ),
    ),
    (
        "--force-rm, --rm, --compress",
        Instead(
            "the same: nothing to do",
            "flags_that_ask_for_nothing_are_accepted",
        ),
    ),
    (
        "--format=docker",
        Instead(
            "`-o type=image,oci-mediatypes=false`",
            "compression_and_media_types_are_as_asked",
        ),
    ),
    (
        "--from",
        Instead("`--build-context NAME=docker-image://IMAGE`", ARRIVES),
    ),
    (
        "--ignorefile",
        Instead(
            "`NAME.dockerignore` beside the Dockerfile NAME",
            "directories_and_rules_are_counted",
        ),
    ),
    (
        "--iidfile, --metadata-file",
        Instead("the same", "iidfile_metadata_file_and_quiet_name_the_same_image"),
    ),
    (
        "--isolation",
        Instead(
            "the same, with a warning: there is one sandbox",
            "flags_that_ask_for_nothing_are_accepted",
        ),
    ),
    ("--jobs", Instead("the same", ARRIVES)),
    (
        "--layers",
        Instead(
            "always so",
            "a_second_build_runs_nothing_and_says_cached_for_every_step",
        ),
    ),
    (
        "--logfile",
        Instead("`2>FILE`", "plain_progress_has_the_form_of_buildkit"),
    ),
    (
        "--manifest NAME",
        Instead(
            "`--platform` with a list and `-t NAME`",
            "an_archive_of_two_platforms_is_an_index_that_others_read",
        ),
    ),
    ("--network", Instead("the same", ARRIVES)),
    (
        "--no-cache",
        Instead(
            "the same",
            "no_cache_runs_everything_and_a_stage_list_only_those_stages",
        ),
    ),
    (
        "--output",
        Instead("the same; `type=` may be left out for a directory", "outputs"),
    ),
    (
        "--pull=always, missing, never",
        Instead(
            "`--pull`; without it the store comes first; `--offline` for never",
            "offline_names_what_would_have_been_asked_for_and_asks_nobody",
        ),
    ),
    (
        "--rewrite-timestamp, --source-date-epoch, --timestamp",
        Instead(
            "`--build-arg SOURCE_DATE_EPOCH=N -o type=image,rewrite-timestamp=true`",
            "layers_with_rewritten_times_say_up_to_when",
        ),
    ),
    (
        "--squash, --squash-all",
        Instead(
            "the same, with a warning: a last stage that copies everything is one layer",
            "flags_that_ask_for_nothing_are_accepted",
        ),
    ),
    (
        "--stdin",
        Refused(&["build", "--stdin", "CONTEXT"], "unexpected argument '--stdin'"),
    ),
    (
        "--volume",
        Refused(
            &["build", "--volume=/a:/b", "CONTEXT"],
            "unexpected argument '--volume'",
        ),
    ),
];
