//! Files that define targets, and the variables they see: read to be built, or only to be asked for names.

use std::collections::BTreeMap;
use std::fs::File as OpenFile;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rbuild_bake::{BakeError, Definition, FILE_BYTES_MAX, File, Surroundings};
use rbuild_ui::diagnostic::Diagnostic;
use rbuild_ui::values::scalar::parse_bool;

use crate::commands::CommandError;
use crate::env::Env;

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

/// How a file is opened: as it is, or only if it is a regular one.
type OpenAt = fn(&Path) -> io::Result<OpenFile>;

/// Variables of a definition: those of the command line, then those of the environment.
pub(super) struct Variables<'a> {
    given: BTreeMap<String, String>,
    env: &'a Env,
    is_silent: bool,
}

impl<'a> Variables<'a> {
    /// With `--var`s.
    pub(super) fn new(texts: &[String], env: &'a Env) -> Result<Self, BakeError> {
        let mut given = BTreeMap::new();
        for text in texts.iter().filter(|text| !text.is_empty()) {
            match text.split_once('=') {
                Some((name, value)) if !name.is_empty() => given.insert(name.to_owned(), value.to_owned()),
                _ => return Err(BakeError::Variable(text.clone())),
            };
        }
        let silent = env.var("BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP");
        Ok(Self {
            given,
            env,
            is_silent: silent.and_then(|text| parse_bool(&text)) == Some(true),
        })
    }

    /// One of them.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        let of_env = || self.env.var(name).filter(|_| !self.is_silent);
        self.given.get(name).cloned().or_else(of_env)
    }
}

/// The names of the files: those named, or the usual ones that are there.
fn names(named: &[String], env: &Env) -> Vec<String> {
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
    if names.is_empty() {
        let there = USUAL.iter().filter(|name| Path::new(name).exists());
        names.extend(there.map(|name| (*name).to_owned()));
    }
    names
}

/// Reads the files.
pub(super) fn read(named: &[String], env: &mut Env) -> Result<Vec<File>, CommandError> {
    let names = names(named, env);
    let mut files = Vec::with_capacity(names.len());
    for name in names {
        let read = if name == "-" {
            bounded(env.stdin.as_mut())
        } else {
            OpenFile::open(&name).and_then(bounded)
        };
        let bytes = read.map_err(|error| CommandError::failed(&format!("cannot read {name}: {error}")))?;
        files.push(File { name, bytes });
    }
    if files.is_empty() {
        return Err(CommandError::Failed(Box::new(Diagnostic {
            hints: vec![format!(
                "there is none of {} here; name a file with -f",
                USUAL.join(", ")
            )],
            ..Diagnostic::new("couldn't find a bake definition")
        })));
    }
    Ok(files)
}

/// What the files define.
pub(super) fn definition(files: &[File], variables: &Variables<'_>) -> Result<Definition, BakeError> {
    defined(files, variables, |path| OpenFile::open(path))
}

fn defined(files: &[File], variables: &Variables<'_>, open: OpenAt) -> Result<Definition, BakeError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let surroundings = Surroundings {
        variable: &|name| variables.get(name),
        dotenv: text(".env", open).unwrap_or_default(),
        file: &|path| text(path, open),
        builtins: BTreeMap::from([
            ("BAKE_CMD_CONTEXT".to_owned(), "cwd://".to_owned()),
            (
                "BAKE_LOCAL_PLATFORM".to_owned(),
                variables.env.own_platform.clone(),
            ),
        ]),
        now: i64::try_from(since.as_secs()).unwrap_or_default(),
        home: variables.env.filled("HOME").unwrap_or_default(),
    };
    rbuild_bake::read(files, &surroundings)
}

/// Names of targets and groups with what they say of themselves, for whoever is typing one: nothing is waited for, and files
/// that cannot be read have none.
pub(in crate::commands) fn targets(named: &[String], vars: &[String], env: &Env) -> Vec<(String, String)> {
    let file = |name: String| {
        let bytes = rbuild_sys::open_regular(Path::new(&name))
            .and_then(bounded)
            .ok()?;
        Some(File { name, bytes })
    };
    let files: Option<Vec<File>> = names(named, env).into_iter().map(file).collect();
    let open = |path: &Path| rbuild_sys::open_regular(path);
    let variables = Variables::new(vars, env);
    let found = files.zip(variables.ok()).and_then(|(files, variables)| {
        (!files.is_empty()).then_some(())?;
        defined(&files, &variables, open).ok()
    });
    let listed = found.map(|definition| definition.listed()).unwrap_or_default();
    listed.into_iter().map(|(name, about, _)| (name, about)).collect()
}

/// What is in a file, with one byte more than it may have where it has more.
fn bounded(from: impl io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A file that a definition names, from the working directory on.
fn text(path: &str, open: OpenAt) -> io::Result<String> {
    let bytes = bounded(open(Path::new(path))?)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
