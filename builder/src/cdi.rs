//! Devices of the host by their CDI names (`solver/llbsolver/cdidevices/manager.go`): which there are, which of them a build
//! may use, and which ones the names of a step mean. Specs are the administrator's; they are read anew each time they are
//! asked for, and only so much of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_graph::CdiDevice;

use self::spec::Edits;

mod inject;
mod spec;
mod yaml;

pub use inject::InjectError;
pub(crate) use inject::inject;
pub use rbuild_llb::request::{Devices as DeviceGrants, EntitlementError};

/// Directories of specs if the administrator names no others (`util/appdefaults`).
const DIRS: [&str; 3] = ["/etc/cdi", "/var/run/cdi", "/etc/buildkit/cdi"];
/// Devices with this annotation need no permission.
const AUTO_ALLOW: &str = "org.mobyproject.buildkit.device.autoallow";
/// Name by which devices may be asked for together.
const CLASS: &str = "org.mobyproject.buildkit.device.class";
/// Largest spec.
const SPEC_BYTES_MAX: u64 = 4 << 20;
/// Most specs of a directory.
const SPECS_MAX: usize = 1000;

/// Where devices are described (`[cdi]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdiConfig {
    /// Directories of specs; what later ones say of a device counts.
    pub dirs: Vec<PathBuf>,
    /// Names and kinds of devices that need no permission.
    pub auto_allowed: Vec<String>,
}

impl Default for CdiConfig {
    fn default() -> Self {
        Self {
            dirs: DIRS.map(PathBuf::from).to_vec(),
            auto_allowed: Vec::new(),
        }
    }
}

/// Why a step does not get its devices.
#[derive(Debug, thiserror::Error)]
pub enum CdiError {
    /// Nobody describes one, and it is required or was allowed.
    #[error("failed to load LLB: required device {name:?} is not registered{}", unread(.problems))]
    NotRegistered {
        /// As asked for.
        name: String,
        /// Specs that could not be read.
        problems: Vec<String>,
    },
    /// They are described, and the build was not allowed to use them.
    #[error("{}", forbidden(.0))]
    NotAllowed(Vec<String>),
    /// The administrator switched them off.
    #[error("required device {0:?} cannot be used: CDI is disabled")]
    Disabled(String),
    /// The step cannot have what one needs.
    #[error(transparent)]
    Inject(#[from] InjectError),
}

fn unread(problems: &[String]) -> String {
    match problems.first() {
        None => String::new(),
        Some(_) => format!(" (not read: {})", problems.join("; ")),
    }
}

fn forbidden(names: &[String]) -> String {
    match names {
        [name] => format!("failed to load LLB: device {name} is requested by the build but not allowed"),
        names => format!(
            "failed to load LLB: devices {} are requested by the build but not allowed",
            names.join(", ")
        ),
    }
}

/// A device.
#[derive(Debug, Clone)]
pub struct Device {
    /// `vendor/class=name`.
    pub name: String,
    /// It needs no permission.
    pub auto_allow: bool,
    /// What is said of it and of its kind.
    pub annotations: BTreeMap<String, String>,
    /// What it needs.
    edits: Edits,
    /// What all of its spec need.
    common: Arc<Edits>,
}

impl Device {
    /// The part of its name before `=`.
    fn kind(&self) -> &str {
        kind(&self.name)
    }
}

fn kind(name: &str) -> &str {
    name.split_once('=').map_or(name, |(kind, _)| kind)
}

/// The devices of this machine.
#[derive(Debug, Default)]
pub struct Devices {
    /// By name.
    all: BTreeMap<String, Device>,
    /// What could not be read, with the reason.
    pub problems: Vec<String>,
}

impl Devices {
    /// Reads all specs.
    #[must_use]
    pub fn read(config: &CdiConfig) -> Self {
        let mut devices = Self::default();
        for dir in &config.dirs {
            devices.add_dir(dir, config);
        }
        devices
    }

    /// All of them, by name.
    pub fn all(&self) -> impl Iterator<Item = &Device> {
        self.all.values()
    }

    fn add_dir(&mut self, dir: &Path, config: &CdiConfig) {
        let mut found = BTreeMap::new();
        let mut conflicts = BTreeSet::new();
        for path in self.specs_in(dir) {
            let spec = match read_spec(&path) {
                Ok(spec) => spec,
                Err(problem) => {
                    self.problems.push(format!("{}: {problem}", path.display()));
                    continue;
                }
            };
            let common = Arc::new(spec.edits);
            for device in spec.devices {
                let name = format!("{}={}", spec.kind, device.name);
                let mut annotations = spec.annotations.clone();
                annotations.extend(device.annotations);
                let allowed = |text: &String| *text == name || *text == spec.kind;
                let said = annotations.get(AUTO_ALLOW).map(String::as_str);
                let device = Device {
                    auto_allow: config.auto_allowed.iter().any(allowed)
                        || said.is_some_and(|text| rbuild_dockerfile::csv::boolean(text) == Some(true)),
                    annotations,
                    edits: device.edits,
                    common: Arc::clone(&common),
                    name: name.clone(),
                };
                if found.insert(name.clone(), device).is_some() {
                    self.problems
                        .push(format!("{}: conflicting device {name:?}", path.display()));
                    conflicts.insert(name);
                }
            }
        }
        self.all.extend(found);
        // Nobody knows which of two specs of the same directory is meant.
        self.all.retain(|name, _| !conflicts.contains(name));
    }

