//! `buildctl build` without a server: what its flags come to as a build of this program, in this process.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use rbuild_ui::values::csv;

use crate::args::{BuildArgs, LowBuild};
use crate::commands::{CommandError, Open, build};
use crate::engine::EngineOptions;
use crate::env::Env;

/// Largest definition read, bytes.
const DEFINITION_BYTES_MAX: u64 = 64 << 20;
/// Options of the Dockerfile front end that say nothing about the result.
const SAYS_NOTHING: [&str; 2] = ["cmdline", "frontend.caps"];

/// Builds.
pub(crate) fn run(args: &BuildArgs, env: &mut Env, open: Open<'_>) -> Result<(), CommandError> {
    unserved(args)?;
    let mut low = low(args, env)?;
    // Steps without a network have no use for a proxy.
    if args.proxy_network && low.network != "none" {
        "proxy".clone_into(&mut low.network);
    }
    build::build(low, false, EngineOptions::default(), env, open).map(drop)
}

pub(super) fn unserved(args: &BuildArgs) -> Result<(), CommandError> {
    let flags = [
        ("--trace", args.trace.is_some()),
        ("--ref-file", args.ref_file.is_some()),
        (
            "--registry-auth-tlscontext",
            !args.registry_auth_tlscontext.is_empty(),
        ),
        (
            "--debug-json-cache-metrics",
            args.debug_json_cache_metrics.is_some(),
        ),
    ];
    match flags.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(CommandError::failed(&format!("not supported: {name}"))),
        None => Ok(()),
    }
}

pub(super) fn pairs(flag: &str, texts: &[String]) -> Result<BTreeMap<String, String>, CommandError> {
    let mut all = BTreeMap::new();
    for text in texts {
        let (key, value) = text.split_once('=').ok_or_else(|| {
            CommandError::failed(&format!("invalid value {text:?} of {flag}, expected key=value"))
        })?;
        all.insert(key.to_owned(), value.to_owned());
    }
    Ok(all)
}

/// The flags of `rbuild build` that mean the same.
fn low(args: &BuildArgs, env: &mut Env) -> Result<LowBuild, CommandError> {
    let mut low = LowBuild {
        progress: args.progress.clone(),
        output: outputs(&args.output)?,
        no_cache: args.no_cache,
        secret: args.secret.clone(),
        ssh: args.ssh.clone(),
        allow: args.allow.clone(),
        metadata_file: args.metadata_file.clone(),
        source_policy: args.source_policy_file.clone(),
        ..LowBuild::default()
    };
    low.cache_to.clone_from(&args.export_cache);
    low.cache_from.clone_from(&args.import_cache);
    let locals = pairs("--local", &args.local)?;
    let layouts = pairs("--oci-layout", &args.oci_layout)?;
    let mut options = pairs("--opt", &args.opt)?;
    let Some(front_end_name) = args.frontend.as_deref().filter(|name| !name.is_empty()) else {
        low.definition = Some(definition(env)?);
        low.locals = locals.into_iter().map(|(name, dir)| (name, dir.into())).collect();
        // Nothing is read of it: a definition names its directories.
        low.context = "/".to_owned();
        return Ok(low);
    };
    front_end(front_end_name, &mut options, &mut low)?;
    let context = options.remove("context");
    let context = context.or_else(|| locals.get("context").cloned());
    let filename = options.remove("filename");
    let filename = filename.unwrap_or_else(|| "Dockerfile".to_owned());
    match (context, locals.get("dockerfile")) {
        (Some(context), Some(dir)) => {
            low.context = context;
            low.file = Some(Path::new(dir).join(filename).display().to_string());
        }
        (Some(context), None) => {
            // A context of the client's without a directory of its own for the Dockerfile holds it.
            let is_dir = Path::new(&context).is_dir();
            low.file = Some(if is_dir {
                Path::new(&context).join(filename).display().to_string()
            } else {
                filename
            });
            low.context = context;
        }
        (None, Some(dir)) => {
            low.file = Some(Path::new(dir).join(filename).display().to_string());
            low.context.clone_from(dir);
        }
        (None, None) => {
            return Err(CommandError::failed(
                &"no context: name it with --local context=DIR --local dockerfile=DIR, or --opt context=URL",
            ));
        }
    }
    for (key, value) in options {
        option(&key, value, &locals, &layouts, &mut low)?;
    }
    Ok(low)
}

