//! What the step's process keeps: limits, ids, capabilities, system calls. Only ever takes away.

use std::io;
use std::path::Path;

use rbuild_sys::process;
use rbuild_sys::seccomp::Instruction;
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit as KernelRlimit};
use rustix::thread::CapabilitySet;

use crate::heard::Mouth;
use crate::plan::{Ids, Process, Rlimit, RlimitResource, Security};
use crate::wire::{During as _, Explained as _, SetupError};

/// Docker's default capabilities (containerd, pkg/oci/spec.go, `defaultUnixCaps`).
pub(crate) const DEFAULT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// The same without those that lead out of a root directory: to other roots, and to devices.
pub(crate) const WITHOUT_NAMESPACES: CapabilitySet =
    DEFAULT.difference(CapabilitySet::SYS_CHROOT.union(CapabilitySet::MKNOD));

/// Applies the limits; gives a warning for each that had to be lowered.
pub(crate) fn limit(process: &Process) -> Result<Vec<String>, SetupError> {
    let mut warnings = Vec::new();
    if !process
        .rlimits
        .iter()
        .any(|limit| limit.resource == RlimitResource::Core)
    {
        // Dumps would land in the layer, or with the host's collector, with the step's secrets in them.
        let none = KernelRlimit {
            current: Some(0),
            maximum: Some(0),
        };
        rustix::process::setrlimit(Resource::Core, none).during("set limit", "core")?;
    }
    for limit in &process.rlimits {
        warnings.extend(set_limit(limit)?);
    }
    Ok(warnings)
}

fn set_limit(limit: &Rlimit) -> Result<Option<String>, SetupError> {
    let resource = limit.resource.kernel();
    let name = limit.resource.name();
    let wanted = KernelRlimit {
        current: limit.soft,
        maximum: limit.hard,
    };
    match rustix::process::setrlimit(resource, wanted) {
        Ok(()) => Ok(None),
        Err(error) => {
            let ceiling = rustix::process::getrlimit(resource).maximum;
            if limit.required || error != rustix::io::Errno::PERM {
                let text = format!(
                    ": {} is above the machine's hard limit of {}",
                    shown(limit.hard),
                    shown(ceiling)
                );
                let text = if error == rustix::io::Errno::PERM {
                    text
                } else {
                    String::new()
                };
                return Err(SetupError {
                    text,
                    ..SetupError::during_limit(name, error.into())
                });
            }
            let lowest = |value: Option<u64>| match (value, ceiling) {
                (Some(value), Some(ceiling)) => Some(value.min(ceiling)),
                (value, ceiling) => value.or(ceiling),
            };
            let lowered = KernelRlimit {
                current: lowest(limit.soft),
                maximum: lowest(limit.hard),
            };
            rustix::process::setrlimit(resource, lowered).during("set limit", name)?;
            let hard = shown(ceiling);
            Ok(Some(format!(
                "limit {name} was lowered to this machine's hard limit of {hard}"
            )))
        }
    }
}

fn shown(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |value| value.to_string())
}

impl SetupError {
    fn during_limit(name: &str, error: io::Error) -> Self {
        let failed: Result<(), _> = Err(error);
        match failed.during("set limit", name) {
            Err(error) => error,
            Ok(()) => unreachable!("made from an error"),
        }
    }
}

/// Gives up abstract sockets of others: on the host's network those of the host are there by their names. Where the kernel
/// has no scopes (before Linux 6.12) they stay in reach, as with every other builder.
pub(crate) fn leave_host_sockets() -> Result<(), SetupError> {
    rbuild_sys::landlock::scope_abstract_sockets()
        .map(drop)
        .during("scope abstract sockets", "")
}

/// Gives up everything the plan does not grant. After this only `execve` is left to do.
/// With a mouth, somebody answers calls of the step; who the step is may be for him to tell.
pub(crate) fn drop_rights(
    ids: &Ids,
    granted: CapabilitySet,
    security: Security,
    filter: &[Instruction],
    mouth: Option<&Mouth>,
) -> Result<(), SetupError> {
    let nowhere = Path::new("");
    rustix::process::umask(Mode::from_raw_mode(0o022));
    match process::join_new_session_keyring() {
        // No keys in this kernel, or none allowed to this user: nothing to find either, since a step's own system
        // calls on keys are filtered.
        Err(error) if security == Security::Sandbox || error.raw_os_error() == Some(libc::ENOSYS) => {}
        done => done.during("join session keyring", nowhere)?,
    }
    process::limit_bounding_set(granted).during("limit capabilities", nowhere)?;
    // From here on there are no changes of owners left to do, and no ids to ask for.
    if let Some(mouth) = mouth {
        mouth.ask_from_now_on(security)?;
    }
    if security == Security::Sandbox {
        // Before the rights go: loading needs CAP_SYS_ADMIN, since no_new_privs stays off. The profile allows all
        // that follows.
        rbuild_sys::seccomp::load(filter).explained("load seccomp profile", nowhere)?;
    }
    if !mouth.is_some_and(Mouth::is_about_owners) {
        process::become_user(ids.uid, ids.gid, &ids.groups)
            .during("become user", format!("{}:{}", ids.uid, ids.gid))?;
    }
    process::set_capabilities(granted).during("limit capabilities", nowhere)?;
    // A change of user makes the kernel forget this.
    process::die_with_parent().during("tie to parent", nowhere)?;
    process::reset_signals().during("reset signals", nowhere)?;
    process::close_on_exec_from(3).during("close descriptors", nowhere)
}
