//! Variables: their types, defaults, and what the environment says instead.

use std::collections::BTreeMap;

use rbuild_dockerfile::csv::{self, boolean};

use crate::error::Fault;
use crate::syntax::native::expression;
use crate::syntax::{Block, Body, Expr, Node};
use crate::value::{Number, Type, Value};

/// `variable "NAME" { … }`.
#[derive(Debug)]
pub(crate) struct Variable<'a> {
    pub(crate) of: Option<Type>,
    pub(crate) default: Option<&'a Expr>,
    pub(crate) description: String,
    /// Conditions, and what is told where one does not hold.
    pub(crate) validations: Vec<(&'a Expr, &'a Expr)>,
    pub(crate) block: &'a Block,
}

impl<'a> Variable<'a> {
    /// What a block declares.
    pub(crate) fn read(block: &'a Block) -> Result<Self, Fault> {
        let of = match block.body.attribute("type") {
            Some(attribute) if !matches!(attribute.expr.node, Node::Literal(Value::Null(_))) => {
                Some(type_of(&attribute.expr)?)
            }
            _ => None,
        };
        let required = |body: &'a Body, name: &str| {
            body.attribute(name)
                .map(|attribute| &attribute.expr)
                .ok_or_else(|| {
                    let detail = format!("The argument {name:?} is required, but no definition was found.");
                    Fault::new(block.span, "Missing required argument", detail)
                })
        };
        let validations = block
            .body
            .blocks
            .iter()
            .filter(|inner| inner.kind == "validation");
        let validations = validations.map(|inner| {
            Ok((
                required(&inner.body, "condition")?,
                required(&inner.body, "error_message")?,
            ))
        });
        Ok(Self {
            of,
            default: block.body.attribute("default").map(|attribute| &attribute.expr),
            description: block
                .body
                .attribute("description")
                .and_then(|attribute| attribute.expr.constant())
                .unwrap_or_default()
                .to_owned(),
            validations: validations.collect::<Result<_, Fault>>()?,
            block,
        })
    }
}

/// The type that an expression names: `string`, `list(number)`, `object({…})`.
///
/// # Errors
/// [`Fault`].
pub(crate) fn type_of(expr: &Expr) -> Result<Type, Fault> {
    let invalid = |detail: String| Err(Fault::new(expr.span, "Invalid type specification", detail));
    if let Some(name) = expr.keyword() {
        return match name {
            "string" => Ok(Type::String),
            "number" => Ok(Type::Number),
            "bool" => Ok(Type::Bool),
            "any" => Ok(Type::Any),
            "list" | "set" | "map" => invalid(format!(
                "The {name} type constructor requires one argument specifying the element type."
            )),
            // JSON has a text where the native syntax has a call.
            text if text.ends_with(')') => type_of(&expression(expr.span, text)?),
            _ => invalid(format!("The keyword {name:?} is not a valid type specification.")),
        };
    }
    let Node::Call { name, args, .. } = &expr.node else {
        return invalid("A type specification is either a primitive type keyword (bool, number, string) or a complex type constructor call, like list(string).".to_owned());
    };
    match (name.as_str(), args.as_slice()) {
        ("list", [of]) => Ok(Type::List(Box::new(type_of(of)?))),
        ("set", [of]) => Ok(Type::Set(Box::new(type_of(of)?))),
        ("map", [of]) => Ok(Type::Map(Box::new(type_of(of)?))),
        (
            "tuple",
            [
                Expr {
                    node: Node::Tuple(types),
                    ..
                },
            ],
        ) => Ok(Type::Tuple(types.iter().map(type_of).collect::<Result<_, _>>()?)),
        (
            "object",
            [
                Expr {
                    node: Node::Object(items),
                    ..
                },
            ],
        ) => {
            let mut types = BTreeMap::new();
            for (key, of) in items {
                let name = key.keyword().unwrap_or_default().to_owned();
                let field = match &of.node {
                    Node::Call { name, args, .. } if name == "optional" => match args.first() {
                        Some(of) => (type_of(of)?, true),
                        None => return invalid("optional takes a type.".to_owned()),
                    },
                    _ => (type_of(of)?, false),
                };
                types.insert(name, field);
            }
            Ok(Type::Object(types))
        }
        _ => invalid(format!(
            "{name:?} with these arguments is not a valid type constructor."
        )),
    }
}

