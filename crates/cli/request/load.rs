//! `--load=ENGINE`: where that engine listens, by its own variables or where it usually does.

use std::path::PathBuf;

use rbuild_builder::engine_load::EngineTarget;

use super::UsageError;
use crate::args::LoadTo;
use crate::env::Env;

const DOCKER: &str = "/var/run/docker.sock";
const PODMAN: &str = "/run/podman/podman.sock";

/// The engine that is given the image, if one is.
///
/// # Errors
/// [`UsageError::LoadAddress`].
pub(super) fn target(to: Option<&LoadTo>, env: &Env) -> Result<Option<EngineTarget>, UsageError> {
    let usual = match to {
        None | Some(LoadTo::Nowhere | LoadTo::Store) => return Ok(None),
        Some(LoadTo::Containerd) => return Ok(Some(EngineTarget::Containerd)),
        Some(LoadTo::Socket(path)) => return Ok(Some(EngineTarget::Socket(path.clone()))),
        Some(LoadTo::Docker) => named("DOCKER_HOST", env)?.unwrap_or_else(|| DOCKER.into()),
        Some(LoadTo::Podman) => match named("CONTAINER_HOST", env)? {
            Some(path) => path,
            None => own_podman(env),
        },
    };
    Ok(Some(EngineTarget::Socket(usual)))
}

fn named(variable: &'static str, env: &Env) -> Result<Option<PathBuf>, UsageError> {
    let Some(address) = env.filled(variable) else {
        return Ok(None);
    };
    match address.strip_prefix("unix://") {
        Some(path) => Ok(Some(path.into())),
        None => Err(UsageError::LoadAddress { variable, address }),
    }
}

/// The user's own podman, if it listens, else root's.
fn own_podman(env: &Env) -> PathBuf {
    let own = env.filled("XDG_RUNTIME_DIR");
    let own = own.map(|dir| PathBuf::from(dir).join("podman/podman.sock"));
    own.filter(|path| path.exists()).unwrap_or_else(|| PODMAN.into())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::env::testing::env;

    #[test]
    fn an_engine_is_where_its_variables_say() {
        let of = |to: &LoadTo, vars: &[(&str, &str)]| target(Some(to), &env(vars, b"").0);
        let socket = |path: &str| Some(EngineTarget::Socket(Path::new(path).to_owned()));
        assert_eq!(of(&LoadTo::Store, &[]).unwrap(), None);
        assert_eq!(of(&LoadTo::Docker, &[]).unwrap(), socket(DOCKER));
        assert_eq!(
            of(&LoadTo::Docker, &[("DOCKER_HOST", "unix:///x")]).unwrap(),
            socket("/x")
        );
        assert!(matches!(
            of(&LoadTo::Docker, &[("DOCKER_HOST", "tcp://h:1")]),
            Err(UsageError::LoadAddress { .. })
        ));
        assert_eq!(of(&LoadTo::Podman, &[]).unwrap(), socket(PODMAN));
        let room = tempfile::tempdir().unwrap();
        let own = room.path().join("podman/podman.sock");
        std::fs::create_dir_all(own.parent().unwrap()).unwrap();
        std::fs::write(&own, "").unwrap();
        let dir = room.path().display().to_string();
        assert_eq!(
            of(&LoadTo::Podman, &[("XDG_RUNTIME_DIR", &dir)]).unwrap(),
            socket(&own.display().to_string())
        );
        assert_eq!(
            of(&LoadTo::Containerd, &[]).unwrap(),
            Some(EngineTarget::Containerd)
        );
    }
}
