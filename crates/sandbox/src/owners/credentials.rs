//! Users and groups as a step believes to have them, and what `set*id(2)` makes of them (credentials(7)). Pure.

use std::collections::HashMap;

use rbuild_sys::owner::OwnerIds;

/// "Leave as it is", in every call that sets ids.
const KEEP: u32 = u32::MAX;
/// Most different credentials of one step; what comes after is refused as if memory had run out.
const SETS_MAX: usize = 4096;
/// Most supplementary groups that all of them have together.
const GROUPS_MAX: usize = 1 << 18;

/// The four of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Four {
    pub(super) real: u32,
    pub(super) effective: u32,
    pub(super) saved: u32,
    pub(super) files: u32,
}

/// One process's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Credentials {
    pub(super) user: Four,
    pub(super) group: Four,
    pub(super) groups: Vec<u32>,
}

/// Not permitted, or no such id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Permission,
    Invalid,
}

impl Four {
    pub(super) const fn all(id: u32) -> Self {
        Self {
            real: id,
            effective: id,
            saved: id,
            files: id,
        }
    }

    const fn has(&self, id: u32) -> bool {
        id == self.real || id == self.effective || id == self.saved
    }

    /// `setuid(2)`, `setgid(2)`.
    pub(super) fn set(&mut self, id: u32, privileged: bool) -> Result<(), Refused> {
        if id == KEEP {
            return Err(Refused::Invalid);
        }
        if privileged {
            *self = Self::all(id);
        } else if id == self.real || id == self.saved {
            (self.effective, self.files) = (id, id);
        } else {
            return Err(Refused::Permission);
        }
        Ok(())
    }

    /// `setreuid(2)`, `setregid(2)`.
    pub(super) fn set_two(&mut self, real: u32, effective: u32, privileged: bool) -> Result<(), Refused> {
        let may = privileged
            || (real == KEEP || real == self.real || real == self.effective)
                && (effective == KEEP || self.has(effective));
        if !may {
            return Err(Refused::Permission);
        }
        let before = self.real;
        if real != KEEP {
            self.real = real;
        }
        if effective != KEEP {
            self.effective = effective;
        }
        if real != KEEP || effective != KEEP && effective != before {
            self.saved = self.effective;
        }
        self.files = self.effective;
        Ok(())
    }

    /// `setresuid(2)`, `setresgid(2)`.
    pub(super) fn set_three(&mut self, ids: [u32; 3], privileged: bool) -> Result<(), Refused> {
        if !privileged && !ids.iter().all(|id| *id == KEEP || self.has(*id)) {
            return Err(Refused::Permission);
        }
        let [real, effective, saved] = ids;
        for (field, id) in [
            (&mut self.real, real),
            (&mut self.effective, effective),
            (&mut self.saved, saved),
        ] {
            if id != KEEP {
                *field = id;
            }
        }
        self.files = self.effective;
        Ok(())
    }

    /// `setfsuid(2)`, `setfsgid(2)`: gives the old one, and no error.
    pub(super) fn set_files(&mut self, id: u32, privileged: bool) -> u32 {
        let before = self.files;
        if id != KEEP && (privileged || self.has(id) || id == before) {
            self.files = id;
        }
        before
    }

    /// A program was started, with this id if it is a set-id program.
    pub(super) fn execute(&mut self, id: Option<u32>) {
        if let Some(id) = id {
            self.effective = id;
        }
        (self.saved, self.files) = (self.effective, self.effective);
    }
}

impl Credentials {
    /// Of a process that is started as this user.
    pub(crate) fn of(uid: u32, gid: u32, groups: &[u32]) -> Self {
        Self {
            user: Four::all(uid),
            group: Four::all(gid),
            groups: groups.to_vec(),
        }
    }

    /// Has the rights of root over ids.
    pub(super) const fn privileged(&self) -> bool {
        self.user.effective == 0
    }

    /// Whose new files are.
    pub(super) const fn owner(&self) -> OwnerIds {
        OwnerIds {
            uid: self.user.files,
            gid: self.group.files,
        }
    }

    /// Whether a file of `old` may be given to `new`.
    pub(super) fn may_give(&self, old: OwnerIds, new: OwnerIds) -> bool {
        self.user.files == 0
            || new.uid == old.uid
                && old.uid == self.user.files
                && (new.gid == old.gid || new.gid == self.group.files || self.groups.contains(&new.gid))
    }
}

