//! Bake files: from their texts to targets, as `docker buildx bake` reads them. HCL and its JSON form, compose files, `--set`.
//!
//! Level 1. Pure: reads no file, no variable and no clock; its caller gives all of them. What comes in is hostile: sizes,
//! nesting, references and everything that expressions make are bounded.
#![forbid(unsafe_code)]

mod compose;
mod definition;
mod entries;
mod error;
mod eval;
mod functions;
mod overrides;
pub mod paths;
mod printed;
mod syntax;
mod target;
mod value;
mod variables;
mod world;

pub use definition::{Chosen, Definition};
pub use entries::{Attest, Cache, Entry, EntryError, Output, Resources, Secret, Ssh};
pub use error::{BakeError, Fault};
pub use overrides::Granted;
pub use printed::Printed;
pub use syntax::Span;
pub use target::Target;
pub use world::{Group, Listed, Surroundings};

use syntax::Body;
use world::World;

/// Largest file.
pub const FILE_BYTES_MAX: usize = 4 << 20;

/// A file.
#[derive(Debug, Clone)]
pub struct File {
    /// Its name as it was given; `-` is standard input.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// What `files` define together: compose files first, then the others in order.
///
/// # Errors
/// [`BakeError`].
pub fn read(files: &[File], surroundings: &Surroundings<'_>) -> Result<Definition, BakeError> {
    let mut texts = Vec::with_capacity(files.len());
    for file in files {
        if file.bytes.len() > FILE_BYTES_MAX {
            let filename = file.name.clone();
            return Err(BakeError::TooLarge {
                filename,
                most: FILE_BYTES_MAX,
            });
        }
        let text = std::str::from_utf8(&file.bytes);
        texts.push(text.map_err(|_| BakeError::NotText(file.name.clone()))?);
    }
    let mut bodies = Vec::new();
    let mut composed = Vec::new();
    for (at, (file, text)) in files.iter().zip(&texts).enumerate() {
        match body(at, file, text).map_err(|fault| located(files, &texts, fault))? {
            Some(body) => bodies.push(body),
            None => composed.push((file.name.as_str(), *text)),
        }
    }
    let mut definition = compose::read(&composed, surroundings)?;
    let world = World::new(&bodies, surroundings);
    let defined = world
        .and_then(|world| world.define())
        .map_err(|fault| located(files, &texts, fault))?;
    definition.variables = defined.variables;
    definition.is_composed = bodies.is_empty();
    for group in defined.groups {
        match definition
            .groups
            .iter_mut()
            .find(|known| known.name == group.name)
        {
            Some(known) => *known = group,
            None => definition.groups.push(group),
        }
    }
    for group in &mut definition.groups {
        let mut seen = std::collections::HashSet::new();
        group.targets.retain(|name| seen.insert(name.clone()));
    }
    for target in defined.targets {
        match definition
            .targets
            .iter_mut()
            .find(|known| known.name == target.name)
        {
            Some(known) => known.merge(&target),
            None => definition.targets.push(target),
        }
    }
    definition
        .warnings
        .extend(defined.unknown.into_iter().map(|(span, name)| {
            format!(
                "{}:{}: targets have no attribute {name:?}: it is ignored",
                files[span.file].name, span.start.0
            )
        }));
    Ok(definition)
}

/// What a file is made of; `None` if it is a compose file.
fn body(at: usize, file: &File, text: &str) -> Result<Option<Body>, Fault> {
    let name = file.name.to_lowercase();
    if name.ends_with(".yml") || name.ends_with(".yaml") {
        return Ok(None);
    }
    if name.ends_with(".json") {
        return syntax::json::parse(at, text).map(Some);
    }
    if name.ends_with(".hcl") {
        return syntax::native::parse(at, text).map(Some);
    }
    if compose::is_one(text) {
        return Ok(None);
    }
    match syntax::native::parse(at, text) {
        Ok(body) => Ok(Some(body)),
        Err(fault) => syntax::json::parse(at, text).map(Some).map_err(|_| fault),
    }
}

fn located(files: &[File], texts: &[&str], fault: Fault) -> BakeError {
    let at = fault.span.file;
    BakeError::File {
        filename: files.get(at).map(|file| file.name.clone()).unwrap_or_default(),
        text: texts.get(at).map(|text| (*text).to_owned()).unwrap_or_default(),
        fault: Box::new(fault),
    }
}
