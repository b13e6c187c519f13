//! Compose files: the `build` section of each service is a target (`bake/compose.go` of buildx). Several files are merged as
//! compose merges them.

mod files;
mod room;
mod service;
mod variables;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};

use rbuild_dockerfile::csv::boolean;

use crate::definition::Definition;
use crate::entries::{Attest, Cache, Entry, EntryError, Output, Secret, Ssh, read_texts};
use crate::error::BakeError;
use crate::target::Target;
use crate::world::{Group, Surroundings};
use files::Files;
use room::Room;
use yaml::Node;

/// Whether a text without a telling name is a compose file.
pub(crate) fn is_one(text: &str) -> bool {
    yaml::parse(text, &Room::default()).is_ok_and(|node| {
        node.field("services")
            .is_some_and(|services| services.mapping().is_some())
    })
}

/// What `files` define together.
///
/// # Errors
/// [`BakeError::Compose`].
pub(crate) fn read(files: &[(&str, &str)], surroundings: &Surroundings<'_>) -> Result<Definition, BakeError> {
    let mut definition = Definition::default();
    let Some((first, _)) = files.first() else {
        return Ok(definition);
    };
    let told = |filename: &str, message: String| BakeError::Compose {
        filename: filename.to_owned(),
        message,
    };
    let own = |name: &str| (surroundings.variable)(name);
    let room = Room::default();
    let dotenv = variables::dotenv(&surroundings.dotenv, &own, &room);
    let dotenv = dotenv.map_err(|message| told(".env", message))?;
    let variable = |name: &str| own(name).or_else(|| dotenv.get(name).cloned());
    let loaded = Files::new(surroundings.file, &room).model(files, &variable);
    let project = loaded.map_err(|(filename, message)| told(&filename, message))?;
    let Some(services) = project.field("services").and_then(Node::mapping) else {
        return Err(told(first, "empty compose file".to_owned()));
    };
    let mut group = Group {
        name: "default".to_owned(),
        is_null: true,
        ..Group::default()
    };
    for (name, service) in services {
        service::check(name, service, services).map_err(|message| told(first, message))?;
        let environment = service::environment(service, surroundings.file, &variable, &room)
            .map_err(|message| told(first, message))?;
        let Some(build) = service.field("build") else {
            continue;
        };
        let of_env = |name: &str| environment.get(name).cloned().or_else(|| variable(name));
        let of_build = |message| told(first, format!("services.{name}.build: {message}"));
        let target = target(name, service, build, &project, &of_env).map_err(of_build)?;
        // What they have of the environment is the target's own copy.
        room.take(target.args.values().map(String::len).sum())
            .map_err(of_build)?;
        group.targets.push(target.name.clone());
        definition.targets.push(target);
    }
    definition.groups.push(group);
    Ok(definition)
}

fn interpolate(
    node: &mut Node,
    variable: &dyn Fn(&str) -> Option<String>,
    room: &Room,
) -> Result<(), String> {
    match node {
        Node::Null => Ok(()),
        Node::Scalar(text) => {
            let longer = variables::expand(text, variable)?;
            room.take(longer.len().saturating_sub(text.len()))?;
            *text = longer;
            Ok(())
        }
        Node::Sequence(values) => values
            .iter_mut()
            .try_for_each(|value| interpolate(value, variable, room)),
        Node::Mapping(fields) => fields
            .values_mut()
            .try_for_each(|value| interpolate(value, variable, room)),
    }
}

