//! Commands of docker, flags of its `run`, and commands of buildx.

use super::Here::{Instead, Refused, Warned, Works};
use super::Row;

const RUN_LINES: &str = "lines_of_run_end_as_dockers_do";
const RUNS: &str = "an_image_is_run_with_its_command_and_leaves_nothing";
const BUILDERS: &str = "a_ci_step_of_buildx_works";

pub(super) const COMMANDS: &[Row] = &[
    (
        "docker build",
        Works(
            "",
            "a_makefile_works_with_the_tools_name_changed_and_with_the_tool_installed_as_docker",
        ),
    ),
    (
        "docker image build, builder build, buildx build",
        Works("", "spellings_of_build"),
    ),
    (
        "docker images, image ls",
        Works("", "commands_on_images_print_what_docker_prints"),
    ),
    (
        "docker images --filter",
        Works(
            "dangling, reference, label, before, since, until",
            "commands_on_images_print_what_docker_prints",
        ),
    ),
    (
        "docker image inspect, inspect",
        Works("", "inspect_prints_dockers_json"),
    ),
    (
        "docker history",
        Works("", "commands_on_images_print_what_docker_prints"),
    ),
    ("docker tag", Works("", "names_are_given_and_taken")),
    ("docker rmi, image rm", Works("", "names_are_given_and_taken")),
    ("docker pull, push", Works("", "transfers_print_digests")),
    (
        "docker pull --all-tags",
        Refused(
            &["pull", "-a", "x"],
            "not supported: --all-tags: registries are not asked for the tags they have; name those you want",
        ),
    ),
    (
        "docker push --all-tags",
        Works("", "lists_of_architectures_are_pushed_after_logging_in"),
    ),
    (
        "docker save, load",
        Works(
            "",
            "what_is_saved_is_loaded_as_the_same_image_by_us_and_by_skopeo",
        ),
    ),
    (
        "docker login, logout",
        Works("", "only_what_the_registry_takes_is_stored_and_logout_removes_it"),
    ),
    (
        "docker manifest",
        Works("", "a_manifest_list_is_begun_annotated_shown_and_pushed"),
    ),
    ("docker run", Works("in the sandbox of steps", RUNS)),
    (
        "docker system df",
        Works("", "lines_of_scripts_end_as_with_docker"),
    ),
    ("docker builder du", Works("", "disk_usage")),
    (
        "docker system prune, image prune",
        Works("", "pruning_images_leaves_the_build_cache_and_what_has_a_name"),
    ),
    ("docker builder prune", Works("", "pruning_asks_first")),
    ("docker info", Works("", "info_says_where_everything_is")),
    ("docker version", Works("", "the_version_names_the_platform")),
    (
        "docker --config",
        Works("", "a_directory_of_configuration_is_named_by_a_flag"),
    ),
    (
        "docker -H, --host",
        Refused(
            &["-H", "tcp://h:1", "images"],
            "not supported: --host tcp://h:1: rbuild has no engine to ask",
        ),
    ),
    (
        "docker --context",
        Refused(
            &["--context", "far", "images"],
            "not supported: --context far: rbuild has no engine to ask",
        ),
    ),
    (
        "docker create, cp, export, rm",
        Works(
            "files are taken out of an image; nothing runs",
            "files_are_taken_out_of_what_was_created",
        ),
    ),
    (
        "docker cp FILE CONTAINER:PATH",
        Refused(
            &["cp", "./a", "x:/a"],
            "copying into a container: its files are those of its image",
        ),
    ),
    (
        "docker ps, container ls, container prune",
        Works("what was created", "a_container_keeps_its_image_and_its_name"),
    ),
    (
        "docker exec, logs, start, stop, kill, wait",
        Refused(
            &["exec", "x", "sh"],
            "not supported: docker exec: nothing runs when rbuild has ended",
        ),
    ),
    (
        "docker commit",
        Refused(
            &["commit", "x", "y"],
            "an image is made by a build: `rbuild build`",
        ),
    ),
    (
        "docker network, volume, swarm, service, stack",
        Refused(
            &["volume", "ls"],
            "not supported: docker volume: rbuild builds, moves and tries images",
        ),
    ),
    (
        "docker volume prune, network prune, system prune --volumes",
        Works(
            "there are none",
            "what_pipelines_do_before_they_build_is_answered_as_docker_does",
        ),
    ),
    (
        "docker context show, ls, use default, create NAME",
        Works(
            "there is one",
            "what_pipelines_do_before_they_build_is_answered_as_docker_does",
        ),
    ),
    (
        "docker compose",
        Refused(
            &["compose", "build"],
            "`rbuild bake -f FILE` builds the services of a compose file that have a `build` section",
        ),
    ),
];

