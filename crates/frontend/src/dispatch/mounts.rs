//! `RUN --mount`.

use rbuild_dockerfile::shell::ExpandError;
use rbuild_dockerfile::{MountError, MountOptions, MountType, Run, Sharing, path};
use rbuild_graph::{
    CacheSharing, ChownOpt, DEFAULT_SSH_ID, FileAction, FileActionKind, FileOp, MkDirAction, Mount,
    MountKind, Op, SecretEnv,
};

use crate::dispatch::Site;
use crate::error::{FrontendError, FrontendErrorKind};
use crate::lowering::{Lowering, NewVertex};
use crate::origins::{Inputs, Made};

/// Mounts of a step in the making.
pub(super) struct Mounts {
    /// Mounts with what they show, sorted by mount point at the end.
    sorted: Vec<(Option<Made>, Mount)>,
    /// Secrets, behind the others.
    secrets: Vec<Mount>,
    /// Sockets, behind the secrets.
    sockets: Vec<Mount>,
    pub(super) secret_env: Vec<SecretEnv>,
}

/// A mount of `kind` at `dest`.
pub(super) fn mount(dest: &str, kind: MountKind, readonly: bool) -> Mount {
    Mount {
        readonly,
        ..Mount::new(dest, kind)
    }
}

impl Mounts {
    /// Begins with the root.
    pub(super) fn new(root: Option<Made>) -> Self {
        let root_mount = Mount {
            output: Some(0),
            ..mount("/", MountKind::Bind, false)
        };
        Self {
            sorted: vec![(root, root_mount)],
            secrets: Vec::new(),
            sockets: Vec::new(),
            secret_env: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, source: Option<Made>, mount: Mount) {
        self.sorted.push((source, mount));
    }

    /// The socket that `SSH_AUTH_SOCK` is to name.
    pub(super) fn first_ssh_socket(&self) -> Option<&str> {
        self.sockets.first().map(|mount| mount.dest.as_str())
    }

    pub(super) fn finish(mut self) -> (Vec<Mount>, Inputs, Vec<SecretEnv>) {
        self.sorted.sort_by(|(_, a), (_, b)| a.dest.cmp(&b.dest));
        let mut inputs = Inputs::default();
        let mut mounts = Vec::with_capacity(self.sorted.len() + self.secrets.len() + self.sockets.len());
        for (source, mut mount) in self.sorted {
            mount.input = inputs.index(source.as_ref());
            mounts.push(mount);
        }
        mounts.extend(self.secrets);
        mounts.extend(self.sockets);
        (mounts, inputs, self.secret_env)
    }
}

/// The mounts' options, expanded.
pub(super) fn options(
    lowering: &mut Lowering<'_>,
    site: Site<'_>,
    run: &Run,
) -> Result<Vec<MountOptions>, FrontendError> {
    let mut all = Vec::with_capacity(run.mounts.len());
    for text in &run.mounts {
        let mut limit = None;
        let mut expand = |word: &str| {
            lowering.expand(site, word).or_else(|error| match *error.kind {
                FrontendErrorKind::Expand(error) => Err(error),
                _ => {
                    limit = Some(error);
                    Ok(String::new())
                }
            })
        };
        let parsed: Result<_, MountError> =
            MountOptions::parse(text, &mut |word| -> Result<String, ExpandError> { expand(word) });
        if let Some(error) = limit {
            return Err(error);
        }
        all.push(parsed.map_err(FrontendErrorKind::Mount)?);
    }
    Ok(all)
}

/// Adds the mounts of `--mount`.
pub(super) fn add(
    lowering: &mut Lowering<'_>,
    site: Site<'_>,
    options: &[MountOptions],
    mounts: &mut Mounts,
) -> Result<(), FrontendError> {
    for (at, options) in options.iter().enumerate() {
        match options.mount_type {
            MountType::Secret => secret(lowering, site, options, mounts)?,
            MountType::Ssh => ssh(lowering, site, options, mounts)?,
            MountType::Bind | MountType::Cache | MountType::Tmpfs => {
                let (source, mount) = files(lowering, site, at, options)?;
                mounts.push(source, mount);
            }
        }
    }
    Ok(())
}

fn files(
    lowering: &mut Lowering<'_>,
    site: Site<'_>,
    at: usize,
    options: &MountOptions,
) -> Result<(Option<Made>, Mount), FrontendError> {
    let is_cache = options.mount_type == MountType::Cache;
    let is_tmpfs = options.mount_type == MountType::Tmpfs;
    let source_path = path::join(&["/", &options.source]);
    let mut source = if !options.from.is_empty() {
        let stage = site
            .command
            .sources
            .get(at)
            .map(|source| &lowering.stages.list[*source]);
        match stage.filter(|stage| stage.dispatched) {
            Some(stage) => stage.state.root.clone(),
            None => {
                let (from, target) = (options.from.clone(), options.target.clone());
                return Err(FrontendErrorKind::MountFromLater { from, target }.into());
            }
        }
    } else if is_cache || is_tmpfs {
        None
    } else {
        lowering.context_paths.insert(source_path.clone());
        lowering.main_context()?
    };
    if is_tmpfs {
        source = None;
    }
    let edge = source.as_ref().map(|made| &made.edge);
    lowering.local_paths.add(edge, source_path.clone());
    let target = target(lowering, site, &options.target)?;
    let mut selector = String::new();
    if source_path != "/" {
        selector = source_path;
    } else if options.uid.is_some() || options.gid.is_some() || options.mode.is_some() {
        source = Some(owned_directory(lowering, source, options));
        "/cache".clone_into(&mut selector);
    }
    let kind = match options.mount_type {
        MountType::Cache => MountKind::Cache {
            id: cache_id(lowering, options),
            sharing: match options.sharing {
                None | Some(Sharing::Shared) => CacheSharing::Shared,
                Some(Sharing::Private) => CacheSharing::Private,
                Some(Sharing::Locked) => CacheSharing::Locked,
            },
        },
        MountType::Tmpfs => MountKind::Tmpfs {
            size_bytes: options.size_bytes,
        },
        MountType::Bind | MountType::Secret | MountType::Ssh => MountKind::Bind,
    };
    Ok((
        source,
        Mount {
            selector,
            ..mount(&target, kind, options.readonly)
        },
    ))
}

/// Namespace and id; the mount point, cleaned, if there is no id.
fn cache_id(lowering: &Lowering<'_>, options: &MountOptions) -> String {
    let namespace = &lowering.options.cache_id_namespace;
    let id = if options.id.is_empty() {
        path::clean(&options.target)
    } else {
        options.id.clone()
    };
    format!("{namespace}/{id}")
}

/// Mount point: below the working directory if it is relative, and never the root.
fn target(lowering: &Lowering<'_>, site: Site<'_>, written: &str) -> Result<String, FrontendError> {
    let target = if path::is_absolute(written) {
        written.to_owned()
    } else {
        path::join(&["/", &lowering.stages.list[site.stage].state.dir, written])
    };
    if path::clean(&target) == "/" {
        return Err(FrontendErrorKind::MountTarget(target).into());
    }
    Ok(target)
}

/// A directory with the owner and mode that a new cache is to have.
fn owned_directory(lowering: &mut Lowering<'_>, base: Option<Made>, options: &MountOptions) -> Made {
    let owner = ChownOpt::ids(options.uid.unwrap_or(0), options.gid.unwrap_or(0));
    let kind = FileActionKind::MkDir(MkDirAction {
        path: "/cache".to_owned(),
        mode: options.mode.unwrap_or(0o755) & 0o777,
        make_parents: false,
        owner: Some(owner),
        time: None,
    });
    let input = base.as_ref().map(|_| 0);
    let action = FileAction {
        input,
        secondary_input: None,
        output: Some(0),
        kind,
    };
    let name = "[internal] setting cache mount permissions".to_owned();
    let inputs = Inputs::of(base.as_ref());
    let op = Op::File(FileOp {
        actions: vec![action],
    });
    lowering.add(
        op,
        NewVertex {
            inputs,
            name,
            ..NewVertex::default()
        },
    )
}

fn secret(
    lowering: &mut Lowering<'_>,
    site: Site<'_>,
    options: &MountOptions,
    mounts: &mut Mounts,
) -> Result<(), FrontendError> {
    let id = [&options.source, &options.id]
        .into_iter()
        .find(|id| !id.is_empty());
    let id = match id {
        Some(id) => id.clone(),
        None if options.target.is_empty() => return Err(FrontendErrorKind::SecretWithoutName.into()),
        None => path::base(&options.target).to_owned(),
    };
    lowering.note_secret(site.stage, &id, options.required, site.span());
    let optional = !options.required;
    let dest = match (&options.env, options.target.as_str()) {
        (Some(_), "") => None,
        (None, "") => Some(format!("/run/secrets/{}", path::base(&id))),
        (_, target) => Some(target.to_owned()),
    };
    if let Some(name) = &options.env {
        mounts.secret_env.push(SecretEnv {
            id: id.clone(),
            name: name.clone(),
            optional,
        });
    }
    if let Some(dest) = dest {
        let (uid, gid) = (options.uid.unwrap_or(0), options.gid.unwrap_or(0));
        let mode = options.mode.unwrap_or(0o400);
        mounts.secrets.push(mount(
            &dest,
            MountKind::Secret {
                id,
                uid,
                gid,
                mode,
                optional,
            },
            false,
        ));
    }
    Ok(())
}

fn ssh(
    lowering: &mut Lowering<'_>,
    site: Site<'_>,
    options: &MountOptions,
    mounts: &mut Mounts,
) -> Result<(), FrontendError> {
    if !options.source.is_empty() {
        return Err(FrontendErrorKind::SshSource.into());
    }
    let id = options.id.clone();
    let noted = if id.is_empty() { DEFAULT_SSH_ID } else { &id };
    lowering.note_ssh(site.stage, noted, options.required, site.span());
    let number = mounts.sockets.len();
    let dest = match options.target.as_str() {
        "" => format!("/run/buildkit/ssh_agent.{number}"),
        target => target.to_owned(),
    };
    let (uid, gid) = (options.uid.unwrap_or(0), options.gid.unwrap_or(0));
    let (mode, optional) = (options.mode.unwrap_or(0o600), !options.required);
    mounts.sockets.push(mount(
        &dest,
        MountKind::Ssh {
            id,
            uid,
            gid,
            mode,
            optional,
        },
        false,
    ));
    Ok(())
}
