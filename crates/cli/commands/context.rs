//! `rbuild context`: what a build is sent, by directory, and which ignore rule kept each file in or out. Opens no store.

use std::io;
use std::path::Path;

use rbuild_builder::context_report::{
    Amount, ContextQuestion, ContextReport, File, ReportError, Rule, Share, report,
};
use rbuild_builder::error::chain_text;
use rbuild_builder::request::DockerfileSource;
use rbuild_ui::table::Table;
use rbuild_ui::text::one_line;
use rbuild_ui::units::human_size;
use serde_json::{Value, json};

use super::CommandError;
use crate::args::ContextArgs;
use crate::env::Env;

/// Commands of docker that have the name of this one before theirs.
const OF_DOCKER: [&str; 9] = [
    "create", "export", "import", "inspect", "ls", "rm", "show", "update", "use",
];

/// Shows it.
pub(super) fn run(args: &ContextArgs, env: &mut Env) -> Result<(), CommandError> {
    let word = args.path.to_str().filter(|word| OF_DOCKER.contains(word));
    if let Some(word) = word.filter(|word| !Path::new(word).is_dir()) {
        return of_docker(word, args, env);
    }
    if let Some(name) = args.names.first() {
        return Err(CommandError::failed(&format!(
            "one directory is shown, and not {name:?} too"
        )));
    }
    let mut asked = ContextQuestion {
        context: args.path.clone(),
        dockerfile: match &args.file {
            Some(file) => DockerfileSource::File(file.clone()),
            None => DockerfileSource::default(),
        },
        depth: args.depth,
        files: args.files == Some(true),
    };
    let mut found = report(&asked);
    if args.file.is_none() && matches!(found, Err(ReportError::Dockerfile(_))) {
        // Without a Dockerfile the directory's own ignore file counts.
        asked.dockerfile = DockerfileSource::Text(Vec::new());
        found = report(&asked);
    }
    let found = found.map_err(|error| CommandError::failed(&chain_text(&error)))?;
    if args.format == "json" {
        let text = serde_json::to_vec_pretty(&whole(&found)).map_err(io::Error::from)?;
        env.stdout.write_all(&text)?;
        writeln!(env.stdout)?;
    } else {
        print(&found, env)?;
    }
    Ok(env.stdout.flush()?)
}

/// The commands of `docker context`. There is one, called as docker's own is; another that is made without an endpoint would
/// be a copy of it.
fn of_docker(word: &str, args: &ContextArgs, env: &mut Env) -> Result<(), CommandError> {
    const NAME: &str = "default";
    match (word, args.names.as_slice()) {
        ("show", []) => writeln!(env.stdout, "{NAME}")?,
        ("ls", []) if args.quiet => writeln!(env.stdout, "{NAME}")?,
        ("ls", []) => {
            let mut table = Table::new(&["NAME", "DESCRIPTION", "DOCKER ENDPOINT", "ERROR"]);
            let row = ["default *", "builds in its own process", "", ""].map(str::to_owned);
            table.row(row);
            table.write(&mut env.stdout)?;
        }
        ("use", [name]) if name == NAME => {
            writeln!(env.stdout, "{NAME}")?;
            writeln!(env.stderr, "Current context is now {NAME:?}")?;
        }
        ("create", [name]) if name != NAME => {
            let name = one_line(name);
            writeln!(env.stdout, "{name}")?;
            writeln!(env.stderr, "Successfully created context {name:?}")?;
        }
        ("use" | "create", []) => {
            return Err(CommandError::failed(&format!(
                "docker context {word}: a name is needed"
            )));
        }
        _ => {
            return Err(CommandError::failed(&format!(
                "not supported: docker context {word}: rbuild has no engine to ask, and one store: `--root`"
            )));
        }
    }
    Ok(env.stdout.flush()?)
}

fn amount(amount: Amount) -> Value {
    json!({ "Files": amount.files, "Bytes": amount.bytes })
}

fn share(share: Share) -> Value {
    json!({ "Sent": amount(share.sent), "LeftOut": amount(share.left_out) })
}

fn whole(report: &ContextReport) -> Value {
    let directory = |(path, one): &(std::path::PathBuf, Share)| {
        let mut row = share(*one);
        row["Path"] = json!(path.display().to_string());
        row
    };
    let rule = |rule: &Rule| {
        let mut row = share(rule.share);
        row["File"] = json!(rule.place.file);
        row["Line"] = json!(rule.place.line);
        row["Pattern"] = json!(rule.place.pattern);
        row
    };
    let file = |file: &File| {
        let decided = file.rule.as_ref();
        json!({
            "Path": file.path.display().to_string(),
            "Bytes": file.bytes,
            "Sent": file.sent,
            "Line": decided.map(|rule| rule.line),
            "Pattern": decided.map(|rule| rule.pattern.as_str()),
        })
    };
    json!({
        "IgnoreFile": report.ignore_file,
        "Total": share(report.total),
        "Directories": report.directories.iter().map(directory).collect::<Vec<_>>(),
        "Rules": report.rules.iter().map(rule).collect::<Vec<_>>(),
        "Files": report.files.iter().map(file).collect::<Vec<_>>(),
    })
}

fn print(report: &ContextReport, env: &mut Env) -> Result<(), CommandError> {
    let size = |amount: Amount| human_size(amount.bytes);
    let mut table = Table::new(&["SENT", "FILES", "LEFT OUT", "FILES", "DIRECTORY"]);
    for (path, share) in &report.directories {
        table.row([
            size(share.sent),
            share.sent.files.to_string(),
            size(share.left_out),
            share.left_out.files.to_string(),
            path.display().to_string(),
        ]);
    }
    table.write(&mut env.stdout)?;
    writeln!(env.stdout)?;
    match &report.ignore_file {
        None => writeln!(env.stdout, "There is no ignore file.")?,
        Some(name) => {
            let name = one_line(name);
            let mut table = Table::new(&["LEFT OUT", "FILES", "LET IN", "FILES", "RULE"]);
            for rule in &report.rules {
                table.row([
                    size(rule.share.left_out),
                    rule.share.left_out.files.to_string(),
                    size(rule.share.sent),
                    rule.share.sent.files.to_string(),
                    format!("{name}:{} {}", rule.place.line, rule.place.pattern),
                ]);
            }
            table.write(&mut env.stdout)?;
        }
    }
    if report.files.is_empty() {
        return Ok(());
    }
    writeln!(env.stdout)?;
    let mut table = Table::new(&["", "SIZE", "FILE", "RULE"]);
    for file in &report.files {
        let decided = file.rule.as_ref();
        table.row([
            if file.sent { "sent" } else { "left out" }.to_owned(),
            human_size(file.bytes),
            file.path.display().to_string(),
            decided.map_or_else(String::new, |rule| {
                format!("{}:{} {}", rule.file, rule.line, rule.pattern)
            }),
        ]);
    }
    Ok(table.write(&mut env.stdout)?)
}
