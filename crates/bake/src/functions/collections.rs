//! Functions of lists, sets, maps, tuples and objects.

use std::collections::BTreeMap;

use super::{Args, Function, MOST, Outcome, equal};
use crate::value::{Type, Value, convert, unify};

pub(super) const FUNCTIONS: &[Function] = &[
    ("chunklist", chunklist),
    ("coalesce", |args| {
        let found = args.values.iter().find(|value| !value.is_null());
        found.cloned().ok_or_else(|| "no non-null arguments".to_owned())
    }),
    ("coalescelist", |args| {
        let filled = |value: &&Value| value.elements().is_some_and(|values| !values.is_empty());
        let found = args.values.iter().find(filled);
        found.cloned().ok_or_else(|| "no non-null arguments".to_owned())
    }),
    ("compact", |args| {
        let kept = args
            .elements(0)?
            .iter()
            .filter(|value| !value.is_null() && **value != Value::string(""));
        let texts = kept
            .map(|value| convert(value, &Type::String))
            .collect::<Result<_, _>>()?;
        Ok(Value::List(Type::String, texts))
    }),
    ("concat", concat),
    ("contains", |args| {
        let wanted = args.any(1)?;
        Ok(Value::Bool(
            args.elements(0)?.iter().any(|value| equal(value, wanted)),
        ))
    }),
    ("distinct", |args| {
        let mut found: Vec<Value> = Vec::new();
        for value in args.elements(0)? {
            if !found.contains(value) {
                found.push(value.clone());
            }
        }
        Ok(list(found))
    }),
    ("element", element),
    ("flatten", |args| {
        let mut flat = Vec::new();
        args.elements(0)?
            .iter()
            .for_each(|value| flatten(value, &mut flat));
        Ok(Value::Tuple(flat))
    }),
    ("hasindex", |args| {
        let span = crate::syntax::Span::default();
        Ok(Value::Bool(
            crate::eval::at_index(args.any(0)?, args.any(1)?, span).is_ok(),
        ))
    }),
    ("index", |args| {
        let span = crate::syntax::Span::default();
        crate::eval::at_index(args.any(0)?, args.any(1)?, span).map_err(|fault| fault.detail)
    }),
    ("indexof", |args| {
        let (values, wanted) = (args.elements(0)?, args.any(1)?);
        if values.is_empty() {
            return Err("cannot search an empty list".to_owned());
        }
        let found = values.iter().position(|value| equal(value, wanted));
        found
            .map(|at| Value::integer(at as i64))
            .ok_or_else(|| "item not found".to_owned())
    }),
    ("keys", |args| {
        Ok(Value::strings(fields(args, 0)?.keys().cloned()))
    }),
    ("length", |args| {
        let value = args.any(0)?;
        let length = value
            .elements()
            .map(Vec::len)
            .or_else(|| value.fields().map(BTreeMap::len));
        length
            .map(|length| Value::integer(length as i64))
            .ok_or_else(|| "argument must be a collection".to_owned())
    }),
    ("lookup", |args| {
        let name = args.text(1)?;
        match fields(args, 0)?.get(&name) {
            Some(value) => Ok(value.clone()),
            None => args.any(2).cloned(),
        }
    }),
    ("merge", merge),
    ("range", range),
    ("reverselist", |args| {
        Ok(Value::Tuple(args.elements(0)?.iter().rev().cloned().collect()))
    }),
    ("sethaselement", |args| {
        let wanted = args.any(1)?;
        Ok(Value::Bool(args.elements(0)?.contains(wanted)))
    }),
    ("setintersection", |args| {
        sets(args, |one, others| others.iter().all(|other| other.contains(one)))
    }),
    ("setproduct", setproduct),
    ("setsubtract", |args| {
        sets(args, |one, others| {
            others.iter().all(|other| !other.contains(one))
        })
    }),
    ("setsymmetricdifference", |args| {
        let (one, two) = (args.elements(0)?, args.elements(1)?);
        let only = |from: &'_ Vec<Value>, of: &'_ Vec<Value>| -> Vec<Value> {
            from.iter().filter(|value| !of.contains(value)).cloned().collect()
        };
        set(only(one, two).into_iter().chain(only(two, one)).collect())
    }),
    ("setunion", |args| {
        let mut all = Vec::new();
        for at in 0..args.values.len() {
            all.extend(args.elements(at)?.iter().cloned());
        }
        set(all)
    }),
    ("slice", |args| {
        let (values, from, to) = (args.elements(0)?, args.integer(1)?, args.integer(2)?);
        let range = usize::try_from(from).ok().zip(usize::try_from(to).ok());
        let found = range.and_then(|(from, to)| values.get(from..to));
        let found = found.ok_or_else(|| "the indices are not within the list".to_owned())?;
        Ok(like(args.any(0)?, found.to_vec()))
    }),
    ("sort", |args| {
        let mut texts = args.texts(0)?;
        texts.sort();
        Ok(Value::strings(texts))
    }),
    ("values", |args| {
        let values: Vec<Value> = fields(args, 0)?.values().cloned().collect();
        Ok(match args.any(0)? {
            Value::Map(of, _) => Value::List(of.clone(), values),
            _ => Value::Tuple(values),
        })
    }),
    ("zipmap", |args| {
        let (names, values) = (args.texts(0)?, args.elements(1)?);
        if names.len() != values.len() {
            return Err(format!(
                "number of keys ({}) does not match number of values ({})",
                names.len(),
                values.len()
            ));
        }
        let fields = names.into_iter().zip(values.iter().cloned()).collect();
        Ok(match args.any(1)? {
            Value::List(of, _) => Value::Map(of.clone(), fields),
            _ => Value::Object(fields),
        })
    }),
];

