//! What expressions come to (`hclsyntax/spec.md` of HCL). Names are resolved when they are met, by [`Names`]; everything an
//! expression makes is charged to a budget, so that no file takes more time or memory than it gives.

use std::cell::Cell;
use std::collections::BTreeMap;

use crate::error::Fault;
use crate::functions;
use crate::syntax::{BinaryOp, DEPTH_MAX, Expr, For, Node, Span, Step, UnaryOp};
use crate::value::{Number, Type, Value, convert, unify};

/// What the evaluation of all files together may take: bytes of values that were made, about.
const BUDGET: usize = 64 << 20;

/// Variables that hold within an expression.
pub(crate) type Locals = BTreeMap<String, Value>;

/// Where names lead that are no locals.
pub(crate) trait Names {
    /// The value of `name`; of a block's the one attribute that is asked for suffices.
    fn variable(&self, name: &str, path: &[&str], span: Span) -> Result<Value, Fault>;

    /// What a function of the files gives; `None` if there is none of that name.
    fn call(&self, name: &str, args: &[Value], span: Span) -> Option<Result<Value, Fault>>;

    /// What is left of the budget, and how deep expressions are nested.
    fn meter(&self) -> &Meter;

    /// Seconds since 1970, and the user's home directory.
    fn clock_and_home(&self) -> (i64, &str);
}

/// What was used so far.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    used: Cell<usize>,
    depth: Cell<usize>,
}

impl Meter {
    /// Takes `weight` of the budget.
    pub(crate) fn charge(&self, weight: usize, span: Span) -> Result<(), Fault> {
        self.used.set(self.used.get().saturating_add(weight));
        if self.used.get() > BUDGET {
            let detail = "the values of the file take more than there is room for.";
            return Err(Fault::new(span, "Too large", detail));
        }
        Ok(())
    }

    /// Does `work` one level deeper.
    pub(crate) fn deeper<T>(&self, span: Span, work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        // References lead from expression to expression: each of them may be nested.
        if self.depth.get() >= 2 * DEPTH_MAX {
            return Err(Fault::new(
                span,
                "Too much nesting",
                "expressions lead to each other too deeply.",
            ));
        }
        self.depth.set(self.depth.get() + 1);
        let done = work();
        self.depth.set(self.depth.get() - 1);
        done
    }
}

/// The value of `expr`.
///
/// # Errors
/// [`Fault`].
pub(crate) fn eval(expr: &Expr, names: &dyn Names, locals: &Locals) -> Result<Value, Fault> {
    let at = Place { names, locals };
    at.eval(expr)
}

struct Place<'a> {
    names: &'a dyn Names,
    locals: &'a Locals,
}

fn fault<T>(span: Span, summary: &'static str, detail: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::new(span, summary, detail))
}

