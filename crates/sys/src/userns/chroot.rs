//! The last rung: no namespaces, as in a container with the default profile. Only looks at what this process may do.

use rustix::thread::CapabilitySet;

use super::UsernsError;

/// What making a root for a step, its owners and its devices takes, and giving all that up. Docker's default set has them.
const NEEDED: [(CapabilitySet, &str); 9] = [
    (CapabilitySet::CHOWN, "CHOWN"),
    (CapabilitySet::DAC_OVERRIDE, "DAC_OVERRIDE"),
    (CapabilitySet::FOWNER, "FOWNER"),
    (CapabilitySet::FSETID, "FSETID"),
    (CapabilitySet::MKNOD, "MKNOD"),
    (CapabilitySet::SETGID, "SETGID"),
    (CapabilitySet::SETPCAP, "SETPCAP"),
    (CapabilitySet::SETUID, "SETUID"),
    (CapabilitySet::SYS_CHROOT, "SYS_CHROOT"),
];

/// Whether this process can stand on it.
pub(super) fn check() -> Result<(), UsernsError> {
    if !rustix::process::geteuid().is_root() {
        return Err(UsernsError::NotRoot);
    }
    let has = rustix::thread::capabilities(None)
        .map_err(|error| super::kernel("read capabilities", error))?
        .effective;
    let missing: Vec<_> = NEEDED
        .into_iter()
        .filter(|(capability, _)| !has.contains(*capability))
        .map(|(_, name)| name)
        .collect();
    if !missing.is_empty() {
        return Err(UsernsError::Capabilities { missing });
    }
    crate::process::hide().map_err(|source| UsernsError::Kernel { step: "hide", source })
}
