//! What compose files name of other files: `include`, and `extends` with a file. Each file is read with its own directory in
//! mind, and what it says of paths is said again for who named it (`loader/include.go`, `loader/extends.go` of compose-go).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;

use super::room::Room;
use super::yaml::{self, Node};
use super::{filled, interpolate, merged, text, variables};
use crate::paths::{clean, is_remote};

/// Most services that extend each other.
const EXTENDS_MAX: usize = 50;
/// Most files that files name, one that is named twice counted twice.
const FILES_MAX: usize = 200;
/// What is taken over of a file that is included.
const INCLUDED: [&str; 2] = ["services", "secrets"];

/// A variable's value.
type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;
/// The file that is wrong, and what is.
type Told = (String, String);
type Services = BTreeMap<String, Node>;

/// The files that files name, as far as they are read.
pub(super) struct Files<'a> {
    file: &'a dyn Fn(&str) -> io::Result<String>,
    left: Cell<usize>,
    room: &'a Room,
}

/// Files that make one model, in the order in which they are laid over each other.
struct Model<'a> {
    /// Where the files that they name are.
    dir: String,
    variable: Variable<'a>,
    /// What leads here.
    included: Vec<String>,
}

impl<'a> Files<'a> {
    pub(super) fn new(file: &'a dyn Fn(&str) -> io::Result<String>, room: &'a Room) -> Self {
        Self {
            file,
            left: Cell::new(FILES_MAX),
            room,
        }
    }

    /// What `files` say together, with all that they name.
    pub(super) fn model(&self, files: &[(&str, &str)], variable: Variable<'_>) -> Result<Node, Told> {
        let model = Model {
            dir: String::new(),
            variable,
            included: Vec::new(),
        };
        let mut project = self.load(files, &model)?;
        rebase(&mut project, &model.dir, false);
        Ok(project)
    }

    fn load(&self, files: &[(&str, &str)], model: &Model<'_>) -> Result<Node, Told> {
        let mut project = Node::Null;
        for (filename, text) in files {
            let told = |message: String| ((*filename).to_owned(), message);
            let mut node = yaml::parse(text, self.room).map_err(told)?;
            interpolate(&mut node, model.variable, self.room).map_err(told)?;
            self.include(&mut node, filename, model)?;
            if let Some(services) = node.field("services").and_then(Node::mapping).cloned() {
                let extended = services
                    .keys()
                    .map(|name| {
                        let service = self.extended(&services, name, filename, model, 0)?;
                        Ok((name.clone(), service))
                    })
                    .collect::<Result<Services, String>>()
                    .map_err(told)?;
                set(&mut node, "services", Node::Mapping(extended));
            }
            project = merged(project, node, "");
        }
        Ok(project)
    }

    fn read(&self, path: &str) -> Result<String, String> {
        let left = self.left.get().checked_sub(1);
        self.left
            .set(left.ok_or_else(|| format!("more than {FILES_MAX} files are named"))?);
        (self.file)(path).map_err(|error| format!("{path}: {error}"))
    }

    /// Takes over what the files of `include` define; what `node` says itself is laid over that.
    fn include(&self, node: &mut Node, filename: &str, model: &Model<'_>) -> Result<(), Told> {
        let told = |message: String| (filename.to_owned(), message);
        let entries = match node.field("include") {
            None | Some(Node::Null) => return Ok(()),
            Some(Node::Sequence(entries)) => entries.clone(),
            Some(_) => return Err(told("`include` must be a list".to_owned())),
        };
        let mut included = model.included.clone();
        included.push(filename.to_owned());
        for entry in &entries {
            let (mut other, from) = self.included(entry, &included, model, filename)?;
            rebase(&mut other, &from, true);
            for key in INCLUDED {
                let Some(theirs) = other.field(key).cloned() else {
                    continue;
                };
                self.room.take(theirs.weight()).map_err(told)?;
                let own = node.field(key).cloned().unwrap_or(Node::Null);
                set(node, key, merged(theirs, own, key));
            }
        }
        if let Node::Mapping(fields) = node {
            fields.remove("include");
        }
        Ok(())
    }

