//! One target: what it says, how it is merged with others, how it is printed (`Target` of buildx' `bake/bake.go`).

use std::collections::BTreeMap;

use crate::entries::{Attest, Cache, Entry, EntryError, Output, Resources, Secret, Ssh, read};
use crate::printed::Printed;
use crate::value::{Type, Value, convert};

/// What is built. A list that is absent is another thing than an empty one: the latter replaces what is inherited.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Targets that it starts from.
    pub(crate) inherits: Vec<String>,
    /// Annotations of the result.
    pub annotations: Option<Vec<String>>,
    /// What is attested of it.
    pub attest: Option<Vec<Attest>>,
    /// Directory or URL.
    pub context: Option<String>,
    /// Named contexts.
    pub contexts: BTreeMap<String, String>,
    /// Dockerfile, below the context.
    pub dockerfile: Option<String>,
    /// The Dockerfile itself.
    pub dockerfile_inline: Option<String>,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Names of the image.
    pub tags: Option<Vec<String>>,
    /// Where the cache comes from.
    pub cache_from: Option<Vec<Cache>>,
    /// Where it goes.
    pub cache_to: Option<Vec<Cache>>,
    /// Stage.
    pub target: Option<String>,
    /// Secrets.
    pub secrets: Option<Vec<Secret>>,
    /// Agents.
    pub ssh: Option<Vec<Ssh>>,
    /// Platforms.
    pub platforms: Option<Vec<String>>,
    /// Where the result goes.
    pub outputs: Option<Vec<Output>>,
    /// Ask registries even for images that are here.
    pub pull: Option<bool>,
    /// Take no step from the cache.
    pub no_cache: Option<bool>,
    /// Network of steps.
    pub network: Option<String>,
    /// Stages of which no step is taken from the cache.
    pub no_cache_filter: Option<Vec<String>>,
    /// Size of `/dev/shm`.
    pub shm_size: Option<String>,
    /// Limits of processes.
    pub ulimits: Option<Vec<String>>,
    /// Limits of steps.
    pub resources: Option<Resources>,
    /// What is asked instead of building.
    pub call: Option<String>,
    /// What steps may do.
    pub entitlements: Option<Vec<String>>,
    /// Lines of `/etc/hosts`.
    pub extra_hosts: BTreeMap<String, String>,
    /// Built only because another is built from it.
    pub is_linked: bool,
}

/// What an attribute is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Truth,
    Texts,
    Fields,
    Entries,
    Limits,
}

/// Every attribute of a target.
pub(crate) const ATTRIBUTES: [(&str, Kind); 30] = [
    ("annotations", Kind::Texts),
    ("args", Kind::Fields),
    ("attest", Kind::Entries),
    ("cache-from", Kind::Entries),
    ("cache-to", Kind::Entries),
    ("call", Kind::Text),
    ("context", Kind::Text),
    ("contexts", Kind::Fields),
    ("description", Kind::Text),
    ("dockerfile", Kind::Text),
    ("dockerfile-inline", Kind::Text),
    ("entitlements", Kind::Texts),
    ("extra-hosts", Kind::Fields),
    ("inherits", Kind::Texts),
    ("labels", Kind::Fields),
    ("network", Kind::Text),
    ("no-cache", Kind::Truth),
    ("no-cache-filter", Kind::Texts),
    ("output", Kind::Entries),
    ("platforms", Kind::Texts),
    ("policy", Kind::Entries),
    ("pull", Kind::Truth),
    ("resources", Kind::Limits),
    ("secret", Kind::Entries),
    ("shm-size", Kind::Text),
    ("ssh", Kind::Entries),
    ("tags", Kind::Texts),
    ("target", Kind::Text),
    ("ulimits", Kind::Texts),
    ("name", Kind::Text),
];

impl Kind {
    /// What a reference to such an attribute has.
    pub(crate) fn as_type(self) -> Type {
        match self {
            Self::Text => Type::String,
            Self::Truth => Type::Bool,
            Self::Texts => Type::List(Box::new(Type::String)),
            Self::Fields => Type::Map(Box::new(Type::String)),
            Self::Entries | Self::Limits => Type::Any,
        }
    }
}

/// `value` as the type of the attribute `name`.
///
/// # Errors
/// What was needed instead.
pub(crate) fn typed(kind: Kind, value: &Value) -> Result<Value, EntryError> {
    convert(value, &kind.as_type()).map_err(EntryError::Mismatch)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}

fn texts(value: &Value) -> Result<Vec<String>, EntryError> {
    let null = || EntryError::Mismatch("a list element is null".to_owned());
    let values = value.elements().map(Vec::as_slice).unwrap_or_default();
    values.iter().map(|value| text(value).ok_or_else(null)).collect()
}

/// Fields that are not null.
fn fields(value: &Value) -> BTreeMap<String, String> {
    let fields = value.fields().into_iter().flatten();
    fields
        .filter_map(|(name, value)| Some((name.clone(), text(value)?)))
        .collect()
}

