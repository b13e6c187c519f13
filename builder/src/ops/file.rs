//! File operations: COPY, ADD, WORKDIR and their kin, on a workspace over the layers of their input.

use std::borrow::Cow;
use std::sync::Arc;

use rbuild_fileops::{ActionError, Owner, OwnerError, SourceTree, resolve_owner};
use rbuild_graph::{ChownOpt, FileAction, FileActionKind, FileOp, InputIndex, UserOpt, VertexDigest};
use rbuild_layer::DevicePolicy;
use rbuild_snapshotter::{BlobInfo, StackError};
use rbuild_store::LayerId;
use rbuild_sys::RootFd;

use super::content::tree;
use super::{OpError, blocking, define, local};
use crate::failed::{FailedPart, Left};
use crate::job::Job;
use crate::solve::Reporter;
use crate::straight::{self, Wanted};
use crate::value::{Chain, Value};

/// Runs `file` and gives its outputs. Actions that only continue each other share a layer; one whose result is an
/// output, or is used twice, ends its layer (`solver/llbsolver/file/…`, `FileOpSolver`). What was there when an action
/// failed is put into `left`, of builds that keep that.
///
/// # Errors
/// [`OpError::File`] and those of the inputs.
pub async fn run(
    job: &Job,
    (digest, file): (&VertexDigest, &FileOp),
    inputs: &[Value],
    reporter: &Reporter,
    left: &mut Left,
) -> Result<Vec<Chain>, OpError> {
    let mut run = Run {
        wanted: job.finals.of(digest).filter(|_| file.outputs() == 1),
        job,
        file,
        inputs,
        reporter,
        results: vec![None; file.actions.len()],
    };
    let mut outputs = vec![Chain::default(); file.outputs()];
    let mut at = 0;
    while at < file.actions.len() {
        let end = at + run_length(&file.actions[at..], at, inputs.len());
        let is_last = end == file.actions.len();
        let chain = match run.layer(&file.actions[at..end], is_last).await {
            Ok(chain) => chain,
            Err(failed) => {
                let action = at + failed.offset;
                left.part = Some(FailedPart::Action(action));
                left.inputs = inputs.iter().cloned().map(Some).collect();
                run.results[action] = failed.partial;
                left.outputs = run
                    .results
                    .into_iter()
                    .map(|chain| chain.map(Value::Chain))
                    .collect();
                return Err(failed.error);
            }
        };
        for (offset, action) in file.actions[at..end].iter().enumerate() {
            if let Some(output) = action.output {
                let place = outputs.get_mut(output as usize);
                *place.ok_or(OpError::NoSuchOutput(output))? = chain.clone();
            }
            run.results[at + offset] = Some(chain.clone());
        }
        at = end;
    }
    Ok(outputs)
}

/// How many actions, from the first of `actions` (number `first` of its operation), can share a layer: each continues
/// the one before, whose result nobody else sees.
fn run_length(actions: &[FileAction], first: usize, inputs: usize) -> usize {
    let result = |at: usize| u32::try_from(inputs + first + at).ok();
    let continues = |at: usize| {
        let before = &actions[at - 1];
        let uses = |input: InputIndex| usize::from(input.is_some() && input == result(at - 1));
        let used: usize = actions
            .iter()
            .map(|action| {
                let database = action.kind.owner().and_then(ChownOpt::database);
                uses(action.input) + uses(action.secondary_input) + uses(database)
            })
            .sum();
        before.output.is_none() && used == 1 && uses(actions[at].input) == 1
    };
    1 + (1..actions.len()).take_while(|at| continues(*at)).count()
}

/// Actions that were to share a layer failed.
struct Failed {
    /// Why.
    error: OpError,
    /// Which of them.
    offset: usize,
    /// What was there by then.
    partial: Option<Chain>,
}

impl<E: Into<OpError>> From<E> for Box<Failed> {
    fn from(error: E) -> Self {
        Self::new(Failed {
            error: error.into(),
            offset: 0,
            partial: None,
        })
    }
}

struct Run<'a> {
    /// What is wanted of the last layer, if it is only exported.
    wanted: Option<Wanted>,
    job: &'a Job,
    file: &'a FileOp,
    inputs: &'a [Value],
    reporter: &'a Reporter,
    /// Of the actions that ran.
    results: Vec<Option<Chain>>,
}

