//! CDI specs: files in which vendors say what their devices need in a container
//! (`tags.cncf.io/container-device-interface`, `specs-go` and `pkg/cdi/spec.go`). Read strictly: what nobody knows is an
//! error, as the effect of leaving it out is not known either.

use std::collections::BTreeMap;

use super::yaml::{self, Node, YamlError};

/// Versions of the format.
const VERSIONS: [&str; 10] = [
    "0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0",
];

/// Why a spec cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpecError {
    /// It is no YAML.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// A field nobody knows.
    #[error("unknown field \"{place}{name}\"")]
    Unknown {
        /// What it is a field of.
        place: String,
        /// Its name.
        name: String,
    },
    /// A field has a value of another type.
    #[error("field \"{field}\" is not {wanted}")]
    Type {
        /// The field.
        field: String,
        /// What it has to be.
        wanted: &'static str,
    },
    /// A value that means nothing.
    #[error("invalid {what} {value:?}")]
    Invalid {
        /// What it is.
        what: &'static str,
        /// As written.
        value: String,
    },
    /// A device is described twice.
    #[error("invalid spec, multiple device {0:?}")]
    Twice(String),
    /// A device changes nothing.
    #[error("invalid device {0:?}, empty device edits")]
    Empty(String),
    /// No device is described.
    #[error("invalid spec, no devices")]
    NoDevices,
}

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spec {
    /// `vendor/class` of its devices.
    pub(super) kind: String,
    /// What is said of all of them.
    pub(super) annotations: BTreeMap<String, String>,
    /// What all of them need.
    pub(super) edits: Edits,
    /// The devices.
    pub(super) devices: Vec<SpecDevice>,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SpecDevice {
    /// Name within its kind.
    pub(super) name: String,
    /// What is said of it.
    pub(super) annotations: BTreeMap<String, String>,
    /// What it needs.
    pub(super) edits: Edits,
}

/// What is changed in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Edits {
    /// `NAME=value`.
    pub(super) env: Vec<String>,
    /// Device nodes.
    pub(super) nodes: Vec<NodeEdit>,
    /// Trees of the host.
    pub(super) mounts: Vec<MountEdit>,
    /// Groups of the process.
    pub(super) groups: Vec<u32>,
    /// What else is asked for, and cannot be given: `hooks`, `netDevices`, `intelRdt`.
    pub(super) others: Vec<&'static str>,
}

/// A device node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NodeEdit {
    /// Where, in the container.
    pub(super) path: String,
    /// The host's; the same path if absent.
    pub(super) host_path: Option<String>,
    /// `b`, `c`, `u` or `p`; the host's if absent.
    pub(super) kind: Option<String>,
    /// The host's if absent or 0.
    pub(super) major: u32,
    /// Likewise.
    pub(super) minor: u32,
    /// The host's if absent.
    pub(super) mode: Option<u32>,
    /// What may be done with it, of `rwm`.
    pub(super) permissions: String,
    /// The process's if absent.
    pub(super) uid: Option<u32>,
    /// Likewise.
    pub(super) gid: Option<u32>,
}

/// A tree of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct MountEdit {
    /// There.
    pub(super) host_path: String,
    /// In the container.
    pub(super) container_path: String,
    /// As of `mount(8)`.
    pub(super) options: Vec<String>,
    /// Kind of file system.
    pub(super) kind: String,
}