/// The definition on standard input.
pub(super) fn definition(env: &mut Env) -> Result<Vec<u8>, CommandError> {
    if env.stdin_is_terminal {
        return Err(CommandError::failed(
            &"please specify --frontend or pipe LLB definition to stdin",
        ));
    }
    let mut bytes = Vec::new();
    let mut limited = (&mut env.stdin).take(DEFINITION_BYTES_MAX + 1);
    limited
        .read_to_end(&mut bytes)
        .map_err(|error| CommandError::failed(&format!("cannot read standard input: {error}")))?;
    if bytes.len() as u64 > DEFINITION_BYTES_MAX {
        return Err(CommandError::failed(&format!(
            "the definition has more than {DEFINITION_BYTES_MAX} bytes"
        )));
    }
    if bytes.is_empty() {
        return Err(CommandError::failed(
            &"there is no definition (LLB) on standard input; for a Dockerfile, give --frontend dockerfile.v0",
        ));
    }
    Ok(bytes)
}

fn front_end(
    name: &str,
    options: &mut BTreeMap<String, String>,
    low: &mut LowBuild,
) -> Result<(), CommandError> {
    match name {
        "dockerfile.v0" => Ok(()),
        "gateway.v0" => {
            let source = options
                .remove("source")
                .ok_or_else(|| CommandError::failed(&"--frontend gateway.v0 needs --opt source=IMAGE"))?;
            low.build_arg.push(format!("BUILDKIT_SYNTAX={source}"));
            Ok(())
        }
        other => Err(CommandError::failed(&format!(
            "unknown front end {other:?}: there are dockerfile.v0 and gateway.v0"
        ))),
    }
}

/// One `--opt` of the Dockerfile front end.
fn option(
    key: &str,
    value: String,
    locals: &BTreeMap<String, String>,
    layouts: &BTreeMap<String, String>,
    low: &mut LowBuild,
) -> Result<(), CommandError> {
    if let Some(name) = key.strip_prefix("build-arg:") {
        low.build_arg.push(format!("{name}={value}"));
    } else if let Some(name) = key.strip_prefix("label:") {
        low.label.push(format!("{name}={value}"));
    } else if let Some(name) = key.strip_prefix("context:") {
        let value = named_context(&value, locals, layouts)?;
        low.build_context.push(format!("{name}={value}"));
    } else if key.starts_with("attest:") {
        low.attest_attributes.push((key.to_owned(), value));
    } else {
        match key {
            "target" => low.target = Some(value),
            "platform" => low.platform.push(value),
            "no-cache" if value.is_empty() => low.no_cache = Some(true),
            "no-cache" => low.no_cache_filter.push(value),
            "image-resolve-mode" => low.pull = Some(value == "pull"),
            "force-network-mode" => low.network = network(value),
            "add-hosts" => low.add_host.push(value),
            "shm-size" => low.shm_size = Some(value),
            "ulimit" => low.ulimit.extend(value.split(',').map(str::to_owned)),
            "cgroup-parent" => low.cgroup_parent = Some(value),
            known if SAYS_NOTHING.contains(&known) => {}
            other => {
                return Err(CommandError::failed(&format!(
                    "not supported: --opt {other}={value}"
                )));
            }
        }
    }
    Ok(())
}

/// The front end's word for the sandbox is the command line's for the default.
fn network(mode: String) -> String {
    if mode == "sandbox" { String::new() } else { mode }
}

/// A named context as `--build-context` has it: directories and layouts by their place instead of their name.
fn named_context(
    value: &str,
    locals: &BTreeMap<String, String>,
    layouts: &BTreeMap<String, String>,
) -> Result<String, CommandError> {
    if let Some(name) = value.strip_prefix("local:") {
        return locals
            .get(name)
            .cloned()
            .ok_or_else(|| CommandError::failed(&format!("there is no --local {name}=DIR")));
    }
    if let Some(rest) = value.strip_prefix("oci-layout://") {
        let end = rest.find(['@', ':']).unwrap_or(rest.len());
        let (name, version) = rest.split_at(end);
        let dir = layouts
            .get(name)
            .ok_or_else(|| CommandError::failed(&format!("there is no --oci-layout {name}=DIR")))?;
        return Ok(format!("oci-layout://{dir}{version}"));
    }
    Ok(value.to_owned())
}

/// Outputs as buildctl means them: nothing is kept that was not asked for, and archives go to standard output.
fn outputs(texts: &[String]) -> Result<Vec<String>, CommandError> {
    if texts.is_empty() {
        return Ok(vec!["type=cacheonly".to_owned()]);
    }
    let mut outputs = Vec::new();
    for text in texts {
        let fields = csv::attributes(text).map_err(|error| CommandError::failed(&error))?;
        let has = |key: &str| fields.iter().any(|(known, _)| known == key);
        let is_docker = fields
            .iter()
            .any(|(key, value)| key == "type" && value.as_deref() == Some("docker"));
        if is_docker && !has("dest") {
            outputs.push(format!("{text},dest=-"));
        } else {
            outputs.push(text.clone());
        }
    }
    Ok(outputs)
}
