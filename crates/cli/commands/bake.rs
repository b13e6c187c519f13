//! `rbuild bake`: targets of bake files and compose files, built at once on one engine. What the files say is read by
//! `rbuild_bake`; a target becomes the flags of `rbuild build`, so that both mean the same.

mod low;
mod permissions;
mod shown;

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rbuild_bake::{
    BakeError, Chosen, Definition, FILE_BYTES_MAX, File, Listed, Printed, Surroundings, paths, truth,
};
use rbuild_ui::diagnostic::{Diagnostic, Source};
use rbuild_ui::table::Table;

use super::{CommandError, Open};
use crate::args::BakeArgs;
use crate::engine::EngineOptions;
use crate::env::Env;
use crate::request::rego;

/// Files that are read if none is named, those that are there.
const USUAL: [&str; 8] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
    "docker-bake.json",
    "docker-bake.hcl",
    "docker-bake.override.json",
    "docker-bake.override.hcl",
];

/// Builds, prints or lists.
pub(super) fn run(
    args: &BakeArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    refuse(args, env)?;
    let files = files(&args.file, env)?;
    let mut vars = BTreeMap::new();
    for text in args.var.iter().filter(|text| !text.is_empty()) {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => vars.insert(name.to_owned(), value.to_owned()),
            _ => return Err(CommandError::failed(&BakeError::Variable(text.clone()))),
        };
    }
    let silent = env
        .var("BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP")
        .and_then(|text| truth(&text))
        == Some(true);
    let dotenv = std::fs::read_to_string(".env").unwrap_or_default();
    let home = env.filled("HOME").unwrap_or_default();
    let builtins = BTreeMap::from([
        ("BAKE_CMD_CONTEXT".to_owned(), "cwd://".to_owned()),
        ("BAKE_LOCAL_PLATFORM".to_owned(), env.own_platform.clone()),
    ]);
    let (definition, mut chosen) = {
        let shown: &Env = env;
        let variable = |name: &str| {
            vars.get(name)
                .cloned()
                .or_else(|| shown.var(name).filter(|_| !silent))
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let surroundings = Surroundings {
            variable: &variable,
            dotenv,
            file: &read_text,
            builtins,
            now: i64::try_from(since.as_secs()).unwrap_or_default(),
            home,
        };
        let definition = rbuild_bake::read(&files, &surroundings).map_err(|error| told(&error))?;
        let chosen = if listing(args).is_some() {
            Chosen::default()
        } else {
            let asked = match args.targets.as_slice() {
                [] => vec!["default".to_owned()],
                names => names.to_vec(),
            };
            definition
                .choose(&asked, &overrides(args), &variable)
                .map_err(|error| told(&error))?
        };
        (definition, chosen)
    };
    for warning in &definition.warnings {
        // A warning that cannot be written cannot be told either.
        let _unwritten = writeln!(env.stderr, "WARNING: {}", rbuild_ui::text::one_line(warning));
    }
    if let Some(what) = listing(args) {
        return list(what, &definition, env);
    }
    chosen
        .prepare(env.filled("SOURCE_DATE_EPOCH").as_deref())
        .map_err(|error| told(&error))?;
    if args.print == Some(true) {
        for target in chosen.targets.values() {
            low::check(target, env)?;
        }
        writeln!(env.stdout, "{}", chosen.to_json().to_text())?;
        return Ok(env.stdout.flush()?);
    }
    permissions::check(args, &chosen, env)?;
    shown::build(args, &chosen, options, env, open)
}

