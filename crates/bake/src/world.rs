//! Everything that files define, and how names in them are resolved: each variable, function and attribute when it is asked
//! for first, and never while it is being resolved (`bake/hclparser/hclparser.go` of buildx).

mod matrix;
mod names;

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::error::Fault;
use crate::eval::{Locals, Meter, Names as _, eval};
use crate::syntax::{Attribute, Block, Body, Span};
use crate::target::{ATTRIBUTES, Target};
use crate::value::{Type, Value, convert};
use crate::variables::Variable;
use matrix::Instance;
use names::{UserFunction, function};

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
}

fn unsuitable(span: Span, error: &crate::entries::EntryError) -> Fault {
    Fault::new(
        span,
        "Unsuitable value type",
        format!("Unsuitable value: {error}"),
    )
}
