//! `--volume`, `--mount` and `--tmpfs` of `run`: paths of this machine and memory. There are no volumes: those are
//! refused by name.

use std::path::{Path, PathBuf};

use rbuild_builder::run::RunMount;
use rbuild_ui::units::parse_size;
use rbuild_ui::values::csv;
use rbuild_ui::values::scalar::parse_bool;

use crate::args::RunArgs;

/// Why a mount is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum MountError {
    /// It is a volume.
    #[error("not supported: volume {0:?}: rbuild keeps none; name a path of this machine (/DIR or ./DIR)")]
    Volume(String),
    /// It has no form of docker's.
    #[error("invalid mount {0:?}: it is SOURCE:DESTINATION[:ro]")]
    Volumes(String),
    /// It is written in another way.
    #[error("invalid mount {text:?}: {why}")]
    Field {
        /// As written.
        text: String,
        /// What is wrong.
        why: String,
    },
    /// It is of another kind.
    #[error("not supported: mount of type {0:?}: there are bind and tmpfs")]
    Kind(String),
    /// Its place is no path of the image.
    #[error("invalid mount {0:?}: the destination must be an absolute path")]
    Relative(String),
    /// There is nothing to show.
    #[error("bind source path does not exist: {}", .0.display())]
    Missing(PathBuf),
    /// Nothing could be made there.
    #[error("cannot make {}: {source}", .path.display())]
    Make {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// All of them, in the order docker mounts them: by depth would be the sandbox's to decide.
pub(super) fn mounts(args: &RunArgs) -> Result<Vec<RunMount>, MountError> {
    let volumes = args.volume.iter().map(|text| volume(text));
    let mounts = args.mount.iter().map(|text| mount(text));
    let memory = args.tmpfs.iter().map(|text| tmpfs(text));
    volumes.chain(mounts).chain(memory).collect()
}

/// Options of `--volume` (moby's `volume/mounts/linux_parser.go`). Labels of SELinux, propagation and consistency say nothing to a
/// sandbox that has none of them.
const MODES: [&str; 16] = [
    "",
    "ro",
    "rw",
    "z",
    "Z",
    "consistent",
    "cached",
    "delegated",
    "default",
    "nocopy",
    "shared",
    "slave",
    "private",
    "rshared",
    "rslave",
    "rprivate",
];
/// Options of memory that ask for what it is, or for less than docker gives by itself.
const OF_MEMORY: [&str; 6] = ["", "rw", "noexec", "nosuid", "nodev", "mode=1777"];

/// `SOURCE:DESTINATION[:OPTIONS]`. As docker does, a directory that is missing is made.
fn volume(text: &str) -> Result<RunMount, MountError> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, dest, options) = match parts.as_slice() {
        [source, dest] => (*source, *dest, ""),
        [source, dest, options] => (*source, *dest, *options),
        [_] => return Err(MountError::Volume(text.to_owned())),
        _ => return Err(MountError::Volumes(text.to_owned())),
    };
    if let Some(mode) = options.split(',').find(|option| !MODES.contains(option)) {
        return Err(MountError::Field {
            text: text.to_owned(),
            why: format!("invalid mode: {mode}"),
        });
    }
    if !source.starts_with(['/', '.']) {
        return Err(MountError::Volume(source.to_owned()));
    }
    let source = absolute(source);
    if !source.exists() {
        std::fs::create_dir_all(&source).map_err(|error| MountError::Make {
            path: source.clone(),
            source: error,
        })?;
    }
    Ok(RunMount::Host {
        source,
        dest: inside(dest, text)?,
        readonly: options.split(',').any(|option| option == "ro"),
    })
}

/// `type=bind,source=…,target=…`.
fn mount(text: &str) -> Result<RunMount, MountError> {
    let wrong = |why: &dyn ToString| MountError::Field {
        text: text.to_owned(),
        why: why.to_string(),
    };
    let (mut kind, mut source, mut dest) = ("volume".to_owned(), None, None);
    let (mut readonly, mut size_bytes) = (false, None);
    for field in csv::fields(text).map_err(|error| wrong(&error))? {
        let (key, value) = field.split_once('=').unwrap_or((field.as_str(), ""));
        match key.to_ascii_lowercase().as_str() {
            "type" => kind = value.to_ascii_lowercase(),
            "source" | "src" => source = Some(value.to_owned()),
            "target" | "dst" | "destination" => dest = Some(value.to_owned()),
            "readonly" | "ro" => {
                readonly = value.is_empty()
                    || parse_bool(value).ok_or_else(|| wrong(&format!("{value:?} is not a bool")))?;
            }
            "tmpfs-size" => size_bytes = Some(parse_size(value).map_err(|error| wrong(&error))?),
            "tmpfs-mode" if value.trim_start_matches('0') != "1777" => {
                return Err(wrong(&"tmpfs-mode is not supported: it is 1777"));
            }
            "tmpfs-mode" | "bind-propagation" | "bind-recursive" | "consistency" => {}
            other => return Err(wrong(&format!("unexpected key {other:?}"))),
        }
    }
    let dest = inside(&dest.ok_or_else(|| wrong(&"target is required"))?, text)?;
    match kind.as_str() {
        "tmpfs" if source.is_some() => Err(wrong(&"field Source must not be specified")),
        "tmpfs" => Ok(RunMount::Memory { dest, size_bytes }),
        "bind" => {
            let source = source.ok_or_else(|| wrong(&"source is required"))?;
            if !source.starts_with(['/', '.']) {
                return Err(wrong(&format!(
                    "invalid mount path: '{source}' mount path must be absolute"
                )));
            }
            let source = absolute(&source);
            if !source.exists() {
                return Err(MountError::Missing(source));
            }
            Ok(RunMount::Host {
                source,
                dest,
                readonly,
            })
        }
        "volume" => Err(MountError::Volume(source.unwrap_or_else(|| text.to_owned()))),
        other => Err(MountError::Kind(other.to_owned())),
    }
}

