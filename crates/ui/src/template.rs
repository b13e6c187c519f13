//! `--format`: Go's `text/template` with docker's functions, over JSON. Owns what a template means for data that has docker's
//! fields. Templates inside templates (`define`, `block`, `template`) and the functions `call`, `html`, `js` and `urlquery`
//! are refused by name: a template that means something else than in docker would be worse than none.

mod eval;
mod functions;
mod lex;
mod parse;
mod printf;

use std::fmt::Write as _;

use serde_json::Value;

pub use eval::EvalError;
pub use parse::ParseError;

use eval::{Fields, Scope};
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

    /// What it says of `data`, which has every field there is: another one is an error, as in docker. No newline at the end.
    ///
    /// # Errors
    /// [`EvalError`].
    pub fn render(&self, data: &Value) -> Result<String, EvalError> {
        Scope::new(data, Fields::Known).render(&self.nodes)
    }

    /// The same of a document that a registry has, which leaves empty fields out: those that are not there have no value.
    /// `json` is buildx's.
    ///
    /// # Errors
    /// [`EvalError`].
    pub fn render_document(&self, data: &Value) -> Result<String, EvalError> {
        Scope::new(data, Fields::Open).render(&self.nodes)
    }

    /// The header of a table whose rows are made by [`Template::render`]: `titles` stand for the fields, and what
    /// would change a value leaves them as they are.
    ///
    /// # Errors
    /// [`EvalError`].
    pub fn render_header(&self, titles: &Value) -> Result<String, EvalError> {
        Scope::new(titles, Fields::Titles).render(&self.nodes)
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
                print_inside(item, out);
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
                print_inside(&fields[key], out);
            }
            out.push(']');
        }
    }
}

/// The same inside of another value: what is empty there is a set's member or nothing.
fn print_inside(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) if fields.is_empty() => out.push_str("{}"),
        Value::Null => out.push_str("<nil>"),
        other => print(other, out),
    }
}

#[cfg(test)]
mod tests;
