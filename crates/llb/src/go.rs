//! Values as Go's `strconv` reads them, with its error sentences, which clients and tests look for.

use std::num::IntErrorKind;

use rbuild_dockerfile::csv;

/// A text that is no number or truth value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("strconv.{function}: parsing {text:?}: {why}")]
pub struct ValueError {
    function: &'static str,
    text: String,
    why: &'static str,
}

impl ValueError {
    fn new(function: &'static str, text: &str, in_range: bool) -> Self {
        Self {
            function,
            text: text.to_owned(),
            why: if in_range {
                "invalid syntax"
            } else {
                "value out of range"
            },
        }
    }
}

/// `strconv.ParseBool`.
pub(crate) fn boolean(text: &str) -> Result<bool, ValueError> {
    csv::boolean(text).ok_or_else(|| ValueError::new("ParseBool", text, true))
}

/// `strconv.ParseInt` of 64 bits, base 10.
pub(crate) fn int(text: &str) -> Result<i64, ValueError> {
    text.parse().map_err(|error: std::num::ParseIntError| {
        let overflow = matches!(
            error.kind(),
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow
        );
        ValueError::new("ParseInt", text, !overflow)
    })
}

/// `strconv.ParseUint` of 64 bits, base 10, which takes no sign.
pub(crate) fn uint(text: &str) -> Result<u64, ValueError> {
    if text.starts_with('+') {
        return Err(ValueError::new("ParseUint", text, true));
    }
    text.parse().map_err(|error: std::num::ParseIntError| {
        ValueError::new("ParseUint", text, *error.kind() != IntErrorKind::PosOverflow)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_gos() {
        assert_eq!(boolean("T"), Ok(true));
        assert_eq!(
            boolean("yes").unwrap_err().to_string(),
            "strconv.ParseBool: parsing \"yes\": invalid syntax"
        );
        assert_eq!(int("+5"), Ok(5));
        assert_eq!(
            int("").unwrap_err().to_string(),
            "strconv.ParseInt: parsing \"\": invalid syntax"
        );
        assert_eq!(
            int("-9223372036854775809").unwrap_err().to_string(),
            "strconv.ParseInt: parsing \"-9223372036854775809\": value out of range"
        );
        assert_eq!(uint("18446744073709551615"), Ok(u64::MAX));
        for text in ["+5", "-5", "5 ", "0x5", "5_0"] {
            assert!(uint(text).is_err(), "{text}");
        }
        assert_eq!(
            uint("18446744073709551616").unwrap_err().to_string(),
            "strconv.ParseUint: parsing \"18446744073709551616\": value out of range"
        );
    }
}