/// What one file says and another over it; `key` is the name of both.
fn merged(base: Node, over: Node, key: &str) -> Node {
    let is_pairs = matches!(
        key,
        "args" | "labels" | "additional_contexts" | "extra_hosts" | "environment"
    );
    match (base, over) {
        (base, Node::Null) => base,
        (Node::Mapping(mut fields), Node::Mapping(others)) => {
            for (name, value) in others {
                let known = fields.remove(&name).unwrap_or(Node::Null);
                let value = merged(known, value, &name);
                fields.insert(name, value);
            }
            Node::Mapping(fields)
        }
        (base, over) if is_pairs && base != Node::Null => {
            let mut all = pairs(&base);
            all.extend(pairs(&over));
            Node::Mapping(
                all.into_iter()
                    .map(|(name, value)| (name, value.map_or(Node::Null, Node::Scalar)))
                    .collect(),
            )
        }
        (base @ Node::Scalar(_), over @ Node::Mapping(_)) if key == "build" => {
            let base = Node::Mapping(BTreeMap::from([("context".to_owned(), base)]));
            merged(base, over, key)
        }
        (base @ Node::Mapping(_), over @ Node::Scalar(_)) if key == "build" => {
            let over = Node::Mapping(BTreeMap::from([("context".to_owned(), over)]));
            merged(base, over, key)
        }
        (Node::Sequence(mut values), Node::Sequence(others)) => {
            let mut known: BTreeSet<Node> = values.iter().cloned().collect();
            values.extend(others.into_iter().filter(|value| known.insert(value.clone())));
            Node::Sequence(values)
        }
        (_, over) => over,
    }
}

fn text(node: &Node) -> Result<String, String> {
    match node {
        Node::Scalar(text) => Ok(text.clone()),
        _ => Err("a text is required".to_owned()),
    }
}

fn filled(node: &Node, name: &str) -> Result<Option<String>, String> {
    let found = node
        .field(name)
        .map(text)
        .transpose()
        .map_err(|error| format!("{name}: {error}"))?;
    Ok(found.filter(|text| !text.is_empty()))
}

/// Texts of a list; a single text is split at spaces, as `x-bake` has it.
fn texts(node: &Node, name: &str) -> Result<Option<Vec<String>>, String> {
    match node.field(name) {
        None => Ok(None),
        Some(Node::Sequence(values)) => values.iter().map(text).collect::<Result<_, _>>().map(Some),
        Some(Node::Scalar(text)) => Ok(Some(text.split_whitespace().map(str::to_owned).collect())),
        Some(_) => Err(format!("{name} must be a list")),
    }
}

/// `NAME: VALUE`, or a list of `NAME=VALUE`; a name without value has none.
fn pairs(node: &Node) -> BTreeMap<String, Option<String>> {
    match node {
        Node::Mapping(fields) => {
            let pair = |(name, value): (&String, &Node)| (name.clone(), text(value).ok());
            fields.iter().map(pair).collect()
        }
        Node::Sequence(values) => {
            let texts = values.iter().filter_map(|value| text(value).ok());
            let pair = |text: String| match text.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (text, None),
            };
            texts.map(pair).collect()
        }
        _ => BTreeMap::new(),
    }
}

fn given(node: &Node, name: &str) -> BTreeMap<String, Option<String>> {
    node.field(name).map(pairs).unwrap_or_default()
}