fn fields<'a>(args: &'a Args<'_>, at: usize) -> Result<&'a BTreeMap<String, Value>, String> {
    let value = args.any(at)?;
    if value.is_null() {
        return Err("argument must not be null".to_owned());
    }
    value
        .fields()
        .ok_or_else(|| "must be a map or an object".to_owned())
}

/// A list if all are of one type, else a tuple.
fn list(values: Vec<Value>) -> Value {
    let mut types = values.iter().map(Value::type_of);
    match types.next() {
        Some(first) if types.all(|of| of == first) => Value::List(first, values),
        _ => Value::Tuple(values),
    }
}

/// What `value` is, of `elements`.
fn like(value: &Value, elements: Vec<Value>) -> Value {
    match value {
        Value::List(of, _) => Value::List(of.clone(), elements),
        _ => Value::Tuple(elements),
    }
}

fn set(values: Vec<Value>) -> Outcome {
    let of = unify(values.iter().map(Value::type_of)).ok_or("the elements have different types")?;
    let values = values
        .iter()
        .map(|value| convert(value, &of))
        .collect::<Result<_, _>>()?;
    Ok(Value::set(of, values))
}

fn sets(args: &Args<'_>, keeps: fn(&Value, &[&Vec<Value>]) -> bool) -> Outcome {
    let first = args.elements(0)?;
    let others = (1..args.values.len())
        .map(|at| args.elements(at))
        .collect::<Result<Vec<_>, _>>()?;
    set(first
        .iter()
        .filter(|value| keeps(value, &others))
        .cloned()
        .collect())
}

fn chunklist(args: &Args<'_>) -> Outcome {
    let (values, size) = (args.elements(0)?, args.integer(1)?);
    let size = usize::try_from(size).map_err(|_| "the size argument must be positive".to_owned())?;
    let chunk = |values: &[Value]| list(values.to_vec());
    Ok(list(match size {
        0 => vec![chunk(values)],
        size => values.chunks(size).map(chunk).collect(),
    }))
}

fn concat(args: &Args<'_>) -> Outcome {
    let mut all = Vec::new();
    let mut are_lists = true;
    for (at, value) in args.values.iter().enumerate() {
        all.extend(args.elements(at)?.iter().cloned());
        are_lists &= matches!(value, Value::List(..));
    }
    if are_lists && let Some(of) = unify(all.iter().map(Value::type_of)) {
        let all = all
            .iter()
            .map(|value| convert(value, &of))
            .collect::<Result<_, _>>()?;
        return Ok(Value::List(of, all));
    }
    Ok(Value::Tuple(all))
}

fn element(args: &Args<'_>) -> Outcome {
    let (values, at) = (args.elements(0)?, args.integer(1)?);
    if values.is_empty() {
        return Err("cannot use element function with an empty list".to_owned());
    }
    let at = at.rem_euclid(i64::try_from(values.len()).unwrap_or(i64::MAX));
    Ok(values[usize::try_from(at).unwrap_or_default()].clone())
}

fn flatten(value: &Value, into: &mut Vec<Value>) {
    match value.elements() {
        Some(values) => values.iter().for_each(|value| flatten(value, into)),
        None => into.push(value.clone()),
    }
}

fn merge(args: &Args<'_>) -> Outcome {
    let mut merged = BTreeMap::new();
    let mut of = Some(Type::Any);
    for (at, value) in args
        .values
        .iter()
        .enumerate()
        .filter(|(_, value)| !value.is_null())
    {
        merged.extend(fields(args, at)?.clone());
        of = match (value, of) {
            (Value::Map(inner, _), Some(of)) => unify([of, inner.clone()]).filter(|of| of == inner),
            _ => None,
        };
    }
    Ok(match of {
        Some(of) if !args.values.is_empty() => Value::Map(of, merged),
        _ => Value::Object(merged),
    })
}

fn range(args: &Args<'_>) -> Outcome {
    args.count(3)?;
    let (start, end) = match args.values.len() {
        1 => (0.0, args.number(0)?),
        _ => (args.number(0)?, args.number(1)?),
    };
    let step = match args.values.len() {
        3 => args.number(2)?,
        _ if end < start => -1.0,
        _ => 1.0,
    };
    if step == 0.0 {
        return Err("step must not be zero".to_owned());
    }
    let mut values = Vec::new();
    let mut at = start;
    while if step > 0.0 { at < end } else { at > end } {
        // cty's own limit.
        if values.len() >= 1024 {
            return Err("more than 1024 values were generated; either decrease the difference between start and end or use a smaller step".to_owned());
        }
        values.push(super::number(at)?);
        at += step;
    }
    Ok(Value::List(Type::Number, values))
}

fn setproduct(args: &Args<'_>) -> Outcome {
    if args.values.len() < 2 {
        return Err("at least two arguments are required".to_owned());
    }
    let mut product: Vec<Vec<Value>> = vec![Vec::new()];
    for at in 0..args.values.len() {
        let values = args.elements(at)?;
        if product.len().saturating_mul(values.len()).saturating_mul(at + 1) > MOST {
            return Err("the result is too large".to_owned());
        }
        let longer = |start: &Vec<Value>, value: &Value| start.iter().chain([value]).cloned().collect();
        product = product
            .iter()
            .flat_map(|start| values.iter().map(|value| longer(start, value)))
            .collect();
    }
    Ok(list(product.into_iter().map(Value::Tuple).collect()))
}