impl Place<'_> {
    fn eval(&self, expr: &Expr) -> Result<Value, Fault> {
        let meter = self.names.meter();
        meter.deeper(expr.span, || {
            let value = self.node(expr)?;
            let is_made = !matches!(
                expr.node,
                Node::Variable(_) | Node::Attribute(..) | Node::Index(..)
            );
            meter.charge(if is_made { value.weight() } else { 16 }, expr.span)?;
            Ok(value)
        })
    }

    fn node(&self, expr: &Expr) -> Result<Value, Fault> {
        let span = expr.span;
        match &expr.node {
            Node::Literal(value) => Ok(value.clone()),
            Node::Template(parts) => self.template(parts),
            Node::Joined(parts) => {
                let parts = self.eval(parts)?;
                let texts = parts.elements().map(Vec::as_slice).unwrap_or_default();
                let texts = texts.iter().map(|part| text(part, span));
                Ok(Value::String(texts.collect::<Result<_, _>>()?))
            }
            Node::Tuple(elements) => {
                let elements = elements.iter().map(|element| self.eval(element));
                Ok(Value::Tuple(elements.collect::<Result<_, _>>()?))
            }
            Node::Object(items) => {
                let mut fields = BTreeMap::new();
                for (key, value) in items {
                    fields.insert(self.key(key)?, self.eval(value)?);
                }
                Ok(Value::Object(fields))
            }
            Node::Variable(name) => self.variable(name, &[], span),
            Node::Attribute(of, name) => self.attribute(of, name, span),
            Node::Index(of, index) => {
                let index = self.eval(index)?;
                if let (Value::String(name), Node::Variable(root)) = (&index, &of.node)
                    && !self.locals.contains_key(root)
                {
                    let value = self.names.variable(root, &[name], of.span)?;
                    return at_index(&value, &index, span);
                }
                at_index(&self.eval(of)?, &index, span)
            }
            Node::Splat(of, steps) => self.splat(of, steps, span),
            Node::Call { name, args, expands } => self.call(name, args, *expands, span),
            Node::For(inner) => self.repeated(inner, span),
            Node::Conditional(parts) => self.conditional(parts),
            Node::Unary(operator, operand) => {
                let value = self.eval(operand)?;
                match operator {
                    UnaryOp::Not => operand_of(&value, &Type::Bool, operand.span).map(|value| match value {
                        Value::Bool(value) => Value::Bool(!value),
                        other => other,
                    }),
                    UnaryOp::Negate => number(&value, operand.span).map(|value| number_value(-value)),
                }
            }
            Node::Binary(operator, operands) => self.binary(*operator, operands, span),
        }
    }

    fn variable(&self, name: &str, path: &[&str], span: Span) -> Result<Value, Fault> {
        match self.locals.get(name) {
            Some(value) => Ok(value.clone()),
            None => self.names.variable(name, path, span),
        }
    }

    /// `of.name`; of `kind.block.name` no more than that attribute is evaluated.
    fn attribute(&self, of: &Expr, name: &str, span: Span) -> Result<Value, Fault> {
        let mut path = vec![name];
        let mut root = of;
        let mut index = None;
        loop {
            match &root.node {
                Node::Attribute(inner, name) => {
                    path.push(name);
                    root = inner;
                }
                Node::Index(inner, key) if matches!(inner.node, Node::Variable(_)) && path.len() == 1 => {
                    index = Some(self.eval(key)?);
                    root = inner;
                }
                _ => break,
            }
        }
        if let Some(Value::String(key)) = &index {
            path.push(key);
        }
        path.reverse();
        match &root.node {
            Node::Variable(root_name) if index.is_none() || matches!(index, Some(Value::String(_))) => {
                let value = self.variable(root_name, &path, root.span)?;
                path.iter()
                    .try_fold(value, |value, name| field(&value, name, span))
            }
            _ => field(&self.eval(of)?, name, span),
        }
    }

    fn key(&self, key: &Expr) -> Result<String, Fault> {
        let value = self.eval(key)?;
        if value.is_null() {
            return fault(key.span, "Null value as key", "Can't use a null value as a key.");
        }
        text(&value, key.span)
    }

    fn template(&self, parts: &[Expr]) -> Result<Value, Fault> {
        let mut joined = String::new();
        for part in parts {
            let value = self.eval(part)?;
            if value.is_null() {
                let detail =
                    "The expression result is null. Cannot include a null value in a string template.";
                return fault(part.span, "Invalid template interpolation value", detail);
            }
            joined.push_str(&text(&value, part.span)?);
        }
        Ok(Value::String(joined))
    }

    fn splat(&self, of: &Expr, steps: &[Step], span: Span) -> Result<Value, Fault> {
        let value = self.eval(of)?;
        let elements = match &value {
            Value::Null(_) => Vec::new(),
            other => other.elements().cloned().unwrap_or_else(|| vec![value.clone()]),
        };
        let mut result = Vec::with_capacity(elements.len());
        for mut element in elements {
            for step in steps {
                element = match step {
                    Step::Attribute(name) => field(&element, name, span)?,
                    Step::Index(index) => at_index(&element, &self.eval(index)?, span)?,
                };
            }
            result.push(element);
        }
        Ok(Value::Tuple(result))
    }

    fn call(&self, name: &str, args: &[Expr], expands: bool, span: Span) -> Result<Value, Fault> {
        match name {
            "try" | "can" => return self.tried(name, args, span),
            "convert" => {
                let [value, to] = args else {
                    return fault(
                        span,
                        "Error in function call",
                        "convert takes a value and a type.",
                    );
                };
                let to = crate::variables::type_of(to)?;
                return convert(&self.eval(value)?, &to)
                    .or_else(|error| fault(span, "Error in function call", error));
            }
            _ => {}
        }
        let mut values = Vec::with_capacity(args.len());
        for (at, arg) in args.iter().enumerate() {
            let value = self.eval(arg)?;
            if expands && at + 1 == args.len() {
                let Some(elements) = value.elements() else {
                    let detail =
                        "The expanding argument (indicated by ...) must be of a tuple, list, or set type.";
                    return fault(arg.span, "Invalid expanding argument value", detail);
                };
                values.extend(elements.iter().cloned());
            } else {
                values.push(value);
            }
        }
        if let Some(result) = self.names.call(name, &values, span) {
            return result;
        }
        match functions::call(name, &values, self.names, span)? {
            Some(value) => Ok(value),
            None => {
                let mut detail = format!("There is no function named {name:?}.");
                if let Some(nearest) = functions::nearest(name) {
                    detail = format!("{detail} Did you mean {nearest:?}?");
                }
                fault(span, "Call to unknown function", detail)
            }
        }
    }

    fn tried(&self, name: &str, args: &[Expr], span: Span) -> Result<Value, Fault> {
        if name == "can" {
            let [arg] = args else {
                return fault(span, "Error in function call", "can takes one argument.");
            };
            return Ok(Value::Bool(self.eval(arg).is_ok()));
        }
        let mut told = Vec::new();
        for arg in args {
            match self.eval(arg) {
                Ok(value) => return Ok(value),
                Err(error) => told.push(format!("{}; {}", error.summary, error.detail)),
            }
        }
        let detail = format!("no expression succeeded: {}", told.join(", "));
        fault(span, "Error in function call", detail)
    }

    fn repeated(&self, inner: &For, span: Span) -> Result<Value, Fault> {
        let collection = self.eval(&inner.collection)?;
        let pairs: Vec<(Value, Value)> = match (&collection, collection.elements(), collection.fields()) {
            (Value::Set(_, values), ..) => values.iter().map(|v| (v.clone(), v.clone())).collect(),
            (_, Some(values), _) => (0..).map(Value::integer).zip(values.iter().cloned()).collect(),
            (_, _, Some(fields)) => fields
                .iter()
                .map(|(name, value)| (Value::string(name), value.clone()))
                .collect(),
            (Value::Null(_), ..) => {
                return fault(
                    span,
                    "Iteration over null value",
                    "A null value cannot be used as the collection in a 'for' expression.",
                );
            }
            _ => {
                let detail = format!(
                    "A value of type {} cannot be used as the collection in a 'for' expression.",
                    collection.type_of().friendly()
                );
                return fault(inner.collection.span, "Iteration over non-iterable value", detail);
            }
        };
        let mut locals = self.locals.clone();
        let mut elements = Vec::new();
        let mut fields: BTreeMap<String, Value> = BTreeMap::new();
        for (key, value) in pairs {
            if let Some(name) = &inner.key {
                locals.insert(name.clone(), key);
            }
            locals.insert(inner.value.clone(), value);
            let place = Place {
                names: self.names,
                locals: &locals,
            };
            if let Some(condition) = &inner.condition
                && place.truth(condition)? == Value::Bool(false)
            {
                continue;
            }
            let Some(key) = &inner.key_result else {
                elements.push(place.eval(&inner.result)?);
                continue;
            };
            let (name, value) = (place.key(key)?, place.eval(&inner.result)?);
            if inner.groups {
                let group = fields.entry(name).or_insert_with(|| Value::Tuple(Vec::new()));
                if let Value::Tuple(values) = group {
                    values.push(value);
                }
            } else if fields.insert(name.clone(), value).is_some() {
                let detail = format!(
                    "Two different items produced the key {name:?} in this 'for' expression. If duplicates are expected, use the ellipsis (...) after the value expression to enable grouping by key."
                );
                return fault(key.span, "Duplicate object key", detail);
            }
        }
        Ok(match inner.key_result {
            None => Value::Tuple(elements),
            Some(_) => Value::Object(fields),
        })
    }

    fn truth(&self, condition: &Expr) -> Result<Value, Fault> {
        operand_of(&self.eval(condition)?, &Type::Bool, condition.span)
    }

    fn conditional(&self, [condition, yes, no]: &[Expr; 3]) -> Result<Value, Fault> {
        let truth = self.eval(condition)?;
        if truth.is_null() {
            let detail = "The condition value is null. Conditions must either be true or false.";
            return fault(condition.span, "Null condition", detail);
        }
        let Ok(Value::Bool(truth)) = convert(&truth, &Type::Bool) else {
            let detail = "The condition expression must be of type bool.";
            return fault(condition.span, "Incorrect condition type", detail);
        };
        // Both are evaluated, for they have to become one type; what is wrong with the other one is nobody's concern.
        let (chosen, other) = if truth { (yes, no) } else { (no, yes) };
        let value = self.eval(chosen)?;
        let other = self.eval(other).map_or(Type::Any, |value| value.type_of());
        let Some(of) = unify([value.type_of(), other.clone()]) else {
            let (yes_type, no_type) = if truth {
                (value.type_of(), other)
            } else {
                (other, value.type_of())
            };
            let detail = format!(
                "The true and false result expressions must have consistent types. The 'true' value is {}, but the 'false' value is {}.",
                yes_type.friendly(),
                no_type.friendly()
            );
            return fault(
                yes.span.to(no.span),
                "Inconsistent conditional result types",
                detail,
            );
        };
        convert(&value, &of)
            .or_else(|error| fault(chosen.span, "Inconsistent conditional result types", error))
    }

    fn binary(&self, operator: BinaryOp, [left, right]: &[Expr; 2], span: Span) -> Result<Value, Fault> {
        let one = self.eval(left)?;
        if let (BinaryOp::Or | BinaryOp::And, Ok(Value::Bool(decided))) =
            (operator, convert(&one, &Type::Bool))
            && decided == (operator == BinaryOp::Or)
        {
            return Ok(Value::Bool(decided));
        }
        let two = self.eval(right)?;
        let numbers = || Ok::<_, Fault>((number(&one, left.span)?, number(&two, right.span)?));
        let truths = || {
            let one = operand_of(&one, &Type::Bool, left.span)?;
            let two = operand_of(&two, &Type::Bool, right.span)?;
            Ok::<_, Fault>((one == Value::Bool(true), two == Value::Bool(true)))
        };
        Ok(match operator {
            BinaryOp::Or => truths().map(|(one, two)| Value::Bool(one || two))?,
            BinaryOp::And => truths().map(|(one, two)| Value::Bool(one && two))?,
            BinaryOp::Equal => Value::Bool(functions::equal(&one, &two)),
            BinaryOp::NotEqual => Value::Bool(!functions::equal(&one, &two)),
            BinaryOp::Greater => numbers().map(|(one, two)| Value::Bool(one > two))?,
            BinaryOp::GreaterOrEqual => numbers().map(|(one, two)| Value::Bool(one >= two))?,
            BinaryOp::Less => numbers().map(|(one, two)| Value::Bool(one < two))?,
            BinaryOp::LessOrEqual => numbers().map(|(one, two)| Value::Bool(one <= two))?,
            BinaryOp::Add => numbers().map(|(one, two)| number_value(one + two))?,
            BinaryOp::Subtract => numbers().map(|(one, two)| number_value(one - two))?,
            BinaryOp::Multiply => numbers().map(|(one, two)| number_value(one * two))?,
            BinaryOp::Divide => match numbers()? {
                (_, 0.0) => return fault(span, "Division by zero", "a number cannot be divided by zero."),
                (one, two) => number_value(one / two),
            },
            BinaryOp::Modulo => match numbers()? {
                (_, 0.0) => return fault(span, "Division by zero", "a number cannot be divided by zero."),
                (one, two) => number_value(one % two),
            },
        })
    }
}

