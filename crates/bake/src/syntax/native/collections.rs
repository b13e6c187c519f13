//! Tuples and objects, and both made by `for`.

use super::super::cursor::Cursor;
use super::super::{Expr, For, Node};
use crate::error::Fault;
use crate::value::Value;

impl Cursor<'_> {
    /// Reads `for` and what follows, if that is what stands here.
    fn for_head(&mut self) -> Result<Option<(Option<String>, String, Expr)>, Fault> {
        let rest = self.rest();
        if !rest.starts_with("for") || !rest[3..].starts_with(char::is_whitespace) {
            return Ok(None);
        }
        self.skip(3);
        let head = self.for_names()?;
        self.space()?;
        if !self.takes(":") {
            return Err(self.fault(
                "Invalid 'for' expression",
                "For expression requires a colon after the 'in' clause.",
            ));
        }
        Ok(Some(head))
    }

    /// `KEY, VALUE in COLLECTION`.
    pub(in crate::syntax) fn for_names(&mut self) -> Result<(Option<String>, String, Expr), Fault> {
        let mut names = Vec::new();
        loop {
            self.space()?;
            let Some((name, _)) = self.identifier() else {
                return Err(self.fault(
                    "Invalid 'for' expression",
                    "For expression requires variable name after 'for'.",
                ));
            };
            names.push(name);
            self.space()?;
            if names.len() == 2 || !self.takes(",") {
                break;
            }
        }
        self.space()?;
        if self.identifier().is_none_or(|(word, _)| word != "in") {
            return Err(self.fault(
                "Invalid 'for' expression",
                "For expression requires the 'in' keyword after its name declarations.",
            ));
        }
        let collection = self.expression()?;
        let value = names.pop().unwrap_or_default();
        Ok((names.pop(), value, collection))
    }

    fn for_condition(&mut self, end: &str) -> Result<Option<Expr>, Fault> {
        self.space()?;
        let rest = self.rest();
        let condition =
            if rest.starts_with("if") && !rest[2..].starts_with(|next: char| next.is_alphanumeric()) {
                self.skip(2);
                Some(self.expression()?)
            } else {
                None
            };
        self.space()?;
        if self.takes(end) {
            return Ok(condition);
        }
        Err(self.fault(
            "Invalid 'for' expression",
            "Extra characters after the end of the 'for' expression.",
        ))
    }

    pub(super) fn tuple(&mut self) -> Result<Node, Fault> {
        self.skip(1);
        self.space()?;
        if let Some((key, value, collection)) = self.for_head()? {
            let result = self.expression()?;
            let condition = self.for_condition("]")?;
            return Ok(Node::For(Box::new(For {
                key,
                value,
                collection,
                key_result: None,
                result,
                condition,
                groups: false,
            })));
        }
        let mut elements = Vec::new();
        loop {
            self.space()?;
            if self.takes("]") {
                return Ok(Node::Tuple(elements));
            }
            elements.push(self.expression()?);
            self.space()?;
            if !self.takes(",") && self.peek() != Some(']') {
                return Err(self.fault(
                    "Missing item separator",
                    "Expected a comma to mark the beginning of the next item.",
                ));
            }
        }
    }

    pub(super) fn object(&mut self) -> Result<Node, Fault> {
        self.skip(1);
        self.space()?;
        if let Some((key, value, collection)) = self.for_head()? {
            let key_result = self.expression()?;
            self.space()?;
            if !self.takes("=>") {
                return Err(self.fault(
                    "Invalid 'for' expression",
                    "For expression for an object requires '=>' between key and value.",
                ));
            }
            let result = self.expression()?;
            self.space()?;
            let groups = self.takes("...");
            let condition = self.for_condition("}")?;
            return Ok(Node::For(Box::new(For {
                key,
                value,
                collection,
                key_result: Some(key_result),
                result,
                condition,
                groups,
            })));
        }
        let mut items = Vec::new();
        loop {
            self.space()?;
            if self.takes("}") {
                return Ok(Node::Object(items));
            }
            let is_bare = self
                .peek()
                .is_some_and(|next| next.is_alphabetic() || next == '_');
            let mut key = self.expression()?;
            let name = match &key.node {
                _ if !is_bare => None,
                Node::Variable(name) => Some(name.clone()),
                Node::Literal(Value::Bool(value)) => Some(value.to_string()),
                Node::Literal(Value::Null(_)) => Some("null".to_owned()),
                _ => None,
            };
            if let Some(name) = name {
                key.node = Node::Literal(Value::String(name));
            }
            self.space()?;
            if !self.takes("=") && !self.takes(":") {
                return Err(self.fault(
                    "Missing attribute value",
                    "Expected an attribute value, introduced by an equals sign (\"=\").",
                ));
            }
            // A line break ends an item as a comma does.
            let value = self.newlines_matter(|cursor| {
                let value = cursor.expression()?;
                cursor.space()?;
                Ok(value)
            })?;
            items.push((key, value));
            if !self.takes(",") && !matches!(self.peek(), Some('\n' | '}')) {
                return Err(self.fault(
                    "Missing attribute separator",
                    "Expected a newline or comma to mark the beginning of the next attribute.",
                ));
            }
        }
    }
}
