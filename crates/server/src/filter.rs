//! Filters as containerd writes them (`pkg/filters`): `field==value`, `!=`, `~=`, a bare field for its presence; commas
//! join what must all be true. Owns the grammar; refuses to know what has the fields.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};

/// Longest text of a filter.
const TEXT_BYTES_MAX: usize = 4096;
/// Most filters in one request.
const FILTERS_MAX: usize = 64;
/// Memory that the program of one pattern may take.
const PATTERN_BYTES_MAX: usize = 1 << 18;

/// A text that is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// It does not follow the grammar.
    #[error("filters: parse error: [{text}]: {what}")]
    Parse {
        /// The filter.
        text: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A value that is no regular expression, or one too large.
    #[error("filters: invalid pattern {0:?}")]
    Pattern(String),
    /// More or longer ones than are read.
    #[error("too many filters")]
    TooMany,
}

/// A filter: what must all be true.
#[derive(Debug, Clone, Default)]
pub struct Filter(Vec<Selector>);

#[derive(Debug, Clone)]
struct Selector {
    field: String,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl Filter {
    /// Reads a filter; the empty one is true of everything.
    ///
    /// # Errors
    /// [`FilterError`].
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(FilterError::TooMany);
        }
        let mut rest = text;
        let mut selectors = Vec::new();
        while !text.is_empty() {
            let fail = |what| FilterError::Parse {
                text: text.to_owned(),
                what,
            };
            let (selector, after) = selector(rest, &fail)?;
            selectors.push(selector);
            if after.is_empty() {
                break;
            }
            rest = after.strip_prefix(',').ok_or_else(|| fail("unexpected input"))?;
        }
        Ok(Self(selectors))
    }

    /// Whether it is true of what has these fields; a path is joined with dots.
    pub fn matches<'v>(&self, field: impl Fn(&str) -> Option<Cow<'v, str>>) -> bool {
        self.0.iter().all(|selector| {
            let value = field(&selector.field);
            match (&selector.test, value) {
                (Test::Present, value) => value.is_some(),
                (Test::Equal(wanted), value) => value.is_some_and(|value| value == *wanted),
                (Test::NotEqual(other), value) => value.is_none_or(|value| value != *other),
                (Test::Matches(pattern), value) => value.is_some_and(|value| pattern.is_match(&value)),
            }
        })
    }
}

/// Several filters, of which one has to be true; none at all are true of everything.
///
/// # Errors
/// [`FilterError`].
pub(crate) fn parse_all(texts: &[String]) -> Result<Vec<Filter>, FilterError> {
    if texts.len() > FILTERS_MAX {
        return Err(FilterError::TooMany);
    }
    texts.iter().map(|text| Filter::parse(text)).collect()
}

/// Whether one of the filters is true of what has these fields, or there is none.
pub fn any<'v>(filters: &[Filter], field: impl Fn(&str) -> Option<Cow<'v, str>>) -> bool {
    filters.is_empty() || filters.iter().any(|filter| filter.matches(&field))
}

fn selector<'t>(
    text: &'t str,
    fail: &impl Fn(&'static str) -> FilterError,
) -> Result<(Selector, &'t str), FilterError> {
    let (mut field, mut rest) = word(text, is_field)
        .ok_or_else(|| fail("expected field or quoted"))?
        .map_err(fail)?;
    while let Some(after) = rest.strip_prefix('.') {
        let (part, after) = word(after, is_field)
            .ok_or_else(|| fail("expected field or quoted"))?
            .map_err(fail)?;
        field = format!("{field}.{part}");
        rest = after;
    }
    if rest.is_empty() || rest.starts_with(',') {
        let test = Test::Present;
        return Ok((Selector { field, test }, rest));
    }
    let operator = rest
        .get(..2)
        .filter(|operator| ["==", "!=", "~="].contains(operator));
    let operator = operator.ok_or_else(|| fail(r#"expected an operator ("=="|"!="|"~=")"#))?;
    let (value, rest) = value(&rest[2..], operator == "~=")
        .ok_or_else(|| fail("expected value or quoted"))?
        .map_err(fail)?;
    let test = match operator {
        "==" => Test::Equal(value),
        "!=" => Test::NotEqual(value),
        _ => {
            let pattern = RegexBuilder::new(&value).size_limit(PATTERN_BYTES_MAX).build();
            Test::Matches(pattern.map_err(|_| FilterError::Pattern(value))?)
        }
    };
    Ok((Selector { field, test }, rest))
}

const fn is_field(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

type Word<'t> = Option<Result<(String, &'t str), &'static str>>;

/// A quoted text, or one of these characters; nothing if there is neither.
fn word(text: &str, is_part: impl Fn(char) -> bool) -> Word<'_> {
    if let Some(quote) = text.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        return Some(quoted(&text[1..], quote));
    }
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    (end > 0).then(|| Ok((text[..end].to_owned(), &text[end..])))
}

