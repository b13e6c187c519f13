//! The third rung: a user namespace that maps the caller's own id to root, and nothing else. Needs no helper program and
//! no configuration of the machine but user namespaces themselves.

use rustix::io::Errno;
use rustix::process::DumpableBehavior;

use super::{OWN_NAMESPACES, UsernsError, apparmor_restricts, ask_first, kernel, refusal};
use crate::namespace::unshare;
use crate::seccomp::{Instruction, SeccompError};

/// Enters it, for the caller who is `uid` and `gid` outside. `half_way` if the process is in a user namespace of its own
/// already, whose maps were never written.
pub(super) fn enter((uid, gid): (u32, u32), half_way: bool) -> Result<(), UsernsError> {
    // The files below belong to root for a hidden process.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(|e| kernel("prctl", e))?;
    if !half_way {
        ask_first(OWN_NAMESPACES)?;
        unshare(OWN_NAMESPACES).map_err(refusal)?;
    }
    // Without this the kernel takes no map of groups from who has no rights outside (user_namespaces(7)).
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", &format!("0 {gid} 1"))?;
    probe_listener()?;
    crate::owner::record_owners();
    crate::process::hide().map_err(|source| UsernsError::Kernel { step: "hide", source })
}

/// Whether steps can be shown their owners: tried in a process that ends with it.
fn probe_listener() -> Result<(), UsernsError> {
    const ALLOW_ALL: [Instruction; 1] = [Instruction {
        code: 0x06,
        jump_true: 0,
        jump_false: 0,
        k: libc::SECCOMP_RET_ALLOW,
    }];
    let ended = super::probe(|| match crate::seccomp::load_heard(&ALLOW_ALL) {
        Ok(_) => 0,
        Err(SeccompError::Heard) => HEARD,
        Err(_) => REFUSED,
    })?;
    match ended {
        Some(0) => Ok(()),
        Some(HEARD) => Err(UsernsError::Listener(SeccompError::Heard)),
        _ => Err(UsernsError::Listener(SeccompError::Unsupported)),
    }
}

const HEARD: i32 = 3;
const REFUSED: i32 = 4;

fn write(path: &'static str, text: &str) -> Result<(), UsernsError> {
    std::fs::write(path, text).map_err(|source| match Errno::from_io_error(&source) {
        Some(Errno::PERM | Errno::ACCESS) if apparmor_restricts() => UsernsError::AppArmor,
        _ => UsernsError::Kernel {
            step: "map the own id",
            source,
        },
    })
}
