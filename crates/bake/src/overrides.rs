//! `--set TARGET.KEY=VALUE` (`newOverrides` and `AddOverrides` of buildx' `bake/bake.go`).

use std::collections::BTreeMap;

use rbuild_dockerfile::csv;

use crate::entries::{Cache, Entry, Output, Secret, read_texts};
use crate::error::BakeError;
use crate::target::Target;

/// What is set of one attribute.
#[derive(Debug, Clone, Default)]
struct Override {
    value: String,
    values: Vec<String>,
    appends: bool,
}

/// What is set, by target and by attribute.
#[derive(Debug, Default)]
pub(crate) struct Overrides(BTreeMap<String, BTreeMap<String, Override>>);

/// What `--set` names on the command line: those paths and permissions are granted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Granted {
    /// Paths that are read.
    pub reads: Vec<String>,
    /// Paths that are written.
    pub writes: Vec<String>,
    /// Entitlements.
    pub entitlements: Vec<String>,
}

impl Overrides {
    /// Reads what was set; `targets` gives the names that match a pattern.
    ///
    /// # Errors
    /// [`BakeError`].
    pub(crate) fn read(
        texts: &[String],
        variable: &dyn Fn(&str) -> Option<String>,
        targets: impl Fn(&str) -> Result<Vec<String>, BakeError>,
    ) -> Result<Self, BakeError> {
        let mut read = Self::default();
        for text in texts {
            let (left, value) = text
                .split_once('=')
                .map_or((text.as_str(), None), |(left, right)| (left, Some(right)));
            let (key, appends) = left.strip_suffix('+').map_or((left, false), |key| (key, true));
            let parts: Vec<&str> = key.splitn(3, '.').collect();
            let [pattern, attribute, rest @ ..] = parts.as_slice() else {
                return Err(BakeError::OverrideKey(key.to_owned()));
            };
            if value.is_none() && *attribute != "args" {
                return Err(BakeError::Override(text.clone()));
            }
            let needs_name = matches!(
                *attribute,
                "args" | "contexts" | "resources" | "secret" | "labels" | "extra-hosts"
            );
            if needs_name && rest.is_empty() {
                return Err(BakeError::OverrideName {
                    key: left.to_owned(),
                    name: (*attribute).to_owned(),
                });
            }
            if matches!(*attribute, "resources" | "secret") && appends {
                return Err(BakeError::OverrideAppend {
                    key: left.to_owned(),
                    name: (*attribute).to_owned(),
                });
            }
            let value = match value {
                Some(value) => Some(value.to_owned()),
                None => rest.first().and_then(|name| variable(name)),
            };
            let Some(value) = value else { continue };
            for name in targets(pattern)? {
                let attributes = read.0.entry(name).or_default();
                let set = attributes.entry(parts[1..].join(".")).or_default();
                set.appends |= appends;
                set.values.push(value.clone());
                set.value.clone_from(&value);
            }
        }
        Ok(read)
    }

    /// Changes `target` as was asked.
    ///
    /// # Errors
    /// [`BakeError`].
    pub(crate) fn apply(&self, target: &mut Target, granted: &mut Granted) -> Result<(), BakeError> {
        let Some(set) = self.0.get(&target.name) else {
            return Ok(());
        };
        let mut secrets = Vec::new();
        // Secrets come last: they change what is declared.
        for (key, set) in set {
            let (attribute, name) = key.split_once('.').unwrap_or((key, ""));
            if attribute == "secret" {
                secrets.push((name.to_owned(), set));
            } else {
                one(target, granted, attribute, name, set)?;
            }
        }
        for (id, set) in secrets {
            let declared = target.secrets.iter_mut().flatten().find(|secret| secret.id == id);
            let declared = declared.ok_or_else(|| BakeError::OverrideSecret(id.clone()))?;
            let read = Secret::from_text(&set.value)?;
            let next = read.into_iter().next().unwrap_or_default();
            declared.env = next.env;
            declared.src.clone_from(&next.src);
            granted
                .reads
                .extend(Some(next.src).filter(|path| !path.is_empty()));
        }
        Ok(())
    }
}

fn lists<T>(own: &mut Option<Vec<T>>, given: Vec<T>, appends: bool) {
    if appends {
        own.get_or_insert_default().extend(given);
    } else {
        *own = Some(given);
    }
}

fn entries<E: Entry>(own: &mut Option<Vec<E>>, set: &Override) -> Result<(), BakeError> {
    lists(own, read_texts(&set.values)?, set.appends);
    *own = own.take().map(E::dedup);
    Ok(())
}

fn boolean(key: &'static str, value: &str) -> Result<bool, BakeError> {
    csv::boolean(value).ok_or_else(|| BakeError::OverrideBool {
        key,
        value: value.to_owned(),
    })
}

