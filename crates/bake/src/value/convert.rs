//! Values of one type as those of another, by cty's rules (`cty/convert`), and the one type that several can become.

use std::collections::BTreeMap;

use super::{Number, Type, Value};

/// `value` as one of `to`.
///
/// # Errors
/// What was needed instead, as a fragment.
pub(crate) fn convert(value: &Value, to: &Type) -> Result<Value, String> {
    let mismatch = || Err(format!("{} required", with_article(to)));
    match (value, to) {
        (_, Type::Any) => Ok(value.clone()),
        (Value::Null(_), _) => Ok(Value::Null(to.clone())),
        (Value::String(_), Type::String)
        | (Value::Number(_), Type::Number)
        | (Value::Bool(_), Type::Bool) => Ok(value.clone()),
        (Value::Number(number), Type::String) => Ok(Value::String(number.to_string())),
        (Value::Bool(value), Type::String) => Ok(Value::String(value.to_string())),
        (Value::String(text), Type::Number) => Number::parse(text).map_or_else(
            || Err("a number is required".to_owned()),
            |n| Ok(Value::Number(n)),
        ),
        (Value::String(text), Type::Bool) => match text.as_str() {
            "true" | "1" => Ok(Value::Bool(true)),
            "false" | "0" => Ok(Value::Bool(false)),
            _ => Err("a bool is required".to_owned()),
        },
        (_, Type::List(of)) => match value.elements() {
            Some(values) => {
                let (of, values) = elements(values, of)?;
                Ok(Value::List(of, values))
            }
            None => mismatch(),
        },
        (_, Type::Set(of)) => match value.elements() {
            Some(values) => {
                let (of, values) = elements(values, of)?;
                Ok(Value::set(of, values))
            }
            None => mismatch(),
        },
        (_, Type::Map(of)) => match value.fields() {
            Some(fields) => {
                let names: Vec<&String> = fields.keys().collect();
                let values: Vec<Value> = fields.values().cloned().collect();
                let (of, values) = elements(&values, of)
                    .map_err(|error| format!("element {}: {error}", names.first().map_or("", |name| name)))?;
                Ok(Value::Map(of, names.into_iter().cloned().zip(values).collect()))
            }
            None => mismatch(),
        },
        (_, Type::Tuple(types)) => match value.elements() {
            Some(values) if values.len() == types.len() => {
                let converted = values.iter().zip(types).map(|(value, of)| convert(value, of));
                Ok(Value::Tuple(converted.collect::<Result<_, _>>()?))
            }
            _ => mismatch(),
        },
        (_, Type::Object(types)) => match value.fields() {
            Some(fields) => object(fields, types),
            None => mismatch(),
        },
        _ => mismatch(),
    }
}

fn with_article(to: &Type) -> String {
    to.constraint()
}

fn object(fields: &BTreeMap<String, Value>, types: &BTreeMap<String, (Type, bool)>) -> Result<Value, String> {
    let mut converted = BTreeMap::new();
    for (name, (of, is_optional)) in types {
        let value = match fields.get(name) {
            Some(value) => convert(value, of).map_err(|error| format!("attribute {name:?}: {error}"))?,
            None if *is_optional => Value::Null(of.clone()),
            None => return Err(format!("attribute {name:?} is required")),
        };
        converted.insert(name.clone(), value);
    }
    Ok(Value::Object(converted))
}

fn elements(values: &[Value], of: &Type) -> Result<(Type, Vec<Value>), String> {
    let of = match of {
        Type::Any => unify(values.iter().map(Value::type_of))
            .ok_or_else(|| "all list elements must have the same type".to_owned())?,
        of => of.clone(),
    };
    let converted = values.iter().map(|value| convert(value, &of));
    let converted = converted.collect::<Result<_, _>>()?;
    Ok((of, converted))
}

/// The type that values of all `types` can become.
pub(crate) fn unify(types: impl IntoIterator<Item = Type>) -> Option<Type> {
    let mut types = types.into_iter();
    let Some(first) = types.next() else {
        return Some(Type::Any);
    };
    types.try_fold(first, two)
}

fn two(one: Type, other: Type) -> Option<Type> {
    match (one, other) {
        (one, other) if one == other => Some(one),
        (Type::Any, other) | (other, Type::Any) => Some(other),
        (one, other) if one.is_primitive() && other.is_primitive() => {
            let is_text = one == Type::String || other == Type::String;
            is_text.then_some(Type::String)
        }
        (Type::Tuple(one), Type::Tuple(other)) if one.len() == other.len() => {
            let types = one.into_iter().zip(other).map(|(one, other)| two(one, other));
            types.collect::<Option<Vec<_>>>().map(Type::Tuple)
        }
        (Type::Tuple(one), Type::Tuple(other)) => {
            let of = unify(one.into_iter().chain(other))?;
            Some(Type::List(Box::new(of)))
        }
        (Type::Tuple(types), Type::List(of)) | (Type::List(of), Type::Tuple(types)) => {
            let of = unify(types.into_iter().chain([*of]))?;
            Some(Type::List(Box::new(of)))
        }
        (Type::Tuple(types), Type::Set(of)) | (Type::Set(of), Type::Tuple(types)) => {
            let of = unify(types.into_iter().chain([*of]))?;
            Some(Type::Set(Box::new(of)))
        }
        (Type::List(one), Type::List(other)) => two(*one, *other).map(|of| Type::List(Box::new(of))),
        (Type::Set(one), Type::Set(other)) => two(*one, *other).map(|of| Type::Set(Box::new(of))),
        (Type::Map(one), Type::Map(other)) => two(*one, *other).map(|of| Type::Map(Box::new(of))),
        (Type::Object(fields), Type::Map(of)) | (Type::Map(of), Type::Object(fields)) => {
            let types = fields.into_values().map(|(of, _)| of);
            unify(types.chain([*of])).map(|of| Type::Map(Box::new(of)))
        }
        (Type::Object(one), Type::Object(other)) => objects(one, other),
        _ => None,
    }
}

fn objects(one: BTreeMap<String, (Type, bool)>, mut other: BTreeMap<String, (Type, bool)>) -> Option<Type> {
    if one.len() == other.len() && one.keys().all(|name| other.contains_key(name)) {
        let mut fields = BTreeMap::new();
        for (name, (of, _)) in one {
            let (theirs, _) = other.remove(&name)?;
            fields.insert(name, (two(of, theirs)?, false));
        }
        return Some(Type::Object(fields));
    }
    let types = one.into_values().chain(other.into_values()).map(|(of, _)| of);
    unify(types).map(|of| Type::Map(Box::new(of)))
}
