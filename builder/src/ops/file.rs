//! File operations: COPY, ADD, WORKDIR and their kin, on a workspace over the layers of their input.

use std::borrow::Cow;
use std::sync::Arc;

use rbuild_fileops::{Owner, OwnerError, SourceTree, resolve_owner};
use rbuild_graph::{ChownOpt, FileAction, FileActionKind, FileOp, InputIndex, UserOpt};
use rbuild_layer::DevicePolicy;
use rbuild_sys::RootFd;

use super::content::tree;
use super::{OpError, blocking, chain_of};
use crate::job::Job;
use crate::solve::Reporter;
use crate::value::{Chain, Value};

/// Runs `file` and gives the chain with its new layer.
///
/// # Errors
/// [`OpError::File`] and those of the inputs.
pub async fn run(job: &Job, file: &FileOp, inputs: &[Value], reporter: &Reporter) -> Result<Chain, OpError> {
    let base = chain_of(base_of(file, inputs.len())?, inputs)?;
    let mut sources: Vec<Option<Arc<SourceTree>>> = Vec::with_capacity(file.actions.len());
    let mut databases: Vec<Option<Arc<SourceTree>>> = Vec::with_capacity(file.actions.len());
    for action in &file.actions {
        // A copy from what this operation makes reads from the root itself.
        let value = action
            .secondary_input
            .and_then(|index| inputs.get(index as usize));
        sources.push(match value {
            Some(value) => Some(tree(job, value).await?),
            None => None,
        });
        databases.push(match other_database(file, action, inputs) {
            Some(value) => Some(tree(job, value).await?),
            None => None,
        });
    }
    let base = job.unpack_chain(&base).await?;
    let permit = job.processors.acquire().await;
    let (engine, lease) = (Arc::clone(&job.engine), Arc::clone(&job.lease));
    let (file, lowers, devices) = (
        file.clone(),
        base.clone(),
        DevicePolicy::for_form(job.engine.form),
    );
    let reporter = reporter.clone();
    let layer = blocking(move || {
        let workspace = engine.snapshotter.workspace(&lease, lowers.layers())?;
        let root = workspace.mount()?;
        for ((action, source), database) in file.actions.iter().zip(&sources).zip(&databases) {
            let users = match database.as_deref() {
                None | Some(SourceTree::Context(_)) => &root,
                Some(SourceTree::Snapshot(other)) => other,
            };
            let (kind, unknown) = with_known_owner(&action.kind, users);
            if let Some(unknown) = unknown {
                reporter.warn(unknown, Vec::new(), String::new(), None);
            }
            rbuild_fileops::apply(&kind, &root, source.as_deref(), users, devices)?;
        }
        drop(root);
        Ok::<_, OpError>(workspace.commit()?)
    })
    .await?;
    drop(permit);
    Ok(base.with(layer.id))
}

/// The action with an owner that exists, and what to tell the user if that is not the one asked for. BuildKit takes
/// root, or the group of the number, for a name the image does not know (`solver/llbsolver/file/user_linux.go`), and
/// says nothing.
fn with_known_owner<'a>(
    kind: &'a FileActionKind,
    users: &RootFd,
) -> (Cow<'a, FileActionKind>, Option<String>) {
    let unchanged = (Cow::Borrowed(kind), None);
    let Some(owner) = kind.owner() else {
        return unchanged;
    };
    let Err(error @ (OwnerError::UnknownUser { .. } | OwnerError::UnknownGroup { .. })) =
        resolve_owner(owner, users)
    else {
        return unchanged;
    };
    let known = |user: Option<&UserOpt>, group: Option<&UserOpt>| {
        let alone = ChownOpt {
            user: user.cloned(),
            group: group.cloned(),
        };
        resolve_owner(&alone, users).ok()
    };
    let user = known(owner.user.as_ref(), None).unwrap_or(Owner::ROOT);
    let group = owner.group.as_ref().and_then(|group| known(None, Some(group)));
    let taken = ChownOpt::ids(user.uid, group.map_or(user.gid, |owner| owner.gid));
    let text = format!("{error}; {taken} is taken, as BuildKit does");
    let mut changed = kind.clone();
    set_owner(&mut changed, taken);
    (Cow::Owned(changed), Some(text))
}

/// The input an owner's name is looked up in, if that is not the root that is changed.
fn other_database<'a>(file: &FileOp, action: &FileAction, inputs: &'a [Value]) -> Option<&'a Value> {
    let input = action.kind.owner()?.database()?;
    let base = file.actions.first()?.input;
    (Some(input) != base)
        .then(|| inputs.get(input as usize))
        .flatten()
}

fn set_owner(kind: &mut FileActionKind, owner: ChownOpt) {
    match kind {
        FileActionKind::Copy(action) => action.owner = Some(owner),
        FileActionKind::MkFile(action) => action.owner = Some(owner),
        FileActionKind::MkDir(action) => action.owner = Some(owner),
        FileActionKind::Symlink(action) => action.owner = Some(owner),
        FileActionKind::Rm(_) => {}
    }
}

/// The input the actions change. They form one chain: each changes what the one before it made.
fn base_of(file: &FileOp, inputs: usize) -> Result<InputIndex, OpError> {
    let first = file.actions.first().ok_or(OpError::Branches)?;
    for (index, action) in file.actions.iter().enumerate().skip(1) {
        let previous = u32::try_from(inputs + index - 1).ok();
        if action.input.is_none() || action.input != previous {
            return Err(OpError::Branches);
        }
    }
    Ok(first.input)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_graph::MkDirAction;

    fn actions(inputs: &[InputIndex]) -> FileOp {
        let kind = FileActionKind::MkDir(MkDirAction {
            path: "/x".into(),
            mode: 0o755,
            make_parents: true,
            owner: None,
            time: None,
        });
        let action = |input: &InputIndex| FileAction {
            input: *input,
            secondary_input: None,
            output: None,
            kind: kind.clone(),
        };
        FileOp {
            actions: inputs.iter().map(action).collect(),
        }
    }

    #[test]
    fn actions_form_one_chain() {
        assert_eq!(
            base_of(&actions(&[Some(0), Some(2), Some(3)]), 2).unwrap(),
            Some(0)
        );
        assert_eq!(base_of(&actions(&[None, Some(1)]), 1).unwrap(), None);
        assert!(matches!(
            base_of(&actions(&[Some(0), Some(0)]), 1),
            Err(OpError::Branches)
        ));
        assert!(matches!(base_of(&actions(&[]), 1), Err(OpError::Branches)));
    }
}
