//! High stacks. What it costs to mount a stack, and to look a name up in it, grows with what is stacked, and the kernel stacks
//! no more than 500: layers next to each other become one directory of links, which is stacked in their place and shows and hides
//! what they do. Lower than any image of docker's (127 layers) nothing is folded.
//!
//! Groups are counted from the bottom, so a stack that grows by a layer finds those of before: each is made once for a lease.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rbuild_store::{LayerId, Lease};
use rbuild_sys::RootFd;
use rbuild_sys::overlay::LOWERS_MAX;

use crate::Snapshotter;
use crate::dir::open_root;
use crate::stack::StackError;

/// Directories that are stacked, at most: what a step puts above them has room.
const STACKED_MAX: usize = LOWERS_MAX - 20;
/// Layers of a group. As many on top of a stack stay by themselves.
const GROUP: usize = 64;
/// Of a stack that the kernel takes, groups with more entries than this are left as they are: making them would take longer
/// than what is saved.
const ENTRIES_MAX: u64 = 4096;
/// Groups that are remembered; others are made once more.
const GROUPS_MAX: usize = 256;

/// Groups by their lease and layers: a lease's directory goes with it, and its groups too.
#[derive(Debug, Default)]
pub(crate) struct Folds(Mutex<HashMap<(PathBuf, Vec<LayerId>), Group>>);

#[derive(Debug, Clone, Default)]
struct Group {
    /// Of all its layers.
    entries: u64,
    /// Made of them, if it was.
    dir: Option<PathBuf>,
}

impl Snapshotter {
    /// The directories to stack for layers that are bottom first; bottom first too.
    pub(crate) fn folded(
        &self,
        lease: &Lease,
        mut low: Vec<(&LayerId, PathBuf)>,
    ) -> Result<Vec<PathBuf>, StackError> {
        let high = low.split_off(low.len().saturating_sub(GROUP) / GROUP * GROUP);
        let mut groups = Vec::with_capacity(low.len() / GROUP);
        for layers in low.chunks(GROUP) {
            groups.push(self.group(lease, layers)?);
        }
        let entries: Vec<u64> = groups.iter().map(|group| group.entries).collect();
        let mut stacked = Vec::new();
        let chosen = chosen(&entries, high.len());
        for ((layers, group), is_folded) in low.chunks(GROUP).zip(groups).zip(chosen) {
            match group.dir {
                Some(dir) if is_folded => stacked.push(dir),
                None if is_folded => stacked.push(self.fold(lease, layers, group)?),
                _ => stacked.extend(dirs(layers).map(Path::to_owned)),
            }
        }
        stacked.extend(high.into_iter().map(|(_, dir)| dir));
        Ok(stacked)
    }

    /// What is known of a group.
    fn group(&self, lease: &Lease, layers: &[(&LayerId, PathBuf)]) -> Result<Group, StackError> {
        let key = key(lease, layers);
        let known = self.folds.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = known.get(&key).filter(|group| group.is_there()) {
            return Ok(group.clone());
        }
        drop(known);
        let mut group = Group::default();
        for (id, _) in layers {
            let facts = self.store().layer_facts(self.form_name(), id);
            let facts = facts.map_err(rbuild_store::StoreError::from)?;
            group.entries += facts.map_or(ENTRIES_MAX, |facts| facts.entries);
        }
        self.folds.note(key, group.clone());
        Ok(group)
    }

    fn fold(
        &self,
        lease: &Lease,
        layers: &[(&LayerId, PathBuf)],
        group: Group,
    ) -> Result<PathBuf, StackError> {
        let made = lease.new_dir("folded")?;
        let opened: Vec<RootFd> = dirs(layers).map(open_root).collect::<Result<_, _>>()?;
        rbuild_layer::fold_layers(&opened, self.form(), &open_root(&made)?).map_err(|source| {
            StackError::Merge {
                path: made.clone(),
                source: Box::new(source),
            }
        })?;
        let dir = Some(made.clone());
        self.folds.note(key(lease, layers), Group { dir, ..group });
        Ok(made)
    }
}

impl Folds {
    fn note(&self, key: (PathBuf, Vec<LayerId>), group: Group) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= GROUPS_MAX {
            known.clear();
        }
        known.insert(key, group);
    }
}

impl Group {
    fn is_there(&self) -> bool {
        self.dir.as_ref().is_none_or(|dir| dir.is_dir())
    }
}

/// Which groups are folded, of those with so many entries each below so many layers: those that are soon made, and of a stack
/// that is too high for the kernel then the lowest of the others.
fn chosen(entries: &[u64], above: usize) -> Vec<bool> {
    let mut chosen: Vec<bool> = entries.iter().map(|entries| *entries <= ENTRIES_MAX).collect();
    let stacked = |chosen: &[bool]| {
        let dirs = |is_folded: &bool| if *is_folded { 1 } else { GROUP };
        chosen.iter().map(dirs).sum::<usize>() + above
    };
    for at in 0..chosen.len() {
        if stacked(&chosen) <= STACKED_MAX {
            break;
        }
        chosen[at] = true;
    }
    chosen
}

fn key(lease: &Lease, layers: &[(&LayerId, PathBuf)]) -> (PathBuf, Vec<LayerId>) {
    let ids = layers.iter().map(|(id, _)| LayerId::clone(id));
    (lease.dir().to_owned(), ids.collect())
}

fn dirs<'l>(layers: &'l [(&LayerId, PathBuf)]) -> impl Iterator<Item = &'l Path> {
    layers.iter().map(|(_, dir)| dir.as_path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_are_soon_made_are_folded_and_others_if_the_kernel_asks_for_it() {
        let few = 64;
        let many = ENTRIES_MAX + 1;
        assert_eq!(chosen(&[], 127), Vec::<bool>::new());
        assert_eq!(chosen(&[few, many, few], 127), [true, false, true]);
        // 5 * 64 + 127 = 447; one more group is 511.
        assert_eq!(chosen(&[many; 5], 127), [false; 5]);
        assert_eq!(chosen(&[many; 6], 127), [true, false, false, false, false, false]);
        assert_eq!(
            chosen(&[few, many, many, many, many, many, many], 127)[..3],
            [true, true, false]
        );
        // 96 + 4 * 64 + 127 = 479.
        let folded = chosen(&[many; 100], 127);
        assert_eq!(folded.iter().filter(|is_folded| **is_folded).count(), 96);
        assert_eq!(folded[95..97], [true, false]);
    }
}