impl Run<'_> {
    /// An input of the operation, or the result of an earlier action.
    fn value(&self, index: u32) -> Result<Value, OpError> {
        let missing = || OpError::NoSuchInput(Some(index));
        let index = index as usize;
        match index.checked_sub(self.inputs.len()) {
            None => Ok(self.inputs[index].clone()),
            Some(action) => {
                let result = self.results.get(action).cloned().flatten();
                Ok(Value::Chain(result.ok_or_else(missing)?))
            }
        }
    }

    /// An input, or an earlier result, to read from.
    async fn tree(&self, index: InputIndex) -> Result<Option<Arc<SourceTree>>, OpError> {
        match index {
            Some(index) => Ok(Some(tree(self.job, &self.value(index)?).await?)),
            None => Ok(None),
        }
    }

    /// Runs actions that share a layer, the last one of the operation if `is_last`.
    async fn layer(&self, actions: &[FileAction], is_last: bool) -> Result<Chain, Box<Failed>> {
        let job = self.job;
        let base = match actions.first().and_then(|action| action.input) {
            Some(index) => local::chain(job, &self.value(index)?).await?,
            None => Chain::default(),
        };
        let mut sources: Vec<Option<Arc<SourceTree>>> = Vec::with_capacity(actions.len());
        let mut databases: Vec<Option<Arc<SourceTree>>> = Vec::with_capacity(actions.len());
        for (offset, action) in actions.iter().enumerate() {
            sources.push(match (&action.kind, action.secondary_input) {
                // Of an empty image there is an empty root (`solver/llbsolver/file/backend.go`, `Copy`).
                (FileActionKind::Copy(_), None) => {
                    Some(tree(self.job, &Value::Chain(Chain::default())).await?)
                }
                (_, index) => self.tree(index).await?,
            });
            let owner = action.kind.owner();
            let database = owner.and_then(ChownOpt::database);
            if owner.is_some_and(ChownOpt::has_name) && database.is_none() && action.input.is_none() {
                return Err(Box::new(Failed {
                    error: OpError::NoAccounts,
                    offset,
                    partial: None,
                }));
            }
            let other = database.filter(|input| actions[0].input != Some(*input));
            databases.push(self.tree(other).await?);
        }
        let base = job.unpack_chain(&base).await?;
        let _permit = job.processors.acquire().await;
        let (engine, lease) = (Arc::clone(&job.engine), Arc::clone(&job.lease));
        let is_read = define::read_by_content(self.file, self.inputs.len());
        let (kinds, reporter) = (kinds(actions, is_read), self.reporter.clone());
        let keep = job.settings.keep_failed;
        let wanted = self.wanted.clone().filter(|_| is_last);
        let made = blocking(move || {
            let snapshot = |error: StackError| Box::<Failed>::from(error);
            if let Some(wanted) = wanted {
                let actions = kinds.iter().zip(&sources).zip(&databases);
                let actions = actions.map(|((kind, source), database)| (kind, source, database));
                let below = base.layers();
                if let Some(blob) = straight::pack(&engine.snapshotter, &lease, below, actions, &wanted) {
                    return Ok((base, Made::Blob(blob)));
                }
            }
            let workspace = engine.snapshotter.workspace(&lease, base.layers());
            let mut workspace = workspace.map_err(snapshot)?;
            let root = workspace.mount().map_err(snapshot)?;
            let devices = DevicePolicy::for_form(engine.form);
            let steps = kinds.iter().zip(&sources).zip(&databases);
            for (offset, ((kind, source), database)) in steps.enumerate() {
                // Names are looked up where the action says, else in the root that is changed.
                let users = match database.as_deref() {
                    None | Some(SourceTree::Context(_)) => &root,
                    Some(SourceTree::Snapshot(other)) => other,
                };
                let Err(error) = apply(kind, &root, source.as_deref(), users, devices, &reporter) else {
                    continue;
                };
                drop(root);
                let partial = keep.then(|| workspace.commit().ok()).flatten();
                return Err(Box::new(Failed {
                    error,
                    offset,
                    partial: partial.map(|layer| base.with(layer.id)),
                }));
            }
            drop(root);
            let layer = workspace.commit().map_err(snapshot)?;
            Ok::<_, Box<Failed>>((base, Made::Layer(layer.id)))
        });
        let (base, made) = made.await?;
        let id = match made {
            Made::Layer(id) => id,
            Made::Blob(blob) => straight::note(job, &blob, base.layers()),
        };
        Ok(base.with(id))
    }
}

