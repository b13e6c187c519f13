//! Directories of the client where an operation needs a file system: what is read of one is copied, so that it
//! belongs to root, knows the ignore rules, and stays as it is. What the builder has as a copy of its own is linked.

use std::sync::Arc;

use rbuild_fileops::SourceTree;
use rbuild_graph::CopyAction;
use rbuild_layer::DevicePolicy;
use rbuild_sys::RootFd;

use super::{OpError, blocking};
use crate::job::Job;
use crate::value::{Chain, Context, Value};

/// The chain of a value. A directory of the client becomes a new layer.
///
/// # Errors
/// Those of reading the directory and of writing the layer.
pub async fn chain(job: &Job, value: &Value) -> Result<Chain, OpError> {
    match value {
        Value::Chain(chain) => Ok(chain.clone()),
        Value::Context(context) => layer(job, context).await,
    }
}

async fn layer(job: &Job, context: &Context) -> Result<Chain, OpError> {
    let (engine, lease, tree) = (
        Arc::clone(&job.engine),
        Arc::clone(&job.lease),
        Arc::clone(&context.tree),
    );
    let devices = DevicePolicy::for_form(job.engine.form);
    let _permit = job.processors.acquire().await;
    let committed = blocking(move || {
        let mut workspace = engine.snapshotter.workspace(&lease, &[])?;
        if let SourceTree::Context(local) = &*tree
            && local.is_own_copy()
        {
            if workspace.link_tree(local.root())? {
                return Ok(workspace.commit()?);
            }
            workspace = engine.snapshotter.workspace(&lease, &[])?;
        }
        let root = workspace.mount()?;
        copy(&tree, "/", &root, devices)?;
        drop(root);
        Ok::<_, OpError>(workspace.commit()?)
    });
    Ok(Chain::new(vec![committed.await?.id]))
}

/// Copies what `path` names, links followed, to the same place below `root`.
///
/// # Errors
/// [`OpError::File`].
pub fn copy(tree: &SourceTree, path: &str, root: &RootFd, devices: DevicePolicy) -> Result<(), OpError> {
    let path = if path.is_empty() { "/" } else { path };
    let action = CopyAction {
        src: path.to_owned(),
        dest: path.to_owned(),
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        ..CopyAction::default()
    };
    rbuild_fileops::copy(tree, root, &action, None, devices).map_err(rbuild_fileops::ActionError::from)?;
    Ok(())
}