/// Credentials by number. Number 0 is what the step started with.
#[derive(Debug)]
pub(super) struct Table {
    by_number: Vec<Credentials>,
    numbers: HashMap<Credentials, u64>,
    groups: usize,
}

impl Table {
    pub(super) fn new(first: Credentials) -> Self {
        let mut table = Self {
            by_number: Vec::new(),
            numbers: HashMap::new(),
            groups: 0,
        };
        // The first one always has room.
        table.number(first);
        table
    }

    /// What a process with this mark has. A mark that was never given is that of a process that came from elsewhere.
    pub(super) fn get(&self, mark: u64) -> &Credentials {
        let known = usize::try_from(mark)
            .ok()
            .and_then(|mark| self.by_number.get(mark));
        known.unwrap_or(&self.by_number[0])
    }

    /// The number of these. Nothing if there is no room for more.
    pub(super) fn number(&mut self, credentials: Credentials) -> Option<u64> {
        if let Some(known) = self.numbers.get(&credentials) {
            return Some(*known);
        }
        let groups = self.groups + credentials.groups.len();
        if self.by_number.len() >= SETS_MAX || groups > GROUPS_MAX {
            return None;
        }
        self.groups = groups;
        let number = self.by_number.len() as u64;
        self.by_number.push(credentials.clone());
        self.numbers.insert(credentials, number);
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_that_became_somebody_does_not_come_back() {
        let mut user = Four::all(0);
        user.set(1000, true).unwrap();
        assert_eq!(user, Four::all(1000));
        assert_eq!(user.set(0, false), Err(Refused::Permission));
        assert_eq!(user.set_three([KEEP, 0, KEEP], false), Err(Refused::Permission));
        assert_eq!(user.set_two(0, KEEP, false), Err(Refused::Permission));
        assert_eq!(user.set_files(0, false), 1000, "no error, and no change");
        assert_eq!(user, Four::all(1000));
    }

    #[test]
    fn who_kept_the_saved_id_comes_back() {
        let mut user = Four::all(0);
        user.set_three([1000, 1000, 0], true).unwrap();
        assert_eq!(user.files, 1000, "the id for files follows the effective one");
        user.set(0, false).unwrap();
        assert_eq!((user.real, user.effective, user.files), (1000, 0, 0));
        let mut two = Four::all(0);
        two.set_two(KEEP, 7, true).unwrap();
        assert_eq!(
            (two.real, two.saved),
            (0, 7),
            "saved follows what differs from the real one"
        );
    }

    #[test]
    fn set_id_programs_give_their_owner_and_save_it() {
        let mut user = Four::all(1000);
        user.execute(Some(0));
        assert_eq!(
            (user.real, user.effective, user.saved, user.files),
            (1000, 0, 0, 0)
        );
    }

    #[test]
    fn only_root_gives_files_away_and_owners_choose_among_their_groups() {
        let own = OwnerIds { uid: 7, gid: 7 };
        let app = Credentials::of(7, 7, &[20]);
        assert!(app.may_give(own, OwnerIds { uid: 7, gid: 20 }));
        assert!(!app.may_give(own, OwnerIds { uid: 7, gid: 21 }));
        assert!(!app.may_give(own, OwnerIds { uid: 0, gid: 7 }));
        assert!(!app.may_give(OwnerIds::default(), own));
        assert!(Credentials::of(0, 0, &[]).may_give(own, OwnerIds { uid: 1, gid: 2 }));
    }

    #[test]
    fn a_table_ends() {
        let mut table = Table::new(Credentials::of(0, 0, &[]));
        let many = vec![1; GROUPS_MAX];
        assert!(table.number(Credentials::of(1, 1, &many)).is_some());
        assert_eq!(table.number(Credentials::of(2, 2, &many)), None);
        let numbers: Vec<_> = (0..SETS_MAX as u32 + 10)
            .filter_map(|id| table.number(Credentials::of(id, 0, &[])))
            .collect();
        assert!(numbers.len() <= SETS_MAX);
        assert_eq!(table.number(Credentials::of(0, 0, &[])), Some(0));
        assert_eq!(table.get(u64::MAX), &Credentials::of(0, 0, &[]));
    }
}