/// What actions made.
enum Made {
    /// A layer directory.
    Layer(LayerId),
    /// The blob of one.
    Blob(BlobInfo),
}

/// What actions do, where `is_read` says whose content is in the key. BuildKit looks for required paths where it reads that,
/// and so in nothing else.
fn kinds(actions: &[FileAction], is_read: impl Fn(usize) -> bool) -> Vec<FileActionKind> {
    let kind = |action: &FileAction| {
        let mut kind = action.kind.clone();
        if let FileActionKind::Copy(copy) = &mut kind
            && !action
                .secondary_input
                .is_some_and(|input| is_read(input as usize))
        {
            copy.required_paths.clear();
        }
        kind
    };
    actions.iter().map(kind).collect()
}

fn apply(
    kind: &FileActionKind,
    root: &RootFd,
    source: Option<&SourceTree>,
    users: &RootFd,
    devices: DevicePolicy,
    reporter: &Reporter,
) -> Result<(), OpError> {
    let (kind, unknown) = with_known_owner(kind, users);
    if let Some(unknown) = unknown {
        reporter.warn(unknown, Vec::new(), String::new(), None);
    }
    let done = rbuild_fileops::apply(&kind, root, source, users, devices);
    done.map(drop).map_err(|error| match &error {
        ActionError::Copy(copy) => match copy.missing() {
            Some(missing) => OpError::NoSource(Box::new(missing.clone())),
            None => error.into(),
        },
        _ => error.into(),
    })
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

/// The owner that a copy gives; `None` if it cannot be given, or is one to warn of.
#[expect(clippy::option_option, reason = "whether there is one, and who it is")]
pub(crate) fn known_owner(kind: &FileActionKind, users: &RootFd) -> Option<Option<Owner>> {
    let owner = kind.owner().map(|owner| resolve_owner(owner, users));
    owner.transpose().ok()
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

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_graph::MkDirAction;

    /// Actions by input, secondary input and output.
    fn actions(shapes: &[(InputIndex, InputIndex, Option<u32>)]) -> Vec<FileAction> {
        let kind = FileActionKind::MkDir(MkDirAction {
            path: "/x".into(),
            mode: 0o755,
            make_parents: true,
            owner: None,
            time: None,
        });
        let action = |shape: &(InputIndex, InputIndex, Option<u32>)| FileAction {
            input: shape.0,
            secondary_input: shape.1,
            output: shape.2,
            kind: kind.clone(),
        };
        shapes.iter().map(action).collect()
    }

    /// Lengths of the layers that actions on `inputs` inputs make.
    fn layers(actions: &[FileAction], inputs: usize) -> Vec<usize> {
        let (mut at, mut lengths) = (0, Vec::new());
        while at < actions.len() {
            lengths.push(run_length(&actions[at..], at, inputs));
            at += lengths[lengths.len() - 1];
        }
        lengths
    }

    #[test]
    fn actions_that_continue_each_other_share_a_layer() {
        let chain = actions(&[
            (Some(0), None, None),
            (Some(2), None, None),
            (Some(3), None, Some(0)),
        ]);
        assert_eq!(layers(&chain, 2), [3]);
    }

    #[test]
    fn a_result_that_is_seen_from_outside_ends_its_layer() {
        let kept = actions(&[(None, None, Some(0)), (Some(0), None, Some(1))]);
        assert_eq!(layers(&kept, 0), [1, 1], "an output");
        let twice = actions(&[
            (None, None, None),
            (Some(0), None, None),
            (Some(0), None, Some(0)),
        ]);
        assert_eq!(layers(&twice, 0), [1, 1, 1], "continued twice");
        let read = actions(&[(None, None, None), (None, Some(0), Some(0))]);
        assert_eq!(layers(&read, 0), [1, 1], "copied from");
        let both = actions(&[(None, None, None), (Some(0), Some(0), Some(0))]);
        assert_eq!(layers(&both, 0), [1, 1], "continued and copied from");
    }
}
