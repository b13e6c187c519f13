//! `--ulimit name=soft[:hard]` (`docker/go-units/ulimit.go`). The hard limit is the soft one if it is not given; -1
//! is no limit.

use rbuild_graph::Ulimit;

/// Why a text is not a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UlimitError {
    /// There is no `=`.
    #[error("invalid ulimit argument: {0}")]
    NoValue(String),
    /// No limit has that name.
    #[error("invalid ulimit type: {0}")]
    Name(String),
    /// A limit is not a number.
    #[error("invalid ulimit value: {0}")]
    Number(String),
    /// There are more than two numbers.
    #[error("too many limit value arguments - {0}, can only have up to two, `soft[:hard]`")]
    TooMany(String),
    /// The soft limit is above the hard one.
    #[error("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")]
    Order {
        /// Soft limit.
        soft: i64,
        /// Hard limit.
        hard: i64,
    },
}

/// Reads one `--ulimit`.
///
/// # Errors
/// [`UlimitError`].
pub fn parse(text: &str) -> Result<Ulimit, UlimitError> {
    let (name, limits) = text
        .split_once('=')
        .ok_or_else(|| UlimitError::NoValue(text.to_owned()))?;
    if !Ulimit::NAMES.contains(&name) {
        return Err(UlimitError::Name(name.to_owned()));
    }
    let number = |text: &str| {
        text.parse::<i64>()
            .map_err(|_not_a_number| UlimitError::Number(text.to_owned()))
    };
    let (soft, hard) = match limits.split(':').collect::<Vec<_>>().as_slice() {
        [soft] => (number(soft)?, number(soft)?),
        [soft, hard] => (number(soft)?, number(hard)?),
        _ => return Err(UlimitError::TooMany(limits.to_owned())),
    };
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(UlimitError::Order { soft, hard });
    }
    Ok(Ulimit {
        name: name.to_owned(),
        soft,
        hard,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        for (text, soft, hard) in [
            ("nofile=1024", 1024, 1024),
            ("nofile=512:1024", 512, 1024),
            ("core=-1", -1, -1),
            ("core=0:-1", 0, -1),
            ("core=-1:-1", -1, -1),
        ] {
            let limit = parse(text).unwrap();
            assert_eq!((limit.soft, limit.hard), (soft, hard), "{text}");
        }
        for text in [
            "nofile",
            "as=1",
            "nofile=x",
            "nofile=1:2:3",
            "nofile=2:1",
            "nofile=-1:5",
            "nofile=",
            "=1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
