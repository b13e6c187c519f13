//! Variables in compose files, and the `.env` file.

use std::collections::BTreeMap;

use super::room::Room;

/// Deepest nesting of defaults within defaults.
const DEPTH_MAX: usize = 20;
/// Longest text that comes of it.
const TEXT_MAX: usize = 1 << 20;

/// `text` with `$NAME`, `${NAME}` and `${NAME:-default}` replaced.
///
/// # Errors
/// What is wrong with one of them.
pub(super) fn expand(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    nested(text, variable, 0)
}

fn nested(text: &str, variable: &dyn Fn(&str) -> Option<String>, depth: usize) -> Result<String, String> {
    let invalid = || format!("invalid interpolation format for {text:?}");
    if depth > DEPTH_MAX {
        return Err(invalid());
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix('$') {
            out.push('$');
            rest = behind;
        } else if let Some(behind) = rest.strip_prefix('{') {
            let end = closing(behind).ok_or_else(invalid)?;
            out.push_str(&braced(&behind[..end], variable, depth)?);
            rest = &behind[end + 1..];
        } else {
            // `$(`, `$1` and a last `$` are no variables and stay, as compose has them.
            match name_end(rest) {
                0 => out.push('$'),
                end => out.push_str(&variable(&rest[..end]).unwrap_or_default()),
            }
            rest = &rest[name_end(rest)..];
        }
        if out.len() > TEXT_MAX {
            return Err(format!("what comes of {text:?} is too long"));
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Where the brace ends that `text` stands within.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0;
    for (at, next) in text.char_indices() {
        match next {
            '{' => open += 1,
            '}' if open == 0 => return Some(at),
            '}' => open -= 1,
            _ => {}
        }
    }
    None
}

fn name_end(text: &str) -> usize {
    let is_part = |next: char| next.is_ascii_alphanumeric() || next == '_';
    let end = text.find(|next| !is_part(next)).unwrap_or(text.len());
    if text.starts_with(|next: char| next.is_ascii_digit()) {
        0
    } else {
        end
    }
}

fn braced(text: &str, variable: &dyn Fn(&str) -> Option<String>, depth: usize) -> Result<String, String> {
    let (name, rest) = text.split_at(name_end(text));
    if name.is_empty() {
        return Err(format!("invalid interpolation format for \"${{{text}}}\""));
    }
    let value = variable(name);
    let (operator, other) = match rest.strip_prefix(':') {
        Some(rest) => (rest.chars().next().map(|next| (next, true)), rest),
        None => (rest.chars().next().map(|next| (next, false)), rest),
    };
    let Some((operator, counts_empty)) = operator else {
        return Ok(value.unwrap_or_default());
    };
    let other = other.strip_prefix(operator).unwrap_or(other);
    let filled = value.filter(|value| !(counts_empty && value.is_empty()));
    match (operator, filled) {
        ('-' | '?', Some(value)) => Ok(value),
        ('-', None) | ('+', Some(_)) => nested(other, variable, depth + 1),
        ('+', None) => Ok(String::new()),
        ('?', None) => {
            let told = nested(other, variable, depth + 1)?;
            let told = if told.is_empty() {
                told
            } else {
                format!(": {told}")
            };
            Err(format!("required variable {name} is missing a value{told}"))
        }
        _ => Err(format!("invalid interpolation format for \"${{{text}}}\"")),
    }
}

/// The variables of a `.env` file.
///
/// # Errors
/// A line that sets none, or more than there is room for.
pub(super) fn dotenv(
    text: &str,
    variable: &dyn Fn(&str) -> Option<String>,
    room: &Room,
) -> Result<BTreeMap<String, String>, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once(['=', ':']) else {
            continue;
        };
        let value = value.trim();
        let known = |name: &str| variable(name).or_else(|| found.get(name).cloned());
        let value = match value.strip_prefix('\'').and_then(|value| value.split_once('\'')) {
            Some((literal, _)) => literal.to_owned(),
            None => {
                let bare = match value.strip_prefix('"').and_then(|value| value.split_once('"')) {
                    Some((quoted, _)) => quoted.replace("\\n", "\n"),
                    None => value.split(" #").next().unwrap_or(value).trim().to_owned(),
                };
                expand(&bare, &known).map_err(|error| format!("line {}: {error}", at + 1))?
            }
        };
        let weight = line.len() + value.len();
        room.take(weight)
            .map_err(|error| format!("line {}: {error}", at + 1))?;
        found.insert(name.trim().to_owned(), value);
    }
    Ok(found)
}
