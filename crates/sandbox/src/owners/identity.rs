//! Answers about a caller's own credentials.

use rbuild_sys::seccomp::notify::Answer;
use rustix::io::Errno;

use super::caller::Caller;
use super::calls::Identity;
use super::credentials::{Credentials, Four, Refused};

/// Most supplementary groups of a process (`NGROUPS_MAX`).
const GROUPS_MAX: u32 = 65_536;

pub(super) fn answer(caller: &mut Caller<'_>, call: Identity) -> Result<Answer, Errno> {
    let now = caller.credentials()?;
    let value = |id: u32| Ok(Answer::Value(id.into()));
    match call {
        Identity::GetUid => value(now.user.real),
        Identity::GetEuid => value(now.user.effective),
        Identity::GetGid => value(now.group.real),
        Identity::GetEgid => value(now.group.effective),
        Identity::GetResUid => three(caller, now.user),
        Identity::GetResGid => three(caller, now.group),
        Identity::GetGroups => groups(caller, &now),
        _ => set(caller, call, now),
    }
}

fn three(caller: &mut Caller<'_>, ids: Four) -> Result<Answer, Errno> {
    for (index, id) in [ids.real, ids.effective, ids.saved].into_iter().enumerate() {
        caller.write(caller.wide(index), &id.to_ne_bytes())?;
    }
    Ok(Answer::Value(0))
}

fn groups(caller: &mut Caller<'_>, now: &Credentials) -> Result<Answer, Errno> {
    let count = u32::try_from(now.groups.len()).unwrap_or(GROUPS_MAX);
    let room = caller.word(0);
    if room != 0 {
        if room < count || room > i32::MAX.cast_unsigned() {
            return Err(Errno::INVAL);
        }
        let bytes: Vec<u8> = now.groups.iter().flat_map(|id| id.to_ne_bytes()).collect();
        caller.write(caller.wide(1), &bytes)?;
    }
    Ok(Answer::Value(count.into()))
}

fn set(caller: &Caller<'_>, call: Identity, mut now: Credentials) -> Result<Answer, Errno> {
    let root = now.privileged();
    let ids = [caller.word(0), caller.word(1), caller.word(2)];
    let mut value = 0;
    let done = match call {
        Identity::SetUid => now.user.set(ids[0], root),
        Identity::SetGid => now.group.set(ids[0], root),
        Identity::SetReUid => now.user.set_two(ids[0], ids[1], root),
        Identity::SetReGid => now.group.set_two(ids[0], ids[1], root),
        Identity::SetResUid => now.user.set_three(ids, root),
        Identity::SetResGid => now.group.set_three(ids, root),
        Identity::SetFsUid => {
            value = now.user.set_files(ids[0], root);
            Ok(())
        }
        Identity::SetFsGid => {
            value = now.group.set_files(ids[0], root);
            Ok(())
        }
        Identity::SetGroups if !root => Err(Refused::Permission),
        Identity::SetGroups => {
            now.groups = read_groups(caller)?;
            Ok(())
        }
        _ => Err(Refused::Invalid),
    };
    match done {
        Ok(()) => {
            caller.become_other(now)?;
            Ok(Answer::Value(value.into()))
        }
        Err(Refused::Permission) => Err(Errno::PERM),
        Err(Refused::Invalid) => Err(Errno::INVAL),
    }
}

fn read_groups(caller: &Caller<'_>) -> Result<Vec<u32>, Errno> {
    let count = caller.word(0);
    if count > GROUPS_MAX {
        return Err(Errno::INVAL);
    }
    let mut bytes = vec![0; 4 * count as usize];
    if !bytes.is_empty() {
        caller.read(caller.wide(1), &mut bytes)?;
    }
    // The kernel sorts them, and shows them sorted.
    let mut groups: Vec<u32> = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|id| u32::from_ne_bytes(*id))
        .collect();
    groups.sort_unstable();
    if groups.contains(&u32::MAX) {
        return Err(Errno::INVAL);
    }
    Ok(groups)
}
