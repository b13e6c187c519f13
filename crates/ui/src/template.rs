//! `--format` of `inspect` and `history`: the part of Go's `text/template` that Makefiles use, over JSON. Fields, `json`,
//! `join`, `index`, `len`, `upper`, `lower`, `println`, pipes, `if`, `range`, `end`, comparison with `eq` and `ne`. Anything
//! else is refused by name: a template that means something else than in docker would be worse than none.

mod eval;
mod parse;

use std::fmt::Write as _;

use serde_json::Value;

pub use eval::EvalError;
pub use parse::ParseError;

use parse::Node;

/// A template that was understood.
#[derive(Debug, Clone)]
pub struct Template {
    nodes: Vec<Node>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// [`ParseError`] for what Go would not read, and for what is not supported here.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Ok(Self {
            nodes: parse::parse(text)?,
        })
    }

    /// What it says of `data`, without a newline at the end.
    ///
    /// # Errors
    /// [`EvalError`].
    pub fn render(&self, data: &Value) -> Result<String, EvalError> {
        let mut out = String::new();
        eval::render(&self.nodes, data, &mut out)?;
        Ok(out)
    }
}

/// A value as Go's `fmt` prints the types it stands for.
fn print(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<no value>"),
        Value::String(text) => out.push_str(text),
        Value::Bool(_) | Value::Number(_) => {
            // Writing into a string cannot fail.
            let _infallible = write!(out, "{value}");
        }
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(' ');
                }
                print(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push_str("map[");
            let mut keys: Vec<&String> = fields.keys().collect();
            keys.sort();
            for (at, key) in keys.into_iter().enumerate() {
                if at > 0 {
                    out.push(' ');
                }
                out.push_str(key);
                out.push(':');
                print(&fields[key], out);
            }
            out.push(']');
        }
    }
}

#[cfg(test)]
mod tests;
