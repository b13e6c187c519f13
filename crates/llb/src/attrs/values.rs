//! Values of attributes (`frontend/dockerui/attr.go`).

use std::net::IpAddr;

use rbuild_dockerfile::csv::{self, CsvError};
use rbuild_graph::{HostIp, LinuxResources, NetMode, Ulimit};
use rbuild_oci::Platform;

use super::{AttrError, Opts, ResolveMode};
use crate::go::{self, ValueError};

pub(super) fn platforms(text: &str) -> Result<Vec<Platform>, AttrError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let parse = |text: &str| match Platform::parse(text) {
        Ok(platform) => Ok(platform.normalized()),
        Err(source) => Err(AttrError::Platform {
            text: text.to_owned(),
            source,
        }),
    };
    text.split(',').map(parse).collect()
}

pub(super) fn resolve_mode(text: &str) -> Result<ResolveMode, AttrError> {
    match text {
        "" | "default" => Ok(ResolveMode::Default),
        "pull" => Ok(ResolveMode::ForcePull),
        "local" => Ok(ResolveMode::PreferLocal),
        _ => Err(AttrError::ResolveMode(text.to_owned())),
    }
}

pub(super) fn network(text: &str) -> Result<NetMode, AttrError> {
    match text {
        "" | "sandbox" => Ok(NetMode::Unset),
        "none" => Ok(NetMode::None),
        "host" => Ok(NetMode::Host),
        _ => Err(AttrError::Network(text.to_owned())),
    }
}

/// Why `add-hosts` is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostsError {
    /// Cannot be cut.
    #[error(transparent)]
    Csv(#[from] CsvError),
    /// No `=`.
    #[error("invalid key-value pair {0}")]
    Pair(String),
    /// No address.
    #[error("failed to parse IP {0}")]
    Ip(String),
}

pub(super) fn hosts(text: &str) -> Result<Vec<HostIp>, HostsError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let host = |field: String| {
        let lower = field.to_lowercase();
        let (host, ip) = lower.split_once('=').ok_or(HostsError::Pair(field))?;
        let address: IpAddr = ip.parse().map_err(|_| HostsError::Ip(ip.to_owned()))?;
        Ok(HostIp {
            host: host.to_owned(),
            // Go writes an IPv4 address that is mapped into IPv6 as IPv4.
            ip: address.to_canonical().to_string(),
        })
    };
    csv::fields(text)?.into_iter().map(host).collect()
}

/// Why `ulimit` is refused. Sentences are docker/go-units'.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UlimitError {
    /// Cannot be cut.
    #[error(transparent)]
    Csv(#[from] CsvError),
    /// No `=`.
    #[error("invalid ulimit argument: {0}")]
    Argument(String),
    /// No such limit.
    #[error("invalid ulimit type: {0}")]
    Name(String),
    /// No number.
    #[error(transparent)]
    Number(#[from] ValueError),
    /// More than two numbers.
    #[error("too many limit value arguments - {0}, can only have up to two, `soft[:hard]`")]
    TooMany(String),
    /// The soft one is endless and the hard one is not.
    #[error("ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: {hard}")]
    SoftUnlimited {
        /// The hard limit.
        hard: i64,
    },
    /// The soft one is above the hard one.
    #[error("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")]
    SoftAboveHard {
        /// The soft limit.
        soft: i64,
        /// The hard limit.
        hard: i64,
    },
}

pub(super) fn ulimits(text: &str) -> Result<Vec<Ulimit>, UlimitError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    csv::fields(text)?.iter().map(|field| ulimit(field)).collect()
}

fn ulimit(text: &str) -> Result<Ulimit, UlimitError> {
    let (name, limits) = text
        .split_once('=')
        .ok_or_else(|| UlimitError::Argument(text.to_owned()))?;
    if !Ulimit::NAMES.contains(&name) {
        return Err(UlimitError::Name(name.to_owned()));
    }
    let parts: Vec<&str> = limits.split(':').collect();
    let (soft, hard) = match parts.as_slice() {
        [soft] => {
            let soft = go::int(soft)?;
            (soft, soft)
        }
        [soft, hard] => {
            let hard = go::int(hard)?;
            (go::int(soft)?, hard)
        }
        _ => return Err(UlimitError::TooMany(limits.to_owned())),
    };
    if hard != -1 && soft == -1 {
        return Err(UlimitError::SoftUnlimited { hard });
    }
    if hard != -1 && soft > hard {
        return Err(UlimitError::SoftAboveHard { soft, hard });
    }
    Ok(Ulimit {
        name: name.to_owned(),
        soft,
        hard,
    })
}