pub(super) const RUN: &[Row] = &[
    ("--add-host", Works("", RUNS)),
    (
        "-d, --detach",
        Refused(
            &["run", "-d", "x"],
            "not supported: --detach: nothing runs when rbuild has ended",
        ),
    ),
    (
        "--device, --gpus",
        Refused(
            &["run", "--device=/dev/x", "x"],
            "not supported: --device: the sandbox is that of steps",
        ),
    ),
    ("-e, --env", Works("", RUNS)),
    ("--env-file", Works("", RUNS)),
    ("--entrypoint", Works("", RUNS)),
    ("-h, --hostname", Works("", RUN_LINES)),
    (
        "--init, --label, --log-driver, --stop-timeout, --health-cmd, --expose, --sig-proxy",
        Works("nothing to do: nobody asks for it later", RUN_LINES),
    ),
    ("-i, --interactive", Works("", RUNS)),
    (
        "-m, --memory, --cpus, --ulimit, --pids-limit, --oom-score-adj",
        Refused(
            &["run", "--memory=1g", "x"],
            "not supported: --memory: limit rbuild itself",
        ),
    ),
    ("--network", Works("default, none, host", RUNS)),
    (
        "--network=NAME",
        Refused(&["run", "--network=mine", "x"], "not supported: --network mine"),
    ),
    (
        "--dns, --ip, --link, --network-alias",
        Refused(
            &["run", "--dns=10.0.0.1", "x"],
            "not supported: --dns: the program has the network of steps, or none",
        ),
    ),
    ("--platform", Works("", "blobs_go_from_one_registry_to_another")),
    (
        "--privileged, --cap-add, --cap-drop, --security-opt, --userns, --pid, --ipc, --shm-size",
        Refused(
            &["run", "--privileged", "x"],
            "not supported: --privileged: the sandbox is that of steps",
        ),
    ),
    (
        "-p, --publish",
        Refused(
            &["run", "-p", "1:1", "x"],
            "not supported: --publish: the program has the network of steps",
        ),
    ),
    (
        "--pull",
        Works("", "the_exit_code_is_the_programs_and_125_where_nothing_ran"),
    ),
    ("--read-only", Works("", RUNS)),
    (
        "--restart",
        Refused(
            &["run", "--restart=always", "x"],
            "not supported: --restart: nothing runs when rbuild has ended",
        ),
    ),
    ("--rm", Works("always so", RUNS)),
    ("-t, --tty", Works("", "a_terminal_is_given_to_the_program")),
    ("-u, --user", Works("", RUNS)),
    (
        "-v, --volume, --mount, --tmpfs",
        Works(
            "paths of this machine and memory",
            "a_program_is_shown_directories_of_this_machine_and_memory",
        ),
    ),
    (
        "--volume=NAME:PATH",
        Refused(
            &["run", "-v", "data:/x", "x"],
            "not supported: volume \"data\": rbuild keeps none",
        ),
    ),
    ("-w, --workdir", Works("", RUNS)),
];

pub(super) const BUILDX: &[Row] = &[
    (
        "buildx build",
        Works("[every flag](../flags.md)", "spellings_of_build"),
    ),
    (
        "buildx imagetools create",
        Works("", "images_of_several_names_become_one_index"),
    ),
    (
        "buildx imagetools create --append, --platform, --prefer-index, --dry-run",
        Works("", "an_index_is_added_to_filtered_copied_and_only_shown"),
    ),
    (
        "buildx imagetools inspect",
        Works("", "images_of_several_names_become_one_index"),
    ),
    (
        "buildx create --use --driver docker-container",
        Works("prints the name; there is one builder", BUILDERS),
    ),
    (
        "buildx create --driver remote",
        Refused(
            &["buildx", "create", "--driver", "remote", "tcp://h:1"],
            "not supported: --driver remote: rbuild builds on this machine",
        ),
    ),
    (
        "buildx create --driver-opt",
        Warned(
            &["buildx", "create", "--driver-opt", "network=host"],
            "--driver-opt has no effect: no daemon is started",
        ),
    ),
    (
        "buildx inspect --bootstrap, ls, use, stop, rm",
        Works("", "builders_are_made_chosen_and_removed"),
    ),
    ("buildx du, prune", Works("", "spellings_of_the_other_commands")),
    ("buildx version", Works("", "the_version_names_the_platform")),
    ("buildx bake", Works("", "targets_are_built_from_each_other")),
    (
        "buildx bake URL",
        Refused(
            &["buildx", "bake", "https://example.org/app.git"],
            "not supported: bake files of https://example.org/app.git",
        ),
    ),
    (
        "buildx bake --policy",
        Works(
            "disabled=true; a policy in Rego is refused",
            "a_policy_of_a_target_is_refused_unless_it_is_disabled",
        ),
    ),
    (
        "buildx history, dap, debug",
        Instead(
            "`rbuild serve` keeps a history that buildx itself reads",
            "a_ci_step_of_buildx_works",
        ),
    ),
];