    /// One entry of `include`, and the directory that its paths are below.
    fn included(
        &self,
        entry: &Node,
        included: &[String],
        model: &Model<'_>,
        filename: &str,
    ) -> Result<(Node, String), Told> {
        let told = |message: String| (filename.to_owned(), message);
        let names = match entry {
            Node::Mapping(_) => list(entry, "path").map_err(told)?,
            one => vec![text(one).map_err(told)?],
        };
        let Some(main) = names.first() else {
            return Err(told("include: path is missing".to_owned()));
        };
        let paths: Vec<String> = names.iter().map(|name| join(&model.dir, name)).collect();
        if included.contains(&paths[0]) {
            let more = included.iter().skip(1).chain([&paths[0]]);
            let more: Vec<&str> = more.map(String::as_str).collect();
            return Err(told(format!(
                "include cycle detected:\n{}\n include {}",
                included[0],
                more.join("\n include ")
            )));
        }
        let from = match entry {
            Node::Mapping(_) => filled(entry, "project_directory").map_err(told)?,
            _ => None,
        };
        let from = from.unwrap_or_else(|| parent(main));
        let dir = join(&model.dir, &from);
        let more = self.variables(entry, &dir, model).map_err(told)?;
        let variable = |name: &str| (model.variable)(name).or_else(|| more.get(name).cloned());
        let texts = paths.iter().map(|path| self.read(path));
        let texts: Vec<String> = texts.collect::<Result<_, _>>().map_err(told)?;
        let files = paths.iter().zip(&texts);
        let files: Vec<(&str, &str)> = files.map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let inner = Model {
            dir,
            variable: &variable,
            included: included.to_vec(),
        };
        Ok((self.load(&files, &inner)?, from))
    }

    /// The variables of an entry's `env_file`, or of the `.env` where its files are.
    fn variables(
        &self,
        entry: &Node,
        dir: &str,
        model: &Model<'_>,
    ) -> Result<BTreeMap<String, String>, String> {
        let files = match entry {
            Node::Mapping(_) => list(entry, "env_file")?,
            _ => Vec::new(),
        };
        let mut all = BTreeMap::new();
        let mut add = |name: &str, text: &str| -> Result<(), String> {
            let found = variables::dotenv(text, model.variable, self.room);
            all.extend(found.map_err(|error| format!("{name}: {error}"))?);
            Ok(())
        };
        if files.is_empty() {
            let name = join(dir, ".env");
            if let Ok(text) = (self.file)(&name) {
                add(&name, &text)?;
            }
        }
        for name in files.iter().filter(|name| *name != "/dev/null") {
            let name = join(&model.dir, name);
            add(&name, &self.read(&name)?)?;
        }
        Ok(all)
    }

    /// A service with what it extends.
    fn extended(
        &self,
        services: &Services,
        name: &str,
        filename: &str,
        model: &Model<'_>,
        depth: usize,
    ) -> Result<Node, String> {
        let Some(service) = services.get(name) else {
            return Err(format!("service {name:?} not found to extend"));
        };
        self.room.take(service.weight())?;
        let Some(extends) = service.field("extends") else {
            return Ok(service.clone());
        };
        if depth >= EXTENDS_MAX {
            return Err(format!("service {name:?} extends itself"));
        }
        let (base, file) = match extends {
            Node::Scalar(base) => (base.clone(), None),
            other => (
                filled(other, "service")?.ok_or("extends names no service")?,
                filled(other, "file")?,
            ),
        };
        let base = match file {
            None => self.extended(services, &base, filename, model, depth + 1)?,
            Some(file) => {
                let others = self.services(&file, model)?;
                if !others.contains_key(&base) {
                    return Err(format!(
                        "cannot extend service {name:?} in {filename}: service {base:?} not found in {file}"
                    ));
                }
                self.extended(&others, &base, &file, model, depth + 1)?
            }
        };
        let mut own = service.clone();
        if let Node::Mapping(fields) = &mut own {
            fields.remove("extends");
        }
        Ok(merged(base, own, ""))
    }

