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

/// Fields of one line (RFC 4180): a field in quotes may hold commas, and `""` for a quote. A line feed is a character like
/// others, but for one at the end (`tonistiigi/go-csvvalue`, which BuildKit and buildx read their flags with).
///
/// # Errors
/// [`CsvError`] for quotes that do not fit.
pub fn fields(line: &str) -> Result<Vec<String>, CsvError> {
    separated(line, ',')
}

/// The same with another character in the comma's place.
///
/// # Errors
/// As [`fields`].
pub fn separated(line: &str, comma: char) -> Result<Vec<String>, CsvError> {
    let body = line
        .strip_suffix('\n')
        .map_or(line, |body| body.strip_suffix('\r').unwrap_or(body));
    if body.is_empty() {
        return Err(CsvError::Empty);
    }
    let column = |rest: &str| body.len() - rest.len() + 1;
    let mut fields = Vec::new();
    let mut rest = body;
    loop {
        let (field, after) = if let Some(quoted) = rest.strip_prefix('"') {
            let (field, after) = in_quotes(quoted).map_err(|at| CsvError::Quote { column: column(at) })?;
            match after.strip_prefix(comma) {
                None if !after.is_empty() => {
                    return Err(CsvError::Quote {
                        column: column(after) - 1,
                    });
                }
                after => (field, after),
            }
        } else {
            let (field, after) = rest
                .split_once(comma)
                .map_or((rest, None), |(field, after)| (field, Some(after)));
            if let Some(at) = field.find('"') {
                return Err(CsvError::BareQuote {
                    column: column(rest) + at,
                });
            }
            (field.to_owned(), after)
        };
        fields.push(field);
        match after {
            Some(after) => rest = after,
            None => return Ok(fields),
        }
    }
}

/// What stands before the quote that ends a field, and what behind it; where no quote does, what is behind the last one.
fn in_quotes(mut rest: &str) -> Result<(String, &str), &str> {
    let mut field = String::new();
    loop {
        let (text, after) = rest.split_once('"').ok_or(rest)?;
        field.push_str(text);
        match after.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None => return Ok((field, after)),
        }
    }
}

/// `text` as one field, in quotes if it needs them (Go's `encoding/csv`, `fieldNeedsQuotes`).
#[must_use]
pub fn field(text: &str) -> String {
    if text.contains(['"', ',', '\r', '\n']) || text.starts_with(char::is_whitespace) || text == r"\." {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
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
        assert_eq!(fields("\n"), Err(CsvError::Empty));
        assert_eq!(fields(" a , b \r\n").unwrap(), [" a ", " b "]);
        assert_eq!(fields("\"two\nlines\",a\nb").unwrap(), ["two\nlines", "a\nb"]);
        assert_eq!(fields("a\r").unwrap(), ["a\r"]);
        assert_eq!(separated("k:\"a:b\"", ':').unwrap(), ["k", "a:b"]);
        assert_eq!(separated("a,b", ':').unwrap(), ["a,b"]);
    }

    #[test]
    fn a_field_that_was_written_is_read_as_it_was() {
        for (text, written) in [
            ("a=b", "a=b"),
            ("a,b", "\"a,b\""),
            ("a\"b", "\"a\"\"b\""),
            (" a", "\" a\""),
            ("\ta", "\"\ta\""),
            ("two\nlines", "\"two\nlines\""),
            (r"\.", r#""\.""#),
        ] {
            assert_eq!(field(text), written);
            assert_eq!(fields(written).unwrap(), [text]);
        }
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