/// What the environment says of a variable of type `of`.
///
/// # Errors
/// What is wrong with it, as a fragment.
pub(crate) fn from_env(
    name: &str,
    text: &str,
    is_json: bool,
    of: Option<&Type>,
    default: Option<&Value>,
) -> Result<Value, String> {
    if let (Some(of), true) = (of, is_json) {
        let read = serde_json::from_str(text).map_err(|error| error.to_string());
        return read
            .and_then(|json| crate::value::convert(&Value::from_json(&json), of))
            .map_err(|error| format!("failed to convert variable {name} from JSON: {error}"));
    }
    match (of, default) {
        (Some(of @ (Type::List(_) | Type::Set(_) | Type::Tuple(_) | Type::Map(_))), _) => {
            from_csv(name, text, of)
                .map_err(|error| format!("failed to convert variable {name} from CSV: {error}"))
        }
        (Some(of), _) if of.is_primitive() => primitive(name, text, of),
        (Some(of), _) => Err(format!("unsupported type {} for variable {name}", of.friendly())),
        (None, None | Some(Value::Null(_))) => Ok(Value::string(text)),
        (None, Some(default)) if default.type_of().is_primitive() => {
            primitive(name, text, &default.type_of())
        }
        (None, Some(default)) => Err(format!(
            "unsupported type {} for variable {name}",
            default.type_of().friendly()
        )),
    }
}

fn primitive(name: &str, text: &str, of: &Type) -> Result<Value, String> {
    match of {
        Type::Bool => boolean(text).map(Value::Bool).ok_or_else(|| {
            format!("failed to parse {name} as bool: strconv.ParseBool: parsing {text:?}: invalid syntax")
        }),
        Type::Number => Number::parse(text).map(Value::Number).ok_or_else(|| {
            format!("failed to parse {name} as number: strconv.ParseFloat: parsing {text:?}: invalid syntax")
        }),
        _ => Ok(Value::string(text)),
    }
}

fn from_csv(name: &str, text: &str, whole: &Type) -> Result<Value, String> {
    let fields = csv::fields(text).map_err(|error| format!("failed to parse {text} as CSV: {error}"))?;
    let each = |of: &Type, field: &str| {
        if !of.is_primitive() {
            return Err(format!(
                "unsupported type {} for CSV specification",
                of.friendly()
            ));
        }
        let which = if matches!(whole, Type::Map(_)) {
            "from"
        } else {
            "of"
        };
        primitive(name, field, of).map_err(|error| {
            format!(
                "failed to parse element {which} type {}: {error}",
                whole.friendly()
            )
        })
    };
    match whole {
        Type::List(inner) => {
            let values = fields
                .iter()
                .map(|field| each(inner, field))
                .collect::<Result<_, _>>()?;
            Ok(Value::List((**inner).clone(), values))
        }
        Type::Set(inner) => {
            let values = fields
                .iter()
                .map(|field| each(inner, field))
                .collect::<Result<_, _>>()?;
            Ok(Value::set((**inner).clone(), values))
        }
        Type::Tuple(types) if types.len() == fields.len() => {
            let values = types.iter().zip(&fields).map(|(of, field)| each(of, field));
            Ok(Value::Tuple(values.collect::<Result<_, _>>()?))
        }
        Type::Tuple(types) => Err(format!(
            "tuple expects {} elements but only {} provided",
            types.len(),
            fields.len()
        )),
        Type::Map(inner) => {
            let mut map = BTreeMap::new();
            for field in &fields {
                let parts = csv::separated(field, ':').map_err(|error| {
                    format!("failed to parse {field} as k/v for variable {name}: {error}")
                })?;
                let [key, value] = parts.as_slice() else {
                    return Err(format!(
                        "expected one k/v pair but got {} pieces from {field}",
                        parts.len()
                    ));
                };
                map.insert(key.clone(), each(inner, value)?);
            }
            Ok(Value::Map((**inner).clone(), map))
        }
        _ => Err(format!(
            "unsupported type {} for CSV specification",
            whole.friendly()
        )),
    }
}
