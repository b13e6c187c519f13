//! What follows from the rung that this process stands on: what starts and confines steps, how layers are kept, what is told of it.

use std::os::fd::AsFd as _;
use std::path::Path;

use rbuild_builder::error::chain_text;
use rbuild_sandbox::{Confinement, Sandbox, SandboxError};
use rbuild_store::FormName;
use rbuild_sys::userns::{Entered, Rung};

use super::shown::Shown;
use crate::engine::EngineError;

/// The rung, and why none of the higher ones.
pub(super) fn standing(entered: &Entered, shown: &Shown) -> String {
    let rung = entered.rung;
    let mut text = format!(
        "building on rung {} ({}): {}",
        rung.number(),
        rung.name(),
        rung.summary()
    );
    for missed in &entered.declined {
        text = text + "; not " + missed.rung.name() + ": " + &chain_text(&missed.error);
    }
    text = text + ", snapshotter " + shown.means.name();
    for (means, error) in &shown.declined {
        text = text + "; not " + means.name() + ": " + error;
    }
    text
}

/// What starts steps on a rung.
pub(crate) fn sandbox(rung: Rung) -> Result<Sandbox, SandboxError> {
    let sandbox = Sandbox::new()?;
    match confinement(rung) {
        Confinement::Namespaces if rung == Rung::RootNamespaces => Ok(sandbox),
        Confinement::Namespaces => Ok(sandbox.in_own_user_namespace()),
        Confinement::Chroot => Ok(sandbox.for_chroot()),
    }
}

/// What keeps steps apart on a rung.
pub(crate) const fn confinement(rung: Rung) -> Confinement {
    if rung.has_mounts() {
        Confinement::Namespaces
    } else {
        Confinement::Chroot
    }
}

/// A file system that forgets owners would give other images.
pub(super) fn keeps_owners(root: &Path) -> Result<(), EngineError> {
    let probed = std::fs::File::open(root)
        .and_then(|dir| rbuild_sys::owner::probe(dir.as_fd()).map_err(std::io::Error::from));
    probed.map_err(|error| {
        EngineError::failed(format!(
            "store {}: its file system cannot record the owners of files: {error}; name another with --root",
            root.display()
        ))
    })
}

/// Names the form and, below a user namespace, the ids it maps: layers of other maps have other owners on disk.
pub(super) fn form_name(rung: Rung) -> Result<FormName, rbuild_store::NameError> {
    match rung {
        Rung::RootNamespaces => FormName::parse("root"),
        Rung::SubordinateIds | Rung::OneId | Rung::Chroot | Rung::Files => {
            let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
            let starts: Vec<&str> = map
                .lines()
                .filter_map(|line| line.split_whitespace().nth(1))
                .collect();
            let kind = match rung {
                Rung::OneId => "one",
                Rung::Chroot => "own",
                // The files are one user's, whatever their owners are.
                Rung::Files => {
                    let uid = rustix::process::geteuid().as_raw();
                    return FormName::parse(&format!("files-{uid}"));
                }
                Rung::RootNamespaces | Rung::SubordinateIds => "sub",
            };
            FormName::parse(&format!("{kind}-{}", starts.join("-")))
        }
    }
}