/// What is understood and not done here.
fn refuse(args: &BakeArgs, env: &Env) -> Result<(), CommandError> {
    if args.print == Some(true) && listing(args).is_some() {
        return Err(CommandError::failed(&"--print and --list are mutually exclusive"));
    }
    rego::check_of_bake(&args.policy).map_err(|error| CommandError::failed(&error))?;
    if args.print == Some(true) && !args.policy.is_empty() {
        return Err(CommandError::failed(
            &"not supported: --print --policy: policies are not a part of what is printed here",
        ));
    }
    if let Some(url) = args.targets.first().filter(|target| paths::is_remote(target)) {
        return Err(CommandError::failed(&format!(
            "not supported: bake files of {url}: clone the repository and call `rbuild bake` in it"
        )));
    }
    let relative = env.var("BUILDX_BAKE_FILE_RELATIVE_PATHS");
    if relative.and_then(|text| truth(text.trim())) == Some(true) {
        let told = "not supported: BUILDX_BAKE_FILE_RELATIVE_PATHS: paths are below the working directory";
        return Err(CommandError::failed(&told));
    }
    Ok(())
}

fn listing(args: &BakeArgs) -> Option<&str> {
    let old = || match (args.list_targets, args.list_variables) {
        (true, _) => Some("targets"),
        (false, true) => Some("variables"),
        (false, false) => None,
    };
    args.list.as_deref().or_else(old)
}

/// The files named, or those of the usual names that are there.
fn files(named: &[String], env: &mut Env) -> Result<Vec<File>, CommandError> {
    let mut names: Vec<String> = named
        .iter()
        .map(|name| name.trim_start_matches("cwd://").to_owned())
        .collect();
    if let (true, Some(list)) = (names.is_empty(), env.filled("BUILDX_BAKE_FILE")) {
        let separator = env
            .filled("BUILDX_BAKE_PATH_SEPARATOR")
            .unwrap_or_else(|| ":".to_owned());
        names.extend(
            list.split(separator.as_str())
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(str::to_owned),
        );
    }
    let is_usual = names.is_empty();
    if is_usual {
        names.extend(
            USUAL
                .iter()
                .filter(|name| Path::new(name).exists())
                .map(|name| (*name).to_owned()),
        );
    }
    let mut files = Vec::with_capacity(names.len());
    for name in names {
        let read = if name == "-" {
            bounded(env.stdin.as_mut())
        } else {
            std::fs::File::open(&name).and_then(bounded)
        };
        let bytes = read.map_err(|error| CommandError::failed(&format!("cannot read {name}: {error}")))?;
        files.push(File { name, bytes });
    }
    if files.is_empty() {
        return Err(CommandError::failed(&"couldn't find a bake definition"));
    }
    Ok(files)
}