/// Reads a spec.
///
/// # Errors
/// [`SpecError`].
pub(super) fn parse(text: &str) -> Result<Spec, SpecError> {
    let mut fields = Fields::of("", yaml::parse(text)?)?;
    let version = fields.text("cdiVersion")?;
    if !VERSIONS.contains(&version.strip_prefix('v').unwrap_or(&version)) {
        return Err(invalid("version", &version));
    }
    let kind = fields.text("kind")?;
    let names = kind.split_once('/');
    if !names.is_some_and(|(vendor, class)| is_name(vendor, "_-.", false) && is_name(class, "_-.", false)) {
        return Err(invalid("kind", &kind));
    }
    let spec = Spec {
        annotations: fields.texts("annotations")?,
        edits: edits(fields.take("containerEdits"), "containerEdits.")?,
        devices: fields.each("devices", device)?,
        kind,
    };
    fields.end()?;
    let mut names = std::collections::HashSet::new();
    if let Some(twice) = spec.devices.iter().find(|device| !names.insert(&device.name)) {
        return Err(SpecError::Twice(twice.name.clone()));
    }
    if spec.devices.is_empty() {
        return Err(SpecError::NoDevices);
    }
    Ok(spec)
}

fn device(place: &str, node: Node) -> Result<SpecDevice, SpecError> {
    let mut fields = Fields::of(place, node)?;
    let name = fields.text("name")?;
    if !is_name(&name, "_-.:", true) {
        return Err(invalid("device name", &name));
    }
    let annotations = fields.texts("annotations")?;
    let edits = edits(fields.take("containerEdits"), &format!("{place}containerEdits."))?;
    fields.end()?;
    if edits == Edits::default() {
        return Err(SpecError::Empty(name));
    }
    Ok(SpecDevice {
        name,
        annotations,
        edits,
    })
}

fn edits(node: Node, place: &str) -> Result<Edits, SpecError> {
    let mut fields = Fields::of(place, node)?;
    let env = fields.each("env", scalar)?;
    if let Some(bad) = env.iter().find(|pair| pair.find('=').is_none_or(|at| at == 0)) {
        return Err(invalid("environment variable", bad));
    }
    let mut others = Vec::new();
    for name in ["hooks", "netDevices", "intelRdt"] {
        match fields.take(name) {
            Node::Null => {}
            Node::Sequence(values) if values.is_empty() => {}
            _ => others.push(name),
        }
    }
    let edits = Edits {
        env,
        nodes: fields.each("deviceNodes", node_edit)?,
        mounts: fields.each("mounts", mount_edit)?,
        groups: fields.each("additionalGids", |place, node| {
            number(&scalar(place, node)?, place)
        })?,
        others,
    };
    fields.end()?;
    Ok(edits)
}

fn node_edit(place: &str, node: Node) -> Result<NodeEdit, SpecError> {
    let mut fields = Fields::of(place, node)?;
    let edit = NodeEdit {
        path: fields.text("path")?,
        host_path: Some(fields.text("hostPath")?).filter(|path| !path.is_empty()),
        kind: Some(fields.text("type")?).filter(|kind| !kind.is_empty()),
        major: fields.number("major")?.unwrap_or(0),
        minor: fields.number("minor")?.unwrap_or(0),
        mode: fields.number("fileMode")?,
        permissions: fields.text("permissions")?,
        uid: fields.number("uid")?,
        gid: fields.number("gid")?,
    };
    fields.end()?;
    if edit.path.is_empty() {
        return Err(invalid("device path", ""));
    }
    if edit
        .kind
        .as_deref()
        .is_some_and(|kind| !["b", "c", "u", "p"].contains(&kind))
    {
        return Err(invalid("device type", edit.kind.as_deref().unwrap_or_default()));
    }
    if edit.permissions.chars().any(|bit| !"rwm".contains(bit)) {
        return Err(invalid("permissions", &edit.permissions));
    }
    Ok(edit)
}

fn mount_edit(place: &str, node: Node) -> Result<MountEdit, SpecError> {
    let mut fields = Fields::of(place, node)?;
    let edit = MountEdit {
        host_path: fields.text("hostPath")?,
        container_path: fields.text("containerPath")?,
        options: fields.each("options", scalar)?,
        kind: fields.text("type")?,
    };
    fields.end()?;
    for (what, path) in [
        ("host path", &edit.host_path),
        ("container path", &edit.container_path),
    ] {
        if path.is_empty() {
            return Err(invalid(what, path));
        }
    }
    Ok(edit)
}

