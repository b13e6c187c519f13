//! The functions of templates: Go's, and those that docker adds.

use std::cmp::Ordering;

use serde_json::Value;

use super::eval::EvalError;
use super::{print, printf};

/// A function by what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    And,
    Or,
    Not,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Index,
    Len,
    Slice,
    Print,
    Printf,
    Println,
    Json,
    Join,
    Split,
    Upper,
    Lower,
    Title,
    Pad,
    Truncate,
}

const ALL: [(&str, Function); 23] = [
    ("and", Function::And),
    ("or", Function::Or),
    ("not", Function::Not),
    ("eq", Function::Eq),
    ("ne", Function::Ne),
    ("lt", Function::Lt),
    ("le", Function::Le),
    ("gt", Function::Gt),
    ("ge", Function::Ge),
    ("index", Function::Index),
    ("len", Function::Len),
    ("slice", Function::Slice),
    ("print", Function::Print),
    ("printf", Function::Printf),
    ("println", Function::Println),
    ("json", Function::Json),
    ("join", Function::Join),
    ("split", Function::Split),
    ("upper", Function::Upper),
    ("lower", Function::Lower),
    ("title", Function::Title),
    ("pad", Function::Pad),
    ("truncate", Function::Truncate),
];

impl Function {
    pub(super) fn of(name: &str) -> Option<Self> {
        ALL.into_iter()
            .find(|(known, _)| *known == name)
            .map(|(_, function)| function)
    }

    pub(super) fn name(self) -> &'static str {
        let mut all = ALL.into_iter();
        all.find(|(_, function)| *function == self)
            .map_or("", |(name, _)| name)
    }

    /// All names, for a message.
    pub(super) fn names() -> String {
        ALL.map(|(name, _)| name).join(", ")
    }

    /// Whether docker leaves the titles of a table as they are where this is asked for.
    pub(super) const fn changes_values(self) -> bool {
        matches!(
            self,
            Self::Json | Self::Split | Self::Join | Self::Title | Self::Lower | Self::Upper | Self::Truncate
        )
    }
}

/// What `function` makes of `arguments`. `and` and `or` are not asked here: they do not look at all of theirs.
pub(super) fn apply(function: Function, arguments: &[Value]) -> Result<Value, EvalError> {
    let wrong = || EvalError::Arguments(function.name());
    let order = |is: fn(Ordering) -> bool| match arguments {
        [a, b] => compare(a, b).map(|order| is(order).into()).ok_or_else(wrong),
        _ => Err(wrong()),
    };
    let text = || match arguments {
        [Value::String(text)] => Ok(text.as_str()),
        _ => Err(wrong()),
    };
    Ok(match (function, arguments) {
        (Function::Json, [value]) => value.to_string().into(),
        (Function::Upper, _) => text()?.to_uppercase().into(),
        (Function::Lower, _) => text()?.to_lowercase().into(),
        (Function::Title, _) => title(text()?).into(),
        (Function::Not, [value]) => (!is_true(value)).into(),
        (Function::Len, [value]) => match value {
            Value::String(text) => text.len().into(),
            Value::Array(items) => items.len().into(),
            Value::Object(fields) => fields.len().into(),
            Value::Null => 0.into(),
            _ => return Err(wrong()),
        },
        (Function::Join, [Value::Null, Value::String(_)]) => String::new().into(),
        (Function::Join, [Value::Array(items), Value::String(between)]) => {
            let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
            texts.ok_or_else(wrong)?.join(between).into()
        }
        (Function::Split, [Value::String(text), Value::String(between)]) if between.is_empty() => {
            text.chars().map(String::from).collect::<Vec<String>>().into()
        }
        (Function::Split, [Value::String(text), Value::String(between)]) => text
            .split(between.as_str())
            .map(str::to_owned)
            .collect::<Vec<String>>()
            .into(),
        (Function::Pad, [Value::String(text), before, after]) => {
            let spaces = |value: &Value| match value.as_u64() {
                Some(count) if count <= printf::WIDTH_MAX => {
                    Ok(" ".repeat(usize::try_from(count).unwrap_or(0)))
                }
                _ => Err(wrong()),
            };
            // Docker pads nothing around nothing.
            if text.is_empty() {
                String::new().into()
            } else {
                format!("{}{text}{}", spaces(before)?, spaces(after)?).into()
            }
        }
        (Function::Truncate, [Value::String(text), most]) => {
            let most = most.as_u64().ok_or_else(wrong)?;
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            text.chars().take(most).collect::<String>().into()
        }
        (Function::Index, _) => index(arguments)?,
        (Function::Slice, [value, bounds @ ..]) if bounds.len() <= 2 => slice(value, bounds)?,
        (Function::Print, _) => printf::side_by_side(arguments, false).into(),
        (Function::Println, _) => printf::side_by_side(arguments, true).into(),
        (Function::Printf, [Value::String(format), values @ ..]) => printf::printf(format, values)?.into(),
        (Function::Eq, [first, others @ ..]) if !others.is_empty() => {
            others.iter().any(|other| is_same(first, other)).into()
        }
        (Function::Ne, [a, b]) => (!is_same(a, b)).into(),
        (Function::Lt, _) => order(Ordering::is_lt)?,
        (Function::Le, _) => order(Ordering::is_le)?,
        (Function::Gt, _) => order(Ordering::is_gt)?,
        (Function::Ge, _) => order(Ordering::is_ge)?,
        _ => return Err(wrong()),
    })
}

