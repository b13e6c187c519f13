//! Where context and Dockerfile come from: directory, URL, archive or text on standard input.

use std::path::{Path, PathBuf};

use rbuild_builder::request::{ContextSource, DockerfileSource, UrlRequest};

use super::UsageError;
use crate::args::LowBuild;
use crate::env::Env;
use crate::stdin::{self, Input, Spooled};

/// Sources of a build.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) context: ContextSource,
    pub(super) dockerfile: DockerfileSource,
    pub(super) archive: Option<Spooled>,
}

/// Reads standard input if it is one of them.
pub(super) fn of(low: &LowBuild, env: &mut Env) -> Result<Inputs, UsageError> {
    let file = low.file.as_deref().filter(|file| !file.is_empty());
    let url = file.filter(|file| {
        ["http://", "https://"]
            .iter()
            .any(|start| file.starts_with(start))
    });
    if let Some(url) = url.filter(|_| low.dockerfile_text.is_none()) {
        return behind_url(low, url, env);
    }
    match low.context.as_str() {
        "" => Err(UsageError::NoContext),
        "-" => from_stdin(file, env),
        path if Path::new(path).is_dir() => {
            let dockerfile = match file {
                _ if low.dockerfile_text.is_some() => inline(low),
                Some("-") => DockerfileSource::Text(stdin::read_text(env.stdin.as_mut())?),
                Some(file) => DockerfileSource::File(lower_case_twin(PathBuf::from(file))),
                None => in_directory(Path::new(path)),
            };
            Ok(Inputs {
                context: ContextSource::Dir(PathBuf::from(path)),
                dockerfile,
                archive: None,
            })
        }
        url if is_url(url) => {
            let dockerfile = match file {
                _ if low.dockerfile_text.is_some() => inline(low),
                Some("-") => DockerfileSource::Text(stdin::read_text(env.stdin.as_mut())?),
                // buildx takes an absolute path for one of this machine, any other for one in the context.
                Some(file) if Path::new(file).is_absolute() => DockerfileSource::File(PathBuf::from(file)),
                file => DockerfileSource::InContext(file.unwrap_or("Dockerfile").to_owned()),
            };
            Ok(Inputs {
                context: ContextSource::Remote(url.to_owned()),
                dockerfile,
                archive: None,
            })
        }
        path => Err(UsageError::ContextNotFound(path.to_owned())),
    }
}

/// A Dockerfile of the network, and the context it is for.
fn behind_url(low: &LowBuild, url: &str, env: &mut Env) -> Result<Inputs, UsageError> {
    let request = UrlRequest::new(url).map_err(|error| UsageError::FileUrl(error.to_string()))?;
    // The context is read as if its Dockerfile were in it; a text on standard input would be a second one.
    let without = LowBuild {
        context: low.context.clone(),
        ..LowBuild::default()
    };
    let inputs = of(&without, env)?;
    if matches!(inputs.context, ContextSource::Empty) {
        return Err(UsageError::TwoDockerfiles);
    }
    Ok(Inputs {
        dockerfile: DockerfileSource::Url(request),
        ..inputs
    })
}

/// The Dockerfile that stands in a bake file.
fn inline(low: &LowBuild) -> DockerfileSource {
    DockerfileSource::Text(low.dockerfile_text.clone().unwrap_or_default().into_bytes())
}

fn from_stdin(file: Option<&str>, env: &mut Env) -> Result<Inputs, UsageError> {
    if file == Some("-") {
        return Err(UsageError::StdinTwice);
    }
    let directory = env.temp_dir();
    match stdin::read_context(env.stdin.as_mut(), &directory)? {
        Input::Archive(archive) => Ok(Inputs {
            context: ContextSource::Tar(archive.path()),
            dockerfile: DockerfileSource::InContext(file.unwrap_or("Dockerfile").to_owned()),
            archive: Some(archive),
        }),
        Input::Text(_) if file.is_some() => Err(UsageError::TwoDockerfiles),
        Input::Text(text) => Ok(Inputs {
            context: ContextSource::Empty,
            dockerfile: DockerfileSource::Text(text),
            archive: None,
        }),
    }
}

/// The Dockerfile that nobody named. A pipe is read only from who names it: in a context that others made it may never end.
fn in_directory(context: &Path) -> DockerfileSource {
    let path = lower_case_twin(context.join("Dockerfile"));
    match path.exists() && !path.is_file() {
        true => DockerfileSource::InContext("Dockerfile".to_owned()),
        false => DockerfileSource::File(path),
    }
}

/// `dockerfile` beside a `Dockerfile` that is not there (buildx, `handleLowercaseDockerfile`).
fn lower_case_twin(path: PathBuf) -> PathBuf {
    if path.file_name().is_some_and(|name| name == "Dockerfile") && path.symlink_metadata().is_err() {
        let twin = path.with_file_name("dockerfile");
        if twin.symlink_metadata().is_ok() {
            return twin;
        }
    }
    path
}

/// buildx's idea of a remote context.
pub(super) fn is_url(text: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@", "github.com/"]
        .iter()
        .any(|start| text.starts_with(start))
}
