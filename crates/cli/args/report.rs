//! What is printed of a command line that asks for help, or that is none.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// The command line that asks for the help of the command of which only the name was given.
pub(crate) fn help_of(error: &clap::Error) -> Vec<String> {
    let name = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(name)) => name.as_str(),
        _ => "",
    };
    let words = name.split(' ').chain(["--help"]);
    words.map(str::to_owned).collect()
}

/// What the context is called in a line that tells what is missing.
const CONTEXT: &str = "<PATH | URL | ->";

/// The same with what helps, where a build was asked for without a context.
pub(crate) fn advised(mut error: clap::Error) -> clap::Error {
    let missing = error.get(ContextKind::InvalidArg);
    if error.kind() == ErrorKind::MissingRequiredArgument
        && matches!(missing, Some(ContextValue::Strings(names)) if names.iter().any(|name| name == CONTEXT))
    {
        let tip = StyledStr::from("name the directory to build from; `.` is the one you are in");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
    error
}

/// Docker's exit code for a flag that it does not know or whose value it does not take.
const BAD_FLAG: u8 = 125;

/// Prints help, version or a usage error. The code is docker's, where the program is not another of those it can be: 125
/// for flags, otherwise 1.
pub(crate) fn report(error: &clap::Error, is_docker: bool) -> ExitCode {
    // Nothing can be told to a reader that went away.
    let _unwritten = print(error);
    let flag = error.get(ContextKind::InvalidArg);
    let is_flag = matches!(flag, Some(ContextValue::String(flag)) if flag.starts_with('-'))
        && matches!(
            error.kind(),
            ErrorKind::UnknownArgument | ErrorKind::InvalidValue | ErrorKind::ValueValidation
        );
    ExitCode::from(match error.use_stderr() {
        false => 0,
        true if is_flag && is_docker => BAD_FLAG,
        true => 1,
    })
}

/// Heading of the flags that every command takes.
const GLOBAL: &str = "Global options:";

/// Prints what clap has to say.
fn print(error: &clap::Error) -> io::Result<()> {
    let text = error.render().ansi().to_string();
    match error.use_stderr() {
        true => write!(anstream::stderr().lock(), "{text}"),
        false => write!(anstream::stdout().lock(), "{}", globals_last(&text)),
    }
}

/// Help with the flags that every command takes behind those of the command: clap is told of the latter only when the command
/// is used (`defer`), and has the former by then.
pub(super) fn globals_last(help: &str) -> String {
    let lines: Vec<&str> = help.split_inclusive('\n').collect();
    let plain = |line: &str| anstream::adapter::strip_str(line).to_string();
    let starts = |line: &str| plain(line).starts_with(|first: char| !first.is_whitespace());
    let is_heading = |line: &str| starts(line) && plain(line).trim_end().ends_with(':');
    let after = |from: usize, is_end: &dyn Fn(&str) -> bool| {
        let rest = lines.get(from..).unwrap_or_default();
        from + rest.iter().take_while(|line| !is_end(line)).count()
    };
    let first = after(0, &|line| plain(line).trim_end() == GLOBAL);
    let own = after(first + 1, &starts);
    let end = after(own, &|line| starts(line) && !is_heading(line));
    if own >= end {
        return help.to_owned();
    }
    let [before, globals, own, rest] = [
        &lines[..first],
        &lines[first..own],
        &lines[own..end],
        &lines[end..],
    ]
    .map(<[&str]>::concat);
    format!("{before}{}\n\n{}\n{rest}", own.trim_end(), globals.trim_end())
}
