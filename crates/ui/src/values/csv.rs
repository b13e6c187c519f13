//! One record of comma-separated fields, as Go's `encoding/csv` reads it (RFC 4180): a field that begins with `"`
//! ends at the next lone `"`, and `""` inside is a quote. Refuses more than one record.

/// Why a text is not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CsvError {
    /// There is nothing.
    #[error("value is empty")]
    Empty,
    /// A field that does not begin with a quote holds one.
    #[error("bare \" in non-quoted field")]
    BareQuote,
    /// A quoted field does not end, or goes on after its closing quote.
    #[error("extraneous or missing \" in quoted-field")]
    Quote,
    /// There is a second line.
    #[error("value has more than one line")]
    Lines,
}

/// Splits `text` into fields.
///
/// # Errors
/// [`CsvError`].
pub fn fields(text: &str) -> Result<Vec<String>, CsvError> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(CsvError::Empty);
    }
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, tail) = if let Some(quoted) = rest.strip_prefix('"') {
            quoted_field(quoted)?
        } else {
            bare_field(rest)?
        };
        fields.push(field);
        match tail {
            Some(tail) => rest = tail,
            None => return Ok(fields),
        }
    }
}

/// `text` as one field, in quotes if it needs them.
#[must_use]
pub fn field(text: &str) -> String {
    if text.contains(['"', ',', '\r', '\n']) || text.starts_with(' ') {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// Splits `text` into `key=value` fields at their first `=`; the keys are trimmed and lower-cased, the values are as
/// written. A field without `=` has no value.
///
/// # Errors
/// [`CsvError`].
pub fn attributes(text: &str) -> Result<Vec<(String, Option<String>)>, CsvError> {
    Ok(fields(text)?
        .into_iter()
        .map(|field| match field.split_once('=') {
            Some((key, value)) => (key.trim().to_lowercase(), Some(value.to_owned())),
            None => (field, None),
        })
        .collect())
}

/// A field and what follows its comma, if there is one.
type Field<'a> = (String, Option<&'a str>);

fn quoted_field(mut rest: &str) -> Result<Field<'_>, CsvError> {
    let mut field = String::new();
    loop {
        let (text, tail) = rest.split_once('"').ok_or(CsvError::Quote)?;
        field.push_str(text);
        match tail.as_bytes().first() {
            None => return Ok((field, None)),
            Some(b',') => return Ok((field, Some(&tail[1..]))),
            Some(b'"') => {
                field.push('"');
                rest = &tail[1..];
            }
            Some(_) => return Err(CsvError::Quote),
        }
    }
}

fn bare_field(rest: &str) -> Result<Field<'_>, CsvError> {
    let (field, tail) = match rest.split_once(',') {
        Some((field, tail)) => (field, Some(tail)),
        None => (rest, None),
    };
    if field.contains('"') {
        return Err(CsvError::BareQuote);
    }
    if field.contains('\n') {
        return Err(CsvError::Lines);
    }
    Ok((field.to_owned(), tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        for (text, expected) in [
            ("a", vec!["a"]),
            ("a,b", vec!["a", "b"]),
            ("a,", vec!["a", ""]),
            (",", vec!["", ""]),
            ("type=local,dest=out", vec!["type=local", "dest=out"]),
            ("type=image,\"name=a,b\"", vec!["type=image", "name=a,b"]),
            ("\"a\"\"b\"", vec!["a\"b"]),
            ("\"\",x", vec!["", "x"]),
            (" a , b ", vec![" a ", " b "]),
            ("a\r\n", vec!["a"]),
            ("\"two\nlines\"", vec!["two\nlines"]),
        ] {
            assert_eq!(fields(text).unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_not_a_record() {
        for (text, error) in [
            ("", CsvError::Empty),
            ("\n", CsvError::Empty),
            ("a\"b", CsvError::BareQuote),
            ("x,a\"b\"", CsvError::BareQuote),
            ("\"a", CsvError::Quote),
            ("\"a\"b", CsvError::Quote),
            ("a\nb", CsvError::Lines),
        ] {
            assert_eq!(fields(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn keys_are_lower_cased_and_values_are_not() {
        assert_eq!(
            attributes("TYPE=Local, Dest=/A=B,flag").unwrap(),
            vec![
                ("type".to_owned(), Some("Local".to_owned())),
                ("dest".to_owned(), Some("/A=B".to_owned())),
                ("flag".to_owned(), None),
            ]
        );
    }
}
