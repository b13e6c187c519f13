//! Everything that files define, and how names in them are resolved: each variable, function and attribute when it is asked
//! for first, and never while it is being resolved (`bake/hclparser/hclparser.go` of buildx).

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::error::Fault;
use crate::eval::{Locals, Meter, Names, eval};
use crate::functions;
use crate::syntax::{Attribute, Block, Body, Expr, Node, Span};
use crate::target::{ATTRIBUTES, Target, typed};
use crate::value::{Type, Value, convert};
use crate::variables::{Variable, from_env};

/// Most targets that a matrix makes, and most of all files.
pub(crate) const TARGETS_MAX: usize = 4096;

/// What the caller knows.
pub struct Surroundings<'a> {
    /// The value of a variable of the environment, `--var` before it.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Text of the `.env` file, which compose files take variables from.
    pub dotenv: String,
    /// A file that a compose file names.
    pub file: &'a dyn Fn(&str) -> std::io::Result<String>,
    /// Variables that every file has.
    pub builtins: BTreeMap<String, String>,
    /// Seconds since 1970.
    pub now: i64,
    /// The user's home directory.
    pub home: String,
}

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Surroundings")
            .field("builtins", &self.builtins)
            .finish_non_exhaustive()
    }
}

/// A variable as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its type, if it has one.
    pub of: String,
    /// Its value; `None` is `null`.
    pub value: Option<String>,
}

/// `function "NAME" { … }`.
#[derive(Debug)]
struct UserFunction<'a> {
    params: Vec<String>,
    variadic: Option<String>,
    result: &'a Expr,
}

/// A block with the variables of one element of its matrix.
#[derive(Debug)]
struct Instance<'a> {
    name: String,
    block: &'a Block,
    locals: Locals,
}

/// A value, or that it is being resolved.
#[derive(Debug)]
enum Slot {
    Busy,
    Done(Value),
}

/// What files define.
pub(crate) struct World<'a> {
    surroundings: &'a Surroundings<'a>,
    globals: BTreeMap<&'a str, &'a Attribute>,
    variables: BTreeMap<&'a str, Variable<'a>>,
    functions: BTreeMap<&'a str, UserFunction<'a>>,
    blocks: Vec<&'a Block>,
    instances: RefCell<BTreeMap<usize, Vec<std::rc::Rc<Instance<'a>>>>>,
    values: RefCell<BTreeMap<String, Slot>>,
    meter: Meter,
}

/// A group of targets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Targets and groups.
    pub targets: Vec<String>,
    /// Nothing is said of its targets, not even that there are none.
    pub is_null: bool,
}

/// What the HCL files give.
#[derive(Debug, Default)]
pub(crate) struct Defined {
    pub(crate) groups: Vec<Group>,
    pub(crate) targets: Vec<Target>,
    pub(crate) variables: Vec<Listed>,
    /// Attributes of targets that there are not.
    pub(crate) unknown: Vec<(Span, String)>,
}

impl<'a> World<'a> {
    pub(crate) fn new(bodies: &'a [Body], surroundings: &'a Surroundings<'a>) -> Result<Self, Fault> {
        let mut world = Self {
            surroundings,
            globals: BTreeMap::new(),
            variables: BTreeMap::new(),
            functions: BTreeMap::new(),
            blocks: Vec::new(),
            instances: RefCell::default(),
            values: RefCell::default(),
            meter: Meter::default(),
        };
        for body in bodies {
            for attribute in &body.attributes {
                world.globals.insert(&attribute.name, attribute);
            }
            for block in &body.blocks {
                let kind = block.kind.as_str();
                if !matches!(kind, "variable" | "function" | "target" | "group") {
                    continue;
                }
                let [label] = block.labels.as_slice() else {
                    let detail = format!("invalid block label: {:?}", block.labels);
                    return Err(Fault::new(block.span, "Invalid block", detail));
                };
                match kind {
                    "variable" => {
                        world.variables.insert(label, Variable::read(block)?);
                    }
                    "function" => {
                        world.functions.insert(label, function(label, block)?);
                    }
                    _ if world.blocks.len() >= TARGETS_MAX => {
                        let detail = format!("more than {TARGETS_MAX} targets and groups are defined.");
                        return Err(Fault::new(block.span, "Too large", detail));
                    }
                    _ => world.blocks.push(block),
                }
            }
        }
        Ok(world)
    }