/// What is in a file, with one byte more than it may have where it has more.
fn bounded(from: impl io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A file that a compose file names, from the working directory on.
fn read_text(path: &str) -> io::Result<String> {
    let bytes = bounded(std::fs::File::open(path)?)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// `--set`, and what other flags set of all targets.
fn overrides(args: &BakeArgs) -> Vec<String> {
    let mut set = args.set.clone();
    let mut all = |text: String| set.push(format!("*.{text}"));
    if args.push == Some(true) {
        all("push=true".to_owned());
    }
    if args.load == Some(true) {
        all("load=true".to_owned());
    }
    if let Some(method) = method(args) {
        all(format!("call={}", method.split(',').next().unwrap_or_default()));
    }
    if let Some(no_cache) = args.no_cache {
        all(format!("no-cache={no_cache}"));
    }
    if let Some(pull) = args.pull {
        all(format!("pull={pull}"));
    }
    for (kind, value) in [("sbom", &args.sbom), ("provenance", &args.provenance)] {
        match value.as_deref().map(|value| (value, truth(value))) {
            Some((_, Some(on))) => all(format!("attest=type={kind},disabled={}", !on)),
            Some((value, None)) if !value.is_empty() => all(format!("attest=type={kind},{value}")),
            _ => {}
        }
    }
    set
}

/// What is asked of all targets instead of building them.
fn method(args: &BakeArgs) -> Option<&str> {
    match (args.check, args.call.as_deref()) {
        (Some(true), _) => Some("check"),
        (_, call) => call.filter(|call| !matches!(*call, "" | "build")),
    }
}

/// A failure of the files, with the lines it is about.
fn told(error: &BakeError) -> CommandError {
    let source = match error {
        BakeError::File {
            filename,
            text,
            fault,
        } => Some(Source {
            filename: filename.clone(),
            text: text.clone().into_bytes(),
            spans: vec![(fault.span.start.0, fault.span.end.0)],
        }),
        _ => None,
    };
    CommandError::Failed(Box::new(Diagnostic {
        sources: source.into_iter().collect(),
        ..Diagnostic::new(error.to_string())
    }))
}

/// `--list`.
fn list(what: &str, definition: &Definition, env: &mut Env) -> Result<(), CommandError> {
    let (mut kind, mut format) = ("", "table");
    for field in what.split(',') {
        match field.split_once('=') {
            None if field == what => kind = field,
            Some(("type", value)) => kind = value,
            Some(("format", value)) => format = value,
            Some((key, _)) => {
                return Err(CommandError::failed(&format!(
                    "unexpected key '{key}' in '{field}'"
                )));
            }
            None => return Err(CommandError::failed(&format!("invalid value {field}"))),
        }
    }
    if !matches!(format, "table" | "json") {
        return Err(CommandError::failed(&format!("invalid list format {format:?}")));
    }
    match kind {
        "targets" => list_targets(format, &definition.listed(), env)?,
        "variables" => list_variables(format, definition, env)?,
        _ => return Err(CommandError::failed(&format!("invalid list type {kind:?}"))),
    }
    Ok(env.stdout.flush()?)
}

fn list_targets(format: &str, listed: &[(String, String, bool)], env: &mut Env) -> Result<(), CommandError> {
    if format == "table" {
        let mut table = Table::new(&["TARGET", "DESCRIPTION"]);
        for (name, description, _) in listed {
            table.row([name.clone(), description.clone()]);
        }
        return Ok(table.write(&mut env.stdout)?);
    }
    let object = |(name, description, is_group): &(String, String, bool)| {
        let mut fields = vec![("name".to_owned(), Printed::text(name))];
        if !description.is_empty() {
            fields.push(("description".to_owned(), Printed::text(description)));
        }
        if *is_group {
            fields.push(("group".to_owned(), Printed::Bare("true".to_owned())));
        }
        Printed::Fields(fields)
    };
    Ok(writeln!(
        env.stdout,
        "{}",
        list_json(listed.iter().map(object).collect())
    )?)
}

/// A list as buildx prints it: `null` if there is nothing in it.
fn list_json(objects: Vec<Printed>) -> String {
    if objects.is_empty() {
        return "null".to_owned();
    }
    Printed::List(objects).to_text()
}

fn list_variables(format: &str, definition: &Definition, env: &mut Env) -> Result<(), CommandError> {
    let variables = &definition.variables;
    if format == "table" {
        let mut table = Table::new(&["VARIABLE", "TYPE", "VALUE", "DESCRIPTION"]);
        for one in variables {
            let value = one.value.clone().unwrap_or_else(|| "<null>".to_owned());
            table.row([one.name.clone(), one.of.clone(), value, one.description.clone()]);
        }
        return Ok(table.write(&mut env.stdout)?);
    }
    let object = |one: &Listed| {
        let mut fields = vec![("name".to_owned(), Printed::text(&one.name))];
        for (name, text) in [("description", &one.description), ("type", &one.of)] {
            if !text.is_empty() {
                fields.push((name.to_owned(), Printed::text(text)));
            }
        }
        fields.extend(
            one.value
                .iter()
                .map(|value| ("value".to_owned(), Printed::text(value))),
        );
        Printed::Fields(fields)
    };
    let objects = variables.iter().map(object).collect();
    // A list that nobody made is `null`, and one without a variable is a list.
    let text = match definition.is_composed {
        true => list_json(objects),
        false => Printed::List(objects).to_text(),
    };
    Ok(writeln!(env.stdout, "{text}")?)
}
