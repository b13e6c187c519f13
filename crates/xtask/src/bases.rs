//! `cargo xtask bases`: the base images of both tiers, made once per machine.

use std::time::Instant;

use anyhow::{Context as _, Result};
use rbuild_testkit::{base, debian::DebianBase};

/// Makes the images named, or all.
pub(crate) fn run(names: &[String]) -> Result<()> {
    let report = |name: &str, path: &std::path::Path, start: Instant| {
        println!("{name}: {} ({:.1?})", path.display(), start.elapsed());
    };
    if names.is_empty() {
        let start = Instant::now();
        report("busybox", &base::layout()?, start);
    }
    for wanted in DebianBase::ALL {
        if names.is_empty() || names.iter().any(|name| name == wanted.name()) {
            let start = Instant::now();
            let path = wanted
                .make()
                .with_context(|| format!("base image {}", wanted.name()))?;
            report(wanted.name(), &path, start);
        }
    }
    Ok(())
}
