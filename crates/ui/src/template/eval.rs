//! Nodes and data to text.

use serde_json::Value;

use super::functions::{self, Function, is_true};
use super::parse::{Call, From, Node, Pipeline, Term};
use super::print;
use crate::documents;

/// Text that a template may make of one image.
const OUTPUT_MAX: usize = 16 << 20;

/// Why a template does not fit the data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// A field that is not there, or of something that has none.
    #[error("template: can't evaluate field {0}")]
    Field(String),
    /// Too few or too many, or of a kind that the function does not take.
    #[error("template: wrong arguments for {0}")]
    Arguments(&'static str),
    /// An index beyond the end.
    #[error("template: index out of range: {0}")]
    Range(i64),
    /// More than a template has to say.
    #[error("template: more than {OUTPUT_MAX} bytes")]
    Long,
}

/// What it means that a field is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fields {
    /// An error: the data has all of them.
    Known,
    /// It has no value: the data leaves out what is empty.
    Open,
    /// An error; and functions leave what they get as it is.
    Titles,
}

/// How a list of nodes ended.
enum Flow {
    Next,
    Break,
    Continue,
}

/// The data, and what variables hold.
pub(super) struct Scope<'a> {
    fields: Fields,
    variables: Vec<(String, Value)>,
    out: String,
    whole: &'a Value,
}

impl<'a> Scope<'a> {
    pub(super) const fn new(whole: &'a Value, fields: Fields) -> Self {
        Self {
            fields,
            variables: Vec::new(),
            out: String::new(),
            whole,
        }
    }

    pub(super) fn render(mut self, nodes: &[Node]) -> Result<String, EvalError> {
        self.block(nodes, self.whole)?;
        Ok(self.out)
    }

