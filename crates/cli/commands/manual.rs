//! `rbuild man`: what is known of the command line, for `man`. It is made of the definition that reads the arguments, so it
//! can say nothing else.

use std::fs;
use std::io;

use clap::{Command, CommandFactory as _};

use super::CommandError;
use crate::args::{Cli, ManArgs};
use crate::env::Env;

/// What the pages of `rbuild` itself say at their end, beside what clap knows.
const MORE: &str = r#".SH ENVIRONMENT
.TP
RBUILD_ROOT
directory of the store
.TP
RBUILD_OFFLINE
use no network
.TP
DOCKER_CONFIG
directory of docker's config.json
.PP
The others are in docs/environment.md.
.SH EXIT STATUS
.TP
0
done
.TP
1
failed
.TP
3
no connection, or one that broke; or \-\-offline
.TP
4
credentials are missing, wrong or not enough
.TP
5
a registry or another server failed or refused
.TP
6
what came is not what was asked for
.TP
7
a registry has no such image
.TP
130
stopped
.PP
run ends with the program's own, with 127 or 126 where that is not there or cannot be run, or with 125 where nothing ran.
"#;

/// Day of the pages: they are the same whenever they are made.
const DATE: &str = "2026-11-23";

/// Writes `rbuild.1` and a page for each command.
pub(super) fn man(args: &ManArgs, env: &mut Env) -> Result<(), CommandError> {
    let failed = |error: io::Error| {
        CommandError::failed(&format!("cannot write {}: {error}", args.directory.display()))
    };
    fs::create_dir_all(&args.directory).map_err(failed)?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    globals_last(&mut command);
    let mut pages = Vec::new();
    collect(&command, "rbuild", &mut pages).map_err(failed)?;
    for (name, page) in pages {
        let path = args.directory.join(format!("{name}.1"));
        fs::write(&path, page).map_err(failed)?;
        writeln!(env.stdout, "{}", path.display())?;
    }
    Ok(env.stdout.flush()?)
}

/// The page of a command and those below it; hidden ones have none.
fn collect(command: &Command, name: &str, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    let mut page = Vec::new();
    let shown = command
        .clone()
        .name(name.to_owned())
        .display_name(name.to_owned());
    clap_mangen::Man::new(shown).date(DATE).render(&mut page)?;
    let mut page = linted(&page);
    if name == "rbuild" {
        page.extend_from_slice(MORE.as_bytes());
    }
    pages.push((name.to_owned(), page));
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        collect(below, &format!("{name}-{}", below.get_name()), pages)?;
    }
    Ok(())
}

/// The page with one space where clap makes three: breaks beside it are skipped by `man`, and lint complains of them.
fn linted(page: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(page);
    text.replace(".br\n\n.br\n", ".sp\n").into_bytes()
}

/// Puts the flags that every command takes behind those of each command: clap is told of the latter only when it is asked for
/// them (`defer`), and has the former by then.
fn globals_last(command: &mut Command) {
    for below in command.get_subcommands_mut() {
        let mut ordered = std::mem::take(below);
        let globals = ordered.get_arguments().filter(|arg| arg.is_global_set());
        let globals: Vec<clap::Id> = globals.map(|arg| arg.get_id().clone()).collect();
        for global in globals {
            // Whatever was changed is last.
            ordered = ordered.mut_arg(global.as_str(), |arg| arg);
        }
        globals_last(&mut ordered);
        *below = ordered;
    }
}
