//! What a step may use: the limits of a graph (`pb.LinuxResources`) as limits of a sandbox. 0, less, and nothing are no
//! limit, as in BuildKit (`executor/oci/spec_linux.go`).

use rbuild_graph::LinuxResources;
use rbuild_sandbox::{Limits, Swap};

/// Longest list of processors or memory nodes, bytes; the kernel takes one page.
const SET_BYTES_MAX: usize = 4096;

/// A limit that cannot be one, whatever the machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Not numbers and ranges of them.
    #[error("{name} is no list of numbers: {text:?}")]
    Set {
        /// Which limit.
        name: &'static str,
        /// Its first bytes.
        text: String,
    },
}

/// The limits that `resources` are. With `strict`, what cannot be had is an error of the step.
///
/// # Errors
/// [`LimitError`].
pub fn of(resources: Option<&LinuxResources>, strict: bool) -> Result<Limits, LimitError> {
    let Some(resources) = resources else {
        return Ok(Limits::default());
    };
    let positive = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
    let given = |value: u64| Some(value).filter(|value| *value > 0);
    Ok(Limits {
        memory_bytes: positive(resources.memory),
        memory_swap: match resources.memory_swap {
            -1 => Some(Swap::Unlimited),
            bytes => positive(bytes).map(Swap::Bytes),
        },
        cpu_shares: given(resources.cpu_shares),
        cpu_period_us: given(resources.cpu_period),
        cpu_quota_us: positive(resources.cpu_quota),
        cpuset_cpus: set("cpuset-cpus", &resources.cpuset_cpus)?,
        cpuset_mems: set("cpuset-mems", &resources.cpuset_mems)?,
        strict,
    })
}

fn set(name: &'static str, text: &str) -> Result<Option<String>, LimitError> {
    let is_list = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b',' | b'-' | b' '));
    if text.len() > SET_BYTES_MAX || !is_list {
        return Err(LimitError::Set {
            name,
            text: text.chars().take(64).collect(),
        });
    }
    Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_a_limit() {
        let resources = LinuxResources {
            memory: 64 << 20,
            memory_swap: 128 << 20,
            cpu_shares: 512,
            cpu_period: 50_000,
            cpu_quota: 25_000,
            cpuset_cpus: "0-1, 3".to_owned(),
            cpuset_mems: "0".to_owned(),
        };
        let expected = Limits {
            memory_bytes: Some(64 << 20),
            memory_swap: Some(Swap::Bytes(128 << 20)),
            cpu_shares: Some(512),
            cpu_period_us: Some(50_000),
            cpu_quota_us: Some(25_000),
            cpuset_cpus: Some("0-1, 3".to_owned()),
            cpuset_mems: Some("0".to_owned()),
            strict: true,
        };
        assert_eq!(of(Some(&resources), true).unwrap(), expected);
    }

    #[test]
    fn what_is_no_number_above_0_is_no_limit() {
        let resources = LinuxResources {
            memory: -5,
            memory_swap: -1,
            cpu_quota: i64::MIN,
            ..LinuxResources::default()
        };
        let expected = Limits {
            memory_swap: Some(Swap::Unlimited),
            ..Limits::default()
        };
        assert_eq!(of(Some(&resources), false).unwrap(), expected);
        assert!(of(None, true).unwrap().is_empty());
        assert!(of(Some(&LinuxResources::default()), true).unwrap().is_empty());
    }

    #[test]
    fn a_list_is_a_list_before_a_file_of_the_kernel_is_written() {
        for text in ["0\n1", "a", "0;rm", &"1,".repeat(SET_BYTES_MAX)] {
            let resources = LinuxResources {
                cpuset_mems: text.to_owned(),
                ..LinuxResources::default()
            };
            let error = of(Some(&resources), false).unwrap_err().to_string();
            assert!(
                error.starts_with("cpuset-mems is no list of numbers: ") && error.len() < 200,
                "{error}"
            );
        }
    }
}
