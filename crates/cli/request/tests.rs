//! What flags come to, and what they are refused for.

mod flags;
mod inputs;
mod outputs;
mod sources;

use std::path::Path;
use std::time::Duration;

use clap::Parser as _;
use rbuild_builder::request::{
    CacheExport, CacheForm, CacheSource, CacheTarget, ContextSource, Destination, DockerfileSource,
    LayerCompression, LayoutDestination, OutputKind, TreeDestination,
};

use super::*;
use crate::args::{Cli, Command};
use crate::env::testing::env;

fn low(line: &[&str]) -> LowBuild {
    let cli = Cli::try_parse_from(["rbuild", "build"].iter().chain(line)).unwrap();
    match cli.command.flatten() {
        Command::Build(low) => *low,
        other => panic!("{other:?}"),
    }
}

fn high_with(line: &[&str], vars: &[(&str, &str)], stdin: &[u8]) -> Result<HighBuild, UsageError> {
    to_request(low(line), &mut env(vars, stdin).0)
}

fn high(line: &[&str]) -> HighBuild {
    high_with(line, &[], b"").unwrap_or_else(|error| panic!("{line:?}: {error}"))
}

fn refused(line: &[&str]) -> String {
    high_with(line, &[], b"").expect_err(&line.join(" ")).to_string()
}

const STORE: OutputKind = OutputKind::Image {
    push: false,
    push_by_digest: false,
    insecure: false,
};
const PUSH: OutputKind = OutputKind::Image {
    push: true,
    push_by_digest: false,
    insecure: false,
};

fn kinds(line: &[&str]) -> Vec<OutputKind> {
    high(line)
        .request
        .outputs
        .into_iter()
        .map(|output| output.kind)
        .collect()
}
