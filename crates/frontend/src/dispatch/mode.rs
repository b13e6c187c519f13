//! `--chmod`.

use crate::error::FrontendErrorKind;

/// A mode for copied files: one of the two is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mode {
    pub(super) octal: Option<u32>,
    pub(super) symbolic: Option<String>,
}

/// Reads `--chmod`; the empty text is none.
pub(super) fn parse(text: &str) -> Result<Mode, FrontendErrorKind> {
    if text.is_empty() {
        return Ok(Mode::default());
    }
    if text.bytes().all(|b| b.is_ascii_digit()) || text.starts_with(|c: char| c.is_ascii_digit()) {
        let octal = if text.bytes().all(|b| (b'0'..=b'7').contains(&b)) {
            u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777)
        } else {
            None
        };
        return match octal {
            Some(mode) => Ok(Mode {
                octal: Some(mode),
                symbolic: None,
            }),
            None => Err(FrontendErrorKind::Chmod(text.to_owned())),
        };
    }
    if is_symbolic(text) {
        Ok(Mode {
            octal: None,
            symbolic: Some(text.to_owned()),
        })
    } else {
        Err(FrontendErrorKind::SymbolicChmod)
    }
}

/// Clauses `[ugoa…][+-=][perms…]…` joined by commas (chmod(1)).
fn is_symbolic(text: &str) -> bool {
    text.split(',').all(|clause| {
        let mut rest = clause.trim_start_matches(['u', 'g', 'o', 'a']);
        if rest.is_empty() {
            return false;
        }
        while let Some(after) = rest.strip_prefix(['+', '-', '=']) {
            rest = after.trim_start_matches(['r', 's', 't', 'w', 'x', 'X', 'u', 'g', 'o']);
        }
        rest.is_empty()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for (text, octal) in [
            ("755", 0o755),
            ("0644", 0o644),
            ("7777", 0o7777),
            ("0", 0),
            ("00001", 1),
        ] {
            assert_eq!(parse(text).unwrap().octal, Some(octal), "{text}");
        }
        for text in ["u=rwX,go=rX", "+x", "a-w", "u+s", "go=u-w", "u=", "=rw,+X"] {
            assert_eq!(parse(text).unwrap().symbolic.as_deref(), Some(text));
        }
        for text in ["10000", "888", "7z", "99999999999999"] {
            let message = format!(
                "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
            );
            assert_eq!(parse(text).unwrap_err().to_string(), message);
        }
        for text in ["u", "rwx", "u+w,", "u+q", ",", "-rwxr"] {
            let result = parse(text);
            assert_eq!(result.is_err(), text != "-rwxr", "{text}");
        }
    }
}