/// `DESTINATION[:OPTIONS]`.
fn tmpfs(text: &str) -> Result<RunMount, MountError> {
    let (dest, options) = text.split_once(':').unwrap_or((text, ""));
    let is_known = |option: &str| OF_MEMORY.contains(&option) || option.starts_with("size=");
    if let Some(option) = options.split(',').find(|option| !is_known(option)) {
        return Err(MountError::Field {
            text: text.to_owned(),
            why: format!("tmpfs option {option:?} is not supported: there are size, rw and mode=1777"),
        });
    }
    let size = options.split(',').find_map(|option| option.strip_prefix("size="));
    let size_bytes = size.map(parse_size).transpose();
    Ok(RunMount::Memory {
        dest: inside(dest, text)?,
        size_bytes: size_bytes.map_err(|error| MountError::Field {
            text: text.to_owned(),
            why: error.to_string(),
        })?,
    })
}

fn absolute(path: &str) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path))
}

fn inside(dest: &str, text: &str) -> Result<PathBuf, MountError> {
    if !dest.starts_with('/') || Path::new(dest) == Path::new("/") {
        return Err(MountError::Relative(text.to_owned()));
    }
    Ok(PathBuf::from(dest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(source: &Path, dest: &str, readonly: bool) -> RunMount {
        RunMount::Host {
            source: source.to_owned(),
            dest: dest.into(),
            readonly,
        }
    }

    #[test]
    fn volumes_are_paths_of_this_machine() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        let of = |text: String| volume(&text).map_err(|error| error.to_string());
        assert_eq!(of(format!("{at}:/x")), Ok(host(dir.path(), "/x", false)));
        assert_eq!(of(format!("{at}:/x:ro,z")), Ok(host(dir.path(), "/x", true)));
        assert_eq!(
            of(format!("{at}/new:/x:Z")),
            Ok(host(&dir.path().join("new"), "/x", false))
        );
        assert!(dir.path().join("new").is_dir(), "made, as docker does");
        for (text, says) in [
            ("data:/x", "volume \"data\""),
            ("/x", "volume \"/x\""),
            ("/a:/b:ro:x", "SOURCE:DESTINATION"),
            ("/:x", "absolute"),
            ("/:/", "absolute"),
        ] {
            let said = of(text.to_owned()).unwrap_err();
            assert!(said.contains(says), "{text}: {said}");
        }
    }

    #[test]
    fn mounts_are_binds_and_memory() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        let of = |text: &str| mount(text).map_err(|error| error.to_string());
        assert_eq!(
            of(&format!("type=bind,src={at},dst=/x,ro")),
            Ok(host(dir.path(), "/x", true))
        );
        assert_eq!(
            of(&format!("type=bind,source={at},target=/x,readonly=false")),
            Ok(host(dir.path(), "/x", false))
        );
        let memory = |size_bytes| {
            Ok(RunMount::Memory {
                dest: "/x".into(),
                size_bytes,
            })
        };
        assert_eq!(of("type=tmpfs,dst=/x,tmpfs-size=1k"), memory(Some(1024)));
        let tmpfs = |text| tmpfs(text).map_err(|error| error.to_string());
        assert_eq!(tmpfs("/x"), memory(None));
        assert_eq!(tmpfs("/x:rw,size=1k,mode=1777"), memory(Some(1024)));
        for (text, says) in [
            ("type=bind,src=/nothing/here,dst=/x", "does not exist"),
            ("type=bind,dst=/x", "source is required"),
            ("type=bind,src=/", "target is required"),
            ("src=data,dst=/x", "volume \"data\""),
            ("type=npipe,src=/,dst=/x", "npipe"),
            ("type=bind,src=/,dst=/x,speed=1", "speed"),
            ("type=bind,src=/,dst=/x,ro=perhaps", "perhaps"),
        ] {
            let said = of(text).unwrap_err();
            assert!(said.contains(says), "{text}: {said}");
        }
    }
}
