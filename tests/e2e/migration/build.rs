//! Every flag of `docker build` and `docker buildx build`, and the values that matter.

use super::Here::{Refused, Warned, Works};
use super::Row;

const ARRIVES: &str = "every_served_flag_arrives";

pub(super) const ROWS: &[Row] = &[
    ("PATH", Works("", "a_plain_build")),
    (
        "URL",
        Works(
            "git, archives, Dockerfiles",
            "a_repository_is_a_context_with_its_dockerfile",
        ),
    ),
    ("-", Works("", "a_tar_may_be_the_context")),
    (
        "--add-host",
        Works("", "an_image_is_run_with_its_command_and_leaves_nothing"),
    ),
    ("--allow=network.host", Works("", ARRIVES)),
    ("--allow=security.insecure", Works("", ARRIVES)),
    (
        "--allow=device",
        Works("devices by CDI", "every_served_flag_arrives"),
    ),
    (
        "--annotation",
        Works("", "annotations_are_where_they_were_asked_for"),
    ),
    (
        "--attest",
        Works("", "provenance_says_what_was_asked_for_and_of_what_it_was_made"),
    ),
    (
        "--build-arg",
        Works("", "label_and_target_and_build_arg_of_the_command_line"),
    ),
    ("--build-context", Works("", "named_contexts_come_from_urls_too")),
    (
        "--builder",
        Warned(
            &["build", "--builder=other", "CONTEXT"],
            "builder flag has no effect: rbuild is its own builder",
        ),
    ),
    (
        "--cache-from",
        Works(
            "registry, local, inline",
            "a_store_without_anything_takes_all_of_it_from_an_imported_cache",
        ),
    ),
    (
        "--cache-to",
        Works(
            "registry, local, inline",
            "a_cache_goes_on_through_builds_that_import_and_export_it",
        ),
    ),
    (
        "--cache-to=type=gha",
        Works(
            "both versions of the service; left out with a warning outside of a workflow",
            "a_cache_of_a_github_workflow_is_written_and_read",
        ),
    ),
    (
        "--cache-from=type=s3",
        Works(
            "with keys; roles are not assumed",
            "a_cache_in_s3_is_written_and_read",
        ),
    ),
    (
        "--cache-to=type=azblob",
        Works(
            "with the account's key; Microsoft Entra ID is refused",
            "a_cache_in_azure_blob_storage_is_written_and_read",
        ),
    ),
    ("--call", Works("", "questions_about_the_dockerfile")),
    ("--cgroup-parent", Works("", ARRIVES)),
    (
        "--check",
        Works("", "a_check_with_findings_fails_without_another_word"),
    ),
    (
        "--compress",
        Works(
            "nothing to do: contexts are not sent",
            "flags_that_ask_for_nothing_are_accepted",
        ),
    ),
    (
        "--cpu-period",
        Works("", "limits_of_steps_and_what_becomes_of_those_that_fail"),
    ),
    (
        "--cpu-quota",
        Works("", "limits_of_steps_and_what_becomes_of_those_that_fail"),
    ),
    (
        "-c, --cpu-shares",
        Works("", "limits_of_steps_and_what_becomes_of_those_that_fail"),
    ),
    (
        "--cpuset-cpus",
        Works("", "limits_of_steps_and_what_becomes_of_those_that_fail"),
    ),
    (
        "--cpuset-mems",
        Works("", "limits_of_steps_and_what_becomes_of_those_that_fail"),
    ),
    (
        "-D, --debug",
        Works("", "warnings_of_the_front_end_name_their_line"),
    ),
    (
        "--disable-content-trust",
        Works(
            "as in docker, where it has no effect with BuildKit",
            "flags_that_ask_for_nothing_are_accepted",
        ),
    ),
    (
        "-f, --file",
        Works("", "the_dockerfile_has_the_name_the_user_knows"),
    ),
    ("-f -", Works("", "the_dockerfile_may_come_from_standard_input")),
    (
        "-f URL",
        Works("http and https", "the_dockerfile_may_come_from_a_url"),
    ),
    (
        "--force-rm",
        Works(
            "nothing to do: nothing is kept",
            "flags_that_ask_for_nothing_are_accepted",
        ),
    ),
    (
        "--iidfile",
        Works("", "iidfile_metadata_file_and_quiet_name_the_same_image"),
    ),
    (
        "--isolation",
        Warned(
            &["build", "--isolation=default", "CONTEXT"],
            "isolation flag is deprecated with BuildKit.",
        ),
    ),
    (
        "--label",
        Works("", "label_and_target_and_build_arg_of_the_command_line"),
    ),
    (
        "--load",
        Works(
            "into rbuild's store; `--load=docker` and others into an engine",
            "privileged_docker_is_given_what_it_does_not_have_and_runs_it",
        ),
    ),
    (
        "-m, --memory",
        Works(
            "",
            "privileged_a_step_killed_for_memory_says_so_and_limits_are_no_part_of_a_key",
        ),
    ),
    (
        "--memory-swap",
        Works("", "limits_of_steps_and_what_becomes_of_those_that_fail"),
    ),
    (
        "--metadata-file",
        Works("", "iidfile_metadata_file_and_quiet_name_the_same_image"),
    ),
    ("--network", Works("default, none, host", ARRIVES)),
    (
        "--network=NAME",
        Refused(
            &["build", "--network=mine", "CONTEXT"],
            "network mode \"mine\" not supported by buildkit",
        ),
    ),
    (
        "--no-cache",
        Works("", "no_cache_runs_everything_and_a_stage_list_only_those_stages"),
    ),
    (
        "--no-cache-filter",
        Works("", "no_cache_runs_everything_and_a_stage_list_only_those_stages"),
    ),
    ("-o, --output", Works("", "attributes_of_outputs")),
    (
        "--platform",
        Works("", "an_archive_of_two_platforms_is_an_index_that_others_read"),
    ),
    (
        "--policy=filename=FILE",
        Refused(
            &["build", "--policy=filename=x.rego", "CONTEXT"],
            "not supported yet: --policy filename=x.rego: no Rego is evaluated here",
        ),
    ),
    (
        "--policy=disabled=true",
        Works(
            "and whatever asks for nothing; a `Dockerfile.rego` is refused without it",
            "a_policy_beside_the_dockerfile_is_not_left_out",
        ),
    ),
    (
        "--print",
        Works("the older spelling of --call", "questions_about_the_dockerfile"),
    ),
    ("--progress", Works("", "progress_and_quiet")),
    (
        "--provenance",
        Works(
            "off unless asked for",
            "the_least_provenance_has_no_arguments_and_a_directory_gets_it_as_a_file",
        ),
    ),
    ("--pull", Works("", "a_moved_tag_is_seen_with_pull")),
    (
        "--push",
        Works("", "a_base_is_pulled_a_result_pushed_and_pulled_again"),
    ),
    (
        "-q, --quiet",
        Works("", "iidfile_metadata_file_and_quiet_name_the_same_image"),
    ),
    (
        "--resource",
        Works("", "limits_of_steps_and_what_becomes_of_those_that_fail"),
    ),
    (
        "--rm",
        Works(
            "nothing to do: nothing is kept",
            "flags_that_ask_for_nothing_are_accepted",
        ),
    ),
    ("--sbom", Works("", "privileged_a_scanner_lists_packages")),
    (
        "--secret",
        Works("", "row42_a_secret_file_reaches_the_step_and_nothing_else"),
    ),
    (
        "--security-opt",
        Warned(
            &["build", "--security-opt=x", "CONTEXT"],
            "security-opt flag is deprecated.",
        ),
    ),
    ("--shm-size", Works("", ARRIVES)),
    (
        "--squash",
        Warned(
            &["build", "--squash", "CONTEXT"],
            "squash flag is without effect.",
        ),
    ),
    (
        "--ssh",
        Works(
            "agents",
            "row43_a_step_reaches_the_agent_and_can_only_list_and_sign",
        ),
    ),
    (
        "--ssh=id=KEY",
        Works(
            "ed25519, ECDSA and RSA; without a passphrase",
            "keys_of_files_sign_for_steps_without_an_agent",
        ),
    ),
    (
        "-t, --tag",
        Works(
            "",
            "a_tagged_image_is_the_base_of_the_next_build_and_can_be_listed_and_removed",
        ),
    ),
    (
        "--target",
        Works("", "label_and_target_and_build_arg_of_the_command_line"),
    ),
    ("--ulimit", Works("", ARRIVES)),
];