/// A number; what is too large for one is none.
fn number_value(value: f64) -> Value {
    Number::new(value).map_or(Value::Null(Type::Number), Value::Number)
}

fn operand_of(value: &Value, to: &Type, span: Span) -> Result<Value, Fault> {
    let unsuitable = |error: String| {
        let detail = format!("Unsuitable value for operand: {error}.");
        Fault::new(span, "Invalid operand", detail)
    };
    if value.is_null() {
        return Err(unsuitable("argument must not be null".to_owned()));
    }
    convert(value, to).map_err(unsuitable)
}

fn number(value: &Value, span: Span) -> Result<f64, Fault> {
    match operand_of(value, &Type::Number, span)? {
        Value::Number(number) => Ok(number.get()),
        _ => fault(
            span,
            "Invalid operand",
            "Unsuitable value for operand: a number is required.",
        ),
    }
}

fn text(value: &Value, span: Span) -> Result<String, Fault> {
    match convert(value, &Type::String) {
        Ok(Value::String(text)) => Ok(text),
        _ => {
            let detail = "Cannot include the given value in a string template: string required.";
            fault(span, "Invalid template interpolation value", detail)
        }
    }
}

fn field(value: &Value, name: &str, span: Span) -> Result<Value, Fault> {
    if value.is_null() {
        let detail = "This value is null, so it does not have any attributes.";
        return fault(span, "Attempt to get attribute from null value", detail);
    }
    match value.fields() {
        Some(fields) => match fields.get(name) {
            Some(value) => Ok(value.clone()),
            None => {
                let detail = format!("This object does not have an attribute named {name:?}.");
                fault(span, "Unsupported attribute", detail)
            }
        },
        None => {
            let detail = format!(
                "Can't access attributes on a {}-typed value.",
                value.type_of().friendly()
            );
            fault(span, "Unsupported attribute", detail)
        }
    }
}

pub(crate) fn at_index(value: &Value, index: &Value, span: Span) -> Result<Value, Fault> {
    let invalid = |detail: &str| fault(span, "Invalid index", detail);
    match (value, value.fields()) {
        (Value::Null(_), _) => fault(
            span,
            "Attempt to index null value",
            "This value is null, so it does not have any indices.",
        ),
        (_, Some(fields)) => match convert(index, &Type::String) {
            Ok(Value::String(name)) => fields.get(&name).cloned().map_or_else(
                || invalid("The given key does not identify an element in this collection value."),
                Ok,
            ),
            _ => invalid("The given key has to be a text."),
        },
        (Value::List(_, values) | Value::Tuple(values), _) => {
            let at = match convert(index, &Type::Number) {
                Ok(Value::Number(number)) => number.integer(),
                _ => None,
            };
            let found = at
                .and_then(|at| usize::try_from(at).ok())
                .and_then(|at| values.get(at));
            found.cloned().map_or_else(
                || invalid("The given key does not identify an element in this collection value."),
                Ok,
            )
        }
        _ => invalid("This value does not have any indices."),
    }
}
