//! Names in the Dockerfile that a command line is about. Whoever wrote it may be anybody: it is read up to a limit, and only
//! where it is a file.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::PathBuf;

use rbuild_dockerfile::{Dockerfile, InstructionKind};

use super::Line;

/// Most that is read of one, bytes: somebody waits.
const BYTES_MAX: u64 = 1 << 20;

/// Names of stages.
pub(super) fn stages(line: &Line<'_>) -> Vec<String> {
    let stages = read(line).map(|file| file.stages).unwrap_or_default();
    let names = stages.into_iter().map(|stage| stage.name);
    names.filter(|name| !name.is_empty()).collect()
}

/// Names of build arguments, each with its `=`.
pub(super) fn arguments(line: &Line<'_>) -> Vec<String> {
    let Some(file) = read(line) else {
        return Vec::new();
    };
    let in_stages = file.stages.iter().flat_map(|stage| &stage.instructions);
    let names = file
        .global_args
        .iter()
        .chain(in_stages)
        .flat_map(|one| match &one.kind {
            InstructionKind::Arg(all) => all.iter().map(|arg| format!("{}=", arg.key)).collect(),
            _ => Vec::new(),
        });
    names.collect::<BTreeSet<String>>().into_iter().collect()
}

/// That of `--file`, or the one in the context, or in this directory.
fn read(line: &Line<'_>) -> Option<Dockerfile> {
    let context = line.operands.first().map_or(".", String::as_str);
    let path = line
        .said("file")
        .map_or_else(|| PathBuf::from(context).join("Dockerfile"), PathBuf::from);
    let file = rbuild_sys::open_regular(&path).ok()?;
    let mut text = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut text).ok()?;
    Some(rbuild_dockerfile::parse(&text).0)
}
