//! Commands of docker that have no counterpart here. Each is refused with a sentence that says what there is instead.

use std::ffi::OsString;

use clap::{Args, Subcommand};

/// Whatever follows the command.
#[derive(Debug, Args, Default)]
pub(crate) struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _rest: Vec<OsString>,
}

const RUNNING: &str = "nothing runs when rbuild has ended; `run` runs a program to its end, `create` and `cp` take files \
    out of an image";
const ENGINE: &str = "rbuild builds, moves and tries images; it keeps no networks, volumes or services";
const ELSEWHERE: &str = "it asks a service that rbuild knows nothing of";

macro_rules! unserved {
    ($($variant:ident, $name:literal, $instead:expr;)*) => {
        /// A command of docker that is refused.
        #[derive(Debug, Subcommand)]
        pub(crate) enum Unserved {
            $(
                #[doc = concat!("Not served: docker ", $name)]
                #[command(name = $name, hide = true, disable_help_flag = true)]
                $variant(Rest),
            )*
        }

        impl Unserved {
            /// Its name, and what to do instead.
            pub(crate) const fn told(&self) -> (&'static str, &'static str) {
                match self { $(Self::$variant(_) => ($name, $instead),)* }
            }
        }
    };
}

unserved! {
    Attach, "attach", RUNNING;
    Commit, "commit", "an image is made by a build: `rbuild build`";
    Compose, "compose", "call `rbuild build` for each service that has a `build` section";
    Diff, "diff", RUNNING;
    Events, "events", RUNNING;
    Exec, "exec", RUNNING;
    Kill, "kill", RUNNING;
    Logs, "logs", RUNNING;
    Network, "network", ENGINE;
    Pause, "pause", RUNNING;
    Plugin, "plugin", ENGINE;
    Port, "port", RUNNING;
    Rename, "rename", RUNNING;
    Restart, "restart", RUNNING;
    Sbom, "sbom", "`rbuild build --sbom=true` lists packages while it builds";
    Scout, "scout", ELSEWHERE;
    Search, "search", ELSEWHERE;
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