/// Why limits of cgroups are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "attribute and value of the sentence above them")]
pub enum ResourceError {
    /// No number.
    #[error("invalid {key} value: {value}")]
    Number {
        key: &'static str,
        value: String,
        #[source]
        source: ValueError,
    },
    /// Too small.
    #[error("invalid {key} value: {value}: must be > 0")]
    NotPositive { key: &'static str, value: String },
    /// Too small, and not the one negative number that means something.
    #[error("invalid {key} value: {value}: must be -1 (unlimited) or > 0")]
    NotPositiveOrUnlimited { key: &'static str, value: String },
    /// No list of numbers.
    #[error("invalid {key} value: {value}")]
    Set {
        key: &'static str,
        value: String,
        #[source]
        source: CpusetError,
    },
}

/// Why a list of processors or memory nodes is refused (`util/cpuset`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CpusetError {
    /// No number.
    #[error("invalid cpuset element {0:?}")]
    Element(String),
    /// Too large a number.
    #[error("cpuset element {0:?} exceeds maximum {CPUSET_MAX}")]
    ElementMax(String),
    /// No two numbers in order.
    #[error("invalid cpuset range {0:?}")]
    Range(String),
    /// Too large a range.
    #[error("cpuset range {0:?} exceeds maximum {CPUSET_MAX}")]
    RangeMax(String),
}

/// Largest processor number.
const CPUSET_MAX: i64 = 8192;

pub(super) fn resources(opts: &mut Opts<'_>) -> Result<Option<LinuxResources>, ResourceError> {
    let found = LinuxResources {
        memory: positive(opts, "memory", go::int, |n| *n > 0)?,
        memory_swap: memory_swap(opts)?,
        cpu_shares: positive(opts, "cpushares", go::uint, |n| *n > 0)?,
        cpu_period: positive(opts, "cpuperiod", go::uint, |n| *n > 0)?,
        cpu_quota: positive(opts, "cpuquota", go::int, |n| *n > 0)?,
        cpuset_cpus: cpuset(opts, "cpusetcpus")?,
        cpuset_mems: cpuset(opts, "cpusetmems")?,
    };
    Ok((found != LinuxResources::default()).then_some(found))
}

fn positive<T: Default>(
    opts: &mut Opts<'_>,
    key: &'static str,
    parse: impl Fn(&str) -> Result<T, ValueError>,
    is_positive: impl Fn(&T) -> bool,
) -> Result<T, ResourceError> {
    let text = opts.text(key);
    if text.is_empty() {
        return Ok(T::default());
    }
    let value = || text.to_owned();
    let number = parse(text).map_err(|source| ResourceError::Number {
        key,
        value: value(),
        source,
    })?;
    if !is_positive(&number) {
        return Err(ResourceError::NotPositive { key, value: value() });
    }
    Ok(number)
}

fn memory_swap(opts: &mut Opts<'_>) -> Result<i64, ResourceError> {
    let key = "memswap";
    let text = opts.text(key);
    match positive(opts, key, go::int, |number| *number == -1 || *number > 0) {
        Err(ResourceError::NotPositive { .. }) => Err(ResourceError::NotPositiveOrUnlimited {
            key,
            value: text.to_owned(),
        }),
        other => other,
    }
}

fn cpuset(opts: &mut Opts<'_>, key: &'static str) -> Result<String, ResourceError> {
    let text = opts.text(key);
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        cpuset_part(part).map_err(|source| ResourceError::Set {
            key,
            value: text.to_owned(),
            source,
        })?;
    }
    Ok(text.to_owned())
}

fn cpuset_part(part: &str) -> Result<(), CpusetError> {
    let number = |text: &str| go::int(text.trim()).ok().filter(|number| *number >= 0);
    let Some((low, high)) = part.split_once('-') else {
        return match number(part) {
            None => Err(CpusetError::Element(part.to_owned())),
            Some(number) if number > CPUSET_MAX => Err(CpusetError::ElementMax(part.to_owned())),
            Some(_) => Ok(()),
        };
    };
    match (number(low), number(high)) {
        (Some(low), Some(high)) if low <= high => {
            if high > CPUSET_MAX {
                return Err(CpusetError::RangeMax(part.to_owned()));
            }
            Ok(())
        }
        _ => Err(CpusetError::Range(part.to_owned())),
    }
}
