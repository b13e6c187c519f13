//! Steps whose program is for another processor: an emulator of this machine is made known to the kernel where that is
//! the build's own affair, and what helps elsewhere is told.
//!
//! Nothing is refused beforehand: a file system for another platform may hold programs that run here, and a kernel that
//! was told of an emulator by others runs them all.

use rbuild_graph::progress::Stream;
use rbuild_sandbox::{Emulation, Machine, WaitError};

use crate::job::Job;
use crate::ops::{OpError, blocking};
use crate::solve::Reporter;

/// Whether the step that failed with `error` may do better now: its program needs a processor that this build has begun
/// to emulate, for this step or for one beside it.
pub(super) async fn emulated(job: &Job, error: &OpError, reporter: &Reporter) -> bool {
    let Some(machine) = machine_of(error) else {
        return false;
    };
    let engine = std::sync::Arc::clone(&job.engine);
    let begun = blocking(move || Ok::<_, OpError>(engine.sandbox.emulate(machine))).await;
    let text = match begun {
        Ok(Ok(Emulation::Began(program))) => format!(
            "programs for {} are run by {}\n",
            name(machine),
            program.display()
        ),
        Ok(Err(error)) => {
            let text = format!("programs for {} cannot be emulated: {error}\n", name(machine));
            reporter.log(Stream::Stderr, text.into_bytes());
            return false;
        }
        Ok(Ok(Emulation::Known)) => return true,
        _ => return false,
    };
    reporter.log(Stream::Stderr, text.into_bytes());
    true
}

/// What helps where a program for `machine` cannot be run.
pub(crate) fn hint(machine: Machine) -> Option<String> {
    let architecture = machine.architecture()?;
    let package = "qemu-user-static (Debian 12) or qemu-user-binfmt (13)";
    Some(format!(
        "the kernel knows no emulator for linux/{architecture} (binfmt_misc): install the package {package}, or run \
         `docker run --privileged --rm tonistiigi/binfmt --install {architecture}`; a build of an ordinary user takes an \
         installed QEMU by itself, and stages that only compile for it need none as FROM --platform=$BUILDPLATFORM"
    ))
}

/// The processor that the program of a step needs, if that is why it did not run.
pub(crate) const fn machine_of(error: &OpError) -> Option<Machine> {
    match error {
        OpError::Sandbox {
            source: WaitError::Exec { machine, .. },
            ..
        } => *machine,
        _ => None,
    }
}

fn name(machine: Machine) -> String {
    format!("linux/{}", machine.architecture().unwrap_or("another processor"))
}