    /// The services of a file, with paths as `model` would say them. What the file includes is not looked at.
    fn services(&self, file: &str, model: &Model<'_>) -> Result<Services, String> {
        let told = |message: String| format!("{file}: {message}");
        let mut node = yaml::parse(&self.read(&join(&model.dir, file))?, self.room).map_err(told)?;
        interpolate(&mut node, model.variable, self.room).map_err(told)?;
        rebase(&mut node, &parent(file), false);
        match node.field("services").and_then(Node::mapping) {
            Some(services) => Ok(services.clone()),
            None => Err(told("no services section".to_owned())),
        }
    }
}

fn set(node: &mut Node, key: &str, value: Node) {
    if let Node::Mapping(fields) = node {
        fields.insert(key.to_owned(), value);
    }
}

/// Texts of a list, or one text alone.
fn list(node: &Node, name: &str) -> Result<Vec<String>, String> {
    match node.field(name) {
        None | Some(Node::Null) => Ok(Vec::new()),
        Some(Node::Sequence(values)) => values.iter().map(text).collect(),
        Some(one) => Ok(vec![text(one)?]),
    }
    .map_err(|error: String| format!("include: {name}: {error}"))
}

fn join(dir: &str, path: &str) -> String {
    match path.starts_with('/') || dir.is_empty() {
        true => clean(path),
        false => clean(&format!("{dir}/{path}")),
    }
}

fn parent(path: &str) -> String {
    let path = clean(path);
    match path.rsplit_once('/') {
        None => String::new(),
        Some(("", _)) => "/".to_owned(),
        Some((dir, _)) => dir.to_owned(),
    }
}

/// Says the paths of a file below `dir` as who named it would say them (`paths/resolve.go`). A build without a context has its
/// file's directory, if `has_defaults`.
fn rebase(node: &mut Node, dir: &str, has_defaults: bool) {
    let own = |path: &mut String| {
        if !path.is_empty() {
            *path = join(dir, path);
        }
    };
    let context = |path: &mut String| {
        if !path.contains("://") && !path.starts_with("service:") && !is_remote(path) {
            own(path);
        }
    };
    let services = node.field_mut("services").and_then(Node::mapping_mut);
    for service in services.into_iter().flat_map(BTreeMap::values_mut) {
        if let Some(build) = service.field_mut("build") {
            if let Node::Scalar(path) = build {
                context(path);
            } else if let Some(fields) = build.mapping_mut() {
                if has_defaults {
                    let default = || Node::Scalar(".".to_owned());
                    fields.entry("context".to_owned()).or_insert_with(default);
                }
                each(fields.get_mut("context"), &context);
                each_value(fields.get_mut("additional_contexts"), &context);
                each_value(fields.get_mut("ssh"), &own);
            }
        }
        match service.field_mut("env_file") {
            Some(Node::Sequence(files)) => {
                for file in files {
                    match file {
                        Node::Mapping(fields) => each(fields.get_mut("path"), &own),
                        one => each(Some(one), &own),
                    }
                }
            }
            one => each(one, &own),
        }
        let extends = service.field_mut("extends").and_then(Node::mapping_mut);
        each(extends.and_then(|extends| extends.get_mut("file")), &own);
    }
    let secrets = node.field_mut("secrets").and_then(Node::mapping_mut);
    for secret in secrets.into_iter().flat_map(BTreeMap::values_mut) {
        each(secret.field_mut("file"), &own);
    }
}

/// Changes each value of a mapping, or of a list of `NAME=VALUE`.
fn each_value(node: Option<&mut Node>, change: &dyn Fn(&mut String)) {
    match node {
        Some(Node::Sequence(pairs)) => {
            for pair in pairs {
                each(Some(pair), &|pair| {
                    if let Some((name, value)) = pair.split_once('=') {
                        let mut value = value.to_owned();
                        change(&mut value);
                        *pair = format!("{name}={value}");
                    }
                });
            }
        }
        one => each(one, change),
    }
}

/// Changes each text of a value.
fn each(node: Option<&mut Node>, change: &dyn Fn(&mut String)) {
    match node {
        None | Some(Node::Null) => {}
        Some(Node::Scalar(text)) => change(text),
        Some(Node::Sequence(values)) => values.iter_mut().for_each(|value| each(Some(value), change)),
        Some(Node::Mapping(fields)) => fields.values_mut().for_each(|value| each(Some(value), change)),
    }
}
