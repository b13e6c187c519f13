//! What helps against an error of the command line, in a sentence beside buildx's words for the error itself: the value that
//! was probably meant, or how one is written.

use std::path::Path;

use rbuild_ui::values::host::HostError;
use rbuild_ui::values::resource::ResourceError;
use rbuild_ui::values::ulimit::UlimitError;

use super::UsageError;
use super::attests::AttestError;
use super::caches::CacheError;
use super::nearest;

const HOST: &str = "a host is NAME:ADDRESS or NAME=ADDRESS, as in db:10.0.0.2";
const ULIMIT: &str = "a limit is NAME=SOFT or NAME=SOFT:HARD, as in nofile=1024:2048";
const SIZE: &str = "a size is a number of bytes, or one with k, m or g behind it, as in 64m";

/// What the user is told besides the error.
pub(crate) fn hints(error: &UsageError) -> Vec<String> {
    nearest::hint(error).or_else(|| how(error)).into_iter().collect()
}

/// How what is wrong is written; nothing where the error says so itself.
fn how(error: &UsageError) -> Option<String> {
    Some(match error {
        UsageError::Host(HostError::Invalid(_)) => HOST.to_owned(),
        UsageError::Ulimit(UlimitError::NoValue(_) | UlimitError::Number(_)) => ULIMIT.to_owned(),
        UsageError::ShmSize(_) | UsageError::Resource(ResourceError::Size { .. }) => SIZE.to_owned(),
        UsageError::DestRequired(kind) => format!("say where to, as in --output type={kind},dest=PATH"),
        UsageError::ContextNotFound(path) if Path::new(path).is_file() => {
            format!("{path} is a file; give the directory to build from, and a Dockerfile with -f")
        }
        UsageError::PushWithoutTag => {
            "name the image by -t, as in -t registry.example/team/name:tag".to_owned()
        }
        UsageError::SecretFile { .. } => {
            "a secret is read from the file that src names, or from the variable that env names".to_owned()
        }
        UsageError::SshFile { .. } => "an agent's socket, or a file with a private key, is meant".to_owned(),
        UsageError::Cache(CacheError::Missing { kind, key }) => {
            format!("add {key}, as in type={kind},{key}=VALUE")
        }
        UsageError::Attest(AttestError::Field(_)) => {
            "true, false, or attributes as in mode=max or generator=IMAGE".to_owned()
        }
        _ => return None,
    })
}
