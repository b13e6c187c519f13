//! HCL's native syntax: <https://github.com/hashicorp/hcl/blob/main/hclsyntax/spec.md>. One pass over the text, without
//! tokens in between; nesting is bounded, so that no file exhausts the stack.

mod collections;
mod operators;
mod strings;
mod terms;

use std::collections::HashMap;

use super::cursor::Cursor;
use super::{Attribute, Block, Body, Expr, Span};
use crate::error::Fault;

/// Reads a whole file.
///
/// # Errors
/// [`Fault`]: the first thing that is wrong.
pub(crate) fn parse(file: usize, text: &str) -> Result<Body, Fault> {
    let mut cursor = Cursor::new(file, text, (1, 1));
    let body = cursor.body(None)?;
    Ok(body)
}

/// Reads a text that is one expression and stands at `span`.
///
/// # Errors
/// [`Fault`].
pub(crate) fn expression(span: Span, text: &str) -> Result<Expr, Fault> {
    let mut cursor = Cursor::new(span.file, text, span.start);
    let read = cursor.expression()?;
    cursor.space()?;
    match cursor.peek() {
        None => Ok(read),
        Some(_) => Err(cursor.fault("Invalid expression", "Extra characters after the expression.")),
    }
}

impl<'a> Cursor<'a> {
    /// Attributes and blocks up to `end`, or to the end of the file.
    fn body(&mut self, end: Option<char>) -> Result<Body, Fault> {
        let mut body = Body::default();
        let mut seen = HashMap::new();
        loop {
            self.lines()?;
            match self.peek() {
                next if next == end => {
                    if end.is_some() {
                        self.skip(1);
                    }
                    return Ok(body);
                }
                None => {
                    let detail = "There is no closing brace for this block before the end of the file.";
                    return Err(self.fault("Unclosed configuration block", detail));
                }
                _ => {}
            }
            let Some((name, span)) = self.identifier() else {
                let detail = "An argument or block definition is required here.";
                return Err(self.fault("Argument or block definition required", detail));
            };
            self.space()?;
            if self.peek() == Some('=') && !self.rest().starts_with("==") {
                self.skip(1);
                let known = seen.insert(name.clone(), span);
                body.attributes.push(self.attribute(name, span, known)?);
            } else {
                let block = self.block(name, span)?;
                body.blocks.push(block);
            }
            self.end_of_item(end)?;
        }
    }

    fn attribute(&mut self, name: String, span: Span, known: Option<Span>) -> Result<Attribute, Fault> {
        let expr = self.expression()?;
        if let Some(known) = known {
            let (line, column) = known.start;
            let detail = format!(
                "The argument {name:?} was already set at line {line},{column}. Each argument may be set only once."
            );
            return Err(Fault::new(span, "Attribute redefined", detail));
        }
        Ok(Attribute { name, span, expr })
    }

    fn block(&mut self, kind: String, mut span: Span) -> Result<Block, Fault> {
        let mut labels = Vec::new();
        loop {
            self.space()?;
            let start = self.here();
            let label = if self.peek() == Some('"') {
                let read = self.quoted()?;
                let Some(text) = read.constant() else {
                    let detail = "Template sequences are not allowed in this string.";
                    return Err(Fault::new(read.span, "Invalid string literal", detail));
                };
                text.to_owned()
            } else if self.peek() == Some('{') {
                self.skip(1);
                break;
            } else if let Some((name, _)) = self.identifier() {
                name
            } else {
                let detail =
                    "Either a quoted string block label or an opening brace (\"{\") is expected here.";
                return Err(self.fault("Invalid block definition", detail));
            };
            if labels.is_empty() {
                span = start.to(self.here());
            }
            labels.push(label);
        }
        let body = self.newlines_matter(|cursor| {
            cursor.space()?;
            match cursor.peek() {
                None | Some('\n' | '}') => cursor.body(Some('}')),
                Some(_) => cursor.single(),
            }
        })?;
        Ok(Block {
            kind,
            labels,
            span,
            body,
        })
    }

    /// The one attribute of a block that begins in the line of its brace: it ends there too.
    fn single(&mut self) -> Result<Body, Fault> {
        let Some((name, span)) = self.identifier() else {
            let detail = "An argument or block definition is required here.";
            return Err(self.fault("Argument or block definition required", detail));
        };
        self.space()?;
        let told = "Invalid single-argument block definition";
        if self.peek() != Some('=') || self.rest().starts_with("==") {
            let detail = "A block in one line can have a single argument, and no block.";
            return Err(self.fault(told, detail));
        }
        self.skip(1);
        let attribute = self.attribute(name, span, None)?;
        self.space()?;
        if !self.takes("}") {
            let detail = "An argument in the line of its block's opening brace has to be followed by the closing brace in that line.";
            return Err(self.fault(told, detail));
        }
        Ok(Body {
            attributes: vec![attribute],
            ..Body::default()
        })
    }

    fn end_of_item(&mut self, end: Option<char>) -> Result<(), Fault> {
        self.space()?;
        match self.peek() {
            None | Some('\n') => Ok(()),
            next if next == end => Ok(()),
            _ => Err(self.fault(
                "Missing newline after argument",
                "An argument definition must end with a newline.",
            )),
        }
    }
}