fn set_only(fields: BTreeMap<String, Option<String>>) -> BTreeMap<String, String> {
    fields
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

fn flag(node: &Node, name: &str) -> Result<Option<bool>, String> {
    let Some(text) = filled(node, name)? else {
        return Ok(None);
    };
    boolean(&text)
        .map(Some)
        .ok_or_else(|| format!("{name} must be a boolean"))
}

fn name_of(service: &str) -> String {
    service.replace('.', "_")
}

fn linked(contexts: BTreeMap<String, Option<String>>) -> BTreeMap<String, String> {
    let of = |value: String| match value
        .strip_prefix("service:")
        .or_else(|| value.strip_prefix("target:"))
    {
        Some(name) => format!("target:{}", name_of(name)),
        None => value,
    };
    contexts
        .into_iter()
        .filter_map(|(name, value)| Some((name, of(value?))))
        .collect()
}

fn target(
    name: &str,
    service: &Node,
    build: &Node,
    project: &Node,
    of_env: &dyn Fn(&str) -> Option<String>,
) -> Result<Target, String> {
    let entry = |error: EntryError| error.to_string();
    let short = Node::Mapping(BTreeMap::from([("context".to_owned(), build.clone())]));
    let build = if matches!(build, Node::Scalar(_)) {
        &short
    } else {
        build
    };
    let args = given(build, "args").into_iter();
    let args = args.filter_map(|(name, value)| value.or_else(|| of_env(&name)).map(|value| (name, value)));
    let mut target = Target {
        name: name_of(name),
        context: filled(build, "context")?,
        contexts: linked(given(build, "additional_contexts")),
        dockerfile: filled(build, "dockerfile")?,
        dockerfile_inline: filled(build, "dockerfile_inline")?,
        args: args.collect(),
        labels: given(build, "labels")
            .into_iter()
            .map(|(name, value)| (name, value.unwrap_or_default()))
            .collect(),
        tags: texts(build, "tags")?,
        cache_from: texts(build, "cache_from")?
            .map(|texts| read_texts::<Cache>(&texts))
            .transpose()
            .map_err(entry)?,
        cache_to: texts(build, "cache_to")?
            .map(|texts| read_texts::<Cache>(&texts))
            .transpose()
            .map_err(entry)?,
        target: filled(build, "target")?,
        platforms: texts(build, "platforms")?,
        network: filled(build, "network")?,
        pull: flag(build, "pull")?.filter(|pull| *pull),
        no_cache: flag(build, "no_cache")?.filter(|no_cache| *no_cache),
        ..Target::default()
    };
    target.shm_size = filled(build, "shm_size")?
        .map(|text| shm_size(&text))
        .transpose()?;
    target.ulimits = build.field("ulimits").map(ulimits).transpose()?;
    target.extra_hosts = set_only(build.field("extra_hosts").map(hosts).unwrap_or_default());
    let ssh = given(build, "ssh").into_iter().map(|(id, path)| Ssh {
        id,
        paths: path.into_iter().filter(|path| !path.is_empty()).collect(),
    });
    target.ssh = Some(ssh.collect::<Vec<_>>()).filter(|ssh| !ssh.is_empty());
    target.secrets = build
        .field("secrets")
        .map(|secrets| self::secrets(secrets, project))
        .transpose()?;
    let mut attest = Vec::new();
    for kind in ["sbom", "provenance"] {
        if let Some(value) = filled(build, kind)? {
            let text = match boolean(&value) {
                Some(on) => format!("type={kind},disabled={}", !on),
                None => format!("type={kind},{value}"),
            };
            attest.extend(Attest::from_text(&text).map_err(entry)?);
        }
    }
    target.attest = Some(attest).filter(|attest| !attest.is_empty());
    if let Some(own) = build.field("x-bake") {
        extension(&mut target, own)?;
    }
    if target.tags.as_ref().is_none_or(Vec::is_empty)
        && let Some(image) = filled(service, "image")?
    {
        target.tags = Some(vec![image]);
    }
    Ok(target)
}

/// `x-bake`: what compose has no words for.
fn extension(target: &mut Target, own: &Node) -> Result<(), String> {
    fn add<E: Entry>(to: &mut Option<Vec<E>>, texts: Option<Vec<String>>) -> Result<(), String> {
        let Some(texts) = texts.filter(|texts| !texts.is_empty()) else {
            return Ok(());
        };
        let read = read_texts(&texts).map_err(|error| error.to_string())?;
        let all = to.take().into_iter().flatten().chain(read).collect();
        *to = Some(E::dedup(all));
        Ok(())
    }
    let append = |to: &mut Option<Vec<String>>, texts: Option<Vec<String>>| {
        for text in texts.into_iter().flatten() {
            let to = to.get_or_insert_default();
            if !to.contains(&text) {
                to.push(text);
            }
        }
    };
    append(&mut target.tags, texts(own, "tags")?);
    append(&mut target.platforms, texts(own, "platforms")?);
    append(&mut target.no_cache_filter, texts(own, "no-cache-filter")?);
    add(&mut target.cache_from, texts(own, "cache-from")?)?;
    add(&mut target.cache_to, texts(own, "cache-to")?)?;
    add::<Secret>(&mut target.secrets, texts(own, "secret")?)?;
    add::<Ssh>(&mut target.ssh, texts(own, "ssh")?)?;
    add::<Output>(&mut target.outputs, texts(own, "output")?)?;
    target.pull = flag(own, "pull")?.or(target.pull);
    target.no_cache = flag(own, "no-cache")?.or(target.no_cache);
    for (name, value) in linked(given(own, "contexts")) {
        target.contexts.entry(name).or_insert(value);
    }
    Ok(())
}

/// A size, as buildx prints it.
fn shm_size(text: &str) -> Result<String, String> {
    let invalid = || format!("shm_size: invalid size: {text:?}");
    let digits = text
        .find(|next: char| !next.is_ascii_digit() && next != '.')
        .unwrap_or(text.len());
    let number: f64 = text[..digits].parse().map_err(|_| invalid())?;
    let exponent = match text[digits..]
        .trim()
        .to_lowercase()
        .trim_end_matches("ib")
        .trim_end_matches('b')
    {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err(invalid()),
    };
    let mut size = number * 1024_f64.powi(exponent);
    let mut unit = 0;
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    // Four digits, as Go's %.4g.
    let places = match size {
        size if size >= 1000.0 => 0,
        size if size >= 100.0 => 1,
        size if size >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{size:.places$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    Ok(format!("{text}{}", UNITS[unit]))
}

fn ulimits(node: &Node) -> Result<Vec<String>, String> {
    let limits = node
        .mapping()
        .ok_or("ulimits must be a mapping")?
        .iter()
        .map(|(name, value)| {
            let (soft, hard) = match value {
                Node::Scalar(both) => (both.clone(), both.clone()),
                both => (
                    filled(both, "soft")?.ok_or("ulimits: soft is missing")?,
                    filled(both, "hard")?.ok_or("ulimits: hard is missing")?,
                ),
            };
            Ok(format!("{name}={soft}:{hard}"))
        });
    limits.collect()
}

/// `HOST=IP` or `HOST:IP`, or by host an address or several.
fn hosts(node: &Node) -> BTreeMap<String, Option<String>> {
    let mut found: BTreeMap<String, Option<String>> = BTreeMap::new();
    let mut add = |host: &str, address: &str| {
        let address = address.trim_start_matches('[').trim_end_matches(']');
        let known = found.entry(host.to_owned()).or_default();
        *known = Some(
            known
                .take()
                .map_or_else(|| address.to_owned(), |known| format!("{known},{address}")),
        );
    };
    match node {
        Node::Sequence(values) => {
            for text in values.iter().filter_map(|value| text(value).ok()) {
                if let Some((host, address)) = text.split_once('=').or_else(|| text.split_once(':')) {
                    add(host, address);
                }
            }
        }
        Node::Mapping(fields) => {
            for (host, value) in fields {
                match value {
                    Node::Sequence(values) => values
                        .iter()
                        .filter_map(|value| text(value).ok())
                        .for_each(|address| add(host, &address)),
                    one => text(one).iter().for_each(|address| add(host, address)),
                }
            }
        }
        _ => {}
    }
    found
}

fn secrets(node: &Node, project: &Node) -> Result<Vec<Secret>, String> {
    let Node::Sequence(values) = node else {
        return Err("secrets must be a list".to_owned());
    };
    let secret = |value: &Node| {
        let id = match value {
            Node::Scalar(name) => name.clone(),
            other => filled(other, "source")?.ok_or("secrets: source is missing")?,
        };
        let declared = project.field("secrets").and_then(|secrets| secrets.field(&id));
        let Some(declared) = declared else {
            return Err(format!("service refers to undefined secret {id}"));
        };
        if flag(declared, "external")? == Some(true) {
            return Err(format!("unsupported external secret {id}"));
        }
        Ok(Secret {
            src: filled(declared, "file")?.unwrap_or_default(),
            env: filled(declared, "environment")?.unwrap_or_default(),
            id,
        })
    };
    values.iter().map(secret).collect()
}
