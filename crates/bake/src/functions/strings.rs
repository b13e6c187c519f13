//! Functions of texts.

use super::{Args, Function, MOST, Outcome, format};
use crate::value::{Type, Value, convert};

pub(super) const FUNCTIONS: &[Function] = &[
    ("basename", |args| Ok(Value::String(base(&args.text(0)?)))),
    ("byteslen", |args| Ok(Value::integer(args.text(0)?.len() as i64))),
    ("chomp", |args| {
        Ok(Value::string(args.text(0)?.trim_end_matches(['\r', '\n'])))
    }),
    ("dirname", |args| Ok(Value::String(dir(&args.text(0)?)))),
    ("format", |args| {
        let text = args.text(0)?;
        format::format(&text, &args.values[1..]).map(Value::String)
    }),
    ("formatlist", formatlist),
    ("indent", indent),
    ("join", join),
    ("lower", |args| Ok(Value::String(args.text(0)?.to_lowercase()))),
    ("replace", replace),
    ("reverse", |args| {
        Ok(Value::String(args.text(0)?.chars().rev().collect()))
    }),
    ("sanitize", |args| {
        let kept = |next: char| next.is_ascii_alphanumeric() || matches!(next, '_' | '-');
        let text = args.text(0)?;
        Ok(Value::String(
            text.chars()
                .map(|next| if kept(next) { next } else { '_' })
                .collect(),
        ))
    }),
    ("split", |args| {
        let (by, text) = (args.text(0)?, args.text(1)?);
        let parts: Vec<String> = if text.is_empty() {
            vec![String::new()]
        } else if by.is_empty() {
            text.chars().map(String::from).collect()
        } else {
            text.split(by.as_str()).map(str::to_owned).collect()
        };
        Ok(Value::strings(parts))
    }),
    ("strlen", |args| {
        Ok(Value::integer(args.text(0)?.chars().count() as i64))
    }),
    ("substr", substr),
    ("title", title),
    ("trim", |args| {
        let (text, cut) = (args.text(0)?, args.text(1)?);
        Ok(Value::string(text.trim_matches(|next| cut.contains(next))))
    }),
    ("trimprefix", |args| {
        let (text, prefix) = (args.text(0)?, args.text(1)?);
        Ok(Value::string(text.strip_prefix(prefix.as_str()).unwrap_or(&text)))
    }),
    ("trimspace", |args| Ok(Value::string(args.text(0)?.trim()))),
    ("trimsuffix", |args| {
        let (text, suffix) = (args.text(0)?, args.text(1)?);
        Ok(Value::string(text.strip_suffix(suffix.as_str()).unwrap_or(&text)))
    }),
    ("upper", |args| Ok(Value::String(args.text(0)?.to_uppercase()))),
];

/// The last part of a path, as Go's `path.Base`.
fn base(path: &str) -> String {
    if path.is_empty() {
        return ".".to_owned();
    }
    match path.trim_end_matches('/') {
        "" => "/".to_owned(),
        path => path.rsplit('/').next().unwrap_or(path).to_owned(),
    }
}

/// All but the last part of a path, as Go's `path.Dir`.
fn dir(path: &str) -> String {
    path.rfind('/')
        .map_or_else(|| ".".to_owned(), |at| crate::paths::clean(&path[..=at]))
}

fn formatlist(args: &Args<'_>) -> Outcome {
    let text = args.text(0)?;
    let given = &args.values[1..];
    let lengths = given.iter().filter_map(Value::elements).map(Vec::len);
    let Some(length) = lengths.clone().max() else {
        return format::format(&text, given).map(|one| Value::strings([one]));
    };
    if lengths.clone().any(|other| other != length) {
        return Err("lists of different lengths cannot be formatted together".to_owned());
    }
    let lines = (0..length).map(|at| {
        let one = |value: &Value| {
            value
                .elements()
                .map_or_else(|| value.clone(), |values| values[at].clone())
        };
        format::format(&text, &given.iter().map(one).collect::<Vec<_>>())
    });
    Ok(Value::strings(lines.collect::<Result<Vec<_>, _>>()?))
}

fn indent(args: &Args<'_>) -> Outcome {
    let (spaces, text) = (args.integer(0)?, args.text(1)?);
    let spaces = usize::try_from(spaces).map_err(|_| "the number of spaces is negative".to_owned())?;
    if spaces.saturating_mul(text.matches('\n').count()) > MOST {
        return Err("the result is too large".to_owned());
    }
    Ok(Value::String(
        text.replace('\n', &format!("\n{}", " ".repeat(spaces))),
    ))
}

fn join(args: &Args<'_>) -> Outcome {
    let by = args.text(0)?;
    let mut parts = Vec::new();
    for at in 1..args.values.len() {
        parts.extend(args.texts(at)?);
    }
    if by.len().saturating_mul(parts.len()) > MOST {
        return Err("the result is too large".to_owned());
    }
    Ok(Value::String(parts.join(&by)))
}

fn replace(args: &Args<'_>) -> Outcome {
    let (text, from, to) = (args.text(0)?, args.text(1)?, args.text(2)?);
    if text.matches(from.as_str()).count().saturating_mul(to.len()) > MOST {
        return Err("the result is too large".to_owned());
    }
    Ok(Value::String(text.replace(&from, &to)))
}

fn substr(args: &Args<'_>) -> Outcome {
    let text: Vec<char> = args.text(0)?.chars().collect();
    let (offset, length) = (args.integer(1)?, args.integer(2)?);
    let start = if offset < 0 {
        text.len().saturating_sub(offset.unsigned_abs() as usize)
    } else {
        (offset as usize).min(text.len())
    };
    let rest = &text[start..];
    let length = usize::try_from(length).unwrap_or(rest.len()).min(rest.len());
    Ok(Value::String(rest[..length].iter().collect()))
}

fn title(args: &Args<'_>) -> Outcome {
    let mut was_letter = false;
    let mut titled = String::new();
    for next in args.text(0)?.chars() {
        if was_letter {
            titled.push(next);
        } else {
            titled.extend(next.to_uppercase());
        }
        was_letter = next.is_alphanumeric() || matches!(next, '_' | '\'');
    }
    Ok(Value::String(titled))
}

/// `value` as a text, for those that take anything.
pub(super) fn shown(value: &Value) -> String {
    match convert(value, &Type::String) {
        Ok(Value::String(text)) => text,
        Ok(_) => "null".to_owned(),
        Err(_) => value.to_json().to_string(),
    }
}
