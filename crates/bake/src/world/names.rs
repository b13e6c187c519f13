//! Where names lead: to variables, which the environment may override, to attributes of other blocks, and to functions of the
//! files.

use std::collections::BTreeMap;

use super::{Slot, World, unsuitable};
use crate::error::Fault;
use crate::eval::{Locals, Meter, Names, eval};
use crate::functions;
use crate::syntax::{Block, Expr, Node, Span};
use crate::target::{ATTRIBUTES, typed};
use crate::value::{Type, Value, convert};
use crate::variables::from_env;

/// `function "NAME" { … }`.
#[derive(Debug)]
pub(super) struct UserFunction<'a> {
    params: Vec<String>,
    variadic: Option<String>,
    result: &'a Expr,
}

impl World<'_> {
    /// What `target.NAME`, or one attribute of it, refers to.
    fn reference(&self, kind: &str, path: &[&str], span: Span) -> Result<Value, Fault> {
        let Some(name) = path.first() else {
            let detail = format!("cannot access {kind} as a variable");
            return Err(Fault::new(span, "Invalid expression", detail));
        };
        let mut found = None;
        for (at, block) in self.blocks.iter().enumerate() {
            // A matrix may give any name, others have their label.
            if block.kind != kind || (block.body.attribute("matrix").is_none() && block.labels[0] != **name) {
                continue;
            }
            let made = self.instances_of(at)?;
            found = made
                .into_iter()
                .find(|instance| instance.name == **name)
                .or(found);
        }
        let mut fields = BTreeMap::new();
        if let Some(instance) = found {
            let mut named = BTreeMap::new();
            for (attribute, of) in ATTRIBUTES {
                if path.get(1).is_some_and(|wanted| *wanted != attribute) {
                    continue;
                }
                let value = match instance.block.body.attribute(attribute) {
                    _ if attribute == "name" => Value::string(&instance.name),
                    Some(given) => {
                        let value = self.attribute_of(&instance, given)?;
                        typed(of, &value).map_err(|error| unsuitable(given.expr.span, &error))?
                    }
                    None => Value::Null(of.as_type()),
                };
                named.insert(attribute.to_owned(), value);
            }
            if kind == "group"
                && let Some(given) = instance.block.body.attribute("targets")
            {
                named.insert("targets".to_owned(), self.attribute_of(&instance, given)?);
            }
            fields.insert((*name).to_owned(), Value::Object(named));
        }
        Ok(Value::Object(fields))
    }

    fn resolve(&self, name: &str, span: Span) -> Result<Value, Fault> {
        if let Some(text) = self.surroundings.builtins.get(name) {
            return Ok(Value::string(text));
        }
        if let Some(attribute) = self.globals.get(name) {
            return eval(&attribute.expr, self, &Locals::new());
        }
        let Some(variable) = self.variables.get(name) else {
            let detail = format!("There is no variable named {name:?}.");
            return Err(Fault::new(span, "Unknown variable", detail));
        };
        let invalid = |error: String| Fault::new(variable.block.span, "Invalid value", error);
        let default = match variable.default {
            Some(expr) => {
                let value = eval(expr, self, &Locals::new())?;
                let of = variable.of.clone().unwrap_or(Type::Any);
                Some(convert(&value, &of).map_err(|error| {
                    invalid(format!(
                        "invalid type {} for variable {name} default value: {error}",
                        of.friendly()
                    ))
                })?)
            }
            None => None,
        };
        match self.overridden(name, variable.of.is_some()) {
            Some((text, is_json)) => {
                from_env(name, &text, is_json, variable.of.as_ref(), default.as_ref()).map_err(invalid)
            }
            None => Ok(default.unwrap_or_else(|| match &variable.of {
                Some(of) => Value::Null(of.clone()),
                None => Value::string(""),
            })),
        }
    }

    /// What the environment says of a variable, and whether it is JSON.
    fn overridden(&self, name: &str, favours_json: bool) -> Option<(String, bool)> {
        let plain = (self.surroundings.variable)(name);
        if plain.is_none() || favours_json {
            let json_name = format!("{name}_JSON");
            let is_own = self.variables.contains_key(json_name.as_str());
            if !is_own && let Some(json) = (self.surroundings.variable)(&json_name) {
                return Some((json, true));
            }
        }
        plain.map(|text| (text, false))
    }
}

impl Names for World<'_> {
    fn variable(&self, name: &str, path: &[&str], span: Span) -> Result<Value, Fault> {
        if matches!(name, "target" | "group") {
            return self.reference(name, path, span);
        }
        let told = || format!("variable cycle not allowed for {name}");
        self.once(format!("variable {name}"), span, told, || {
            self.resolve(name, span)
        })
    }

    fn call(&self, name: &str, args: &[Value], span: Span) -> Option<Result<Value, Fault>> {
        if functions::exists(name) {
            return None;
        }
        let function = self.functions.get(name)?;
        let missing = args.len() < function.params.len();
        if missing || (args.len() > function.params.len() && function.variadic.is_none()) {
            let detail = format!("Function {name:?} expects {} argument(s).", function.params.len());
            let summary = if missing {
                "Not enough function arguments"
            } else {
                "Too many function arguments"
            };
            return Some(Err(Fault::new(span, summary, detail)));
        }
        let mut locals: Locals = function
            .params
            .iter()
            .cloned()
            .zip(args.iter().cloned())
            .collect();
        if let Some(variadic) = &function.variadic {
            locals.insert(
                variadic.clone(),
                Value::Tuple(args[function.params.len()..].to_vec()),
            );
        }
        let busy = format!("function {name}");
        if self.values.borrow().contains_key(&busy) {
            let detail = format!("function cycle not allowed for {name}");
            return Some(Err(Fault::new(span, "Invalid function", detail)));
        }
        self.values.borrow_mut().insert(busy.clone(), Slot::Busy);
        let result = eval(function.result, self, &locals);
        self.values.borrow_mut().remove(&busy);
        Some(result)
    }

    fn meter(&self) -> &Meter {
        &self.meter
    }

    fn clock_and_home(&self) -> (i64, &str) {
        (self.surroundings.now, &self.surroundings.home)
    }
}

pub(super) fn function<'a>(name: &str, block: &'a Block) -> Result<UserFunction<'a>, Fault> {
    let fault = |detail: String| Fault::new(block.span, "Invalid function", detail);
    let param = |expr: &Expr| {
        let name = expr.keyword().map(str::to_owned);
        name.ok_or_else(|| {
            Fault::new(
                expr.span,
                "Invalid param element",
                "Each parameter name must be an identifier.",
            )
        })
    };
    let result = block
        .body
        .attribute("result")
        .ok_or_else(|| fault(format!("empty result not allowed for {name}")))?;
    let params = block
        .body
        .attribute("params")
        .ok_or_else(|| fault(format!("empty params not allowed for {name}")))?;
    let Node::Tuple(params) = &params.expr.node else {
        return Err(fault("params have to be a list of names".to_owned()));
    };
    let variadic = block.body.attribute("variadic_params");
    Ok(UserFunction {
        params: params.iter().map(param).collect::<Result<_, _>>()?,
        variadic: variadic.map(|attribute| param(&attribute.expr)).transpose()?,
        result: &result.expr,
    })
}
