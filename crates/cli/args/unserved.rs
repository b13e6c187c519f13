//! Commands of docker that have no counterpart here. Each is refused with a sentence that says what there is instead.

use std::ffi::OsString;

use clap::{Args, Subcommand};

/// Whatever follows the command.
#[derive(Debug, Args, Default)]
pub(crate) struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<OsString>,
}

const RUNNING: &str = "nothing runs when rbuild has ended; `run` runs a program to its end, `create` and `cp` take files \
    out of an image";
const COMMIT: &str = "an image is made by a build: `rbuild build`";
const IMPORT: &str = "`rbuild build` makes an image of an archive: `FROM scratch` and `ADD FILE.tar /`";
const ENGINE: &str = "rbuild builds, moves and tries images; it keeps no networks, volumes or services";
const ELSEWHERE: &str = "it asks a service that rbuild knows nothing of";

macro_rules! unserved {
    ($enum:ident $of:literal: $($variant:ident, $name:literal, $instead:expr;)*) => {
        #[doc = concat!("A command of ", $of, " that is refused.")]
        #[derive(Debug, Subcommand)]
        pub(crate) enum $enum {
            $(
                #[doc = concat!("Not served: ", $of, " ", $name)]
                #[command(name = $name, hide = true, disable_help_flag = true)]
                $variant(Rest),
            )*
        }

        impl $enum {
            /// Its name, and what to do instead.
            pub(crate) const fn told(&self) -> (&'static str, &'static str) {
                match self { $(Self::$variant(_) => (concat!($of, " ", $name), $instead),)* }
            }
        }
    };
}

unserved! { Unserved "docker":
    Attach, "attach", RUNNING;
    Checkpoint, "checkpoint", RUNNING;
    Commit, "commit", COMMIT;
    Compose, "compose", "`rbuild bake -f FILE` builds the services of a compose file that have a `build` section";
    Config, "config", ENGINE;
    Diff, "diff", RUNNING;
    Events, "events", RUNNING;
    Exec, "exec", RUNNING;
    Import, "import", IMPORT;
    Kill, "kill", RUNNING;
    Logs, "logs", RUNNING;
    Network, "network", ENGINE;
    Node, "node", ENGINE;
    Pause, "pause", RUNNING;
    Plugin, "plugin", ENGINE;
    Port, "port", RUNNING;
    Rename, "rename", RUNNING;
    Restart, "restart", RUNNING;
    Sbom, "sbom", "`rbuild build --sbom=true` lists packages while it builds";
    Scout, "scout", ELSEWHERE;
    Search, "search", ELSEWHERE;
    Secret, "secret", "`rbuild build --secret` gives one to a step";
    Service, "service", ENGINE;
    Stack, "stack", ENGINE;
    Start, "start", RUNNING;
    Stats, "stats", RUNNING;
    Stop, "stop", RUNNING;
    Swarm, "swarm", ENGINE;
    Top, "top", RUNNING;
    Trust, "trust", ELSEWHERE;
    Unpause, "unpause", RUNNING;
    Update, "update", RUNNING;
    Volume, "volume", ENGINE;
    Wait, "wait", RUNNING;
}

impl Unserved {
    /// What is printed where all is to be removed of which there is none, as pipelines do at their end.
    pub(crate) fn forgets(&self) -> Option<&'static str> {
        let (rest, told) = match self {
            Self::Network(rest) => (rest, ""),
            Self::Volume(rest) => (rest, "Total reclaimed space: 0B\n"),
            _ => return None,
        };
        rest.rest.first().filter(|word| *word == "prune").map(|_| told)
    }
}

unserved! { UnservedContainer "docker container":
    Attach, "attach", RUNNING;
    Commit, "commit", COMMIT;
    Diff, "diff", RUNNING;
    Exec, "exec", RUNNING;
    Inspect, "inspect", "`ps` shows what was created, `image inspect` of what";
    Kill, "kill", RUNNING;
    Logs, "logs", RUNNING;
    Pause, "pause", RUNNING;
    Port, "port", RUNNING;
    Rename, "rename", RUNNING;
    Restart, "restart", RUNNING;
    Start, "start", RUNNING;
    Stats, "stats", RUNNING;
    Stop, "stop", RUNNING;
    Top, "top", RUNNING;
    Unpause, "unpause", RUNNING;
    Update, "update", RUNNING;
    Wait, "wait", RUNNING;
}

unserved! { UnservedImage "docker image":
    Import, "import", IMPORT;
}

unserved! { UnservedSystem "docker system":
    Events, "events", RUNNING;
}

unserved! { UnservedBuildx "docker buildx":
    Dap, "dap", "`rbuild build --on-error=shell` shows a step that failed";
    Debug, "debug", "`rbuild build --on-error=shell` shows a step that failed";
    DialStdio, "dial-stdio", "`rbuild serve` listens for clients of BuildKit";
    History, "history", "`rbuild serve` keeps one, which buildx reads";
    Policy, "policy", "no Rego is evaluated here";
}