impl Target {
    /// Sets the attribute `name`; nothing for one there is not.
    ///
    /// # Errors
    /// A value of another type.
    pub(crate) fn set(&mut self, name: &str, value: &Value) -> Result<(), EntryError> {
        let Some((_, kind)) = ATTRIBUTES.iter().find(|(known, _)| *known == name) else {
            return Ok(());
        };
        let value = &typed(*kind, value)?;
        if value.is_null() {
            return Ok(());
        }
        match name {
            "description" => self.description = text(value).unwrap_or_default(),
            "inherits" => self.inherits = texts(value)?,
            "annotations" => self.annotations = Some(texts(value)?),
            "attest" => self.attest = Some(read(value)?),
            "context" => self.context = text(value),
            "contexts" => self.contexts = fields(value),
            "dockerfile" => self.dockerfile = text(value),
            "dockerfile-inline" => self.dockerfile_inline = text(value),
            "args" => self.args = fields(value),
            "labels" => self.labels = fields(value),
            "tags" => self.tags = Some(texts(value)?),
            "cache-from" => self.cache_from = Some(read(value)?),
            "cache-to" => self.cache_to = Some(read(value)?),
            "target" => self.target = text(value),
            "secret" => self.secrets = Some(read(value)?),
            "ssh" => self.ssh = Some(read(value)?),
            "platforms" => self.platforms = Some(texts(value)?),
            "output" => self.outputs = Some(read(value)?),
            "pull" => self.pull = Some(*value == Value::Bool(true)),
            "no-cache" => self.no_cache = Some(*value == Value::Bool(true)),
            "network" => self.network = text(value),
            "no-cache-filter" => self.no_cache_filter = Some(texts(value)?),
            "shm-size" => self.shm_size = text(value),
            "ulimits" => self.ulimits = Some(texts(value)?),
            "resources" => self.resources = Some(Resources::read(value)?),
            "call" => self.call = text(value),
            "entitlements" => self.entitlements = Some(texts(value)?),
            "extra-hosts" => self.extra_hosts = fields(value),
            "policy" if value.elements().is_some_and(|values| !values.is_empty()) => {
                let text = "policy: rbuild does not evaluate policies in Rego; source policies of files work"
                    .to_owned();
                return Err(EntryError::Mismatch(text));
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes what `other` says over what this says.
    pub(crate) fn merge(&mut self, other: &Self) {
        fn replace<T: Clone>(own: &mut Option<T>, other: &Option<T>) {
            if other.is_some() {
                own.clone_from(other);
            }
        }
        fn append<T: Clone>(own: &mut Option<Vec<T>>, other: &Option<Vec<T>>) {
            if let Some(other) = other {
                own.get_or_insert_default().extend(other.iter().cloned());
            }
        }
        fn entries<E: Entry>(own: &mut Option<Vec<E>>, other: &Option<Vec<E>>) {
            if other.is_some() {
                append(own, other);
                *own = own.take().map(E::dedup);
            }
        }
        let extend = |own: &mut BTreeMap<String, String>, other: &BTreeMap<String, String>| {
            own.extend(other.iter().map(|(name, value)| (name.clone(), value.clone())));
        };
        replace(&mut self.context, &other.context);
        replace(&mut self.dockerfile, &other.dockerfile);
        replace(&mut self.dockerfile_inline, &other.dockerfile_inline);
        extend(&mut self.args, &other.args);
        extend(&mut self.contexts, &other.contexts);
        extend(&mut self.labels, &other.labels);
        replace(&mut self.tags, &other.tags);
        replace(&mut self.target, &other.target);
        replace(&mut self.call, &other.call);
        append(&mut self.annotations, &other.annotations);
        entries(&mut self.attest, &other.attest);
        entries(&mut self.secrets, &other.secrets);
        entries(&mut self.ssh, &other.ssh);
        replace(&mut self.platforms, &other.platforms);
        entries(&mut self.cache_from, &other.cache_from);
        replace(&mut self.cache_to, &other.cache_to);
        replace(&mut self.outputs, &other.outputs);
        replace(&mut self.pull, &other.pull);
        replace(&mut self.no_cache, &other.no_cache);
        replace(&mut self.network, &other.network);
        append(&mut self.no_cache_filter, &other.no_cache_filter);
        replace(&mut self.shm_size, &other.shm_size);
        append(&mut self.ulimits, &other.ulimits);
        if let Some(resources) = &other.resources {
            let own = self.resources.get_or_insert_default();
            own.0.extend(
                resources
                    .0
                    .iter()
                    .map(|(name, value)| (name.clone(), value.clone())),
            );
        }
        if !other.description.is_empty() {
            self.description.clone_from(&other.description);
        }
        append(&mut self.entitlements, &other.entitlements);
        extend(&mut self.extra_hosts, &other.extra_hosts);
        self.inherits.extend(other.inherits.iter().cloned());
    }

    /// Leaves out what is empty or stands there twice; the network of the host is an entitlement.
    pub(crate) fn normalize(&mut self) {
        fn distinct(texts: &mut Option<Vec<String>>) {
            let mut seen = std::collections::HashSet::new();
            texts
                .iter_mut()
                .for_each(|texts| texts.retain(|text| !text.is_empty() && seen.insert(text.clone())));
        }
        fn entries<E: Entry>(own: &mut Option<Vec<E>>) {
            *own = own.take().map(E::dedup);
        }
        if self.network.as_deref() == Some("host") {
            self.entitlements
                .get_or_insert_default()
                .push("network.host".to_owned());
        }
        for texts in [
            &mut self.annotations,
            &mut self.tags,
            &mut self.platforms,
            &mut self.no_cache_filter,
            &mut self.ulimits,
            &mut self.entitlements,
        ] {
            distinct(texts);
        }
        entries(&mut self.attest);
        entries(&mut self.secrets);
        entries(&mut self.ssh);
        entries(&mut self.cache_from);
        entries(&mut self.cache_to);
        entries(&mut self.outputs);
        self.contexts.retain(|_, value| !value.is_empty());
    }

    /// As buildx prints it.
    #[must_use]
    pub fn to_json(&self) -> Printed {
        let escaped = |text: &str| text.replace("${", "$${").replace("%{", "%%{");
        let escaped_fields = |of: &BTreeMap<String, String>| {
            of.iter()
                .map(|(name, value)| (name.clone(), Printed::Text(escaped(value))))
                .collect::<BTreeMap<_, _>>()
        };
        let mut out = Fields::default();
        out.text(
            "description",
            Some(&self.description).filter(|text| !text.is_empty()),
        );
        let annotations: Option<Vec<String>> = self
            .annotations
            .as_ref()
            .map(|texts| texts.iter().map(|text| escaped(text)).collect());
        out.texts("annotations", annotations.as_ref());
        out.entries("attest", self.attest.as_ref());
        out.text("context", self.context.as_ref());
        out.map(
            "contexts",
            self.contexts
                .iter()
                .map(|(name, value)| (name.clone(), Printed::text(value)))
                .collect(),
        );
        out.text("dockerfile", self.dockerfile.as_ref());
        out.text(
            "dockerfile-inline",
            self.dockerfile_inline.as_deref().map(escaped).as_ref(),
        );
        out.map("args", escaped_fields(&self.args));
        out.map("labels", escaped_fields(&self.labels));
        out.texts("tags", self.tags.as_ref());
        out.entries("cache-from", self.cache_from.as_ref());
        out.entries("cache-to", self.cache_to.as_ref());
        out.text("target", self.target.as_ref());
        out.entries("secret", self.secrets.as_ref());
        out.entries("ssh", self.ssh.as_ref());
        out.texts("platforms", self.platforms.as_ref());
        out.entries("output", self.outputs.as_ref());
        out.truth("pull", self.pull);
        out.truth("no-cache", self.no_cache);
        out.text("network", self.network.as_ref());
        out.texts("no-cache-filter", self.no_cache_filter.as_ref());
        out.text("shm-size", self.shm_size.as_ref());
        out.texts("ulimits", self.ulimits.as_ref());
        if let Some(resources) = &self.resources {
            out.0.push(("resources".to_owned(), resources.to_json()));
        }
        out.text("call", self.call.as_ref());
        out.texts("entitlements", self.entitlements.as_ref());
        out.map("extra-hosts", escaped_fields(&self.extra_hosts));
        Printed::Fields(out.0)
    }
}

/// Fields that are there.
#[derive(Default)]
struct Fields(Vec<(String, Printed)>);

impl Fields {
    fn text(&mut self, name: &str, value: Option<&String>) {
        self.0
            .extend(value.map(|value| (name.to_owned(), Printed::text(value))));
    }

    fn truth(&mut self, name: &str, value: Option<bool>) {
        self.0
            .extend(value.map(|value| (name.to_owned(), Printed::Bare(value.to_string()))));
    }

    fn texts(&mut self, name: &str, value: Option<&Vec<String>>) {
        let value = value.filter(|texts| !texts.is_empty());
        self.0
            .extend(value.map(|texts| (name.to_owned(), Printed::texts(texts))));
    }

    fn entries<E: Entry>(&mut self, name: &str, value: Option<&Vec<E>>) {
        let value = value.filter(|entries| !entries.is_empty());
        let printed = value.map(|entries| Printed::List(entries.iter().map(E::to_json).collect()));
        self.0.extend(printed.map(|printed| (name.to_owned(), printed)));
    }

    fn map(&mut self, name: &str, fields: BTreeMap<String, Printed>) {
        if !fields.is_empty() {
            self.0.push((name.to_owned(), fields.into()));
        }
    }
}