fn invalid(what: &'static str, value: &str) -> SpecError {
    SpecError::Invalid {
        what,
        value: value.to_owned(),
    }
}

/// Letters, digits and, inside, some of `inside`; the first may be a digit or not.
fn is_name(name: &str, inside: &str, first_digit: bool) -> bool {
    let mut letters = name.chars();
    let first = letters.next();
    let first = first.is_some_and(|c| c.is_ascii_alphabetic() || (first_digit && c.is_ascii_digit()));
    let last = name
        .chars()
        .next_back()
        .is_some_and(|c| c.is_ascii_alphanumeric());
    first && last && letters.all(|c| c.is_ascii_alphanumeric() || inside.contains(c))
}

fn scalar(place: &str, node: Node) -> Result<String, SpecError> {
    match node {
        Node::Scalar(text) => Ok(text),
        _ => Err(wrong(place, "a text")),
    }
}

fn wrong(place: &str, wanted: &'static str) -> SpecError {
    SpecError::Type {
        field: place.trim_end_matches('.').to_owned(),
        wanted,
    }
}

/// A number of Go's YAML reader: decimal, or octal with `0`.
fn number(text: &str, place: &str) -> Result<u32, SpecError> {
    let octal = text.strip_prefix("0o").or_else(|| {
        let digits = text.strip_prefix('0')?;
        (!digits.is_empty()).then_some(digits)
    });
    let parsed = match octal {
        Some(digits) => u32::from_str_radix(digits, 8),
        None => text.parse(),
    };
    parsed.map_err(|_not| wrong(place, "a number from 0 to 4294967295"))
}

/// The fields of a mapping that were not read yet.
struct Fields<'a> {
    place: &'a str,
    rest: Vec<(String, Node)>,
}

impl<'a> Fields<'a> {
    fn of(place: &'a str, node: Node) -> Result<Self, SpecError> {
        let rest = match node {
            Node::Mapping(rest) => rest,
            Node::Null => Vec::new(),
            _ => return Err(wrong(place, "a mapping")),
        };
        Ok(Self { place, rest })
    }

    fn take(&mut self, name: &str) -> Node {
        let at = self.rest.iter().position(|(key, _)| key == name);
        at.map_or(Node::Null, |at| self.rest.swap_remove(at).1)
    }

    /// A text, empty if it is absent.
    fn text(&mut self, name: &str) -> Result<String, SpecError> {
        match self.take(name) {
            Node::Null => Ok(String::new()),
            node => scalar(&format!("{}{name}", self.place), node),
        }
    }

    fn number(&mut self, name: &str) -> Result<Option<u32>, SpecError> {
        let text = self.text(name)?;
        if text.is_empty() {
            return Ok(None);
        }
        number(&text, &format!("{}{name}", self.place)).map(Some)
    }

    fn texts(&mut self, name: &str) -> Result<BTreeMap<String, String>, SpecError> {
        let place = format!("{}{name}.", self.place);
        let fields = Fields::of(&place, self.take(name))?;
        let pair = |(key, node): (String, Node)| {
            let value = scalar(&format!("{place}{key}"), node)?;
            Ok((key, value))
        };
        fields.rest.into_iter().map(pair).collect()
    }

    fn each<T>(
        &mut self,
        name: &str,
        read: impl Fn(&str, Node) -> Result<T, SpecError>,
    ) -> Result<Vec<T>, SpecError> {
        let place = format!("{}{name}.", self.place);
        match self.take(name) {
            Node::Null => Ok(Vec::new()),
            Node::Sequence(values) => values.into_iter().map(|value| read(&place, value)).collect(),
            _ => Err(wrong(&place, "a sequence")),
        }
    }

    fn end(self) -> Result<(), SpecError> {
        match self.rest.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => Err(SpecError::Unknown {
                place: self.place.to_owned(),
                name,
            }),
        }
    }
}

#[cfg(test)]
mod tests;
