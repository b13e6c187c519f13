//! What a device of the host brings into a sandbox: nodes that can be opened, and trees of the host.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::wire;

/// A device node. The step gets one of its own with this number, mode and owner; where this process may make none (in a
/// user namespace), the host's, as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// The host's node: a trusted path of the caller's mount namespace. It need not be there where nodes can be made.
    #[serde(with = "wire::path")]
    pub host: PathBuf,
    /// What it is a node of.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Kinds of device nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// A character device.
    Character,
    /// A block device.
    Block,
}

/// A file or directory of the host. Set-user-id bits in it have no effect, and devices in it cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostTree {
    /// Where it is: a trusted path of the caller's mount namespace.
    #[serde(with = "wire::path")]
    pub path: PathBuf,
    /// No writes through this mount.
    pub readonly: bool,
    /// Nothing in it can be executed.
    pub noexec: bool,
}
