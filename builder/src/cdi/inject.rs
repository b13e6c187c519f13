//! What devices need, as parts of a sandbox's plan (`pkg/cdi/container-edits.go`). Hooks, network devices and resource
//! classes are refused, and so is what would promise less than it gives.

use std::ffi::OsString;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rbuild_sandbox::{DeviceKind, DeviceNode, HostTree, MountKind, MountPlan, Plan};
use rustix::fs::{major, minor};

use super::Device;
use super::spec::{Edits, MountEdit, NodeEdit};

/// Permissions of a node of which nobody says any.
const MODE: u32 = 0o666;

/// Why a step cannot have what a device needs.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// It asks for what steps are not given.
    #[error("device {device} needs {what}, which is not supported")]
    Unsupported {
        /// The device.
        device: String,
        /// The edit.
        what: String,
    },
    /// There is nothing at the place of its node.
    #[error("failed to stat CDI host device {path:?}")]
    Stat {
        /// The place.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something else is there.
    #[error("CDI device {path:?} is not of type {wanted:?}")]
    OtherType {
        /// The place.
        path: PathBuf,
        /// As the spec says.
        wanted: String,
    },
}

/// Adds what `devices` need to `plan`.
///
/// # Errors
/// [`InjectError`].
pub(crate) fn inject(plan: &mut Plan, devices: &[&Device]) -> Result<(), InjectError> {
    let mut done: Vec<*const Edits> = Vec::new();
    for device in devices {
        // What a spec says of all its devices is done once for them.
        let common = std::sync::Arc::as_ptr(&device.common);
        if !done.contains(&common) {
            done.push(common);
            apply(plan, device, &device.common)?;
        }
        apply(plan, device, &device.edits)?;
    }
    Ok(())
}

fn apply(plan: &mut Plan, device: &Device, edits: &Edits) -> Result<(), InjectError> {
    let refuse = |what: String| InjectError::Unsupported {
        device: device.name.clone(),
        what,
    };
    if let Some(other) = edits.others.first() {
        return Err(refuse((*other).to_owned()));
    }
    for pair in &edits.env {
        set(&mut plan.process.env, pair);
    }
    for edit in &edits.nodes {
        if !["", "rw", "rwm", "wr"].contains(&edit.permissions.as_str()) {
            return Err(refuse(format!(
                "{} with permissions {:?}",
                edit.path, edit.permissions
            )));
        }
        let ids = &plan.process.ids;
        let node = node(edit, (ids.uid, ids.gid), &refuse)?;
        mount(plan, &edit.path, MountKind::Device(node));
    }
    for edit in &edits.mounts {
        let tree = tree(edit, &refuse)?;
        mount(plan, &edit.container_path, MountKind::HostTree(tree));
    }
    for group in edits.groups.iter().filter(|group| **group != 0) {
        let groups = &mut plan.process.ids.groups;
        if !groups.contains(group) {
            groups.push(*group);
        }
    }
    Ok(())
}

/// Sets a variable where it stands already, or adds it.
fn set(env: &mut Vec<OsString>, pair: &str) {
    use std::os::unix::ffi::OsStrExt as _;
    let name = &pair[..=pair.find('=').unwrap_or(pair.len() - 1)];
    let same = |other: &&mut OsString| other.as_bytes().starts_with(name.as_bytes());
    match env.iter_mut().find(same) {
        Some(other) => *other = pair.into(),
        None => env.push(pair.into()),
    }
}

fn mount(plan: &mut Plan, dest: &str, kind: MountKind) {
    let dest = rbuild_sys::clean(Path::new(dest));
    plan.mounts.retain(|other| rbuild_sys::clean(&other.dest) != dest);
    plan.mounts.push(MountPlan { dest, kind });
}

/// The node that an edit means: what it leaves open is as on the host.
fn node(
    edit: &NodeEdit,
    (uid, gid): (u32, u32),
    refuse: &impl Fn(String) -> InjectError,
) -> Result<DeviceNode, InjectError> {
    let path = PathBuf::from(edit.host_path.as_ref().unwrap_or(&edit.path));
    if edit.kind.as_deref() == Some("p") {
        return Err(refuse(format!("the pipe {}", edit.path)));
    }
    let said = match edit.kind.as_deref() {
        Some("b") => Some(DeviceKind::Block),
        Some(_) => Some(DeviceKind::Character),
        None => None,
    };
    let complete = said.filter(|_| edit.major != 0);
    let host = match std::fs::symlink_metadata(&path) {
        Ok(host) => Some(host),
        Err(source) if complete.is_none() => return Err(InjectError::Stat { path, source }),
        Err(_) => None,
    };
    let mode = edit.mode.or_else(|| Some(host.as_ref()?.mode())).unwrap_or(MODE);
    let (kind, major, minor) = match (complete, &host) {
        (Some(kind), _) => (kind, edit.major, edit.minor),
        (None, Some(host)) => {
            let found = match host.file_type() {
                kind if kind.is_char_device() => Some(DeviceKind::Character),
                kind if kind.is_block_device() => Some(DeviceKind::Block),
                _ => None,
            };
            let fits = |kind: &DeviceKind| said.is_none_or(|said| said == *kind);
            let kind = found.filter(fits).ok_or_else(|| InjectError::OtherType {
                path: path.clone(),
                wanted: edit.kind.clone().unwrap_or_else(|| "b or c".to_owned()),
            })?;
            match edit.major {
                0 => (kind, major(host.rdev()), minor(host.rdev())),
                said => (kind, said, edit.minor),
            }
        }
        // Without a host's node and without all that it would say, it was refused above.
        (None, None) => return Err(refuse(format!("the device {}", edit.path))),
    };
    Ok(DeviceNode {
        host: path,
        kind,
        major,
        minor,
        mode: mode & 0o777,
        uid: edit.uid.unwrap_or(uid),
        gid: edit.gid.unwrap_or(gid),
    })
}

fn tree(edit: &MountEdit, refuse: &impl Fn(String) -> InjectError) -> Result<HostTree, InjectError> {
    if !matches!(edit.kind.as_str(), "" | "bind" | "none") {
        return Err(refuse(format!("a mount of type {}", edit.kind)));
    }
    let mut tree = HostTree {
        path: PathBuf::from(&edit.host_path),
        readonly: false,
        noexec: false,
    };
    for option in &edit.options {
        match option.as_str() {
            "ro" | "rro" => tree.readonly = true,
            "noexec" => tree.noexec = true,
            // Trees of the host are bound with all that is mounted in them, and always so.
            "rw" | "exec" | "bind" | "rbind" | "nosuid" | "nodev" | "private" | "rprivate" => {}
            "slave" | "rslave" | "relatime" | "noatime" => {}
            other => return Err(refuse(format!("a mount with the option {other:?}"))),
        }
    }
    Ok(tree)
}