    /// Resolves everything.
    ///
    /// # Errors
    /// [`Fault`].
    pub(crate) fn define(&self) -> Result<Defined, Fault> {
        let mut defined = Defined::default();
        for (name, variable) in &self.variables {
            defined.variables.push(self.listed(name, variable)?);
        }
        for variable in self.variables.values() {
            self.validate(variable)?;
        }
        for at in 0..self.blocks.len() {
            let made = self.instances_of(at)?;
            let block = self.blocks[at];
            for instance in made {
                if block.kind == "group" {
                    self.group(&instance, &mut defined)?;
                } else {
                    self.target(&instance, &mut defined)?;
                }
            }
        }
        for (at, block) in self
            .blocks
            .iter()
            .enumerate()
            .filter(|(_, block)| block.kind == "target")
        {
            let names: Vec<String> = self
                .instances_of(at)?
                .iter()
                .map(|instance| instance.name.clone())
                .collect();
            if names.as_slice() != std::slice::from_ref(&block.labels[0]) {
                let name = block.labels[0].clone();
                match defined
                    .groups
                    .iter_mut()
                    .find(|group| group.name == name && group.description.is_empty())
                {
                    Some(group) => group.targets.extend(names),
                    None => defined.groups.push(Group {
                        name,
                        description: String::new(),
                        targets: names,
                        is_null: false,
                    }),
                }
            }
        }
        for name in self.globals.keys() {
            self.variable(name, &[], self.globals[name].span)?;
        }
        Ok(defined)
    }

    fn listed(&self, name: &str, variable: &Variable<'_>) -> Result<Listed, Fault> {
        let value = self.variable(name, &[], variable.block.span)?;
        let shown = match &value {
            Value::Null(_) => None,
            value => Some(match convert(value, &Type::String) {
                Ok(Value::String(text)) => text,
                _ => value.to_json().to_string(),
            }),
        };
        let of = variable.of.as_ref().map(|of| match of {
            Type::Any => "dynamic".to_owned(),
            of => of.constraint(),
        });
        Ok(Listed {
            name: name.to_owned(),
            description: variable.description.clone(),
            of: of.unwrap_or_default(),
            value: shown,
        })
    }

    fn validate(&self, variable: &Variable<'_>) -> Result<(), Fault> {
        for (condition, message) in &variable.validations {
            let result = eval(condition, self, &Locals::new())?;
            if result.is_null() {
                let detail = "Condition expression must return either true or false, not null.";
                return Err(Fault::new(condition.span, "Invalid condition result", detail));
            }
            let holds = convert(&result, &Type::Bool).map_err(|error| {
                let detail = format!("Invalid condition result value: {error}");
                Fault::new(condition.span, "Invalid condition result", detail)
            })?;
            if holds == Value::Bool(false) {
                let told = match eval(message, self, &Locals::new())? {
                    Value::String(text) => text,
                    _ => "This check failed, but has an invalid error message.".to_owned(),
                };
                return Err(Fault::new(condition.span, "Validation failed", told));
            }
        }
        Ok(())
    }

    fn group(&self, instance: &Instance<'_>, defined: &mut Defined) -> Result<(), Fault> {
        let (block, span) = (instance.block, instance.block.span);
        let Some(targets) = block.body.attribute("targets") else {
            let detail = "The argument \"targets\" is required, but no definition was found.";
            return Err(Fault::new(span, "Missing required argument", detail));
        };
        let mut read = Target::default();
        let unsuitable = |error: crate::entries::EntryError| unsuitable(targets.expr.span, &error);
        read.set("tags", &eval(&targets.expr, self, &instance.locals)?)
            .map_err(unsuitable)?;
        if let Some(description) = block.body.attribute("description") {
            let value = eval(&description.expr, self, &instance.locals)?;
            read.set("description", &value).map_err(unsuitable)?;
        }
        let group = Group {
            name: instance.name.clone(),
            description: read.description,
            is_null: read.tags.is_none(),
            targets: read.tags.unwrap_or_default(),
        };
        match defined.groups.iter_mut().find(|known| known.name == group.name) {
            Some(known) => *known = group,
            None => defined.groups.push(group),
        }
        Ok(())
    }

    fn target(&self, instance: &std::rc::Rc<Instance<'a>>, defined: &mut Defined) -> Result<(), Fault> {
        let mut target = Target {
            name: instance.name.clone(),
            ..Target::default()
        };
        for attribute in &instance.block.body.attributes {
            let name = attribute.name.as_str();
            if matches!(name, "matrix" | "name") {
                continue;
            }
            if ATTRIBUTES.iter().all(|(known, _)| *known != name) {
                defined.unknown.push((attribute.span, name.to_owned()));
                continue;
            }
            let value = self.attribute_of(instance, attribute)?;
            target
                .set(name, &value)
                .map_err(|error| unsuitable(attribute.expr.span, &error))?;
        }
        match defined.targets.iter_mut().find(|known| known.name == target.name) {
            Some(known) => known.merge(&target),
            None => defined.targets.push(target),
        }
        if defined.targets.len() > TARGETS_MAX {
            let detail = format!("more than {TARGETS_MAX} targets are defined.");
            return Err(Fault::new(instance.block.span, "Too large", detail));
        }
        Ok(())
    }

