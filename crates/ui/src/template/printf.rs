//! Go's `fmt` for the values that JSON has: `%s`, `%v`, `%q`, `%d`, `%x`, `%t`, `%f`, with flags, width and precision.

use serde_json::Value;

use super::eval::EvalError;
use super::functions::text_of;

/// Characters that a value is padded to at most.
pub(super) const WIDTH_MAX: u64 = 10_000;

/// `print` and `println`. The first puts a space between two values of which neither is a text, the second between all.
pub(super) fn side_by_side(values: &[Value], is_line: bool) -> String {
    let mut out = String::new();
    for (at, value) in values.iter().enumerate() {
        let is_apart = |before: &Value| is_line || !before.is_string() && !value.is_string();
        if at
            .checked_sub(1)
            .and_then(|at| values.get(at))
            .is_some_and(is_apart)
        {
            out.push(' ');
        }
        out.push_str(&text_of(value));
    }
    if is_line {
        out.push('\n');
    }
    out
}

/// `%-10.3s`
#[derive(Default)]
struct Verb {
    is_left: bool,
    is_zeroed: bool,
    is_signed: bool,
    width: usize,
    precision: Option<usize>,
}

impl Verb {
    /// What stands between `%` and the letter.
    fn parse(text: &str) -> Option<Self> {
        let mut verb = Self::default();
        let numbers = text.trim_start_matches(['-', '+', '0', '#', ' ']);
        for flag in text[..text.len() - numbers.len()].chars() {
            match flag {
                '-' => verb.is_left = true,
                '0' => verb.is_zeroed = true,
                '+' => verb.is_signed = true,
                _ => return None,
            }
        }
        let number = |text: &str| match text.parse::<u64>() {
            _ if text.is_empty() => Some(0),
            Ok(number) if number <= WIDTH_MAX => usize::try_from(number).ok(),
            _ => None,
        };
        let (width, precision) = match numbers.split_once('.') {
            Some((width, precision)) => (width, Some(number(precision)?)),
            None => (numbers, None),
        };
        verb.width = number(width)?;
        verb.precision = precision;
        Some(verb)
    }

    fn pad(&self, text: &str, is_number: bool, out: &mut String) {
        let missing = self.width.saturating_sub(text.chars().count());
        if self.is_left {
            out.push_str(text);
            out.push_str(&" ".repeat(missing));
        } else if self.is_zeroed && is_number {
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+'])));
            out.push_str(sign);
            out.push_str(&"0".repeat(missing));
            out.push_str(digits);
        } else {
            out.push_str(&" ".repeat(missing));
            out.push_str(text);
        }
    }
}

/// `printf`. A verb that does not fit its value is shown as Go shows it.
pub(super) fn printf(format: &str, values: &[Value]) -> Result<String, EvalError> {
    let mut out = String::new();
    let mut values = values.iter();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let at = after
            .find(|c: char| !matches!(c, '-' | '+' | '#' | ' ' | '.' | '0'..='9'))
            .ok_or(EvalError::Arguments("printf"))?;
        let letter = after[at..].chars().next().unwrap_or('%');
        rest = &after[at + letter.len_utf8()..];
        let verb = Verb::parse(&after[..at]).ok_or(EvalError::Arguments("printf"))?;
        if letter == '%' {
            out.push('%');
            continue;
        }
        match values.next() {
            None => out.push_str(&format!("%!{letter}(MISSING)")),
            Some(value) => match shown(&verb, letter, value) {
                Some(text) => verb.pad(&text, value.is_number(), &mut out),
                None => out.push_str(&format!("%!{letter}({})", text_of(value))),
            },
        }
    }
    out.push_str(rest);
    let extra: Vec<String> = values.map(text_of).collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    Ok(out)
}

fn shown(verb: &Verb, letter: char, value: &Value) -> Option<String> {
    let cut = |text: &str| match verb.precision {
        Some(most) => text.chars().take(most).collect(),
        None => text.to_owned(),
    };
    let signed = |number: i128| match verb.is_signed && number >= 0 {
        true => format!("+{number}"),
        false => number.to_string(),
    };
    let whole = |value: &Value| match value.as_i64() {
        Some(number) => Some(i128::from(number)),
        None => value.as_u64().map(i128::from),
    };
    match (letter, value) {
        ('v', Value::Number(_)) if whole(value).is_some() => whole(value).map(signed),
        ('s', Value::Number(_) | Value::Bool(_)) => None,
        ('v' | 's', value) => Some(cut(&text_of(value))),
        ('q', Value::String(text)) => Some(Value::from(cut(text)).to_string()),
        ('d', Value::Number(_)) => whole(value).map(signed),
        ('x', Value::Number(_)) => whole(value).map(|number| format!("{number:x}")),
        ('x', Value::String(text)) => Some(text.bytes().map(|byte| format!("{byte:02x}")).collect()),
        ('t', Value::Bool(truth)) => Some(truth.to_string()),
        ('f', Value::Number(number)) => {
            let places = verb.precision.unwrap_or(6);
            number.as_f64().map(|number| format!("{number:.places$}"))
        }
        _ => None,
    }
}
