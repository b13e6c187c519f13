//! HCL's JSON syntax: <https://github.com/hashicorp/hcl/blob/main/json/spec.md>. What is a block is known by its kind, for
//! nothing in JSON says so; texts are templates.

use serde_json::Value as Json;

use super::cursor::Cursor;
use super::template::{Ends, template};
use super::{Attribute, Block, Body, Expr, Node, Span};
use crate::error::Fault;
use crate::value::{Number, Value};

/// Blocks with one label.
const LABELLED: [&str; 4] = ["target", "group", "variable", "function"];
/// Blocks without, within variables.
const UNLABELLED: &str = "validation";

/// Reads a whole file.
///
/// # Errors
/// [`Fault`].
pub(crate) fn parse(file: usize, text: &str) -> Result<Body, Fault> {
    let json: Json = serde_json::from_str(text).map_err(|error| {
        let at = (
            u32::try_from(error.line()).unwrap_or(u32::MAX),
            u32::try_from(error.column()).unwrap_or(u32::MAX),
        );
        let span = Span {
            file,
            start: at,
            end: at,
        };
        Fault::new(span, "Invalid JSON", error.to_string())
    })?;
    let span = Span {
        file,
        start: (1, 1),
        end: (1, 1),
    };
    body(&json, span, &LABELLED)
}

fn body(json: &Json, span: Span, labelled: &[&str]) -> Result<Body, Fault> {
    let mut body = Body::default();
    match json {
        Json::Object(fields) => {
            for (name, value) in fields {
                if name == "//" {
                    continue;
                }
                if labelled.contains(&name.as_str()) {
                    blocks(name, value, span, &mut body)?;
                } else if name == UNLABELLED && labelled.is_empty() {
                    for inner in each(value) {
                        body.blocks.push(Block {
                            kind: name.clone(),
                            labels: Vec::new(),
                            span,
                            body: self::body(inner, span, &[])?,
                        });
                    }
                } else {
                    body.attributes.push(Attribute {
                        name: name.clone(),
                        span,
                        expr: expression(value, span)?,
                    });
                }
            }
        }
        Json::Array(parts) => {
            for part in parts {
                let Body { attributes, blocks } = self::body(part, span, labelled)?;
                body.attributes.extend(attributes);
                body.blocks.extend(blocks);
            }
        }
        _ => {
            let detail = "A JSON object is required here, to define arguments and child blocks.";
            return Err(Fault::new(span, "Incorrect JSON value type", detail));
        }
    }
    Ok(body)
}

/// A value, or each of an array.
fn each(json: &Json) -> &[Json] {
    match json {
        Json::Array(parts) => parts,
        one => std::slice::from_ref(one),
    }
}

/// Blocks of one kind: by label an object, or several.
fn blocks(kind: &str, json: &Json, span: Span, into: &mut Body) -> Result<(), Fault> {
    for labels in each(json) {
        let Json::Object(labels) = labels else {
            let detail = format!("A JSON object is required, with the names of each {kind}.");
            return Err(Fault::new(span, "Incorrect JSON value type", detail));
        };
        for (label, value) in labels.iter().filter(|(label, _)| *label != "//") {
            for value in each(value) {
                into.blocks.push(Block {
                    kind: kind.to_owned(),
                    labels: vec![label.clone()],
                    span,
                    body: body(value, span, &[])?,
                });
            }
        }
    }
    Ok(())
}

fn text(text: &str, span: Span) -> Result<Expr, Fault> {
    let mut cursor = Cursor::new(span.file, text, span.start);
    let node = template(&mut cursor, &Ends::File)?;
    Ok(Expr { span, node })
}

fn expression(json: &Json, span: Span) -> Result<Expr, Fault> {
    let node = match json {
        Json::Null => Node::Literal(Value::NULL),
        Json::Bool(value) => Node::Literal(Value::Bool(*value)),
        Json::Number(number) => match Number::parse(&number.to_string()) {
            Some(number) => Node::Literal(Value::Number(number)),
            None => {
                return Err(Fault::new(
                    span,
                    "Invalid number",
                    format!("{number} is too large."),
                ));
            }
        },
        Json::String(value) => return text(value, span),
        Json::Array(values) => {
            let values = values.iter().map(|value| expression(value, span));
            Node::Tuple(values.collect::<Result<_, _>>()?)
        }
        Json::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, value)| Ok((text(name, span)?, expression(value, span)?)));
            Node::Object(fields.collect::<Result<_, Fault>>()?)
        }
    };
    Ok(Expr { span, node })
}