    /// The value of an attribute of a block, resolved once.
    fn attribute_of(&self, instance: &Instance<'_>, attribute: &Attribute) -> Result<Value, Fault> {
        let key = format!("{:p} {} {}", instance.block, instance.name, attribute.name);
        let told = || {
            let (kind, name) = (&instance.block.kind, &instance.name);
            format!("reference cycle not allowed for {kind}.{name}.{}", attribute.name)
        };
        self.once(key, attribute.span, told, || {
            eval(&attribute.expr, self, &instance.locals)
        })
    }

    fn once(
        &self,
        key: String,
        span: Span,
        told: impl FnOnce() -> String,
        resolve: impl FnOnce() -> Result<Value, Fault>,
    ) -> Result<Value, Fault> {
        match self.values.borrow().get(&key) {
            Some(Slot::Done(value)) => return Ok(value.clone()),
            Some(Slot::Busy) => return Err(Fault::new(span, "Invalid expression", told())),
            None => {}
        }
        self.values.borrow_mut().insert(key.clone(), Slot::Busy);
        let resolved = resolve();
        let mut values = self.values.borrow_mut();
        match &resolved {
            Ok(value) => values.insert(key, Slot::Done(value.clone())),
            // `try` may ask again.
            Err(_) => values.remove(&key),
        };
        resolved
    }

    /// The instances that a block's matrix makes of it.
    fn instances_of(&self, at: usize) -> Result<Vec<std::rc::Rc<Instance<'a>>>, Fault> {
        if let Some(known) = self.instances.borrow().get(&at) {
            return Ok(known.clone());
        }
        let made = self.expand(self.blocks[at])?;
        let made: Vec<_> = made.into_iter().map(std::rc::Rc::new).collect();
        self.instances.borrow_mut().insert(at, made.clone());
        Ok(made)
    }

    fn expand(&self, block: &'a Block) -> Result<Vec<Instance<'a>>, Fault> {
        let label = &block.labels[0];
        let fault = |detail: String| Fault::new(block.span, "Invalid name", detail);
        let valid = |name: &str| {
            let is_valid = |next: char| next.is_ascii_alphanumeric() || matches!(next, '_' | '-');
            if name.is_empty() || !name.chars().all(is_valid) {
                return Err(fault("only \"[a-zA-Z0-9_-]+\" are allowed".to_owned()));
            }
            Ok(())
        };
        valid(label)?;
        let (matrix, named) = (block.body.attribute("matrix"), block.body.attribute("name"));
        if block.kind == "group" && (matrix.is_some() || named.is_some()) {
            let what = if matrix.is_some() { "matrix" } else { "name" };
            return Err(fault(format!("{what} is not supported for groups")));
        }
        let Some(matrix) = matrix else {
            if named.is_some() {
                return Err(fault("name requires matrix".to_owned()));
            }
            return Ok(vec![Instance {
                name: label.clone(),
                block,
                locals: Locals::new(),
            }]);
        };
        let value = eval(&matrix.expr, self, &Locals::new())?;
        let axes = value
            .fields()
            .ok_or_else(|| fault("matrix must be a map".to_owned()))?;
        let mut rows = vec![Locals::new()];
        for (axis, values) in axes {
            let values: Vec<&Value> = match (values.elements(), values.fields()) {
                (Some(values), _) => values.iter().collect(),
                (_, Some(fields)) => fields.values().collect(),
                _ => return Err(fault("matrix values must be a list".to_owned())),
            };
            if rows.len().saturating_mul(values.len()) > TARGETS_MAX {
                return Err(fault(format!("the matrix makes more than {TARGETS_MAX} targets")));
            }
            let mut longer = Vec::with_capacity(rows.len() * values.len());
            for value in values {
                for row in &rows {
                    let mut row = row.clone();
                    row.insert(axis.clone(), value.clone());
                    longer.push(row);
                }
            }
            rows = longer;
        }
        let mut made: Vec<Instance<'a>> = Vec::with_capacity(rows.len());
        for locals in rows {
            let name = match named {
                None => label.clone(),
                Some(named) => match convert(&eval(&named.expr, self, &locals)?, &Type::String) {
                    Ok(Value::String(name)) => name,
                    _ => return Err(fault("the name is no text".to_owned())),
                },
            };
            valid(&name)?;
            if made.iter().any(|known| known.name == name) {
                return Err(fault(format!("duplicate name {name:?}")));
            }
            made.push(Instance { name, block, locals });
        }
        Ok(made)
    }

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

fn unsuitable(span: Span, error: &crate::entries::EntryError) -> Fault {
    Fault::new(
        span,
        "Unsuitable value type",
        format!("Unsuitable value: {error}"),
    )
}

fn function<'a>(name: &str, block: &'a Block) -> Result<UserFunction<'a>, Fault> {
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
