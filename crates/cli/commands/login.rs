//! `rbuild login` and `logout`: the registry is asked first, and only what it took is stored. No store is opened: a
//! CI job logs in where it may not build.

use std::io::{BufRead as _, BufReader, Read as _};

use rbuild_oci::{DEFAULT_HOST, Reference};
use rbuild_registry::keep::{self, Proof};
use rbuild_registry::{CredentialSources, Secret};

use super::CommandError;
use crate::args::{LoginArgs, LogoutArgs};
use crate::engine::EngineOptions;
use crate::env::Env;
use crate::{native, terminal};

/// A password or name has no more bytes.
const ANSWER_MAX: u64 = 64 << 10;
/// Where docker explains helpers.
const HELPERS_PAGE: &str = "https://docs.docker.com/go/credential-store/";

/// Logs in.
pub(super) fn login(args: &LoginArgs, options: &EngineOptions, env: &mut Env) -> Result<(), CommandError> {
    let host = host(args.server.as_deref())?;
    let (username, password) = asked(args, env)?;
    let identity = native::login::check(&host, &username, &password, &options.registries)?;
    let sources = sources(env);
    let proof = identity
        .as_ref()
        .map_or(Proof::Password(&password), Proof::Identity);
    let kept = keep::store(&sources, &host, &username, proof);
    match kept.map_err(|error| CommandError::failed(&rbuild_builder::error::chain_text(&error)))? {
        keep::Kept::Helper(_) => {}
        keep::Kept::File(path) => write!(
            env.stderr,
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\n\
             Configure a credential helper to remove this warning. See\n{HELPERS_PAGE}\n\n",
            path.display()
        )?,
    }
    writeln!(env.stdout, "Login Succeeded")?;
    Ok(env.stdout.flush()?)
}

/// Logs out.
pub(super) fn logout(args: &LogoutArgs, env: &mut Env) -> Result<(), CommandError> {
    let host = host(args.server.as_deref())?;
    let erased = keep::erase(&sources(env), &host);
    let erased = erased.map_err(|error| CommandError::failed(&rbuild_builder::error::chain_text(&error)))?;
    match erased {
        Some(_) => writeln!(env.stdout, "Removing login credentials for {host}")?,
        None => writeln!(env.stdout, "Not logged in to {host}")?,
    }
    Ok(env.stdout.flush()?)
}

fn sources(env: &Env) -> CredentialSources {
    native::credential_sources(env.filled("DOCKER_CONFIG").as_deref().map(std::path::Path::new))
}

/// The registry's host, also of a server that is written as a URL or with a repository.
fn host(server: Option<&str>) -> Result<String, CommandError> {
    let Some(server) = server else {
        return Ok(DEFAULT_HOST.to_owned());
    };
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    let parsed = Reference::parse(&format!("{host}/any"));
    match parsed {
        Ok(reference) if !host.is_empty() => Ok(reference.host().to_owned()),
        _ => Err(CommandError::failed(&format!("{server:?} is not a registry"))),
    }
}

/// User and password: from the flags, standard input, or whoever sits at the terminal.
fn asked(args: &LoginArgs, env: &mut Env) -> Result<(String, Secret), CommandError> {
    if args.password.is_some() {
        writeln!(
            env.stderr,
            "WARNING! Using --password via the CLI is insecure. Use --password-stdin."
        )?;
    }
    let can_ask = env.stdin_is_terminal && !args.password_stdin;
    let no_terminal = || CommandError::failed(&"cannot perform an interactive login from a non TTY device");
    let username = match &args.username {
        Some(name) => name.clone(),
        None if can_ask => {
            write!(env.stderr, "Username: ")?;
            env.stderr.flush()?;
            line(env)?
        }
        None => return Err(no_terminal()),
    };
    let password = match &args.password {
        Some(password) => password.clone(),
        None if args.password_stdin => whole(env)?,
        None if can_ask => {
            write!(env.stderr, "Password: ")?;
            env.stderr.flush()?;
            let hidden = terminal::Hidden::start();
            let password = line(env)?;
            drop(hidden);
            writeln!(env.stderr)?;
            password
        }
        None => return Err(no_terminal()),
    };
    if username.is_empty() || password.is_empty() {
        return Err(CommandError::failed(&"user name and password must not be empty"));
    }
    Ok((username, Secret::new(password)))
}

fn line(env: &mut Env) -> Result<String, CommandError> {
    let mut text = String::new();
    let read = BufReader::new(env.stdin.as_mut().take(ANSWER_MAX)).read_line(&mut text);
    read.map_err(unreadable)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// All of standard input, without the line end that `echo` puts there.
fn whole(env: &mut Env) -> Result<String, CommandError> {
    let mut text = String::new();
    let read = env.stdin.as_mut().take(ANSWER_MAX).read_to_string(&mut text);
    read.map_err(unreadable)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

fn unreadable(error: std::io::Error) -> CommandError {
    CommandError::failed(&format!("cannot read standard input: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_may_be_written_as_urls() {
        for (server, expected) in [
            (None, "docker.io"),
            (Some("example.test:5000"), "example.test:5000"),
            (Some("https://example.test/v2/"), "example.test"),
            (Some("localhost"), "localhost"),
            (Some("https://index.docker.io/v1/"), "docker.io"),
            (Some("example.test/team/app"), "example.test"),
        ] {
            assert_eq!(host(server).unwrap(), expected, "{server:?}");
        }
        for bad in ["", "http://", "a b.test", "-x.test"] {
            assert!(host(Some(bad)).is_err(), "{bad:?}");
        }
    }
}
