//! Operations that change files.

use bollard_buildkit_proto::pb;
use pb::file_action::Action;
use pb::user_opt::User;
use rbuild_graph::{ChownOpt, CopyAction, FileAction, FileActionKind, FileOp, FileTime, UserOpt};

use super::{NoRoom, index};

pub(super) fn file(file: &FileOp) -> Result<pb::FileOp, NoRoom> {
    let action = |action: &FileAction| {
        Ok(pb::FileAction {
            input: index(action.input),
            secondary_input: index(action.secondary_input),
            output: index(action.output),
            action: Some(kind(&action.kind)?),
        })
    };
    Ok(pb::FileOp {
        actions: file.actions.iter().map(action).collect::<Result<_, _>>()?,
    })
}

fn kind(kind: &FileActionKind) -> Result<Action, NoRoom> {
    Ok(match kind {
        FileActionKind::Copy(action) => Action::Copy(copy(action)?),
        FileActionKind::MkFile(file) => Action::Mkfile(pb::FileActionMkFile {
            path: file.path.clone(),
            mode: file.mode.cast_signed(),
            data: file.data.clone(),
            owner: file.owner.as_ref().map(chown),
            timestamp: time(file.time)?,
        }),
        FileActionKind::MkDir(dir) => Action::Mkdir(pb::FileActionMkDir {
            path: dir.path.clone(),
            mode: dir.mode.cast_signed(),
            make_parents: dir.make_parents,
            owner: dir.owner.as_ref().map(chown),
            timestamp: time(dir.time)?,
        }),
        FileActionKind::Rm(rm) => Action::Rm(pb::FileActionRm {
            path: rm.path.clone(),
            allow_not_found: rm.allow_not_found,
            allow_wildcard: rm.allow_wildcard,
        }),
        FileActionKind::Symlink(link) => Action::Symlink(pb::FileActionSymlink {
            oldpath: link.target.clone(),
            newpath: link.path.clone(),
            owner: link.owner.as_ref().map(chown),
            timestamp: time(link.time)?,
        }),
    })
}

fn copy(copy: &CopyAction) -> Result<pb::FileActionCopy, NoRoom> {
    let mode = match copy.mode {
        _ if copy.mode_str.is_some() => 0,
        None => -1,
        Some(u32::MAX) => return Err(NoRoom::Mode),
        Some(mode) => mode.cast_signed(),
    };
    Ok(pb::FileActionCopy {
        src: copy.src.clone(),
        dest: copy.dest.clone(),
        owner: copy.owner.as_ref().map(chown),
        mode,
        follow_symlink: copy.follow_symlink,
        dir_copy_contents: copy.dir_copy_contents,
        attempt_unpack_docker_compatibility: copy.attempt_unpack,
        create_dest_path: copy.create_dest_path,
        allow_wildcard: copy.allow_wildcard,
        allow_empty_wildcard: copy.allow_empty_wildcard,
        timestamp: time(copy.time)?,
        include_patterns: copy.include_patterns.clone(),
        exclude_patterns: copy.exclude_patterns.clone(),
        always_replace_existing_dest_paths: copy.always_replace_existing,
        mode_str: copy.mode_str.clone().unwrap_or_default(),
        required_paths: copy.required_paths.clone(),
    })
}

fn chown(owner: &ChownOpt) -> pb::ChownOpt {
    let half = |half: &Option<UserOpt>| {
        half.as_ref().map(|half| pb::UserOpt {
            user: Some(match half {
                UserOpt::Id(id) => User::ById(*id),
                UserOpt::Name { name, input } => User::ByName(pb::NamedUserOpt {
                    name: name.clone(),
                    input: index(*input),
                }),
            }),
        })
    };
    pb::ChownOpt {
        user: half(&owner.user),
        group: half(&owner.group),
    }
}

fn time(time: Option<FileTime>) -> Result<i64, NoRoom> {
    let Some(time) = time else {
        return Ok(-1);
    };
    // In 128 bits, since the first second of LLB's range begins before it.
    let nanoseconds = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    i64::try_from(nanoseconds)
        .ok()
        .filter(|nanoseconds| *nanoseconds != -1 && time.nanoseconds < 1_000_000_000)
        .ok_or(NoRoom::Time)
}
