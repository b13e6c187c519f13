//! `rbuild bake`: targets of bake files and compose files, built at once on one engine. What the files say is read by
//! `rbuild_bake`; a target becomes the flags of `rbuild build`, so that both mean the same.

mod files;
mod low;
mod permissions;
mod shown;

use rbuild_bake::{BakeError, Chosen, Definition, Listed, Printed, paths};
use rbuild_ui::diagnostic::{Diagnostic, Source};
use rbuild_ui::table::Table;
use rbuild_ui::values::csv;
use rbuild_ui::values::scalar::parse_bool;

use super::{CommandError, Open};
use crate::args::BakeArgs;
use crate::engine::EngineOptions;
use crate::env::Env;
use crate::request::rego;
use files::Variables;

pub(super) use files::targets;

/// Builds, prints or lists.
pub(super) fn run(
    args: &BakeArgs,
    options: EngineOptions,
    env: &mut Env,
    open: Open<'_>,
) -> Result<(), CommandError> {
    refuse(args, env)?;
    let files = files::read(&args.file, env)?;
    let (definition, mut chosen) = {
        let variables = Variables::new(&args.var, env).map_err(|error| told(&error))?;
        let definition = files::definition(&files, &variables).map_err(|error| told(&error))?;
        let chosen = if listing(args).is_some() {
            Chosen::default()
        } else {
            let asked = match args.targets.as_slice() {
                [] => vec!["default".to_owned()],
                names => names.to_vec(),
            };
            definition
                .choose(&asked, &overrides(args), &|name| variables.get(name))
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
    if relative.and_then(|text| parse_bool(text.trim())) == Some(true) {
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
        match value.as_deref().map(|value| (value, parse_bool(value))) {
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
    let fields = csv::attributes(what).map_err(|error| CommandError::failed(&error))?;
    for (key, value) in &fields {
        match (key.as_str(), value.as_deref()) {
            (_, None) if key == what => kind = key,
            ("type", Some(value)) => kind = value,
            ("format", Some("")) => {}
            ("format", Some(value)) => format = value,
            (_, Some(value)) => {
                return Err(CommandError::failed(&format!(
                    "unexpected key '{key}' in '{key}={value}'"
                )));
            }
            (_, None) => return Err(CommandError::failed(&format!("invalid value {key}"))),
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
