//! The control groups of a step: in the unified hierarchy (version 2) where it has the controllers, in the old ones
//! (version 1) where these have. Both at once on a machine with both.
//!
//! What cannot be had is said, and the step runs without, unless the plan is strict.

mod affinity;
mod group;
mod hierarchy;
mod place;
mod values;

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use crate::plan::Limits;
use crate::running::Usage;
use crate::wire::{During as _, SetupError};
use group::Group;
use hierarchy::Hierarchy;
use values::{Controller, Setting, Version};

/// The step's groups; removed when dropped, which works once the step is gone.
#[derive(Debug, Default)]
pub(crate) struct Cgroups {
    unified: Option<Group>,
    old: Vec<(Hierarchy, Group)>,
    memory_limit_bytes: Option<u64>,
    /// What could not be had, for the user to read.
    pub(crate) warnings: Vec<String>,
    /// Processors that the step begins on without being held there.
    affinity: Option<String>,
    strict: bool,
}

/// What cannot be had.
#[derive(Debug)]
struct Problem {
    text: String,
    /// What is done instead.
    instead: &'static str,
}

const WITHOUT: &str = "the step runs without it (docs/limits.md says what a limit needs)";
const AFFINITY: &str = "the step begins on these processors, and nothing holds it there (docs/limits.md)";

impl Cgroups {
    /// Makes groups below `parent`, which is made if missing, or where rbuild itself is; none if nothing asks for one.
    ///
    /// # Errors
    /// What cannot be had, of strict limits.
    pub(crate) fn create(parent: Option<&Path>, limits: &Limits) -> Result<Self, SetupError> {
        let mut made = Self::default();
        if parent.is_none() && limits.is_empty() {
            return Ok(made);
        }
        let trees = hierarchy::read();
        let wanted: Vec<Controller> = Controller::ALL
            .into_iter()
            .filter(|wanted| {
                let settings = values::settings(limits, Version::V2);
                settings.iter().any(|setting| setting.controller == *wanted)
            })
            .collect();
        let mut problems = Vec::new();
        let refused = made.make(&trees, parent, &wanted, &mut problems);
        made.set(limits, &trees, &refused, &mut problems);
        if limits.strict
            && let Some(problem) = problems.first()
        {
            return Err(strictly(&problem.text));
        }
        let warnings = problems.into_iter();
        made.warnings = warnings
            .map(|problem| format!("{}; {}", problem.text, problem.instead))
            .collect();
        made.strict = limits.strict;
        Ok(made)
    }

    fn make(
        &mut self,
        trees: &[Hierarchy],
        parent: Option<&Path>,
        wanted: &[Controller],
        problems: &mut Vec<Problem>,
    ) -> Vec<Refused> {
        let mut refused = Vec::new();
        for tree in trees {
            let wanted: Vec<Controller> = match tree.version {
                Version::V2 => wanted.iter().copied().filter(|one| offers(tree, *one)).collect(),
                Version::V1 => wanted.iter().copied().filter(|one| tree.has(*one)).collect(),
            };
            let made = match parent {
                // Whatever limits the parent has hold, also those of controllers that no limit here is of.
                Some(parent) if tree.version == Version::V2 || tree.is_controlled() => {
                    place::below_named(tree, parent, &wanted)
                }
                None if !wanted.is_empty() || (accounts(tree) && !trees.iter().any(is_v2_with_memory)) => {
                    place::below_own(tree, &wanted)
                }
                _ => continue,
            };
            match made {
                Ok(group) if tree.version == Version::V2 => self.unified = Some(group),
                Ok(group) => self.old.push((tree.clone(), group)),
                Err(error) if accounts(tree) => drop(error),
                Err(error) => refused.push((tree.mount.clone(), error)),
            }
        }
        if let Some(parent) = parent
            && self.unified.is_none()
            && self.old.is_empty()
        {
            let reason = refused.first().map_or_else(
                || "this machine has no control groups".to_owned(),
                |(mount, error)| format!("{}: {error}", mount.display()),
            );
            problems.push(Problem {
                text: format!("no cgroup could be made below {}: {reason}", parent.display()),
                instead: WITHOUT,
            });
        }
        refused
    }

    fn set(
        &mut self,
        limits: &Limits,
        trees: &[Hierarchy],
        refused: &[Refused],
        problems: &mut Vec<Problem>,
    ) {
        let (old, new) = (
            values::settings(limits, Version::V1),
            values::settings(limits, Version::V2),
        );
        for (old, new) in old.into_iter().zip(new) {
            let shown = new.shown.clone();
            let controller = new.controller;
            let unified = self.unified.as_ref().filter(|group| is_given(group, controller));
            let done = match (unified, self.old_group(controller)) {
                (Some(group), _) => write(group, new),
                (None, Some(group)) => write(group, old),
                (None, None) => Err(missing(trees, refused, controller)),
            };
            match done {
                Ok(()) if shown.starts_with("memory=") => self.memory_limit_bytes = limits.memory_bytes,
                Ok(()) => {}
                Err(reason) => {
                    let on_processors = shown.starts_with("cpuset-cpus=");
                    if on_processors {
                        self.affinity.clone_from(&limits.cpuset_cpus);
                    }
                    problems.push(Problem {
                        text: format!("the limit {shown} could not be set: {reason}"),
                        instead: if on_processors { AFFINITY } else { WITHOUT },
                    });
                }
            }
        }
    }

    fn old_group(&self, controller: Controller) -> Option<&Group> {
        let found = self.old.iter().find(|(tree, _)| tree.has(controller));
        found.map(|(_, group)| group)
    }

