//! Regular expressions, and versions.

use std::collections::BTreeMap;

use regex::{Captures, Regex, RegexBuilder};

use super::{Args, Function, MOST, semver};
use crate::value::{Type, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    ("regex", |args| {
        let (pattern, text) = (pattern(args, 0)?, args.text(1)?);
        let found = pattern.captures(&text);
        let found = found.ok_or_else(|| "pattern did not match any part of the given string".to_owned())?;
        Ok(captured(&pattern, &found))
    }),
    ("regex_replace", |args| {
        let (text, pattern, to) = (args.text(0)?, pattern(args, 1)?, args.text(2)?);
        let matches = pattern.find_iter(&text).count();
        if matches.saturating_mul(to.len().saturating_add(text.len())) > MOST {
            return Err("the result is too large".to_owned());
        }
        Ok(Value::string(pattern.replace_all(&text, to.as_str())))
    }),
    ("regexall", |args| {
        let (pattern, text) = (pattern(args, 0)?, args.text(1)?);
        let found: Vec<Value> = pattern
            .captures_iter(&text)
            .map(|found| captured(&pattern, &found))
            .collect();
        let of = found.first().map_or(Type::String, Value::type_of);
        Ok(Value::List(of, found))
    }),
    ("semvercmp", |args| {
        let (version, constraint) = (args.text(0)?, args.text(1)?);
        semver::satisfies(&version, &constraint).map(Value::Bool)
    }),
];

fn pattern(args: &Args<'_>, at: usize) -> Result<Regex, String> {
    let text = args.text(at)?;
    let mut builder = RegexBuilder::new(&text);
    let built = builder.size_limit(1 << 20).dfa_size_limit(1 << 20).build();
    built.map_err(|error| format!("invalid regexp pattern: {error}"))
}

/// The whole match, or its groups: by name, if they have names.
fn captured(pattern: &Regex, found: &Captures<'_>) -> Value {
    let group = |at: usize| {
        let group = found.get(at);
        group.map_or(Value::Null(Type::String), |group| Value::string(group.as_str()))
    };
    let names: BTreeMap<String, Value> = pattern
        .capture_names()
        .enumerate()
        .filter_map(|(at, name)| Some((name?.to_owned(), group(at))))
        .collect();
    if !names.is_empty() {
        return Value::Object(names);
    }
    match found.len() {
        1 => group(0),
        count => Value::Tuple((1..count).map(group).collect()),
    }
}
