//! HCL's native syntax: <https://github.com/hashicorp/hcl/blob/main/hclsyntax/spec.md>. One pass over the text, without
//! tokens in between; nesting is bounded, so that no file exhausts the stack.

use std::collections::HashMap;

use super::cursor::Cursor;
use super::template::{Ends, template};
use super::{Attribute, BinaryOp, Block, Body, DEPTH_MAX, Expr, For, Node, Span, Step, UnaryOp};
use crate::error::Fault;
use crate::value::{Number, Value};

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

    /// An expression, with what stands around it skipped.
    pub(super) fn expression(&mut self) -> Result<Expr, Fault> {
        self.deeper(|cursor| {
            let condition = cursor.binary(0)?;
            cursor.space()?;
            if cursor.peek() != Some('?') {
                return Ok(condition);
            }
            cursor.skip(1);
            let yes = cursor.expression()?;
            cursor.space()?;
            if !cursor.takes(":") {
                let detail =
                    "The conditional operator ...?...:... requires a false expression, delimited by a colon.";
                return Err(cursor.fault("Missing false expression in conditional", detail));
            }
            let no = cursor.expression()?;
            let span = condition.span.to(no.span);
            let node = Node::Conditional(Box::new([condition, yes, no]));
            Ok(Expr { span, node })
        })
    }

    fn operator(&self, level: usize) -> Option<(BinaryOp, usize)> {
        const LEVELS: [&[(&str, BinaryOp)]; 6] = [
            &[("||", BinaryOp::Or)],
            &[("&&", BinaryOp::And)],
            &[("==", BinaryOp::Equal), ("!=", BinaryOp::NotEqual)],
            &[
                (">=", BinaryOp::GreaterOrEqual),
                ("<=", BinaryOp::LessOrEqual),
                (">", BinaryOp::Greater),
                ("<", BinaryOp::Less),
            ],
            &[("+", BinaryOp::Add), ("-", BinaryOp::Subtract)],
            &[
                ("*", BinaryOp::Multiply),
                ("/", BinaryOp::Divide),
                ("%", BinaryOp::Modulo),
            ],
        ];
        let rest = self.rest();
        let found = LEVELS[level].iter().find(|(text, _)| rest.starts_with(text))?;
        Some((found.1, found.0.len()))
    }

    fn binary(&mut self, level: usize) -> Result<Expr, Fault> {
        if level == 6 {
            return self.unary();
        }
        let mut left = self.binary(level + 1)?;
        let mut operators = 0;
        loop {
            self.space()?;
            let Some((operator, length)) = self.operator(level) else {
                return Ok(left);
            };
            // The tree leans to the left: as deep as there are operators.
            operators += 1;
            if operators > DEPTH_MAX {
                return Err(self.fault(
                    "Too much nesting",
                    format!("more than {DEPTH_MAX} operators in a row."),
                ));
            }
            self.skip(length);
            let right = self.binary(level + 1)?;
            let span = left.span.to(right.span);
            let node = Node::Binary(operator, Box::new([left, right]));
            left = Expr { span, node };
        }
    }

    fn unary(&mut self) -> Result<Expr, Fault> {
        self.space()?;
        let start = self.here();
        let operator = match self.peek() {
            Some('!') => UnaryOp::Not,
            Some('-') => UnaryOp::Negate,
            _ => return self.traversed(),
        };
        self.skip(1);
        let operand = self.deeper(Self::unary)?;
        let span = start.to(operand.span);
        Ok(Expr {
            span,
            node: Node::Unary(operator, Box::new(operand)),
        })
    }

    /// A term, and what leads from it into its value.
    fn traversed(&mut self) -> Result<Expr, Fault> {
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
    pub(super) fn for_names(&mut self) -> Result<(Option<String>, String, Expr), Fault> {
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

    fn tuple(&mut self) -> Result<Node, Fault> {
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

    fn object(&mut self) -> Result<Node, Fault> {
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

    /// `"…"`.
    fn quoted(&mut self) -> Result<Expr, Fault> {
        let start = self.here();
        self.skip(1);
        let node = self.deeper(|cursor| template(cursor, &Ends::Quote))?;
        Ok(Expr {
            span: start.to(self.here()),
            node,
        })
    }

    fn heredoc(&mut self) -> Result<Expr, Fault> {
        let start = self.here();
        self.skip(2);
        let is_flush = self.takes("-");
        let Some((marker, _)) = self.identifier() else {
            return Err(self.fault(
                "Invalid heredoc",
                "Expected an identifier as the marker of the heredoc.",
            ));
        };
        while matches!(self.peek(), Some(' ' | '\t' | '\r')) {
            self.skip(1);
        }
        if !self.takes("\n") {
            return Err(self.fault(
                "Invalid heredoc",
                "Expected a newline behind the marker of the heredoc.",
            ));
        }
        let mut length = 0;
        let mut end = None;
        for line in self.rest().split_inclusive('\n') {
            if line.trim() == marker {
                end = Some(line.len() - line.trim_start().len() + marker.len());
                break;
            }
            length += line.len();
        }
        let Some(end) = end else {
            return Err(self.fault(
                "Unterminated template string",
                format!("No line is {marker}, which would end the heredoc."),
            ));
        };
        let text = &self.rest()[..length];
        let dedented;
        let text = if is_flush {
            dedented = flush(text);
            dedented.as_str()
        } else {
            text
        };
        let mut inner = Cursor::new(self.file, text, (self.line, self.column));
        inner.depth = self.depth;
        let node = inner.deeper(|cursor| template(cursor, &Ends::File))?;
        let count = self.rest()[..length + end].chars().count();
        self.skip(count);
        Ok(Expr {
            span: start.to(self.here()),
            node,
        })
    }
}

/// The lines without the spaces that all of them begin with.
fn flush(text: &str) -> String {
    let indent = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let least = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(indent)
        .min()
        .unwrap_or(0);
    text.split_inclusive('\n')
        .map(|line| &line[least.min(indent(line))..])
        .collect()
}
