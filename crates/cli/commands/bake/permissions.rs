//! What targets want beyond their own directory has to be granted: by `--allow`, by `--set`, or by the user who is asked
//! (`bake/entitlements.go` of buildx). A bake file may come from anybody.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use rbuild_bake::{Chosen, Target, paths};
use rbuild_ui::text;
use rbuild_ui::values::scalar::parse_bool;

use super::CommandError;
use crate::args::BakeArgs;
use crate::env::Env;

/// Permissions, each as `--allow` spells it, with what the user is told of it.
type Wanted = BTreeSet<(String, String)>;

/// What is granted.
#[derive(Debug, Default)]
struct Grants {
    names: BTreeSet<String>,
    reads: Paths,
    writes: Paths,
}

/// Directories with all that is below them.
#[derive(Debug, Default)]
struct Paths {
    all: bool,
    dirs: Vec<PathBuf>,
}

impl Paths {
    fn add(&mut self, path: &str) {
        if path == "*" {
            self.all = true;
        } else {
            self.dirs.push(real(Path::new(path)));
        }
    }

    fn have(&self, path: &Path) -> bool {
        self.all || self.dirs.iter().any(|dir| path.starts_with(dir))
    }
}

/// Fails unless all that the targets want is granted.
pub(super) fn check(args: &BakeArgs, chosen: &Chosen, env: &mut Env) -> Result<(), CommandError> {
    let mut grants = granted(&args.allow)?;
    for name in &chosen.granted.entitlements {
        grants.names.insert(name.clone());
    }
    chosen
        .granted
        .reads
        .iter()
        .for_each(|path| grants.reads.add(path));
    chosen
        .granted
        .writes
        .iter()
        .for_each(|path| grants.writes.add(path));
    let (mut wanted, mut files) = (Wanted::new(), Wanted::new());
    for target in chosen.targets.values() {
        entitlements(target, &grants, &mut wanted);
        paths_of(target, &grants, &mut files);
    }
    let disabled = env
        .var("BUILDX_BAKE_ENTITLEMENTS_FS")
        .and_then(|text| parse_bool(&text))
        == Some(false);
    let refused = !wanted.is_empty() || (!files.is_empty() && !disabled);
    if !refused {
        return Ok(());
    }
    let all: Vec<_> = wanted.into_iter().chain(files).collect();
    let mut told =
        "Your build is requesting privileges for following possibly insecure capabilities:\n\n".to_owned();
    for (_, words) in &all {
        told.push_str(&format!(" - {}\n", text::one_line(words)));
    }
    let flags: Vec<String> = all
        .iter()
        .map(|(flag, _)| format!("--allow={}", text::one_line(flag)))
        .collect();
    told.push_str(&format!(
        "\nPass {:?} to grant requested privileges.\n",
        flags.join(" ")
    ));
    write!(env.stderr, "{told}")?;
    if env.stdin_is_terminal {
        write!(
            env.stderr,
            "Do you want to grant requested privileges and continue? [y/N] "
        )?;
        env.stderr.flush()?;
        let mut answer = [0; 2];
        let read = env.stdin.read(&mut answer)?;
        if read > 0 && answer[0].eq_ignore_ascii_case(&b'y') {
            return Ok(());
        }
    }
    Err(CommandError::failed(&"additional privileges requested"))
}

fn granted(allow: &[String]) -> Result<Grants, CommandError> {
    let mut grants = Grants::default();
    grants.reads.add(".");
    grants.writes.add(".");
    for text in allow {
        let (key, value) = text
            .split_once('=')
            .map_or((text.as_str(), ""), |(key, value)| (key, value));
        match key {
            "network.host" | "security.insecure" | "ssh" if value.is_empty() => {
                grants.names.insert(key.to_owned());
            }
            "device" => {
                let name = value.split(',').next().unwrap_or_default();
                grants.names.insert(if name.is_empty() {
                    key.to_owned()
                } else {
                    format!("device={name}")
                });
            }
            "fs.read" => grants.reads.add(value),
            "fs.write" => grants.writes.add(value),
            "fs" => {
                grants.reads.add(value);
                grants.writes.add(value);
            }
            // Nothing is asked of what becomes of images.
            "image" | "image.push" | "image.load" => {}
            _ => return Err(CommandError::failed(&format!("unknown entitlement key {key:?}"))),
        }
    }
    Ok(grants)
}

