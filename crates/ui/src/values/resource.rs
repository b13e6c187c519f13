//! `--resource KEY=VALUE` (`docker/buildx` `build/utils.go`, `ParseResourceLimits`), and the flags of `docker run` that are
//! another spelling of it. Gives the options of a front end that they are; whether a list of processors is one is
//! decided by whoever reads those.

use std::collections::BTreeMap;

use crate::units::{self, SizeError};

/// All keys.
pub const KEYS: [&str; 7] = [
    "memory",
    "memory-swap",
    "cpu-shares",
    "cpu-period",
    "cpu-quota",
    "cpuset-cpus",
    "cpuset-mems",
];

/// Why a `--resource` is refused. Sentences are buildx's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// No `=`.
    #[error("invalid resource {0:?}, expected key=value")]
    NoValue(String),
    /// A key there is not.
    #[error("unknown resource {0:?}")]
    Key(String),
    /// No size.
    #[error("invalid value {value:?} for resource {key}: {source}")]
    Size {
        /// Key.
        key: String,
        /// As written.
        value: String,
        /// Why.
        source: SizeError,
    },
    /// No number.
    #[error("invalid value {value:?} for resource {key}")]
    Number {
        /// Key.
        key: String,
        /// As written.
        value: String,
    },
}

/// Reads all of them; later ones win. What says "no limit" is left out.
///
/// # Errors
/// [`ResourceError`] for the first that is wrong.
pub fn parse<'a>(
    entries: impl IntoIterator<Item = &'a str>,
) -> Result<BTreeMap<String, String>, ResourceError> {
    let mut attrs = BTreeMap::new();
    for entry in entries {
        let (key, value) = entry
            .split_once('=')
            .ok_or_else(|| ResourceError::NoValue(entry.to_owned()))?;
        let (key, value) = (key.trim(), value.trim());
        let size = || {
            units::parse_size(value).map_err(|source| ResourceError::Size {
                key: key.to_owned(),
                value: value.to_owned(),
                source,
            })
        };
        let number = || {
            value
                .parse::<i64>()
                .map_err(|_not_a_number| ResourceError::Number {
                    key: key.to_owned(),
                    value: value.to_owned(),
                })
        };
        let (attr, said) = match key {
            "memory" => ("memory", size()?.to_string()),
            "memory-swap" if value == "-1" => ("memswap", value.to_owned()),
            "memory-swap" => ("memswap", size()?.to_string()),
            "cpu-shares" => ("cpushares", number()?.max(0).to_string()),
            "cpu-period" => ("cpuperiod", number()?.max(0).to_string()),
            "cpu-quota" => ("cpuquota", number()?.max(0).to_string()),
            "cpuset-cpus" => ("cpusetcpus", value.to_owned()),
            "cpuset-mems" => ("cpusetmems", value.to_owned()),
            _ => return Err(ResourceError::Key(key.to_owned())),
        };
        attrs.insert(attr.to_owned(), said);
    }
    // Processor 0 and node 0 are what they say.
    attrs.retain(|key, value| !value.is_empty() && (value != "0" || key.starts_with("cpuset")));
    Ok(attrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(entries: &[&str]) -> Vec<String> {
        let attrs = parse(entries.iter().copied()).unwrap();
        attrs
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect()
    }

    #[test]
    fn every_key_is_an_option() {
        let entries = [
            "memory=64m",
            " memory-swap = 1g ",
            "cpu-shares=512",
            "cpu-period=100000",
            "cpu-quota=50000",
            "cpuset-cpus=0-1",
            "cpuset-mems=0",
        ];
        let expected = [
            "cpuperiod=100000",
            "cpuquota=50000",
            "cpusetcpus=0-1",
            "cpusetmems=0",
            "cpushares=512",
            "memory=67108864",
            "memswap=1073741824",
        ];
        assert_eq!(read(&entries), expected);
    }

    #[test]
    fn the_last_one_wins_and_nothing_is_no_limit() {
        assert_eq!(read(&["memory=1g", "memory=5"]), ["memory=5"]);
        assert_eq!(read(&["memory-swap=-1"]), ["memswap=-1"]);
        assert_eq!(
            read(&[
                "memory=5",
                "memory=0",
                "cpu-quota=-1",
                "cpu-shares=0",
                "cpuset-cpus="
            ]),
            [""; 0]
        );
    }

    #[test]
    fn what_is_wrong_is_said_as_buildx_does() {
        for (entry, said) in [
            ("memory", "invalid resource \"memory\", expected key=value"),
            ("pids=1", "unknown resource \"pids\""),
            ("memory=x", "invalid value \"x\" for resource memory: "),
            ("memory=-1", "invalid value \"-1\" for resource memory: "),
            (
                "memory-swap=-2",
                "invalid value \"-2\" for resource memory-swap: ",
            ),
            ("cpu-shares=1.5", "invalid value \"1.5\" for resource cpu-shares"),
        ] {
            let error = parse([entry]).unwrap_err().to_string();
            assert!(error.starts_with(said), "{entry}: {error}");
        }
    }
}
