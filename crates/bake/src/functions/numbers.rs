//! Functions of numbers and of truth values.

use super::{Args, Function, Outcome, equal, number};
use crate::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    ("absolute", |args| number(args.number(0)?.abs())),
    ("add", |args| number(args.number(0)? + args.number(1)?)),
    ("and", |args| Ok(Value::Bool(args.truth(0)? && args.truth(1)?))),
    ("ceil", |args| number(args.number(0)?.ceil())),
    ("divide", |args| number(args.number(0)? / divisor(args)?)),
    ("equal", |args| Ok(Value::Bool(equal(args.any(0)?, args.any(1)?)))),
    ("floor", |args| number(args.number(0)?.floor())),
    ("greaterthan", |args| {
        Ok(Value::Bool(args.number(0)? > args.number(1)?))
    }),
    ("greaterthanorequalto", |args| {
        Ok(Value::Bool(args.number(0)? >= args.number(1)?))
    }),
    ("int", |args| number(args.number(0)?.trunc())),
    ("lessthan", |args| {
        Ok(Value::Bool(args.number(0)? < args.number(1)?))
    }),
    ("lessthanorequalto", |args| {
        Ok(Value::Bool(args.number(0)? <= args.number(1)?))
    }),
    ("log", |args| number(args.number(0)?.ln() / args.number(1)?.ln())),
    ("max", |args| best(args, f64::max)),
    ("min", |args| best(args, f64::min)),
    ("modulo", |args| number(args.number(0)? % divisor(args)?)),
    ("multiply", |args| number(args.number(0)? * args.number(1)?)),
    ("negate", |args| number(-args.number(0)?)),
    ("not", |args| Ok(Value::Bool(!args.truth(0)?))),
    ("notequal", |args| {
        Ok(Value::Bool(!equal(args.any(0)?, args.any(1)?)))
    }),
    ("or", |args| Ok(Value::Bool(args.truth(0)? || args.truth(1)?))),
    ("parseint", parseint),
    ("pow", |args| number(args.number(0)?.powf(args.number(1)?))),
    ("signum", |args| {
        let value = args.number(0)?;
        Ok(Value::integer(i64::from(value > 0.0) - i64::from(value < 0.0)))
    }),
    ("subtract", |args| number(args.number(0)? - args.number(1)?)),
];

fn divisor(args: &Args<'_>) -> Result<f64, String> {
    match args.number(1)? {
        0.0 => Err("divide by zero".to_owned()),
        by => Ok(by),
    }
}

fn best(args: &Args<'_>, better: fn(f64, f64) -> f64) -> Outcome {
    let mut found = args
        .number(0)
        .map_err(|_| "must pass at least one number".to_owned())?;
    for at in 1..args.values.len() {
        found = better(found, args.number(at)?);
    }
    number(found)
}

fn parseint(args: &Args<'_>) -> Outcome {
    let (text, base) = (args.text(0)?, args.integer(1)?);
    let base = u32::try_from(base).ok().filter(|base| (2..=36).contains(base));
    let Some(base) = base else {
        return Err(
            "base must be a whole number between 2 and 62 inclusive; rbuild reads those up to 36".to_owned(),
        );
    };
    i64::from_str_radix(&text, base)
        .map(Value::integer)
        .map_err(|_| format!("cannot parse {text:?} as a base {base} integer"))
}