/// Numbers are the same whatever their kind.
fn is_same(a: &Value, b: &Value) -> bool {
    a == b || compare(a, b) == Some(Ordering::Equal)
}

fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
        },
        _ => None,
    }
}

/// Every word with a large first letter.
fn title(text: &str) -> String {
    let mut is_inside = false;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if is_inside => out.push(c),
            c => out.extend(c.to_uppercase()),
        }
        is_inside = c.is_alphanumeric() || c == '_' || c == '\'';
    }
    out
}

fn index(arguments: &[Value]) -> Result<Value, EvalError> {
    let (value, keys) = arguments.split_first().ok_or(EvalError::Arguments("index"))?;
    let mut value = value.clone();
    for key in keys {
        value = match (&value, key) {
            // The maps of an image hold texts, and Go gives the empty one for a key that is not there.
            (Value::Object(fields), Value::String(key)) => {
                fields.get(key).cloned().unwrap_or_else(|| String::new().into())
            }
            (Value::Null, Value::String(_)) => String::new().into(),
            (Value::Array(items), Value::Number(number)) => {
                let at = number.as_i64().unwrap_or(-1);
                let item = usize::try_from(at).ok().and_then(|at| items.get(at));
                item.cloned().ok_or(EvalError::Range(at))?
            }
            (Value::Null, Value::Number(number)) => {
                return Err(EvalError::Range(number.as_i64().unwrap_or(-1)));
            }
            _ => return Err(EvalError::Arguments("index")),
        };
    }
    Ok(value)
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value, EvalError> {
    let length = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.len(),
        _ => return Err(EvalError::Arguments("slice")),
    };
    let bound = |at: usize, otherwise: usize| match bounds.get(at) {
        None => Ok(otherwise),
        Some(bound) => {
            let number = bound.as_i64().ok_or(EvalError::Arguments("slice"))?;
            let inside = usize::try_from(number).ok().filter(|at| *at <= length);
            inside.ok_or(EvalError::Range(number))
        }
    };
    let (from, to) = (bound(0, 0)?, bound(1, length)?);
    match value {
        // Go cuts bytes; a character that would be cut is not shown in halves.
        Value::String(text) => text.get(from..to).map(|part| part.to_owned().into()),
        Value::Array(items) => items.get(from..to).map(|part| part.to_vec().into()),
        _ => None,
    }
    .ok_or(EvalError::Arguments("slice"))
}

/// Whether an `if` takes it for true: not empty, not zero.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// A value as text.
pub(super) fn text_of(value: &Value) -> String {
    let mut out = String::new();
    print(value, &mut out);
    out
}
