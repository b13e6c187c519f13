//! Limits of a step's control group, as `docker run` names them: what is wanted, not how a kernel is told.

use serde::{Deserialize, Serialize};

/// What a step may use at most. Nothing named is no limit, and no control group is made for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory, bytes.
    pub memory_bytes: Option<u64>,
    /// Memory and swap together.
    pub memory_swap: Option<Swap>,
    /// Weight among others that want the processors too, 2 to 262144; 1024 is everybody's.
    pub cpu_shares: Option<u64>,
    /// Microseconds after which the quota begins anew; 100000 if only a quota is named.
    pub cpu_period_us: Option<u64>,
    /// Microseconds of processor time in each period, of all processors together.
    pub cpu_quota_us: Option<u64>,
    /// Processors it may run on, such as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes it may use, such as `0,1`.
    pub cpuset_mems: Option<String>,
    /// What cannot be had is an error. Otherwise it is a warning, and the step runs without.
    pub strict: bool,
}

/// A limit of memory and swap together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Swap {
    /// As much swap as there is.
    Unlimited,
    /// Bytes.
    Bytes(u64),
}

impl Limits {
    /// Whether there is nothing to be limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let strict = self.strict;
        *self
            == Self {
                strict,
                ..Self::default()
            }
    }
}
