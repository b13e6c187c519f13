//! One joined line to a keyword, flags and arguments, by the keyword's own form.

use crate::error::ParseErrorKind;
use crate::json::{self, NotStrings};
use crate::parser::{Arguments, Node, words};

/// Reads one instruction. An unknown keyword gets no arguments; what it is is judged later.
pub(super) fn parse_line(line: &str, escape: char) -> Result<Node, ParseErrorKind> {
    let (keyword, flags, rest) = split(line, escape);
    let arguments = match keyword.to_ascii_lowercase().as_str() {
        "onbuild" => onbuild(rest, escape)?,
        other => arguments(other, rest, escape)?,
    };
    Ok(Node {
        keyword: keyword.to_owned(),
        flags,
        arguments,
        ..Node::default()
    })
}

fn split(line: &str, escape: char) -> (&str, Vec<String>, &str) {
    let (keyword, rest) = words::split_first(line.trim());
    let (flags, rest) = words::flags(rest.unwrap_or_default(), escape);
    (keyword, flags, rest.trim())
}

/// ONBUILD holds another instruction, which cannot be an ONBUILD: nesting ends here, so a line of 10,000 of them
/// costs no stack. What stands behind the last of them has to have a form all the same.
fn onbuild(rest: &str, escape: char) -> Result<Arguments, ParseErrorKind> {
    if rest.is_empty() {
        return Ok(Arguments::default());
    }
    let (keyword, flags, rest) = split(rest, escape);
    let arguments = arguments(&keyword.to_ascii_lowercase(), rest, escape)?;
    innermost(keyword, rest, escape)?;
    let nested = Node {
        keyword: keyword.to_owned(),
        flags,
        arguments,
        ..Node::default()
    };
    Ok(Arguments::Nested(Box::new(nested)))
}

/// Refuses what has no form behind further ONBUILDs.
fn innermost<'a>(mut keyword: &'a str, mut rest: &'a str, escape: char) -> Result<(), ParseErrorKind> {
    while keyword.eq_ignore_ascii_case("onbuild") && !rest.is_empty() {
        (keyword, _, rest) = split(rest, escape);
        arguments(&keyword.to_ascii_lowercase(), rest, escape)?;
    }
    Ok(())
}

fn arguments(keyword: &str, rest: &str, escape: char) -> Result<Arguments, ParseErrorKind> {
    Ok(match keyword {
        "add" | "copy" | "volume" => match json::string_array(rest) {
            Ok(list) => Arguments::Json(list),
            Err(NotStrings::OtherValues) => return Err(ParseErrorKind::NotStringArray),
            Err(NotStrings::NotArray) => Arguments::Words(words::split_all(rest)),
        },
        "cmd" | "entrypoint" | "run" | "shell" => maybe_json(rest)?,
        "arg" => Arguments::Words(words::words(rest, escape)),
        "env" => pairs("ENV", rest, escape)?,
        "label" => pairs("LABEL", rest, escape)?,
        "expose" | "from" => Arguments::Words(words::split_all(rest)),
        "maintainer" | "stopsignal" | "user" | "workdir" => whole(rest),
        "healthcheck" => {
            // BuildKit looks for blanks byte by byte here, and finds those of ASCII.
            let end = rest.find(words::BLANKS).unwrap_or(rest.len());
            let (kind, command) = rest.split_at(end);
            if kind.is_empty() {
                Arguments::default()
            } else {
                Arguments::Healthcheck(
                    kind.to_owned(),
                    Box::new(maybe_json(command.trim_start_matches(words::BLANKS))?),
                )
            }
        }
        _ => Arguments::default(),
    })
}

fn whole(rest: &str) -> Arguments {
    Arguments::Words(if rest.is_empty() {
        Vec::new()
    } else {
        vec![rest.to_owned()]
    })
}

fn maybe_json(rest: &str) -> Result<Arguments, ParseErrorKind> {
    match json::string_array(rest) {
        Ok(list) => Ok(Arguments::Json(list)),
        Err(NotStrings::OtherValues) => Err(ParseErrorKind::NotStringArray),
        Err(NotStrings::NotArray) => Ok(whole(rest)),
    }
}

/// `name=value …`, or the old `name value`, told apart by the first word.
fn pairs(instruction: &'static str, rest: &str, escape: char) -> Result<Arguments, ParseErrorKind> {
    let words = words::words(rest, escape);
    let Some(first) = words.first() else {
        return Ok(Arguments::Pairs(Vec::new()));
    };
    if !first.contains('=') {
        let (name, Some(value)) = words::split_first(rest) else {
            return Err(ParseErrorKind::TwoArgumentsNeeded { instruction });
        };
        return Ok(Arguments::Pairs(vec![(name.to_owned(), value.to_owned(), true)]));
    }
    let pair = |word: &String| match word.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned(), false)),
        None => Err(ParseErrorKind::NoEqualsSign { word: word.clone() }),
    };
    words
        .iter()
        .map(pair)
        .collect::<Result<_, _>>()
        .map(Arguments::Pairs)
}