fn one(
    target: &mut Target,
    granted: &mut Granted,
    attribute: &str,
    name: &str,
    set: &Override,
) -> Result<(), BakeError> {
    let value = set.value.clone();
    let (name, texts) = (name.to_owned(), set.values.clone());
    match attribute {
        "context" => target.context = Some(value),
        "dockerfile" => target.dockerfile = Some(value),
        "args" => drop(target.args.insert(name, value)),
        "contexts" => drop(target.contexts.insert(name, value)),
        "labels" => drop(target.labels.insert(name, value)),
        "extra-hosts" => drop(target.extra_hosts.insert(name, value)),
        "tags" => lists(&mut target.tags, texts, set.appends),
        "platform" => lists(&mut target.platforms, texts, set.appends),
        "no-cache-filter" => lists(&mut target.no_cache_filter, texts, set.appends),
        "ulimits" => lists(&mut target.ulimits, texts, set.appends),
        "annotations" => lists(&mut target.annotations, texts, true),
        "entitlements" => {
            granted.entitlements.extend(texts.iter().cloned());
            lists(&mut target.entitlements, texts, true);
        }
        "cache-from" | "cache-to" | "secrets" | "ssh" | "output" => {
            with_paths(target, granted, attribute, set)?;
        }
        "attest" => {
            let appended = Override {
                appends: true,
                ..set.clone()
            };
            entries(&mut target.attest, &appended)?;
        }
        "target" => target.target = Some(value),
        "call" => target.call = Some(value),
        "shm-size" => target.shm_size = Some(value),
        "network" => target.network = Some(value),
        "resources" => target.resources.get_or_insert_default().set(&name, value)?,
        "no-cache" => target.no_cache = Some(boolean("no-cache", &value)?),
        "pull" => target.pull = Some(boolean("pull", &value)?),
        "push" => push(&mut target.outputs, boolean("push", &value)?),
        "load" if boolean("load", &value)? => load(&mut target.outputs),
        "load" => {}
        other => return Err(BakeError::OverrideUnknown(other.to_owned())),
    }
    Ok(())
}

/// What names files: whoever gives it on the command line has granted them.
fn with_paths(
    target: &mut Target,
    granted: &mut Granted,
    attribute: &str,
    set: &Override,
) -> Result<(), BakeError> {
    match attribute {
        "cache-from" => {
            entries(&mut target.cache_from, set)?;
            granted.reads.extend(places(target.cache_from.as_deref(), "src"));
        }
        "cache-to" => {
            entries(&mut target.cache_to, set)?;
            granted.writes.extend(places(target.cache_to.as_deref(), "dest"));
        }
        "secrets" => {
            entries(&mut target.secrets, set)?;
            let given: Vec<Secret> = read_texts(&set.values)?;
            let paths = given.into_iter().map(|secret| secret.src);
            granted.reads.extend(paths.filter(|path| !path.is_empty()));
        }
        "ssh" => {
            entries(&mut target.ssh, set)?;
            let agents = target.ssh.iter().flatten();
            granted
                .reads
                .extend(agents.flat_map(|ssh| ssh.paths.iter().cloned()));
        }
        _ => {
            entries(&mut target.outputs, set)?;
            let outputs = target.outputs.iter().flatten();
            granted
                .writes
                .extend(outputs.filter_map(|output| output.attrs.get("dest").cloned()));
        }
    }
    Ok(())
}

/// Where caches of type `local` are, by their attribute `key`.
fn places(caches: Option<&[Cache]>, key: &str) -> Vec<String> {
    let local = caches
        .unwrap_or_default()
        .iter()
        .filter(|cache| cache.kind == "local");
    local.filter_map(|cache| cache.attrs.get(key).cloned()).collect()
}

fn push(outputs: &mut Option<Vec<Output>>, push: bool) {
    if !push {
        let Some(outputs) = outputs else { return };
        outputs.retain(|output| output.kind != "registry");
        for output in outputs.iter_mut().filter(|output| output.kind == "image") {
            output.attrs.insert("push".to_owned(), "false".to_owned());
        }
        return;
    }
    let outputs = outputs.get_or_insert_default();
    let adds = outputs.iter().all(|output| output.kind == "docker");
    for output in outputs.iter_mut().filter(|output| output.kind == "image") {
        output.attrs.insert("push".to_owned(), "true".to_owned());
    }
    if adds {
        let mut output = Output::of("image");
        output.attrs.insert("push".to_owned(), "true".to_owned());
        outputs.push(output);
    }
}

fn load(outputs: &mut Option<Vec<Output>>) {
    let outputs = outputs.get_or_insert_default();
    for output in outputs.iter() {
        match output.kind.as_str() {
            "image" | "registry" | "oci" => {}
            _ => return,
        }
    }
    outputs.push(Output::of("docker"));
}
