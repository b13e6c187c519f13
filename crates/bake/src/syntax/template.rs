//! Texts with expansions: `${…}`, and `%{if}` and `%{for}`, in quotes, heredocs and the texts of JSON.

use super::cursor::Cursor;
use super::{Expr, For, Node};
use crate::error::Fault;
use crate::value::Value;

/// What a template ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// A quote; backslashes escape.
    Quote,
    /// The end of the text.
    File,
}

/// A directive that ends a part of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Text,
    Else,
    If,
    For,
}

/// Reads a template and what it ends with.
///
/// # Errors
/// [`Fault`].
pub(super) fn template(cursor: &mut Cursor<'_>, ends: &Ends) -> Result<Node, Fault> {
    let mut reader = Reader {
        ends: *ends,
        trims: false,
    };
    let (mut parts, end) = reader.parts(cursor)?;
    if end != End::Text {
        return Err(cursor.fault(
            "Invalid template directive",
            "there is nothing that it would end.",
        ));
    }
    Ok(match parts.len() {
        0 => Node::Literal(Value::String(String::new())),
        1 => parts.remove(0).node,
        _ => Node::Template(parts),
    })
}

struct Reader {
    ends: Ends,
    /// Spaces of the next text go.
    trims: bool,
}

impl Reader {
    /// Parts up to the end or to a directive that ends them.
    fn parts(&mut self, cursor: &mut Cursor<'_>) -> Result<(Vec<Expr>, End), Fault> {
        let mut parts = Vec::new();
        let mut text = String::new();
        loop {
            let start = cursor.here();
            if cursor.takes("$${") {
                text.push_str("${");
            } else if cursor.takes("%%{") {
                text.push_str("%{");
            } else if cursor.takes("${") {
                self.flush(cursor, &mut text, &mut parts);
                let inner = cursor.bracketed(|cursor| {
                    let inner = cursor.expression()?;
                    cursor.space()?;
                    Ok(inner)
                })?;
                self.close(cursor)?;
                parts.push(inner);
            } else if cursor.takes("%{") {
                self.flush(cursor, &mut text, &mut parts);
                if let Some(end) = self.directive(cursor, &mut parts)? {
                    return Ok((parts, end));
                }
            } else {
                match (cursor.next(), self.ends) {
                    (None, Ends::File) | (Some('"'), Ends::Quote) => {
                        self.flush(cursor, &mut text, &mut parts);
                        return Ok((parts, End::Text));
                    }
                    (None | Some('\n'), Ends::Quote) => {
                        let detail = "Quoted strings may not be split over multiple lines.";
                        return Err(Fault::new(start, "Invalid multi-line string", detail));
                    }
                    (Some('\\'), Ends::Quote) => text.push(escaped(cursor)?),
                    (Some(next), _) => text.push(next),
                }
            }
        }
    }

    /// Makes a part of the text so far; `${~` and `%{~` take the spaces at its end.
    fn flush(&mut self, cursor: &mut Cursor<'_>, text: &mut String, parts: &mut Vec<Expr>) {
        let mut text = std::mem::take(text);
        if std::mem::take(&mut self.trims) {
            text = text.trim_start().to_owned();
        }
        if cursor.takes("~") {
            text.truncate(text.trim_end().len());
        }
        if !text.is_empty() {
            let span = cursor.here();
            let node = Node::Literal(Value::String(text));
            parts.push(Expr { span, node });
        }
    }

    fn close(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        self.trims = cursor.takes("~");
        if cursor.takes("}") {
            return Ok(());
        }
        Err(cursor.fault(
            "Extra characters after interpolation expression",
            "Expected a closing brace to end the interpolation expression.",
        ))
    }

    /// What stands behind `%{`, up to its end if it has one.
    fn directive(&mut self, cursor: &mut Cursor<'_>, parts: &mut Vec<Expr>) -> Result<Option<End>, Fault> {
        let start = cursor.here();
        cursor.bracketed(Cursor::space)?;
        let word = cursor.identifier().map(|(word, _)| word).unwrap_or_default();
        let end = match word.as_str() {
            "else" => Some(End::Else),
            "endif" => Some(End::If),
            "endfor" => Some(End::For),
            _ => None,
        };
        if end.is_some() {
            cursor.bracketed(Cursor::space)?;
            self.close(cursor)?;
            return Ok(end);
        }
        let node = match word.as_str() {
            "if" => cursor.deeper(|cursor| self.condition(cursor))?,
            "for" => cursor.deeper(|cursor| self.repeated(cursor))?,
            _ => {
                let detail = format!("{word:?} is not a valid template control keyword.");
                return Err(Fault::new(start, "Invalid template directive", detail));
            }
        };
        let span = start.to(cursor.here());
        parts.push(Expr { span, node });
        Ok(None)
    }

    fn condition(&mut self, cursor: &mut Cursor<'_>) -> Result<Node, Fault> {
        let condition = cursor.bracketed(|cursor| {
            let condition = cursor.expression()?;
            cursor.space()?;
            Ok(condition)
        })?;
        self.close(cursor)?;
        let span = condition.span;
        let joined = |parts| Expr {
            span,
            node: Node::Template(parts),
        };
        let (yes, end) = self.parts(cursor)?;
        let no = match end {
            End::If => Vec::new(),
            End::Else => {
                let (no, end) = self.parts(cursor)?;
                if end != End::If {
                    return Err(cursor.fault("Unexpected end of template", "the if directive has no endif."));
                }
                no
            }
            End::Text | End::For => {
                return Err(cursor.fault("Unexpected end of template", "the if directive has no endif."));
            }
        };
        Ok(Node::Conditional(Box::new([condition, joined(yes), joined(no)])))
    }

    fn repeated(&mut self, cursor: &mut Cursor<'_>) -> Result<Node, Fault> {
        let (key, value, collection) = cursor.bracketed(|cursor| {
            let head = cursor.for_names()?;
            cursor.space()?;
            Ok(head)
        })?;
        self.close(cursor)?;
        let (parts, end) = self.parts(cursor)?;
        if end != End::For {
            return Err(cursor.fault("Unexpected end of template", "the for directive has no endfor."));
        }
        let span = collection.span;
        let loop_node = Node::For(Box::new(For {
            key,
            value,
            collection,
            key_result: None,
            result: Expr {
                span,
                node: Node::Template(parts),
            },
            condition: None,
            groups: false,
        }));
        Ok(Node::Joined(Box::new(Expr {
            span,
            node: loop_node,
        })))
    }
}

fn escaped(cursor: &mut Cursor<'_>) -> Result<char, Fault> {
    let digits = match cursor.next() {
        Some('n') => return Ok('\n'),
        Some('r') => return Ok('\r'),
        Some('t') => return Ok('\t'),
        Some('"') => return Ok('"'),
        Some('\\') => return Ok('\\'),
        Some('u') => 4,
        Some('U') => 8,
        other => {
            let text = other.map(String::from).unwrap_or_default();
            let detail = format!("The symbol {text:?} is not a valid escape sequence selector.");
            return Err(cursor.fault("Invalid escape sequence", detail));
        }
    };
    let text: String = cursor.rest().chars().take(digits).collect();
    let read = u32::from_str_radix(&text, 16).ok().and_then(char::from_u32);
    let Some(read) = read.filter(|_| text.chars().count() == digits) else {
        let detail = format!("{digits} hexadecimal digits of a character have to follow.");
        return Err(cursor.fault("Invalid escape sequence", detail));
    };
    cursor.skip(digits);
    Ok(read)
}
