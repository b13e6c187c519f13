//! `format`: a text with verbs, as cty's `format` reads them.

use super::MOST;
use super::strings::shown;
use crate::value::{Number, Type, Value, convert};

/// One verb.
#[derive(Debug, Default)]
struct Verb {
    left: bool,
    plus: bool,
    space: bool,
    zero: bool,
    alternate: bool,
    width: usize,
    precision: Option<usize>,
    kind: char,
}

/// `text` with its verbs replaced by `values`.
///
/// # Errors
/// What is wrong with the verbs, or does not fit them.
pub(super) fn format(text: &str, values: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    let mut next = 0;
    let mut highest = 0;
    while let Some(char) = chars.next() {
        if char != '%' {
            out.push(char);
            continue;
        }
        let mut verb = Verb::default();
        loop {
            match chars.peek() {
                Some('-') => verb.left = true,
                Some('+') => verb.plus = true,
                Some(' ') => verb.space = true,
                Some('0') => verb.zero = true,
                Some('#') => verb.alternate = true,
                _ => break,
            }
            chars.next();
        }
        let digits = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut text = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                text.push(digit);
            }
            text.parse::<usize>().unwrap_or(0)
        };
        verb.width = digits(&mut chars);
        if chars.next_if_eq(&'.').is_some() {
            verb.precision = Some(digits(&mut chars));
        }
        if chars.next_if_eq(&'[').is_some() {
            next = digits(&mut chars)
                .checked_sub(1)
                .ok_or("arguments are counted from 1")?;
            if chars.next() != Some(']') {
                return Err("unrecognized format sequence".to_owned());
            }
        }
        verb.kind = chars.next().ok_or("unterminated format sequence")?;
        if verb.kind == '%' {
            out.push('%');
            continue;
        }
        if verb.width.max(verb.precision.unwrap_or(0)) > MOST {
            return Err("the result is too large".to_owned());
        }
        let value = values
            .get(next)
            .ok_or_else(|| format!("not enough arguments for %{} at {next}", verb.kind))?;
        out.push_str(&padded(&verb, replaced(&verb, value)?));
        next += 1;
        highest = highest.max(next);
    }
    if highest < values.len() {
        return Err(format!(
            "too many arguments; only {highest} used by format string"
        ));
    }
    Ok(out)
}

fn replaced(verb: &Verb, value: &Value) -> Result<String, String> {
    let number = || match convert(value, &Type::Number)? {
        Value::Number(number) => Ok(number),
        _ => Err("argument must not be null".to_owned()),
    };
    let signed = |negative: bool, text: String| match (negative, verb.plus, verb.space) {
        (true, ..) => format!("-{text}"),
        (_, true, _) => format!("+{text}"),
        (_, _, true) => format!(" {text}"),
        _ => text,
    };
    let whole = || {
        let number = number()?.integer().ok_or("a whole number is required")?;
        Ok::<_, String>((number < 0, number.unsigned_abs()))
    };
    let prefix = |text: &'static str| if verb.alternate { text } else { "" };
    Ok(match verb.kind {
        'v' if verb.alternate => value.to_json().to_string(),
        'v' => match value {
            Value::Null(_) => "null".to_owned(),
            other => shown(other),
        },
        's' => {
            let Value::String(text) = convert(value, &Type::String)? else {
                return Err("argument must not be null".to_owned());
            };
            text.chars().take(verb.precision.unwrap_or(usize::MAX)).collect()
        }
        'q' => serde_json::Value::String(shown(value)).to_string(),
        't' => match convert(value, &Type::Bool)? {
            Value::Bool(value) => value.to_string(),
            _ => return Err("argument must not be null".to_owned()),
        },
        'd' => whole().map(|(negative, number)| signed(negative, number.to_string()))?,
        'b' => whole().map(|(negative, number)| signed(negative, format!("{number:b}")))?,
        'o' => whole().map(|(negative, number)| signed(negative, format!("{}{number:o}", prefix("0"))))?,
        'x' => whole().map(|(negative, number)| signed(negative, format!("{}{number:x}", prefix("0x"))))?,
        'X' => whole().map(|(negative, number)| signed(negative, format!("{}{number:X}", prefix("0X"))))?,
        'f' => {
            let number = number()?.get();
            signed(
                number < 0.0,
                format!("{:.*}", verb.precision.unwrap_or(6), number.abs()),
            )
        }
        'e' | 'E' => {
            let number = number()?.get();
            let text = format!("{:.*e}", verb.precision.unwrap_or(6), number.abs());
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let exponent: i32 = exponent.parse().unwrap_or(0);
            let sign = if exponent < 0 { '-' } else { '+' };
            signed(
                number < 0.0,
                format!("{digits}{}{sign}{:02}", verb.kind, exponent.abs()),
            )
        }
        'g' | 'G' => {
            let number = number()?.get();
            signed(
                number < 0.0,
                Number::new(number.abs())
                    .map(|n| n.to_string())
                    .unwrap_or_default(),
            )
        }
        other => return Err(format!("unsupported format verb '%{other}'")),
    })
}

fn padded(verb: &Verb, text: String) -> String {
    let missing = verb.width.saturating_sub(text.chars().count());
    if missing == 0 {
        return text;
    }
    if verb.left {
        return text + &" ".repeat(missing);
    }
    if verb.zero && !matches!(verb.kind, 's' | 'q' | 'v' | 't') {
        let (sign, digits) = match text.strip_prefix(['+', '-', ' ']) {
            Some(digits) => (&text[..1], digits),
            None => ("", text.as_str()),
        };
        return format!("{sign}{}{digits}", "0".repeat(missing));
    }
    " ".repeat(missing) + &text
}
