//! Operations that change files.

use std::collections::BTreeSet;

use bollard_buildkit_proto::pb;
use pb::file_action::Action;
use pb::user_opt::User;
use rbuild_graph::{
    ChownOpt, CopyAction, FileAction, FileActionKind, FileOp, FileTime, MkDirAction, MkFileAction,
    OutputIndex, RmAction, SymlinkAction, UserOpt,
};

use super::OpError;
use super::convert::index;

pub(super) fn file(file: &pb::FileOp, inputs: usize) -> Result<FileOp, OpError> {
    if file.actions.is_empty() {
        return Err(OpError::FileActions);
    }
    let numbered = inputs + file.actions.len();
    let mut outputs = BTreeSet::new();
    let mut actions = Vec::with_capacity(file.actions.len());
    for one in &file.actions {
        let output = output(one.output, file.actions.len(), &mut outputs)?;
        actions.push(FileAction {
            input: index("file action", one.input, numbered)?,
            secondary_input: index("secondary file action", one.secondary_input, numbered)?,
            output,
            kind: kind(one.action.as_ref().ok_or(OpError::FileAction)?, numbered)?,
        });
    }
    if outputs.is_empty() {
        return Err(OpError::FileNoOutput);
    }
    if let Some((index, _)) = outputs.iter().enumerate().find(|(at, output)| at != *output) {
        return Err(OpError::FileOutputMissing { index });
    }
    no_loop(&actions, inputs)?;
    Ok(FileOp { actions })
}

/// `outputs` are those seen so far; there cannot be more than actions.
fn output(output: i64, actions: usize, outputs: &mut BTreeSet<usize>) -> Result<OutputIndex, OpError> {
    if output == -1 {
        return Ok(None);
    }
    let index = u32::try_from(output)
        .ok()
        .filter(|index| (*index as usize) < actions);
    let index = index.ok_or(OpError::FileOutputMissing { index: outputs.len() })?;
    if !outputs.insert(index as usize) {
        return Err(OpError::FileOutputTwice { index: output });
    }
    Ok(Some(index))
}

/// Actions may work on the results of later ones, but not on their own.
fn no_loop(actions: &[FileAction], inputs: usize) -> Result<(), OpError> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        Not,
        Begun,
        Done,
    }
    let mut seen = vec![Seen::Not; actions.len()];
    let mut stack: Vec<(usize, bool)> = Vec::new();
    for start in 0..actions.len() {
        stack.push((start, false));
        while let Some((at, below_done)) = stack.pop() {
            if below_done {
                seen[at] = Seen::Done;
                continue;
            }
            if seen[at] != Seen::Not {
                continue;
            }
            seen[at] = Seen::Begun;
            stack.push((at, true));
            for below in below(&actions[at], inputs) {
                match seen[below] {
                    Seen::Begun => {
                        return Err(OpError::FileLoop {
                            index: inputs + below,
                        });
                    }
                    Seen::Not => stack.push((below, false)),
                    Seen::Done => {}
                }
            }
        }
    }
    Ok(())
}

/// The actions whose results `action` needs.
fn below(action: &FileAction, inputs: usize) -> impl Iterator<Item = usize> {
    let users = action.kind.owner().into_iter().flat_map(|owner| {
        [&owner.user, &owner.group].map(|half| match half {
            Some(UserOpt::Name { input, .. }) => *input,
            _ => None,
        })
    });
    [action.input, action.secondary_input]
        .into_iter()
        .chain(users)
        .flatten()
        .filter_map(move |input| (input as usize).checked_sub(inputs))
}

fn kind(action: &Action, numbered: usize) -> Result<FileActionKind, OpError> {
    let owner = |owner: &Option<pb::ChownOpt>| owner.as_ref().map(|owner| chown(owner, numbered)).transpose();
    Ok(match action {
        Action::Copy(copy) => FileActionKind::Copy(CopyAction {
            src: copy.src.clone(),
            dest: copy.dest.clone(),
            owner: owner(&copy.owner)?,
            // BuildKit looks at the number only if there is no text, and its client writes 0 then.
            mode: (copy.mode != -1 && copy.mode_str.is_empty()).then(|| copy.mode.cast_unsigned()),
            mode_str: Some(copy.mode_str.clone()).filter(|mode| !mode.is_empty()),
            follow_symlink: copy.follow_symlink,
            dir_copy_contents: copy.dir_copy_contents,
            attempt_unpack: copy.attempt_unpack_docker_compatibility,
            create_dest_path: copy.create_dest_path,
            allow_wildcard: copy.allow_wildcard,
            allow_empty_wildcard: copy.allow_empty_wildcard,
            include_patterns: copy.include_patterns.clone(),
            exclude_patterns: copy.exclude_patterns.clone(),
            always_replace_existing: copy.always_replace_existing_dest_paths,
            required_paths: copy.required_paths.clone(),
            time: time(copy.timestamp),
        }),
        Action::Mkfile(file) => FileActionKind::MkFile(MkFileAction {
            path: file.path.clone(),
            mode: file.mode.cast_unsigned(),
            data: file.data.clone(),
            owner: owner(&file.owner)?,
            time: time(file.timestamp),
        }),
        Action::Mkdir(dir) => FileActionKind::MkDir(MkDirAction {
            path: dir.path.clone(),
            mode: dir.mode.cast_unsigned(),
            make_parents: dir.make_parents,
            owner: owner(&dir.owner)?,
            time: time(dir.timestamp),
        }),
        Action::Rm(rm) => FileActionKind::Rm(RmAction {
            path: rm.path.clone(),
            allow_not_found: rm.allow_not_found,
            allow_wildcard: rm.allow_wildcard,
        }),
        Action::Symlink(link) => FileActionKind::Symlink(SymlinkAction {
            target: link.oldpath.clone(),
            path: link.newpath.clone(),
            owner: owner(&link.owner)?,
            time: time(link.timestamp),
        }),
    })
}

fn chown(owner: &pb::ChownOpt, numbered: usize) -> Result<ChownOpt, OpError> {
    // A half without a name or number is one that was not given.
    let half = |half: &Option<pb::UserOpt>| match half.as_ref().and_then(|half| half.user.as_ref()) {
        None => Ok(None),
        Some(User::ById(id)) => Ok(Some(UserOpt::Id(*id))),
        Some(User::ByName(named)) => {
            let input = index("user", named.input, numbered)
                .map_err(|_| OpError::UserIndex { index: named.input })?;
            Ok(Some(UserOpt::Name {
                name: named.name.clone(),
                input,
            }))
        }
    };
    Ok(ChownOpt {
        user: half(&owner.user)?,
        group: half(&owner.group)?,
    })
}

/// Nanoseconds since 1970; -1 is "not set".
fn time(nanoseconds: i64) -> Option<FileTime> {
    const SECOND: i64 = 1_000_000_000;
    (nanoseconds != -1).then(|| FileTime {
        seconds: nanoseconds.div_euclid(SECOND),
        nanoseconds: u32::try_from(nanoseconds.rem_euclid(SECOND)).unwrap_or_default(),
    })
}