    /// The group of the unified hierarchy, for `clone3(2)`.
    pub(crate) fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(Group::as_fd)
    }

    /// A step that the kernel would not make in its group. Gives what is to be told.
    ///
    /// # Errors
    /// Of strict limits.
    pub(crate) fn not_entered(&self, error: &dyn std::fmt::Display) -> Result<String, SetupError> {
        let text = format!("the step could not enter its cgroup: {error}");
        if self.strict {
            return Err(strictly(&text));
        }
        Ok(format!("{text}; its limits do not hold"))
    }

    /// Moves the calling process into the groups that `clone3(2)` could not make it in, and makes that what it sees. Gives
    /// what is to be told.
    ///
    /// # Errors
    /// The kernel's, and of strict limits.
    pub(crate) fn enter(&self) -> Result<Vec<String>, SetupError> {
        let mut warnings = Vec::new();
        for (tree, group) in &self.old {
            if let Err(error) = group.enter() {
                warnings.push(self.not_entered(&format!("{}: {error}", tree.mount.display()))?);
            }
        }
        if let Some(list) = &self.affinity
            && let Err(error) = affinity::keep_to(list)
        {
            warnings.push(format!("the step could not be put on processors {list}: {error}"));
        }
        if !self.old.is_empty() {
            rbuild_sys::namespace::unshare_cgroups().during("unshare", "cgroup")?;
        }
        Ok(warnings)
    }

    /// Adds what the groups know to `waited`, which is what was heard by waiting. Call it when the step has ended.
    pub(crate) fn usage(&self, waited: Usage) -> Usage {
        let memory = (self.unified.as_ref(), self.old_group(Controller::Memory));
        let number = |text: String| text.trim().parse::<u64>().ok();
        let keyed = |group: &Group, file: &str, key: &str| {
            let text = group.read(file).ok()?;
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
            value.trim().parse::<u64>().ok()
        };
        let of_either = |file: &str, old_file: &str, read: &dyn Fn(&Group, &str) -> Option<u64>| {
            let new = memory.0.and_then(|group| read(group, file));
            new.or_else(|| read(memory.1?, old_file))
        };
        let kills = of_either("memory.events", "memory.oom_control", &|group, file| {
            keyed(group, file, "oom_kill")
        });
        let peak = of_either("memory.peak", "memory.max_usage_in_bytes", &|group, file| {
            group.read(file).ok().and_then(number)
        });
        let old_cpu = || {
            let accounting = self.old.iter().find(|(tree, _)| accounts(tree))?;
            let ns = accounting.1.read("cpuacct.usage").ok().and_then(number)?;
            Some(ns / 1000)
        };
        let new_cpu = self
            .unified
            .as_ref()
            .and_then(|group| keyed(group, "cpu.stat", "usage_usec"));
        Usage {
            oom: kills.map(|kills| kills > 0),
            memory_limit_bytes: self.memory_limit_bytes,
            memory_peak_bytes: peak,
            cpu_us: new_cpu.or_else(old_cpu).unwrap_or(waited.cpu_us),
            ..waited
        }
    }
}

/// Whether the tree counts processor time, in version 1.
fn accounts(tree: &Hierarchy) -> bool {
    tree.controllers.iter().any(|name| name == "cpuacct")
}

fn is_v2_with_memory(tree: &Hierarchy) -> bool {
    tree.version == Version::V2 && offers(tree, Controller::Memory)
}

/// Whether the unified tree has a controller anywhere.
fn offers(tree: &Hierarchy, controller: Controller) -> bool {
    if tree.version != Version::V2 {
        return false;
    }
    let text = std::fs::read_to_string(tree.mount.join("cgroup.controllers")).unwrap_or_default();
    text.split_whitespace().any(|name| name == controller.name())
}

fn is_given(group: &Group, controller: Controller) -> bool {
    let text = group.read("cgroup.controllers").unwrap_or_default();
    text.split_whitespace().any(|name| name == controller.name())
}

fn write(group: &Group, setting: Setting) -> Result<(), String> {
    for (file, text) in setting.writes.map_err(str::to_owned)? {
        group
            .write(file, &text)
            .map_err(|error| format!("{file}: {error}"))?;
    }
    Ok(())
}

/// A tree in which no group could be made, and the kernel's answer.
type Refused = (PathBuf, std::io::Error);

fn strictly(problem: &str) -> SetupError {
    SetupError::refused("keep", Path::new("--strict-limits"), format!(": {problem}"))
}

/// Why there is no group with a controller.
fn missing(trees: &[Hierarchy], refused: &[Refused], controller: Controller) -> String {
    let name = controller.name();
    let tree = trees
        .iter()
        .find(|tree| tree.has(controller) || offers(tree, controller));
    let Some(tree) = tree else {
        return format!("this machine has no cgroup controller {name}");
    };
    let answer = refused.iter().find(|(mount, _)| *mount == tree.mount);
    let answer = answer.map(|(_, error)| format!(" ({error})")).unwrap_or_default();
    let place = tree.mount.display();
    format!("rbuild may not make a group with the controller {name} below its own in {place}{answer}")
}

/// The controllers of each hierarchy of version 1 that this machine has.
pub(crate) fn old_hierarchies() -> Vec<Vec<String>> {
    let old = |tree: &Hierarchy| tree.version == Version::V1 && tree.is_controlled();
    let found = hierarchy::read().into_iter().filter(old);
    found.map(|tree| tree.controllers).collect()
}