fn value(text: &str, is_pattern: bool) -> Word<'_> {
    // Patterns are full of quotes and backslashes: `/` and `|` quote them too.
    if let Some(quote) = text
        .chars()
        .next()
        .filter(|c| is_pattern && matches!(c, '/' | '|'))
    {
        return Some(quoted(&text[1..], quote));
    }
    word(text, |c| !c.is_whitespace() && c != ',')
}

/// What is before the closing quote; a backslash takes the next character as it is.
fn quoted(text: &str, quote: char) -> Result<(String, &str), &'static str> {
    let mut found = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            _ if character == quote => return Ok((found, &text[at + character.len_utf8()..])),
            '\\' => match characters.next() {
                Some((_, next)) if next == quote || next == '\\' => found.push(next),
                Some((_, 'n')) => found.push('\n'),
                Some((_, 't')) => found.push('\t'),
                // A pattern's own escapes.
                Some((_, next)) if matches!(quote, '/' | '|') => found.extend(['\\', next]),
                _ => return Err("invalid escape in quoted text"),
            },
            _ => found.push(character),
        }
    }
    Err("quoted literal not terminated")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(name: &str) -> Option<Cow<'static, str>> {
        match name {
            "id" => Some("abc".into()),
            "labels.a.b/c" => Some("x, y".into()),
            _ => None,
        }
    }

    #[test]
    fn filters_say_what_containerds_say() {
        for (text, expected) in [
            ("", true),
            ("id", true),
            ("name", false),
            ("id==abc", true),
            ("id==\"abc\"", true),
            ("id==ab", false),
            ("id!=ab", true),
            ("name!=ab", true),
            ("id~=^a.c$", true),
            ("id~=/^a\\w+$/", true),
            ("id~=x", false),
            ("id==abc,name!=x", true),
            ("id==abc,name", false),
            ("labels.a.\"b/c\"==\"x, y\"", true),
            ("labels.\"a\".'b/c'", true),
        ] {
            assert_eq!(Filter::parse(text).unwrap().matches(fields), expected, "{text}");
        }
        let several = parse_all(&["id==x".to_owned(), "id==abc".to_owned()]).unwrap();
        assert!(any(&several, fields) && any(&[], fields));
        assert!(!any(&several[..1], fields));
    }

    #[test]
    fn row48_malformed_and_costly_filters_are_refused() {
        for text in [
            "ref+foo",
            "=",
            "id==",
            "id==a b",
            "id==\"a",
            "id=a",
            ",",
            "id,",
            "a..b",
            "id==\"\\q\"",
        ] {
            let error = Filter::parse(text).unwrap_err();
            assert!(error.to_string().contains("parse error"), "{text}: {error}");
        }
        for text in ["id~=(", "id~=(a{1000}){1000}"] {
            assert!(
                matches!(Filter::parse(text), Err(FilterError::Pattern(_))),
                "{text}"
            );
        }
        assert!(matches!(
            Filter::parse(&"a".repeat(5000)),
            Err(FilterError::TooMany)
        ));
        let many = vec![String::new(); FILTERS_MAX + 1];
        assert!(matches!(parse_all(&many), Err(FilterError::TooMany)));
    }
}
