//! What compose wants of a service before its `build` section is read (`loader/validate.go` of compose-go, of which buildx keeps
//! `image`, `build`, `environment` and `env_file`), and the variables that a build argument without a value takes its value from.

use std::collections::BTreeMap;
use std::io;

use super::room::Room;
use super::yaml::Node;
use super::{filled, flag, given, text, variables};

/// Whether the service is whole.
///
/// # Errors
/// What is missing or said twice.
pub(super) fn check(name: &str, service: &Node, services: &BTreeMap<String, Node>) -> Result<(), String> {
    let Some(build) = service.field("build") else {
        return match filled(service, "image")? {
            Some(_) => Ok(()),
            None => Err(format!(
                "service {name:?} has neither an image nor a build context specified"
            )),
        };
    };
    if filled(build, "dockerfile")?.is_some() && filled(build, "dockerfile_inline")?.is_some() {
        return Err(format!(
            "service {name:?} declares mutually exclusive dockerfile and dockerfile_inline"
        ));
    }
    for (context, value) in given(build, "additional_contexts") {
        let Some(other) = value.as_deref().and_then(|value| value.strip_prefix("service:")) else {
            continue;
        };
        let is = match services.get(other).map(|other| other.field("build")) {
            None => "unknown",
            Some(None) => "non-buildable",
            Some(Some(_)) => continue,
        };
        return Err(format!(
            "service {name:?} declares {is} service {other:?} as additional contexts {context}"
        ));
    }
    Ok(())
}

/// The variables of the service: of its files, and over them its own.
///
/// # Errors
/// A file that is not there and has to be, that has no form that is known, or more than there is room for.
pub(super) fn environment(
    service: &Node,
    file: &dyn Fn(&str) -> io::Result<String>,
    variable: &dyn Fn(&str) -> Option<String>,
    room: &Room,
) -> Result<BTreeMap<String, String>, String> {
    let mut all = BTreeMap::new();
    // A name alone has the value that it has here.
    let own: BTreeMap<String, Option<String>> = given(service, "environment")
        .into_iter()
        .map(|(name, value)| {
            let value = value.or_else(|| variable(&name));
            (name, value)
        })
        .collect();
    let single;
    let files = match service.field("env_file") {
        Some(Node::Sequence(files)) => files.as_slice(),
        Some(one) => {
            single = [one.clone()];
            &single
        }
        None => &[],
    };
    for entry in files {
        let (path, is_required, format) = match entry {
            Node::Mapping(_) => (
                filled(entry, "path")?.ok_or("env_file: path is missing")?,
                flag(entry, "required")?.unwrap_or(true),
                filled(entry, "format")?,
            ),
            one => (
                text(one).map_err(|error| format!("env_file: {error}"))?,
                true,
                None,
            ),
        };
        let read = match file(&path) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_required => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(format!("env file {path} not found"));
            }
            Err(error) => return Err(format!("env file {path}: {error}")),
        };
        if let Some(format) = format {
            return Err(format!("unsupported env_file format {format:?}"));
        }
        let known = |name: &str| {
            let given = variable(name).or_else(|| own.get(name).cloned().flatten());
            given.or_else(|| all.get(name).cloned())
        };
        let found = variables::dotenv(&read, &known, room).map_err(|error| format!("{path}: {error}"))?;
        all.extend(found);
    }
    for (name, value) in own {
        match value {
            Some(value) => all.insert(name, value),
            None => all.remove(&name),
        };
    }
    Ok(all)
}
