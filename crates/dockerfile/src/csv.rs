//! The `key=value,key=value` values of flags: fields cut at commas as in CSV, booleans and sizes as Go reads them.

/// A value that cannot be cut into fields.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsvError {
    /// Nothing in it.
    #[error("EOF")]
    Empty,
    /// A `"` inside a field that does not begin with one.
    #[error("parse error on line 1, column {column}: bare \" in non-quoted field")]
    BareQuote {
        /// Where, 1-based, in bytes.
        column: usize,
    },
    /// A quoted field that does not end, or goes on behind its end.
    #[error("parse error on line 1, column {column}: extraneous or missing \" in quoted-field")]
    Quote {
        /// Where, 1-based, in bytes.
        column: usize,
    },
}

/// Fields of one line (RFC 4180): a field in quotes may hold commas, and `""` for a quote.
///
/// # Errors
/// [`CsvError`] for quotes that do not fit.
pub fn fields(line: &str) -> Result<Vec<String>, CsvError> {
    let body = line
        .strip_suffix('\n')
        .map_or(line, |body| body.strip_suffix('\r').unwrap_or(body));
    if body.is_empty() {
        return Err(CsvError::Empty);
    }
    let mut fields = Vec::new();
    let mut rest = body;
    loop {
        let column = |rest: &str| body.len() - rest.len() + 1;
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, after) = rest
                .split_once(',')
                .map_or((rest, None), |(field, after)| (field, Some(after)));
            if let Some(at) = field.find('"') {
                return Err(CsvError::BareQuote {
                    column: column(rest) + at,
                });
            }
            fields.push(field.to_owned());
            match after {
                Some(after) => rest = after,
                None => return Ok(fields),
            }
            continue;
        };
        rest = quoted;
        let mut field = String::new();
        loop {
            let Some(at) = rest.find('"') else {
                return Err(CsvError::Quote { column: column(rest) });
            };
            field.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('"') {
                field.push('"');
                rest = after;
            } else {
                break;
            }
        }
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.is_empty() => return Ok(fields),
            None => {
                return Err(CsvError::Quote {
                    column: column(rest) - 1,
                });
            }
        }
    }
}

/// What Go's `strconv.ParseBool` reads.
#[must_use]
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// A size such as `64m`, `1.5 GiB` or `100`, in bytes; units are powers of 1024 (docker/go-units `RAMInBytes`).
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
    let last = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')?;
    let (number, suffix) = if text.as_bytes()[last] == b' ' {
        (&text[..last], &text[last + 1..])
    } else {
        text.split_at(last + 1)
    };
    if !number.starts_with(|c: char| c.is_ascii_digit() || c == '.' || c == '+') {
        return None;
    }
    let size: f64 = number.parse().ok()?;
    let suffix = suffix.to_ascii_lowercase();
    let factor = match suffix.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    let size = size * 1024_f64.powi(factor);
    // Go converts to int64, which has no meaning beyond its range; such a limit is none at all.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be in range"
    )]
    (size.is_finite() && (0.0..9.2e18).contains(&size)).then_some(size as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_as_csv() {
        assert_eq!(fields("a=b,c").unwrap(), ["a=b", "c"]);
        assert_eq!(fields("\"a=b,c\",d").unwrap(), ["a=b,c", "d"]);
        assert_eq!(fields("\"a\"\"b\"").unwrap(), ["a\"b"]);
        assert_eq!(fields("a,,").unwrap(), ["a", "", ""]);
        assert_eq!(fields("a,\"\"").unwrap(), ["a", ""]);
        assert_eq!(fields(""), Err(CsvError::Empty));
        assert_eq!(fields("a\"b"), Err(CsvError::BareQuote { column: 2 }));
        assert_eq!(fields("x,\"a"), Err(CsvError::Quote { column: 4 }));
        assert_eq!(fields("\"a\"b"), Err(CsvError::Quote { column: 3 }));
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("100", Some(100)),
            ("64m", Some(64 << 20)),
            ("1.5GiB", Some(3 << 29)),
            ("2 kb", Some(2048)),
            ("7b", Some(7)),
            ("1tb", Some(1 << 40)),
            ("", None),
            ("m", None),
            ("-1", None),
            ("1x", None),
            ("1kbb", None),
            ("1e400", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
