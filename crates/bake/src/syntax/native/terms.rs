//! Terms: numbers, names, calls, and what leads from a term into its value.

use super::super::cursor::Cursor;
use super::super::{DEPTH_MAX, Expr, Node, Step};
use crate::error::Fault;
use crate::value::{Number, Value};

impl Cursor<'_> {
    /// A term, and what leads from it into its value.
    pub(super) fn traversed(&mut self) -> Result<Expr, Fault> {
        let mut term = self.term()?;
        let mut steps = 0;
        loop {
            self.space()?;
            steps += 1;
            if steps > DEPTH_MAX {
                return Err(self.fault(
                    "Too much nesting",
                    format!("more than {DEPTH_MAX} steps in a row."),
                ));
            }
            let start = term.span;
            let node = if self.rest().starts_with("[*]") {
                self.skip(3);
                let steps = self.splat_steps(true)?;
                Node::Splat(Box::new(term), steps)
            } else if self.rest().starts_with(".*") {
                self.skip(2);
                let steps = self.splat_steps(false)?;
                Node::Splat(Box::new(term), steps)
            } else {
                match self.step(true)? {
                    None => return Ok(term),
                    Some(Step::Attribute(name)) => Node::Attribute(Box::new(term), name),
                    Some(Step::Index(index)) => Node::Index(Box::new(term), Box::new(index)),
                }
            };
            let span = start.to(self.here());
            term = Expr { span, node };
        }
    }

    fn splat_steps(&mut self, indexes: bool) -> Result<Vec<Step>, Fault> {
        let mut steps = Vec::new();
        while let Some(step) = self.step(indexes)? {
            steps.push(step);
        }
        Ok(steps)
    }

    fn step(&mut self, indexes: bool) -> Result<Option<Step>, Fault> {
        match self.peek() {
            Some('.') if !self.rest().starts_with("..") => {
                self.skip(1);
                self.space()?;
                let start = self.here();
                if let Some((name, _)) = self.identifier() {
                    return Ok(Some(Step::Attribute(name)));
                }
                let digits = self.digits();
                if digits.is_empty() {
                    let detail = "Expected an attribute name or an index behind the dot.";
                    return Err(self.fault("Invalid attribute name", detail));
                }
                let span = start.to(self.here());
                let node = Node::Literal(Value::number(&digits));
                Ok(Some(Step::Index(Expr { span, node })))
            }
            Some('[') if indexes => {
                self.skip(1);
                let index = self.bracketed(|cursor| {
                    let index = cursor.expression()?;
                    cursor.space()?;
                    Ok(index)
                })?;
                if !self.takes("]") {
                    let detail = "All other index brackets require a closing bracket here.";
                    return Err(self.fault("Missing close bracket on index", detail));
                }
                Ok(Some(Step::Index(index)))
            }
            _ => Ok(None),
        }
    }

    fn digits(&mut self) -> String {
        let digits: String = self.rest().chars().take_while(char::is_ascii_digit).collect();
        self.skip(digits.len());
        digits
    }

    fn term(&mut self) -> Result<Expr, Fault> {
        let start = self.here();
        let node = match self.peek() {
            Some('(') => {
                self.skip(1);
                let inner = self.bracketed(|cursor| {
                    let inner = cursor.expression()?;
                    cursor.space()?;
                    Ok(inner)
                })?;
                if !self.takes(")") {
                    return Err(self.fault("Unbalanced parentheses", "Expected a closing parenthesis."));
                }
                inner.node
            }
            Some('[') => self.bracketed(Self::tuple)?,
            Some('{') => self.bracketed(Self::object)?,
            Some('"') => return self.quoted(),
            Some('<') if self.rest().starts_with("<<") => return self.heredoc(),
            Some(digit) if digit.is_ascii_digit() => self.number()?,
            _ => match self.identifier() {
                Some((name, _)) => self.named(name)?,
                None => {
                    let detail =
                        "Expected the start of an expression, but found an invalid expression token.";
                    return Err(self.fault("Invalid expression", detail));
                }
            },
        };
        Ok(Expr {
            span: start.to(self.here()),
            node,
        })
    }

    fn number(&mut self) -> Result<Node, Fault> {
        let mut text = self.digits();
        let has_fraction = |rest: &str| {
            let mut next = rest.chars();
            next.next() == Some('.') && next.next().is_some_and(|next| next.is_ascii_digit())
        };
        if has_fraction(self.rest()) {
            self.skip(1);
            text = format!("{text}.{}", self.digits());
        }
        let exponent = self
            .rest()
            .trim_start_matches(['e', 'E'])
            .trim_start_matches(['+', '-']);
        if self.rest().starts_with(['e', 'E']) && exponent.starts_with(|next: char| next.is_ascii_digit()) {
            text.push('e');
            self.skip(1);
            if let Some(sign @ ('+' | '-')) = self.peek() {
                text.push(sign);
                self.skip(1);
            }
            text += &self.digits();
        }
        match Number::parse(&text) {
            Some(number) => Ok(Node::Literal(Value::Number(number))),
            None => Err(self.fault("Invalid number", format!("{text} is too large."))),
        }
    }

    fn named(&mut self, mut name: String) -> Result<Node, Fault> {
        match name.as_str() {
            "true" => return Ok(Node::Literal(Value::Bool(true))),
            "false" => return Ok(Node::Literal(Value::Bool(false))),
            "null" => return Ok(Node::Literal(Value::NULL)),
            _ => {}
        }
        while self.rest().starts_with("::") {
            self.skip(2);
            if let Some((part, _)) = self.identifier() {
                name = format!("{name}::{part}");
            }
        }
        if self.peek() != Some('(') {
            return Ok(Node::Variable(name));
        }
        self.skip(1);
        let (args, expands) = self.bracketed(Self::arguments)?;
        Ok(Node::Call { name, args, expands })
    }

    fn arguments(&mut self) -> Result<(Vec<Expr>, bool), Fault> {
        let mut args = Vec::new();
        loop {
            self.space()?;
            if self.takes(")") {
                return Ok((args, false));
            }
            args.push(self.expression()?);
            self.space()?;
            if self.takes("...") {
                self.space()?;
                if self.takes(")") {
                    return Ok((args, true));
                }
                return Err(self.fault(
                    "Missing closing parenthesis",
                    "An expanded function argument must be immediately followed by closing parentheses.",
                ));
            }
            if !self.takes(",") && self.peek() != Some(')') {
                return Err(self.fault(
                    "Missing argument separator",
                    "A comma is required to separate each function argument from the next.",
                ));
            }
        }
    }
}