    fn block(&mut self, nodes: &[Node], here: &Value) -> Result<Flow, EvalError> {
        for node in nodes {
            let outside = self.variables.len();
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Print(pipeline) => {
                    let value = self.pipeline(pipeline, here)?;
                    if pipeline.variables.is_empty() {
                        match value {
                            Value::Null if self.is_pointer(pipeline) => self.out.push_str("<nil>"),
                            _ => print(&value, &mut self.out),
                        }
                    }
                    self.set(pipeline, &[value]);
                }
                Node::If {
                    test,
                    is_with,
                    then,
                    otherwise,
                } => {
                    let value = self.pipeline(test, here)?;
                    self.set(test, std::slice::from_ref(&value));
                    let (branch, here) = match is_true(&value) {
                        true if *is_with => (then, &value),
                        true => (then, here),
                        false => (otherwise, here),
                    };
                    let flow = self.block(branch, here)?;
                    self.variables.truncate(outside);
                    if !matches!(flow, Flow::Next) {
                        return Ok(flow);
                    }
                }
                Node::Range { over, body, empty } => {
                    let flow = self.range(over, body, empty, here)?;
                    self.variables.truncate(outside);
                    if !matches!(flow, Flow::Next) {
                        return Ok(flow);
                    }
                }
                Node::Break => return Ok(Flow::Break),
                Node::Continue => return Ok(Flow::Continue),
            }
            if self.out.len() > OUTPUT_MAX {
                return Err(EvalError::Long);
            }
        }
        Ok(Flow::Next)
    }

    /// Whether what a pipeline is of is a field that may point to nothing, and not a key of the user's.
    fn is_pointer(&self, pipeline: &Pipeline) -> bool {
        let [call] = pipeline.calls.as_slice() else {
            return false;
        };
        match (call.function, call.arguments.as_slice()) {
            (None, [Term::Path { keys, .. }]) => match keys.as_slice() {
                [.., map, _] if MAPS.contains(&map.as_str()) => false,
                keys => self.fields == Fields::Known && !keys.is_empty(),
            },
            _ => false,
        }
    }

    fn range(
        &mut self,
        over: &Pipeline,
        body: &[Node],
        empty: &[Node],
        here: &Value,
    ) -> Result<Flow, EvalError> {
        let items: Vec<(Value, Value)> = match self.pipeline(over, here)? {
            Value::Array(items) => (0_usize..).map(Value::from).zip(items).collect(),
            // Go ranges over the values of a map in the order of its keys.
            Value::Object(fields) => {
                let mut fields: Vec<(String, Value)> = fields.into_iter().collect();
                fields.sort_by(|a, b| a.0.cmp(&b.0));
                fields
                    .into_iter()
                    .map(|(key, value)| (key.into(), value))
                    .collect()
            }
            Value::Null => Vec::new(),
            _ => return Err(EvalError::Arguments("range")),
        };
        if items.is_empty() {
            return self.block(empty, here);
        }
        let outside = self.variables.len();
        for (key, item) in items {
            match over.variables.len() {
                2 => self.set(over, &[key, item.clone()]),
                _ => self.set(over, std::slice::from_ref(&item)),
            }
            let flow = self.block(body, &item)?;
            self.variables.truncate(outside);
            if matches!(flow, Flow::Break) {
                break;
            }
        }
        Ok(Flow::Next)
    }

    /// Gives the variables of `pipeline` what it came to.
    fn set(&mut self, pipeline: &Pipeline, values: &[Value]) {
        for (name, value) in pipeline.variables.iter().zip(values) {
            let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
            match known {
                Some((_, held)) if !pipeline.is_declaration => *held = value.clone(),
                _ => self.variables.push((name.clone(), value.clone())),
            }
        }
    }

    fn pipeline(&self, pipeline: &Pipeline, here: &Value) -> Result<Value, EvalError> {
        let mut last: Option<Value> = None;
        for call in &pipeline.calls {
            last = Some(self.call(call, last.take(), here)?);
        }
        Ok(last.unwrap_or(Value::Null))
    }

    /// One call; what came through the pipe is its last argument.
    fn call(&self, call: &Call, piped: Option<Value>, here: &Value) -> Result<Value, EvalError> {
        let Some(function) = call.function else {
            return match (call.arguments.as_slice(), piped) {
                ([value], None) => self.term(value, here),
                _ => Err(EvalError::Arguments("a value")),
            };
        };
        if matches!(function, Function::And | Function::Or) {
            // What decides is the last that is looked at.
            let mut value = None;
            for argument in &call.arguments {
                let found = self.term(argument, here)?;
                let is_decided = is_true(&found) == (function == Function::Or);
                value = Some(found);
                if is_decided {
                    return value.ok_or(EvalError::Arguments(function.name()));
                }
            }
            return piped.or(value).ok_or(EvalError::Arguments(function.name()));
        }
        let arguments = call.arguments.iter().map(|argument| match function {
            // What was never set is `null` in JSON, and an empty list or map everywhere else.
            Function::Json => self.raw(argument, here),
            _ => self.term(argument, here),
        });
        let mut arguments: Vec<Value> = arguments.collect::<Result<_, _>>()?;
        arguments.extend(piped);
        if self.fields == Fields::Titles && function.changes_values() {
            let title = arguments.iter().find(|argument| argument.is_string());
            return title.cloned().ok_or(EvalError::Arguments(function.name()));
        }
        if let (Function::Json, Fields::Open, [value]) = (function, self.fields, arguments.as_slice()) {
            return Ok(documents::text(value, documents::BUILDX).into());
        }
        functions::apply(function, &arguments)
    }

    fn term(&self, term: &Term, here: &Value) -> Result<Value, EvalError> {
        let value = self.raw(term, here)?;
        let Term::Path { keys, .. } = term else {
            return Ok(value);
        };
        Ok(match (value, keys.last().map(String::as_str)) {
            (Value::Null, Some(key)) if MAPS.contains(&key) => Value::Object(serde_json::Map::new()),
            (Value::Null, Some(key)) if LISTS.contains(&key) => Value::Array(Vec::new()),
            (value, _) => value,
        })
    }

    fn raw(&self, term: &Term, here: &Value) -> Result<Value, EvalError> {
        let (from, keys) = match term {
            Term::Text(text) => return Ok(text.clone().into()),
            Term::Number(number) => return Ok(Value::Number(number.clone())),
            Term::Bool(truth) => return Ok((*truth).into()),
            Term::Nil => return Ok(Value::Null),
            Term::Function(function) => return functions::apply(*function, &[]),
            Term::Path { from, keys } => (from, keys),
        };
        let piped;
        let mut value = match from {
            From::Dot => here,
            From::Variable(name) => {
                let held = self.variables.iter().rev().find(|(known, _)| known == name);
                held.map_or(self.whole, |(_, value)| value)
            }
            From::Pipe(pipeline) => {
                piped = self.pipeline(pipeline, here)?;
                &piped
            }
        };
        let mut is_map = false;
        for key in keys {
            value = match value {
                Value::Object(fields) => match field(fields, key) {
                    Some(found) => found,
                    // The document itself has all fields that there are.
                    None if is_map || self.fields == Fields::Open && !std::ptr::eq(value, self.whole) => {
                        &Value::Null
                    }
                    None => return Err(EvalError::Field(key.clone())),
                },
                Value::Null if is_map || self.fields == Fields::Open => &Value::Null,
                _ => return Err(EvalError::Field(key.clone())),
            };
            is_map = MAPS.contains(&key.as_str());
        }
        Ok(value.clone())
    }
}

/// Fields of docker's documents whose keys are the user's.
const MAPS: [&str; 5] = ["Labels", "ExposedPorts", "Volumes", "Annotations", "annotations"];

/// Fields of docker's documents that are lists.
const LISTS: [&str; 8] = [
    "Cmd",
    "Entrypoint",
    "Env",
    "OnBuild",
    "Shell",
    "RepoTags",
    "RepoDigests",
    "Layers",
];

/// A field by its name. Templates know those of OCI's documents by their names in Go, which JSON has in lower case;
/// nothing else has them, so maps of the user are looked up as they are.
fn field<'a>(fields: &'a serde_json::Map<String, Value>, key: &str) -> Option<&'a Value> {
    const OF_DOCUMENTS: [&str; 6] = [
        "mediaType",
        "schemaVersion",
        "architecture",
        "created_by",
        "diff_ids",
        "manifest",
    ];
    let is_document = || OF_DOCUMENTS.iter().any(|name| fields.contains_key(*name));
    fields.get(key).or_else(|| {
        let mut names = fields.iter().filter(|_| is_document());
        names
            .find(|(name, _)| name.replace(['_', '.'], "").eq_ignore_ascii_case(key))
            .map(|(_, value)| value)
    })
}
