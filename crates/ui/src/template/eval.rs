//! Nodes and data to text.

use serde_json::Value;

use super::parse::{Call, Function, Node, Term};
use super::print;

/// Text that a template may make of one image.
const OUTPUT_MAX: usize = 16 << 20;

/// Why a template does not fit the data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// A field of something that has none.
    #[error("template: can't evaluate field {0}: the value has no fields")]
    Field(String),
    /// Too few or too many, or of a kind that the function does not take.
    #[error("template: wrong arguments for {0}")]
    Arguments(&'static str),
    /// An index beyond the end.
    #[error("template: index out of range: {0}")]
    Range(i64),
    /// More than a template has to say.
    #[error("template: more than {OUTPUT_MAX} bytes")]
    Long,
}

pub(super) fn render(nodes: &[Node], data: &Value, out: &mut String) -> Result<(), EvalError> {
    block(nodes, data, data, out)
}

fn block(nodes: &[Node], whole: &Value, here: &Value, out: &mut String) -> Result<(), EvalError> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(calls) => print(&pipeline(calls, whole, here)?, out),
            Node::If {
                test,
                then,
                otherwise,
            } => {
                let branch = if is_true(&pipeline(test, whole, here)?) {
                    then
                } else {
                    otherwise
                };
                block(branch, whole, here, out)?;
            }
            Node::Range { over, body, empty } => {
                let items = match pipeline(over, whole, here)? {
                    Value::Array(items) => items,
                    // Go ranges over the values of a map in the order of its keys.
                    Value::Object(fields) => {
                        let mut fields: Vec<(String, Value)> = fields.into_iter().collect();
                        fields.sort_by(|a, b| a.0.cmp(&b.0));
                        fields.into_iter().map(|(_, value)| value).collect()
                    }
                    Value::Null => Vec::new(),
                    _ => return Err(EvalError::Arguments("range")),
                };
                if items.is_empty() {
                    block(empty, whole, here, out)?;
                }
                for item in &items {
                    block(body, whole, item, out)?;
                }
            }
        }
        if out.len() > OUTPUT_MAX {
            return Err(EvalError::Long);
        }
    }
    Ok(())
}

fn pipeline(calls: &[Call], whole: &Value, here: &Value) -> Result<Value, EvalError> {
    let mut last: Option<Value> = None;
    for call in calls {
        let arguments = call.arguments.iter().map(|argument| term(argument, whole, here));
        let mut arguments: Vec<Value> = arguments.collect::<Result<_, _>>()?;
        // What came through the pipe is the last argument.
        arguments.extend(last.take());
        last = Some(match call.function {
            Some(function) => apply(function, &arguments)?,
            None => one(&arguments, "a value")?.clone(),
        });
    }
    Ok(last.unwrap_or(Value::Null))
}

fn term(term: &Term, whole: &Value, here: &Value) -> Result<Value, EvalError> {
    match term {
        Term::Text(text) => Ok(text.clone().into()),
        Term::Number(number) => Ok((*number).into()),
        Term::Pipe(calls) => pipeline(calls, whole, here),
        Term::Path {
            whole: from_whole,
            keys,
        } => {
            let mut value = if *from_whole { whole } else { here };
            for key in keys {
                value = match value {
                    Value::Object(fields) => field(fields, key),
                    Value::Null => &Value::Null,
                    _ => return Err(EvalError::Field(key.clone())),
                };
            }
            Ok(value.clone())
        }
    }
}

/// A field by its name. Templates know those of OCI's documents by their names in Go, which JSON has in lower case;
/// nothing else has them, so maps of the user are looked up as they are.
fn field<'a>(fields: &'a serde_json::Map<String, Value>, key: &str) -> &'a Value {
    const OF_DOCUMENTS: [&str; 3] = ["mediaType", "schemaVersion", "architecture"];
    let is_document = || OF_DOCUMENTS.iter().any(|name| fields.contains_key(*name));
    let found = fields.get(key).or_else(|| {
        let mut names = fields.iter().filter(|_| is_document());
        names
            .find(|(name, _)| name.eq_ignore_ascii_case(key))
            .map(|(_, value)| value)
    });
    found.unwrap_or(&Value::Null)
}

fn one<'a>(arguments: &'a [Value], name: &'static str) -> Result<&'a Value, EvalError> {
    match arguments {
        [argument] => Ok(argument),
        _ => Err(EvalError::Arguments(name)),
    }
}

fn text<'a>(arguments: &'a [Value], name: &'static str) -> Result<&'a str, EvalError> {
    one(arguments, name)?.as_str().ok_or(EvalError::Arguments(name))
}

fn apply(function: Function, arguments: &[Value]) -> Result<Value, EvalError> {
    Ok(match function {
        Function::Json => one(arguments, "json")?.to_string().into(),
        Function::Upper => text(arguments, "upper")?.to_uppercase().into(),
        Function::Lower => text(arguments, "lower")?.to_lowercase().into(),
        Function::Len => match one(arguments, "len")? {
            Value::String(text) => text.len().into(),
            Value::Array(items) => items.len().into(),
            Value::Object(fields) => fields.len().into(),
            Value::Null => 0.into(),
            _ => return Err(EvalError::Arguments("len")),
        },
        Function::Join => match arguments {
            [Value::Null, Value::String(_)] => String::new().into(),
            [Value::Array(items), Value::String(between)] => {
                let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
                texts.ok_or(EvalError::Arguments("join"))?.join(between).into()
            }
            _ => return Err(EvalError::Arguments("join")),
        },
        Function::Index => index(arguments)?,
        Function::Println => {
            let mut line = String::new();
            for (at, argument) in arguments.iter().enumerate() {
                if at > 0 {
                    line.push(' ');
                }
                print(argument, &mut line);
            }
            line.push('\n');
            line.into()
        }
        Function::Eq => match arguments {
            [first, others @ ..] if !others.is_empty() => others.contains(first).into(),
            _ => return Err(EvalError::Arguments("eq")),
        },
        Function::Ne => match arguments {
            [a, b] => (a != b).into(),
            _ => return Err(EvalError::Arguments("ne")),
        },
    })
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

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}