    fn specs_in(&mut self, dir: &Path) -> Vec<PathBuf> {
        let listed = match std::fs::read_dir(dir) {
            Ok(listed) => listed,
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound {
                    self.problems.push(format!("{}: {error}", dir.display()));
                }
                return Vec::new();
            }
        };
        let is_spec = |path: &PathBuf| {
            let ending = path.extension();
            ending.is_some_and(|ending| ending == "json" || ending == "yaml") && !path.is_dir()
        };
        let paths = listed.filter_map(|entry| Some(entry.ok()?.path()));
        let mut specs: Vec<PathBuf> = paths.filter(is_spec).take(SPECS_MAX).collect();
        specs.sort();
        specs
    }

    /// The devices that `wanted` means, each once; nothing for an optional one that there is not.
    fn find<'a>(&'a self, wanted: &CdiDevice) -> Result<Vec<&'a Device>, CdiError> {
        let (kind, name) = wanted.name.split_once('=').unwrap_or((&wanted.name, ""));
        let is_kind = kind
            .split_once('/')
            .is_some_and(|(vendor, class)| !vendor.is_empty() && !class.is_empty());
        let of_kind = || self.all().filter(|device| is_kind && device.kind() == kind);
        let mut found: Vec<&Device> = match name {
            "" => of_kind().take(1).collect(),
            "*" => of_kind().collect(),
            _ => of_kind().filter(|device| device.name == wanted.name).collect(),
        };
        if found.is_empty() {
            let in_class = |device: &&Device| device.annotations.get(CLASS) == Some(&wanted.name);
            found = self.all().filter(in_class).collect();
        }
        if found.is_empty() && !wanted.optional {
            return Err(CdiError::NotRegistered {
                name: wanted.name.clone(),
                problems: self.problems.clone(),
            });
        }
        Ok(found)
    }

    /// The devices that a step gets which asks for `wanted`, each once.
    ///
    /// # Errors
    /// [`CdiError::NotRegistered`], [`CdiError::NotAllowed`].
    pub fn granted(&self, wanted: &[CdiDevice], grants: &DeviceGrants) -> Result<Vec<&Device>, CdiError> {
        let is_alias = |name: &String| grants.named.get(name).is_some_and(Option::is_some);
        let mut allowed_names = BTreeSet::new();
        let mut asks_by_name = false;
        for wanted in wanted.iter().filter(|wanted| !is_alias(&wanted.name)) {
            asks_by_name |= !self.find(wanted)?.is_empty();
        }
        // What was allowed has to be there as soon as a step asks for any device by its own name.
        if asks_by_name {
            for name in grants.named.keys() {
                let granted = CdiDevice {
                    name: name.clone(),
                    optional: false,
                };
                allowed_names.extend(self.find(&granted)?.into_iter().map(|device| &device.name));
            }
        }
        let mut devices: Vec<&Device> = Vec::new();
        let mut forbidden = Vec::new();
        for wanted in wanted {
            let alias = grants.named.get(&wanted.name).and_then(Option::as_deref);
            let meant = CdiDevice {
                name: alias.unwrap_or(&wanted.name).to_owned(),
                optional: wanted.optional,
            };
            for device in self.find(&meant)? {
                let allowed = alias.is_some()
                    || grants.all
                    || device.auto_allow
                    || allowed_names.contains(&device.name);
                if !allowed {
                    if !forbidden.contains(&device.name) {
                        forbidden.push(device.name.clone());
                    }
                } else if !devices.iter().any(|other| other.name == device.name) {
                    devices.push(device);
                }
            }
        }
        if forbidden.is_empty() {
            Ok(devices)
        } else {
            Err(CdiError::NotAllowed(forbidden))
        }
    }
}

/// The text of the problem is for people: nothing is decided by it.
fn read_spec(path: &Path) -> Result<spec::Spec, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let read = file.take(SPEC_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|error| error.to_string())?;
    if text.len() as u64 > SPEC_BYTES_MAX {
        return Err(format!("larger than {SPEC_BYTES_MAX} bytes"));
    }
    spec::parse(&text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
