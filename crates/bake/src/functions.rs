//! The functions that every bake file has (buildx' `bake/hclparser/stdlib.go`): cty's and a few of buildx' own. Two of them are
//! refused: `bcrypt` and `rsadecrypt` have nothing to do with builds.

mod collections;
mod encoding;
mod format;
mod numbers;
mod patterns;
mod semver;
mod strings;
mod time;

use crate::error::Fault;
use crate::eval::Names;
use crate::syntax::Span;
use crate::value::{Number, Type, Value, convert};

/// Most elements or bytes that one call makes.
const MOST: usize = 1 << 20;

type Outcome = Result<Value, String>;

/// A function, by name.
type Function = (&'static str, fn(&Args<'_>) -> Outcome);

/// What a function is called with.
struct Args<'a> {
    values: &'a [Value],
    names: &'a dyn Names,
}

impl Args<'_> {
    fn any(&self, at: usize) -> Result<&Value, String> {
        self.values
            .get(at)
            .ok_or_else(|| format!("{} arguments are not enough", self.values.len()))
    }

    fn count(&self, most: usize) -> Result<(), String> {
        if self.values.len() > most {
            return Err(format!("there are more than {most} arguments"));
        }
        Ok(())
    }

    fn converted(&self, at: usize, to: &Type) -> Outcome {
        let value = self.any(at)?;
        if value.is_null() {
            return Err("argument must not be null".to_owned());
        }
        convert(value, to)
    }

    fn text(&self, at: usize) -> Result<String, String> {
        match self.converted(at, &Type::String)? {
            Value::String(text) => Ok(text),
            _ => Err("string required".to_owned()),
        }
    }

    fn number(&self, at: usize) -> Result<f64, String> {
        match self.converted(at, &Type::Number)? {
            Value::Number(number) => Ok(number.get()),
            _ => Err("a number is required".to_owned()),
        }
    }

    fn integer(&self, at: usize) -> Result<i64, String> {
        let number = Number::new(self.number(at)?).and_then(Number::integer);
        number.ok_or_else(|| "a whole number is required".to_owned())
    }

    fn truth(&self, at: usize) -> Result<bool, String> {
        Ok(self.converted(at, &Type::Bool)? == Value::Bool(true))
    }

    fn elements(&self, at: usize) -> Result<&Vec<Value>, String> {
        let value = self.any(at)?;
        if value.is_null() {
            return Err("argument must not be null".to_owned());
        }
        value
            .elements()
            .ok_or_else(|| "argument must be a list, set, or tuple".to_owned())
    }

    fn texts(&self, at: usize) -> Result<Vec<String>, String> {
        let texts = self
            .elements(at)?
            .iter()
            .map(|value| match convert(value, &Type::String) {
                Ok(Value::String(text)) => Ok(text),
                Ok(_) => Err("element must not be null".to_owned()),
                Err(error) => Err(error),
            });
        texts.collect()
    }
}

fn number(value: f64) -> Outcome {
    let number = Number::new(value).map(Value::Number);
    number.ok_or_else(|| "the result is no finite number".to_owned())
}

const TABLES: [&[Function]; 6] = [
    strings::FUNCTIONS,
    numbers::FUNCTIONS,
    collections::FUNCTIONS,
    encoding::FUNCTIONS,
    patterns::FUNCTIONS,
    time::FUNCTIONS,
];

/// What the function `name` gives; `None` if there is none.
///
/// # Errors
/// [`Fault`].
pub(crate) fn call(
    name: &str,
    values: &[Value],
    names: &dyn Names,
    span: Span,
) -> Result<Option<Value>, Fault> {
    let failed = |error: String| {
        let detail = format!("Call to function {name:?} failed: {error}.");
        Fault::new(span, "Error in function call", detail)
    };
    if matches!(name, "bcrypt" | "rsadecrypt") {
        return Err(failed("rbuild does not have it".to_owned()));
    }
    let Some((_, function)) = TABLES
        .iter()
        .flat_map(|table| table.iter())
        .find(|(known, _)| *known == name)
    else {
        return Ok(None);
    };
    let weight: usize = values.iter().map(Value::weight).sum();
    names.meter().charge(weight, span)?;
    function(&Args { values, names }).map(Some).map_err(failed)
}

/// Whether there is such a function.
pub(crate) fn exists(name: &str) -> bool {
    matches!(name, "try" | "can" | "convert")
        || TABLES
            .iter()
            .flat_map(|table| table.iter())
            .any(|(known, _)| *known == name)
}

/// The name of a function that is almost `name`.
pub(crate) fn nearest(name: &str) -> Option<&'static str> {
    let known = TABLES
        .iter()
        .flat_map(|table| table.iter())
        .map(|(known, _)| *known);
    known
        .map(|known| (distance(known, name), known))
        .min()
        .filter(|(distance, _)| *distance <= 2)
        .map(|(_, known)| known)
}

fn distance(one: &str, two: &str) -> usize {
    let two: Vec<char> = two.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (at, left) in one.chars().enumerate() {
        let mut above = std::mem::replace(&mut row[0], at + 1);
        for (position, right) in two.iter().enumerate() {
            let best = (above + usize::from(left != *right))
                .min(row[position] + 1)
                .min(row[position + 1] + 1);
            above = std::mem::replace(&mut row[position + 1], best);
        }
    }
    row[two.len()]
}

/// Whether two values are the same: of the same type, and equal.
pub(crate) fn equal(one: &Value, two: &Value) -> bool {
    match (one, two) {
        (Value::Null(_), Value::Null(_)) => true,
        (one, two) => one == two,
    }
}
