//! Flags on what a step may use, and on what becomes of one that fails.

use std::time::Duration;

use clap::Args;
use rbuild_ui::values::scalar::parse_duration;

const STEPS: &str = "Steps";

// Flags as they were written.
#[derive(Debug, Args, Default)]
pub(crate) struct StepFlags {
    /// What a step may use: memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus, cpuset-mems, e.g.
    /// "memory=2g", "cpu-quota=50000"
    #[arg(long, value_name = "KEY=VALUE", help_heading = STEPS)]
    pub(crate) resource: Vec<String>,
    /// A limit that this machine cannot keep is an error, not a warning
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = super::go_bool,
        value_name = "BOOL", help_heading = STEPS)]
    pub(crate) strict_limits: Option<bool>,
    /// Longest time a step may take, e.g. "90s", "1h30m"
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = STEPS)]
    pub(crate) run_timeout: Option<Duration>,
    /// How often a step that failed is run again, on what it began with
    #[arg(long, value_name = "N", help_heading = STEPS)]
    pub(crate) run_retries: Option<u32>,
    /// What is done about the step that fails the build: keep or keep=DIR to keep its files, shell to get a shell in it
    #[arg(long, value_name = "MODE", help_heading = STEPS)]
    pub(crate) on_error: Option<String>,

    #[arg(short = 'm', long, hide = true, allow_hyphen_values = true)]
    pub(crate) memory: Option<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    #[arg(short = 'c', long, hide = true, allow_hyphen_values = true)]
    pub(crate) cpu_shares: Option<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub(crate) cpu_period: Option<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) cpuset_cpus: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) cpuset_mems: Option<String>,
}

impl StepFlags {
    /// All limits as `--resource` spells them, what counts more last (`commands/build.go`, `legacyResources`).
    pub(crate) fn resources(&self) -> Vec<String> {
        let legacy = [
            ("memory", &self.memory),
            ("memory-swap", &self.memory_swap),
            ("cpu-shares", &self.cpu_shares),
            ("cpu-period", &self.cpu_period),
            ("cpu-quota", &self.cpu_quota),
            ("cpuset-cpus", &self.cpuset_cpus),
            ("cpuset-mems", &self.cpuset_mems),
        ];
        let legacy = legacy
            .into_iter()
            .filter_map(|(key, value)| Some(format!("{key}={}", value.as_ref()?)));
        legacy.chain(self.resource.iter().cloned()).collect()
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("{text:?} is not a time such as 90s or 1h30m"))
}