fn entitlements(target: &Target, grants: &Grants, wanted: &mut Wanted) {
    let mut want = |flag: &str, words: &str| {
        if !grants.names.contains(flag) {
            wanted.insert((flag.to_owned(), words.to_owned()));
        }
    };
    for entitlement in target.entitlements.iter().flatten() {
        match entitlement.as_str() {
            "network.host" => want(
                "network.host",
                "Running build containers that can access host network",
            ),
            "security.insecure" => want(
                "security.insecure",
                "Running privileged containers that can make system changes",
            ),
            "device" => want("device", "Access to CDI devices"),
            other => {
                if let Some(name) = other
                    .strip_prefix("device=")
                    .and_then(|name| name.split(',').next())
                    && !grants.names.contains("device")
                {
                    want(&format!("device={name}"), &format!("Access to device {name}"));
                }
            }
        }
    }
    if target.ssh.iter().flatten().any(|ssh| ssh.paths.is_empty()) {
        want("ssh", "Forwarding default SSH agent socket");
    }
}

fn paths_of(target: &Target, grants: &Grants, wanted: &mut Wanted) {
    let is_special = |path: &str| {
        paths::is_remote(path)
            || ["target:", "docker-image:", "oci-layout:"]
                .iter()
                .any(|prefix| path.starts_with(prefix))
    };
    let mut reads = Vec::new();
    let context = target.context.clone().unwrap_or_default();
    if !is_special(&context) {
        let dockerfile = target.dockerfile.clone().unwrap_or_default();
        reads.push(
            Path::new(&context)
                .join(dockerfile.trim_start_matches("cwd://"))
                .display()
                .to_string(),
        );
        reads.push(context);
    }
    let named = target.contexts.values().filter(|value| !is_special(value));
    reads.extend(named.map(|value| value.trim_start_matches("cwd://").to_owned()));
    let layouts = target
        .contexts
        .values()
        .filter_map(|value| value.strip_prefix("oci-layout://"));
    reads.extend(layouts.map(|value| value.split('@').next().unwrap_or(value).to_owned()));
    reads.extend(
        target
            .secrets
            .iter()
            .flatten()
            .map(|secret| secret.src.clone())
            .filter(|path| !path.is_empty()),
    );
    reads.extend(
        target
            .ssh
            .iter()
            .flatten()
            .flat_map(|ssh| ssh.paths.iter().cloned()),
    );
    let local = |caches: &Option<Vec<rbuild_bake::Cache>>, key: &str| {
        let local = caches.iter().flatten().filter(|cache| cache.kind == "local");
        local
            .filter_map(|cache| cache.attrs.get(key).cloned())
            .collect::<Vec<_>>()
    };
    reads.extend(local(&target.cache_from, "src"));
    let mut writes = local(&target.cache_to, "dest");
    let outputs = target.outputs.iter().flatten();
    writes.extend(
        outputs
            .filter_map(|output| output.attrs.get("dest").cloned())
            .filter(|path| path != "-"),
    );
    for (paths, have, flag, words) in [
        (reads, &grants.reads, "fs.read", "Read"),
        (writes, &grants.writes, "fs.write", "Write"),
    ] {
        for path in paths {
            let path = real(Path::new(&path));
            if !have.have(&path) {
                let shown = path.display();
                wanted.insert((
                    format!("{flag}={shown}"),
                    format!("{words} access to path {shown}"),
                ));
            }
        }
    }
}

/// Where a path leads: links of what exists are followed, the rest is taken as it is written.
fn real(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut clean = PathBuf::new();
    for component in absolute.components() {
        match component {
            Component::ParentDir => {
                // `..` behind a link means the parent of where it leads.
                clean = clean.canonicalize().unwrap_or(clean);
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    let mut rest = Vec::new();
    let mut existing = clean.as_path();
    loop {
        if let Ok(found) = existing.canonicalize() {
            return rest.iter().rev().fold(found, |path, part| path.join(part));
        }
        match (existing.parent(), existing.file_name()) {
            (Some(parent), Some(name)) => {
                rest.push(name);
                existing = parent;
            }
            _ => return clean,
        }
    }
}
