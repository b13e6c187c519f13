//! Expressions: the conditional operator, those of two sides by how tightly they bind, those of one.

use super::super::cursor::Cursor;
use super::super::{BinaryOp, DEPTH_MAX, Expr, Node, UnaryOp};
use crate::error::Fault;

impl Cursor<'_> {
    /// An expression, with what stands around it skipped.
    pub(in crate::syntax) fn expression(&mut self) -> Result<Expr, Fault> {
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
}
