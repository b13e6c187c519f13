//! Flags of docker's `run` (28.2) that mean nothing here, or need what rbuild has not: an engine, limits, other namespaces.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::super::go_bool;

/// A flag of docker's.
#[derive(Debug)]
pub(crate) struct UnservedFlag {
    /// Its long name.
    pub(crate) name: &'static str,
    short: Option<char>,
    takes_value: bool,
    /// What is said when it is given; nothing if nothing is lost without it.
    pub(crate) why: Option<&'static str>,
    /// The value that asks for what is so anyway.
    usual: &'static str,
}

const fn refused(name: &'static str, why: &'static str) -> UnservedFlag {
    UnservedFlag {
        name,
        short: None,
        takes_value: true,
        why: Some(why),
        usual: "",
    }
}

const fn accepted(name: &'static str) -> UnservedFlag {
    UnservedFlag {
        why: None,
        ..refused(name, "")
    }
}

impl UnservedFlag {
    const fn short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }

    const fn switch(mut self) -> Self {
        self.takes_value = false;
        self
    }

    const fn unless(mut self, usual: &'static str) -> Self {
        self.usual = usual;
        self
    }

    fn arg(&self) -> Arg {
        let arg = Arg::new(self.name).long(self.name).hide(true);
        let arg = match self.short {
            Some(short) => arg.short(short),
            None => arg,
        };
        if self.takes_value {
            return arg.action(ArgAction::Append);
        }
        arg.action(ArgAction::Append)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(go_bool)
    }

    fn is_given(&self, matches: &mut ArgMatches) -> bool {
        if self.takes_value {
            let mut values = matches.remove_many::<String>(self.name).into_iter().flatten();
            return values.any(|value| self.usual.is_empty() || value != self.usual);
        }
        let values = matches.remove_many::<bool>(self.name).into_iter().flatten();
        values.last() == Some(true)
    }
}

const ENDED: &str = "nothing runs when rbuild has ended";
const PORTS: &str = "the program has the network of steps, so its ports are there already";
const SANDBOX: &str = "the sandbox is that of steps";
const LIMITS: &str = "limit rbuild itself, for example with systemd-run";
const NETWORK: &str = "the program has the network of steps, or none";

const FLAGS: &[UnservedFlag] = &[
    // Said of a container to those who ask for it later, or about how it is watched: there is none, and nobody watches.
    accepted("annotation"),
    accepted("detach-keys"),
    accepted("disable-content-trust").switch(),
    accepted("expose"),
    accepted("health-cmd"),
    accepted("health-interval"),
    accepted("health-retries"),
    accepted("health-start-interval"),
    accepted("health-start-period"),
    accepted("health-timeout"),
    // A process of ours reaps its children.
    accepted("init").switch(),
    accepted("label").short('l'),
    accepted("label-file"),
    accepted("log-driver"),
    accepted("log-opt"),
    accepted("no-healthcheck").switch(),
    // Signals reach the program in any case.
    accepted("sig-proxy").switch(),
    accepted("stop-signal"),
    accepted("stop-timeout"),
    refused(
        "attach",
        "output and errors are always shown, and -i gives it standard input",
    )
    .short('a'),
    refused("blkio-weight", LIMITS),
    refused("blkio-weight-device", LIMITS),
    refused("cap-add", SANDBOX),
    refused("cap-drop", SANDBOX),
    refused("cgroup-parent", LIMITS),
    refused("cgroupns", SANDBOX),
    refused("cpu-count", LIMITS),
    refused("cpu-percent", LIMITS),
    refused("cpu-period", LIMITS),
    refused("cpu-quota", LIMITS),
    refused("cpu-rt-period", LIMITS),
    refused("cpu-rt-runtime", LIMITS),
    refused("cpu-shares", LIMITS).short('c'),
    refused("cpus", LIMITS),
    refused("cpuset-cpus", LIMITS),
    refused("cpuset-mems", LIMITS),
    refused("detach", ENDED).short('d').switch(),
    refused("device", SANDBOX),
    refused("device-cgroup-rule", SANDBOX),
    refused("device-read-bps", LIMITS),
    refused("device-read-iops", LIMITS),
    refused("device-write-bps", LIMITS),
    refused("device-write-iops", LIMITS),
    refused("dns", NETWORK),
    refused("dns-option", NETWORK),
    refused("dns-search", NETWORK),
    refused("domainname", NETWORK),
    refused("gpus", SANDBOX),
    refused("group-add", SANDBOX),
    refused("io-maxbandwidth", LIMITS),
    refused("io-maxiops", LIMITS),
    refused("ip", NETWORK),
    refused("ip6", NETWORK),
    refused("ipc", SANDBOX),
    refused("isolation", SANDBOX).unless("default"),
    refused("kernel-memory", LIMITS),
    refused("link", NETWORK),
    refused("link-local-ip", NETWORK),
    refused("mac-address", NETWORK),
    refused("memory", LIMITS).short('m'),
    refused("memory-reservation", LIMITS),
    refused("memory-swap", LIMITS),
    refused("memory-swappiness", LIMITS),
    refused("network-alias", NETWORK),
    refused("oom-kill-disable", LIMITS).switch(),
    refused("oom-score-adj", LIMITS),
    refused("pid", SANDBOX),
    refused("pids-limit", LIMITS),
    refused("privileged", SANDBOX).switch(),
    refused("publish", PORTS).short('p'),
    refused("publish-all", PORTS).short('P').switch(),
    refused("restart", ENDED).unless("no"),
    refused("runtime", SANDBOX),
    refused("security-opt", SANDBOX),
    refused("shm-size", SANDBOX),
    refused("storage-opt", SANDBOX),
    refused("sysctl", SANDBOX),
    refused("ulimit", LIMITS),
    refused("use-api-socket", "there is no engine").switch(),
    refused("userns", SANDBOX),
    refused("uts", SANDBOX),
    refused("volume-driver", "rbuild keeps no volumes"),
    refused("volumes-from", "nothing else runs that it could share them with"),
];

/// Those that were given.
#[derive(Debug, Default)]
pub(crate) struct UnservedRun(pub(crate) Vec<&'static UnservedFlag>);

impl Args for UnservedRun {
    fn augment_args(command: Command) -> Command {
        command.args(FLAGS.iter().map(UnservedFlag::arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for UnservedRun {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Self::from_arg_matches_mut(&mut matches.clone())
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        let given = FLAGS.iter().filter(|flag| flag.is_given(matches));
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
