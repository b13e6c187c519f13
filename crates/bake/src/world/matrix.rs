//! What a matrix makes of a block: an instance for each of its rows, with a name and the row's variables.

use super::{TARGETS_MAX, World};
use crate::error::Fault;
use crate::eval::{Locals, eval};
use crate::syntax::Block;
use crate::value::{Type, Value, convert};

/// A block with the variables of one element of its matrix.
#[derive(Debug)]
pub(super) struct Instance<'a> {
    pub(super) name: String,
    pub(super) block: &'a Block,
    pub(super) locals: Locals,
}

impl<'a> World<'a> {
    /// The instances that a block's matrix makes of it.
    pub(super) fn instances_of(&self, at: usize) -> Result<Vec<std::rc::Rc<Instance<'a>>>, Fault> {
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
}
