//! Fields of comma-separated values that are `key=value`. What a field is, [`rbuild_dockerfile::csv`] knows.

pub use rbuild_dockerfile::csv::{CsvError, field, fields};

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

#[cfg(test)]
mod tests {
    use super::*;

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
